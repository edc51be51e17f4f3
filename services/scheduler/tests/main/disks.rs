//! Virtual machines that move with their disks.

use netloom_model::id::Digest;
use netloom_proto::scheduler::v1 as ps;
use netloom_proto::v1 as p;
use netloom_service::testing::eventually;

use crate::drain::{cordon, drain, facts, is_drained, moves, of, there};
use crate::fake::Host;
use crate::policy::say;
use crate::world::{BOUND, World, spec};

/// A lab with a virtual machine n1 and a container n2 on h1, and what is on the machine's disk.
async fn world() -> (World, Vec<String>) {
    let world = World::with(&["h1", "h2"], "").await;
    // The very bytes that its disk lies on are asked for, by their digest.
    let image = format!("linux:1@{}", Digest::of(b"linux:1"));
    for host in ["h1", "h2"] {
        of(&world, host).with(|s| {
            s.machines = true;
            s.images.insert(image.clone());
        });
    }
    eventually("both have machines", BOUND, || async {
        let runs = |f: ps::HostFacts| f.runtimes.contains(&p::Runtime::Libvirt.into());
        runs(facts(&world, "h1").await) && runs(facts(&world, "h2").await)
    })
    .await;
    cordon(&world, "h2", true).await;
    let mut lab = spec(2, &[(1, 2)]);
    lab.nodes[0].kind = "tcl".into();
    let operation = world.deploy("l", lab).await;
    assert_eq!(operation.state(), p::OperationState::Succeeded, "{operation:?}");
    cordon(&world, "h2", false).await;
    let disk = only_disk(of(&world, "h1"));
    (world, disk)
}

fn only_disk(host: &Host) -> Vec<String> {
    host.read(|s| {
        assert_eq!(s.disks.len(), 1, "{:?}", s.disks);
        s.disks.values().next().unwrap().clone()
    })
}

async fn reason(world: &World) -> String {
    world.node("l", "n1").await.reason
}

#[tokio::test]
async fn a_drained_machine_has_what_was_written_on_its_disk() {
    let (mut world, disk) = world().await;
    let planned = drain(&world, "h1", true).await;
    let action = &planned.moves[0].plan.as_ref().unwrap().actions[0];
    let with = format!("moves from h1 to h2 with its disk ({} B): it is down", disk.join("\n").len());
    assert!(action.reason.starts_with(&with), "{action:?}");

    of(&world, "h1").with(|s| s.hold_disks = true);
    let began = drain(&world, "h1", false).await;
    eventually("it is copied", BOUND, || async {
        reason(&world).await.contains("its disk is copied from h1: 0 B of ")
    })
    .await;
    assert_eq!(world.node("l", "n1").await.state(), p::NodeState::Pending);
    assert_eq!(there(of(&world, "h1")), ["n1 Aside", "n2 Aside"], "it is set aside before it is read");
    assert!(of(&world, "h2").read(|s| s.wanted.values().all(|w| w.disk_of.is_empty())), "it waits");
    // A scheduler that is killed in the middle copies it anew.
    world.kill().await;
    of(&world, "h1").with(|s| s.hold_disks = false);
    world.start().await;
    let done = world.done(&began.moves[0].id).await;
    assert_eq!(done.state(), p::OperationState::Succeeded, "{done:?}");
    is_drained(&world, "h1").await;
    assert_eq!(there(of(&world, "h2")), ["n1", "n2"]);
    let now = only_disk(of(&world, "h2"));
    assert_eq!(now[..disk.len()], disk, "all that was on it");
    assert_eq!(now.len(), disk.len() + 1, "and one more start");
    eventually("nothing of it is left", BOUND, || async { of(&world, "h1").read(|s| s.disks.is_empty()) })
        .await;
    world.link_is("l", "n1:eth1--n2:eth1", p::LinkState::Up).await;

    // Back it goes, by name.
    cordon(&world, "h1", false).await;
    let to = ps::MoveNodesRequest {
        lab: "l".into(),
        nodes: vec!["n1".into()],
        host: "h1".into(),
        ..Default::default()
    };
    let operation = moves(&world, to).await.unwrap();
    assert_eq!(world.done(&operation.id).await.state(), p::OperationState::Succeeded);
    assert_eq!(only_disk(of(&world, "h1"))[..now.len()], now);
}

