//! Nodes that move to other hosts: drained, rebalanced, by name, by force.

use std::collections::BTreeSet;

use netloom_model::failure::Failure;
use netloom_model::observed::Phase;
use netloom_proto::network::v1 as pn;
use netloom_proto::scheduler::v1 as ps;
use netloom_proto::v1 as p;
use netloom_service::status::from_status;
use netloom_service::testing::eventually;

use crate::fake::Host;
use crate::world::{BOUND, World, actions, spec};

pub async fn drain(world: &World, host: &str, validate_only: bool) -> ps::DrainHostResponse {
    let heard = || async { world.hosts.len() == heard(world).await };
    if world.hosts.iter().all(|h| h.read(|s| !s.silent)) {
        eventually("all hosts are heard of", BOUND, heard).await;
    }
    let request = ps::DrainHostRequest { host: host.into(), validate_only, lose_disks: false };
    world.client.clone().drain_host(request).await.unwrap().into_inner()
}

async fn heard(world: &World) -> usize {
    let request = ps::ListHostsRequest { page_size: 100, ..Default::default() };
    let hosts = world.client.clone().list_hosts(request).await.unwrap().into_inner().hosts;
    hosts.iter().filter(|h| h.heard).count()
}

pub async fn cordon(world: &World, host: &str, cordoned: bool) {
    let request = ps::SetHostCordonedRequest { host: host.into(), cordoned };
    world.client.clone().set_host_cordoned(request).await.unwrap();
}

pub async fn facts(world: &World, host: &str) -> ps::HostFacts {
    world.client.clone().get_host(ps::GetHostRequest { host: host.into() }).await.unwrap().into_inner()
}

pub async fn moves(world: &World, request: ps::MoveNodesRequest) -> Result<ps::OperationFacts, Failure> {
    let answer = world.client.clone().move_nodes(request).await;
    answer.map(|r| r.into_inner().operation.unwrap()).map_err(|s| from_status(&s))
}

pub async fn is_drained(world: &World, host: &str) {
    let drained = || async { facts(world, host).await.drain() == p::DrainState::Drained };
    eventually(&format!("{host} is drained"), BOUND, drained).await;
}

pub fn of<'w>(world: &'w World, name: &str) -> &'w Host {
    world.hosts.iter().find(|h| h.name == name).unwrap()
}

/// All that exists on a host, by node; what runs is without a mark.
pub fn there(host: &Host) -> Vec<String> {
    let mark = |e: &crate::fake::Existing| match e.phase {
        Phase::Running => e.node.clone(),
        phase => format!("{} {phase:?}", e.node),
    };
    let mut all: Vec<String> = host.read(|s| s.exists.values().map(mark).collect());
    all.sort();
    all
}

fn is_bare(host: &Host) -> bool {
    host.read(|s| s.exists.is_empty() && s.wires.is_empty() && s.nics.is_empty() && s.segments.is_empty())
}

