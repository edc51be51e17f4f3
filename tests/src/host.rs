//! A second machine beside a sandbox: a network namespace of its own, cabled to the sandbox's, with an Open vSwitch, a Docker and directories of its own, on which
//! `netloom-host` joins and runs, with the rights that its unit gives and no others.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use netloom_service::testing::libvirt::Libvirtd;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::clock::Clock;
use crate::command::{Output, finish, run};
use crate::docker::Docker;
use crate::namespace::Namespace;
use crate::ovs::Ovs;
use crate::sandbox::{Sandbox, binary, eventually, power_off, rights_of, tell_libvirt, unmount_below};

const UNIT: &str = include_str!("../../deploy/systemd/netloom-host.service");

/// Bound of its end.
const END: Duration = Duration::from_secs(60);

/// See the module.
pub struct Host {
    dir: PathBuf,
    namespace: Arc<Namespace>,
    program: Option<Child>,
    clock: Option<Clock>,
    /// Its Docker; taken when the machine goes.
    docker: Option<Docker>,
    libvirtd: Option<Libvirtd>,
    ovs: Ovs,
}

impl Host {
    /// Makes the machine and its cable: the sandbox is 10.99.0.1 on it, this is 10.99.0.2. Its Docker has these images.
    pub fn beside(sandbox: &Sandbox, images: &[&str]) -> Host {
        let host = Host::make(sandbox, "h", "10.99.0.2", "up0", images);
        run("ip", &["-n", sandbox.bridge(), "addr", "add", "10.99.0.1/24", "dev", "up0"]).must();
        host
    }

    /// Makes the nth machine, from 1, on the switch of controllers that started alone, whose host the sandbox is: there it is 10.99.0.1n. Its Docker has these images.
    pub fn on_switch(sandbox: &Sandbox, n: u8, images: &[&str]) -> Host {
        let port = format!("up{n}");
        let host = Host::make(sandbox, &format!("h{n}"), &format!("10.99.0.1{n}"), &port, images);
        run("ip", &["-n", sandbox.bridge(), "link", "set", &port, "master", "switch"]).must();
        host
    }

    /// The machine, and a cable: `up0` with this address there, in the sandbox an interface without one.
    fn make(sandbox: &Sandbox, suffix: &str, address: &str, port: &str, images: &[&str]) -> Host {
        let name = format!("{}{suffix}", sandbox.bridge());
        let dir = sandbox.path().join(format!("host-{suffix}"));
        std::fs::create_dir_all(&dir).expect("a directory");
        let namespace = Arc::new(Namespace::make(&name));
        let cable = ["link", "add", "up0", "netns", &name, "type", "veth", "peer", "name", port, "netns"];
        run("ip", &[&cable[..], &[sandbox.bridge()]].concat()).must();
        run("ip", &["-n", &name, "addr", "add", &format!("{address}/24"), "dev", "up0"]).must();
        for (namespace, end) in [(sandbox.bridge(), port), (&name, "up0")] {
            run("ip", &["-n", namespace, "link", "set", end, "up"]).must();
        }
        let ovs = Ovs::start(&dir.join("ovs"), namespace.clone());
        let docker = Docker::start(&dir.join("docker"), namespace.clone());
        images.iter().for_each(|image| docker.load(image));
        let config = format!(
            "data_dir = {data:?}\nrun_dir = {run:?}\n[compute]\ndrivers = [\"docker\"]\ndocker_socket = {socket:?}\n\
             [network]\nbridge = {name:?}\novsdb_socket = {db:?}\novs_run_dir = {ovs:?}\n\
             tunnel_address = {address:?}\n",
            data = dir.join("data"),
            run = dir.join("run"),
            socket = docker.socket(),
            db = ovs.socket(),
            ovs = ovs.run_dir(),
        );
        std::fs::write(dir.join("netloom.toml"), config).expect("a configuration file");
        Host { dir, namespace, program: None, clock: None, docker: Some(docker), libvirtd: None, ovs }
    }

    /// Adds keys to `[network]` of its configuration, which a program that is started reads.
    pub fn configure(&self, network: &str) {
        let path = self.dir.join("netloom.toml");
        let before = std::fs::read_to_string(&path).expect("its configuration");
        std::fs::write(path, format!("{before}{network}\n")).expect("its configuration");
    }

    /// Gives it a libvirt, for virtual machines.
    pub fn give_libvirt(&mut self) {
        self.libvirtd = Some(Libvirtd::start_by(self.namespace.command("unshare")));
    }

    /// Its data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// Runs a program of this machine in its network namespace to its end.
    pub fn run(&self, program: &str, args: &[&str]) -> Output {
        finish(self.namespace.command(program).args(args), None)
    }

