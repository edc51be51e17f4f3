//! Placement on many hosts: how it grows, what one more node costs, and how many links go between hosts beside what a graph partitioner cuts.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::Command;
use std::time::Duration;

use netloom_benches::{at_most, shortest, size, timed, told};
use netloom_model::id::{HostId, NodeUid};
use netloom_model::state::Runtime;
use netloom_scheduler::place::{Allowed, Asks, Need, Room, place};
use netloom_scheduler::rows::Resources;

/// Pairs of nodes.
type Links = Vec<(usize, usize)>;

/// A way to make a lab of so many nodes.
type Shape = fn(usize) -> Links;

/// What labs look like: no structure at all, a plane of neighbours, fabrics of spines, leaves and hosts, many small labs' worth of rings, and few nodes of many links.
const SHAPES: [(&str, Shape); 5] =
    [("random", random), ("grid", grid), ("fabrics", fabrics), ("rings", rings), ("hubs", hubs)];

/// Nodes to a host.
const SHARE: usize = 10;

/// Nodes that a host has room for.
const CAPACITY: usize = 12;

pub fn rows() {
    let nodes = size(10_000, 1_000);
    for (shape, links_of) in SHAPES {
        let links = links_of(nodes);
        let (needs, rooms) = lab(nodes, &links, nodes / SHARE);
        let placed = place(&needs, &BTreeMap::new(), &rooms);
        assert!(placed.values().all(Result::is_ok), "all nodes of {shape} fit");
        let at: Vec<&HostId> = needs.iter().map(|n| placed[&n.uid].as_ref().expect("fits")).collect();
        let cut = cut(&links, &at);
        let hosts = nodes / SHARE;
        let what =
            format!("links between hosts, {shape}, {nodes} nodes, {} links, {hosts} hosts", links.len());
        match partitioner(nodes, &links, hosts) {
            Some(by_metis) => at_most(&format!("{what} / gpmetis"), "links", cut, by_metis, 1.1),
            None => {
                told(&format!("{what}; gpmetis is not installed (package metis)"), &format!("{cut}"), "", "")
            }
        }
        let list = cut_of_list(&links, nodes, hosts);
        at_most(&format!("{what} / worked off node by node"), "links", cut, list, 1.0);
    }
    growth(nodes);
}

/// Placing ten times the nodes on ten times the hosts, and one node more.
fn growth(nodes: usize) {
    let runs = size(5, 2);
    let time = |nodes: usize| -> Duration {
        let (needs, rooms) = lab(nodes, &random(nodes), nodes / SHARE);
        shortest(runs, || timed(|| place(&needs, &BTreeMap::new(), &rooms)).0)
    };
    let sizes = [nodes / 10, nodes / 5, nodes / 2, nodes];
    let times = sizes.map(time);
    for (n, took) in sizes.iter().zip(&times) {
        told(
            &format!("place {n} nodes, {} links on {} hosts", 2 * n, n / SHARE),
            &netloom_benches::text(*took),
            "",
            "",
        );
    }
    let log = |n: usize| n as f64 * (n as f64).ln();
    let expected = log(nodes) / log(nodes / 10);
    let grown = times[3].as_secs_f64() / times[0].as_secs_f64();
    at_most("time of that, ten times as many / n log n", "×", grown, expected, 1.5);

    let (needs, mut rooms) = lab(nodes, &random(nodes), nodes / SHARE);
    let (last, first) = needs.split_last().expect("some");
    let there: BTreeMap<NodeUid, HostId> = place(first, &BTreeMap::new(), &rooms)
        .into_iter()
        .filter_map(|(uid, host)| Some((uid, host.ok()?)))
        .collect();
    for room in &mut rooms {
        let on = there.values().filter(|h| **h == room.host).count() as u64;
        room.reserve(Resources { cpu_millis: on * 1_000, memory_bytes: on << 30, disk_bytes: 0 });
    }
    let added = shortest(runs, || timed(|| place(std::slice::from_ref(last), &there, &rooms)).0);
    netloom_benches::row(&format!("place one node more / place {nodes}"), added, times[3], 0.02);
}

fn lab(nodes: usize, links: &Links, hosts: usize) -> (Vec<Need>, Vec<Room>) {
    let need = |i: usize| Need {
        uid: NodeUid::new(),
        id: format!("n{i:05}"),
        runtime: Runtime::Docker,
        image: String::new(),
        cpu_millis: 1_000,
        memory_bytes: 1 << 30,
        disk_bytes: 0,
        former: None,
        neighbours: BTreeMap::new(),
        asks: Asks::default(),
        beside: None,
        apart: BTreeMap::new(),
    };
    let mut needs: Vec<Need> = (0..nodes).map(need).collect();
    for &(a, b) in links {
        let (x, y) = (needs[a].uid, needs[b].uid);
        *needs[a].neighbours.entry(y).or_default() += 1;
        *needs[b].neighbours.entry(x).or_default() += 1;
    }
    let room = |i: usize| Room {
        host: format!("h{i:04}").parse().expect("a host"),
        heard: true,
        runtimes: [Runtime::Docker].into(),
        cpu_millis: CAPACITY as u64 * 1_000,
        memory_bytes: (CAPACITY as u64) << 30,
        cpu_reserved: 0,
        memory_reserved: 0,
        disk_bytes: None,
        disk_reserved: 0,
        allowed: Allowed::default(),
    };
    (needs, (0..hosts).map(room).collect())
}