#[tokio::test]
async fn a_host_is_drained_with_a_plan_first_and_nothing_is_left_on_it() {
    let mut world = World::with(&["h1", "h2"], "").await;
    cordon(&world, "h2", true).await;
    world.deploy("one", spec(3, &[(1, 2), (2, 3)])).await;
    world.deploy("two", spec(1, &[])).await;
    cordon(&world, "h2", false).await;
    assert_eq!(there(of(&world, "h1")), ["n1", "n1", "n2", "n3"]);

    let planned = drain(&world, "h1", true).await;
    assert_eq!(facts(&world, "h1").await.drain(), p::DrainState::Unspecified, "a plan changes nothing");
    let one = planned.moves.iter().find(|o| o.lab == "one").unwrap();
    assert_eq!(
        actions(one),
        [
            "RECREATE node n1",
            "RECREATE node n2",
            "RECREATE node n3",
            "RECREATE link n1:eth1--n2:eth1",
            "RECREATE link n2:eth2--n3:eth1"
        ]
    );
    assert!(one.plan.as_ref().unwrap().actions.iter().all(|a| a.host == "h2"), "where each goes: {one:?}");
    assert!(one.id.is_empty() && planned.busy_labs.is_empty());

    // What runs stays until what takes its place can be made, and never both run.
    of(&world, "h1").with(|s| s.hold_aside = true);
    let began = drain(&world, "h1", false).await;
    assert_eq!(began.moves.len(), 2);
    assert_eq!(began.moves[0].kind(), p::OperationKind::Move);
    eventually("they are to leave", BOUND, || async {
        of(&world, "h1").read(|s| s.wanted.values().filter(|w| w.aside).count() == 4)
    })
    .await;
    assert_eq!((there(of(&world, "h1")).len(), there(of(&world, "h2")).len()), (4, 0));
    assert_eq!(world.destroy("one").await.unwrap_err().reason, "OPERATION_ACTIVE");
    // A scheduler that is killed meanwhile goes on with it.
    world.kill().await;
    world.start().await;
    of(&world, "h1").with(|s| s.hold_aside = false);
    for operation in &began.moves {
        let done = world.done(&operation.id).await;
        assert_eq!(done.state(), p::OperationState::Succeeded, "{done:?}");
    }
    is_drained(&world, "h1").await;
    assert_eq!(there(of(&world, "h2")), ["n1", "n1", "n2", "n3"]);
    world.link_is("one", "n1:eth1--n2:eth1", p::LinkState::Up).await;
    assert!(is_bare(of(&world, "h1")));
    let reserved = facts(&world, "h1").await;
    assert_eq!((reserved.cpu_reserved_millis, reserved.node_tallies.len()), (0, 0));
    assert!(reserved.cordoned && reserved.staying.is_empty());

    // New ones go elsewhere, and what waits for room has it as soon as the host takes nodes again.
    let mut big = spec(1, &[]);
    big.nodes[0].cpu_request_millis = 4_000;
    let operation = world.deploy("big", big).await;
    assert_eq!(operation.state(), p::OperationState::Failed);
    assert_eq!(world.node("big", "n1").await.state(), p::NodeState::Unschedulable);
    cordon(&world, "h1", false).await;
    world.node_is("big", "n1", p::NodeState::Ready).await;
    assert_eq!(world.node("big", "n1").await.host, "h1");
    assert_eq!(facts(&world, "h1").await.drain(), p::DrainState::Unspecified);
}

#[tokio::test]
async fn what_has_no_room_elsewhere_stays_is_told_and_moves_when_there_is_some() {
    let world = World::with(&["h1", "h2"], "").await;
    of(&world, "h2").with(|s| s.cpu_millis = 1_000);
    eventually("that is known", BOUND, || async { facts(&world, "h2").await.cpu_millis == 1_000 }).await;
    let mut lab = spec(2, &[(1, 2)]);
    lab.nodes[0].cpu_request_millis = 1_500;
    let operation = world.deploy("l", lab).await;
    assert_eq!(operation.state(), p::OperationState::Succeeded, "{operation:?}");
    assert_eq!(there(of(&world, "h1")).len(), 2);
    let began = drain(&world, "h1", false).await;
    let unplaced = began.moves[0].plan.clone().unwrap().unplaced;
    let told: Vec<_> = unplaced.iter().map(|u| (u.node.as_str(), u.rejections[0].code.as_str())).collect();
    assert_eq!(told, [("n1", "INSUFFICIENT_CPU")]);
    assert_eq!(world.done(&began.moves[0].id).await.state(), p::OperationState::Succeeded);
    assert_eq!(there(of(&world, "h2")), ["n2"]);
    world.link_is("l", "n1:eth1--n2:eth1", p::LinkState::Up).await;
    let host = facts(&world, "h1").await;
    assert_eq!(host.drain(), p::DrainState::Draining);
    let staying: Vec<&str> = host.staying.iter().map(|s| s.node.as_str()).collect();
    assert_eq!(staying, ["labs/l/nodes/n1"]);

    // Room appears: nobody has to ask again.
    of(&world, "h2").with(|s| s.cpu_millis = 4_000);
    is_drained(&world, "h1").await;
    assert_eq!(there(of(&world, "h2")), ["n1", "n2"]);
}

