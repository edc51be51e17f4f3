//! The rules of a lab as a whole: its name prefix, its size, its files, its management network and its certificate authority.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::{INTERFACE_NAME, Wrong, is_interface_name, is_relative_normal, is_word};
use crate::spec::{
    AuthoritySpec, LAB_NAME_PREFIX, LabSpec, MAX_FILES, MAX_FILES_BYTES, MAX_LINKS, MAX_NODES, MgmtSpec,
    Subnet,
};

/// Longest time that a certificate is valid, in seconds: 100 years.
const MAX_VALIDITY: u64 = 100 * 365 * 24 * 3_600;
/// How long a host is silent at least, and at most, until what is on it is made anew elsewhere, in seconds. It needs a part of that to stop what it has.
const RESCHEDULE_AFTER: std::ops::RangeInclusive<u32> = 60..=86_400;
/// Networks that Docker has by itself.
const DOCKERS_OWN: [&str; 3] = ["bridge", "host", "none"];

pub(super) fn check(spec: &LabSpec, wrong: &mut Wrong) {
    let prefix = &spec.prefix;
    if !prefix.is_empty() && prefix != LAB_NAME_PREFIX && !is_word(prefix, 32) {
        wrong.say(
            "prefix",
            format!("\"{prefix}\" is not of the form [A-Za-z0-9][A-Za-z0-9-._]*, at most 32, nor {LAB_NAME_PREFIX}"),
        );
    }
    for (field, count, most) in
        [("nodes", spec.nodes.len(), MAX_NODES), ("links", spec.links.len(), MAX_LINKS)]
    {
        if count > most {
            wrong.say(field, format!("{count} {field}; a lab holds at most {most}"));
        }
    }
    let after = spec.reschedule_after_seconds;
    if after != 0 && !RESCHEDULE_AFTER.contains(&after) {
        let (least, most) = (RESCHEDULE_AFTER.start(), RESCHEDULE_AFTER.end());
        wrong.say(
            "reschedule_after_seconds",
            format!("{after} s; what a silent host has is made anew after {least} to {most} s, or never"),
        );
    }
    files(spec, wrong);
    let subnets = spec.mgmt.as_ref().map_or([None, None], |m| mgmt(m, wrong));
    addresses(spec, subnets, wrong);
    if let Some(authority) = &spec.certificate_authority {
        certificate_authority(spec, authority, wrong);
    }
}

fn files(spec: &LabSpec, wrong: &mut Wrong) {
    if spec.files.len() > MAX_FILES {
        wrong.say("files", format!("{} files; a lab holds at most {MAX_FILES}", spec.files.len()));
    }
    let mut paths = BTreeSet::new();
    for (i, file) in spec.files.iter().enumerate() {
        let field = format!("files[{i}].path");
        if !is_relative_normal(&file.path) {
            wrong.say(field, format!("\"{}\" is not a relative path without \"..\"", file.path));
        } else if !paths.insert(file.path.as_str()) {
            wrong.say(field, format!("\"{}\" is listed twice", file.path));
        }
    }
    let bytes = spec.files.iter().fold(0u64, |sum, f| sum.saturating_add(f.size_bytes));
    if bytes > MAX_FILES_BYTES {
        wrong.say("files", format!("{bytes} bytes of files; a lab holds at most {MAX_FILES_BYTES}"));
    }
}

