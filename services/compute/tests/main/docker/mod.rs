//! What only Docker can show: real processes, namespaces, mounts, and things of others that are in the way.

mod adopt;
mod container;
mod foreign;
pub mod image;
mod netns;
mod network;
mod options;
mod outage;
mod pinned;
mod remembered;
