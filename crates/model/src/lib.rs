//! The words netloom is written in: ids, specs, states, tallies, kinds, interface names and errors.
//!
//! Everything here is data and pure decisions: no I/O, no clock, no async. What several services must agree on (how a node's state follows from
//! what was read back, how counts follow from tallies, what an interface is called) is decided here once, so that no two of them can answer
//! differently.
//!
//! | module | what it holds |
//! |---|---|
//! | [`id`] | names users choose, uids, wire ids, digests |
//! | [`spec`] | what a user asks for |
//! | [`kind`] | the device catalogue, and how its defaults fill a spec |
//! | [`naming`] | vendor name ↔ data-port index ↔ guest interface |
//! | [`mod@slice`] | what a host is told to bring about |
//! | [`observed`] | what hosts read back |
//! | [`state`] | the states, and how they follow from evidence |
//! | [`tally`] | counts and a lab's state from grouped rows |
//! | [`words`] | a command as a shell splits it |
//! | [`shared`] | what is large and held by many |
//! | [`plan`] | the shape of a plan, and what a change needs |
//! | [`failure`] | the few error kinds in the middle |

pub mod failure;
pub mod human;
pub mod id;
pub mod kind;
pub mod naming;
pub mod observed;
pub mod plan;
pub mod reason;
pub mod shared;
pub mod slice;
pub mod spec;
pub mod state;
pub mod suggest;
pub mod tally;
pub mod words;

pub use failure::{Code, Failure};
