//! What the gateway adds to a call: the call through it, less the same call at the scheduler, against an echo behind the same layers.

use std::time::{Duration, Instant};

use netloom_api::v1 as api;
use netloom_benches::{row, size, text, told};
use netloom_proto::scheduler::v1 as ps;
use netloom_proto::scheduler::v1::scheduler_service_client::SchedulerServiceClient;
use netloom_service::{Connector, Endpoint};
use netloom_tests::{Mode, Sandbox};
use prost::Message as _;

use crate::floor::Server;
use crate::rig::{labs, links, runtime};

/// Calls in a row before another one's turn comes.
const BLOCK: usize = 50;

pub fn rows() {
    // Processes of their own: what is between them is what is measured.
    let sandbox = Sandbox::start_with(Mode::Five, "[compute]\ndrivers = [\"sim\"]\n");
    let lab = sandbox.lab("latency");
    sandbox.deploy(&crate::rig::topology(&lab, 2, &links(2)[..0].to_vec()));
    let socket = sandbox.path().join("run/scheduler.sock");
    runtime().block_on(async {
        let name = format!("labs/{lab}");
        let mut through = labs(&sandbox.socket());
        let channel = Connector::default().channel(&Endpoint::Unix(socket));
        let mut direct = SchedulerServiceClient::new(channel);
        let request = api::GetLabRequest { name: name.clone() };
        let answer = through.get_lab(request.clone()).await.expect("a lab").into_inner();
        let whole = api::ListLabsResponse { labs: vec![answer], next_page_token: String::new() };
        let server = Server::start(sandbox.path(), &whole.encode_to_vec(), None);
        let mut echo = labs(server.socket());

        let (mut t, mut d, mut e) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..=size(40, 2) {
            // The first round warms up.
            let kept = |times: &mut Vec<Duration>, took| times.extend((round > 0).then_some(took));
            for _ in 0..BLOCK {
                let begin = Instant::now();
                through.get_lab(request.clone()).await.expect("a lab");
                kept(&mut t, begin.elapsed());
            }
            for _ in 0..BLOCK {
                let begin = Instant::now();
                direct.get_lab(ps::GetLabRequest { lab: lab.clone() }).await.expect("a lab");
                kept(&mut d, begin.elapsed());
            }
            for _ in 0..BLOCK {
                let begin = Instant::now();
                echo.get_lab(request.clone()).await.expect("a lab");
                kept(&mut e, begin.elapsed());
            }
        }
        let [through, direct, echo] = [t, d, e].map(|mut times| {
            times.sort();
            times[times.len() / 2]
        });
        told("a call through the gateway, and at the scheduler", &text(through), &text(direct), "");
        row(
            "added by the gateway / an echo behind the same layers",
            through.saturating_sub(direct),
            echo,
            1.5,
        );
    });
}
