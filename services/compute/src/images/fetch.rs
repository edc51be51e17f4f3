//! Fetching one image from the registry's store.

use std::io;
use std::time::Duration;

use netloom_model::human;
use netloom_proto::image_registry::v1 as pi;
use netloom_service::status::{from_status, is_lost};
use tokio::sync::{mpsc, watch};
use tonic::Status;

use super::shelf::Part;
use super::{Images, State, Stored};
use crate::error::Error;

/// How long nothing may come before the stream is taken for lost.
const SILENCE: Duration = Duration::from_secs(60);
/// How often it is tried again without a byte more, and how long before the first time; each next one waits twice as long.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(250);
/// Messages that may wait for the disk.
const WAITING: usize = 4;

/// Why a stream stopped before its end.
enum Stopped {
    /// The connection was lost: the next one goes on where this one was.
    Cut(Status),
    /// The registry will not give it.
    Refused(Status),
    /// It does not go on disk.
    Disk(io::Error),
    /// There is more than there should be.
    TooLong,
}

/// Brings an image to this host's disk. What is there is not fetched again.
pub async fn bring(images: &Images, stored: &Stored, tell: &watch::Sender<State>) -> Result<(), Error> {
    let _slot = images.slots.acquire().await.map_err(|e| Error::host("no turn to fetch", e))?;
    let digest = stored.digest.clone();
    if images.look(&digest).await?.is_some() {
        return Ok(());
    }
    let mut part = images
        .on_shelf({
            let digest = digest.clone();
            move |shelf| shelf.part(&digest)
        })
        .await?;
    // Bytes that came in more than one stream nobody has compared before: when they are wrong, all come anew, once, and the registry compares them too.
    let (mut is_pieced, mut is_anew) = (part.offset() > 0, false);
    let mut tries = 0;
    loop {
        let before = part.offset();
        room(images, stored, before).await?;
        let (left, stopped) = read(images, stored, part, tell).await;
        match (left, stopped) {
            (Some(whole), None) => {
                let of = digest.clone();
                if images.on_shelf(move |shelf| shelf.keep(whole, &of)).await? {
                    tracing::info!(%digest, bytes = stored.size_bytes, "image fetched");
                    return Ok(());
                }
                if !is_pieced || is_anew {
                    return Err(Error::WrongBytes(digest));
                }
                is_anew = true;
                tracing::warn!(%digest, "what came in pieces was not right; all of it comes anew");
                let of = digest.clone();
                part = images.on_shelf(move |shelf| shelf.part(&of)).await?;
            }
            (Some(left), Some(Stopped::Cut(status))) => {
                tries = if left.offset() > before { 1 } else { tries + 1 };
                if tries > TRIES {
                    return Err(images.unreachable(&status));
                }
                let pause = PAUSE * 2u32.pow(tries - 1);
                tracing::warn!(%digest, offset = left.offset(), "cut off ({}), goes on in {pause:?}", status.message());
                tokio::time::sleep(pause).await;
                is_pieced |= left.offset() > 0;
                part = left;
            }
            (_, Some(Stopped::Refused(status))) => {
                let failure = from_status(&status);
                // Whoever asks again has a new ticket, and what came stays.
                match failure.reason.as_str() {
                    "TICKET_EXPIRED" | "TICKET_INVALID" => return Err(Error::Registry(Box::new(failure))),
                    _ => {}
                }
                images.drop_part(&digest).await?;
                return Err(Error::Registry(Box::new(failure)));
            }
            (_, Some(Stopped::TooLong)) => {
                images.drop_part(&digest).await?;
                return Err(Error::WrongBytes(digest));
            }
            (_, Some(Stopped::Disk(e))) => {
                // What came is worth less than the room that machines on the same disk run out of.
                images.drop_part(&digest).await?;
                return Err(images.disk(e));
            }
            (None, _) => return Err(Error::Host("work on an image ended without an answer".to_owned())),
        }
    }
}

/// Refuses what there is no room for, before it comes.
async fn room(images: &Images, stored: &Stored, offset: u64) -> Result<(), Error> {
    let room = images.room().await?;
    let wanted = stored.size_bytes.saturating_sub(offset);
    if wanted > room {
        let dir = images.shelf.dir().display();
        return Err(Error::DiskFull(format!(
            "{} of image {} are to come, and {dir} has room for {}: make room there",
            human::bytes(wanted),
            stored.digest,
            human::bytes(room)
        )));
    }
    Ok(())
}

/// Reads on from where the part is. Receiving, and writing and hashing, go on side by side.
async fn read(
    images: &Images,
    stored: &Stored,
    mut part: Part,
    tell: &watch::Sender<State>,
) -> (Option<Part>, Option<Stopped>) {
    let mut at = part.offset();
    if at > stored.size_bytes {
        return (Some(part), Some(Stopped::TooLong));
    }
    let request =
        pi::ReadBlobRequest { digest: stored.digest.to_string(), offset: at, ticket: stored.ticket.clone() };
    let stopped = |status: Status| {
        if is_lost(&status) { Stopped::Cut(status) } else { Stopped::Refused(status) }
    };
    let mut bytes = match tokio::time::timeout(SILENCE, images.registry.clone().read_blob(request)).await {
        Ok(Ok(answer)) => answer.into_inner(),
        Ok(Err(status)) => return (Some(part), Some(stopped(status))),
        Err(_) => return (Some(part), Some(Stopped::Cut(silent()))),
    };
    let (give, mut take) = mpsc::channel::<bytes::Bytes>(WAITING);
    let work = tokio::task::spawn_blocking(move || {
        while let Some(bytes) = take.blocking_recv() {
            if let Err(e) = part.take(&bytes) {
                return (part, Some(e));
            }
        }
        (part, None)
    });
    let why = loop {
        match tokio::time::timeout(SILENCE, bytes.message()).await {
            Ok(Ok(Some(message))) => {
                at += message.data.len() as u64;
                if at > stored.size_bytes {
                    break Some(Stopped::TooLong);
                }
                tell.send_replace(State::Under(progress(at, stored.size_bytes)));
                if give.send(message.data).await.is_err() {
                    break None;
                }
            }
            Ok(Ok(None)) if at < stored.size_bytes => {
                break Some(Stopped::Cut(Status::unavailable("the stream ended early")));
            }
            Ok(Ok(None)) => break None,
            Ok(Err(status)) => break Some(stopped(status)),
            Err(_) => break Some(Stopped::Cut(silent())),
        }
    };
    drop(give);
    match work.await {
        Ok((part, Some(e))) => (Some(part), Some(Stopped::Disk(e))),
        Ok((part, None)) => (Some(part), why),
        Err(_) => (None, None),
    }
}

fn silent() -> Status {
    Status::unavailable(format!("it said nothing for {} s", SILENCE.as_secs()))
}

fn progress(at: u64, of: u64) -> String {
    format!("fetching {:.1} of {:.1} MB", at as f64 / 1e6, of as f64 / 1e6)
}
