//! The rules of nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::lab::{has_file, key_bits, validity};
use super::text::{self, is_printable_word, is_tmpfs_options};
use super::{Wrong, is_relative_normal, is_target, is_word};
use crate::id::NodeId;
use crate::spec::{
    BindSource, EndpointType, Healthcheck, INTERFACE_NAME, LabSpec, MAX_CPU_MILLIS, MAX_DISK_BYTES,
    MAX_MEMORY_BYTES, NetworkMode, NodeSpec, PortMapping, Stage, is_interface_name, stages,
};
use crate::words;

/// Longest start delay, in seconds.
const MAX_DELAY: u32 = 3_600;
/// Longest time of a health check, in seconds.
const MAX_HEALTH_SECONDS: u32 = 86_400;
/// Most failed health checks in a row.
const MAX_RETRIES: u32 = 1_000;
/// Highest number of a core.
const MAX_CORE: u32 = 4_095;

pub(super) fn check(spec: &LabSpec, wrong: &mut Wrong) {
    names(spec, wrong);
    for (i, node) in spec.nodes.iter().enumerate() {
        let field = format!("nodes[{i}]");
        resources(&field, node, wrong);
        text::check(&field, node, wrong);
        mounts(&field, spec, node, wrong);
        network(&field, spec, node, wrong);
        if let Some(healthcheck) = &node.healthcheck {
            health(&field, healthcheck, wrong);
        }
        if let Some(certificate) = &node.certificate {
            let field = format!("{field}.certificate");
            key_bits(&field, certificate.key_bits, wrong);
            validity(&field, certificate.validity_seconds, wrong);
            for san in certificate.sans.iter().filter(|s| !is_printable_word(s, 255)) {
                wrong.say(format!("{field}.sans"), format!("\"{san}\" is neither a name nor an address"));
            }
        }
    }
    ports(spec, wrong);
    staging(spec, wrong);
}

/// Names and aliases, which are the same ignoring case.
fn names(spec: &LabSpec, wrong: &mut Wrong) {
    let reserved = [EndpointType::Host, EndpointType::MgmtNet, EndpointType::Dummy].map(EndpointType::word);
    let mut names = BTreeSet::new();
    for (i, node) in spec.nodes.iter().enumerate() {
        match node.id.parse::<NodeId>() {
            Err(e) => wrong.say(format!("nodes[{i}].id"), e.to_string()),
            Ok(id) if reserved.contains(&Some(id.folded().as_str())) => wrong.say(
                format!("nodes[{i}].id"),
                format!("\"{id}\" stands for an end of a link that is no node: choose another name"),
            ),
            Ok(id) if !names.insert(id.folded()) => wrong.say(
                format!("nodes[{i}].id"),
                format!("two nodes are called \"{id}\" (names are the same ignoring case)"),
            ),
            Ok(_) => {}
        }
    }
    for (i, node) in spec.nodes.iter().enumerate() {
        for alias in &node.aliases {
            let field = format!("nodes[{i}].aliases");
            if !is_word(alias, 253) {
                wrong.say(field, format!("\"{alias}\" is not a host name"));
            } else if !names.insert(alias.to_ascii_lowercase()) {
                wrong.say(field, format!("\"{alias}\" is the name or an alias of a node already"));
            }
        }
    }
}

fn resources(field: &str, node: &NodeSpec, wrong: &mut Wrong) {
    for (name, cpu) in
        [("cpu_request_millis", node.cpu_request_millis), ("cpu_limit_millis", node.cpu_limit_millis)]
    {
        if cpu > MAX_CPU_MILLIS {
            wrong.say(format!("{field}.{name}"), format!("{cpu}; a node asks for at most {MAX_CPU_MILLIS}"));
        }
    }
    for (name, memory) in [
        ("memory_request_bytes", node.memory_request_bytes),
        ("memory_limit_bytes", node.memory_limit_bytes),
        ("shm_size_bytes", node.shm_size_bytes),
    ] {
        if memory > MAX_MEMORY_BYTES {
            wrong.say(
                format!("{field}.{name}"),
                format!("{memory}; a node asks for at most {MAX_MEMORY_BYTES}"),
            );
        }
    }
    if node.disk_request_bytes > MAX_DISK_BYTES {
        wrong.say(
            format!("{field}.disk_request_bytes"),
            format!("{}; a node asks for at most {MAX_DISK_BYTES}", node.disk_request_bytes),
        );
    }
    if node.startup_delay_seconds > MAX_DELAY {
        let seconds = node.startup_delay_seconds;
        wrong.say(
            format!("{field}.startup_delay_seconds"),
            format!("{seconds} s; a start waits at most {MAX_DELAY} s"),
        );
    }
    if !node.cpu_set.is_empty() && !is_cpu_set(&node.cpu_set) {
        wrong.say(
            format!("{field}.cpu_set"),
            format!("\"{}\" is not a list of cores like 0-1,3", node.cpu_set),
        );
    }
}

