//! The contract: decodes, calls, encodes. `observer` is a stream of Observe, `parts` cuts what is too large for one message, `frames` are path checks.

mod frames;
mod observer;
mod parts;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{StreamExt as _, stream};
use netloom_model::Failure;
use netloom_model::id::WireId;
use netloom_model::slice::NetworkSlice;
use netloom_proto::convert::ConvertError;
use netloom_proto::network::v1 as pb;
use netloom_proto::network::v1::network_service_server::NetworkService;
use netloom_service::order::Decision;
use netloom_service::status::to_status;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tonic::{Request, Response, Status};

use self::observer::Observer;
use crate::capture::{Capturer, Order};
use crate::check::Checker;
use crate::counts::{Counts, Reads};
use crate::error::Error;
use crate::reconcile::Report;
use crate::slice::Store;

/// How long a Remove waits until all is gone: ovs-vswitchd takes some 14 ms to let go of a port.
const REMOVAL: Duration = Duration::from_secs(20);

/// The service.
pub struct Grpc {
    store: Store,
    reports: watch::Receiver<Option<Arc<Report>>>,
    counts: watch::Receiver<Arc<Counts>>,
    reads: watch::Receiver<Arc<Reads>>,
    capturer: Capturer,
    checker: Checker,
    peers: watch::Sender<Arc<BTreeSet<IpAddr>>>,
}

impl Grpc {
    /// Over what is wanted, what was found and counted, and when, what captures, what makes checks, and to whom paths are measured.
    pub fn new(
        store: Store,
        reports: watch::Receiver<Option<Arc<Report>>>,
        counts: watch::Receiver<Arc<Counts>>,
        reads: watch::Receiver<Arc<Reads>>,
        capturer: Capturer,
        checker: Checker,
        peers: watch::Sender<Arc<BTreeSet<IpAddr>>>,
    ) -> Grpc {
        Grpc { store, reports, counts, reads, capturer, checker, peers }
    }
}

fn refused(error: Error) -> Status {
    to_status(Failure::from(error))
}

fn malformed(error: ConvertError) -> Status {
    to_status(Failure::from(error))
}

fn wrong(field: &str, what: String) -> Failure {
    Failure::invalid(format!("{field}: {what}"), Vec::new()).violation(field, what)
}

fn slice(slice: Option<pb::Slice>) -> Result<NetworkSlice, Status> {
    slice.unwrap_or_default().try_into().map_err(malformed)
}

#[tonic::async_trait]
impl NetworkService for Grpc {
    async fn sync(&self, request: Request<pb::SyncRequest>) -> Result<Response<pb::SyncResponse>, Status> {
        let pb::SyncRequest { term, slice: part, more, ticket_key, decision: number } = request.into_inner();
        self.store.sync(Decision { term, number }, slice(part)?, more, ticket_key).map_err(refused)?;
        Ok(Response::new(pb::SyncResponse {}))
    }

    async fn ensure(
        &self,
        request: Request<pb::EnsureRequest>,
    ) -> Result<Response<pb::EnsureResponse>, Status> {
        let pb::EnsureRequest { term, slice: part, decision: number } = request.into_inner();
        self.store.ensure(Decision { term, number }, slice(part)?).map_err(refused)?;
        Ok(Response::new(pb::EnsureResponse {}))
    }

    async fn remove(
        &self,
        request: Request<pb::RemoveRequest>,
    ) -> Result<Response<pb::RemoveResponse>, Status> {
        let pb::RemoveRequest { term, wire_ids, decision: number } = request.into_inner();
        let id = |n: u64| WireId::try_from(n).map_err(|e| to_status(wrong("wire_ids", e.to_string())));
        let wires = wire_ids.into_iter().map(id).collect::<Result<BTreeSet<WireId>, Status>>()?;
        self.store.remove(Decision { term, number }, &wires).map_err(refused)?;
        let mut wanted = self.store.wanted();
        let all_gone = wanted.wait_for(|wanted| wires.is_disjoint(&wanted.doomed));
        let _ = timeout_at(Instant::now() + REMOVAL, all_gone).await;
        let doomed = self.store.wanted().borrow().doomed.clone();
        let report = self.reports.borrow().clone().unwrap_or_default();
        let failure = |wire: &WireId| pb::RemoveFailure {
            wire_id: wire.get(),
            message: report.left.get(wire).cloned().unwrap_or_else(|| {
                "it is not known yet whether anything is left of it: no Sync was taken".to_owned()
            }),
        };
        let failures = wires.intersection(&doomed).map(failure).collect();
        Ok(Response::new(pb::RemoveResponse { failures }))
    }