#[tokio::test]
async fn a_copy_that_breaks_off_is_begun_again_and_one_that_was_whole_is_not() {
    let (mut world, disk) = world().await;
    of(&world, "h2").with(|s| s.cut_disks = 2);
    let began = drain(&world, "h1", false).await;
    eventually("it says so", BOUND, || async {
        reason(&world).await.contains("its disk is not copied from h1 yet, tried again: ")
    })
    .await;
    let done = world.done(&began.moves[0].id).await;
    assert_eq!(done.state(), p::OperationState::Succeeded, "{done:?}");
    assert_eq!(only_disk(of(&world, "h2"))[..disk.len()], disk);
    assert_eq!(of(&world, "h1").count("compute.read_disk"), 3);

    // The copy is there, and who led did not come to write that down.
    cordon(&world, "h1", false).await;
    is_drained_no_more(&world).await;
    of(&world, "h2").with(|s| s.hold_disks = true);
    let began = drain(&world, "h2", false).await;
    eventually("it is copied", BOUND, || async { reason(&world).await.contains("its disk is copied") }).await;
    let uid = world.node("l", "n1").await.uid;
    world.kill().await;
    let disk = only_disk(of(&world, "h2"));
    of(&world, "h1").with(|s| s.disks.insert(uid, disk.clone()));
    world.start().await;
    let done = world.done(&began.moves[0].id).await;
    assert_eq!(done.state(), p::OperationState::Succeeded, "{done:?}");
    assert_eq!(of(&world, "h1").count("disk is here"), 1);
    assert_eq!(of(&world, "h1").count("disk came"), 0);
    assert_eq!(only_disk(of(&world, "h1"))[..disk.len()], disk);
}

#[tokio::test]
async fn four_disks_are_copied_at_once_and_one_that_cannot_be_keeps_no_other_waiting() {
    let (world, _) = world().await;
    for host in ["h1", "h2"] {
        let wish =
            ps::UpdateHostRequest { cpu_overcommit: 8.0, memory_overcommit: 8.0, ..Default::default() };
        say(&world, host, &["cpu_overcommit", "memory_overcommit"], wish).await.unwrap();
    }
    cordon(&world, "h2", true).await;
    let mut lab = spec(6, &[]);
    for node in &mut lab.nodes {
        node.kind = "tcl".into();
    }
    let operation = world.deploy("m", lab).await;
    assert_eq!(operation.state(), p::OperationState::Succeeded, "{operation:?}");
    cordon(&world, "h2", false).await;
    let told = async |what: &str| {
        let nodes = ["n1", "n2", "n3", "n4", "n5", "n6"];
        let all = futures::future::join_all(nodes.map(|n| world.node("m", n))).await;
        all.iter().filter(|node| node.reason.contains(what)).count()
    };
    of(&world, "h2").with(|s| s.cut_disks = usize::MAX);
    let nodes = (1..=6).map(|i| format!("n{i}")).collect();
    let to = ps::MoveNodesRequest { lab: "m".into(), nodes, host: "h2".into(), ..Default::default() };
    let began = moves(&world, to).await.unwrap();
    eventually("all of them are tried", BOUND, || async { told("yet, tried again: ").await == 6 }).await;
    of(&world, "h1").with(|s| s.hold_disks = true);
    of(&world, "h2").with(|s| s.cut_disks = 0);
    eventually("four are copied", BOUND, || async {
        told("its disk is copied from h1").await == 4
            && told("waits for other disks that are being copied").await == 2
    })
    .await;
    of(&world, "h1").with(|s| s.hold_disks = false);
    let done = world.done(&began.id).await;
    assert_eq!(done.state(), p::OperationState::Succeeded, "{done:?}");
}

