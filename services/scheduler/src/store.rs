//! The database: all SQL is here and below.
//!
//! ```text
//! begin ─► rows of a lab (as last committed) ─► save(before, after): difference + events ─► commit ─► wakes who waits on the revision
//! ```
//!
//! What a write reserves of hosts it computed from what was reserved there: it names the generation that each host had then, and is refused when another write raised that since
//! ([`Error::Overtaken`]). Two schedulers that both believe to lead never give one room away twice.
//!
//! One writer at a time. The rows as last committed are kept in memory too, so that reconcilers
//! compare without asking the database; they change only after a commit, so a crash at any point leaves what was committed and nothing else.
//! Statements are those that SQLite and PostgreSQL both understand; what differs is in [`Database`] and in the folders of migrations.

mod events;
mod files;
mod hosts;
mod labs;
mod lead;
mod lists;
mod log;
mod membership;
mod operations;
mod quotas;
mod write;

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::ErrorKind;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use netloom_bus::Bus;
use netloom_database::Access;
use netloom_model::id::{HostId, LabUid, NodeUid, OperationId, WireId};
use netloom_service::fail_point;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::{Connection as _, Pool, Row as _, Transaction};
use tokio::sync::{Mutex, MutexGuard, watch};
use tokio::time::timeout;

pub use self::events::{Event, Interface, LabView, LinkView, NodeView, Object, Of, Reading, progress};
pub use self::hosts::meta;
use self::lead::Lead;
pub use self::lists::Page;
use self::log::Log;
use crate::bells::Bells;
use crate::error::{Error, Result};
use crate::figures;
use crate::rows::{LabRows, OperationRow, OperationState, now_us};
pub use netloom_database::Database;

/// The database in use: whichever was opened.
pub type Db = sqlx::Any;
type Connection = sqlx::AnyConnection;

/// How long PostgreSQL may take to begin a write, or to make it last.
const ANSWER: Duration = Duration::from_secs(10);
/// How long it may take to take leave of it.
const CLOSE: Duration = Duration::from_secs(2);
/// How long it is waited for an answer whether one still leads.
const LEADS: Duration = Duration::from_secs(2);
/// How many events are deleted at once at least.
const PRUNE_STEP: u64 = 10;

/// The database, and the rows as last committed.
pub struct Store {
    pool: Pool<Db>,
    writer: Mutex<Writer>,
    lead: Lead,
    term: u64,
    current: RwLock<Current>,
    revision: watch::Sender<u64>,
    bells: Bells,
    log: Log,
    events: watch::Sender<u64>,
    operation_events: watch::Sender<u64>,
    events_kept: u64,
}

struct Writer {
    pool: Pool<Db>,
    /// How a write begins.
    begin: &'static str,
    /// What the term must be, where others may lead meanwhile.
    fence: Option<u64>,
    prune_at: u64,
}

impl Writer {
    /// What takes longer over a network has no answer. A file is waited for, however slow its disk is.
    async fn bounded<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        match self.fence {
            Some(_) => timeout(ANSWER, work).await.unwrap_or_else(|_| {
                Err(sqlx::Error::Io(std::io::Error::new(ErrorKind::TimedOut, "it does not answer")).into())
            }),
            None => work.await,
        }
    }
}

#[derive(Default)]
struct Current {
    labs: BTreeMap<LabUid, Arc<LabRows>>,
    /// The commit that last changed a lab.
    revisions: HashMap<LabUid, u64>,
    /// The labs that have something on a host.
    on: HashMap<HostId, BTreeSet<LabUid>>,
    names: HashMap<String, LabUid>,
    wires: HashMap<WireId, LabUid>,
    /// The network identifiers that links have, those that are being removed included.
    vnis: BTreeSet<u32>,
    /// Those that are under way.
    operations: BTreeMap<OperationId, Arc<OperationRow>>,
}

