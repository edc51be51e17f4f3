//! Where everything of a picture goes. Pure: the same graph gives the same picture.
//!
//! Each connected part is laid out by itself, as what it looks like: in rows when it has `levels`, else `free`: a ring, a
//! mesh or a star as a circle, a chain as a line, and all else so that distances in the picture are like those in the graph. The parts are then
//! put beside each other. What always holds: no two nodes overlap, and no label of an interface overlaps a node.

use super::geometry::{Point, Rect, text_width};
use super::{Graph, Node, free, levels, tiers};
use crate::output::style::{clip, one_line};

/// Font size of a node's name.
pub const NAME_SIZE: f64 = 13.0;
/// Font size of a node's kind.
pub const KIND_SIZE: f64 = 10.5;
/// Font size of an interface's name.
pub const LABEL_SIZE: f64 = 9.5;
/// Height of a node.
pub const NODE_HEIGHT: f64 = 46.0;
/// Room of a node's icon, to the left of its text.
pub const ICON_ROOM: f64 = 46.0;
/// Height of an interface's label.
pub const LABEL_HEIGHT: f64 = 12.0;
/// Longest name that is drawn, in characters.
const MAX_NAME: usize = 22;
/// Longest interface name that is drawn, in characters.
const MAX_LABEL: usize = 11;
/// Room between parts.
const BETWEEN: f64 = 60.0;

/// Where everything goes.
#[derive(Debug, Clone, Default)]
pub struct Layout {
    /// Width of the whole.
    pub width: f64,
    /// Height of the whole.
    pub height: f64,
    /// The place of each node.
    pub nodes: Vec<Rect>,
    /// The way of each link.
    pub wires: Vec<Wire>,
}

/// The way of a link, and the labels at its ends.
#[derive(Debug, Clone, Default)]
pub struct Wire {
    /// From one end to the other.
    pub path: Vec<Step>,
    /// The interface's name at either end; none where there is no room for it.
    pub labels: [Option<Label>; 2],
}

/// A part of a way.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Step {
    /// Begins here.
    Move(Point),
    /// Straight to here.
    Line(Point),
    /// To the second point, bent towards the first.
    Bend(Point, Point),
    /// To the third point, leaving towards the first and coming from the second.
    Loop(Point, Point, Point),
}

impl Step {
    /// The points it is made of.
    pub fn points(&self) -> Vec<Point> {
        match *self {
            Step::Move(p) | Step::Line(p) => vec![p],
            Step::Bend(p, q) => vec![p, q],
            Step::Loop(p, q, r) => vec![p, q, r],
        }
    }

    fn moved(self, x: f64, y: f64) -> Step {
        let m = |p: Point| p.moved(x, y);
        match self {
            Step::Move(p) => Step::Move(m(p)),
            Step::Line(p) => Step::Line(m(p)),
            Step::Bend(p, q) => Step::Bend(m(p), m(q)),
            Step::Loop(p, q, r) => Step::Loop(m(p), m(q), m(r)),
        }
    }
}

/// The name of an interface.
#[derive(Debug, Clone, PartialEq)]
pub struct Label {
    /// What is written.
    pub text: String,
    /// Where.
    pub place: Rect,
    /// True when it is written upwards.
    pub upright: bool,
}

/// One connected part, in coordinates of its own.
#[derive(Debug, Default)]
pub struct Part {
    /// Its nodes, by their number in the graph.
    pub nodes: Vec<(usize, Rect)>,
    /// Its links, by their number in the graph.
    pub wires: Vec<(usize, Wire)>,
}

/// Lays a graph out.
pub fn layout(graph: &Graph) -> Layout {
    let mut parts: Vec<Part> = components(graph)
        .into_iter()
        .map(|members| match levels::of(graph, &members) {
            Some(levels) => tiers::layout(graph, &levels),
            None => free::layout(graph, &members),
        })
        .collect();
    // The large first; parts of one size stay in the order of their nodes.
    parts.sort_by_key(|p| std::cmp::Reverse(p.nodes.len()));
    pack(graph, parts)
}

/// How large a node is drawn.
pub fn size_of(node: &Node) -> (f64, f64) {
    let text =
        text_width(&name_shown(&node.id), NAME_SIZE).max(text_width(&name_shown(&node.kind), KIND_SIZE));
    (ICON_ROOM + text.max(30.0) + 22.0, NODE_HEIGHT)
}

