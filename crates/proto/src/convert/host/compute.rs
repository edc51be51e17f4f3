//! Instances.

use std::num::NonZeroU16;

use netloom_model::observed as mo;
use netloom_model::slice as ms;
use netloom_model::spec::NodeSpec;
use netloom_model::state::Wanted;

use super::{read, told, wire_id};
use crate::compute::v1 as pc;
use crate::convert::{ConvertError, id, micros, timestamp};
use crate::v1 as p;

fn runtimes(
    words: impl Iterator<Item = p::Runtime>,
) -> Result<Vec<netloom_model::state::Runtime>, ConvertError> {
    words.map(TryInto::try_into).collect()
}

impl From<ms::Instance> for pc::Instance {
    fn from(i: ms::Instance) -> Self {
        pc::Instance {
            uid: i.uid.to_string(),
            lab_uid: i.lab_uid.to_string(),
            lab: i.lab.to_string(),
            name: i.name,
            spec: Some(i.spec.into_inner().into()),
            runtime: p::Runtime::from(i.runtime).into(),
            wanted: if i.wanted == Wanted::Aside { p::Wanted::Stopped } else { i.wanted.into() }.into(),
            aside: i.wanted == Wanted::Aside,
            interfaces: i.interfaces,
            network: i.network.map(|n| pc::Network {
                name: n.name,
                spec: Some(n.spec.into()),
                fixed: n.fixed,
                fixed_of_machines: n.fixed_of_machines,
            }),
            files: i.files.into_iter().map(Into::into).collect(),
            host_entries: i
                .host_entries
                .into_inner()
                .into_iter()
                .map(|e| pc::HostEntry { address: e.address, names: e.names })
                .collect(),
            spec_hash: i.spec_hash,
            restarts: i.restarts,
            held: i.held,
            certificate: i.certificate.map(|c| pc::Certificate {
                certificate_pem: c.certificate_pem,
                key_pem: c.key_pem,
                authority_pem: c.authority_pem,
            }),
            network_of: i.network_of.map(|uid| uid.to_string()).unwrap_or_default(),
            readiness: i.readiness.map(Into::into),
            nics: i.nics.into_iter().map(Into::into).collect(),
            image_digest: i.image_digest,
            wipes: i.wipes,
            restore: i.restore,
            lease: i.lease.map(Into::into),
            disk_of: i.disk_of.map(|uid| uid.to_string()).unwrap_or_default(),
        }
    }
}

impl TryFrom<pc::Instance> for ms::Instance {
    type Error = ConvertError;
    fn try_from(i: pc::Instance) -> Result<Self, ConvertError> {
        Ok(ms::Instance {
            uid: id("instance.uid", &i.uid)?,
            lab_uid: id("instance.lab_uid", &i.lab_uid)?,
            lab: id("instance.lab", &i.lab)?,
            runtime: i.runtime().try_into()?,
            wanted: if i.aside { Wanted::Aside } else { i.wanted().try_into()? },
            spec: NodeSpec::try_from(
                i.spec.ok_or_else(|| ConvertError::new("instance.spec", "is not set"))?,
            )?
            .into(),
            name: i.name,
            interfaces: i.interfaces,
            network: i.network.map(|n| ms::Network {
                name: n.name,
                spec: n.spec.unwrap_or_default().into(),
                fixed: n.fixed,
                fixed_of_machines: n.fixed_of_machines,
            }),
            files: i.files.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            host_entries: i
                .host_entries
                .into_iter()
                .map(|e| ms::HostEntry { address: e.address, names: e.names })
                .collect(),
            spec_hash: i.spec_hash,
            restarts: i.restarts,
            held: i.held,
            certificate: i.certificate.map(|c| ms::Certificate {
                certificate_pem: c.certificate_pem,
                key_pem: c.key_pem,
                authority_pem: c.authority_pem,
            }),
            network_of: match i.network_of.as_str() {
                "" => None,
                uid => Some(id("instance.network_of", uid)?),
            },
            readiness: i.readiness.map(TryInto::try_into).transpose()?,
            nics: i.nics.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            image_digest: i.image_digest,
            wipes: i.wipes,
            restore: i.restore,
            lease: i.lease.and_then(lease),
            disk_of: match i.disk_of.as_str() {
                "" => None,
                uid => Some(id("instance.disk_of", uid)?),
            },
        })
    }
}

impl From<ms::MachineNic> for pc::MachineNic {
    fn from(n: ms::MachineNic) -> Self {
        pc::MachineNic {
            wire_id: n.wire_id.get(),
            guest_name: n.guest_name,
            mac: n.mac,
            mtu: n.mtu,
            addresses: n.addresses,
        }
    }
}

impl TryFrom<pc::MachineNic> for ms::MachineNic {
    type Error = ConvertError;
    fn try_from(n: pc::MachineNic) -> Result<Self, ConvertError> {
        let wire_id = wire_id("instance.nics.wire_id", n.wire_id)?;
        Ok(ms::MachineNic {
            wire_id,
            guest_name: n.guest_name,
            mac: n.mac,
            mtu: n.mtu,
            addresses: n.addresses,
        })
    }
}