/// What is mounted: where from, and each place once.
fn mounts(field: &str, spec: &LabSpec, node: &NodeSpec, wrong: &mut Wrong) {
    let mut places = BTreeSet::new();
    let mut target = |field: String, path: &str, wrong: &mut Wrong| {
        if !is_target(path) {
            wrong.say(field, format!("target \"{path}\" is not an absolute path without \"..\""));
        } else if !places.insert(path.trim_end_matches('/').to_owned()) {
            wrong.say(field, format!("something else is mounted at \"{path}\" already"));
        }
    };
    for (j, bind) in node.binds.iter().enumerate() {
        let field = format!("{field}.binds[{j}]");
        target(field.clone(), &bind.target, wrong);
        match &bind.source {
            BindSource::Bundle(p) if !is_relative_normal(p) => {
                wrong.say(field, format!("\"{p}\" is not a relative path without \"..\""));
            }
            BindSource::Bundle(p) if spec.files_under(p).next().is_none() => {
                wrong.say(field, format!("\"{p}\" is not among the lab's files; send it along"));
            }
            BindSource::Host(p) if !is_absolute(p) => {
                wrong.say(field, format!("\"{p}\" is not an absolute path without \"..\""));
            }
            _ => {}
        }
    }
    for (j, volume) in node.volumes.iter().enumerate() {
        let field = format!("{field}.volumes[{j}]");
        target(field.clone(), &volume.target, wrong);
        if !volume.name.is_empty() && !is_word(&volume.name, 63) {
            wrong.say(field, format!("\"{}\" is not a name for a volume", volume.name));
        }
    }
    for (path, options) in &node.tmpfs {
        let field = format!("{field}.tmpfs");
        target(field.clone(), path, wrong);
        if !is_tmpfs_options(options) {
            wrong.say(
                field,
                format!("\"{options}\" are not mount options of a tmpfs like size=64m,mode=1777"),
            );
        }
    }
    for (j, device) in node.devices.iter().enumerate() {
        let field = format!("{field}.devices[{j}]");
        for path in [&device.host_path, &device.target] {
            let left_out = std::ptr::eq(path, &device.target) && path.is_empty();
            if !left_out && !is_absolute(path) {
                wrong.say(field.as_str(), format!("\"{path}\" is not an absolute path without \"..\""));
            }
        }
        let permissions = &device.permissions;
        if permissions.len() > 3 || !permissions.chars().all(|c| "rwm".contains(c)) {
            wrong.say(field, format!("\"{permissions}\" are not permissions: any of r, w and m"));
        }
    }
    if !node.save_file.is_empty() && !is_absolute(&node.save_file) {
        let path = &node.save_file;
        wrong.say(format!("{field}.save_file"), format!("\"{path}\" is not an absolute path without \"..\""));
    }
    if !node.uplink.is_empty() && !is_interface_name(&node.uplink) {
        let name = &node.uplink;
        wrong.say(
            format!("{field}.uplink"),
            format!("\"{name}\" is not a name for an interface: {INTERFACE_NAME}"),
        );
    }
    for (name, path) in [("startup_config", &node.startup_config), ("license", &node.license)] {
        if !path.is_empty() && !has_file(spec, path) {
            wrong.say(
                format!("{field}.{name}"),
                format!("\"{path}\" is not among the lab's files; send it along"),
            );
        }
    }
}

