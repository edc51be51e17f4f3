//! VXLAN devices, as wires need them: what the kernel tells of one, and what it has to be told.

use std::net::IpAddr;

use netlink_packet_core::NlasIterator;
use netlink_packet_route::link::InfoVxlan;

// What the kernel tells of a VXLAN device: `linux/if_link.h`.
const IFLA_VXLAN_ID: u16 = 1;
const IFLA_VXLAN_GROUP: u16 = 2;
const IFLA_VXLAN_LOCAL: u16 = 4;
const IFLA_VXLAN_LEARNING: u16 = 7;
const IFLA_VXLAN_PORT: u16 = 15;
const IFLA_VXLAN_GROUP6: u16 = 16;
const IFLA_VXLAN_LOCAL6: u16 = 17;

/// A tunnel of its own to one other host, in VXLAN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vxlan {
    /// Its network identifier.
    pub vni: u32,
    /// The address of this host that it begins at.
    pub local: IpAddr,
    /// The address of the other host.
    pub remote: IpAddr,
    /// The UDP port, of both.
    pub port: u16,
}

impl Vxlan {
    /// Reads what the kernel tells of one; none of one that has no two ends or that learns who is where.
    pub(super) fn parse(data: &[u8]) -> Option<Vxlan> {
        let (mut vni, mut local, mut remote, mut port, mut learns) = (None, None, None, None, false);
        let four = |value: &[u8]| Some(IpAddr::from(<[u8; 4]>::try_from(value).ok()?));
        let six = |value: &[u8]| Some(IpAddr::from(<[u8; 16]>::try_from(value).ok()?));
        for attribute in NlasIterator::new(data).flatten() {
            let value = attribute.value();
            match attribute.kind() {
                IFLA_VXLAN_ID => vni = Some(u32::from_ne_bytes(value.try_into().ok()?)),
                IFLA_VXLAN_GROUP => remote = four(value),
                IFLA_VXLAN_GROUP6 => remote = six(value),
                IFLA_VXLAN_LOCAL => local = four(value),
                IFLA_VXLAN_LOCAL6 => local = six(value),
                IFLA_VXLAN_LEARNING => learns = value != [0],
                IFLA_VXLAN_PORT => port = Some(u16::from_be_bytes(value.try_into().ok()?)),
                _ => {}
            }
        }
        Some(Vxlan { vni: vni?, local: local?, remote: remote?, port: port? }).filter(|_| !learns)
    }

    /// What the kernel has to be told to make it.
    pub fn data(&self) -> Vec<InfoVxlan> {
        let local = match self.local {
            IpAddr::V4(local) => InfoVxlan::Local(local),
            IpAddr::V6(local) => InfoVxlan::Local6(local),
        };
        let remote = match self.remote {
            IpAddr::V4(remote) => InfoVxlan::Group(remote),
            IpAddr::V6(remote) => InfoVxlan::Group6(remote),
        };
        vec![InfoVxlan::Id(self.vni), local, remote, InfoVxlan::Port(self.port), InfoVxlan::Learning(false)]
    }
}
