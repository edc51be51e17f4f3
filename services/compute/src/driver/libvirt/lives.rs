//! What is known of starts beyond what libvirt tells: which is being made, how long one ran, its QEMU, and that this has ended.
//!
//! libvirt tells of a QEMU that died once it has cleared up after it, which takes seconds, in which it answers nothing about it. A pidfd tells at once; until libvirt has said so too, what was read last stands, as ended.
//! That a guest switched itself off, libvirt says before it ends the QEMU, but its word comes another way and may be the later one: once such machines counted as killed and were started again. It is waited for, a little.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use netloom_model::id::NodeUid;
use netloom_service::handover::Machine;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{Notify, broadcast};

use super::events::{Change, Event};
use super::read::Reading;
use crate::netns::pidfd_open;

/// News that a listener may lag behind.
const BACKLOG: usize = 1024;
/// How long libvirt may take to clear up after a QEMU that has ended.
pub const CLEARING: Duration = Duration::from_secs(30);
/// How long libvirt's word on how a QEMU came to end is waited for.
const WORD: Duration = Duration::from_millis(250);

/// See the module.
pub struct Lives {
    inner: Mutex<Inner>,
    news: broadcast::Sender<String>,
    /// libvirt said something.
    word: Notify,
}

/// By a machine's id.
#[derive(Default)]
struct Inner {
    /// What was seen of the last start.
    seen: BTreeMap<String, Life>,
    /// Those that are being started, as they were before: a domain says already which start it is to be, and does not run yet.
    starting: BTreeMap<String, Reading>,
}

struct Life {
    start: i64,
    /// When it was first seen to run.
    since: Instant,
    /// How long it ran, once it has ended.
    ran: Option<Duration>,
    /// As it was read last.
    last: Reading,
    /// Its QEMU; none when that was not found.
    machine: Option<Machine>,
    /// Its guest switched itself off.
    shut_down: bool,
    /// When its QEMU ended, as long as libvirt has not said so.
    died: Option<Instant>,
}

impl Lives {
    /// Nothing is known yet.
    pub fn new() -> Arc<Lives> {
        Arc::new(Lives { inner: Mutex::default(), news: broadcast::channel(BACKLOG).0, word: Notify::new() })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no holder panics")
    }

    /// Ids of machines that are to be looked at though libvirt does not say so: their QEMU ended, for instance.
    pub fn news(&self) -> broadcast::Sender<String> {
        self.news.clone()
    }

    /// It is about to be started.
    pub fn starts(&self, before: Reading) {
        self.lock().starting.insert(before.id.clone(), before);
    }

    /// It was started, or could not be. Either way libvirt had cleared up after its last QEMU, of whose end the pidfd may have told later than libvirt did.
    pub fn started(&self, id: &str) {
        let mut inner = self.lock();
        inner.starting.remove(id);
        if let Some(life) = inner.seen.get_mut(id) {
            life.died = None;
        }
    }

    /// It is removed.
    pub fn forget(&self, id: &str) {
        self.lock().seen.remove(id);
    }

    /// What was read, as it is: without a start that is not made yet, and dead when its QEMU is.
    pub fn judge(&self, mut reading: Reading) -> Reading {
        let inner = self.lock();
        if !reading.runs() {
            return inner.starting.get(&reading.id).cloned().unwrap_or(reading);
        }
        let is_over = |life: &&Life| life.start == reading.identity.started_ns && life.ran.is_some();
        if let Some(life) = inner.seen.get(&reading.id).filter(is_over) {
            reading.bury(life.shut_down);
        }
        reading
    }

    /// A machine whose QEMU has ended, as long as libvirt has not said so.
    pub async fn dead(&self, id: &str) -> Option<Reading> {
        loop {
            // From here on nothing that is said is missed.
            let word = self.word.notified();
            let (reading, wait) = self.buried(id)?;
            if wait.is_zero() {
                return Some(reading);
            }
            let _ = tokio::time::timeout(wait, word).await;
        }
    }

