//! Which of several schedulers on one database of PostgreSQL leads.
//!
//! ```text
//! stand by ─► lock of a session is free ─► term + 1 ─► read all rows ─► lead ─► lock or term is another's ─► end
//! ```
//!
//! The lock is the lease: the server gives it up when the leader's session ends, at once when its process ends, and after some seconds when its machine is
//! gone. The term is the fence: a leader that lost its session may not know yet, so each of its writes first looks whether the term is still its own, and holds
//! it until it is committed; a write of a former leader never comes after the next one began its term, and so never after it read the rows. SQLite needs neither:
//! its file is claimed by one process.
//!
//! The server cannot see that a process hangs whose sessions live. So the leader says each half second that it is there, by a statement in the session that holds the lock, and who stands by has
//! the server end that session when nothing came for some seconds, and with it a write that holds the term. The leader may just have been slow: then it finds another one's term and ends.
//!
//! A leader that the database does not answer gives itself up when the server gives it up: else it would say that it leads, and be asked, while another one does.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use netloom_bus::Bus;
use sqlx::{Connection as _, Executor as _, Row as _};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::hosts::set_meta;
use super::{Connection, Database};
use crate::error::Result;
use crate::rows::now_us;

/// Names the lock within a database.
const LOCK: &str = "SELECT pg_try_advisory_lock(5645678721347) AS led";
/// What the leader says in its session.
const BEAT: &str = "SELECT 1";
/// Ends sessions that hold the lock, or the row of the term in a write, and in which nothing happened for so long that the process hangs: five of its words are missing. With the time that a caller takes to
/// see that nobody answers, another one is to lead within five seconds.
const END_SILENT: &str = "SELECT count(pg_terminate_backend(a.pid)) AS ended FROM pg_stat_activity a \
    WHERE a.datname = current_database() AND a.pid <> pg_backend_pid() AND a.state LIKE 'idle%' \
    AND clock_timestamp() - a.state_change > interval '2500 milliseconds' \
    AND EXISTS (SELECT 1 FROM pg_locks l WHERE l.pid = a.pid AND l.granted AND (\
        l.locktype = 'advisory' AND l.objsubid = 1 AND CAST(l.classid AS BIGINT) = 5645678721347 >> 32 \
            AND CAST(l.objid AS BIGINT) = 5645678721347 & 4294967295 \
        OR l.locktype = 'relation' AND l.relation = to_regclass('meta') AND l.mode IN ('RowShareLock', 'RowExclusiveLock')))";
/// How often it is tried to lead, and looked whether the session still lives.
const LOOK: Duration = Duration::from_millis(500);
/// What who stands by is woken by: the lead was given up. The server may need a moment to see that the session is gone, so it is tried …
const FREED: &str = "lead";
/// … so often …
const AGAIN: Duration = Duration::from_millis(25);
/// … for so long.
const SOON: Duration = Duration::from_secs(1);
/// A session that takes longer to answer is given up.
const ANSWER: Duration = Duration::from_secs(2);
/// Without any answer for so long one does not lead any more: the server has ended its session by then.
const ALONE: Duration = Duration::from_secs(4);

/// Why one does not lead any more: another one does.
pub(super) const DEPOSED: &str = "another scheduler leads on the database now";
/// Why one does not lead any more: what it has in memory may not be what is in the database.
pub(super) const UNSURE: &str =
    "the database did not tell whether a write was committed: everything is to be read anew";
/// Why one does not lead any more: it cannot know whether another one does.
const CUT_OFF: &str = "the database has not answered for four seconds, and another scheduler may lead";

/// The lead, held until this is dropped.
pub struct Lead {
    lost: watch::Sender<Option<&'static str>>,
    /// The term that it leads in; 0 before it began one.
    term: Arc<AtomicU64>,
    bus: Arc<dyn Bus>,
    keeper: Option<AbortHandle>,
}

impl Lead {
    /// Waits until nobody else leads.
    pub(super) async fn take(database: &Database, bus: Arc<dyn Bus>) -> Result<Lead> {
        let (lost, term) = (watch::Sender::new(None), Arc::new(AtomicU64::new(0)));
        if database.file().is_some() {
            return Ok(Lead { lost, term, bus, keeper: None });
        }
        let mut freed = bus.listen(FREED).await;
        let (mut told, mut soon) = (false, Instant::now());
        let session = loop {
            match try_to_lead(database).await {
                Ok(Some(session)) => break session,
                Ok(None) if !told => tracing::info!(%database, "another scheduler leads: this one stands by"),
                // One that stands by waits for the database, too.
                Ok(None) => {}
                Err(e) if told => {
                    tracing::debug!(%database, "whether another scheduler leads is not known: {e}")
                }
                Err(e) => return Err(e),
            }
            told = true;
            tokio::select! {
                () = sleep(if Instant::now() < soon { AGAIN } else { LOOK }) => {}
                () = freed.next() => soon = Instant::now() + SOON,
            }
        };
        let keeper = tokio::spawn(keep(database.clone(), session, term.clone(), lost.clone())).abort_handle();
        Ok(Lead { lost, term, bus, keeper: Some(keeper) })
    }