#[tokio::test]
async fn what_does_not_come_up_elsewhere_is_where_it_was_and_is_not_tried_there_for_ever() {
    let world = World::with(&["h1", "h2"], "").await;
    cordon(&world, "h2", true).await;
    world.deploy("l", spec(2, &[(1, 2)])).await;
    cordon(&world, "h2", false).await;
    let before: BTreeSet<String> =
        of(&world, "h1").read(|s| s.exists.values().map(|e| e.id.clone()).collect());
    // It says that it has room, and what is started there does not run.
    of(&world, "h2").with(|s| s.broken.insert("n1".into()));
    let began = drain(&world, "h1", false).await;
    let failed = world.done(&began.moves[0].id).await;
    assert_eq!(failed.state(), p::OperationState::Failed);
    let why = failed.error.unwrap().message;
    assert!(why.contains("n1: FAILED: it is broken"), "{why}");
    // The other one goes without it.
    eventually("n2 moves, n1 runs on", BOUND, || async {
        (there(of(&world, "h1")), there(of(&world, "h2"))) == (vec!["n1".to_owned()], vec!["n2".to_owned()])
    })
    .await;
    world.link_is("l", "n1:eth1--n2:eth1", p::LinkState::Up).await;
    let now: BTreeSet<String> = of(&world, "h1").read(|s| s.exists.values().map(|e| e.id.clone()).collect());
    assert!(now.is_subset(&before), "it is the very container");
    let host = facts(&world, "h1").await;
    let [stays] = host.staying.as_slice() else { panic!("{host:?}") };
    let told = &stays.rejections[0];
    assert_eq!((told.host.as_str(), told.code.as_str()), ("h2", "MOVE_FAILED"));
    assert!(told.detail.contains("it is broken"), "{told:?}");
    let operations = || async {
        let request = ps::ListOperationsRequest { page_size: 100, ..Default::default() };
        world.client.clone().list_operations(request).await.unwrap().into_inner().operations.len()
    };
    let so_many = operations().await;
    // Something else changes, which the drain is woken by.
    of(&world, "h2").with(|s| s.restart("n2"));
    world.link_is("l", "n1:eth1--n2:eth1", p::LinkState::Up).await;
    world.deploy("other", spec(1, &[])).await;
    assert_eq!(operations().await, so_many + 1, "it was not tried again");
    // Whoever asks has it tried.
    of(&world, "h2").with(|s| s.broken.clear());
    drain(&world, "h1", false).await;
    is_drained(&world, "h1").await;
}

#[tokio::test]
async fn an_uncordon_in_the_middle_has_all_back() {
    let world = World::with(&["h1", "h2"], "").await;
    cordon(&world, "h2", true).await;
    world.deploy("l", spec(2, &[(1, 2)])).await;
    cordon(&world, "h2", false).await;
    let ids = |host: &Host| -> BTreeSet<String> {
        host.read(|s| s.exists.values().map(|e| e.id.clone()).collect())
    };
    let before = ids(of(&world, "h1"));
    of(&world, "h2").with(|s| s.hold = true);
    let began = drain(&world, "h1", false).await;
    eventually("they are aside", BOUND, || async { there(of(&world, "h1")) == ["n1 Aside", "n2 Aside"] })
        .await;
    cordon(&world, "h1", false).await;
    assert_eq!(world.operation(&began.moves[0].id).await.state(), p::OperationState::Cancelled);
    eventually("they are back", BOUND, || async { there(of(&world, "h1")) == ["n1", "n2"] }).await;
    assert_eq!(ids(of(&world, "h1")), before);
    world.link_is("l", "n1:eth1--n2:eth1", p::LinkState::Up).await;
    of(&world, "h2").with(|s| s.hold = false);
    eventually("nothing is on the other one", BOUND, || async { is_bare(of(&world, "h2")) }).await;
    let same = ps::ApplyLabRequest {
        lab: "l".into(),
        spec: Some(spec(2, &[(1, 2)])),
        validate_only: true,
        ..Default::default()
    };
    assert!(actions(&world.request(same).await.unwrap()).is_empty(), "all is as asked");
}