/// Whose network it has, and what goes with it.
fn network(field: &str, spec: &LabSpec, node: &NodeSpec, wrong: &mut Wrong) {
    let mode = format!("{field}.network_mode");
    let own = match &node.network_mode {
        NetworkMode::Own => spec.mgmt.is_some(),
        NetworkMode::None | NetworkMode::Host => false,
        NetworkMode::Node(other) => {
            match spec.nodes.iter().find(|n| n.id == *other) {
                None => wrong
                    .say(mode.as_str(), format!("there is no node \"{other}\" whose network it could share")),
                Some(_) if *other == node.id => {
                    wrong.say(mode.as_str(), "a node cannot share the network of itself: leave it out");
                }
                Some(shared) if !matches!(shared.network_mode, NetworkMode::Own | NetworkMode::None) => wrong
                    .say(
                        mode.as_str(),
                        format!("\"{other}\" has no network of its own: name the node that has it"),
                    ),
                Some(_) => {}
            }
            if !node.hostname.is_empty() {
                wrong.say(
                    format!("{field}.hostname"),
                    format!("a node that shares the network of \"{other}\" has its host name too"),
                );
            }
            if node.dns.is_some() {
                wrong.say(
                    format!("{field}.dns"),
                    format!("a node that shares the network of \"{other}\" resolves names as that one does"),
                );
            }
            false
        }
    };
    if !own {
        let why = "needs the management network, and this node is not on it: give the lab mgmt, and the node no network-mode";
        for (name, set) in [
            ("ports", !node.ports.is_empty()),
            ("mgmt_ipv4", !node.mgmt_ipv4.is_empty() && spec.mgmt.is_some()),
            ("mgmt_ipv6", !node.mgmt_ipv6.is_empty() && spec.mgmt.is_some()),
        ] {
            if set {
                wrong.say(format!("{field}.{name}"), format!("{} {why}", name.replace('_', "-")));
            }
        }
    }
    let Some(dns) = &node.dns else { return };
    for server in dns.servers.iter().filter(|s| s.parse::<IpAddr>().is_err()) {
        wrong.say(format!("{field}.dns.servers"), format!("\"{server}\" is not an address of a name server"));
    }
    for domain in dns.search.iter().filter(|d| *d != "." && !is_word(d, 253)) {
        wrong.say(format!("{field}.dns.search"), format!("\"{domain}\" is not a domain"));
    }
    for option in dns.options.iter().filter(|o| !is_printable_word(o, 64)) {
        wrong.say(format!("{field}.dns.options"), format!("\"{option}\" is not an option of resolv.conf"));
    }
}

/// Published ports: each of the host's once.
fn ports(spec: &LabSpec, wrong: &mut Wrong) {
    let mut taken: BTreeMap<(u32, &str), Vec<(IpAddr, &str)>> = BTreeMap::new();
    for (i, node) in spec.nodes.iter().enumerate() {
        for (j, port) in node.ports.iter().enumerate() {
            let field = format!("nodes[{i}].ports[{j}]");
            let Some(address) = port_address(&field, port, wrong) else { continue };
            if port.host_port == 0 {
                continue;
            }
            let protocol = if port.protocol.is_empty() { "tcp" } else { &port.protocol };
            let others = taken.entry((port.host_port, protocol)).or_default();
            let same =
                |other: &IpAddr| *other == address || other.is_unspecified() || address.is_unspecified();
            if let Some((_, other)) = others.iter().find(|(other, _)| same(other)) {
                wrong.say(
                    field,
                    format!("port {}/{protocol} of the host leads to \"{other}\" already", port.host_port),
                );
            }
            others.push((address, &node.id));
        }
    }
}

