//! What administrators and users say of where nodes go: labels, taints, pins, what of a host may be reserved, and what becomes of a lab that does not fit.

use netloom_model::failure::{Code, Failure};
use netloom_proto::scheduler::v1 as ps;
use netloom_proto::v1 as p;
use netloom_service::status::from_status;
use netloom_service::testing::eventually;

use crate::drain::{facts, of};
use crate::world::{BOUND, World, spec};

/// Sets what a request says, as far as its paths name it.
pub async fn say(
    world: &World,
    host: &str,
    paths: &[&str],
    wish: ps::UpdateHostRequest,
) -> Result<ps::HostFacts, Failure> {
    let paths = paths.iter().map(|path| (*path).to_owned()).collect();
    let request = ps::UpdateHostRequest { host: host.into(), paths, ..wish };
    world.client.clone().update_host(request).await.map(|r| r.into_inner()).map_err(|s| from_status(&s))
}

fn labels(key: &str, value: &str) -> ps::UpdateHostRequest {
    ps::UpdateHostRequest { labels: [(key.to_owned(), value.to_owned())].into(), ..Default::default() }
}

fn taints(key: &str, value: &str) -> ps::UpdateHostRequest {
    ps::UpdateHostRequest { taints: [(key.to_owned(), value.to_owned())].into(), ..Default::default() }
}

#[tokio::test]
async fn an_interface_of_a_host_is_the_uplink_of_one_bridge_at_a_time() {
    let world = World::new().await;
    let lab = || {
        let mut lab = spec(1, &[]);
        let (id, kind, uplink) = ("sw".into(), "bridge".into(), "ens5".into());
        lab.nodes.push(p::NodeSpec { id, kind, uplink, ..p::NodeSpec::default() });
        lab
    };
    let refused = world.apply("l", lab()).await.unwrap_err();
    assert_eq!(refused.reason, "UPLINK_NOT_ALLOWED");
    let said = &refused.violations[0].description;
    assert!(
        said.contains("has no interface ens5 that labs may use: name it in `uplinks` of [network]"),
        "{said}"
    );
    let nic =
        p::HostUplink { interface: "ens5".into(), kind: p::UplinkKind::Nic.into(), problem: String::new() };
    world.host().with(|s| s.uplinks = vec![nic]);
    eventually("the host has it", BOUND, || async { world.apply("l", lab()).await.is_ok() }).await;
    world.node_is("l", "sw", p::NodeState::Ready).await;
    assert!(world.host().read(|s| s.segments.values().all(|segment| segment.uplink == "ens5")));
    let host = world.client.clone().get_host(ps::GetHostRequest { host: "h1".into() }).await.unwrap();
    assert_eq!(host.into_inner().uplinks[0].interface, "ens5");

    // The next one waits until it is free.
    world.apply("m", lab()).await.unwrap();
    world.node_is("m", "sw", p::NodeState::Unschedulable).await;
    let waits = world.node("m", "sw").await;
    let why = &waits.rejections[0];
    assert_eq!((why.code.as_str(), why.resolvable), ("UPLINK_NOT_FREE", true));
    assert!(why.detail.contains("has its interface ens5 in bridge l/sw"), "{why:?}");
    eventually("the first one goes", BOUND, || async { world.destroy("l").await.is_ok() }).await;
    world.node_is("m", "sw", p::NodeState::Ready).await;
}

