//! What carries wires. Today Open vSwitch; a plane made of kernel parts stands beside it once it is asked for.

pub mod flows;
pub mod ovs;

/// The name of this plane in observed wires.
pub const OVS: &str = "ovs";
