//! The database: all SQL is here and below.
//!
//! ```text
//! begin ─► rows of a lab (as last committed) ─► save(before, after): difference + events ─► commit ─► wakes who waits on the revision
//! ```
//!
//! One writer at a time: events are numbered under its lock, without a gap. The rows as last committed are kept in memory too, so that reconcilers
//! compare without asking the database; they change only after a commit, so a crash at any point leaves what was committed and nothing else.
//! Statements use `$1` placeholders and plain types, so that PostgreSQL is a second migration folder and another [`Db`].

mod events;
mod files;
mod hosts;
mod labs;
mod lists;
mod operations;
mod write;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use netloom_model::id::{LabUid, NodeUid, OperationId, WireId};
use netloom_service::fail_point;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Connection as _, Pool, Transaction};
use tokio::sync::{Mutex, MutexGuard, watch};

pub use self::events::{Event, Interface, LabView, LinkView, NodeView, Object, Of, Reading, progress};
pub use self::lists::Page;
use crate::error::{Error, Result};
use crate::figures;
use crate::rows::{LabRows, OperationRow, OperationState, now_us};

/// The database in use.
pub type Db = sqlx::Sqlite;
type Connection = sqlx::SqliteConnection;

/// Begins a write: with the lock that it needs, so that it never has to be begun again.
const BEGIN: &str = "BEGIN IMMEDIATE";
/// How many events are deleted at once at least.
const PRUNE_STEP: u64 = 10;

/// The database, and the rows as last committed.
pub struct Store {
    pool: Pool<Db>,
    writer: Mutex<Writer>,
    current: RwLock<Current>,
    revision: watch::Sender<u64>,
    events: watch::Sender<u64>,
    operation_events: watch::Sender<u64>,
    events_kept: u64,
}

struct Writer {
    pool: Pool<Db>,
    prune_at: u64,
}

#[derive(Default)]
struct Current {
    labs: BTreeMap<LabUid, Arc<LabRows>>,
    names: HashMap<String, LabUid>,
    wires: HashMap<WireId, LabUid>,
    /// Those that are under way.
    operations: BTreeMap<OperationId, Arc<OperationRow>>,
}

