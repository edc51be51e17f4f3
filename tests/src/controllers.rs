//! Several controllers over one PostgreSQL and one Redis, in front of one sandbox's host: each has a gateway, a scheduler and an image registry, as separate programs.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use netloom_service::testing::postgres::Postgres;
use netloom_service::testing::redis::Redis;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::http::{Reply, request};
use crate::sandbox::{Mode, Sandbox, binary, eventually};

const CLUSTER: &str = include_str!("../../deploy/compose/cluster.toml");
/// The programs of a controller.
const PROGRAMS: [&str; 3] = ["netloom-scheduler", "netloom-image-registry", "netloom-gateway"];
/// Bound of a start and of an end.
const BOUND: Duration = Duration::from_secs(60);

/// See the module.
pub struct Controllers {
    /// Where their rows are.
    pub postgres: Postgres,
    /// What wakes them.
    pub redis: Redis,
    /// The host: its compute service simulates.
    pub host: Sandbox,
    programs: Vec<(usize, &'static str, Child)>,
}

impl Controllers {
    /// Starts the host and both controllers, of which the first leads. Their configuration is that of `deploy/compose/cluster.toml`, but for where things are.
    pub fn start() -> Controllers {
        let (postgres, redis) = (Postgres::start(), Redis::start());
        postgres.run("CREATE DATABASE images");
        let host = Sandbox::prepare(Mode::Host, "[compute]\ndrivers = [\"sim\"]\n");
        let dir = host.path().display().to_string();
        // Each has an address of its own on this machine, and so a name for its certificate.
        let [a, b, ..] = *uuid::Uuid::new_v4().as_bytes();
        let address = |n: usize, port: u16| format!("https://127.{a}.{b}.{}:{port}", n + 1);
        host.configure(&format!("[compute.sim]\nfile = \"{dir}/sim.json\"\n"));
        let url = postgres.url();
        let mut controllers = Controllers { postgres, redis, host, programs: Vec::new() };
        for n in 0..2 {
            let mut text = CLUSTER.to_owned();
            for (there, here) in [
                ("/var/lib/netloom\"", format!("{dir}/c{n}/data\"")),
                ("/run/netloom\"", format!("{dir}/c{n}/run\"")),
                ("/var/lib/netloom-images", format!("{dir}/blobs")),
                ("redis://redis:6379/0", controllers.redis.url()),
                ("postgres://netloom@postgres/scheduler", url.clone()),
                ("postgres://netloom@postgres/images", url.replace("/postgres", "/images")),
                ("https://scheduler1:7611", address(0, 7611)),
                ("https://scheduler2:7611", address(1, 7611)),
                ("https://registry1:7612", address(0, 7612)),
                ("https://registry2:7612", address(1, 7612)),
                ("https://0.0.0.0:7611", address(n, 7611)),
                ("https://0.0.0.0:7612", address(n, 7612)),
                ("0.0.0.0:7600", String::new()),
                ("0.0.0.0:7601", "127.0.0.1:0".to_owned()),
                ("hosts = []", "host = \"local\"".to_owned()),
                (
                    "[endpoints]",
                    format!(
                        "[endpoints]\ncompute = \"unix:{dir}/run/compute.sock\"\nnetwork = \"unix:{dir}/run/network.sock\""
                    ),
                ),
            ] {
                assert!(text.contains(there), "{there} is in the file");
                text = text.replace(there, &here);
            }
            controllers.host.write(&format!("c{n}/netloom.toml"), &text);
        }
        controllers.host.run_programs();
        for n in 0..2 {
            PROGRAMS.iter().for_each(|program| controllers.run(n, program));
            eventually("the host is heard of", BOUND, || {
                controllers.get(n, "/v1/hosts/local").is_ok_and(|r| r.body["state"] == "HOST_STATE_ONLINE")
            });
        }
        controllers
    }

    fn dir(&self, controller: usize) -> PathBuf {
        self.host.path().join(format!("c{controller}"))
    }

