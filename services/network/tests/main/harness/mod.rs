//! A host, its Open vSwitch, its network service, and nodes.

mod elsewhere;
mod handle;
mod host;
mod node;
mod ovs;
mod plane;
mod qemu;
mod slice;
mod told;

use std::future::Future;
use std::process::Command;
use std::time::Duration;

use netloom_service::testing::require;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

pub use self::elsewhere::{Elsewhere, THIRD, UNDERLAY, third_host, two_hosts};
pub use self::handle::Handle;
pub use self::host::Host;
pub use self::node::{Machine, Node, interfaces};
pub use self::ovs::Ovs;
pub use self::plane::On;
pub(crate) use self::plane::{on_both_planes, with_machines};
pub use self::slice::{Slice, dummy, host_end, host_interface, linux_bridge, nic, number, segment};
pub use self::told::Told;

/// What tickets are signed with.
pub const KEY: [u8; 32] = [7; 32];
/// Long enough for a machine that does other things as well.
pub const BOUND: Duration = Duration::from_secs(30);

/// Runs a test on a host of its own; not at all where Open vSwitch or the rights are missing.
pub fn on_a_host<Fut: Future<Output = ()>>(test: &'static str, body: impl FnOnce() -> Fut + Send) {
    if !require(test, "root") || !require(test, "ovs") {
        return;
    }
    // With NETLOOM_LOG=debug a test says what its service did.
    if std::env::var_os("NETLOOM_LOG").is_some() {
        netloom_service::telemetry::init("test");
    }
    std::thread::scope(|scope| {
        let host = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
            let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).unwrap();
            // Threads of the runtime begin in the namespaces of the thread that starts them.
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            let runtime = builder.worker_threads(2).enable_all().build().unwrap();
            runtime.block_on(body());
        });
        if let Err(panic) = host.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// Runs a program; panics when it fails.
pub fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}
