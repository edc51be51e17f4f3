//! What a container is made of, from what is wanted: pure.

use std::collections::HashMap;
use std::path::PathBuf;

use bollard::models::{
    ContainerCreateBody, ContainerUpdateBody, DeviceMapping, EndpointIpamConfig, EndpointSettings,
    HealthConfig, HostConfig, HostConfigLogConfig, Mount, MountType, NetworkingConfig, PortBinding, PortMap,
    RestartPolicy, RestartPolicyNameEnum,
};
use netloom_model::id::Owner;
use netloom_model::slice::{self, Instance};
use netloom_model::spec::{Healthcheck, NetworkMode, NodeSpec, PortMapping};

use super::kernel::Kernel;
use super::label;
use crate::driver::Limits;
use crate::error::Error;
use crate::hosts_file::hostname;

/// Where the program that waits for interfaces is inside.
pub(super) const WAIT: &str = "/.netloom/wait";
/// Where it reads their names.
pub(super) const INTERFACES: &str = "/.netloom/interfaces";
/// Where its certificate is.
pub(super) const TLS: &str = "/etc/netloom/tls";
/// Where a published port is open unless an address is named.
pub(super) const LOOPBACK: &str = "127.0.0.1";

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// A path on the host.
    Path(PathBuf),
    /// A volume, by name.
    Volume(String),
}

/// Something of the host's in the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mounted {
    /// On the host.
    pub source: Source,
    /// Inside.
    pub target: String,
    /// Cannot be written.
    pub read_only: bool,
}

