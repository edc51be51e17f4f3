//! What goes out of the store: images that are removed, bytes that turn out to be others, and what nothing needs.

use std::collections::BTreeSet;
use std::time::Duration;

use netloom_service::Shutdown;

use crate::blob::{Blobs, Digest};
use crate::error::Error;
use crate::reference::Reference;
use crate::store::blobs::Blob;
use crate::store::{Image, Store};
use crate::upload::Uploads;

/// What is said of bytes that are no longer what they were.
const CORRUPT: &str =
    "its bytes in the store are not the ones that were stored, and were set aside; push the image again";
/// What is said of bytes that went away.
const GONE: &str = "its bytes are not in the store any more; push the image again";

/// Something that nothing needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Garbage {
    /// What it is.
    pub what: What,
    /// Its bytes on disk.
    pub size_bytes: u64,
    /// Why nothing needs it.
    pub reason: &'static str,
}

/// What garbage is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// An image that no lab uses, and its bytes.
    Image(String, Digest),
    /// An upload that nobody went on with.
    Upload(String),
    /// Bytes that no image is.
    Blob(Digest),
    /// Bytes that were set aside.
    SetAside(Digest),
}

/// A lab that uses an image: by its name, and by the bytes that its nodes are made from, whatever the name leads to by now.
pub struct User {
    lab: String,
    reference: Reference,
    digests: BTreeSet<String>,
}

impl User {
    /// A lab that uses this image, whose nodes are made from these.
    pub fn new(lab: String, reference: Reference, made_from: Vec<String>) -> User {
        let pinned = reference.digest().map(str::to_owned);
        let digests = made_from.into_iter().chain(pinned).collect();
        User { lab, reference, digests }
    }

    /// True when its nodes are made from these bytes, or are to be.
    fn needs(&self, blob: &Blob) -> bool {
        std::iter::once(&blob.digest.to_string()).chain(&blob.image_ids).any(|d| self.digests.contains(d))
    }
}

/// The store, to take things out of it.
#[derive(Clone)]
pub struct Keeper {
    store: Store,
    blobs: Blobs,
    uploads: Uploads,
}

impl Keeper {
    /// Over these.
    pub fn new(store: Store, blobs: Blobs, uploads: Uploads) -> Keeper {
        Keeper { store, blobs, uploads }
    }

    /// Takes an image out of the store, and its bytes when no other image is them. Returns it as it was. One that a lab names, and the last one of bytes that a lab's
    /// nodes are made from, stays.
    pub async fn delete(&self, reference: &Reference, users: &[User]) -> Result<Image, Error> {
        self.blobs.claim().await?;
        let image = self.store.get(reference).await?;
        let Some(blob) = &image.stored else { return Err(Error::NotStored(reference.to_string())) };
        let stored = self.store.stored().await?;
        let is_last = !stored.iter().any(|(r, d)| *d == blob.digest && r != reference.as_str());
        let uses = |u: &&User| u.reference == *reference || (is_last && u.needs(blob));
        let labs: BTreeSet<&str> = users.iter().filter(uses).map(|u| u.lab.as_str()).collect();
        if !labs.is_empty() {
            let labs = labs.into_iter().collect::<Vec<_>>().join(", ");
            return Err(Error::InUse { reference: reference.to_string(), labs });
        }
        self.store.unstore(reference.as_str(), &blob.digest).await?;
        self.remove(&blob.digest).await?;
        Ok(image)
    }

    /// Removes bytes, unless an image or an upload is them by now, or somebody brings them right now.
    async fn remove(&self, digest: &Digest) -> Result<(), Error> {
        let Some(hold) = self.uploads.held.try_hold(digest).await? else { return Ok(()) };
        if !self.store.blobs().await?.iter().any(|(b, used)| b.digest == *digest && *used) {
            return self.store.forget_blob(digest, hold.lock, self.blobs.remove(digest)).await;
        }
        hold.release().await
    }

    /// Compares an image's bytes with their digest.
    pub async fn verify(&self, reference: &Reference) -> Result<Image, Error> {
        let image = self.store.get(reference).await?;
        let Some(blob) = image.stored else { return Err(Error::NotStored(reference.to_string())) };
        match self.blobs.is_right(&blob.digest).await? {
            Some(true) => self.store.verified(&blob.digest, "").await?,
            Some(false) => {
                self.set_aside(&blob.digest).await?;
            }
            // What was set aside before still has that problem.
            None if !blob.problem.is_empty() => {}
            None => self.store.verified(&blob.digest, GONE).await?,
        }
        self.store.get(reference).await
    }

