//! A laid out graph as SVG: one file that needs nothing else, light or dark.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::geometry::{Point, Rect, text_width};
use super::layout::{
    ICON_ROOM, KIND_SIZE, LABEL_SIZE, Layout, NAME_SIZE, NODE_HEIGHT, Step, layout, name_shown, size_of,
};
use super::{Graph, Link, Node, Role};
use crate::output::style::{Tone, one_line};
use crate::output::words::{count, tone};

/// Room around the whole.
const MARGIN: f64 = 36.0;
/// Room of the title.
const TITLE: f64 = 62.0;
/// Room of the legend.
const LEGEND: f64 = 46.0;
/// Font of everything.
const FONT: &str = "Inter, 'Segoe UI', 'Helvetica Neue', Arial, 'DejaVu Sans', sans-serif";

/// Colours of a picture.
struct Theme {
    page: &'static str,
    card: &'static str,
    text: &'static str,
    dim: &'static str,
    wire: &'static str,
    good: &'static str,
    busy: &'static str,
    bad: &'static str,
    off: &'static str,
    router: &'static str,
    switch: &'static str,
    host: &'static str,
    outside: &'static str,
}

const LIGHT: Theme = Theme {
    page: "#fafbfc",
    card: "#ffffff",
    text: "#17202e",
    dim: "#64748b",
    wire: "#94a3b8",
    good: "#16a34a",
    busy: "#d97706",
    bad: "#dc2626",
    off: "#94a3b8",
    router: "#2563eb",
    switch: "#0d9488",
    host: "#7c3aed",
    outside: "#64748b",
};

const DARK: Theme = Theme {
    page: "#0d1420",
    card: "#182234",
    text: "#e8edf5",
    dim: "#93a3bb",
    wire: "#5b6b84",
    good: "#4ade80",
    busy: "#fbbf24",
    bad: "#f87171",
    off: "#64748b",
    router: "#60a5fa",
    switch: "#2dd4bf",
    host: "#a78bfa",
    outside: "#93a3bb",
};

impl Theme {
    fn role(&self, role: Role) -> &'static str {
        match role {
            Role::Router => self.router,
            Role::Switch => self.switch,
            Role::Host => self.host,
            Role::Outside => self.outside,
        }
    }

    fn state(&self, state: &str) -> &'static str {
        match tone(state) {
            Tone::Good => self.good,
            Tone::Busy => self.busy,
            Tone::Bad => self.bad,
            Tone::Dim => self.off,
            Tone::Strong | Tone::Plain => self.wire,
        }
    }

    /// Colour and dashes of a link. Up is how links should be, so it is not loud.
    fn link(&self, state: &str) -> (&'static str, &'static str) {
        match state {
            "" => (self.wire, ""),
            "UP" => (self.good, ""),
            "DOWN" => (self.bad, "6 4"),
            other => (self.state(other), "2 4"),
        }
    }
}

/// Draws a graph.
pub fn draw(graph: &Graph, dark: bool) -> String {
    let theme = if dark { &DARK } else { &LIGHT };
    let layout = layout(graph);
    let legend = legend(theme, graph);
    let width = (layout.width.max(legend.1).max(text_width(&graph.name, 20.0)) + 2.0 * MARGIN).ceil();
    let height = (TITLE + layout.height + LEGEND + 2.0 * MARGIN).ceil();
    let mut svg = String::new();
    let mut put = |text: String| {
        svg.push_str(&text);
        svg.push('\n');
    };
    put(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" font-family=\"{FONT}\">"
    ));
    put(format!("<title>{}</title>", escape(&graph.name)));
    put(format!("<rect width=\"{width}\" height=\"{height}\" fill=\"{}\"/>", theme.page));
    put(words(theme.text, 20.0, "font-weight=\"700\"", Point::new(MARGIN, MARGIN + 14.0), &graph.name));
    // What links end in that is no node of the lab is drawn, and is none.
    let nodes = graph.nodes.iter().filter(|n| n.role != Role::Outside).count();
    let size = format!("{}, {}", count(nodes as i128, "node"), count(graph.links.len() as i128, "link"));
    put(words(theme.dim, 12.0, "", Point::new(MARGIN, MARGIN + 33.0), &size));
    let left = MARGIN + (width - 2.0 * MARGIN - layout.width) / 2.0;
    put(format!("<g transform=\"translate({} {})\">", number(left), number(MARGIN + TITLE)));
    links(theme, graph, &layout, &mut put);
    for (node, place) in graph.nodes.iter().zip(&layout.nodes) {
        put(card(theme, node, place));
    }
    put("</g>".to_owned());
    put(format!(
        "<g transform=\"translate({MARGIN} {})\">{}</g>\n</svg>",
        number(height - MARGIN - 6.0),
        legend.0
    ));
    svg
}

