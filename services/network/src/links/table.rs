//! What was heard and read of interfaces: those of the host, what is done to their frames, and the other ends of those that lead into nodes.

use std::collections::{BTreeSet, HashMap};

use super::controls::Controls;
use crate::netlink::{DELETE_LINK, Elsewhere, Link, NEW_LINK};

use super::Links;

/// How the aliases of host ends begin, whosever they are: what other veths lead to is not of interest.
const NETLOOM: &str = "netloom:";

/// See the module.
#[derive(Default)]
pub struct Table {
    links: HashMap<u32, Link>,
    /// Host ends by where their other ends are.
    peers: HashMap<Elsewhere, u32>,
    /// Host ends whose other end is not where it was.
    moved: BTreeSet<u32>,
    /// What is done to frames.
    pub controls: Controls,
    changed: bool,
}

impl Table {
    /// An interface of the host.
    pub fn get(&self, index: u32) -> Option<&Link> {
        self.links.get(&index)
    }

    /// Takes in a message about an interface: one of the host, or one in another namespace.
    pub fn hear(&mut self, namespace: Option<i32>, kind: u16, link: Link) {
        match (namespace, kind) {
            (None, NEW_LINK) => self.note(link),
            (None, DELETE_LINK) => self.forget(link.index),
            (Some(namespace), NEW_LINK) => self.note_guest((namespace, link.index), Some(&link)),
            (Some(namespace), DELETE_LINK) => self.note_guest((namespace, link.index), None),
            _ => {}
        }
    }

    /// Takes in an interface of the host as it is now.
    pub fn note(&mut self, mut link: Link) {
        let before = self.links.get(&link.index);
        let place = link.elsewhere();
        link.home = before.and_then(|before| before.home).or(link.peer_namespace);
        if before.and_then(Link::elsewhere) == place {
            link.guest = before.and_then(|before| before.guest.clone());
        }
        if before == Some(&link) {
            return;
        }
        if let Some(old) = before.and_then(Link::elsewhere).filter(|old| Some(*old) != place)
            && self.peers.get(&old) == Some(&link.index)
        {
            self.peers.remove(&old);
        }
        if let Some(place) = place.filter(|_| link.alias.starts_with(NETLOOM)) {
            // A namespace's number is given out again when it is gone.
            self.peers.insert(place, link.index);
        }
        self.links.insert(link.index, link);
        self.changed = true;
    }

    /// Takes in that an interface of the host is gone.
    pub fn forget(&mut self, index: u32) {
        let gone = self.links.remove(&index);
        self.controls.forget(index);
        self.moved.remove(&index);
        if let Some(place) = gone.as_ref().and_then(Link::elsewhere)
            && self.peers.get(&place) == Some(&index)
        {
            self.peers.remove(&place);
        }
        self.changed |= gone.is_some();
    }

    /// Takes in what another namespace shows of an interface; none when it is not there any more. It may just have been moved on.
    fn note_guest(&mut self, place: Elsewhere, shown: Option<&Link>) {
        let Some(host_end) = self.peers.get(&place) else { return };
        let Some(link) = self.links.get_mut(host_end) else { return };
        let guest = shown.map(Link::as_guest);
        if guest.is_none() {
            self.moved.insert(*host_end);
        }
        self.changed |= link.guest != guest;
        link.guest = guest;
    }

    /// Takes in what was read of the other end of a host end; none when it is not there.
    pub fn note_read(&mut self, host_end: u32, shown: Option<&Link>) {
        if let Some(link) = self.links.get_mut(&host_end) {
            let guest = shown.map(Link::as_guest);
            self.changed |= link.guest != guest;
            link.guest = guest;
        }
    }

