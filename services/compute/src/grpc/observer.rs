//! What observers are told.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use netloom_proto::compute::v1 as p;
use prost::Message as _;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Interval;

use crate::host::Host;
use crate::table::{Snapshot, Told as Change};

/// Most bytes of instances in a part of a snapshot; a message may have a little more than this.
const PART: usize = 2 << 20;

/// What an observer is told: a snapshot, then what changes.
pub struct Observer {
    host: Arc<Host>,
    /// Parts of a snapshot that were not told yet. What changed meanwhile comes after them.
    parts: VecDeque<p::Snapshot>,
    told: Receiver<Change>,
    beat: Interval,
}

impl Observer {
    /// Begins with a snapshot; `beat` says when it hears that the host is there.
    pub fn new(host: Arc<Host>, beat: Interval) -> Observer {
        let (now, told) = host.table.observe();
        Observer { host, parts: snapshot(now), told, beat }
    }

    /// What is told next; none when the service ends.
    pub async fn next(&mut self) -> Option<p::ObserveResponse> {
        use p::observe_response::Event;
        let event = loop {
            if let Some(part) = self.parts.pop_front() {
                break Event::Snapshot(part);
            }
            tokio::select! {
                told = self.told.recv() => match told {
                    Ok(Change::Changed(observed)) => break Event::Changed((*observed).into()),
                    Ok(Change::Gone(uid)) => break Event::Gone(uid.to_string()),
                    Ok(Change::Inventory) => {
                        break Event::Heartbeat(self.beat(Some(self.host.table.inventory().into())));
                    }
                    // Too slow for single changes, or too many: everything at once replaces them.
                    Ok(Change::Everything) | Err(RecvError::Lagged(_)) => {
                        let (now, told) = self.host.table.observe();
                        (self.parts, self.told) = (snapshot(now), told);
                    }
                    Err(RecvError::Closed) => return None,
                },
                _ = self.beat.tick() => break Event::Heartbeat(self.beat(None)),
            }
        };
        let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let clock_us = i64::try_from(clock.as_micros()).unwrap_or_default();
        Some(p::ObserveResponse { event: Some(event), clock_us, beat: self.host.beat() })
    }

    fn beat(&self, inventory: Option<p::Inventory>) -> p::Heartbeat {
        p::Heartbeat { inventory, read_ago_ms: netloom_proto::convert::read_ago(&self.host.table.reads()) }
    }
}

/// A snapshot in parts that fit a message.
fn snapshot(s: Snapshot) -> VecDeque<p::Snapshot> {
    let (inventory, synced) = (p::Inventory::from(s.inventory), s.synced);
    let empty = || p::Snapshot { inventory: Some(inventory.clone()), synced, ..p::Snapshot::default() };
    let (mut parts, mut part, mut bytes) = (VecDeque::new(), empty(), 0);
    for observed in s.instances.into_iter().map(p::Observed::from) {
        let more = observed.encoded_len();
        if bytes + more > PART && !part.instances.is_empty() {
            part.more = true;
            parts.push_back(std::mem::replace(&mut part, empty()));
            bytes = 0;
        }
        bytes += more;
        part.instances.push(observed);
    }
    parts.push_back(part);
    parts
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::{Config, SimConfig};
    use crate::driver::sim::SimDriver;
    use crate::driver::testing::instance;
    use crate::exec_runs::ExecRuns;
    use crate::files::Files;
    use crate::images::Images;
    use crate::inventory::Inventory;
    use crate::table::Table;
    use netloom_model::id::NodeUid;
    use netloom_model::kind::Catalogue;
    use netloom_model::observed::Observed;
    use netloom_model::slice::Instance;
    use netloom_service::fence::Fence;
    use netloom_service::order::Decision;
    use p::observe_response::Event;

    /// More changes than are kept for an observer.
    const MANY: usize = 5000;

    #[tokio::test]
    async fn a_slow_observer_is_told_everything_instead_of_what_it_missed() {
        let dir = tempfile::tempdir().unwrap();
        let inventory = Inventory::new(&Config::default(), &[]);
        let files = Arc::new(Files::open(dir.path()).unwrap());
        let (nowhere, shutdown) = ("mem:none".parse().unwrap(), netloom_service::Shutdown::new());
        let images =
            Images::open(dir.path(), &nowhere, &Default::default(), Duration::ZERO, shutdown).unwrap();
        let host = Host::new(
            vec![Arc::new(SimDriver::new(SimConfig::default()).unwrap())],
            Table::new(vec![(netloom_model::observed::Source::Sim, true)], inventory.now(), files.clone()),
            files,
            Arc::new(images),
            ExecRuns::open(dir.path().join("exec")).unwrap(),
            None,
            None,
            Fence::open(&dir.path().join("term")).unwrap(),
            crate::lease::Lease::open(dir.path().join("lease")).unwrap(),
            Catalogue::embedded(),
            netloom_service::Shutdown::new(),
        );
        let host = Arc::new(host);
        let mut beat = tokio::time::interval(Duration::from_secs(1000));
        beat.tick().await;
        let mut observer = Observer::new(host.clone(), beat);
        let Some(Event::Snapshot(first)) = observer.next().await.unwrap().event else {
            panic!("no snapshot")
        };
        assert!(first.instances.is_empty() && !first.more);
        let add = || {
            host.ensure(
                Decision { term: 1, number: 0 },
                "",
                vec![Instance { uid: NodeUid::new(), ..instance() }],
            )
            .unwrap()
        };
        (0..MANY).for_each(|_| add());
        let mut told = 0;
        loop {
            let Some(Event::Snapshot(part)) = observer.next().await.unwrap().event else { panic!("no part") };
            told += part.instances.len();
            if !part.more {
                break;
            }
        }
        assert_eq!(told, MANY);
        add();
        assert!(matches!(observer.next().await.unwrap().event, Some(Event::Changed(_))));
    }
    #[test]
    fn a_large_snapshot_comes_in_parts_and_whole() {
        let observed = |n: usize| {
            let mut o = Observed::absent(NodeUid::new(), instance().lab_uid);
            o.detail = "x".repeat(n);
            o
        };
        let all = |sizes: &[usize]| Snapshot {
            instances: sizes.iter().map(|n| observed(*n)).collect(),
            inventory: Inventory::new(&Config::default(), &[]).now(),
            synced: true,
        };
        let counts = |sizes: &[usize]| {
            let parts = snapshot(all(sizes));
            let last = parts.len() - 1;
            for (n, part) in parts.iter().enumerate() {
                assert!(part.synced && part.inventory.is_some());
                assert_eq!(part.more, n < last);
                assert!(part.instances.len() == 1 || part.encoded_len() < 3 << 20);
            }
            parts.iter().map(|p| p.instances.len()).collect::<Vec<_>>()
        };
        assert_eq!(counts(&[]), [0]);
        assert_eq!(counts(&[1, 2, 3]), [3]);
        assert_eq!(counts(&[PART / 2, PART / 2, PART, PART * 2, 1]), [1, 1, 1, 1, 1]);
        assert_eq!(counts(&[4000; 1000]).iter().sum::<usize>(), 1000);
    }
}
