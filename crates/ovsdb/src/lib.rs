//! An OVSDB (RFC 7047) client with a monitored, immutable snapshot of the database.
//!
//! The flow: [`Client::connect`] starts one task that owns the socket, the request ids, the monitor and the cache
//! (`connection` moves bytes, `session` decides what they mean, `frame` cuts them into messages). Each committed
//! change makes a new [`Db`] that is published over a `watch` channel; readers never lock and never see half a
//! transaction. Writers compose a [`Txn`], which is plain data, and [`Client::transact`] sends it and checks the
//! results operation by operation.
//!
//! What this prevents: state guessed from what was written instead of read back; a subprocess per question;
//! events lost between two polls (a snapshot is a level, not an edge); and a cache that goes on answering after
//! the server has gone: while there is no connection there is no snapshot.

mod client;
mod connection;
mod db;
mod error;
mod frame;
mod outcome;
mod schema;
mod session;
mod txn;
mod update;
mod value;

pub use client::Client;
pub use db::{Db, Row};
pub use error::Error;
pub use outcome::Outcome;
pub use txn::{Function, Mutator, Op, Txn, Until, Where};
pub use uuid::Uuid;
pub use value::{Atom, Value};
