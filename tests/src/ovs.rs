//! An Open vSwitch of a test's own: its database, its daemons, its bridges, in a directory and a network namespace, stopped by pid.
//!
//! The namespace is needed: every userspace datapath wants an interface called ovs-netdev, so two do not fit into one.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use crate::command::{Frozen, Output, finish};
use crate::namespace::Namespace;
use crate::sandbox::eventually;

/// A private Open vSwitch.
pub struct Ovs {
    dir: PathBuf,
    namespace: Arc<Namespace>,
    database: Option<Child>,
    switch: Option<Child>,
}

impl Ovs {
    /// Starts one in this directory and namespace.
    pub fn start(dir: &Path, namespace: Arc<Namespace>) -> Ovs {
        let mut ovs = Ovs::start_database_alone(dir, namespace);
        ovs.start_switch();
        ovs
    }

    /// Starts its database only: rows can be made, and nothing is done about them.
    pub fn start_database_alone(dir: &Path, namespace: Arc<Namespace>) -> Ovs {
        std::fs::create_dir_all(dir).expect("a directory for Open vSwitch");
        let mut ovs = Ovs { dir: dir.to_owned(), namespace, database: None, switch: None };
        ovs.start_empty_database();
        ovs
    }

    /// The database's socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("db.sock")
    }

    /// The directory of the daemons' sockets.
    pub fn run_dir(&self) -> &Path {
        &self.dir
    }

    /// Runs `ovs-vsctl` against it.
    pub fn vsctl(&self, args: &[&str]) -> Output {
        let db = format!("--db=unix:{}", self.socket().display());
        finish(self.env(Command::new("ovs-vsctl").arg(db).arg("--timeout=10").args(args)), None)
    }

    /// Ports of all its bridges.
    pub fn ports(&self) -> Vec<String> {
        let words = |said: Output| said.stdout.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let bridges = words(self.vsctl(&["list-br"]).must());
        // A bridge may have gone meanwhile.
        bridges.iter().flat_map(|bridge| words(self.vsctl(&["list-ports", bridge]))).collect()
    }

    /// Runs `ovs-ofctl` against one of its bridges; `args` follow the bridge.
    pub fn ofctl(&self, verb: &str, bridge: &str, args: &[&str]) -> Output {
        let target = format!("unix:{}", self.dir.join(format!("{bridge}.mgmt")).display());
        finish(self.env(Command::new("ovs-ofctl").args(["-O", "OpenFlow14", verb, &target]).args(args)), None)
    }

    /// Kills the switch daemon and starts it again; its database stays, its flows are lost.
    pub fn restart_switch(&mut self) {
        stop(&mut self.switch);
        self.start_switch();
    }

    /// Loses everything that is in its database; the switch daemon stays.
    pub fn wipe(&mut self) {
        stop(&mut self.database);
        self.start_empty_database();
    }

    /// Keeps the switch daemon from running for as long as what is returned lives: it answers nobody and forwards nothing.
    pub fn freeze_switch(&self) -> Frozen {
        Frozen::new(self.switch.as_ref().expect("it runs").id())
    }

    /// Ends both daemons, as a machine that goes down does.
    pub fn stop(&mut self) {
        stop(&mut self.switch);
        stop(&mut self.database);
    }

    /// Starts both with an empty database.
    pub fn start_empty(&mut self) {
        self.start_empty_database();
        self.start_switch();
    }

    fn start_empty_database(&mut self) {
        let conf = self.dir.join("conf.db");
        let _ = std::fs::remove_file(&conf);
        let schema = "/usr/share/openvswitch/vswitch.ovsschema";
        finish(Command::new("ovsdb-tool").arg("create").arg(&conf).arg(schema), None).must();
        self.start_database();
        self.vsctl(&["--no-wait", "init"]).must();
    }

    fn env<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.env("OVS_RUNDIR", &self.dir).env("OVS_DBDIR", &self.dir).env("OVS_LOGDIR", &self.dir)
    }

    fn daemon(&self, program: &str, args: &[String]) -> Child {
        let log = format!("--log-file={}", self.dir.join(format!("{program}.log")).display());
        let ctl = format!("--unixctl={}", self.dir.join(format!("{program}.ctl")).display());
        self.env(self.namespace.command(program).args(args).arg(log).arg(ctl))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start {program}: {e}"))
    }

    fn start_database(&mut self) {
        let socket = self.socket();
        let args =
            [self.dir.join("conf.db").display().to_string(), format!("--remote=punix:{}", socket.display())];
        self.database = Some(self.daemon("ovsdb-server", &args));
        eventually("ovsdb-server listens", Duration::from_secs(10), || {
            std::os::unix::net::UnixStream::connect(&socket).is_ok()
        });
    }

    fn start_switch(&mut self) {
        self.switch = Some(self.daemon("ovs-vswitchd", &[format!("unix:{}", self.socket().display())]));
        eventually("ovs-vswitchd has taken up its database", Duration::from_secs(20), || {
            self.vsctl(&["get", "Open_vSwitch", ".", "cur_cfg"]).ok()
                && self.vsctl(&["get", "Open_vSwitch", ".", "datapath_types"]).stdout.contains("netdev")
        });
    }
}

impl Drop for Ovs {
    fn drop(&mut self) {
        stop(&mut self.switch);
        stop(&mut self.database);
    }
}

fn stop(child: &mut Option<Child>) {
    if let Some(mut child) = child.take() {
        let _ = child.kill();
        let _ = child.wait();
    }
}
