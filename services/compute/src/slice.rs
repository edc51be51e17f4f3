//! Who may say what is wanted, and the parts of a slice as they come in.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use netloom_model::slice::Instance;

use crate::error::Error;

/// The highest term of a leader seen, kept in a file: a scheduler that was replaced while it slept cannot change this host any more, also not after this service
/// was restarted.
pub struct Fence {
    path: PathBuf,
    term: Mutex<u64>,
}

impl Fence {
    /// Reads the file; a missing one means that no leader was seen.
    pub fn open(path: &Path) -> Result<Fence, Error> {
        let term = match fs::read_to_string(path) {
            Ok(text) => text.trim().parse().map_err(|_| {
                Error::Host(format!(
                    "{} does not hold a number; remove it if no other scheduler leads",
                    path.display()
                ))
            })?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => 0,
            Err(e) => return Err(Error::host(format!("cannot read {}", path.display()), e)),
        };
        Ok(Fence { path: path.to_owned(), term: Mutex::new(term) })
    }

    /// Lets a call of this term pass, or refuses it. A higher one is on disk before the call has any effect.
    pub fn admit(&self, given: u64) -> Result<(), Error> {
        let mut current = self.term.lock().expect("no holder panics");
        if given < *current {
            return Err(Error::StaleTerm { given, current: *current });
        }
        if given > *current {
            self.write(given).map_err(|e| Error::host(format!("cannot write {}", self.path.display()), e))?;
            *current = given;
        }
        Ok(())
    }

    fn write(&self, term: u64) -> std::io::Result<()> {
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

/// Parts of a Sync, until the last has come.
#[derive(Default)]
pub struct Parts {
    term: u64,
    instances: Vec<Instance>,
}

impl Parts {
    /// Adds a part; the whole slice at the last one. Parts of another leader begin anew.
    pub fn add(&mut self, term: u64, part: Vec<Instance>, more: bool) -> Option<Vec<Instance>> {
        if self.term != term {
            *self = Parts { term, instances: Vec::new() };
        }
        self.instances.extend(part);
        (!more).then(|| std::mem::take(&mut self.instances))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::testing::instance;

    #[test]
    fn a_lower_term_is_refused_also_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("compute/term");
        let fence = Fence::open(&path).unwrap();
        assert!(fence.admit(3).is_ok());
        assert!(fence.admit(3).is_ok());
        assert!(matches!(fence.admit(2), Err(Error::StaleTerm { given: 2, current: 3 })));
        let fence = Fence::open(&path).unwrap();
        assert!(fence.admit(2).is_err());
        assert!(fence.admit(4).is_ok());
        fs::write(&path, "x").unwrap();
        assert!(Fence::open(&path).is_err());
    }

    #[test]
    fn a_slice_is_whole_at_its_last_part() {
        let mut parts = Parts::default();
        assert!(parts.add(1, vec![instance()], true).is_none());
        assert!(parts.add(2, vec![instance()], true).is_none());
        assert_eq!(parts.add(2, vec![instance()], false).unwrap().len(), 2);
        assert_eq!(parts.add(2, Vec::new(), false).unwrap().len(), 0);
    }
}
