//! The hand-over to the network service: each running container's network namespace as a bind mount at `<run dir>/netns/<node uid>.<start id>`, and of
//! each running virtual machine a file that says which process runs it ([`netloom_service::handover`]).
//!
//! A mount keeps a namespace alive, and with it its interfaces; so it goes the moment the process ends, which a pidfd tells half a millisecond later, long before the runtime does.
//! A name appears before the namespace is mounted on it. Whoever watches the directory sees one more name come and go (`.changed`) after each change is whole.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use netloom_model::id::NodeUid;
use netloom_service::fail_point;
use netloom_service::handover::Machine;
use nix::libc;
use nix::mount::{MsFlags, mount};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::error::Error;
use crate::mounts;

/// The directory.
pub struct Netns {
    dir: PathBuf,
    /// What this service has published.
    published: Mutex<BTreeSet<Start>>,
}

/// A start of a node.
type Start = (NodeUid, String);

impl Netns {
    /// In this directory. For namespaces it becomes a shared mount: a forgotten copy of another kind would keep namespaces of dead nodes.
    pub fn open(dir: PathBuf, has_namespaces: bool) -> Result<Netns, Error> {
        let prepared = if has_namespaces { mounts::shared(&dir) } else { fs::create_dir_all(&dir) };
        prepared.map_err(|e| {
            Error::host(format!("cannot prepare {} for running instances (run as root)", dir.display()), e)
        })?;
        Ok(Netns { dir, published: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<Start>> {
        self.published.lock().expect("no holder panics")
    }

    fn path(&self, uid: NodeUid, start_id: &str) -> PathBuf {
        self.dir.join(format!("{uid}.{start_id}"))
    }

    /// Publishes the namespace of a running process and takes it back when that ends, which is then also told. False when it is published already.
    pub fn publish(
        self: &Arc<Self>,
        uid: NodeUid,
        start_id: &str,
        pid: i32,
        ended: impl FnOnce() + Send + 'static,
    ) -> io::Result<bool> {
        let mut published = self.lock();
        if published.contains(&(uid, start_id.to_owned())) {
            return Ok(false);
        }
        // The pidfd comes first: the process that lives after the namespace was opened is then the one it was opened of.
        let pidfd = pidfd_open(pid)?;
        let namespace = File::open(format!("/proc/{pid}/ns/net"))?;
        if has_ended(&pidfd)? {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the process has ended"));
        }
        let inode = |m: fs::Metadata| (m.dev(), m.ino());
        let wanted = inode(namespace.metadata()?);
        if wanted == inode(fs::metadata("/proc/self/ns/net")?) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "it has the host's own network namespace",
            ));
        }
        let path = self.path(uid, start_id);
        if fs::metadata(&path).map(inode).ok() != Some(wanted) {
            take_away(&path);
            fail_point::pass("compute.publish", "before");
            File::create_new(&path)?;
            fail_point::pass("compute.publish", "named");
            let source = format!("/proc/self/fd/{}", namespace.as_raw_fd());
            if let Err(e) = mount(Some(source.as_str()), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            {
                let _ = fs::remove_file(&path);
                return Err(e.into());
            }
        }
        fail_point::pass("compute.publish", "after");
        self.watch(&mut published, uid, start_id, pidfd, ended)?;
        drop(published);
        self.changed();
        Ok(true)
    }

    /// Publishes a running virtual machine, or what of it is another now, and takes it back when its process ends, which is then also told. False
    /// when it is published already as it is.
    pub fn publish_machine(
        self: &Arc<Self>,
        uid: NodeUid,
        start_id: &str,
        machine: &Machine,
        ended: impl FnOnce() + Send + 'static,
    ) -> io::Result<bool> {
        let mut published = self.lock();
        let path = self.path(uid, start_id);
        let is_known = published.contains(&(uid, start_id.to_owned()));
        let is_written = Machine::read(&path).as_ref() == Some(machine);
        if is_known && is_written {
            return Ok(false);
        }
        let pidfd = pidfd_open(machine.pid)?;
        if !machine.is_alive() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the process has ended"));
        }
        if !is_written {
            fail_point::pass("compute.publish-machine", "before");
            machine.write(&path)?;
            fail_point::pass("compute.publish-machine", "after");
        }
        if !is_known {
            self.watch(&mut published, uid, start_id, pidfd, ended)?;
        }
        drop(published);
        self.changed();
        Ok(true)
    }

