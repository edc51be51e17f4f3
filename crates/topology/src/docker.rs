//! Values that are Docker's: how containers are made, which files and ports they have, how their health is told.

use std::collections::BTreeMap;

use netloom_model::spec::{
    DeviceMapping, DnsSpec, Healthcheck, NetworkMode, PortMapping, PullPolicy, RestartPolicy, VolumeMount,
};

use crate::bind;
use crate::diagnostic::{At, Report, quoted};
use crate::keys::{Section, known};
use crate::value;
use crate::yaml::{Node, Value};

/// Most ports of one range.
const MAX_RANGE: u32 = 1_024;

pub(crate) fn pull_policy(text: &str) -> Result<PullPolicy, String> {
    match text.to_ascii_lowercase().replace('-', "").as_str() {
        "ifnotpresent" => Ok(PullPolicy::IfNotPresent),
        "never" => Ok(PullPolicy::Never),
        "always" => Ok(PullPolicy::Always),
        _ => Err("is not an image-pull-policy: write IfNotPresent, Never or Always".into()),
    }
}

pub(crate) fn restart_policy(text: &str) -> Result<RestartPolicy, String> {
    match text.to_ascii_lowercase().as_str() {
        // YAML 1.1 reads a bare `no` as false.
        "no" | "false" => Ok(RestartPolicy::Never),
        "on-failure" => Ok(RestartPolicy::OnFailure),
        "always" | "unless-stopped" => Ok(RestartPolicy::Always),
        _ => Err("is not a restart-policy: write no, on-failure, always or unless-stopped".into()),
    }
}

pub(crate) fn network_mode(text: &str) -> Result<NetworkMode, String> {
    match text {
        "none" => Ok(NetworkMode::None),
        "bridge" => Ok(NetworkMode::Own),
        "host" => Ok(NetworkMode::Host),
        _ => match text.strip_prefix("container:") {
            Some(node) if !node.is_empty() => Ok(NetworkMode::Node(node.to_owned())),
            _ => Err("is not a network-mode: leave it out, or write none, host or container:NODE".into()),
        },
    }
}

/// `ports`: nothing when the list is empty, so that a weaker level's counts.
pub(crate) fn ports(node: &Node, report: &mut Report) -> Option<At<Vec<At<PortMapping>>>> {
    let mut ports = Vec::new();
    for At { value, pos } in value::each(node, report, port_range) {
        ports.extend(value.into_iter().map(|value| At { value, pos }));
    }
    (!ports.is_empty()).then_some(At { value: ports, pos: node.pos })
}

/// `[[address:]host-port:]node-port[/protocol]`; the ports may be ranges of one length.
fn port_range(text: &str) -> Result<Vec<PortMapping>, String> {
    let refused = || "is not a port: write 8080:80, 127.0.0.1:8080:80/udp or 80".to_owned();
    let (text, protocol) = text.split_once('/').unwrap_or((text, ""));
    let protocol = match protocol.to_ascii_lowercase().as_str() {
        p @ ("" | "tcp" | "udp") => p.to_owned(),
        other => return Err(format!("has the protocol {}: write tcp or udp", quoted(other))),
    };
    let (before, node) = text.rsplit_once(':').unwrap_or(("", text));
    let (address, host) = match before.rsplit_once(':') {
        // A colon within brackets belongs to the address.
        Some(_) if before.ends_with(']') => return Err(refused()),
        Some((address, host)) => (address, host),
        None => ("", before),
    };
    let address = address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(address);
    if address.contains(['[', ']']) {
        return Err(refused());
    }
    let node = range(node).ok_or_else(refused)?;
    let host = if host.is_empty() { None } else { Some(range(host).ok_or_else(refused)?) };
    let count = node.1 - node.0 + 1;
    if count > MAX_RANGE {
        return Err(format!("is a range of {count} ports; at most {MAX_RANGE} are published at once"));
    }
    if host.is_some_and(|h| h.1 - h.0 + 1 != count) {
        return Err("names two ranges that are not of one length".into());
    }
    let mapping = |i| PortMapping {
        host_address: address.to_owned(),
        host_port: host.map_or(0, |h| h.0 + i),
        node_port: node.0 + i,
        protocol: protocol.clone(),
    };
    Ok((0..count).map(mapping).collect())
}