impl From<ms::Lease> for pc::Lease {
    fn from(l: ms::Lease) -> Self {
        pc::Lease { seconds: l.seconds, generation: l.generation }
    }
}

fn lease(l: pc::Lease) -> Option<ms::Lease> {
    (l.seconds > 0).then_some(ms::Lease { seconds: l.seconds, generation: l.generation })
}

impl From<ms::Readiness> for pc::Readiness {
    fn from(r: ms::Readiness) -> Self {
        let mut told = pc::Readiness { timeout_seconds: r.timeout_seconds, ..pc::Readiness::default() };
        match r.check {
            ms::ReadinessCheck::Command(command) => told.command = command,
            ms::ReadinessCheck::LogPattern(pattern) => told.log_pattern = pattern,
            ms::ReadinessCheck::TcpPort(port) => told.tcp_port = port.get().into(),
        }
        told
    }
}

impl TryFrom<pc::Readiness> for ms::Readiness {
    type Error = ConvertError;
    fn try_from(r: pc::Readiness) -> Result<Self, ConvertError> {
        let port = u16::try_from(r.tcp_port).ok().and_then(NonZeroU16::new);
        let check = match (r.command.is_empty(), r.log_pattern.is_empty(), r.tcp_port, port) {
            (false, true, 0, _) => ms::ReadinessCheck::Command(r.command),
            (true, false, 0, _) => ms::ReadinessCheck::LogPattern(r.log_pattern),
            (true, true, _, Some(port)) => ms::ReadinessCheck::TcpPort(port),
            _ => {
                let what =
                    "needs a command, a log pattern or a TCP port from 1 to 65535, and one of them only";
                return Err(ConvertError::new("instance.readiness", what));
            }
        };
        Ok(ms::Readiness { check, timeout_seconds: r.timeout_seconds })
    }
}

impl From<mo::Phase> for pc::Phase {
    fn from(v: mo::Phase) -> Self {
        match v {
            mo::Phase::Absent => pc::Phase::Absent,
            mo::Phase::Creating => pc::Phase::Creating,
            mo::Phase::Starting => pc::Phase::Starting,
            mo::Phase::Running => pc::Phase::Running,
            mo::Phase::Stopping => pc::Phase::Stopping,
            mo::Phase::Stopped => pc::Phase::Stopped,
            mo::Phase::Aside => pc::Phase::Aside,
            mo::Phase::Failed => pc::Phase::Failed,
            mo::Phase::Unknown => pc::Phase::Unknown,
        }
    }
}

impl From<pc::Phase> for mo::Phase {
    fn from(v: pc::Phase) -> Self {
        match v {
            pc::Phase::Absent => mo::Phase::Absent,
            pc::Phase::Creating => mo::Phase::Creating,
            pc::Phase::Starting => mo::Phase::Starting,
            pc::Phase::Running => mo::Phase::Running,
            pc::Phase::Stopping => mo::Phase::Stopping,
            pc::Phase::Stopped => mo::Phase::Stopped,
            pc::Phase::Aside => mo::Phase::Aside,
            pc::Phase::Failed => mo::Phase::Failed,
            pc::Phase::Unspecified | pc::Phase::Unknown => mo::Phase::Unknown,
        }
    }
}

impl From<mo::ExecPhase> for pc::ExecPhase {
    fn from(v: mo::ExecPhase) -> Self {
        match v {
            mo::ExecPhase::None => pc::ExecPhase::Unspecified,
            mo::ExecPhase::Waiting => pc::ExecPhase::Waiting,
            mo::ExecPhase::Running => pc::ExecPhase::Running,
            mo::ExecPhase::Done => pc::ExecPhase::Done,
            mo::ExecPhase::Failed => pc::ExecPhase::Failed,
        }
    }
}

impl From<pc::ExecPhase> for mo::ExecPhase {
    fn from(v: pc::ExecPhase) -> Self {
        match v {
            pc::ExecPhase::Unspecified => mo::ExecPhase::None,
            pc::ExecPhase::Waiting => mo::ExecPhase::Waiting,
            pc::ExecPhase::Running => mo::ExecPhase::Running,
            pc::ExecPhase::Done => mo::ExecPhase::Done,
            pc::ExecPhase::Failed => mo::ExecPhase::Failed,
        }
    }
}

