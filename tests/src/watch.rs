//! What the API tells of a lab as it happens.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Duration;

use serde_json::Value;

use crate::sandbox::{Sandbox, eventually};

/// How long a snapshot may take.
const COMPLETE: Duration = Duration::from_secs(10);

/// All that happens to a lab, as the API tells it: what is mended within milliseconds is not seen by asking now and then.
pub struct Watch {
    curl: Child,
    file: PathBuf,
}

impl Watch {
    /// From now on.
    pub fn start(sandbox: &Sandbox, lab: &str) -> Watch {
        let file = sandbox.path().join("watch.ndjson");
        let curl = Command::new("curl")
            .args(["-sN", "--unix-socket"])
            .arg(sandbox.socket())
            .arg(format!("http://localhost/v1/labs/{lab}:watch"))
            .stdout(File::create(&file).expect("a file"))
            .spawn()
            .expect("curl, which `make deps` installs");
        let watch = Watch { curl, file };
        eventually("the snapshot is complete", COMPLETE, || watch.said("SNAPSHOT_END"));
        watch
    }

    /// The states that were told of a node, one after the other.
    pub fn states(&self, node: &str) -> Vec<String> {
        let all = std::fs::read_to_string(&self.file).unwrap_or_default();
        let state = |line: &str| {
            let told = &serde_json::from_str::<Value>(line).ok()?["result"];
            let is_of = told["node"]["name"].as_str()?.ends_with(&format!("/nodes/{node}"));
            is_of.then(|| told["node"]["state"].as_str().unwrap_or_default().to_owned())
        };
        let mut states: Vec<String> = all.lines().filter_map(state).collect();
        states.dedup();
        states
    }

    /// True when these words were told.
    pub fn said(&self, what: &str) -> bool {
        std::fs::read_to_string(&self.file).is_ok_and(|all| all.contains(what))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.curl.kill();
        let _ = self.curl.wait();
    }
}