#[tokio::test]
async fn a_node_goes_where_labels_and_taints_let_it_and_a_name_of_nothing_is_refused() {
    let mut world = World::with(&["h1", "h2"], "").await;
    say(&world, "h1", &["labels.rack"], labels("rack", "1")).await.unwrap();
    say(&world, "H2", &["labels.rack"], labels("rack", "2")).await.unwrap();
    say(&world, "h2", &["taints.gpu"], taints("gpu", "a100")).await.unwrap();
    let mut lab = spec(3, &[]);
    lab.nodes[0].placement =
        Some(p::PlacementSpec { labels: [("rack".to_owned(), "2".to_owned())].into(), ..Default::default() });
    lab.nodes[1].placement = Some(p::PlacementSpec { apart_from: vec!["n3".into()], ..Default::default() });
    let operation = world.deploy("l", lab.clone()).await;
    let unplaced = operation.plan.unwrap().unplaced;
    let said = |u: &p::Unplaced| -> Vec<String> {
        u.rejections.iter().map(|r| format!("{}: {} {}", r.host, r.code, r.detail)).collect()
    };
    assert_eq!(
        said(unplaced.iter().find(|u| u.node == "n1").unwrap()),
        [
            "h1: HOST_LABEL_MISSING lacks the label rack=2; it has rack=1",
            "h2: HOST_TAINTED has the taint gpu=a100, which the node does not tolerate",
        ]
    );
    // n2 and n3 are to be apart, and only one host takes them.
    assert_eq!(unplaced.len(), 2, "{unplaced:?}");
    // The taint goes, and what waited for it starts by itself; it is still gone after a restart, and the labels are there.
    say(&world, "h2", &["taints.gpu"], ps::UpdateHostRequest::default()).await.unwrap();
    for node in ["n1", "n2", "n3"] {
        world.node_is("l", node, p::NodeState::Ready).await;
    }
    assert_eq!(world.node("l", "n1").await.host, "h2");
    assert_ne!(world.node("l", "n2").await.host, world.node("l", "n3").await.host);
    world.stop().await;
    world.start().await;
    let host = ps::GetHostRequest { host: "h2".into() };
    let host = world.client.clone().get_host(host).await.unwrap().into_inner();
    assert_eq!((host.labels["rack"].as_str(), host.taints.len()), ("2", 0));
    // What names nothing is refused, and nothing changes.
    let mut wrong = lab.clone();
    wrong.nodes[2].placement = Some(p::PlacementSpec { host: "h9".into(), ..Default::default() });
    let failure = world.apply("l", wrong).await.unwrap_err();
    assert_eq!((failure.code, failure.reason.as_str()), (Code::NotFound, "HOST_NOT_FOUND"));
    assert!(failure.message.ends_with("there are h1, h2"), "{}", failure.message);
    let mut wrong = lab.clone();
    wrong.nodes.push(p::NodeSpec { id: "n4".into(), ..lab.nodes[2].clone() });
    wrong.nodes[3].placement =
        Some(p::PlacementSpec { labels: [("rack".to_owned(), "3".to_owned())].into(), ..Default::default() });
    let failure = world.apply("l", wrong).await.unwrap_err();
    assert_eq!((failure.code, failure.reason.as_str()), (Code::FailedPrecondition, "HOST_LABEL_MISSING"));
    let told: Vec<&str> = failure.violations.iter().map(|v| v.description.as_str()).collect();
    assert_eq!(
        told,
        ["host h1: lacks the label rack=3; it has rack=1", "host h2: lacks the label rack=3; it has rack=2"]
    );
    let mut wrong = lab.clone();
    wrong.nodes[1].placement = Some(p::PlacementSpec { apart_from: vec!["n7".into()], ..Default::default() });
    let failure = world.apply("l", wrong).await.unwrap_err();
    assert_eq!(failure.violations[0].field, "spec.nodes[1].placement.apart_from");
    // One that is placed stays where it is.
    let mut changed = lab;
    let elsewhere = if world.node("l", "n3").await.host == "h1" { "h2" } else { "h1" };
    changed.nodes[2].placement = Some(p::PlacementSpec { host: elsewhere.into(), ..Default::default() });
    let uid = world.node("l", "n3").await.uid;
    let operation = world.deploy("l", changed).await;
    let plan = operation.plan.unwrap();
    assert!(
        plan.actions[0].reason.contains("placement") && plan.actions[0].reason.contains("stays"),
        "{plan:?}"
    );
    assert_eq!(world.node("l", "n3").await.uid, uid);
}