fn cut<T: PartialEq>(links: &Links, at: &[T]) -> f64 {
    links.iter().filter(|(a, b)| at[*a] != at[*b]).count() as f64
}

/// What METIS cuts when no part may have more than a host has room for: the better of its two ways.
fn partitioner(nodes: usize, links: &Links, parts: usize) -> Option<f64> {
    let mut neighbours: Vec<BTreeMap<usize, u32>> = vec![BTreeMap::new(); nodes];
    for &(a, b) in links {
        *neighbours[a].entry(b).or_default() += 1;
        *neighbours[b].entry(a).or_default() += 1;
    }
    let edges: usize = neighbours.iter().map(BTreeMap::len).sum::<usize>() / 2;
    let mut text = format!("{nodes} {edges} 001\n");
    for of in &neighbours {
        of.iter().for_each(|(other, links)| {
            let _ = write!(text, "{} {links} ", other + 1);
        });
        text.push('\n');
    }
    let dir = tempfile::tempdir().expect("a directory");
    let graph = dir.path().join("lab.graph");
    std::fs::write(&graph, text).expect("the graph is written");
    let slack = (CAPACITY - SHARE) * 1_000 / SHARE;
    let ways = ["kway", "rb"].map(|way| {
        let mut metis = Command::new("gpmetis");
        metis.arg(format!("-ptype={way}")).arg(format!("-ufactor={slack}"));
        let output = metis.arg(&graph).arg(parts.to_string()).output().ok()?;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        let parts = std::fs::read_to_string(dir.path().join(format!("lab.graph.part.{parts}"))).ok()?;
        Some(cut(links, &parts.lines().collect::<Vec<_>>()))
    });
    ways.into_iter().flatten().reduce(f64::min)
}

/// What a list cuts that is worked off node by node: each to the host of most of its neighbours that has room, then to the emptiest.
fn cut_of_list(links: &Links, nodes: usize, hosts: usize) -> f64 {
    let mut neighbours: Vec<Vec<usize>> = vec![Vec::new(); nodes];
    for &(a, b) in links {
        neighbours[a].push(b);
        neighbours[b].push(a);
    }
    let (mut at, mut on) = (vec![usize::MAX; nodes], vec![0; hosts]);
    for node in 0..nodes {
        let near = |host: usize| neighbours[node].iter().filter(|n| at[**n] == host).count();
        let host = (0..hosts)
            .filter(|h| on[*h] < CAPACITY)
            .max_by_key(|h| (near(*h), CAPACITY - on[*h]))
            .expect("room");
        at[node] = host;
        on[host] += 1;
    }
    cut(links, &at)
}

/// Numbers that are the same in each run (splitmix64).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }
}

fn random(nodes: usize) -> Links {
    let mut numbers = Numbers(1);
    let pairs = std::iter::repeat_with(|| (numbers.below(nodes), numbers.below(nodes)));
    pairs.filter(|(a, b)| a != b).take(2 * nodes).collect()
}

fn grid(nodes: usize) -> Links {
    let width = 50;
    let right = (0..nodes).filter(|i| i % width + 1 < width && i + 1 < nodes).map(|i| (i, i + 1));
    right.chain((0..nodes.saturating_sub(width)).map(|i| (i, i + width))).collect()
}

/// Fabrics of 4 spines, 4 leaves and 12 hosts, in a ring.
fn fabrics(nodes: usize) -> Links {
    let (size, count) = (20, nodes / 20);
    let mut links = Links::new();
    for fabric in 0..count {
        let first = fabric * size;
        let next = (fabric + 1) % count * size;
        for spine in 0..4 {
            links.extend((4..8).map(|leaf| (first + spine, first + leaf)));
            links.push((first + spine, next + spine));
        }
        links.extend((8..size).map(|host| (first + host, first + 4 + host % 4)));
    }
    links
}

/// Rings of 4 to 27 nodes with chords.
fn rings(nodes: usize) -> Links {
    let mut numbers = Numbers(9);
    let (mut links, mut first) = (Links::new(), 0);
    while first < nodes {
        let size = (4 + numbers.below(24)).min(nodes - first);
        for i in 0..size {
            links.push((first + i, first + (i + 1) % size));
            links.push((first + i, first + numbers.below(size)));
        }
        first += size;
    }
    links.retain(|(a, b)| a != b);
    links
}

/// Each node linked to two, the likelier the more links they have.
fn hubs(nodes: usize) -> Links {
    let mut numbers = Numbers(3);
    let (mut links, mut ends) = (vec![(0, 1)], vec![0, 1]);
    for node in 2..nodes {
        let one = ends[numbers.below(ends.len())];
        let other = std::iter::repeat_with(|| ends[numbers.below(ends.len())])
            .find(|o| *o != one)
            .expect("two are there");
        links.extend([(node, one), (node, other)]);
        ends.extend([node, one, node, other]);
    }
    links
}
