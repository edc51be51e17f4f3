//! The scheduler against fake hosts and a fake registry, over in-memory channels; and the contract of its store.

mod aside;
mod deploy;
mod fake;
mod files;
mod keep;
mod links;
mod nodes;
mod recovery;
mod refusals;
mod stages;
mod store;
mod verdicts;
mod world;
