//! What every part of the scheduler holds: the store, the world, the hosts' channels; and the one way to change a lab.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use netloom_model::id::{HostId, LabUid};
use netloom_model::kind::Catalogue;
use netloom_model::observed::Phase;
use netloom_model::state::NodeState;
use netloom_service::pace::Pace;
use netloom_service::{Connector, ticket};
use tokio::sync::Notify;

use crate::client::{HostClient, RegistryClient};
use crate::config::{Config, HostConfig};
use crate::error::Result;
use crate::facts;
use crate::place::{Allowed, Room};
use crate::rows::{LabRows, NodeRow, Reserved};
use crate::store::{Store, Tx};
use crate::world::World;

/// How long a plan waits for hosts that were not heard of yet, just after a start.
const FIRST_WORD: Duration = Duration::from_secs(3);

/// How long a ticket is good.
const TICKET: Duration = Duration::from_secs(60);
const FETCH_TICKET: Duration = Duration::from_secs(300);

/// Longest rest of a loop before it looks at everything again, while much is still to come.
pub const LONGEST_REST: Duration = Duration::from_millis(200);
/// How often it is seen meanwhile whether it still is.
const STEP: Duration = Duration::from_millis(25);
/// So few nodes on their way are the last.
const LAST: usize = 4;

/// The scheduler's parts.
pub struct Scheduler {
    /// The database.
    pub store: Store,
    /// What hosts said.
    pub world: World,
    /// Configuration.
    pub config: Config,
    /// The kinds.
    pub catalogue: Catalogue,
    /// Channels to the hosts.
    pub hosts: BTreeMap<HostId, HostClient>,
    /// Channel to the image registry.
    pub registry: RegistryClient,
    /// Key that tickets are signed with.
    pub ticket_key: Vec<u8>,
    room: Notify,
}

impl Scheduler {
    /// Takes the lead on this database: the term grows with each start, and hosts refuse a lower one.
    pub async fn start(
        store: Store,
        config: Config,
        catalogue: Catalogue,
        hosts: Vec<HostConfig>,
        registry: RegistryClient,
        connector: &Connector,
    ) -> Result<Scheduler> {
        let mut tx = store.begin("scheduler.lead").await?;
        let term = tx.meta("term").await?.and_then(|t| t.parse().ok()).unwrap_or(0u64) + 1;
        tx.set_meta("term", &term.to_string()).await?;
        let key = match tx.meta("ticket_key").await?.and_then(|k| from_hex(&k)) {
            Some(key) => key,
            None => {
                let key = rand::random::<[u8; 32]>().to_vec();
                let text: String = key.iter().map(|b| format!("{b:02x}")).collect();
                tx.set_meta("ticket_key", &text).await?;
                key
            }
        };
        for host in &hosts {
            tx.add_host(&host.id).await?;
        }
        tx.commit().await?;
        tracing::info!(term, hosts = hosts.len(), labs = store.all().len(), "leads");
        Ok(Scheduler {
            world: World::new(hosts.iter().map(|h| h.id.clone())),
            hosts: hosts.iter().map(|h| (h.id.clone(), HostClient::new(h, connector, term))).collect(),
            store,
            config,
            catalogue,
            registry,
            ticket_key: key,
            room: Notify::new(),
        })
    }

    /// The rows with every state as hosts say now; none when that changes nothing.
    pub fn refreshed(&self, rows: &LabRows) -> Option<LabRows> {
        let mut fresh = rows.clone();
        self.world.read(|hosts| facts::refresh(&mut fresh, hosts));
        (fresh != *rows).then_some(fresh)
    }

    /// Sets every state in rows that are about to be written.
    pub fn refresh(&self, rows: &mut LabRows) {
        self.world.read(|hosts| facts::refresh(rows, hosts));
    }

    /// Changes a lab's rows in one transaction, states and events included. A lab that is gone meanwhile is left alone.
    pub async fn change(
        &self,
        name: &'static str,
        lab: LabUid,
        change: impl FnOnce(&mut LabRows),
    ) -> Result<()> {
        let mut tx = self.store.begin(name).await?;
        let Some(before) = tx.rows(lab) else { return Ok(()) };
        let mut after = (*before).clone();
        change(&mut after);
        self.refresh(&mut after);
        if tx.save(Some(&before), after).await? {
            tx.commit().await?;
        }
        Ok(())
    }