#[tokio::test]
async fn a_lab_is_rebalanced_when_somebody_wants_that() {
    let world = World::with(&["h1", "h2"], "").await;
    let half = |n: u32| {
        let mut lab = spec(4, &[(1, 2), (3, 4)]);
        lab.nodes.iter_mut().for_each(|node| node.cpu_request_millis = n);
        lab
    };
    world.deploy("l", half(1_500)).await;
    let ask = |validate_only| ps::MoveNodesRequest { lab: "l".into(), validate_only, ..Default::default() };
    let nothing = moves(&world, ask(true)).await.unwrap();
    assert!(actions(&nothing).is_empty(), "as good as it gets: {nothing:?}");
    // n1 is moved away from what it is linked to.
    let there_now = world.node("l", "n1").await.host;
    let other = if there_now == "h1" { "h2" } else { "h1" };
    of(&world, other).with(|s| s.cpu_millis = 8_000);
    let to = ps::MoveNodesRequest {
        lab: "l".into(),
        nodes: vec!["n1".into()],
        host: other.into(),
        ..Default::default()
    };
    eventually("there is room", BOUND, || async { facts(&world, other).await.cpu_millis == 8_000 }).await;
    let operation = moves(&world, to.clone()).await.unwrap();
    assert_eq!(world.done(&operation.id).await.state(), p::OperationState::Succeeded);
    world.link_is("l", "n1:eth1--n2:eth1", p::LinkState::Up).await;
    assert_eq!(world.node("l", "n1").await.host, other);
    let again = moves(&world, to).await.unwrap();
    assert!(actions(&again).is_empty(), "it is there");
    let planned = moves(&world, ask(true)).await.unwrap();
    assert_eq!(actions(&planned).len(), 2, "one of them goes to the other: {planned:?}");
    assert_eq!(actions(&planned)[1], "RECREATE link n1:eth1--n2:eth1");
    assert_eq!(world.node("l", "n2").await.host, there_now, "a plan moves nothing");
    let operation = moves(&world, ask(false)).await.unwrap();
    assert_eq!(world.done(&operation.id).await.state(), p::OperationState::Succeeded);
    assert_eq!(world.node("l", "n2").await.host, world.node("l", "n1").await.host);
    assert!(actions(&moves(&world, ask(true)).await.unwrap()).is_empty());
    let nowhere = ps::MoveNodesRequest { nodes: vec!["n1".into()], host: "h9".into(), ..ask(false) };
    assert_eq!(moves(&world, nowhere).await.unwrap_err().reason, "HOST_NOT_FOUND");
}

fn numbers(host: &Host) -> BTreeSet<u32> {
    let of_end = |end: &Option<pn::WireEnd>| match end.as_ref()?.end.as_ref()? {
        pn::wire_end::End::Tunnel(tunnel) => Some(tunnel.vni),
        _ => None,
    };
    host.read(|s| s.wires.values().flat_map(|w| [of_end(&w.a), of_end(&w.b)]).flatten().collect())
}

