//! Whether guests run on the processor or are emulated. `/dev/kvm` may be there and open, and a guest on it never get anywhere; so a guest of one boot sector has to come to its end first, on the
//! processor that guests get: a host may run one that asks for less.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use super::xml::Accel;

/// How long the probe's guest has. Where KVM works it takes a tenth of it.
const BOUND: Duration = Duration::from_secs(5);
/// What QEMU ends with when the guest has written its word to the port of `isa-debug-exit`.
const ENDED: i32 = (WORD as i32) << 1 | 1;
const WORD: u8 = 0x10;
/// `mov al, WORD; out 0xf4, al; hlt; jmp .`
const PROGRAM: [u8; 7] = [0xb0, WORD, 0xe6, 0xf4, 0xf4, 0xeb, 0xfe];

/// What guests run on here, and why it is not KVM, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// What they run on.
    pub accel: Accel,
    /// Empty with KVM.
    pub why: String,
}

/// Finds out. `kvm` is its device.
pub async fn find(kvm: &Path) -> Found {
    let emulated = |why: String| Found { accel: Accel::Tcg, why };
    if !kvm.exists() {
        return emulated(format!("there is no {}", kvm.display()));
    }
    match boots("kvm", BOUND).await {
        Ok(()) => Found { accel: Accel::Kvm, why: String::new() },
        Err(why) => emulated(format!("{} is there and a guest does not boot on it: {why}", kvm.display())),
    }
}

/// Boots the probe's guest.
async fn boots(accel: &str, bound: Duration) -> Result<(), String> {
    let dir = std::env::temp_dir().join(format!("netloom-probe-{}-{accel}", std::process::id()));
    let outcome = boot_in(&dir, accel, bound).await;
    let _ = std::fs::remove_dir_all(&dir);
    outcome
}

async fn boot_in(dir: &Path, accel: &str, bound: Duration) -> Result<(), String> {
    let disk = dir.join("disk");
    std::fs::create_dir_all(dir)
        .and_then(|()| std::fs::write(&disk, boot_sector()))
        .map_err(|e| e.to_string())?;
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
        let found = find(Path::new("/nonexistent/kvm")).await;
        assert_eq!((found.accel, found.why.as_str()), (Accel::Tcg, "there is no /nonexistent/kvm"));
    }
}