#[tokio::test]
async fn a_machine_that_needs_kvm_waits_until_a_host_has_it() {
    use p::Acceleration::{Emulated, Kvm};
    let world = World::with(&["h1", "h2"], "").await;
    // The second one is of an earlier version, and does not say.
    of(&world, "h1").with(|s| (s.machines, s.acceleration) = (true, (Emulated, "there is no /dev/kvm")));
    of(&world, "h2").with(|s| s.machines = true);
    let runs = async |host| facts(&world, host).await.runtimes.contains(&p::Runtime::Libvirt.into());
    eventually("both run machines", BOUND, || async { runs("h1").await && runs("h2").await }).await;
    let told = facts(&world, "h1").await;
    assert_eq!((told.acceleration(), told.acceleration_reason.as_str()), (Emulated, "there is no /dev/kvm"));
    let mut lab = spec(3, &[]);
    lab.nodes[0].kind = "juniper_vjunosswitch".into();
    lab.nodes[1].kind = "tcl".into();
    for node in &mut lab.nodes {
        (node.cpu_request_millis, node.memory_request_bytes) = (1_000, 64 << 20);
    }
    let operation = world.deploy("l", lab.clone()).await;
    assert_eq!(operation.state(), p::OperationState::Failed);
    assert_eq!(world.node("l", "n1").await.state(), p::NodeState::Unschedulable);
    let why = world.node("l", "n1").await.rejections;
    let codes: Vec<&str> = why.iter().map(|r| r.code.as_str()).collect();
    assert_eq!(codes, ["KVM_MISSING", "KVM_MISSING"]);
    assert!(why[0].detail.contains("(there is no /dev/kvm)"), "{why:?}");
    world.node_is("l", "n2", p::NodeState::Ready).await;
    // It is placed once one has it, and stays when that is over.
    of(&world, "h2").with(|s| s.acceleration.0 = Kvm);
    world.node_is("l", "n1", p::NodeState::Ready).await;
    of(&world, "h2").with(|s| s.acceleration = (Emulated, "it is gone"));
    eventually("it is told", BOUND, || async { facts(&world, "h2").await.acceleration() == Emulated }).await;
    let again = world.apply("l", lab.clone()).await.unwrap().plan.unwrap();
    assert!(again.actions.is_empty() && again.unplaced.is_empty(), "{again:?}");
    assert_eq!(world.node("l", "n1").await.host, "h2");
    // Whoever has the time has it emulated.
    lab.nodes[0].id = "n4".into();
    lab.nodes[0].placement =
        Some(p::PlacementSpec { kvm: p::KvmNeed::Preferred.into(), ..Default::default() });
    let operation = world.deploy("l", lab).await;
    assert_eq!(operation.state(), p::OperationState::Succeeded, "{operation:?}");
}

#[tokio::test]
async fn a_lab_goes_where_its_image_was_also_after_a_restart() {
    let mut world = World::with(&["h1", "h2", "h3"], "").await;
    let lab = |image: &str, host: &str| {
        let mut lab = spec(1, &[]);
        (lab.nodes[0].image, lab.nodes[0].cpu_request_millis) = (image.into(), 20);
        lab.nodes[0].placement = Some(p::PlacementSpec { host: host.into(), ..Default::default() });
        lab
    };
    for host in ["h1", "h2", "h3"] {
        of(&world, host).with(|s| s.pullable.extend(["a:1".to_owned(), "b:1".to_owned()]));
    }
    world.deploy("a", lab("a:1", "h1")).await;
    world.deploy("b", lab("b:1", "h2")).await;
    // Nothing is on h3, and the others are hardly fuller.
    let goes = async |world: &World, name: &str, image: &str| {
        world.deploy(name, lab(image, "")).await;
        world.node(name, "n1").await.host
    };
    assert_eq!(goes(&world, "c", "a:1").await, "h1");
    assert_eq!(goes(&world, "d", "b:1").await, "h2");
    world.destroy("b").await.unwrap();
    eventually("it is gone", BOUND, || async { world.lab("b").await.is_err() }).await;
    world.kill().await;
    world.start().await;
    assert_eq!(goes(&world, "e", "b:1").await, "h2", "d has it there");
    // A host that is found not to have it any more draws nobody.
    of(&world, "h2").with(|s| {
        s.images.remove("b:1");
        s.pullable.remove("b:1");
    });
    let failed = world.deploy("f", lab("b:1", "h2")).await;
    assert_eq!(failed.state(), p::OperationState::Failed);
    assert_eq!(goes(&world, "g", "b:1").await, "h3", "the emptiest");
}