/// Which network namespace a container gets.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Network<'a> {
    /// Its own, on the lab's management network.
    Management(&'a slice::Network),
    /// Its own, without one.
    None,
    /// That of the container with this id.
    Shared(&'a str),
    /// The host's.
    Host,
}

/// The network namespace that is asked for; `shares` is the id of the container whose it shares.
pub(super) fn network<'a>(instance: &'a Instance, shares: Option<&'a str>) -> Result<Network<'a>, Error> {
    let network = match (&instance.spec.network_mode, &instance.network, shares) {
        (NetworkMode::Own, Some(network), _) => Network::Management(network),
        (NetworkMode::Own, None, _) | (NetworkMode::None, ..) => Network::None,
        (NetworkMode::Host, ..) => Network::Host,
        (NetworkMode::Node(_), _, Some(id)) if !id.is_empty() => Network::Shared(id),
        (NetworkMode::Node(node), ..) => {
            return Err(Error::Busy(format!("waits for {node}, whose network namespace it shares")));
        }
    };
    if !instance.spec.ports.is_empty() && !matches!(network, Network::Management(_)) {
        return Err(Error::Refused(format!(
            "node {} publishes ports and is on no management network; give the lab `mgmt`, or take the ports away",
            instance.spec.id
        )));
    }
    Ok(network)
}

/// What the first process runs, as Docker puts it together: an entrypoint of one's own drops the image's command.
pub(super) fn program(image_entrypoint: Vec<String>, image_cmd: Vec<String>, spec: &NodeSpec) -> Vec<String> {
    let own_entrypoint = !spec.entrypoint.is_empty();
    let mut program = if own_entrypoint { spec.entrypoint.clone() } else { image_entrypoint };
    if !spec.cmd.is_empty() {
        program.extend_from_slice(&spec.cmd);
    } else if !own_entrypoint {
        program.extend(image_cmd);
    }
    program
}

/// The container's configuration; `image` is what Docker is to make it from.
pub(super) fn body(
    instance: &Instance,
    owner: Owner,
    image: &str,
    network: &Network<'_>,
    program: Vec<String>,
    mounts: Vec<Mounted>,
    kernel: &Kernel,
) -> ContainerCreateBody {
    let spec = &instance.spec;
    let entrypoint = if spec.skip_interface_wait { Vec::new() } else { vec![WAIT.to_owned()] };
    // Without the wait the program is the entrypoint, so that Docker adds nothing of the image's.
    let (entrypoint, cmd) = if entrypoint.is_empty() { (program, Vec::new()) } else { (entrypoint, program) };
    let mut labels: HashMap<String, String> = spec.labels.clone().into_iter().collect();
    labels.extend(
        [
            (label::OWNER, owner.to_string()),
            (label::LAB, instance.lab.to_string()),
            (label::NODE, spec.id.clone()),
            (label::UID, instance.uid.to_string()),
            (label::LAB_UID, instance.lab_uid.to_string()),
            (label::SPEC_HASH, instance.spec_hash.clone()),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    );
    ContainerCreateBody {
        image: Some(image.to_owned()),
        // The host name goes with the namespace: Docker refuses one where another's is shared.
        hostname: (!matches!(network, Network::Shared(_))).then(|| hostname(instance).to_owned()),
        user: some(spec.user.clone()),
        env: Some(spec.env.iter().map(|(name, value)| format!("{name}={value}")).collect()),
        entrypoint: Some(entrypoint),
        cmd: Some(cmd),
        labels: Some(labels),
        network_disabled: Some(*network == Network::None),
        networking_config: match network {
            Network::Management(network) => Some(NetworkingConfig {
                endpoints_config: Some(HashMap::from([(network.name.clone(), endpoint(spec))])),
            }),
            Network::None | Network::Shared(_) | Network::Host => None,
        },
        exposed_ports: some_of(spec.ports.iter().map(port).collect()),
        healthcheck: spec.healthcheck.as_ref().map(healthcheck),
        host_config: Some(host_config(spec, network, mounts, kernel)),
        ..ContainerCreateBody::default()
    }
}

fn host_config(spec: &NodeSpec, network: &Network<'_>, mounts: Vec<Mounted>, kernel: &Kernel) -> HostConfig {
    let limits = update(Limits::of(spec));
    let network_mode = match network {
        Network::Management(network) => network.name.clone(),
        Network::None => "none".to_owned(),
        Network::Shared(id) => format!("container:{id}"),
        Network::Host => "host".to_owned(),
    };
    // Where another's is shared, or Docker makes none, netloom writes what it says of names.
    let dns = spec.dns.as_ref().filter(|_| matches!(network, Network::Management(_) | Network::Host));
    HostConfig {
        restart_policy: Some(RestartPolicy {
            name: Some(RestartPolicyNameEnum::NO),
            maximum_retry_count: None,
        }),
        network_mode: Some(network_mode),
        nano_cpus: limits.nano_cpus,
        memory: limits.memory,
        memory_swap: limits.memory_swap,
        cpuset_cpus: limits.cpuset_cpus,
        cap_add: Some(spec.cap_add.clone()),
        sysctls: Some(sysctls(spec, network, kernel)),
        // None is Docker's default.
        readonly_paths: (*network != Network::Host).then(|| kernel.read_only()),
        tmpfs: (!spec.tmpfs.is_empty()).then(|| spec.tmpfs.clone().into_iter().collect()),
        devices: some_of(spec.devices.iter().map(device).collect()),
        shm_size: i64::try_from(spec.shm_size_bytes).ok().filter(|size| *size > 0),
        security_opt: some_of(spec.security_opts.clone()),
        cgroup_parent: some(spec.cgroup_parent.clone()),
        port_bindings: port_bindings(&spec.ports),
        dns: dns.map(|d| d.servers.clone()),
        dns_search: dns.map(|d| d.search.clone()),
        dns_options: dns.map(|d| d.options.clone()),
        mounts: Some(mounts.into_iter().map(mount).collect()),
        // A node that logs without end does not fill the host's disk.
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".to_owned()),
            config: Some(HashMap::from([
                ("max-size".to_owned(), "16m".to_owned()),
                ("max-file".to_owned(), "2".to_owned()),
            ])),
        }),
        ..HostConfig::default()
    }
}

/// Kernel parameters. Those of a network namespace belong to whoever has it: the kind's are not put on the host's.
fn sysctls(spec: &NodeSpec, network: &Network<'_>, kernel: &Kernel) -> HashMap<String, String> {
    let is_own = |name: &String| *network != Network::Host || !name.starts_with("net.");
    let mut all: HashMap<_, _> = spec.sysctls.clone().into_iter().filter(|(name, _)| is_own(name)).collect();
    // On a network without IPv6 Docker turns it off in the whole namespace, so for the interfaces of links too. They are set in no order, and "all" sets
    // the others too: it never stands beside a "default" that is another.
    if matches!(network, Network::Management(_)) && kernel.has_ipv6 {
        let name = |scope: &str| format!("net.ipv6.conf.{scope}.disable_ipv6");
        let on = || "0".to_owned();
        match (all.get(&name("all")), all.get(&name("default"))) {
            (Some(_), _) => {}
            (None, Some(default)) if *default != on() => drop(all.insert(name("lo"), on())),
            (None, _) => all.extend([(name("all"), on()), (name("default"), on())]),
        }
    }
    all
}

