//! What traffic control does to the frames of the host's interfaces, as it was read and heard.

use std::collections::{BTreeSet, HashMap};
use std::io;

use crate::netlink::{Link, Netlink};
use crate::qdisc::{self, Filter, Shape, Told};
use crate::redirect::{self, Redirect};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Control {
    shape: Option<Shape>,
    ingress: bool,
    redirect: Option<Redirect>,
    queue: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Controls {
    controls: HashMap<u32, Control>,
    /// Filters of others that frames meet before our redirects, by device, as far as they were heard of: one that was hung there after ours and before
    /// all was read is not, since each device would have to be asked for it.
    before_ours: HashMap<u32, BTreeSet<Filter>>,
    changed: bool,
}

impl Controls {
    /// Reads everything in two batches: the queueing disciplines in one dump, and the redirects by one send that asks for each by its handle.
    /// The kernel has no dump of the filters of all interfaces; its dump of actions shows for some milliseconds what is gone.
    pub fn read(netlink: &mut Netlink) -> io::Result<Controls> {
        let mut all = Controls { changed: true, ..Controls::default() };
        netlink.dump(qdisc::GET_QDISC, &qdisc::all(), |_, payload| all.note(payload))?;
        let places = all.controls.iter().filter(|(_, control)| control.ingress);
        let places: Vec<u32> = places.map(|(index, _)| *index).collect();
        let asked = places.iter().map(|index| redirect::get(*index)).collect();
        let answers = netlink.ask(asked, |_, _, payload| all.note(payload))?;
        for (index, _) in places.into_iter().zip(answers).filter(|(_, answer)| answer.is_err()) {
            // Nothing of ours is there, or it stands behind filters of others.
            let filters = redirect::filters_of(index);
            // The interface may have gone meanwhile.
            if let Err(e) = netlink.dump(qdisc::GET_FILTER, &filters, |_, payload| all.note(payload)) {
                tracing::debug!("filters of interface {index} cannot be read: {e}");
            }
        }
        Ok(all)
    }

    /// True for messages that are read here.
    pub fn are_in(kind: u16) -> bool {
        (qdisc::NEW_QDISC..=qdisc::GET_FILTER).contains(&kind)
    }

    /// Takes in what is said to be there.
    fn note(&mut self, payload: &[u8]) {
        let Some((index, told)) = qdisc::read(payload) else { return };
        let control = self.controls.entry(index).or_default();
        match told {
            Told::Root(shape) => (control.shape, control.queue) = (shape, false),
            Told::Queue => (control.shape, control.queue) = (None, true),
            Told::Filter(filter) => drop(self.before_ours.entry(index).or_default().insert(filter)),
            Told::Ingress => control.ingress = true,
            Told::Redirect(to) => control.redirect = Some(to),
        }
    }

    /// Takes in an event.
    pub fn hear(&mut self, kind: u16, payload: &[u8]) {
        let Some(index) = qdisc::device(payload) else { return };
        let (before, met) = (self.of(index), self.is_met(index));
        match (kind, qdisc::read(payload)) {
            (qdisc::NEW_QDISC | qdisc::NEW_FILTER, _) => self.note(payload),
            // The kernel does not tell of the filters that go with it.
            (qdisc::DELETE_QDISC, _) if qdisc::is_ingress(payload) => {
                let control = self.controls.entry(index).or_default();
                (control.ingress, control.redirect) = (false, None);
                self.before_ours.remove(&index);
            }
            (qdisc::DELETE_QDISC, Some((_, Told::Root(Some(shape))))) if before.shape == Some(shape) => {
                self.controls.entry(index).or_default().shape = None;
            }
            (qdisc::DELETE_QDISC, Some((_, Told::Queue))) => {
                self.controls.entry(index).or_default().queue = false;
            }
            // One that is deleted with all of its preference is not told in full.
            (qdisc::DELETE_FILTER, _) if redirect::is_about(payload) => {
                self.controls.entry(index).or_default().redirect = None;
            }
            (qdisc::DELETE_FILTER, _) => {
                let gone = qdisc::before_ours(payload);
                for (gone, there) in gone.into_iter().zip(self.before_ours.get_mut(&index)) {
                    let is_gone =
                        |f: &Filter| f.preference == gone.preference && [0, f.handle].contains(&gone.handle);
                    there.retain(|filter| !is_gone(filter));
                }
            }
            _ => {}
        }
        self.changed |= (self.of(index), self.is_met(index)) != (before, met);
    }

    /// Whether what comes in by a device meets a filter of somebody else's first.
    fn is_met(&self, index: u32) -> bool {
        self.before_ours.get(&index).is_some_and(|filters| !filters.is_empty())
    }

    fn of(&self, index: u32) -> Control {
        self.controls.get(&index).copied().unwrap_or_default()
    }

    /// Takes in that an interface is gone.
    pub fn forget(&mut self, index: u32) {
        self.controls.remove(&index);
        self.before_ours.remove(&index);
    }

    /// An interface with what is done to its frames.
    pub fn complete(&self, link: &Link) -> Link {
        let control = self.of(link.index);
        Link {
            shape: control.shape,
            redirect: control.redirect,
            is_queued: control.queue,
            is_filtered: self.is_met(link.index),
            ..link.clone()
        }
    }

    /// Whether anything changed since [`Controls::take_changed`] was asked last.
    pub fn is_changed(&self) -> bool {
        self.changed
    }

    /// Whether anything changed since this was asked last.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }
}