fn links(theme: &Theme, graph: &Graph, layout: &Layout, put: &mut impl FnMut(String)) {
    put("<g class=\"links\" fill=\"none\" stroke-width=\"1.6\" stroke-linejoin=\"round\">".to_owned());
    for (link, wire) in graph.links.iter().zip(&layout.wires) {
        let (colour, dashes) = theme.link(&link.state);
        let dashes =
            if dashes.is_empty() { String::new() } else { format!(" stroke-dasharray=\"{dashes}\"") };
        put(format!(
            "<path class=\"link\" d=\"{}\" stroke=\"{colour}\"{dashes}><title>{}</title></path>",
            path(&wire.path),
            escape(&called(graph, link))
        ));
    }
    put("</g>".to_owned());
    put(format!(
        "<g class=\"labels\" font-size=\"{LABEL_SIZE}\" text-anchor=\"middle\" fill=\"{}\" stroke=\"{}\" stroke-width=\"4\" stroke-linejoin=\"round\" paint-order=\"stroke\">",
        theme.dim, theme.page
    ));
    for (link, wire) in graph.links.iter().zip(&layout.wires).filter(|(l, _)| !l.impairment.is_empty()) {
        let Point { x, y } = middle(&wire.path);
        put(format!(
            "<text class=\"impairment\" x=\"{}\" y=\"{}\">{}</text>",
            number(x),
            number(y + LABEL_SIZE * 0.36),
            escape(&link.impairment)
        ));
    }
    for label in layout.wires.iter().flat_map(|w| &w.labels).flatten() {
        let Point { x, y } = label.place.centre;
        let turned = if label.upright {
            format!(" transform=\"rotate(-90 {} {})\"", number(x), number(y))
        } else {
            String::new()
        };
        put(format!(
            "<text x=\"{}\" y=\"{}\"{turned}>{}</text>",
            number(x),
            number(y + LABEL_SIZE * 0.36),
            escape(&label.text)
        ));
    }
    put("</g>".to_owned());
}

/// The middle of a path: of its middle step.
fn middle(path: &[Step]) -> Point {
    let end = |step: &Step| match *step {
        Step::Move(p) | Step::Line(p) | Step::Bend(_, p) | Step::Loop(_, _, p) => p,
    };
    let at = (path.len() / 2).min(path.len().saturating_sub(1));
    let Some(step) = path.get(at) else { return Point::default() };
    let (from, to) = (path[..at].last().map_or_else(|| end(step), end), end(step));
    let through = match *step {
        Step::Bend(c, _) => c,
        Step::Loop(c, d, _) => Point::new((c.x + d.x) / 2.0, (c.y + d.y) / 2.0),
        Step::Move(_) | Step::Line(_) => Point::new((from.x + to.x) / 2.0, (from.y + to.y) / 2.0),
    };
    Point::new((from.x + to.x) / 4.0 + through.x / 2.0, (from.y + to.y) / 4.0 + through.y / 2.0)
}

fn called(graph: &Graph, link: &Link) -> String {
    let end = |e: &super::End| format!("{}:{}", graph.nodes[e.node].id, e.interface);
    let state = if link.state.is_empty() { String::new() } else { format!(" ({})", link.state) };
    format!("{} to {}{state}", end(&link.a), end(&link.b))
}

