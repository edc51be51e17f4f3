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