impl Store {
    /// Opens the database once nobody else leads on it, makes or updates its schema, begins the next term, and then reads all rows: a former leader writes none any more.
    /// Who stands by is woken over the bus when the lead is given up; else it finds out by itself a moment later.
    pub async fn open(database: &Database, events_kept: u64, bus: Arc<dyn Bus>) -> Result<Store> {
        let lead = Lead::take(database, bus).await?;
        let begun = async {
            let writer = database.pool(1, Access::Write).await?;
            match database {
                Database::File(_) => sqlx::migrate!("migrations/sqlite").run(&writer).await?,
                Database::Postgres(_) => sqlx::migrate!("migrations/postgres").run(&writer).await?,
            }
            let term = lead.begin_term(&mut *writer.acquire().await?).await?;
            let (current, last) = Current::read(&writer).await?;
            Ok::<_, Error>((writer, term, current, last))
        };
        let (writer, term, current, last) = tokio::select! {
            begun = begun => begun?,
            _ = lead.lost() => return Err(Error::Deposed),
        };
        let fence = lead.fence();
        let writer = Writer { pool: writer, begin: database.begin(), fence, prune_at: 0 };
        Store::of(database, writer, lead, term, current, last, events_kept).await
    }

    /// The database beside a store that leads on it, in its term: what one is that another one took the lead from, and that neither knows of yet. Nobody else has it: by what it does the suite of
    /// the store shows that it does no harm.
    #[doc(hidden)]
    pub async fn beside(&self, database: &Database) -> Result<Store> {
        let pool = database.pool(1, Access::Write).await?;
        let (current, last) = Current::read(&pool).await?;
        let fence = database.file().is_none().then_some(self.term);
        let writer = Writer { pool, begin: database.begin(), fence, prune_at: 0 };
        Store::of(database, writer, Lead::nobodys(), self.term, current, last, self.events_kept).await
    }

    async fn of(
        database: &Database,
        writer: Writer,
        lead: Lead,
        term: u64,
        current: Current,
        last: u64,
        events_kept: u64,
    ) -> Result<Store> {
        let revision = watch::Sender::new(0);
        Ok(Store {
            pool: database.pool(4, Access::Read).await?,
            log: Log::keep(database.clone(), revision.subscribe()),
            writer: Mutex::new(writer),
            lead,
            term,
            current: RwLock::new(current),
            revision,
            bells: Bells::default(),
            events: watch::Sender::new(last),
            operation_events: watch::Sender::new(last),
            events_kept,
        })
    }

    /// Starts a write, which has a name for who looks for its traces. There is one at a time.
    pub async fn begin(&self, name: &'static str) -> Result<Tx<'_>> {
        let writer = self.writer.lock().await;
        let sql = writer.bounded(self.begun(&writer)).await?;
        Ok(Tx {
            name,
            store: self,
            sql,
            writer,
            staged: Vec::new(),
            generations: BTreeMap::new(),
            operations: Vec::new(),
            events: Vec::new(),
            now: now_us(),
        })
    }

    async fn begun(&self, writer: &Writer) -> Result<Transaction<'static, Db>> {
        let mut sql = match writer.pool.begin_with(writer.begin).await {
            Ok(sql) => sql,
            Err(e) => {
                // A write that the database itself took back, for want of room, leaves a connection that begins no other one.
                tracing::warn!(error = %e, "a write cannot begin; it is tried over a new connection");
                writer.pool.acquire().await?.detach().close().await?;
                writer.pool.begin_with(writer.begin).await?
            }
        };
        if let Some(term) = writer.fence {
            let now = sqlx::query("SELECT value FROM meta WHERE key = 'term' FOR SHARE")
                .fetch_one(&mut *sql)
                .await?;
            if now.try_get::<String, _>("value")? != term.to_string() {
                self.lead.lose(lead::DEPOSED);
                return Err(Error::Deposed);
            }
        }
        Ok(sql)
    }

    /// The term that it leads in: higher than every one before, also of other databases that the same hosts served.
    pub fn term(&self) -> u64 {
        self.term
    }

