//! Where nodes go: filters with reasons, then a preference. Pure.
//!
//! Capacity is a constraint here, never a veto afterwards: one host that was full made a whole lab fail although another had room. A node that fits
//! nowhere does not stop the others, and every host's reason is kept.

mod constraint;
mod policy;
mod spread;
mod taste;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use netloom_model::human;
use netloom_model::id::{HostId, NodeUid};
use netloom_model::plan::Rejection;
use netloom_model::state::Runtime;

pub use self::policy::{Allowed, Asks, is_elsewhere, is_policy};
use self::spread::{Amount, Bin, Item, Problem, rank, spread};
pub use self::taste::Images;
use self::taste::{Tastes, suits};
use crate::rows::Resources;

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
    /// Disk that may be reserved, overcommit included, in bytes; none where the host does not tell, which is then no limit.
    pub disk_bytes: Option<u64>,
    /// CPU reserved.
    pub cpu_reserved: u64,
    /// Memory reserved.
    pub memory_reserved: u64,
    /// Disk reserved.
    pub disk_reserved: u64,
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
    /// The image that it is made from; empty for a bridge.
    pub image: String,
    /// CPU it asks for.
    pub cpu_millis: u64,
    /// Memory it asks for.
    pub memory_bytes: u64,
    /// Disk it asks for.
    pub disk_bytes: u64,
    /// The host its former self was on.
    pub former: Option<HostId>,
    /// Nodes it is linked to, and by how many links.
    pub neighbours: BTreeMap<NodeUid, u32>,
    /// What it asks for beside room.
    pub asks: Asks,
    /// The node whose network namespace it shares: both are on one host.
    pub beside: Option<NodeUid>,
    /// Nodes, with their ids, that are never on its host; each of them says so too.
    pub apart: BTreeMap<NodeUid, String>,
}

/// Where each node goes, or why no host takes it.
pub type Placed = BTreeMap<NodeUid, Result<HostId, Vec<Rejection>>>;

/// What stands for a disk of which nothing is known: no limit, and as good as empty.
const UNKNOWN_DISK: u64 = u64::MAX / 2;

impl Need {
    /// True when what it asks for may be had by one node of a host: it is placed before those that gather around it.
    fn is_apart(&self) -> bool {
        !self.apart.is_empty() || !self.asks.uplink.is_empty()
    }

    /// What it asks for.
    pub fn wants(&self) -> Resources {
        Resources {
            cpu_millis: self.cpu_millis,
            memory_bytes: self.memory_bytes,
            disk_bytes: self.disk_bytes,
        }
    }
}

impl Room {
    /// What may be reserved in all.
    fn has(&self) -> Resources {
        Resources {
            cpu_millis: self.cpu_millis,
            memory_bytes: self.memory_bytes,
            disk_bytes: self.disk_bytes.unwrap_or(UNKNOWN_DISK),
        }
    }

    /// What is reserved. What of a disk is, where it is not known how large that is, counts for nothing.
    fn reserved(&self) -> Resources {
        Resources {
            cpu_millis: self.cpu_reserved,
            memory_bytes: self.memory_reserved,
            disk_bytes: self.disk_bytes.map_or(0, |_| self.disk_reserved),
        }
    }

    fn free(&self) -> Resources {
        self.has().minus(self.reserved())
    }

    fn count(&mut self, reserved: Resources) {
        self.cpu_reserved = reserved.cpu_millis;
        self.memory_reserved = reserved.memory_bytes;
        self.disk_reserved = reserved.disk_bytes;
    }

    fn counted(&self) -> Resources {
        Resources { disk_bytes: self.disk_reserved, ..self.reserved() }
    }

    fn take(&mut self, need: &Need) {
        self.reserve(need.wants());
        self.allowed.take_uplink(&need.asks.uplink, || need.id.clone());
    }

    /// Counts a reservation.
    pub fn reserve(&mut self, what: Resources) {
        self.count(self.counted().plus(what));
    }

    /// Takes a reservation back.
    pub fn free_again(&mut self, what: Resources) {
        self.count(self.counted().minus(what));
    }

    /// Why this host does not take the node; none when it does.
    pub fn rejects(&self, need: &Need) -> Option<Rejection> {
        self.never(need).or_else(|| self.lacks(need.wants()))
    }

