//! `doctor --fix`, against the tools themselves: LVM in a system directory of its own; and for what else it would change, a mount namespace whose /etc, /dev and parameters of the
//! kernel are the test's, where daemons are started also with processes and a network of its own. Only what loads modules is the test's too. The machine is never touched.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use netloom_service::testing::require;
use serde_json::Value;

use crate::fake::{Ended, command, finish};

/// A file as `sed` once left it: what stands before the key is a backslash and a t.
const BROKEN: &str = "devices {\n\\tglobal_filter = [ \"a|^/dev/sd.*|\", \"r|.*|\" ]\n}\n";

struct Lvm(tempfile::TempDir);

impl Lvm {
    fn with(text: &str) -> Lvm {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("lvm.conf"), text).unwrap();
        Lvm(dir)
    }

    async fn doctor(&self, args: &[&str]) -> Ended {
        let mut doctor = command(self.0.path(), &[&["doctor"], args, &["lvm"]].concat());
        doctor.env("LVM_SYSTEM_DIR", self.0.path());
        finish(doctor, b"").await
    }

    fn lvmconfig(&self, args: &[&str]) -> (bool, String) {
        let mut lvmconfig = Command::new("/usr/sbin/lvmconfig");
        lvmconfig.env("LVM_SYSTEM_DIR", self.0.path()).env("LVM_SUPPRESS_FD_WARNINGS", "1");
        let output = lvmconfig.args(args).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    fn filter(&self) -> String {
        self.lvmconfig(&["--type", "full", "devices/global_filter"]).1
    }

    /// Every file with its content.
    fn files(&self) -> Vec<(String, String)> {
        files(self.0.path())
    }
}

fn files(dir: &Path) -> Vec<(String, String)> {
    let of = |e: std::io::Result<std::fs::DirEntry>| {
        let path = e.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        path.is_file().then(|| (name, std::fs::read_to_string(path).unwrap()))
    };
    let mut files: Vec<_> = std::fs::read_dir(dir).into_iter().flatten().filter_map(of).collect();
    files.sort();
    files
}

fn json(ended: &Ended) -> Value {
    serde_json::from_str(&ended.out).unwrap_or_else(|e| panic!("{e}: {}{}", ended.out, ended.err))
}

