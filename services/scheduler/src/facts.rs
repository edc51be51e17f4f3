//! From rows and what hosts said to the states of nodes and links. Pure: the only place where a row's state is set.
//!
//! "Running", "ready" and "up" come from evidence alone, by [`node_state`] and [`link_state`]. A host that is not heard of makes what it told unknown; one that was
//! not heard of *yet*, just after a start, leaves what is stored.

use std::collections::{BTreeMap, BTreeSet};

use netloom_model::id::{HostId, LabId, NodeUid};
use netloom_model::observed::{End, NEEDS_RESTART, WireState};
use netloom_model::spec::{Endpoint, Stage};
use netloom_model::state::{
    Half, ImageStep as Image, LinkState, NodeEvidence, NodeState, Runtime, Wanted, link_state,
    link_state_across, node_state,
};

use crate::across::{self, Reach};
use crate::client::{COMPUTE, NETWORK};
use crate::rows::{ImageStep, LabRows, LinkRow, NodeRow};
use crate::vnis;
use crate::world::{Heard, HostView};

/// How what is set aside comes back, and when it goes.
pub const BACK: &str = "deploy the former file to have it back; it goes when a deploy succeeds";

/// Sets every state in the rows.
pub fn refresh(rows: &mut LabRows, hosts: &BTreeMap<HostId, HostView>) {
    let waiting = crate::claims::waiting(rows);
    let lab = rows.lab.uid;
    let refusal = |host: Option<&HostId>, service: &'static str| {
        let refused = hosts.get(host?)?.refused.get(&(service, lab))?;
        Some(format!("its host refuses the lab: {}", refused.why))
    };
    for node in rows.nodes.values_mut() {
        node.update(|node| {
            let view = node.host.as_ref().and_then(|h| hosts.get(h));
            node_facts(node, view, &waiting);
            let service = if node.runtime == Runtime::Bridge { NETWORK } else { COMPUTE };
            if node.state == NodeState::Pending
                && node.reason.is_empty()
                && let Some(why) = refusal(node.host.as_ref(), service)
            {
                node.reason = why;
            }
        });
    }
    for nic in rows.nics.values_mut().filter(|n| !n.absent) {
        let view = nic.host.as_ref().and_then(|h| hosts.get(h));
        if let Some(view) = view.filter(|v| v.network.heard == Heard::Yes) {
            let seen = view.network.nics.get(&nic.wire_id);
            let present = seen.is_some_and(|s| s.present && !s.start_id.is_empty());
            let carrier = present && seen.is_some_and(|s| s.carrier);
            let alive = present && seen.is_some_and(|s| s.alive);
            if (nic.present, nic.carrier, nic.alive) != (present, carrier, alive) {
                (nic.present, nic.carrier, nic.alive) = (present, carrier, alive);
            }
        } else if nic.alive && view.is_none_or(|v| v.network.heard == Heard::Lost) {
            // For the far end of its link it is as if it were unplugged.
            nic.alive = false;
        }
    }
    let network = |host: &HostId| hosts.get(host).map(|view| &view.network);
    across::settle(
        rows,
        |host| Reach::of(network(host)?),
        |host| network(host).map(|network| network.inventory.paths.clone()),
    );
    let placed: BTreeMap<String, Option<HostId>> =
        rows.nodes.values().filter(|n| n.is_wanted()).map(|n| (n.spec.id.clone(), n.host.clone())).collect();
    let stopped: BTreeSet<String> = rows
        .nodes
        .values()
        .filter(|n| n.is_wanted() && (n.wanted == Wanted::Stopped || n.state == NodeState::Stopped))
        .map(|n| n.spec.id.clone())
        .collect();
    let failed: BTreeSet<String> = rows
        .nodes
        .values()
        .filter(|n| n.is_wanted() && n.state == NodeState::Failed)
        .map(|n| n.spec.id.clone())
        .collect();
    let keeps_all = rows.is_preparing();
    let lab_id = &rows.lab.id;
    let link_facts = |link: &mut LinkRow| {
        let host_of = |node: &str| placed.get(node).cloned().flatten();
        let Some(host) = &link.host else {
            let homeless = link.spec.node_ends().find(|end| host_of(&end.node).is_none());
            let why = homeless.map(|end| format!("{end}: node {} has no host", end.node));
            (link.state, link.reason) = (LinkState::Pending, why.unwrap_or_default());
            return;
        };
        if link.wanted == Wanted::Absent && (link.replaced || !keeps_all) {
            leaving_facts(link, hosts);
            return;
        }
        if link.far.is_some() {
            if across_facts(link, lab_id, hosts) {
                tell_ended(link, true, &stopped, &failed);
            }
            return;
        }
        let Some(network) = hosts.get(host).map(|v| &v.network) else {
            (link.state, link.reason) = link_state(false, None);
            return;
        };
        if network.heard == Heard::NotYet {
            return;
        }
        let wire = network.wires.get(&link.wire_id);
        let seen: Option<(WireState, &str)> = wire.map(|w| (w.state, w.detail.as_str()));
        (link.state, link.reason) = link_state(network.heard == Heard::Yes, seen);
        if let Some(end) = wire.and_then(|wire| wire.end).filter(|_| network.heard == Heard::Yes) {
            let end = if end == End::A { &link.spec.a } else { &link.spec.b };
            link.reason = at_end(lab_id, end, &link.reason);
        }
        if let Some(wire) = wire {
            link.plane.clone_from(&wire.plane);
            link.plane_reason.clone_from(&wire.plane_reason);
        }
        if network.heard == Heard::Yes {
            tell_ended(link, wire.is_some(), &stopped, &failed);
        }
    };
    rows.links.values_mut().for_each(|link| link.update(link_facts));
    for link in rows.links.values_mut() {
        if link.state == LinkState::Pending && link.reason.is_empty() {
            let why = link.hosts().find_map(|host| refusal(Some(host), NETWORK));
            link.reason = why.unwrap_or_default();
        }
    }
    crate::stages::advance(rows);
    tell_waits(rows);
    tell_successors(rows);
    tell_kept(rows);
}

