//! Parts that are not in rows: a chain as a line, a ring, a mesh or a star as a circle, all else so that distances in the picture are like those in
//! the graph. Links go straight from node to node, several between the same two bent apart; labels stand on their link, beside their node.

use std::collections::{BTreeMap, VecDeque};
use std::f64::consts::{PI, TAU};

use super::Graph;
use super::geometry::{Point, Rect};
use super::layout::{LABEL_HEIGHT, Label, Part, Step, Wire, label_length, label_shown, size_of};
use super::levels::Near;

/// Length of a link that nothing else decides on.
const LINK: f64 = 190.0;
/// Least room between nodes, of which each has half.
const ROOM: f64 = 44.0;
/// How far links between the same two nodes are bent apart.
const BEND: f64 = 30.0;
/// How far beside its link a label may stand: cards that are near to each other leave no room for it between them, but above and below.
const ASIDE: [f64; 7] = [0.0, -12.0, 12.0, -24.0, 24.0, -36.0, 36.0];
/// Most nodes in a row of a long chain.
const IN_A_ROW: usize = 8;
/// How much work is spent on distances: pairs of nodes times rounds.
const EFFORT: usize = 40_000_000;

/// How much further apart nodes are drawn when labels have no room, and how often at most.
const SPREAD: f64 = 1.12;
const SPREADS: usize = 14;
/// How much work is spent on that: links times rounds.
const LABELS: usize = 6_000;

/// Lays out a part.
pub fn layout(graph: &Graph, members: &[usize]) -> Part {
    let near = Near::of(graph, members);
    let longest = graph
        .links
        .iter()
        .filter(|l| near.of.contains_key(&l.a.node))
        .flat_map(|l| [&l.a.interface, &l.b.interface])
        .map(|i| label_length(i))
        .fold(0.0, f64::max);
    let widest = members.iter().map(|m| size_of(&graph.nodes[*m]).0).fold(0.0, f64::max);
    let centres = if members.len() == 1 {
        BTreeMap::from([(members[0], Point::default())])
    } else if near.is_chain() {
        chain(&near, widest + 2.0 * longest + 40.0)
    } else if near.core_is_circle() || near.core().len() == 1 {
        circle(&near, widest, longest)
    } else {
        stress(&near, widest + longest)
    };
    let mut nodes: Vec<(usize, Rect)> = members
        .iter()
        .map(|m| {
            let (width, height) = size_of(&graph.nodes[*m]);
            (*m, Rect::around(centres[m], width, height))
        })
        .collect();
    push_apart(&mut nodes, ROOM / 2.0);
    let mut wires = wires(graph, &nodes);
    // Where labels have no room beside each other everything is drawn further apart: cards and labels stay as large as they are, so what is between them grows.
    let rounds = LABELS / (wires.0.len() + 1);
    for _ in 0..rounds.min(SPREADS) {
        if wires.1 == 0 {
            break;
        }
        for (_, rect) in &mut nodes {
            rect.centre = Point::new(rect.centre.x * SPREAD, rect.centre.y * SPREAD);
        }
        wires = self::wires(graph, &nodes);
    }
    Part { nodes, wires: wires.0 }
}

/// A line; a long one goes to and fro.
fn chain(near: &Near, step: f64) -> BTreeMap<usize, Point> {
    let mut order: Vec<usize> = Vec::new();
    let mut next = near.of.iter().find(|(_, n)| n.len() == 1).map(|(m, _)| *m);
    while let Some(node) = next {
        order.push(node);
        let before = order.len().checked_sub(2).map(|i| order[i]);
        next = near.of[&node].iter().copied().find(|n| Some(*n) != before);
    }
    let in_a_row = if order.len() <= IN_A_ROW {
        order.len()
    } else {
        // A little wider than high.
        ((order.len() as f64).sqrt() * 1.1).ceil() as usize
    };
    let place = |i: usize| {
        let (row, column) = (i / in_a_row, i % in_a_row);
        let column = if row % 2 == 0 { column } else { in_a_row - 1 - column };
        Point::new(column as f64 * step, row as f64 * 150.0)
    };
    order.into_iter().enumerate().map(|(i, n)| (n, place(i))).collect()
}

