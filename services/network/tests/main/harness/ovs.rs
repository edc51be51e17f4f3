//! A private Open vSwitch.

use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{BOUND, run};

const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";

/// A child that is killed when dropped, and when its test's thread dies.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A private Open vSwitch.
pub struct Ovs {
    vswitchd: Option<Daemon>,
    server: Option<Daemon>,
    pub dir: PathBuf,
}

impl Ovs {
    pub fn start(dir: PathBuf) -> Ovs {
        std::fs::create_dir(&dir).unwrap();
        let mut ovs = Ovs { vswitchd: None, server: None, dir };
        ovs.make_database();
        ovs.start_server();
        ovs.init();
        ovs.start_vswitchd();
        ovs
    }

    fn at(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    fn daemon(&self, program: &str, args: &[&str]) -> Daemon {
        let mut command = Command::new(program);
        for name in ["OVS_RUNDIR", "OVS_DBDIR", "OVS_LOGDIR"] {
            command.env(name, &self.dir);
        }
        let [pid, ctl, log] = ["pid", "ctl", "log"].map(|kind| self.at(&format!("{program}.{kind}")));
        command
            .args(args)
            .args([format!("--pidfile={pid}"), format!("--unixctl={ctl}"), format!("--log-file={log}")])
            .arg("-vconsole:off")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // SAFETY: only a system call is made between fork and exec.
        unsafe {
            command.pre_exec(|| {
                nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).map_err(Into::into)
            });
        }
        Daemon(command.spawn().unwrap())
    }

    pub fn make_database(&self) {
        let _ = std::fs::remove_file(self.dir.join("conf.db"));
        run("ovsdb-tool", &["create", &self.at("conf.db"), SCHEMA]);
    }

    pub fn start_server(&mut self) {
        let remote = format!("--remote=punix:{}", self.at("db.sock"));
        self.server = Some(self.daemon("ovsdb-server", &[&self.at("conf.db"), &remote]));
        let deadline = Instant::now() + BOUND;
        while std::os::unix::net::UnixStream::connect(self.dir.join("db.sock")).is_err() {
            assert!(Instant::now() < deadline, "ovsdb-server does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// What Open vSwitch's own start script puts into a new database.
    pub fn init(&self) {
        self.vsctl(&["--no-wait", "--", "init", "--", "set", "Open_vSwitch", ".", "ovs-version=3.1.0"]);
    }

    pub fn stop_server(&mut self) {
        self.server = None;
    }

    pub fn start_vswitchd(&mut self) {
        let vswitchd = self.daemon("ovs-vswitchd", &[&format!("unix:{}", self.at("db.sock"))]);
        let pid = vswitchd.0.id();
        self.vswitchd = Some(vswitchd);
        // A change, without which ovs-vsctl would not wait for it.
        self.vsctl(&["set", "Open_vSwitch", ".", &format!("external_ids:started={pid}")]);
    }

    pub fn kill_vswitchd(&mut self) {
        self.vswitchd = None;
    }

    /// SIGSTOP, and SIGCONT.
    pub fn freeze_vswitchd(&self, freeze: bool) {
        use nix::sys::signal::{Signal, kill};
        let pid = self.vswitchd.as_ref().unwrap().0.id() as i32;
        kill(nix::unistd::Pid::from_raw(pid), if freeze { Signal::SIGSTOP } else { Signal::SIGCONT })
            .unwrap();
    }

    pub fn vsctl(&self, args: &[&str]) -> String {
        let db = format!("--db=unix:{}", self.at("db.sock"));
        run("ovs-vsctl", &[&["--timeout=30", &db], args].concat())
    }

    pub fn ofctl(&self, verb: &str, bridge: &str, args: &[&str]) -> String {
        let target = format!("unix:{}", self.at(&format!("{bridge}.mgmt")));
        run("ovs-ofctl", &[&["--timeout=30", "-O", "OpenFlow14", verb, &target], args].concat())
    }

    /// From now on each OpenFlow message is in the log.
    pub fn log_messages(&self) {
        let target = self.at("ovs-vswitchd.ctl");
        for command in [&["vlog/disable-rate-limit", "vconn"], &["vlog/set", "vconn:file:dbg"]] {
            run("ovs-appctl", &[&["--timeout=30", "--target", &target][..], command].concat());
        }
    }

    /// How many bundles were committed since messages are in the log.
    pub fn bundles(&self) -> usize {
        let log = std::fs::read_to_string(self.dir.join("ovs-vswitchd.log")).unwrap();
        log.matches("type=COMMIT_REQUEST").count()
    }

    /// How many rows of `Port` each transaction of the database made or removed, where it did.
    pub fn transactions_of_ports(&self) -> Vec<usize> {
        let log = std::fs::read_to_string(self.dir.join("conf.db")).unwrap();
        let records = log.lines().filter_map(|l| serde_json::from_str::<serde_json::Value>(l).ok());
        let is_one = |row: &serde_json::Value| row.is_null() || row.get("name").is_some();
        let ports = |record: serde_json::Value| {
            record.get("Port").and_then(|p| Some(p.as_object()?.values().filter(|row| is_one(row)).count()))
        };
        records.filter_map(ports).filter(|count| *count > 0).collect()
    }

    /// The flows of a bridge, without what counts.
    pub fn flows(&self, bridge: &str) -> Vec<String> {
        let dump = self.ofctl("dump-flows", bridge, &["--no-stats"]);
        dump.lines().map(|line| line.trim().to_owned()).filter(|line| line.contains("actions")).collect()
    }
}