    /// True when nobody else had begun to lead when this was asked. A leader that is cut off from the database does not know, and gets no answer.
    pub async fn leads(&self) -> Result<bool> {
        let Some(term) = self.lead.fence() else { return Ok(true) };
        let now = async { lead::term(&mut *self.pool.acquire().await?).await };
        match timeout(LEADS, now).await {
            Ok(now) => Ok(now? == Some(term)),
            Err(_) => Ok(false),
        }
    }

    /// Waits until this scheduler must not lead any more, and says why.
    pub async fn deposed(&self) -> &'static str {
        self.lead.lost().await
    }

    /// The rows of a lab as last committed.
    pub fn rows(&self, lab: LabUid) -> Option<Arc<LabRows>> {
        self.current.read().expect("no holder panics").labs.get(&lab).cloned()
    }

    /// The rows of the lab with this id, ignoring case.
    pub fn rows_of(&self, folded: &str) -> Option<Arc<LabRows>> {
        let current = self.current.read().expect("no holder panics");
        current.names.get(folded).and_then(|uid| current.labs.get(uid)).cloned()
    }

    /// The rows of all labs as last committed.
    pub fn all(&self) -> Vec<Arc<LabRows>> {
        self.current.read().expect("no holder panics").labs.values().cloned().collect()
    }

    /// The rows of the labs that have something on a host, as last committed.
    pub fn on(&self, host: &HostId) -> Vec<Arc<LabRows>> {
        let current = self.current.read().expect("no holder panics");
        let labs = current.on.get(host).into_iter().flatten();
        labs.filter_map(|lab| current.labs.get(lab)).cloned().collect()
    }

    /// The lab that a wire id belongs to.
    pub fn lab_of_wire(&self, wire: WireId) -> Option<LabUid> {
        self.current.read().expect("no holder panics").wires.get(&wire).copied()
    }

    /// Looks at the network identifiers that links have, as last committed: those that are being removed included.
    pub fn vnis<T>(&self, look: impl FnOnce(&BTreeSet<u32>) -> T) -> T {
        look(&self.current.read().expect("no holder panics").vnis)
    }

    /// The operations that are under way, as last committed.
    pub fn active_operations(&self) -> Vec<Arc<OperationRow>> {
        self.current.read().expect("no holder panics").operations.values().cloned().collect()
    }

    /// The number of the last commit since the start.
    pub fn revision(&self) -> u64 {
        *self.revision.borrow()
    }

    /// The number of the commit that last changed a lab; 0 when none did since the start.
    pub fn revision_of(&self, lab: LabUid) -> u64 {
        self.current.read().expect("no holder panics").revisions.get(&lab).copied().unwrap_or_default()
    }

    /// Wakes at each commit that changes a lab that has something on this host, or had before.
    pub fn subscribe_on(&self, host: &HostId) -> watch::Receiver<()> {
        self.bells.listen(host)
    }

    /// Wakes at each commit.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    /// Wakes at each of these events; its value is the number of the newest.
    pub fn subscribe_events(&self, of: &Of) -> watch::Receiver<u64> {
        if of.operations { self.operation_events.subscribe() } else { self.events.subscribe() }
    }

    /// Closes the database, so that another scheduler can lead.
    pub async fn close(&self) {
        self.log.end();
        let closed = async {
            self.pool.close().await;
            self.writer.lock().await.pool.close().await;
        };
        // A server that does not answer ends its sessions by itself; a file is left as it should be.
        match self.lead.fence() {
            Some(_) => drop(timeout(CLOSE, closed).await),
            None => closed.await,
        }
        self.lead.hand_over().await;
    }
}

impl Current {
    /// What is in the database, and the number of the last event.
    async fn read(writer: &Pool<Db>) -> Result<(Current, u64)> {
        let (mut current, mut sql) = (Current::default(), writer.acquire().await?);
        for rows in labs::load_all(&mut sql).await? {
            current.put(rows);
        }
        for operation in operations::active(&mut sql).await? {
            current.put_operation(Arc::new(operation));
        }
        let last = events::last(&mut sql).await?;
        Ok((current, last))
    }

