//! Calls to the hosts and to the image registry, in the model's words. Messages stop here.
//!
//! Every call has a bound, so that a peer that hangs is a peer that does not answer.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use netloom_model::failure::{Code, Failure};
use netloom_model::id::{HostId, LabUid, NodeUid, WireId};
use netloom_model::observed::{
    ComputeInventory, NetworkInventory, Observed, ObservedNic, ObservedSegment, ObservedWire,
};
use netloom_model::slice::{Instance, NetworkSlice};
use netloom_model::spec::{FileEntry, PullPolicy};
use netloom_model::state::Runtime;
use netloom_proto::compute::v1 as pc;
use netloom_proto::compute::v1::compute_service_client::ComputeServiceClient;
use netloom_proto::convert::{ConvertError, timestamp};
use netloom_proto::image_registry::v1 as pi;
use netloom_proto::image_registry::v1::image_registry_service_client::ImageRegistryServiceClient;
use netloom_proto::network::v1 as pn;
use netloom_proto::network::v1::network_service_client::NetworkServiceClient;
use netloom_proto::v1 as p;
use netloom_service::server::MAX_MESSAGE;
use netloom_service::status::from_status;
use netloom_service::{Channel, Connector, Endpoint};
use prost::Message as _;
use tonic::{Request, Status};

use crate::config::HostConfig;
use crate::error::{Error, Result};
use crate::rows::now_us;

/// The compute service, in messages and keys.
pub const COMPUTE: &str = "compute";
/// The network service, in messages and keys.
pub const NETWORK: &str = "network";

/// Most bytes of one batch.
const BATCH: usize = 3 << 20;
/// Most bytes of one part of a file.
const PART: usize = 1 << 20;
/// Bound of a call that only takes note of something.
const NOTE: Duration = Duration::from_secs(10);
/// Bound of a call that returns when something is gone.
const REMOVAL: Duration = Duration::from_secs(300);
/// Bound of a call that sends files or asks a store.
const STORE: Duration = Duration::from_secs(120);
/// Bound of the silence between two signs of progress of a pull.
const PULL_SILENCE: Duration = Duration::from_secs(300);

/// What could not be removed, and why.
pub type Failures = Vec<(String, String)>;

