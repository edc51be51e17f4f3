//! The one view: every public message about a lab, node, link, host, image, kind or operation is built here and nowhere else.
//!
//! The scheduler answers with facts; counts and states are computed from them by `netloom_model::tally`. Get, List, Create, Update, Watch and the results of
//! operations, over gRPC and over HTTP, all come through this module, so that no two of them can differ.

use std::time::SystemTime;

use netloom_api::v1;
use netloom_model::id::{LabId, NodeId};
use netloom_model::kind::{CommandLine, Console, Ends, Kind, Readiness, Save, Startup, Vm};
use netloom_model::spec::LinkSpec;
use netloom_model::state::{self, LabState, Wanted};
use netloom_model::tally;
use netloom_proto::compute::v1 as pc;
use netloom_proto::convert::ConvertError;
use netloom_proto::scheduler::v1 as ps;
use netloom_topology::{Diagnostic, Severity};
use prost_types::Timestamp;

use crate::error::Error;
use crate::{etag, names};

mod image;

pub use image::{garbage, image, image_check, pull_progress, upload};

/// A lab.
///
/// Computed: `node_count` to `up_link_count` are sums over the tallies; `state` and `state_reason` are the first rule of [`tally::lab_state`] that holds;
/// `reconciling` is true unless the state is RUNNING or STOPPED; `etag` is made of the uid and the generation.
pub fn lab(facts: ps::LabFacts) -> Result<v1::Lab, Error> {
    let wanted: Wanted = facts.wanted().try_into().map_err(scheduler_facts)?;
    let nodes = node_tallies(&facts.node_tallies)?;
    let links = facts.link_tallies.iter().map(|t| (*t).try_into()).collect::<Result<Vec<_>, _>>();
    let links = links.map_err(scheduler_facts)?;
    let counts = tally::counts(&nodes, &links);
    let (state, state_reason) = tally::lab_state(&nodes, &links, wanted, !facts.operation.is_empty());
    Ok(v1::Lab {
        name: names::lab(&facts.id),
        etag: etag::of(&facts.uid, &facts.generation.to_string()),
        uid: facts.uid,
        spec: facts.spec,
        state: v1::LabState::from(state).into(),
        state_reason,
        node_count: int(counts.nodes),
        running_count: int(counts.running),
        ready_count: int(counts.ready),
        failed_count: int(counts.failed),
        unknown_count: int(counts.unknown),
        container_count: int(counts.containers),
        vm_count: int(counts.vms),
        bridge_count: int(counts.bridges),
        link_count: int(counts.links),
        up_link_count: int(counts.up_links),
        reconciling: !matches!(state, LabState::Running | LabState::Stopped),
        operation: names::optional(names::operation, &facts.operation),
        generation: i64::try_from(facts.generation).unwrap_or(i64::MAX),
        create_time: facts.create_time,
        update_time: facts.update_time,
        observe_time: facts.observe_time,
    })
}

/// The time that is so many nanoseconds after 1970; none for 0.
pub fn time_of(ns: i64) -> Option<Timestamp> {
    let nanos = i32::try_from(ns.rem_euclid(1_000_000_000)).ok()?;
    (ns != 0).then_some(Timestamp { seconds: ns.div_euclid(1_000_000_000), nanos })
}

/// A snapshot of a node.
pub fn snapshot(lab: &LabId, node: &NodeId, of: pc::DiskSnapshot) -> v1::Snapshot {
    v1::Snapshot {
        name: names::snapshot(lab.as_str(), node.as_str(), &of.id),
        create_time: time_of(of.taken_ns),
        size_bytes: i64::try_from(of.size_bytes).unwrap_or(i64::MAX),
        has_memory: of.has_memory,
    }
}

