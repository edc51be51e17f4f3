//! What is read back of a container.

use std::time::Duration;

use bollard::models::{
    ContainerInspectResponse, ContainerState, ContainerStateStatusEnum, HealthStatusEnum, HostConfig, PortMap,
};
use netloom_model::id::Owner;
use netloom_model::spec::PortMapping;

use super::label;
use crate::driver::{Found, Limits, NetworkOf, Process};

/// What a container is to us; none when it is not ours.
pub(super) fn container(owner: Owner, c: ContainerInspectResponse) -> Option<Found> {
    let labels = c.config.and_then(|c| c.labels).unwrap_or_default();
    let text = |name: &str| labels.get(name).cloned().unwrap_or_default();
    if text(label::OWNER) != owner.to_string() {
        return None;
    }
    let id = c.id?;
    let name = c.name.unwrap_or_default();
    let (Ok(uid), Ok(lab_uid)) = (text(label::UID).parse(), text(label::LAB_UID).parse()) else {
        tracing::warn!(
            container = id,
            "a container has our owner label without valid uids; it is left alone"
        );
        return None;
    };
    let state = c.state.unwrap_or_default();
    let (started, finished) = (nanos(state.started_at.as_deref()), nanos(state.finished_at.as_deref()));
    let ran = started.zip(finished).and_then(|(s, f)| f.checked_sub(s)).and_then(|n| u64::try_from(n).ok());
    let process = process(&state);
    let settings = c.network_settings.unwrap_or_default();
    let ports = settings.ports.unwrap_or_default();
    let networks = settings.networks.unwrap_or_default();
    let host = c.host_config.unwrap_or_default();
    let address = |of: fn(&bollard::models::EndpointSettings) -> &Option<String>| {
        networks.values().find_map(|n| of(n).clone().filter(|a| !a.is_empty())).unwrap_or_default()
    };
    Some(Found {
        machine: None,
        uid,
        lab_uid,
        lab: text(label::LAB),
        node: text(label::NODE),
        spec_hash: text(label::SPEC_HASH),
        image_digest: c.image.unwrap_or_default(),
        health: health(&state),
        trouble: String::new(),
        limits: limits(&host),
        ports: port_mappings(ports),
        network: network_of(&host),
        namespace: match process {
            Process::Running { pid: Some(pid) } => namespace(pid),
            _ => None,
        },
        aside: name.ends_with(&aside_suffix(&id)) && !matches!(process, Process::Running { .. }),
        process,
        start_id: started.map(|s| s.to_string()).unwrap_or_default(),
        started_us: started.map_or(0, |s| s / 1_000),
        ran: Duration::from_nanos(ran.unwrap_or_default()),
        mgmt_ipv4: address(|n| &n.ip_address),
        mgmt_ipv6: address(|n| &n.global_ipv6_address),
        networks: networks.into_keys().collect(),
        prepared: false,
        id,
    })
}

/// How the name of a container ends that is set aside. No other container's name does: it holds the container's own id.
pub(super) fn aside_suffix(id: &str) -> String {
    format!(".aside.{}", id.get(..12).unwrap_or(id))
}

fn process(state: &ContainerState) -> Process {
    use ContainerStateStatusEnum as S;
    match state.status.unwrap_or(S::EMPTY) {
        S::CREATED => Process::Created,
        S::RUNNING | S::PAUSED | S::RESTARTING | S::STOPPING => {
            Process::Running { pid: state.pid.and_then(|p| i32::try_from(p).ok()).filter(|p| *p > 0) }
        }
        S::REMOVING => Process::Removing,
        S::EXITED | S::DEAD | S::EMPTY => Process::Ended {
            code: state.exit_code.and_then(|c| i32::try_from(c).ok()).unwrap_or(-1),
            error: state.error.clone().unwrap_or_default(),
        },
    }
}

/// True when it was started at some time.
pub(super) fn has_run(state: &ContainerState) -> bool {
    nanos(state.started_at.as_deref()).is_some()
}

/// Docker's time as nanoseconds since 1970; none for "0001-01-01T00:00:00Z", which means never.
fn nanos(time: Option<&str>) -> Option<i64> {
    let time: jiff::Timestamp = time?.parse().ok()?;
    i64::try_from(time.as_nanosecond()).ok().filter(|n| *n > 0)
}

/// What its health check says; empty without one, or when it does not run.
fn health(state: &ContainerState) -> String {
    use HealthStatusEnum as H;
    let status = state.health.as_ref().and_then(|h| h.status).unwrap_or(H::NONE);
    let word = match status {
        _ if state.running != Some(true) => "",
        H::STARTING => "starting",
        H::HEALTHY => "healthy",
        H::UNHEALTHY => "unhealthy",
        H::NONE | H::EMPTY => "",
    };
    word.to_owned()
}

fn limits(host: &HostConfig) -> Limits {
    let positive = |n: Option<i64>| n.and_then(|n| u64::try_from(n).ok()).unwrap_or_default();
    Limits {
        cpu_millis: positive(host.nano_cpus) / 1_000_000,
        memory_bytes: positive(host.memory),
        cpu_set: host.cpuset_cpus.clone().unwrap_or_default(),
    }
}