    /// The same, and for how long yet libvirt may say more of it.
    fn buried(&self, id: &str) -> Option<(Reading, Duration)> {
        let inner = self.lock();
        let life = inner.seen.get(id)?;
        let dead_for = life.died.map(|at| at.elapsed()).filter(|dead_for| *dead_for < CLEARING)?;
        let mut reading = life.last.clone();
        reading.bury(life.shut_down);
        let wait = if life.shut_down { Duration::ZERO } else { WORD.saturating_sub(dead_for) };
        Some((reading, wait))
    }

    /// libvirt told a change.
    pub fn told(&self, change: &Change) {
        if let Some(life) = self.lock().seen.get_mut(&change.id) {
            match change.event {
                Event::ShutDown => life.shut_down = true,
                Event::Stopped => life.died = None,
                Event::Other => {}
            }
        }
        self.word.notify_waiters();
    }

    /// Takes note of a machine, and answers how long its last start ran, as far as that was seen.
    pub async fn saw(self: &Arc<Self>, reading: &Reading) -> Duration {
        let start = reading.started_ns();
        if !reading.runs() {
            let mut inner = self.lock();
            let life = inner.seen.get_mut(&reading.id).filter(|life| life.start == start);
            return life.map_or(Duration::ZERO, |life| *life.ran.get_or_insert_with(|| life.since.elapsed()));
        }
        if !self.knows(&reading.id, start) {
            let since = Instant::now();
            let (machine, pidfd) = find(reading.id.clone()).await.unzip();
            // Another may have been faster.
            if self.knows(&reading.id, start) {
                return Duration::ZERO;
            }
            let last = reading.clone();
            let life = Life { start, since, ran: None, last, machine, shut_down: false, died: None };
            self.lock().seen.insert(reading.id.clone(), life);
            match pidfd {
                Some(pidfd) => self.watch(reading.id.clone(), start, pidfd),
                // libvirt tells of its end, only later.
                None => tracing::debug!(id = reading.id, "a QEMU cannot be watched"),
            }
        }
        Duration::ZERO
    }

    fn knows(&self, id: &str, start: i64) -> bool {
        self.lock().seen.get(id).is_some_and(|life| life.start == start)
    }

    fn watch(self: &Arc<Self>, id: String, start: i64, pidfd: OwnedFd) {
        // SAFETY: an OwnedFd is one open descriptor for as long as it lives.
        let watched = unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) };
        let lives = self.clone();
        tokio::spawn(async move {
            match watched {
                Ok(watched) if watched.readable().await.is_ok() => lives.died(&id, start),
                _ => tracing::debug!(id, "a QEMU cannot be watched"),
            }
        });
    }

    /// The QEMU of a machine that runs, as far as it was found.
    pub fn machine(&self, reading: &Reading) -> Option<Machine> {
        let inner = self.lock();
        let life = inner.seen.get(&reading.id).filter(|life| life.start == reading.started_ns())?;
        life.machine.clone().filter(|_| reading.runs())
    }

    /// The starts that run, by node.
    pub fn running(&self) -> Vec<(NodeUid, i64)> {
        let inner = self.lock();
        let running = inner.seen.values().filter(|life| life.ran.is_none());
        running.map(|life| (life.last.identity.uid, life.start)).collect()
    }

    /// False once that start of it was seen to have ended.
    pub fn runs(&self, id: &str, start: i64) -> bool {
        self.lock().seen.get(id).is_some_and(|life| life.start == start && life.ran.is_none())
    }

    fn died(&self, id: &str, start: i64) {
        if let Some(life) = self.lock().seen.get_mut(id).filter(|life| life.start == start) {
            // Ended already: libvirt was faster.
            if life.ran.is_none() {
                (life.ran, life.died) = (Some(life.since.elapsed()), Some(Instant::now()));
            }
        }
        // Nobody listening is fine.
        let _ = self.news.send(id.to_owned());
    }
}

