//! The links: cables between nodes, and from a node to the host, the management network or nothing.

use std::collections::{BTreeMap, HashMap};

use netloom_model::kind::Kind;
use netloom_model::naming::guest_name;
use netloom_model::spec::{Endpoint, EndpointType, LinkSpec, is_cidr, is_mac};

use crate::diagnostic::{At, Pos, Report, quoted};
use crate::endpoint;
use crate::impairment;
use crate::keys::{Section, known};
use crate::value;
use crate::yaml::{Entry, Node, Value};

/// The types of links that are made, and those of containerlab's that are not yet.
const TYPES: [&str; 4] = ["veth", "host", "mgmt-net", "dummy"];
const LATER: [(&str, &str); 4] = [
    ("macvlan", "use a link of type host, and join its interface with the other one on the host"),
    (
        "vxlan",
        "links between hosts of netloom need none; to reach another machine, use a link of type host and make the tunnel there",
    ),
    (
        "vxlan-stitch",
        "links between hosts of netloom need none; to reach another machine, use a link of type host and make the tunnel there",
    ),
    ("veth-stitch", "write a plain link between the two nodes"),
];

/// A node as far as links need to know it.
#[derive(Clone, Copy)]
pub(crate) enum Named<'a> {
    /// It is one of this kind.
    Kind(&'a Kind),
    /// It has a fault, which is told.
    Faulty,
    /// The node filter leaves it out.
    Filtered,
}

/// What links are checked against and leave behind.
pub(crate) struct Links<'a> {
    /// Every node the file names.
    pub nodes: HashMap<&'a str, Named<'a>>,
    /// Where each end is used.
    pub ends: BTreeMap<(EndpointType, String, String), Pos>,
}

/// A link of the spec and where its parts stand.
pub(crate) struct Built {
    pub spec: LinkSpec,
    pub pos: Pos,
    pub ends: [Pos; 2],
    pub impairment: Pos,
}

/// The keys that say where a link's ends are.
#[derive(Default)]
struct Where<'n> {
    endpoints: Option<&'n Entry>,
    endpoint: Option<&'n Entry>,
    host_interface: Option<At<String>>,
}

