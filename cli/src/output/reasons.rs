//! Reasons that tables clip, whole, below them.

use netloom_api::v1 as api;

use super::style::one_line;
use super::table::{MAX_REASON, in_order};
use super::words::{self, last, natural};

/// The whole of each reason that the tables clip, once, with all that it is the reason of; empty when they clip none.
pub fn clipped(labs: &[api::Lab], nodes: &[api::Node], links: &[api::Link]) -> String {
    let nodes = in_order(nodes, |n| natural(&n.name)).into_iter();
    let links = in_order(links, |l| natural(&l.name)).into_iter();
    let of_several = labs.len() > 1;
    let labs = in_order(labs, |l| natural(&l.name)).into_iter();
    // A lab's reason names those of its nodes and links: it comes last, and only with what they did not say.
    let all = nodes
        .map(|n| ("node", &n.name, &n.state_reason))
        .chain(links.map(|l| ("link", &l.name, &l.state_reason)))
        .chain(labs.map(|l| ("lab", &l.name, &l.state_reason)));
    let mut told: Vec<(&str, String, Vec<String>)> = Vec::new();
    for (object, name, reason) in all {
        let reason = one_line(reason);
        if reason.chars().count() <= MAX_REASON {
            continue;
        }
        let lab = words::lab_of(name);
        let name = match object {
            // Where several labs are shown, two may have a node of one name.
            "node" | "link" if of_several => format!("{} of lab {lab}", last(name)),
            _ => last(name).to_owned(),
        };
        if let Some((_, _, names)) = told.iter_mut().find(|(o, r, _)| *o == object && *r == reason) {
            names.push(name);
        } else if object != "lab" || !told.iter().any(|(_, t, _)| reason.contains(t.as_str())) {
            told.push((object, reason, vec![name]));
        }
    }
    let line = |(object, reason, names): (&str, String, Vec<String>)| {
        let plural = if names.len() == 1 { "" } else { "s" };
        format!("{object}{plural} {}: {reason}\n", names.join(", "))
    };
    told.into_iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, reason: &str) -> api::Node {
        api::Node { name: name.into(), state_reason: reason.into(), ..api::Node::default() }
    }

    #[test]
    fn a_long_reason_is_told_whole_once() {
        let long = "the image cannot be pulled ".repeat(9);
        let all = [node("labs/x/nodes/r1", &long), node("labs/x/nodes/r2", "short")];
        let lab =
            api::Lab { name: "labs/x".into(), state_reason: format!("r1: {long}"), ..api::Lab::default() };
        assert_eq!(clipped(&[lab], &all, &[]), format!("node r1: {}\n", long.trim()));
        assert_eq!(clipped(&[], &all[1..], &[]), "");
    }

    #[test]
    fn each_reason_has_all_its_nodes_and_their_lab_where_there_are_several() {
        let (long, other) = ("it cannot be pulled ".repeat(9), "it does not start ".repeat(9));
        let (long, other) = (long.trim(), other.trim());
        let all =
            [node("labs/x/nodes/r1", long), node("labs/x/nodes/r2", other), node("labs/x/nodes/r3", long)];
        let lab = |name: &str| api::Lab { name: name.into(), ..api::Lab::default() };
        let one = clipped(&[lab("labs/x")], &all, &[]);
        assert_eq!(one, format!("nodes r1, r3: {long}\nnode r2: {other}\n"));
        let nodes = [&all[..1], &[node("labs/y/nodes/r1", other)]].concat();
        let two = clipped(&[lab("labs/x"), lab("labs/y")], &nodes, &[]);
        assert_eq!(two, format!("node r1 of lab x: {long}\nnode r1 of lab y: {other}\n"));
    }
}
