//! The handle that callers hold.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::connection::{self, Command, Publish};
use crate::db::Db;
use crate::error::Error;
use crate::outcome::{self, Outcome};
use crate::session::Session;
use crate::txn::Txn;

/// How many transactions may wait for the connection task to take them up.
const COMMANDS: usize = 64;

/// A handle on one connection to an OVSDB server; clones share it. The connection ends with the last clone.
#[derive(Clone, Debug)]
pub struct Client {
    commands: mpsc::Sender<Command>,
    snapshots: watch::Receiver<Option<Arc<Db>>>,
    heard: watch::Receiver<Option<Instant>>,
}

impl Client {
    /// Connects to `socket` in the background, and again, for ever and with back-off, whenever the connection is
    /// lost. `tables` names the columns of each table that snapshots hold; what the server's schema does not
    /// have is left out, with a warning.
    ///
    /// Must be called inside a tokio runtime.
    pub fn connect(
        socket: PathBuf,
        database: &'static str,
        tables: Vec<(&'static str, Vec<&'static str>)>,
    ) -> Client {
        let (commands, taken) = mpsc::channel(COMMANDS);
        let (publish, snapshots) = watch::channel(None);
        let (hear, heard) = watch::channel(None);
        let publish = Publish { snapshots: publish, heard: hear };
        tokio::spawn(connection::run(socket, Session::new(database, tables), taken, publish));
        Client { commands, snapshots, heard }
    }

    /// The state of the monitored tables: a new snapshot after each committed change, `None` while there is no
    /// connection, never an old one that pretends to be fresh. Slow readers see the latest, not all.
    pub fn snapshots(&self) -> watch::Receiver<Option<Arc<Db>>> {
        self.snapshots.clone()
    }

    /// When the server said something last: the latest snapshot is as old as that at most. It is asked each second for a word.
    pub fn heard(&self) -> Option<std::time::Instant> {
        self.heard.borrow().map(Instant::into_std)
    }

    /// Runs `txn` whole or not at all. When this returns, [`Client::snapshots`] already shows what it changed.
    ///
    /// # Errors
    /// [`Error::Disconnected`] at once when there is no snapshot; [`Error::Rejected`] when the server refused;
    /// [`Error::Interrupted`] when the connection broke in between and the fate of `txn` is unknown.
    pub async fn transact(&self, txn: Txn) -> Result<Outcome, Error> {
        let ops = serde_json::to_string(&txn).map_err(|e| Error::Malformed(e.to_string()))?;
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command { ops, reply }).await.map_err(|_| Error::Disconnected)?;
        let results = answer.await.map_err(|_| Error::Interrupted)??;
        let outcome = outcome::check(&txn, &results);
        tracing::debug!(operations = txn.ops().len(), committed = outcome.is_ok(), "OVSDB transaction");
        outcome
    }
}
