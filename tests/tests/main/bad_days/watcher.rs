//! A watcher that never reads: it costs a bounded amount of memory, keeps nobody waiting, and is told to list again when what it missed is not kept any more.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use netloom_tests::{Mode, Sandbox, eventually, request};
use serde_json::json;

use super::{BOUND, played, resident};

/// Most that the programs may grow by, for what a watcher does not take.
const GROWTH: u64 = 48 << 20;

fn watch(sandbox: &Sandbox, path: &str) -> UnixStream {
    let mut stream = UnixStream::connect(sandbox.socket()).expect("the API's socket");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("a request");
    stream
}

/// Makes and removes a lab of ten nodes: some forty events.
fn stir(sandbox: &Sandbox, round: usize) {
    let mut text =
        format!("name: stir-{round}\ntopology:\n  defaults: {{kind: linux, image: played}}\n  nodes:\n");
    (0..10).for_each(|n| text += &format!("    a-node-with-a-name-of-some-length-{n}:\n"));
    let body = json!({"text": text, "fileName": "stir.clab.yml"});
    let reply = request(&sandbox.socket(), "POST", "/v1/labs:import", Some(&body)).expect("an answer");
    assert_eq!(reply.status, 200, "{}", reply.text);
    let path = format!("/v1/labs/stir-{round}");
    eventually("the lab is ready", BOUND, || sandbox.get(&path).is_ok_and(|r| r.body["operation"] == ""));
    let reply = request(&sandbox.socket(), "DELETE", &path, None).expect("an answer");
    assert_eq!(reply.status, 200, "{}", reply.text);
    eventually("the lab is gone", BOUND, || sandbox.get(&path).is_ok_and(|r| r.status == 404));
}

fn a_watcher_that_never_reads(mode: Mode) {
    let sandbox = played(mode, "[scheduler]\nevents_kept = 300\n");
    stir(&sandbox, 0);
    let silent: Vec<UnixStream> = (0..20).map(|_| watch(&sandbox, "/v1/labs:watch")).collect();
    let mut reading = watch(&sandbox, "/v1/labs:watch");
    let (tell, told) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        reading.set_read_timeout(Some(Duration::from_secs(30))).expect("a bound");
        let (mut all, mut part) = (Vec::new(), [0; 1 << 16]);
        while let Ok(count @ 1..) = reading.read(&mut part) {
            all.extend(&part[..count]);
            if told.try_recv().is_ok() {
                break;
            }
        }
        String::from_utf8_lossy(&all).into_owned()
    });
    (1..5).for_each(|round| stir(&sandbox, round));
    let before = resident(&sandbox);
    const ROUNDS: usize = 60;
    (5..ROUNDS).for_each(|round| stir(&sandbox, round));
    let after = resident(&sandbox);
    eprintln!("{} MB resident before, {} after", before >> 20, after >> 20);
    assert!(after < before + GROWTH, "{before} bytes before, {after} after");
    tell.send(()).expect("the reader");
    stir(&sandbox, ROUNDS);
    // Who reads was told everything.
    let all = reader.join().expect("the reader");
    for round in 1..ROUNDS {
        assert!(all.contains(&format!("\"labs/stir-{round}\"")), "round {round} was not told");
    }
    assert!(!all.contains("RELIST_NEEDED"), "who reads is never sent away");
    // Who does not is told that it missed something, after what had been sent already.
    for mut stream in silent {
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a bound");
        let (mut all, mut part) = (Vec::new(), [0; 1 << 16]);
        loop {
            match stream.read(&mut part) {
                Ok(count @ 1..) => all.extend(&part[..count]),
                Ok(0) => break,
                Err(e) => panic!("a watcher that missed something is left waiting: {e}"),
            }
            if String::from_utf8_lossy(&all).contains("RELIST_NEEDED") {
                break;
            }
        }
        let all = String::from_utf8_lossy(&all);
        assert!(
            all.contains("RELIST_NEEDED"),
            "it ends without a word: …{}",
            &all[all.len().saturating_sub(300)..]
        );
    }
    assert!(!sandbox.logs().contains("panicked"));
}

in_both_modes!(a_watcher_that_never_reads);
