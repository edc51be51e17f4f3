//! Reading blobs: their bytes as a stream, compared with their digest as they go by.

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::blob::{Blobs, Digest};
use crate::error::Error;
use crate::garbage::Keeper;

/// Messages that may wait for whoever reads.
const WAITING: usize = 4;

/// Reads blobs.
#[derive(Clone)]
pub struct Reader {
    blobs: Blobs,
    keeper: Keeper,
}

impl Reader {
    /// Over these.
    pub fn new(blobs: Blobs, keeper: Keeper) -> Reader {
        Reader { blobs, keeper }
    }

    /// The bytes of a blob from an offset. What comes before is read too, and not sent: the whole is compared with the digest, and bytes that are others end
    /// the stream in an error and are set aside.
    pub async fn read(
        &self,
        digest: Digest,
        offset: u64,
    ) -> Result<ReceiverStream<Result<Bytes, Error>>, Error> {
        let found = self.blobs.read(&digest).await?;
        let mut pieces = found.ok_or_else(|| Error::BlobNotFound(digest.to_string()))?;
        let (give, take) = mpsc::channel(WAITING);
        let keeper = self.keeper.clone();
        tokio::spawn(async move {
            let sender = give.clone();
            let read = tokio::task::spawn_blocking(move || {
                let (mut hash, mut before) = (Sha256::new(), offset);
                while let Some(piece) = pieces.blocking_recv() {
                    let mut piece = piece?;
                    hash.update(&piece);
                    let skipped = usize::try_from(before).unwrap_or(usize::MAX).min(piece.len());
                    before -= skipped as u64;
                    let rest = piece.split_off(skipped);
                    // Whoever read went away.
                    if !rest.is_empty() && sender.blocking_send(Ok(rest)).is_err() {
                        return Ok(None);
                    }
                }
                Ok::<_, Error>(Some(Digest::of(hash)))
            });
            let wrong = match read.await.unwrap_or(Err(Error::Ended)) {
                Ok(None) => return,
                Ok(Some(found)) if found == digest => return,
                Ok(Some(_)) => match keeper.set_aside(&digest).await {
                    Ok(()) => Error::Corrupt(digest),
                    Err(e) => e,
                },
                Err(e) => e,
            };
            let _ = give.send(Err(wrong)).await;
        });
        Ok(ReceiverStream::new(take))
    }
}
