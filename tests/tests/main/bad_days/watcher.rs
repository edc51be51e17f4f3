//! A watcher that never reads: it costs a bounded amount of memory, keeps nobody waiting, and is told to list again when what it missed is not kept any more.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use netloom_service::{Connector, Endpoint};
use netloom_tests::{Mode, Sandbox, eventually, request};
use serde_json::json;
use tonic::Streaming;

use super::garbage::Bytes;
use super::{BOUND, played, resident};

/// Most that the programs may grow by, for what a watcher does not take.
const GROWTH: u64 = 48 << 20;

fn watch(sandbox: &Sandbox, path: &str) -> UnixStream {
    let mut stream = UnixStream::connect(sandbox.socket()).expect("the API's socket");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("a request");
    stream
}

/// A watch over gRPC, of which nobody takes a message.
async fn watch_over_grpc(sandbox: &Sandbox) -> Streaming<()> {
    let channel = Connector::default().channel(&Endpoint::Unix(sandbox.socket()));
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.expect("the API");
    let method = "/netloom.v1.LabService/WatchLabs".parse().expect("a path");
    let everything = tonic::Request::new(Vec::new());
    client.server_streaming(everything, method, Bytes).await.expect("a stream").into_inner()
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
    let silent: Vec<UnixStream> = (0..10).map(|_| watch(&sandbox, "/v1/labs:watch")).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let over_grpc: Vec<Streaming<()>> =
        (0..10).map(|_| runtime.block_on(watch_over_grpc(&sandbox))).collect();
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
    for mut stream in over_grpc {
        let ends = async {
            loop {
                match stream.message().await {
                    Ok(Some(())) => {}
                    Ok(None) => panic!("it ends without a word"),
                    Err(status) => break status,
                }
            }
        };
        let bounded = async { tokio::time::timeout(Duration::from_secs(30), ends).await };
        let status = runtime.block_on(bounded).expect("a watcher that missed something is left waiting");
        let reason = String::from_utf8_lossy(status.details()).into_owned();
        assert_eq!(status.code(), tonic::Code::OutOfRange, "{status}");
        assert!(reason.contains("RELIST_NEEDED"), "{status}");
    }
    assert!(!sandbox.logs().contains("panicked"));
}

in_both_modes!(a_watcher_that_never_reads);
