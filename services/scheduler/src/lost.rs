//! Keeps leases of hosts that are heard of going, and gives up what silent ones had ([`crate::plan::lost`]).
//!
//! ```text
//! heard of ─► Renew, each second, with what was last said ─┐
//! silent ─► the lab's time ─► its nodes are moved by force ─┴─► back: Renew ─► the host asks for its slice ─► Sync: without them
//! ```
//!
//! Nothing is renewed but with what was heard before it was known that this scheduler leads: to one that leads later and does not reach a host, it is silent from then on.
//!
//! While nodes of a host are being given up it counts for nothing what it says: one that comes back in that moment gets no lease, and so starts nothing, before it is told what is still its own.

use std::collections::{HashMap, HashSet};
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use netloom_model::id::{HostId, LabUid};
use netloom_model::plan::{Rejection, Unplaced};
use netloom_service::{Endpoint, Shutdown};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::apply::{Move, What};
use crate::client::HostClient;
use crate::plan::{has_nodes_on, lost};
use crate::rows::LabRows;
use crate::scheduler::Scheduler;
use crate::world::{Heard, HostView};

/// How often leases are renewed, and it is looked who is silent for too long.
const TICK: Duration = Duration::from_secs(1);
/// How often it is tried to give up what found no place, or what something else is done to.
const AGAIN: Duration = Duration::from_secs(10);
/// How long a machine has to answer.
const ANSWER: Duration = Duration::from_secs(3);

/// Does so for ever.
pub async fn run(core: Arc<Scheduler>, shutdown: Shutdown) {
    let mut tried: HashMap<(HostId, LabUid), Instant> = HashMap::new();
    let mut busy: HashSet<HostId> = HashSet::new();
    let mut work: FuturesUnordered<BoxFuture<'static, HostId>> = FuturesUnordered::new();
    loop {
        let leased = |rows: &Arc<LabRows>| rows.lab.spec.reschedule_after_seconds > 0;
        let labs: Vec<Arc<LabRows>> = core.store.all().into_iter().filter(leased).collect();
        tried.retain(|_, at| at.elapsed() < AGAIN);
        let mut heard = Vec::new();
        for host in core.hosts() {
            let here: Vec<&Arc<LabRows>> = labs.iter().filter(|rows| has_nodes_on(rows, &host.id)).collect();
            if here.is_empty() || busy.contains(&host.id) {
                continue;
            }
            let Some((is_heard, silent)) =
                core.world.host(&host.id, |view| (view.compute.heard == Heard::Yes, view.silent()))
            else {
                continue;
            };
            if is_heard {
                heard.push(host.deciding(core.world.beat(&host.id)));
                continue;
            }
            let key = |rows: &LabRows| (host.id.clone(), rows.lab.uid);
            let is_due = |rows: &&&Arc<LabRows>| {
                rows.operation.is_none()
                    && !tried.contains_key(&key(rows))
                    && !lost::given_up(rows, &host.id, silent).is_empty()
            };
            let due: Vec<Arc<LabRows>> = here.iter().filter(is_due).map(|rows| (*rows).clone()).collect();
            if !due.is_empty() {
                tried.extend(due.iter().map(|rows| (key(rows), Instant::now())));
                busy.insert(host.id.clone());
                work.push(Box::pin(give_up(core.clone(), host, due)));
            }
        }
        if !heard.is_empty() && core.store.leads().await.unwrap_or(false) {
            busy.extend(heard.iter().map(|host| host.id.clone()));
            work.extend(heard.into_iter().map(|host| Box::pin(renew(host)) as BoxFuture<'static, HostId>));
        }
        let tick = tokio::time::sleep(TICK);
        tokio::pin!(tick);
        loop {
            tokio::select! {
                Some(host) = work.next() => drop(busy.remove(&host)),
                () = &mut tick => break,
                () = shutdown.cancelled() => return,
            }
        }
    }
}

async fn renew(host: HostClient) -> HostId {
    if let Err(e) = host.renew().await {
        tracing::debug!(host = %host.id, "leases are not renewed, tried again: {e}");
    }
    host.id
}

/// Makes nodes of labs anew elsewhere.
async fn give_up(core: Arc<Scheduler>, host: HostClient, labs: Vec<Arc<LabRows>>) -> HostId {
    let id = host.id.clone();
    if answers(&host.endpoint).await {
        tracing::warn!(host = %id, "the host is silent, but its machine answers: what it has is left to it");
        labs.iter().for_each(|rows| core.world.stay(&id, rows.lab.uid, Some(left(rows, &id, &core))));
        return id;
    }
    core.world.give_up(&id, true);
    for rows in labs {
        let asked = Move {
            lab: rows.lab.id.clone(),
            what: What::Lost(id.clone()),
            lose_disks: false,
            force: true,
            asked: false,
            validate_only: false,
            request_id: None,
        };
        match core.move_nodes(asked).await {
            Ok(moved) => {
                let after = rows.lab.spec.reschedule_after_seconds;
                let (moves, stay) = (!moved.plan.actions.is_empty(), moved.plan.unplaced);
                if moves {
                    tracing::warn!(host = %id, lab = %rows.lab.id, after, operation = %moved.id, "the host is given up: nodes are made anew elsewhere");
                }
                core.world.stay(&id, rows.lab.uid, Some(stay));
            }
            Err(e) => {
                tracing::warn!(host = %id, lab = %rows.lab.id, "nodes are not made anew yet, tried again: {e}")
            }
        }
    }
    core.world.give_up(&id, false);
    id
}

/// True when a machine is there and only its service is not: what it has runs on, and nobody stops it when its lease is over.
async fn answers(endpoint: &Endpoint) -> bool {
    match endpoint {
        Endpoint::Tcp(address) | Endpoint::Tls { address, .. } => {
            match timeout(ANSWER, TcpStream::connect(address.as_str())).await {
                Ok(Ok(_)) => true,
                Ok(Err(e)) => matches!(e.kind(), ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset),
                Err(_) => false,
            }
        }
        // It is this very machine.
        Endpoint::Unix(_) => true,
        Endpoint::Memory(_) => false,
    }
}

/// The nodes that are not given up since their machine answers.
fn left(rows: &LabRows, host: &HostId, core: &Scheduler) -> Vec<Unplaced> {
    let silent = core.world.host(host, HostView::silent).unwrap_or_default();
    let why = || {
        Rejection {
        host: host.to_string(),
        code: "HOST_ANSWERS".to_owned(),
        detail: "is silent, but its machine answers, so what runs there goes on: start netloom-host there, or move the node by force once that is known to be stopped".to_owned(),
        resolvable: true,
    }
    };
    let nodes = lost::given_up(rows, host, silent).into_keys().filter_map(|uid| rows.nodes.get(&uid));
    nodes.map(|node| Unplaced { node: node.id.to_string(), rejections: vec![why()] }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_machine_answers_whose_service_was_ended() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let there = Endpoint::Tcp(address.clone());
        assert!(answers(&there).await, "it listens");
        drop(listener);
        assert!(answers(&there).await, "its service was ended: the machine refuses");
        assert!(answers(&Endpoint::Unix("/nowhere".into())).await, "it is this machine");
    }
}
