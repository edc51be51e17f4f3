//! The links: brief (`"r1:eth1"`) and extended (`{node: r1, interface: eth1}`) ends of cables.

use std::collections::{BTreeMap, HashMap};

use netloom_model::kind::Kind;
use netloom_model::spec::{Endpoint, LinkSpec, is_cidr, is_mac};

use crate::diagnostic::{At, Pos, Report, quoted};
use crate::keys::{Section, known};
use crate::value;
use crate::yaml::{Node, Value};

/// Words that containerlab keeps for ends outside the lab.
const RESERVED: [&str; 4] = ["host", "mgmt-net", "macvlan", "dummy"];

/// What links are checked against and leave behind.
pub(crate) struct Links<'a> {
    /// Every node the file names, with its kind as far as it has a valid one.
    pub nodes: HashMap<&'a str, Option<&'a Kind>>,
    /// Where each end is used.
    pub ends: BTreeMap<(String, String), Pos>,
}

/// A link of the spec and where its parts stand.
pub(crate) struct Built {
    pub spec: LinkSpec,
    pub pos: Pos,
    pub ends: [Pos; 2],
}

impl Links<'_> {
    /// The link of an item of `topology.links`; none when it cannot be one, which is told.
    pub fn build(&mut self, node: &Node, report: &mut Report) -> Option<Built> {
        if matches!(&*node.value, Value::Null) {
            report.error(node.pos, "WRONG_TYPE", "expected a link, found nothing");
            return None;
        }
        let before = report.errors();
        let mut ends: Option<&Node> = None;
        let mut addresses: [Vec<At<String>>; 2] = [Vec::new(), Vec::new()];
        let mut spec = LinkSpec::default();
        let entries = value::map(node, report);
        // The type says what the other keys mean, so it comes first.
        if let Some(entry) = entries.iter().find(|e| e.key == "type") {
            check_type(&entry.node, report)?;
        }
        for (key, entry) in known(Section::Link, entries, report) {
            let node = &entry.node;
            match key {
                "endpoints" => ends = Some(node),
                "type" => {}
                "mtu" => spec.mtu = value::parsed(node, report, mtu).map_or(0, |m| m.value),
                "labels" => {
                    spec.labels =
                        value::text_map(node, report).into_iter().map(|(k, v)| (k, v.value)).collect()
                }
                "ipv4" => addresses[0] = pair(node, report),
                "ipv6" => addresses[1] = pair(node, report),
                _ => unreachable!("{key} is in the table as done, and is not read here"),
            }
        }
        let Some(ends) = ends else {
            if report.errors() == before {
                report.error(
                    node.pos,
                    "ENDPOINTS",
                    "the link has no endpoints: write endpoints: [\"r1:eth1\", \"r2:eth1\"]",
                );
            }
            return None;
        };
        let told = report.errors();
        let items = value::list(ends, report);
        if report.errors() > told {
            return None;
        }
        if items.len() != 2 {
            let message = match items.len() {
                n @ 0..=1 => format!("a link has two endpoints, this one has {n}"),
                n => format!(
                    "a link has two endpoints, this one has {n}: to join more, link each to a node of kind bridge"
                ),
            };
            report.error(ends.pos, "ENDPOINTS", message);
            return None;
        }
        let built: Vec<Option<Endpoint>> = items
            .iter()
            .enumerate()
            .map(|(side, item)| self.end(item, [addresses[0].get(side), addresses[1].get(side)], report))
            .collect();
        let [Some(a), Some(b)] = <[Option<Endpoint>; 2]>::try_from(built).ok()? else { return None };
        (report.errors() == before).then(|| Built {
            spec: LinkSpec { a, b, ..spec },
            pos: node.pos,
            ends: [items[0].pos, items[1].pos],
        })
    }

    fn end(
        &mut self,
        node: &Node,
        addresses: [Option<&At<String>>; 2],
        report: &mut Report,
    ) -> Option<Endpoint> {
        let mut end = match &*node.value {
            Value::Scalar(text) => brief(text, node.pos, report)?,
            Value::Map(_) => extended(node, report)?,
            _ => {
                report.error(node.pos, "WRONG_TYPE", "expected an endpoint: write \"node:interface\"");
                return None;
            }
        };
        for (field, address) in [&mut end.ipv4, &mut end.ipv6].into_iter().zip(addresses) {
            let Some(address) = address.filter(|a| !a.value.is_empty()) else { continue };
            if !field.is_empty() {
                report.error(
                    address.pos,
                    "INVALID_VALUE",
                    "the endpoint has an address of this kind already: keep one of the two",
                );
            }
            field.clone_from(&address.value);
        }
        self.check(&end, node.pos, report).then_some(end)
    }

    /// Checks an end against the nodes and the ends before it. False when the link must be left out, be it for a fault told elsewhere.
    fn check(&mut self, end: &Endpoint, pos: Pos, report: &mut Report) -> bool {
        let before = report.errors();
        for (address, v6) in [(&end.ipv4, false), (&end.ipv6, true)] {
            if !address.is_empty() && !is_cidr(address, v6) {
                let (version, example) = if v6 { (6, "2001:db8::1/64") } else { (4, "10.0.0.1/24") };
                report.error(
                    pos,
                    "INVALID_VALUE",
                    format!(
                        "{} is not an IPv{version} address with a prefix length, like {example}",
                        quoted(address)
                    ),
                );
            }
        }
        if !end.mac.is_empty() && !is_mac(&end.mac) {
            report.error(
                pos,
                "INVALID_VALUE",
                format!("{} is not a unicast MAC address like 02:00:00:00:00:01", quoted(&end.mac)),
            );
        }
        let Some(kind) = self.nodes.get(end.node.as_str()).copied() else {
            if RESERVED.contains(&end.node.as_str()) {
                let message = format!(
                    "links with an end at {} are not supported yet: both ends must be nodes of the lab",
                    quoted(&end.node)
                );
                report.error(pos, "LINK_TYPE_NOT_SUPPORTED", message);
            } else {
                let meant = report.did_you_mean(&end.node, self.nodes.keys().copied());
                report.error(pos, "UNKNOWN_NODE", format!("there is no node {}.{meant}", quoted(&end.node)));
            }
            return false;
        };
        if let Some(first) = self.ends.insert((end.node.clone(), end.interface.clone()), pos) {
            let message = format!(
                "{} is an end of a link already, at {first}: an interface takes one cable",
                quoted(&end.to_string())
            );
            report.error(pos, "DUPLICATE_ENDPOINT", message);
        }
        let Some(kind) = kind else { return false };
        if !kind.interfaces.is_any() {
            if let Err(e) = kind.interfaces.index(&kind.name, &end.interface) {
                report.error(pos, "UNKNOWN_INTERFACE", format!("node {}: {e}", quoted(&end.node)));
            }
        } else if !end.mac.is_empty() || !end.ipv4.is_empty() || !end.ipv6.is_empty() {
            let end = quoted(&end.to_string());
            let message =
                format!("{end} is a port of a bridge, which has no address: give it to the other end");
            report.error(pos, "ADDRESS_ON_BRIDGE", message);
        }
        report.errors() == before
    }
}

