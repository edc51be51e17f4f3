//! What hosts are told and what they read back.

use netloom_model::id::WireId;
use netloom_model::observed as mo;
use netloom_model::slice as ms;
use netloom_model::state::Wanted;

use super::{ConvertError, id, micros, timestamp, words};
use crate::compute::v1 as pc;
use crate::network::v1 as pn;
use crate::v1 as p;

fn wire_id(field: &str, n: u64) -> Result<WireId, ConvertError> {
    WireId::try_from(n).map_err(|e| ConvertError::new(field, e))
}

words!(mo::Source, p::EvidenceSource, "source" { Docker, Ovsdb, Flows, Interfaces, Redirects, Sim, Libvirt });

/// Sources as numbers on the wire.
pub fn told(sources: Vec<mo::Source>) -> Vec<i32> {
    sources.into_iter().map(|s| p::EvidenceSource::from(s).into()).collect()
}

fn read(sources: impl Iterator<Item = p::EvidenceSource>) -> Result<Vec<mo::Source>, ConvertError> {
    sources.map(TryInto::try_into).collect()
}

fn runtimes(
    words: impl Iterator<Item = p::Runtime>,
) -> Result<Vec<netloom_model::state::Runtime>, ConvertError> {
    words.map(TryInto::try_into).collect()
}

// ---- compute

