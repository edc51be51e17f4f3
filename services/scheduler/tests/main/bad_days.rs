//! Bad days of hosts and of the scheduler among them: nothing is lost, nothing is there twice, nothing is left.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use netloom_proto::scheduler::v1 as ps;
use netloom_proto::v1 as p;
use netloom_scheduler::store::{Database, Store};
use netloom_service::testing::postgres::Postgres;
use netloom_service::testing::wire::Wire;
use netloom_service::testing::{eventually, require};
use netloom_service::ticket;
use tokio::time::{Instant, timeout};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::fake::Existing;
use crate::world::{BOUND, World, spec};

/// A host whose every call takes ten seconds keeps waiting who needs it, and nobody else.
#[tokio::test]
async fn a_slow_host_slows_no_other() {
    let world = World::with(&["h1", "h2"], "").await;
    let mut wide = spec(2, &[(1, 2)]);
    wide.nodes.iter_mut().for_each(|node| node.cpu_request_millis = 3_000);
    let [slow, other] = world.hosts.as_slice() else { panic!("two hosts") };
    slow.with(|s| s.slow = true);
    let begun = Instant::now();
    let deploy = world.deploy("wide", wide);
    let others = async {
        // Labs on the other host only, one after the other, from the first call to the last.
        let cordon = |cordoned| ps::SetHostCordonedRequest { host: "h1".into(), cordoned };
        world.client.clone().set_host_cordoned(cordon(true)).await.unwrap();
        for n in 0..5 {
            let lab = format!("small-{n}");
            assert_eq!(world.deploy(&lab, spec(2, &[(1, 2)])).await.state(), p::OperationState::Succeeded);
            let operation = world.destroy(&lab).await.unwrap();
            assert_eq!(world.done(&operation.id).await.state(), p::OperationState::Succeeded);
        }
        world.client.clone().set_host_cordoned(cordon(false)).await.unwrap();
        assert!(begun.elapsed() < Duration::from_secs(5), "five labs took {:?}", begun.elapsed());
        slow.with(|s| s.slow = false);
    };
    let (operation, ()) = tokio::join!(deploy, others);
    assert_eq!(operation.state(), p::OperationState::Succeeded, "{operation:?}");
    assert_eq!((slow.running().len(), other.running().len()), (1, 1));

    // What is on the other host goes at once, also where the slow one has a part of the same lab.
    slow.with(|s| s.slow = true);
    let operation = world.destroy("wide").await.unwrap();
    let gone = async { eventually("its part is gone", BOUND, || async { other.running().is_empty() }).await };
    assert!(timeout(Duration::from_secs(5), gone).await.is_ok(), "the other host waits for the slow one");
    assert_eq!(slow.running().len(), 1, "it is slow");
    slow.with(|s| s.slow = false);
    assert_eq!(world.done(&operation.id).await.state(), p::OperationState::Succeeded);
    for host in &world.hosts {
        assert!(host.read(|s| s.exists.is_empty() && s.nics.is_empty() && s.wires.is_empty()));
    }
}

