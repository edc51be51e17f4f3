//! One stream of Observe: everything first, then what changed, and signs of life.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use netloom_model::observed::NetworkInventory;
use netloom_proto::network::v1 as pb;
use netloom_proto::network::v1::observe_response::Event;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::parts;
use crate::counts::{Counts, Reads};
use crate::observe::News;
use crate::reconcile::Report;

/// How often an observer hears a sign of life.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// See the module.
pub struct Observer {
    reports: watch::Receiver<Option<Arc<Report>>>,
    counts: watch::Receiver<Arc<Counts>>,
    reads: watch::Receiver<Arc<Reads>>,
    /// What of the counts was told last.
    counted: Arc<Counts>,
    /// The report that was told last, and the inventory.
    told: Option<(Arc<Report>, NetworkInventory)>,
    /// What of that is still to be sent.
    events: VecDeque<Event>,
    heartbeat: Instant,
}

impl Observer {
    /// One that was told nothing yet.
    pub fn new(
        reports: watch::Receiver<Option<Arc<Report>>>,
        counts: watch::Receiver<Arc<Counts>>,
        reads: watch::Receiver<Arc<Reads>>,
    ) -> Observer {
        let (counted, events) = (Arc::default(), VecDeque::new());
        Observer { reports, counts, reads, counted, told: None, events, heartbeat: Instant::now() }
    }

    /// The next event; none when the service ends.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            let latest = self.reports.borrow_and_update().clone();
            if let Some(latest) = latest {
                self.compare(latest);
                if !self.events.is_empty() {
                    continue;
                }
                if Instant::now() >= self.heartbeat {
                    return Some(self.beat());
                }
            }
            match timeout_at(self.heartbeat, self.reports.changed()).await {
                Ok(Err(_)) => return None,
                Ok(Ok(())) => {}
                Err(_) if self.told.is_none() => self.heartbeat = Instant::now() + HEARTBEAT,
                Err(_) => {}
            }
        }
    }

    /// Queues what is new.
    fn compare(&mut self, latest: Arc<Report>) {
        let now = &latest.observed;
        let news = match &self.told {
            None => vec![News::Everything],
            Some((told, _)) => now.since(&told.observed),
        };
        let mut inventory = self.told.take().map(|(_, inventory)| inventory);
        for news in news {
            match news {
                News::Everything => {
                    self.events.extend(parts::snapshot(now).into_iter().map(Event::Snapshot));
                    inventory = None;
                }
                News::Changes(changes) => {
                    self.events.extend(parts::changes(changes).into_iter().map(Event::Changes));
                }
            }
        }
        let inventory = inventory.unwrap_or_else(|| now.inventory.clone());
        self.told = Some((latest, inventory));
    }

    fn beat(&mut self) -> Event {
        self.heartbeat = Instant::now() + HEARTBEAT;
        let inventory = self.told.as_mut().and_then(|(report, told)| {
            let now = &report.observed.inventory;
            (now != told).then(|| {
                told.clone_from(now);
                pb::Inventory::from(now.clone())
            })
        });
        let now = self.counts.borrow_and_update().clone();
        let changed = now.iter().filter(|(wire, carried)| self.counted.get(wire) != Some(carried));
        let carried = changed.map(|(wire, carried)| pb::WireCarried::from((*wire, *carried))).collect();
        self.counted = now;
        let read_ago_ms = netloom_proto::convert::read_ago(&self.reads.borrow());
        Event::Heartbeat(pb::Heartbeat { inventory, carried, read_ago_ms })
    }
}
