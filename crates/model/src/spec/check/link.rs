//! The rules of links: what their ends are, that no two share one, and what a direction may do to frames.

use std::collections::{BTreeMap, BTreeSet};

use super::{INTERFACE_NAME, Wrong, is_cidr, is_interface_name, is_mac};
use crate::spec::link::{rate_text, share_text, time_text};
use crate::spec::{Endpoint, EndpointType, Impairment, LabSpec, NetworkMode, NodeSpec};

/// Longest delay, in microseconds.
const MAX_DELAY_US: u32 = 60_000_000;
/// Least rate: less is no link.
const MIN_RATE_BPS: u64 = 1_000;
/// Greatest rate, beyond what any host carries.
const MAX_RATE_BPS: u64 = 1_000_000_000_000;

pub(super) fn check(spec: &LabSpec, wrong: &mut Wrong) {
    let nodes: BTreeMap<&str, &NodeSpec> = spec.nodes.iter().map(|n| (n.id.as_str(), n)).collect();
    let mut ends = BTreeSet::new();
    for (i, link) in spec.links.iter().enumerate() {
        for (side, end) in [("a", &link.a), ("b", &link.b)] {
            let field = format!("links[{i}].{side}");
            match end.kind {
                EndpointType::Node => node_end(&field, end, &nodes, wrong),
                _ => other_end(&field, end, spec.mgmt.is_some(), wrong),
            }
            let shared = end.kind != EndpointType::Dummy;
            if shared && !ends.insert((end.kind, end.node.as_str(), end.interface.as_str())) {
                wrong.say(
                    field,
                    format!("{end} is an end of another link too, or of both ends of this one: an interface takes one cable"),
                );
            }
        }
        if link.a.kind != EndpointType::Node && link.b.kind != EndpointType::Node {
            wrong.say(format!("links[{i}]"), "at least one end of a link is an interface of a node");
        }
        if link.mtu != 0 && !(68..=65_535).contains(&link.mtu) {
            wrong.say(format!("links[{i}].mtu"), format!("{} is not from 68 to 65535", link.mtu));
        }
        for (name, impairment) in [("a_to_b", &link.a_to_b), ("b_to_a", &link.b_to_a)] {
            // What is wrong both ways alike was written once, and is told once.
            if name == "b_to_a" && link.a_to_b == link.b_to_a {
                continue;
            }
            for why in impairment.check() {
                wrong.say(format!("links[{i}].{name}"), why);
            }
        }
    }
}

fn node_end(field: &str, end: &Endpoint, nodes: &BTreeMap<&str, &NodeSpec>, wrong: &mut Wrong) {
    match nodes.get(end.node.as_str()).map(|n| &n.network_mode) {
        None => wrong.say(field, format!("there is no node \"{}\"", end.node)),
        Some(NetworkMode::Node(other)) => wrong.say(
            field,
            format!("node \"{}\" shares the interfaces of \"{other}\": give the link to that one", end.node),
        ),
        Some(NetworkMode::Host) => wrong.say(
            field,
            format!("node \"{}\" has the host's interfaces and none of its own for a link", end.node),
        ),
        Some(NetworkMode::Own | NetworkMode::None) => {}
    }
    if !end.mac.is_empty() && !is_mac(&end.mac) {
        wrong.say(
            format!("{field}.mac"),
            format!("\"{}\" is not a unicast MAC address like 02:00:00:00:00:01", end.mac),
        );
    }
    for (name, text, v6) in [("ipv4", &end.ipv4, false), ("ipv6", &end.ipv6, true)] {
        if !text.is_empty() && !is_cidr(text, v6) {
            wrong.say(
                format!("{field}.{name}"),
                format!("\"{text}\" is not an {name} address with a prefix length"),
            );
        }
    }
}

fn other_end(field: &str, end: &Endpoint, has_mgmt: bool, wrong: &mut Wrong) {
    let word = end.kind.word().unwrap_or_default();
    if end.node != word {
        wrong.say(format!("{field}.node"), format!("\"{}\" must be \"{word}\" with this type", end.node));
    }
    if !end.mac.is_empty() || !end.ipv4.is_empty() || !end.ipv6.is_empty() {
        wrong.say(field, format!("the end \"{word}\" has no address here: give it to the node's end"));
    }
    if end.kind == EndpointType::Dummy {
        if !end.interface.is_empty() {
            wrong.say(format!("{field}.interface"), "a dummy end is nothing, and has no interface");
        }
        return;
    }
    if !is_interface_name(&end.interface) {
        wrong.say(
            format!("{field}.interface"),
            format!("\"{}\" is not a name for an interface of the host: {INTERFACE_NAME}", end.interface),
        );
    }
    if end.kind == EndpointType::MgmtNet && !has_mgmt {
        wrong.say(field, "the lab has no management network to link to: give it one with mgmt");
    }
}

impl Impairment {
    /// What is wrong with it by itself.
    pub fn check(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        if self.rate_bps != 0 && !(MIN_RATE_BPS..=MAX_RATE_BPS).contains(&self.rate_bps) {
            wrong.push(format!(
                "a rate of {} is not from {} to {}",
                rate_text(self.rate_bps),
                rate_text(MIN_RATE_BPS),
                rate_text(MAX_RATE_BPS)
            ));
        }
        for (name, us) in [("delay", self.delay_us), ("jitter", self.jitter_us)] {
            if us > MAX_DELAY_US {
                let (is, most) = (time_text(us.into()), time_text(MAX_DELAY_US.into()));
                wrong.push(format!("a {name} of {is} is more than the {most} that there can be"));
            }
        }
        if self.jitter_us > self.delay_us {
            wrong.push(format!(
                "a jitter of {} is more than the delay of {}: frames would arrive before they are sent",
                time_text(self.jitter_us.into()),
                time_text(self.delay_us.into())
            ));
        }
        let parts = [
            ("loss", self.loss_ppm),
            ("corrupt", self.corrupt_ppm),
            ("duplicate", self.duplicate_ppm),
            ("reorder", self.reorder_ppm),
        ];
        for (name, ppm) in parts {
            if ppm > 1_000_000 {
                wrong.push(format!("{name} of {} is more than all frames", share_text(ppm.into())));
            }
        }
        if self.reorder_ppm > 0 && self.delay_us == 0 {
            wrong.push(
                "reorder needs a delay: what is in order is sent after it, and the rest at once".into(),
            );
        }
        wrong
    }
}
