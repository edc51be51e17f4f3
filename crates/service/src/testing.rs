//! What tests of all crates share: facilities that may be missing, and waiting on levels.

pub mod libvirt;
pub mod postgres;
pub mod redis;
pub mod wire;

use std::future::Future;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// True when the facility ("docker", "ovs", "libvirt", "efi", "lvm", "postgres", "redis", "root") is there. When it is not, says `SKIPPED <test>: …` on standard error, or panics when `NETLOOM_REQUIRE` names it.
pub fn require(test: &str, facility: &str) -> bool {
    let there = match facility {
        "docker" => std::os::unix::net::UnixStream::connect("/var/run/docker.sock").is_ok(),
        "ovs" => ["/usr/sbin/ovs-vswitchd", "/usr/bin/ovs-vsctl", "/usr/sbin/ovsdb-server"]
            .iter()
            .all(|p| Path::new(p).exists()),
        "libvirt" => {
            ["/usr/sbin/libvirtd", "/usr/bin/qemu-system-x86_64", "/usr/bin/qemu-img", "/usr/bin/syslinux"]
                .iter()
                .all(|p| Path::new(p).exists())
        }
        "efi" => Path::new("/usr/share/OVMF").exists(),
        "postgres" => postgres::programs().is_some(),
        "redis" => redis::is_there(),
        "lvm" => Path::new("/usr/sbin/lvmconfig").exists(),
        "root" => nix::unistd::geteuid().is_root(),
        other => panic!("unknown facility {other}"),
    };
    if !there {
        skip(test, facility);
    }
    there
}

/// Says `SKIPPED <test>: …` on standard error for a facility that is not there, or panics when `NETLOOM_REQUIRE` names it.
pub fn skip(test: &str, facility: &str) {
    let required = std::env::var("NETLOOM_REQUIRE").unwrap_or_default();
    assert!(
        !required.split(',').any(|r| r == facility),
        "{test} needs {facility}, which NETLOOM_REQUIRE demands"
    );
    // Not eprintln!: the test runner swallows that for a test that passes.
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {facility} is not there");
}

/// The directory with what `scripts/<name>-requirements.txt` names; none when PyPI cannot be reached, which is told as [`skip`] does.
pub fn pypi(test: &str, name: &str) -> Option<PathBuf> {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let fetched = Command::new(repository.join("scripts/pypi.sh")).arg(name).output().expect("a shell");
    match fetched.status.code() {
        Some(0) => Some(repository.join(".tools").join(name)),
        Some(75) => {
            skip(test, "PyPI");
            None
        }
        _ => panic!("scripts/pypi.sh {name}: {}", String::from_utf8_lossy(&fetched.stderr)),
    }
}

/// Waits until the condition holds, asking again every 20 ms; panics with `what` when the bound is over first.
pub async fn eventually<F, Fut>(what: &str, bound: Duration, mut condition: F)
where
    F: FnMut() -> Fut,
    Fut: Future<Output = bool>,
{
    let end = Instant::now() + bound;
    while !condition().await {
        assert!(Instant::now() < end, "not within {bound:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
