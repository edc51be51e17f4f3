//! Path checks: marked frames, and the places that they come to.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use netloom_proto::network::v1 as pb;
use netloom_proto::network::v1::FramePlaceKind::{HostEnd, Interface, Tunnel};
use netloom_service::status::from_status;
use tokio::time::{Instant, timeout_at};

use crate::harness::{
    BOUND, Elsewhere, Host, Node, On, Slice, UNDERLAY, dummy, host_end, host_interface, nic, on_a_host,
    on_both_planes, run, segment, two_hosts, with_machines,
};
use crate::hosts::{Across, tunnel};

on_both_planes!(
    frames_are_seen_at_each_place_both_ways,
    an_interface_that_is_set_down_sends_nothing_and_the_place_says_why,
    frames_stop_where_the_plane_does_not_take_them_on,
    two_checks_at_once_do_not_meet,
    frames_cross_hosts_and_stop_where_they_are_cut,
);
with_machines!(frames_are_seen_at_each_place_both_ways);

const COUNT: u32 = 10;
static MARK: AtomicU64 = AtomicU64::new(0xfeed_0000_0000_0001);

/// A place, on a host.
type At = (usize, pb::FramePlaceKind, pb::End);

/// What was seen at each place.
type Seen = BTreeMap<(usize, i32, i32), pb::FramePlace>;

/// Sends frames both ways over a wire, and gives what the hosts saw once all came by everywhere, or once they had time to. The last one has the second end.
async fn check(hosts: &[&Host], wire_id: u64) -> Seen {
    check_with(hosts, wire_id, MARK.fetch_add(1, Ordering::Relaxed)).await
}

async fn check_with(hosts: &[&Host], wire_id: u64, mark: u64) -> Seen {
    let mut streams = Vec::new();
    for host in hosts {
        let request = pb::WatchFramesRequest { term: 1, wire_id, mark };
        let mut stream = host.client.clone().watch_frames(request).await.unwrap().into_inner();
        let first = stream.message().await.unwrap().expect("a first word");
        assert!(hosts.len() > 1 || ears() > 0);
        assert!(first.places.iter().all(|place| place.a_to_b.is_empty() && place.b_to_a.is_empty()));
        streams.push((stream, first));
    }
    for (host, end) in [(hosts[0], pb::End::A), (hosts[hosts.len() - 1], pb::End::B)] {
        let end = end.into();
        let request =
            pb::SendFramesRequest { term: 1, wire_id, end, mark, count: COUNT, large: 5, mtu: 9_500 };
        host.client.clone().send_frames(request).await.unwrap();
    }
    let until = Instant::now() + Duration::from_secs(2);
    let mut seen = Seen::new();
    for (at, (mut stream, mut last)) in streams.into_iter().enumerate() {
        while let Ok(Ok(Some(next))) = timeout_at(until, stream.message()).await {
            last = next;
        }
        seen.extend(last.places.into_iter().map(|place| ((at, place.kind, place.end), place)));
    }
    seen
}

fn place(seen: &Seen, (at, kind, end): At) -> &pb::FramePlace {
    seen.get(&(at, kind.into(), end.into())).unwrap_or_else(|| panic!("{kind:?} {end:?}: {seen:#?}"))
}

/// How many frames came by a place, from `a` and from `b`.
fn came(seen: &Seen, at: At) -> (usize, usize) {
    let place = place(seen, at);
    (place.a_to_b.len(), place.b_to_a.len())
}

const ALL: (usize, usize) = (COUNT as usize, COUNT as usize);
const A: pb::End = pb::End::A;
const B: pb::End = pb::End::B;
/// A filter that takes all, before any other.
const FIRST: &str = "pref 1 u32 match u32 0 0 action mirred egress redirect dev lo";

async fn pair(host: &Host) -> ([Node; 2], [u64; 2], u64, Slice) {
    let nodes = [host.node(), host.node()];
    let mut slice = Slice::default();
    let nics = [0, 1].map(|n| slice.nic(&nodes[n], "eth1"));
    let wire = slice.wire(nic(nics[0]), nic(nics[1]));
    host.sync(&slice).await;
    host.until_up(&[wire]).await;
    for node in &nodes {
        node.until_running("eth1").await;
    }
    (nodes, nics, wire, slice)
}