    type ObserveStream = BoxStream<'static, Result<pb::ObserveResponse, Status>>;

    async fn observe(
        &self,
        _request: Request<pb::ObserveRequest>,
    ) -> Result<Response<Self::ObserveStream>, Status> {
        let events = stream::unfold(
            Observer::new(self.reports.clone(), self.counts.clone(), self.reads.clone()),
            |mut observer| async {
                let event = observer.next().await?;
                Some((Ok(pb::ObserveResponse { event: Some(event) }), observer))
            },
        );
        Ok(Response::new(events.boxed()))
    }

    type CaptureStream = BoxStream<'static, Result<pb::CaptureResponse, Status>>;

    async fn capture(
        &self,
        request: Request<pb::CaptureRequest>,
    ) -> Result<Response<Self::CaptureStream>, Status> {
        let request = request.into_inner();
        let nic = |nic: pb::CaptureNic| match WireId::try_from(nic.wire_id) {
            Ok(wire) => Ok((wire, nic.name)),
            Err(e) => Err(to_status(wrong("nics", e.to_string()))),
        };
        let order = Order {
            lab: request.lab,
            nics: request.nics.into_iter().map(nic).collect::<Result<_, Status>>()?,
            filter: request.filter,
            snap_length: request.snap_length,
            packets: request.packet_count,
            duration: (request.duration_seconds > 0)
                .then(|| Duration::from_secs(request.duration_seconds.into())),
            id: request.capture_id,
        };
        let capture = self.capturer.start(order, &request.ticket).map_err(refused)?;
        let parts = stream::unfold(capture, |mut capture| async {
            let data = capture.next().await?;
            Some((Ok(pb::CaptureResponse { data }), capture))
        });
        Ok(Response::new(parts.boxed()))
    }

    async fn end_capture(
        &self,
        request: Request<pb::EndCaptureRequest>,
    ) -> Result<Response<pb::EndCaptureResponse>, Status> {
        let pb::EndCaptureRequest { ticket, nics, capture_id } = request.into_inner();
        let wire = |id: u64| WireId::try_from(id).map_err(|e| to_status(wrong("nics", e.to_string())));
        let wires = nics.into_iter().map(wire).collect::<Result<_, Status>>()?;
        self.capturer.end(&capture_id, &wires, &ticket).map_err(refused)?;
        Ok(Response::new(pb::EndCaptureResponse {}))
    }

    type WatchFramesStream = BoxStream<'static, Result<pb::WatchFramesResponse, Status>>;

    async fn watch_frames(
        &self,
        request: Request<pb::WatchFramesRequest>,
    ) -> Result<Response<Self::WatchFramesStream>, Status> {
        let pb::WatchFramesRequest { term, wire_id, mark } = request.into_inner();
        let wire = frames::wire(wire_id)?;
        let watch = self.checker.watch(term, wire, mark).await.map_err(refused)?;
        let told = stream::unfold(watch, |mut watch| async {
            watch.more().await.then(|| (Ok(frames::seen(&watch)), watch))
        });
        Ok(Response::new(told.boxed()))
    }

    async fn send_frames(
        &self,
        request: Request<pb::SendFramesRequest>,
    ) -> Result<Response<pb::SendFramesResponse>, Status> {
        let request = request.into_inner();
        let (wire, end, order) = frames::order(&request)?;
        let sent = self.checker.send(request.term, wire, end, order).await.map_err(refused)?;
        Ok(Response::new(pb::SendFramesResponse { detail: sent.err().unwrap_or_default() }))
    }

    async fn set_peers(
        &self,
        request: Request<pb::SetPeersRequest>,
    ) -> Result<Response<pb::SetPeersResponse>, Status> {
        let pb::SetPeersRequest { term, addresses } = request.into_inner();
        let address = |text: String| {
            let what = |_| to_status(wrong("addresses", format!("\"{text}\" is no IP address")));
            text.parse().map_err(what)
        };
        let addresses: BTreeSet<IpAddr> =
            addresses.into_iter().map(address).collect::<Result<_, Status>>()?;
        self.store.ask(term).map_err(refused)?;
        self.peers.send_if_modified(|peers| {
            let changed = **peers != addresses;
            if changed {
                *peers = Arc::new(addresses);
            }
            changed
        });
        Ok(Response::new(pb::SetPeersResponse {}))
    }
}