fn range(text: &str) -> Option<(u32, u32)> {
    let port = |t: &str| value::number(t, 1, 65_535).ok();
    match text.split_once('-') {
        None => port(text).map(|p| (p, p)),
        Some((from, to)) => port(from).zip(port(to)).filter(|(from, to)| from <= to),
    }
}

/// `name:target[:mode]`, or a target alone.
pub(crate) fn volume(text: &str) -> Result<VolumeMount, String> {
    let parts: Vec<&str> = text.split(':').collect();
    let (name, target, mode) = match parts[..] {
        [target] => ("", target, ""),
        [name, target] => (name, target, ""),
        [name, target, mode] => (name, target, mode),
        _ => return Err("is not of the form name:target or name:target:ro".into()),
    };
    if name.starts_with(['/', '.', '~']) {
        return Err("names a path of the host: that goes into binds".into());
    }
    let read_only = match mode {
        "" | "rw" => false,
        "ro" => true,
        "nocopy" | "volume-nocopy" => {
            return Err("has the mode nocopy, which is not supported: a new volume begins with what the image has there".into());
        }
        other => return Err(format!("has the mode {}: write ro or rw", quoted(other))),
    };
    Ok(VolumeMount { name: name.to_owned(), target: bind::target(target)?, read_only })
}

/// `/dev/x[:/dev/y[:rwm]]`.
pub(crate) fn device(text: &str) -> Result<DeviceMapping, String> {
    let parts: Vec<&str> = text.split(':').collect();
    let is_permissions = |t: &str| !t.is_empty() && t.chars().all(|c| "rwm".contains(c));
    let (host, target, permissions) = match parts[..] {
        [host] => (host, "", ""),
        [host, second] if is_permissions(second) => (host, "", second),
        [host, target] => (host, target, ""),
        [host, target, permissions] if is_permissions(permissions) => (host, target, permissions),
        _ => return Err("is not of the form /dev/x, /dev/x:/dev/y or /dev/x:/dev/y:rwm".into()),
    };
    Ok(DeviceMapping { host_path: host.into(), target: target.into(), permissions: permissions.into() })
}

/// `tmpfs`: a map of targets to options, or a list of `target[:options]`.
pub(crate) fn tmpfs(node: &Node, report: &mut Report) -> Vec<(String, At<String>)> {
    let pairs: Vec<(String, At<String>)> = match &*node.value {
        Value::List(_) => value::texts(node, report)
            .into_iter()
            .map(|At { value, pos }| {
                let (target, options) = value.split_once(':').unwrap_or((&value, ""));
                (target.to_owned(), At { value: options.to_owned(), pos })
            })
            .collect(),
        _ => value::text_map(node, report),
    };
    let mut found = BTreeMap::new();
    for (target, options) in pairs {
        match bind::target(&target) {
            Ok(target) => {
                if let Some(first) = found.insert(target, options.clone()) {
                    let message = format!(
                        "{} is mounted twice, first at {}; keep one",
                        quoted(&target_of(&found, &options)),
                        first.pos
                    );
                    report.error(options.pos, "DUPLICATE_BIND", message);
                }
            }
            Err(why) => report.error(options.pos, "INVALID_VALUE", format!("{} {why}", quoted(&target))),
        }
    }
    found.into_iter().collect()
}

fn target_of(found: &BTreeMap<String, At<String>>, options: &At<String>) -> String {
    found.iter().find(|(_, o)| o.pos == options.pos).map(|(t, _)| t.clone()).unwrap_or_default()
}

pub(crate) fn dns(node: &Node, report: &mut Report) -> Option<At<DnsSpec>> {
    let mut dns = DnsSpec::default();
    for (key, entry) in known(Section::Dns, value::map(node, report), report) {
        let texts = value::each(&entry.node, report, value::one_word).into_iter().map(|t| t.value).collect();
        match key {
            "servers" => dns.servers = texts,
            "search" => dns.search = texts,
            "options" => dns.options = texts,
            _ => unreachable!("{key} is in the table as done, and is not read here"),
        }
    }
    (dns != DnsSpec::default()).then_some(At { value: dns, pos: node.pos })
}

