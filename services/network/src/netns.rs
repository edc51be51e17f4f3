//! Which instances compute has published: files `<node uid>.<start id>` in `<run-dir>/netns`, each a bind mount of a running container's network
//! namespace, or a regular file that tells of a running virtual machine ([`netloom_service::handover`]). One whose process is no more is none.
//!
//! The file exists an instant before the mount is on it, and mounting makes no event: compute lets another name come and go when a change is
//! whole, and a file that is not a namespace yet is looked at again soon. When two starts of a node are there at once, the one that came later counts.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use netloom_model::id::NodeUid;
use netloom_service::handover::Machine;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::statfs::{NSFS_MAGIC, statfs};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use crate::error::Error;

/// How long until a file that is no namespace yet is looked at again, and how often.
const SOON: (Duration, u32) = (Duration::from_millis(5), 100);
/// How long until the directory is listed though nothing was heard: mounts and unmounts make no event.
const NOW_AND_THEN: Duration = Duration::from_secs(1);

/// A running instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// Which start it is.
    pub id: String,
    /// The file: of a container, its network namespace.
    pub path: PathBuf,
    /// What it is when it is a virtual machine, which has no namespace.
    pub machine: Option<Machine>,
}

/// The current start of each node.
pub type Starts = BTreeMap<NodeUid, Start>;

struct Events(Inotify);

impl AsRawFd for Events {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// Watches the directory, which is made when it is missing. What is published already is known when this returns.
pub fn watch(directory: &Path) -> Result<watch::Receiver<Arc<Starts>>, Error> {
    let failed = |source: io::Error| Error::Kernel {
        what: "the directory of published network namespaces cannot be watched",
        source,
    };
    std::fs::create_dir_all(directory).map_err(failed)?;
    let inotify =
        Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).map_err(|e| failed(e.into()))?;
    let flags = AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_MOVED_TO
        | AddWatchFlags::IN_MOVED_FROM
        | AddWatchFlags::IN_ATTRIB
        | AddWatchFlags::IN_UNMOUNT;
    inotify.add_watch(directory, flags).map_err(|e| failed(e.into()))?;
    // SAFETY: the instance owns its descriptor and keeps it for as long as it lives.
    let events = unsafe { AsyncFd::register_with_interest(Events(inotify), Interest::READABLE) };
    let events = events.map_err(|e| failed(e.into()))?;
    let mut listing = Listing { directory: directory.to_owned(), seen: HashMap::new(), count: 0 };
    let (starts, _) = listing.read();
    let (publish, published) = watch::channel(Arc::new(starts));
    tokio::spawn(run(events, listing, publish));
    Ok(published)
}

async fn run(events: AsyncFd<Events>, mut listing: Listing, publish: watch::Sender<Arc<Starts>>) {
    let mut looks = SOON.1;
    loop {
        tokio::select! {
            ready = events.readable() => {
                if let Ok(mut guard) = ready {
                    guard.clear_ready();
                }
                while events.get_ref().0.read_events().is_ok_and(|e| !e.is_empty()) {}
                looks = SOON.1;
            }
            () = tokio::time::sleep(if looks > 0 { SOON.0 } else { NOW_AND_THEN }) => looks = looks.saturating_sub(1),
            () = publish.closed() => return,
        }
        let (starts, unfinished) = listing.read();
        if !unfinished {
            looks = 0;
        }
        publish.send_if_modified(|published| {
            let changed = **published != starts;
            if changed {
                *published = Arc::new(starts);
            }
            changed
        });
    }
}

struct Listing {
    directory: PathBuf,
    /// Files, in the order in which they were first seen.
    seen: HashMap<String, u64>,
    count: u64,
}

impl Listing {
    /// The starts, and whether some file is not a namespace yet.
    fn read(&mut self) -> (Starts, bool) {
        let entries = std::fs::read_dir(&self.directory).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.filter_map(|e| e.file_name().into_string().ok()).collect();
        names.sort_unstable();
        let there: HashSet<&String> = names.iter().collect();
        self.seen.retain(|name, _| there.contains(name));
        let (mut newest, mut unfinished) = (BTreeMap::<NodeUid, (u64, Start)>::new(), false);
        for name in &names {
            let Some((uid, id)) = name.split_once('.') else { continue };
            let Ok(uid) = uid.parse() else { continue };
            let path = self.directory.join(name);
            let machine = if is_namespace(&path) { None } else { Machine::read(&path) };
            let is_there = machine.as_ref().map_or_else(|| is_namespace(&path), Machine::is_alive);
            if !is_there {
                unfinished |= machine.is_none();
                self.seen.remove(name);
                continue;
            }
            let order = *self.seen.entry(name.clone()).or_insert_with(|| {
                self.count += 1;
                self.count
            });
            if newest.get(&uid).is_none_or(|(other, _)| *other < order) {
                newest.insert(uid, (order, Start { id: id.to_owned(), path, machine }));
            }
        }
        (newest.into_iter().map(|(uid, (_, start))| (uid, start)).collect(), unfinished)
    }
}

/// True when a namespace is mounted on the file.
pub fn is_namespace(path: &Path) -> bool {
    statfs(path).is_ok_and(|fs| fs.filesystem_type() == NSFS_MAGIC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_file_is_not_a_start_yet() {
        let dir = tempfile::tempdir().unwrap();
        let mut listing = Listing { directory: dir.path().to_owned(), seen: HashMap::new(), count: 0 };
        assert_eq!(listing.read(), (Starts::new(), false));
        std::fs::write(dir.path().join("README"), "").unwrap();
        assert_eq!(listing.read(), (Starts::new(), false), "not a node's");
        std::fs::write(dir.path().join(format!("{}.1", NodeUid::new())), "").unwrap();
        assert_eq!(listing.read(), (Starts::new(), true));
        assert!(is_namespace(Path::new("/proc/self/ns/net")));
    }

    #[test]
    fn the_later_start_counts() {
        // A link to a namespace stands in for a mount of one.
        let dir = tempfile::tempdir().unwrap();
        let mut listing = Listing { directory: dir.path().to_owned(), seen: HashMap::new(), count: 0 };
        let uid = NodeUid::new();
        let publish = |start: &str| {
            let path = dir.path().join(format!("{uid}.{start}"));
            std::os::unix::fs::symlink("/proc/self/ns/net", path).unwrap();
        };
        let current = |listing: &mut Listing| listing.read().0.get(&uid).map(|s| s.id.clone());
        publish("9.x");
        assert_eq!(current(&mut listing).as_deref(), Some("9.x"));
        publish("1");
        assert_eq!(current(&mut listing).as_deref(), Some("1"));
        std::fs::remove_file(dir.path().join(format!("{uid}.1"))).unwrap();
        assert_eq!(current(&mut listing).as_deref(), Some("9.x"));
    }
}
