//! Copies of images on hosts: compared when somebody asks, and fetched again where a host has set one aside.
//!
//! ```text
//! VerifyImage ─► each host compares ─► set aside? ─► fetched again ─► told
//! a host's own weekly check ─► its inventory: lost ─► mend ─► fetched again
//! ```
//!
//! A host knows an image by its digest, and so does whoever fetches it again: the name may lead to other bytes by now.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::stream::FuturesUnordered;
use futures::{Stream, StreamExt as _, stream};
use netloom_model::failure::{Code, Failure};
use netloom_model::id::{Digest, HostId, NodeUid};
use netloom_model::state::Runtime;
use netloom_service::Shutdown;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::client::{CheckResult, CheckedImage, HostClient};
use crate::error::{Error, Result};
use crate::scheduler::Scheduler;

/// How often lost images are looked for although no host said anything.
const TICK: Duration = Duration::from_secs(5);
/// How long after a failure a lost image is asked for again, and the most that this grows to.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(600));
/// What may wait for whoever listens.
const WAITING: usize = 16;

/// A copy of an image that was compared, and what was done then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostCopy {
    /// The host.
    pub host: HostId,
    /// What came of it. The message also says what was done.
    pub checked: CheckedImage,
    /// It was set aside and fetched again.
    pub fetched: bool,
    /// The nodes whose disks lie on it, as lab and node.
    pub nodes: BTreeSet<(String, String)>,
}

/// What is told while copies are compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// The host has read so many bytes of so many.
    Under(HostId, u64, u64),
    /// What came of one.
    Copy(HostCopy),
}

/// Has these hosts, or all, compare what they keep of an image. It goes on with the others where one does not answer.
pub async fn verify(
    core: Arc<Scheduler>,
    reference: &str,
    host: Option<HostId>,
) -> Result<impl Stream<Item = Told> + Send + use<>> {
    let hosts: Vec<HostClient> = match &host {
        Some(host) => core.host(host).into_iter().collect(),
        None => core.hosts(),
    };
    if let Some(host) = host.filter(|_| hosts.is_empty()) {
        let message = format!("there is no host \"{host}\"");
        return Err(Failure::new(Code::NotFound, "HOST_NOT_FOUND", message)
            .with("host", host.to_string())
            .into());
    }
    let digests = core.digests_of(reference).await?;
    if digests.is_empty() {
        let message = format!(
            "neither the store nor a node knows what the bytes of image {reference} should be: push it, or see netloom image list"
        );
        let failure = Failure::new(Code::FailedPrecondition, "IMAGE_NOT_STORED", message);
        return Err(failure.with("image", reference).into());
    }
    let (tell, told) = mpsc::channel(WAITING);
    for client in hosts {
        let (core, digests, tell) = (core.clone(), digests.clone(), tell.clone());
        tokio::spawn(async move {
            let compared = async {
                for copy in on_host(&core, &client, digests, &tell).await {
                    // Whoever asked may have gone.
                    let _ = tell.send(Told::Copy(copy)).await;
                }
            };
            tokio::select! {
                () = compared => {}
                () = tell.closed() => {}
            }
        });
    }
    Ok(stream::unfold(told, |mut told| async { told.recv().await.map(|part| (part, told)) }))
}

async fn on_host(
    core: &Scheduler,
    client: &HostClient,
    digests: BTreeSet<String>,
    tell: &mpsc::Sender<Told>,
) -> Vec<HostCopy> {
    let all: Vec<String> = digests.into_iter().collect();
    // How far it is may be left out while nobody takes it.
    let progress = |at, of| drop(tell.try_send(Told::Under(client.id.clone(), at, of)));
    let checked = match client.verify_images(all.clone(), progress).await {
        Ok(checked) => checked,
        Err(e) => {
            let (result, message) = (CheckResult::Unreachable, e.to_string());
            let of = |digest| CheckedImage {
                digest,
                result,
                size_bytes: 0,
                message: message.clone(),
                nodes: Vec::new(),
            };
            all.into_iter().map(of).collect()
        }
    };
    let mut copies = Vec::new();
    for mut checked in checked {
        let nodes = core.named(&checked.nodes);
        let mut fetched = false;
        if checked.result == CheckResult::SetAside {
            match core.fetch_lost(client, &checked.digest).await {
                Ok(()) => {
                    fetched = true;
                    checked.message.push_str("; it was fetched from the store again");
                }
                Err(e) => checked.message.push_str(&format!("; it is not fetched again yet: {e}")),
            }
        }
        if !nodes.is_empty() {
            let of: Vec<String> = nodes.iter().map(|(lab, node)| format!("{lab}/{node}")).collect();
            checked.message.push_str(&format!(
                "; the disks of {} lie on it: what they read of it may be wrong until they are started again (netloom node restart)",
                of.join(", ")
            ));
        }
        copies.push(HostCopy { host: client.id.clone(), checked, fetched, nodes });
    }
    copies
}

