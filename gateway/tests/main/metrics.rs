//! Figures: what Prometheus reads of a gateway, and that they move.

use std::collections::BTreeMap;

use netloom_service::testing::eventually;
use serde_json::json;

use crate::fixture::DONE;
use crate::rig::{BOUND, Rig};

/// Prometheus' text format, read strictly: each figure has its help and its type before its values.
#[derive(Default)]
struct Figures {
    kinds: BTreeMap<String, String>,
    values: BTreeMap<String, f64>,
}

impl Figures {
    fn read(text: &str) -> Figures {
        let mut figures = Figures::default();
        let mut helped = String::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').unwrap();
                assert!(help.ends_with('.'), "{name} is not explained in a sentence: {help}");
                helped = name.to_owned();
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert_eq!(name, helped, "a type without its help");
                figures.kinds.insert(name.to_owned(), kind.to_owned());
            } else {
                let (name, value) = line.rsplit_once(' ').unwrap();
                let bare = name.split('{').next().unwrap();
                let of =
                    ["_bucket", "_sum", "_count"].iter().find_map(|s| bare.strip_suffix(s)).unwrap_or(bare);
                assert!(
                    figures.kinds.contains_key(of) || figures.kinds.contains_key(bare),
                    "{name} has no type"
                );
                figures.values.insert(name.to_owned(), value.parse().unwrap());
            }
        }
        figures
    }

    fn value(&self, name: &str) -> f64 {
        self.values.get(name).copied().unwrap_or(0.0)
    }
}

async fn figures(rig: &Rig) -> Figures {
    let answer = rig.get("/metrics").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    Figures::read(&answer.text)
}

#[tokio::test]
async fn names_and_kinds_follow_the_rules() {
    let rig = Rig::new().await;
    rig.get("/v1/labs").await;
    let figures = figures(&rig).await;
    for (name, kind) in [
        ("netloom_rpc_requests_total", "counter"),
        ("netloom_rpc_duration_seconds", "histogram"),
        ("netloom_rpc_in_flight", "gauge"),
        ("netloom_gateway_requests_total", "counter"),
    ] {
        assert_eq!(figures.kinds.get(name).map(String::as_str), Some(kind), "{name}");
    }
    for (name, kind) in &figures.kinds {
        assert!(name.starts_with("netloom_"), "{name}");
        assert_eq!(name.ends_with("_total"), kind == "counter", "{name} is a {kind}");
        assert!(kind != "histogram" || name.ends_with("_seconds"), "{name} is a {kind}");
    }
}

#[tokio::test]
async fn a_call_is_counted_once_whatever_its_form() {
    let rig = Rig::new().await;
    // Kinds are asked for by no other test in this way: tests run side by side, and the figures are the process'.
    let labels = "service=\"netloom.v1.KindService\",method=\"GetKind\",code=\"NOT_FOUND\"";
    let sorted = {
        let mut all: Vec<&str> = labels.split(',').collect();
        all.sort_unstable();
        all.join(",")
    };
    let count = |f: &Figures| f.value(&format!("netloom_rpc_requests_total{{{sorted}}}"));
    let before = count(&figures(&rig).await);
    for _ in 0..3 {
        assert_eq!(rig.get("/v1/kinds/not-a-kind-at-all").await.status, 404);
    }
    for _ in 0..2 {
        rig.grpc_failure("KindService/GetKind", &json!({"name": "kinds/not-a-kind-at-all"})).await;
    }
    let after = figures(&rig).await;
    assert!(count(&after) - before >= 5.0, "{before} → {}", count(&after));
    let seconds = format!("netloom_rpc_duration_seconds_count{{{sorted}}}");
    assert_eq!(after.value(&seconds), count(&after), "each call is timed");
    assert!(after.value("netloom_gateway_requests_total{form=\"http\",status=\"404\"}") >= 3.0);
    assert!(after.value("netloom_gateway_requests_total{form=\"grpc\",status=\"200\"}") >= 2.0);
}

#[tokio::test]
async fn streams_count_when_they_end_and_watchers_while_they_are_there() {
    let rig = Rig::new().await;
    let watchers = "netloom_gateway_watchers{stream=\"labs\"}";
    let given_up = "netloom_rpc_requests_total{code=\"CANCELLED\",method=\"WatchLabs\",service=\"netloom.v1.LabService\"}";
    let before = figures(&rig).await.value(given_up);
    let watching = rig.send("GET", "/v1/labs:watch", &[], Vec::new()).await;
    assert!(figures(&rig).await.value(watchers) >= 1.0);
    drop(watching);
    eventually("the call that was given up is counted", BOUND, || async {
        figures(&rig).await.value(given_up) > before
    })
    .await;
    let ended = "netloom_rpc_requests_total{code=\"OK\",method=\"WatchOperation\",service=\"netloom.v1.OperationService\"}";
    let before = figures(&rig).await.value(ended);
    assert_eq!(rig.get(&format!("/v1/operations/{DONE}:watch")).await.status, 200);
    eventually("the stream that ended is counted", BOUND, || async {
        figures(&rig).await.value(ended) > before
    })
    .await;
}

#[tokio::test]
async fn callers_cannot_make_figures_grow() {
    let rig = Rig::new().await;
    rig.raw_grpc("LabService/NoSuchMethodOfAnyService", &[], Vec::new()).await;
    let text = rig.get("/metrics").await.text;
    assert!(!text.contains("NoSuchMethod"), "{text}");
    assert!(text.contains("method=\"unknown\""), "{text}");
}

#[tokio::test]
async fn figures_need_the_token_like_everything_else() {
    let rig = Rig::new().await;
    for path in ["/metrics", "/openapi.json"] {
        let answer = rig.http("GET", path, &[("authorization", "")], "").await;
        assert_eq!((answer.status.as_u16(), answer.reason().as_str()), (401, "TOKEN_INVALID"), "{path}");
    }
}

#[tokio::test]
async fn an_address_of_their_own_needs_none() {
    let shutdown = netloom_service::Shutdown::new();
    let address = netloom_service::scrape::listen("127.0.0.1:0", shutdown.clone()).await.unwrap();
    let ask = |path: &'static str| async move {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request =
            http::Request::get(path).header("host", "x").body(http_body_util::Empty::<bytes::Bytes>::new());
        let response = sender.send_request(request.unwrap()).await.unwrap();
        (
            response.status().as_u16(),
            http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes(),
        )
    };
    let _rig = Rig::new().await;
    let (status, text) = ask("/metrics").await;
    assert_eq!(status, 200);
    Figures::read(std::str::from_utf8(&text).unwrap());
    assert_eq!(ask("/v1/labs").await.0, 404, "nothing else is there");
    shutdown.cancel();
    let taken = netloom_service::scrape::listen("256.0.0.1:1", shutdown).await.unwrap_err();
    assert!(taken.to_string().contains("256.0.0.1:1"), "{taken}");
}
