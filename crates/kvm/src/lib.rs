//! Whether virtual machines run on the processor here. `/dev/kvm` may be there and open, and a guest on it never get anywhere; so a guest of one boot sector has to come to its end first, through
//! all that a kernel does when it begins, on the processor that guests get: a host may run one that asks for less. It is run as libvirt runs guests: by its emulator, and as its user, who may not
//! be let at the device where root is.
//!
//! The compute service goes by it, and `netloom doctor` tells it.

mod program;

use std::fs::DirBuilder;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
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

/// What runs guests, and whom as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Emulator {
    /// The program.
    pub program: PathBuf,
    /// Its user and group; none: whoever asks.
    pub runs_as: Option<(u32, u32)>,
}

impl Default for Emulator {
    fn default() -> Emulator {
        Emulator { program: "qemu-system-x86_64".into(), runs_as: None }
    }
}

impl Emulator {
    /// As libvirt says in its capabilities, of which these are the XML: what is in effect, whatever stands in `qemu.conf`.
    pub fn of_libvirt(capabilities: &str) -> Emulator {
        let arch = capabilities.split("<arch name='x86_64'>").nth(1);
        let program = arch.and_then(|arch| arch.split("<emulator>").nth(1)?.split('<').next());
        Emulator {
            program: program.map_or_else(|| Emulator::default().program, PathBuf::from),
            runs_as: runs_as(capabilities),
        }
    }
}

/// The user and group of `<baselabel type='kvm'>+64055:+64055</baselabel>`; none when libvirt changes no user.
fn runs_as(capabilities: &str) -> Option<(u32, u32)> {
    let dac = capabilities.split("<model>dac</model>").nth(1)?;
    let label = dac.split("<baselabel type='kvm'>").nth(1)?.split('<').next()?;
    let (user, group) = label.split_once(':')?;
    let number = |text: &str| text.trim().trim_start_matches('+').parse().ok();
    Some((number(user)?, number(group)?))
}

/// What tells a device from what it was: another inode, or other times, by which also a change of its owner or mode shows. None when it is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark(Option<(u64, [i64; 4])>);

impl Mark {
    /// Of a device as it is now.
    pub fn of(device: &Path) -> Mark {
        let times = |m: std::fs::Metadata| (m.ino(), [m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec()]);
        Mark(std::fs::metadata(device).ok().map(times))
    }

    /// True when it is there.
    pub fn is_there(&self) -> bool {
        self.0.is_some()
    }
}

/// Boots a guest on the processor, or says in words why it does not. `device` is what it needs, [`DEVICE`] as a rule. A busy host may fail once: it is tried a second time.
pub async fn works(device: &Path, emulator: &Emulator) -> Result<(), String> {
    if !Mark::of(device).is_there() {
        return Err(format!("there is no {}", device.display()));
    }
    let booted = twice(|| boots(emulator, "kvm", BOUND)).await;
    booted.map_err(|why| format!("{} is there and a guest does not boot on it: {why}", device.display()))
}

/// Tries, and once more when that failed.
async fn twice<F: Future<Output = Result<(), String>>>(mut tries: impl FnMut() -> F) -> Result<(), String> {
    match tries().await {
        Ok(()) => Ok(()),
        Err(_) => tries().await,
    }
}