/// A name as it is drawn.
pub fn name_shown(name: &str) -> String {
    clip(&one_line(name), MAX_NAME)
}

/// An interface's name as it is drawn: long words that vendors use are cut to the two letters that everybody knows.
pub fn label_shown(interface: &str) -> String {
    const SHORT: [(&str, &str); 6] = [
        ("HundredGigE", "Hu"),
        ("TenGigE", "Te"),
        ("GigabitEthernet", "Gi"),
        ("FastEthernet", "Fa"),
        ("ethernet-", "e"),
        ("Ethernet", "Et"),
    ];
    let name = one_line(interface);
    let short = SHORT.iter().find_map(|(long, short)| Some(format!("{short}{}", name.strip_prefix(long)?)));
    clip(&short.unwrap_or(name), MAX_LABEL)
}

/// Length of an interface's label.
pub fn label_length(interface: &str) -> f64 {
    text_width(&label_shown(interface), LABEL_SIZE) + 4.0
}

/// The connected parts, each in the order of its nodes.
fn components(graph: &Graph) -> Vec<Vec<usize>> {
    let mut near = vec![Vec::new(); graph.nodes.len()];
    for link in &graph.links {
        near[link.a.node].push(link.b.node);
        near[link.b.node].push(link.a.node);
    }
    let mut seen = vec![false; near.len()];
    let mut parts = Vec::new();
    for start in 0..near.len() {
        if seen[start] {
            continue;
        }
        seen[start] = true;
        let mut members = vec![start];
        let mut next = 0;
        while let Some(&node) = members.get(next) {
            next += 1;
            for &other in &near[node] {
                if !std::mem::replace(&mut seen[other], true) {
                    members.push(other);
                }
            }
        }
        members.sort_unstable();
        parts.push(members);
    }
    parts
}

impl Part {
    /// What is drawn of it: left, top, right, bottom.
    fn bounds(&self) -> (f64, f64, f64, f64) {
        let mut b = (f64::INFINITY, f64::INFINITY, f64::NEG_INFINITY, f64::NEG_INFINITY);
        let mut take = |r: Rect| {
            b = (b.0.min(r.left()), b.1.min(r.top()), b.2.max(r.right()), b.3.max(r.bottom()));
        };
        self.nodes.iter().for_each(|(_, r)| take(*r));
        for (_, wire) in &self.wires {
            wire.labels.iter().flatten().for_each(|l| take(l.place));
            wire.path.iter().flat_map(Step::points).for_each(|p| take(Rect::around(p, 0.0, 0.0)));
        }
        b
    }
}

/// Puts the parts beside each other, in rows about as wide as all of them are high.
fn pack(graph: &Graph, parts: Vec<Part>) -> Layout {
    let mut layout = Layout {
        nodes: vec![Rect::default(); graph.nodes.len()],
        wires: vec![Wire::default(); graph.links.len()],
        ..Layout::default()
    };
    let bounds: Vec<_> = parts.iter().map(Part::bounds).collect();
    let area: f64 = bounds.iter().map(|b| (b.2 - b.0 + BETWEEN) * (b.3 - b.1 + BETWEEN)).sum();
    let widest = bounds.iter().map(|b| b.2 - b.0).fold(0.0, f64::max);
    let most = widest.max((area * 1.8).sqrt());
    let (mut x, mut y, mut row) = (0.0, 0.0, 0.0_f64);
    for (part, (left, top, right, bottom)) in parts.into_iter().zip(bounds) {
        let (width, height) = (right - left, bottom - top);
        if x > 0.0 && x + width > most {
            (x, y, row) = (0.0, y + row + BETWEEN, 0.0);
        }
        let (dx, dy) = (x - left, y - top);
        for (node, rect) in part.nodes {
            layout.nodes[node] = Rect { centre: rect.centre.moved(dx, dy), ..rect };
        }
        for (link, wire) in part.wires {
            let path = wire.path.iter().map(|s| s.moved(dx, dy)).collect();
            let labels = wire.labels.map(|label| {
                label.map(|l| Label { place: Rect { centre: l.place.centre.moved(dx, dy), ..l.place }, ..l })
            });
            layout.wires[link] = Wire { path, labels };
        }
        layout.width = layout.width.max(x + width);
        layout.height = layout.height.max(y + height);
        x += width + BETWEEN;
        row = row.max(height);
    }
    layout
}
