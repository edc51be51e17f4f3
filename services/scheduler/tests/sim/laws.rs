//! What holds after every step of a story, and what holds in its end.

use std::collections::{BTreeMap, BTreeSet};

use netloom_model::observed::Phase;
use netloom_proto::network::v1 as pn;
use netloom_proto::scheduler::v1 as ps;
use netloom_proto::v1 as p;

use crate::people::{BRIDGE, Wish};
use crate::world::World;

/// What must hold at every moment, whatever fails.
pub fn hold(world: &World) {
    let mut live: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    let mut vnis: BTreeMap<u32, BTreeSet<u64>> = BTreeMap::new();
    for machine in &world.machines {
        machine.host.read(|s| {
            for (uid, e) in s.exists.iter().filter(|(_, e)| e.phase == Phase::Running) {
                let at = format!("{uid} on {}", machine.host.name);
                live.entry((e.lab_uid.clone(), e.node.clone())).or_default().push(at);
            }
            for wire in s.wires.values() {
                for tunnel in [&wire.a, &wire.b].into_iter().filter_map(tunnel) {
                    vnis.entry(tunnel.vni).or_default().insert(wire.wire_id);
                }
            }
        });
    }
    for ((_, node), at) in live {
        assert!(at.len() < 2, "{node} is live twice: {}", at.join(", "));
    }
    for (vni, wires) in vnis {
        assert!(wires.len() < 2, "links share the network identifier {vni}: wires {wires:?}");
    }
}

fn tunnel(end: &Option<pn::WireEnd>) -> Option<&pn::Tunnel> {
    match end.as_ref()?.end.as_ref()? {
        pn::wire_end::End::Tunnel(tunnel) => Some(tunnel),
        _ => None,
    }
}

/// Everything that the scheduler says.
struct Said {
    labs: Vec<ps::LabFacts>,
    nodes: Vec<ps::NodeFacts>,
    links: Vec<ps::LinkFacts>,
    hosts: Vec<ps::HostFacts>,
}

impl Said {
    async fn by(world: &World) -> Said {
        let all = ps::ListLabsRequest { page_size: 100, after: String::new() };
        let labs = world.ask(all, |mut c, r| async move { c.list_labs(r).await }).await.unwrap().labs;
        let all = ps::ListHostsRequest { page_size: 100, after: String::new() };
        let hosts = world.ask(all, |mut c, r| async move { c.list_hosts(r).await }).await.unwrap().hosts;
        let (mut nodes, mut links) = (Vec::new(), Vec::new());
        for lab in &labs {
            let of = ps::ListNodesRequest { lab: lab.id.clone(), page_size: 100, after: String::new() };
            // One that went meanwhile has none.
            nodes.extend(
                world
                    .ask(of, |mut c, r| async move { c.list_nodes(r).await })
                    .await
                    .map(|all| all.nodes)
                    .unwrap_or_default(),
            );
            let of = ps::ListLinksRequest { lab: lab.id.clone(), page_size: 100, after: String::new() };
            links.extend(
                world
                    .ask(of, |mut c, r| async move { c.list_links(r).await })
                    .await
                    .map(|all| all.links)
                    .unwrap_or_default(),
            );
        }
        nodes.retain(|n| !is_aside(n));
        Said { labs, nodes, links, hosts }
    }
}

/// False for a node that goes on as it was, started or stopped, since what is to take its place has none.
fn is_made_as_asked(node: &ps::NodeFacts, spec: &p::LabSpec) -> bool {
    let asked = spec.nodes.iter().find(|n| n.id == id(node));
    let of = |n: &p::NodeSpec| (n.cpu_request_millis, n.disk_request_bytes, n.env.clone());
    asked.map(of) == node.spec.as_ref().map(of)
}

fn placement(node: &ps::NodeFacts) -> p::PlacementSpec {
    node.spec.as_ref().and_then(|spec| spec.placement.clone()).unwrap_or_default()
}

fn cpu(node: &ps::NodeFacts) -> u64 {
    node.spec.as_ref().map_or(0, |s| s.cpu_request_millis.into())
}

fn disk(node: &ps::NodeFacts) -> u64 {
    node.spec.as_ref().map_or(0, |s| s.disk_request_bytes)
}