impl Scheduler {
    /// The digests that a reference means: in the store now, and of what nodes of it are made from.
    async fn digests_of(&self, reference: &str) -> Result<BTreeSet<String>> {
        let users = self.image_users();
        let written = std::iter::once(reference).chain(users.keys().map(|(_, image)| image.as_str()));
        let written: Vec<String> = written.map(str::to_owned).collect();
        let mut resolved = self.registry.resolve(&written, &self.ticket_key).await?.into_iter();
        let Some(asked) = resolved.next() else { return Ok(BTreeSet::new()) };
        // Labs may write the same name in another way.
        let used = users.into_values().zip(resolved).filter(|(_, r)| r.reference == asked.reference);
        let used = used.flat_map(|(digests, _)| digests);
        Ok(used.chain(asked.stored.map(|stored| stored.digest().to_owned())).collect())
    }

    /// The labs and names of nodes.
    fn named(&self, uids: &[NodeUid]) -> BTreeSet<(String, String)> {
        let labs = self.store.all();
        let named = |uid| {
            let rows = labs.iter().find(|rows| rows.nodes.contains_key(uid))?;
            Some((rows.lab.id.to_string(), rows.nodes.get(uid)?.id.to_string()))
        };
        uids.iter().filter_map(named).collect()
    }

    /// Has a host fetch an image that it has lost.
    async fn fetch_lost(&self, client: &HostClient, digest: &str) -> Result<()> {
        // Any name will do where the digest stands behind it.
        let reference = format!("lost@{digest}");
        let resolved = self.registry.resolve(std::slice::from_ref(&reference), &self.ticket_key).await?;
        let stored = resolved.into_iter().find_map(|resolved| resolved.stored).ok_or_else(|| {
            let message = format!("the store has no image {digest} any more: push it again");
            Error::from(Failure::new(Code::FailedPrecondition, "IMAGE_NOT_STORED", message))
        })?;
        let ticket = self.fetch_ticket(stored.digest());
        client.pull_image(&reference, Runtime::Libvirt, Some((stored, ticket)), |_| ()).await.map(drop)
    }
}

/// Fetches again what hosts have set aside, for ever.
pub async fn mend(core: Arc<Scheduler>, shutdown: Shutdown) {
    let mut changed = core.world.subscribe();
    let mut tries: BTreeMap<(HostId, Digest), Try> = BTreeMap::new();
    let mut work = FuturesUnordered::new();
    loop {
        changed.borrow_and_update();
        let lost: BTreeSet<(HostId, Digest)> = core.world.read(|hosts| {
            let of = |(id, view): (&HostId, &crate::world::HostView)| {
                let lost = view.compute.inventory.lost_images.iter();
                lost.map(|digest| (id.clone(), digest.clone())).collect::<Vec<_>>()
            };
            hosts.iter().flat_map(of).collect()
        });
        tries.retain(|of, tried| tried.runs || lost.contains(of));
        for of in lost {
            let tried =
                tries.entry(of.clone()).or_insert(Try { runs: false, pause: BACKOFF.0, due: Instant::now() });
            let Some(client) = core.host(&of.0).filter(|_| !tried.runs && tried.due <= Instant::now()) else {
                continue;
            };
            tried.runs = true;
            let core = core.clone();
            work.push(async move { (core.fetch_lost(&client, of.1.as_str()).await, of) });
        }
        tokio::select! {
            _ = changed.changed() => {}
            Some((outcome, of)) = work.next() => {
                let (host, digest) = &of;
                match &outcome {
                    Ok(()) => tracing::info!(%host, %digest, "an image that was set aside is fetched again"),
                    Err(e) => tracing::warn!(%host, %digest, "an image that was set aside is not fetched again yet: {e}"),
                }
                // One that was fetched is lost no more once its host says so.
                if let Some(tried) = tries.get_mut(&of) {
                    *tried = tried.again();
                }
            }
            () = tokio::time::sleep(TICK) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

/// How often a lost image was asked for.
#[derive(Debug, Clone, Copy)]
struct Try {
    runs: bool,
    pause: Duration,
    due: Instant,
}

impl Try {
    /// After one that is over.
    fn again(self) -> Try {
        Try { runs: false, pause: (self.pause * 2).min(BACKOFF.1), due: Instant::now() + self.pause }
    }
}
