//! Deploys, drains, moves, silences and crashes in any order: after each step no host has more reserved than it has, no node lives twice, no two wires of a host have one
//! number; and once nothing is done any more, all is as asked and nothing is left over.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::join_all;
use netloom_model::observed::Phase;
use netloom_proto::network::v1 as pn;
use netloom_proto::scheduler::v1 as ps;
use netloom_proto::v1 as p;
use netloom_service::testing::eventually;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::drain::{cordon, drain, facts, moves};
use crate::world::{BOUND, World, spec};

const HOSTS: [&str; 3] = ["h1", "h2", "h3"];
const LABS: [&str; 4] = ["a", "b", "c", "d"];
const STEPS: usize = 30;
/// Disk of each host.
const DISK: u64 = 50 << 30;

/// What a caller may be refused for here; anything else is a fault.
const REFUSALS: [&str; 9] = [
    "OPERATION_ACTIVE",
    "LAB_NOT_FOUND",
    "NODE_NOT_FOUND",
    "NODE_NOT_MOVABLE",
    "HOST_UNAVAILABLE",
    "INSUFFICIENT_CPU",
    "INSUFFICIENT_DISK",
    "PLAN_OVERTAKEN",
    "HOST_UNKNOWN",
];

/// What a node asks for is always the same: one that is made anew with less keeps what it had until then, which its lab may have given to another of its own already.
fn random_lab(lab: &str, random: &mut StdRng) -> p::LabSpec {
    let nodes = random.random_range(1..=4);
    let links: Vec<(u32, u32)> = (1..nodes).map(|n| (n, n + 1)).collect();
    let of_lab = u32::from(lab.as_bytes()[0]);
    let mut lab = spec(nodes, &links);
    for (n, node) in (0..).zip(&mut lab.nodes) {
        node.cpu_request_millis = (1 + (of_lab + 2 * n) % 5) * 300;
        node.disk_request_bytes = u64::from((of_lab + n) % 3) * DISK / 5;
        if random.random_bool(0.3) {
            node.env.insert("V".into(), random.random_range(0..3).to_string());
        }
    }
    lab
}

/// What holds at any time.
async fn check(world: &World, seed: u64, step: usize) {
    let mut live = BTreeMap::<(String, String), u32>::new();
    for host in &world.hosts {
        let running: Vec<(String, String)> = host.read(|s| {
            let runs = s.exists.values().filter(|e| e.phase == Phase::Running);
            runs.map(|e| (e.lab_uid.clone(), e.node.clone())).collect()
        });
        running.into_iter().for_each(|node| *live.entry(node).or_default() += 1);
        let numbers: Vec<u32> = host.read(|s| {
            let tunnel = |end: &Option<pn::WireEnd>| match end.as_ref()?.end.as_ref()? {
                pn::wire_end::End::Tunnel(tunnel) => Some(tunnel.vni),
                _ => None,
            };
            s.wires.values().flat_map(|w| [tunnel(&w.a), tunnel(&w.b)]).flatten().collect()
        });
        let unique: BTreeSet<u32> = numbers.iter().copied().collect();
        assert_eq!(unique.len(), numbers.len(), "seed {seed} step {step}: {}", host.name);
        let facts = facts(world, &host.name).await;
        assert!(facts.cpu_reserved_millis <= 4_000, "seed {seed} step {step}: {facts:?}");
        assert!(facts.disk_reserved_bytes <= DISK, "seed {seed} step {step}: {facts:?}");
    }
    let twice: Vec<_> = live.iter().filter(|(_, n)| **n > 1).collect();
    assert!(twice.is_empty(), "seed {seed} step {step}: {twice:?} live twice");
}

async fn step(world: &mut World, random: &mut StdRng) -> Result<(), netloom_model::Failure> {
    let lab = LABS[random.random_range(0..LABS.len())];
    let host = HOSTS[random.random_range(0..HOSTS.len())];
    match random.random_range(0..12) {
        0..4 => {
            let asked: Vec<_> =
                LABS.iter().map(|lab| (*lab, random_lab(lab, random), random.random_bool(0.5))).collect();
            let asked = asked.into_iter().filter(|(other, _, too)| *other == lab || *too);
            let answers = join_all(asked.map(|(lab, spec, _)| world.apply(lab, spec))).await;
            answers.into_iter().find_map(Result::err).map_or(Ok(()), Err)
        }
        4 => world.destroy(lab).await.map(drop),
        5 | 6 => {
            drain(world, host, false).await;
            Ok(())
        }
        7 | 8 => {
            cordon(world, host, false).await;
            Ok(())
        }
        9 => {
            let nodes = vec!["n1".into()];
            let request =
                ps::MoveNodesRequest { lab: lab.into(), nodes, host: host.into(), ..Default::default() };
            moves(world, request).await.map(drop)
        }
        10 => {
            let of = world.hosts.iter().find(|h| h.name == host).unwrap();
            of.with(|s| s.hold = !s.hold);
            Ok(())
        }
        _ => {
            world.kill().await;
            world.start().await;
            Ok(())
        }
    }
}

