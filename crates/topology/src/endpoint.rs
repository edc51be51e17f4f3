//! The ends of links: brief (`"r1:eth1"`, `"host:r1-eth1"`) and extended (`{node: r1, interface: eth1}`).

use netloom_model::spec::{Endpoint, EndpointType};

use crate::diagnostic::{Pos, Report, quoted};
use crate::keys::{Section, known};
use crate::value;
use crate::yaml::{Node, Value};

/// The types of ends that are no node's.
const OTHERS: [EndpointType; 3] = [EndpointType::Host, EndpointType::MgmtNet, EndpointType::Dummy];

/// Reads an end; none when it cannot be one, which is told.
pub(crate) fn read(node: &Node, report: &mut Report) -> Option<Endpoint> {
    let end = match &*node.value {
        Value::Scalar(text) => brief(text, node.pos, report)?,
        Value::Map(_) => extended(node, report)?,
        _ => {
            report.error(node.pos, "WRONG_TYPE", "expected an endpoint: write \"node:interface\"");
            return None;
        }
    };
    typed(end, node.pos, report)
}

/// The other end of a link that has one endpoint only.
pub(crate) fn other(kind: EndpointType, interface: String) -> Endpoint {
    Endpoint { node: kind.word().unwrap_or_default().to_owned(), interface, kind, ..Endpoint::default() }
}

/// The end with the type that its node's name stands for.
fn typed(end: Endpoint, pos: Pos, report: &mut Report) -> Option<Endpoint> {
    if end.node == "macvlan" {
        let message = "links with an end at \"macvlan\" are not supported yet: end the link at the host, \"host:NAME\", and join NAME with the other interface there";
        report.error(pos, "LINK_TYPE_NOT_SUPPORTED", message);
        return None;
    }
    Some(match OTHERS.into_iter().find(|t| t.word() == Some(end.node.as_str())) {
        None => end,
        Some(EndpointType::Dummy) => Endpoint { kind: EndpointType::Dummy, interface: String::new(), ..end },
        Some(kind) => Endpoint { kind, ..end },
    })
}

fn brief(text: &str, pos: Pos, report: &mut Report) -> Option<Endpoint> {
    // Nothing is at the other end, so nothing needs a name there.
    let text = if text.trim() == "dummy" { "dummy:" } else { text };
    match text.split_once(':').map(|(node, interface)| (node.trim(), interface.trim())) {
        Some((node, interface)) if !node.is_empty() && (node == "dummy" || is_interface(interface)) => {
            Some(Endpoint { node: node.into(), interface: interface.into(), ..Endpoint::default() })
        }
        _ => {
            report.error(
                pos,
                "ENDPOINTS",
                format!(
                    "{} is not an endpoint: write \"node:interface\", for instance \"r1:eth1\"",
                    quoted(text)
                ),
            );
            None
        }
    }
}

fn extended(node: &Node, report: &mut Report) -> Option<Endpoint> {
    let mut end = Endpoint::default();
    for (key, entry) in known(Section::Endpoint, value::map(node, report), report) {
        let field = match key {
            "node" => &mut end.node,
            "interface" => &mut end.interface,
            "mac" => &mut end.mac,
            "ipv4" => &mut end.ipv4,
            "ipv6" => &mut end.ipv6,
            _ => unreachable!("{key} is in the table as done, and is not read here"),
        };
        *field = value::text(&entry.node, report).map(|t| t.value).unwrap_or_default();
    }
    if end.node.is_empty() || (end.node != "dummy" && !is_interface(&end.interface)) {
        report.error(
            node.pos,
            "ENDPOINTS",
            "the endpoint needs a node and an interface: write {node: r1, interface: eth1}",
        );
        return None;
    }
    Some(end)
}

/// True for a text that can name an interface of some kind.
fn is_interface(text: &str) -> bool {
    (1..=64).contains(&text.len()) && !text.chars().any(|c| c.is_whitespace() || c.is_control())
}
