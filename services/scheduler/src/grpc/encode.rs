//! From what the store tells to messages.

use std::collections::BTreeMap;

use netloom_model::id::{HostId, WireId};
use netloom_model::observed::{NetworkInventory, PathMtu, Source};
use netloom_model::plan::{Object as What, Progress};
use netloom_model::state::{NodeState, Runtime};
use netloom_model::tally::{LinkTally, NodeTally};
use netloom_proto::convert::{acceleration, timestamp, told};
use netloom_proto::scheduler::v1 as ps;
use netloom_proto::v1 as p;
use netloom_service::status::to_rpc_status;

use crate::client::CheckResult;
use crate::copies::{HostCopy, Told};
use crate::events::Heard;
use crate::quota::Quota;
use crate::rows::{HostRow, LabRows, NodeRow, OperationKind, OperationRow, OperationState, Resources};
use crate::scheduler::Scheduler;
use crate::store::{Interface, LabView, LinkView, NodeView, Object, progress};
use crate::world::HostView;

pub(super) fn lab(core: &Scheduler, view: LabView) -> ps::LabFacts {
    let LabView { lab, nodes, links, unplugged, needs_restart, operation, hosts } = view;
    let node =
        |(runtime, wanted, state, count)| ps::NodeTally::from(NodeTally { runtime, wanted, state, count });
    let tallies = |group: Vec<_>, unplugged, needs_restart| {
        group.into_iter().map(move |(state, count)| {
            ps::LinkTally::from(LinkTally { state, count, unplugged, needs_restart })
        })
    };
    let links = tallies(links, false, false);
    let others = tallies(unplugged, true, false).chain(tallies(needs_restart, false, true));
    ps::LabFacts {
        uid: lab.uid.to_string(),
        id: lab.id.to_string(),
        spec: Some(lab.spec.into_inner().into()),
        wanted: p::Wanted::from(lab.wanted).into(),
        generation: lab.generation,
        node_tallies: nodes.into_iter().map(node).collect(),
        link_tallies: links.chain(others).collect(),
        operation: operation.unwrap_or_default(),
        create_time: timestamp(lab.create_us),
        update_time: timestamp(lab.update_us),
        observe_time: timestamp(core.world.heard_us(hosts.iter())),
    }
}

pub(super) fn node(core: &Scheduler, view: NodeView) -> ps::NodeFacts {
    let NodeView { lab, node, instance_name, interfaces } = view;
    let interface = |i: Interface| ps::InterfaceFacts {
        name: i.name,
        guest_name: i.guest_name,
        mac: i.mac,
        mtu: i.mtu,
        addresses: i.addresses,
        link: i.link,
        present: i.present,
        carrier: i.carrier,
    };
    let of_segment = |host: &HostId, segment: &WireId| {
        core.world.host(host, |view| view.network.segments.get(segment).map(|s| s.sources.clone())).flatten()
    };
    let mut sources = match (&node.observed, node.host.as_ref().zip(node.segment.as_ref())) {
        (Some(observed), _) => observed.sources.clone(),
        (None, Some((host, segment))) => of_segment(host, segment).unwrap_or_default(),
        (None, None) => Vec::new(),
    };
    if !sources.is_empty() && interfaces.iter().any(|interface| interface.present) {
        sources.push(Source::Interfaces);
    }
    let observe_time = timestamp(core.world.read_us(node.host.as_ref(), &sources));
    let mut facts = ps::NodeFacts {
        boot: boot(core, &node),
        sources: told(sources),
        uid: node.uid.to_string(),
        lab,
        runtime: p::Runtime::from(node.runtime).into(),
        wanted: p::Wanted::from(node.wanted).into(),
        host: node.host.as_ref().map(HostId::to_string).unwrap_or_default(),
        state: p::NodeState::from(node.state).into(),
        reason: node.reason,
        instance_name,
        interfaces: interfaces.into_iter().map(interface).collect(),
        rejections: node.rejections.into_iter().map(Into::into).collect(),
        spec_hash: node.spec_hash,
        create_time: timestamp(node.create_us),
        update_time: timestamp(node.update_us),
        observe_time,
        spec: Some(node.spec.into_inner().into()),
        ..ps::NodeFacts::default()
    };
    if let Some(o) = node.observed {
        let o = o.into_inner();
        facts.image_digest = o.image_digest;
        facts.restart_count = o.restart_count;
        facts.exit_code = o.exit_code;
        facts.mgmt_ipv4 = o.mgmt_ipv4;
        facts.mgmt_ipv6 = o.mgmt_ipv6;
        facts.exec_error = o.exec_error;
        facts.start_time = timestamp(o.start_time_us);
        facts.health = o.health;
    }
    facts
}