/// The core on a circle, what hangs on it outside.
fn circle(near: &Near, widest: f64, longest: f64) -> BTreeMap<usize, Point> {
    let core = near.core();
    let ring = near.ring(&core);
    // A ring in its order; in a mesh any order is one.
    let order: Vec<usize> = if ring.len() == core.len() { ring } else { core.iter().copied().collect() };
    let hanging = |node: &usize| near.of[node].difference(&core).copied().collect::<Vec<usize>>();
    let most = order.iter().map(|n| hanging(n).len()).max().unwrap_or(0);
    let room = widest + 50.0;
    let out = longest * 2.0 + 130.0;
    let count = order.len() as f64;
    let radius = if order.len() == 1 {
        0.0
    } else {
        let chord = widest + 2.0 * longest + 30.0;
        (chord / 2.0 / (PI / count).sin()).max(room * most as f64 * count / TAU - out).max(110.0)
    };
    let mut places = BTreeMap::new();
    for (i, node) in order.iter().enumerate() {
        let angle = TAU * i as f64 / count - PI / 2.0;
        let centre = Point::new(radius * angle.cos(), radius * angle.sin());
        places.insert(*node, centre);
        let hanging = hanging(node);
        let far = radius + out.max(room * hanging.len() as f64 / TAU - radius);
        // Side by side on the outer circle, not further apart than their share of it.
        let share = TAU / count / hanging.len().max(1) as f64;
        let share = if order.len() == 1 { share } else { share.min(room / far) };
        for (j, other) in hanging.iter().enumerate() {
            let angle = angle + (j as f64 - (hanging.len() as f64 - 1.0) / 2.0) * share;
            places.insert(*other, Point::new(far * angle.cos(), far * angle.sin()));
        }
    }
    places
}

/// Distances as in the graph: classical scaling for the outline, then stress majorization (Gansner, Koren, North, 2004) for the rest.
fn stress(near: &Near, room: f64) -> BTreeMap<usize, Point> {
    let members: Vec<usize> = near.of.keys().copied().collect();
    let far = distances(near, &members);
    let n = members.len();
    let rounds = (EFFORT / (n * n)).clamp(8, 250);
    let mut axes = scaling(&far, rounds.min(60));
    let ideal = (LINK + room) / 1.6;
    for _ in 0..rounds {
        let mut moved = 0.0_f64;
        for i in 0..n {
            let (mut x, mut y, mut weights) = (0.0, 0.0, 0.0);
            for j in (0..n).filter(|j| *j != i) {
                let wanted = far[i][j];
                let weight = 1.0 / (wanted * wanted);
                let (dx, dy) = (axes[i].x - axes[j].x, axes[i].y - axes[j].y);
                let is = dx.hypot(dy).max(1e-9);
                x += weight * (axes[j].x + wanted * dx / is);
                y += weight * (axes[j].y + wanted * dy / is);
                weights += weight;
            }
            let next = Point::new(x / weights, y / weights);
            moved = moved.max(next.distance(axes[i]));
            axes[i] = next;
        }
        if moved < 1e-4 {
            break;
        }
    }
    // The first node to the left of the last, as one reads.
    let side = if axes[0].x > axes[n - 1].x { -ideal } else { ideal };
    members.into_iter().zip(axes).map(|(m, p)| (m, Point::new(p.x * side, p.y * ideal))).collect()
}

/// How many links it is from each node to each.
fn distances(near: &Near, members: &[usize]) -> Vec<Vec<f64>> {
    let number: BTreeMap<usize, usize> = members.iter().enumerate().map(|(i, m)| (*m, i)).collect();
    let of: Vec<Vec<usize>> =
        members.iter().map(|m| near.of[m].iter().map(|o| number[o]).collect()).collect();
    let from = |start: usize| {
        let mut far = vec![f64::INFINITY; of.len()];
        far[start] = 0.0;
        let mut queue = VecDeque::from([start]);
        while let Some(node) = queue.pop_front() {
            for other in &of[node] {
                if far[*other].is_infinite() {
                    far[*other] = far[node] + 1.0;
                    queue.push_back(*other);
                }
            }
        }
        far
    };
    (0..of.len()).map(from).collect()
}

