//! The scheduler against fake hosts and a fake registry, over in-memory channels; and the contract of its store.

mod across;
mod aside;
mod bad_days;
mod copies;
mod deploy;
mod disks;
mod drain;
mod fake;
mod files;
mod hosts;
mod keep;
mod links;
mod nodes;
mod policy;
mod quotas;
mod random;
mod recovery;
mod refusals;
mod stages;
mod store;
mod verdicts;
mod world;
