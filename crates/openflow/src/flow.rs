//! Flows, as far as wires need them.

use std::net::Ipv4Addr;

/// What a flow-mod does to the flow table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    /// Adds the flow, in place of the one with the same table, priority and match.
    Add,
    /// Deletes every flow whose match is the given one or narrower; the priority does not count.
    Delete,
    /// Deletes the one flow with this very match and priority.
    DeleteStrict,
}

/// What a packet must have for a flow to apply. Unset fields match everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Match {
    /// The OpenFlow port the packet came in by.
    pub in_port: Option<u32>,
    /// The tunnel key (VNI) the packet came with.
    pub tun_id: Option<u64>,
}

/// What happens to a packet, in order. No action at all drops it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Sends it out of an OpenFlow port. A packet is never sent out of the port it came in by.
    Output(u32),
    /// Switches it as an ordinary learning switch does.
    Normal,
    /// Sets the tunnel key (VNI) for a tunnel port it is sent to.
    SetTunnelId(u64),
    /// Sets the remote address for a tunnel port it is sent to.
    SetTunnelDst(Ipv4Addr),
}

/// One change to the flow table.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FlowMod {
    /// What to do.
    pub command: Command,
    /// The flow's cookie (on `Add`); with `cookie_mask`, the cookie flows must have (on the others).
    pub cookie: u64,
    /// Which bits of the cookie a flow must have to be modified or deleted; 0 means any cookie. Unused on `Add`.
    pub cookie_mask: u64,
    /// The table; [`crate::ALL_TABLES`] on a delete means every one.
    pub table: u8,
    /// Flows with a higher priority win.
    pub priority: u16,
    /// Which packets.
    pub matches: Match,
    /// What happens to them; at most 2,048. Unused on deletes.
    pub actions: Vec<Action>,
}

/// One flow as the switch holds it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    /// The table it is in.
    pub table: u8,
    /// Its priority.
    pub priority: u16,
    /// Its cookie.
    pub cookie: u64,
    /// Which packets.
    pub matches: Match,
    /// What happens to them.
    pub actions: Vec<Action>,
    /// True when the flow has matches, actions or timeouts that this crate does not know and that are
    /// left out here: somebody else made it.
    pub foreign: bool,
    /// Packets it has handled.
    pub packets: u64,
    /// Bytes it has handled.
    pub bytes: u64,
}