/// The two main axes of the distances, by repeated multiplication. Starting values that no symmetry maps onto each other keep nodes that are
/// alike apart.
fn scaling(far: &[Vec<f64>], rounds: usize) -> Vec<Point> {
    let n = far.len();
    let mean: Vec<f64> = far.iter().map(|row| row.iter().map(|d| d * d).sum::<f64>() / n as f64).collect();
    let all = mean.iter().sum::<f64>() / n as f64;
    let inner = |i: usize, j: usize| -0.5 * (far[i][j] * far[i][j] - mean[i] - mean[j] + all);
    let start = |seed: f64| -> Vec<f64> { (0..n).map(|i| ((i as f64 + 1.0) * seed).sin()).collect() };
    let mut axes = [start(12.9898), start(78.233)];
    for axis in 0..2 {
        for _ in 0..rounds {
            if axis == 1 {
                let (first, second) = axes.split_at_mut(1);
                let along: f64 = first[0].iter().zip(&second[0]).map(|(a, b)| a * b).sum();
                second[0].iter_mut().zip(&first[0]).for_each(|(b, a)| *b -= along * a);
            }
            let now = &axes[axis];
            let mut next: Vec<f64> = (0..n).map(|i| (0..n).map(|j| inner(i, j) * now[j]).sum()).collect();
            let length = next.iter().map(|v| v * v).sum::<f64>().sqrt();
            if length < 1e-9 {
                break;
            }
            next.iter_mut().for_each(|v| *v /= length);
            axes[axis] = next;
        }
    }
    let size = |axis: &[f64]| -> f64 {
        let value: f64 = (0..n).map(|i| axis[i] * (0..n).map(|j| inner(i, j) * axis[j]).sum::<f64>()).sum();
        value.max(0.01).sqrt()
    };
    let (x, y) = (size(&axes[0]), size(&axes[1]));
    // A little of the other order keeps two nodes from one place.
    (0..n).map(|i| Point::new(axes[0][i] * x, axes[1][i] * y + (i as f64 * 0.7).sin() * 1e-3)).collect()
}

/// Moves nodes until none is nearer to another than twice this room.
fn push_apart(nodes: &mut [(usize, Rect)], room: f64) {
    for round in 0..200 {
        let mut all_apart = true;
        for i in 0..nodes.len() {
            for j in i + 1..nodes.len() {
                let (a, b) = (nodes[i].1.grown(room), nodes[j].1.grown(room));
                let Some((x, y)) = a.overlap(&b) else { continue };
                all_apart = false;
                // The shorter way out, half each; nodes in one place part by their order.
                let sign = |d: f64| if d < 0.0 { -0.5 } else { 0.5 };
                let (dx, dy) = if x < y {
                    ((x + 0.5) * sign(b.centre.x - a.centre.x), 0.0)
                } else {
                    (0.0, (y + 0.5) * sign(b.centre.y - a.centre.y))
                };
                nodes[i].1.centre = nodes[i].1.centre.moved(-dx, -dy);
                nodes[j].1.centre = nodes[j].1.centre.moved(dx, dy);
            }
        }
        if all_apart {
            return;
        }
        if round > 40 {
            // Too crowded to push: all becomes larger.
            for (_, rect) in nodes.iter_mut() {
                rect.centre = Point::new(rect.centre.x * 1.08, rect.centre.y * 1.08);
            }
        }
    }
    // Never seen, and yet no two may overlap: side by side.
    let mut x = 0.0;
    for (_, rect) in nodes.iter_mut() {
        rect.centre = Point::new(x + rect.width / 2.0, 0.0);
        x += rect.width + 2.0 * room;
    }
}

/// The links between nodes that are where they are, and how many of their labels have no room of their own.
fn wires(graph: &Graph, nodes: &[(usize, Rect)]) -> (Vec<(usize, Wire)>, usize) {
    let places: BTreeMap<usize, Rect> = nodes.iter().copied().collect();
    let mut between: BTreeMap<(usize, usize), Vec<usize>> = BTreeMap::new();
    for (number, link) in graph.links.iter().enumerate() {
        if places.contains_key(&link.a.node) {
            between.entry((link.a.node, link.b.node)).or_default().push(number);
        }
    }
    let mut taken = Taken { places: &places, labels: Vec::new(), crowded: 0 };
    let mut wires = Vec::new();
    for ((a, b), links) in &between {
        for (i, number) in links.iter().enumerate() {
            let shift = (i as f64 - (links.len() as f64 - 1.0) / 2.0) * BEND;
            let curve = if a == b {
                Curve::to_itself(&places[a], i)
            } else {
                Curve::between(&places[a], &places[b], shift)
            };
            let link = &graph.links[*number];
            let labels = [
                taken.label(&link.a.interface, &curve, &places[a], false),
                taken.label(&link.b.interface, &curve, &places[b], true),
            ];
            wires.push((*number, Wire { path: vec![Step::Move(curve.from), curve.step], labels }));
        }
    }
    (wires, taken.crowded)
}