/// Splits items into batches by their size.
fn batches<T>(items: impl IntoIterator<Item = T>, size: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
    let (mut all, mut batch, mut bytes) = (Vec::new(), Vec::new(), 0);
    for item in items {
        let more = size(&item);
        if bytes + more > BATCH && !batch.is_empty() {
            all.push(std::mem::take(&mut batch));
            bytes = 0;
        }
        bytes += more;
        batch.push(item);
    }
    if !batch.is_empty() {
        all.push(batch);
    }
    all
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
    let items = nics.chain(slice.segments.into_iter().map(Item::Segment)).chain(slice.wires.into_iter().map(Item::Wire));
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

async fn bounded<T>(
    bound: Duration,
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, Failure> {
    match tokio::time::timeout(bound, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(from_status(&status)),
        Err(_) => Err(Failure::new(Code::DeadlineExceeded, "TIMED_OUT", format!("no answer within {bound:?}"))),
    }
}

fn unreadable(e: ConvertError) -> Failure {
    Failure::internal(format!("its answer is not understood: {e}"))
}

/// A host's services.
#[derive(Clone)]
pub struct HostClient {
    /// The host.
    pub id: HostId,
    /// Where its compute service is.
    pub endpoint: Endpoint,
    compute: ComputeServiceClient<Channel>,
    network: NetworkServiceClient<Channel>,
    term: u64,
}

/// Something that compute says.
#[derive(Debug)]
pub enum ComputeEvent {
    /// Everything.
    Snapshot {
        /// The instances.
        instances: Vec<Observed>,
        /// What the host can do.
        inventory: ComputeInventory,
        /// True once a Sync was taken since the service started.
        synced: bool,
    },
    /// One instance changed.
    Changed(Observed),
    /// Nothing exists of this uid any more.
    Gone(NodeUid),
    /// Still here.
    Heartbeat(Option<ComputeInventory>),
}

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
    Heartbeat(Option<NetworkInventory>),
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

/// What a store has of an image.
#[derive(Debug, Clone)]
pub struct ImageFacts(pc::ImageFacts);

impl HostClient {
    /// Channels to a host; they connect when first used. Every call carries the term.
    pub fn new(config: &HostConfig, connector: &Connector, term: u64) -> HostClient {
        let compute = ComputeServiceClient::new(connector.channel(&config.compute));
        let network = NetworkServiceClient::new(connector.channel(&config.network));
        HostClient {
            id: config.id.clone(),
            endpoint: config.compute.clone(),
            compute: compute.max_decoding_message_size(MAX_MESSAGE),
            network: network.max_decoding_message_size(MAX_MESSAGE),
            term,
        }
    }

    fn error(&self, service: &'static str) -> impl Fn(Failure) -> Error + use<> {
        let host = self.id.to_string();
        move |failure| Error::Host { service, host: host.clone(), failure }
    }

    /// Says what a host could not remove.
    pub fn could_not_remove(&self, service: &'static str, what: &str, why: &str) -> Error {
        let message = format!("{what} could not be removed: {why}");
        self.error(service)(Failure::new(Code::Unavailable, "REMOVAL_FAILED", message))
    }

    /// Replaces the host's slice of instances.
    pub async fn sync_instances(&self, instances: Vec<Instance>, ticket_key: &[u8]) -> Result<()> {
        let mut parts = batches(instances.into_iter().map(pc::Instance::from), pc::Instance::encoded_len);
        let last = parts.pop().unwrap_or_default();
        let count = parts.len();
        for (i, instances) in parts.into_iter().chain([last]).enumerate() {
            let request =
                pc::SyncRequest { term: self.term, instances, ticket_key: ticket_key.to_vec(), more: i < count };
            bounded(NOTE, self.compute.clone().sync(request)).await.map_err(self.error(COMPUTE))?;
        }
        Ok(())
    }

    /// Adds or changes instances.
    pub async fn ensure_instances(&self, instances: Vec<Instance>) -> Result<()> {
        for instances in batches(instances.into_iter().map(pc::Instance::from), pc::Instance::encoded_len) {
            let request = pc::EnsureRequest { term: self.term, instances };
            bounded(NOTE, self.compute.clone().ensure(request)).await.map_err(self.error(COMPUTE))?;
        }
        Ok(())
    }

    /// Removes instances, and labs of which nothing stays; says what could not be.
    pub async fn remove_instances(&self, uids: &[NodeUid], labs: &[LabUid]) -> Result<Failures> {
        let request = pc::RemoveRequest {
            term: self.term,
            uids: uids.iter().map(NodeUid::to_string).collect(),
            lab_uids: labs.iter().map(LabUid::to_string).collect(),
        };
        let response = bounded(REMOVAL, self.compute.clone().remove(request)).await.map_err(self.error(COMPUTE))?;
        Ok(response.failures.into_iter().map(|f| (f.uid, f.message)).collect())
    }

    /// Says that the links of these starts are settled.
    pub async fn settle(&self, starts: &[(NodeUid, String)]) -> Result<()> {
        let start = |(uid, start): &(NodeUid, String)| pc::Start { uid: uid.to_string(), start_id: start.clone() };
        let request = pc::SettleRequest { term: self.term, starts: starts.iter().map(start).collect() };
        bounded(NOTE, self.compute.clone().settle(request)).await.map_err(self.error(COMPUTE))?;
        Ok(())
    }

    /// What the host runs, as it is seen. Ends when the stream does, or with what cannot be read.
    pub async fn observe_instances(&self) -> Result<impl Stream<Item = Result<ComputeEvent>> + Send + use<>> {
        let call = bounded(NOTE, {
            let mut client = self.compute.clone();
            async move { client.observe(pc::ObserveRequest {}).await }
        });
        let stream = call.await.map_err(self.error(COMPUTE))?;
        let error = self.error(COMPUTE);
        Ok(stream.map(move |message| {
            message.map_err(|s| from_status(&s)).and_then(|m| compute_event(m).map_err(unreadable)).map_err(&error)
        }))
    }

    /// Puts files of a lab on the host.
    pub async fn put_files(&self, lab: LabUid, files: Vec<(FileEntry, Vec<u8>)>) -> Result<()> {
        let (term, lab_uid) = (self.term, lab.to_string());
        let parts = futures::stream::iter(files).flat_map(move |(file, content)| {
            let mut parts: Vec<Vec<u8>> = content.chunks(PART).map(<[u8]>::to_vec).collect();
            if parts.is_empty() {
                parts.push(Vec::new());
            }
            let (file, lab_uid) = (p::FileEntry::from(file), lab_uid.clone());
            futures::stream::iter(parts.into_iter().map(move |content| pc::PutFilesRequest {
                lab_uid: lab_uid.clone(),
                file: Some(file.clone()),
                content,
                term,
            }))
        });
        bounded(STORE, self.compute.clone().put_files(parts)).await.map_err(self.error(COMPUTE))?;
        Ok(())
    }

    /// What the host's stores have of these images, in order.
    pub async fn inspect_images(&self, images: &[(String, Runtime)]) -> Result<Vec<ImageFacts>> {
        let query = |(reference, runtime): &(String, Runtime)| pc::ImageQuery {
            reference: reference.clone(),
            runtime: p::Runtime::from(*runtime).into(),
        };
        let request = pc::InspectImagesRequest { images: images.iter().map(query).collect() };
        let response =
            bounded(STORE, self.compute.clone().inspect_images(request)).await.map_err(self.error(COMPUTE))?;
        Ok(response.images.into_iter().map(ImageFacts).collect())
    }

    /// Fetches an image; `progress` is told how far it is.
    pub async fn pull_image(
        &self,
        reference: &str,
        runtime: Runtime,
        mut progress: impl FnMut(String),
    ) -> Result<ImageFacts> {
        let error = self.error(COMPUTE);
        let request = pc::PullImageRequest {
            term: self.term,
            reference: reference.to_owned(),
            runtime: p::Runtime::from(runtime).into(),
        };
        let mut stream = bounded(NOTE, self.compute.clone().pull_image(request)).await.map_err(&error)?;
        loop {
            let next = bounded(PULL_SILENCE, async { stream.message().await.map(tonic::Response::new) });
            match next.await.map_err(&error)?.map(|m| m.event) {
                Some(Some(pc::pull_image_response::Event::Progress(text))) => progress(text),
                Some(Some(pc::pull_image_response::Event::Done(facts))) => return Ok(ImageFacts(facts)),
                Some(None) => {}
                None => {
                    let what = "the fetch ended without a result";
                    return Err(error(Failure::new(Code::Unavailable, "SERVICE_UNREACHABLE", what)));
                }
            }
        }
    }

    /// Replaces the host's slice of NICs, wires and segments.
    pub async fn sync_network(&self, slice: NetworkSlice) -> Result<()> {
        let mut parts = slice_batches(slice);
        let last = parts.pop().unwrap_or_default();
        let count = parts.len();
        for (i, slice) in parts.into_iter().chain([last]).enumerate() {
            let request = pn::SyncRequest { term: self.term, slice: Some(slice), more: i < count };
            bounded(NOTE, self.network.clone().sync(request)).await.map_err(self.error(NETWORK))?;
        }
        Ok(())
    }

    /// Adds or changes NICs, wires and segments.
    pub async fn ensure_network(&self, slice: NetworkSlice) -> Result<()> {
        for slice in slice_batches(slice) {
            let request = pn::EnsureRequest { term: self.term, slice: Some(slice) };
            bounded(NOTE, self.network.clone().ensure(request)).await.map_err(self.error(NETWORK))?;
        }
        Ok(())
    }

    /// Removes NICs, wires and segments; says what could not be.
    pub async fn remove_network(&self, wires: &[WireId]) -> Result<BTreeMap<WireId, String>> {
        let request = pn::RemoveRequest { term: self.term, wire_ids: wires.iter().map(|w| w.get()).collect() };
        let response = bounded(REMOVAL, self.network.clone().remove(request)).await.map_err(self.error(NETWORK))?;
        let failure = |f: pn::RemoveFailure| Some((WireId::try_from(f.wire_id).ok()?, f.message));
        Ok(response.failures.into_iter().filter_map(failure).collect())
    }

    /// What the host's network has, as it is seen.
    pub async fn observe_network(&self) -> Result<impl Stream<Item = Result<NetworkEvent>> + Send + use<>> {
        let call = bounded(NOTE, {
            let mut client = self.network.clone();
            async move { client.observe(pn::ObserveRequest {}).await }
        });
        let stream = call.await.map_err(self.error(NETWORK))?;
        let error = self.error(NETWORK);
        Ok(stream.map(move |message| {
            message.map_err(|s| from_status(&s)).and_then(|m| network_event(m).map_err(unreadable)).map_err(&error)
        }))
    }
}

fn compute_event(message: pc::ObserveResponse) -> Result<ComputeEvent, ConvertError> {
    use pc::observe_response::Event as E;
    Ok(match message.event {
        Some(E::Snapshot(s)) => ComputeEvent::Snapshot {
            instances: s.instances.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            inventory: s.inventory.unwrap_or_default().try_into()?,
            synced: s.synced,
        },
        Some(E::Changed(o)) => ComputeEvent::Changed(o.try_into()?),
        Some(E::Gone(uid)) => ComputeEvent::Gone(netloom_proto::convert::id("gone", &uid)?),
        Some(E::Heartbeat(h)) => ComputeEvent::Heartbeat(h.inventory.map(TryInto::try_into).transpose()?),
        None => ComputeEvent::Heartbeat(None),
    })
}

fn network_event(message: pn::ObserveResponse) -> Result<NetworkEvent, ConvertError> {
    use pn::observe_response::Event as E;
    Ok(match message.event {
        Some(E::Snapshot(s)) => NetworkEvent::Snapshot {
            objects: objects(s.nics, s.wires, s.segments)?,
            inventory: s.inventory.unwrap_or_default().into(),
            synced: s.synced,
            unwanted: s.unwanted.into_iter().filter_map(|w| WireId::try_from(w).ok()).collect(),
        },
        Some(E::Changes(c)) => NetworkEvent::Changes(objects(c.nics, c.wires, c.segments)?),
        Some(E::Heartbeat(h)) => NetworkEvent::Heartbeat(h.inventory.map(Into::into)),
        None => NetworkEvent::Heartbeat(None),
    })
}

/// An image that a node is to use.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ImageUse {
    /// The node's id, for the message.
    pub node: String,
    /// The reference.
    pub reference: String,
    /// The runtime that will use it.
    pub runtime: Runtime,
    /// The host it will be used on.
    pub host: HostId,
    /// When it may be fetched.
    pub policy: Policy,
}

/// When an image is fetched, in an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Policy {
    /// Only when the host does not have it.
    IfNotPresent,
    /// Never.
    Never,
    /// At each deploy that creates the node.
    Always,
}