pub(super) fn link(core: &Scheduler, view: LinkView) -> ps::LinkFacts {
    let LinkView { lab, link, mtu } = view;
    let carried = |host| core.world.host(host, |view| view.network.carried.get(&link.wire_id).copied());
    let carried = link.host.as_ref().and_then(carried).flatten();
    // Each host reads its own half.
    let halves = link.hosts().map(|host| {
        let of = |view: &HostView| view.network.wires.get(&link.wire_id).map(|wire| wire.sources.clone());
        (host, core.world.host(host, of).flatten().unwrap_or_default())
    });
    let halves: Vec<(&HostId, Vec<Source>)> = halves.collect();
    let read = halves.iter().map(|(host, sources)| core.world.read_us(Some(*host), sources)).min();
    let observe_time = timestamp(read.unwrap_or_default());
    let mut sources: Vec<Source> = halves.into_iter().flat_map(|(_, sources)| sources).collect();
    sources.sort();
    sources.dedup();
    ps::LinkFacts {
        carried_a_to_b: carried.map(|c| c.a_to_b.into()),
        carried_b_to_a: carried.map(|c| c.b_to_a.into()),
        sources: told(sources),
        uid: link.uid.to_string(),
        lab,
        id: link.id,
        observe_time,
        enabled: link.enabled,
        spec: Some(link.spec.into_inner().into()),
        state: p::LinkState::from(link.state).into(),
        reason: link.reason,
        plane: link.plane,
        plane_reason: link.plane_reason,
        create_time: timestamp(link.create_us),
        update_time: timestamp(link.update_us),
        mtu,
    }
}

pub(super) fn host(
    core: &Scheduler,
    row: HostRow,
    reserved: &BTreeMap<HostId, Resources>,
    tallies: &BTreeMap<HostId, Vec<NodeTally>>,
) -> ps::HostFacts {
    let view = core.world.host(&row.id, Clone::clone).unwrap_or_default();
    // What was last proved is told of a host that is not heard of, with its age.
    let compute = if view.compute.heard_us > 0 { view.compute.inventory } else { row.compute };
    let network = if view.network.heard_us > 0 { view.network.inventory } else { row.network };
    let heard = core.world.host(&row.id, crate::world::HostView::is_heard).unwrap_or(false);
    let mut problems = Vec::new();
    for (service, said) in [("compute", view.compute.heard), ("network", view.network.heard)] {
        if said != crate::world::Heard::Yes {
            problems.push(format!("its {service} service is not heard of"));
        }
    }
    problems.extend(compute.problems.into_iter().chain(network.problems));
    let reserved = reserved.get(&row.id).copied().unwrap_or_default();
    let heard_us = match core.world.heard_us([&row.id].into_iter()) {
        0 => row.heard_us,
        us => us,
    };
    let (acceleration, acceleration_reason) = acceleration(compute.acceleration);
    let [cpu_overcommit, memory_overcommit, disk_overcommit] = row.policy.overcommit(&core.config);
    ps::HostFacts {
        uid: row.uid,
        heard,
        problems,
        cpu_millis: compute.cpu_millis,
        cpu_reserved_millis: reserved.cpu_millis,
        cpu_overcommit,
        memory_bytes: compute.memory_bytes,
        memory_reserved_bytes: reserved.memory_bytes,
        memory_overcommit,
        disk_bytes: compute.disk_bytes,
        disk_reserved_bytes: reserved.disk_bytes,
        disk_overcommit,
        system_cpu_millis: row.policy.system_cpu_millis,
        system_memory_bytes: row.policy.system_memory_bytes,
        system_disk_bytes: row.policy.system_disk_bytes,
        taints: row.policy.taints.into_iter().collect(),
        runtimes: compute.runtimes.into_iter().map(|r| p::Runtime::from(r).into()).collect(),
        runtime_versions: compute.runtime_versions,
        missing_runtimes: compute.missing_runtimes,
        datapath: network.datapath,
        ovs_version: network.ovs_version,
        uplinks: network.uplinks.into_iter().map(Into::into).collect(),
        acceleration: acceleration.into(),
        acceleration_reason,
        plane: network.plane,
        plane_reason: network.plane_reason,
        node_tallies: tallies.get(&row.id).into_iter().flatten().map(|t| (*t).into()).collect(),
        observe_time: timestamp(heard_us),
        id: row.id.to_string(),
        cordoned: row.cordoned,
        drain: drain(core, &row.id).into(),
        staying: staying(core, &row.id),
        paths: paths(core, &row.id),
        labels: row.policy.labels.into_iter().collect(),
        address: row.membership.address,
        certificate_serial: row.membership.serial,
        certificate_expire_time: timestamp(row.membership.expire_us),
    }
}