    /// Host ends of which it is to be read where their other end is now.
    pub fn take_moved(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.moved).into_iter().collect()
    }

    /// Host ends, and where their other ends are.
    pub fn ends(&self) -> Vec<(u32, Elsewhere)> {
        self.peers.iter().map(|(place, host_end)| (*host_end, *place)).collect()
    }

    /// Those of them whose other end is to be read.
    pub fn unread(&self) -> Vec<(u32, Elsewhere)> {
        let is_unread = |host_end: u32| self.links.get(&host_end).is_some_and(|link| link.guest.is_none());
        self.ends().into_iter().filter(|(host_end, _)| is_unread(*host_end)).collect()
    }

    /// Replaces all interfaces of the host by what was read.
    pub fn replace(&mut self, links: Vec<Link>) {
        let there: BTreeSet<u32> = links.iter().map(|link| link.index).collect();
        let gone: Vec<u32> = self.links.keys().copied().filter(|index| !there.contains(index)).collect();
        for index in gone {
            self.forget(index);
        }
        for link in links {
            self.note(link);
        }
    }

    /// Whether anything changed since it was asked for last.
    pub fn has_news(&self) -> bool {
        self.changed || self.controls.is_changed()
    }

    /// Everything, when it changed since it was asked for last.
    pub fn news(&mut self) -> Option<Links> {
        let changed = self.controls.take_changed() | std::mem::take(&mut self.changed);
        let complete = |link: &Link| (link.name.clone(), self.controls.complete(link));
        changed.then(|| self.links.values().map(complete).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::GuestEnd;

    fn host_end(index: u32, place: Elsewhere) -> Link {
        let (name, alias) = (format!("nl{index}"), format!("{NETLOOM}x:{index}"));
        Link { index, name, alias, peer_namespace: Some(place.0), peer: place.1, ..Link::default() }
    }

    fn guest(index: u32, name: &str, up: bool) -> Link {
        Link { index, name: name.into(), up, ..Link::default() }
    }

    fn known(table: &Table, index: u32) -> Option<GuestEnd> {
        table.get(index)?.guest.clone()
    }

    #[test]
    fn the_other_end_of_a_nic_is_known_by_its_namespace_and_number() {
        let mut table = Table::default();
        table.hear(None, NEW_LINK, host_end(100, (7, 2)));
        assert_eq!(table.unread(), [(100, (7, 2))], "it is to be read");
        table.note_read(100, Some(&guest(2, "eth1", true)));
        assert!(table.unread().is_empty());
        table.hear(Some(8), NEW_LINK, guest(2, "eth1", false));
        table.hear(Some(7), NEW_LINK, guest(3, "eth2", false));
        assert!(known(&table, 100).unwrap().up, "others are not it");
        table.hear(Some(7), NEW_LINK, guest(2, "wan", false));
        assert_eq!(known(&table, 100), Some(GuestEnd { name: "wan".into(), up: false }));
        // What is heard of the host end does not tell of the other, and leaves what is known.
        table.hear(None, NEW_LINK, Link { up: true, ..host_end(100, (7, 2)) });
        assert_eq!(known(&table, 100).unwrap().name, "wan");
    }

    #[test]
    fn an_interface_that_is_moved_on_is_read_where_it_is() {
        let mut table = Table::default();
        table.hear(None, NEW_LINK, host_end(100, (7, 2)));
        table.note_read(100, Some(&guest(2, "eth1", true)));
        table.hear(Some(7), DELETE_LINK, guest(2, "eth1", false));
        assert_eq!((table.take_moved(), known(&table, 100)), (vec![100], None));
        table.note(host_end(100, (9, 5)));
        assert_eq!(table.unread(), [(100, (9, 5))]);
        let link = table.get(100).unwrap();
        assert_eq!((link.home, link.peer_namespace), (Some(7), Some(9)));
    }

    #[test]
    fn a_number_of_a_namespace_that_is_given_out_again_is_the_new_ones() {
        let mut table = Table::default();
        table.hear(None, NEW_LINK, host_end(100, (7, 2)));
        table.note_read(100, Some(&guest(2, "eth1", true)));
        table.hear(None, NEW_LINK, host_end(101, (7, 2)));
        table.hear(Some(7), NEW_LINK, guest(2, "eth1", false));
        assert!(known(&table, 100).unwrap().up && !known(&table, 101).unwrap().up);
        table.hear(None, DELETE_LINK, host_end(100, (7, 2)));
        table.hear(Some(7), NEW_LINK, guest(2, "eth1", true));
        assert!(known(&table, 101).unwrap().up, "the old one took nothing with it");
    }

    #[test]
    fn everything_is_told_once_after_a_change() {
        let mut table = Table::default();
        table.hear(None, NEW_LINK, host_end(100, (7, 2)));
        assert_eq!(table.news().unwrap().len(), 1);
        table.hear(None, NEW_LINK, host_end(100, (7, 2)));
        assert!(table.news().is_none());
        table.note_read(100, Some(&guest(2, "eth1", true)));
        assert!(table.news().unwrap()["nl100"].guest.as_ref().unwrap().up);
    }
}
