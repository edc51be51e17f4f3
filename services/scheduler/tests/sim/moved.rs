//! A virtual machine that is moved back and forth while programs end, hosts are cut off and moves are cancelled: what was written on its disk is still there.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use netloom_model::id::Digest;
use netloom_model::observed::Phase;
use netloom_proto::scheduler::v1 as ps;
use netloom_proto::v1 as p;
use tokio::time::sleep;

use crate::lost::tell_of;
use crate::people::{People, Wish};
use crate::wires::Dice;
use crate::world::{World, tell};
use crate::{STEP, seeds, until_well, weather};

const LAB: &str = "a";
/// How many stories are told when nobody says.
const SEEDS: u64 = 40;

fn spec() -> p::LabSpec {
    let node = |id: &str, kind: &str| p::NodeSpec {
        id: id.into(),
        kind: kind.into(),
        image: "linux:1".into(),
        cpu_request_millis: 100,
        ..p::NodeSpec::default()
    };
    let end = |node: &str| {
        Some(p::Endpoint { node: node.into(), interface: "eth1".into(), ..p::Endpoint::default() })
    };
    let links = vec![p::LinkSpec { a: end("n1"), b: end("n2"), ..p::LinkSpec::default() }];
    p::LabSpec { nodes: vec![node("n1", "tcl"), node("n2", "linux")], links, ..p::LabSpec::default() }
}

/// Moves the machine, and takes that back now and then.
async fn moves(world: &World, dice: &mut Dice) {
    for _ in 0..8 {
        let request =
            ps::MoveNodesRequest { lab: LAB.into(), nodes: vec!["n1".into()], ..Default::default() };
        let answer = world.ask(request, |mut c, r| async move { c.move_nodes(r).await }).await;
        let operation = answer.map(|a| a.operation.unwrap_or_default().id).map_err(|e| e.reason);
        tell(format!("n1 is moved: {operation:?}"));
        sleep(dice.millis(6_000)).await;
        if let Some(operation) = operation.ok().filter(|_| dice.percent(40)) {
            let request = ps::CancelOperationRequest { operation };
            let answer = world.ask(request, |mut c, r| async move { c.cancel_operation(r).await }).await;
            tell(format!("that is taken back: {:?}", answer.map(drop).map_err(|e| e.reason)));
        }
        sleep(dice.millis(8_000)).await;
    }
}

/// What was on disks when they were last looked at, by node, and which node ran last.
#[derive(Default)]
struct Seen {
    disks: BTreeMap<String, Vec<String>>,
    last: String,
}

/// What a machine that runs has on its disk is what it had, and more: of one that has just come, all that is where it came from. A move that is taken back takes back what was written since.
fn look(world: &World, seen: &mut Seen) {
    let there: Vec<(String, Vec<String>, bool)> = world
        .machines
        .iter()
        .flat_map(|machine| {
            machine.host.read(|s| {
                let runs = |uid: &String| s.exists.get(uid).is_some_and(|e| e.phase == Phase::Running);
                s.disks.iter().map(|(uid, disk)| (uid.clone(), disk.clone(), runs(uid))).collect::<Vec<_>>()
            })
        })
        .collect();
    for (uid, disk, _) in there.iter().filter(|(.., runs)| *runs) {
        let is_it = match seen.disks.get(uid) {
            Some(before) => disk.starts_with(before),
            None => {
                let came_from =
                    |(other, from, _): &(String, Vec<String>, bool)| other != uid && disk.starts_with(from);
                let was = seen.disks.get(&seen.last).is_none_or(|before| disk.starts_with(before));
                was || there.iter().any(came_from)
            }
        };
        assert!(is_it, "{:?} became {disk:?} of {uid}", seen.disks);
        seen.disks.insert(uid.clone(), disk.clone());
        seen.last.clone_from(uid);
    }
    let origins: BTreeSet<&String> = seen.disks.values().map(|disk| &disk[0]).collect();
    assert!(origins.len() < 2, "it began anew: {:?}", seen.disks);
}

async fn story(world: &World) {
    for machine in &world.machines {
        machine.host.with(|s| {
            (s.machines, s.cpu_millis, s.disk_bytes) = (true, 2_000, None);
            s.images.insert(format!("linux:1@{}", Digest::of(b"linux:1")));
        });
    }
    let mut people = People::new(world);
    sleep(Duration::from_secs(3)).await;
    people.apply(LAB, spec()).await.expect("it is taken");
    people.wishes.insert(LAB.into(), Wish::Spec { spec: Box::new(spec()), stopped: Default::default() });
    until_well(world, &people).await;
    let mut dice = Dice::new(world.seed, "moves");
    let mut seen = Seen::default();
    look(world, &mut seen);
    assert_eq!(seen.disks.len(), 1, "it runs");
    tokio::select! {
        () = moves(world, &mut dice) => {}
        () = weather::turn(world) => {}
        () = async {
            loop {
                look(world, &mut seen);
                sleep(STEP).await;
            }
        } => {}
    }
    if world.is_down() {
        world.start();
    }
    world.mend();
    until_well(world, &people).await;
    look(world, &mut seen);
    let disks: Vec<_> = world.machines.iter().flat_map(|m| m.host.read(|s| s.disks.clone())).collect();
    assert_eq!(disks.len(), 1, "there is one of it: {disks:?}");
    // The last move may have begun though nobody waits for it any more.
    while !matches!(people.wishes[LAB], Wish::Gone) {
        people.destroy(LAB).await;
        sleep(Duration::from_secs(1)).await;
    }
    until_well(world, &people).await;
    for machine in &world.machines {
        machine.host.read(|s| assert!(s.disks.is_empty(), "{} has {:?}", machine.host.name, s.disks));
    }
}

#[test]
fn what_was_written_on_a_disk_is_still_there_after_moves() {
    tell_of(seeds(SEEDS), story);
}
