//! The services behind the gateway: the scheduler, the image registry, and compute and network services at the endpoints
//! that tickets name.
//!
//! A caller's connection that makes several calls gets a connection to the scheduler of its own, in one task with itself ([`as_one`]), and each of its calls is answered without
//! another thread. All others share one: a command of the command line is over before one of its own would be worth it.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use hyper::rt::Executor as _;
use netloom_model::id::{LabId, NodeId, OperationId};
use netloom_proto::compute::v1::compute_service_client::ComputeServiceClient;
use netloom_proto::image_registry::v1::image_registry_service_client::ImageRegistryServiceClient;
use netloom_proto::network::v1::network_service_client::NetworkServiceClient;
use netloom_proto::scheduler::v1 as ps;
use netloom_proto::scheduler::v1::scheduler_service_client::SchedulerServiceClient;
use netloom_proto::scheduler::v1::scheduler_service_server::SERVICE_NAME;
use netloom_service::settings::Endpoints;
use netloom_service::{Channel, Connector, Endpoint, Replicas, Together, Whom};
use tokio::time::Instant;
use tonic::{Status, Streaming};

use crate::error::Error;

/// Most bytes of one answer. A page of labs holds their whole specs.
const MAX_ANSWER: usize = 256 << 20;

/// Of several schedulers, the one that leads.
const LEADER: Whom = Whom::Serving(SERVICE_NAME);

/// Pause before a scheduler that does not answer is asked again.
pub const RETRY: Duration = Duration::from_millis(250);
/// How long a scheduler may not answer before who follows it gives up.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Asks again while the scheduler does not answer, for a while: what is the same when it is asked twice.
pub async fn patiently<T, Fut>(ask: impl Fn() -> Fut) -> Result<T, Error>
where
    Fut: Future<Output = Result<T, Error>>,
{
    let end = Instant::now() + PATIENCE;
    loop {
        match ask().await {
            Err(e) if e.is_passing() && Instant::now() < end => tokio::time::sleep(RETRY).await,
            answered => return answered,
        }
    }
}

/// After so many calls of a connection, one to the scheduler is made for it.
const SEVERAL: u32 = 8;

tokio::task_local! {
    static OWN: Own;
}

/// What a caller's connection has of its own.
struct Own {
    task: Together,
    calls: Cell<u32>,
    /// Once it is there, it is used for all calls.
    scheduler: Arc<OnceLock<SchedulerServiceClient<Channel>>>,
}

/// Runs a caller's connection as part of this task, with all that its calls need.
pub async fn as_one(task: Together, connection: impl Future<Output = ()> + Send + 'static) {
    let own = Own { task: task.clone(), calls: Cell::new(0), scheduler: Arc::default() };
    OWN.scope(own, task.run(connection)).await;
}

impl Own {
    fn scheduler(&self, peers: &Peers) -> Option<SchedulerServiceClient<Channel>> {
        if let Some(own) = self.scheduler.get() {
            return Some(own.clone());
        }
        self.calls.set(self.calls.get() + 1);
        if self.calls.get().is_multiple_of(SEVERAL) {
            let (connector, to) = (peers.connector.within(self.task.clone()), peers.scheduler_at.clone());
            let own = self.scheduler.clone();
            self.task.execute(async move {
                match connector.connected_to(&to, LEADER).await {
                    Ok(channel) => drop(own.set(scheduler(channel))),
                    // Whoever calls goes on over the shared one, and is told by that what is wrong.
                    Err(e) => {
                        tracing::debug!(error = %e, "a connection gets none of its own to the scheduler")
                    }
                }
            });
        }
        None
    }
}

fn scheduler(channel: Channel) -> SchedulerServiceClient<Channel> {
    SchedulerServiceClient::new(channel).max_decoding_message_size(MAX_ANSWER)
}

/// Clients of the services. Clones share their connections.
#[derive(Clone)]
pub struct Peers {
    scheduler: SchedulerServiceClient<Channel>,
    scheduler_at: Arc<Replicas>,
    scheduler_name: Arc<str>,
    registry: ImageRegistryServiceClient<Channel>,
    registry_name: Arc<str>,
    connector: Connector,
    hosts: Arc<Mutex<HashMap<String, Channel>>>,
}

impl Peers {
    /// Clients at these endpoints. Nothing is connected before it is used.
    pub fn new(connector: Connector, endpoints: &Endpoints) -> Peers {
        let registry =
            ImageRegistryServiceClient::new(connector.channel_to(&endpoints.image_registry, Whom::Any));
        Peers {
            scheduler: scheduler(connector.channel_to(&endpoints.scheduler, LEADER)),
            scheduler_at: Arc::new(endpoints.scheduler.clone()),
            scheduler_name: format!("the scheduler at {}", endpoints.scheduler).into(),
            registry: registry.max_decoding_message_size(MAX_ANSWER),
            registry_name: format!("the image registry at {}", endpoints.image_registry).into(),
            connector,
            hosts: Arc::default(),
        }
    }

    /// The scheduler.
    pub fn scheduler(&self) -> SchedulerServiceClient<Channel> {
        let own = OWN.try_with(|own| own.scheduler(self)).ok().flatten();
        own.unwrap_or_else(|| self.scheduler.clone())
    }

