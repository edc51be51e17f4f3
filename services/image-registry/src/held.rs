//! Who has which bytes in hand. Bringing bytes onto the shelf, saying that an image is them, setting them aside and removing them exclude each other for one digest, and for no other: however
//! long one image is on its way to a bucket, nobody waits who has to do with another.

use std::collections::HashMap;
use std::sync::{Arc, Mutex as Lock, Weak};

use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::blob::Digest;

/// The digests that are in somebody's hands.
#[derive(Debug, Clone, Default)]
pub struct Held(Arc<Lock<HashMap<Digest, Weak<Mutex<()>>>>>);

/// One of them, until it is dropped.
pub type Hold = OwnedMutexGuard<()>;

impl Held {
    fn of(&self, digest: &Digest) -> Arc<Mutex<()>> {
        let mut held = self.0.lock().expect("no holder panics");
        held.retain(|_, one| one.strong_count() > 0);
        if let Some(one) = held.get(digest).and_then(Weak::upgrade) {
            return one;
        }
        let one = Arc::default();
        held.insert(digest.clone(), Arc::downgrade(&one));
        one
    }

    /// Waits until nobody else has it.
    pub async fn hold(&self, digest: &Digest) -> Hold {
        self.of(digest).lock_owned().await
    }

    /// None when somebody has it.
    pub fn try_hold(&self, digest: &Digest) -> Option<Hold> {
        self.of(digest).try_lock_owned().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_digest_is_in_one_hand_and_others_are_free() {
        let held = Held::default();
        let (one, two) = (Digest::of(Default::default()), Digest::from_hex(&"0".repeat(64)).unwrap());
        let hold = held.hold(&one).await;
        assert!(held.try_hold(&one).is_none());
        assert!(held.clone().try_hold(&two).is_some());
        drop(hold);
        assert!(held.try_hold(&one).is_some());
        assert!(held.0.lock().unwrap().len() <= 1, "what nobody has is not remembered");
    }
}
