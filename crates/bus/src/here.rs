//! Within one process.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, ready};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::{Presence, Wakes, Wakeups};

/// See the module.
#[derive(Debug, Default)]
pub struct Here {
    topics: Mutex<HashMap<String, watch::Sender<u64>>>,
    present: Mutex<BTreeMap<String, (String, Instant)>>,
}

impl Wakes for Here {
    fn wake<'a>(&'a self, topic: &'a str) -> BoxFuture<'a, ()> {
        if let Some(listeners) = self.topics.lock().expect("no holder panics").get(topic) {
            listeners.send_modify(|count| *count += 1);
        }
        ready(()).boxed()
    }

    fn listen<'a>(&'a self, topic: &'a str) -> BoxFuture<'a, Wakeups> {
        let mut topics = self.topics.lock().expect("no holder panics");
        let count = topics.entry(topic.to_owned()).or_default().subscribe();
        ready(Wakeups { count }).boxed()
    }
}

impl Presence for Here {
    fn announce<'a>(&'a self, who: &'a str, what: &'a str, within: Duration) -> BoxFuture<'a, ()> {
        let said = (what.to_owned(), Instant::now() + within);
        self.present.lock().expect("no holder panics").insert(who.to_owned(), said);
        ready(()).boxed()
    }

    fn present<'a>(&'a self, begin: &'a str) -> BoxFuture<'a, Option<BTreeMap<String, String>>> {
        let (mut present, now) = (self.present.lock().expect("no holder panics"), Instant::now());
        present.retain(|_, (_, end)| *end > now);
        let found = present.iter().filter(|(who, _)| who.starts_with(begin));
        ready(Some(found.map(|(who, (what, _))| (who.clone(), what.clone())).collect())).boxed()
    }
}
