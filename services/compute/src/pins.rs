//! The files of a lab that are mounted into its nodes, held at `<run dir>/binds/<node uid>.<n>` from before a node starts until it is removed.
//!
//! Docker takes a path and opens it when the container starts. A path among the lab's files would be open to a trick: a node that can write the directory puts a symbolic link in the place of
//! what another node mounts, after it was looked at and before Docker opens it, and gets a file of the host's. So what was looked at is itself mounted, from its descriptor, where no
//! node can write, and Docker is given that path.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use netloom_model::id::NodeUid;
use nix::libc;
use nix::mount::{MsFlags, mount};

use crate::error::Error;
use crate::mounts;

/// See the module.
pub struct Pins {
    dir: PathBuf,
}

impl Pins {
    /// In this directory, which becomes a shared mount: Docker may see it through another mount namespace.
    pub fn open(dir: PathBuf) -> Result<Pins, Error> {
        mounts::shared(&dir).map_err(|e| {
            Error::host(format!("cannot prepare {} for the files of labs (run as root)", dir.display()), e)
        })?;
        Ok(Pins { dir })
    }

    /// Holds a file or directory as a node's bind of this number, instead of what was held before, and answers where.
    pub fn hold(&self, uid: NodeUid, number: usize, what: &OwnedFd) -> Result<PathBuf, Error> {
        let path = self.dir.join(format!("{uid}.{number}"));
        let put = || -> io::Result<()> {
            mounts::take_away(&path)?;
            match nix::sys::stat::fstat(what)?.st_mode & libc::S_IFMT {
                libc::S_IFDIR => DirBuilder::new().create(&path)?,
                _ => drop(File::create_new(&path)?),
            }
            let source = format!("/proc/self/fd/{}", what.as_raw_fd());
            Ok(mount(Some(source.as_str()), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?)
        };
        put().map_err(|e| Error::host(format!("cannot hold a file of the lab at {}", path.display()), e))?;
        Ok(path)
    }

    /// Lets go of all that a node had.
    pub fn release(&self, uid: NodeUid) {
        self.drop_where(|node| node == uid.to_string());
    }

    /// Lets go of what no node of these has.
    pub fn keep(&self, uids: &BTreeSet<NodeUid>) {
        self.drop_where(|node| !uids.iter().any(|uid| uid.to_string() == node));
    }

    /// Undoes [`Pins::open`] when nothing is held.
    pub fn close(&self) {
        mounts::unshared(&self.dir);
    }

    fn drop_where(&self, of: impl Fn(&str) -> bool) {
        for path in fs::read_dir(&self.dir).into_iter().flatten().flatten().map(|e| e.path()) {
            if node(&path).is_some_and(&of)
                && let Err(error) = mounts::take_away(&path)
            {
                tracing::warn!(%error, path = %path.display(), "a file of a lab cannot be let go");
            }
        }
    }
}

fn node(path: &Path) -> Option<&str> {
    Some(path.file_name()?.to_str()?.split_once('.')?.0)
}