/// A node.
///
/// Computed: `etag` is made of the uid and the hash of the spec; `rejections` are shown only while UNSCHEDULABLE. Kind, image and requests are those
/// of the resolved spec. `state_reason` of one that boots says for how long.
pub fn node(facts: ps::NodeFacts) -> v1::Node {
    let spec = facts.spec.clone().unwrap_or_default();
    let unschedulable = facts.state() == v1::NodeState::Unschedulable;
    v1::Node {
        name: names::node(&facts.lab, &spec.id),
        etag: etag::of(&facts.uid, &facts.spec_hash),
        kind: spec.kind,
        image: spec.image,
        image_digest: facts.image_digest,
        runtime: facts.runtime,
        host: names::optional(names::host, &facts.host),
        wanted: facts.wanted,
        state: facts.state,
        state_reason: match &facts.boot {
            Some(boot) => booting(boot),
            None => facts.reason,
        },
        boot: facts.boot,
        instance_name: facts.instance_name,
        restart_count: int(facts.restart_count),
        exit_code: facts.exit_code,
        interfaces: facts.interfaces.into_iter().map(|i| interface(&facts.lab, i)).collect(),
        mgmt_ipv4: facts.mgmt_ipv4,
        mgmt_ipv6: facts.mgmt_ipv6,
        cpu_request_millis: int(spec.cpu_request_millis),
        memory_request_bytes: long(spec.memory_request_bytes),
        disk_request_bytes: long(spec.disk_request_bytes),
        start_time: facts.start_time,
        create_time: facts.create_time,
        update_time: facts.update_time,
        observe_time: facts.observe_time,
        rejections: if unschedulable { facts.rejections } else { Vec::new() },
        exec_error: facts.exec_error,
        health: facts.health,
        labels: spec.labels,
        group: spec.group,
        uplink: spec.uplink,
        uid: facts.uid,
        evidence: facts.sources,
    }
}

/// For how long it boots, now.
fn booting(boot: &v1::Boot) -> String {
    let now = Timestamp::from(SystemTime::now()).seconds;
    state::booting(now - boot.start_time.map_or(now, |at| at.seconds), boot.limit_seconds)
}

fn interface(lab: &str, facts: ps::InterfaceFacts) -> v1::Interface {
    v1::Interface {
        name: facts.name,
        guest_name: facts.guest_name,
        mac: facts.mac,
        mtu: int(facts.mtu),
        addresses: facts.addresses,
        link: if facts.link.is_empty() { String::new() } else { names::link(lab, &facts.link) },
        present: facts.present,
        carrier: facts.carrier,
    }
}

/// A node's running configuration, as a command printed it.
///
/// Computed: `method` is the command as a shell would be told it.
pub fn node_config(
    lab: &LabId,
    node: &NodeId,
    content: Vec<u8>,
    command: &[String],
    read_time: SystemTime,
) -> v1::NodeConfig {
    let name = names::node(lab.as_str(), node.as_str());
    v1::NodeConfig { name, content, method: command_line(command), read_time: Some(read_time.into()) }
}

/// A command as a shell would be told it.
pub fn command_line(words: &[String]) -> String {
    let plain =
        |w: &str| !w.is_empty() && w.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./:=,@+%".contains(&b));
    let word = |w: &String| if plain(w) { w.clone() } else { format!("'{}'", w.replace('\'', "'\\''")) };
    words.iter().map(word).collect::<Vec<String>>().join(" ")
}

/// A link.
///
/// Computed: `mtu` is the one that its interfaces are given, or the one asked for while there are none; `etag` is made of the uid and a hash of the spec.
pub fn link(facts: ps::LinkFacts) -> v1::Link {
    let spec = facts.spec.unwrap_or_default();
    let typed = LinkSpec::from(spec.clone());
    v1::Link {
        name: names::link(&facts.lab, &facts.id),
        etag: etag::of(&facts.uid, &typed.version()),
        uid: facts.uid,
        a: spec.a,
        b: spec.b,
        mtu: int(if facts.mtu == 0 { typed.effective_mtu() } else { facts.mtu }),
        state: facts.state,
        state_reason: facts.reason,
        plane: facts.plane,
        plane_reason: facts.plane_reason,
        carried_a_to_b: facts.carried_a_to_b,
        carried_b_to_a: facts.carried_b_to_a,
        labels: spec.labels,
        create_time: facts.create_time,
        update_time: facts.update_time,
        observe_time: facts.observe_time,
        enabled: facts.enabled,
        a_to_b: spec.a_to_b,
        b_to_a: spec.b_to_a,
        evidence: facts.sources,
    }
}

