//! Links between two hosts: how they get there. Pure.
//!
//! What both hosts have to have alike is decided here, for both, and kept in the link's row: where the tunnel begins and ends, and what carries it. It follows what
//! the hosts say of themselves; one that is not heard of leaves what is known, so that a scheduler that starts again, or a host that is away, takes nothing from a wire.
//! What fits through, as the hosts have measured it of each other, or as their interfaces take until then, decides the MTU of the interfaces: of the link, and of all links of its lab that do not name one, since routers and bridges of a lab expect
//! frames that fit everywhere.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use netloom_model::id::{HostId, LinkUid};
use netloom_model::observed::{NetworkInventory, PathMtu, Underlay};
use netloom_model::plan::{Action, Object, Verb};
use netloom_model::spec::Plane;
use netloom_model::state::Runtime;

use crate::rows::{Far, LabRows, LinkRow};
use crate::world::{Heard, NetworkView};

/// How other hosts are reached from one, as it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach {
    /// Where its tunnels begin; none where it has no tunnel address.
    pub underlay: Option<Underlay>,
    /// True when Open vSwitch carries links of labs that do not say.
    pub by_ovs: bool,
    /// True when Open vSwitch forwards in its kernel.
    pub kernel_datapath: bool,
}

impl Reach {
    /// Of a host that is heard of.
    pub fn of(view: &NetworkView) -> Option<Reach> {
        let NetworkInventory { underlay, plane, datapath, .. } = &view.inventory;
        (view.heard == Heard::Yes).then(|| Reach {
            underlay: *underlay,
            by_ovs: plane == "ovs",
            kernel_datapath: datapath == "system",
        })
    }
}

/// What is said of a host that has no tunnel address.
pub fn no_address(host: &HostId) -> String {
    format!(
        "host {host} has no address for links to other hosts: set network.tunnel_address in its configuration"
    )
}

/// What is said of a link whose hosts have different UDP ports for tunnels: what one sends the other does not take. None where they are alike.
pub fn other_ports(near: &HostId, far: &Far) -> Option<String> {
    let [Some(one), Some(other)] = far.underlays else { return None };
    (one.port != other.port).then(|| {
        format!(
            "host {near} has its tunnels at UDP port {} and host {} at {}, so that neither takes what the other sends: set network.tunnel_port alike on both",
            one.port, far.host, other.port
        )
    })
}

/// Brings the ways of links between hosts, and the MTUs of interfaces, to what hosts say and have measured: none of one that is not heard of.
pub fn settle(
    rows: &mut LabRows,
    reach: impl Fn(&HostId) -> Option<Reach>,
    paths: impl Fn(&HostId) -> Option<Arc<[PathMtu]>>,
) {
    if rows.links.values().all(|link| link.far.is_none()) {
        return;
    }
    let bridges: BTreeSet<String> =
        rows.nodes.values().filter(|n| n.runtime == Runtime::Bridge).map(|n| n.spec.id.clone()).collect();
    let lab = rows.lab.spec.plane;
    let settle = |link: &mut LinkRow| {
        let ends_in_bridge = link.spec.node_ends().any(|end| bridges.contains(&end.node));
        let is_impaired = !link.spec.a_to_b.is_none() || !link.spec.b_to_a.is_none();
        let (Some(near), Some(far)) = (&link.host, &mut link.far) else { return };
        let told = [reach(near), reach(&far.host)];
        for (known, told) in far.underlays.iter_mut().zip(&told) {
            *known = told.map_or(*known, |told| told.underlay);
        }
        if let [Some(one), Some(other)] = told {
            let (plane, why) = plane(lab, ends_in_bridge, is_impaired, [one, other]);
            (far.plane, far.plane_reason) = (plane, why.to_owned());
            // What was measured stands until it is measured anew: a service that starts again knows of no path for a moment.
            let known = [paths(near), paths(&far.host)].map(Option::unwrap_or_default);
            far.path = measured(&known, [one.underlay, other.underlay]).or(far.path);
        }
    };
    rows.links.values_mut().filter(|link| link.is_wanted()).for_each(|link| link.update(settle));
    mtus(rows);
}

/// What was measured between two hosts, the smaller of both ways; none while neither was.
fn measured([one, other]: &[Arc<[PathMtu]>; 2], [here, there]: [Option<Underlay>; 2]) -> Option<u32> {
    let to = |paths: &[PathMtu], end: Option<Underlay>| {
        let address = end?.address;
        let at = paths.binary_search_by_key(&address, |path| path.address).ok()?;
        paths[at].mtu
    };
    [to(one, there), to(other, here)].into_iter().flatten().min()
}