/// Sets the state of a link that is being removed. How much of it is still there changes nothing: it is told once, when the removal is asked for, and then that it is gone.
fn leaving_facts(link: &mut LinkRow, hosts: &BTreeMap<HostId, HostView>) {
    let heard = |host: &HostId| hosts.get(host).map_or(Heard::Lost, |view| view.network.heard);
    let all: Vec<Heard> = link.hosts().map(heard).collect();
    let (state, why) = if all.contains(&Heard::Lost) {
        (LinkState::Unknown, "its host is not heard of; it is removed when it is")
    } else if all.contains(&Heard::NotYet) {
        return;
    } else {
        (LinkState::Pending, "it is being removed")
    };
    (link.state, link.reason) = (state, why.to_owned());
}

/// Sets the state of a link between two hosts from what both read back; says whether that is what they read back.
fn across_facts(link: &mut LinkRow, lab: &LabId, hosts: &BTreeMap<HostId, HostView>) -> bool {
    let (Some(near), Some(far)) = (&link.host, &link.far) else { return false };
    let network = |host: &HostId| hosts.get(host).map(|view| &view.network);
    let ends = [(near, End::A), (&far.host, End::B)];
    if ends.iter().any(|(host, _)| network(host).is_some_and(|n| n.heard == Heard::NotYet)) {
        return false;
    }
    let halves = ends.map(|(host, own)| {
        let wire = network(host).and_then(|n| n.wires.get(&link.wire_id));
        Half {
            host: host.as_str(),
            heard: network(host).is_some_and(|n| n.heard == Heard::Yes),
            wire: wire.map(|w| (w.state, w.detail.as_str())),
            is_by_far: wire.and_then(|w| w.end).is_some_and(|end| end != own),
        }
    });
    let all_heard = halves.iter().all(|half| half.heard);
    let lacks_address = ends.iter().zip(&far.underlays).find(|(_, underlay)| underlay.is_none());
    if let Some(((host, _), _)) = lacks_address.filter(|_| all_heard) {
        (link.state, link.reason) = (LinkState::Failed, across::no_address(host));
        return false;
    }
    if let Some(why) = across::other_ports(near, far).filter(|_| all_heard) {
        (link.state, link.reason) = (LinkState::Failed, why);
        return false;
    }
    if link.vni.is_none() {
        (link.state, link.reason) = (LinkState::Failed, vnis::NONE_FREE.to_owned());
        return false;
    }
    let (state, mut reason, worst) = link_state_across(&halves);
    if let Some(worst) = worst {
        // The half tells of its own end.
        let is_by_own = network(ends[worst].0).and_then(|n| n.wires.get(&link.wire_id)?.end).is_some();
        let end = if worst == 0 { &link.spec.a } else { &link.spec.b };
        reason = match (is_by_own, reason.is_empty()) {
            (_, true) => reason,
            (true, _) => at_end(lab, end, &reason),
            (false, _) => format!("host {}: {reason}", ends[worst].0),
        };
    }
    (link.plane, link.plane_reason) = match halves.iter().any(|half| half.wire.is_some()) {
        true => (far.plane.to_string(), far.plane_reason.clone()),
        false => (link.plane.clone(), link.plane_reason.clone()),
    };
    (link.state, link.reason) = (state, reason);
    all_heard && halves.iter().all(|half| half.wire.is_some())
}

