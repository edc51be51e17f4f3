//! The text of a topology file.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use netloom_model::id::LabId;
use netloom_model::kind::{Catalogue, Kind};
use netloom_model::state::Runtime;

use super::address::{Addresses, Plan};
use super::{Choice, Kinds, Shape};

/// One end of a link as it is written.
#[derive(Clone)]
struct End {
    node: usize,
    interface: String,
    ipv4: String,
}

/// The text, or why there can be no such file.
pub fn write(
    name: &LabId,
    made_by: &str,
    shape: &Shape,
    kinds: &Kinds,
    plan: Option<Plan>,
    catalogue: &Catalogue,
) -> Result<String, String> {
    let mut used: BTreeMap<&str, (&Kind, &Choice)> = BTreeMap::new();
    let mut of: Vec<&Kind> = Vec::new();
    for member in &shape.nodes {
        let choice = kinds.of(member.part);
        let kind = catalogue.get(&choice.kind).ok_or_else(|| {
            format!("there is no kind \"{}\"; netloom kinds list shows the kinds", choice.kind)
        })?;
        if choice.image.is_empty() && kind.image.is_empty() && kind.runtime != Runtime::Bridge {
            return Err(format!("kind {} has no image of its own: name one", kind.name));
        }
        used.insert(&kind.name, (kind, choice));
        of.push(kind);
    }
    let mut links = interfaces(shape, &of)?;
    if let Some(plan) = plan {
        address(&mut links, &of, plan)?;
    }

    let mut text = format!("# {}.\n# Made by: {made_by}\n\nname: {name}\n\ntopology:\n", shape.title);
    let images: Vec<_> =
        used.values().filter(|(k, c)| k.runtime != Runtime::Bridge && !c.image.is_empty()).collect();
    if !images.is_empty() {
        text.push_str("  kinds:\n");
        for (kind, choice) in images {
            let _ = writeln!(text, "    {}:\n      image: {}", quoted(&kind.name), quoted(&choice.image));
        }
        text.push('\n');
    }
    text.push_str("  nodes:\n");
    for (member, kind) in shape.nodes.iter().zip(&of) {
        let _ = writeln!(text, "    {}: {{kind: {}}}", member.id, quoted(&kind.name));
    }
    if links.is_empty() {
        return Ok(text);
    }
    text.push_str("\n  links:\n");
    for (a, b) in &links {
        let brief = |e: &End| quoted(&format!("{}:{}", shape.nodes[e.node].id, e.interface));
        let map = |e: &End| {
            let address =
                if e.ipv4.is_empty() { String::new() } else { format!(", ipv4: {}", quoted(&e.ipv4)) };
            format!("{{node: {}, interface: {}{address}}}", shape.nodes[e.node].id, quoted(&e.interface))
        };
        match (a.ipv4.is_empty(), b.ipv4.is_empty()) {
            (true, true) => {
                let _ = writeln!(text, "    - endpoints: [{}, {}]", brief(a), brief(b));
            }
            (false, false) => {
                let _ = writeln!(text, "    - endpoints: [{}, {}]", brief(a), brief(b));
                let _ = writeln!(text, "      ipv4: [{}, {}]", quoted(&a.ipv4), quoted(&b.ipv4));
            }
            _ => {
                let _ = writeln!(text, "    - endpoints:\n        - {}\n        - {}", map(a), map(b));
            }
        }
    }
    Ok(text)
}

/// The links with the next interface of each node.
fn interfaces(shape: &Shape, kinds: &[&Kind]) -> Result<Vec<(End, End)>, String> {
    let mut next = vec![0_u32; shape.nodes.len()];
    let mut take = |node: usize| {
        let index = next[node];
        next[node] += 1;
        let kind = kinds[node];
        let interface = if kind.interfaces.is_any() {
            (index < kind.interfaces.max).then(|| format!("port{}", index + 1))
        } else {
            kind.interfaces.vendor_name(index)
        };
        let interface = interface.ok_or_else(|| {
            format!(
                "{} would need more than the {} interfaces that a node of kind {} has",
                shape.nodes[node].id, kind.interfaces.max, kind.name
            )
        })?;
        Ok::<End, String>(End { node, interface, ipv4: String::new() })
    };
    shape.links.iter().map(|(a, b)| Ok((take(*a)?, take(*b)?))).collect()
}

/// Gives addresses: each link two of its own; the links of a bridge, whose ports have none, one network.
fn address(links: &mut [(End, End)], kinds: &[&Kind], plan: Plan) -> Result<(), String> {
    let mut addresses = Addresses::of(plan);
    let is_bridge = |end: &End| kinds[end.node].runtime == Runtime::Bridge;
    let mut behind: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (i, (a, b)) in links.iter_mut().enumerate() {
        match (is_bridge(a), is_bridge(b)) {
            (false, false) => {
                let pair = addresses.network(2)?;
                a.ipv4.clone_from(&pair[0]);
                b.ipv4.clone_from(&pair[1]);
            }
            (true, false) => behind.entry(a.node).or_default().push(i),
            (false, true) => behind.entry(b.node).or_default().push(i),
            (true, true) => {}
        }
    }
    for (bridge, numbers) in behind {
        for (number, address) in numbers.iter().zip(addresses.network(numbers.len())?) {
            let (a, b) = &mut links[*number];
            if a.node == bridge { b.ipv4 = address } else { a.ipv4 = address }
        }
    }
    Ok(())
}

/// JSON's strings are YAML's too.
fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("strings always serialise")
}