    /// Sets bytes aside that are not what they should be. False when those that are there now are right: they were pushed again since they were read.
    pub async fn set_aside(&self, digest: &Digest) -> Result<bool, Error> {
        self.blobs.claim().await?;
        let _hold = self.uploads.held.hold(digest).await?;
        match self.blobs.is_right(digest).await? {
            Some(true) => return Ok(false),
            Some(false) => {
                tracing::error!(%digest, "a blob is not what it was; it is set aside");
                self.blobs.quarantine(digest).await?;
                self.store.verified(digest, CORRUPT).await?;
            }
            // Somebody else was faster.
            None => {}
        }
        Ok(true)
    }

    /// What nothing needs; it is removed unless it is only asked for. Images that are not used are garbage only when asked for.
    pub async fn collect(
        &self,
        users: &[User],
        unused_images: bool,
        validate_only: bool,
    ) -> Result<Vec<Garbage>, Error> {
        self.blobs.claim().await?;
        let garbage = self.garbage(users, unused_images).await?;
        if !validate_only {
            for piece in &garbage {
                self.discard(&piece.what).await?;
            }
        }
        Ok(garbage)
    }

    async fn garbage(&self, users: &[User], unused_images: bool) -> Result<Vec<Garbage>, Error> {
        let mut found = Vec::new();
        let stored = self.store.stored().await?;
        let rows = self.store.blobs().await?;
        let of_nodes = rows.iter().map(|(blob, _)| blob).filter(|b| users.iter().any(|u| u.needs(b)));
        let of_nodes: BTreeSet<Digest> = of_nodes.map(|b| b.digest.clone()).collect();
        let named: BTreeSet<&str> = users.iter().map(|u| u.reference.as_str()).collect();
        let is_unused =
            |(r, d): &(String, Digest)| unused_images && !named.contains(&**r) && !of_nodes.contains(d);
        let (unused, needed): (Vec<_>, Vec<_>) = stored.into_iter().partition(is_unused);
        let needed: BTreeSet<Digest> = needed.into_iter().map(|(_, d)| d).collect();
        for (reference, digest) in &unused {
            // Bytes of which two images go are counted once, with the first.
            let first = unused.iter().find(|(_, d)| d == digest).is_some_and(|(r, _)| r == reference);
            let goes = first && !needed.contains(digest);
            let size = rows.iter().find(|(b, _)| b.digest == *digest).map_or(0, |(b, _)| b.size_bytes);
            found.push(Garbage {
                what: What::Image(reference.clone(), digest.clone()),
                size_bytes: if goes { size } else { 0 },
                reason: "no lab uses it",
            });
        }
        let no_image = |digest: Digest, size_bytes| Garbage {
            what: What::Blob(digest),
            size_bytes,
            reason: "no image is these bytes, and no node is made from them",
        };
        for (blob, _) in rows.iter().filter(|(b, used)| !used && !of_nodes.contains(&b.digest)) {
            if self.uploads.held.is_free(&blob.digest).await? {
                found.push(no_image(blob.digest.clone(), blob.size_bytes));
            }
        }
        // What somebody brings right now has no row yet, and what was brought since the rows were read has one that is not among them.
        let known: BTreeSet<Digest> = rows.into_iter().map(|(b, _)| b.digest).collect();
        let mut strays = Vec::new();
        for (digest, size) in self.blobs.all().await? {
            if !known.contains(&digest)
                && self.uploads.held.is_free(&digest).await?
                && self.store.blob(&digest).await?.is_none()
            {
                strays.push((digest, size));
            }
        }
        let aside = self.blobs.quarantined().await?;
        found.extend(strays.into_iter().map(|(digest, size)| no_image(digest, size)));
        found.extend(aside.into_iter().map(|(digest, size_bytes)| Garbage {
            what: What::SetAside(digest),
            size_bytes,
            reason: "these bytes were found to be others than they should be",
        }));
        found.extend(self.uploads.abandoned().await?.into_iter().map(|(id, size_bytes)| Garbage {
            what: What::Upload(id),
            size_bytes,
            reason: "nobody went on with it",
        }));
        Ok(found)
    }

    async fn discard(&self, what: &What) -> Result<(), Error> {
        match what {
            What::Image(reference, digest) => {
                self.store.unstore(reference, digest).await?;
                self.remove(digest).await
            }
            What::Upload(id) => self.uploads.give_up(id).await.map(drop),
            What::Blob(digest) => self.remove(digest).await,
            What::SetAside(digest) => self.blobs.forget(digest).await,
        }
    }
}

/// Gives abandoned uploads up, for ever.
pub async fn run(uploads: Uploads, every: Duration, shutdown: Shutdown) {
    loop {
        match uploads.expire().await {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "uploads that nobody went on with are given up"),
            Err(e) => tracing::warn!("abandoned uploads cannot be given up: {e}"),
        }
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            () = shutdown.cancelled() => return,
        }
    }
}