/// A reason with the end of the link that it is of, and what is to be done about it.
fn at_end(lab: &LabId, end: &Endpoint, reason: &str) -> String {
    if !reason.starts_with(NEEDS_RESTART) {
        return format!("{end}: {reason}");
    }
    let node = &end.node;
    format!("{end}: {reason}; it has the interface from its next start on: netloom node restart {lab} {node}")
}

/// What was read back stands; only why a wire carries nothing is known better here.
fn tell_ended(link: &mut LinkRow, is_made: bool, stopped: &BTreeSet<String>, failed: &BTreeSet<String>) {
    if !matches!(link.state, LinkState::Pending | LinkState::Down) {
        return;
    }
    let mut ended = link.spec.node_ends().map(|end| end.node.as_str()).filter(|node| stopped.contains(*node));
    let first = ended.next().map(|node| format!("node {node} does not run"));
    if !link.enabled && is_made {
        (link.state, link.reason) = (LinkState::Down, "it is unplugged".to_owned());
    } else if let Some(why) = first {
        (link.state, link.reason) = (LinkState::Down, why);
    } else if let Some(end) = link.spec.node_ends().find(|end| failed.contains(&end.node)) {
        link.reason = format!("{end}: node {} has failed", end.node);
    }
}

/// Says of a node what stands aside of it when no operation is to succeed any more.
fn tell_kept(rows: &mut LabRows) {
    if rows.operation.is_some() {
        return;
    }
    let kept: BTreeSet<String> =
        rows.nodes.values().filter(|n| n.is_aside() && n.replaced).map(|n| n.id.folded()).collect();
    for node in rows.nodes.values_mut().filter(|n| n.is_wanted() && kept.contains(&n.id.folded())) {
        let told = format!("what ran before is kept: {BACK}");
        node.reason = if node.reason.is_empty() { told } else { format!("{}; {told}", node.reason) };
    }
}

/// Says of a node how far its successor is, and of a successor that cannot be made that its former self stays.
fn tell_successors(rows: &mut LabRows) {
    let successors: Vec<(NodeUid, String)> =
        rows.nodes.values().filter(|n| n.is_successor()).map(|n| (n.uid, n.id.folded())).collect();
    if successors.is_empty() {
        return;
    }
    let of_row = |n: &NodeRow| (n.id.folded(), (n.uid, n.state.is_running()));
    let shown: BTreeMap<String, (NodeUid, bool)> =
        rows.nodes.values().filter(|n| !n.replaced).map(of_row).collect();
    for (uid, folded) in successors {
        let Some((shown, runs)) = shown.get(&folded).copied() else { continue };
        let Some(node) = rows.nodes.get_mut(&uid) else { continue };
        let cannot = matches!(node.state, NodeState::Failed | NodeState::Unschedulable);
        let told = if cannot {
            let stays = if runs { "what ran before runs on" } else { "what was there before stays" };
            let told = format!("it is not made anew: {}", node.reason);
            node.reason = format!("{}; {stays}", node.reason);
            told
        } else {
            if node.reason.is_empty() {
                node.reason = "waits for its image".to_owned();
            }
            format!("it is to be made anew: {}", node.reason)
        };
        if let Some(shown) = rows.nodes.get_mut(&shown) {
            shown.reason = if shown.reason.is_empty() { told } else { format!("{}; {told}", shown.reason) };
        }
    }
}

