//! shell, on a terminal only.

use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use netloom_api::v1 as api;
use netloom_service::testing::eventually;
use nix::libc;
use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, tcgetattr};
use nix::unistd::Pid;

use crate::fake::{Fake, Script};

const BOUND: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_pipe_is_no_terminal() {
    let fake = Fake::start(Script::default()).await;
    let ended = fake.run_with_input(&["shell", "x", "r1"], b"show version\n").await.expect(2);
    assert!(ended.err.contains("netloom exec x r1 -i -- CMD"), "{}", ended.err);
    assert!(fake.methods().is_empty());
}

#[tokio::test]
async fn the_terminal_is_raw_while_it_lasts_and_as_before_after_a_signal() {
    let fake = Fake::start(Script::default()).await;
    let size = Winsize { ws_row: 30, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
    let terminal = openpty(Some(&size), None).unwrap();
    let is_raw = |fd: &OwnedFd| !tcgetattr(fd.as_fd()).unwrap().local_flags.contains(LocalFlags::ICANON);
    let side = || terminal.slave.try_clone().unwrap();

    let mut command = fake.command(&["shell", "x", "r1"]);
    let mut child = command.stdin(side()).stdout(side()).stderr(side()).spawn().unwrap();
    eventually("the terminal is raw", BOUND, || async { is_raw(&terminal.slave) }).await;
    let told = || fake.script().shell_size;
    assert_eq!(told(), Some(api::ShellSize { columns: 100, rows: 30 }));

    let size = Winsize { ws_row: 40, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the descriptor is open, and the call reads one winsize that lives until it returns.
    let resized = unsafe {
        libc::ioctl(std::os::fd::AsRawFd::as_raw_fd(&terminal.master), libc::TIOCSWINSZ, &raw const size)
    };
    assert_eq!(resized, 0);
    // The terminal is not the program's controlling one here, so the signal does not come by itself.
    let pid = Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap());
    kill(pid, Signal::SIGWINCH).unwrap();
    let bigger = Some(api::ShellSize { columns: 120, rows: 40 });
    eventually("the node knows the new size", BOUND, || async { told() == bigger }).await;

    kill(pid, Signal::SIGTERM).unwrap();
    let status = tokio::time::timeout(BOUND, child.wait()).await.expect("it ends").unwrap();
    assert_eq!(status.code(), Some(130));
    assert!(!is_raw(&terminal.slave), "the terminal is as before");
}

#[tokio::test]
async fn the_terminal_is_as_before_when_the_shell_ends() {
    let fake = Fake::start(Script::default()).await;
    let terminal = openpty(None, None).unwrap();
    let before = tcgetattr(terminal.slave.as_fd()).unwrap();
    let side = || terminal.slave.try_clone().unwrap();
    let mut command = fake.command(&["shell", "x", "r1"]);
    let mut child = command.stdin(side()).stdout(side()).stderr(side()).spawn().unwrap();
    let raw = || async { tcgetattr(terminal.slave.as_fd()).unwrap() != before };
    eventually("the terminal is raw", BOUND, raw).await;
    nix::unistd::write(&terminal.master, b"\x04").unwrap();
    let status = tokio::time::timeout(BOUND, child.wait()).await.expect("it ends").unwrap();
    assert_eq!(status.code(), Some(7));
    assert_eq!(tcgetattr(terminal.slave.as_fd()).unwrap(), before);
    assert_eq!(fake.script().shell_input, b"\x04");
}

/// Opens a console on a terminal, types this once the terminal is raw, and returns how it ended and what was shown.
async fn console(fake: &Fake, args: &[&str], typed: &[u8]) -> (Option<i32>, String) {
    let terminal = openpty(None, None).unwrap();
    let before = tcgetattr(terminal.slave.as_fd()).unwrap();
    let side = || terminal.slave.try_clone().unwrap();
    let mut child = fake.command(args).stdin(side()).stdout(side()).stderr(side()).spawn().unwrap();
    let raw = || async { tcgetattr(terminal.slave.as_fd()).unwrap() != before };
    eventually("the terminal is raw", BOUND, raw).await;
    nix::unistd::write(&terminal.master, typed).unwrap();
    let status = tokio::time::timeout(BOUND, child.wait()).await.expect("it ends").unwrap();
    assert_eq!(tcgetattr(terminal.slave.as_fd()).unwrap(), before, "the terminal is as before");
    // One read may give a part. With the last of its other side closed, a terminal ends with an error once all was read.
    drop(terminal.slave);
    let (mut shown, mut part) = (Vec::new(), [0; 4_096]);
    while let Ok(read @ 1..) = nix::unistd::read(&terminal.master, &mut part) {
        shown.extend_from_slice(&part[..read]);
    }
    (status.code(), String::from_utf8_lossy(&shown).into_owned())
}

fn with_node(runtime: api::Runtime) -> Script {
    let node = api::Node {
        name: "labs/x/nodes/r1".into(),
        kind: "frr".into(),
        runtime: runtime.into(),
        ..api::Node::default()
    };
    Script { nodes: vec![node], ..Script::default() }
}

#[tokio::test]
async fn a_key_leaves_the_console_and_the_terminal_is_as_before() {
    let fake = Fake::start(with_node(api::Runtime::Docker)).await;
    let (code, shown) = console(&fake, &["console", "x", "r1"], b"ls\x1dnot sent").await;
    assert_eq!(code, Some(0));
    assert!(shown.contains("Console of r1 in lab x: the shell of kind frr. Ctrl-] leaves it."), "{shown}");
    assert!(shown.contains("Left the console of r1"), "{shown}");
    let sent = || async { !fake.script().shell_input.is_empty() };
    eventually("what was typed before the key is sent", BOUND, sent).await;
    assert_eq!(fake.script().shell_input, b"ls");

    fake.script().shell_input.clear();
    let (code, _) = console(&fake, &["console", "x", "r1", "--detach-key", "none"], b"\x1d\x04").await;
    assert_eq!(code, Some(7), "without a key only the end of the shell leaves");
    assert_eq!(fake.script().shell_input, b"\x1d\x04");
}

#[tokio::test]
async fn the_console_of_a_machine_is_its_serial_port() {
    let fake = Fake::start(with_node(api::Runtime::Libvirt)).await;
    let (code, shown) = console(&fake, &["console", "x", "r1", "--take"], b"ls\x1dnot sent").await;
    assert_eq!(code, Some(0));
    assert!(shown.contains("Console of r1 in lab x: its serial port. Ctrl-] leaves it."), "{shown}");
    assert!(shown.contains("labs/x/nodes/r1 false true"), "{shown}");
    assert!(shown.contains("Left the console of r1"), "{shown}");
    let sent = || async { !fake.script().shell_input.is_empty() };
    eventually("what was typed before the key is sent", BOUND, sent).await;
    assert_eq!(fake.script().shell_input, b"ls");

    let (code, shown) = console(&fake, &["console", "x", "r1", "--read-only"], b"\x04").await;
    assert_eq!(code, Some(0));
    assert!(shown.contains("its serial port, to be read") && shown.contains("r1 true false"), "{shown}");
    assert!(shown.contains("r1 does not run any more"), "{shown}");

    let (code, shown) = console(&fake, &["console", "x", "r1"], b"t\x04").await;
    assert_eq!(code, Some(0));
    assert!(shown.contains("[somebody else writes to this console now"), "{shown}");
    assert!(!fake.methods().contains(&"OpenShell"));
}

#[tokio::test]
async fn every_signal_that_ends_a_console_gives_the_terminal_back() {
    let kinds = [(api::Runtime::Libvirt, "a machine"), (api::Runtime::Docker, "a container")];
    let signals = [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT];
    for ((runtime, of), signal) in kinds.into_iter().flat_map(|kind| signals.map(|signal| (kind, signal))) {
        let fake = Fake::start(with_node(runtime)).await;
        let terminal = openpty(None, None).unwrap();
        let before = tcgetattr(terminal.slave.as_fd()).unwrap();
        let side = || terminal.slave.try_clone().unwrap();
        let mut command = fake.command(&["console", "x", "r1"]);
        let mut child = command.stdin(side()).stdout(side()).stderr(side()).spawn().unwrap();
        let raw = || async { tcgetattr(terminal.slave.as_fd()).unwrap() != before };
        eventually("the terminal is raw", BOUND, raw).await;
        kill(Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()), signal).unwrap();
        let status = tokio::time::timeout(BOUND, child.wait()).await.expect("it ends").unwrap();
        assert_eq!(status.code(), Some(130));
        assert_eq!(tcgetattr(terminal.slave.as_fd()).unwrap(), before, "of {of}, as before {signal}");
    }
}

#[tokio::test]
async fn what_has_no_console_is_told_before_anything_is_opened() {
    let fake = Fake::start(with_node(api::Runtime::Bridge)).await;
    let ended = fake.run(&["console", "x", "r1"]).await.expect(2);
    assert!(ended.err.contains("console needs a terminal"), "{}", ended.err);
    let refused = async |args: &[&str]| {
        let terminal = openpty(None, None).unwrap();
        let mut command = fake.command(args);
        let child = command.stdin(terminal.slave.try_clone().unwrap()).spawn().unwrap();
        let output = tokio::time::timeout(BOUND, child.wait_with_output()).await.expect("it ends").unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, said) = refused(&["console", "x", "r1"]).await;
    assert_eq!(code, Some(1));
    assert!(said.contains("[CONSOLE_NOT_SUPPORTED]") && said.contains("is a bridge"), "{said}");
    fake.script().nodes[0].set_runtime(api::Runtime::Docker);
    let (code, said) = refused(&["console", "x", "r1", "--take"]).await;
    assert_eq!(code, Some(2));
    assert!(said.contains("leave --take and --read-only out"), "{said}");
    assert!(!fake.methods().contains(&"OpenShell") && !fake.methods().contains(&"OpenConsole"));
}
