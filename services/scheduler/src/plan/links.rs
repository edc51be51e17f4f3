//! The rows of links and interfaces that a spec asks for. Pure.

use std::collections::{BTreeMap, BTreeSet};

use netloom_model::id::{HostId, LinkUid, NodeUid, WireId};
use netloom_model::kind::Catalogue;
use netloom_model::naming;
use netloom_model::plan::{Action, Object, Verb};
use netloom_model::slice::mac_of;
use netloom_model::spec::{DEFAULT_MTU, LabSpec, LinkSpec};
use netloom_model::state::{LinkState, Runtime, Wanted};

use super::reason::{addresses, link_change, plane_change, read_at_start};
use super::{Context, action, new_wire_id};
use crate::rows::{Far, LabRows, LinkRow, NicRow, NodeRow};

/// The host of a link, or of its first end; and that of its second end, when it is another one.
type Place = (Option<HostId>, Option<HostId>);

fn is_at(link: &LinkRow, (near, far): &Place) -> bool {
    link.host == *near && link.far.as_ref().map(|far| &far.host) == far.as_ref()
}

fn words((near, far): &Place) -> String {
    near.iter().chain(far).map(HostId::as_str).collect::<Vec<_>>().join(", ")
}

/// Brings the link rows to the spec.
pub(super) fn links(
    rows: &mut LabRows,
    former: &LabSpec,
    spec: &LabSpec,
    ctx: Context<'_>,
    actions: &mut Vec<Action>,
) {
    let hosts: BTreeMap<String, Option<HostId>> =
        rows.nodes.values().filter(|n| n.is_wanted()).map(|n| (n.spec.id.clone(), n.host.clone())).collect();
    // What is no node's is wherever the node at the other end is.
    let place_of = |link: &LinkSpec| -> Place {
        let mut ends = link.node_ends().map(|end| hosts.get(&end.node).cloned().flatten());
        match (ends.next().flatten(), ends.next()) {
            (Some(first), None) => (Some(first), None),
            (Some(first), Some(Some(second))) => {
                (Some(first.clone()), Some(second).filter(|host| *host != first))
            }
            _ => (None, None),
        }
    };
    let bridges: BTreeSet<String> =
        rows.nodes.values().filter(|n| n.runtime == Runtime::Bridge).map(|n| n.spec.id.clone()).collect();
    // What is impaired, leads out of the lab or ends in a bridge of it is carried by the same whatever the lab says.
    let chooses = |link: &LinkSpec| {
        let ends = link.node_ends().filter(|end| !bridges.contains(&end.node)).count();
        ends == 2 && link.a_to_b.is_none() && link.b_to_a.is_none()
    };
    let machines: BTreeSet<String> = rows
        .nodes
        .values()
        .filter(|n| n.is_wanted() && n.runtime == Runtime::Libvirt)
        .map(|n| n.spec.id.clone())
        .collect();
    let mut named = BTreeSet::new();
    let shown: BTreeMap<String, LinkUid> =
        rows.links.values().filter(|l| !l.replaced).map(|l| (l.id.clone(), l.uid)).collect();
    for asked in &spec.links {
        let asked = asked.clone().sorted();
        let id = asked.id();
        named.insert(id.clone());
        let place = place_of(&asked);
        let host = words(&place);
        let old = shown.get(&id).and_then(|uid| rows.links.get_mut(uid));
        // One that is made anew elsewhere stays unplugged.
        let enabled = ctx.revive || old.as_ref().is_none_or(|old| old.enabled || !old.is_wanted());
        let (verb, reason) = match old {
            None => (Verb::Create, "it is new"),
            Some(old) if old.wanted == Wanted::Absent && is_at(old, &place) => {
                // Its removal may not have begun: then it is as it was.
                old.wanted = Wanted::Running;
                old.enabled |= ctx.revive;
                old.spec = asked.into();
                let mut create = action(Verb::Create, Object::Link, &id, "it is wanted again");
                create.host = host;
                actions.push(create);
                continue;
            }
            Some(old) if old.wanted == Wanted::Absent => {
                old.replaced = true;
                (Verb::Create, "it is wanted again")
            }
            Some(old) if old.host.is_some() && !is_at(old, &place) => {
                old.replaced = true;
                old.wanted = Wanted::Absent;
                (Verb::Recreate, "its nodes moved")
            }
            Some(old) => {
                if !is_at(old, &place) {
                    (old.host, old.far) = (place.0, place.1.map(Far::to));
                }
                let mut reasons = Vec::new();
                if ctx.revive && !old.enabled {
                    old.enabled = true;
                    reasons.push("it was unplugged".to_owned());
                }
                if *old.spec != asked {
                    reasons.push(link_change(&old.spec, &asked));
                    reasons.extend(read_at_start(&old.spec, &asked, |node| machines.contains(node)));
                    old.spec = asked.into();
                }
                if chooses(&old.spec) {
                    reasons.extend(plane_change(former, spec));
                }
                reasons.retain(|r| !r.is_empty());
                if !reasons.is_empty() {
                    let reason = reasons.join(", ");
                    let mut update = action(Verb::Update, Object::Link, &id, reason);
                    update.host = host;
                    actions.push(update);
                }
                continue;
            }
        };
        let mut create = action(verb, Object::Link, &id, reason);
        create.host = host;
        actions.push(create);
        let link = LinkRow {
            uid: LinkUid::new(),
            id,
            replaced: false,
            wire_id: new_wire_id(63),
            wanted: Wanted::Running,
            spec: asked.into(),
            host: place.0,
            far: place.1.map(Far::to),
            vni: None,
            enabled,
            state: LinkState::Pending,
            reason: String::new(),
            plane: String::new(),
            plane_reason: String::new(),
            create_us: ctx.now,
            update_us: ctx.now,
        };
        rows.links.insert(link.uid, link);
    }
    for link in rows.links.values_mut().filter(|l| l.is_wanted() && !named.contains(&l.id)) {
        link.wanted = Wanted::Absent;
        let mut delete = action(Verb::Delete, Object::Link, &link.id, "it is not in the spec");
        delete.host = words(&(link.host.clone(), link.far.as_ref().map(|far| far.host.clone())));
        actions.push(delete);
    }
}