impl From<mo::Observed> for pc::Observed {
    fn from(o: mo::Observed) -> Self {
        pc::Observed {
            uid: o.uid.to_string(),
            lab_uid: o.lab_uid.to_string(),
            phase: pc::Phase::from(o.phase).into(),
            start_id: o.start_id,
            spec_hash: o.spec_hash,
            instance_id: o.instance_id,
            image_digest: o.image_digest,
            exit_code: o.exit_code,
            detail: o.detail,
            exec_phase: pc::ExecPhase::from(o.exec_phase).into(),
            exec_error: o.exec_error,
            restart_count: o.restart_count,
            start_time: timestamp(o.start_time_us),
            mgmt_ipv4: o.mgmt_ipv4,
            mgmt_ipv6: o.mgmt_ipv6,
            wanted: o.wanted,
            health: o.health,
            restarts: o.restarts,
            exited: o.exited,
            stages_done: o.stages_done.into_iter().map(Into::into).collect(),
            ports: o.ports.into_iter().map(Into::into).collect(),
            sources: told(o.sources),
            lease: o.lease.map(Into::into),
        }
    }
}

impl From<mo::StagePoint> for pc::StagePoint {
    fn from(s: mo::StagePoint) -> Self {
        pc::StagePoint { stage: p::Stage::from(s.stage).into(), on_exit: s.on_exit }
    }
}

impl TryFrom<pc::StagePoint> for mo::StagePoint {
    type Error = ConvertError;
    fn try_from(s: pc::StagePoint) -> Result<Self, ConvertError> {
        Ok(mo::StagePoint { stage: s.stage().try_into()?, on_exit: s.on_exit })
    }
}

impl TryFrom<pc::Observed> for mo::Observed {
    type Error = ConvertError;
    fn try_from(o: pc::Observed) -> Result<Self, ConvertError> {
        Ok(mo::Observed {
            uid: id("observed.uid", &o.uid)?,
            lab_uid: id("observed.lab_uid", &o.lab_uid)?,
            phase: o.phase().into(),
            exec_phase: o.exec_phase().into(),
            sources: read(o.sources())?,
            start_id: o.start_id,
            spec_hash: o.spec_hash,
            instance_id: o.instance_id,
            image_digest: o.image_digest,
            exit_code: o.exit_code,
            detail: o.detail,
            exec_error: o.exec_error,
            restart_count: o.restart_count,
            start_time_us: micros(o.start_time),
            mgmt_ipv4: o.mgmt_ipv4,
            mgmt_ipv6: o.mgmt_ipv6,
            wanted: o.wanted,
            health: o.health,
            restarts: o.restarts,
            exited: o.exited,
            stages_done: o.stages_done.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            ports: o.ports.into_iter().map(Into::into).collect(),
            lease: o.lease.and_then(lease),
        })
    }
}

/// What virtual machines run on, and why they are emulated.
pub fn acceleration(of: Option<mo::Acceleration>) -> (p::Acceleration, String) {
    match of {
        None => (p::Acceleration::Unspecified, String::new()),
        Some(mo::Acceleration::Kvm) => (p::Acceleration::Kvm, String::new()),
        Some(mo::Acceleration::Emulated(why)) => (p::Acceleration::Emulated, why),
    }
}

impl From<mo::ComputeInventory> for pc::Inventory {
    fn from(i: mo::ComputeInventory) -> Self {
        let (acceleration, acceleration_reason) = acceleration(i.acceleration);
        pc::Inventory {
            acceleration: acceleration.into(),
            acceleration_reason,
            cpu_millis: i.cpu_millis,
            memory_bytes: i.memory_bytes,
            disk_bytes: i.disk_bytes,
            runtimes: i.runtimes.into_iter().map(|r| p::Runtime::from(r).into()).collect(),
            runtime_versions: i.runtime_versions,
            problems: i.problems,
            host_path_roots: i.host_path_roots,
            architecture: i.architecture,
            allowed_devices: i.allowed_devices,
            host_network: i.host_network,
            allowed_security_opts: i.allowed_security_opts,
            allowed_capabilities: i.allowed_capabilities,
            missing_runtimes: i.missing_runtimes,
            lost_images: i.lost_images.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<pc::Inventory> for mo::ComputeInventory {
    type Error = ConvertError;
    fn try_from(i: pc::Inventory) -> Result<Self, ConvertError> {
        Ok(mo::ComputeInventory {
            acceleration: match i.acceleration() {
                p::Acceleration::Unspecified => None,
                p::Acceleration::Kvm => Some(mo::Acceleration::Kvm),
                p::Acceleration::Emulated => Some(mo::Acceleration::Emulated(i.acceleration_reason.clone())),
            },
            cpu_millis: i.cpu_millis,
            memory_bytes: i.memory_bytes,
            disk_bytes: i.disk_bytes,
            runtimes: runtimes(i.runtimes())?,
            runtime_versions: i.runtime_versions,
            problems: i.problems,
            host_path_roots: i.host_path_roots,
            architecture: i.architecture,
            allowed_devices: i.allowed_devices,
            host_network: i.host_network,
            allowed_security_opts: i.allowed_security_opts,
            allowed_capabilities: i.allowed_capabilities,
            missing_runtimes: i.missing_runtimes,
            lost_images: i
                .lost_images
                .into_iter()
                .map(|text| text.try_into().map_err(|e| ConvertError::new("inventory.lost_images", e)))
                .collect::<Result<_, _>>()?,
        })
    }
}
