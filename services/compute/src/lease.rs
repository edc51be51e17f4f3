//! Leases: what another host may make anew is not run any longer than this host knows that none does.
//!
//! ```text
//! a word of this host, with its time ─► the scheduler hears it ─► Renew, with that time ─► leases go on from there
//!                                    └─► hears nothing for longer than the lease ─► makes it anew elsewhere
//! ```
//!
//! A lease is counted from when this host said something, not from when an answer came: however late that was, the lease is over here before whoever heard the word last takes it for over. Only
//! lengths of time are compared, by a clock that goes on while the machine sleeps and that nobody sets.
//!
//! What is to run is said with such a time, too. What was made out before this host had its leases back, or was told of something newer, may be of a time before instances were given up, however
//! late it comes: it is refused.
//!
//! Leases are kept in a file, for a service that starts again while it is cut off. After a reboot nothing is known of the time between, so all of them are over.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use netloom_model::id::NodeUid;
use netloom_model::slice::Instance;
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::host::Host;

/// How often it is looked which leases are over.
const LOOK: Duration = Duration::from_millis(500);
/// How far the time of the last renewal in the file may be behind: a service that starts again stops what it has so much sooner.
const BEHIND_MS: u64 = 5_000;

/// See the module.
pub struct Lease {
    path: PathBuf,
    /// Names the run of the machine that times are of.
    boot: String,
    now: Mutex<Now>,
}

struct Now {
    kept: Kept,
    /// What was made out before then counts for nothing.
    since_ms: u64,
    /// What of the renewal is in the file.
    written_ms: Option<u64>,
}

/// What is in the file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Kept {
    boot: String,
    /// Since when the leases go on, in milliseconds since the machine started; none: they are over.
    renewed_ms: Option<u64>,
    /// Instances with a lease, and how long that is, in seconds.
    leases: BTreeMap<NodeUid, u32>,
}

impl Kept {
    /// The instances whose lease is over.
    fn over(&self, now_ms: u64) -> BTreeSet<NodeUid> {
        let age_ms = self.renewed_ms.map_or(u64::MAX, |at| now_ms.saturating_sub(at));
        let is_over = |(_, seconds): &(&NodeUid, &u32)| age_ms > u64::from(**seconds) * 1_000;
        self.leases.iter().filter(is_over).map(|(uid, _)| *uid).collect()
    }
}

impl Now {
    /// Leases go on from a word.
    fn renew(&mut self, at_ms: u64, now_ms: u64) {
        if !self.kept.over(now_ms).is_empty() {
            self.since_ms = self.since_ms.max(at_ms);
        }
        self.kept.renewed_ms = self.kept.renewed_ms.max(Some(at_ms));
    }

    fn is_behind(&self) -> bool {
        let written = self.written_ms.unwrap_or_default();
        !self.kept.leases.is_empty() && self.kept.renewed_ms.unwrap_or_default() >= written + BEHIND_MS
    }
}

impl Lease {
    /// As it was left.
    pub fn open(path: PathBuf) -> io::Result<Lease> {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned();
        let mut kept: Kept = match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).unwrap_or_else(|error| {
                tracing::warn!(%error, path = %path.display(), "the leases of instances cannot be read: none is known to have one");
                Kept::default()
            }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Kept::default(),
            Err(e) => return Err(e),
        };
        if kept.boot != boot {
            (kept.boot, kept.renewed_ms) = (boot.clone(), None);
        }
        let now = Now { written_ms: kept.renewed_ms, kept, since_ms: now_ms() };
        Ok(Lease { path, boot, now: Mutex::new(now) })
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().expect("no holder panics")
    }

    /// What is said with each word of this host.
    pub fn beat(&self) -> String {
        format!("{}/{}", self.boot, now_ms())
    }

    /// When this was said; none where it was not said in this run of the machine.
    fn said_ms(&self, beat: &str) -> Option<u64> {
        let (boot, at) = beat.split_once('/')?;
        at.parse().ok().filter(|at| boot == self.boot && *at <= now_ms())
    }

    /// Whoever leads heard the word with this time.
    pub fn renew(&self, beat: &str) {
        let Some(at_ms) = self.said_ms(beat) else { return };
        let mut now = self.now();
        now.renew(at_ms, now_ms());
        if now.is_behind() {
            let kept = now.kept.clone();
            match self.write(&kept) {
                Ok(()) => now.written_ms = kept.renewed_ms,
                Err(error) => tracing::warn!(%error, "a service that starts again stops what it has sooner"),
            }
        }
    }

    /// These instances have such leases from now on; with `all`, and no others have one. On disk before any of them runs by it. It was made out after the word with this time was heard.
    pub fn keep(&self, beat: &str, instances: &[Instance], all: bool) -> Result<(), Error> {
        let mut now = self.now();
        let said_ms = self.said_ms(beat);
        let has_leases = !now.kept.leases.is_empty() || instances.iter().any(|i| i.lease.is_some());
        // A scheduler of an earlier version says nothing.
        if has_leases && !beat.is_empty() && said_ms.is_none_or(|at| at < now.since_ms) {
            return Err(Error::Overtaken);
        }
        let mut leases = if all { BTreeMap::new() } else { now.kept.leases.clone() };
        for instance in instances {
            match instance.lease {
                None => drop(leases.remove(&instance.uid)),
                Some(lease) => drop(leases.insert(instance.uid, lease.seconds)),
            }
        }
        self.put(&mut now, leases)?;
        if all {
            now.since_ms = now.since_ms.max(said_ms.unwrap_or_default());
        }
        Ok(())
    }

    /// Such instances are gone.
    pub fn forget(&self, is_gone: impl Fn(&NodeUid) -> bool) -> Result<(), Error> {
        let mut now = self.now();
        let mut leases = now.kept.leases.clone();
        leases.retain(|uid, _| !is_gone(uid));
        self.put(&mut now, leases)
    }

    fn put(&self, now: &mut Now, leases: BTreeMap<NodeUid, u32>) -> Result<(), Error> {
        if leases != now.kept.leases {
            let kept = Kept { leases, ..now.kept.clone() };
            self.write(&kept)?;
            (now.written_ms, now.kept) = (kept.renewed_ms, kept);
        }
        Ok(())
    }

    fn write(&self, kept: &Kept) -> Result<(), Error> {
        let text = serde_json::to_vec(kept).expect("these types always serialise");
        let draft = self.path.with_extension("new");
        let written = || {
            if let Some(directory) = self.path.parent() {
                fs::create_dir_all(directory)?;
            }
            fs::write(&draft, text)?;
            fs::File::open(&draft)?.sync_all()?;
            fs::rename(&draft, &self.path)
        };
        let doing = || format!("the leases of instances cannot be kept in {}", self.path.display());
        written().map_err(|e| Error::host(doing(), e))
    }

    /// The instances whose lease is over now.
    pub fn over(&self) -> BTreeSet<NodeUid> {
        self.now().kept.over(now_ms())
    }
}