/// Nodes that run, by uid, with the host each is on; fails where one is on two.
fn running(world: &World) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for host in &world.hosts {
        for uid in host.read(|s| s.exists.keys().cloned().collect::<Vec<_>>()) {
            let twice = all.insert(uid.clone(), host.name.clone());
            assert!(twice.is_none(), "{uid} is on {} and on {}", twice.unwrap(), host.name);
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_deploys_at_once() {
    two_hundred_deploys("").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_deploys_at_once_over_postgresql() {
    if !require("bad_days::two_hundred_deploys_at_once_over_postgresql", "postgres") {
        return;
    }
    let server = Postgres::start();
    two_hundred_deploys(&format!("database = {:?}\n", server.url())).await;
}

async fn two_hundred_deploys(config: &str) {
    const LABS: usize = 200;
    const ROOM: usize = 160;
    let world = World::with(&["h1", "h2", "h3", "h4"], config).await;
    let mut small = spec(1, &[]);
    small.nodes[0].cpu_request_millis = 4 * 4_000 / ROOM as u32;
    let (ours, lab) = (&world, &small);
    let deploys = (0..LABS).map(|n| async move { ours.apply(&format!("lab-{n}"), lab.clone()).await });
    let asked = join_all(deploys).await;
    assert!(asked.iter().all(Result::is_ok));
    let over = || async {
        let request = ps::ListOperationsRequest { page_size: 1_000, ..Default::default() };
        let all = world.client.clone().list_operations(request).await.unwrap().into_inner().operations;
        all.iter().all(|o| o.state() != p::OperationState::Running)
    };
    eventually("all deploys are over", 3 * BOUND, over).await;
    assert_eq!(running(&world).len(), ROOM);
    for host in &world.hosts {
        assert_eq!(host.read(|s| s.exists.len()), ROOM / 4, "{} is full, and not more", host.name);
    }

    // When half of them go, at once too, the others have room.
    for gone in [0..LABS / 2, LABS / 2..LABS] {
        let destroys = gone.clone().map(|n| async move { ours.destroy(&format!("lab-{n}")).await });
        assert!(join_all(destroys).await.iter().all(Result::is_ok));
        let left = LABS - gone.end;
        eventually("what is still wanted runs, and nothing else", 3 * BOUND, || async {
            running(&world).len() == left && over().await
        })
        .await;
    }
    for host in &world.hosts {
        let request = ps::GetHostRequest { host: host.name.clone() };
        let facts = world.client.clone().get_host(request).await.unwrap().into_inner();
        assert_eq!((facts.cpu_reserved_millis, facts.memory_reserved_bytes), (0, 0), "{}", host.name);
    }
}

/// PostgreSQL's disk is full: what is asked for is refused with what to do, what there is is there, and all goes on when there is room.
#[tokio::test]
async fn the_disk_of_postgresql_is_full() {
    if !require("bad_days::the_disk_of_postgresql_is_full", "postgres") {
        return;
    }
    let server = Postgres::start_on_disk(128);
    let world = World::with(&["h1"], &format!("database = {:?}\n", server.url())).await;
    assert_eq!(world.deploy("before", spec(2, &[(1, 2)])).await.state(), p::OperationState::Succeeded);
    server.fill(true);
    let mut large = spec(1, &[]);
    // It does not fit into what pages have free, nor can it be made smaller.
    let digits = (0..20_000).map(|_| uuid::Uuid::new_v4().to_string()).collect::<String>();
    large.nodes[0].env.insert("A".into(), digits);
    for _ in 0..2 {
        let refused = world.apply("large", large.clone()).await.unwrap_err();
        assert_eq!(refused.reason, "DISK_FULL", "{refused:?}");
        assert!(refused.message.contains("make room on it"), "{refused:?}");
    }
    assert!(world.lab("large").await.is_err(), "nothing of it is there");
    world.node_is("before", "n1", p::NodeState::Ready).await;
    assert_eq!(world.host().running(), ["n1", "n2"]);
    server.fill(false);
    assert_eq!(world.deploy("large", large).await.state(), p::OperationState::Succeeded);
    for lab in ["before", "large"] {
        let operation = world.destroy(lab).await.unwrap();
        assert_eq!(world.done(&operation.id).await.state(), p::OperationState::Succeeded);
    }
    assert!(world.host().read(|s| s.exists.is_empty() && s.wires.is_empty()));
}

/// It is full while a deploy is under way: that waits for room, is told as it is then, and has made nothing twice.
#[tokio::test]
async fn the_disk_of_postgresql_is_full_in_the_middle_of_a_deploy() {
    const NODES: usize = 10;
    if !require("bad_days::the_disk_of_postgresql_is_full_in_the_middle_of_a_deploy", "postgres") {
        return;
    }
    let server = Postgres::start_on_disk(128);
    let world = World::with(&["h1"], &format!("database = {:?}\n", server.url())).await;
    let mut large = spec(NODES as u32, &[(1, 2)]);
    for node in &mut large.nodes {
        // A row is written anew with each change of its node, and such a one fits into no page that is there.
        let digits = (0..2_000).map(|_| uuid::Uuid::new_v4().to_string()).collect::<String>();
        node.env.insert("A".into(), digits);
    }
    world.host().with(|s| s.hold = true);
    let operation = world.apply("large", large).await.unwrap();
    let told = || async { world.host().read(|s| s.wanted.len() == NODES) };
    eventually("the host is told", BOUND, told).await;
    server.fill(true);
    world.host().with(|s| s.hold = false);
    eventually("the host has made them", BOUND, || async { world.host().running().len() == NODES }).await;
    let made = world.host().read(|s| s.exists.clone());
    assert!(timeout(Duration::from_secs(3), world.done(&operation.id)).await.is_err(), "it goes on");
    server.fill(false);
    let operation = world.done(&operation.id).await;
    assert_eq!(operation.state(), p::OperationState::Succeeded, "{operation:?}");
    world.link_is("large", "n1:eth1--n2:eth1", p::LinkState::Up).await;
    let ids = |all: &BTreeMap<String, Existing>| all.values().map(|e| e.id.clone()).collect::<Vec<_>>();
    assert_eq!(ids(&world.host().read(|s| s.exists.clone())), ids(&made), "each once");
    let gone = world.destroy("large").await.unwrap();
    assert_eq!(world.done(&gone.id).await.state(), p::OperationState::Succeeded);
    assert!(world.host().read(|s| s.exists.is_empty() && s.wires.is_empty()));
}

/// Only what is between the leader and its database is gone: it went on saying that it serves, for ever, so callers stayed with it although the next one led.
#[tokio::test]
async fn a_leader_that_only_its_database_does_not_answer_ends() {
    if !require("bad_days::a_leader_that_only_its_database_does_not_answer_ends", "postgres") {
        return;
    }
    let server = Postgres::start();
    let wire = Wire::to(server.address()).await;
    let far = Postgres::url_at(&wire.at.to_string());
    let mut world = World::with(&["h1"], &format!("database = {far:?}\n")).await;
    world.deploy("before", spec(1, &[])).await;
    let connector = world.connector.clone();
    let serves = async || {
        let mut health = HealthClient::new(connector.channel(&"mem:scheduler".parse().unwrap()));
        let asked = HealthCheckRequest { service: "netloom.scheduler.v1.SchedulerService".into() };
        health.check(asked).await.is_ok_and(|answer| answer.get_ref().status() == ServingStatus::Serving)
    };
    assert!(serves().await);
    wire.silence();
    // It asks its database, and has no answer.
    let mut client = world.client.clone();
    let request = ps::ApplyLabRequest { lab: "late".into(), spec: Some(spec(1, &[])), ..Default::default() };
    let asked = tokio::spawn(async move { client.apply_lab(request).await });
    let said = timeout(Duration::from_secs(9), world.ended()).await;
    let said = said.expect("it ends soon").unwrap_err().to_string();
    assert!(said.contains("another scheduler may lead"), "{said}");
    assert!(!serves().await);
    asked.abort();

    // What the server does when its keepalives are not answered; over this wire its own machine answers them.
    server.run("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'");
    let (near, bus) = (Database::named(&server.url()), netloom_bus::open(None).unwrap());
    let next = timeout(BOUND, Store::open(&near, 1_000, bus)).await.expect("it leads").unwrap();
    assert!(next.rows_of("before").is_some() && next.rows_of("late").is_none());
}

/// A host whose clock was an hour ahead refused every ticket for exec, console, logs and captures; one whose clock was behind took them for an hour.
#[tokio::test]
async fn a_ticket_is_good_for_a_minute_by_the_clock_of_its_host() {
    const HOUR: i64 = 3_600;
    let world = World::new().await;
    world.deploy("l", spec(2, &[(1, 2)])).await;
    let key = world.host().read(|s| s.ticket_key.clone());
    for ahead in [0, HOUR, -HOUR] {
        world.host().with(|s| s.ahead_us = ahead * 1_000_000);
        let there = || {
            let here = i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_secs()).unwrap();
            u64::try_from(here + ahead).unwrap()
        };
        eventually(&format!("tickets are good where the clock is {ahead} s ahead"), BOUND, || async {
            let request = ps::GetTicketRequest { lab: "l".into(), node: "n1".into(), verb: "exec".into() };
            let exec = world.client.clone().get_ticket(request).await.unwrap().into_inner();
            let request = ps::GetCaptureTicketRequest { lab: "l".into(), targets: vec!["n1:eth1".into()] };
            let capture = world.client.clone().get_capture_ticket(request).await.unwrap().into_inner();
            let captured = ticket::capture_uid(capture.interfaces.iter().map(|i| i.nic));
            [(exec.uid, "exec", exec.ticket), (captured, "capture", capture.ticket)].iter().all(
                |(uid, verb, ticket)| {
                    let at = |time| ticket::verify(&key, uid, verb, ticket, time).is_ok();
                    at(there() + 55) && !at(there() + 65)
                },
            )
        })
        .await;
    }
}
