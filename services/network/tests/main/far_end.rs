//! When one end of a wire goes down, the other end sees it; when both come back in whatever order, both do.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use netloom_proto::network::v1 as pb;
use netloom_proto::v1::{self, Impairment};
use netloom_service::testing::eventually;

use crate::frames::{Port, crossings};
use crate::harness::{BOUND, Handle, Host, Node, Slice, host_end, nic, on_a_host, run};

/// What carries a wire.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Plane {
    Ovs,
    Kernel,
    /// The kernel, which also slows it.
    Slowed,
}

const PLANES: [Plane; 3] = [Plane::Ovs, Plane::Kernel, Plane::Slowed];

/// Makes of functions that take what carries a wire one test for each.
macro_rules! on_each {
    ($($test:ident),+ $(,)?) => {
        mod ovs {
            $(#[test] fn $test() { super::$test(super::Plane::Ovs); })+
        }
        mod kernel {
            $(#[test] fn $test() { super::$test(super::Plane::Kernel); })+
        }
        mod slowed {
            $(#[test] fn $test() { super::$test(super::Plane::Slowed); })+
        }
    };
}

on_each!(
    an_interface_that_its_node_sets_down_is_down_at_the_far_end,
    what_was_down_before_the_service_started_is_down_at_the_far_end,
    a_node_that_ends_and_a_link_that_is_unplugged_take_carrier_from_the_far_end,
);

fn put_on(slice: &mut Slice, wire: u64, plane: Plane) {
    let wire = slice.0.wires.iter_mut().find(|w| w.wire_id == wire).unwrap();
    let slow = Impairment { rate_bps: 100_000_000, ..Impairment::default() };
    match plane {
        Plane::Ovs => wire.plane = v1::Plane::Ovs.into(),
        Plane::Kernel => wire.plane = v1::Plane::Kernel.into(),
        Plane::Slowed => (wire.a_to_b, wire.b_to_a) = (Some(slow), Some(slow)),
    }
}

/// Two nodes and a wire of eth1 to eth1.
async fn pair(plane: Plane) -> ([Node; 2], Host, Slice, u64) {
    let host = Host::start().await;
    let nodes = [host.node(), host.node()];
    let mut slice = Slice::default();
    let nics = [0, 1].map(|n| slice.nic(&nodes[n], "eth1"));
    let wire = slice.wire(nic(nics[0]), nic(nics[1]));
    put_on(&mut slice, wire, plane);
    host.sync(&slice).await;
    host.until_up(&[wire]).await;
    (nodes, host, slice, wire)
}

/// The median and the most of several times.
fn spread(mut times: Vec<Duration>) -> (Duration, Duration) {
    times.sort();
    (times[times.len() / 2], *times.last().unwrap())
}

/// How often an interface is set down and up.
const CYCLES: u64 = 20;

/// How long the far end may take: ten times what the bench asks for, twice, for a machine that does other things as well.
const SOON: Duration = Duration::from_millis(40);

fn an_interface_that_its_node_sets_down_is_down_at_the_far_end(plane: Plane) {
    on_a_host("an_interface_that_its_node_sets_down_is_down_at_the_far_end", || async move {
        let (nodes, host, slice, wire) = pair(plane).await;
        let [a, b] = [0, 1].map(|n| Handle::open(&nodes[n], "eth1"));
        for (near, far, end) in [(&a, &b, pb::End::A), (&b, &a, pb::End::B)] {
            let (mut downs, mut ups) = (Vec::new(), Vec::new());
            let changes = || [0, 1].map(|n| nodes[n].carrier_changes("eth1"));
            let before = changes();
            for _ in 0..CYCLES {
                near.set_up(false);
                downs.push(far.until_carrier(false));
                near.set_up(true);
                ups.push(far.until_carrier(true));
            }
            // Each time it went once and came once, at either end: nothing flapped.
            host.until_up(&[wire]).await;
            assert_eq!(changes(), before.map(|count| count + 2 * CYCLES), "{plane:?}");
            let ((down, most_down), (up, most_up)) = (spread(downs), spread(ups));
            eprintln!("{plane:?}: down {down:?} (most {most_down:?}), up {up:?} (most {most_up:?})");
            assert!(down < SOON && up < SOON, "{plane:?}: {down:?}, {up:?}");
            near.set_up(false);
            host.until("it is told, and of which end", |t| {
                let told = &t.wires[&wire];
                told.state() == pb::WireState::Down
                    && told.end() == end
                    && told.detail == "the interface is down in its node"
            })
            .await;
            near.set_up(true);
            host.until_up(&[wire]).await;
        }
        // Equal numbers of both ends of a veth would hold events back for the better part of a second.
        for nic in &slice.0.nics {
            let shown = run("ip", &["-o", "link", "show", &host_end(nic.wire_id)]);
            let index: u32 = shown.split(':').next().unwrap().parse().unwrap();
            assert!(index > 100_000, "{shown}");
        }
    });
}

fn what_was_down_before_the_service_started_is_down_at_the_far_end(plane: Plane) {
    on_a_host("what_was_down_before_the_service_started_is_down_at_the_far_end", || async move {
        let (nodes, mut host, slice, wire) = pair(plane).await;
        let [a, b] = [0, 1].map(|n| Handle::open(&nodes[n], "eth1"));
        host.stop_service().await;
        b.set_up(false);
        std::thread::sleep(Duration::from_millis(50));
        assert!(a.has_carrier(), "nobody is there to tell it");
        host.start_service().await;
        host.sync(&slice).await;
        a.until_carrier(false);
        host.until("it is told", |t| t.wires.get(&wire).is_some_and(|w| w.end() == pb::End::B)).await;
        b.set_up(true);
        a.until_carrier(true);
        host.until_up(&[wire]).await;
    });
}

fn a_node_that_ends_and_a_link_that_is_unplugged_take_carrier_from_the_far_end(plane: Plane) {
    on_a_host("a_node_that_ends_and_a_link_that_is_unplugged_take_carrier_from_the_far_end", || async move {
        let (mut nodes, host, mut slice, wire) = pair(plane).await;
        let a = Handle::open(&nodes[0], "eth1");
        let mut ends = Vec::new();
        for _ in 0..3 {
            nodes[1].stop();
            ends.push(a.until_carrier(false));
            nodes[1].restart();
            host.until_up(&[wire]).await;
            a.until_carrier(true);
        }
        let (end, most) = spread(ends);
        eprintln!("{plane:?}: carrier lost {end:?} after the node (most {most:?})");
        assert!(end < SOON, "{end:?}");
        slice.0.wires[0].enabled = false;
        host.ensure(&slice).await;
        a.until_carrier(false);
        // What a node does to its end of an unplugged cable is nobody's.
        let b = Handle::open(&nodes[1], "eth1");
        b.set_up(false);
        b.set_up(true);
        std::thread::sleep(Duration::from_millis(20));
        assert!(!a.has_carrier() && !b.has_carrier());
        slice.0.wires[0].enabled = true;
        host.ensure(&slice).await;
        host.until_up(&[wire]).await;
        a.until_carrier(true);
        b.until_carrier(true);
    });
}

/// A generator of numbers that a seed tells all of.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides
    }
}

#[test]
fn in_whatever_order_both_ends_go_down_and_up_nobody_is_stuck() {
    on_a_host("in_whatever_order_both_ends_go_down_and_up_nobody_is_stuck", || async {
        let seed = std::env::var("NETLOOM_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = seed
            .unwrap_or_else(|| std::time::UNIX_EPOCH.elapsed().map_or(1, |now| now.as_nanos() as u64) | 1);
        eprintln!("to do the same again: NETLOOM_SEED={seed}");
        let mut dice = Dice(seed);
        let host = Host::start().await;
        let nodes: Vec<Node> = (0..6).map(|_| host.node()).collect();
        let mut slice = Slice::default();
        let nics: Vec<u64> = nodes.iter().map(|node| slice.nic(node, "eth1")).collect();
        let wires = [0, 2, 4].map(|n| slice.wire(nic(nics[n]), nic(nics[n + 1])));
        wires.iter().zip(PLANES).for_each(|(wire, plane)| put_on(&mut slice, *wire, plane));
        host.sync(&slice).await;
        host.until_up(&wires).await;
        // Carrier is set in the order of interfaces' numbers: what is made last is set last.
        let last = [host.node(), host.node()];
        let nics = [0, 1].map(|n| slice.nic(&last[n], "eth1"));
        let mark = slice.wire(nic(nics[0]), nic(nics[1]));
        host.sync(&slice).await;
        host.until_up(&[mark]).await;
        let mark = [0, 1].map(|n| Handle::open(&last[n], "eth1"));
        let handles: Vec<Handle> = nodes.iter().map(|node| Handle::open(node, "eth1")).collect();
        let mut up = [true; 6];
        for round in 0..15 {
            for _ in 0..dice.roll(30) {
                let pair = 2 * dice.roll(3) as usize;
                // One of the two ends, or both in either order.
                let ends = match dice.roll(4) {
                    0 => vec![pair],
                    1 => vec![pair + 1],
                    2 => vec![pair, pair + 1],
                    _ => vec![pair + 1, pair],
                };
                for end in ends {
                    up[end] = !up[end];
                    handles[end].set_up(up[end]);
                }
                match dice.roll(3) {
                    0 => {}
                    1 => std::thread::sleep(Duration::from_micros(dice.roll(1_000))),
                    _ => std::thread::sleep(Duration::from_micros(dice.roll(5_000))),
                }
            }
            // Who went down and up at once has a far end that is right before anybody acted: an event behind all others tells when all were acted on.
            mark[0].set_up(round % 2 == 1);
            mark[1].until_carrier(round % 2 == 1);
            let wrong = || {
                // An interface that is down shows no carrier whatever its cable does.
                let is_wrong = |end: &usize| handles[*end].has_carrier() != (up[*end] && up[*end ^ 1]);
                (0..6).filter(is_wrong).collect::<Vec<_>>()
            };
            eventually("each end sees what the other wants", BOUND, || async { wrong().is_empty() }).await;
            // What is right stays so.
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_millis(5) {
                assert_eq!(wrong(), [0; 0], "round {round}: these ends do not rest");
            }
            host.until("it is told", |t| {
                let told = |n: usize| t.wires[&wires[n]].state() == pb::WireState::Up;
                (0..3).all(|n| told(n) == (up[2 * n] && up[2 * n + 1]))
            })
            .await;
        }
        handles.iter().for_each(|handle| handle.set_up(true));
        host.until_up(&wires).await;
        let ports: Vec<Port> = nodes.iter().map(|node| Port::open(node, "eth1")).collect();
        let pairs: BTreeSet<(usize, usize)> = [(0, 1), (1, 0), (2, 3), (3, 2), (4, 5), (5, 4)].into();
        eventually("frames cross, and nowhere else", BOUND, || async {
            crossings(&ports, &pairs, Duration::from_millis(300)) == pairs
        })
        .await;
    });
}