/// What carries a link between two hosts, and why.
fn plane(
    lab: Option<Plane>,
    ends_in_bridge: bool,
    is_impaired: bool,
    hosts: [Reach; 2],
) -> (Plane, &'static str) {
    let both = |what: fn(&Reach) -> bool| hosts.iter().all(what);
    let is_ipv6 = |host: &Reach| host.underlay.is_some_and(|underlay| underlay.address.is_ipv6());
    match lab {
        _ if is_impaired => (Plane::Kernel, "impaired: what slows or loses frames is the kernel's"),
        _ if ends_in_bridge => (Plane::Kernel, "bridge: the kernel carries it to the bridge's host"),
        Some(Plane::Ovs) => (Plane::Ovs, "lab: its plane is ovs"),
        Some(Plane::Kernel) => (Plane::Kernel, "lab: its plane is kernel"),
        _ if hosts.iter().any(is_ipv6) => {
            (Plane::Kernel, "hosts: Open vSwitch carries links between hosts over IPv4 only")
        }
        Some(Plane::Auto) if both(|host| host.kernel_datapath) => {
            (Plane::Ovs, "lab: its plane is auto, and Open vSwitch forwards in the kernel of both hosts")
        }
        Some(Plane::Auto) => (
            Plane::Kernel,
            "lab: its plane is auto, and Open vSwitch does not forward in the kernel of both hosts",
        ),
        None if both(|host| host.by_ovs) => (Plane::Ovs, "hosts: both take Open vSwitch"),
        None if both(|host| !host.by_ovs) => (Plane::Kernel, "hosts: both take the kernel"),
        None => (Plane::Kernel, "hosts: only one of them takes Open vSwitch"),
    }
}

/// Caps the MTUs of interfaces by what fits between hosts.
fn mtus(rows: &mut LabRows) {
    let of_link = |link: &LinkRow| link.far.as_ref().and_then(|far| far.mtu());
    let of_lab = rows.links.values().filter(|l| l.is_wanted()).filter_map(of_link).min();
    let fits: BTreeMap<LinkUid, u32> = rows
        .links
        .values()
        .filter(|link| link.is_wanted())
        .map(|link| {
            let fits = if link.spec.mtu == 0 { of_lab } else { of_link(link) };
            (link.uid, fits.unwrap_or(u32::MAX).min(link.spec.effective_mtu()))
        })
        .collect();
    for nic in rows.nics.values_mut().filter(|nic| !nic.absent) {
        if let Some(mtu) = nic.link_uid.and_then(|uid| fits.get(&uid)).filter(|mtu| nic.mtu != **mtu) {
            nic.mtu = *mtu;
        }
    }
}

/// Says in a plan what links between hosts cannot have, and what other MTU links get by them.
pub fn tell(before: &LabRows, rows: &LabRows, actions: &mut Vec<Action>) {
    if rows.links.values().all(|link| link.far.is_none()) {
        return;
    }
    let (had, has) = (before.mtus(), rows.mtus());
    for (id, link) in rows.links_by_id().into_iter().filter(|(_, link)| link.is_wanted()) {
        let mtu = has.get(&link.uid).filter(|mtu| **mtu < link.spec.effective_mtu());
        let words = mtu.map(|mtu| match &link.far {
            Some(far) => {
                let near = link.host.as_ref().map(HostId::as_str).unwrap_or_default();
                let fits =
                    format!("its MTU is {mtu}, which is what fits between hosts {near} and {}", far.host);
                match far.believed().filter(|believed| far.mtu() == Some(*mtu) && believed > mtu) {
                    Some(believed) => format!("{fits} as measured; their interfaces would take {believed}"),
                    None => fits,
                }
            }
            None => format!("its MTU is {mtu}, which is what fits between the hosts of the lab"),
        });
        let lacking = link.far.as_ref().and_then(|far| {
            let mut ends = link.hosts().zip(&far.underlays);
            ends.find(|(_, underlay)| underlay.is_none()).map(|(host, _)| no_address(host))
        });
        let apart = link.host.as_ref().zip(link.far.as_ref()).and_then(|(near, far)| other_ports(near, far));
        let words: Vec<String> = words.into_iter().chain(lacking).chain(apart).collect();
        if words.is_empty() {
            continue;
        }
        let words = words.join("; ");
        let is_its = |action: &&mut Action| {
            action.object == Object::Link && action.id == id && action.verb != Verb::Delete
        };
        match actions.iter_mut().find(is_its) {
            Some(action) => action.reason = format!("{}; {words}", action.reason),
            None if had.get(&link.uid) == has.get(&link.uid) => {}
            None => {
                let host = link.host.as_ref().map(HostId::to_string).unwrap_or_default();
                actions.push(Action {
                    verb: Verb::Update,
                    object: Object::Link,
                    id: id.to_owned(),
                    reason: words,
                    host,
                });
            }
        }
    }
}

#[cfg(test)]
mod tests;
