//! NICs, wires and segments.

use netloom_model::id::WireId;
use netloom_model::observed as mo;
use netloom_model::slice as ms;

use super::{read, told, wire_id};
use crate::convert::{ConvertError, id};
use crate::network::v1 as pn;
use crate::v1 as p;

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
            ms::WireEnd::Tunnel(ms::Tunnel { remote, vni, remote_up }) => {
                pn::wire_end::End::Tunnel(pn::Tunnel { remote_address: remote.to_string(), vni, remote_up })
            }
        };
        pn::WireEnd { end: Some(end) }
    }
}

fn address(field: &str, text: &str) -> Result<std::net::IpAddr, ConvertError> {
    text.parse().map_err(|_| ConvertError::new(field, "is not an IP address"))
}

fn wire_end(field: &str, e: Option<pn::WireEnd>) -> Result<ms::WireEnd, ConvertError> {
    match e.and_then(|e| e.end) {
        Some(pn::wire_end::End::Nic(n)) => Ok(ms::WireEnd::Nic(wire_id(field, n)?)),
        Some(pn::wire_end::End::Segment(n)) => Ok(ms::WireEnd::Segment(wire_id(field, n)?)),
        Some(pn::wire_end::End::HostInterface(name)) => Ok(ms::WireEnd::HostInterface(name)),
        Some(pn::wire_end::End::Bridge(name)) => Ok(ms::WireEnd::Bridge(name)),
        Some(pn::wire_end::End::Dummy(_)) => Ok(ms::WireEnd::Dummy),
        Some(pn::wire_end::End::Tunnel(t)) => {
            let remote = address(field, &t.remote_address)?;
            if !(1..=ms::VNI_MAX).contains(&t.vni) {
                return Err(ConvertError::new(field, "has a VNI that is not 1 to 16777215"));
            }
            Ok(ms::WireEnd::Tunnel(ms::Tunnel { remote, vni: t.vni, remote_up: t.remote_up }))
        }
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
            a_to_b: crate::convert::spec::impairment(w.a_to_b),
            b_to_a: crate::convert::spec::impairment(w.b_to_a),
            plane: crate::convert::spec::plane_value(w.plane),
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
            plane: crate::convert::spec::plane("wire.plane", w.plane)?,
        })
    }
}

impl From<ms::Segment> for pn::Segment {
    fn from(s: ms::Segment) -> Self {
        pn::Segment {
            wire_id: s.wire_id.get(),
            node_uid: s.node_uid.to_string(),
            lab_uid: s.lab_uid.to_string(),
            uplink: s.uplink,
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
            uplink: s.uplink,
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
            alive: n.alive,
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
            alive: n.alive,
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
            underlay: i.underlay.map(|u| pn::Underlay {
                address: u.address.to_string(),
                port: u.port.into(),
                mtu: u.mtu,
            }),
            paths: i.paths.iter().cloned().map(Into::into).collect(),
            uplinks: i.uplinks.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<mo::Uplink> for p::HostUplink {
    fn from(u: mo::Uplink) -> Self {
        let kind = match u.kind {
            None => p::UplinkKind::Unspecified,
            Some(mo::UplinkKind::Nic) => p::UplinkKind::Nic,
            Some(mo::UplinkKind::Bridge) => p::UplinkKind::Bridge,
            Some(mo::UplinkKind::OvsBridge) => p::UplinkKind::OvsBridge,
        };
        p::HostUplink { interface: u.interface, kind: kind.into(), problem: u.problem }
    }
}

impl From<p::HostUplink> for mo::Uplink {
    fn from(u: p::HostUplink) -> Self {
        let kind = match u.kind() {
            p::UplinkKind::Unspecified => None,
            p::UplinkKind::Nic => Some(mo::UplinkKind::Nic),
            p::UplinkKind::Bridge => Some(mo::UplinkKind::Bridge),
            p::UplinkKind::OvsBridge => Some(mo::UplinkKind::OvsBridge),
        };
        mo::Uplink { interface: u.interface, kind, problem: u.problem }
    }
}

impl From<mo::PathMtu> for pn::PathMtu {
    fn from(p: mo::PathMtu) -> Self {
        pn::PathMtu { address: p.address.to_string(), mtu: p.mtu.unwrap_or_default(), problem: p.problem }
    }
}

/// One that cannot be read is none.
fn path(p: pn::PathMtu) -> Option<mo::PathMtu> {
    let mtu = (p.mtu > 0).then_some(p.mtu);
    Some(mo::PathMtu { address: p.address.parse().ok()?, mtu, problem: p.problem })
}

/// One that cannot be read is none.
fn underlay(u: pn::Underlay) -> Option<mo::Underlay> {
    Some(mo::Underlay { address: u.address.parse().ok()?, port: u.port.try_into().ok()?, mtu: u.mtu })
}

impl From<pn::Inventory> for mo::NetworkInventory {
    fn from(i: pn::Inventory) -> Self {
        let mut paths: Vec<mo::PathMtu> = i.paths.into_iter().filter_map(path).collect();
        paths.sort_by_key(|path| path.address);
        mo::NetworkInventory {
            datapath: i.datapath,
            ovs_version: i.ovs_version,
            problems: i.problems,
            impairments: i.impairments,
            host_interfaces: i.host_interfaces,
            plane: i.plane,
            plane_reason: i.plane_reason,
            underlay: i.underlay.and_then(underlay),
            paths: paths.into(),
            uplinks: i.uplinks.into_iter().map(Into::into).collect(),
        }
    }
}