    /// Tells watchers of a lab's active operation anew: how far it is changed without a row that did.
    pub async fn touch_operation(&self, lab: LabUid) -> Result<()> {
        let mut tx = self.store.begin("scheduler.touch").await?;
        let Some(id) = tx.rows(lab).and_then(|rows| rows.operation) else { return Ok(()) };
        if let Some(mut operation) = tx.operation(id).await? {
            operation.update_us = tx.now();
            tx.put_operation(&operation).await?;
            tx.commit().await?;
        }
        Ok(())
    }

    /// What each host offers beside what labs other than this one have reserved.
    pub async fn rooms(&self, tx: &mut Tx<'_>, lab: LabUid) -> Result<Vec<Room>> {
        let reserved = tx.reserved_by_others(lab).await?;
        let (cpu, memory) = (self.config.cpu_overcommit, self.config.memory_overcommit);
        Ok(self.world.read(|hosts| {
            let room = |(id, view): (&HostId, &crate::world::HostView)| {
                let Reserved { cpu_millis, memory_bytes } = reserved.get(id).copied().unwrap_or_default();
                Room {
                    host: id.clone(),
                    heard: view.is_heard(),
                    runtimes: view.compute.inventory.runtimes.iter().copied().collect(),
                    cpu_millis: times(view.compute.inventory.cpu_millis, cpu),
                    memory_bytes: times(view.compute.inventory.memory_bytes, memory),
                    cpu_reserved: cpu_millis,
                    memory_reserved: memory_bytes,
                    allowed: Allowed {
                        devices: view.compute.inventory.allowed_devices.clone(),
                        security_opts: view.compute.inventory.allowed_security_opts.clone(),
                        capabilities: view.compute.inventory.allowed_capabilities.clone(),
                        host_network: view.compute.inventory.host_network,
                        host_interfaces: view.network.inventory.host_interfaces,
                        impairments: view.network.inventory.impairments.clone(),
                    },
                }
            };
            hosts.iter().map(room).collect()
        }))
    }

    /// Waits, just after a start, for the hosts' first word: a plan made before would find no room anywhere.
    pub async fn first_word(&self) {
        let mut changed = self.world.subscribe();
        let awaited = || self.world.read(|hosts| hosts.values().any(|v| v.is_awaited()));
        let wait = async {
            while awaited() {
                if changed.changed().await.is_err() {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(FIRST_WORD, wait).await;
    }

    /// A ticket for a verb on this uid, from now on for a short time; for bytes of an image a little longer, since a host may be busy with others. One that comes too late is asked for anew.
    pub fn ticket(&self, uid: &str, verb: &str) -> String {
        let good_for = if verb == ticket::READ_BLOB { FETCH_TICKET } else { TICKET };
        let expires = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() + good_for;
        ticket::sign(&self.ticket_key, uid, verb, expires.as_secs())
    }

    /// Waits until a loop is due to look at everything again: soon when somebody waits for the last of what is to come.
    pub async fn rest(&self, pace: &Pace, soon: Duration) {
        let mut longest = soon;
        loop {
            pace.rest_at_most(longest).await;
            if longest >= LONGEST_REST || !self.is_much_to_come() {
                return;
            }
            longest += STEP;
        }
    }

    /// True while an operation has more nodes on their way than the last few: what is told of one of them nobody waits for. Rows may be late by a rest, hosts are not.
    fn is_much_to_come(&self) -> bool {
        let active = self.store.active_operations();
        let busy: Vec<Arc<LabRows>> = active.iter().filter_map(|o| self.store.rows(o.lab_uid)).collect();
        self.world.read(|hosts| {
            let phase = |n: &NodeRow| Some(hosts.get(n.host.as_ref()?)?.compute.instances.get(&n.uid)?.phase);
            let is_on_its_way = |n: &&NodeRow| match n.state {
                NodeState::Pending | NodeState::Creating | NodeState::Starting => {
                    phase(n) != Some(Phase::Running)
                }
                NodeState::Stopping => phase(n).is_some(),
                _ => false,
            };
            busy.iter().any(|rows| rows.nodes.values().filter(is_on_its_way).nth(LAST).is_some())
        })
    }

    /// Says that nodes which fitted nowhere may fit now.
    pub fn room_appeared(&self) {
        self.room.notify_one();
    }

    /// Waits until room may have appeared.
    pub async fn room(&self) {
        self.room.notified().await;
    }
}

fn times(n: u64, factor: f64) -> u64 {
    // Both are positive, and a host's figures are far below what a double holds exactly.
    (n as f64 * factor) as u64
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().chunks(2);
    digits.map(|d| u8::from_str_radix(std::str::from_utf8(d).ok()?, 16).ok()).collect()
}