impl From<PullPolicy> for Policy {
    fn from(p: PullPolicy) -> Policy {
        match p {
            PullPolicy::IfNotPresent => Policy::IfNotPresent,
            PullPolicy::Never => Policy::Never,
            PullPolicy::Always => Policy::Always,
        }
    }
}

impl From<Policy> for PullPolicy {
    fn from(p: Policy) -> PullPolicy {
        match p {
            Policy::IfNotPresent => PullPolicy::IfNotPresent,
            Policy::Never => PullPolicy::Never,
            Policy::Always => PullPolicy::Always,
        }
    }
}

/// Whether an image can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is there and can be used.
    Use,
    /// It is to be fetched first.
    Pull,
    /// It cannot be used.
    Refuse {
        /// UPPER_SNAKE.
        reason: String,
        /// Image, host and remedy in words.
        message: String,
    },
}

/// The image registry.
#[derive(Clone)]
pub struct RegistryClient(ImageRegistryServiceClient<Channel>);

impl RegistryClient {
    /// A channel to the registry; it connects when first used.
    pub fn new(endpoint: &Endpoint, connector: &Connector) -> RegistryClient {
        RegistryClient(ImageRegistryServiceClient::new(connector.channel(endpoint)))
    }

    /// Tells what a host's stores have.
    pub async fn record(&self, host: &HostId, facts: Vec<ImageFacts>) -> Result<()> {
        let now = timestamp(now_us());
        let report = |ImageFacts(f): ImageFacts| pi::ReportedImage {
            reference: f.reference,
            presence: Some(pi::Presence {
                host: String::new(),
                runtime: f.runtime,
                present: f.present,
                digest: f.digest,
                format: f.format,
                size_bytes: f.size_bytes,
                architecture: f.architecture,
                observe_time: now,
            }),
        };
        let request =
            pi::RecordPresenceRequest { host: host.to_string(), images: facts.into_iter().map(report).collect() };
        bounded(NOTE, self.0.clone().record_presence(Request::new(request))).await.map_err(Error::Registry)?;
        Ok(())
    }

