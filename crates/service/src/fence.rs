//! Who may change a host: the highest fencing term seen, kept in a file. A scheduler that was replaced while it slept cannot change a host any more, also not
//! after the host's services were restarted.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use netloom_model::{Code, Failure};

/// See the module.
pub struct Fence {
    path: PathBuf,
    term: Mutex<u64>,
}

/// Why a call does not pass.
#[derive(Debug, thiserror::Error)]
pub enum FenceError {
    /// A scheduler with a higher term leads.
    #[error("term {given} is over: a scheduler with term {current} leads this host")]
    Stale {
        /// The term of the call.
        given: u64,
        /// The highest seen.
        current: u64,
    },
    /// The file does not hold a number.
    #[error("{0} does not hold a number; remove it if no other scheduler leads")]
    Content(PathBuf),
    /// The file cannot be read or written.
    #[error("the leader's term cannot be kept in {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl From<FenceError> for Failure {
    fn from(e: FenceError) -> Failure {
        let message = e.to_string();
        match e {
            FenceError::Stale { given, current } => {
                Failure::new(Code::FailedPrecondition, "STALE_TERM", message)
                    .with("given", given.to_string())
                    .with("current", current.to_string())
            }
            FenceError::Content(_) | FenceError::File { .. } => Failure::internal(message),
        }
    }
}

/// The file in which a service of a host keeps its leader's term.
pub fn term_file(data_dir: &Path, service: &str) -> PathBuf {
    data_dir.join(service).join("term")
}

impl Fence {
    /// Reads the file; a missing one means that no leader was seen.
    pub fn open(path: &Path) -> Result<Fence, FenceError> {
        let term = match fs::read_to_string(path) {
            Ok(text) => text.trim().parse().map_err(|_| FenceError::Content(path.to_owned()))?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => 0,
            Err(source) => return Err(FenceError::File { path: path.to_owned(), source }),
        };
        Ok(Fence { path: path.to_owned(), term: Mutex::new(term) })
    }

    /// Lets a call of this term pass, or refuses it. A higher one is on disk before the call has any effect; that happens once a leader.
    pub fn admit(&self, given: u64) -> Result<(), FenceError> {
        let mut current = self.term.lock().expect("no holder panics");
        if given < *current {
            return Err(FenceError::Stale { given, current: *current });
        }
        if given > *current {
            self.write(given).map_err(|source| FenceError::File { path: self.path.clone(), source })?;
            *current = given;
        }
        Ok(())
    }

    fn write(&self, term: u64) -> io::Result<()> {
        if let Some(directory) = self.path.parent() {
            fs::create_dir_all(directory)?;
        }
        let draft = self.path.with_extension("new");
        let mut file = fs::File::create(&draft)?;
        writeln!(file, "{term}")?;
        file.sync_all()?;
        fs::rename(&draft, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lower_term_is_refused_also_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x/term");
        let fence = Fence::open(&path).unwrap();
        assert!(fence.admit(3).is_ok());
        assert!(fence.admit(3).is_ok());
        assert!(matches!(fence.admit(2), Err(FenceError::Stale { given: 2, current: 3 })));
        let again = Fence::open(&path).unwrap();
        assert!(again.admit(2).is_err());
        assert!(again.admit(4).is_ok());
        fs::write(&path, "x").unwrap();
        assert!(matches!(Fence::open(&path), Err(FenceError::Content(_))));
    }
}