#[tokio::test]
async fn what_of_a_host_may_be_reserved_is_its_own_matter() {
    let world = World::with(&["h1"], "").await;
    let mut lab = spec(2, &[]);
    lab.nodes.iter_mut().for_each(|n| n.cpu_request_millis = 3_000);
    // 4 cores once: one of the two fits.
    world.deploy("l", lab).await;
    let wish = ps::UpdateHostRequest { system_cpu_millis: 500, cpu_overcommit: 1.5, ..Default::default() };
    let host = say(&world, "h1", &["system_cpu_millis", "cpu_overcommit"], wish).await.unwrap();
    assert_eq!((host.system_cpu_millis, host.cpu_overcommit, host.memory_overcommit), (500, 1.5, 1.0));
    let waiting = || async { world.nodes("l").await.into_iter().find(|n| n.host.is_empty()) };
    let said = waiting().await.map(|n| n.rejections[0].detail.clone());
    assert!(said.is_some_and(|said| said.starts_with("needs 3.00 CPU, ")), "3.5 cores, 1.5 times, are 5.25");
    let wish = ps::UpdateHostRequest { cpu_overcommit: 2.0, ..Default::default() };
    say(&world, "h1", &["cpu_overcommit"], wish).await.unwrap();
    for node in ["n1", "n2"] {
        world.node_is("l", node, p::NodeState::Ready).await;
    }
    let host = say(&world, "h1", &["cpu_overcommit"], ps::UpdateHostRequest::default()).await.unwrap();
    assert_eq!((host.cpu_overcommit, host.cpu_reserved_millis), (1.0, 6_000), "nodes that are there stay");
    let lost = say(&world, "h9", &["labels"], ps::UpdateHostRequest::default()).await.unwrap_err();
    assert_eq!(lost.reason, "HOST_NOT_FOUND");
}

#[tokio::test]
async fn who_needs_the_room_of_one_made_anew_has_it_once_that_is_made_and_not_when_it_cannot_be() {
    let sized = |image: &str, sizes: &[u32]| {
        let mut lab = spec(u32::try_from(sizes.len()).unwrap(), &[]);
        lab.nodes.iter_mut().zip(sizes).for_each(|(node, cpu)| node.cpu_request_millis = *cpu);
        lab.nodes[0].image = image.into();
        lab
    };
    for (image, works) in [("nowhere:1", false), ("linux:2", true)] {
        let world = World::with(&["h1"], "").await;
        world.host().with(|s| s.pullable.insert("linux:2".into()));
        world.deploy("l", sized("linux:1", &[3_000])).await;
        // A host of the tests has 4 cores: the second one needs what the first one gives up.
        let mut lab = sized(image, &[1_000, 2_000]);
        lab.placement_policy = p::PlacementPolicy::AllOrNothing.into();
        let operation = world.deploy("l", lab).await;
        let placed: Vec<bool> = world.nodes("l").await.iter().map(|n| !n.host.is_empty()).collect();
        assert_eq!(operation.state() == p::OperationState::Succeeded, works, "{operation:?}");
        assert_eq!(placed, [true, works], "{operation:?}");
    }
}

/// Nodes of three cores each; a host of the tests has four.
fn of_three_cores(nodes: u32, links: &[(u32, u32)], policy: p::PlacementPolicy) -> p::LabSpec {
    let mut lab = p::LabSpec { placement_policy: policy.into(), ..spec(nodes, links) };
    lab.nodes.iter_mut().for_each(|n| n.cpu_request_millis = 3_000);
    lab
}

async fn plan(world: &World, lab: &str, spec: p::LabSpec) -> ps::OperationFacts {
    let request =
        ps::ApplyLabRequest { lab: lab.into(), spec: Some(spec), validate_only: true, ..Default::default() };
    world.request(request).await.unwrap()
}

#[tokio::test]
async fn a_lab_of_all_or_nothing_that_does_not_fit_changes_nothing_and_says_why_per_node_and_host() {
    let world = World::with(&["h1", "h2"], "").await;
    let whole = of_three_cores(3, &[], p::PlacementPolicy::AllOrNothing);
    let failure = world.apply("w", whole.clone()).await.unwrap_err();
    assert_eq!((failure.code, failure.reason.as_str()), (Code::ResourceExhausted, "LAB_DOES_NOT_FIT"));
    assert_eq!((failure.metadata["lab"].as_str(), failure.violations.len()), ("w", 1));
    assert_eq!(
        failure.violations[0].description,
        "host h1: needs 3.00 CPU, 1.00 of 4.00 free, 2.00 missing; host h2: needs 3.00 CPU, 1.00 of 4.00 free, 2.00 missing"
    );
    assert!(world.lab("w").await.is_err());
    world.hosts.iter().for_each(|h| h.read(|s| assert!(s.wanted.is_empty())));
    // A dry run says the same, and shows what it would be.
    let planned = plan(&world, "w", whole.clone()).await;
    assert_eq!(planned.state(), p::OperationState::Failed);
    assert_eq!(planned.error.unwrap().message, failure.message);
    let shown = planned.plan.unwrap();
    assert_eq!((shown.unplaced.len(), shown.placements.len()), (1, 2));
    // By best effort what fits runs. Then a deploy that asks for all of it is refused, and what runs stays as it is.
    let some = of_three_cores(3, &[], p::PlacementPolicy::BestEffort);
    world.deploy("w", some).await;
    let before = world.lab("w").await.unwrap();
    assert_eq!(world.apply("w", whole.clone()).await.unwrap_err().reason, "LAB_DOES_NOT_FIT");
    let after = world.lab("w").await.unwrap();
    assert_eq!(
        (after.generation, after.spec, after.node_tallies),
        (before.generation, before.spec, before.node_tallies)
    );
    // With room it runs as a whole.
    world.hosts[0].with(|s| s.cpu_millis = 8_000);
    let waits = world.nodes("w").await.into_iter().find(|n| n.host.is_empty()).unwrap();
    world.node_is("w", &waits.spec.unwrap().id, p::NodeState::Ready).await;
    assert_eq!(world.deploy("w", whole).await.state(), p::OperationState::Succeeded);
}

