//! What every part of the scheduler holds: the store, the world, the hosts' channels; and the one way to change a lab.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use netloom_model::failure::{Code, Failure};
use netloom_model::id::{HostId, LabUid};
use netloom_model::kind::Catalogue;
use netloom_model::observed::Phase;
use netloom_model::state::NodeState;
use netloom_service::pace::Pace;
use netloom_service::{Connector, ticket};
use tokio::sync::{Notify, watch};

use crate::across::Reach;
use crate::client::{HostClient, RegistryClient};
use crate::config::{Config, HostConfig};
use crate::door::Door;
use crate::error::{Error, Result};
use crate::facts;
use crate::place::{Allowed, Room};
use crate::rows::{ImageStep, LabRows, NodeRow, now_us};
use crate::store::{Store, Tx};
use crate::vnis;
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
/// So few nodes on their way, for each host of the lab, are the last.
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
    /// Channels to the hosts, which come and go.
    pub hosts: watch::Sender<BTreeMap<HostId, HostClient>>,
    /// Channel to the image registry.
    pub registry: RegistryClient,
    /// Key that tickets are signed with.
    pub ticket_key: Vec<u8>,
    /// Opens channels.
    pub connector: Connector,
    /// The term that it leads by.
    pub term: u64,
    door: Option<Door>,
    room: Notify,
}

impl Scheduler {
    /// Leads in the term of this database: it grows with each start, and hosts refuse a lower one.
    pub async fn start(
        store: Store,
        config: Config,
        catalogue: Catalogue,
        hosts: Vec<HostConfig>,
        registry: RegistryClient,
        connector: &Connector,
        door: Option<Door>,
    ) -> Result<Scheduler> {
        let term = store.term();
        let mut tx = store.begin("scheduler.start").await?;
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
        let rows = tx.hosts().await?;
        tx.commit().await?;
        // One that joined and stands in the configuration too is where the configuration says.
        let joined = rows.values().filter(|row| !hosts.iter().any(|h| h.id.folded() == row.id.folded()));
        let hosts: Vec<HostConfig> =
            hosts.iter().cloned().chain(joined.filter_map(HostConfig::joined)).collect();
        let clients = hosts.iter().filter_map(|h| {
            let uid = &rows.get(&h.id)?.uid;
            Some((h.id.clone(), HostClient::new(h, uid, connector, term)))
        });
        let world = World::new(hosts.iter().map(|h| h.id.clone()));
        for row in rows.values().filter(|row| row.cordoned) {
            world.set_cordoned(&row.id, true, row.drain);
        }
        for row in rows.values() {
            world.set_policy(&row.id, row.policy.clone());
            world.set_had(&row.id, &row.compute);
        }
        for rows in store.all() {
            let ready = rows.nodes.values().filter(|n| n.image_step == ImageStep::Ready);
            for (node, host) in ready.filter_map(|n| Some((n, n.host.as_ref()?))) {
                world.note_images(host, [(node.runtime, node.image(), true)]);
            }
        }
        tracing::info!(term, hosts = hosts.len(), labs = store.all().len(), "leads");
        Ok(Scheduler {
            world,
            hosts: watch::Sender::new(clients.collect()),
            connector: connector.clone(),
            term,
            door,
            store,
            config,
            catalogue,
            registry,
            ticket_key: key,
            room: Notify::new(),
        })
    }

    /// The channels to a host; none when there is no such host.
    pub fn host(&self, host: &HostId) -> Option<HostClient> {
        self.hosts.borrow().get(host).cloned()
    }

    /// The channels to all hosts.
    pub fn hosts(&self) -> Vec<HostClient> {
        self.hosts.borrow().values().cloned().collect()
    }

    /// Where hosts join; refused when they cannot.
    pub fn door(&self) -> Result<&Door> {
        let message = "hosts cannot join here: set join_listen of [scheduler], for instance \"0.0.0.0:7601\", and start the scheduler again";
        let closed = || Failure::new(Code::FailedPrecondition, "JOIN_DISABLED", message);
        self.door.as_ref().ok_or_else(|| closed().into())
    }

    /// The rows with every state as hosts say now; none when that changes nothing.
    pub fn refreshed(&self, rows: &LabRows) -> Option<LabRows> {
        let mut fresh = rows.clone();
        self.world.read(|hosts| facts::refresh(&mut fresh, hosts));
        (fresh != *rows).then_some(fresh)
    }

