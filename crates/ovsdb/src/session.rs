//! What messages mean: the handshake, the monitor, the cache and the requests under way. No I/O.
//!
//! 1. `get_schema` tells the columns there are and how differences to them are written.
//! 2. `monitor_cond_since` with the last transaction seen; a server that does not know it is asked
//!    `monitor_cond`, then `monitor`. The cache is emptied unless the server found that transaction. Updates that
//!    arrive before the reply are held and applied after it.
//! 3. Live: updates change the cache, replies go to whoever asked, `echo` is answered.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value as Json, json};
use tokio::sync::oneshot;

use crate::db::Db;
use crate::error::Error;
use crate::schema::{self, Schema};
use crate::update::{self, Format};

/// Where the results of a transaction go.
pub(crate) type Reply = oneshot::Sender<Result<Json, Error>>;

/// A JSON-RPC message: a request or notification has a method, a reply has none.
#[derive(Debug, Deserialize)]
pub(crate) struct Message {
    #[serde(default)]
    id: Json,
    method: Option<String>,
    #[serde(default)]
    params: Json,
    #[serde(default)]
    result: Json,
    #[serde(default)]
    error: Json,
}

/// The ways to ask for a monitor, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Monitor {
    CondSince,
    Cond,
    Plain,
}

#[derive(Debug)]
enum Phase {
    /// Waiting for the reply to `get_schema`.
    Schema { request: u64 },
    /// Waiting for the reply to the monitor request.
    Monitor { request: u64, monitor: Monitor, held: Vec<(String, Json)> },
    /// The cache is what the server has.
    Live,
}

/// The transaction id that no transaction has.
const NO_TXN: &str = "00000000-0000-0000-0000-000000000000";

/// The id of probes; requests have numbers.
const PROBE: &str = "probe";

#[derive(Debug)]
pub(crate) struct Session {
    database: &'static str,
    wanted: Vec<(&'static str, Vec<&'static str>)>,
    schema: Schema,
    db: Arc<Db>,
    last_txn: String,
    phase: Phase,
    next_request: u64,
    pending: HashMap<u64, Reply>,
    out: Vec<u8>,
}

impl Session {
    pub(crate) fn new(database: &'static str, wanted: Vec<(&'static str, Vec<&'static str>)>) -> Session {
        Session {
            database,
            wanted,
            schema: Schema::new(),
            db: Arc::default(),
            last_txn: NO_TXN.to_owned(),
            phase: Phase::Schema { request: 0 },
            next_request: 0,
            pending: HashMap::new(),
            out: Vec::new(),
        }
    }

    /// Begins a new connection. Requests of the one before are given up; the cache is kept for the server to
    /// build on, but is no snapshot until the server has said so.
    pub(crate) fn begin(&mut self) {
        self.end();
        let request = self.request("get_schema", &json!([self.database]));
        self.phase = Phase::Schema { request };
    }

    /// Ends the connection: whoever waits for an answer learns that none will come.
    pub(crate) fn end(&mut self) {
        self.pending.clear();
        self.out = Vec::new();
        self.phase = Phase::Schema { request: 0 };
    }

    /// Bytes to send; the caller takes off what it has sent.
    pub(crate) fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    /// The state of the database; `None` while it is not known.
    pub(crate) fn snapshot(&self) -> Option<Arc<Db>> {
        matches!(self.phase, Phase::Live).then(|| self.db.clone())
    }

