//! Calls to a host's network service.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use netloom_model::id::WireId;
use netloom_model::observed::{
    Carried, End, NetworkInventory, ObservedNic, ObservedSegment, ObservedWire, Source,
};
use netloom_model::slice::NetworkSlice;
use netloom_proto::convert::ConvertError;
use netloom_proto::network::v1 as pn;
use netloom_service::fail_point;
use netloom_service::status::from_status;
use prost::Message as _;

use super::{HostClient, NETWORK, NOTE, REMOVAL, batches, bounded, unreadable};
use crate::check::{Kind, Shots, Sight, Spot};
use crate::error::Result;

/// Something that network says.
#[derive(Debug)]
pub enum NetworkEvent {
    /// Everything.
    Snapshot {
        /// NICs, wires and segments.
        objects: NetworkObjects,
        /// What the host can do.
        inventory: NetworkInventory,
        /// True once a Sync was taken since the service started.
        synced: bool,
        /// What exists and is not in the slice.
        unwanted: Vec<WireId>,
    },
    /// What changed.
    Changes(NetworkObjects),
    /// Still here.
    Heartbeat {
        /// What the host can do, when that changed.
        inventory: Option<NetworkInventory>,
        /// What wires carried, of those that did.
        carried: Vec<(WireId, Carried)>,
        /// How long ago each source was last read, or known to answer.
        ages: BTreeMap<Source, Duration>,
    },
}

/// NICs, wires and segments as read back.
#[derive(Debug, Default)]
pub struct NetworkObjects {
    /// NICs.
    pub nics: Vec<ObservedNic>,
    /// Wires.
    pub wires: Vec<ObservedWire>,
    /// Segments.
    pub segments: Vec<ObservedSegment>,
}

fn objects(
    nics: Vec<pn::ObservedNic>,
    wires: Vec<pn::ObservedWire>,
    segments: Vec<pn::ObservedSegment>,
) -> Result<NetworkObjects, ConvertError> {
    Ok(NetworkObjects {
        nics: nics.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
        wires: wires.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
        segments: segments.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
    })
}

fn slice_batches(slice: NetworkSlice) -> Vec<pn::Slice> {
    enum Item {
        Nic(pn::Nic),
        Wire(pn::Wire),
        Segment(pn::Segment),
    }
    let slice = pn::Slice::from(slice);
    let nics = slice.nics.into_iter().map(Item::Nic);
    // NICs and segments before the wires that end in them.
    let items = nics
        .chain(slice.segments.into_iter().map(Item::Segment))
        .chain(slice.wires.into_iter().map(Item::Wire));
    let size = |item: &Item| match item {
        Item::Nic(n) => n.encoded_len(),
        Item::Wire(w) => w.encoded_len(),
        Item::Segment(s) => s.encoded_len(),
    };
    let into_slice = |batch: Vec<Item>| {
        let mut slice = pn::Slice::default();
        for item in batch {
            match item {
                Item::Nic(n) => slice.nics.push(n),
                Item::Wire(w) => slice.wires.push(w),
                Item::Segment(s) => slice.segments.push(s),
            }
        }
        slice
    };
    batches(items, size).into_iter().map(into_slice).collect()
}

impl HostClient {
    /// Replaces the host's slice of NICs, wires and segments.
    pub async fn sync_network(&self, slice: NetworkSlice, ticket_key: &[u8]) -> Result<()> {
        let mut parts = slice_batches(slice);
        let last = parts.pop().unwrap_or_default();
        let count = parts.len();
        for (i, slice) in parts.into_iter().chain([last]).enumerate() {
            let request = pn::SyncRequest {
                term: self.term,
                slice: Some(slice),
                more: i < count,
                ticket_key: ticket_key.to_vec(),
                decision: self.decision,
            };
            fail_point::pass("scheduler.tell-network-sync", "before");
            bounded(NOTE, self.network.clone().sync(request)).await.map_err(self.error(NETWORK))?;
            fail_point::pass("scheduler.tell-network-sync", "after");
        }
        Ok(())
    }

    /// Adds or changes NICs, wires and segments.
    pub async fn ensure_network(&self, slice: NetworkSlice) -> Result<()> {
        for slice in slice_batches(slice) {
            let request = pn::EnsureRequest { term: self.term, slice: Some(slice), decision: self.decision };
            fail_point::pass("scheduler.tell-wires", "before");
            bounded(NOTE, self.network.clone().ensure(request)).await.map_err(self.error(NETWORK))?;
            fail_point::pass("scheduler.tell-wires", "after");
        }
        Ok(())
    }

    /// Removes NICs, wires and segments; says what could not be.
    pub async fn remove_network(&self, wires: &[WireId]) -> Result<BTreeMap<WireId, String>> {
        let wire_ids = wires.iter().map(|w| w.get()).collect();
        let request = pn::RemoveRequest { term: self.term, wire_ids, decision: self.decision };
        fail_point::pass("scheduler.tell-wires-removal", "before");
        let response =
            bounded(REMOVAL, self.network.clone().remove(request)).await.map_err(self.error(NETWORK))?;
        fail_point::pass("scheduler.tell-wires-removal", "after");
        let failure = |f: pn::RemoveFailure| Some((WireId::try_from(f.wire_id).ok()?, f.message));
        Ok(response.failures.into_iter().filter_map(failure).collect())
    }

