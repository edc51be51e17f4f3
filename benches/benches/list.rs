//! A list of labs with their counts.

use std::time::{Duration, Instant};

use futures::StreamExt as _;
use netloom_api::v1 as api;
use netloom_benches::{Turns, size, timed, told};
use netloom_tests::{Mode, Sandbox, eventually};
use prost::Message as _;

use crate::floor::Server;
use crate::rig::{IMAGE, labs, runtime};

const NODES: usize = 14;

pub fn rows() {
    let count = size(1000, 20);
    let more = "[compute]\ndrivers = [\"sim\"]\n[compute.sim]\ncpu_millis = 10000000\nmemory_bytes = 100000000000000\n";
    let sandbox = Sandbox::start_with(Mode::One, more);
    let runtime = runtime();
    // Channels are made within.
    let _within = runtime.enter();
    let (took, ()) = timed(|| runtime.block_on(deploy(&sandbox, count)));
    told(&format!("deploy {count} labs of {NODES} simulated nodes"), &netloom_benches::text(took), "", "");
    let ask = |client: &mut Client| {
        let request = api::ListLabsRequest { page_size: 1000, page_token: String::new() };
        runtime.block_on(async {
            let begin = Instant::now();
            let answer = client.list_labs(request).await.expect("a list").into_inner();
            (begin.elapsed(), answer)
        })
    };
    let (mut netloom, whole) = (labs(&sandbox.socket()), std::cell::RefCell::new(None));
    eventually("all labs are ready", Duration::from_secs(600), || {
        let (_, answer) = ask(&mut netloom);
        let ready =
            answer.labs.iter().filter(|l| l.ready_count as usize == NODES && l.operation.is_empty()).count();
        *whole.borrow_mut() = Some(answer);
        ready == count
    });
    let whole = whole.into_inner().expect("an answer");
    let server =
        Server::start(sandbox.path(), &whole.encode_to_vec(), Some(&sandbox.data_dir().join("scheduler.db")));
    let mut floor = labs(server.socket());
    let (_, by_hand) = ask(&mut floor);
    assert_eq!(by_hand.labs.len(), count);
    assert!(by_hand.labs.iter().all(|l| l.ready_count as usize == NODES), "the floor counts what is there");
    for _ in 0..3 {
        ask(&mut netloom);
        ask(&mut floor);
    }
    let rounds = size(15, 3);
    let turns = Turns::take(rounds, || ask(&mut netloom).0, || ask(&mut floor).0);
    let what = format!("list {count} labs × {NODES} nodes");
    turns.row(&format!("{what}, gRPC / one query and the encoding"), 2.0);
    let json = || {
        let (took, reply) = timed(|| sandbox.get("/v1/labs?pageSize=1000").expect("an answer"));
        assert_eq!(reply.status, 200);
        took
    };
    json();
    let turns = Turns::take(rounds, json, || ask(&mut floor).0);
    turns.row(&format!("{what}, JSON / one query and the encoding"), 4.0);
}

type Client = api::lab_service_client::LabServiceClient<netloom_service::Channel>;

async fn deploy(sandbox: &Sandbox, count: usize) {
    let mut text = format!("topology:\n  defaults: {{kind: linux, image: {IMAGE}}}\n  nodes:\n");
    for n in 0..NODES {
        text += &format!("    n{n}:\n");
    }
    let (client, text) = (labs(&sandbox.socket()), &text);
    let import = |n: usize| {
        let mut client = client.clone();
        async move {
            let text = format!("name: lab{n:04}\n{text}");
            let request = api::ImportLabRequest { text, ..api::ImportLabRequest::default() };
            // A host that is too busy to be heard of for a moment is asked again.
            loop {
                match client.import_lab(request.clone()).await {
                    Ok(_) => return,
                    Err(e) if e.code() == tonic::Code::Unavailable => {
                        tokio::time::sleep(Duration::from_millis(500)).await;
                    }
                    Err(e) => panic!("lab {n}: {e}"),
                }
            }
        }
    };
    futures::stream::iter((0..count).map(import)).buffer_unordered(4).collect::<Vec<()>>().await;
}