/// True for one that its lab's last deploy dropped, or is to replace, and that is kept until a deploy succeeds.
fn is_aside(node: &ps::NodeFacts) -> bool {
    node.wanted() == p::Wanted::Absent && node.reason.contains("set aside")
}

fn is_bridge(node: &ps::NodeFacts) -> bool {
    node.spec.as_ref().is_some_and(|spec| spec.kind == BRIDGE)
}

fn id(node: &ps::NodeFacts) -> &str {
    node.spec.as_ref().map_or("", |s| s.id.as_str())
}

/// What is not as it was asked for; empty in the end.
pub async fn amiss(world: &World, wishes: &BTreeMap<String, Wish>) -> Vec<String> {
    let said = Said::by(world).await;
    let mut amiss = Vec::new();
    for lab in said.labs.iter().filter(|l| !l.operation.is_empty()) {
        amiss.push(format!("lab {}: operation {} is not over", lab.id, lab.operation));
    }
    for (lab, wish) in wishes {
        let there = said.labs.iter().find(|l| l.id == *lab);
        match (wish, there) {
            (Wish::Gone, Some(_)) => amiss.push(format!("lab {lab} is not gone")),
            (Wish::Spec { .. }, None) => amiss.push(format!("lab {lab} is lost")),
            (Wish::Spec { spec, stopped }, Some(_)) => {
                let nodes = || said.nodes.iter().filter(|n| n.lab == *lab);
                let names: BTreeSet<&str> = nodes().map(id).collect();
                if names != spec.nodes.iter().map(|n| n.id.as_str()).collect() {
                    amiss.push(format!("lab {lab} has the nodes {names:?}"));
                }
                for node in nodes().filter(|n| is_made_as_asked(n, spec)) {
                    let wanted =
                        if stopped.contains(id(node)) { p::Wanted::Stopped } else { p::Wanted::Running };
                    if node.wanted() != wanted {
                        amiss.push(format!(
                            "node {lab}/{} is wanted {}",
                            id(node),
                            node.wanted().as_str_name()
                        ));
                    }
                }
            }
            _ => {}
        }
    }
    amiss.extend(nodes(world, &said));
    amiss.extend(links(world, &said));
    amiss.extend(reservations(&said));
    amiss
}

/// Every node once where it is said to be, and nothing else anywhere.
fn nodes(world: &World, said: &Said) -> Vec<String> {
    let mut amiss = Vec::new();
    let mut instances: BTreeMap<String, (String, Phase)> = BTreeMap::new();
    for machine in &world.machines {
        let host = &machine.host.name;
        machine.host.read(|s| {
            for (uid, e) in s.exists.iter().filter(|(_, e)| e.phase != Phase::Aside) {
                if let Some((other, _)) = instances.insert(uid.clone(), (host.clone(), e.phase)) {
                    amiss.push(format!("{} ({uid}) is on {host} and on {other}", e.node));
                }
                if !said.nodes.iter().any(|n| n.uid == *uid && n.host == *host) {
                    amiss.push(format!("{} ({uid}) is on {host}, where no node of it is", e.node));
                }
            }
            let here = said.nodes.iter().filter(|n| n.host == *host && is_bridge(n)).map(|n| n.uid.as_str());
            let (here, there): (BTreeSet<&str>, _) =
                (here.collect(), s.segments.values().map(|segment| segment.node_uid.as_str()).collect());
            if here != there {
                amiss.push(format!("{host} has segments of {there:?}, and has the bridges {here:?}"));
            }
            if !s.leftovers.is_empty() {
                amiss.push(format!("{host} has the wires {:?}, which are not wanted", s.leftovers));
            }
        });
    }
    for node in &said.nodes {
        let at = instances.get(&node.uid);
        let as_wished = match (node.wanted(), node.state()) {
            (p::Wanted::Running, p::NodeState::Ready) if is_bridge(node) => at.is_none(),
            (p::Wanted::Running, p::NodeState::Ready) => at == Some(&(node.host.clone(), Phase::Running)),
            (p::Wanted::Stopped, p::NodeState::Stopped) => {
                at.is_none_or(|(_, phase)| *phase == Phase::Stopped)
            }
            (_, p::NodeState::Unschedulable) => at.is_none(),
            _ => false,
        };
        if !as_wished {
            let (state, reason) = (node.state().as_str_name(), &node.reason);
            amiss.push(format!(
                "{}/{} ({}) on \"{}\": {state}, {reason}; there is {at:?}",
                node.lab,
                id(node),
                node.uid,
                node.host
            ));
        }
    }
    amiss
}

