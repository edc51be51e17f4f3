//! What only virtual machines can show: carrier, disks on a shared base, consoles, how they are handed over to the network service, and a libvirtd that hangs or goes away.

mod carrier;
mod console;
mod disks;
mod distributed;
mod handover;
mod medium;
mod mgmt;
mod outage;
mod second_day;
mod serial;

use netloom_service::testing::libvirt::Libvirtd;

pub use serial::Console;

/// A libvirtd for one test, which may do to it what it likes. It ends with the process.
fn own() -> &'static Libvirtd {
    Box::leak(Box::new(Libvirtd::start()))
}