    /// Sends a transaction, given its operations as JSON, or refuses it at once.
    pub(crate) fn transact(&mut self, ops: &str, reply: Reply) {
        let Phase::Live = self.phase else {
            let _ = reply.send(Err(Error::Disconnected)); // the caller may have given up
            return;
        };
        let id = self.new_request();
        // `ops` is an array: the database's name goes in as its first element.
        let comma = if ops == "[]" { "" } else { "," };
        let (database, rest) = (json!(self.database), &ops[1..]);
        let text = format!(r#"{{"id":{id},"method":"transact","params":[{database}{comma}{rest}}}"#);
        self.out.extend(text.into_bytes());
        self.pending.insert(id, reply);
    }

    /// Asks the server for a sign of life.
    pub(crate) fn probe(&mut self) {
        self.send(&json!({"id": PROBE, "method": "echo", "params": []}));
    }

    /// Takes one message.
    ///
    /// Gives true when there is a new snapshot.
    ///
    /// # Errors
    /// When the server says what it must not say, or that it will say no more; the connection is then of no use.
    pub(crate) fn receive(&mut self, message: Message) -> Result<bool, String> {
        let Message { id, method, params, result, error } = message;
        let Some(method) = method else { return self.receive_reply(&id, result, error) };
        match (method.as_str(), &mut self.phase) {
            ("echo", _) => self.send(&json!({"id": id, "result": params, "error": null})),
            ("update" | "update2" | "update3", Phase::Monitor { held, .. }) => held.push((method, params)),
            ("update" | "update2" | "update3", Phase::Live) => {
                self.update(&method, &params)?;
                return Ok(true);
            }
            ("monitor_canceled", _) => return Err("the server cancelled the monitor".to_owned()),
            _ if id.is_null() => tracing::debug!(%method, "notification ignored"),
            _ => self.send(&json!({"id": id, "result": null, "error": "unknown method"})),
        }
        Ok(false)
    }

    fn receive_reply(&mut self, id: &Json, result: Json, error: Json) -> Result<bool, String> {
        let Some(id) = id.as_u64() else { return Ok(false) };
        match &mut self.phase {
            Phase::Schema { request } if *request == id => {
                if !error.is_null() {
                    return Err(format!("no schema of database {}: {error}", self.database));
                }
                self.take_schema(&result);
                self.ask_monitor(Monitor::CondSince);
                Ok(false)
            }
            Phase::Monitor { request, monitor, held } if *request == id => {
                let (monitor, held) = (*monitor, std::mem::take(held));
                match (monitor, error.is_null()) {
                    (_, true) => {
                        self.take_monitor(monitor, &result)?;
                        for (method, params) in held {
                            self.update(&method, &params)?;
                        }
                        self.phase = Phase::Live;
                        return Ok(true);
                    }
                    (Monitor::CondSince, false) => self.ask_monitor(Monitor::Cond),
                    (Monitor::Cond, false) => self.ask_monitor(Monitor::Plain),
                    (Monitor::Plain, false) => {
                        return Err(format!("the server refused to be monitored: {error}"));
                    }
                }
                Ok(false)
            }
            _ => {
                if let Some(reply) = self.pending.remove(&id) {
                    let _ = reply.send(if error.is_null() { Ok(result) } else { Err(refusal(&error)) });
                }
                Ok(false)
            }
        }
    }

    fn take_schema(&mut self, result: &Json) {
        let (schema, missing) = schema::read(result, &self.wanted);
        for (table, column) in missing {
            tracing::warn!(table, column, "the OVSDB server has no such column; snapshots will not have it");
        }
        if schema != self.schema {
            // The rows in the cache do not have the columns of the rows to come.
            self.schema = schema;
            self.last_txn = NO_TXN.to_owned();
        }
    }

    fn ask_monitor(&mut self, monitor: Monitor) {
        let requests: serde_json::Map<String, Json> = self
            .schema
            .iter()
            .map(|(table, columns)| {
                let columns = json!({ "columns": columns.keys().collect::<Vec<_>>() });
                ((*table).to_owned(), if monitor == Monitor::Plain { columns } else { json!([columns]) })
            })
            .collect();
        let (method, params) = match monitor {
            Monitor::CondSince => {
                ("monitor_cond_since", json!([self.database, "cache", requests, self.last_txn]))
            }
            Monitor::Cond => ("monitor_cond", json!([self.database, "cache", requests])),
            Monitor::Plain => ("monitor", json!([self.database, "cache", requests])),
        };
        let request = self.request(method, &params);
        self.phase = Phase::Monitor { request, monitor, held: Vec::new() };
    }

    /// Takes the reply to a monitor request: all rows, or what has changed since the last transaction seen.
    fn take_monitor(&mut self, monitor: Monitor, result: &Json) -> Result<(), String> {
        let (found, format, updates) = match monitor {
            Monitor::CondSince => (result[0] == true, Format::V2, &result[2]),
            Monitor::Cond => (false, Format::V2, result),
            Monitor::Plain => (false, Format::V1, result),
        };
        if !found {
            self.db = Arc::default();
        }
        self.last_txn = NO_TXN.to_owned();
        self.apply(format, updates)?;
        self.last_txn = result[1].as_str().unwrap_or(NO_TXN).to_owned();
        Ok(())
    }

    fn update(&mut self, method: &str, params: &Json) -> Result<(), String> {
        match method {
            "update3" => {
                self.apply(Format::V2, &params[2])?;
                self.last_txn = params[1].as_str().unwrap_or(NO_TXN).to_owned();
                Ok(())
            }
            "update2" => self.apply(Format::V2, &params[1]),
            _ => self.apply(Format::V1, &params[1]),
        }
    }

    /// Changes the cache; snapshots that were given out keep what they had.
    fn apply(&mut self, format: Format, updates: &Json) -> Result<(), String> {
        let applied = update::apply(Arc::make_mut(&mut self.db), &self.schema, format, updates);
        if applied.is_err() {
            self.last_txn = NO_TXN.to_owned(); // half applied: nothing to build on
        }
        applied
    }

    fn new_request(&mut self) -> u64 {
        self.next_request += 1;
        self.next_request
    }

    fn request(&mut self, method: &str, params: &Json) -> u64 {
        let id = self.new_request();
        self.send(&json!({"id": id, "method": method, "params": params}));
        id
    }

    fn send(&mut self, message: &Json) {
        self.out.extend(message.to_string().into_bytes());
    }
}

/// A refusal of the request as such, before any operation ran.
fn refusal(error: &Json) -> Error {
    let text = |json: &Json| json.as_str().map(str::to_owned);
    Error::Rejected {
        op: None,
        table: None,
        error: text(error).or_else(|| text(&error["error"])).unwrap_or_else(|| error.to_string()),
        details: text(&error["details"]).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests;
