//! `capture`: to a file, to a pipe, never to a terminal.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::fake::{Ended, Fake, Script};

/// A block of pcapng.
fn block(kind: u32, body: &[u8]) -> Vec<u8> {
    let total = (body.len() as u32 + 12).to_le_bytes();
    [&kind.to_le_bytes()[..], &total, body, &total].concat()
}

fn parts() -> Vec<Vec<u8>> {
    vec![block(0x0a0d_0d0a, &[0xff; 16]), [block(6, &[1; 60]), block(6, &[2; 60])].concat()]
}

async fn fake() -> Fake {
    Fake::start(Script { capture: parts(), ..Script::default() }).await
}

#[tokio::test]
async fn a_capture_goes_to_a_file_and_its_count_to_standard_error() {
    let fake = fake().await;
    let args =
        ["capture", "ospf", "r1:eth1", "r2", "-o", "x.pcapng", "-c", "2", "-s", "96", "--duration", "1m"];
    let ended = fake.run(&[&args[..], &["--", "icmp", "or", "arp"]].concat()).await.expect(0);
    assert_eq!((ended.out.as_str(), ended.err.as_str()), ("", "2 packets captured\n"));
    assert_eq!(std::fs::read(fake.dir.path().join("x.pcapng")).unwrap(), parts().concat());
    let calls = fake.script().calls.clone();
    assert_eq!(calls[0].what, "labs/ospf r1:eth1 r2 [icmp or arp] (96, 2, 60)");

    // A file that exists is left as it is unless it is meant; a request that is refused costs no file even then.
    let ended = fake.run(&["capture", "ospf", "r1:eth1", "-o", "x.pcapng", "-c", "2"]).await.expect(2);
    assert!(ended.err.contains("x.pcapng exists already") && ended.err.contains("--force"), "{}", ended.err);
    let bad = ["capture", "ospf", "r1:eth1", "-o", "x.pcapng", "--force", "-f", "bad"];
    let ended = fake.run(&bad).await.expect(5);
    assert!(ended.err.contains("the filter \"bad\" is wrong"), "{}", ended.err);
    assert_eq!(std::fs::read(fake.dir.path().join("x.pcapng")).unwrap(), parts().concat());
    fake.run(&["capture", "ospf", "r1:eth1", "-o", "x.pcapng", "-c", "2", "--force"]).await.expect(0);
    fake.run(&["capture", "ospf", "r1:eth1", "-o", "/dev/null", "-c", "2"]).await.expect(0);
    let ended = fake.run(&["capture", "ospf", "r1:eth1", "-c", "1", "-o", "/nowhere/x"]).await.expect(1);
    assert!(ended.err.contains("/nowhere/x cannot be written"), "{}", ended.err);
}

#[tokio::test]
async fn a_pipe_gets_the_bytes_as_they_come_and_ctrl_c_ends_it_well() {
    let fake = fake().await;
    let mut child = fake.command(&["capture", "ospf", "r1:eth1"]).spawn().unwrap();
    let mut out = child.stdout.take().unwrap();
    let mut read = vec![0; parts().concat().len()];
    // The stream has no end: what is read here was not held back.
    let reading = tokio::io::AsyncReadExt::read_exact(&mut out, &mut read);
    tokio::time::timeout(Duration::from_secs(30), reading).await.expect("in time").unwrap();
    assert_eq!(read, parts().concat());
    kill(Pid::from_raw(child.id().unwrap() as i32), Signal::SIGINT).unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(30), child.wait_with_output()).await.unwrap();
    let ended = Ended::of(&ended.unwrap()).expect(0);
    assert_eq!(ended.err, "2 packets captured\n");
}

#[tokio::test]
async fn ctrl_c_learns_what_was_lost() {
    let mut statistics = vec![0; 12];
    for (code, number) in [(4u16, 12u64), (5, 7)] {
        statistics.extend([&code.to_le_bytes()[..], &8u16.to_le_bytes(), &number.to_le_bytes()].concat());
    }
    statistics.extend([0; 4]);
    let rest = vec![block(6, &[3; 60]), block(5, &statistics)];
    let fake =
        Fake::start(Script { capture: parts(), capture_rest: rest.clone(), ..Script::default() }).await;
    let child = fake.command(&["capture", "ospf", "r1:eth1", "-o", "x.pcapng"]).spawn().unwrap();
    let file = fake.dir.path().join("x.pcapng");
    let written = || std::fs::metadata(&file).map_or(0, |m| m.len());
    let all = u64::try_from(parts().concat().len()).unwrap();
    netloom_service::testing::eventually("the packets are in the file", Duration::from_secs(30), || async {
        written() == all
    })
    .await;
    kill(Pid::from_raw(child.id().unwrap() as i32), Signal::SIGINT).unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(30), child.wait_with_output()).await.unwrap();
    let ended = Ended::of(&ended.unwrap()).expect(0);
    assert_eq!(ended.err, "3 packets captured, 7 left out since they were not taken in time\n");
    assert_eq!(std::fs::read(&file).unwrap(), [parts().concat(), rest.concat()].concat());
    assert_eq!(fake.script().calls.last().unwrap().what, "labs/ospf r1:eth1");
}

#[tokio::test]
async fn ctrl_c_ends_a_capture_whose_reader_stands_still() {
    let many = vec![block(6, &[1; 65_524]); 64];
    let fake = Fake::start(Script { capture: many, ..Script::default() }).await;
    let mut child = fake.command(&["capture", "ospf", "r1:eth1"]).spawn().unwrap();
    let mut out = child.stdout.take().unwrap();
    // More than the pipe holds is on its way: after the first byte the program waits for its reader.
    let reading = tokio::io::AsyncReadExt::read_u8(&mut out);
    tokio::time::timeout(Duration::from_secs(30), reading).await.expect("in time").unwrap();
    kill(Pid::from_raw(child.id().unwrap() as i32), Signal::SIGINT).unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(30), child.wait_with_output()).await;
    let ended = Ended::of(&ended.expect("it ends").unwrap()).expect(0);
    assert!(ended.err.ends_with(" captured\n"), "{}", ended.err);
    drop(out);
}

#[tokio::test]
async fn a_terminal_gets_no_bytes() {
    let fake = fake().await;
    let terminal = nix::pty::openpty(None, None).unwrap();
    let mut command = fake.command(&["capture", "ospf", "r1:eth1"]);
    command.stdout(std::process::Stdio::from(terminal.slave));
    // Not `output`, which would put a pipe in the terminal's place.
    let ended = tokio::time::timeout(Duration::from_secs(30), command.spawn().unwrap().wait_with_output());
    let ended = Ended::of(&ended.await.expect("in time").unwrap()).expect(2);
    assert!(ended.err.contains("not for a terminal"), "{}", ended.err);
    assert!(fake.methods().is_empty());
}