    /// Names the hosts that paths are measured to, by their tunnel addresses.
    pub async fn set_peers(&self, addresses: &BTreeSet<IpAddr>) -> Result<()> {
        let addresses = addresses.iter().map(ToString::to_string).collect();
        let request = pn::SetPeersRequest { term: self.term, addresses };
        bounded(NOTE, self.network.clone().set_peers(request)).await.map_err(self.error(NETWORK))?;
        Ok(())
    }

    /// Looks for marked frames of a link until the stream is dropped; its first word says that it looks.
    pub async fn watch_frames(
        &self,
        wire: WireId,
        mark: u64,
    ) -> Result<impl Stream<Item = Result<Sight>> + Send + use<>> {
        let request = pn::WatchFramesRequest { term: self.term, wire_id: wire.get(), mark };
        let mut client = self.network.clone();
        let call = async move { client.watch_frames(request).await };
        let stream = bounded(NOTE, call).await.map_err(self.error(NETWORK))?;
        let error = self.error(NETWORK);
        Ok(stream.map(move |message| {
            let sight = message.map_err(|s| from_status(&s)).and_then(|m| sight(m).map_err(unreadable));
            sight.map_err(&error)
        }))
    }

    /// Sends marked frames from an end of a link; says why they were not taken, in words.
    pub async fn send_frames(&self, wire: WireId, shots: Shots) -> Result<String> {
        let request = pn::SendFramesRequest {
            term: self.term,
            wire_id: wire.get(),
            end: match shots.from {
                End::A => pn::End::A,
                End::B => pn::End::B,
            }
            .into(),
            mark: shots.mark,
            count: shots.count,
            large: shots.large,
            mtu: shots.mtu,
        };
        let sent = bounded(NOTE, self.network.clone().send_frames(request)).await;
        Ok(sent.map_err(self.error(NETWORK))?.detail)
    }

    /// What the host's network has, as it is seen.
    pub async fn observe_network(&self) -> Result<impl Stream<Item = Result<NetworkEvent>> + Send + use<>> {
        let call = bounded(NOTE, {
            let mut client = self.network.clone();
            async move { client.observe(pn::ObserveRequest {}).await }
        });
        let stream = call.await.map_err(self.error(NETWORK))?;
        let error = self.error(NETWORK);
        let mut parts = Parts::default();
        Ok(stream.filter_map(move |message| {
            let event = message
                .map_err(|s| from_status(&s))
                .and_then(|m| network_event(m, &mut parts).map_err(unreadable))
                .map_err(&error);
            std::future::ready(event.transpose())
        }))
    }
}

/// What a host saw so far. Of places and ends that this version does not know nothing is said.
fn sight(message: pn::WatchFramesResponse) -> Result<Sight, ConvertError> {
    let spot = |place: pn::FramePlace| {
        let kind = match place.kind() {
            pn::FramePlaceKind::Interface => Kind::Interface,
            pn::FramePlaceKind::HostEnd => Kind::HostEnd,
            pn::FramePlaceKind::Tunnel => Kind::Tunnel,
            pn::FramePlaceKind::Unspecified => return None,
        };
        let end = match place.end() {
            pn::End::A => End::A,
            pn::End::B => End::B,
            pn::End::Unspecified => return None,
        };
        Some(Spot {
            kind,
            end,
            interface: place.interface,
            watched: place.watched,
            passed_over: place.passed_over,
            detail: place.detail,
            a_to_b: place.a_to_b.into_iter().collect(),
            b_to_a: place.b_to_a.into_iter().collect(),
        })
    };
    let spots = message.places.into_iter().filter_map(spot).collect();
    Ok(Sight { spots, wire: message.wire.map(TryInto::try_into).transpose()? })
}

/// The parts of a snapshot that came so far.
#[derive(Default)]
struct Parts {
    objects: NetworkObjects,
    unwanted: Vec<WireId>,
}

/// What a message says; nothing yet when more parts of a snapshot follow, which are kept until the last one.
fn network_event(
    message: pn::ObserveResponse,
    parts: &mut Parts,
) -> Result<Option<NetworkEvent>, ConvertError> {
    use pn::observe_response::Event as E;
    Ok(Some(match message.event {
        Some(E::Snapshot(s)) => {
            let part = objects(s.nics, s.wires, s.segments)?;
            parts.objects.nics.extend(part.nics);
            parts.objects.wires.extend(part.wires);
            parts.objects.segments.extend(part.segments);
            parts.unwanted.extend(s.unwanted.into_iter().filter_map(|w| WireId::try_from(w).ok()));
            if s.more {
                return Ok(None);
            }
            let Parts { objects, unwanted } = std::mem::take(parts);
            NetworkEvent::Snapshot {
                objects,
                inventory: s.inventory.unwrap_or_default().into(),
                synced: s.synced,
                unwanted,
            }
        }
        Some(E::Changes(c)) => NetworkEvent::Changes(objects(c.nics, c.wires, c.segments)?),
        Some(E::Heartbeat(h)) => {
            let carried = h.carried.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?;
            let ages = netloom_proto::convert::ages(h.read_ago_ms);
            NetworkEvent::Heartbeat { inventory: h.inventory.map(Into::into), carried, ages }
        }
        None => NetworkEvent::Heartbeat { inventory: None, carried: Vec::new(), ages: BTreeMap::new() },
    }))
}
