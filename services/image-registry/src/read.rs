//! Reading blobs: their bytes as a stream, compared with their digest as they go by.

use std::io::Read as _;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::blob::{Blobs, Digest};
use crate::error::Error;
use crate::garbage::Keeper;
use crate::upload::blocking;

/// Bytes of one message.
const PIECE: usize = 1 << 20;
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
        let (blobs, of) = (self.blobs.clone(), digest.clone());
        let opened = blocking(move || match blobs.read(&of) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            file => file.map(Some),
        });
        let mut file = opened.await?.ok_or_else(|| Error::BlobNotFound(digest.to_string()))?;
        let (give, take) = mpsc::channel(WAITING);
        let keeper = self.keeper.clone();
        tokio::spawn(async move {
            let sender = give.clone();
            let read = blocking(move || {
                let mut hash = Sha256::new();
                let mut at = 0u64;
                loop {
                    let mut piece = vec![0; PIECE];
                    let length = file.read(&mut piece)?;
                    if length == 0 {
                        return Ok(Some(Digest::of(hash)));
                    }
                    piece.truncate(length);
                    hash.update(&piece);
                    let skipped =
                        usize::try_from(offset.saturating_sub(at)).unwrap_or(usize::MAX).min(length);
                    at += length as u64;
                    let rest = Bytes::from(piece).slice(skipped..);
                    // Whoever read went away.
                    if !rest.is_empty() && sender.blocking_send(Ok(rest)).is_err() {
                        return Ok(None);
                    }
                }
            });
            let wrong = match read.await {
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
