//! The contract: decodes, calls, encodes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{StreamExt as _, stream};
use netloom_model::Failure;
use netloom_model::id::WireId;
use netloom_model::observed::NetworkInventory;
use netloom_model::slice::NetworkSlice;
use netloom_proto::convert::ConvertError;
use netloom_proto::network::v1 as pb;
use netloom_proto::network::v1::network_service_server::NetworkService;
use netloom_proto::network::v1::observe_response::Event;
use netloom_service::status::to_status;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tonic::{Request, Response, Status};

use crate::error::Error;
use crate::observe::{News, Observed};
use crate::reconcile::Report;
use crate::slice::Store;

/// How often an observer hears a sign of life.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// How long a Remove waits until all is gone: ovs-vswitchd takes some 14 ms to let go of a port.
const REMOVAL: Duration = Duration::from_secs(20);

/// The service.
pub struct Grpc {
    store: Store,
    reports: watch::Receiver<Option<Arc<Report>>>,
}

impl Grpc {
    /// Over what is wanted and what was found.
    pub fn new(store: Store, reports: watch::Receiver<Option<Arc<Report>>>) -> Grpc {
        Grpc { store, reports }
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
        let pb::SyncRequest { term, slice: part, more } = request.into_inner();
        self.store.sync(term, slice(part)?, more).map_err(refused)?;
        Ok(Response::new(pb::SyncResponse {}))
    }

    async fn ensure(
        &self,
        request: Request<pb::EnsureRequest>,
    ) -> Result<Response<pb::EnsureResponse>, Status> {
        let pb::EnsureRequest { term, slice: part } = request.into_inner();
        self.store.ensure(term, slice(part)?).map_err(refused)?;
        Ok(Response::new(pb::EnsureResponse {}))
    }

    async fn remove(
        &self,
        request: Request<pb::RemoveRequest>,
    ) -> Result<Response<pb::RemoveResponse>, Status> {
        let pb::RemoveRequest { term, wire_ids } = request.into_inner();
        let id = |n: u64| WireId::try_from(n).map_err(|e| to_status(wrong("wire_ids", e.to_string())));
        let wires = wire_ids.into_iter().map(id).collect::<Result<BTreeSet<WireId>, Status>>()?;
        self.store.remove(term, &wires).map_err(refused)?;
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
        let observer = Observer { reports: self.reports.clone(), told: None, heartbeat: Instant::now() };
        let events = stream::unfold(observer, |mut observer| async {
            let event = observer.next().await?;
            Some((Ok(pb::ObserveResponse { event: Some(event) }), observer))
        });
        Ok(Response::new(events.boxed()))
    }
}

/// One stream of Observe.
struct Observer {
    reports: watch::Receiver<Option<Arc<Report>>>,
    /// The report that was told last, and the inventory.
    told: Option<(Arc<Report>, NetworkInventory)>,
    heartbeat: Instant,
}

impl Observer {
    /// The next event; none when the service ends.
    async fn next(&mut self) -> Option<Event> {
        loop {
            let latest = self.reports.borrow_and_update().clone();
            if let Some(latest) = latest {
                let now = &latest.observed;
                let news = match &self.told {
                    None => News::Everything,
                    Some((told, _)) => now.since(&told.observed),
                };
                let event = match news {
                    News::None => None,
                    News::Everything => Some(Event::Snapshot(snapshot(now))),
                    News::Changes(changes) => Some(Event::Changes(pb::Changes {
                        nics: changes.nics.into_iter().map(Into::into).collect(),
                        wires: changes.wires.into_iter().map(Into::into).collect(),
                        segments: changes.segments.into_iter().map(Into::into).collect(),
                    })),
                };
                let inventory = match (&self.told, &event) {
                    (Some((_, told)), Some(Event::Changes(_)) | None) => told.clone(),
                    _ => now.inventory.clone(),
                };
                self.told = Some((latest, inventory));
                if event.is_some() {
                    return event;
                }
                if Instant::now() >= self.heartbeat {
                    return Some(self.beat());
                }
            }
            let changed = timeout_at(self.heartbeat, self.reports.changed()).await;
            match changed {
                Ok(Err(_)) => return None,
                Ok(Ok(())) => {}
                Err(_) if self.told.is_none() => self.heartbeat = Instant::now() + HEARTBEAT,
                Err(_) => {}
            }
        }
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
        Event::Heartbeat(pb::Heartbeat { inventory })
    }
}

fn snapshot(observed: &Observed) -> pb::Snapshot {
    pb::Snapshot {
        nics: observed.nics.values().cloned().map(Into::into).collect(),
        wires: observed.wires.values().cloned().map(Into::into).collect(),
        segments: observed.segments.values().cloned().map(Into::into).collect(),
        inventory: Some(observed.inventory.clone().into()),
        synced: observed.synced,
        unwanted: observed.unwanted.iter().map(|wire| wire.get()).collect(),
    }
}
