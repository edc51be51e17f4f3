//! The fake host's network service.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use netloom_model::Failure;
use netloom_proto::network::v1 as pn;
use netloom_proto::network::v1::network_service_server::NetworkService;
use netloom_service::order::Decision;
use netloom_service::status::to_status;
use prost::Message as _;
use tonic::{Request, Response, Status};

use super::{Answer, Host, State, Stream_, changed, observe, overtaken};

#[tonic::async_trait]
impl NetworkService for Host {
    async fn sync(&self, request: Request<pn::SyncRequest>) -> Answer<pn::SyncResponse> {
        let request = request.into_inner();
        self.called("network.sync", Some(request.term), request.encoded_len()).await?;
        let slice = request.slice.unwrap_or_default();
        self.with(|s| {
            let of = Decision { term: request.term, number: request.decision };
            s.wire_order.admit_all(of).map_err(overtaken)?;
            s.take_wires(slice);
            Ok::<_, Status>(())
        })?;
        Ok(Response::new(pn::SyncResponse {}))
    }

    async fn ensure(&self, request: Request<pn::EnsureRequest>) -> Answer<pn::EnsureResponse> {
        let request = request.into_inner();
        self.called("network.ensure", Some(request.term), request.encoded_len()).await?;
        let refuses = self.read(|s| s.refuses_wires.clone());
        if !refuses.is_empty() {
            return Err(to_status(Failure::invalid(refuses, Vec::new())));
        }
        let slice = request.slice.unwrap_or_default();
        self.with(|s| {
            let of = Decision { term: request.term, number: request.decision };
            let nics = slice.nics.iter().map(|n| n.wire_id);
            let wires = slice.wires.iter().map(|w| w.wire_id);
            let all = nics.chain(wires).chain(slice.segments.iter().map(|s| s.wire_id));
            s.wire_order.admit(of, all.collect::<Vec<_>>()).map_err(overtaken)?;
            s.add_wires(slice);
            Ok::<_, Status>(())
        })?;
        Ok(Response::new(pn::EnsureResponse {}))
    }

    async fn remove(&self, request: Request<pn::RemoveRequest>) -> Answer<pn::RemoveResponse> {
        let request = request.into_inner();
        self.called("network.remove", Some(request.term), request.encoded_len()).await?;
        if self.read(|s| s.hold_wires) {
            let failure = |wire_id| pn::RemoveFailure { wire_id, message: "it is in use".into() };
            let failures = request.wire_ids.into_iter().map(failure).collect();
            return Ok(Response::new(pn::RemoveResponse { failures }));
        }
        self.with(|s| {
            let of = Decision { term: request.term, number: request.decision };
            s.wire_order.admit(of, request.wire_ids.iter().copied()).map_err(overtaken)?;
            for id in &request.wire_ids {
                s.nics.remove(id);
                s.wires.remove(id);
                s.segments.remove(id);
                s.leftovers.remove(id);
            }
            Ok::<_, Status>(())
        })?;
        Ok(Response::new(pn::RemoveResponse::default()))
    }

    type CaptureStream = Stream_<pn::CaptureResponse>;

    async fn end_capture(&self, _: Request<pn::EndCaptureRequest>) -> Answer<pn::EndCaptureResponse> {
        Err(tonic::Status::unimplemented("the fake host captures nothing"))
    }

    async fn capture(&self, _: Request<pn::CaptureRequest>) -> Answer<Self::CaptureStream> {
        Err(tonic::Status::unimplemented("the fake host captures nothing"))
    }

    async fn set_peers(&self, request: Request<pn::SetPeersRequest>) -> Answer<pn::SetPeersResponse> {
        let peers = request.into_inner().addresses;
        self.with(|s| s.peers = peers);
        Ok(Response::new(pn::SetPeersResponse {}))
    }

    type WatchFramesStream = Stream_<pn::WatchFramesResponse>;

