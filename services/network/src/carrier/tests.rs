//! The rule against a kernel in memory: whatever order things happen and are heard of in, at rest each end sees what the other wants.

use std::collections::{HashMap, VecDeque};

use proptest::prelude::*;

use super::*;
use crate::netlink::GuestEnd;
use crate::netns::Start;

/// Numbers of the host ends of the one wire.
const ENDS: [u32; 2] = [100_001, 100_002];

/// Two nodes and a wire, and what was heard of them.
struct World {
    nodes: [NodeUid; 2],
    /// What is.
    guests: [bool; 2],
    host_ends: [bool; 2],
    alive: [bool; 2],
    is_in: bool,
    /// What happened and was not heard of yet, in order: the end, and its guest's or its host end's flag.
    events: VecDeque<(usize, Flag)>,
    /// What was heard.
    links: HashMap<u32, Link>,
    starts: Starts,
    /// How often each host end was switched, and how often there was a reason.
    switched: [usize; 2],
    reasons: [usize; 2],
}

#[derive(Clone, Copy)]
enum Flag {
    Guest(bool),
    HostEnd(bool),
}

impl World {
    fn new() -> World {
        let link = |index| {
            let guest = Some(GuestEnd { name: "eth1".into(), up: true });
            (index, Link { index, guest, ..Link::default() })
        };
        let nodes = [NodeUid::new(), NodeUid::new()];
        World {
            nodes,
            guests: [true; 2],
            host_ends: [false; 2],
            alive: [true; 2],
            is_in: true,
            events: VecDeque::new(),
            links: ENDS.map(link).into(),
            starts: nodes
                .map(|node| (node, Start { id: "1".into(), path: "/".into(), machine: None }))
                .into(),
            switched: [0; 2],
            reasons: [1; 2],
        }
    }

    fn cables(&self) -> Cables {
        let far = |end: usize| Far::Nic { index: ENDS[end], node: self.nodes[end], start: "1".into() };
        [0, 1].map(|end| (ENDS[end], Cable { is_in: self.is_in, far: far(1 - end) })).into()
    }

    fn set_guest(&mut self, end: usize, up: bool) {
        if self.guests[end] != up {
            self.guests[end] = up;
            self.reasons[1 - end] += 1;
            self.events.push_back((end, Flag::Guest(up)));
        }
    }

    fn hear_one(&mut self) {
        let Some((end, flag)) = self.events.pop_front() else { return };
        let link = self.links.get_mut(&ENDS[end]).unwrap();
        match flag {
            Flag::Guest(up) => link.guest.as_mut().unwrap().up = up,
            Flag::HostEnd(up) => link.up = up,
        }
    }

    /// What one round of the listener does after it has heard what it has.
    fn act(&mut self) -> bool {
        let due = due(&self.cables(), |index| self.links.get(&index), &self.starts);
        for (index, up) in &due {
            let end = ENDS.iter().position(|other| other == index).unwrap();
            self.switched[end] += usize::from(self.host_ends[end] != *up);
            self.host_ends[end] = *up;
            self.events.push_back((end, Flag::HostEnd(*up)));
        }
        !due.is_empty()
    }

    fn rest(&mut self) {
        for _ in 0..4 {
            while !self.events.is_empty() {
                self.hear_one();
            }
            if !self.act() {
                return;
            }
        }
        panic!("it does not come to rest");
    }

    /// What was heard is forgotten and everything read.
    fn read_anew(&mut self) {
        for (end, index) in ENDS.iter().enumerate() {
            let link = self.links.get_mut(index).unwrap();
            (link.up, link.guest.as_mut().unwrap().up) = (self.host_ends[end], self.guests[end]);
        }
    }

    fn expected(&self, end: usize) -> bool {
        self.is_in && self.alive[1 - end] && self.guests[1 - end]
    }
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Toggle(usize),
    ToggleBoth,
    Hear,
    Act,
    ReadAnew,
    Plug,
    Die(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0usize..2).prop_map(Step::Toggle),
        2 => Just(Step::ToggleBoth),
        6 => Just(Step::Hear),
        4 => Just(Step::Act),
        1 => Just(Step::ReadAnew),
        1 => Just(Step::Plug),
        1 => (0usize..2).prop_map(Step::Die),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn in_whatever_order_ends_go_down_and_up_nobody_is_stuck(
        steps in prop::collection::vec(step(), 0..60),
    ) {
        let mut world = World::new();
        world.rest();
        prop_assert_eq!((world.host_ends, world.switched), ([true; 2], [1; 2]));
        for step in steps {
            match step {
                Step::Toggle(end) => world.set_guest(end, !world.guests[end]),
                Step::ToggleBoth => (0..2).for_each(|end| world.set_guest(end, !world.guests[end])),
                Step::Hear => world.hear_one(),
                Step::Act => drop(world.act()),
                Step::ReadAnew => world.read_anew(),
                Step::Plug => {
                    world.is_in = !world.is_in;
                    world.reasons = world.reasons.map(|n| n + 1);
                }
                Step::Die(end) => {
                    world.alive[end] = false;
                    world.reasons[1 - end] += 1;
                    world.starts.remove(&world.nodes[end]);
                }
            }
        }
        world.rest();
        for end in 0..2 {
            prop_assert_eq!(world.host_ends[end], world.expected(end));
        }
    }

    #[test]
    fn an_end_is_switched_no_more_often_than_there_is_a_reason(
        toggles in prop::collection::vec((0usize..2, any::<bool>()), 0..40),
    ) {
        let mut world = World::new();
        world.rest();
        for (end, is_heard) in toggles {
            world.set_guest(end, !world.guests[end]);
            if is_heard {
                world.rest();
            }
        }
        world.rest();
        for end in 0..2 {
            prop_assert!(world.switched[end] <= world.reasons[end], "{:?}", world.switched);
        }
    }
}

#[test]
fn what_was_not_read_is_left_as_it_is() {
    let mut world = World::new();
    world.rest();
    world.links.get_mut(&ENDS[0]).unwrap().guest = None;
    assert!(!world.act(), "of a guest that was not read nothing is said");
    world.is_in = false;
    world.rest();
    assert_eq!(world.host_ends, [false; 2], "a cable that is out is out");
}

#[test]
fn what_a_guest_wants_is_read_of_a_node_that_lives_alone() {
    let up = Link { guest: Some(GuestEnd { name: "eth1".into(), up: true }), ..Link::default() };
    assert_eq!(Will::of(Some(&up), true), Will::Up);
    assert_eq!(Will::of(Some(&up), false), Will::Gone);
    assert_eq!(Will::of(None, true), Will::Gone);
    let mut world = World::new();
    // Another start of the node is another node.
    world.starts.get_mut(&world.nodes[0]).unwrap().id = "2".into();
    world.alive[0] = false;
    world.rest();
    assert_eq!(world.host_ends, [true, false]);
}