fn frames_are_seen_at_each_place_both_ways(on: On) {
    on_a_host("frames_are_seen_at_each_place_both_ways", || async move {
        let host = Host::start_on(on).await;
        let (_nodes, nics, wire, mut slice) = pair(&host).await;
        let seen = check(&[&host], wire).await;
        assert_eq!(seen.len(), 4, "{seen:#?}");
        assert_eq!((came(&seen, (0, Interface, A)), came(&seen, (0, HostEnd, A))), (ALL, ALL));
        assert_eq!(place(&seen, (0, HostEnd, A)).interface, host_end(nics[0]));
        if on.has_machines() {
            // Nobody sends from inside of a machine, nor looks into it: frames begin behind its tap.
            let inside = place(&seen, (0, Interface, B));
            assert!(!inside.watched && inside.passed_over && inside.detail.contains("virtual machine"));
            let tap = place(&seen, (0, HostEnd, B));
            assert_eq!((tap.a_to_b.len(), tap.b_to_a.len(), tap.passed_over), (ALL.0, 0, true), "{tap:?}");
        } else {
            assert_eq!((came(&seen, (0, Interface, B)), came(&seen, (0, HostEnd, B))), (ALL, ALL));
            assert!(seen.values().all(|place| place.watched && place.detail.is_empty()), "{seen:#?}");
        }
        // Nothing is left of it, and a wire that is not here has no places.
        assert_eq!(check(&[&host], 999_999).await.len(), 0);
        host.remove(std::mem::take(&mut slice).ids()).await;
        let stale = pb::WatchFramesRequest { term: 0, wire_id: wire, mark: 1 };
        let refused = host.client.clone().watch_frames(stale).await.unwrap_err();
        assert_eq!(from_status(&refused).reason, "STALE_TERM");
    });
}

fn an_interface_that_is_set_down_sends_nothing_and_the_place_says_why(on: On) {
    on_a_host("an_interface_that_is_set_down_sends_nothing_and_the_place_says_why", || async move {
        let host = Host::start_on(on).await;
        let (nodes, nics, wire, _slice) = pair(&host).await;
        nodes[0].run("ip", &["link", "set", "eth1", "down"]);
        host.until("it is down", |t| !t.nics[&nics[0]].carrier && !t.up(wire)).await;
        let seen = check(&[&host], wire).await;
        assert_eq!(came(&seen, (0, Interface, A)), (0, 0));
        let said = &place(&seen, (0, Interface, A)).detail;
        assert_eq!(said, "it is set down in its node");
        assert!(place(&seen, (0, HostEnd, A)).detail.contains("carrier"));
        let (end, mark) = (A.into(), 7);
        let request =
            pb::SendFramesRequest { term: 1, wire_id: wire, end, mark, count: 1, large: 0, mtu: 9_500 };
        let sent = host.client.clone().send_frames(request).await.unwrap().into_inner();
        assert_eq!(sent.detail, "it is set down");
        let none = pb::SendFramesRequest { count: 201, ..request };
        let refused = host.client.clone().send_frames(none).await.unwrap_err();
        assert_eq!(from_status(&refused).reason, "INVALID_REQUEST");
    });
}

fn frames_stop_where_the_plane_does_not_take_them_on(on: On) {
    on_a_host("frames_stop_where_the_plane_does_not_take_them_on", || async move {
        let host = Host::start_on(on).await;
        let (_nodes, nics, wire, _slice) = pair(&host).await;
        let name = host_end(nics[0]);
        match on {
            // Open vSwitch reads frames before filters of the host see them.
            On::Ovs => drop(host.ovs.ofctl("mod-port", "nl0", &[&name, "no-receive"])),
            _ => tc(&format!("filter add dev {name} ingress protocol all {FIRST}")),
        }
        let seen = check(&[&host], wire).await;
        assert_eq!(came(&seen, (0, Interface, A)), ALL);
        assert_eq!(came(&seen, (0, HostEnd, A)), ALL, "they come out of the node");
        assert_eq!(came(&seen, (0, HostEnd, B)), (0, ALL.1), "and are not taken on");
        assert_eq!(came(&seen, (0, Interface, B)), (0, ALL.1));
        if on == On::Kernel {
            let said = &place(&seen, (0, HostEnd, A)).detail;
            assert!(said.contains("a filter of somebody else's"), "{said}");
        }
    });
}

fn tc(line: &str) {
    run("tc", &line.split(' ').collect::<Vec<_>>());
}

/// Packet sockets that hear every interface of the host: only checks have one.
fn ears() -> usize {
    let sockets = std::fs::read_to_string("/proc/thread-self/net/packet").unwrap();
    sockets.lines().filter(|line| line.split_whitespace().skip(3).take(2).eq(["0003", "0"])).count()
}

