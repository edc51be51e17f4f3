//! The small part of OpenFlow 1.4 that wires need: flow-mods in bundles, flow dumps, and word of foreign changes.
//!
//! The flow: [`Switch::connect`] opens a bridge's management socket and starts one task that owns it
//! (`connection`). A call composes messages with pure functions (`wire`), the task sends them and collects their
//! answers, and `switch` says what these mean. Knows no links and no labs.
//!
//! What this prevents: a subprocess for each change; a link that is half there, because a bundle is done whole or
//! not at all; and a flow that somebody took away without anybody noticing ([`Switch::changes`]).

mod connection;
mod error;
mod flow;
mod switch;
mod wire;

pub use error::{Code, Error};
pub use flow::{Action, Command, Flow, FlowMod, Match};
pub use switch::Switch;

/// Stands for every table, in dumps and deletes.
pub const ALL_TABLES: u8 = 0xff;