fn check_type(node: &Node, report: &mut Report) -> Option<()> {
    let before = report.errors();
    let Some(kind) = value::text(node, report).filter(|k| k.value != "veth") else {
        return (report.errors() == before).then_some(());
    };
    let known = ["host", "mgmt-net", "macvlan", "dummy", "vxlan", "vxlan-stitch", "veth-stitch"];
    if known.contains(&kind.value.as_str()) {
        let message = format!(
            "links of type {} are not supported yet: both ends must be nodes of the lab, joined by type veth",
            quoted(&kind.value)
        );
        report.error(kind.pos, "LINK_TYPE_NOT_SUPPORTED", message);
    } else {
        let meant = report.did_you_mean(&kind.value, known.into_iter().chain(["veth"]));
        report.error(
            kind.pos,
            "INVALID_VALUE",
            format!("{} is not a type of link: leave it out, or write veth.{meant}", quoted(&kind.value)),
        );
    }
    None
}

fn mtu(text: &str) -> Result<u32, String> {
    value::number(text, 68, 65_535)
}

/// The addresses of the two ends.
fn pair(node: &Node, report: &mut Report) -> Vec<At<String>> {
    let items = value::list(node, report);
    if items.len() > 2 {
        report.error(node.pos, "INVALID_VALUE", "expected two addresses: the first end's and the second's");
    }
    // An empty one holds the place of an end without an address.
    items
        .iter()
        .map(|item| value::text(item, report).unwrap_or(At { value: String::new(), pos: item.pos }))
        .collect()
}

fn brief(text: &str, pos: Pos, report: &mut Report) -> Option<Endpoint> {
    match text.split_once(':').map(|(node, interface)| (node.trim(), interface.trim())) {
        Some((node, interface)) if !node.is_empty() && is_interface(interface) => {
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
    if end.node.is_empty() || !is_interface(&end.interface) {
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