/// A host.
///
/// Computed: `state` is UNKNOWN when it is not heard of, DEGRADED when it tells of problems, else ONLINE, and `state_reason` says why; `node_count` and
/// `running_count` are sums over its tallies.
pub fn host(facts: ps::HostFacts) -> Result<v1::Host, Error> {
    let counts = tally::counts(&node_tallies(&facts.node_tallies)?, &[]);
    let (state, state_reason) = match (facts.heard, facts.problems.is_empty()) {
        (false, _) => {
            (v1::HostState::Unknown, "it has not been heard of; see whether its services run".to_owned())
        }
        (true, false) => (v1::HostState::Degraded, facts.problems.join("; ")),
        (true, true) => (v1::HostState::Online, String::new()),
    };
    Ok(v1::Host {
        name: names::host(&facts.id),
        uid: facts.uid,
        state: state.into(),
        state_reason,
        cpu_total_millis: long(facts.cpu_millis),
        cpu_reserved_millis: long(facts.cpu_reserved_millis),
        cpu_overcommit: facts.cpu_overcommit,
        memory_total_bytes: long(facts.memory_bytes),
        memory_reserved_bytes: long(facts.memory_reserved_bytes),
        memory_overcommit: facts.memory_overcommit,
        disk_total_bytes: facts.disk_bytes.map(long),
        disk_reserved_bytes: long(facts.disk_reserved_bytes),
        disk_overcommit: facts.disk_overcommit,
        taints: facts.taints,
        system_cpu_millis: long(facts.system_cpu_millis),
        system_memory_bytes: long(facts.system_memory_bytes),
        system_disk_bytes: long(facts.system_disk_bytes),
        runtimes: facts.runtimes,
        runtime_versions: facts.runtime_versions,
        missing_runtimes: facts.missing_runtimes,
        datapath: facts.datapath,
        ovs_version: facts.ovs_version,
        plane: facts.plane,
        plane_reason: facts.plane_reason,
        node_count: int(counts.nodes),
        running_count: int(counts.running),
        observe_time: facts.observe_time,
        cordoned: facts.cordoned,
        drain: facts.drain,
        staying: facts.staying,
        paths: facts.paths,
        uplinks: facts.uplinks,
        acceleration: facts.acceleration,
        acceleration_reason: facts.acceleration_reason,
        labels: facts.labels,
        address: facts.address,
        certificate_serial: facts.certificate_serial,
        certificate_expire_time: facts.certificate_expire_time,
    })
}

/// A kind of the catalogue.
///
/// Computed: `interfaces.first_name` and `last_name` are what its naming makes of the first and the last index.
pub fn kind(kind: &Kind) -> v1::Kind {
    let ports = &kind.interfaces;
    let name = |index: Option<u32>| index.and_then(|i| ports.vendor_name(i)).unwrap_or_default();
    let bridge = ports.is_any();
    v1::Kind {
        name: names::kind(&kind.name),
        description: kind.description.clone(),
        aliases: kind.aliases.clone(),
        runtime: v1::Runtime::from(kind.runtime).into(),
        image: kind.image.clone(),
        interface_pattern: ports.pattern.clone(),
        first_interface: ports.first,
        max_interfaces: ports.max,
        cpu_request_millis: kind.resources.cpu_request_millis,
        memory_request_bytes: kind.resources.memory_request_mib << 20,
        disk_request_bytes: kind.disk_request_bytes(),
        cap_add: kind.container.cap_add.clone(),
        verified: kind.verified,
        source: kind.source.clone(),
        limitation: kind.limitation.clone(),
        vendor: kind.vendor.clone(),
        shell: kind.shell.clone(),
        interfaces: Some(v1::Interfaces {
            first_name: name(Some(0)),
            last_name: name(ports.max.checked_sub(1)),
            other_patterns: ports.also.clone(),
            ignore_case: ports.ignore_case,
            step: if bridge { 0 } else { ports.step },
            ports_per_slot: ports.ports_per_slot,
            first_slot: ports.first_slot,
        }),
        management: Some(v1::Management {
            name: if bridge { String::new() } else { ports.management.clone() },
            reserved: ports.reserved.clone(),
        }),
        sysctls: kind.container.sysctls.clone().into_iter().collect(),
        env: kind.container.env.clone().into_iter().collect(),
        cmd: kind.container.cmd.clone(),
        vm: kind.vm.as_ref().map(vm),
        readiness: Some(readiness(&kind.readiness)),
        console: Some(console(&kind.console)),
        config_in: Some(config_in(&kind.config.startup)),
        config_out: Some(config_out(&kind.config.save)),
        command_line: kind.command_line.as_ref().map(typed),
        license_path: kind.config.license.clone(),
        as_machine: kind.as_machine().map(|machine| v1::AsMachine {
            cpu_request_millis: machine.resources.cpu_request_millis,
            memory_request_bytes: machine.resources.memory_request_mib << 20,
            disk_request_bytes: machine.disk_request_bytes(),
            vm: machine.vm.as_ref().map(vm),
            readiness: Some(readiness(&machine.readiness)),
            console: Some(console(&machine.console)),
            config_in: Some(config_in(&machine.config.startup)),
            config_out: Some(config_out(&machine.config.save)),
            command_line: machine.command_line.as_ref().map(typed),
        }),
    }
}