    /// Why this host does not take the node, however much room it has.
    fn never(&self, need: &Need) -> Option<Rejection> {
        let reject = |code: &str, detail: String, resolvable: bool| {
            Some(Rejection { host: self.host.to_string(), code: code.to_owned(), detail, resolvable })
        };
        // First what no waiting helps with: a host whose labels are others stays so, cordoned or silent.
        if let Some((code, detail)) = self.unfit(&need.asks) {
            return reject(code, detail, false);
        }
        if !self.heard {
            return reject("HOST_UNKNOWN", "is not heard of".to_owned(), true);
        }
        if self.allowed.cordoned {
            return reject(
                "HOST_CORDONED",
                "is cordoned: netloom host uncordon lets it take nodes".to_owned(),
                true,
            );
        }
        // A bridge is made by the network service: it asks for no runtime.
        if need.runtime != Runtime::Bridge && !self.runtimes.contains(&need.runtime) {
            return reject("RUNTIME_MISSING", silent(need.runtime), false);
        }
        if let Some(detail) = self.allowed.lacks_kvm(&need.asks) {
            return reject("KVM_MISSING", detail, false);
        }
        if let Some((code, detail)) = self.allowed.lacks(&need.asks) {
            return reject(code, detail, false);
        }
        reject("UPLINK_NOT_FREE", self.allowed.lacks_uplink(&need.asks)?, true)
    }

    /// Why the node may not be here as its placement, or the host's labels and taints, say.
    fn unfit(&self, asks: &Asks) -> Option<(&'static str, String)> {
        constraint::unfit(&asks.placement, &self.host, &self.allowed.labels, &self.allowed.taints)
    }