    /// The file of the authority that a controller has.
    pub fn authority_file(&self, controller: usize) -> PathBuf {
        self.dir(controller).join("data/authority.pem")
    }

    /// The authority that a controller has.
    pub fn authority(&self, controller: usize) -> String {
        std::fs::read_to_string(self.authority_file(controller)).unwrap_or_default()
    }

    /// The API's socket of a controller.
    pub fn socket(&self, controller: usize) -> PathBuf {
        self.dir(controller).join("run/api.sock")
    }

    /// Starts a program of a controller.
    pub fn run(&mut self, controller: usize, program: &'static str) {
        let log =
            File::options().create(true).append(true).open(self.log(controller, program)).expect("a log");
        let child = Command::new(binary(program))
            .arg("--config")
            .arg(self.dir(controller).join("netloom.toml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file handle"))
            .stderr(log)
            .spawn();
        self.programs.push((controller, program, child.expect("it starts")));
    }

    /// Ends a program of a controller with this signal, and waits until it is gone.
    pub fn end(&mut self, controller: usize, program: &str, signal: Signal) {
        let at = self.programs.iter().position(|(c, p, _)| *c == controller && *p == program);
        let (_, _, mut child) = self.programs.remove(at.expect("it runs"));
        let _ = kill(Pid::from_raw(child.id().cast_signed()), signal);
        eventually("it has ended", BOUND, || child.try_wait().is_ok_and(|status| status.is_some()));
    }

    /// Sends a program of a controller this signal.
    pub fn signal(&self, controller: usize, program: &str, signal: Signal) {
        let it = self.programs.iter().find(|(c, p, _)| *c == controller && *p == program);
        let (_, _, child) = it.expect("it runs");
        kill(Pid::from_raw(child.id().cast_signed()), signal).expect("a signal");
    }

    /// Waits until a program of a controller has ended by itself.
    pub fn until_ended(&mut self, controller: usize, program: &str) {
        let at = self.programs.iter().position(|(c, p, _)| *c == controller && *p == program);
        let (_, _, mut child) = self.programs.remove(at.expect("it ran"));
        eventually("it has ended", BOUND, || child.try_wait().is_ok_and(|status| status.is_some()));
    }

    fn log(&self, controller: usize, program: &str) -> PathBuf {
        self.dir(controller).join(format!("{program}.log"))
    }

    /// What a program of a controller logged.
    pub fn logged(&self, controller: usize, program: &str) -> String {
        std::fs::read_to_string(self.log(controller, program)).unwrap_or_default()
    }

    /// Asks the gateway of a controller.
    pub fn get(&self, controller: usize, path: &str) -> std::io::Result<Reply> {
        request(&self.socket(controller), "GET", path, None)
    }

    /// The command `netloom`, which asks the gateway of a controller.
    pub fn netloom(&self, controller: usize, args: &[&str]) -> Command {
        let mut command = Command::new(binary("netloom"));
        command.args(args).current_dir(self.host.path());
        command.env("NETLOOM_ENDPOINT", format!("unix:{}", self.socket(controller).display()));
        command
    }

    /// Where the simulated instances are kept.
    pub fn instances(&self) -> serde_json::Value {
        let text = std::fs::read_to_string(self.host.path().join("sim.json")).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// Directory of the images that they share.
    pub fn blobs(&self) -> PathBuf {
        self.host.path().join("blobs/blobs")
    }

    /// A directory for the test's own files.
    pub fn path(&self) -> &Path {
        self.host.path()
    }
}

impl Drop for Controllers {
    fn drop(&mut self) {
        for (_, _, child) in &mut self.programs {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            for (controller, program) in (0..2).flat_map(|n| PROGRAMS.map(|program| (n, program))) {
                let log = self.logged(controller, program);
                let tail: Vec<&str> = log.lines().rev().take(30).collect();
                eprintln!("---- last lines of {program} of controller {controller}");
                tail.into_iter().rev().for_each(|line| eprintln!("{line}"));
            }
        }
    }
}
