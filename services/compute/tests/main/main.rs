//! The compute service through its contract: one suite for every driver, and what only Docker can show.

mod contract;
mod docker;
mod rig;
mod sim;
mod streams;