/// What is told of copies of an image.
pub(super) fn copies(told: Told) -> ps::VerifyImageResponse {
    use ps::verify_image_response::Event;
    let event = match told {
        Told::Under(host, done_bytes, total_bytes) => {
            Event::Progress(ps::ImageCheckProgress { host: host.to_string(), done_bytes, total_bytes })
        }
        Told::Copy(HostCopy { host, checked, fetched, nodes }) => Event::Checked(ps::ImageCheckFacts {
            host: host.to_string(),
            digest: checked.digest,
            result: match checked.result {
                CheckResult::Right => p::ImageCheckResult::Right,
                CheckResult::Absent => p::ImageCheckResult::Absent,
                CheckResult::SetAside => p::ImageCheckResult::SetAside,
                CheckResult::Unreadable => p::ImageCheckResult::Unreadable,
                CheckResult::Unreachable => p::ImageCheckResult::Unreachable,
            }
            .into(),
            size_bytes: checked.size_bytes,
            message: checked.message,
            fetched,
            nodes: nodes.into_iter().map(|(lab, node)| format!("{lab}/{node}")).collect(),
        }),
    };
    ps::VerifyImageResponse { event: Some(event) }
}

/// A quota, with what is used of it.
pub(super) fn quota(core: &Scheduler, quota: Quota) -> ps::QuotaFacts {
    let used = core.usage(&quota.project);
    ps::QuotaFacts {
        project: quota.project,
        nodes: quota.nodes,
        cpu_millis: quota.cpu_millis,
        memory_bytes: quota.memory_bytes,
        disk_bytes: quota.disk_bytes,
        lab_count: used.labs,
        used_nodes: used.nodes,
        used_cpu_millis: used.cpu_millis,
        used_memory_bytes: used.memory_bytes,
        used_disk_bytes: used.disk_bytes,
    }
}

/// What was measured of the ways between a host and the others, by both.
fn paths(core: &Scheduler, host: &HostId) -> Vec<p::HostPath> {
    core.world.read(|hosts| {
        let said = |host: &HostId| hosts.get(host).map(|view| &view.network.inventory);
        let own = said(host).and_then(|inventory| Some((inventory, inventory.underlay?.address)));
        let Some((own, here)) = own else { return Vec::new() };
        let path = |(peer, view): (&HostId, &HostView)| {
            let there = view.network.inventory.underlay.filter(|_| peer != host)?.address;
            let of = |inventory: &NetworkInventory, address| {
                inventory.paths.iter().find(|path| path.address == address).cloned()
            };
            let (to, from) = (of(own, there), of(&view.network.inventory, here));
            let problems = [&to, &from].into_iter().flatten().map(|path| path.problem.as_str());
            let mtu = |path: &Option<PathMtu>| path.as_ref().and_then(|path| path.mtu).unwrap_or_default();
            (to.is_some() || from.is_some()).then(|| p::HostPath {
                host: peer.to_string(),
                address: there.to_string(),
                mtu_to: mtu(&to),
                mtu_from: mtu(&from),
                problem: problems.clone().find(|problem| !problem.is_empty()).unwrap_or_default().to_owned(),
            })
        };
        hosts.iter().filter_map(path).collect()
    })
}

/// How far a host is drained, when it is.
fn drain(core: &Scheduler, host: &HostId) -> p::DrainState {
    match core.world.drained().contains_key(host) {
        false => p::DrainState::Unspecified,
        true if crate::drain::is_empty(core, host) => p::DrainState::Drained,
        true => p::DrainState::Draining,
    }
}

/// The nodes that stay on a host that is drained, or silent for too long.
fn staying(core: &Scheduler, host: &HostId) -> Vec<p::StayingNode> {
    let stay = core.world.host(host, |view| view.stay.clone()).unwrap_or_default();
    let of_lab = |(lab, nodes): (_, Vec<netloom_model::plan::Unplaced>)| {
        let lab = core.store.rows(lab).map(|rows| rows.lab.id.to_string()).unwrap_or_default();
        nodes.into_iter().map(move |stays| p::StayingNode {
            node: format!("labs/{lab}/nodes/{}", stays.node),
            rejections: stays.rejections.into_iter().map(Into::into).collect(),
        })
    };
    stay.into_iter().flat_map(of_lab).collect()
}

