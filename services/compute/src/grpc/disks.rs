//! Disks on their way to other hosts, and from them. As long as one is under way nothing else is done with its node.

use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use netloom_model::human;
use netloom_model::id::NodeUid;
use netloom_proto::compute::v1 as p;
use netloom_proto::convert::id;
use netloom_service::fail_point;
use p::disk_part::Part;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::carry::{self, Draft};
use crate::driver::Carries;
use crate::error::Error;
use crate::host::Host;

/// So many parts wait for whoever takes them.
const WAITING: usize = 4;
/// So long the next part is waited for: whoever sends them may be gone without a word, and the node is held as long.
const SILENCE: Duration = Duration::from_secs(60);

/// What carries the disk of a node.
fn carries(host: &Host, node: NodeUid) -> Result<&dyn Carries, Error> {
    let carries = match host.table.instance(node) {
        Some((driver, ..)) => host.drivers[driver].carries(),
        None => host.drivers.iter().find_map(|driver| driver.carries()),
    };
    carries.ok_or_else(|| {
        Error::NoDisks("only the disk of a virtual machine goes to another host, and this is none".to_owned())
    })
}

/// The disk of a node, part by part.
pub async fn read(
    host: &Arc<Host>,
    node: NodeUid,
    size_only: bool,
) -> Result<impl Stream<Item = Result<p::DiskPart, Status>> + Send + use<>, Error> {
    let held = match size_only {
        true => None,
        false => Some(host.holds.hold(node).await),
    };
    let files = carries(host, node)?.files(node, size_only).await?;
    let (tell, told) = mpsc::channel(WAITING);
    tokio::task::spawn_blocking(move || {
        let _held = held;
        let read = carry::read(&files, size_only, |part| tell.blocking_send(Ok(part)).is_ok());
        if let Err(error) = read {
            tracing::warn!(%error, %node, "the disk of a node cannot be read");
            let _ = tell.blocking_send(Err(error.into()));
        }
    });
    Ok(ReceiverStream::new(told))
}

/// Writes the disk of a node. What did not come as a whole is removed again, also where whoever sends it is gone.
pub async fn write(host: Arc<Host>, mut parts: Streaming<p::WriteDiskRequest>) -> Result<(), Error> {
    let first = next(&host, &mut parts, None).await?;
    let node: NodeUid = id("uid", &first.uid)?;
    let write = async move {
        let _held = host.holds.hold(node).await;
        host.refuse_unmade(node)?;
        let carries = carries(&host, node)?;
        if host.table.instance(node).is_some() || !carries.begin(node).await? {
            return Ok(());
        }
        let written = tokio::select! {
            written = receive(&host, carries, node, first, parts) => written,
            () = host.shutdown.cancelled() => Err(Error::CutOff("this service is ending".to_owned())),
        };
        match &written {
            Ok(()) => tracing::info!(%node, "the disk of a node came from another host"),
            Err(error) => {
                tracing::warn!(%error, %node, "the disk of a node did not come");
                if let Err(error) = carries.forget(node).await {
                    tracing::warn!(%error, %node, "what came of it stays for now");
                }
            }
        }
        written
    };
    tokio::spawn(write).await.map_err(|e| Error::host("writing a disk did not end", e))?
}

/// The next part of a leader's disk for this node.
async fn next(
    host: &Host,
    parts: &mut Streaming<p::WriteDiskRequest>,
    node: Option<&str>,
) -> Result<p::WriteDiskRequest, Error> {
    let cut = |why: &str| Error::CutOff(format!("not all of the disk came: {why}"));
    let part = match tokio::time::timeout(SILENCE, parts.message()).await {
        Ok(Ok(Some(part))) => part,
        Ok(Ok(None)) => return Err(cut("it ended before its end")),
        Ok(Err(status)) => return Err(cut(status.message())),
        Err(_) => return Err(cut(&format!("nothing more within {SILENCE:?}"))),
    };
    host.admit(part.term)?;
    match node.is_some_and(|node| node != part.uid) {
        true => Err(Error::Invalid("uid: is another one than before".to_owned())),
        false => Ok(part),
    }
}

async fn receive(
    host: &Arc<Host>,
    carries: &dyn Carries,
    node: NodeUid,
    first: p::WriteDiskRequest,
    mut parts: Streaming<p::WriteDiskRequest>,
) -> Result<(), Error> {
    let uid = first.uid.clone();
    let (mut draft, mut part) = (Draft::default(), first);
    loop {
        match part.part.and_then(|part| part.part) {
            Some(Part::Begin(begin)) => require_room(host, begin.size_bytes).await?,
            Some(Part::File(file)) => {
                let place = carries.place(node, &file.name)?;
                draft = with(draft, move |draft| draft.file(file, &place)).await?;
            }
            Some(Part::Data(data)) => draft = with(draft, move |draft| draft.data(&data)).await?,
            Some(Part::End(end)) => {
                let whole = tokio::task::spawn_blocking(move || draft.finish(&end)).await;
                if !whole.map_err(|e| Error::host("writing a disk did not end", e))?? {
                    return Err(Error::CutOff("other bytes of the disk came than were read".to_owned()));
                }
                fail_point::pass("compute.take-disk", "before");
                carries.take(node).await?;
                fail_point::pass("compute.take-disk", "after");
                return Ok(());
            }
            None => return Err(Error::Invalid("part: is not set".to_owned())),
        }
        part = next(host, &mut parts, Some(&uid)).await?;
    }
}

/// Refuses a disk for which there is no room.
async fn require_room(host: &Arc<Host>, needed: u64) -> Result<(), Error> {
    let free = host.on_files(|files| files.room()).await?;
    if needed <= free {
        return Ok(());
    }
    Err(Error::DiskFull(format!(
        "the disk of the node takes {}, and the disk of data_dir has {} free: make room there, or move it elsewhere",
        human::bytes(needed),
        human::bytes(free)
    )))
}

/// Does something with a draft where it may take its time.
async fn with(
    mut draft: Draft,
    what: impl FnOnce(&mut Draft) -> Result<(), Error> + Send + 'static,
) -> Result<Draft, Error> {
    let done = tokio::task::spawn_blocking(move || what(&mut draft).map(|()| draft)).await;
    done.map_err(|e| Error::host("writing a disk did not end", e))?
}
