//! A sandbox for end-to-end tests: netloom's own programs, built and started as a user starts them, on the machine's Docker and on an Open vSwitch and a
//! network namespace of the sandbox's own.
//!
//! Everything a sandbox makes lies in its temporary directory or carries its owner or its bridge's name; dropping it removes all of that, also when the test fails,
//! and stops only what it started, by pid. What a test sees it sees from outside: the command line, HTTP, Docker and the kernel.

mod clock;
mod command;
mod controllers;
mod docker;
pub mod docs;
mod host;
mod http;
mod interface;
mod lab;
mod namespace;
mod ovs;
mod pair;
mod sandbox;
mod traffic;
mod watch;

pub use command::{Frozen, Output, finish, run, run_with_input};
pub use controllers::{Controllers, TO_JOIN};
pub use docker::Docker;
pub use host::Host;
pub use http::{Reply, request};
pub use interface::Interface;
pub use lab::{container, docker, in_node, pid_of};
pub use namespace::Namespace;
pub use ovs::Ovs;
pub use pair::Pair;
pub use sandbox::{Installed, Mode, Sandbox, binaries, eventually, on_plane, rights_of};
pub use traffic::Traffic;
pub use watch::Watch;
