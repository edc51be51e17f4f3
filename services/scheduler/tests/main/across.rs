//! Labs on two hosts: links between them, and what becomes of them on bad days.

use std::collections::{BTreeMap, BTreeSet};

use netloom_proto::network::v1 as pn;
use netloom_proto::scheduler::v1 as ps;
use netloom_proto::v1 as p;
use netloom_service::testing::eventually;

use crate::fake::Host;
use crate::world::{BOUND, World, spec};

const LINK: &str = "n1:eth1--n2:eth1";

/// Two nodes of which a host has room for one, and so many links between them.
fn wide(links: usize) -> p::LabSpec {
    let mut spec = spec(2, &vec![(1, 2); links]);
    spec.nodes.iter_mut().for_each(|node| node.cpu_request_millis = 3_000);
    spec
}

/// The tunnels that a host was told of.
fn tunnels(host: &Host) -> Vec<pn::Tunnel> {
    let tunnel = |end: &Option<pn::WireEnd>| match end.as_ref()?.end.as_ref()? {
        pn::wire_end::End::Tunnel(tunnel) => Some(tunnel.clone()),
        _ => None,
    };
    host.read(|s| s.wires.values().flat_map(|w| [tunnel(&w.a), tunnel(&w.b)]).flatten().collect())
}

async fn until_told(host: &Host, remote_up: bool) {
    let what = format!("{} is told that the far end is up: {remote_up}", host.name);
    let told = || async { tunnels(host).iter().all(|tunnel| tunnel.remote_up == remote_up) };
    eventually(&what, BOUND, told).await;
}

#[tokio::test]
async fn a_link_goes_from_one_host_to_another_and_leaves_nothing() {
    let mut world = World::with(&["h1", "h2"], "").await;
    let request = ps::ApplyLabRequest {
        lab: "wide".into(),
        spec: Some(wide(1)),
        validate_only: true,
        ..Default::default()
    };
    let planned = world.request(request).await.unwrap().plan.unwrap();
    let link = planned.actions.iter().find(|a| a.id == LINK).unwrap();
    assert!(link.reason.contains("its MTU is 1450, which is what fits between hosts"), "{}", link.reason);
    assert_eq!(tunnels(world.host()), [], "a plan allots nothing");

    let operation = world.deploy("wide", wide(1)).await;
    assert_eq!(operation.state(), p::OperationState::Succeeded, "{operation:?}");
    let facts = world.link("wide", LINK).await;
    assert_eq!((facts.state(), facts.plane.as_str()), (p::LinkState::Up, "kernel"));
    assert_eq!(facts.plane_reason, "hosts: both take the kernel");
    assert_eq!(facts.mtu, 1_450);
    let told: Vec<pn::Tunnel> = world.hosts.iter().flat_map(tunnels).collect();
    let [one, other] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!((one.remote_address.as_str(), other.remote_address.as_str()), ("192.0.2.2", "192.0.2.1"));
    assert!(one.vni == other.vni && one.remote_up && other.remote_up);
    let mtus: BTreeSet<u32> = world
        .hosts
        .iter()
        .flat_map(|h| h.read(|s| s.nics.values().map(|n| n.mtu).collect::<Vec<_>>()))
        .collect();
    assert_eq!(mtus, [1_450].into());

    // A scheduler that starts again tells them the same.
    world.kill().await;
    world.start().await;
    world.link_is("wide", LINK, p::LinkState::Up).await;
    let again: Vec<pn::Tunnel> = world.hosts.iter().flat_map(tunnels).collect();
    assert_eq!(again, told);

    let operation = world.destroy("wide").await.unwrap();
    assert_eq!(world.done(&operation.id).await.state(), p::OperationState::Succeeded);
    for host in &world.hosts {
        assert!(host.read(|s| s.wires.is_empty() && s.nics.is_empty()), "{}", host.name);
    }
}