    /// Sets every state in rows that are about to be written by this write, and gives links between hosts their network identifiers.
    pub fn refresh(&self, tx: &Tx<'_>, rows: &mut LabRows) {
        tx.vnis(|taken| vnis::allot(rows, taken, &self.config.vnis()));
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
        self.refresh(&tx, &mut after);
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
        let mut rooms: Vec<Room> = self.world.read(|hosts| {
            let room = |(id, view): (&HostId, &crate::world::HostView)| {
                let (has, has_disk) = view.has();
                let offers = view.policy.room(has, &self.config);
                let reserved = reserved.get(id).copied().unwrap_or_default();
                Room {
                    host: id.clone(),
                    heard: view.is_heard(),
                    runtimes: view.compute.inventory.runtimes.iter().copied().collect(),
                    cpu_millis: offers.cpu_millis,
                    memory_bytes: offers.memory_bytes,
                    disk_bytes: has_disk.then_some(offers.disk_bytes),
                    cpu_reserved: reserved.cpu_millis,
                    memory_reserved: reserved.memory_bytes,
                    disk_reserved: reserved.disk_bytes,
                    allowed: Allowed {
                        cordoned: view.cordoned,
                        devices: view.compute.inventory.allowed_devices.clone(),
                        security_opts: view.compute.inventory.allowed_security_opts.clone(),
                        capabilities: view.compute.inventory.allowed_capabilities.clone(),
                        host_network: view.compute.inventory.host_network,
                        host_interfaces: view.network.inventory.host_interfaces,
                        impairments: view.network.inventory.impairments.clone(),
                        acceleration: view.compute.inventory.acceleration.clone(),
                        images: view.images.clone(),
                        uplinks: view.network.inventory.uplinks.clone(),
                        taken_uplinks: BTreeMap::new(),
                        labels: view.policy.labels.clone(),
                        taints: view.policy.taints.clone(),
                        reach: Reach::of(&view.network),
                        paths: view.network.inventory.paths.clone(),
                    },
                }
            };
            hosts.iter().map(room).collect()
        });
        self.take_uplinks(&mut rooms, lab);
        Ok(rooms)
    }

    /// Counts the interfaces that bridges of labs other than this one are joined to.
    fn take_uplinks(&self, rooms: &mut [Room], lab: LabUid) {
        let mut having: Vec<&mut Room> =
            rooms.iter_mut().filter(|room| !room.allowed.uplinks.is_empty()).collect();
        if having.is_empty() {
            return;
        }
        for rows in self.store.all().iter().filter(|rows| rows.lab.uid != lab) {
            for node in rows.nodes.values().filter(|n| n.wanted.stays() && !n.spec.uplink.is_empty()) {
                if let Some(room) = having.iter_mut().find(|room| Some(&room.host) == node.host.as_ref()) {
                    room.allowed.take_uplink(&node.spec.uplink, || format!("{}/{}", rows.lab.id, node.id));
                }
            }
        }
    }

    /// Does what reserves, and does it again when another write was quicker ([`Error::Overtaken`]): then with all hosts held, so that nobody is quicker twice.
    pub(crate) async fn unless_overtaken<T, F: Future<Output = Result<T>>>(
        attempt: impl Fn(bool) -> F,
    ) -> Result<T> {
        match attempt(false).await {
            Err(Error::Overtaken { host }) => {
                tracing::debug!(host, "another write was quicker: it is computed again");
                attempt(true).await
            }
            done => done,
        }
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

    /// A ticket for a verb on this uid at a host, from now on for a short time. The host checks it by its own clock, so that is what its end is told by.
    pub fn ticket(&self, host: &HostId, uid: &str, verb: &str) -> String {
        let ahead_us = self.world.host(host, |view| view.compute.ahead_us).unwrap_or_default();
        let there = u64::try_from(now_us().saturating_add(ahead_us)).unwrap_or_default();
        ticket::sign(&self.ticket_key, uid, verb, there / 1_000_000 + TICKET.as_secs())
    }

    /// A ticket for bytes of an image, which is checked on this machine. It is good for a little longer, since a host may be busy with others. One that comes too late is asked for anew.
    pub fn fetch_ticket(&self, digest: &str) -> String {
        let now = u64::try_from(now_us()).unwrap_or_default() / 1_000_000;
        ticket::sign(&self.ticket_key, digest, ticket::READ_BLOB, now + FETCH_TICKET.as_secs())
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
            // Each host has its last few, and they end at the same time.
            let last = |rows: &LabRows| LAST * rows.hosts.len().max(1);
            busy.iter().any(|rows| rows.nodes.values().filter(is_on_its_way).nth(last(rows)).is_some())
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

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().chunks(2);
    digits.map(|d| u8::from_str_radix(std::str::from_utf8(d).ok()?, 16).ok()).collect()
}