/// A node: its icon, its name and its kind, and the colour of its state.
fn card(theme: &Theme, node: &Node, place: &Rect) -> String {
    let role = theme.role(node.role);
    let edge = if node.state.is_empty() || tone(&node.state) == Tone::Good {
        role
    } else {
        theme.state(&node.state)
    };
    let corner = if node.role == Role::Switch { 6.0 } else { 12.0 };
    let (left, top) = (place.left(), place.top());
    let mut text = format!("<g class=\"node\" transform=\"translate({} {})\">", number(left), number(top));
    let mut about = format!("{} ({}, {})", node.id, node.kind, node.role.word());
    if !node.state.is_empty() {
        let _ = write!(about, " {}", node.state);
    }
    if !node.reason.is_empty() {
        let _ = write!(about, ": {}", node.reason);
    }
    let _ = write!(text, "<title>{}</title>", escape(&about));
    let _ = write!(
        text,
        "<rect width=\"{}\" height=\"{NODE_HEIGHT}\" rx=\"{corner}\" fill=\"{}\" stroke=\"{edge}\" stroke-width=\"1.6\"/>",
        number(place.width),
        theme.card
    );
    // In a card that is wide for its ports all stands in the middle.
    let aside = ((place.width - size_of(node).0) / 2.0).max(0.0);
    text.push_str(&icon(node.role, role, Point::new(10.0 + aside, 9.0)));
    let name = name_shown(&node.id);
    let x = ICON_ROOM + aside;
    text.push_str(&words(theme.text, NAME_SIZE, "font-weight=\"600\"", Point::new(x, 20.0), &name));
    text.push_str(&words(theme.dim, KIND_SIZE, "", Point::new(x, 35.0), &name_shown(&node.kind)));
    if !node.state.is_empty() {
        let _ = write!(
            text,
            "<circle class=\"state\" cx=\"{}\" cy=\"11\" r=\"4.5\" fill=\"{}\"/>",
            number(place.width - 11.0),
            theme.state(&node.state)
        );
    }
    text.push_str("</g>");
    text
}

/// The icon of a role, 28 pixels wide and high.
fn icon(role: Role, colour: &str, at: Point) -> String {
    let drawing = match role {
        // Arrows in and out of a disc.
        Role::Router => {
            "<circle cx=\"14\" cy=\"14\" r=\"13\" fill=\"COLOUR\"/>\
             <path d=\"M14 12V5M11.6 7.4 14 5l2.4 2.4M14 16v7M11.6 20.6 14 23l2.4-2.4M4.5 14h6.5M8.6 11.6 11 14l-2.4 2.4M23.5 14H17M19.4 11.6 17 14l2.4 2.4\" \
             fill=\"none\" stroke=\"#fff\" stroke-width=\"1.7\" stroke-linecap=\"round\" stroke-linejoin=\"round\"/>"
        }
        // Arrows side by side, each way.
        Role::Switch => {
            "<rect x=\"1\" y=\"1\" width=\"26\" height=\"26\" rx=\"4\" fill=\"COLOUR\"/>\
             <path d=\"M6 9h15M18.4 6.4 21 9l-2.6 2.6M22 14.5H7M9.6 12 7 14.5 9.6 17M6 20h15M18.4 17.4 21 20l-2.6 2.6\" \
             fill=\"none\" stroke=\"#fff\" stroke-width=\"1.7\" stroke-linecap=\"round\" stroke-linejoin=\"round\"/>"
        }
        // A screen on its foot.
        Role::Host => {
            "<rect x=\"2\" y=\"4\" width=\"24\" height=\"16\" rx=\"2.5\" fill=\"COLOUR\"/>\
             <rect x=\"5\" y=\"7\" width=\"18\" height=\"10\" rx=\"1\" fill=\"#fff\" fill-opacity=\"0.9\"/>\
             <path d=\"M14 20v4M8.5 25h11\" fill=\"none\" stroke=\"COLOUR\" stroke-width=\"2.2\" stroke-linecap=\"round\"/>"
        }
        // A cloud.
        Role::Outside => {
            "<path d=\"M8 22a6 6 0 0 1-.6-11.9A7.5 7.5 0 0 1 21.4 11 5.6 5.6 0 0 1 21 22Z\" fill=\"COLOUR\"/>"
        }
    };
    format!(
        "<g transform=\"translate({} {})\">{}</g>",
        number(at.x),
        number(at.y),
        drawing.replace("COLOUR", colour)
    )
}

