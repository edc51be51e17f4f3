//! Who has which bytes in hand. Bringing bytes onto the shelf, saying that an image is them, setting them aside and removing them exclude each other for one digest, and for no other: however
//! long one image is on its way to a bucket, nobody waits who has to do with another. Uploads are in one hand at a time, too. Other replicas over the same rows are kept from them by a lock
//! of the database.

use std::collections::HashMap;
use std::sync::{Arc, Mutex as Sync, Weak};

use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::blob::Digest;
use crate::error::Error;
use crate::store::{Lock, Name, Store};

/// The digests that are in somebody's hands.
#[derive(Clone)]
pub struct Held {
    here: Arc<Sync<HashMap<Digest, Weak<Mutex<()>>>>>,
    store: Store,
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub struct Hold {
    /// Among replicas.
    pub(crate) lock: Lock,
    _here: OwnedMutexGuard<()>,
}

impl Held {
    /// Among all who work on these rows.
    pub fn new(store: Store) -> Held {
        Held { here: Arc::default(), store }
    }

    fn of(&self, digest: &Digest) -> Arc<Mutex<()>> {
        let mut held = self.here.lock().expect("no holder panics");
        held.retain(|_, one| one.strong_count() > 0);
        if let Some(one) = held.get(digest).and_then(Weak::upgrade) {
            return one;
        }
        let one = Arc::default();
        held.insert(digest.clone(), Arc::downgrade(&one));
        one
    }

    /// Waits until nobody else has it.
    pub async fn hold(&self, digest: &Digest) -> Result<Hold, Error> {
        let here = self.of(digest).lock_owned().await;
        Ok(Hold { lock: self.store.lock(Name::Digest(digest)).await?, _here: here })
    }

    /// None when somebody has it.
    pub async fn try_hold(&self, digest: &Digest) -> Result<Option<Hold>, Error> {
        let Ok(here) = self.of(digest).try_lock_owned() else { return Ok(None) };
        let lock = self.store.try_lock(Name::Digest(digest)).await?;
        Ok(lock.map(|lock| Hold { lock, _here: here }))
    }

    /// True when nobody has it.
    pub async fn is_free(&self, digest: &Digest) -> Result<bool, Error> {
        match self.of(digest).try_lock_owned() {
            Ok(_here) => self.store.is_free(Name::Digest(digest)).await,
            Err(_) => Ok(false),
        }
    }
}

impl Hold {
    /// Lets go at once.
    pub async fn release(self) -> Result<(), Error> {
        self.lock.release().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Database;

    #[tokio::test]
    async fn one_digest_is_in_one_hand_and_others_are_free() {
        let dir = tempfile::tempdir().unwrap();
        let held = Held::new(Store::open(&Database::File(dir.path().join("db"))).await.unwrap());
        let (one, two) = (Digest::of(Default::default()), Digest::from_hex(&"0".repeat(64)).unwrap());
        let hold = held.hold(&one).await.unwrap();
        assert!(!held.is_free(&one).await.unwrap());
        assert!(held.clone().try_hold(&two).await.unwrap().is_some());
        drop(hold);
        assert!(held.is_free(&one).await.unwrap());
        assert!(held.here.lock().unwrap().len() <= 1, "what nobody has is not remembered");
    }
}
