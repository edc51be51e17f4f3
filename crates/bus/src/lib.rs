//! Wake-ups and presence between replicas.
//!
//! ```text
//! wake(topic) ─► whoever listens on it, in this process or another one, looks again at what it waits for
//! announce(who, what) ─► present(): who said so within the time that it said it for
//! ```
//!
//! Neither carries anything that is not also in a database or found by asking again: whoever waits has a timer beside it. So Redis can be lost, or flushed, and all that is lost is time. [`Here`]
//! does it within one process, [`redis::Redis`] between several; one contract suite runs over both.

pub mod here;
pub mod redis;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::watch;

pub use here::Here;

/// Wakes others.
pub trait Wakes: Send + Sync {
    /// Wakes all who listen on a topic. It is not told whether anybody was reached, and does not wait long.
    fn wake<'a>(&'a self, topic: &'a str) -> BoxFuture<'a, ()>;

    /// Listens on a topic: to what is woken after this is there. It may also wake although nobody asked for it.
    fn listen<'a>(&'a self, topic: &'a str) -> BoxFuture<'a, Wakeups>;
}

/// Knows who is there.
pub trait Presence: Send + Sync {
    /// Says of somebody what is to be known, for so long.
    fn announce<'a>(&'a self, who: &'a str, what: &'a str, within: Duration) -> BoxFuture<'a, ()>;

    /// All who are there, whose names begin like this, with what was said of them. None when nobody can tell.
    fn present<'a>(&'a self, begin: &'a str) -> BoxFuture<'a, Option<BTreeMap<String, String>>>;
}

/// Both.
pub trait Bus: Wakes + Presence {}

impl<T: Wakes + Presence> Bus for T {}

/// What was configured: Redis at this URL, or this process alone.
pub fn open(url: Option<&str>) -> anyhow::Result<Arc<dyn Bus>> {
    Ok(match url {
        Some(url) => Arc::new(redis::Redis::new(url)?),
        None => Arc::new(Here::default()),
    })
}

/// Wake-ups as they come; several may come as one.
#[derive(Debug)]
pub struct Wakeups {
    count: watch::Receiver<u64>,
}

impl Wakeups {
    /// Waits for the next one since the last call.
    pub async fn next(&mut self) {
        if self.count.changed().await.is_err() {
            // Nobody is left to wake.
            std::future::pending().await
        }
    }
}
