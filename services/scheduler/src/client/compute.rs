//! Calls to a host's compute service.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt as _, stream};
use netloom_model::failure::{Code, Failure};
use netloom_model::id::{LabUid, NodeUid};
use netloom_model::observed::{ComputeInventory, Observed, Source, StagePoint};
use netloom_model::slice::Instance;
use netloom_model::spec::FileEntry;
use netloom_model::state::Runtime;
use netloom_proto::compute::v1 as pc;
use netloom_proto::convert::ConvertError;
use netloom_proto::v1 as p;
use netloom_service::fail_point;
use netloom_service::status::from_status;
use pc::disk_part::Part;
use prost::Message as _;
use tokio::sync::mpsc;

use super::{COMPUTE, HostClient, NOTE, REMOVAL, StoredBlob, batches, bounded, failure, unreadable};
use crate::error::Result;

/// Most bytes of one part of a file.
const PART: usize = 1 << 20;
/// Bound of a call that sends files or asks a store.
const STORE: Duration = Duration::from_secs(120);
/// Bound of a renewal of leases: the next one comes a second later.
const RENEW: Duration = Duration::from_secs(5);
/// Bound of the silence between two signs of progress of a pull.
const PULL_SILENCE: Duration = Duration::from_secs(300);

/// Bound of the silence between two parts of a disk, of the host that reads it and of the one that writes it.
const DISK_SILENCE: Duration = Duration::from_secs(60);
/// So many parts of a disk wait for the host that writes it.
const PARTS_WAITING: usize = 4;

/// What could not be removed, and why.
pub type Failures = Vec<(String, String)>;

/// An instance that a host would not take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The node.
    pub uid: NodeUid,
    /// The reason, for programs.
    pub reason: String,
    /// Why, in words.
    pub message: String,
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
    Heartbeat {
        /// What the host can do, when that changed.
        inventory: Option<ComputeInventory>,
        /// How long ago each source was last read, or known to answer.
        ages: BTreeMap<Source, Duration>,
    },
}

/// What the clocks of a host showed as it said something.
#[derive(Debug, Clone, Default)]
pub struct Clocks {
    /// Microseconds since 1970; 0 when it does not say.
    pub us: i64,
    /// What leases are renewed with ([`HostClient::deciding`]); empty when it keeps none.
    pub beat: String,
}

/// What a store has of an image.
#[derive(Debug, Clone)]
pub struct ImageFacts(pub(super) pc::ImageFacts);

impl ImageFacts {
    /// Its digest; empty when the store does not have it.
    pub fn digest(&self) -> &str {
        &self.0.digest
    }

    /// What runs it, its reference, and whether the store has it.
    pub fn said(&self) -> Option<(Runtime, String, bool)> {
        let runtime = self.0.runtime().try_into().ok()?;
        Some((runtime, self.0.reference.clone(), self.0.present))
    }
}

/// What came of comparing a copy of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckResult {
    /// It is right.
    Right,
    /// There is none.
    Absent,
    /// It was something else, and was set aside.
    SetAside,
    /// It cannot be read.
    Unreadable,
    /// The host does not answer.
    Unreachable,
}

/// A copy of an image that a host compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedImage {
    /// Its digest.
    pub digest: String,
    /// What came of it.
    pub result: CheckResult,
    /// Its bytes.
    pub size_bytes: u64,
    /// What was found, in words, where it is not right.
    pub message: String,
    /// The nodes whose disks lie on it.
    pub nodes: Vec<NodeUid>,
}