impl Store {
    /// Opens the database, makes or updates its schema, and reads all rows.
    pub async fn open(path: &Path, events_kept: u64) -> Result<Store> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // What was answered survives a power cut.
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(5));
        let writer = SqlitePoolOptions::new().max_connections(1).connect_with(options.clone()).await?;
        sqlx::migrate!("migrations/sqlite").run(&writer).await?;
        let pool = SqlitePoolOptions::new().max_connections(4).connect_with(options.read_only(true)).await?;
        let mut current = Current::default();
        for rows in labs::load_all(&mut *writer.acquire().await?).await? {
            current.put(rows);
        }
        for operation in operations::active(&mut *writer.acquire().await?).await? {
            current.put_operation(Arc::new(operation));
        }
        let last = events::last(&mut *writer.acquire().await?).await?;
        Ok(Store {
            pool,
            writer: Mutex::new(Writer { pool: writer, prune_at: 0 }),
            current: RwLock::new(current),
            revision: watch::Sender::new(0),
            events: watch::Sender::new(last),
            operation_events: watch::Sender::new(last),
            events_kept,
        })
    }

    /// Starts a write, which has a name for who looks for its traces. There is one at a time.
    pub async fn begin(&self, name: &'static str) -> Result<Tx<'_>> {
        let writer = self.writer.lock().await;
        let sql = match writer.pool.begin_with(BEGIN).await {
            Ok(sql) => sql,
            Err(e) => {
                // A write that the database itself took back, for want of room, leaves a connection that begins no other one.
                tracing::warn!(error = %e, "a write cannot begin; it is tried over a new connection");
                writer.pool.acquire().await?.detach().close().await?;
                writer.pool.begin_with(BEGIN).await?
            }
        };
        Ok(Tx {
            name,
            store: self,
            sql,
            writer,
            staged: Vec::new(),
            operations: Vec::new(),
            events: Vec::new(),
            last_event: None,
            now: now_us(),
        })
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

    /// The lab that a wire id belongs to.
    pub fn lab_of_wire(&self, wire: WireId) -> Option<LabUid> {
        self.current.read().expect("no holder panics").wires.get(&wire).copied()
    }

    /// The operations that are under way, as last committed.
    pub fn active_operations(&self) -> Vec<Arc<OperationRow>> {
        self.current.read().expect("no holder panics").operations.values().cloned().collect()
    }

    /// The number of the last commit since the start.
    pub fn revision(&self) -> u64 {
        *self.revision.borrow()
    }

    /// Wakes at each commit.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    /// Wakes at each of these events; its value is the number of the newest.
    pub fn subscribe_events(&self, of: &Of) -> watch::Receiver<u64> {
        if of.operations { self.operation_events.subscribe() } else { self.events.subscribe() }
    }

    /// Closes the database.
    pub async fn close(&self) {
        self.pool.close().await;
        self.writer.lock().await.pool.close().await;
    }
}

impl Current {
    fn put(&mut self, rows: LabRows) {
        for wire in self.labs.get(&rows.lab.uid).map(|old| old.wire_ids()).unwrap_or_default() {
            self.wires.remove(&wire);
        }
        self.wires.extend(rows.wire_ids().into_iter().map(|w| (w, rows.lab.uid)));
        self.names.insert(rows.lab.id.folded(), rows.lab.uid);
        self.labs.insert(rows.lab.uid, Arc::new(rows));
    }

    fn put_operation(&mut self, operation: Arc<OperationRow>) {
        match operation.state {
            OperationState::Running => drop(self.operations.insert(operation.id, operation)),
            _ => drop(self.operations.remove(&operation.id)),
        }
    }

    fn remove(&mut self, lab: LabUid) {
        let Some(rows) = self.labs.remove(&lab) else { return };
        self.names.remove(&rows.lab.id.folded());
        self.wires.retain(|_, l| *l != lab);
    }
}

/// A write under way. Dropped without a commit, it leaves nothing.
pub struct Tx<'s> {
    name: &'static str,
    store: &'s Store,
    sql: Transaction<'static, Db>,
    writer: MutexGuard<'s, Writer>,
    staged: Vec<(LabUid, Option<LabRows>)>,
    /// Operations that this write begins, changes or ends.
    operations: Vec<Arc<OperationRow>>,
    /// Events that are written when it is made to last.
    events: Vec<Event>,
    last_event: Option<u64>,
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

    /// Makes it last, then wakes who waits.
    pub async fn commit(mut self) -> Result<()> {
        if let Some(last) = self.last_event {
            events::write(&mut self.sql, &self.events).await?;
            events::set_last(&mut self.sql, last).await?;
            if last >= self.writer.prune_at {
                events::prune_to(&mut self.sql, last.saturating_sub(self.store.events_kept)).await?;
                self.writer.prune_at = last + (self.store.events_kept / 10).max(PRUNE_STEP);
            }
        }
        fail_point::pass(self.name, "before");
        figures::COMMITS.time(&[self.name], self.sql.commit()).await?;
        fail_point::pass(self.name, "after");
        let is_over = |o: &&Arc<OperationRow>| o.state != OperationState::Running;
        self.operations.iter().filter(is_over).for_each(|o| figures::ended(o));
        {
            let mut current = self.store.current.write().expect("no holder panics");
            for (lab, rows) in self.staged {
                match rows {
                    Some(rows) => current.put(rows),
                    None => current.remove(lab),
                }
            }
            self.operations.into_iter().for_each(|operation| current.put_operation(operation));
        }
        // Still under the writer's lock: nobody sees a revision without its rows, or two in the wrong order.
        self.store.revision.send_modify(|n| *n += 1);
        if let Some(last) = self.last_event {
            self.store.events.send_replace(last);
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