    /// Sets the clock that its programs are started with: so many seconds ahead of the machine's, or behind.
    pub fn set_clock(&mut self, ahead: i64) {
        self.clock = (ahead != 0).then(|| Clock::ahead(&self.dir, ahead));
    }

    fn command(&self) -> Command {
        let rights = rights_of(UNIT);
        let mut command = self.namespace.command(&rights[0]);
        command.args(&rights[1..]).arg(binary("netloom-host"));
        if let Some(clock) = &self.clock {
            clock.show(&mut command);
        }
        if let Some(libvirtd) = &self.libvirtd {
            tell_libvirt(&mut command, &libvirtd.uri());
        }
        command
    }

    /// Runs `netloom-host` with these arguments to its end.
    pub fn netloom_host(&self, args: &[&str]) -> Output {
        let mut command = self.command();
        finish(command.args(args).arg("--config").arg(self.dir.join("netloom.toml")), None)
    }

    /// Joins what a sandbox runs that lets hosts in at port 7601, as this host, and starts serving.
    pub fn join(&mut self, sandbox: &Sandbox, id: &str) {
        let said = sandbox.netloom(&["host", "token", "--format", "json"]).must().stdout;
        let said: serde_json::Value = serde_json::from_str(&said).expect("JSON");
        self.join_at("https://10.99.0.1:7601", said["token"].as_str().expect("a token"), id);
    }

    /// Joins at an endpoint with a token, as this host, and starts serving.
    pub fn join_at(&mut self, endpoint: &str, token: &str, id: &str) {
        self.netloom_host(&["join", endpoint, token, "--id", id]).must();
        self.start();
    }

    /// Starts it serving.
    pub fn start(&mut self) {
        let log = File::options().create(true).append(true).open(self.log()).expect("a log file");
        let child = self
            .command()
            .arg("--config")
            .arg(self.dir.join("netloom.toml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file handle"))
            .stderr(log)
            .spawn();
        self.program = Some(child.expect("netloom-host starts"));
    }

    /// Asks it to end, and waits until it has.
    pub fn stop(&mut self) {
        let Some(mut child) = self.program.take() else { return };
        let _ = kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM);
        eventually("netloom-host has ended", END, || child.try_wait().is_ok_and(|status| status.is_some()));
    }

    /// What it logged.
    pub fn logs(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap_or_default()
    }

    /// Names of the containers that run on it.
    pub fn containers(&self) -> Vec<String> {
        let docker = self.docker.as_ref().expect("it is there until the machine goes");
        let names = docker.run(&["ps", "--format", "{{.Names}}"]).must().stdout;
        let mut names: Vec<String> = names.lines().map(str::to_owned).collect();
        names.sort();
        names
    }

    /// Its containers, running or not: name, id and when it was started last.
    pub fn lives(&self) -> Vec<String> {
        let docker = self.docker.as_ref().expect("it is there until the machine goes");
        let all = docker.run(&["ps", "-aq"]).must().stdout;
        if all.trim().is_empty() {
            return Vec::new();
        }
        let mut inspect = vec!["inspect", "-f", "{{.Name}} {{.Id}} {{.State.StartedAt}}"];
        inspect.extend(all.split_whitespace());
        let said = docker.run(&inspect);
        // One that is removed meanwhile is not there.
        assert!(said.ok() || said.stderr.contains("No such object"), "{}", said.stderr);
        let mut lives: Vec<String> = said.stdout.lines().map(str::to_owned).collect();
        lives.sort();
        lives
    }

    /// What is there of netloom's: containers and interfaces.
    pub fn leftovers(&self) -> Vec<String> {
        let said = finish(self.namespace.command("ip").args(["-o", "link"]), None).must().stdout;
        let names = said.lines().filter_map(|line| line.split(": ").nth(1));
        self.lives().into_iter().chain(names.filter(|n| n.starts_with("nl")).map(str::to_owned)).collect()
    }

    /// Pulls its cable, or plugs it.
    pub fn plug(&self, plugged: bool) {
        let state = if plugged { "up" } else { "down" };
        finish(self.namespace.command("ip").args(["link", "set", "up0", state]), None).must();
    }

    /// The machine goes down without a word and comes up again, with nothing that is not on a disk; what a service manager starts runs again then.
    pub fn reboot(&mut self) {
        if let Some(mut child) = self.program.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        self.ovs.stop();
        self.docker.as_mut().expect("it is there until the machine goes").power_off();
        power_off(&self.dir.join("run"), &self.namespace);
        self.ovs.start_empty();
        self.docker.as_mut().expect("it is there until the machine goes").start_again();
        self.start();
    }

    fn log(&self) -> PathBuf {
        self.dir.join("netloom-host.log")
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- the log of netloom-host\n{}", self.logs());
        }
        if let Some(mut child) = self.program.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        drop(self.libvirtd.take());
        drop(self.docker.take());
        unmount_below(&self.dir);
    }
}