    /// Notes that it is published, and takes it back when its process ends.
    fn watch(
        self: &Arc<Self>,
        published: &mut BTreeSet<Start>,
        uid: NodeUid,
        start_id: &str,
        pidfd: OwnedFd,
        ended: impl FnOnce() + Send + 'static,
    ) -> io::Result<()> {
        // SAFETY: an OwnedFd is one open descriptor for as long as it lives.
        let watched = unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE)? };
        published.insert((uid, start_id.to_owned()));
        let (this, start_id) = (self.clone(), start_id.to_owned());
        tokio::spawn(async move {
            // An error here means that the runtime is shutting down; the next service adopts or takes away what is there.
            if watched.readable().await.is_ok() {
                this.retract(uid, &start_id);
                ended();
            }
        });
        Ok(())
    }

    /// Takes what is published of a start away; fine when nothing is.
    pub fn retract(&self, uid: NodeUid, start_id: &str) {
        let mut published = self.lock();
        if published.remove(&(uid, start_id.to_owned())) {
            fail_point::pass("compute.retract", "before");
            take_away(&self.path(uid, start_id));
            fail_point::pass("compute.retract", "after");
            self.changed();
        }
    }

    /// Takes away what an earlier service published of starts that are over. A machine whose process lives is not, as long as nothing else is known of its node: its runtime may not have answered yet.
    pub fn keep(&self, running: &BTreeSet<Start>) {
        let published = self.lock();
        let names = running.iter().chain(&*published).map(|(uid, start)| format!("{uid}.{start}"));
        let names: BTreeSet<String> = names.collect();
        let nodes: BTreeSet<&str> = names.iter().filter_map(|name| Some(name.split_once('.')?.0)).collect();
        let may_run = |name: &str, path: &Path| {
            let is_known = name.split_once('.').is_some_and(|(node, _)| nodes.contains(node));
            !is_known && Machine::read(path).is_some_and(|machine| machine.is_alive())
        };
        for path in entries(&self.dir) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if !names.contains(&name) && !may_run(&name, &path) {
                tracing::info!(name, "what was published of a start that is over is taken away");
                take_away(&path);
            }
        }
        self.changed();
    }

    /// Undoes [`Netns::open`] when nothing is published.
    pub fn close(&self) {
        mounts::unshared(&self.dir);
    }

    fn changed(&self) {
        let mark = self.dir.join(".changed");
        let _ = File::create(&mark).and_then(|_| fs::remove_file(&mark));
    }
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path()).collect()
}

fn take_away(path: &Path) {
    if let Err(error) = mounts::take_away(path) {
        tracing::warn!(%error, path = %path.display(), "what was published of a start cannot be taken away");
    }
}

/// A descriptor that becomes readable when the process ends.
pub fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: the call takes two integers; a descriptor that it returns is ours alone.
    unsafe {
        match libc::syscall(libc::SYS_pidfd_open, pid, libc::PIDFD_NONBLOCK) {
            -1 => Err(io::Error::last_os_error()),
            fd => Ok(OwnedFd::from_raw_fd(fd as i32)),
        }
    }
}

fn has_ended(pidfd: &OwnedFd) -> io::Result<bool> {
    use std::os::fd::AsFd as _;
    let mut fds = [nix::poll::PollFd::new(pidfd.as_fd(), nix::poll::PollFlags::POLLIN)];
    Ok(nix::poll::poll(&mut fds, 0u8)? > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_whose_process_lives_stays_handed_over_before_its_runtime_answers() {
        let dir = tempfile::tempdir().unwrap();
        let netns = Netns::open(dir.path().join("netns"), false).unwrap();
        let lives = Machine::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        let over = Machine { started: lives.started + 1, ..lives.clone() };
        let node = NodeUid::new();
        let (kept, gone) = (netns.path(node, "1"), netns.path(NodeUid::new(), "2"));
        lives.write(&kept).unwrap();
        over.write(&gone).unwrap();
        let left_over = netns.path(NodeUid::new(), "3");
        File::create(&left_over).unwrap();
        netns.keep(&BTreeSet::new());
        assert_eq!(entries(&netns.dir), [kept]);
        // Its runtime has answered: it is another start by now.
        netns.keep(&BTreeSet::from([(node, "2".to_owned())]));
        assert_eq!(entries(&netns.dir), Vec::<PathBuf>::new());
    }
}