/// Boots the probe's guest.
async fn boots(emulator: &Emulator, accel: &str, bound: Duration) -> Result<(), String> {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let dir = std::env::temp_dir().join(format!("netloom-probe-{}-{count}", std::process::id()));
    // One that somebody else made here is not used: this runs as root.
    DirBuilder::new().mode(0o700).create(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let outcome = boot_in(&dir, emulator, accel, bound).await;
    let _ = std::fs::remove_dir_all(&dir);
    outcome
}

async fn boot_in(dir: &Path, emulator: &Emulator, accel: &str, bound: Duration) -> Result<(), String> {
    let disk = dir.join("disk");
    std::fs::write(&disk, boot_sector()).map_err(|e| format!("{}: {e}", disk.display()))?;
    if let Some((uid, gid)) = emulator.runs_as {
        for path in [dir, &disk] {
            std::os::unix::fs::chown(path, Some(uid), Some(gid))
                .map_err(|e| format!("{}: {e}", path.display()))?;
        }
    }
    let cpu = if accel == "kvm" { "host" } else { "max" };
    let child = command(emulator)
        .args(["-machine", &format!("pc,accel={accel}"), "-cpu", cpu, "-m", "32"])
        .args(["-nodefaults", "-display", "none"])
        .args(["-no-reboot", "-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-drive"])
        .arg(format!("file={},format=raw,if=ide,read-only=off", disk.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| format!("{} cannot be run: {e}", emulator.program.display()))?;
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

/// The emulator, as its user with all groups that this has.
fn command(emulator: &Emulator) -> Command {
    let Some((uid, gid)) = emulator.runs_as else { return Command::new(&emulator.program) };
    let mut command = Command::new("setpriv");
    command.args(["--reuid", &uid.to_string(), "--regid", &gid.to_string(), "--init-groups"]);
    command.arg(&emulator.program);
    command
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
        let own = Emulator::default();
        assert_eq!(boots(&own, "tcg", Duration::from_secs(60)).await, Ok(()));
        let hangs = boots(&own, "tcg", Duration::from_millis(1)).await.unwrap_err();
        assert!(hangs.contains("had not come to its end"), "{hangs}");
        let refused = boots(&own, "nosuch", Duration::from_secs(60)).await.unwrap_err();
        assert!(refused.contains("nosuch"), "{refused}");
        let missing = Emulator { program: "/nonexistent/qemu".into(), ..own };
        let missing = boots(&missing, "tcg", Duration::from_secs(60)).await.unwrap_err();
        assert!(missing.contains("/nonexistent/qemu"), "{missing}");
    }

    /// KVM was said to work where only root was let at the device, and no machine of libvirt's started.
    #[tokio::test]
    async fn the_probe_runs_as_libvirts_user() {
        let test = "the_probe_runs_as_libvirts_user";
        if !["libvirt", "root"].iter().all(|need| netloom_service::testing::require(test, need)) {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let (program, said) = (dir.path().join("emulator"), dir.path().join("said"));
        let script =
            format!("#!/bin/sh\nid -u >{0}; id -g >>{0}; exec qemu-system-x86_64 \"$@\"\n", said.display());
        std::fs::write(&program, script).unwrap();
        for path in [dir.path(), &program] {
            std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        }
        // `nobody`, as Debian has it.
        let emulator = Emulator { program, runs_as: Some((65534, 65534)) };
        assert_eq!(boots(&emulator, "tcg", Duration::from_secs(60)).await, Ok(()));
        assert_eq!(std::fs::read_to_string(said).unwrap(), "65534\n65534\n");
    }

    #[test]
    fn whom_libvirt_runs_qemu_as_and_by_what_its_capabilities_say() {
        let capabilities = "<capabilities><host><secmodel><model>apparmor</model><doi>0</doi></secmodel>
            <secmodel><model>dac</model><doi>0</doi><baselabel type='kvm'>+64055:+108</baselabel>
            <baselabel type='qemu'>+64055:+108</baselabel></secmodel></host>
            <guest><arch name='i686'><emulator>/usr/bin/qemu-system-i386</emulator></arch></guest>
            <guest><arch name='x86_64'><wordsize>64</wordsize><emulator>/opt/qemu</emulator></arch></guest>";
        let said = Emulator { program: "/opt/qemu".into(), runs_as: Some((64055, 108)) };
        assert_eq!(Emulator::of_libvirt(capabilities), said);
        assert_eq!(Emulator::of_libvirt("<capabilities/>"), Emulator::default());
        assert_eq!(Emulator::of_libvirt("<model>dac</model>"), Emulator::default());
    }

    #[tokio::test]
    async fn one_failure_is_not_believed_and_two_are() {
        for (fails, expected, asked) in [(0, Ok(()), 1), (1, Ok(()), 2), (2, Err("2".to_owned()), 2)] {
            let mut tries = 0;
            let outcome = twice(|| {
                tries += 1;
                std::future::ready(if tries > fails { Ok(()) } else { Err(tries.to_string()) })
            });
            assert_eq!(outcome.await, expected);
            assert_eq!(tries, asked);
        }
    }

    #[test]
    fn a_device_that_is_another_or_anothers_now_is_not_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let device = dir.path().join("kvm");
        assert!(!Mark::of(&device).is_there());
        std::fs::write(&device, "").unwrap();
        let first = Mark::of(&device);
        assert!(first.is_there() && first == Mark::of(&device));
        // Times of a file system may be some milliseconds coarse.
        std::thread::sleep(Duration::from_millis(20));
        std::fs::set_permissions(&device, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        assert_ne!(Mark::of(&device), first);
    }

    #[tokio::test]
    async fn without_its_device_there_is_no_kvm() {
        let said = works(Path::new("/nonexistent/kvm"), &Emulator::default()).await;
        assert_eq!(said, Err("there is no /nonexistent/kvm".to_owned()));
    }
}
