//! Whether a part of a graph is built in rows, as fabrics of spines and leaves are, and which node is in which.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{Graph, Role};

/// Most nodes around one centre that are drawn as a star.
const MAX_STAR: usize = 16;

/// The rows of a part, the topmost first; none when it is not built in rows.
pub fn of(graph: &Graph, members: &[usize]) -> Option<Vec<Vec<usize>>> {
    if members.len() < 3 {
        return None;
    }
    if members.iter().all(|m| graph.nodes[*m].level.is_some()) {
        return rows(members.iter().map(|m| (graph.nodes[*m].level, *m)));
    }
    let near = Near::of(graph, members);
    if near.is_chain() || near.is_small_star() {
        return None;
    }
    by_names(graph, members, &near)
        .or_else(|| if near.core_is_circle() { None } else { from_hosts(graph, members, &near) })
}

fn rows<K: Ord>(nodes: impl Iterator<Item = (K, usize)>) -> Option<Vec<Vec<usize>>> {
    let mut rows: BTreeMap<K, Vec<usize>> = BTreeMap::new();
    for (level, node) in nodes {
        rows.entry(level).or_default().push(node);
    }
    Some(rows.into_values().collect())
}

/// Who is linked with whom.
pub struct Near {
    /// Neighbours of each node, each once.
    pub of: BTreeMap<usize, BTreeSet<usize>>,
}

impl Near {
    /// Of a part.
    pub fn of(graph: &Graph, members: &[usize]) -> Near {
        let mut of: BTreeMap<usize, BTreeSet<usize>> =
            members.iter().map(|m| (*m, BTreeSet::new())).collect();
        for link in &graph.links {
            let (a, b) = (link.a.node, link.b.node);
            if a != b && of.contains_key(&a) {
                of.entry(a).or_default().insert(b);
                of.entry(b).or_default().insert(a);
            }
        }
        Near { of }
    }

    /// True for a line of nodes.
    pub fn is_chain(&self) -> bool {
        self.of.values().all(|n| n.len() <= 2) && self.of.values().filter(|n| n.len() == 1).count() == 2
    }

    /// What is left without the nodes that hang on one other node.
    pub fn core(&self) -> BTreeSet<usize> {
        self.of.iter().filter(|(_, n)| n.len() > 1).map(|(m, _)| *m).collect()
    }

    fn is_small_star(&self) -> bool {
        self.core().len() == 1 && self.of.len() <= MAX_STAR + 1
    }

    /// True when the core is a ring, or everybody in it is linked with everybody.
    pub fn core_is_circle(&self) -> bool {
        let core = self.core();
        let inner = |m: &usize| self.of[m].intersection(&core).count();
        core.len() >= 3
            && (core.iter().all(|m| inner(m) == core.len() - 1)
                || (core.iter().all(|m| inner(m) == 2) && self.ring(&core).len() == core.len()))
    }

    /// The nodes of a ring, in its order; fewer than the core has when that is not one ring.
    pub fn ring(&self, core: &BTreeSet<usize>) -> Vec<usize> {
        let mut order: Vec<usize> = Vec::new();
        let mut next = core.first().copied();
        while let Some(node) = next {
            order.push(node);
            next = self.of[&node].iter().find(|n| core.contains(n) && !order.contains(n)).copied();
        }
        order
    }
}

/// By names: spine1, spine2 and leaf1 to leaf4 are two rows when no spine is linked with a spine and no leaf with a leaf.
fn by_names(graph: &Graph, members: &[usize], near: &Near) -> Option<Vec<Vec<usize>>> {
    let last_number = |id: &str| {
        let end =
            id.trim_end_matches(|c: char| !c.is_ascii_digit()).trim_end_matches(|c: char| c.is_ascii_digit());
        if end.is_empty() { id.to_owned() } else { end.to_owned() }
    };
    let all_numbers = |id: &str| id.chars().filter(|c| !c.is_ascii_digit()).collect::<String>();
    let keys: [&dyn Fn(&str) -> String; 2] = [&last_number, &all_numbers];
    keys.into_iter().find_map(|key| grouped(graph, members, near, key))
}

fn grouped(
    graph: &Graph,
    members: &[usize],
    near: &Near,
    key: &dyn Fn(&str) -> String,
) -> Option<Vec<Vec<usize>>> {
    let group: BTreeMap<usize, String> = members.iter().map(|m| (*m, key(&graph.nodes[*m].id))).collect();
    let mut beside: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (node, others) in &near.of {
        for other in others {
            let (a, b) = (group[node].as_str(), group[other].as_str());
            if a == b {
                return None;
            }
            beside.entry(a).or_default().insert(b);
        }
    }
    // The groups have to be a line themselves, and to be groups.
    let ends: Vec<&str> = beside.iter().filter(|(_, n)| n.len() == 1).map(|(g, _)| *g).collect();
    let &[mut first, mut last] = ends.as_slice() else { return None };
    if beside.values().any(|n| n.len() > 2) || beside.len() * 3 > members.len() * 2 {
        return None;
    }
    let of = |name: &str| -> Vec<usize> { members.iter().copied().filter(|m| group[m] == name).collect() };
    let weight = |name: &str| {
        let nodes = of(name);
        let is_low = nodes.iter().all(|n| graph.nodes[*n].role == Role::Host);
        let is_high =
            ["super", "core", "spine", "hub", "border"].iter().any(|w| name.to_lowercase().contains(w));
        (is_low, !is_high, nodes.len())
    };
    if weight(last) < weight(first) {
        std::mem::swap(&mut first, &mut last);
    }
    let mut order = vec![first];
    while let Some(next) = beside[order[order.len() - 1]].iter().find(|g| !order.contains(g)) {
        order.push(next);
    }
    Some(order.into_iter().map(of).collect())
}

/// By how far it is to the nearest host: hosts are at the bottom. Within a row there may be some links, as between the two leaves that hosts are
/// connected to.
fn from_hosts(graph: &Graph, members: &[usize], near: &Near) -> Option<Vec<Vec<usize>>> {
    let is_host = |m: &usize| graph.nodes[*m].role == Role::Host;
    let mut far: BTreeMap<usize, usize> = members.iter().filter(|m| is_host(m)).map(|m| (*m, 0)).collect();
    if far.is_empty() || far.len() == members.len() {
        return None;
    }
    let mut queue: VecDeque<usize> = far.keys().copied().collect();
    while let Some(node) = queue.pop_front() {
        for other in &near.of[&node] {
            if !far.contains_key(other) {
                far.insert(*other, far[&node] + 1);
                queue.push_back(*other);
            }
        }
    }
    let highest = *far.values().max()?;
    let mut sizes = vec![0; highest + 1];
    let mut within = vec![0; highest + 1];
    for (node, level) in &far {
        sizes[*level] += 1;
        within[*level] += near.of[node].iter().filter(|o| far[o] == *level).count();
    }
    // Counted from both ends.
    let rows_hold = within.iter().zip(&sizes).all(|(links, nodes)| links <= nodes) && within[0] == 0;
    if !rows_hold {
        return None;
    }
    rows(far.into_iter().map(|(node, level)| (highest - level, node)))
}