struct Curve {
    from: Point,
    step: Step,
}

impl Curve {
    fn between(a: &Rect, b: &Rect, shift: f64) -> Curve {
        let (dx, dy) = (b.centre.x - a.centre.x, b.centre.y - a.centre.y);
        let length = dx.hypot(dy).max(1e-9);
        if shift == 0.0 {
            return Curve { from: a.exit(b.centre), step: Step::Line(b.exit(a.centre)) };
        }
        let middle = Point::new((a.centre.x + b.centre.x) / 2.0, (a.centre.y + b.centre.y) / 2.0);
        // A bend reaches half as far as the point it is bent towards.
        let towards = middle.moved(-dy / length * shift * 2.0, dx / length * shift * 2.0);
        Curve { from: a.exit(towards), step: Step::Bend(towards, b.exit(towards)) }
    }

    /// From a node's upper edge to its right one.
    fn to_itself(rect: &Rect, number: usize) -> Curve {
        let out = 44.0 + 22.0 * number as f64;
        let shift = 8.0 * number as f64;
        let from = Point::new(rect.right() - 22.0 - shift.min(rect.width - 34.0), rect.top());
        let to = Point::new(rect.right(), rect.top() + 14.0 + shift.min(24.0));
        Curve { from, step: Step::Loop(from.moved(0.0, -out), to.moved(out, 0.0), to) }
    }

    /// The point this share of the way along.
    fn at(&self, t: f64) -> Point {
        let mix = |p: Point, q: Point| Point::new(p.x + (q.x - p.x) * t, p.y + (q.y - p.y) * t);
        match self.step {
            Step::Move(p) | Step::Line(p) => mix(self.from, p),
            Step::Bend(c, p) => mix(mix(self.from, c), mix(c, p)),
            Step::Loop(c, d, p) => {
                let (first, middle, last) = (mix(self.from, c), mix(c, d), mix(d, p));
                mix(mix(first, middle), mix(middle, last))
            }
        }
    }
}

/// What labels keep off.
struct Taken<'a> {
    places: &'a BTreeMap<usize, Rect>,
    labels: Vec<Rect>,
    /// Labels for which there was no room.
    crowded: usize,
}

impl Taken<'_> {
    /// The label at an end: on its link, as near to its node as there is room, or else beside it. When other labels leave none, it stands on them; when
    /// nodes do, there is none.
    fn label(&mut self, interface: &str, curve: &Curve, own: &Rect, at_end: bool) -> Option<Label> {
        let width = label_length(interface);
        let along = |aside: f64| {
            (0..=48).map(move |i| {
                let t = f64::from(i) / 100.0;
                let at = curve.at(if at_end { 1.0 - t } else { t });
                Rect::around(at.moved(0.0, aside), width, LABEL_HEIGHT)
            })
        };
        let places = ASIDE.iter().flat_map(|aside| along(*aside));
        let far = curve.at(0.5).distance(own.centre) + own.width + width;
        let is_near = |r: &&Rect| r.centre.distance(own.centre) < far + r.width;
        let near: Vec<&Rect> = self.places.values().filter(is_near).collect();
        let others: Vec<&Rect> = self.labels.iter().filter(is_near).collect();
        let is_clear = |place: &Rect| near.iter().all(|r| r.grown(2.0).overlap(place).is_none());
        let mut on_others = None;
        let free = places.filter(is_clear).find(|place| {
            on_others = on_others.or(Some(*place));
            others.iter().all(|l| l.overlap(place).is_none())
        });
        self.crowded += usize::from(free.is_none());
        let place = free.or(on_others)?;
        self.labels.push(place);
        Some(Label { text: label_shown(interface), place, upright: false })
    }
}
