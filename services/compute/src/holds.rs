//! Who works on a node: one at a time takes a step with its instance, or keeps it, or forgets what was kept of it. Without, two that take a snapshot of one name both find that there is none yet, and what is
//! written beside a disk outlives a removal.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Weak};

use netloom_model::id::NodeUid;
use tokio::sync::OwnedMutexGuard;

/// See the module.
#[derive(Debug, Default)]
pub struct Holds(Mutex<BTreeMap<NodeUid, Weak<tokio::sync::Mutex<()>>>>);

impl Holds {
    /// Waits until nobody works on the node, and keeps it so until the guard goes.
    pub async fn hold(&self, uid: NodeUid) -> OwnedMutexGuard<()> {
        let of_node = {
            let mut all = self.0.lock().expect("no holder panics");
            all.retain(|_, hold| hold.strong_count() > 0);
            let held = all.get(&uid).and_then(Weak::upgrade).unwrap_or_default();
            all.insert(uid, Arc::downgrade(&held));
            held
        };
        of_node.lock_owned().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    #[tokio::test]
    async fn one_works_on_a_node_at_a_time_and_none_is_left_behind() {
        let (holds, one, other) = (Holds::default(), NodeUid::new(), NodeUid::new());
        let first = holds.hold(one).await;
        let mut second = Box::pin(holds.hold(one));
        assert!(second.as_mut().now_or_never().is_none());
        drop(holds.hold(other).await);
        drop(first);
        let second = second.await;
        assert!(holds.hold(one).now_or_never().is_none());
        drop(second);
        drop(holds.hold(other).await);
        assert_eq!(holds.0.lock().unwrap().len(), 1);
    }
}
