//! Where nodes go: filters with reasons, then a preference. Pure.
//!
//! Capacity is a constraint here, never a veto afterwards: one host that was full made a whole lab fail although another had room. A node that fits
//! nowhere does not stop the others, and every host's reason is kept.

mod policy;

use std::collections::{BTreeMap, BTreeSet};

use netloom_model::id::{HostId, NodeUid};
use netloom_model::plan::Rejection;
use netloom_model::state::Runtime;

pub use self::policy::{Allowed, Asks, is_policy};

/// What a host offers, and what is reserved of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Room {
    /// The host.
    pub host: HostId,
    /// True when it is heard of.
    pub heard: bool,
    /// What was proven to run on it.
    pub runtimes: BTreeSet<Runtime>,
    /// CPU that may be reserved, overcommit included, in thousandths of a core.
    pub cpu_millis: u64,
    /// Memory that may be reserved, overcommit included, in bytes.
    pub memory_bytes: u64,
    /// CPU reserved.
    pub cpu_reserved: u64,
    /// Memory reserved.
    pub memory_reserved: u64,
    /// What its owner allows and its kernel can do.
    pub allowed: Allowed,
}

/// A node that needs a host.
#[derive(Debug, Clone, PartialEq)]
pub struct Need {
    /// The node.
    pub uid: NodeUid,
    /// Its id, so that equal nodes are taken in an order that people expect.
    pub id: String,
    /// What runs it.
    pub runtime: Runtime,
    /// CPU it asks for.
    pub cpu_millis: u64,
    /// Memory it asks for.
    pub memory_bytes: u64,
    /// The host its former self was on.
    pub former: Option<HostId>,
    /// Nodes it is linked to.
    pub neighbours: BTreeSet<NodeUid>,
    /// What it asks for beside room.
    pub asks: Asks,
    /// The node whose network namespace it shares: both are on one host.
    pub beside: Option<NodeUid>,
}

/// Where each node goes, or why no host takes it.
pub type Placed = BTreeMap<NodeUid, Result<HostId, Vec<Rejection>>>;

impl Room {
    fn free(&self) -> (u64, u64) {
        (
            self.cpu_millis.saturating_sub(self.cpu_reserved),
            self.memory_bytes.saturating_sub(self.memory_reserved),
        )
    }

    fn take(&mut self, need: &Need) {
        self.reserve(need.cpu_millis, need.memory_bytes);
    }

    /// Counts a reservation.
    pub fn reserve(&mut self, cpu_millis: u64, memory_bytes: u64) {
        self.cpu_reserved = self.cpu_reserved.saturating_add(cpu_millis);
        self.memory_reserved = self.memory_reserved.saturating_add(memory_bytes);
    }

    /// Why this host does not take the node; none when it does.
    pub fn rejects(&self, need: &Need) -> Option<Rejection> {
        let reject = |code: &str, detail: String, resolvable: bool| {
            Some(Rejection { host: self.host.to_string(), code: code.to_owned(), detail, resolvable })
        };
        if !self.heard {
            return reject("HOST_UNKNOWN", "is not heard of".to_owned(), true);
        }
        // A bridge is made by the network service: it asks for no runtime.
        if need.runtime != Runtime::Bridge && !self.runtimes.contains(&need.runtime) {
            return reject("RUNTIME_MISSING", silent(need.runtime), false);
        }
        if let Some((code, detail)) = self.allowed.lacks(&need.asks) {
            return reject(code, detail, false);
        }
        self.lacks(need.cpu_millis, need.memory_bytes)
    }

    /// What is not free of what is asked for; none when all of it is.
    pub fn lacks(&self, cpu_millis: u64, memory_bytes: u64) -> Option<Rejection> {
        let (cpu, memory) = self.free();
        let (code, detail, resolvable) = if cpu_millis > cpu {
            let (needs, free, all) = (cores(cpu_millis), cores(cpu), cores(self.cpu_millis));
            let detail = format!("needs {needs} CPU, {free} of {all} free");
            ("INSUFFICIENT_CPU", detail, cpu_millis <= self.cpu_millis)
        } else if memory_bytes > memory {
            let (needs, free, all) = (mib(memory_bytes), mib(memory), mib(self.memory_bytes));
            let detail = format!("needs {needs} memory, {free} of {all} free");
            ("INSUFFICIENT_MEMORY", detail, memory_bytes <= self.memory_bytes)
        } else {
            return None;
        };
        Some(Rejection { host: self.host.to_string(), code: code.to_owned(), detail, resolvable })
    }
}