fn vm(vm: &Vm) -> v1::Vm {
    v1::Vm {
        disk_bus: vm.disk_bus.as_str().to_owned(),
        nic_model: vm.nic_model.as_str().to_owned(),
        machine: vm.machine.as_str().to_owned(),
        cpu_mask: vm.cpu_mask.clone(),
        efi: vm.efi,
        serials: vm.serials,
        data_disk_gib: vm.data_disk_gib,
        nic_hotplug: vm.nic_hotplug,
        kvm: v1::KvmNeed::from(vm.kvm).into(),
    }
}

fn readiness(readiness: &Readiness) -> v1::Readiness {
    use v1::ReadinessMethod as Method;
    let (method, pattern, command) = match readiness {
        Readiness::None {} => (Method::None, "", [].as_slice()),
        Readiness::Log { pattern, .. } => (Method::Log, pattern.as_str(), [].as_slice()),
        Readiness::Serial { pattern, .. } => (Method::Serial, pattern.as_str(), [].as_slice()),
        Readiness::Command { command, .. } => (Method::Command, "", command.as_slice()),
        Readiness::Tcp { .. } => (Method::Tcp, "", [].as_slice()),
    };
    v1::Readiness {
        method: method.into(),
        pattern: pattern.to_owned(),
        command: command.to_vec(),
        port: if let Readiness::Tcp { port, .. } = readiness { port.get().into() } else { 0 },
        timeout_seconds: readiness.timeout_s(),
    }
}

fn console(console: &Console) -> v1::Console {
    use v1::ConsoleMethod as Method;
    let (method, port) = match console {
        Console::None {} => (Method::None, 0),
        Console::Exec {} => (Method::Exec, 0),
        Console::Serial {} => (Method::Serial, 0),
        Console::Ssh { port } => (Method::Ssh, port.get()),
        Console::Telnet { port } => (Method::Telnet, port.get()),
    };
    v1::Console { method: method.into(), port: port.into() }
}

/// How commands are typed.
fn typed(line: &CommandLine) -> v1::CommandLine {
    v1::CommandLine {
        has_status: line.ends == Ends::Status,
        login: line.login.clone(),
        password_prompt: line.password_prompt.clone(),
        user: line.user.clone(),
        prompt: line.prompt.clone(),
        setup: line.setup.clone(),
        error: line.error.clone(),
    }
}

fn config_in(startup: &Startup) -> v1::ConfigIn {
    use v1::ConfigInMethod as Method;
    let at = |method: Method, path: &str| v1::ConfigIn {
        method: method.into(),
        path: path.to_owned(),
        ..v1::ConfigIn::default()
    };
    match startup {
        Startup::None {} => at(Method::None, ""),
        Startup::Bind { path } => at(Method::Bind, path),
        Startup::Iso { path } => at(Method::Iso, path),
        Startup::Disk { path, label, archive } => {
            v1::ConfigIn { label: label.clone(), archive: archive.clone(), ..at(Method::Disk, path) }
        }
        Startup::Serial { enter, leave } => {
            v1::ConfigIn { enter: enter.clone(), leave: leave.clone(), ..at(Method::Serial, "") }
        }
        Startup::Nocloud {} => at(Method::Nocloud, ""),
    }
}

fn config_out(save: &Save) -> v1::ConfigOut {
    use v1::ConfigOutMethod as Method;
    let (method, command, path, strip) = match save {
        Save::None {} => (Method::None, [].as_slice(), "", ""),
        Save::Exec { command, strip } => (Method::Exec, command.as_slice(), "", strip.as_str()),
        Save::File { command, path } => (Method::File, command.as_slice(), path.as_str(), ""),
        Save::Serial { command, strip } => (Method::Serial, command.as_slice(), "", strip.as_str()),
    };
    v1::ConfigOut {
        method: method.into(),
        command: command.to_vec(),
        path: path.to_owned(),
        strip: strip.to_owned(),
    }
}

