//! Where on this host frames of a wire come by, and where they can be sent from. Pure.

use std::path::PathBuf;

use netloom_model::id::WireId;
use netloom_model::slice::{Wire, WireEnd};

use crate::driver::ovs::View;
use crate::links::Links;
use crate::names::{End, Names};
use crate::netlink::Link;
use crate::netns::Starts;
use crate::slice::Wanted;

/// What a place is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The interface in a node, or the end of a tail that a segment has.
    Interface,
    /// Its host end.
    HostEnd,
    /// Where tunnels leave and come to this host.
    Tunnel,
}

/// Where frames are looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look {
    /// On this interface of the host.
    Host(u32),
    /// On this interface in this network namespace, which is the other end of this interface of the host.
    Node(PathBuf, u32, u32),
    /// Inside of tunnels, on whichever interface.
    Tunnels,
    /// Nowhere: it is not there, or nobody can.
    Nowhere,
}

/// A place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// What it is.
    pub kind: Kind,
    /// The end of the wire that it is at; of a tunnel, the one that it leads to.
    pub end: End,
    /// Name of the interface.
    pub interface: String,
    /// What is out of the ordinary, in words; else empty.
    pub detail: String,
    /// Where frames are looked for.
    pub look: Look,
    /// True where frames from this end do not come by, for they are sent from behind it.
    pub passed_over: bool,
}

/// Where frames are sent from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The interface in a node, as in [`Look::Node`].
    Node(PathBuf, u32, u32),
    /// An interface of the host.
    Host(u32),
    /// Behind a port of Open vSwitch: the bridge, and the port's number. The address is that of the interface of the host.
    Port(String, u32, u32),
}

/// What is known of the host.
pub struct Known<'a> {
    /// How our things are named.
    pub names: &'a Names,
    /// What is wanted.
    pub wanted: &'a Wanted,
    /// The nodes that run.
    pub starts: &'a Starts,
    /// The host's interfaces.
    pub links: &'a Links,
    /// The interface that has the tunnel address.
    pub underlay: Option<&'a str>,
}

/// The places of a wire; none when it is not here.
pub fn of(known: &Known<'_>, wire: WireId) -> Vec<Place> {
    let Some(wire) = known.wanted.slice.wires.get(&wire) else { return Vec::new() };
    let mut places = Vec::new();
    for (end, what) in [(End::A, &wire.a), (End::B, &wire.b)] {
        match what {
            WireEnd::Nic(nic) => places.extend(of_nic(known, end, *nic)),
            WireEnd::Segment(_) => places.extend(of_tail(known, end, wire)),
            WireEnd::Tunnel(_) => places.push(Place {
                kind: Kind::Tunnel,
                end,
                interface: known.underlay.unwrap_or_default().to_owned(),
                detail: String::new(),
                look: Look::Tunnels,
                passed_over: false,
            }),
            WireEnd::HostInterface(_) | WireEnd::Bridge(_) | WireEnd::Dummy => {}
        }
    }
    places
}

fn of_nic(known: &Known<'_>, end: End, nic: WireId) -> [Place; 2] {
    let wanted = known.wanted.slice.nics.get(&nic);
    let start = wanted.and_then(|nic| known.starts.get(&nic.node_uid));
    let link = known.names.host_end(known.links, nic);
    let is_machine = start.is_some_and(|start| start.machine.is_some());
    let called = wanted.map(|nic| nic.guest_name.clone()).unwrap_or_default();
    let interface = |interface: String, detail: String, look| Place {
        kind: Kind::Interface,
        end,
        interface,
        detail,
        look,
        passed_over: is_machine,
    };
    let inside = match (start, link) {
        (None, _) => interface(called, "its node does not run".to_owned(), Look::Nowhere),
        (Some(_), _) if is_machine => interface(
            called,
            "nobody can look into a virtual machine: frames are sent from behind its tap, and are handed to it there".to_owned(),
            Look::Nowhere,
        ),
        (_, None) => interface(called, "it is not made yet".to_owned(), Look::Nowhere),
        (Some(_), Some(link)) if link.home.is_some() && link.home != link.peer_namespace => interface(
            called,
            "its node moved it into another network namespace, which nobody looks into".to_owned(),
            Look::Nowhere,
        ),
        (Some(start), Some(link)) => {
            let guest = link.guest.as_ref();
            let is = guest.map_or(called.clone(), |guest| guest.name.clone());
            let down = guest.is_some_and(|guest| !guest.up).then(|| "it is set down in its node".to_owned());
            let renamed = (is != called).then(|| format!("its node calls it so, not {called}"));
            let detail: Vec<String> = down.into_iter().chain(renamed).collect();
            interface(is, detail.join("; "), Look::Node(start.path.clone(), link.peer, link.index))
        }
    };
    let host_end = match link {
        Some(link) => Place {
            kind: Kind::HostEnd,
            end,
            interface: link.name.clone(),
            detail: oddities(link),
            look: Look::Host(link.index),
            passed_over: is_machine,
        },
        None => Place {
            kind: Kind::HostEnd,
            end,
            interface: known.names.nic(nic),
            detail: "it is not there".to_owned(),
            look: Look::Nowhere,
            passed_over: false,
        },
    };
    [inside, host_end]
}