/// Limits as Docker has them, for a container that is made or one that is there; what is not limited is left as it is.
pub(super) fn update(limits: Limits) -> ContainerUpdateBody {
    let positive = |n: u64| i64::try_from(n).ok().filter(|n| *n > 0);
    let memory = positive(limits.memory_bytes);
    ContainerUpdateBody {
        nano_cpus: positive(limits.cpu_millis.saturating_mul(1_000_000)),
        memory,
        // Equal to memory: the limit is not evaded into swap.
        memory_swap: memory,
        cpuset_cpus: some(limits.cpu_set),
        ..ContainerUpdateBody::default()
    }
}

fn device(device: &netloom_model::spec::DeviceMapping) -> DeviceMapping {
    let target = if device.target.is_empty() { &device.host_path } else { &device.target };
    let permissions = if device.permissions.is_empty() { "rwm" } else { &device.permissions };
    DeviceMapping {
        path_on_host: Some(device.host_path.clone()),
        path_in_container: Some(target.clone()),
        cgroup_permissions: Some(permissions.to_owned()),
    }
}

/// "80/tcp".
fn port(port: &PortMapping) -> String {
    let protocol = if port.protocol.is_empty() { "tcp" } else { &port.protocol };
    format!("{}/{protocol}", port.node_port)
}

fn port_bindings(ports: &[PortMapping]) -> Option<PortMap> {
    let mut bindings = PortMap::new();
    for mapping in ports {
        let address = if mapping.host_address.is_empty() { LOOPBACK } else { &mapping.host_address };
        let binding = PortBinding {
            host_ip: Some(address.to_owned()),
            host_port: (mapping.host_port > 0).then(|| mapping.host_port.to_string()),
        };
        bindings.entry(port(mapping)).or_default().get_or_insert_default().push(binding);
    }
    (!bindings.is_empty()).then_some(bindings)
}

/// Docker counts in nanoseconds; 0 is its default.
fn healthcheck(check: &Healthcheck) -> HealthConfig {
    let nanos = |seconds: u32| Some(i64::from(seconds) * 1_000_000_000);
    HealthConfig {
        test: Some(check.test.clone()),
        interval: nanos(check.interval_seconds),
        timeout: nanos(check.timeout_seconds),
        retries: Some(check.retries.into()),
        start_period: nanos(check.start_period_seconds),
        ..HealthConfig::default()
    }
}

fn mount(m: Mounted) -> Mount {
    let (typ, source) = match m.source {
        Source::Path(path) => (MountType::BIND, path.to_string_lossy().into_owned()),
        Source::Volume(name) => (MountType::VOLUME, name),
    };
    Mount {
        typ: Some(typ),
        source: Some(source),
        target: Some(m.target),
        read_only: Some(m.read_only),
        ..Mount::default()
    }
}

/// How a node is on its management network.
pub(super) fn endpoint(spec: &NodeSpec) -> EndpointSettings {
    let (ipv4_address, ipv6_address) = (some(spec.mgmt_ipv4.clone()), some(spec.mgmt_ipv6.clone()));
    let fixed = ipv4_address.is_some() || ipv6_address.is_some();
    EndpointSettings {
        ipam_config: fixed.then_some(EndpointIpamConfig { ipv4_address, ipv6_address, link_local_ips: None }),
        aliases: Some([&spec.id].into_iter().chain(&spec.aliases).cloned().collect()),
        ..EndpointSettings::default()
    }
}

fn some(text: String) -> Option<String> {
    Some(text).filter(|t| !t.is_empty())
}

fn some_of<T>(list: Vec<T>) -> Option<Vec<T>> {
    Some(list).filter(|l| !l.is_empty())
}

#[cfg(test)]
mod tests;