    fn put(&mut self, rows: LabRows) {
        for wire in self.labs.get(&rows.lab.uid).map(|old| old.wire_ids()).unwrap_or_default() {
            self.wires.remove(&wire);
        }
        self.forget_vnis(rows.lab.uid);
        self.vnis.extend(rows.links.values().filter_map(|link| link.vni));
        self.wires.extend(rows.wire_ids().into_iter().map(|w| (w, rows.lab.uid)));
        self.leave_hosts(rows.lab.uid);
        for host in &rows.hosts {
            self.on.entry(host.clone()).or_default().insert(rows.lab.uid);
        }
        self.names.insert(rows.lab.id.folded(), rows.lab.uid);
        self.labs.insert(rows.lab.uid, Arc::new(rows));
    }

    fn put_operation(&mut self, operation: Arc<OperationRow>) {
        match operation.state {
            OperationState::Running => drop(self.operations.insert(operation.id, operation)),
            _ => drop(self.operations.remove(&operation.id)),
        }
    }

    fn forget_vnis(&mut self, lab: LabUid) {
        for vni in self.labs.get(&lab).into_iter().flat_map(|rows| rows.links.values()).filter_map(|l| l.vni)
        {
            self.vnis.remove(&vni);
        }
    }

    fn remove(&mut self, lab: LabUid) {
        self.forget_vnis(lab);
        self.leave_hosts(lab);
        let Some(rows) = self.labs.remove(&lab) else { return };
        self.names.remove(&rows.lab.id.folded());
        self.wires.retain(|_, l| *l != lab);
        self.revisions.remove(&lab);
    }

    /// Takes a lab from the hosts that it is on.
    fn leave_hosts(&mut self, lab: LabUid) {
        for host in self.labs.get(&lab).into_iter().flat_map(|rows| &rows.hosts) {
            if let Entry::Occupied(mut labs) = self.on.entry(host.clone()) {
                labs.get_mut().remove(&lab);
                if labs.get().is_empty() {
                    labs.remove();
                }
            }
        }
    }
}

/// A write under way. Dropped without a commit, it leaves nothing.
pub struct Tx<'s> {
    name: &'static str,
    store: &'s Store,
    sql: Transaction<'static, Db>,
    writer: MutexGuard<'s, Writer>,
    staged: Vec<(LabUid, Option<LabRows>)>,
    /// The generations that hosts had when this write looked at what is reserved there.
    generations: BTreeMap<HostId, i64>,
    /// Operations that this write begins, changes or ends.
    operations: Vec<Arc<OperationRow>>,
    /// Events that are numbered and written when it is made to last.
    events: Vec<Event>,
    now: i64,
}