    /// That of one who has none, and never loses it.
    pub(super) fn nobodys() -> Lead {
        let bus = netloom_bus::open(None).expect("a bus within a process always opens");
        Lead { lost: watch::Sender::new(None), term: Arc::default(), bus, keeper: None }
    }

    /// Begins the next term, which hosts hold against calls of former leaders. It is not lower than the time in seconds: hosts that served another database, or an
    /// older copy of this one, take it too.
    pub(super) async fn begin_term(&self, sql: &mut Connection) -> Result<u64> {
        let mut tx = sql.begin().await?;
        let before = term(&mut tx).await?.unwrap_or_default();
        let now = u64::try_from(now_us() / 1_000_000).unwrap_or_default();
        let next = now.max(before + 1);
        set_meta(&mut tx, "term", &next.to_string()).await?;
        tx.commit().await?;
        self.term.store(next, Ordering::Relaxed);
        Ok(next)
    }

    /// The term that must be in the database for every write, where others may lead.
    pub(super) fn fence(&self) -> Option<u64> {
        self.keeper.as_ref().map(|_| self.term.load(Ordering::Relaxed))
    }

    /// This one leads no more, because of this.
    pub(super) fn lose(&self, why: &'static str) {
        self.lost.send_replace(Some(why));
    }

    /// Gives the lead up, and wakes who stands by.
    pub(super) async fn hand_over(&self) {
        if let Some(keeper) = &self.keeper {
            keeper.abort();
            self.bus.wake(FREED).await;
        }
    }

    /// Waits until it is lost, and says why.
    pub(super) async fn lost(&self) -> &'static str {
        let mut lost = self.lost.subscribe();
        let lost = lost.wait_for(Option::is_some).await;
        lost.ok().and_then(|why| *why).unwrap_or(DEPOSED)
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        if let Some(keeper) = &self.keeper {
            keeper.abort();
        }
    }
}

/// The session that holds the lock; none when another one does. The session of one that hangs is ended.
async fn try_to_lead(database: &Database) -> Result<Option<Connection>> {
    let mut session = database.connect().await?;
    let led: bool = session.fetch_one(LOCK).await?.try_get("led")?;
    if led {
        return Ok(Some(session));
    }
    let ended: i64 = session.fetch_one(END_SILENT).await?.try_get("ended")?;
    if ended == 0 {
        return Ok(None);
    }
    tracing::warn!(%database, sessions = ended, "the scheduler that leads hangs: its sessions were ended");
    sleep(AGAIN).await;
    let led: bool = session.fetch_one(LOCK).await?.try_get("led")?;
    Ok(led.then_some(session))
}

/// The term in the database.
pub(super) async fn term(sql: &mut Connection) -> Result<Option<u64>> {
    let row = sqlx::query("SELECT value FROM meta WHERE key = 'term'").fetch_optional(sql).await?;
    let value = row.map(|row| row.try_get::<String, _>("value")).transpose()?;
    Ok(value.and_then(|value| value.parse().ok()))
}

/// Watches over the session, and takes the lock again when it was lost. Whoever has it then may be its own former session, of which the server does not know yet that it
/// is dead: another one leads when it has begun a term.
async fn keep(
    database: Database,
    mut session: Connection,
    own: Arc<AtomicU64>,
    lost: watch::Sender<Option<&'static str>>,
) {
    let mut answered = Instant::now();
    loop {
        sleep(LOOK).await;
        if timeout(ANSWER, session.execute(BEAT)).await.is_ok_and(|answer| answer.is_ok()) {
            answered = Instant::now();
            continue;
        }
        tracing::warn!(%database, "the session that holds the lead was lost");
        drop(session);
        session = loop {
            let again = async {
                let mut sql = database.connect().await?;
                let led = term(&mut sql).await?.is_some_and(|now| now != own.load(Ordering::Relaxed));
                if led { Ok(Err(())) } else { try_to_lead(&database).await.map(Ok) }
            };
            match timeout_at(answered + ALONE, again).await {
                Ok(Ok(Ok(Some(session)))) => break session,
                Ok(Ok(Err(()))) => {
                    lost.send_replace(Some(DEPOSED));
                    return;
                }
                Ok(Ok(Ok(None))) => answered = Instant::now(),
                Ok(Err(_)) => {}
                Err(_) => {
                    lost.send_replace(Some(CUT_OFF));
                    return;
                }
            }
            sleep(LOOK).await;
        };
        answered = Instant::now();
        tracing::info!(%database, "leads on, over a new session");
    }
}
