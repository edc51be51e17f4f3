//! Ten thousand requests that make no sense, to both APIs: HTTP/JSON, gRPC, and bytes that are neither.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use netloom_service::{Connector, Endpoint};
use netloom_tests::{Mode, Sandbox};
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

use super::{Numbers, is_gone, resident};
use crate::line;

const HTTP: usize = 4_000;
const GRPC: usize = 4_000;
const RAW: usize = 2_000;
/// How much more memory the programs may have after than before.
const GROWTH: u64 = 64 << 20;

/// Bytes as messages.
#[derive(Clone, Copy, Default)]
pub(super) struct Bytes;

impl Codec for Bytes {
    type Encode = Vec<u8>;
    type Decode = ();
    type Encoder = Bytes;
    type Decoder = Bytes;

    fn encoder(&mut self) -> Bytes {
        Bytes
    }

    fn decoder(&mut self) -> Bytes {
        Bytes
    }
}

impl Encoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        bytes::BufMut::put_slice(to, &item);
        Ok(())
    }
}

impl Decoder for Bytes {
    type Item = ();
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<()>, Status> {
        let all = bytes::Buf::remaining(from);
        bytes::Buf::advance(from, all);
        Ok(Some(()))
    }
}

/// Every method of the public API, as its contracts spell them.
fn methods() -> Vec<String> {
    let contracts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto/netloom/v1");
    let mut methods = Vec::new();
    for file in std::fs::read_dir(contracts).expect("the contracts").flatten() {
        let mut service = String::new();
        for line in std::fs::read_to_string(file.path()).expect("a contract").lines() {
            let mut words = line.split([' ', '(']).filter(|w| !w.is_empty());
            match (words.next(), words.next()) {
                (Some("service"), Some(name)) => service = name.to_owned(),
                (Some("rpc"), Some(name)) => methods.push(format!("/netloom.v1.{service}/{name}")),
                _ => {}
            }
        }
    }
    assert!(methods.len() > 20, "{methods:?}");
    methods
}

/// What looks like a protobuf message: fields with numbers, types and lengths that may be true.
fn message(numbers: &mut Numbers, depth: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..numbers.below(6) {
        let field = (1 + numbers.below(20)) << 3;
        match numbers.below(5) {
            0 => bytes.extend([field as u8, numbers.below(128) as u8]),
            1 => bytes.extend(numbers.bytes(9)),
            2 if depth > 0 => {
                let inner = message(numbers, depth - 1);
                let length = if numbers.below(8) == 0 { numbers.below(128) } else { inner.len().min(127) };
                bytes.extend([(field | 2) as u8, length as u8]);
                bytes.extend(inner);
            }
            _ => {
                let text = numbers.text();
                bytes.extend([(field | 2) as u8, text.len().min(127) as u8]);
                bytes.extend(text.as_bytes());
            }
        }
    }
    bytes
}

