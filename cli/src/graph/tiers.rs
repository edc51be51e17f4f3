//! Parts in rows. Links leave a node at its upper or lower edge, each at a port of its own, and go straight up or down past their label before they
//! turn to the other end: so no label meets a node or another label. Many hosts below one node hang on a stem, as the branches of a tree.

use std::collections::BTreeMap;

use super::Graph;
use super::geometry::{Point, Rect};
use super::layout::{LABEL_HEIGHT, Label, NODE_HEIGHT, Part, Step, Wire, label_length, label_shown, size_of};

/// Room between neighbouring ports.
const PITCH: f64 = 15.0;
/// Least room between neighbouring nodes.
const GAP: f64 = 36.0;
/// Most room between neighbouring nodes that is given where a row is short.
const WIDE_GAP: f64 = 150.0;
/// Nodes of the lowest row from which on they hang on stems.
const MANY: usize = 16;
/// Most nodes on one stem.
const ON_A_STEM: usize = 10;
/// From a node on a stem to the next.
const STEM_PITCH: f64 = NODE_HEIGHT + 18.0;
/// Rounds of bringing rows into order.
const ROUNDS: usize = 6;

struct Tiers<'a> {
    graph: &'a Graph,
    rows: Vec<Vec<usize>>,
    /// Row of each node; that of one on a stem is beyond the last.
    row: BTreeMap<usize, usize>,
    /// Nodes on stems, by the node above.
    stems: BTreeMap<usize, Vec<usize>>,
    links: Vec<usize>,
    width: BTreeMap<usize, f64>,
}

/// Lays out a part in these rows.
pub fn layout(graph: &Graph, levels: &[Vec<usize>]) -> Part {
    let mut tiers = Tiers::new(graph, levels);
    tiers.order();
    let x = tiers.columns();
    tiers.draw(&x)
}

