//! Works what was committed into the database's file, beside the writes: a commit that does so itself keeps an operation waiting.

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::Database;

/// How long what was committed stays in the log alone.
const REST: Duration = Duration::from_secs(10);

/// The task that does it; it ends when this is dropped.
pub(super) struct Log(AbortHandle);

impl Log {
    /// Follows these commits.
    pub(super) fn keep(database: Database, mut commits: watch::Receiver<u64>) -> Log {
        let keep = async move {
            while commits.changed().await.is_ok() {
                tokio::time::sleep(REST).await;
                commits.borrow_and_update();
                if let Err(e) = database.checkpoint().await {
                    tracing::debug!(%database, "what was committed stays in the log for now: {e}");
                }
            }
        };
        Log(tokio::spawn(keep).abort_handle())
    }

    /// Ends it.
    pub(super) fn end(&self) {
        self.0.abort();
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.end();
    }
}
