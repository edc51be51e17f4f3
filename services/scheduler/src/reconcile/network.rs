//! NICs, wires and segments.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use netloom_model::id::{LabUid, WireId};
use netloom_model::slice::NetworkSlice;
use netloom_model::state::Wanted;

use super::{Again, Service};
use crate::client::{HostClient, NETWORK};
use crate::error::Result;
use crate::rows::LabRows;
use crate::scheduler::Scheduler;
use crate::slices;
use crate::world::Heard;

/// Tells a host's network service.
#[derive(Default)]
pub struct Network;

/// What is to be told of a lab.
pub struct Work {
    remove: BTreeSet<WireId>,
    ensure: NetworkSlice,
    has: NetworkSlice,
}

impl Service for Network {
    type Slice = NetworkSlice;
    type Work = Work;

    const NAME: &'static str = NETWORK;

    fn epoch(core: &Scheduler, host: &HostClient) -> Option<u64> {
        core.world.host(&host.id, |v| (v.network.heard == Heard::Yes).then_some(v.network.epoch)).flatten()
    }

    async fn sync(
        core: &Scheduler,
        host: &HostClient,
        labs: &[Arc<LabRows>],
    ) -> Result<HashMap<LabUid, Self::Slice>> {
        let has: HashMap<LabUid, NetworkSlice> =
            labs.iter().map(|r| (r.lab.uid, slices::network(r, &host.id))).collect();
        let mut whole = NetworkSlice::default();
        for slice in has.values().cloned() {
            whole.nics.extend(slice.nics);
            whole.wires.extend(slice.wires);
            whole.segments.extend(slice.segments);
        }
        host.sync_network(whole, &core.ticket_key).await?;
        Ok(has)
    }

    async fn remove_strays(core: &Scheduler, host: &HostClient, told: &mut BTreeSet<String>) -> Result<()> {
        let unwanted: Vec<WireId> =
            core.world.host(&host.id, |v| v.network.unwanted.iter().copied().collect()).unwrap_or_default();
        let strays: Vec<WireId> =
            unwanted.into_iter().filter(|w| core.store.lab_of_wire(*w).is_none()).collect();
        let removed = core.store.removed_wires_of(&strays).await?;
        for wire in strays.iter().filter(|w| !removed.contains(w)) {
            if told.insert(wire.to_string()) {
                tracing::warn!(host = %host.id, %wire, "the host has a wire of this installation that is not known; it is left alone");
            }
        }
        if !removed.is_empty() {
            host.remove_network(&removed).await?;
            tracing::info!(host = %host.id, wires = removed.len(), "wires of removed links removed");
        }
        Ok(())
    }

    fn compare(
        &mut self,
        _core: &Scheduler,
        host: &HostClient,
        rows: &LabRows,
        acknowledged: Option<&NetworkSlice>,
    ) -> (Option<Work>, Option<Again>) {
        let has = slices::network(rows, &host.id);
        let remove = slices::wires_to_remove(rows, &host.id);
        let none = NetworkSlice::default();
        let ensure = beyond(&has, acknowledged.unwrap_or(&none));
        let nothing = remove.is_empty() && ensure == none;
        ((!nothing).then_some(Work { remove, ensure, has }), None)
    }

    async fn tell(
        core: Arc<Scheduler>,
        host: HostClient,
        rows: Arc<LabRows>,
        work: Work,
    ) -> Result<NetworkSlice> {
        let mut removed = Ok(());
        if !work.remove.is_empty() {
            let wires: Vec<WireId> = work.remove.iter().copied().collect();
            let failures = host.remove_network(&wires).await?;
            if let Some((wire, why)) = failures.first_key_value() {
                removed = Err(host.could_not_remove(NETWORK, &wire.to_string(), why));
            }
            tracing::info!(wires = wires.len(), failures = failures.len(), "wires removed");
            let gone = |wire: &WireId| work.remove.contains(wire) && !failures.contains_key(wire);
            core.change("scheduler.unwired", rows.lab.uid, |rows| {
                rows.nics.retain(|wire, n| !(n.absent && gone(wire)));
                // One between two hosts is gone when it is gone from both.
                rows.links
                    .retain(|_, l| !(l.wanted == Wanted::Absent && gone(&l.wire_id) && l.leaves(&host.id)));
                rows.nodes
                    .retain(|_, n| !(n.wanted == Wanted::Absent && n.segment.as_ref().is_some_and(gone)));
            })
            .await?;
        }
        if work.ensure != NetworkSlice::default() {
            let (nics, wires) = (work.ensure.nics.len(), work.ensure.wires.len());
            host.ensure_network(work.ensure).await?;
            tracing::info!(nics, wires, "wires told");
        }
        removed.map(|()| work.has)
    }
}

/// What of a slice another one does not have alike.
fn beyond(slice: &NetworkSlice, known: &NetworkSlice) -> NetworkSlice {
    fn part<T: PartialEq + Clone>(
        all: &BTreeMap<WireId, T>,
        known: &BTreeMap<WireId, T>,
    ) -> BTreeMap<WireId, T> {
        all.iter().filter(|(k, v)| known.get(*k) != Some(*v)).map(|(k, v)| (*k, v.clone())).collect()
    }
    NetworkSlice {
        nics: part(&slice.nics, &known.nics),
        wires: part(&slice.wires, &known.wires),
        segments: part(&slice.segments, &known.segments),
    }
}