    async fn watch_frames(
        &self,
        request: Request<pn::WatchFramesRequest>,
    ) -> Answer<Self::WatchFramesStream> {
        let pn::WatchFramesRequest { term, wire_id, mark } = request.into_inner();
        self.called("network.watch_frames", Some(term), 0).await?;
        let host = self.clone();
        let told = futures::stream::unfold(false, move |begun| {
            let host = host.clone();
            async move {
                if begun {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                let places = host.read(|s| frame_places(s, wire_id, mark));
                Some((Ok(pn::WatchFramesResponse { places, wire: None }), true))
            }
        });
        Ok(Response::new(Box::pin(told)))
    }

    async fn send_frames(&self, request: Request<pn::SendFramesRequest>) -> Answer<pn::SendFramesResponse> {
        let request = request.into_inner();
        self.called("network.send_frames", Some(request.term), request.encoded_len()).await?;
        let detail = if self.read(|s| s.takes_no_frames) { "it is set down".into() } else { String::new() };
        self.with(|s| s.frames.push(request));
        Ok(Response::new(pn::SendFramesResponse { detail }))
    }

    type ObserveStream = Stream_<pn::ObserveResponse>;

    async fn observe(&self, _: Request<pn::ObserveRequest>) -> Answer<Self::ObserveStream> {
        self.called("network.observe", None, 0).await?;
        use pn::observe_response::Event as E;
        type Seen = Option<(
            BTreeMap<u64, pn::ObservedNic>,
            BTreeMap<u64, pn::ObservedWire>,
            BTreeMap<u64, pn::ObservedSegment>,
            BTreeSet<u64>,
            pn::Inventory,
        )>;
        let look = move |s: &State, seen: &mut Seen, due: bool| {
            let inventory = pn::Inventory {
                datapath: "system".into(),
                impairments: s.impairments.clone(),
                host_interfaces: s.host_interfaces,
                uplinks: s.uplinks.clone(),
                plane: "kernel".into(),
                underlay: s.underlay.clone(),
                paths: s.paths.clone(),
                ..pn::Inventory::default()
            };
            let (nics, wires, segments) = (s.observed_nics(), s.observed_wires(), s.observed_segments());
            let now = (nics, wires, segments, s.leftovers.clone(), inventory.clone());
            let events = match seen {
                Some((_, _, _, leftovers, had)) if *leftovers == now.3 && *had != inventory => {
                    vec![E::Heartbeat(pn::Heartbeat { inventory: Some(inventory), ..Default::default() })]
                }
                Some((nics, wires, segments, leftovers, _)) if *leftovers == now.3 => {
                    let changes = pn::Changes {
                        nics: changed(nics, &now.0),
                        wires: changed(wires, &now.1),
                        segments: changed(segments, &now.2),
                    };
                    match (changes == pn::Changes::default(), due) {
                        (false, _) => vec![E::Changes(changes)],
                        (true, true) => vec![E::Heartbeat(pn::Heartbeat::default())],
                        (true, false) => Vec::new(),
                    }
                }
                _ => {
                    let first = pn::Snapshot {
                        nics: now.0.values().cloned().collect(),
                        unwanted: now.3.iter().copied().collect(),
                        more: true,
                        ..pn::Snapshot::default()
                    };
                    let last = pn::Snapshot {
                        wires: now.1.values().cloned().collect(),
                        segments: now.2.values().cloned().collect(),
                        inventory: Some(inventory),
                        synced: s.synced,
                        ..pn::Snapshot::default()
                    };
                    vec![E::Snapshot(first), E::Snapshot(last)]
                }
            };
            *seen = Some(now);
            events.into_iter().map(|event| pn::ObserveResponse { event: Some(event) }).collect()
        };
        Ok(Response::new(observe(self.clone(), look)))
    }
}

/// Frames that were sent came to all places of a wire, unless none are taken.
fn frame_places(s: &State, wire_id: u64, mark: u64) -> Vec<pn::FramePlace> {
    let Some(wire) = s.wires.get(&wire_id) else { return Vec::new() };
    let came = |end: pn::End| {
        let sent = s.frames.iter().find(|sent| sent.mark == mark && sent.end() == end);
        let count = sent.filter(|_| !s.takes_no_frames).map_or(0, |sent| sent.count);
        (0..count).collect::<Vec<u32>>()
    };
    let mut places = Vec::new();
    for (end, what) in [(pn::End::A, &wire.a), (pn::End::B, &wire.b)] {
        let is_nic =
            matches!(what.as_ref().and_then(|end| end.end.as_ref()), Some(pn::wire_end::End::Nic(_)));
        for kind in [pn::FramePlaceKind::Interface, pn::FramePlaceKind::HostEnd] {
            places.extend(is_nic.then(|| pn::FramePlace {
                kind: kind.into(),
                end: end.into(),
                interface: "eth1".into(),
                watched: true,
                a_to_b: came(pn::End::A),
                b_to_a: came(pn::End::B),
                ..pn::FramePlace::default()
            }));
        }
    }
    places
}