/// A tail is between a segment and what joins wires in the kernel; a wire that has none goes straight into the segment.
fn of_tail(known: &Known<'_>, end: End, wire: &Wire) -> Vec<Place> {
    let tail = known.names.tail(wire.wire_id, end);
    let place = |kind, name: String| {
        let link = known.links.get(&name).filter(|link| known.names.is_our_tail(link, wire.wire_id))?;
        let (detail, look) = (oddities(link), Look::Host(link.index));
        Some(Place { kind, end, interface: name, detail, look, passed_over: false })
    };
    let ends = [place(Kind::Interface, tail.outer), place(Kind::HostEnd, tail.inner)];
    ends.into_iter().flatten().collect()
}

/// What of an interface keeps frames from passing it, in words.
fn oddities(link: &Link) -> String {
    let name = &link.name;
    let mut all = Vec::new();
    if !link.up {
        all.push("it is set down".to_owned());
    } else if !link.lower_up {
        all.push("it has no carrier".to_owned());
    }
    if link.is_filtered {
        all.push(format!(
            "a filter of somebody else's meets its frames first; see: tc filter show dev {name} ingress"
        ));
    }
    if link.is_queued {
        all.push(format!("its frames go through a queue of somebody else's; see: tc qdisc show dev {name}"));
    }
    all.join("; ")
}

/// Where frames of a wire are sent from at an end of it; why they are not, in words.
pub fn origin(known: &Known<'_>, ovs: Option<&View>, wire: WireId, end: End) -> Result<Origin, String> {
    let Some(wire) = known.wanted.slice.wires.get(&wire) else {
        return Err("this host has nothing of the link yet".to_owned());
    };
    let [here, there] = if end == End::A { [&wire.a, &wire.b] } else { [&wire.b, &wire.a] };
    let host_end = |nic: &WireId| known.names.host_end(known.links, *nic);
    match here {
        WireEnd::Nic(nic) => {
            let [inside, _] = of_nic(known, end, *nic);
            let wanted = known.wanted.slice.nics.get(nic);
            let is_machine = wanted
                .and_then(|nic| known.starts.get(&nic.node_uid))
                .is_some_and(|start| start.machine.is_some());
            match inside.look {
                Look::Node(path, index, host_end) => Ok(Origin::Node(path, index, host_end)),
                _ if is_machine => behind_tap(known, ovs, *nic),
                _ => Err(inside.detail),
            }
        }
        WireEnd::Segment(_) => match of_tail(known, end, wire).first().map(|place| &place.look) {
            Some(Look::Host(index)) => Ok(Origin::Host(*index)),
            _ => into_nic(there, host_end),
        },
        WireEnd::Tunnel(_) => Err("this end of the link is on another host".to_owned()),
        WireEnd::HostInterface(_) | WireEnd::Bridge(_) | WireEnd::Dummy => into_nic(there, host_end),
    }
}

/// Where there is nothing between an end and the NIC at the other, frames begin at the NIC's host end.
fn into_nic<'a>(
    there: &WireEnd,
    host_end: impl FnOnce(&WireId) -> Option<&'a Link>,
) -> Result<Origin, String> {
    let WireEnd::Nic(nic) = there else { return Err("nothing of it can be sent from".to_owned()) };
    host_end(nic).map(|link| Origin::Host(link.index)).ok_or_else(|| "it has no host end yet".to_owned())
}

/// What a tap's process writes nobody else can: frames begin where what it writes is handed on to.
fn behind_tap(known: &Known<'_>, ovs: Option<&View>, nic: WireId) -> Result<Origin, String> {
    let Some(link) = known.names.host_end(known.links, nic) else {
        return Err("its tap is not there".to_owned());
    };
    if let Some(redirect) = link.redirect {
        return Ok(Origin::Host(redirect.to));
    }
    let port = ovs.and_then(|ovs| ovs.ports.get(&link.name)).filter(|port| port.index == Some(link.index));
    let number = port.and_then(|port| Some((port.bridge.clone(), port.ofport?)));
    let (bridge, number) = number
        .ok_or_else(|| "neither a redirect nor a port of Open vSwitch takes on what it sends".to_owned())?;
    Ok(Origin::Port(bridge, number, link.index))
}
