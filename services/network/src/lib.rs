//! NICs, wires and segments on one host: Open vSwitch and the kernel.
