//! A private Open vSwitch: its own directory, database, daemons and network namespace, gone with the guard.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";

/// True when Open vSwitch can be run here. When not, says that `test` is skipped, or fails if NETLOOM_REQUIRE
/// names ovs.
pub fn available(test: &str) -> bool {
    let runs = |program: &str, args: &[&str]| {
        let status = Command::new(program).args(args).stdout(Stdio::null()).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    };
    let missing = if !runs("ovsdb-server", &["--version"]) || !runs("ovs-vswitchd", &["--version"]) {
        "Open vSwitch is not installed"
    } else if !runs("unshare", &["-n", "true"]) {
        "no right to make a network namespace"
    } else {
        return true;
    };
    let required = std::env::var("NETLOOM_REQUIRE").unwrap_or_default();
    assert!(!required.split(',').any(|facility| facility.trim() == "ovs"), "{test} needs ovs: {missing}");
    // Not eprintln!: the test runner swallows that for a test that passes.
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {missing}");
    false
}

/// A child that is killed when dropped.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub struct Ovs {
    // Dropped in this order: daemons before their directory.
    vswitchd: Option<Daemon>,
    _ovsdb: Daemon,
    dir: tempfile::TempDir,
}

impl Ovs {
    pub fn start() -> Ovs {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        run(dir.path(), "ovsdb-tool", &["create", &at("conf.db"), SCHEMA]);
        let ovsdb = daemon(
            dir.path(),
            "ovsdb-server",
            &[&at("conf.db"), &format!("--remote=punix:{}", at("db.sock"))],
        );
        wait_for_socket(&dir.path().join("db.sock"));
        let mut ovs = Ovs { vswitchd: None, _ovsdb: ovsdb, dir };
        ovs.vsctl(&["--no-wait", "init"]);
        ovs.start_vswitchd();
        ovs
    }

    /// Starts ovs-vswitchd and waits until it has taken up the configuration.
    pub fn start_vswitchd(&mut self) {
        let db = format!("unix:{}", self.dir.path().join("db.sock").display());
        let vswitchd = daemon(self.dir.path(), "ovs-vswitchd", &[&db]);
        let started = format!("external_ids:started={}", vswitchd.0.id());
        self.vswitchd = Some(vswitchd);
        // A change, without which ovs-vsctl would not wait.
        self.vsctl(&["set", "Open_vSwitch", ".", &started]);
    }

    /// SIGKILL: what it has in memory is gone.
    pub fn kill_vswitchd(&mut self) {
        self.vswitchd = None;
    }

    /// Makes a bridge; gives its management socket.
    pub fn bridge(&self, name: &str) -> PathBuf {
        let settings = ["datapath_type=netdev", "fail_mode=secure", "protocols=OpenFlow14"];
        self.vsctl(&[&["add-br", name, "--", "set", "Bridge", name], &settings[..]].concat());
        self.dir.path().join(format!("{name}.mgmt"))
    }

    /// The bridge as `ovs-ofctl` wants it named.
    pub fn target(&self, bridge: &str) -> String {
        format!("unix:{}", self.dir.path().join(format!("{bridge}.mgmt")).display())
    }

    /// Runs `ovs-vsctl`, which waits until ovs-vswitchd has done what it is told.
    pub fn vsctl(&self, args: &[&str]) -> String {
        let db = format!("--db=unix:{}", self.dir.path().join("db.sock").display());
        run(self.dir.path(), "ovs-vsctl", &[&["--timeout=30", &db], args].concat())
    }

    pub fn ofctl(&self, args: &[&str]) -> String {
        run(self.dir.path(), "ovs-ofctl", &[&["--timeout=30", "-O", "OpenFlow14"], args].concat())
    }
}

fn command(dir: &Path, program: &str) -> Command {
    let mut command = Command::new(program);
    for name in ["OVS_RUNDIR", "OVS_DBDIR", "OVS_LOGDIR"] {
        command.env(name, dir);
    }
    command.stdin(Stdio::null());
    command
}

fn run(dir: &Path, program: &str, args: &[&str]) -> String {
    let output = command(dir, program).args(args).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// Runs `program` in a network namespace of its own: a userspace bridge makes a device of its name. Should the
/// test itself be killed, it goes with it.
fn daemon(dir: &Path, program: &str, args: &[&str]) -> Daemon {
    let at = |kind: &str| format!("{}/{program}.{kind}", dir.display());
    let child = command(dir, "setpriv")
        .args(["--pdeathsig", "KILL", "unshare", "-n", program])
        .args(args)
        .args([format!("--pidfile={}", at("pid")), format!("--unixctl={}", at("ctl"))])
        .args([format!("--log-file={}", at("log")), "-vconsole:off".to_owned()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    Daemon(child.unwrap())
}

fn wait_for_socket(path: &Path) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while std::os::unix::net::UnixStream::connect(path).is_err() {
        assert!(Instant::now() < deadline, "no socket at {}", path.display());
        std::thread::sleep(Duration::from_millis(5));
    }
}