impl<'a> Tiers<'a> {
    fn new(graph: &'a Graph, levels: &[Vec<usize>]) -> Tiers<'a> {
        let mut row = BTreeMap::new();
        for (level, nodes) in levels.iter().enumerate() {
            row.extend(nodes.iter().map(|n| (*n, level)));
        }
        let links: Vec<usize> =
            (0..graph.links.len()).filter(|l| row.contains_key(&graph.links[*l].a.node)).collect();
        let mut rows = levels.to_vec();
        let mut stems: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        let lowest = rows.len() - 1;
        if rows[lowest].len() > MANY {
            let mut above: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
            for link in &links {
                let (a, b) = (graph.links[*link].a.node, graph.links[*link].b.node);
                above.entry(a).or_default().push(b);
                above.entry(b).or_default().push(a);
            }
            rows[lowest].retain(|node| match above.get(node).map(Vec::as_slice) {
                Some([parent]) if row[parent] + 1 == lowest => {
                    stems.entry(*parent).or_default().push(*node);
                    false
                }
                _ => true,
            });
            if rows[lowest].is_empty() {
                rows.pop();
            }
        }
        let mut tiers = Tiers { graph, rows, row, stems, links, width: BTreeMap::new() };
        for row in &tiers.rows {
            for node in row {
                let ports = [true, false].map(|up| tiers.ends(*node, up).len());
                let stems = tiers.stems.get(node).map_or(0, |s| s.len().div_ceil(ON_A_STEM));
                let most = ports[0].max(ports[1] + stems) as f64;
                tiers.width.insert(*node, size_of(&graph.nodes[*node]).0.max(most * PITCH + 20.0));
            }
        }
        tiers
    }

    /// True for a link that is drawn as a branch of a stem.
    fn is_branch(&self, link: usize) -> bool {
        let link = &self.graph.links[link];
        [link.a.node, link.b.node].iter().any(|n| self.hangs(*n))
    }

    fn hangs(&self, node: usize) -> bool {
        self.stems.values().any(|s| s.contains(&node))
    }

    /// Ends of links at a node's upper or lower edge, as the link and whether it is its end a. Links within a row are at the lower edge.
    fn ends(&self, node: usize, up: bool) -> Vec<(usize, bool)> {
        let mut ends = Vec::new();
        for &number in &self.links {
            let link = &self.graph.links[number];
            for (is_a, this, other) in [(true, &link.a, &link.b), (false, &link.b, &link.a)] {
                let is_up = self.row[&other.node] < self.row[&this.node];
                if this.node == node && is_up == up && !self.is_branch(number) {
                    ends.push((number, is_a));
                }
            }
        }
        ends
    }

    /// Orders each row by where its neighbours are, so that fewer links cross. An order that is as good is left as it is.
    fn order(&mut self) {
        let mut best = (self.crossings(), self.rows.clone());
        for round in 0..ROUNDS {
            let down = round % 2 == 0;
            let count = self.rows.len();
            for step in 1..count {
                let (row, beside) = if down { (step, step - 1) } else { (count - 1 - step, count - step) };
                let position: BTreeMap<usize, f64> =
                    self.rows[beside].iter().enumerate().map(|(i, n)| (*n, i as f64)).collect();
                let mut keyed: Vec<(f64, usize)> = Vec::new();
                for (i, node) in self.rows[row].iter().enumerate() {
                    let places: Vec<f64> =
                        self.neighbours(*node).iter().filter_map(|n| position.get(n).copied()).collect();
                    let mean = places.iter().sum::<f64>() / places.len() as f64;
                    keyed.push((if places.is_empty() { i as f64 } else { mean }, *node));
                }
                keyed.sort_by(|a, b| a.0.total_cmp(&b.0));
                self.rows[row] = keyed.into_iter().map(|(_, n)| n).collect();
            }
            let crossings = self.crossings();
            if crossings < best.0 {
                best = (crossings, self.rows.clone());
            }
        }
        self.rows = best.1;
    }

    fn neighbours(&self, node: usize) -> Vec<usize> {
        let other = |l: &usize| {
            let link = &self.graph.links[*l];
            match (link.a.node == node, link.b.node == node) {
                (true, false) => Some(link.b.node),
                (false, true) => Some(link.a.node),
                _ => None,
            }
        };
        self.links.iter().filter_map(other).collect()
    }

    /// How many links between neighbouring rows cross.
    fn crossings(&self) -> usize {
        let mut place: BTreeMap<usize, usize> = BTreeMap::new();
        for row in &self.rows {
            place.extend(row.iter().enumerate().map(|(i, n)| (*n, i)));
        }
        let mut between: BTreeMap<usize, Vec<(usize, usize)>> = BTreeMap::new();
        for &number in &self.links {
            let link = &self.graph.links[number];
            let (Some(a), Some(b)) = (place.get(&link.a.node), place.get(&link.b.node)) else { continue };
            let (ra, rb) = (self.row[&link.a.node], self.row[&link.b.node]);
            if ra + 1 == rb {
                between.entry(ra).or_default().push((*a, *b));
            } else if rb + 1 == ra {
                between.entry(rb).or_default().push((*b, *a));
            }
        }
        let mut crossings = 0;
        for ends in between.values_mut() {
            // Pairs that stand the other way round, counted with a tree of sums.
            ends.sort_unstable();
            let size = ends.iter().map(|e| e.1).max().unwrap_or(0) + 1;
            let mut sums = vec![0; size + 1];
            for (seen, (_, lower)) in ends.iter().enumerate() {
                let (mut at, mut not_greater) = (lower + 1, 0);
                while at > 0 {
                    not_greater += sums[at];
                    at &= at - 1;
                }
                crossings += seen - not_greater;
                let mut at = lower + 1;
                while at <= size {
                    sums[at] += 1;
                    at += at & at.wrapping_neg();
                }
            }
        }
        crossings
    }

    /// Room that a node takes in its row: its own width, or that of the stems below it.
    fn room(&self, node: usize) -> f64 {
        let stems = self.stems.get(&node).map_or(0.0, |hanging| {
            let columns = hanging.chunks(ON_A_STEM).map(|c| self.stem_width(node, c) + 24.0);
            columns.sum::<f64>()
        });
        self.width[&node].max(stems)
    }

    fn stem_width(&self, parent: usize, hanging: &[usize]) -> f64 {
        let widest = hanging.iter().map(|n| size_of(&self.graph.nodes[*n]).0).fold(0.0, f64::max);
        self.branch_length(parent) + widest
    }

    /// From a stem to the nodes on it.
    fn branch_length(&self, parent: usize) -> f64 {
        let hanging = &self.stems[&parent];
        let labels = self.links.iter().filter(|l| {
            let link = &self.graph.links[**l];
            hanging.contains(&link.a.node) || hanging.contains(&link.b.node)
        });
        let longest = labels.map(|l| {
            let link = &self.graph.links[*l];
            label_length(&link.a.interface).max(label_length(&link.b.interface))
        });
        longest.fold(24.0, f64::max) + 10.0
    }

    /// The x of each node in a row: the widest row is spread, the others go where their neighbours are.
    fn columns(&self) -> BTreeMap<usize, f64> {
        let rooms: Vec<Vec<f64>> =
            self.rows.iter().map(|r| r.iter().map(|n| self.room(*n)).collect()).collect();
        let total = |row: &[f64]| row.iter().sum::<f64>() + GAP * (row.len().saturating_sub(1)) as f64;
        let widest = rooms.iter().map(|r| total(r)).fold(0.0, f64::max);
        let gaps: Vec<f64> = rooms
            .iter()
            .map(|r| ((widest - r.iter().sum::<f64>()) / r.len() as f64).clamp(GAP, WIDE_GAP))
            .collect();
        let mut x: BTreeMap<usize, f64> = BTreeMap::new();
        for (row, nodes) in self.rows.iter().enumerate() {
            let mut at = -total(&rooms[row]) / 2.0;
            for (node, room) in nodes.iter().zip(&rooms[row]) {
                x.insert(*node, at + room / 2.0);
                at += room + GAP;
            }
        }
        for round in 0..ROUNDS {
            let count = self.rows.len();
            for step in 0..count {
                let row = if round % 2 == 0 { count - 1 - step } else { step };
                let nodes = &self.rows[row];
                let wanted: Vec<f64> = nodes
                    .iter()
                    .map(|n| {
                        let near: Vec<f64> =
                            self.neighbours(*n).iter().filter_map(|o| x.get(o).copied()).collect();
                        if near.is_empty() { x[n] } else { near.iter().sum::<f64>() / near.len() as f64 }
                    })
                    .collect();
                for (node, place) in nodes.iter().zip(spread(&wanted, &rooms[row], gaps[row])) {
                    x.insert(*node, place);
                }
            }
        }
        x
    }

    fn draw(&self, x: &BTreeMap<usize, f64>) -> Part {
        let mut part = Part::default();
        let mut places: BTreeMap<usize, Rect> = BTreeMap::new();
        let tops = self.heights(x);
        for (row, nodes) in self.rows.iter().enumerate() {
            for node in nodes {
                let centre = Point::new(x[node], tops[row] + NODE_HEIGHT / 2.0);
                places.insert(*node, Rect::around(centre, self.width[node], NODE_HEIGHT));
            }
        }
        let mut ports: BTreeMap<(usize, bool), Point> = BTreeMap::new();
        let mut stem_ports: BTreeMap<usize, Vec<Point>> = BTreeMap::new();
        for (node, place) in &places {
            for up in [true, false] {
                let mut ends = self.ends(*node, up);
                ends.sort_by(|p, q| {
                    let other = |(l, is_a): &(usize, bool)| {
                        let link = &self.graph.links[*l];
                        x[&if *is_a { link.b.node } else { link.a.node }]
                    };
                    other(p).total_cmp(&other(q)).then(p.0.cmp(&q.0))
                });
                let stems =
                    if up { 0 } else { self.stems.get(node).map_or(0, |s| s.len().div_ceil(ON_A_STEM)) };
                let all = ends.len() + stems;
                let pitch = ((place.width - 20.0) / all.max(1) as f64).min(2.0 * PITCH);
                let at = |i: usize| {
                    let shift = (i as f64 - (all as f64 - 1.0) / 2.0) * pitch;
                    Point::new(place.centre.x + shift, if up { place.top() } else { place.bottom() })
                };
                for (i, end) in ends.iter().enumerate() {
                    ports.insert(*end, at(i));
                }
                if stems > 0 {
                    stem_ports.insert(*node, (ends.len()..all).map(at).collect());
                }
            }
        }
        for &number in self.links.iter().filter(|l| !self.is_branch(**l)) {
            part.wires.push((number, self.wire(number, &ports)));
        }
        for (parent, hanging) in &self.stems {
            self.draw_stems(*parent, hanging, &places[parent], &stem_ports[parent], &mut part);
        }
        part.nodes.extend(places);
        part
    }

    /// The upper edge of each row.
    fn heights(&self, x: &BTreeMap<usize, f64>) -> Vec<f64> {
        let mut tops = vec![0.0];
        for row in 1..self.rows.len() {
            let mut far = 0.0_f64;
            for &number in &self.links {
                let link = &self.graph.links[number];
                let (Some(a), Some(b)) = (x.get(&link.a.node), x.get(&link.b.node)) else { continue };
                if self.row[&link.a.node].max(self.row[&link.b.node]) == row {
                    far = far.max((a - b).abs());
                }
            }
            let labels = self.stub(row - 1, false) + self.stub(row, true);
            tops.push(tops[row - 1] + NODE_HEIGHT + labels + (far * 0.16).clamp(24.0, 240.0));
        }
        tops
    }

    /// How far the links of a row go straight up or down: past their labels.
    fn stub(&self, row: usize, up: bool) -> f64 {
        let of = |node: &usize| {
            let ends = self.ends(*node, up);
            let label = |(l, is_a): &(usize, bool)| {
                let link = &self.graph.links[*l];
                label_length(if *is_a { &link.a.interface } else { &link.b.interface })
            };
            ends.iter().map(label).fold(0.0, f64::max)
        };
        self.rows[row].iter().map(of).fold(0.0, f64::max) + 8.0
    }

    fn wire(&self, number: usize, ports: &BTreeMap<(usize, bool), Point>) -> Wire {
        let link = &self.graph.links[number];
        let (a, b) = (ports[&(number, true)], ports[&(number, false)]);
        let (ra, rb) = (self.row[&link.a.node], self.row[&link.b.node]);
        let turn = |port: Point, row: usize, up: bool| {
            let length = self.stub(row, up);
            port.moved(0.0, if up { -length } else { length })
        };
        let (turn_a, turn_b) = (turn(a, ra, rb < ra), turn(b, rb, ra < rb));
        let path = if ra == rb {
            let depth = 14.0 + (a.x - b.x).abs().min(200.0) * 0.05;
            let low = |p: Point| p.moved(0.0, depth * 1.3);
            vec![
                Step::Move(a),
                Step::Line(turn_a),
                Step::Loop(low(turn_a), low(turn_b), turn_b),
                Step::Line(b),
            ]
        } else {
            vec![Step::Move(a), Step::Line(turn_a), Step::Line(turn_b), Step::Line(b)]
        };
        let label = |interface: &str, port: Point, up: bool| {
            let length = label_length(interface);
            let shift = 4.0 + length / 2.0;
            let centre = port.moved(0.0, if up { -shift } else { shift });
            Some(Label {
                text: label_shown(interface),
                place: Rect::around(centre, LABEL_HEIGHT, length),
                upright: true,
            })
        };
        Wire { path, labels: [label(&link.a.interface, a, rb < ra), label(&link.b.interface, b, ra < rb)] }
    }

    fn draw_stems(&self, parent: usize, hanging: &[usize], above: &Rect, ports: &[Point], part: &mut Part) {
        let branch = self.branch_length(parent);
        let row = self.row[&parent];
        let first = above.bottom() + self.stub(row, false).max(20.0) + 26.0;
        let columns: Vec<&[usize]> = hanging.chunks(ON_A_STEM).collect();
        let total: f64 = columns.iter().map(|c| self.stem_width(parent, c) + 24.0).sum::<f64>() - 24.0;
        let mut left = above.centre.x - total / 2.0;
        for (column, port) in columns.iter().zip(ports) {
            for (i, node) in column.iter().enumerate() {
                let (width, height) = size_of(&self.graph.nodes[*node]);
                let y = first + NODE_HEIGHT / 2.0 + i as f64 * STEM_PITCH;
                let centre = Point::new(left + branch + width / 2.0, y);
                part.nodes.push((*node, Rect::around(centre, width, height)));
                let number = self.links.iter().copied().find(|l| {
                    let link = &self.graph.links[*l];
                    link.a.node == *node || link.b.node == *node
                });
                let Some(number) = number else { continue };
                let link = &self.graph.links[number];
                let turn = first - 16.0;
                let stem = Point::new(left, y);
                let mut path = vec![
                    Step::Move(*port),
                    Step::Line(Point::new(port.x, turn)),
                    Step::Line(Point::new(left, turn)),
                    Step::Line(stem),
                    Step::Line(stem.moved(branch, 0.0)),
                ];
                let label = |interface: &str, y: f64| {
                    let centre = Point::new(stem.x + branch / 2.0, stem.y + y);
                    Some(Label {
                        text: label_shown(interface),
                        place: Rect::around(centre, label_length(interface), LABEL_HEIGHT),
                        upright: false,
                    })
                };
                let is_lower = |is_a: bool| is_a == (link.a.node == *node);
                let labels = [(&link.a, is_lower(true)), (&link.b, is_lower(false))]
                    .map(|(end, lower)| label(&end.interface, if lower { 8.0 } else { -8.0 }));
                if link.a.node == *node {
                    let mut points: Vec<Point> = path.iter().flat_map(Step::points).collect();
                    points.reverse();
                    path = points
                        .into_iter()
                        .enumerate()
                        .map(|(i, p)| if i == 0 { Step::Move(p) } else { Step::Line(p) })
                        .collect();
                }
                part.wires.push((number, Wire { path, labels }));
            }
            left += self.stem_width(parent, column) + 24.0;
        }
    }
}

/// Places as near to the wanted ones as keeps the order and the room of each: the least sum of squares, by pooling neighbours that want the same.
fn spread(wanted: &[f64], rooms: &[f64], gap: f64) -> Vec<f64> {
    let mut offsets = Vec::with_capacity(rooms.len());
    let mut offset = 0.0;
    for (i, room) in rooms.iter().enumerate() {
        if i > 0 {
            offset += (rooms[i - 1] + room) / 2.0 + gap;
        }
        offsets.push(offset);
    }
    let mut pools: Vec<(f64, usize)> = Vec::new();
    for (want, offset) in wanted.iter().zip(&offsets) {
        pools.push((want - offset, 1));
        while let [.., (before, n), (last, m)] = pools.as_slice()
            && before > last
        {
            let (n, m) = (*n, *m);
            let mean = (before * n as f64 + last * m as f64) / (n + m) as f64;
            pools.truncate(pools.len() - 2);
            pools.push((mean, n + m));
        }
    }
    let bases = pools.iter().flat_map(|(base, n)| std::iter::repeat_n(*base, *n));
    bases.zip(offsets).map(|(base, offset)| base + offset).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_keep_their_order_and_room() {
        assert_eq!(spread(&[0.0, 100.0], &[10.0, 10.0], 5.0), [0.0, 100.0]);
        assert_eq!(spread(&[0.0, 0.0, 0.0], &[10.0, 10.0, 10.0], 5.0), [-15.0, 0.0, 15.0]);
        assert_eq!(spread(&[10.0, 0.0], &[10.0, 10.0], 0.0), [0.0, 10.0]);
    }
}