#[tokio::test]
async fn nothing_is_reserved_twice_lives_twice_or_is_left_whatever_happens() {
    for seed in [1, 2, 3] {
        let mut random = StdRng::seed_from_u64(seed);
        let mut world = World::with(&HOSTS, "disk_overcommit = 1.0").await;
        world.hosts.iter().for_each(|host| host.with(|s| s.disk_bytes = Some(DISK)));
        for host in HOSTS {
            let is_told = || async { facts(&world, host).await.disk_bytes == Some(DISK) };
            eventually("it says what disk it has", BOUND, is_told).await;
        }
        for n in 0..STEPS {
            if let Err(refused) = step(&mut world, &mut random).await {
                assert!(REFUSALS.contains(&refused.reason.as_str()), "seed {seed} step {n}: {refused:?}");
            }
            check(&world, seed, n).await;
            tokio::time::sleep(std::time::Duration::from_millis(random.random_range(0..40))).await;
            check(&world, seed, n).await;
        }
        world.hosts.iter().for_each(|host| host.with(|s| s.hold = false));
        for host in HOSTS {
            cordon(&world, host, false).await;
        }
        let is_quiet = || async {
            for lab in LABS {
                let Ok(facts) = world.lab(lab).await else { continue };
                let is_settled = |n: &ps::NodeFacts| {
                    matches!(n.state(), p::NodeState::Ready | p::NodeState::Unschedulable)
                };
                if !facts.operation.is_empty() || !world.nodes(lab).await.iter().all(is_settled) {
                    return false;
                }
            }
            true
        };
        eventually(&format!("seed {seed}: all is done"), BOUND, is_quiet).await;
        check(&world, seed, STEPS).await;
        let is_as_asked = || async {
            let mut wanted = BTreeMap::<String, ((u64, u64), BTreeSet<(String, String)>)>::new();
            for lab in LABS {
                let Ok(facts) = world.lab(lab).await else { continue };
                for node in world.nodes(lab).await.into_iter().filter(|n| !n.host.is_empty()) {
                    let spec = node.spec.unwrap();
                    let of_host = wanted.entry(node.host).or_default();
                    of_host.0.0 += u64::from(spec.cpu_request_millis);
                    of_host.0.1 += spec.disk_request_bytes;
                    of_host.1.insert((facts.uid.clone(), spec.id));
                }
            }
            for host in &world.hosts {
                let (asked, nodes) = wanted.remove(&host.name).unwrap_or_default();
                // What a deploy that failed had set aside stays so, and reserves nothing.
                let there: Vec<(String, String)> = host.read(|s| {
                    let there = s.exists.values().filter(|e| e.phase != Phase::Aside);
                    there.map(|e| (e.lab_uid.clone(), e.node.clone())).collect()
                });
                let of_host = facts(&world, &host.name).await;
                let reserved = (of_host.cpu_reserved_millis, of_host.disk_reserved_bytes);
                if reserved != asked || there.len() != nodes.len() || !there.iter().all(|n| nodes.contains(n))
                {
                    return false;
                }
            }
            true
        };
        eventually(
            &format!("seed {seed}: hosts have what is asked for, and count it once"),
            BOUND,
            is_as_asked,
        )
        .await;
        for lab in LABS {
            if let Ok(operation) = world.destroy(lab).await {
                world.done(&operation.id).await;
            }
        }
        for host in &world.hosts {
            assert_eq!(facts(&world, &host.name).await.cpu_reserved_millis, 0, "seed {seed}");
            let is_bare = host.read(|s| s.exists.is_empty() && s.wires.is_empty() && s.nics.is_empty());
            assert!(is_bare, "seed {seed}: {}", host.name);
        }
    }
}

#[tokio::test]
async fn a_host_that_has_less_than_it_says_fails_its_nodes_once_and_they_move_away_when_asked() {
    let world = World::with(&["h1", "h2"], "").await;
    let liar = &world.hosts[0];
    liar.with(|s| {
        (s.cpu_millis, s.memory_bytes) = (400_000, 1 << 50);
        s.broken.extend(["n1".to_owned(), "n2".to_owned()]);
    });
    eventually("it is believed", BOUND, || async { facts(&world, "h1").await.cpu_millis == 400_000 }).await;
    cordon(&world, "h2", true).await;
    let operation = world.deploy("l", spec(2, &[(1, 2)])).await;
    cordon(&world, "h2", false).await;
    assert_eq!(operation.state(), p::OperationState::Failed, "{operation:?}");
    let failure = operation.error.clone().unwrap();
    assert!(failure.message.contains("n1, n2: FAILED: it is broken"), "{}", failure.message);
    let n1 = world.node("l", "n1").await;
    assert_eq!(
        (n1.state(), n1.host.as_str(), n1.reason.as_str()),
        (p::NodeState::Failed, "h1", "it is broken")
    );
    let calls = || (liar.count("compute.ensure"), liar.count("compute.sync"));
    let told = calls();
    world.deploy("other", spec(1, &[])).await;
    world.destroy("other").await.unwrap();
    eventually("it is gone", BOUND, || async { world.lab("other").await.is_err() }).await;
    assert!(
        calls().0 <= told.0 + 1 && calls().1 == told.1,
        "it is not told again and again: {told:?}, {:?}",
        calls()
    );

    cordon(&world, "h1", true).await;
    let nodes = vec!["n1".into(), "n2".into()];
    let request = ps::MoveNodesRequest { lab: "l".into(), nodes, ..Default::default() };
    let operation = moves(&world, request).await.unwrap();
    let done = world.done(&operation.id).await;
    assert_eq!(done.state(), p::OperationState::Succeeded, "{done:?}");
    assert_eq!(world.hosts[1].running(), ["n1", "n2"]);
    world.link_is("l", "n1:eth1--n2:eth1", p::LinkState::Up).await;
}
