//! The tasks of each host: two listeners and two reconcilers. They begin when a host is dialled and end when it is removed.

use std::collections::HashMap;
use std::sync::Arc;

use netloom_model::id::HostId;
use netloom_service::Shutdown;
use tokio::task::JoinSet;

use crate::client::HostClient;
use crate::observer;
use crate::reconcile::{self, Compute, Network};
use crate::scheduler::Scheduler;

/// Keeps the tasks in step with the hosts until shut down. One that panics ends it.
pub async fn run(core: Arc<Scheduler>, shutdown: Shutdown) {
    let mut hosts = core.hosts.subscribe();
    let mut running: HashMap<HostId, (HostClient, Shutdown)> = HashMap::new();
    let mut tasks = JoinSet::new();
    loop {
        let now = hosts.borrow_and_update().clone();
        running.retain(|id, (was, end)| {
            // One that joined again may be somewhere else.
            let is_same = |host: &HostClient| host.uid == was.uid && host.endpoint == was.endpoint;
            let stays = now.get(id).is_some_and(is_same);
            if !stays {
                end.cancel();
            }
            stays
        });
        for (id, host) in now {
            if running.contains_key(&id) {
                continue;
            }
            let end = shutdown.child_token();
            running.insert(id, (host.clone(), end.clone()));
            tasks.spawn(observer::listen_compute(core.clone(), host.clone(), end.clone()));
            tasks.spawn(observer::listen_network(core.clone(), host.clone(), end.clone()));
            tasks.spawn(reconcile::run(Compute::default(), core.clone(), host.clone(), end.clone()));
            tasks.spawn(reconcile::run(Network, core.clone(), host, end));
        }
        tokio::select! {
            _ = hosts.changed() => {}
            Some(Err(e)) = tasks.join_next() => std::panic::resume_unwind(e.into_panic()),
            () = shutdown.cancelled() => break,
        }
    }
    while tasks.join_next().await.is_some() {}
}