/// Asks for something; the status of the answer, if one came. With it, whether the request was whole: then one has to come.
fn http(socket: &Path, numbers: &mut Numbers) -> (bool, Option<u16>) {
    const VERBS: [&str; 8] = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "B\u{0}G"];
    const PARTS: [&str; 14] = [
        "v1",
        "labs",
        "labs:import",
        "labs:watch",
        "nodes",
        "links",
        "n1:exec",
        "operations",
        "x:wait",
        "hosts",
        "images",
        "..",
        "%00",
        "kinds",
    ];
    let mut path = String::new();
    for _ in 0..=numbers.below(5) {
        let part =
            if numbers.below(4) == 0 { numbers.text() } else { PARTS[numbers.below(PARTS.len())].to_owned() };
        path += &format!("/{}", part.replace([' ', '\r', '\n'], "%20"));
    }
    if numbers.below(3) == 0 {
        path += &format!("?{}={}", numbers.text().replace([' ', '\r', '\n'], ""), numbers.below(1 << 30));
    }
    let body = match numbers.below(6) {
        0 => numbers.bytes(300),
        1 => "[".repeat(numbers.below(20_000)).into_bytes(),
        2 => format!("{{\"text\":\"{}\"}}", numbers.text().replace(['"', '\\'], "")).into_bytes(),
        3 => format!("{{\"spec\":{{\"nodes\":[{{\"id\":\"{}\",\"kind\":7}}]}}}}", numbers.below(9))
            .into_bytes(),
        4 => b"{\"lab\":{\"spec\":{\"links\":[{},{}]}},\"lab_id\":\"\xff\"}".to_vec(),
        _ => Vec::new(),
    };
    let length = if numbers.below(20) == 0 { numbers.below(1 << 40) } else { body.len() };
    let kind = ["application/json", "application/json; charset=\u{7f}", "text/plain", ""][numbers.below(4)];
    let is_whole = length == body.len();
    // For the rest of a body that never comes nobody has to wait.
    let patience = if is_whole { Duration::from_secs(30) } else { Duration::from_millis(500) };
    let mut stream = UnixStream::connect(socket).expect("the API's socket");
    stream.set_read_timeout(Some(patience)).expect("a bound");
    let head = format!(
        "{} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n",
        VERBS[numbers.below(VERBS.len())]
    );
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
    let mut answer = [0; 64];
    let count = stream.read(&mut answer).unwrap_or_default();
    let text = String::from_utf8_lossy(&answer[..count]).into_owned();
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
    if is_whole && status.is_none() {
        eprintln!("no answer to {head:?}: {text:?}");
    }
    (is_whole, status)
}