#[tokio::test]
async fn what_a_lost_host_may_still_run_is_left_alone_until_it_is_forced_and_is_removed_when_it_is_back() {
    let world = World::with(&["h1", "h2"], "").await;
    let mut lab = spec(2, &[(1, 2)]);
    lab.nodes.iter_mut().for_each(|node| node.cpu_request_millis = 3_000);
    world.deploy("l", lab).await;
    let lost = of(&world, &world.node("l", "n2").await.host);
    let other = of(&world, &world.node("l", "n1").await.host);
    let former = numbers(lost);
    assert_eq!(former.len(), 1);
    lost.with(|s| s.silent = true);
    world.node_is("l", "n2", p::NodeState::Unknown).await;
    other.with(|s| s.cpu_millis = 8_000);
    eventually("there is room", BOUND, || async { facts(&world, &other.name).await.cpu_millis == 8_000 })
        .await;
    let by_name = |force| ps::MoveNodesRequest {
        lab: "l".into(),
        nodes: vec!["n2".into()],
        force,
        ..Default::default()
    };
    let refused = moves(&world, by_name(false)).await.unwrap_err();
    assert_eq!(
        (refused.reason.as_str(), refused.metadata["why"].as_str()),
        ("NODE_NOT_MOVABLE", "HOST_UNKNOWN")
    );
    drain(&world, &lost.name, false).await;
    assert_eq!(facts(&world, &lost.name).await.staying.len(), 1);
    assert_eq!(
        world.node("l", "n2").await.state(),
        p::NodeState::Unknown,
        "nothing is placed anew by itself"
    );
    assert_eq!(there(other), ["n1"]);

    let operation = moves(&world, by_name(true)).await.unwrap();
    let done = world.done(&operation.id).await;
    assert_eq!(done.state(), p::OperationState::Succeeded, "the lost host is not waited for: {done:?}");
    assert_eq!(there(other), ["n1", "n2"]);
    assert_eq!(there(lost), ["n2"], "it runs on there, as nobody can stop it");
    world.link_is("l", "n1:eth1--n2:eth1", p::LinkState::Up).await;
    assert!(numbers(other).is_disjoint(&former), "and talks into a wire that nobody has any more");
    assert_eq!(facts(&world, &lost.name).await.drain(), p::DrainState::Draining, "until that is known");

    lost.with(|s| s.silent = false);
    eventually("what was there is removed", BOUND, || async { is_bare(lost) }).await;
    is_drained(&world, &lost.name).await;
    assert_eq!(there(other), ["n1", "n2"]);
    assert_eq!(world.nodes("l").await.len(), 2);
}

/// Deploys labs on the first host while all others are cordoned.
async fn deploy_on_first(world: &World, labs: &[(&str, p::LabSpec)]) {
    let others = || world.hosts[1..].iter().map(|h| h.name.clone());
    for other in others() {
        cordon(world, &other, true).await;
    }
    for (lab, spec) in labs {
        let operation = world.deploy(lab, spec.clone()).await;
        assert_eq!(operation.state(), p::OperationState::Succeeded, "{operation:?}");
    }
    for other in others() {
        cordon(world, &other, false).await;
    }
}

/// Where a plan of a drain moves the node of a lab to.
fn goes_to(planned: &ps::DrainHostResponse, lab: &str) -> String {
    let of_lab = planned.moves.iter().find(|o| o.lab == lab).unwrap();
    of_lab.plan.as_ref().unwrap().actions[0].host.clone()
}

#[tokio::test]
async fn a_drain_tries_a_third_host_when_one_does_not_take_or_run_a_node_or_does_not_answer() {
    let world = World::with(&["h1", "h2", "h3"], "").await;
    let mut kept = spec(1, &[]);
    kept.nodes[0].image_pull_policy = p::ImagePullPolicy::Never.into();
    deploy_on_first(&world, &[("broken", spec(1, &[])), ("kept", kept)]).await;
    let planned = drain(&world, "h1", true).await;

    // Its image is not to be had there: the plan says so of no other one.
    let first = of(&world, &goes_to(&planned, "kept"));
    first.with(|s| s.images.clear());
    let other = if first.name == "h2" { "h3" } else { "h2" };
    assert_eq!(goes_to(&drain(&world, "h1", true).await, "kept"), other);
    first.with(|s| s.images.insert("linux:1".into()));
    first.with(|s| s.hides_images = true);
    assert_eq!(goes_to(&drain(&world, "h1", true).await, "kept"), other, "nobody answers there");
    first.with(|s| s.hides_images = false);

    // It does not run there, which is known only once it was tried.
    let first = of(&world, &goes_to(&drain(&world, "h1", true).await, "broken"));
    first.with(|s| s.broken.insert("n1".into()));
    let began = drain(&world, "h1", false).await;
    let failed = began.moves.iter().find(|o| o.lab == "broken").unwrap();
    assert_eq!(world.done(&failed.id).await.state(), p::OperationState::Failed);
    is_drained(&world, "h1").await;
    let now = world.node("broken", "n1").await.host;
    assert!(now != "h1" && now != first.name, "{now}");
}