/// Milliseconds since the machine started, sleep included.
fn now_ms() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// Stops what has no lease any more until shut down.
pub async fn run(host: Arc<Host>) {
    loop {
        host.look_at_leases();
        tokio::select! {
            () = host.shutdown.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use netloom_model::slice;

    use super::*;
    use crate::driver::testing::instance;

    fn leased(seconds: u32) -> Instance {
        let lease = (seconds > 0).then_some(slice::Lease { seconds, generation: 1 });
        Instance { uid: NodeUid::new(), lease, ..instance() }
    }

    #[test]
    fn a_lease_goes_on_from_when_the_word_was_said_that_is_answered() {
        let (a, b) = (NodeUid::new(), NodeUid::new());
        let kept = Kept { leases: [(a, 40), (b, 60)].into(), ..Kept::default() };
        let mut now = Now { kept, since_ms: 0, written_ms: None };
        assert_eq!(now.kept.over(5), [a, b].into(), "none was renewed");
        now.renew(1_000, 30_000);
        assert_eq!(now.kept.over(41_000), [].into());
        assert_eq!(now.kept.over(41_001), [a].into());
        assert_eq!(now.kept.over(61_001), [a, b].into());
        // An answer that comes late renews nothing that is over.
        now.renew(2_000, 90_000);
        assert_eq!(now.kept.over(90_000), [a, b].into());
        now.renew(89_000, 90_000);
        assert_eq!((now.kept.over(90_000), now.since_ms), ([].into(), 89_000));
        // One that was overtaken by another takes nothing back, and as long as leases go on nothing is refused that was made out before.
        now.renew(3_000, 91_000);
        now.renew(90_500, 91_000);
        assert_eq!((now.kept.renewed_ms, now.since_ms), (Some(90_500), 89_000));
    }

    #[test]
    fn what_was_made_out_before_leases_were_lost_is_refused_however_late_it_comes() {
        let dir = tempfile::tempdir().unwrap();
        let lease = Lease::open(dir.path().join("lease")).unwrap();
        let at = |ms: u64| format!("{}/{ms}", lease.boot);
        let (one, free) = (leased(40), leased(0));
        let is_taken =
            |beat: &str, of: &Instance, all| lease.keep(beat, std::slice::from_ref(of), all).is_ok();
        let now = now_ms();
        for other in ["x/1", "x", &at(now + 100_000), &at(now.saturating_sub(1_000))] {
            assert!(!is_taken(other, &one, false), "{other}");
            assert!(is_taken(other, &free, false), "who has no leases is not asked for");
        }
        std::thread::sleep(Duration::from_millis(20));
        let (stale, fresh) = (at(now + 1), at(now + 10));
        assert!(is_taken(&stale, &one, true) && is_taken(&fresh, &one, true));
        assert!(!is_taken(&stale, &one, false) && !is_taken(&stale, &free, true), "a Sync overtook it");
        assert_eq!(lease.now().kept.leases, [(one.uid, 40)].into());
        // The lease was never renewed: it is over until it is.
        assert_eq!(lease.over(), [one.uid].into());
        std::thread::sleep(Duration::from_millis(20));
        let back = lease.beat();
        lease.renew(&back);
        assert!(lease.over().is_empty() && !is_taken(&fresh, &one, true) && is_taken(&back, &one, true));
        // A scheduler of an earlier version knows no leases.
        assert!(is_taken("", &free, true) && lease.now().kept.leases.is_empty());
    }

    #[test]
    fn a_service_that_starts_again_knows_the_leases_and_after_a_reboot_they_are_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("compute/lease");
        let lease = Lease::open(path.clone()).unwrap();
        let one = leased(40);
        lease.renew(&lease.beat());
        lease.keep(&lease.beat(), &[one.clone(), leased(0)], true).unwrap();
        assert!(lease.over().is_empty());
        let again = Lease::open(path.clone()).unwrap();
        assert!(again.over().is_empty(), "it was renewed just now");
        assert_eq!(again.now().kept.leases, [(one.uid, 40)].into());
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace(&lease.boot, "another")).unwrap();
        let rebooted = Lease::open(path.clone()).unwrap();
        assert_eq!(rebooted.over(), [one.uid].into());
        rebooted.renew(&lease.beat());
        assert!(rebooted.over().is_empty());
        rebooted.forget(|uid| *uid == one.uid).unwrap();
        assert!(Lease::open(path).unwrap().now().kept.leases.is_empty());
    }
}