#[tokio::test]
async fn a_dry_run_shows_where_nodes_go_why_not_elsewhere_and_what_is_cut() {
    let world = World::with(&["h1", "h2", "h3"], "").await;
    world.hosts[2].with(|s| s.cpu_millis = 2_000);
    let mut lab = of_three_cores(2, &[(1, 2)], p::PlacementPolicy::BestEffort);
    let shown = plan(&world, "s", lab.clone()).await.plan.unwrap();
    assert_eq!(shown.cut_links, ["n1:eth1--n2:eth1"]);
    let told: Vec<(&str, Vec<(&str, &str)>)> = shown
        .placements
        .iter()
        .map(|p| (p.node.as_str(), p.others.iter().map(|o| (o.host.as_str(), o.code.as_str())).collect()))
        .collect();
    let small = ("h3", "INSUFFICIENT_CPU");
    let host = |node: usize| shown.placements[node].host.as_str();
    assert_eq!(
        told,
        [
            ("n1", vec![(host(1), "INSUFFICIENT_CPU"), small]),
            ("n2", vec![(host(0), "INSUFFICIENT_CPU"), small]),
        ]
    );
    // What is deployed is what was shown; and a plan with nothing to place still says what is cut.
    let deployed = world.deploy("s", lab.clone()).await.plan.unwrap();
    assert!(deployed.placements.is_empty() && deployed.cut_links.is_empty(), "of a dry run only");
    for placed in &shown.placements {
        assert_eq!(world.node("s", &placed.node).await.host, placed.host);
    }
    lab.nodes.push(p::NodeSpec { id: "n3".into(), cpu_request_millis: 500, ..lab.nodes[0].clone() });
    let shown = plan(&world, "s", lab).await.plan.unwrap();
    assert_eq!((shown.placements.len(), shown.cut_links.len()), (1, 1));
    let others = &shown.placements[0].others;
    assert!(others.iter().all(|o| o.code == "NOT_CHOSEN" && o.resolvable), "{others:?}");
}