#[tokio::test]
async fn an_uncordon_while_hosts_are_asked_leaves_every_lab_where_it_is() {
    let world = World::with(&["h1", "h2"], "").await;
    deploy_on_first(&world, &[("one", spec(1, &[])), ("two", spec(1, &[]))]).await;
    let asked = of(&world, "h2").count("compute.inspect_images");
    of(&world, "h2").with(|s| s.hold_images = true);
    let mut client = world.client.clone();
    let request = ps::DrainHostRequest { host: "h1".into(), validate_only: false, lose_disks: false };
    let draining = tokio::spawn(async move { client.drain_host(request).await.unwrap().into_inner() });
    // One lab does not wait for the other: of one each, for the request and for the drain itself, it would be asked twice.
    let both = || async { of(&world, "h2").count("compute.inspect_images") > asked + 2 };
    eventually("the other host is asked for both", BOUND, both).await;
    cordon(&world, "h1", false).await;
    of(&world, "h2").with(|s| s.hold_images = false);
    let drained = draining.await.unwrap();
    assert!(drained.moves.iter().all(|o| actions(o).is_empty()), "{drained:?}");
    let request = ps::ListOperationsRequest { page_size: 100, ..Default::default() };
    let operations = world.client.clone().list_operations(request).await.unwrap().into_inner().operations;
    assert!(operations.iter().all(|o| o.kind() != p::OperationKind::Move), "{operations:?}");
    assert_eq!(there(of(&world, "h1")), ["n1", "n1"]);
}

#[tokio::test]
async fn an_uncordon_cancels_no_move_that_has_nothing_to_do_with_the_host() {
    let world = World::with(&["h1", "h2", "h3"], "").await;
    of(&world, "h1").with(|s| s.machines = true);
    let has = || async { facts(&world, "h1").await.runtimes().any(|r| r == p::Runtime::Libvirt) };
    eventually("that is known", BOUND, has).await;
    cordon(&world, "h3", true).await;
    // A machine whose disk keeps it on the host that is drained, and a node beside which it has no room.
    let mut lab = spec(2, &[]);
    lab.nodes.iter_mut().for_each(|node| node.cpu_request_millis = 3_000);
    lab.nodes[0].kind = "tcl".into();
    let operation = world.deploy("l", lab).await;
    assert_eq!(operation.state(), p::OperationState::Succeeded, "{operation:?}");
    cordon(&world, "h3", false).await;
    let began = drain(&world, "h1", false).await;
    assert!(actions(&began.moves[0]).is_empty(), "{began:?}");
    of(&world, "h3").with(|s| s.hold = true);
    let to = ps::MoveNodesRequest {
        lab: "l".into(),
        nodes: vec!["n2".into()],
        host: "h3".into(),
        ..Default::default()
    };
    let operation = moves(&world, to).await.unwrap();
    cordon(&world, "h1", false).await;
    assert_eq!(world.operation(&operation.id).await.state(), p::OperationState::Running);
    of(&world, "h3").with(|s| s.hold = false);
    assert_eq!(world.done(&operation.id).await.state(), p::OperationState::Succeeded);
    let hosts = [world.node("l", "n1").await.host, world.node("l", "n2").await.host];
    assert_eq!(hosts, ["h1", "h3"]);
}

#[tokio::test]
async fn a_link_that_does_not_come_up_keeps_its_ends_back_and_nothing_else() {
    let world = World::with(&["h1", "h2"], "").await;
    deploy_on_first(&world, &[("l", spec(3, &[(1, 2)]))]).await;
    of(&world, "h2").with(|s| s.unplugged = true);
    let began = drain(&world, "h1", false).await;
    let failed = world.done(&began.moves[0].id).await;
    assert_eq!(failed.state(), p::OperationState::Failed);
    let why = failed.error.unwrap().message;
    assert!(why.starts_with("1 of 1 links did not come up"), "{why}");
    eventually("n3 moves without them", BOUND, || async {
        (there(of(&world, "h1")), there(of(&world, "h2")))
            == (vec!["n1".into(), "n2".into()], vec!["n3".into()])
    })
    .await;
    let staying = facts(&world, "h1").await.staying;
    let told: Vec<&str> = staying.iter().map(|s| s.rejections[0].code.as_str()).collect();
    assert_eq!(told, ["MOVE_FAILED", "MOVE_FAILED"]);
}