/// Brings the interfaces to the links. An interface is a node's port: it stays the same when its link goes elsewhere. A virtual machine has every port up to the last that ever had
/// a link, and keeps what it has as long as it is there: a NIC cannot be taken out of a guest unseen, and one that is there takes a cable without a restart.
pub(super) fn nics(rows: &mut LabRows, catalogue: &Catalogue) {
    // One that is being removed is the same again when it is wanted again: its removal may not have begun.
    let (leave, stay): (Vec<&NicRow>, Vec<&NicRow>) = rows.nics.values().partition(|n| n.absent);
    let ports: BTreeMap<(NodeUid, u32), WireId> =
        leave.into_iter().chain(stay).map(|n| ((n.node_uid, n.port), n.wire_id)).collect();
    // A guest knows its NICs again by their addresses, on whichever host its disk is.
    let carried: BTreeSet<NodeUid> = rows.nodes.values().filter_map(|n| n.disk_of).collect();
    let origin_of = |nic: &NicRow| {
        let origin = rows.nodes.get(&nic.node_uid)?.origin();
        carried.contains(&origin).then_some(origin)
    };
    let of_carried = rows.nics.values().filter(|_| !carried.is_empty());
    let macs: BTreeMap<(NodeUid, u32), String> =
        of_carried.filter_map(|n| Some(((origin_of(n)?, n.port), n.mac.clone()))).collect();
    let mac = |node: &NodeRow, port: u32, wire_id: WireId| match node.disk_of {
        Some(origin) => macs.get(&(origin, port)).cloned().unwrap_or_else(|| mac_of(wire_id)),
        None => mac_of(wire_id),
    };
    let mut used = BTreeSet::new();
    let nodes: BTreeMap<&str, &NodeRow> =
        rows.nodes.values().filter(|n| n.is_wanted()).map(|n| (n.spec.id.as_str(), n)).collect();
    for link in rows.links.values().filter(|l| l.is_wanted()) {
        for end in link.spec.node_ends() {
            let Some(node) = nodes.get(end.node.as_str()).filter(|n| n.runtime != Runtime::Bridge) else {
                continue;
            };
            let port = catalogue
                .of(&node.spec)
                .and_then(|kind| kind.interfaces.index(&kind.name, &end.interface).ok());
            let Some(port) = port else { continue };
            let wire_id = ports.get(&(node.uid, port)).copied().unwrap_or_else(|| new_wire_id(63));
            let (present, carrier, alive) =
                rows.nics.get(&wire_id).map_or((false, false, false), |n| (n.present, n.carrier, n.alive));
            let nic = NicRow {
                wire_id,
                node_uid: node.uid,
                link_uid: Some(link.uid),
                interface: end.interface.clone(),
                port,
                absent: false,
                host: node.host.clone(),
                mac: match end.mac.as_str() {
                    "" => mac(node, port, wire_id),
                    given => given.to_ascii_lowercase(),
                },
                mtu: link.spec.effective_mtu(),
                addresses: addresses(end),
                present,
                carrier,
                alive,
            };
            used.insert(wire_id);
            rows.nics.insert(wire_id, nic);
        }
    }
    let machines: BTreeMap<NodeUid, &NodeRow> =
        nodes.into_values().filter(|n| n.runtime == Runtime::Libvirt).map(|n| (n.uid, n)).collect();
    let mut idle = Vec::new();
    for (uid, node) in machines {
        let Some(kind) = catalogue.of(&node.spec) else { continue };
        let of_node = |n: &&NicRow| n.node_uid == uid && !n.absent;
        // One that brings its disk has as many as it had.
        let brought = macs.keys().filter(|(origin, _)| node.disk_of == Some(*origin)).map(|(_, port)| *port);
        let last = rows.nics.values().filter(of_node).map(|n| n.port).chain(brought).max();
        let has_link =
            |port| rows.nics.values().any(|n| of_node(&n) && n.port == port && used.contains(&n.wire_id));
        for port in (0..=last.unwrap_or_default()).filter(|port| last.is_some() && !has_link(*port)) {
            let wire_id = ports.get(&(uid, port)).copied().unwrap_or_else(|| new_wire_id(63));
            let was = rows.nics.get(&wire_id);
            idle.push(NicRow {
                wire_id,
                node_uid: uid,
                link_uid: None,
                interface: kind.interfaces.vendor_name(port).unwrap_or_else(|| naming::guest_name(port)),
                port,
                absent: false,
                host: node.host.clone(),
                mac: was.map_or_else(|| mac(node, port, wire_id), |n| n.mac.clone()),
                mtu: DEFAULT_MTU,
                addresses: Vec::new(),
                present: was.is_some_and(|n| n.present),
                carrier: was.is_some_and(|n| n.carrier),
                alive: was.is_some_and(|n| n.alive),
            });
        }
    }
    used.extend(idle.iter().map(|n| n.wire_id));
    rows.nics.extend(idle.into_iter().map(|n| (n.wire_id, n)));
    for nic in rows.nics.values_mut().filter(|n| !used.contains(&n.wire_id)) {
        nic.absent = true;
    }
}