/// Every link between ready nodes is up, and hosts have the wires of those and no other.
fn links(world: &World, said: &Said) -> Vec<String> {
    let mut amiss = Vec::new();
    let mut wires: BTreeMap<&str, usize> = BTreeMap::new();
    for link in &said.links {
        let spec = link.spec.clone().unwrap_or_default();
        let end = |e: &Option<p::Endpoint>| {
            let name = e.as_ref().map_or("", |e| e.node.as_str());
            said.nodes.iter().find(|n| n.lab == link.lab && id(n) == name)
        };
        let ends = [end(&spec.a), end(&spec.b)];
        let is_ready = ends.iter().flatten().filter(|n| n.state() == p::NodeState::Ready).count() == 2;
        if is_ready && link.enabled && link.state() != p::LinkState::Up {
            amiss.push(format!(
                "link {}/{}: {}, {}",
                link.lab,
                link.id,
                link.state().as_str_name(),
                link.reason
            ));
        }
        let placed: BTreeSet<&str> =
            ends.iter().flatten().map(|n| n.host.as_str()).filter(|h| !h.is_empty()).collect();
        if ends.iter().flatten().all(|n| !n.host.is_empty()) {
            placed.into_iter().for_each(|host| *wires.entry(host).or_default() += 1);
        }
    }
    for machine in &world.machines {
        let host = machine.host.name.as_str();
        let expected = wires.get(host).copied().unwrap_or_default();
        machine.host.read(|s| {
            if s.wires.len() != expected {
                amiss.push(format!("{host} has {} wires, and {expected} links touch it", s.wires.len()));
            }
        });
    }
    amiss
}

/// What is reserved is what nodes have, once; and who has no place has none.
fn reservations(said: &Said) -> Vec<String> {
    let mut amiss = Vec::new();
    // Those who may be anywhere.
    let apart = |n: &ps::NodeFacts| {
        let apart_from = placement(n).apart_from;
        apart_from.into_iter().map(|other| (n.lab.clone(), other)).collect::<Vec<_>>()
    };
    let apart: BTreeSet<(String, String)> = said.nodes.iter().flat_map(apart).collect();
    let may_be_on = |n: &ps::NodeFacts, host: &str| {
        let of = placement(n);
        let is_apart = !of.apart_from.is_empty() || apart.contains(&(n.lab.clone(), id(n).to_owned()));
        !is_apart && (of.host.is_empty() || of.host == host)
    };
    for host in &said.hosts {
        let nodes = || said.nodes.iter().filter(|n| n.host == host.id);
        for (what, of_nodes, reserved) in [
            ("CPU", nodes().map(cpu).sum::<u64>(), host.cpu_reserved_millis),
            ("disk", nodes().map(disk).sum::<u64>(), host.disk_reserved_bytes),
        ] {
            if of_nodes != reserved {
                amiss
                    .push(format!("{reserved} {what} of {} is reserved, and nodes have {of_nodes}", host.id));
            }
        }
        let room = |has: u64, system: u64, times: f64| (has.saturating_sub(system) as f64 * times) as u64;
        let has_cpu = room(host.cpu_millis, host.system_cpu_millis, host.cpu_overcommit);
        // A disk of which nothing is known is no limit.
        let has_disk =
            host.disk_bytes.map_or(u64::MAX, |has| room(has, host.system_disk_bytes, host.disk_overcommit));
        let waits = |n: &&ps::NodeFacts| n.state() == p::NodeState::Unschedulable;
        for node in said.nodes.iter().filter(waits).filter(|n| may_be_on(n, &host.id)) {
            let fits = host.cpu_reserved_millis + cpu(node) <= has_cpu;
            if fits && host.disk_reserved_bytes + disk(node) <= has_disk {
                amiss.push(format!("{}/{} waits for room, and {} has it", node.lab, id(node), host.id));
            }
        }
    }
    amiss
}