async fn is_drained_no_more(world: &World) {
    let is_it = || async { facts(world, "h1").await.drain() == p::DrainState::Unspecified };
    eventually("it takes nodes", BOUND, is_it).await;
}

#[tokio::test]
async fn a_cancel_in_the_middle_has_the_machine_back_on_its_own_disk() {
    let (world, disk) = world().await;
    of(&world, "h1").with(|s| s.hold_disks = true);
    let began = drain(&world, "h1", false).await;
    eventually("it is copied", BOUND, || async { reason(&world).await.contains("its disk is copied") }).await;
    cordon(&world, "h1", false).await;
    assert_eq!(world.operation(&began.moves[0].id).await.state(), p::OperationState::Cancelled);
    eventually("they are back", BOUND, || async { there(of(&world, "h1")) == ["n1", "n2"] }).await;
    assert_eq!(only_disk(of(&world, "h1"))[..disk.len()], disk);
    of(&world, "h1").with(|s| s.hold_disks = false);
    eventually("nothing came of it", BOUND, || async {
        of(&world, "h2").read(|s| s.disks.is_empty() && s.exists.is_empty() && s.wanted.is_empty())
    })
    .await;
    world.link_is("l", "n1:eth1--n2:eth1", p::LinkState::Up).await;
}

#[tokio::test]
async fn a_host_without_room_for_a_disk_has_the_machine_where_it_was() {
    let (world, disk) = world().await;
    of(&world, "h2").with(|s| s.refuses_disks = "there are 3 B free".into());
    let began = drain(&world, "h1", false).await;
    let failed = world.done(&began.moves[0].id).await;
    assert_eq!(failed.state(), p::OperationState::Failed);
    let why = failed.error.unwrap().message;
    assert!(
        why.contains("n1: FAILED: its disk cannot be copied from h1") && why.contains("3 B free"),
        "{why}"
    );
    eventually("n1 runs where it was", BOUND, || async { there(of(&world, "h1")) == ["n1"] }).await;
    assert_eq!(only_disk(of(&world, "h1"))[..disk.len()], disk);
}

#[tokio::test]
async fn a_machine_that_is_stopped_has_its_disk_copied_before_what_it_was_is_removed() {
    let (world, disk) = world().await;
    let operation = world.change_nodes("l", ps::NodeChange::Stop, &["n1"]).await.unwrap();
    world.done(&operation.id).await;
    of(&world, "h2").with(|s| s.cut_disks = 1);
    let began = drain(&world, "h1", false).await;
    let done = world.done(&began.moves[0].id).await;
    assert_eq!(done.state(), p::OperationState::Succeeded, "{done:?}");
    is_drained(&world, "h1").await;
    assert_eq!(there(of(&world, "h2")), ["n2"]);
    assert_eq!(only_disk(of(&world, "h2")), disk);
    let operation = world.change_nodes("l", ps::NodeChange::Start, &["n1"]).await.unwrap();
    world.done(&operation.id).await;
    world.node_is("l", "n1", p::NodeState::Ready).await;
    assert_eq!(only_disk(of(&world, "h2"))[..disk.len()], disk);
}

#[tokio::test]
async fn a_machine_begins_anew_where_its_disk_may_be_lost() {
    let (world, disk) = world().await;
    let request = ps::DrainHostRequest { host: "h1".into(), validate_only: false, lose_disks: true };
    let began = world.client.clone().drain_host(request).await.unwrap().into_inner();
    let done = world.done(&began.moves[0].id).await;
    assert_eq!(done.state(), p::OperationState::Succeeded, "{done:?}");
    assert_eq!(of(&world, "h1").count("compute.read_disk"), 0);
    assert_ne!(only_disk(of(&world, "h2"))[0], disk[0]);
}