    /// What is not free of what is asked for; none when all of it is.
    pub fn lacks(&self, wants: Resources) -> Option<Rejection> {
        let (free, has) = (self.free(), self.has());
        type Told = fn(u64) -> String;
        let lack = |code: &'static str, what: &str, of: fn(&Resources) -> u64, told: Told| {
            let (wants, free, all) = (of(&wants), of(&free), of(&has));
            let missing = wants.saturating_sub(free);
            let detail = || {
                let [wants, free, all, missing] = [wants, free, all, missing].map(told);
                format!("needs {wants} {what}, {free} of {all} free, {missing} missing")
            };
            (missing > 0).then(|| (code, detail(), wants <= all))
        };
        let lack = lack("INSUFFICIENT_CPU", "CPU", |r| r.cpu_millis, cores)
            .or_else(|| lack("INSUFFICIENT_MEMORY", "memory", |r| r.memory_bytes, mib))
            .or_else(|| lack("INSUFFICIENT_DISK", "disk", |r| r.disk_bytes, human::bytes));
        let (code, detail, resolvable) = lack?;
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
    let exact = format!("{}.{:03}", millis / 1_000, millis % 1_000);
    exact.strip_suffix('0').unwrap_or(&exact).to_owned()
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

/// Places the nodes that need a host. `placed` says where the lab's other nodes are; `rooms` is what all other reservations leave.
///
/// All on one host if one takes them all: first the host that most of the lab is on already. Otherwise a node goes back to its former host, nodes that are to be apart
/// go where they can be, and the rest is spread around them so that few links go between hosts. What is left then is tried node by node.
pub fn place(needs: &[Need], placed: &BTreeMap<NodeUid, HostId>, rooms: &[Room]) -> Placed {
    let mut rooms = rooms.to_vec();
    let mut there = placed.clone();
    if let Some(host) = whole(needs, placed, &rooms) {
        return needs.iter().map(|n| (n.uid, Ok(host.clone()))).collect();
    }
    let anew = needs.iter().filter(|n| n.former.is_some());
    one_by_one(anew, &mut there, &mut rooms, |need, room| need.former.as_ref() == Some(&room.host));
    scatter(needs, &mut there, &mut rooms);
    spread_rest(needs, &mut there, &mut rooms);
    let left = needs.iter().filter(|n| !there.contains_key(&n.uid)).collect::<Vec<_>>();
    one_by_one(left, &mut there, &mut rooms, |_, _| true);
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

/// Why a node that is placed is not on one of the other hosts: each one's reason, or that the host chosen is better, or as good.
pub fn others(
    need: &Need,
    chosen: &HostId,
    there: &BTreeMap<NodeUid, HostId>,
    rooms: &[Room],
) -> Vec<Rejection> {
    let cut = |host: &HostId| -> u32 {
        let elsewhere = need.neighbours.iter().filter(|(n, _)| there.get(n).is_some_and(|h| h != host));
        elsewhere.map(|(_, links)| links).sum()
    };
    let links = cut(chosen);
    let not_chosen = |room: &Room| {
        let detail = match cut(&room.host) {
            more if more > links => {
                format!("has room; {more} of its links would go between hosts there, {links} do now")
            }
            _ => "has room, and is no better for the lab as a whole".to_owned(),
        };
        Rejection { host: room.host.to_string(), code: "NOT_CHOSEN".to_owned(), detail, resolvable: true }
    };
    let why = |room: &Room| {
        room.rejects(need).or_else(|| apart(need, room, there)).unwrap_or_else(|| not_chosen(room))
    };
    rooms.iter().filter(|room| room.host != *chosen).map(why).collect()
}

/// Puts each on the first host that takes it and `may`, those that share a namespace after those that have one.
fn one_by_one<'a>(
    needs: impl IntoIterator<Item = &'a Need>,
    there: &mut BTreeMap<NodeUid, HostId>,
    rooms: &mut [Room],
    may: impl Fn(&Need, &Room) -> bool,
) {
    let mut order: Vec<&Need> = needs.into_iter().collect();
    order.sort_by_key(|n| (n.beside.is_some(), &n.id));
    for need in order {
        let takes =
            |r: &&mut Room| may(need, r) && r.rejects(need).is_none() && apart(need, r, there).is_none();
        if let Some(room) = rooms.iter_mut().find(takes) {
            room.take(need);
            there.insert(need.uid, room.host.clone());
        }
    }
}

/// Puts nodes that are to be apart, and bridges with uplinks, on hosts of their own, those with the fewest hosts to choose from first, each where most of its neighbours are, then where most is free.
fn scatter(needs: &[Need], there: &mut BTreeMap<NodeUid, HostId>, rooms: &mut [Room]) {
    let free = |need: &Need| rooms.iter().filter(|room| room.rejects(need).is_none()).count();
    let left = needs.iter().filter(|n| n.is_apart() && !there.contains_key(&n.uid));
    let mut order: Vec<(_, &Need)> =
        left.map(|n| ((n.beside.is_some(), free(n), Reverse(n.apart.len()), n.id.clone()), n)).collect();
    order.sort_by(|a, b| a.0.cmp(&b.0));
    for (_, need) in order {
        let near = |room: &Room| {
            let here = need.neighbours.iter().filter(|(n, _)| there.get(n) == Some(&room.host));
            here.map(|(_, links)| links).sum::<u32>()
        };
        let takes = |i: &usize| rooms[*i].rejects(need).is_none() && apart(need, &rooms[*i], there).is_none();
        let best = (0..rooms.len()).filter(takes).max_by_key(|i| {
            let room = &rooms[*i];
            (near(room), rank(emptiness(room), suits(room, need.runtime, &need.image)), Reverse(*i))
        });
        if let Some(i) = best {
            rooms[i].take(need);
            there.insert(need.uid, rooms[i].host.clone());
        }
    }
}

/// Spreads what has no host yet; nodes of one network namespace as one.
fn spread_rest(needs: &[Need], there: &mut BTreeMap<NodeUid, HostId>, rooms: &mut [Room]) {
    let rest: Vec<&Need> = needs.iter().filter(|n| !n.is_apart() && !there.contains_key(&n.uid)).collect();
    let ids: BTreeMap<NodeUid, &str> = rest.iter().map(|n| (n.uid, n.id.as_str())).collect();
    // By id, so that a dry run, whose uids are others, says where they will go.
    let mut items: BTreeMap<&str, Vec<&Need>> = BTreeMap::new();
    for need in &rest {
        let owner = need.beside.and_then(|owner| ids.get(&owner)).copied().unwrap_or(&need.id);
        items.entry(owner).or_default().push(need);
    }
    let items: Vec<Vec<&Need>> = items.into_values().collect();
    let problem = problem(&items, there, rooms);
    for (together, bin) in items.iter().zip(spread(&problem)) {
        let Some(bin) = bin else { continue };
        for need in together {
            rooms[bin].take(need);
            there.insert(need.uid, rooms[bin].host.clone());
        }
    }
}

/// By resource, as it is spread.
fn amount(of: Resources) -> Amount {
    [of.cpu_millis, of.memory_bytes, of.disk_bytes]
}

/// The question of where nodes that stay together go, in numbers.
fn problem<'a>(items: &[Vec<&'a Need>], there: &BTreeMap<NodeUid, HostId>, rooms: &[Room]) -> Problem {
    let hosts: BTreeMap<&HostId, usize> = rooms.iter().enumerate().map(|(i, r)| (&r.host, i)).collect();
    let item_of: BTreeMap<NodeUid, usize> =
        items.iter().enumerate().flat_map(|(i, together)| together.iter().map(move |n| (n.uid, i))).collect();
    let bins = rooms.iter().map(|room| Bin { free: amount(room.free()), size: amount(room.has()) });
    let mut problem = Problem { bins: bins.collect(), ..Problem::default() };
    let mut takers = Takers { rooms, there, asked: BTreeMap::new(), classes: BTreeMap::new() };
    let mut likes: BTreeMap<(Runtime, &str), Option<usize>> = BTreeMap::new();
    for (i, together) in items.iter().enumerate() {
        let mut pulls: BTreeMap<usize, u32> = BTreeMap::new();
        for (other, links) in together.iter().flat_map(|need| &need.neighbours) {
            match (item_of.get(other), there.get(other).and_then(|host| hosts.get(host))) {
                // Each of the two ends names the link.
                (Some(j), _) if i < *j => problem.links.push((i, *j, *links)),
                (None, Some(bin)) => *pulls.entry(*bin).or_default() += links,
                _ => {}
            }
        }
        let takes = together.iter().fold(Resources::default(), |sum, need| sum.plus(need.wants()));
        let takes = amount(takes);
        let like = |need: &&'a Need| {
            let (runtime, image) = (need.runtime, need.image.as_str());
            *likes.entry((runtime, image)).or_insert_with(|| {
                let like: Vec<u64> = rooms.iter().map(|room| suits(room, runtime, image)).collect();
                // What suits alike everywhere decides nothing.
                let decides = like.iter().any(|l| *l != like[0]);
                decides.then(|| {
                    problem.likes.push(like);
                    problem.likes.len() - 1
                })
            })
        };
        let likes = together.iter().filter_map(like).collect();
        let (class, pulls) = (takers.class(together), pulls.into_iter().collect());
        problem.items.push(Item { takes, class, pulls, likes });
    }
    let mut classes: Vec<(Vec<bool>, usize)> = takers.classes.into_iter().collect();
    classes.sort_by_key(|(_, class)| *class);
    problem.classes = classes.into_iter().map(|(bins, _)| bins).collect();
    problem
}