/// What is in the picture and how often, and how wide that is.
fn legend(theme: &Theme, graph: &Graph) -> (String, f64) {
    let mut text = String::new();
    let mut x = 0.0;
    let entry = |x: &mut f64, text: &mut String, sign: String, room: f64, said: String| {
        let _ = write!(text, "<g transform=\"translate({} 0)\">{sign}", number(*x));
        text.push_str(&words(theme.dim, 12.0, "", Point::new(room, 4.0), &said));
        text.push_str("</g>");
        *x += room + text_width(&said, 12.0) + 22.0;
    };
    let mut roles: BTreeMap<Role, usize> = BTreeMap::new();
    let mut states: BTreeMap<&str, usize> = BTreeMap::new();
    let mut links: BTreeMap<&str, usize> = BTreeMap::new();
    for node in &graph.nodes {
        *roles.entry(node.role).or_default() += 1;
        *states.entry(&node.state).or_default() += 1;
    }
    for link in &graph.links {
        *links.entry(&link.state).or_default() += 1;
    }
    for (role, how_many) in roles {
        let sign = format!(
            "<g transform=\"scale(0.72)\">{}</g>",
            icon(role, theme.role(role), Point::new(0.0, -14.0))
        );
        let said = match role {
            Role::Switch if how_many > 1 => format!("{how_many} switches"),
            Role::Outside => format!("{how_many} outside the lab"),
            _ => count(how_many as i128, role.word()),
        };
        entry(&mut x, &mut text, sign, 26.0, said);
    }
    for (state, how_many) in states.into_iter().filter(|(s, _)| !s.is_empty()) {
        let sign = format!("<circle cx=\"5\" cy=\"0\" r=\"4.5\" fill=\"{}\"/>", theme.state(state));
        entry(&mut x, &mut text, sign, 15.0, format!("{state} {how_many}"));
    }
    for (state, how_many) in links.into_iter().filter(|(s, _)| !s.is_empty()) {
        let (colour, dashes) = theme.link(state);
        let sign = format!(
            "<path d=\"M0 0H26\" stroke=\"{colour}\" stroke-width=\"2\" stroke-dasharray=\"{}\"/>",
            if dashes.is_empty() { "none" } else { dashes }
        );
        entry(&mut x, &mut text, sign, 33.0, format!("link {state} {how_many}"));
    }
    (text, x)
}

fn words(colour: &str, size: f64, more: &str, at: Point, text: &str) -> String {
    let (x, y) = (number(at.x), number(at.y));
    let more = if more.is_empty() { String::new() } else { format!(" {more}") };
    format!("<text x=\"{x}\" y=\"{y}\" font-size=\"{size}\" fill=\"{colour}\"{more}>{}</text>", escape(text))
}

fn path(steps: &[Step]) -> String {
    let mut text = String::new();
    for step in steps {
        let letter = match step {
            Step::Move(_) => 'M',
            Step::Line(_) => 'L',
            Step::Bend(..) => 'Q',
            Step::Loop(..) => 'C',
        };
        let points: Vec<String> =
            step.points().iter().map(|p| format!("{} {}", number(p.x), number(p.y))).collect();
        text.push(letter);
        text.push_str(&points.join(" "));
    }
    text
}

/// A coordinate, to a tenth of a pixel.
fn number(value: f64) -> String {
    let text = format!("{value:.1}");
    let text = text.strip_suffix(".0").unwrap_or(&text);
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

/// A text within XML, on one line and without characters that XML has no way to write.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in one_line(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}
