//! Tells each host which others there are, so that it measures the paths to them ([`crate::across`] takes the MTU of links between hosts from that).
//!
//! One task looks at what hosts say of their tunnel addresses, whenever that may have changed, and tells each host that has not been told, every one by itself: one that is
//! slow holds up no other. A host that cannot be told is told again.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use netloom_model::id::HostId;
use netloom_service::Shutdown;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::scheduler::Scheduler;
use crate::world::Heard;

/// How long changes are gathered.
const REST: Duration = Duration::from_millis(500);
/// How many are told at once: a thousand lists of a thousand addresses are not to be in memory.
const AT_ONCE: usize = 16;
/// How soon a host is told again that could not be.
const AGAIN: Duration = Duration::from_secs(10);

/// What a host was told: over which connection, and of whom.
type Told = (u64, Arc<BTreeSet<IpAddr>>);

/// Tells them until shut down.
pub async fn run(core: Arc<Scheduler>, shutdown: Shutdown) {
    let mut world = core.world.subscribe();
    let mut told = BTreeMap::<HostId, Told>::new();
    let mut telling = JoinSet::<(HostId, Option<Told>)>::new();
    let mut busy = BTreeSet::<HostId>::new();
    let mut peers = Arc::new(BTreeSet::new());
    let turn = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        world.borrow_and_update();
        let heard: BTreeMap<HostId, (u64, Option<IpAddr>)> = core.world.read(|hosts| {
            let heard = hosts.iter().filter(|(_, view)| view.network.heard == Heard::Yes);
            let said = heard.map(|(id, view)| {
                let address = view.network.inventory.underlay.map(|underlay| underlay.address);
                (id.clone(), (view.network.epoch, address))
            });
            said.collect()
        });
        let now: BTreeSet<IpAddr> = heard.values().filter_map(|(_, address)| *address).collect();
        if now != *peers {
            peers = Arc::new(now);
        }
        told.retain(|host, _| heard.contains_key(host));
        for (host, (epoch, address)) in heard {
            let is_told = told.get(&host).is_some_and(|(over, whom)| *over == epoch && *whom == peers);
            if address.is_none() || is_told || busy.contains(&host) {
                continue;
            }
            let Some(client) = core.host(&host) else { continue };
            busy.insert(host.clone());
            let (peers, turn) = (peers.clone(), turn.clone());
            telling.spawn(async move {
                let permit = turn.acquire_owned().await;
                let outcome = client.set_peers(&peers).await;
                drop(permit);
                if let Err(e) = &outcome {
                    tracing::debug!(%host, "a host is not told of its peers, tried again: {e}");
                    tokio::time::sleep(AGAIN).await;
                }
                (host, outcome.ok().map(|()| (epoch, peers)))
            });
        }
        tokio::select! {
            _ = world.changed() => {}
            Some(done) = telling.join_next() => {
                let (host, done) = done.unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()));
                busy.remove(&host);
                told.extend(done.map(|done| (host, done)));
                continue;
            }
            () = shutdown.cancelled() => return,
        }
        tokio::select! {
            () = tokio::time::sleep(REST) => {}
            () = shutdown.cancelled() => return,
        }
    }
}