/// Bytes that are no request, or a broken one of HTTP/2.
fn raw(socket: &Path, numbers: &mut Numbers) {
    let Ok(mut stream) = UnixStream::connect(socket) else { return };
    let _ = stream.set_read_timeout(Some(Duration::from_millis(20)));
    let mut bytes = Vec::new();
    if numbers.below(3) > 0 {
        bytes.extend(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        for _ in 0..numbers.below(8) {
            let payload = numbers.bytes(64);
            let length = if numbers.below(6) == 0 { numbers.below(1 << 24) } else { payload.len() };
            bytes.extend(&(length as u32).to_be_bytes()[1..]);
            bytes.extend([numbers.below(12) as u8, numbers.below(256) as u8]);
            bytes.extend((numbers.below(9) as u32).to_be_bytes());
            bytes.extend(payload);
        }
    } else {
        bytes = numbers.bytes(2_000);
    }
    let _ = stream.write_all(&bytes);
    let _ = stream.read(&mut [0; 256]);
}

async fn grpc(
    connector: &Connector,
    endpoint: &Endpoint,
    methods: &[String],
    seed: u64,
    count: usize,
) -> usize {
    let answered = Arc::new(AtomicUsize::new(0));
    let mut numbers = Numbers::new(seed);
    let channel = connector.channel(endpoint);
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..count {
        if calls.len() >= 16 {
            calls.join_next().await;
        }
        let method = match numbers.below(20) {
            0 => format!("/netloom.v1.{}/X", numbers.below(9)),
            _ => methods[numbers.below(methods.len())].clone(),
        };
        let body = if numbers.below(4) == 0 { numbers.bytes(400) } else { message(&mut numbers, 3) };
        let (channel, answered) = (channel.clone(), answered.clone());
        calls.spawn(async move {
            let mut client = tonic::client::Grpc::new(channel);
            if client.ready().await.is_err() {
                return;
            }
            let request = tonic::Request::new(body);
            let call = client.server_streaming(request, method.parse().expect("a path"), Bytes);
            // A watch that the nonsense happens to spell never ends: that it began is enough.
            match tokio::time::timeout(Duration::from_secs(2), call).await {
                Ok(Ok(stream)) => {
                    let mut stream = stream.into_inner();
                    let _ = tokio::time::timeout(Duration::from_millis(200), stream.message()).await;
                }
                Ok(Err(status)) => assert_ne!(status.code(), tonic::Code::Internal, "{method}: {status}"),
                Err(_) => {}
            }
            answered.fetch_add(1, Ordering::Relaxed);
        });
    }
    while let Some(done) = calls.join_next().await {
        done.expect("no answer is a fault of netloom's own");
    }
    answered.load(Ordering::Relaxed)
}

fn ten_thousand_requests_that_make_no_sense(mode: Mode) {
    let sandbox = Sandbox::start(mode);
    let lab = sandbox.lab("garbage");
    sandbox.deploy(&line(&lab, 2));
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_nanos() as u64;
    let seed = std::env::var("NETLOOM_TEST_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(seed);
    eprintln!("NETLOOM_TEST_SEED={seed}");
    let (socket, methods) = (sandbox.socket(), methods());
    let send = |share: usize| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (connector, endpoint) = (Connector::default(), Endpoint::Unix(socket.clone()));
        let mut statuses = std::collections::BTreeMap::<u16, usize>::new();
        std::thread::scope(|scope| {
            let socket = &socket;
            let raws = scope.spawn(move || {
                let mut numbers = Numbers::new(seed ^ 3);
                (0..RAW / share).for_each(|_| raw(socket, &mut numbers));
            });
            let https = scope.spawn(move || {
                let mut numbers = Numbers::new(seed ^ 2);
                (0..HTTP / share).map(|_| http(socket, &mut numbers)).collect::<Vec<_>>()
            });
            let answered = runtime.block_on(grpc(&connector, &endpoint, &methods, seed ^ 1, GRPC / share));
            assert_eq!(answered, GRPC / share, "calls that were answered (seed {seed})");
            let https = https.join().expect("HTTP");
            let whole = https.iter().filter(|(is_whole, _)| *is_whole).count();
            assert!(whole * 10 > https.len() * 9, "{whole} of {} requests are whole", https.len());
            let silence = https.iter().filter(|(is_whole, status)| *is_whole && status.is_none()).count();
            assert_eq!(silence, 0, "of {whole} whole requests were not answered (seed {seed})");
            for status in https.into_iter().filter_map(|(_, status)| status) {
                *statuses.entry(status).or_default() += 1;
            }
            raws.join().expect("bytes");
        });
        statuses
    };
    // What is kept of first calls is there before it is measured.
    send(10);
    let before = resident(&sandbox);
    let statuses = send(1);
    let after = resident(&sandbox);
    eprintln!("HTTP statuses {statuses:?}; {} MB resident before, {} after", before >> 20, after >> 20);
    assert!(statuses.len() >= 4, "{statuses:?}");
    assert!(!statuses.contains_key(&500), "{statuses:?} (seed {seed})");
    assert!(after < before + GROWTH, "{before} bytes before, {after} after (seed {seed})");
    assert!(!sandbox.has_died() && !sandbox.logs().contains("panicked"), "seed {seed}");
    // Nothing came of it but what happens to be a lab without nodes, and everything works.
    let labs = sandbox.get("/v1/labs").unwrap().body["labs"].as_array().cloned().unwrap_or_default();
    let (ours, others): (Vec<_>, Vec<_>) =
        labs.iter().partition(|other| other["name"] == format!("labs/{lab}"));
    assert_eq!(ours.len(), 1, "{labs:?} (seed {seed})");
    for other in others {
        assert!(other["nodeCount"].as_u64().unwrap_or_default() == 0, "{other} (seed {seed})");
        let name = other["name"].as_str().expect("its name").trim_start_matches("labs/");
        sandbox.netloom(&["destroy", name, "--yes"]).must();
    }
    sandbox.deploy(&line(&lab, 3));
    super::is_as_asked(&sandbox, &lab, 3, 2);
    is_gone(&sandbox, &lab);
}

in_both_modes!(ten_thousand_requests_that_make_no_sense);
