//! The network service against a private Open vSwitch and network namespaces that stand in for nodes.
//!
//! Each test is a host of its own: a thread with its own network and mount namespace, in which the service, Open vSwitch and the nodes live.
//! So tests run side by side under the same names, and what one leaves goes with its namespaces.

mod capture;
mod carrier;
mod changes;
mod checks;
mod contract;
mod far_end;
mod faults;
mod fidelity;
mod frames;
mod harness;
mod hosts;
mod impairment;
mod machines;
mod ownership;
mod planes;
mod scale;
mod segments;
mod special;
mod traffic;
mod uplinks;
