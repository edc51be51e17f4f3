//! Whether virtual machines run on the processor here. `/dev/kvm` may be there and open, and a guest on it never get anywhere; so a guest of one boot sector has to come to its end first, through
//! all that a kernel does when it begins, on the processor that guests get: a host may run one that asks for less.
//!
//! The compute service goes by it, and `netloom doctor` tells it.

mod program;

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::process::Command;

use crate::program::{PROGRAM, WORD};

/// The device that guests on the processor need.
pub const DEVICE: &str = "/dev/kvm";
/// How long the probe's guest has. Where KVM works it takes a tenth of it.
const BOUND: Duration = Duration::from_secs(5);
/// What QEMU ends with when the guest has written its word to the port of `isa-debug-exit`.
const ENDED: i32 = (WORD as i32) << 1 | 1;

/// Boots a guest on the processor, or says in words why it does not. `device` is what it needs, [`DEVICE`] as a rule.
pub async fn works(device: &Path) -> Result<(), String> {
    if !device.exists() {
        return Err(format!("there is no {}", device.display()));
    }
    let booted = boots("kvm", BOUND).await;
    booted.map_err(|why| format!("{} is there and a guest does not boot on it: {why}", device.display()))
}

/// Boots the probe's guest.
async fn boots(accel: &str, bound: Duration) -> Result<(), String> {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let dir = std::env::temp_dir().join(format!("netloom-probe-{}-{count}", std::process::id()));
    // One that somebody else made here is not used: this runs as root.
    DirBuilder::new().mode(0o700).create(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let outcome = boot_in(&dir, accel, bound).await;
    let _ = std::fs::remove_dir_all(&dir);
    outcome
}

async fn boot_in(dir: &Path, accel: &str, bound: Duration) -> Result<(), String> {
    let disk = dir.join("disk");
    std::fs::write(&disk, boot_sector()).map_err(|e| format!("{}: {e}", disk.display()))?;
    let cpu = if accel == "kvm" { "host" } else { "max" };
    let child = Command::new("qemu-system-x86_64")
        .args(["-machine", &format!("pc,accel={accel}"), "-cpu", cpu, "-m", "32"])
        .args(["-nodefaults", "-display", "none"])
        .args(["-no-reboot", "-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-drive"])
        .arg(format!("file={},format=raw,if=ide,read-only=off", disk.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| format!("qemu-system-x86_64 cannot be run: {e}"))?;
    let Ok(output) = tokio::time::timeout(bound, child.wait_with_output()).await else {
        return Err(format!("it had not come to its end after {} s", bound.as_secs_f32()));
    };
    let output = output.map_err(|e| e.to_string())?;
    if output.status.code() == Some(ENDED) {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(said.lines().next().map_or_else(|| output.status.to_string(), str::to_owned))
}

fn boot_sector() -> [u8; 512] {
    let mut sector = [0; 512];
    sector[..PROGRAM.len()].copy_from_slice(&PROGRAM);
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    sector
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_probe_tells_what_boots_from_what_does_not() {
        let test = "the_probe_tells_what_boots_from_what_does_not";
        if !netloom_service::testing::require(test, "libvirt") {
            return;
        }
        assert_eq!(boots("tcg", Duration::from_secs(60)).await, Ok(()));
        let hangs = boots("tcg", Duration::from_millis(1)).await.unwrap_err();
        assert!(hangs.contains("had not come to its end"), "{hangs}");
        let refused = boots("nosuch", Duration::from_secs(60)).await.unwrap_err();
        assert!(refused.contains("nosuch"), "{refused}");
    }

    #[tokio::test]
    async fn without_its_device_there_is_no_kvm() {
        let said = works(Path::new("/nonexistent/kvm")).await;
        assert_eq!(said, Err("there is no /nonexistent/kvm".to_owned()));
    }
}
