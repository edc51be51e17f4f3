//! What carries wires: Open vSwitch, or the kernel alone.

pub mod flows;
pub mod ovs;

/// The name of Open vSwitch's plane in observed wires.
pub const OVS: &str = "ovs";
/// The name of the kernel's plane in observed wires.
pub const KERNEL: &str = "kernel";
