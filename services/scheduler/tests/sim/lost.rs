//! Hosts that are silent for so long that what they had is made anew elsewhere.

use std::ops::Range;
use std::time::Duration;

use netloom_model::observed::Phase;
use netloom_proto::scheduler::v1 as ps;
use netloom_proto::v1 as p;
use tokio::time::sleep;

use crate::fake::Existing;
use crate::people::{People, Wish};
use crate::world::{Machine, World, tell};
use crate::{lawful, tell_all, until_well};

const LAB: &str = "a";

fn spec(reschedule_after_seconds: u32) -> p::LabSpec {
    let node = |id: &str| p::NodeSpec {
        id: id.into(),
        kind: "linux".into(),
        image: "linux:1".into(),
        cpu_request_millis: 100,
        ..p::NodeSpec::default()
    };
    let end = |node: &str| {
        Some(p::Endpoint { node: node.into(), interface: "eth1".into(), ..p::Endpoint::default() })
    };
    let links = vec![p::LinkSpec { a: end("n1"), b: end("n2"), ..p::LinkSpec::default() }];
    p::LabSpec {
        nodes: vec![node("n1"), node("n2")],
        links,
        reschedule_after_seconds,
        ..p::LabSpec::default()
    }
}

async fn seconds(seconds: u64) {
    sleep(Duration::from_secs(seconds)).await;
}

/// One of the nodes of the lab where it runs.
fn life(at: &Machine, node: &str) -> Option<Existing> {
    let runs = |e: &&Existing| e.node == node && e.phase == Phase::Running;
    at.host.read(|s| s.exists.values().find(runs).cloned())
}

fn set_open(machine: &Machine, open: bool) {
    tell(format!("{} is {}", machine.host.name, if open { "back" } else { "cut off" }));
    machine.wires().into_iter().for_each(|wire| wire.set_open(open));
}

/// A lab on two hosts, one node on each.
struct Story<'w> {
    world: &'w World,
    people: People<'w>,
}