/// The mission's row M1.
#[tokio::test]
async fn a_literal_tab_before_the_key_is_found_and_mended_and_lvm_says_so() {
    let test = "a_literal_tab_before_the_key_is_found_and_mended_and_lvm_says_so";
    if !require(test, "lvm") {
        return;
    }
    let lvm = Lvm::with(BROKEN);
    assert_eq!(
        lvm.lvmconfig(&["--type", "full", "devices/global_filter"]),
        (true, "global_filter=[\"a|.*|\"]".into())
    );
    let found = lvm.doctor(&["--format", "json"]).await.expect(1);
    let check = &json(&found)["checks"][0];
    assert_eq!((&check["status"], &check["fixable"]), (&"FAIL".into(), &true.into()), "{check}");
    assert!(check["evidence"].as_str().unwrap().contains(r#""devices/\tglobal_filter" unknown"#), "{check}");

    let refused = lvm.doctor(&["--fix"]).await.expect(2);
    assert!(refused.err.contains("--yes"), "{}", refused.err);
    let shown = lvm.doctor(&["--fix", "--dry-run"]).await.expect(1);
    let diff = "\n-\\tglobal_filter = [ \"a|^/dev/sd.*|\", \"r|.*|\" ]\n+\tglobal_filter = [ \"a|^/dev/sd.*|\", \"r|.*|\" ]\n";
    assert!(shown.out.contains(diff), "{}", shown.out);
    assert_eq!(lvm.files(), [("lvm.conf".to_owned(), BROKEN.to_owned())], "only looked at so far");

    let mended = lvm.doctor(&["--fix", "--yes", "--format", "json"]).await.expect(0);
    let mended = json(&mended);
    assert_eq!((&mended["ok"], &mended["checks"][0]["status"]), (&true.into(), &"OK".into()), "{mended}");
    assert_eq!(mended["fixes"][0]["result"], "FIXED", "{mended}");
    assert!(lvm.lvmconfig(&["--validate"]).0);
    assert_eq!(lvm.filter(), "global_filter=[\"a|^/dev/sd.*|\",\"r|.*|\"]");
    let backup = mended["fixes"][0]["changes"][0]["backup"].as_str().unwrap();
    assert_eq!(std::fs::read_to_string(backup).unwrap(), BROKEN);

    let before = lvm.files();
    let again = lvm.doctor(&["--fix", "--yes", "--format", "json"]).await.expect(0);
    assert_eq!(json(&again)["fixes"], Value::Array(Vec::new()));
    assert_eq!(lvm.files(), before, "a second run changes nothing");
}

#[tokio::test]
async fn lvm_is_kept_off_the_disks_of_guests_and_keeps_its_own_patterns() {
    let test = "lvm_is_kept_off_the_disks_of_guests_and_keeps_its_own_patterns";
    if !require(test, "lvm") {
        return;
    }
    let wide = Lvm::with("log {\n}\ndevices {\n\tglobal_filter = [ \"a|^/dev/vd.*|\" ]\n}\n");
    let found = wide.doctor(&[]).await.expect(0);
    assert!(found.out.starts_with("WARN  lvm") && found.out.contains("/dev/nbd*"), "{}", found.out);
    wide.doctor(&["--fix", "--yes"]).await.expect(0);
    assert_eq!(wide.filter(), "global_filter=[\"r|^/dev/nbd.*|\",\"a|^/dev/vd.*|\"]");

    // The local file goes before the other, so it is the one to mend.
    let local = Lvm::with("devices {\n\tglobal_filter = [ \"r|.*|\" ]\n}\n");
    std::fs::write(local.0.path().join("lvmlocal.conf"), BROKEN.replace("\\t", "").replace("sd", "."))
        .unwrap();
    let fixed = local.doctor(&["--fix", "--yes"]).await.expect(0);
    assert!(fixed.out.contains("lvmlocal.conf"), "{}", fixed.out);
    assert_eq!(local.filter(), "global_filter=[\"r|^/dev/nbd.*|\",\"a|^/dev/..*|\",\"r|.*|\"]");
}

#[tokio::test]
async fn a_fix_that_does_not_take_is_told_and_leaves_the_file_as_it_was() {
    let test = "a_fix_that_does_not_take_is_told_and_leaves_the_file_as_it_was";
    if !require(test, "lvm") {
        return;
    }
    // Another key that LVM does not know: only a person knows what it was to be.
    let text = format!("{BROKEN}nosuch {{\n\tkey = 1\n}}\n");
    let lvm = Lvm::with(&text);
    let failed = lvm.doctor(&["--fix", "--yes"]).await.expect(1);
    let told =
        failed.out.lines().find(|l| l.starts_with("FAILED")).unwrap_or_else(|| panic!("{}", failed.out));
    assert!(
        told.contains("has no effect") && told.contains("nosuch") && told.contains("as they were"),
        "{told}"
    );
    assert_eq!(lvm.files(), [("lvm.conf".to_owned(), text)]);
    let failed = json(&lvm.doctor(&["--fix", "--yes", "--format", "json"]).await.expect(1));
    assert_eq!((&failed["ok"], &failed["fixes"][0]["result"]), (&false.into(), &"FAILED".into()), "{failed}");
}

/// A machine in a mount namespace: changes of /etc, of /dev and of fs.inotify stay in its directory.
struct Private {
    dir: tempfile::TempDir,
}

impl Private {
    fn new() -> Private {
        let dir = tempfile::tempdir().unwrap();
        for name in ["etc", "work", "inotify", "dev", "udev", "bin"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        let private = Private { dir };
        private.write("inotify/max_user_instances", "128\n");
        private.write("inotify/max_user_watches", "999999\n");
        private.write("dev/null", "");
        private
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// A program of its own.
    fn program(&self, name: &str, script: &str) {
        let name = format!("bin/{name}");
        self.write(&name, &format!("#!/bin/sh\n{script}\n"));
        std::fs::set_permissions(self.path(&name), std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Runs doctor in it; `more` mounts more, in its directory.
    async fn doctor(&self, more: &str, args: &[&str]) -> Ended {
        self.run(&[], more, "exec \"$0\" doctor \"$@\"", args).await
    }

    /// Runs a script in it, in which `$0` is netloom and `$@` are these words; `flags` are for `unshare`.
    async fn run(&self, flags: &[&str], more: &str, last: &str, args: &[&str]) -> Ended {
        let script = format!(
            "mount -t overlay overlay -o lowerdir=/etc,upperdir=etc,workdir=work /etc
             mount --bind inotify /proc/sys/fs/inotify
             if [ -d /run/udev ]; then mount --bind udev /run/udev; fi
             mount --bind /dev/null dev/null
             {more}
             PATH=$PWD/bin:$PATH
             mount --rbind dev /dev
             {last}"
        );
        let mut inside = tokio::process::Command::new("unshare");
        inside.args(flags).args([
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-ec",
            &script,
            env!("CARGO_BIN_EXE_netloom"),
        ]);
        inside.args(args).current_dir(self.dir.path()).kill_on_drop(true);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("NETLOOM_")) {
            inside.env_remove(name);
        }
        inside.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        finish(inside, b"").await
    }
}

const INSTANCES: &str = "fs.inotify.max_user_instances";
const SETTING: &str = "fs.inotify.max_user_instances = 512\n";

#[tokio::test]
async fn a_kernel_parameter_is_raised_now_and_for_the_next_start() {
    if !require("a_kernel_parameter_is_raised_now_and_for_the_next_start", "root") {
        return;
    }
    let machine = Private::new();
    let found = machine.doctor("", &[INSTANCES]).await.expect(0);
    assert!(found.out.contains("128, below 512"), "{}", found.out);
    let fixed = machine.doctor("", &["--fix", "--yes", INSTANCES]).await.expect(0);
    assert!(fixed.out.contains("FIXED   fs.inotify.max_user_instances: 512\n"), "{}", fixed.out);
    assert_eq!(machine.read("inotify/max_user_instances").trim(), "512");
    assert!(machine.read("etc/sysctl.d/60-netloom.conf").ends_with(SETTING));
    let again = machine.doctor("", &["--fix", "--yes", INSTANCES]).await.expect(0);
    assert!(again.out.contains("There is nothing that could be mended from here\n"), "{}", again.out);

    // What is right now and would not be after a start. Asking what a start would set sets nothing.
    machine.write("etc/sysctl.d/60-netloom.conf", &SETTING.replace("512", "100"));
    let found = machine.doctor("", &[INSTANCES]).await.expect(0);
    assert!(found.out.contains("512, and 100 after the next start"), "{}", found.out);
    assert_eq!(machine.read("inotify/max_user_instances").trim(), "512");
    let fixed = machine.doctor("", &["--fix", "--yes", INSTANCES]).await.expect(0);
    assert!(fixed.out.contains("-fs.inotify.max_user_instances = 100\n+"), "{}", fixed.out);
    assert!(!fixed.out.contains("run sysctl"), "{}", fixed.out);
    let kept = files(&machine.path("etc/sysctl.d"));
    assert_eq!(kept.len(), 2, "{kept:?}");
    assert_eq!(kept[0], ("60-netloom.conf".to_owned(), SETTING.to_owned()));
    assert!(kept[1].0.starts_with("60-netloom.conf.netloom-"), "{kept:?}");
}

#[tokio::test]
async fn a_parameter_that_the_kernel_does_not_take_leaves_nothing_behind() {
    if !require("a_parameter_that_the_kernel_does_not_take_leaves_nothing_behind", "root") {
        return;
    }
    let machine = Private::new();
    let read_only = "mount -o remount,bind,ro /proc/sys/fs/inotify";
    let failed = machine.doctor(read_only, &["--fix", "--yes", INSTANCES]).await.expect(1);
    let told =
        failed.out.lines().find(|l| l.starts_with("FAILED")).unwrap_or_else(|| panic!("{}", failed.out));
    assert!(
        told.contains("sysctl -q -w fs.inotify") && told.ends_with("the files are as they were"),
        "{told}"
    );
    assert_eq!(files(&machine.path("etc/sysctl.d")), []);
    assert_eq!(machine.read("inotify/max_user_instances").trim(), "128");
}

#[tokio::test]
async fn libvirts_user_is_let_to_kvm_by_its_group_and_by_no_more() {
    if !require("libvirts_user_is_let_to_kvm_by_its_group_and_by_no_more", "root") {
        return;
    }
    let machine = Private::new();
    machine.write("dev/kvm", "");
    let mode = |mode| {
        std::fs::set_permissions(machine.path("dev/kvm"), std::fs::Permissions::from_mode(mode)).unwrap()
    };
    mode(0o600);
    // libvirt's word for whom it runs QEMU as: here somebody who is in no group.
    let said = "echo \"<model>dac</model><baselabel type='kvm'>+65534:+65534</baselabel>\"";
    machine.program("virsh", said);
    // Everybody has to get to where the private /dev is.
    std::fs::set_permissions(machine.dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();

    let found = machine.doctor("", &["libvirt-kvm"]).await.expect(0);
    assert!(
        found.out.starts_with("WARN  libvirt-kvm") && found.out.contains("cannot open /dev/kvm"),
        "{}",
        found.out
    );
    let fixed = machine.doctor("", &["--fix", "--yes", "libvirt-kvm"]).await.expect(0);
    assert!(fixed.out.contains("FIXED   libvirt-kvm: nobody can open /dev/kvm\n"), "{}", fixed.out);
    let kvm = std::fs::metadata(machine.path("dev/kvm")).unwrap();
    assert_eq!(kvm.permissions().mode() & 0o777, 0o660, "nobody else may");
    assert!(machine.read("etc/group").lines().any(|l| l.starts_with("kvm:") && l.ends_with("nobody")));
    let again = machine.doctor("", &["--fix", "--yes", "libvirt-kvm"]).await.expect(0);
    assert!(again.out.contains("There is nothing that could be mended from here\n"), "{}", again.out);
}

/// Open vSwitch's own init script, in a place where it does not run yet.
#[tokio::test]
async fn a_daemon_that_does_not_run_is_started_once_by_what_starts_it() {
    let test = "a_daemon_that_does_not_run_is_started_once_by_what_starts_it";
    if !require(test, "root") || !require(test, "ovs") {
        return;
    }
    let machine = Private::new();
    machine.program("modprobe", "exit 0");
    let more = "mkdir -p run ovs/etc ovs/log ovs/lib /var/lib/openvswitch
        mount --bind ovs/etc /etc/openvswitch
        mount --bind ovs/log /var/log/openvswitch
        mount --bind ovs/lib /var/lib/openvswitch
        mount --bind run /run
        mount --bind bin/modprobe \"$(readlink -f \"$(command -v modprobe)\")\"
        touch dev/urandom
        mount --bind /dev/urandom dev/urandom";
    let last = "\"$0\" doctor --fix --dry-run \"$@\" || echo dry run: $?
        [ ! -e /run/openvswitch ]
        \"$0\" doctor --fix --yes --format json \"$@\" >fixed
        pidof ovs-vswitchd >before
        \"$0\" doctor --fix --yes \"$@\"
        pidof ovs-vswitchd >after";
    let flags = ["--net", "--pid", "--fork", "--kill-child", "--mount-proc"];
    let ended = machine.run(&flags, more, last, &["ovs-database", "ovs-vswitchd"]).await.expect(0);
    assert!(ended.out.contains("run service openvswitch-switch start\n"), "{}", ended.out);
    assert!(ended.out.contains("dry run: 1\n"), "{}", ended.out);
    let fixed: Value = serde_json::from_str(&machine.read("fixed")).unwrap();
    let fixes = fixed["fixes"].as_array().unwrap();
    assert_eq!((&fixed["ok"], fixes.len()), (&true.into(), 2), "{fixed}");
    assert!(fixes.iter().all(|fix| fix["result"] == "FIXED"), "{fixed}");
    let changes = fixes.iter().map(|fix| fix["changes"].as_array().unwrap().len());
    assert_eq!(changes.collect::<Vec<_>>(), [1, 0], "one start has mended both");
    assert!(ended.out.contains("There is nothing that could be mended from here\n"), "{}", ended.out);
    assert!(!machine.read("before").is_empty());
    assert_eq!(machine.read("before"), machine.read("after"), "a second run starts nothing");
}

/// What loads modules is the test's; what it is told to load, and at each start, is not.
#[tokio::test]
async fn a_module_is_loaded_now_and_at_each_start_or_nothing_is_left() {
    if !require("a_module_is_loaded_now_and_at_each_start_or_nothing_is_left", "root") {
        return;
    }
    let machine = Private::new();
    machine.program("modinfo", "[ $1 = openvswitch ]");
    std::fs::create_dir(machine.path("modules")).unwrap();
    std::fs::create_dir(machine.path("etc/modules-load.d")).unwrap();
    let more = "mount --bind modules /sys/module";
    let list = "etc/modules-load.d/netloom.conf";
    machine.program("modprobe", "exit 1");
    let shown = machine.doctor(more, &["--fix", "--dry-run", "datapath"]).await.expect(1);
    assert!(shown.out.contains("\n+openvswitch\n") && shown.out.contains("run modprobe openvswitch\n"));
    assert!(!machine.path(list).exists(), "only looked at so far");
    let failed = machine.doctor(more, &["--fix", "--yes", "datapath"]).await.expect(1);
    let told = failed.out.lines().find(|l| l.starts_with("FAILED")).unwrap_or_default();
    assert!(told.contains("modprobe openvswitch: exit code 1; the files are as they were"), "{}", failed.out);
    assert!(!machine.path(list).exists());

    machine.program("modprobe", "mkdir /sys/module/$1");
    machine.write(list, "# mine\n");
    let fixed = machine.doctor(more, &["--fix", "--yes", "datapath"]).await.expect(0);
    assert!(
        fixed.out.contains("FIXED   datapath: the kernel module openvswitch is loaded\n"),
        "{}",
        fixed.out
    );
    assert_eq!(machine.read(list), "# mine\nopenvswitch\n");
    let kept = files(&machine.path("etc/modules-load.d"));
    assert!(kept.len() == 2 && kept[1].1 == "# mine\n", "{kept:?}");
    let again = machine.doctor(more, &["--fix", "--yes", "datapath"]).await.expect(0);
    assert!(again.out.contains("There is nothing that could be mended from here\n"), "{}", again.out);
    assert_eq!(files(&machine.path("etc/modules-load.d")), kept);
}

/// What loads modules is the test's, which does as it is told below /etc; so is what the kernel says of them.
#[tokio::test]
async fn guests_are_let_have_guests_from_now_on_and_a_second_run_changes_nothing() {
    if !require("guests_are_let_have_guests_from_now_on_and_a_second_run_changes_nothing", "root") {
        return;
    }
    let machine = Private::new();
    let (nested, option) = ("modules/kvm_intel/parameters/nested", "etc/modprobe.d/netloom.conf");
    for dir in ["modules/kvm_intel/parameters", "etc/modprobe.d"] {
        std::fs::create_dir_all(machine.path(dir)).unwrap();
    }
    machine.write(nested, "N\n");
    machine.write(option, "# mine\n");
    machine.program(
        "modprobe",
        "echo $* >>asked
        case $(grep -h '^options kvm_intel' /etc/modprobe.d/netloom.conf) in *nested=1*) echo Y ;; *) echo N ;; esac >/sys/module/kvm_intel/parameters/nested",
    );
    let more = "mount --bind modules /sys/module";
    let found = machine.doctor(more, &["kvm-nested"]).await.expect(0);
    assert!(found.out.starts_with("WARN  kvm-nested"), "{}", found.out);
    let shown = machine.doctor(more, &["--fix", "--dry-run", "kvm-nested"]).await.expect(0);
    assert!(shown.out.contains("+options kvm_intel nested=1\n"), "{}", shown.out);
    assert!(shown.out.contains("run modprobe -r kvm_intel\nrun modprobe kvm_intel\n"), "{}", shown.out);
    assert_eq!(
        (machine.read(nested).as_str(), machine.read("asked").as_str()),
        ("N\n", ""),
        "only looked at"
    );
    let fixed = machine.doctor(more, &["--fix", "--yes", "kvm-nested"]).await.expect(0);
    assert!(fixed.out.contains("FIXED   kvm-nested: kvm_intel lets guests run guests\n"), "{}", fixed.out);
    assert_eq!(machine.read("asked"), "-r kvm_intel\nkvm_intel\n");
    assert_eq!(machine.read(option), "# mine\noptions kvm_intel nested=1\n");
    let kept = files(&machine.path("etc/modprobe.d"));
    let again = machine.doctor(more, &["--fix", "--yes", "kvm-nested"]).await.expect(0);
    assert!(again.out.contains("There is nothing that could be mended from here\n"), "{}", again.out);
    assert_eq!(files(&machine.path("etc/modprobe.d")), kept);
    assert_eq!(machine.read("asked"), "-r kvm_intel\nkvm_intel\n", "a second run changes nothing");
}

#[tokio::test]
async fn a_check_that_does_not_exist_is_told_with_those_that_do() {
    let dir = tempfile::tempdir().unwrap();
    let ended = finish(command(dir.path(), &["doctor", "lvn"]), b"").await.expect(2);
    assert!(ended.err.contains("there is no check lvn; there are docker, "), "{}", ended.err);
    finish(command(dir.path(), &["doctor", "--yes"]), b"").await.expect(2);
}