/// An operation, with its lab as it is now and what the topology file's reader had to say.
///
/// Computed: `done` is true in every state but RUNNING; `error` is shown only when FAILED.
pub fn operation(
    facts: ps::OperationFacts,
    lab: Option<v1::Lab>,
    diagnostics: Vec<v1::Diagnostic>,
) -> v1::Operation {
    let failed = facts.state() == v1::OperationState::Failed;
    v1::Operation {
        name: names::optional(names::operation, &facts.id),
        kind: facts.kind,
        lab_name: names::lab(&facts.lab),
        state: facts.state,
        done: is_over(&facts),
        plan: Some(facts.plan.unwrap_or_default()),
        progress: facts.progress,
        error: facts.error.filter(|_| failed),
        lab,
        diagnostics,
        create_time: facts.create_time,
        update_time: facts.update_time,
        end_time: facts.end_time,
    }
}

/// A quota, with what is used of it.
pub fn quota(facts: ps::QuotaFacts) -> v1::Quota {
    v1::Quota {
        name: names::quota(&facts.project),
        nodes: facts.nodes.map(long),
        cpu_millis: facts.cpu_millis.map(long),
        memory_bytes: facts.memory_bytes.map(long),
        disk_bytes: facts.disk_bytes.map(long),
        lab_count: int(facts.lab_count),
        used_nodes: long(facts.used_nodes),
        used_cpu_millis: long(facts.used_cpu_millis),
        used_memory_bytes: long(facts.used_memory_bytes),
        used_disk_bytes: long(facts.used_disk_bytes),
    }
}

/// True when nothing more will come of an operation.
pub fn is_over(facts: &ps::OperationFacts) -> bool {
    !matches!(facts.state(), v1::OperationState::Running | v1::OperationState::Unspecified)
}

/// Something that the reader of topology files had to say.
pub fn diagnostic(d: &Diagnostic) -> v1::Diagnostic {
    let severity = match d.severity {
        Severity::Error => v1::Severity::Error,
        Severity::Warning => v1::Severity::Warning,
        Severity::Info => v1::Severity::Info,
    };
    v1::Diagnostic {
        severity: severity.into(),
        code: d.code.to_owned(),
        file: d.file.clone(),
        line: d.line,
        column: d.column,
        message: d.message.clone(),
    }
}

/// An event of WatchLabs; one that no log has, as in a snapshot, has no time.
pub fn event(
    sequence: u64,
    r#type: v1::WatchEventType,
    object: Option<v1::watch_labs_response::Object>,
    time: Option<Timestamp>,
) -> v1::WatchLabsResponse {
    v1::WatchLabsResponse { sequence, r#type: r#type.into(), object, time }
}

/// The object of an event, as the scheduler tells it.
pub fn event_object(facts: ps::watch_response::Object) -> Result<v1::watch_labs_response::Object, Error> {
    use ps::watch_response::Object as Facts;
    use v1::watch_labs_response::Object;
    Ok(match facts {
        Facts::LabFacts(facts) => Object::Lab(lab(facts)?),
        Facts::Node(facts) => Object::Node(node(facts)),
        Facts::Link(facts) => Object::Link(link(facts)),
        // An event about a lab goes with one about its operation: the lab is not said twice.
        Facts::Operation(facts) => Object::Operation(operation(facts, None, Vec::new())),
    })
}

fn node_tallies(tallies: &[ps::NodeTally]) -> Result<Vec<tally::NodeTally>, Error> {
    tallies.iter().map(|t| (*t).try_into()).collect::<Result<_, _>>().map_err(scheduler_facts)
}

fn scheduler_facts(source: ConvertError) -> Error {
    Error::Facts { service: "the scheduler", source }
}

fn int(n: u32) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

fn long(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_told_as_it_would_be_typed() {
        let words = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<String>>();
        assert_eq!(command_line(&words(&["vtysh", "-c", "show run"])), "vtysh -c 'show run'");
        assert_eq!(command_line(&words(&["echo", "", "it's"])), "echo '' 'it'\\''s'");
    }
}
