//! What a host is told to bring about.

use std::sync::atomic::{AtomicU64, Ordering};

use netloom_model::id::{LabUid, NodeUid};
use netloom_proto::network::v1 as pb;

use super::Node;

static NUMBER: AtomicU64 = AtomicU64::new(1);

/// What a host is told to bring about.
#[derive(Default, Clone)]
pub struct Slice(pub pb::Slice);

pub fn number() -> u64 {
    NUMBER.fetch_add(1, Ordering::Relaxed)
}

impl Slice {
    /// A NIC with made-up MAC and no address; gives its wire id.
    pub fn nic(&mut self, node: &Node, name: &str) -> u64 {
        let wire_id = number();
        let mac = format!("02:00:00:00:{:02x}:{:02x}", wire_id >> 8 & 255, wire_id & 255);
        self.nic_as(node, name, &mac, &[])
    }

    pub fn nic_as(&mut self, node: &Node, name: &str, mac: &str, addresses: &[&str]) -> u64 {
        let wire_id = number();
        self.0.nics.push(pb::Nic {
            wire_id,
            node_uid: node.uid.to_string(),
            guest_name: name.to_owned(),
            mac: mac.to_owned(),
            mtu: 9500,
            addresses: addresses.iter().map(|a| (*a).to_owned()).collect(),
            lab_uid: LabUid::new().to_string(),
        });
        wire_id
    }

    pub fn segment(&mut self) -> u64 {
        self.segment_on("")
    }

    /// A segment that is joined to this of the host.
    pub fn segment_on(&mut self, uplink: &str) -> u64 {
        let (wire_id, uplink) = (number(), uplink.to_owned());
        let (node_uid, lab_uid) = (NodeUid::new().to_string(), LabUid::new().to_string());
        self.0.segments.push(pb::Segment { wire_id, node_uid, lab_uid, uplink });
        wire_id
    }

    pub fn wire(&mut self, a: pb::WireEnd, b: pb::WireEnd) -> u64 {
        let wire_id = number();
        let lab_uid = LabUid::new().to_string();
        self.0.wires.push(pb::Wire {
            wire_id,
            a: Some(a),
            b: Some(b),
            enabled: true,
            lab_uid,
            ..Default::default()
        });
        wire_id
    }

    pub fn ids(&self) -> Vec<u64> {
        let Slice(slice) = self;
        let nics = slice.nics.iter().map(|n| n.wire_id);
        nics.chain(slice.wires.iter().map(|w| w.wire_id))
            .chain(slice.segments.iter().map(|s| s.wire_id))
            .collect()
    }
}

pub fn nic(wire_id: u64) -> pb::WireEnd {
    pb::WireEnd { end: Some(pb::wire_end::End::Nic(wire_id)) }
}

pub fn segment(wire_id: u64) -> pb::WireEnd {
    pb::WireEnd { end: Some(pb::wire_end::End::Segment(wire_id)) }
}

pub fn host_interface(name: &str) -> pb::WireEnd {
    pb::WireEnd { end: Some(pb::wire_end::End::HostInterface(name.to_owned())) }
}

pub fn linux_bridge(name: &str) -> pb::WireEnd {
    pb::WireEnd { end: Some(pb::wire_end::End::Bridge(name.to_owned())) }
}

pub fn dummy() -> pb::WireEnd {
    pb::WireEnd { end: Some(pb::wire_end::End::Dummy(true)) }
}

/// The host end of a NIC, as it is called unless it was given to the host.
pub fn host_end(nic: u64) -> String {
    netloom_model::id::WireId::try_from(nic).unwrap().interface_name("nl")
}
