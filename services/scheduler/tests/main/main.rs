//! The scheduler against fake hosts and a fake registry, over in-memory channels; and the contract of its store.

mod deploy;
mod fake;
mod recovery;
mod refusals;
mod store;
mod world;
