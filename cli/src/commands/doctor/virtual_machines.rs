//! What virtual machines need beside disks: a processor that runs them, and a libvirt that may use it. Security is never lowered for it.

use std::ffi::CString;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use netloom_kvm::Emulator;
use nix::unistd::{Gid, Group, Uid, User};

use super::finding::{Check, fail, not_allowed, ok, warn};
use super::plan::{Change, line, run_undone_by};
use super::tool::Tool;

/// Names of the checks.
pub const KVM: &str = "kvm";
/// Guests in guests.
pub const NESTED: &str = "kvm-nested";
/// libvirt itself.
pub const LIBVIRT: &str = "libvirt";
/// libvirt's access to the device.
pub const LIBVIRT_KVM: &str = "libvirt-kvm";

/// Modules for the two makes of processor, and the flags in /proc/cpuinfo that say which.
const MODULES: [(&str, &str); 2] = [("kvm_intel", "vmx"), ("kvm_amd", "svm")];
/// What libvirt may take to say what it can do, once it knows.
const AT_ONCE: Duration = Duration::from_secs(2);

/// What was found out about KVM.
pub enum Kvm {
    /// A guest boots.
    Boots,
    /// Only root may try.
    NotAllowed,
    /// There is no device; the module that would make it, where there is one to load.
    NoDevice(Option<&'static str>),
    /// It does not boot, and why.
    Hangs(String),
}

/// Boots a guest, as libvirt would where it answers.
pub async fn kvm(libvirt: &Libvirt) -> Kvm {
    let device = Path::new(netloom_kvm::DEVICE);
    if !device.exists() {
        let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let has =
            |flag: &str| flags.lines().any(|l| l.starts_with("flags") && l.split(' ').any(|f| f == flag));
        let module = MODULES.iter().find(|(_, flag)| has(flag)).map(|(module, _)| *module);
        let module = match module {
            Some(module) if super::probe::has_module(module).await => Some(module),
            _ => None,
        };
        return Kvm::NoDevice(module);
    }
    let opened = std::fs::File::options().read(true).write(true).open(device);
    if opened.is_err_and(|e| e.kind() == io::ErrorKind::PermissionDenied) {
        return Kvm::NotAllowed;
    }
    let emulator = match libvirt {
        Libvirt::Answers { emulator, .. } if nix::unistd::geteuid().is_root() => emulator.clone(),
        _ => Emulator::default(),
    };
    match netloom_kvm::works(device, &emulator).await {
        Ok(()) => Kvm::Boots,
        Err(why) => Kvm::Hangs(why),
    }
}

/// Judges it. Without KVM virtual machines are emulated.
pub fn judge_kvm(seen: Kvm) -> Check {
    match seen {
        Kvm::Boots => ok(KVM, "a guest boots on it"),
        Kvm::NotAllowed => not_allowed(KVM, netloom_kvm::DEVICE),
        Kvm::NoDevice(Some(module)) => warn(
            KVM,
            format!(
                "no {}: the module {module} is not loaded, and virtual machines would be emulated and slow",
                netloom_kvm::DEVICE
            ),
            format!("modprobe {module}; where that is refused, switch on virtualisation in the firmware"),
        )
        .with(load(module)),
        Kvm::NoDevice(None) => warn(
            KVM,
            "no /dev/kvm: virtual machines would be emulated and slow; containers are not affected",
            "for virtual machines: switch on virtualisation in the firmware, or nested virtualisation on the machine that this one runs on",
        ),
        Kvm::Hangs(why) => warn(
            KVM,
            format!("{why}: virtual machines are emulated and slow; containers are not affected"),
            "install QEMU where it is missing (apt install qemu-system-x86); where libvirt's user is not let at the device see the check libvirt-kvm; where this machine is itself a virtual one, switch on nested virtualisation below it",
        ),
    }
}

/// Loads a module, now and at each start.
pub fn load(module: &str) -> Vec<Change> {
    vec![
        line("/etc/modules-load.d/netloom.conf", module, module),
        run_undone_by(&["modprobe", module], &["modprobe", "-r", module]),
    ]
}

/// The module of KVM that is loaded, and whether it lets guests have guests.
pub fn nested() -> Option<(&'static str, bool)> {
    MODULES.iter().find_map(|(module, _)| {
        let text = std::fs::read_to_string(format!("/sys/module/{module}/parameters/nested")).ok()?;
        Some((*module, matches!(text.trim(), "1" | "Y" | "y")))
    })
}

/// Judges it.
pub fn judge_nested(seen: Option<(&str, bool)>) -> Check {
    match seen {
        None => ok(NESTED, "neither kvm_intel nor kvm_amd is loaded: there is nothing to switch"),
        Some((module, true)) => ok(NESTED, format!("{module} lets guests run guests")),
        Some((module, false)) => warn(
            NESTED,
            format!("{module} does not let guests run guests: routers that are made of virtual machines are slow inside one"),
            format!("the line \"options {module} nested=1\" into /etc/modprobe.d/netloom.conf, then load the module anew while no guest runs"),
        )
        .with(vec![
            line("/etc/modprobe.d/netloom.conf", &format!("options {module}"), &format!("options {module} nested=1")),
            run_undone_by(&["modprobe", "-r", module], &["modprobe", module]),
            run_undone_by(&["modprobe", module], &["modprobe", "-r", module]),
        ]),
    }
}

/// What libvirt said.
#[derive(Debug, Clone)]
pub enum Libvirt {
    /// Its programs are not here.
    Missing,
    /// It does not answer.
    Silent(String),
    /// It answers.
    Answers {
        /// How long it took to say what it can do, when it had just been asked the same.
        took: Duration,
        /// What it runs machines by, and whom as.
        emulator: Emulator,
    },
}

/// A libvirt that finds out anew what QEMU can do takes most of a minute for an answer, and it answers.
const SLOW: Duration = Duration::from_secs(120);

/// Asks libvirt, by its own program.
pub async fn libvirt(uri: &str) -> Libvirt {
    let mut answer = Libvirt::Missing;
    // The first answer may be one that it had yet to find out.
    for _ in 0..2 {
        let began = Instant::now();
        let said = match Tool::new("virsh")
            .within(SLOW)
            .run(&["--connect", uri, "--readonly", "capabilities"])
            .await
        {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Libvirt::Missing,
            Err(e) => return Libvirt::Silent(e.to_string()),
            Ok(said) if !said.ok() => return Libvirt::Silent(said.why()),
            Ok(said) => said,
        };
        let took = began.elapsed();
        answer = Libvirt::Answers { took, emulator: Emulator::of_libvirt(&said.out) };
        if took < AT_ONCE {
            break;
        }
    }
    answer
}

/// libvirt answers, and at once. It is needed only where it is configured.
pub fn judge_libvirt(seen: &Libvirt, configured: bool) -> Check {
    match seen {
        Libvirt::Missing if !configured => ok(LIBVIRT, "not installed; labs of containers do without"),
        Libvirt::Missing => fail(
            LIBVIRT,
            "virsh is not installed, and \"libvirt\" is among the drivers of [compute]",
            "install libvirt (apt install libvirt-daemon-system libvirt-clients qemu-system-x86 qemu-utils)",
        ),
        Libvirt::Silent(why) => {
            let (evidence, fix) =
                (format!("it does not answer: {why}"), "start it (systemctl start libvirtd)");
            if configured { fail(LIBVIRT, evidence, fix) } else { warn(LIBVIRT, evidence, fix) }
        }
        Libvirt::Answers { took, .. } if *took < AT_ONCE => ok(LIBVIRT, "it answers"),
        Libvirt::Answers { took, .. } => warn(
            LIBVIRT,
            format!(
                "it finds out anew each time what QEMU can do, which took {:.1} s: each definition of a virtual machine takes as long or longer",
                took.as_secs_f32()
            ),
            format!(
                "see that the user it runs QEMU as may open /dev/kvm (the check {LIBVIRT_KVM}), and restart libvirtd; leave its security_driver as it is"
            ),
        ),
    }
}

/// Who may open the device, and whom libvirt runs QEMU as.
#[derive(Debug, Clone)]
pub struct Access {
    /// The user's name.
    pub user: String,
    /// What the system said when the user tried; none when the device opened.
    pub refused: Option<String>,
    /// Whether the device is the group's, for reading and writing, and nobody else's.
    pub device_is_groups: bool,
    /// The group that the device has.
    pub device_gid: u32,
    /// The mode that it has.
    pub device_mode: u32,
    /// Whether the group exists.
    pub group_exists: bool,
    /// Whether the user is in it.
    pub user_in_group: bool,
    /// Whether udev makes the device.
    pub udev: bool,
}

/// The group that may use the device, as distributions have it.
const GROUP: &str = "kvm";

/// Opens the device as that user; none when there is nothing to open, or nobody to open it.
pub async fn access(seen: &Libvirt) -> io::Result<Option<Access>> {
    let Libvirt::Answers { emulator: Emulator { runs_as: Some((uid, gid)), .. }, .. } = seen else {
        return Ok(None);
    };
    let Ok(device) = std::fs::metadata(netloom_kvm::DEVICE) else { return Ok(None) };
    let Some(user) = User::from_uid(Uid::from_raw(*uid))? else { return Ok(None) };
    let (uid, gid) = (uid.to_string(), gid.to_string());
    let ids = ["--reuid", &uid, "--regid", &gid, "--init-groups"];
    let open = ["sh", "-c", "exec 3<>\"$0\"", netloom_kvm::DEVICE];
    let said = Tool::new("setpriv").run(&[&ids[..], &open[..]].concat()).await?;
    let group = Group::from_name(GROUP)?;
    let is_group = |gid: Gid| group.as_ref().is_some_and(|g| g.gid == gid);
    let name = CString::new(user.name.as_str())?;
    let groups = nix::unistd::getgrouplist(&name, user.gid)?;
    Ok(Some(Access {
        refused: (!said.ok()).then(|| said.why()),
        device_is_groups: is_group(Gid::from_raw(device.gid())) && device.mode() & 0o777 == 0o660,
        device_gid: device.gid(),
        device_mode: device.mode() & 0o7777,
        group_exists: group.is_some(),
        user_in_group: groups.into_iter().any(is_group),
        udev: Path::new("/run/udev/control").exists(),
        user: user.name,
    }))
}

/// The user that libvirt runs QEMU as can open the device.
pub fn judge_access(seen: io::Result<Option<Access>>) -> Check {
    let access = match seen {
        Ok(Some(access)) => access,
        Ok(None) => return ok(LIBVIRT_KVM, "there is no libvirt that answers, or no /dev/kvm"),
        Err(e) => return warn(LIBVIRT_KVM, format!("cannot be tried: {e}"), "run sudo netloom doctor"),
    };
    let Access { user, refused, .. } = &access;
    let Some(refused) = refused else { return ok(LIBVIRT_KVM, format!("{user} can open /dev/kvm")) };
    if refused.contains("setpriv:") {
        return not_allowed(LIBVIRT_KVM, "/dev/kvm as another user");
    }
    let mut plan = Vec::new();
    if !access.group_exists {
        plan.push(run_undone_by(&["groupadd", "--system", GROUP], &["groupdel", GROUP]));
    }
    if !access.user_in_group {
        plan.push(run_undone_by(
            &["usermod", "--append", "--groups", GROUP, user],
            &["gpasswd", "--delete", user, GROUP],
        ));
    }
    if !access.device_is_groups {
        if access.udev {
            let rule = format!("KERNEL==\"kvm\", GROUP=\"{GROUP}\", MODE=\"0660\"");
            plan.push(line("/etc/udev/rules.d/65-netloom-kvm.rules", "KERNEL==\"kvm\"", &rule));
            let reload = ["udevadm", "control", "--reload"];
            plan.push(run_undone_by(&reload, &reload));
        }
        let (gid, mode) = (access.device_gid.to_string(), format!("{:04o}", access.device_mode));
        let device = netloom_kvm::DEVICE;
        plan.push(run_undone_by(&["chgrp", GROUP, device], &["chgrp", &gid, device]));
        plan.push(run_undone_by(&["chmod", "0660", device], &["chmod", &mode, device]));
    }
    warn(
        LIBVIRT_KVM,
        format!("libvirt runs QEMU as {user}, who cannot open /dev/kvm ({refused}): virtual machines do not start with KVM, and libvirt takes most of a minute for each definition"),
        format!("let the group {GROUP} use /dev/kvm (chgrp {GROUP} and chmod 0660, and a rule of udev that does the same), and {user} be in it"),
    )
    .with(plan)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::doctor::finding::Status;

    fn access() -> Access {
        Access {
            user: "q".into(),
            refused: Some("sh: cannot open /dev/kvm: Permission denied".into()),
            device_is_groups: false,
            device_gid: 0,
            device_mode: 0o600,
            group_exists: true,
            user_in_group: true,
            udev: false,
        }
    }

    fn commands(check: &Check) -> Vec<String> {
        let words = |c: &Change| match c {
            Change::Run(command) => command.words.join(" "),
            Change::Edit { path, .. } => path.display().to_string(),
        };
        check.plan.iter().map(words).collect()
    }

    #[test]
    fn only_what_lacks_is_given_and_never_to_everybody() {
        let judged = |access| judge_access(Ok(Some(access)));
        assert_eq!(commands(&judged(access())), ["chgrp kvm /dev/kvm", "chmod 0660 /dev/kvm"]);
        let alone = Access { user_in_group: false, device_is_groups: true, ..access() };
        assert_eq!(commands(&judged(alone)), ["usermod --append --groups kvm q"]);
        let udev = Access { udev: true, ..access() };
        assert_eq!(commands(&judged(udev))[0], "/etc/udev/rules.d/65-netloom-kvm.rules");
        assert_eq!(judged(Access { refused: None, ..access() }).status, Status::Ok);
        let not_root = judged(Access { refused: Some("setpriv: setresuid failed".into()), ..access() });
        assert!(not_root.status == Status::Warn && not_root.plan.is_empty());
    }

    #[test]
    fn libvirt_is_needed_where_it_is_configured_and_slowness_is_told_with_its_safe_cure() {
        let silent = Libvirt::Silent("no".into());
        let of = |seen: &Libvirt, configured| judge_libvirt(seen, configured).status;
        assert_eq!((of(&Libvirt::Missing, false), of(&Libvirt::Missing, true)), (Status::Ok, Status::Fail));
        assert_eq!((of(&silent, false), of(&silent, true)), (Status::Warn, Status::Fail));
        let after = |took| judge_libvirt(&Libvirt::Answers { took, emulator: Emulator::default() }, true);
        assert_eq!(after(Duration::ZERO).status, Status::Ok);
        let slow = after(Duration::from_secs(9));
        assert!(
            slow.evidence.contains("9.0 s") && slow.fix.contains(LIBVIRT_KVM) && slow.plan.is_empty(),
            "{slow:?}"
        );
    }

    #[test]
    fn nested_guests_and_modules() {
        assert_eq!(judge_nested(None).status, Status::Ok);
        assert_eq!(judge_nested(Some(("kvm_amd", true))).status, Status::Ok);
        assert_eq!(judge_nested(Some(("kvm_amd", false))).plan.len(), 3);
        assert_eq!(judge_kvm(Kvm::NoDevice(Some("kvm_intel"))).plan, load("kvm_intel"));
        assert_eq!(judge_kvm(Kvm::Boots).status, Status::Ok);
        for seen in [Kvm::NoDevice(None), Kvm::Hangs("it hangs".into()), Kvm::NotAllowed] {
            let check = judge_kvm(seen);
            assert!(check.status == Status::Warn && check.plan.is_empty() && !check.fix.is_empty());
        }
    }
}