/// A machine's QEMU, and what tells its end.
async fn find(id: String) -> Option<(Machine, OwnedFd)> {
    let find = move || {
        let pid = qemu_of(&id)?;
        let (pidfd, machine) = (pidfd_open(pid).ok()?, Machine::of(pid).ok()?);
        // Still the same after its descriptor was opened: the number was not given to another meanwhile.
        is_qemu_of(pid, &id).then_some((machine, pidfd))
    };
    tokio::task::spawn_blocking(find).await.ok().flatten()
}

/// The process that runs a machine: libvirt has no call that tells it, and gives QEMU the id as an argument.
fn qemu_of(id: &str) -> Option<i32> {
    let entries = std::fs::read_dir("/proc").ok()?.flatten();
    entries.filter_map(|e| e.file_name().to_str()?.parse().ok()).find(|pid| is_qemu_of(*pid, id))
}

fn is_qemu_of(pid: i32, id: &str) -> bool {
    let Ok(text) = std::fs::read(format!("/proc/{pid}/cmdline")) else { return false };
    let mut words = text.split(|b| *b == 0);
    words.next().is_some_and(|program| program.windows(4).any(|w| w == b"qemu"))
        && words.any(|w| w == b"-uuid")
        && words.next() == Some(id.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::super::read::tests::reading;
    use super::*;
    use crate::driver::Process;

    /// One that runs.
    fn alive() -> (Arc<Lives>, Reading) {
        let (lives, last) = (Lives::new(), reading(7));
        let (start, since) = (last.started_ns(), Instant::now());
        let life =
            Life { start, since, ran: None, last: last.clone(), machine: None, shut_down: false, died: None };
        lives.lock().seen.insert(last.id.clone(), life);
        (lives, last)
    }

    /// One whose QEMU has just ended.
    fn died() -> (Arc<Lives>, String) {
        let (lives, last) = alive();
        lives.died(&last.id, last.started_ns());
        (lives, last.id)
    }

    async fn code(lives: &Lives, id: &str) -> Option<i32> {
        match lives.dead(id).await?.process() {
            Process::Ended { code, .. } => Some(code),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_guest_that_switched_itself_off_was_not_killed_though_libvirt_says_so_later() {
        let (lives, id) = died();
        let (later, of) = (lives.clone(), id.clone());
        let says = tokio::spawn(async move {
            tokio::time::sleep(WORD / 5).await;
            later.told(&Change { id: of.clone(), event: Event::Other });
            tokio::time::sleep(WORD / 5).await;
            later.told(&Change { id: of, event: Event::ShutDown });
        });
        assert_eq!(code(&lives, &id).await, Some(0));
        says.await.unwrap();
        lives.told(&Change { id: id.clone(), event: Event::Stopped });
        assert_eq!(code(&lives, &id).await, None, "libvirt itself knows now");
    }

    /// The pidfd told of the end after libvirt had, nothing took that back, and a restarted machine was shown as ended for half a minute.
    #[tokio::test]
    async fn an_end_that_was_told_late_does_not_outlive_the_next_start() {
        let (lives, last) = alive();
        let (id, start) = (last.id.clone(), last.started_ns());
        lives.told(&Change { id: id.clone(), event: Event::Stopped });
        lives.died(&id, start);
        assert_eq!(code(&lives, &id).await, Some(137), "so far it is off");
        lives.starts(last);
        lives.started(&id);
        assert_eq!(code(&lives, &id).await, None, "it is asked again");
    }

    #[tokio::test]
    async fn one_of_which_libvirt_says_nothing_was_killed() {
        let (lives, id) = died();
        let asked = Instant::now();
        assert_eq!(code(&lives, &id).await, Some(137));
        assert!(asked.elapsed() < WORD * 4, "and that is said soon: {:?}", asked.elapsed());
    }
}
