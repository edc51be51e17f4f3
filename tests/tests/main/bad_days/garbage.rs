//! Ten thousand requests that make no sense, to both APIs by both doors: HTTP/JSON, gRPC, and bytes that are neither.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
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
/// One in so many goes to the TCP door, the others to the socket.
const BY_TCP: usize = 4;
/// Where the TCP door is.
const ADDRESS: &str = "127.0.0.1:7600";
/// Longest time for what has to be answered.
const PATIENCE: Duration = Duration::from_secs(30);
/// How much more memory the programs may have after than before.
const GROWTH: u64 = 64 << 20;

/// A way into the gateway.
enum Door {
    Socket(PathBuf),
    /// With the token that opens it, which every request shows.
    Tcp(String),
}

impl Door {
    /// A connection. Whatever a socket's family is, it is read and written alike.
    fn connect(&self) -> io::Result<UnixStream> {
        match self {
            Door::Socket(path) => UnixStream::connect(path),
            Door::Tcp(_) => Ok(OwnedFd::from(TcpStream::connect(ADDRESS)?).into()),
        }
    }

    fn endpoint(&self) -> Endpoint {
        match self {
            Door::Socket(path) => Endpoint::Unix(path.clone()),
            Door::Tcp(_) => Endpoint::Tcp(ADDRESS.to_owned()),
        }
    }

    /// What is shown at it: nothing at the socket.
    fn bearer(&self) -> Option<String> {
        match self {
            Door::Socket(_) => None,
            Door::Tcp(token) => Some(format!("Bearer {token}")),
        }
    }

    /// How many of so many it gets.
    fn share(&self, all: usize) -> usize {
        match self {
            Door::Socket(_) => all - all / BY_TCP,
            Door::Tcp(_) => all / BY_TCP,
        }
    }
}

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

/// A method of the public API, and whether its answer is a stream, which may have nothing to say for as long as it likes.
#[derive(Clone)]
struct Method {
    path: String,
    streams: bool,
}