#[tokio::test]
async fn disk_is_reserved_like_the_rest_and_one_that_is_not_known_is_no_limit() {
    let world = World::with(&["h1", "h2"], "disk_overcommit = 1.0").await;
    let gib = |n: u64| n << 30;
    let host = |name: &str| {
        let (mut client, host) = (world.client.clone(), name.to_owned());
        async move { client.get_host(ps::GetHostRequest { host }).await.unwrap().into_inner() }
    };
    world.hosts[0].with(|s| s.disk_bytes = Some(gib(40)));
    world.hosts[1].with(|s| s.disk_bytes = Some(gib(10)));
    eventually("both say what disk they have", BOUND, || async {
        host("h1").await.disk_bytes.is_some() && host("h2").await.disk_bytes.is_some()
    })
    .await;
    let mut lab = spec(4, &[]);
    for (node, disk) in lab.nodes.iter_mut().zip([36, 9, 4, 50]) {
        node.disk_request_bytes = gib(disk);
    }
    let operation = world.deploy("l", lab.clone()).await;
    let unplaced = operation.plan.unwrap().unplaced;
    let said = |node: &str| -> Vec<String> {
        let of = unplaced.iter().find(|u| u.node == node).into_iter().flat_map(|u| &u.rejections);
        of.map(|r| format!("{}: {} {}, {}", r.host, r.code, r.detail, r.resolvable)).collect()
    };
    assert_eq!(
        said("n4"),
        [
            "h1: INSUFFICIENT_DISK needs 50.0 GiB disk, 0 B of 40.0 GiB free, 50.0 GiB missing, false",
            "h2: INSUFFICIENT_DISK needs 50.0 GiB disk, 1.0 GiB of 10.0 GiB free, 49.0 GiB missing, false",
        ]
    );
    assert_eq!(unplaced.len(), 1, "{unplaced:?}");
    assert_eq!(
        (host("h1").await.disk_reserved_bytes, host("h2").await.disk_reserved_bytes),
        (gib(40), gib(9))
    );
    // What is there may not grow beyond what its host has.
    lab.nodes[1].disk_request_bytes = gib(11);
    let failure = world.apply("l", lab.clone()).await.unwrap_err();
    assert_eq!(failure.reason, "INSUFFICIENT_DISK");
    assert!(
        failure.message.contains("needs 11.0 GiB disk, 10.0 GiB of 10.0 GiB free, 1.0 GiB missing"),
        "{}",
        failure.message
    );
    // Its own figure, and its own reserve.
    let wish =
        ps::UpdateHostRequest { disk_overcommit: 3.0, system_disk_bytes: gib(8), ..Default::default() };
    let paths = ["disk_overcommit", "system_disk_bytes"];
    assert_eq!(say(&world, "h1", &paths, wish).await.unwrap().disk_overcommit, 3.0);
    world.node_is("l", "n4", p::NodeState::Ready).await;
    assert_eq!(
        host("h1").await.disk_reserved_bytes,
        gib(90),
        "3 times what is left of 40 GiB without 8 is 96"
    );
    // A host that does not tell takes what it is given, and what is reserved of it is known all the same.
    world.hosts[1].with(|s| s.disk_bytes = None);
    eventually("it does not say any more", BOUND, || async { host("h2").await.disk_bytes.is_none() }).await;
    let mut large = spec(1, &[]);
    large.nodes[0].disk_request_bytes = gib(7_000);
    world.deploy("large", large).await;
    assert_eq!(world.node("large", "n1").await.host, "h2");
    assert_eq!(host("h2").await.disk_reserved_bytes, gib(7_009));
}

#[tokio::test]
async fn a_virtual_machine_counts_the_disks_that_it_has_unless_it_says_otherwise() {
    let world = World::new().await;
    world.host().with(|s| (s.machines, s.disk_bytes) = (true, Some(100 << 30)));
    world.host().with(|s| s.images.extend(["disk:1".to_owned(), "other:1".to_owned()]));
    world.registry.disks.lock().unwrap().insert("disk:1".into(), 12 << 30);
    let mut lab = spec(4, &[]);
    for (node, image) in lab.nodes.iter_mut().zip(["disk:1", "disk:1", "other:1"]) {
        (node.runtime, node.image) = (p::Runtime::Libvirt.into(), image.into());
        (node.cpu_request_millis, node.memory_request_bytes) = (1_000, 64 << 20);
    }
    lab.nodes[1].disk_request_bytes = 3 << 30;
    world.deploy("l", lab.clone()).await;
    let disk = || async {
        let nodes = world.nodes("l").await;
        nodes.into_iter().map(|n| n.spec.unwrap().disk_request_bytes >> 30).collect::<Vec<_>>()
    };
    assert_eq!(disk().await, [12, 3, 0, 0], "its image, its word, nothing known, a container");
    // Asked for again, nothing is done; also when the store has lost it meanwhile.
    assert!(world.apply("l", lab.clone()).await.unwrap().plan.unwrap().actions.is_empty());
    world.registry.disks.lock().unwrap().clear();
    assert!(world.apply("l", lab.clone()).await.unwrap().plan.unwrap().actions.is_empty());
    lab.nodes[1].disk_request_bytes = 0;
    world.registry.disks.lock().unwrap().insert("disk:1".into(), 20 << 30);
    let plan = world.deploy("l", lab).await.plan.unwrap();
    let said: Vec<&str> = plan.actions.iter().map(|a| a.reason.as_str()).collect();
    assert!(said.iter().any(|r| r.contains("disk ") && r.contains("→")), "{said:?}");
    assert_eq!(disk().await, [20, 20, 0, 0]);
}