/// How long a virtual machine boots already; none when it does not.
fn boot(core: &Scheduler, node: &NodeRow) -> Option<p::Boot> {
    let limit = core.catalogue.of(&node.spec).map(|kind| kind.readiness.timeout_s()).unwrap_or_default();
    let boots = node.runtime == Runtime::Libvirt && node.state == NodeState::Running && limit > 0;
    let started_us = node.observed.as_deref().map(|o| o.start_time_us).filter(|us| boots && *us > 0)?;
    let limit_seconds = i32::try_from(limit).unwrap_or(i32::MAX);
    Some(p::Boot { start_time: timestamp(started_us), limit_seconds })
}

/// How far a running operation is. What is gone while its lab is not says what holds the lab up.
fn how_far(core: &Scheduler, row: &OperationRow) -> Vec<p::Progress> {
    let rows = core.store.rows(row.lab_uid);
    let nodes = rows.as_deref().map(LabRows::told).unwrap_or_default();
    let left = core.world.left_of(row.lab_uid);
    let told = |progress: Progress| {
        let node = nodes.get(&progress.id.to_ascii_lowercase()).filter(|_| progress.object == What::Node);
        let mut progress =
            p::Progress { boot: node.and_then(|node| boot(core, node)), ..p::Progress::from(progress) };
        if progress.state == "GONE" {
            progress.detail.clone_from(&left);
        }
        progress
    };
    progress(row, rows.as_deref()).into_iter().map(told).collect()
}

pub(super) fn operation(core: &Scheduler, row: OperationRow) -> ps::OperationFacts {
    let how_far = match row.state {
        OperationState::Running => how_far(core, &row),
        _ => row.progress.into_iter().map(Into::into).collect(),
    };
    let kind = match row.kind {
        OperationKind::Deploy | OperationKind::Edit => p::OperationKind::Deploy,
        OperationKind::Destroy => p::OperationKind::Destroy,
        OperationKind::Start => p::OperationKind::Start,
        OperationKind::Stop => p::OperationKind::Stop,
        OperationKind::Restart => p::OperationKind::Restart,
        OperationKind::Wipe => p::OperationKind::Wipe,
        OperationKind::Restore => p::OperationKind::Restore,
        OperationKind::Move => p::OperationKind::Move,
    };
    let state = match row.state {
        OperationState::Running => p::OperationState::Running,
        OperationState::Succeeded => p::OperationState::Succeeded,
        OperationState::Failed => p::OperationState::Failed,
        OperationState::Cancelled => p::OperationState::Cancelled,
    };
    ps::OperationFacts {
        id: row.id.to_string(),
        kind: kind.into(),
        lab: row.lab.to_string(),
        state: state.into(),
        plan: Some(row.plan.into()),
        progress: how_far,
        error: row.error.as_ref().map(to_rpc_status),
        create_time: timestamp(row.create_us),
        update_time: timestamp(row.update_us),
        end_time: timestamp(row.end_us),
    }
}

pub(super) fn heard(core: &Scheduler, heard: Heard) -> ps::WatchResponse {
    use ps::watch_response::Object as O;
    let event = match heard {
        Heard::Heartbeat(sequence) => {
            let kind = ps::EventKind::Heartbeat.into();
            return ps::WatchResponse { sequence, lab: String::new(), kind, object: None, time: None };
        }
        Heard::Event(event) => *event,
    };
    let object = match event.object {
        Object::Lab(mut view) => {
            // The log leaves a lab's spec out.
            if let Some(rows) = core.store.rows(view.lab.uid).filter(|_| !event.deleted) {
                view.lab.spec.clone_from(&rows.lab.spec);
            }
            O::LabFacts(lab(core, *view))
        }
        Object::Node(view) => O::Node(node(core, *view)),
        Object::Link(view) => O::Link(link(core, *view)),
        Object::Operation(row) => O::Operation(operation(core, *row)),
    };
    let kind = if event.deleted { ps::EventKind::Deleted } else { ps::EventKind::Changed };
    ps::WatchResponse {
        sequence: event.sequence,
        lab: event.lab,
        kind: kind.into(),
        object: Some(object),
        time: timestamp(event.time_us),
    }
}
