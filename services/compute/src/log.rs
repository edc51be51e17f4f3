//! The log of a node, followed over its restarts.
//!
//! A runtime's own stream ends with the process. Then the node's next start is waited for, which a change in the table tells, and the stream goes on after the last line that was read: by
//! the time of lines, so that nothing is told twice or left out whether the same container started again or another one took its place. It ends when the node is removed. At
//! most one line is held; a caller that reads slowly makes the runtime wait.

use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use netloom_model::id::NodeUid;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use crate::driver::{Found, Line, Lines};
use crate::error::Error;
use crate::host::{Host, Opened};
use crate::table::Told;

type Part = BoxStream<'static, Result<Line, Error>>;

/// What an instance wrote, and writes.
pub async fn read(host: Arc<Host>, opened: Opened, lines: Lines) -> Result<Part, Error> {
    let changes = host.table.changes();
    let start = host.table.instance(opened.uid).map(|(_, found, _)| start_of(&found)).unwrap_or_default();
    let part = opened.driver.logs(&opened.id, lines).await?;
    if !lines.follow {
        return Ok(part);
    }
    let following = Following { host, uid: opened.uid, changes, part, start, last_ns: lines.after_ns };
    let told = stream::try_unfold(following, |mut following| async {
        Ok(following.next().await?.map(|line| (line, following)))
    });
    Ok(told.boxed())
}

/// Names a start over all containers of a node.
fn start_of(found: &Found) -> String {
    format!("{} {}", found.id, found.start_id)
}

struct Following {
    host: Arc<Host>,
    uid: NodeUid,
    changes: Receiver<Told>,
    /// The log up to the end of this start.
    part: Part,
    start: String,
    last_ns: i64,
}

impl Following {
    async fn next(&mut self) -> Result<Option<Line>, Error> {
        loop {
            match self.part.next().await {
                Some(Ok(line)) => {
                    self.last_ns = self.last_ns.max(line.at_ns);
                    return Ok(Some(line));
                }
                Some(Err(error)) => return Err(error),
                None => {}
            }
            let Some((driver, found)) = self.next_start().await else { return Ok(None) };
            self.start = start_of(&found);
            let lines = Lines { follow: true, tail: 0, after_ns: self.last_ns };
            self.part = self.host.drivers[driver].logs(&found.id, lines).await?;
        }
    }

    /// Waits for a start after the one that was read; none when the node is removed.
    async fn next_start(&mut self) -> Option<(usize, Found)> {
        loop {
            if let Some((driver, found, _)) = self.host.table.instance(self.uid)
                && !found.start_id.is_empty()
                && start_of(&found) != self.start
            {
                return Some((driver, found));
            }
            if !self.host.table.is_known(self.uid) {
                return None;
            }
            // More changes than are kept are a change too.
            if let Err(RecvError::Closed) = self.changes.recv().await {
                return None;
            }
        }
    }
}
