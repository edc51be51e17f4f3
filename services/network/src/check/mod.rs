//! Path checks: marked frames over a wire, and where they are seen.
//!
//! The flow: a check that the scheduler makes of a link has a random mark. [`Checker::watch`] opens packet sockets on this host (`look`) at each place
//! that frames of the wire come by (`places`): in its nodes, at host ends, and where tunnels leave and come in. When all hosts of the link look,
//! [`Checker::send`] has frames with the mark sent from the ends that are here (`send`, `frame`). What is seen is told, place by place, until the
//! caller goes away or a minute is over: the sockets go with the stream, and nothing else was made. Who looks for one mark sees no frame of another, so that checks do not
//! meet.
//!
//! What this prevents: a link that is called up, since all that is read of it is right, and that carries nothing all the same.

mod frame;
mod look;
mod places;
mod send;

#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use netloom_model::id::WireId;
use netloom_model::observed::ObservedWire;
use netloom_ovsdb::Client;
use netloom_service::Shutdown;
use tokio::sync::watch;
use tokio::time::Instant;

pub use self::frame::Way;
use self::look::{Eyes, Sighting};
pub use self::places::{Kind, Place};
use self::places::{Known, Look};
pub use self::send::Order;
use crate::config::Config;
use crate::driver::ovs::View;
use crate::error::Error;
use crate::links::Links;
use crate::names::{End, Names};
use crate::netns::Starts;
use crate::reconcile::Report;
use crate::slice::Store;
use crate::underlay;

/// How long frames are looked for at most.
const LONGEST: Duration = Duration::from_secs(60);
/// What is seen within this is told at once.
const TOGETHER: Duration = Duration::from_millis(10);
/// How often what is out of the ordinary is told though nothing was seen.
const AGAIN: Duration = Duration::from_millis(200);

/// Makes checks. Clones share what they look at.
#[derive(Clone)]
pub struct Checker {
    /// What is wanted.
    pub store: Store,
    /// The nodes that run.
    pub starts: watch::Receiver<Arc<Starts>>,
    /// The host's interfaces.
    pub links: watch::Receiver<Arc<Links>>,
    /// What the last pass found.
    pub reports: watch::Receiver<Option<Arc<Report>>>,
    /// Open vSwitch's database.
    pub client: Client,
    /// How our things are named.
    pub names: Names,
    /// The configuration.
    pub config: Arc<Config>,
    /// Ends checks.
    pub shutdown: Shutdown,
}

/// What was seen at a place so far.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Numbers of frames from the first end.
    pub a_to_b: BTreeSet<u16>,
    /// Numbers of frames from the second end.
    pub b_to_a: BTreeSet<u16>,
}

/// Frames that are looked for, until it is dropped.
pub struct Watch {
    checker: Checker,
    wire: WireId,
    places: Vec<Place>,
    blind: HashMap<usize, String>,
    seen: Vec<Seen>,
    eyes: Eyes,
    end: Instant,
    is_begun: bool,
}

impl Checker {
    /// Looks for frames of a wire with this mark, for the leader. Must be called in the host's network namespace.
    pub async fn watch(&self, term: u64, wire: WireId, mark: u64) -> Result<Watch, Error> {
        self.store.ask(term)?;
        let places = self.places(wire);
        let (eyes, blind) = Eyes::open(&places, mark).await?;
        let seen = vec![Seen::default(); places.len()];
        let end = Instant::now() + LONGEST;
        Ok(Watch { checker: self.clone(), wire, places, blind, seen, eyes, end, is_begun: false })
    }

    /// Sends frames from an end of a wire, for the leader; tells why they were not taken, in words.
    pub async fn send(
        &self,
        term: u64,
        wire: WireId,
        end: End,
        order: Order,
    ) -> Result<Result<(), String>, Error> {
        self.store.ask(term)?;
        let view = self.client.snapshots().borrow().as_ref().map(|db| View::read(db));
        let origin = self.known(|known| places::origin(known, view.as_ref(), wire, end));
        Ok(match origin {
            Ok(origin) => send::send(origin, order, &self.config.ovs_run_dir).await,
            Err(why) => Err(why),
        })
    }

    fn places(&self, wire: WireId) -> Vec<Place> {
        self.known(|known| places::of(known, wire))
    }

    fn known<T>(&self, look: impl FnOnce(&Known<'_>) -> T) -> T {
        let (wanted, starts) = (self.store.wanted().borrow().clone(), self.starts.borrow().clone());
        let links = self.links.borrow().clone();
        let mut underlay = underlay::Look::new(&self.config);
        let underlay = underlay.now(&links).and_then(|underlay| underlay.interface.clone());
        look(&Known {
            names: &self.names,
            wanted: &wanted,
            starts: &starts,
            links: &links,
            underlay: underlay.as_deref(),
        })
    }
}

impl Watch {
    /// Waits until there is something to tell: at once the first time, then when more frames were seen, and now and then. False when it is over.
    pub async fn more(&mut self) -> bool {
        if !std::mem::replace(&mut self.is_begun, true) {
            return true;
        }
        let shutdown = self.checker.shutdown.clone();
        let first = tokio::select! {
            first = self.eyes.next() => first,
            () = tokio::time::sleep(AGAIN) => return Instant::now() < self.end,
            () = shutdown.cancelled() => None,
        };
        let Some(first) = first else { return false };
        self.note(first);
        let until = Instant::now() + TOGETHER;
        while let Ok(Some(next)) = tokio::time::timeout_at(until, self.eyes.next()).await {
            self.note(next);
        }
        true
    }

    fn note(&mut self, Sighting { place, way, number }: Sighting) {
        let seen = &mut self.seen[place];
        match way {
            Way::AToB => seen.a_to_b.insert(number),
            Way::BToA => seen.b_to_a.insert(number),
        };
    }

    /// The places as they are now, whether they are looked at, and what was seen there so far.
    pub fn now(&self) -> Vec<(Place, bool, Seen)> {
        let now = self.checker.places(self.wire);
        let told = |(n, place): (usize, &Place)| {
            let is = now.iter().find(|is| (is.kind, is.end) == (place.kind, place.end));
            let mut place = Place { detail: is.unwrap_or(place).detail.clone(), ..place.clone() };
            if let Some(why) = self.blind.get(&n) {
                place.detail.clone_from(why);
            }
            let is_watched = place.look != Look::Nowhere && !self.blind.contains_key(&n);
            (place, is_watched, self.seen[n].clone())
        };
        self.places.iter().enumerate().map(told).collect()
    }

    /// What is read of the wire now.
    pub fn wire(&self) -> Option<ObservedWire> {
        let report = self.checker.reports.borrow().clone()?;
        report.observed.wires.get(&self.wire).cloned()
    }
}