#[tokio::test]
async fn what_one_host_says_of_an_end_the_other_is_told() {
    let world = World::with(&["h1", "h2"], "").await;
    world.deploy("wide", wide(1)).await;
    let host_of = |host: String| world.hosts.iter().find(|h| h.name == host).unwrap();
    let (here, there) =
        (host_of(world.node("wide", "n1").await.host), host_of(world.node("wide", "n2").await.host));
    there.with(|s| s.down.insert("n2".into()));
    until_told(here, false).await;
    assert!(tunnels(there)[0].remote_up, "it is not told of its own end");
    world.link_is("wide", LINK, p::LinkState::Pending).await;
    there.with(|s| s.down.clear());
    until_told(here, true).await;
    world.link_is("wide", LINK, p::LinkState::Up).await;

    // A host that is lost: the link is not known, and the other end sees no carrier, as with a cable whose far end lost its power.
    there.with(|s| s.silent = true);
    world.link_is("wide", LINK, p::LinkState::Unknown).await;
    until_told(here, false).await;
    let reason = world.link("wide", LINK).await.reason;
    assert_eq!(reason, format!("host {} is not heard of", there.name));
    there.with(|s| s.silent = false);
    world.link_is("wide", LINK, p::LinkState::Up).await;
    until_told(here, true).await;
}

#[tokio::test]
async fn a_number_is_used_again_only_when_its_link_is_gone_from_both_hosts() {
    let world = World::with(&["h1", "h2"], "first_vni = 7\nlast_vni = 7").await;
    let refused = world.apply("two", wide(2)).await.unwrap_err();
    assert_eq!((refused.reason.as_str(), refused.metadata["lab"].as_str()), ("VNI_EXHAUSTED", "two"));
    assert!(world.lab("two").await.is_err(), "nothing was written");
    assert_eq!(world.deploy("one", wide(1)).await.state(), p::OperationState::Succeeded);
    assert!(world.hosts.iter().flat_map(tunnels).all(|tunnel| tunnel.vni == 7));

    let last = &world.hosts[1];
    last.with(|s| s.hold_wires = true);
    let operation = world.destroy("one").await.unwrap();
    eventually("one host has nothing of it", BOUND, || async { tunnels(&world.hosts[0]).is_empty() }).await;
    let small = |name: &str| {
        let mut lab = wide(1);
        lab.nodes.iter_mut().for_each(|node| node.cpu_request_millis = 2_500);
        (name.to_owned(), lab)
    };
    let (name, lab) = small("next");
    let refused = world.apply(&name, lab.clone()).await.unwrap_err();
    assert_eq!(refused.reason, "VNI_EXHAUSTED", "the other host still has it: {refused:?}");
    last.with(|s| s.hold_wires = false);
    assert_eq!(world.done(&operation.id).await.state(), p::OperationState::Succeeded);
    assert_eq!(world.deploy(&name, lab).await.state(), p::OperationState::Succeeded);
}

#[tokio::test]
async fn a_host_without_a_tunnel_address_is_named() {
    let world = World::with(&["h1", "h2"], "").await;
    world.hosts[1].with(|s| s.underlay = None);
    eventually("it is known", BOUND, || async {
        let request = ps::ApplyLabRequest {
            lab: "l".into(),
            spec: Some(wide(1)),
            validate_only: true,
            ..Default::default()
        };
        let plan = world.request(request).await.unwrap().plan.unwrap();
        plan.actions.iter().any(|a| a.reason.contains("host h2 has no address for links to other hosts"))
    })
    .await;
    let operation = world.deploy("l", wide(1)).await;
    assert_eq!(operation.state(), p::OperationState::Failed);
    assert!(operation.error.unwrap().message.contains("network.tunnel_address"));
    world.hosts[1]
        .with(|s| s.underlay = Some(pn::Underlay { address: "192.0.2.2".into(), port: 4789, mtu: 1_450 }));
    world.link_is("l", LINK, p::LinkState::Up).await;
}