fn network_of(host: &HostConfig) -> NetworkOf {
    match host.network_mode.as_deref().unwrap_or_default() {
        "host" => NetworkOf::Host,
        mode => {
            mode.strip_prefix("container:").map_or(NetworkOf::Own, |id| NetworkOf::Instance(id.to_owned()))
        }
    }
}

/// The network namespace of a process, by its inode. None when the process has just ended.
fn namespace(pid: i32) -> Option<u64> {
    use std::os::unix::fs::MetadataExt as _;
    Some(std::fs::metadata(format!("/proc/{pid}/ns/net")).ok()?.ino())
}

/// The host's ports that lead to its own, in order of those.
fn port_mappings(ports: PortMap) -> Vec<PortMapping> {
    let mut mappings = Vec::new();
    for (port, bindings) in ports {
        let (number, protocol) = port.split_once('/').unwrap_or((&port, "tcp"));
        let Ok(node_port) = number.parse() else { continue };
        for binding in bindings.unwrap_or_default() {
            mappings.push(PortMapping {
                host_address: binding.host_ip.unwrap_or_default(),
                host_port: binding.host_port.and_then(|p| p.parse().ok()).unwrap_or_default(),
                node_port,
                protocol: protocol.to_owned(),
            });
        }
    }
    mappings.sort_by(|a, b| {
        let key = |m: &PortMapping| (m.node_port, m.protocol.clone(), m.host_address.clone(), m.host_port);
        key(a).cmp(&key(b))
    });
    mappings
}

#[cfg(test)]
mod tests {
    use super::*;
    use bollard::models::{ContainerConfig, Health, PortBinding};

    fn inspected(owner: Owner, status: ContainerStateStatusEnum) -> ContainerInspectResponse {
        let i = crate::driver::testing::instance();
        let labels = [
            (label::OWNER, owner.to_string()),
            (label::UID, i.uid.to_string()),
            (label::LAB_UID, i.lab_uid.to_string()),
            (label::SPEC_HASH, "h".into()),
        ];
        ContainerInspectResponse {
            id: Some("c1".into()),
            config: Some(ContainerConfig {
                labels: Some(labels.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()),
                ..ContainerConfig::default()
            }),
            state: Some(ContainerState {
                status: Some(status),
                pid: Some(7),
                exit_code: Some(137),
                started_at: Some("2026-11-23T07:39:10.164621777Z".into()),
                finished_at: Some("2026-11-23T07:39:12.164621777Z".into()),
                ..ContainerState::default()
            }),
            ..ContainerInspectResponse::default()
        }
    }

    #[test]
    fn a_container_is_read() {
        let owner = Owner::new();
        let found = container(owner, inspected(owner, ContainerStateStatusEnum::RUNNING)).unwrap();
        assert_eq!(found.process, Process::Running { pid: Some(7) });
        assert_eq!(found.start_id, "1795419550164621777");
        assert_eq!(found.started_us, 1_795_419_550_164_621);
        let found = container(owner, inspected(owner, ContainerStateStatusEnum::EXITED)).unwrap();
        assert_eq!(found.process, Process::Ended { code: 137, error: String::new() });
        assert_eq!(found.ran, Duration::from_secs(2));
        assert_eq!(nanos(Some("0001-01-01T00:00:00Z")), None);
    }

    #[test]
    fn another_owner_is_not_ours() {
        assert!(
            container(Owner::new(), inspected(Owner::new(), ContainerStateStatusEnum::RUNNING)).is_none()
        );
    }

    #[test]
    fn what_it_was_made_with_is_read_back() {
        let owner = Owner::new();
        let mut made = inspected(owner, ContainerStateStatusEnum::RUNNING);
        let plain = container(owner, made.clone()).unwrap();
        assert_eq!(
            (plain.health.as_str(), plain.network, plain.limits),
            ("", NetworkOf::Own, Limits::default())
        );
        made.host_config = Some(HostConfig {
            network_mode: Some("container:c2".into()),
            nano_cpus: Some(1_500_000_000),
            memory: Some(64),
            cpuset_cpus: Some("0".into()),
            ..HostConfig::default()
        });
        let health = Health { status: Some(HealthStatusEnum::HEALTHY), ..Health::default() };
        let state = made.state.as_mut().unwrap();
        (state.health, state.running) = (Some(health), Some(true));
        let binding =
            |ip: &str, port: &str| PortBinding { host_ip: Some(ip.into()), host_port: Some(port.into()) };
        made.network_settings = Some(bollard::models::NetworkSettings {
            ports: Some(PortMap::from([
                ("80/tcp".to_owned(), Some(vec![binding("127.0.0.1", "32768")])),
                ("53/udp".to_owned(), Some(vec![binding("::1", "53")])),
                ("22/tcp".to_owned(), None),
            ])),
            ..Default::default()
        });
        let read = container(owner, made).unwrap();
        assert_eq!((read.health.as_str(), read.network), ("healthy", NetworkOf::Instance("c2".into())));
        let limits = Limits { cpu_millis: 1500, memory_bytes: 64, cpu_set: "0".into() };
        assert_eq!(read.limits, limits);
        let ports: Vec<_> =
            read.ports.iter().map(|p| (p.node_port, p.host_port, p.protocol.as_str())).collect();
        assert_eq!(ports, [(53, 53, "udp"), (80, 32768, "tcp")]);
    }
}
