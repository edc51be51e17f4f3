//! Several controllers over one PostgreSQL and one Redis, in front of one sandbox's host or of machines that join: each has a gateway, a scheduler and an image registry, as separate programs.

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
/// Where machines join controllers that have no host of their own.
pub const TO_JOIN: &str = "https://10.99.0.1:7601,https://10.99.0.2:7601";

/// See the module.
pub struct Controllers {
    /// Where their rows are.
    pub postgres: Postgres,
    /// What wakes them.
    pub redis: Redis,
    /// The host, whose compute service simulates; or that of the controllers, which runs no node.
    pub host: Sandbox,
    programs: Vec<(usize, &'static str, Child)>,
}

impl Controllers {
    /// Starts the host and both controllers, of which the first leads. Their configuration is that of `deploy/compose/cluster.toml`, but for where things are.
    pub fn start() -> Controllers {
        let mut controllers = Controllers::prepare("[compute]\ndrivers = [\"sim\"]\n");
        let dir = controllers.path().display().to_string();
        controllers.host.configure(&format!("[compute.sim]\nfile = \"{dir}/sim.json\"\n"));
        let endpoints = format!(
            "[endpoints]\ncompute = \"unix:{dir}/run/compute.sock\"\nnetwork = \"unix:{dir}/run/network.sock\""
        );
        for n in 0..2 {
            let more = [
                ("0.0.0.0:7601", "127.0.0.1:0".to_owned()),
                ("hosts = []", "host = \"local\"".to_owned()),
                ("[endpoints]", endpoints.clone()),
            ];
            controllers.configure(n, "127.0.0", &more);
        }
        controllers.host.run_programs();
        controllers.run_all();
        controllers.until_online(&["local"]);
        controllers
    }

    /// The same without a host: machines join at [`TO_JOIN`], and are on one switch with both controllers ([`Host::on_switch`](crate::Host::on_switch)).
    pub fn start_alone() -> Controllers {
        let mut controllers = Controllers::prepare("");
        controllers.host.make_switch(&["10.99.0.1/24", "10.99.0.2/24"]);
        for n in 0..2 {
            controllers.configure(n, "10.99.0", &[("0.0.0.0:7601", format!("10.99.0.{}:7601", n + 1))]);
        }
        controllers.run_all();
        controllers
    }

    /// The databases, and a host that runs nothing yet.
    fn prepare(more: &str) -> Controllers {
        let (postgres, redis) = (Postgres::start(), Redis::start());
        postgres.run("CREATE DATABASE images");
        Controllers { postgres, redis, host: Sandbox::prepare(Mode::Host, more), programs: Vec::new() }
    }

    /// Writes the configuration of a controller. They have addresses of this network, and so names for their certificates.
    fn configure(&self, n: usize, network: &str, more: &[(&str, String)]) {
        let (dir, url) = (self.path().display(), self.postgres.url());
        let address = |n: usize, port: u16| format!("https://{network}.{}:{port}", n + 1);
        let all = [
            ("/var/lib/netloom\"", format!("{dir}/c{n}/data\"")),
            ("/run/netloom\"", format!("{dir}/c{n}/run\"")),
            ("/var/lib/netloom-images", format!("{dir}/blobs")),
            ("redis://redis:6379/0", self.redis.url()),
            ("postgres://netloom@postgres/scheduler", url.clone()),
            ("postgres://netloom@postgres/images", url.replace("/postgres", "/images")),
            ("https://scheduler1:7611", address(0, 7611)),
            ("https://scheduler2:7611", address(1, 7611)),
            ("https://registry1:7612", address(0, 7612)),
            ("https://registry2:7612", address(1, 7612)),
            ("https://0.0.0.0:7611", address(n, 7611)),
            ("https://0.0.0.0:7612", address(n, 7612)),
            ("0.0.0.0:7600", String::new()),
        ];
        let text = all.iter().chain(more).fold(CLUSTER.to_owned(), |text, (there, here)| {
            assert!(text.contains(there), "{there} is in the file");
            text.replace(there, here)
        });
        self.host.write(&format!("c{n}/netloom.toml"), &text);
    }

    /// Starts the programs of both, of which the first leads.
    fn run_all(&mut self) {
        for n in 0..2 {
            PROGRAMS.iter().for_each(|program| self.run(n, program));
            eventually("it answers", BOUND, || self.get(n, "/v1/hosts").is_ok_and(|r| r.status == 200));
        }
    }

    /// Waits until both say of these hosts that they are heard of.
    pub fn until_online(&self, hosts: &[&str]) {
        let is_online = |n: usize, host: &str| {
            self.get(n, &format!("/v1/hosts/{host}")).is_ok_and(|r| r.body["state"] == "HOST_STATE_ONLINE")
        };
        eventually(&format!("{hosts:?} are heard of"), BOUND, || {
            (0..2).all(|n| hosts.iter().all(|host| is_online(n, host)))
        });
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
        let child = self
            .host
            .in_namespace(binary(program))
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

    /// Starts again what has ended by itself, as a service manager does.
    pub fn run_again(&mut self) {
        let ended = |child: &mut Child| child.try_wait().is_ok_and(|status| status.is_some());
        let at = |programs: &mut Vec<(usize, &'static str, Child)>| {
            programs.iter_mut().position(|(_, _, child)| ended(child))
        };
        while let Some(at) = at(&mut self.programs) {
            let (controller, program, _) = self.programs.remove(at);
            self.run(controller, program);
        }
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
        self.netloom_of(&[controller], args)
    }

    /// The command `netloom`, which asks any gateway of these controllers.
    pub fn netloom_of(&self, controllers: &[usize], args: &[&str]) -> Command {
        let endpoint = |controller: &usize| format!("unix:{}", self.socket(*controller).display());
        let endpoints: Vec<String> = controllers.iter().map(endpoint).collect();
        let mut command = Command::new(binary("netloom"));
        command.args(args).current_dir(self.host.path()).env("NETLOOM_ENDPOINT", endpoints.join(","));
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
