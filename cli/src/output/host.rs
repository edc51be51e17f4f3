//! One host, whole, and the way for another one in.

use std::collections::HashMap;

use netloom_api::v1 as api;

use super::words::{bytes, cores, host_state, last, runtime};

/// Everything about a host, a line each; what it does not have has no line.
pub fn describe(host: &api::Host) -> String {
    let of = |reserved: String, total: String, times: f64| match times {
        1.0 => format!("{reserved} of {total}"),
        times => format!("{reserved} of {total} x {times}"),
    };
    let cpu = of(cores(host.cpu_reserved_millis), cores(host.cpu_total_millis), host.cpu_overcommit);
    let memory =
        of(bytes(host.memory_reserved_bytes), bytes(host.memory_total_bytes), host.memory_overcommit);
    let disk = match host.disk_total_bytes {
        Some(total) => of(bytes(host.disk_reserved_bytes), bytes(total), host.disk_overcommit),
        None => format!("{} of a disk of unknown size", bytes(host.disk_reserved_bytes)),
    };
    let pairs = |all: &HashMap<String, String>| {
        let words = |(k, v): (&String, &String)| if v.is_empty() { k.clone() } else { format!("{k}={v}") };
        let mut all: Vec<String> = all.iter().map(words).collect();
        all.sort();
        all.join(", ")
    };
    let system = [
        (host.system_cpu_millis, cores as fn(i64) -> String, " CPU"),
        (host.system_memory_bytes, bytes, " memory"),
        (host.system_disk_bytes, bytes, " disk"),
    ];
    let system: Vec<String> =
        system.into_iter().filter(|(n, ..)| *n > 0).map(|(n, told, of)| told(n) + of).collect();
    let word = host_state(host.state());
    let state = match host.state_reason.as_str() {
        "" => word.to_owned(),
        reason => format!("{word}: {reason}"),
    };
    let runtimes: Vec<&str> = host.runtimes().map(runtime).collect();
    let lines = [
        ("Host", last(&host.name).to_owned()),
        ("State", state),
        ("New nodes", if host.cordoned { "no: it is cordoned" } else { "yes" }.to_owned()),
        ("Drain", drained(host).to_owned()),
        ("Nodes", format!("{} of {} run", host.running_count, host.node_count)),
        ("CPU reserved", cpu),
        ("Memory reserved", memory),
        ("Disk reserved", disk),
        ("Runtimes", runtimes.join(", ")),
        ("Versions", host.runtime_versions.join(", ")),
        ("Machines", machines(host)),
        ("Missing", host.missing_runtimes.join("; ")),
        ("Open vSwitch", format!("{} {}", host.ovs_version, host.datapath).trim().to_owned()),
        ("Plane", format!("{} {}", host.plane, host.plane_reason).trim().to_owned()),
        ("Left to the host", system.join(", ")),
        ("Labels", pairs(&host.labels)),
        ("Taints", pairs(&host.taints)),
        ("Address", host.address.clone()),
        ("Certificate", host.certificate_serial.clone()),
        ("Valid until", host.certificate_expire_time.as_ref().map(ToString::to_string).unwrap_or_default()),
        ("Last heard of", host.observe_time.as_ref().map(ToString::to_string).unwrap_or_default()),
    ];
    let stay = host.staying.iter().map(|node| {
        let why: Vec<String> = node.rejections.iter().map(super::plan::rejected).collect();
        let short = node.node.trim_start_matches("labs/").replacen("/nodes/", "/", 1);
        ("Stays", format!("{short}: {}", why.join("; ")))
    });
    let uplinks = host.uplinks.iter().map(|uplink| ("Uplink", way_out(uplink)));
    let paths = host.paths.iter().map(|path| ("Path", way(path)));
    let shown =
        lines.into_iter().chain(uplinks).chain(paths).chain(stay).filter(|(_, value)| !value.is_empty());
    shown.map(|(name, value)| format!("{name:<17}{value}\n")).collect()
}

/// What virtual machines run on there, in words; empty where that is not known.
fn machines(host: &api::Host) -> String {
    match host.acceleration() {
        api::Acceleration::Kvm => "run by KVM".to_owned(),
        api::Acceleration::Emulated => format!("are emulated: {}", host.acceleration_reason),
        api::Acceleration::Unspecified => String::new(),
    }
}

/// What runs nodes there, each with its version, and what machines run on.
pub fn versions(host: &api::Host) -> Vec<String> {
    let machines = Some(machines(host)).filter(|words| !words.is_empty());
    let machines = machines.map(|words| format!("machines {words}"));
    host.runtime_versions.iter().cloned().chain(machines).collect()
}

/// What bridges of labs may be joined to.
fn way_out(uplink: &api::HostUplink) -> String {
    let name = &uplink.interface;
    let what = match uplink.kind() {
        api::UplinkKind::Nic => ", an interface",
        api::UplinkKind::Bridge => ", a Linux bridge",
        api::UplinkKind::OvsBridge => ", a bridge of Open vSwitch",
        api::UplinkKind::Unspecified => "",
    };
    let why = if uplink.problem.is_empty() { String::new() } else { format!(": {}", uplink.problem) };
    format!("{name}{what}{why}")
}

/// What was measured of the ways between two hosts.
fn way(path: &api::HostPath) -> String {
    let mtu = |mtu: u32| if mtu == 0 { "not known".to_owned() } else { mtu.to_string() };
    let why = if path.problem.is_empty() { String::new() } else { format!(": {}", path.problem) };
    format!(
        "{} at {}, MTU {} there, {} back{why}",
        path.host,
        path.address,
        mtu(path.mtu_to),
        mtu(path.mtu_from)
    )
}

/// How far a host is drained, in words; empty when it is not.
pub fn drained(host: &api::Host) -> &'static str {
    match host.drain() {
        api::DrainState::Draining => "draining",
        api::DrainState::Drained => "drained",
        api::DrainState::Unspecified => "",
    }
}

/// What is to be typed where.
pub fn invitation(token: &api::HostToken) -> String {
    let (first, others) = match token.endpoints.split_first() {
        Some((first, others)) => (first.as_str(), others),
        None => ("https://ADDRESS:PORT", &[][..]),
    };
    let mut text = format!(
        "On the machine that is to join, once:\n\n  sudo netloom-host join {first} {}\n\nWith - in place of the token it reads it from standard input, so that others there do not see it\n",
        token.token
    );
    if !others.is_empty() {
        text += &format!("This machine is also {}\n", others.join(", "));
    }
    if let Some(until) = &token.expire_time {
        text += &format!("The token is good for one machine, until {until}\n");
    }
    text
}
