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

    /// The bytes of a blob from an offset. The whole is compared with its digest, and bytes that are others end the stream in an error and are set aside. What
    /// begins in the middle is not: whoever goes on there has the beginning, compares all of it, and asks for the whole when that is wrong.
    pub async fn read(
        &self,
        digest: Digest,
        offset: u64,
    ) -> Result<ReceiverStream<Result<Bytes, Error>>, Error> {
        let found = self.blobs.read(&digest, offset).await?;
        let mut pieces = found.ok_or_else(|| Error::BlobNotFound(digest.to_string()))?;
        let (give, take) = mpsc::channel(WAITING);
        let keeper = self.keeper.clone();
        tokio::spawn(async move {
            let sender = give.clone();
            let read = tokio::task::spawn_blocking(move || {
                let mut hash = Sha256::new();
                while let Some(piece) = pieces.blocking_recv() {
                    let piece = piece?;
                    if offset == 0 {
                        hash.update(&piece);
                    }
                    // Whoever read went away.
                    if sender.blocking_send(Ok(piece)).is_err() {
                        return Ok(None);
                    }
                }
                Ok::<_, Error>((offset == 0).then(|| Digest::of(hash)))
            });
            let wrong = match read.await.unwrap_or(Err(Error::Ended)) {
                Ok(None) => return,
                Ok(Some(found)) if found == digest => return,
                Ok(Some(_)) => match keeper.set_aside(&digest).await {
                    Ok(true) => Error::Corrupt(digest),
                    Ok(false) => Error::Mended(digest),
                    Err(e) => e,
                },
                Err(e) => e,
            };
            let _ = give.send(Err(wrong)).await;
        });
        Ok(ReceiverStream::new(take))
    }
}