/// Checks the network; its subnets as far as they are good.
fn mgmt(mgmt: &MgmtSpec, wrong: &mut Wrong) -> [Option<Subnet>; 2] {
    if !mgmt.network.is_empty() && !is_word(&mgmt.network, 63) {
        wrong.say(
            "mgmt.network",
            format!("\"{}\" is not a name that Docker takes for a network", mgmt.network),
        );
    }
    if DOCKERS_OWN.contains(&mgmt.network.as_str()) {
        wrong.say(
            "mgmt.network",
            format!(
                "\"{}\" is a network of Docker's own; a lab has one to itself: leave the name out, or choose another",
                mgmt.network
            ),
        );
    }
    if !mgmt.bridge.is_empty() && !is_interface_name(&mgmt.bridge) {
        wrong.say("mgmt.bridge", format!("\"{}\" is not a name for a bridge: {INTERFACE_NAME}", mgmt.bridge));
    }
    if mgmt.mtu != 0 && !(576..=65_535).contains(&mgmt.mtu) {
        wrong.say("mgmt.mtu", format!("{} is not from 576 to 65535", mgmt.mtu));
    }
    for (key, value) in &mgmt.driver_options {
        if !is_word(key, 128) || value.contains(char::is_control) {
            wrong.say("mgmt.driver_options", format!("\"{key}\" is not an option of Docker's bridge driver"));
        }
    }
    let families = [
        (false, 4, &mgmt.ipv4_subnet, &mgmt.ipv4_gateway, &mgmt.ipv4_range),
        (true, 6, &mgmt.ipv6_subnet, &mgmt.ipv6_gateway, &mgmt.ipv6_range),
    ];
    families.map(|(v6, version, subnet, gateway, range)| {
        let mut parsed = |name: &str, text: &str| match Subnet::parse(text, v6) {
            _ if text.is_empty() => None,
            Ok(subnet) => Some(subnet),
            Err(why) => {
                wrong.say(format!("mgmt.ipv{version}_{name}"), format!("\"{text}\" {why}"));
                None
            }
        };
        let (net, part) = (parsed("subnet", subnet), parsed("range", range));
        let no_subnet = || format!("needs an ipv{version}-subnet that holds it");
        if let Some(part) = part
            && (subnet.is_empty() || net.is_some_and(|n| !n.holds_all_of(&part)))
        {
            wrong.say(format!("mgmt.ipv{version}_range"), format!("{range} {}", no_subnet()));
        }
        if !gateway.is_empty() && (subnet.is_empty() || net.is_some_and(|n| !n.holds(gateway))) {
            wrong.say(format!("mgmt.ipv{version}_gateway"), format!("{gateway} {}", no_subnet()));
        }
        net
    })
}

/// Checks the nodes' fixed addresses: in a subnet, and of one node only.
fn addresses(spec: &LabSpec, subnets: [Option<Subnet>; 2], wrong: &mut Wrong) {
    let mut taken: BTreeMap<IpAddr, &str> = BTreeMap::new();
    for (i, node) in spec.nodes.iter().enumerate() {
        for (version, subnet, text) in [(4, subnets[0], &node.mgmt_ipv4), (6, subnets[1], &node.mgmt_ipv6)] {
            if text.is_empty() {
                continue;
            }
            let field = format!("nodes[{i}].mgmt_ipv{version}");
            let address = text.parse::<IpAddr>().ok().filter(|a| a.is_ipv6() == (version == 6));
            let Some(address) = address else {
                wrong
                    .say(field, format!("\"{text}\" is not an IPv{version} address without a prefix length"));
                continue;
            };
            match subnet {
                None => {
                    wrong.say(
                        field.as_str(),
                        format!("{text} needs mgmt with an ipv{version}-subnet that holds it"),
                    );
                }
                Some(subnet) if !subnet.holds(text) => {
                    wrong.say(
                        field.as_str(),
                        format!("{text} is not in the ipv{version}-subnet of mgmt, {subnet}"),
                    );
                }
                Some(_) => {}
            }
            if let Some(other) = taken.insert(address, &node.id) {
                wrong.say(field, format!("{text} is the address of \"{other}\" too"));
            }
        }
    }
}

fn certificate_authority(spec: &LabSpec, authority: &AuthoritySpec, wrong: &mut Wrong) {
    if authority.certificate.is_empty() != authority.key.is_empty() {
        wrong.say("certificate_authority", "a certificate and its key go together: name both, or neither");
    }
    for (name, path) in [("certificate", &authority.certificate), ("key", &authority.key)] {
        if !path.is_empty() && !has_file(spec, path) {
            wrong.say(
                format!("certificate_authority.{name}"),
                format!("\"{path}\" is not among the lab's files; send it along"),
            );
        }
    }
    key_bits("certificate_authority", authority.key_bits, wrong);
    validity("certificate_authority", authority.validity_seconds, wrong);
}

pub(super) fn has_file(spec: &LabSpec, path: &str) -> bool {
    spec.files.iter().any(|f| f.path == path)
}

pub(super) fn key_bits(field: &str, bits: u32, wrong: &mut Wrong) {
    // A larger key takes a core for many seconds, and whoever applies the lab waits for it.
    if bits != 0 && !(2_048..=4_096).contains(&bits) {
        wrong.say(format!("{field}.key_bits"), format!("an RSA key has 2048 to 4096 bits, not {bits}"));
    }
}

pub(super) fn validity(field: &str, seconds: u64, wrong: &mut Wrong) {
    if seconds > MAX_VALIDITY {
        let description = format!("{seconds} s; a certificate is valid for at most 100 years");
        wrong.say(format!("{field}.validity_seconds"), description);
    }
}