/// Says of what waits by its stages what it waits for.
fn tell_waits(rows: &mut LabRows) {
    for (uid, waiting) in crate::stages::waits(rows) {
        let Some(node) = rows.nodes.get_mut(&uid) else { continue };
        let shown = match node.state {
            NodeState::Pending | NodeState::Creating | NodeState::Starting => true,
            NodeState::Running => waiting.stage <= Stage::Configure,
            _ => false,
        };
        if shown {
            node.reason = waiting.reason;
        }
    }
}

fn node_facts(node: &mut NodeRow, view: Option<&HostView>, waiting: &BTreeMap<NodeUid, &str>) {
    let bridge = node.runtime == Runtime::Bridge;
    let heard = view.map_or(Heard::Lost, |v| if bridge { v.network.heard } else { v.compute.heard });
    if heard == Heard::Yes {
        node.observed = view.and_then(|v| v.compute.instances.get(&node.uid)).cloned();
    }
    if node.is_aside() {
        (node.state, node.reason) = match (heard, &node.observed) {
            (Heard::Lost, _) => (NodeState::Unknown, "its host is not heard of".to_owned()),
            _ if !node.is_in_the_way() => (NodeState::Stopped, format!("it is set aside: {BACK}")),
            (_, Some(seen)) if !seen.detail.is_empty() => {
                (NodeState::Stopping, format!("it is being set aside: {}", seen.detail))
            }
            _ => (NodeState::Stopping, "it is being set aside".to_owned()),
        };
        return;
    }
    if node.wanted == Wanted::Absent {
        (node.state, node.reason) = match heard {
            Heard::Lost => {
                (NodeState::Unknown, "its host is not heard of; it is removed when it is".to_owned())
            }
            _ if node.removal.is_empty() => (NodeState::Stopping, "it is being removed".to_owned()),
            _ => (NodeState::Stopping, node.removal.clone()),
        };
        return;
    }
    let segment = view
        .filter(|v| v.network.heard == Heard::Yes)
        .and_then(|v| v.network.segments.get(&node.segment?))
        .map(|s| (s.state, s.detail.as_str()));
    if bridge && heard == Heard::NotYet && node.host.is_some() {
        return;
    }
    let wiped = if node.wipes > 0 { node.instance_hash() } else { String::new() };
    let evidence = NodeEvidence {
        runtime: node.runtime,
        wanted: node.wanted,
        placed: node.host.is_some(),
        image: match node.image_step {
            ImageStep::Waiting => Image::Waiting,
            ImageStep::Pulling => Image::Pulling(&node.image_detail),
            ImageStep::Ready => Image::Ready,
            ImageStep::Failed => Image::Failed(&node.image_detail),
        },
        heard: heard != Heard::Lost,
        observed: node.observed.as_deref(),
        restarts: node.restarts,
        wiped: &wiped,
        segment,
    };
    (node.state, node.reason) = node_state(&evidence);
    if node.disk_due && node.image_step == ImageStep::Ready {
        // Nothing is told of it before.
        (node.state, node.reason) = (NodeState::Pending, String::new());
    }
    match node.state {
        NodeState::Unschedulable => {
            let told: Vec<String> =
                node.rejections.iter().map(|r| format!("{} {}", r.host, r.detail)).collect();
            if !told.is_empty() {
                node.reason = format!("no host has room for it: {}", told.join("; "));
            }
        }
        NodeState::Pending if node.reason.is_empty() => {
            if let Some(why) = waiting.get(&node.uid) {
                node.reason = (*why).to_owned();
            } else if !node.image_detail.is_empty() {
                node.reason.clone_from(&node.image_detail);
            }
        }
        NodeState::Running | NodeState::Ready if !node.image_detail.is_empty() => {
            let told = format!("its files are not put in place yet, {}", node.image_detail);
            node.reason = if node.reason.is_empty() { told } else { format!("{}; {told}", node.reason) };
        }
        _ => {}
    }
}

/// True when no link can come up at this node as things are: nothing better will come of it by waiting.
pub fn is_dead_end(node: &NodeRow) -> bool {
    matches!(
        node.state,
        NodeState::Failed | NodeState::Unschedulable | NodeState::Stopped | NodeState::Unknown
    )
}

#[cfg(test)]
mod tests;
