//! The shapes.

use super::{Part, Shape};
use crate::output::words::count;

fn many(n: usize, word: &str) -> String {
    count(n as i128, word)
}

/// Hosts behind these nodes, so many behind each, numbered through.
fn hosts(shape: &mut Shape, behind: &[usize], each: usize) {
    let mut number = 0;
    for node in behind {
        for _ in 0..each {
            number += 1;
            let host = shape.add(format!("host{number}"), Part::Host);
            shape.link(*node, host);
        }
    }
}

fn with_hosts(title: String, each: usize, behind: &str) -> String {
    if each == 0 { title } else { format!("{title}, {} behind each {behind}", many(each, "host")) }
}

/// Spines and leaves, each spine linked with each leaf.
pub fn clos(spines: usize, leaves: usize, each: usize) -> Shape {
    let title = format!("A fabric of {} and {}", many(spines, "spine"), count_leaves(leaves));
    let mut shape = Shape::titled(with_hosts(title, each, "leaf"));
    let upper: Vec<usize> = (1..=spines).map(|n| shape.add(format!("spine{n}"), Part::Network)).collect();
    let lower: Vec<usize> = (1..=leaves).map(|n| shape.add(format!("leaf{n}"), Part::Network)).collect();
    for leaf in &lower {
        for spine in &upper {
            shape.link(*spine, *leaf);
        }
    }
    hosts(&mut shape, &lower, each);
    shape
}

fn count_leaves(n: usize) -> String {
    if n == 1 { "1 leaf".to_owned() } else { format!("{n} leaves") }
}

/// Tiers, the topmost first, each node linked with all of the tier below.
pub fn tiers(sizes: &[usize], each: usize) -> Shape {
    let sizes_said: Vec<String> = sizes.iter().map(usize::to_string).collect();
    let title = format!("A fabric of {} tiers of {} nodes", sizes.len(), sizes_said.join(", "));
    let mut shape = Shape::titled(with_hosts(title, each, "node of the lowest"));
    let mut above: Vec<usize> = Vec::new();
    for (tier, size) in sizes.iter().enumerate() {
        let nodes: Vec<usize> =
            (1..=*size).map(|n| shape.add(format!("tier{}-{n}", tier + 1), Part::Network)).collect();
        for lower in &nodes {
            for upper in &above {
                shape.link(*upper, *lower);
            }
        }
        above = nodes;
    }
    hosts(&mut shape, &above, each);
    shape
}

/// A fat-tree of switches with k ports (Al-Fares, Loukissas, Vahdat, 2008): k pods, (k/2)² cores, and so many hosts behind each edge.
pub fn fat_tree(k: usize, each: usize) -> Shape {
    let half = k / 2;
    let mut shape = Shape::titled(with_hosts(format!("A fat-tree of switches with {k} ports"), each, "edge"));
    let core: Vec<usize> = (1..=half * half).map(|n| shape.add(format!("core{n}"), Part::Network)).collect();
    let mut all_edges = Vec::new();
    for pod in 1..=k {
        let aggregation: Vec<usize> =
            (1..=half).map(|n| shape.add(format!("agg{pod}-{n}"), Part::Network)).collect();
        let edges: Vec<usize> =
            (1..=half).map(|n| shape.add(format!("edge{pod}-{n}"), Part::Network)).collect();
        for (i, upper) in aggregation.iter().enumerate() {
            for top in &core[i * half..(i + 1) * half] {
                shape.link(*top, *upper);
            }
            for edge in &edges {
                shape.link(*upper, *edge);
            }
        }
        all_edges.extend(edges);
    }
    hosts(&mut shape, &all_edges, each);
    shape
}

fn routers(shape: &mut Shape, n: usize) -> Vec<usize> {
    (1..=n).map(|i| shape.add(format!("r{i}"), Part::Network)).collect()
}

/// Each linked with the next, the last with the first.
pub fn ring(n: usize, each: usize) -> Shape {
    let mut shape = line(n, 0);
    shape.title = with_hosts(format!("A ring of {}", many(n, "node")), each, "node");
    let all: Vec<usize> = (0..n).collect();
    shape.link(n - 1, 0);
    hosts(&mut shape, &all, each);
    shape
}

/// Each linked with the next.
pub fn line(n: usize, each: usize) -> Shape {
    let mut shape = Shape::titled(with_hosts(format!("A line of {}", many(n, "node")), each, "node"));
    let all = routers(&mut shape, n);
    for pair in all.windows(2) {
        shape.link(pair[0], pair[1]);
    }
    hosts(&mut shape, &all, each);
    shape
}

/// Each linked with each.
pub fn mesh(n: usize, each: usize) -> Shape {
    let title = format!("{} each linked with each", many(n, "node"));
    let mut shape = Shape::titled(with_hosts(title, each, "node"));
    let all = routers(&mut shape, n);
    for (i, a) in all.iter().enumerate() {
        for b in &all[i + 1..] {
            shape.link(*a, *b);
        }
    }
    hosts(&mut shape, &all, each);
    shape
}

/// One in the middle, the others linked with it.
pub fn star(n: usize) -> Shape {
    let mut shape = Shape::titled(format!("A star of {} around a hub", many(n, "host")));
    let hub = shape.add("hub".to_owned(), Part::Hub);
    hosts(&mut shape, &[hub], n);
    shape
}