/// That a runtime does not answer, and what to do.
fn silent(runtime: Runtime) -> String {
    let remedy = match runtime {
        Runtime::Libvirt => ": install libvirtd and qemu-system-x86 there and start libvirtd",
        Runtime::Docker | Runtime::Bridge => "",
    };
    format!("{runtime} does not answer on it{remedy}")
}

fn cores(millis: u64) -> String {
    format!("{}.{:02}", millis / 1_000, millis % 1_000 / 10)
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

/// Places the nodes that need a host. `placed` says where the lab's other nodes are; `rooms` is what all other reservations leave.
///
/// All on one host if one takes them all, since links do not cross hosts: first the host that most of the lab is on already. Otherwise node by node, those
/// that fewest hosts can run and the largest first, each to the host of most of its neighbours, then the emptiest.
pub fn place(needs: &[Need], placed: &BTreeMap<NodeUid, HostId>, rooms: &[Room]) -> Placed {
    let mut rooms = rooms.to_vec();
    let mut there = placed.clone();
    if let Some(host) = whole(needs, placed, &rooms) {
        return needs.iter().map(|n| (n.uid, Ok(host.clone()))).collect();
    }
    let able = |need: &Need| {
        rooms.iter().filter(|r| need.runtime == Runtime::Bridge || r.runtimes.contains(&need.runtime)).count()
    };
    let mut order: Vec<(usize, &Need)> = needs.iter().map(|n| (able(n), n)).collect();
    order.sort_by(|(a, x), (b, y)| {
        // Those that share a namespace after those that have one; bridges last: they go where their nodes went.
        (x.runtime == Runtime::Bridge, x.beside.is_some(), *a)
            .cmp(&(y.runtime == Runtime::Bridge, y.beside.is_some(), *b))
            .then((y.cpu_millis, y.memory_bytes).cmp(&(x.cpu_millis, x.memory_bytes)))
            .then(x.id.cmp(&y.id))
    });
    for (_, need) in order {
        let mut best: Option<(usize, (bool, usize, u128))> = None;
        let takes = |room: &Room| room.rejects(need).is_none() && apart(need, room, &there).is_none();
        for (i, room) in rooms.iter().enumerate().filter(|(_, r)| takes(r)) {
            let near = need.neighbours.iter().filter(|n| there.get(n) == Some(&room.host)).count();
            let rank = (need.former.as_ref() == Some(&room.host), near, emptiness(room));
            if best.is_none_or(|(_, r)| rank > r) {
                best = Some((i, rank));
            }
        }
        if let Some((i, _)) = best {
            rooms[i].take(need);
            there.insert(need.uid, rooms[i].host.clone());
        }
    }
    // Reasons are told once all that fit are placed, so that they are the same when asked again.
    let outcome = |need: &Need| match there.get(&need.uid) {
        Some(host) => Ok(host.clone()),
        None => {
            let why = |room: &Room| room.rejects(need).or_else(|| apart(need, room, &there));
            Err(rooms.iter().filter_map(why).collect())
        }
    };
    needs.iter().map(|need| (need.uid, outcome(need))).collect()
}

/// Why a node cannot be on a host although the host takes it: the node whose network namespace it shares is elsewhere.
fn apart(need: &Need, room: &Room, there: &BTreeMap<NodeUid, HostId>) -> Option<Rejection> {
    let host = there.get(need.beside.as_ref()?);
    if host == Some(&room.host) {
        return None;
    }
    let detail = match host {
        Some(host) => format!("the node whose network it shares is on {host}"),
        None => "the node whose network it shares has no host".to_owned(),
    };
    let code = "NETWORK_ELSEWHERE".to_owned();
    Some(Rejection { host: room.host.to_string(), code, detail, resolvable: host.is_none() })
}

/// The host that takes all of them, if there is one: the one that holds most of the lab, then the emptiest.
fn whole(needs: &[Need], placed: &BTreeMap<NodeUid, HostId>, rooms: &[Room]) -> Option<HostId> {
    let held = |host: &HostId| {
        placed.values().filter(|h| *h == host).count()
            + needs.iter().filter(|n| n.former.as_ref() == Some(host)).count()
    };
    let elsewhere = |host: &HostId| placed.values().any(|h| h != host);
    rooms
        .iter()
        .filter(|room| !elsewhere(&room.host))
        .filter(|room| {
            let mut room = (*room).clone();
            needs.iter().all(|need| {
                let fits = room.rejects(need).is_none();
                room.take(need);
                fits
            })
        })
        .max_by_key(|room| (held(&room.host), emptiness(room)))
        .map(|room| room.host.clone())
}

/// The smaller of the two free parts, so that neither runs out first.
fn emptiness(room: &Room) -> u128 {
    let part = |free: u64, all: u64| u128::from(free) * 1_000_000 / u128::from(all.max(1));
    let (cpu, memory) = room.free();
    part(cpu, room.cpu_millis).min(part(memory, room.memory_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GIB: u64 = 1 << 30;

    fn room(host: &str, runtimes: &[Runtime], cores: u64, gib: u64) -> Room {
        Room {
            host: host.parse().unwrap(),
            heard: true,
            runtimes: runtimes.iter().copied().collect(),
            cpu_millis: cores * 1_000,
            memory_bytes: gib * GIB,
            cpu_reserved: 0,
            memory_reserved: 0,
            allowed: Allowed::default(),
        }
    }

    fn need(id: &str, runtime: Runtime, cpu_millis: u64, memory_bytes: u64) -> Need {
        Need {
            uid: NodeUid::new(),
            id: id.into(),
            runtime,
            cpu_millis,
            memory_bytes,
            former: None,
            neighbours: BTreeSet::new(),
            asks: Asks::default(),
            beside: None,
        }
    }

    #[test]
    fn a_node_that_shares_a_network_goes_where_it_is() {
        let docker = [Runtime::Docker];
        let owner = need("z", Runtime::Docker, 3_000, GIB);
        let sharer = Need { beside: Some(owner.uid), ..need("a", Runtime::Docker, 2_000, GIB) };
        let other = need("b", Runtime::Docker, 4_000, GIB);
        let rooms = [room("h1", &docker, 4, 64), room("h2", &docker, 8, 64)];
        let needs = [sharer.clone(), other, owner.clone()];
        let placed = place(&needs, &BTreeMap::new(), &rooms);
        assert_eq!(placed[&owner.uid].as_ref().ok(), placed[&sharer.uid].as_ref().ok(), "{placed:?}");
        // No room beside it: it goes nowhere else.
        let big = Need { cpu_millis: 6_000, ..sharer };
        let placed = place(&[big.clone(), owner], &BTreeMap::new(), &rooms);
        let why = placed[&big.uid].as_ref().unwrap_err();
        assert!(why.iter().any(|r| r.code == "NETWORK_ELSEWHERE"), "{why:?}");
    }

    #[test]
    fn a_node_goes_where_what_it_asks_for_is_allowed() {
        let docker = [Runtime::Docker];
        let device = netloom_model::spec::DeviceMapping { host_path: "/dev/x".into(), ..Default::default() };
        let spec = netloom_model::spec::NodeSpec { devices: vec![device], ..Default::default() };
        let asks = Asks::of(&spec, [].into_iter());
        let n = Need { asks, ..need("a", Runtime::Docker, 1, 1) };
        let mut rooms = [room("h1", &docker, 64, 64), room("h2", &docker, 4, 64)];
        let why = place(std::slice::from_ref(&n), &BTreeMap::new(), &rooms)[&n.uid].clone().unwrap_err();
        assert!(why.iter().all(|r| is_policy(&r.code) && !r.resolvable), "{why:?}");
        rooms[1].allowed.devices.push("/dev/x".into());
        let placed = place(std::slice::from_ref(&n), &BTreeMap::new(), &rooms);
        assert_eq!(placed[&n.uid].as_ref().unwrap().as_str(), "h2");
    }

    /// Five VMs of 3 cores and nine containers of 1.1 ask for 24.9 cores, 156 % of the one host that can run VMs; with the other host all of them fit.
    #[test]
    fn fourteen_nodes_of_which_one_host_alone_would_be_at_156_percent_all_fit_on_two() {
        let mut needs: Vec<Need> =
            (0..5).map(|i| need(&format!("vm{i}"), Runtime::Libvirt, 3_000, GIB)).collect();
        needs.extend((0..9).map(|i| need(&format!("c{i}"), Runtime::Docker, 1_100, GIB)));
        let asked: u64 = needs.iter().map(|n| n.cpu_millis).sum();
        assert_eq!(asked * 100 / 16_000, 155, "the case is the one that broke");
        let rooms =
            [room("a", &[Runtime::Docker, Runtime::Libvirt], 16, 64), room("b", &[Runtime::Docker], 16, 64)];
        let placed = place(&needs, &BTreeMap::new(), &rooms);
        assert!(placed.values().all(Result::is_ok), "{placed:?}");
        for vm in needs.iter().filter(|n| n.runtime == Runtime::Libvirt) {
            assert_eq!(placed[&vm.uid].as_ref().unwrap().as_str(), "a");
        }
    }

    #[test]
    fn hosts_truly_too_small_name_what_is_missing() {
        let needs = [need("x", Runtime::Libvirt, 20_000, GIB)];
        let mut busy = room("b", &[Runtime::Libvirt], 32, 64);
        busy.cpu_reserved = 30_000;
        let lost = Room { heard: false, ..room("c", &[Runtime::Libvirt], 64, 64) };
        let rooms =
            [room("a", &[Runtime::Docker, Runtime::Libvirt], 16, 64), busy, lost, room("d", &[], 64, 64)];
        let rejections = place(&needs, &BTreeMap::new(), &rooms)[&needs[0].uid].clone().unwrap_err();
        let said: Vec<(&str, &str, &str, bool)> = rejections
            .iter()
            .map(|r| (r.host.as_str(), r.code.as_str(), r.detail.as_str(), r.resolvable))
            .collect();
        assert_eq!(
            said,
            [
                ("a", "INSUFFICIENT_CPU", "needs 20.00 CPU, 16.00 of 16.00 free", false),
                ("b", "INSUFFICIENT_CPU", "needs 20.00 CPU, 2.00 of 32.00 free", true),
                ("c", "HOST_UNKNOWN", "is not heard of", true),
                (
                    "d",
                    "RUNTIME_MISSING",
                    "libvirt does not answer on it: install libvirtd and qemu-system-x86 there and start libvirtd",
                    false
                ),
            ]
        );
    }

    #[test]
    fn a_lab_stays_together_where_it_fits() {
        let docker = [Runtime::Docker];
        let needs: Vec<Need> = (0..4).map(|i| need(&format!("n{i}"), Runtime::Docker, 1_000, GIB)).collect();
        let rooms = [room("a", &docker, 3, 64), room("b", &docker, 8, 64), room("c", &docker, 16, 64)];
        let hosts = |placed: &BTreeMap<NodeUid, HostId>| -> BTreeSet<String> {
            place(&needs, placed, &rooms).into_values().map(|r| r.unwrap().to_string()).collect()
        };
        assert_eq!(hosts(&BTreeMap::new()), BTreeSet::from(["c".to_owned()]));
        let on_b = BTreeMap::from([(NodeUid::new(), "b".parse().unwrap())]);
        assert_eq!(hosts(&on_b), BTreeSet::from(["b".to_owned()]));
    }

    proptest! {
        #[test]
        fn no_host_is_given_more_than_it_has(
            sizes in prop::collection::vec((0u64..6_000, 0u64..8, any::<bool>()), 0..40),
            hosts in prop::collection::vec((1u64..12, 1u64..16, any::<bool>(), any::<bool>()), 1..5),
        ) {
            let needs: Vec<Need> = sizes.iter().enumerate().map(|(i, (cpu, gib, vm))| {
                need(&i.to_string(), if *vm { Runtime::Libvirt } else { Runtime::Docker }, *cpu, gib * GIB)
            }).collect();
            let rooms: Vec<Room> = hosts.iter().enumerate().map(|(i, (cores, gib, heard, vm))| {
                let runtimes: &[Runtime] = if *vm { &[Runtime::Docker, Runtime::Libvirt] } else { &[Runtime::Docker] };
                Room { heard: *heard, ..room(&format!("h{i}"), runtimes, *cores, *gib) }
            }).collect();
            let placed = place(&needs, &BTreeMap::new(), &rooms);
            prop_assert_eq!(placed.len(), needs.len());
            for room in &rooms {
                let on: Vec<&Need> = needs.iter().filter(|n| placed[&n.uid].as_ref().ok() == Some(&room.host)).collect();
                prop_assert!(on.iter().map(|n| n.cpu_millis).sum::<u64>() <= room.cpu_millis);
                prop_assert!(on.iter().map(|n| n.memory_bytes).sum::<u64>() <= room.memory_bytes);
                prop_assert!(on.is_empty() || room.heard);
                prop_assert!(on.iter().all(|n| room.runtimes.contains(&n.runtime)));
            }
            for need in &needs {
                if let Err(rejections) = &placed[&need.uid] {
                    prop_assert_eq!(rejections.len(), rooms.len());
                }
            }
        }
    }
}