impl Tx<'_> {
    /// The time that this write carries.
    pub fn now(&self) -> i64 {
        self.now
    }

    /// The rows of a lab, with what this write has changed already.
    pub fn rows(&self, lab: LabUid) -> Option<Arc<LabRows>> {
        match self.staged.iter().rev().find(|(uid, _)| *uid == lab) {
            Some((_, staged)) => staged.clone().map(Arc::new),
            None => self.store.rows(lab),
        }
    }

    /// Looks at the network identifiers that links have, those that are being removed and those that this write gave included.
    pub fn vnis<T>(&self, look: impl FnOnce(&BTreeSet<u32>) -> T) -> T {
        let links = self.staged.iter().flat_map(|(_, rows)| rows.iter().flat_map(|rows| rows.links.values()));
        let staged: BTreeSet<u32> = links.filter_map(|link| link.vni).collect();
        self.store.vnis(|taken| match staged.is_empty() {
            true => look(taken),
            false => look(&(taken | &staged)),
        })
    }

    /// Makes it last, then wakes who waits.
    pub async fn commit(mut self) -> Result<()> {
        if !self.events.is_empty() {
            let last = events::write(&mut self.sql, &mut self.events).await?;
            if last >= self.writer.prune_at {
                events::prune_to(&mut self.sql, last.saturating_sub(self.store.events_kept)).await?;
                self.writer.prune_at = last + (self.store.events_kept / 10).max(PRUNE_STEP);
            }
        }
        fail_point::pass(self.name, "before");
        let sql = self.sql;
        let commit = self.writer.bounded(async { Ok(sql.commit().await?) });
        let committed = figures::COMMITS.time(&[self.name], commit).await;
        if committed.is_err() && self.writer.fence.is_some() {
            self.store.lead.lose(lead::UNSURE);
        }
        committed?;
        fail_point::pass(self.name, "after");
        let is_over = |o: &&Arc<OperationRow>| o.state != OperationState::Running;
        self.operations.iter().filter(is_over).for_each(|o| figures::ended(o));
        let revision = self.store.revision() + 1;
        let mut hosts = BTreeSet::new();
        {
            let mut current = self.store.current.write().expect("no holder panics");
            for (lab, rows) in self.staged {
                hosts.extend(current.labs.get(&lab).into_iter().flat_map(|before| before.hosts.clone()));
                match rows {
                    Some(rows) => {
                        hosts.extend(rows.hosts.iter().cloned());
                        current.put(rows);
                        current.revisions.insert(lab, revision);
                    }
                    None => current.remove(lab),
                }
            }
            self.operations.into_iter().for_each(|operation| current.put_operation(operation));
        }
        // Still under the writer's lock: nobody sees a revision without its rows, or two in the wrong order.
        self.store.revision.send_replace(revision);
        hosts.iter().for_each(|host| self.store.bells.ring(host));
        if let Some(last) = self.events.last() {
            self.store.events.send_replace(last.sequence);
        }
        if let Some(last) = self.events.iter().rfind(|event| matches!(event.object, Object::Operation(_))) {
            self.store.operation_events.send_replace(last.sequence);
        }
        Ok(())
    }
}

impl Store {
    /// Which of these nodes are known to have been removed.
    pub async fn removed_of(&self, uids: &[NodeUid]) -> Result<Vec<NodeUid>> {
        let mut sql = self.pool.acquire().await?;
        let mut removed = Vec::new();
        for uid in uids {
            let found = sqlx::query("SELECT uid FROM removed WHERE uid = $1")
                .bind(uid.to_string())
                .fetch_optional(&mut *sql)
                .await?;
            removed.extend(found.map(|_| *uid));
        }
        Ok(removed)
    }

    /// Which of these wire ids are known to have been removed.
    pub async fn removed_wires_of(&self, wires: &[WireId]) -> Result<Vec<WireId>> {
        let mut sql = self.pool.acquire().await?;
        let mut removed = Vec::new();
        for wire in wires {
            let found = sqlx::query("SELECT id FROM wire_ids WHERE id = $1 AND removed_us IS NOT NULL")
                .bind(number(wire.get()))
                .fetch_optional(&mut *sql)
                .await?;
            removed.extend(found.map(|_| *wire));
        }
        Ok(removed)
    }
}

fn number(n: impl TryInto<i64>) -> i64 {
    n.try_into().unwrap_or(i64::MAX)
}

fn unsigned(column: &'static str, n: i64) -> Result<u64> {
    u64::try_from(n).map_err(|_| Error::Row { column, value: n.to_string() })
}

fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("rows always serialise: their maps have string keys")
}

fn from_json<T: DeserializeOwned>(column: &'static str, text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|_| Error::Row { column, value: text.to_owned() })
}

fn parse<T: std::str::FromStr>(column: &'static str, text: &str) -> Result<T> {
    text.parse().map_err(|_| Error::Row { column, value: text.to_owned() })
}

/// A unit enum's word, as serde spells it.
fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

fn from_word<T: DeserializeOwned>(column: &'static str, text: &str) -> Result<T> {
    serde_json::from_value(serde_json::Value::String(text.to_owned()))
        .map_err(|_| Error::Row { column, value: text.to_owned() })
}
