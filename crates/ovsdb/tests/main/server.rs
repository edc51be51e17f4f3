//! A private ovsdb-server: its own directory and database, gone with the guard.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";

/// True when ovsdb-server can be run here. When not, says that `test` is skipped, or fails if NETLOOM_REQUIRE
/// names ovs.
pub fn available(test: &str) -> bool {
    let version = Command::new("ovsdb-server").arg("--version").stdout(Stdio::null()).status();
    if version.is_ok_and(|status| status.success()) && std::path::Path::new(SCHEMA).exists() {
        return true;
    }
    let required = std::env::var("NETLOOM_REQUIRE").unwrap_or_default();
    let needed = required.split(',').any(|facility| facility.trim() == "ovs");
    assert!(!needed, "{test} needs ovs: ovsdb-server is not installed");
    // Not eprintln!: the test runner swallows that for a test that passes.
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: ovsdb-server is not installed");
    false
}

pub struct Server {
    child: Option<Child>,
    dir: tempfile::TempDir,
}

impl Server {
    /// A server with an empty database of the Open vSwitch schema, not yet running.
    pub fn stopped() -> Server {
        let dir = tempfile::tempdir().unwrap();
        let created =
            Command::new("ovsdb-tool").arg("create").arg(dir.path().join("conf.db")).arg(SCHEMA).status();
        assert!(created.unwrap().success());
        Server { child: None, dir }
    }

    pub fn started() -> Server {
        let mut server = Server::stopped();
        server.start();
        server
    }

    /// Starts it, without waiting until it listens: clients connect by themselves. Besides the socket it listens
    /// wherever rows of the table `Manager` say.
    pub fn start(&mut self) {
        let at = |name: &str| self.dir.path().join(name).display().to_string();
        // Should the test itself be killed, this goes with it.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "ovsdb-server"])
            .arg(at("conf.db"))
            .arg(format!("--remote=punix:{}", at("db.sock")))
            .arg("--remote=db:Open_vSwitch,Open_vSwitch,manager_options")
            .arg(format!("--unixctl={}", at("ctl")))
            .args([&format!("--log-file={}", at("log")), "-vconsole:off"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.child = Some(child.unwrap());
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    pub fn socket(&self) -> PathBuf {
        self.path("db.sock")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