pub(crate) fn healthcheck(node: &Node, report: &mut Report) -> Option<At<Healthcheck>> {
    let mut health = Healthcheck::default();
    for (key, entry) in known(Section::Healthcheck, value::map(node, report), report) {
        let node = &entry.node;
        let mut seconds = || {
            let read =
                |t: &str| value::duration(t).and_then(|s| u32::try_from(s).map_err(|_| "is too long".into()));
            value::parsed(node, report, read).map_or(0, |s| s.value)
        };
        match key {
            "interval" => health.interval_seconds = seconds(),
            "timeout" => health.timeout_seconds = seconds(),
            "start-period" => health.start_period_seconds = seconds(),
            "retries" => {
                health.retries =
                    value::parsed(node, report, |t| value::number(t, 0, 1_000)).map_or(0, |n| n.value);
            }
            "test" => health.test = value::texts(node, report).into_iter().map(|t| t.value).collect(),
            _ => unreachable!("{key} is in the table as done, and is not read here"),
        }
    }
    (health != Healthcheck::default()).then_some(At { value: health, pos: node.pos })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_in_all_their_forms() {
        let port = |address: &str, host, node, protocol: &str| PortMapping {
            host_address: address.into(),
            host_port: host,
            node_port: node,
            protocol: protocol.into(),
        };
        for (text, is) in [
            ("80", vec![port("", 0, 80, "")]),
            ("8080:80", vec![port("", 8080, 80, "")]),
            ("8080:80/TCP", vec![port("", 8080, 80, "tcp")]),
            ("53:53/udp", vec![port("", 53, 53, "udp")]),
            ("127.0.0.1:8080:80", vec![port("127.0.0.1", 8080, 80, "")]),
            ("127.0.0.1::80", vec![port("127.0.0.1", 0, 80, "")]),
            ("[::1]:8080:80", vec![port("::1", 8080, 80, "")]),
            ("8080-8081:80-81", vec![port("", 8080, 80, ""), port("", 8081, 81, "")]),
            ("80-81/udp", vec![port("", 0, 80, "udp"), port("", 0, 81, "udp")]),
        ] {
            assert_eq!(port_range(text), Ok(is), "{text}");
        }
        for text in [
            "",
            "x",
            "0",
            "80:",
            ":80:",
            "70000:80",
            "80:70000",
            "80/sctp",
            "80-70",
            "8080-8090:80",
            "1-2000",
            "[::1]:80",
            "a]:1:1",
            "+80",
            "80:80:",
        ] {
            assert!(port_range(text).is_err(), "{text}");
        }
    }

    #[test]
    fn volumes_and_devices() {
        let mount = |name: &str, target: &str, read_only| VolumeMount {
            name: name.into(),
            target: target.into(),
            read_only,
        };
        assert_eq!(volume("/data"), Ok(mount("", "/data", false)));
        assert_eq!(volume("v:/data/:ro"), Ok(mount("v", "/data", true)));
        for text in ["", "v", "/a:/b", "./a:/b", "v:b", "v:/b:z", "v:/b:nocopy", "v:/b:ro:x"] {
            assert!(volume(text).is_err(), "{text}");
        }
        let mapping = |host: &str, target: &str, permissions: &str| DeviceMapping {
            host_path: host.into(),
            target: target.into(),
            permissions: permissions.into(),
        };
        assert_eq!(device("/dev/kvm"), Ok(mapping("/dev/kvm", "", "")));
        assert_eq!(device("/dev/kvm:rw"), Ok(mapping("/dev/kvm", "", "rw")));
        assert_eq!(device("/dev/kvm:/dev/x:r"), Ok(mapping("/dev/kvm", "/dev/x", "r")));
        assert!(device("/dev/kvm:/dev/x:z").is_err());
    }
}