    /// The image registry.
    pub fn registry(&self) -> ImageRegistryServiceClient<Channel> {
        self.registry.clone()
    }

    /// What a failed call to the scheduler means.
    pub fn scheduler_error(&self) -> impl Fn(Status) -> Error + use<> {
        let name = self.scheduler_name.clone();
        move |status| Error::behind(&name, status)
    }

    /// What a failed call to the image registry means.
    pub fn registry_error(&self) -> impl Fn(Status) -> Error + use<> {
        let name = self.registry_name.clone();
        move |status| Error::behind(&name, status)
    }

    /// The scheduler's stream ended although it has no end.
    pub fn scheduler_ended(&self) -> Error {
        Error::Ended(self.scheduler_name.to_string())
    }

    /// Facts of a lab.
    pub async fn lab(&self, lab: &LabId) -> Result<ps::LabFacts, Error> {
        let request = ps::GetLabRequest { lab: lab.to_string() };
        let facts = self.scheduler().get_lab(request).await.map_err(self.scheduler_error())?;
        Ok(facts.into_inner())
    }

    /// Facts of an operation.
    pub async fn operation(&self, id: OperationId) -> Result<ps::OperationFacts, Error> {
        let request = ps::GetOperationRequest { operation: id.to_string() };
        let facts = self.scheduler().get_operation(request).await.map_err(self.scheduler_error())?;
        Ok(facts.into_inner())
    }

    /// Events after a number, of one lab or of all.
    pub async fn watch(&self, since: u64, lab: &str) -> Result<Streaming<ps::WatchResponse>, Error> {
        self.watch_what(ps::WatchRequest { since, lab: lab.to_owned(), operations: false }).await
    }

    /// Events of a lab's operations from now on.
    pub async fn watch_operations(&self, lab: &str) -> Result<Streaming<ps::WatchResponse>, Error> {
        self.watch_what(ps::WatchRequest { since: 0, lab: lab.to_owned(), operations: true }).await
    }

    async fn watch_what(&self, request: ps::WatchRequest) -> Result<Streaming<ps::WatchResponse>, Error> {
        let events = self.scheduler().watch(request).await.map_err(self.scheduler_error())?;
        Ok(events.into_inner())
    }

    /// Leave to open a byte stream into a node, and the compute service to open it at.
    pub async fn ticket(
        &self,
        lab: &LabId,
        node: &NodeId,
        verb: &str,
    ) -> Result<(ps::Ticket, Compute), Error> {
        let request =
            ps::GetTicketRequest { lab: lab.to_string(), node: node.to_string(), verb: verb.to_owned() };
        let ticket = self.scheduler().get_ticket(request).await.map_err(self.scheduler_error())?.into_inner();
        let compute = self.compute(&ticket.endpoint)?;
        Ok((ticket, compute))
    }

    /// Leave to capture interfaces of a lab, and the network service to capture them at.
    pub async fn capture_ticket(
        &self,
        lab: &LabId,
        targets: Vec<String>,
    ) -> Result<(ps::CaptureTicket, Network), Error> {
        let request = ps::GetCaptureTicketRequest { lab: lab.to_string(), targets };
        let ticket = self.scheduler().get_capture_ticket(request).await.map_err(self.scheduler_error())?;
        let ticket = ticket.into_inner();
        let (channel, target) = self.host(&ticket.endpoint)?;
        let client = NetworkServiceClient::new(channel);
        Ok((ticket, Network { client, name: format!("the network service at {target}") }))
    }

    fn compute(&self, endpoint: &str) -> Result<Compute, Error> {
        let (channel, target) = self.host(endpoint)?;
        let client = ComputeServiceClient::new(channel);
        Ok(Compute { client, name: format!("the compute service at {target}") })
    }

    /// The way to a service of a host.
    fn host(&self, endpoint: &str) -> Result<(Channel, Endpoint), Error> {
        let target: Endpoint = endpoint.parse().map_err(|_| {
            Error::Behind(netloom_model::Failure::internal(format!(
                "the scheduler named \"{endpoint}\" as a host's endpoint; correct `hosts` in its configuration"
            )))
        })?;
        let mut hosts = self.hosts.lock().expect("no holder panics");
        let channel =
            hosts.entry(endpoint.to_owned()).or_insert_with(|| self.connector.channel(&target)).clone();
        Ok((channel, target))
    }
}

/// The network service of one host.
pub struct Network {
    /// Its client.
    pub client: NetworkServiceClient<Channel>,
    name: String,
}

impl Network {
    /// What a failed call to it means.
    pub fn error(&self) -> impl Fn(Status) -> Error + Send + use<> {
        let name = self.name.clone();
        move |status| Error::behind(&name, status)
    }
}

/// The compute service of one host.
pub struct Compute {
    /// Its client.
    pub client: ComputeServiceClient<Channel>,
    name: String,
}

impl Compute {
    /// What a failed call to it means.
    pub fn error(&self) -> impl Fn(Status) -> Error + Send + use<> {
        let name = self.name.clone();
        move |status| Error::behind(&name, status)
    }
}