impl From<ms::Instance> for pc::Instance {
    fn from(i: ms::Instance) -> Self {
        pc::Instance {
            uid: i.uid.to_string(),
            lab_uid: i.lab_uid.to_string(),
            lab: i.lab.to_string(),
            name: i.name,
            spec: Some(i.spec.into()),
            runtime: p::Runtime::from(i.runtime).into(),
            wanted: if i.wanted == Wanted::Aside { p::Wanted::Stopped } else { i.wanted.into() }.into(),
            aside: i.wanted == Wanted::Aside,
            interfaces: i.interfaces,
            network: i.network.map(|n| pc::Network { name: n.name, spec: Some(n.spec.into()) }),
            files: i.files.into_iter().map(Into::into).collect(),
            host_entries: i
                .host_entries
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
            spec: i.spec.ok_or_else(|| ConvertError::new("instance.spec", "is not set"))?.try_into()?,
            name: i.name,
            interfaces: i.interfaces,
            network: i.network.map(|n| ms::Network { name: n.name, spec: n.spec.unwrap_or_default().into() }),
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

impl From<ms::Readiness> for pc::Readiness {
    fn from(r: ms::Readiness) -> Self {
        let (command, log_pattern) = match r.check {
            ms::ReadinessCheck::Command(command) => (command, String::new()),
            ms::ReadinessCheck::LogPattern(pattern) => (Vec::new(), pattern),
        };
        pc::Readiness { command, log_pattern, timeout_seconds: r.timeout_seconds }
    }
}

impl TryFrom<pc::Readiness> for ms::Readiness {
    type Error = ConvertError;
    fn try_from(r: pc::Readiness) -> Result<Self, ConvertError> {
        let check = match (r.command.is_empty(), r.log_pattern.is_empty()) {
            (false, true) => ms::ReadinessCheck::Command(r.command),
            (true, false) => ms::ReadinessCheck::LogPattern(r.log_pattern),
            _ => {
                let what = "needs either a command or a log pattern";
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
        })
    }
}

impl From<mo::ComputeInventory> for pc::Inventory {
    fn from(i: mo::ComputeInventory) -> Self {
        pc::Inventory {
            cpu_millis: i.cpu_millis,
            memory_bytes: i.memory_bytes,
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
        }
    }
}

impl TryFrom<pc::Inventory> for mo::ComputeInventory {
    type Error = ConvertError;
    fn try_from(i: pc::Inventory) -> Result<Self, ConvertError> {
        Ok(mo::ComputeInventory {
            cpu_millis: i.cpu_millis,
            memory_bytes: i.memory_bytes,
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
        })
    }
}

// ---- network

impl From<ms::NetworkSlice> for pn::Slice {
    fn from(s: ms::NetworkSlice) -> Self {
        pn::Slice {
            nics: s.nics.into_values().map(Into::into).collect(),
            wires: s.wires.into_values().map(Into::into).collect(),
            segments: s.segments.into_values().map(Into::into).collect(),
        }
    }
}

impl TryFrom<pn::Slice> for ms::NetworkSlice {
    type Error = ConvertError;
    fn try_from(s: pn::Slice) -> Result<Self, ConvertError> {
        let mut slice = ms::NetworkSlice::default();
        for nic in s.nics {
            let nic = ms::Nic::try_from(nic)?;
            slice.nics.insert(nic.wire_id, nic);
        }
        for wire in s.wires {
            let wire = ms::Wire::try_from(wire)?;
            slice.wires.insert(wire.wire_id, wire);
        }
        for segment in s.segments {
            let segment = ms::Segment::try_from(segment)?;
            slice.segments.insert(segment.wire_id, segment);
        }
        Ok(slice)
    }
}

impl From<ms::Nic> for pn::Nic {
    fn from(n: ms::Nic) -> Self {
        pn::Nic {
            wire_id: n.wire_id.get(),
            node_uid: n.node_uid.to_string(),
            guest_name: n.guest_name,
            mac: n.mac,
            mtu: n.mtu,
            addresses: n.addresses,
            lab_uid: n.lab_uid.to_string(),
        }
    }
}

impl TryFrom<pn::Nic> for ms::Nic {
    type Error = ConvertError;
    fn try_from(n: pn::Nic) -> Result<Self, ConvertError> {
        Ok(ms::Nic {
            wire_id: wire_id("nic.wire_id", n.wire_id)?,
            node_uid: id("nic.node_uid", &n.node_uid)?,
            guest_name: n.guest_name,
            mac: n.mac,
            mtu: n.mtu,
            addresses: n.addresses,
            lab_uid: id("nic.lab_uid", &n.lab_uid)?,
        })
    }
}

impl From<ms::WireEnd> for pn::WireEnd {
    fn from(e: ms::WireEnd) -> Self {
        let end = match e {
            ms::WireEnd::Nic(id) => pn::wire_end::End::Nic(id.get()),
            ms::WireEnd::Segment(id) => pn::wire_end::End::Segment(id.get()),
            ms::WireEnd::HostInterface(name) => pn::wire_end::End::HostInterface(name),
            ms::WireEnd::Bridge(name) => pn::wire_end::End::Bridge(name),
            ms::WireEnd::Dummy => pn::wire_end::End::Dummy(true),
        };
        pn::WireEnd { end: Some(end) }
    }
}

fn wire_end(field: &str, e: Option<pn::WireEnd>) -> Result<ms::WireEnd, ConvertError> {
    match e.and_then(|e| e.end) {
        Some(pn::wire_end::End::Nic(n)) => Ok(ms::WireEnd::Nic(wire_id(field, n)?)),
        Some(pn::wire_end::End::Segment(n)) => Ok(ms::WireEnd::Segment(wire_id(field, n)?)),
        Some(pn::wire_end::End::HostInterface(name)) => Ok(ms::WireEnd::HostInterface(name)),
        Some(pn::wire_end::End::Bridge(name)) => Ok(ms::WireEnd::Bridge(name)),
        Some(pn::wire_end::End::Dummy(_)) => Ok(ms::WireEnd::Dummy),
        None => Err(ConvertError::new(field, "is not set")),
    }
}

impl From<ms::Wire> for pn::Wire {
    fn from(w: ms::Wire) -> Self {
        pn::Wire {
            wire_id: w.wire_id.get(),
            a: Some(w.a.into()),
            b: Some(w.b.into()),
            enabled: w.enabled,
            lab_uid: w.lab_uid.to_string(),
            a_to_b: super::spec::impairment(w.a_to_b),
            b_to_a: super::spec::impairment(w.b_to_a),
            plane: super::spec::plane_value(w.plane),
        }
    }
}

impl TryFrom<pn::Wire> for ms::Wire {
    type Error = ConvertError;
    fn try_from(w: pn::Wire) -> Result<Self, ConvertError> {
        Ok(ms::Wire {
            wire_id: wire_id("wire.wire_id", w.wire_id)?,
            a: wire_end("wire.a", w.a)?,
            b: wire_end("wire.b", w.b)?,
            enabled: w.enabled,
            lab_uid: id("wire.lab_uid", &w.lab_uid)?,
            a_to_b: w.a_to_b.unwrap_or_default().into(),
            b_to_a: w.b_to_a.unwrap_or_default().into(),
            plane: super::spec::plane("wire.plane", w.plane)?,
        })
    }
}

impl From<ms::Segment> for pn::Segment {
    fn from(s: ms::Segment) -> Self {
        pn::Segment {
            wire_id: s.wire_id.get(),
            node_uid: s.node_uid.to_string(),
            lab_uid: s.lab_uid.to_string(),
        }
    }
}

impl TryFrom<pn::Segment> for ms::Segment {
    type Error = ConvertError;
    fn try_from(s: pn::Segment) -> Result<Self, ConvertError> {
        Ok(ms::Segment {
            wire_id: wire_id("segment.wire_id", s.wire_id)?,
            node_uid: id("segment.node_uid", &s.node_uid)?,
            lab_uid: id("segment.lab_uid", &s.lab_uid)?,
        })
    }
}

impl From<mo::ObservedNic> for pn::ObservedNic {
    fn from(n: mo::ObservedNic) -> Self {
        pn::ObservedNic {
            wire_id: n.wire_id.get(),
            present: n.present,
            start_id: n.start_id,
            carrier: n.carrier,
            detail: n.detail,
        }
    }
}

impl TryFrom<pn::ObservedNic> for mo::ObservedNic {
    type Error = ConvertError;
    fn try_from(n: pn::ObservedNic) -> Result<Self, ConvertError> {
        Ok(mo::ObservedNic {
            wire_id: wire_id("nic.wire_id", n.wire_id)?,
            present: n.present,
            start_id: n.start_id,
            carrier: n.carrier,
            detail: n.detail,
        })
    }
}

impl From<mo::WireState> for pn::WireState {
    fn from(v: mo::WireState) -> Self {
        match v {
            mo::WireState::Pending => pn::WireState::Pending,
            mo::WireState::Up => pn::WireState::Up,
            mo::WireState::Down => pn::WireState::Down,
            mo::WireState::Failed => pn::WireState::Failed,
            mo::WireState::Unknown => pn::WireState::Unknown,
        }
    }
}

impl From<pn::WireState> for mo::WireState {
    fn from(v: pn::WireState) -> Self {
        match v {
            pn::WireState::Pending => mo::WireState::Pending,
            pn::WireState::Up => mo::WireState::Up,
            pn::WireState::Down => mo::WireState::Down,
            pn::WireState::Failed => mo::WireState::Failed,
            pn::WireState::Unspecified | pn::WireState::Unknown => mo::WireState::Unknown,
        }
    }
}

impl From<mo::ObservedWire> for pn::ObservedWire {
    fn from(w: mo::ObservedWire) -> Self {
        let state = pn::WireState::from(w.state).into();
        let end = match w.end {
            None => pn::End::Unspecified,
            Some(mo::End::A) => pn::End::A,
            Some(mo::End::B) => pn::End::B,
        };
        let (wire_id, end) = (w.wire_id.get(), end.into());
        let (plane, plane_reason) = (w.plane, w.plane_reason);
        let sources = told(w.sources);
        pn::ObservedWire { wire_id, state, detail: w.detail, plane, plane_reason, end, sources }
    }
}

impl TryFrom<pn::ObservedWire> for mo::ObservedWire {
    type Error = ConvertError;
    fn try_from(w: pn::ObservedWire) -> Result<Self, ConvertError> {
        let state = w.state().into();
        let end = match w.end() {
            pn::End::Unspecified => None,
            pn::End::A => Some(mo::End::A),
            pn::End::B => Some(mo::End::B),
        };
        Ok(mo::ObservedWire {
            wire_id: wire_id("wire.wire_id", w.wire_id)?,
            state,
            end,
            sources: read(w.sources())?,
            detail: w.detail,
            plane: w.plane,
            plane_reason: w.plane_reason,
        })
    }
}

impl From<mo::Count> for p::Carried {
    fn from(c: mo::Count) -> Self {
        let most = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        p::Carried { frames: most(c.frames), bytes: most(c.bytes) }
    }
}

impl From<p::Carried> for mo::Count {
    fn from(c: p::Carried) -> Self {
        let least = |n: i64| u64::try_from(n).unwrap_or_default();
        mo::Count { frames: least(c.frames), bytes: least(c.bytes) }
    }
}

impl From<(WireId, mo::Carried)> for pn::WireCarried {
    fn from((wire, c): (WireId, mo::Carried)) -> Self {
        pn::WireCarried { wire_id: wire.get(), a_to_b: Some(c.a_to_b.into()), b_to_a: Some(c.b_to_a.into()) }
    }
}

impl TryFrom<pn::WireCarried> for (WireId, mo::Carried) {
    type Error = ConvertError;
    fn try_from(c: pn::WireCarried) -> Result<Self, ConvertError> {
        let (a_to_b, b_to_a) = (c.a_to_b.unwrap_or_default().into(), c.b_to_a.unwrap_or_default().into());
        Ok((wire_id("carried.wire_id", c.wire_id)?, mo::Carried { a_to_b, b_to_a }))
    }
}

impl From<mo::ObservedSegment> for pn::ObservedSegment {
    fn from(s: mo::ObservedSegment) -> Self {
        let state = pn::WireState::from(s.state).into();
        pn::ObservedSegment { wire_id: s.wire_id.get(), state, detail: s.detail, sources: told(s.sources) }
    }
}

impl TryFrom<pn::ObservedSegment> for mo::ObservedSegment {
    type Error = ConvertError;
    fn try_from(s: pn::ObservedSegment) -> Result<Self, ConvertError> {
        Ok(mo::ObservedSegment {
            wire_id: wire_id("segment.wire_id", s.wire_id)?,
            state: s.state().into(),
            sources: read(s.sources())?,
            detail: s.detail,
        })
    }
}

impl From<mo::NetworkInventory> for pn::Inventory {
    fn from(i: mo::NetworkInventory) -> Self {
        pn::Inventory {
            datapath: i.datapath,
            ovs_version: i.ovs_version,
            problems: i.problems,
            impairments: i.impairments,
            host_interfaces: i.host_interfaces,
            plane: i.plane,
            plane_reason: i.plane_reason,
        }
    }
}

impl From<pn::Inventory> for mo::NetworkInventory {
    fn from(i: pn::Inventory) -> Self {
        mo::NetworkInventory {
            datapath: i.datapath,
            ovs_version: i.ovs_version,
            problems: i.problems,
            impairments: i.impairments,
            host_interfaces: i.host_interfaces,
            plane: i.plane,
            plane_reason: i.plane_reason,
        }
    }
}
