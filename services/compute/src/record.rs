//! What must be known of an instance beyond this service's life and cannot be read back: why its process ended, and for which request it was started. A small file beside the node's others,
//! written when it says more than nothing.

use std::path::Path;

use netloom_model::id::{LabUid, NodeUid};
use netloom_model::slice::Instance;
use netloom_model::state::Wanted;
use serde::{Deserialize, Serialize};

use crate::driver::{Found, Process};
use crate::error::Error;
use crate::files::Files;

const NAME: &str = "record.json";

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// The instance that this is about, by its own id.
    instance: String,
    /// The restart that it was last started for.
    pub restarts: u64,
    /// Its process ended by itself at least once since it was made.
    pub exited: bool,
    /// Its process was last ended because that was asked for: it runs again when that is wanted, whatever its policy.
    pub stopped: bool,
    /// The start whose end `stopped` is about.
    ended: String,
    /// It was removed because its process ended, as its spec says.
    pub removed: Option<Removed>,
}

/// An instance that went with its process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// The hash it was made with.
    spec_hash: String,
    /// How its process ended.
    pub exit_code: i32,
}

impl Record {
    /// An instance was seen: another one than before begins anew.
    pub fn saw(&mut self, found: &Found) {
        if self.instance != found.id {
            *self = Record { instance: found.id.clone(), restarts: self.restarts, ..Record::default() };
        }
    }

    /// The end of a start is judged once: was it `asked` for, or did the process end by itself?
    pub fn judge(&mut self, found: &Found, asked: bool) {
        if self.ended != found.start_id {
            (self.ended, self.stopped) = (found.start_id.clone(), asked);
            self.exited |= !asked;
        }
    }

    /// It was wanted stopped and is so.
    pub fn rests(&mut self) {
        self.stopped = true;
    }

    /// It was started for what was asked.
    pub fn started(&mut self, instance: &Instance) {
        self.restarts = self.restarts.max(instance.restarts);
        self.removed = None;
    }

    /// It was removed because its process had ended.
    pub fn went(&mut self, found: &Found) {
        if let Process::Ended { code, .. } = found.process {
            self.removed = Some(Removed { spec_hash: found.spec_hash.clone(), exit_code: code });
        }
    }

    /// How its process ended, when its instance went with it and nothing has asked for another since.
    pub fn stays_removed(&self, instance: &Instance) -> Option<i32> {
        let removed = self.removed.as_ref()?;
        let asked = instance.restarts > self.restarts
            || removed.spec_hash != instance.spec_hash
            || instance.wanted != Wanted::Running
            || !instance.spec.auto_remove;
        (!asked).then_some(removed.exit_code)
    }

    /// True when there is nothing to remember.
    fn is_nothing(&self) -> bool {
        self.restarts == 0 && !self.exited && !self.stopped && self.removed.is_none()
    }

    /// What is remembered of a node. What cannot be read is as if there were nothing: the worst is a restart more.
    pub fn load(files: &Files, lab: LabUid, node: NodeUid) -> Record {
        let path = files.node_path(lab, node).join(NAME);
        let Ok(text) = std::fs::read(&path) else { return Record::default() };
        serde_json::from_slice(&text).unwrap_or_else(|error| {
            tracing::warn!(%error, path = %path.display(), "what was remembered of a node cannot be read");
            Record::default()
        })
    }

    /// Remembers it.
    pub fn save(&self, files: &Files, lab: LabUid, node: NodeUid) -> Result<(), Error> {
        if self.is_nothing() && !files.node_path(lab, node).join(NAME).exists() {
            return Ok(());
        }
        let path = files.node_dir(lab, node)?.join(NAME);
        let text = serde_json::to_vec(self).expect("a record always serialises");
        replace(&path, &text).map_err(|e| Error::host(format!("cannot write {}", path.display()), e))
    }
}

/// Writes a file whole or not at all.
fn replace(path: &Path, text: &[u8]) -> std::io::Result<()> {
    let draft = path.with_extension("new");
    std::fs::write(&draft, text)?;
    std::fs::rename(draft, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::testing::{found, instance};

    fn ended(start: &str) -> Found {
        let process = Process::Ended { code: 3, error: String::new() };
        Found { process, start_id: start.into(), ..found() }
    }

    #[test]
    fn an_end_is_judged_once_and_another_instance_begins_anew() {
        let mut record = Record::default();
        record.saw(&found());
        record.judge(&ended("1"), false);
        record.judge(&ended("1"), true);
        assert_eq!((record.exited, record.stopped), (true, false));
        record.judge(&ended("2"), true);
        assert_eq!((record.exited, record.stopped), (true, true));
        record.restarts = 4;
        record.saw(&Found { id: "c2".into(), ..found() });
        assert_eq!((record.exited, record.stopped, record.restarts), (false, false, 4));
    }

    #[test]
    fn what_went_with_its_process_comes_back_when_asked_for() {
        let mut once = instance();
        once.spec.auto_remove = true;
        let mut record = Record::default();
        record.went(&ended("1"));
        assert_eq!(record.stays_removed(&once), Some(3));
        let asked = Instance { restarts: 1, ..once.clone() };
        assert_eq!(record.stays_removed(&asked), None);
        assert_eq!(record.stays_removed(&Instance { spec_hash: "other".into(), ..once.clone() }), None);
        record.started(&asked);
        assert_eq!((record.stays_removed(&once), record.restarts), (None, 1));
    }

    #[test]
    fn it_is_kept_when_it_says_something() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::open(dir.path()).unwrap();
        let i = instance();
        Record::default().save(&files, i.lab_uid, i.uid).unwrap();
        assert!(!files.node_path(i.lab_uid, i.uid).exists());
        let mut record = Record::default();
        record.started(&Instance { restarts: 2, ..i.clone() });
        record.save(&files, i.lab_uid, i.uid).unwrap();
        assert_eq!(Record::load(&files, i.lab_uid, i.uid), record);
        Record::default().save(&files, i.lab_uid, i.uid).unwrap();
        assert_eq!(Record::load(&files, i.lab_uid, i.uid), Record::default());
    }
}
