//! A graph for other programs to draw: DOT for Graphviz, Mermaid for Markdown pages, JSON with the places.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::layout::layout;
use super::{Graph, Role};
use crate::output::style::{Tone, one_line};
use crate::output::words::tone;

/// For Graphviz: `dot -Tsvg`, or `neato` for what is not in rows.
pub fn dot(graph: &Graph) -> String {
    let mut text = format!("graph {} {{\n", quoted(&graph.name));
    text.push_str("  graph [overlap=false, splines=true, nodesep=0.6, ranksep=1.2];\n");
    text.push_str("  node [fontname=\"sans-serif\", fontsize=12, style=\"filled\", fillcolor=\"white\"];\n");
    text.push_str("  edge [fontname=\"sans-serif\", fontsize=9];\n");
    for node in &graph.nodes {
        let shape = match node.role {
            Role::Router => "ellipse",
            Role::Switch => "box",
            Role::Host => "note",
            Role::Outside => "plaintext",
        };
        let mut label = format!("{}\\n{}", escaped(&node.id), escaped(&node.kind));
        if !node.state.is_empty() {
            let _ = write!(label, "\\n{}", escaped(&node.state));
        }
        let colour = colour(&node.state);
        let _ =
            writeln!(text, "  {} [label=\"{label}\", shape={shape}, color=\"{colour}\"];", quoted(&node.id));
    }
    for link in &graph.links {
        let (a, b) = (&graph.nodes[link.a.node].id, &graph.nodes[link.b.node].id);
        let style = if link.state.is_empty() || link.state == "UP" { "solid" } else { "dashed" };
        let _ = writeln!(
            text,
            "  {} -- {} [taillabel={}, headlabel={}, {}color=\"{}\", style={style}];",
            quoted(a),
            quoted(b),
            quoted(&link.a.interface),
            quoted(&link.b.interface),
            if link.impairment.is_empty() {
                String::new()
            } else {
                format!("label={}, ", quoted(&link.impairment))
            },
            colour(&link.state)
        );
    }
    text.push_str("}\n");
    text
}

/// For Markdown pages that draw Mermaid.
pub fn mermaid(graph: &Graph) -> String {
    let mut text = String::from("flowchart TB\n");
    // Names of its own: ids may hold what Mermaid would take for its syntax.
    for (i, node) in graph.nodes.iter().enumerate() {
        let mut label = format!("{}<br/><small>{}</small>", entities(&node.id), entities(&node.kind));
        if !node.state.is_empty() {
            let _ = write!(label, "<br/><small>{}</small>", entities(&node.state));
        }
        let (open, close) = match node.role {
            Role::Router => ("([", "])"),
            Role::Switch => ("[", "]"),
            Role::Host => ("(", ")"),
            Role::Outside => (">", "]"),
        };
        let _ = writeln!(text, "  n{i}{open}\"{label}\"{close}");
    }
    for link in &graph.links {
        let mut label = format!("{} - {}", entities(&link.a.interface), entities(&link.b.interface));
        if !link.impairment.is_empty() {
            let _ = write!(label, "<br/>{}", entities(&link.impairment));
        }
        let line = if link.state.is_empty() || link.state == "UP" { "---" } else { "-.-" };
        let _ = writeln!(text, "  n{} {line}|\"{label}\"| n{}", link.a.node, link.b.node);
    }
    if graph.live {
        for (class, wanted) in
            [("good", Tone::Good), ("busy", Tone::Busy), ("bad", Tone::Bad), ("off", Tone::Dim)]
        {
            let of: Vec<String> = graph
                .nodes
                .iter()
                .enumerate()
                .filter(|(_, n)| tone(&n.state) == wanted)
                .map(|(i, _)| format!("n{i}"))
                .collect();
            if !of.is_empty() {
                let _ = writeln!(text, "  classDef {class} stroke:{},stroke-width:2px", tone_colour(wanted));
                let _ = writeln!(text, "  class {} {class}", of.join(","));
            }
        }
    }
    text
}

/// For programs: the graph, and where a picture of it has everything, in pixels.
pub fn json(graph: &Graph) -> Value {
    let layout = layout(graph);
    let round = |v: f64| (v * 10.0).round() / 10.0;
    let nodes: Vec<Value> = graph
        .nodes
        .iter()
        .zip(&layout.nodes)
        .map(|(n, r)| {
            json!({
                "node": n.id, "kind": n.kind, "role": n.role.word(), "state": n.state,
                "x": round(r.centre.x), "y": round(r.centre.y), "width": round(r.width), "height": round(r.height),
            })
        })
        .collect();
    let end = |e: &super::End| json!({ "node": graph.nodes[e.node].id, "interface": e.interface });
    let links: Vec<Value> = graph
        .links
        .iter()
        .map(|l| json!({ "a": end(&l.a), "b": end(&l.b), "state": l.state, "impairment": l.impairment }))
        .collect();
    json!({
        "lab": graph.name, "live": graph.live, "width": round(layout.width), "height": round(layout.height),
        "nodes": nodes, "links": links,
    })
}

fn colour(state: &str) -> &'static str {
    tone_colour(tone(state))
}

fn tone_colour(tone: Tone) -> &'static str {
    match tone {
        Tone::Good => "#16a34a",
        Tone::Busy => "#d97706",
        Tone::Bad => "#dc2626",
        Tone::Dim => "#94a3b8",
        Tone::Strong | Tone::Plain => "#475569",
    }
}

/// A text in DOT's quotes.
fn quoted(text: &str) -> String {
    format!("\"{}\"", escaped(text))
}

fn escaped(text: &str) -> String {
    one_line(text).replace('\\', "\\\\").replace('"', "\\\"")
}

/// A text within Mermaid's quotes.
fn entities(text: &str) -> String {
    let mut out = String::new();
    for c in one_line(text).chars() {
        if c.is_alphanumeric() || matches!(c, ' ' | '-' | '_' | '.' | '/' | ':') {
            out.push(c);
        } else {
            let _ = write!(out, "#{};", u32::from(c));
        }
    }
    out
}
