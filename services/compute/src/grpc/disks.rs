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
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::carry::{self, Draft};
use crate::driver::{Carries, DiskFile};
use crate::error::Error;
use crate::host::Host;

/// So many parts wait for whoever takes them.
const WAITING: usize = 4;
/// So long the next part is waited for: whoever sends them may be gone without a word, and the node is held as long.
const SILENCE: Duration = Duration::from_secs(60);
/// So long it is waited until somebody takes the next part, for the same reason.
const UNREAD: Duration = Duration::from_secs(90);

/// So much stays free for the machines that are there.
const KEPT_BACK: u64 = 256 << 20;

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
    let files = carries(host, node)?.files(node, host.table.wipes(node), size_only).await?;
    Ok(ReceiverStream::new(told(files, size_only, held, UNREAD)))
}

/// Reads these files until the end, or until nobody takes the next part within this time; what is held goes then.
fn told(
    files: Vec<DiskFile>,
    size_only: bool,
    held: impl Send + 'static,
    unread: Duration,
) -> mpsc::Receiver<Result<p::DiskPart, Status>> {
    let (tell, told) = mpsc::channel(WAITING);
    let runtime = Handle::current();
    tokio::task::spawn_blocking(move || {
        let _held = held;
        let send = |part| runtime.block_on(tell.send_timeout(part, unread)).is_ok();
        if let Err(error) = carry::read(&files, size_only, |part| send(Ok(part))) {
            tracing::warn!(%error, "the disk of a node cannot be read");
            send(Err(error.into()));
        }
    });
    told
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
    host: &Host,
    carries: &dyn Carries,
    node: NodeUid,
    first: p::WriteDiskRequest,
    mut parts: Streaming<p::WriteDiskRequest>,
) -> Result<(), Error> {
    let Some(Part::Begin(begin)) = first.part.and_then(|part| part.part) else {
        return Err(Error::Invalid("part: a disk begins with its size".to_owned()));
    };
    require_room(carries, begin.size_bytes).await?;
    let mut draft = Draft::new(begin.size_bytes);
    loop {
        let part = next(host, &mut parts, Some(&first.uid)).await?;
        match part.part.and_then(|part| part.part) {
            Some(Part::File(file)) => {
                let place = carries.place(node, &file.name, file.size_bytes)?;
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
            Some(Part::Begin(_)) | None => {
                return Err(Error::Invalid("part: is not set, or begins another disk".to_owned()));
            }
        }
    }
}

/// Refuses a disk for which there is no room.
async fn require_room(carries: &dyn Carries, needed: u64) -> Result<(), Error> {
    let free = carries.room().await?;
    if needed <= free.saturating_sub(KEPT_BACK) {
        return Ok(());
    }
    Err(Error::DiskFull(format!(
        "the disk of the node takes {}, and the disk of data_dir has {} free, of which {} are kept for what runs there: make room there, or move it elsewhere",
        human::bytes(needed),
        human::bytes(free),
        human::bytes(KEPT_BACK)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_disk_that_nobody_takes_is_let_go() {
        let dir = tempfile::tempdir().unwrap();
        let file = DiskFile { name: "disk.qcow2".into(), path: dir.path().join("disk.qcow2") };
        std::fs::write(&file.path, vec![7; 8 << 20]).unwrap();
        let (held, gone) = tokio::sync::oneshot::channel::<()>();
        let mut told = told(vec![file], false, held, Duration::from_millis(10));
        gone.await.unwrap_err();
        let mut parts = Vec::new();
        while let Some(part) = told.recv().await {
            parts.push(part.unwrap().part.unwrap());
        }
        assert_eq!(parts.len(), WAITING);
        assert!(!parts.iter().any(|part| matches!(part, Part::End(_))), "it must not look whole");
    }
}