fn two_checks_at_once_do_not_meet(on: On) {
    on_a_host("two_checks_at_once_do_not_meet", || async move {
        let host = Host::start_on(on).await;
        let (_nodes, _nics, wire, _slice) = pair(&host).await;
        let hosts = [&host];
        let (one, other) = tokio::join!(check(&hosts, wire), check(&hosts, wire));
        for seen in [one, other] {
            assert!(seen.values().all(|place| (place.a_to_b.len(), place.b_to_a.len()) == ALL), "{seen:#?}");
        }
        // Nobody looks any more: no packet socket of the checks is left.
        let gone = || async { ears() == 0 };
        netloom_service::testing::eventually("the sockets go", BOUND, gone).await;
    });
}

/// What ends in a bridge, in the host or in nothing is followed as far as it is a wire.
#[test]
fn a_wire_that_ends_in_no_nic_is_followed_to_its_end() {
    on_a_host("a_wire_that_ends_in_no_nic_is_followed_to_its_end", || async move {
        let host = Host::start().await;
        let nodes = [host.node(), host.node(), host.node()];
        let mut slice = Slice::default();
        let nics = [0, 1, 2].map(|n| slice.nic(&nodes[n], "eth1"));
        let bridge = slice.segment();
        let wires = [
            slice.wire(nic(nics[0]), segment(bridge)),
            slice.wire(nic(nics[1]), host_interface("up0")),
            slice.wire(nic(nics[2]), dummy()),
        ];
        host.sync(&slice).await;
        host.until_up(&wires).await;
        run("ip", &["link", "set", "up0", "up"]);
        for node in &nodes {
            node.until_running("eth1").await;
        }
        for wire in wires {
            let seen = check(&[&host], wire).await;
            assert_eq!(seen.len(), 2, "{seen:#?}");
            assert_eq!((came(&seen, (0, Interface, A)), came(&seen, (0, HostEnd, A))), (ALL, ALL));
        }
    });
}

fn frames_cross_hosts_and_stop_where_they_are_cut(on: On) {
    on_a_host("frames_cross_hosts_and_stop_where_they_are_cut", || async move {
        let elsewhere = Elsewhere::start();
        let hosts = two_hosts(on, &elsewhere).await;
        let mut across = Across::of(&hosts, on, 7_777, 0);
        for (host, slice) in hosts.iter().zip(&across.slices) {
            host.sync(slice).await;
        }
        for host in &hosts {
            host.until_up(&[across.wire]).await;
        }
        for node in &across.nodes {
            node.until_running("eth1").await;
        }
        let (both, wire) = ([&hosts[0], &hosts[1]], across.wire);
        let way = [
            (0, Interface, A),
            (0, HostEnd, A),
            (0, Tunnel, B),
            (1, Tunnel, A),
            (1, HostEnd, B),
            (1, Interface, B),
        ];
        let seen = check(&both, wire).await;
        assert_eq!(seen.len(), way.len(), "{seen:#?}");
        for at in way {
            assert_eq!(came(&seen, at), ALL, "{at:?}: {seen:#?}");
        }

        // The network between them takes no large frames, and then none at all, and says nothing of it.
        for (mtu, small) in [("1400", COUNT as usize - 5), ("80", 0)] {
            elsewhere.within(move |_| run("ip", &["link", "set", "u0", "mtu", mtu]));
            let seen = check(&both, wire).await;
            assert_eq!(came(&seen, way[2]).0, COUNT as usize, "they leave the host");
            for at in &way[3..] {
                assert_eq!(came(&seen, *at).0, small, "at {mtu}, {at:?}: {seen:#?}");
            }
        }
        elsewhere.within(|_| run("ip", &["link", "set", "u0", "mtu", "9600"]));

        // The other host has another network identifier for it.
        across.slices[1] = Slice(across.slices[1].0.clone());
        let told = across.slices[1].0.wires.last_mut().unwrap();
        told.a = Some(tunnel(UNDERLAY[0], 7_778, true));
        hosts[1].ensure(&across.slices[1]).await;
        hosts[1].until_up(&[wire]).await;
        let mut seen = check(&both, wire).await;
        // It is told UP from before for a moment.
        let until = Instant::now() + BOUND;
        while came(&seen, way[4]).0 > 0 && Instant::now() < until {
            seen = check(&both, wire).await;
        }
        assert_eq!(came(&seen, way[3]).0, COUNT as usize, "they come to the host: {seen:#?}");
        assert_eq!((came(&seen, way[4]).0, came(&seen, way[5]).0), (0, 0), "and nobody takes them");
        drop(hosts);
    });
}