/// The very case that a batch of nodes once failed by, as a whole: 14 nodes, 5 of them virtual machines, need 25 cores, which is 156 % of a host. Another host has room.
#[tokio::test]
async fn fourteen_nodes_run_on_two_hosts_of_which_one_would_be_at_156_percent() {
    let world = World::with(&["h1", "h2"], "").await;
    for host in &world.hosts {
        host.with(|s| (s.cpu_millis, s.memory_bytes, s.machines) = (16_000, 64 << 30, host.name == "h1"));
    }
    let ring: Vec<(u32, u32)> = (1..=14).map(|n| (n, n % 14 + 1)).collect();
    let mut lab = spec(14, &ring);
    for (n, node) in lab.nodes.iter_mut().enumerate() {
        node.memory_request_bytes = 1 << 30;
        node.cpu_request_millis = if n == 13 { 2_000 } else { 1_000 };
        if n < 5 {
            (node.kind, node.cpu_request_millis) = ("tcl".into(), 3_000);
        }
    }
    assert_eq!(lab.nodes.iter().map(|n| n.cpu_request_millis).sum::<u32>() * 100 / 16_000, 156);
    eventually("the hosts' room is known", BOUND, || async {
        let request = ps::ApplyLabRequest {
            lab: "batch".into(),
            spec: Some(lab.clone()),
            validate_only: true,
            ..Default::default()
        };
        let plan = world.request(request).await.ok().and_then(|operation| operation.plan);
        plan.is_some_and(|plan| plan.unplaced.is_empty())
    })
    .await;
    let operation = world.deploy("batch", lab).await;
    assert_eq!(operation.state(), p::OperationState::Succeeded, "{operation:?}");
    let nodes = world.nodes("batch").await;
    assert!(nodes.len() == 14 && nodes.iter().all(|n| n.state() == p::NodeState::Ready));
    let mut reserved = BTreeMap::<String, u32>::new();
    for node in &nodes {
        *reserved.entry(node.host.clone()).or_default() += node.spec.as_ref().unwrap().cpu_request_millis;
    }
    assert!(reserved.len() == 2 && reserved.values().all(|cpu| *cpu <= 16_000), "{reserved:?}");
    let links = world.links("batch").await;
    assert!(links.iter().all(|l| l.state() == p::LinkState::Up), "{links:?}");
    let numbers: BTreeSet<u32> = tunnels(&world.hosts[0]).iter().map(|tunnel| tunnel.vni).collect();
    assert!(!numbers.is_empty() && numbers.len() == tunnels(&world.hosts[0]).len(), "each link has its own");
}

/// Hosts are told of each other, and what they measure decides the MTU of a lab that runs, and what is shown of a host.
#[tokio::test]
async fn the_path_between_hosts_is_measured_and_decides_the_mtu() {
    let mut world = World::with(&["h1", "h2"], "").await;
    for host in &world.hosts {
        let told = || async { host.read(|s| s.peers.clone()) == ["192.0.2.1", "192.0.2.2"] };
        eventually("it is told of all hosts", BOUND, told).await;
    }
    world.deploy("wide", wide(1)).await;
    let measure = |host: usize, to: &str, mtu| {
        let path = pn::PathMtu { address: to.into(), mtu, problem: String::new() };
        world.hosts[host].with(|s| s.paths = vec![path]);
    };
    measure(0, "192.0.2.2", 1_440);
    measure(1, "192.0.2.1", 1_350);
    for host in &world.hosts {
        let told = || async { host.read(|s| s.nics.values().all(|nic| nic.mtu == 1_350)) };
        eventually("its interface gets what fits both ways", BOUND, told).await;
    }
    assert_eq!(world.link("wide", LINK).await.mtu, 1_350, "and is told with it");
    let request = ps::GetHostRequest { host: "h1".into() };
    let shown = world.client.clone().get_host(request).await.unwrap().into_inner().paths;
    assert_eq!(
        shown,
        [p::HostPath {
            host: "h2".into(),
            address: "192.0.2.2".into(),
            mtu_to: 1_440,
            mtu_from: 1_350,
            problem: String::new()
        }]
    );
    let planned = ps::ApplyLabRequest {
        lab: "other".into(),
        spec: Some(wide(1)),
        validate_only: true,
        ..Default::default()
    };
    let gone = world.destroy("wide").await.unwrap();
    world.done(&gone.id).await;
    let planned = world.request(planned).await.unwrap().plan.unwrap();
    let link = planned.actions.iter().find(|a| a.id == LINK).unwrap();
    assert!(link.reason.contains("1350, which is what fits between hosts h"), "{}", link.reason);
    assert!(link.reason.contains("as measured; their interfaces would take 1450"), "{}", link.reason);
    // A scheduler that starts again tells them anew.
    world.hosts.iter().for_each(|host| host.with(|s| s.peers.clear()));
    world.kill().await;
    world.start().await;
    for host in &world.hosts {
        let told = || async { host.read(|s| s.peers.len()) == 2 };
        eventually("it is told again", BOUND, told).await;
    }
}