impl Links<'_> {
    /// The link of an item of `topology.links`; none when it cannot be one, which is told, or when the node filter leaves it out.
    pub fn build(&mut self, node: &Node, report: &mut Report) -> Option<Built> {
        if matches!(&*node.value, Value::Null) {
            report.error(node.pos, "WRONG_TYPE", "expected a link, found nothing");
            return None;
        }
        let before = report.errors();
        let mut place = Where::default();
        let mut addresses: [Vec<At<String>>; 2] = [Vec::new(), Vec::new()];
        let mut spec = LinkSpec::default();
        let mut impairment_pos = node.pos;
        let entries = value::map(node, report);
        // The type says what the other keys mean, so it comes first.
        let kind = match entries.iter().find(|e| e.key == "type") {
            Some(entry) => link_type(&entry.node, report)?,
            None => None,
        };
        for (key, entry) in known(Section::Link, entries, report) {
            let node = &entry.node;
            match key {
                "endpoints" => place.endpoints = Some(entry),
                "endpoint" => place.endpoint = Some(entry),
                "host-interface" => place.host_interface = value::text(node, report),
                "type" => {}
                "mtu" => spec.mtu = value::parsed(node, report, mtu).map_or(0, |m| m.value),
                "labels" => {
                    spec.labels =
                        value::text_map(node, report).into_iter().map(|(k, v)| (k, v.value)).collect();
                }
                "ipv4" => addresses[0] = pair(node, report),
                "ipv6" => addresses[1] = pair(node, report),
                "impairment" => {
                    impairment_pos = entry.pos;
                    [spec.a_to_b, spec.b_to_a] = impairment::read(node, report);
                }
                _ => unreachable!("{key} is in the table as done, and is not read here"),
            }
        }
        let ends = match kind {
            Some(kind) if kind != EndpointType::Node => single(kind, node.pos, &place, report)?,
            _ => both(node.pos, &place, before, report)?,
        };
        let mut filtered = false;
        let mut built = Vec::new();
        for (side, (end, pos)) in ends.into_iter().enumerate() {
            let Some(mut end) = end else { continue };
            add_addresses(&mut end, [addresses[0].get(side), addresses[1].get(side)], report);
            filtered |= matches!(self.nodes.get(end.node.as_str()), Some(Named::Filtered));
            built.push((end, pos));
        }
        let Ok([(a, a_pos), (b, b_pos)]) = <[(Endpoint, Pos); 2]>::try_from(built) else { return None };
        if filtered {
            // Not looked at further, as the nodes that are left out are not.
            return None;
        }
        let good = [self.check(&a, a_pos, report), self.check(&b, b_pos, report)];
        (good == [true, true] && report.errors() == before).then_some(Built {
            spec: LinkSpec { a, b, ..spec },
            pos: node.pos,
            ends: [a_pos, b_pos],
            impairment: impairment_pos,
        })
    }

    /// Checks an end against the nodes and the ends before it. False when the link must be left out, be it for a fault told elsewhere.
    fn check(&mut self, end: &Endpoint, pos: Pos, report: &mut Report) -> bool {
        let before = report.errors();
        check_addresses(end, pos, report);
        if end.kind == EndpointType::Dummy {
            return report.errors() == before;
        }
        let kind = match (end.kind, self.nodes.get(end.node.as_str())) {
            (EndpointType::Node, Some(Named::Kind(kind))) => Some(*kind),
            (EndpointType::Node, Some(_)) => return false,
            (EndpointType::Node, None) => {
                let meant = report.did_you_mean(&end.node, self.nodes.keys().copied());
                report.error(pos, "UNKNOWN_NODE", format!("there is no node {}.{meant}", quoted(&end.node)));
                return false;
            }
            _ => None,
        };
        // Two names of one interface are one end.
        let interface = kind
            .and_then(|k| k.interfaces.index(&k.name, &end.interface).ok())
            .map_or_else(|| end.interface.clone(), guest_name);
        if let Some(first) = self.ends.insert((end.kind, end.node.clone(), interface), pos) {
            let message = format!(
                "{} is an end of a link already, at {first}: an interface takes one cable",
                quoted(&end.to_string())
            );
            report.error(pos, "DUPLICATE_ENDPOINT", message);
        }
        let Some(kind) = kind else { return report.errors() == before };
        if !kind.interfaces.is_any() {
            if !(kind.takes_addresses() || end.ipv4.is_empty() && end.ipv6.is_empty()) {
                let message = format!(
                    "{} is in a virtual machine of kind {}, whose system is not told its addresses: give it them in its own configuration",
                    quoted(&end.to_string()),
                    kind.name
                );
                report.warning(pos, "ADDRESS_NOT_SET", message);
            }
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

type End = (Option<Endpoint>, Pos);

/// The two ends of a link between nodes.
fn both(pos: Pos, place: &Where<'_>, before: usize, report: &mut Report) -> Option<[End; 2]> {
    for (entry, key) in [
        (place.endpoint.map(|e| e.pos), "endpoint"),
        (place.host_interface.as_ref().map(|h| h.pos), "host-interface"),
    ] {
        if let Some(pos) = entry {
            let message = format!(
                "{key} goes with the types host, mgmt-net and dummy: write type, or endpoints with two ends"
            );
            report.error(pos, "ENDPOINTS", message);
        }
    }
    let Some(ends) = place.endpoints.map(|e| &e.node) else {
        if report.errors() == before {
            let message = "the link has no endpoints: write endpoints: [\"r1:eth1\", \"r2:eth1\"]";
            report.error(pos, "ENDPOINTS", message);
        }
        return None;
    };
    let told = report.errors();
    let items = value::list(ends, report);
    if report.errors() > told {
        return None;
    }
    let [a, b] = items else {
        let message = match items.len() {
            n @ 0..=1 => format!("a link has two endpoints, this one has {n}"),
            n => format!(
                "a link has two endpoints, this one has {n}: to join more, link each to a node of kind bridge"
            ),
        };
        report.error(ends.pos, "ENDPOINTS", message);
        return None;
    };
    Some([a, b].map(|item| (endpoint::read(item, report), item.pos)))
}

/// The one end of a link of another type, and what is at the other.
fn single(kind: EndpointType, pos: Pos, place: &Where<'_>, report: &mut Report) -> Option<[End; 2]> {
    let word = kind.word().unwrap_or_default();
    let Some(entry) = place.endpoint else {
        let message =
            format!("a link of type {word} has one end: write endpoint: {{node: r1, interface: eth1}}");
        report.error(place.endpoints.map_or(pos, |e| e.pos), "ENDPOINTS", message);
        return None;
    };
    if let Some(both) = place.endpoints {
        report.error(
            both.pos,
            "ENDPOINTS",
            format!("a link of type {word} has one endpoint: leave endpoints out"),
        );
    }
    let (interface, at) = match (&place.host_interface, kind) {
        (Some(name), EndpointType::Dummy) => {
            report.error(
                name.pos,
                "ENDPOINTS",
                "a link of type dummy ends in nothing: leave host-interface out",
            );
            return None;
        }
        (None, EndpointType::Dummy) => (String::new(), entry.node.pos),
        (Some(name), _) => (name.value.clone(), name.pos),
        (None, _) => {
            let message =
                format!("a link of type {word} needs the name of its other end: write host-interface: NAME");
            report.error(pos, "ENDPOINTS", message);
            return None;
        }
    };
    let end = (endpoint::read(&entry.node, report), entry.node.pos);
    Some([end, (Some(endpoint::other(kind, interface)), at)])
}

fn add_addresses(end: &mut Endpoint, addresses: [Option<&At<String>>; 2], report: &mut Report) {
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
}

fn check_addresses(end: &Endpoint, pos: Pos, report: &mut Report) {
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
}

/// The type of a link as that of its other end; none of both when it is not one that is made, which is told.
fn link_type(node: &Node, report: &mut Report) -> Option<Option<EndpointType>> {
    let before = report.errors();
    let Some(kind) = value::text(node, report) else { return (report.errors() == before).then_some(None) };
    match kind.value.as_str() {
        "veth" => return Some(Some(EndpointType::Node)),
        "host" => return Some(Some(EndpointType::Host)),
        "mgmt-net" => return Some(Some(EndpointType::MgmtNet)),
        "dummy" => return Some(Some(EndpointType::Dummy)),
        _ => {}
    }
    if let Some((name, instead)) = LATER.iter().find(|(name, _)| *name == kind.value) {
        let message = format!("links of type {name} are not supported yet: {instead}");
        report.error(kind.pos, "LINK_TYPE_NOT_SUPPORTED", message);
    } else {
        let meant = report.did_you_mean(&kind.value, TYPES);
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
