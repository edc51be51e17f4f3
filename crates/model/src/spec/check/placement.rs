//! The rules of where nodes may be.

use super::{Wrong, is_word};
use crate::id::HostId;
use crate::spec::{LabSpec, NetworkMode, NodeSpec, wrong_label};

/// Most labels, tolerations, and nodes that a node is apart from.
const MOST: usize = 64;

pub(super) fn check(spec: &LabSpec, wrong: &mut Wrong) {
    if !spec.project.is_empty() && !is_word(&spec.project, 63) {
        wrong.say(
            "project",
            format!("\"{}\" is not of the form [A-Za-z0-9][A-Za-z0-9-._]*, at most 63", spec.project),
        );
    }
    for (i, node) in spec.nodes.iter().enumerate().filter(|(_, n)| !n.placement.is_any()) {
        check_node(&format!("nodes[{i}].placement"), spec, node, wrong);
    }
}

fn check_node(field: &str, spec: &LabSpec, node: &NodeSpec, wrong: &mut Wrong) {
    let placement = &node.placement;
    if !placement.host.is_empty()
        && let Err(e) = placement.host.parse::<HostId>()
    {
        wrong.say(format!("{field}.host"), e.to_string());
    }
    for (name, count) in [
        ("labels", placement.labels.len()),
        ("tolerations", placement.tolerations.len()),
        ("apart_from", placement.apart_from.len()),
    ] {
        if count > MOST {
            wrong.say(format!("{field}.{name}"), format!("{count} of them; a node has at most {MOST}"));
        }
    }
    let labels = placement.labels.iter().filter_map(|(key, value)| wrong_label(key, value));
    labels.for_each(|what| wrong.say(format!("{field}.labels"), what));
    let taints = placement.tolerations.iter().map(|t| t.split_once('=').unwrap_or((t, "")));
    let taints = taints.filter_map(|(key, value)| wrong_label(key, value));
    taints.for_each(|what| wrong.say(format!("{field}.tolerations"), what));
    for other in &placement.apart_from {
        let field = format!("{field}.apart_from");
        match spec.nodes.iter().find(|n| n.id == *other) {
            None => wrong.say(field, format!("there is no node \"{other}\" in the lab")),
            Some(other) if other.id == node.id => {
                wrong.say(field, "a node cannot be apart from itself: leave it out");
            }
            Some(other) if network_of(other) == network_of(node) => wrong.say(
                field,
                format!(
                    "\"{}\" has the network of this node, or this of that one, so both are on one host",
                    other.id
                ),
            ),
            Some(_) => {}
        }
    }
}

/// The node whose network it has.
fn network_of(node: &NodeSpec) -> &str {
    match &node.network_mode {
        NetworkMode::Node(other) => other,
        _ => &node.id,
    }
}