impl<'w> Story<'w> {
    async fn begin(world: &'w World, after: u32) -> Story<'w> {
        let mut story = Story { world, people: People::new(world) };
        world.machines.iter().for_each(|m| m.host.with(|s| s.cpu_millis = 100));
        story.deploy(after).await;
        story.well().await;
        world.machines.iter().for_each(|m| m.host.with(|s| s.cpu_millis = 1_000));
        seconds(2).await;
        story
    }

    async fn deploy(&mut self, after: u32) {
        self.people.apply(LAB, spec(after)).await.expect("it is taken");
        let spec = Box::new(spec(after));
        self.people.wishes.insert(LAB.into(), Wish::Spec { spec, stopped: Default::default() });
    }

    async fn well(&self) {
        until_well(self.world, &self.people).await;
    }

    /// The machine that has a node, and the other one.
    fn machines(&self, node: &str) -> (&'w Machine, &'w Machine) {
        let [a, b] = &self.world.machines[..] else { panic!("two") };
        if life(a, node).is_some() { (a, b) } else { (b, a) }
    }

    async fn node(&self, node: &str) -> ps::NodeFacts {
        let request = ps::GetNodeRequest { lab: LAB.into(), node: node.into() };
        let answer = self.world.ask(request, |mut c, r| async move { c.get_node(r).await }).await;
        answer.unwrap()
    }

    async fn host(&self, id: &str) -> ps::HostFacts {
        let request = ps::GetHostRequest { host: id.into() };
        self.world.ask(request, |mut c, r| async move { c.get_host(r).await }).await.unwrap()
    }
}

/// Tells stories of two hosts.
pub fn tell_of(seeds: Range<u64>, story: impl AsyncFn(&World) + Sync) {
    let story = &story;
    tell_all(seeds, move |seed| async move {
        let world = World::calm(seed, 2).await;
        lawful(&world, story(&world)).await;
    });
}

#[test]
fn what_a_silent_host_has_is_stopped_there_and_made_anew_elsewhere() {
    tell_of(1..2, async |world| {
        let story = Story::begin(world, 60).await;
        let (lost, other) = story.machines("n2");
        let stays = life(other, "n1").expect("it runs");
        set_open(lost, false);
        seconds(39).await;
        assert!(life(lost, "n2").is_some(), "its lease is not over");
        seconds(4).await;
        assert!(life(lost, "n2").is_none(), "it is stopped there by itself");
        seconds(15).await;
        assert!(life(other, "n2").is_none(), "not before the time of the lab");
        seconds(8).await;
        assert!(life(other, "n2").is_some());
        let moved = story.node("n2").await;
        assert_eq!((moved.host.as_str(), moved.state()), (other.host.name.as_str(), p::NodeState::Ready));
        let begun = life(other, "n2").unwrap().start;
        set_open(lost, true);
        story.well().await;
        assert!(lost.host.read(|s| s.exists.is_empty()), "what it had is removed");
        assert_eq!(life(other, "n1").unwrap().start, stays.start);
        assert_eq!(life(other, "n2").unwrap().start, begun);
    });
}

#[test]
fn what_finds_no_place_is_said_and_starts_again_with_its_host() {
    tell_of(2..3, async |world| {
        let story = Story::begin(world, 60).await;
        let (lost, other) = story.machines("n2");
        let id = life(lost, "n2").unwrap().id;
        other.host.with(|s| s.cpu_millis = 100);
        set_open(lost, false);
        seconds(80).await;
        let staying = story.host(&lost.host.name).await.staying;
        assert_eq!(staying.len(), 1, "{staying:?}");
        assert!(staying[0].node.ends_with("/n2") && !staying[0].rejections.is_empty(), "{staying:?}");
        set_open(lost, true);
        story.well().await;
        assert_eq!(life(lost, "n2").unwrap().id, id, "the very container");
        assert!(story.host(&lost.host.name).await.staying.is_empty());
    });
}

#[test]
fn without_a_scheduler_leases_end_and_go_on_with_the_next_one() {
    tell_of(3..4, async |world| {
        let story = Story::begin(world, 60).await;
        let (one, other) = story.machines("n1");
        let (id, begun) = (life(one, "n1").unwrap().id, life(one, "n1").unwrap().start);
        world.kill().await;
        seconds(30).await;
        world.start();
        seconds(50).await;
        story.well().await;
        assert_eq!(life(one, "n1").unwrap().start, begun, "it was renewed in time");
        world.kill().await;
        seconds(50).await;
        assert!(life(one, "n1").is_none() && life(other, "n2").is_none());
        world.start();
        story.well().await;
        assert_eq!(life(one, "n1").unwrap().id, id);
    });
}

#[test]
fn a_new_scheduler_does_not_know_what_the_former_heard_and_waits_the_whole_time() {
    tell_of(4..5, async |world| {
        let story = Story::begin(world, 60).await;
        let (lost, other) = story.machines("n2");
        set_open(lost, false);
        seconds(55).await;
        world.kill().await;
        world.start();
        seconds(55).await;
        assert!(life(other, "n2").is_none());
        seconds(15).await;
        assert!(life(other, "n2").is_some());
        set_open(lost, true);
        story.well().await;
    });
}

#[test]
fn a_time_that_is_changed_while_nobody_knows_what_the_host_heard_gives_nothing_up() {
    tell_of(5..6, async |world| {
        let mut story = Story::begin(world, 60).await;
        let (lost, other) = story.machines("n2");
        // The host is told of the longer time, and nobody hears that.
        lost.host.with(|s| s.mute = true);
        story.people.apply(LAB, spec(6_000)).await;
        seconds(10).await;
        let longest = lost.host.read(|s| s.leases.values().copied().max());
        assert_eq!(longest, Some(4_000));
        set_open(lost, false);
        story.people.cancel().await;
        seconds(300).await;
        assert!(life(lost, "n2").is_some(), "its lease is the long one");
        assert!(life(other, "n2").is_none());
        lost.host.with(|s| s.mute = false);
        set_open(lost, true);
        story.deploy(60).await;
        story.well().await;
    });
}

#[test]
fn a_host_that_keeps_no_leases_is_never_given_up() {
    tell_of(6..7, async |world| {
        world.machines.iter().for_each(|m| m.host.with(|s| s.began = None));
        let story = Story::begin(world, 60).await;
        let (lost, other) = story.machines("n2");
        let begun = life(lost, "n2").unwrap().start;
        set_open(lost, false);
        seconds(300).await;
        assert!(life(other, "n2").is_none());
        set_open(lost, true);
        story.well().await;
        assert_eq!(life(lost, "n2").unwrap().start, begun);
    });
}

#[test]
fn a_host_that_is_back_in_the_moment_of_giving_up_starts_nothing_that_is_elsewhere() {
    let moved = tempfile::tempdir().unwrap();
    // Whichever it is, it is one of them: the laws look all the time.
    tell_of(100..160, async |world| {
        let story = Story::begin(world, 60).await;
        let (lost, other) = story.machines("n2");
        set_open(lost, false);
        sleep(Duration::from_millis(58_500 + 50 * (world.seed - 100))).await;
        set_open(lost, true);
        story.well().await;
        if life(other, "n2").is_some() {
            std::fs::write(moved.path().join(world.seed.to_string()), "").unwrap();
        }
    });
    let elsewhere = std::fs::read_dir(moved.path()).unwrap().count();
    assert!((1..60).contains(&elsewhere), "some are back in time, some are not: {elsewhere}");
}