/// Every method of the public API, as its contracts spell them.
fn methods() -> Vec<Method> {
    let contracts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto/netloom/v1");
    let mut methods = Vec::new();
    for file in std::fs::read_dir(contracts).expect("the contracts").flatten() {
        let mut service = String::new();
        for line in std::fs::read_to_string(file.path()).expect("a contract").lines() {
            let mut words = line.split([' ', '(']).filter(|w| !w.is_empty());
            match (words.next(), words.next()) {
                (Some("service"), Some(name)) => service = name.to_owned(),
                (Some("rpc"), Some(name)) => {
                    let streams = line.contains("returns (stream ");
                    assert!(streams || line.contains("returns ("), "{line}");
                    methods.push(Method { path: format!("/netloom.v1.{service}/{name}"), streams });
                }
                _ => {}
            }
        }
    }
    let streams = methods.iter().filter(|method| method.streams).count();
    assert!(
        methods.len() > 20 && streams > 0 && streams < methods.len() / 2,
        "{streams} of {}",
        methods.len()
    );
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
fn http(door: &Door, numbers: &mut Numbers) -> (bool, Option<u16>) {
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
    let patience = if is_whole { PATIENCE } else { Duration::from_millis(500) };
    let token = door.bearer().map_or(String::new(), |bearer| format!("Authorization: {bearer}\r\n"));
    let mut stream = door.connect().expect("the API's door");
    stream.set_read_timeout(Some(patience)).expect("a bound");
    let head = format!(
        "{} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{token}Content-Type: {kind}\r\nContent-Length: {length}\r\n\r\n",
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
fn raw(door: &Door, numbers: &mut Numbers) {
    let Ok(mut stream) = door.connect() else { return };
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

/// Calls so many methods; how many were answered.
async fn grpc(door: &Door, methods: &[Method], mut numbers: Numbers, count: usize) -> usize {
    let answered = Arc::new(AtomicUsize::new(0));
    let channel = Connector::default().channel(&door.endpoint());
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..count {
        if calls.len() >= 16 {
            calls.join_next().await;
        }
        let method = match numbers.below(20) {
            0 => Method { path: format!("/netloom.v1.{}/X", numbers.below(9)), streams: false },
            _ => methods[numbers.below(methods.len())].clone(),
        };
        let body = if numbers.below(4) == 0 { numbers.bytes(400) } else { message(&mut numbers, 3) };
        let (channel, answered) = (channel.clone(), answered.clone());
        let mut request = tonic::Request::new(body);
        if let Some(bearer) = door.bearer() {
            request.metadata_mut().insert("authorization", bearer.parse().expect("a header"));
        }
        calls.spawn(async move {
            let Method { path, streams } = method;
            let mut client = tonic::client::Grpc::new(channel);
            if client.ready().await.is_err() {
                return;
            }
            let call = async {
                let call = client.server_streaming(request, path.parse().expect("a path"), Bytes);
                call.await?.into_inner().message().await
            };
            // A watch that the nonsense happens to spell never ends: of a stream it is enough that it began, or waits.
            let patience = if streams { Duration::from_secs(2) } else { PATIENCE };
            match tokio::time::timeout(patience, call).await {
                Ok(Ok(_)) => {}
                Ok(Err(status)) => assert_ne!(status.code(), tonic::Code::Internal, "{path}: {status}"),
                Err(_) if streams => {}
                Err(_) => panic!("{path} is not answered"),
            }
            answered.fetch_add(1, Ordering::Relaxed);
        });
    }
    while let Some(done) = calls.join_next().await {
        done.expect("no answer is a fault of netloom's own");
    }
    answered.load(Ordering::Relaxed)
}

/// How often an HTTP request was answered with each status.
type Statuses = BTreeMap<u16, usize>;

/// Sends one in so many of all requests by a door, each kind beside the others.
fn send(sandbox: &Sandbox, door: &Door, methods: &[Method], seed: u64, one_in: usize) -> Statuses {
    let begin = |of: u64| match door {
        Door::Socket(_) => Numbers::new(seed ^ of),
        Door::Tcp(_) => {
            sandbox.enter_namespace();
            Numbers::new(seed.rotate_left(32) ^ of)
        }
    };
    let count = |all| door.share(all / one_in);
    std::thread::scope(|scope| {
        let raws = scope.spawn(|| {
            let mut numbers = begin(3);
            (0..count(RAW)).for_each(|_| raw(door, &mut numbers));
        });
        let https = scope.spawn(|| {
            let mut numbers = begin(2);
            (0..count(HTTP)).map(|_| http(door, &mut numbers)).collect::<Vec<_>>()
        });
        let calls = scope.spawn(|| {
            let numbers = begin(1);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(grpc(door, methods, numbers, count(GRPC)))
        });
        assert_eq!(calls.join().expect("gRPC"), count(GRPC), "calls that were answered (seed {seed})");
        let https = https.join().expect("HTTP");
        let whole = https.iter().filter(|(is_whole, _)| *is_whole).count();
        assert!(whole * 10 > https.len() * 9, "{whole} of {} requests are whole", https.len());
        let silence = https.iter().filter(|(is_whole, status)| *is_whole && status.is_none()).count();
        assert_eq!(silence, 0, "of {whole} whole requests were not answered (seed {seed})");
        raws.join().expect("bytes");
        let mut statuses = Statuses::new();
        for status in https.into_iter().filter_map(|(_, status)| status) {
            *statuses.entry(status).or_default() += 1;
        }
        statuses
    })
}

fn ten_thousand_requests_that_make_no_sense(mode: Mode) {
    let sandbox = Sandbox::start(mode);
    let lab = sandbox.lab("garbage");
    sandbox.deploy(&line(&lab, 2));
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_nanos() as u64;
    let seed = std::env::var("NETLOOM_TEST_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(seed);
    eprintln!("NETLOOM_TEST_SEED={seed}");
    let token = std::fs::read_to_string(sandbox.data_dir().join("admin.token")).expect("a token");
    let doors = [Door::Socket(sandbox.socket()), Door::Tcp(token.trim().to_owned())];
    let methods = methods();
    let send = |one_in: usize| {
        std::thread::scope(|scope| {
            let (sandbox, methods) = (&sandbox, &methods);
            let of = |door| scope.spawn(move || send(sandbox, door, methods, seed, one_in));
            doors.each_ref().map(of).map(|sent| sent.join().expect("a door"))
        })
    };
    // What is kept of first calls is there before it is measured.
    send(10);
    let before = resident(&sandbox);
    let statuses = send(1);
    let after = resident(&sandbox);
    eprintln!("HTTP statuses {statuses:?}; {} MB resident before, {} after", before >> 20, after >> 20);
    for statuses in &statuses {
        assert!(statuses.len() >= 4, "{statuses:?}");
        assert!(!statuses.contains_key(&500), "{statuses:?} (seed {seed})");
        // Its token opens the TCP door.
        assert!(!statuses.contains_key(&401), "{statuses:?} (seed {seed})");
    }
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
