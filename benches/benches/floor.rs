//! The floor: a process of its own (`netloom-bench-floor`) that does by hand what netloom does.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use netloom_benches::timed;
use netloom_tests::{Sandbox, binaries, eventually};
use serde_json::{Value, json};

use crate::rig::Links;

fn program() -> PathBuf {
    let path = binaries().join("netloom-bench-floor");
    assert!(path.exists(), "{} is not built: run `make bench`", path.display());
    path
}

/// A lab by hand, in a sandbox's namespace and on its Open vSwitch.
pub struct Lab {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Lab {
    /// Starts it, with the options of the containers that netloom has now.
    pub fn start(sandbox: &Sandbox, plane: &str, links: &Links) -> Lab {
        let config = json!({
            "dir": sandbox.path().join("floor"),
            "ovsdb": sandbox.ovs.socket(),
            "ovs_run_dir": sandbox.ovs.run_dir(),
            "bridge": format!("{}f", sandbox.bridge()),
            "plane": plane,
            "links": links,
            "mtu": 9500,
        });
        Lab::run(sandbox, "lab", &config)
    }

    /// The same for virtual machines, on the libvirt of a sandbox that has machines on this base now.
    pub fn of_machines(sandbox: &Sandbox, uri: &str, base: &Path) -> Lab {
        let config = json!({
            "dir": sandbox.path().join("floor"),
            "uri": uri,
            "instances": sandbox.data_dir().join("instances"),
            "base": base,
        });
        Lab::run(sandbox, "machines", &config)
    }

    fn run(sandbox: &Sandbox, what: &str, config: &Value) -> Lab {
        let file = sandbox.write("floor.json", &config.to_string());
        let program = program().display().to_string();
        let mut child = sandbox
            .in_namespace(&program)
            .arg(what)
            .arg(file)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the floor starts");
        let orders = child.stdin.take().expect("its input");
        let answers = BufReader::new(child.stdout.take().expect("its output"));
        let mut lab = Lab { child, orders, answers };
        lab.order(&format!("copy {}", sandbox.owner()));
        lab
    }

    /// Has it do something; how long that took.
    pub fn order(&mut self, order: &str) -> Duration {
        let (took, answer) = timed(|| {
            writeln!(self.orders, "{order}").expect("the floor takes orders");
            let mut answer = String::new();
            self.answers.read_line(&mut answer).expect("the floor answers");
            answer
        });
        assert_eq!(answer.trim(), "ok", "the floor could not {order}");
        took
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = writeln!(self.orders, "destroy 4");
            let _ = self.answers.read_line(&mut String::new());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server that answers with what it was given.
pub struct Server {
    child: Child,
    socket: PathBuf,
}

impl Server {
    /// Serves these labs, an encoded `ListLabsResponse`, over the rows of this database.
    pub fn start(dir: &Path, labs: &[u8], database: Option<&Path>) -> Server {
        let socket = dir.join("floor.sock");
        std::fs::write(dir.join("floor-labs"), labs).expect("a file");
        let mut config = json!({ "socket": socket, "labs": dir.join("floor-labs") });
        config["database"] = database.map_or(Value::Null, |d| json!(d));
        let file = dir.join("floor-serve.json");
        std::fs::write(&file, config.to_string()).expect("a file");
        let child = Command::new(program()).arg("serve").arg(file).stdin(Stdio::null()).spawn();
        let server = Server { child: child.expect("the floor starts"), socket };
        eventually("the floor listens", Duration::from_secs(10), || server.socket.exists());
        server
    }

    /// Where it listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