    /// Judges whether images can be used, in order.
    pub async fn validate(&self, uses: &[ImageUse]) -> Result<Vec<Verdict>> {
        let image_use = |u: &ImageUse| pi::ImageUse {
            node: u.node.clone(),
            reference: u.reference.clone(),
            runtime: p::Runtime::from(u.runtime).into(),
            host: u.host.to_string(),
            pull_policy: p::ImagePullPolicy::from(PullPolicy::from(u.policy)).into(),
            architecture: String::new(),
        };
        let request = pi::ValidateImagesRequest { uses: uses.iter().map(image_use).collect() };
        let response = bounded(NOTE, self.0.clone().validate_images(request)).await.map_err(Error::Registry)?;
        if response.verdicts.len() != uses.len() {
            return Err(Error::Registry(Failure::internal("it did not judge each image")));
        }
        let verdict = |v: pi::ImageVerdict| match v.decision() {
            pi::ImageDecision::Use => Verdict::Use,
            pi::ImageDecision::Pull => Verdict::Pull,
            _ => Verdict::Refuse { reason: v.reason, message: v.message },
        };
        Ok(response.verdicts.into_iter().map(verdict).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_stay_under_their_size_and_lose_nothing() {
        let items: Vec<usize> = vec![BATCH / 2, BATCH / 2, 1, BATCH * 2, 5, 6];
        let all = batches(items.clone(), |n| *n);
        assert_eq!(all.iter().map(Vec::len).collect::<Vec<_>>(), [2, 1, 1, 2]);
        assert_eq!(all.concat(), items);
        assert!(all.iter().all(|b| b.len() == 1 || b.iter().sum::<usize>() <= BATCH));
    }
}