/// Checks a port by itself; the address of the host it is open on.
fn port_address(field: &str, port: &PortMapping, wrong: &mut Wrong) -> Option<IpAddr> {
    if !(1..=65_535).contains(&port.node_port) {
        wrong.say(field, format!("port {} of the node is not from 1 to 65535", port.node_port));
        return None;
    }
    if port.host_port > 65_535 {
        wrong.say(field, format!("port {} of the host is not from 0 to 65535", port.host_port));
        return None;
    }
    if !matches!(port.protocol.as_str(), "" | "tcp" | "udp") {
        wrong.say(field, format!("\"{}\" is not a protocol: write tcp or udp", port.protocol));
        return None;
    }
    if port.host_address.is_empty() {
        return Some(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    let address = port.host_address.parse::<IpAddr>().ok();
    if address.is_none() {
        wrong.say(field, format!("\"{}\" is not an address of the host", port.host_address));
    }
    // An IPv4 address written as IPv6 is open where the IPv4 one is.
    address.map(|a| match a {
        IpAddr::V6(v6) if v6 == Ipv6Addr::UNSPECIFIED => a,
        a => a.to_canonical(),
    })
}

fn health(field: &str, check: &Healthcheck, wrong: &mut Wrong) {
    let field = format!("{field}.healthcheck");
    let good = match check.test.first().map(String::as_str) {
        // The image's own command, with other times.
        None => true,
        Some("NONE") => check.test.len() == 1,
        Some("CMD" | "CMD-SHELL") => check.test.len() > 1,
        Some(_) => false,
    };
    if check.test.iter().any(|word| word.contains('\0')) {
        wrong.say(format!("{field}.test"), "a word of a command holds no NUL character");
    }
    if !good {
        wrong.say(
            format!("{field}.test"),
            "a health check is a list that begins with CMD and the words of a command, with CMD-SHELL and a line for a shell, or is NONE alone",
        );
    }
    for (name, seconds) in [
        ("interval_seconds", check.interval_seconds),
        ("timeout_seconds", check.timeout_seconds),
        ("start_period_seconds", check.start_period_seconds),
    ] {
        if seconds > MAX_HEALTH_SECONDS {
            wrong.say(format!("{field}.{name}"), format!("{seconds} s is more than a day"));
        }
    }
    if check.retries > MAX_RETRIES {
        wrong.say(format!("{field}.retries"), format!("{} is more than {MAX_RETRIES}", check.retries));
    }
}

/// What stages wait for and run.
fn staging(spec: &LabSpec, wrong: &mut Wrong) {
    let ids: BTreeSet<&str> = spec.nodes.iter().map(|n| n.id.as_str()).collect();
    for (i, node) in spec.nodes.iter().enumerate() {
        let mut seen = BTreeSet::new();
        for stage in &node.stages {
            let name = stage.stage.as_str();
            let field = format!("nodes[{i}].stages");
            if !seen.insert(stage.stage) {
                wrong.say(field.as_str(), format!("the stage {name} is there twice: join the two"));
            }
            for wait in stage.wait_for.iter().filter(|w| !ids.contains(w.node.as_str())) {
                wrong.say(
                    field.as_str(),
                    format!("{name} waits for the node \"{}\", and there is none of that name", wait.node),
                );
            }
            for exec in &stage.exec {
                if let Err(why) = words::split(&exec.command) {
                    wrong.say(field.as_str(), format!("\"{}\" is not a command: {why}", exec.command));
                }
            }
            if stage.stage == Stage::Exit && !stage.exec.is_empty() {
                wrong.say(
                    field,
                    "no command runs at the stage exit: the node has ended by then. Run it in a node that waits for this exit",
                );
            }
        }
    }
    for cycle in stages::cycles(&spec.nodes) {
        let at = spec.nodes.iter().position(|n| n.id == cycle[0].0).unwrap_or_default();
        let words = stages::in_words(&cycle);
        wrong.say(format!("nodes[{at}].stages"), format!("nodes wait for one another without end: {words}"));
    }
}

fn is_absolute(path: &str) -> bool {
    path.starts_with('/') && !path.contains('\0') && path.split('/').all(|p| p != "..")
}

/// True for a list of cores and ranges of cores.
fn is_cpu_set(text: &str) -> bool {
    let core = |t: &str| {
        t.bytes()
            .all(|b| b.is_ascii_digit())
            .then(|| t.parse::<u32>().ok())
            .flatten()
            .filter(|n| *n <= MAX_CORE)
    };
    text.split(',').all(|part| match part.split_once('-') {
        None => core(part).is_some(),
        Some((from, to)) => core(from).zip(core(to)).is_some_and(|(from, to)| from <= to),
    })
}