/// Which hosts take whom, room aside. Most nodes ask for the same.
struct Takers<'a> {
    rooms: &'a [Room],
    there: &'a BTreeMap<NodeUid, HostId>,
    asked: BTreeMap<(Runtime, &'a Asks), Vec<bool>>,
    classes: BTreeMap<Vec<bool>, usize>,
}

impl<'a> Takers<'a> {
    /// The class of nodes that stay together.
    fn class(&mut self, together: &[&'a Need]) -> usize {
        let mut takes = vec![true; self.rooms.len()];
        for need in together {
            let asked = self.asked.entry((need.runtime, &need.asks));
            let able = asked.or_insert_with(|| self.rooms.iter().map(|r| r.never(need).is_none()).collect());
            takes.iter_mut().zip(able).for_each(|(takes, able)| *takes &= *able);
            if let Some(host) = need.beside.and_then(|owner| self.there.get(&owner)) {
                takes.iter_mut().zip(self.rooms).for_each(|(takes, room)| *takes &= room.host == *host);
            }
        }
        let next = self.classes.len();
        *self.classes.entry(takes).or_insert(next)
    }
}

/// Why a node cannot be on a host although the host takes it: the node whose network namespace it shares is elsewhere, or one that it is to be apart from is there.
pub(crate) fn apart(need: &Need, room: &Room, there: &BTreeMap<NodeUid, HostId>) -> Option<Rejection> {
    let reject = |code: &str, detail: String, resolvable: bool| {
        Some(Rejection { host: room.host.to_string(), code: code.to_owned(), detail, resolvable })
    };
    if let Some((_, id)) = need.apart.iter().find(|(uid, _)| there.get(uid) == Some(&room.host)) {
        return reject("NODE_APART", format!("node {id}, which it is to be apart from, is on it"), false);
    }
    let host = there.get(need.beside.as_ref()?);
    if host == Some(&room.host) {
        return None;
    }
    let detail = match host {
        Some(host) => format!("the node whose network it shares is on {host}"),
        None => "the node whose network it shares has no host".to_owned(),
    };
    reject("NETWORK_ELSEWHERE", detail, host.is_none())
}

/// The host that takes all of them, if there is one: the one that holds most of the lab, then the emptiest, and of those as good as equal the one that suits them best.
fn whole(needs: &[Need], placed: &BTreeMap<NodeUid, HostId>, rooms: &[Room]) -> Option<HostId> {
    if needs.iter().any(|need| !need.apart.is_empty()) {
        return None;
    }
    let held = |host: &HostId| {
        placed.values().filter(|h| *h == host).count()
            + needs.iter().filter(|n| n.former.as_ref() == Some(host)).count()
    };
    let elsewhere = |host: &HostId| placed.values().any(|h| h != host);
    let tastes = Tastes::of(needs);
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
        .max_by_key(|room| (held(&room.host), rank(emptiness(room), tastes.suit(room))))
        .map(|room| room.host.clone())
}

/// The smallest of the free parts, so that none runs out first.
fn emptiness(room: &Room) -> u64 {
    spread::part(amount(room.free()), amount(room.has()))
}

#[cfg(test)]
mod tests;