impl HostClient {
    /// Has the host compare what it keeps of these images; `progress` is told how many bytes of how many were read.
    pub async fn verify_images(
        &self,
        digests: Vec<String>,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<Vec<CheckedImage>> {
        let error = self.error(COMPUTE);
        let request = pc::VerifyImagesRequest { term: self.term, digests };
        let mut stream = bounded(NOTE, self.compute.clone().verify_images(request)).await.map_err(&error)?;
        let mut all = Vec::new();
        loop {
            use pc::verify_images_response::Event;
            let next = bounded(PULL_SILENCE, async { stream.message().await.map(tonic::Response::new) });
            match next.await.map_err(&error)?.map(|m| m.event) {
                Some(Some(Event::Progress(far))) => progress(far.done_bytes, far.total_bytes),
                Some(Some(Event::Checked(checked))) => all.push(checked_image(checked).map_err(&error)?),
                Some(None) => {}
                None => return Ok(all),
            }
        }
    }

    /// Replaces the host's slice of instances.
    pub async fn sync_instances(&self, instances: Vec<Instance>, ticket_key: &[u8]) -> Result<()> {
        let mut parts = batches(instances.into_iter().map(pc::Instance::from), pc::Instance::encoded_len);
        let last = parts.pop().unwrap_or_default();
        let count = parts.len();
        for (i, instances) in parts.into_iter().chain([last]).enumerate() {
            let request = pc::SyncRequest {
                term: self.term,
                instances,
                ticket_key: ticket_key.to_vec(),
                more: i < count,
                beat: self.beat.clone(),
                decision: self.decision,
            };
            fail_point::pass("scheduler.tell-sync", "before");
            bounded(NOTE, self.compute.clone().sync(request)).await.map_err(self.error(COMPUTE))?;
            fail_point::pass("scheduler.tell-sync", "after");
        }
        Ok(())
    }

    /// Adds or changes instances.
    pub async fn ensure_instances(&self, instances: Vec<Instance>) -> Result<()> {
        for instances in batches(instances.into_iter().map(pc::Instance::from), pc::Instance::encoded_len) {
            let (beat, decision) = (self.beat.clone(), self.decision);
            let request = pc::EnsureRequest { term: self.term, instances, beat, decision };
            fail_point::pass("scheduler.tell-instances", "before");
            bounded(NOTE, self.compute.clone().ensure(request)).await.map_err(self.error(COMPUTE))?;
            fail_point::pass("scheduler.tell-instances", "after");
        }
        Ok(())
    }

    /// Removes instances, and labs of which nothing stays; says what could not be.
    pub async fn remove_instances(&self, uids: &[NodeUid], labs: &[LabUid]) -> Result<Failures> {
        let request = pc::RemoveRequest {
            term: self.term,
            uids: uids.iter().map(NodeUid::to_string).collect(),
            lab_uids: labs.iter().map(LabUid::to_string).collect(),
            decision: self.decision,
        };
        fail_point::pass("scheduler.tell-removal", "before");
        let response =
            bounded(REMOVAL, self.compute.clone().remove(request)).await.map_err(self.error(COMPUTE))?;
        fail_point::pass("scheduler.tell-removal", "after");
        Ok(response.failures.into_iter().map(|f| (f.uid, f.message)).collect())
    }

    /// Says which points these starts reached.
    pub async fn settle(&self, starts: Vec<(NodeUid, String, Vec<StagePoint>)>) -> Result<()> {
        let start = |(uid, start_id, reached): (NodeUid, String, Vec<StagePoint>)| pc::Start {
            uid: uid.to_string(),
            start_id,
            reached: reached.into_iter().map(Into::into).collect(),
        };
        let request = pc::SettleRequest { term: self.term, starts: starts.into_iter().map(start).collect() };
        fail_point::pass("scheduler.tell-settled", "before");
        bounded(NOTE, self.compute.clone().settle(request)).await.map_err(self.error(COMPUTE))?;
        fail_point::pass("scheduler.tell-settled", "after");
        Ok(())
    }

    /// How many bytes the disk of a node takes there.
    pub async fn disk_size(&self, node: NodeUid) -> Result<u64> {
        let error = self.error(COMPUTE);
        let mut parts = self.read_disk(node, true).await?;
        let next = bounded(NOTE, async { parts.message().await.map(tonic::Response::new) });
        match next.await.map_err(&error)?.and_then(|m| m.part) {
            Some(Part::Begin(begin)) => Ok(begin.size_bytes),
            _ => Err(error(Failure::internal("it does not say how large the disk is"))),
        }
    }

    /// Copies the disk of a node there to another host, as that of another node; `progress` is told how many bytes of how many went. Only so much of it is here at once as waits for one of them.
    pub async fn copy_disk(
        &self,
        node: NodeUid,
        to: &HostClient,
        of: NodeUid,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<()> {
        let mut parts = self.read_disk(node, false).await?;
        let (send, sent) = mpsc::channel(PARTS_WAITING);
        let (term, uid, mut compute) = (to.term, of.to_string(), to.compute.clone());
        let relay = async move {
            let (mut done, mut total) = (0, 0);
            loop {
                let next = bounded(DISK_SILENCE, async { parts.message().await.map(tonic::Response::new) });
                let Some(part) = next.await.map_err(self.error(COMPUTE))? else { return Ok(()) };
                match &part.part {
                    Some(Part::Begin(begin)) => total = begin.size_bytes,
                    Some(Part::Data(data)) => done += data.content.len() as u64,
                    _ => {}
                }
                let request = pc::WriteDiskRequest { term, uid: uid.clone(), part: Some(part) };
                match tokio::time::timeout(DISK_SILENCE, send.send(request)).await {
                    Ok(Ok(())) => progress(done, total),
                    // It has answered.
                    Ok(Err(_)) => return Ok(()),
                    Err(_) => {
                        let message = format!("it has taken nothing for {DISK_SILENCE:?}");
                        let failure = Failure::new(Code::DeadlineExceeded, "TIMED_OUT", message);
                        return Err(to.error(COMPUTE)(failure));
                    }
                }
            }
        };
        let write = async move {
            let sent = stream::unfold(sent, |mut sent| async { sent.recv().await.map(|part| (part, sent)) });
            let written = compute.write_disk(sent).await;
            written.map(drop).map_err(|status| to.error(COMPUTE)(failure(&status)))
        };
        tokio::pin!(write);
        tokio::select! {
            written = &mut write => written,
            relayed = relay => match relayed {
                Ok(()) => tokio::time::timeout(REMOVAL, write).await.unwrap_or_else(|_| {
                    let failure = Failure::new(Code::DeadlineExceeded, "TIMED_OUT", "the whole disk is not taken");
                    Err(to.error(COMPUTE)(failure))
                }),
                Err(e) => Err(e),
            },
        }
    }

    async fn read_disk(&self, node: NodeUid, size_only: bool) -> Result<tonic::Streaming<pc::DiskPart>> {
        let request = pc::ReadDiskRequest { term: self.term, uid: node.to_string(), size_only };
        bounded(STORE, self.compute.clone().read_disk(request)).await.map_err(self.error(COMPUTE))
    }

    /// Says that the word of the host was heard: leases of its instances go on from when it said that.
    pub async fn renew(&self) -> Result<()> {
        if self.beat.is_empty() {
            return Ok(());
        }
        let request = pc::RenewRequest { term: self.term, beat: self.beat.clone() };
        bounded(RENEW, self.compute.clone().renew(request)).await.map_err(self.error(COMPUTE))?;
        Ok(())
    }

    /// What the host runs, as it is seen, and what its clocks show. Ends when the stream does, or with what cannot be read.
    pub async fn observe_instances(
        &self,
    ) -> Result<impl Stream<Item = Result<(ComputeEvent, Clocks)>> + Send + use<>> {
        let call = bounded(NOTE, {
            let mut client = self.compute.clone();
            async move { client.observe(pc::ObserveRequest {}).await }
        });
        let stream = call.await.map_err(self.error(COMPUTE))?;
        let error = self.error(COMPUTE);
        let mut parts = Vec::new();
        Ok(stream.filter_map(move |message| {
            let said = message.map_err(|s| from_status(&s)).and_then(|m| {
                let clocks = Clocks { us: m.clock_us, beat: m.beat.clone() };
                let event = compute_event(m, &mut parts).map_err(unreadable)?;
                Ok(event.map(|event| (event, clocks)))
            });
            std::future::ready(said.map_err(&error).transpose())
        }))
    }

    /// Puts files of a lab on the host.
    pub async fn put_files(
        &self,
        lab: LabUid,
        deploys: u64,
        files: Vec<(FileEntry, Arc<Vec<u8>>)>,
    ) -> Result<()> {
        let (term, lab_uid) = (self.term, lab.to_string());
        let parts = futures::stream::iter(files).flat_map(move |(file, content)| {
            // An empty file is one empty part. A part is copied when it is sent, never all of them before.
            let count = content.len().div_ceil(PART).max(1);
            let (file, lab_uid) = (p::FileEntry::from(file), lab_uid.clone());
            futures::stream::iter((0..count).map(move |i| pc::PutFilesRequest {
                lab_uid: lab_uid.clone(),
                file: Some(file.clone()),
                content: content[i * PART..content.len().min((i + 1) * PART)].to_vec(),
                term,
                deploys,
            }))
        });
        fail_point::pass("scheduler.send-files", "before");
        bounded(STORE, self.compute.clone().put_files(parts)).await.map_err(self.error(COMPUTE))?;
        fail_point::pass("scheduler.send-files", "after");
        Ok(())
    }

    /// Removes the files of a lab that were put below these directories and are none of these.
    pub async fn remove_files(
        &self,
        lab: LabUid,
        deploys: u64,
        directories: Vec<String>,
        files: Vec<String>,
    ) -> Result<()> {
        let request =
            pc::RemoveFilesRequest { term: self.term, lab_uid: lab.to_string(), directories, files, deploys };
        bounded(STORE, self.compute.clone().remove_files(request)).await.map_err(self.error(COMPUTE))?;
        Ok(())
    }

    /// What the host's stores have of these images, each with the digest that the registry's store has under it, in order; and how many bytes its disk has room for, where it could be asked.
    pub async fn inspect_images(
        &self,
        images: &[(String, Runtime, String)],
    ) -> Result<(Vec<ImageFacts>, Option<u64>)> {
        let query = |(reference, runtime, digest): &(String, Runtime, String)| pc::ImageQuery {
            reference: reference.clone(),
            runtime: p::Runtime::from(*runtime).into(),
            digest: digest.clone(),
        };
        let request = pc::InspectImagesRequest { images: images.iter().map(query).collect() };
        let response = bounded(STORE, self.compute.clone().inspect_images(request))
            .await
            .map_err(self.error(COMPUTE))?;
        Ok((response.images.into_iter().map(ImageFacts).collect(), response.room_bytes))
    }

    /// The instances that the host would not take once those of the leaving nodes are gone, with a reason and why in words.
    pub async fn check_instances(
        &self,
        instances: Vec<Instance>,
        leaving: &[NodeUid],
    ) -> Result<Vec<Refused>> {
        let mut all = Vec::new();
        let leaving_uids: Vec<String> = leaving.iter().map(NodeUid::to_string).collect();
        for instances in batches(instances.into_iter().map(pc::Instance::from), pc::Instance::encoded_len) {
            let request = pc::CheckInstancesRequest { instances, leaving_uids: leaving_uids.clone() };
            let answer = bounded(STORE, self.compute.clone().check_instances(request)).await;
            for f in answer.map_err(self.error(COMPUTE))?.failures {
                let uid = netloom_proto::convert::id("failures.uid", &f.uid).map_err(unreadable);
                let uid = uid.map_err(self.error(COMPUTE))?;
                all.push(Refused { uid, reason: f.reason, message: f.message });
            }
        }
        Ok(all)
    }

    /// Fetches an image, from the registry's store with a ticket where that has it; `progress` is told how far it is.
    pub async fn pull_image(
        &self,
        reference: &str,
        runtime: Runtime,
        stored: Option<(StoredBlob, String)>,
        mut progress: impl FnMut(String),
    ) -> Result<ImageFacts> {
        let error = self.error(COMPUTE);
        let request = pc::PullImageRequest {
            term: self.term,
            reference: reference.to_owned(),
            runtime: p::Runtime::from(runtime).into(),
            stored: stored.map(|(StoredBlob(blob), ticket)| pc::StoredImage {
                digest: blob.digest,
                size_bytes: blob.size_bytes,
                format: blob.format,
                image_ids: blob.image_ids,
                ticket,
            }),
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
}

fn checked_image(checked: pc::CheckedImage) -> Result<CheckedImage, Failure> {
    let result = match checked.result() {
        p::ImageCheckResult::Right => CheckResult::Right,
        p::ImageCheckResult::Absent => CheckResult::Absent,
        p::ImageCheckResult::SetAside => CheckResult::SetAside,
        // One that this version does not know is no good news.
        p::ImageCheckResult::Unreadable | p::ImageCheckResult::Unspecified => CheckResult::Unreadable,
        p::ImageCheckResult::Unreachable => CheckResult::Unreachable,
    };
    let uid = |text: &String| netloom_proto::convert::id("node_uids", text).map_err(unreadable);
    Ok(CheckedImage {
        nodes: checked.node_uids.iter().map(uid).collect::<Result<_, _>>()?,
        digest: checked.digest,
        result,
        size_bytes: checked.size_bytes,
        message: checked.message,
    })
}

/// What a message says; nothing yet when more parts of a snapshot follow, which are kept until the last one.
fn compute_event(
    message: pc::ObserveResponse,
    parts: &mut Vec<Observed>,
) -> Result<Option<ComputeEvent>, ConvertError> {
    use pc::observe_response::Event as E;
    Ok(Some(match message.event {
        Some(E::Snapshot(s)) => {
            for instance in s.instances {
                parts.push(instance.try_into()?);
            }
            if s.more {
                return Ok(None);
            }
            ComputeEvent::Snapshot {
                instances: std::mem::take(parts),
                inventory: s.inventory.unwrap_or_default().try_into()?,
                synced: s.synced,
            }
        }
        Some(E::Changed(o)) => ComputeEvent::Changed(o.try_into()?),
        Some(E::Gone(uid)) => ComputeEvent::Gone(netloom_proto::convert::id("gone", &uid)?),
        Some(E::Heartbeat(h)) => ComputeEvent::Heartbeat {
            inventory: h.inventory.map(TryInto::try_into).transpose()?,
            ages: netloom_proto::convert::ages(h.read_ago_ms),
        },
        None => ComputeEvent::Heartbeat { inventory: None, ages: BTreeMap::new() },
    }))
}
