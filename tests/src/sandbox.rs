//! The sandbox: netloom's programs on directories, sockets and names of their own.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::command::{Frozen, Output, finish, run};
use crate::docker::{Docker, run_at};
use crate::http::{Reply, request};
use crate::namespace::Namespace;
use crate::ovs::Ovs;

/// How the programs run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// All in one process.
    One,
    /// Five processes.
    Five,
    /// Two processes: what a host has that another sandbox's scheduler knows of.
    Host,
}

impl Mode {
    fn programs(self) -> &'static [&'static str] {
        match self {
            Mode::One => &["netloomd"],
            Mode::Five => &FIVE,
            Mode::Host => &["netloom-compute", "netloom-network"],
        }
    }
}

/// The programs of [`Mode::Five`], in no order that matters.
const FIVE: [&str; 5] =
    ["netloom-scheduler", "netloom-image-registry", "netloom-compute", "netloom-network", "netloom-gateway"];

/// A topology whose links are to be carried by this plane.
pub fn on_plane(plane: &str, topology: &str) -> String {
    format!("plane: {plane}\n{topology}")
}

/// How long the switch may take until it shows what its database has.
const TAKEN_UP: Duration = Duration::from_secs(10);
/// What the programs log unless `NETLOOM_LOG` says otherwise.
const LOG: &str = "info,netloom_compute=debug,netloom_network=debug,netloom_scheduler=debug";

/// A running netloom of a test's own.
pub struct Sandbox {
    dir: tempfile::TempDir,
    mode: Mode,
    name: String,
    config: PathBuf,
    programs: Mutex<Vec<(String, Child)>>,
    /// Its Open vSwitch.
    pub ovs: Ovs,
    /// Its Docker; none where it uses the machine's.
    pub private_docker: Option<Docker>,
    /// Where libvirt is that runs its virtual machines.
    libvirt_uri: Option<String>,
    namespace: Arc<Namespace>,
    installed: Option<Installed>,
}

/// An installation to take the programs and the configuration from.
#[derive(Debug, Clone)]
pub struct Installed {
    /// Directory of the programs.
    pub bin: PathBuf,
    /// The configuration; what is the sandbox's own beats it by the environment.
    pub config: PathBuf,
    /// Directory with kinds of one's own.
    pub kinds_dir: PathBuf,
    /// What the programs are started through, for instance `setpriv …`.
    pub through: Vec<String>,
}

/// What starts a program with the rights that the text of a unit gives and no others.
pub fn rights_of(unit: &str) -> Vec<String> {
    let bounding = unit.lines().find_map(|l| l.strip_prefix("CapabilityBoundingSet=")).expect("capabilities");
    let bounding: Vec<String> =
        bounding.split_whitespace().map(|c| c.replace("CAP_", "+").to_lowercase()).collect();
    let bounding = format!("--bounding-set=-all,{}", bounding.join(","));
    ["setpriv", &bounding, "--no-new-privs"].map(str::to_owned).into()
}

/// Has a program run virtual machines, by the libvirtd there.
pub(crate) fn tell_libvirt(command: &mut Command, uri: &str) {
    command
        .env("NETLOOM_COMPUTE__DRIVERS", "[\"docker\", \"libvirt\"]")
        .env("NETLOOM_COMPUTE__LIBVIRT_URI", format!("{uri:?}"));
}

impl Sandbox {
    /// Starts one, and waits until it answers.
    pub fn start(mode: Mode) -> Sandbox {
        Sandbox::start_with(mode, "")
    }

    /// Starts one with more configuration: keys, and sections other than `[network]` and `[gateway]`.
    pub fn start_with(mode: Mode, more: &str) -> Sandbox {
        let sandbox = Sandbox::prepare(mode, more);
        sandbox.run_programs();
        sandbox.wait_until_healthy();
        sandbox
    }

    /// Starts one whose network service has more configuration: keys of `[network]`.
    pub fn start_on(mode: Mode, network: &str) -> Sandbox {
        let sandbox = Sandbox::prepare_on(mode, "", network);
        sandbox.run_programs();
        sandbox.wait_until_healthy();
        sandbox
    }

    /// Makes everything but starts no program of netloom's.
    pub fn prepare(mode: Mode, more: &str) -> Sandbox {
        Sandbox::prepare_on(mode, more, "")
    }

    /// As [`Sandbox::prepare`], with more configuration of the network service: keys of `[network]`.
    pub fn prepare_on(mode: Mode, more: &str, network: &str) -> Sandbox {
        let dir = tempfile::Builder::new().prefix("netloom-test-").tempdir().expect("a temporary directory");
        let unique = uuid::Uuid::new_v4().simple().to_string();
        // Interface names hold 15 characters.
        let name = format!("nt{}", &unique[..6]);
        let namespace = Arc::new(Namespace::make(&name));
        let ovs = Ovs::start(&dir.path().join("ovs"), namespace.clone());
        let config = dir.path().join("netloom.toml");
        // The machine's own libvirtd is not for tests.
        let more = match (more.contains("drivers"), more.contains("[compute]")) {
            (true, _) => more.to_owned(),
            (false, true) => more.replace("[compute]", "[compute]\ndrivers = [\"docker\"]"),
            (false, false) => format!("{more}\n[compute]\ndrivers = [\"docker\"]"),
        };
        let text = format!(
            "data_dir = {data:?}\nrun_dir = {run:?}\nhost = \"local\"\n{more}\n\
             [network]\n{network}\nbridge = {name:?}\novsdb_socket = {db:?}\novs_run_dir = {ovs:?}\n\
             [gateway]\nlisten = \"127.0.0.1:7600\"\n",
            data = dir.path().join("data"),
            run = dir.path().join("run"),
            db = ovs.socket(),
            ovs = ovs.run_dir(),
        );
        std::fs::write(&config, text).expect("a configuration file");
        let programs = Mutex::new(Vec::new());
        let installed = None;
        let private_docker = None;
        let libvirt_uri = None;
        Sandbox { dir, mode, name, config, programs, ovs, private_docker, libvirt_uri, namespace, installed }
    }

    /// Makes everything of a host that other hosts reach at this address, with these images in a Docker of its own, but starts no program of netloom's.
    pub(crate) fn prepare_host(mode: Mode, more: &str, address: &str, images: &[&str]) -> Sandbox {
        let mut sandbox = Sandbox::prepare_on(mode, more, &format!("tunnel_address = {address:?}"));
        sandbox.give_docker(images);
        sandbox
    }

    /// Adds sections to its configuration.
    pub(crate) fn configure(&self, more: &str) {
        let before = std::fs::read_to_string(&self.config).expect("its configuration");
        std::fs::write(&self.config, before + more).expect("its configuration");
    }

    /// A cable to another sandbox's host: `u0` at both ends, with these addresses.
    pub(crate) fn connect(&self, other: &Sandbox, addresses: [&str; 2]) {
        self.namespace.connect(&other.namespace, "u0", addresses);
    }

    /// As [`Sandbox::prepare`], on a Docker of its own that has these images. It runs where the sandbox's Open vSwitch does, as on a real host.
    pub fn prepare_with_docker(mode: Mode, more: &str, images: &[&str]) -> Sandbox {
        let mut sandbox = Sandbox::prepare(mode, more);
        sandbox.give_docker(images);
        sandbox
    }

    fn give_docker(&mut self, images: &[&str]) {
        let docker = Docker::start(&self.path().join("docker"), self.namespace.clone());
        images.iter().for_each(|image| docker.load(image));
        self.private_docker = Some(docker);
    }

    /// Its virtual machines are to be run by the libvirtd there, which has to be in its host's network namespace.
    pub fn use_libvirt(&mut self, uri: String) {
        self.libvirt_uri = Some(uri);
    }

    /// Runs the docker command line against the Docker that it uses.
    pub fn docker(&self, args: &[&str]) -> Output {
        match &self.private_docker {
            Some(docker) => run_at(&docker.socket(), args),
            None => run("docker", args),
        }
    }

    /// Starts the `netloomd` of an installation, and waits until it answers.
    pub fn start_installed(installed: Installed) -> Sandbox {
        let mut sandbox = Sandbox::prepare(Mode::One, "");
        sandbox.installed = Some(installed);
        sandbox.run_programs();
        sandbox.wait_until_healthy();
        sandbox
    }

    /// Directory of the sandbox: for the test's own files too.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Name of its bridge, unique on this machine.
    pub fn bridge(&self) -> &str {
        &self.name
    }

    /// A lab name that no other test uses.
    pub fn lab(&self, name: &str) -> String {
        format!("{}-{name}", self.name)
    }

    /// The owner that its objects carry.
    pub fn owner(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("data/owner")).unwrap_or_default().trim().to_owned()
    }

    /// Its data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Makes a switch for machines beside this one, which has these addresses on it.
    pub fn make_switch(&self, addresses: &[&str]) {
        run("ip", &["-n", &self.name, "link", "add", "switch", "type", "bridge"]).must();
        for address in addresses {
            run("ip", &["-n", &self.name, "address", "add", address, "dev", "switch"]).must();
        }
        run("ip", &["-n", &self.name, "link", "set", "switch", "up"]).must();
    }

    /// A command of this machine in the network namespace of the sandbox's host, where its programs listen.
    pub fn in_namespace(&self, program: impl Into<PathBuf>) -> Command {
        self.namespace.command(program)
    }

    /// Takes this thread to where its programs listen on TCP, for as long as it runs.
    pub fn enter_namespace(&self) {
        self.namespace.enter();
    }

    /// The API's socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("run/api.sock")
    }

    /// Starts the programs.
    pub fn run_programs(&self) {
        let mut programs = self.programs.lock().expect("no holder panics");
        for name in self.mode.programs() {
            programs.push(((*name).to_owned(), self.spawn(name)));
        }
    }

    fn spawn(&self, name: &str) -> Child {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.dir.path().join(format!("{name}.log")))
            .expect("a log file");
        self.program(name)
            .env("NETLOOM_LOG", std::env::var("NETLOOM_LOG").unwrap_or_else(|_| LOG.to_owned()))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file handle"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start {name}: {e}"))
    }

    /// The command that runs a program, on this sandbox's directories.
    fn program(&self, name: &str) -> Command {
        let Some(installed) = &self.installed else {
            let mut command = self.namespace.command(binary(name));
            command.arg("--config").arg(&self.config).env("NETLOOM_FAIL_POINTS", self.points());
            if let Some(docker) = &self.private_docker {
                command.env("NETLOOM_COMPUTE__DOCKER_SOCKET", docker.socket());
            }
            if let Some(uri) = &self.libvirt_uri {
                tell_libvirt(&mut command, uri);
            }
            return command;
        };
        let mut line = installed.through.clone();
        line.push(installed.bin.join(name).display().to_string());
        let mut command = self.namespace.command(&line[0]);
        command
            .args(&line[1..])
            .arg("--config")
            .arg(&installed.config)
            .arg("--data-dir")
            .arg(self.data_dir())
            .arg("--run-dir")
            .arg(self.dir.path().join("run"))
            .env("NETLOOM_KINDS_DIR", &installed.kinds_dir)
            .env("NETLOOM_NETWORK__BRIDGE", &self.name)
            .env("NETLOOM_NETWORK__OVSDB_SOCKET", self.ovs.socket())
            .env("NETLOOM_NETWORK__OVS_RUN_DIR", self.ovs.run_dir());
        command
    }

    /// Kills one of the programs with KILL, as a crash does.
    pub fn kill(&self, program: &str) {
        let mut programs = self.programs.lock().expect("no holder panics");
        let found = programs.iter_mut().find(|(name, _)| name == program);
        let (_, child) = found.unwrap_or_else(|| panic!("{program} is no program of this sandbox"));
        let _ = child.kill();
        let _ = child.wait();
    }

    /// Kills all programs with KILL, as a crash does.
    pub fn crash(&self) {
        for (_, mut child) in self.programs.lock().expect("no holder panics").drain(..) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// What the programs are told to do at their fail points; see `netloom_service::fail_point`.
    fn points(&self) -> PathBuf {
        self.dir.path().join("points")
    }

    /// Has the programs write down the fail points that they pass from now on.
    pub fn record_points(&self) {
        std::fs::write(self.points(), "record").expect("a file");
    }

    /// The fail points passed since [`Sandbox::record_points`] or the last call, in order; they go on being written down.
    pub fn passed_points(&self) -> Vec<String> {
        let list = self.points().with_extension("passed");
        let passed = std::fs::read_to_string(&list).unwrap_or_default();
        let _ = std::fs::remove_file(list);
        passed.lines().map(str::to_owned).collect()
    }

    /// Has the program that next passes a fail point for the nth time die there.
    pub fn die_at(&self, point: &str, nth: usize) {
        std::fs::write(self.points(), format!("die {point} {nth}")).expect("a file");
    }

    /// Keeps the programs from hearing of what others change, but by reading it.
    pub fn go_deaf(&self) {
        std::fs::write(self.points(), "deaf").expect("a file");
    }

    /// Lets the programs pass all fail points, and hear.
    pub fn pass_all_points(&self) {
        let _ = std::fs::remove_file(self.points());
    }

    /// True when one of the programs has ended by itself.
    pub fn has_died(&self) -> bool {
        let mut programs = self.programs.lock().expect("no holder panics");
        programs.iter_mut().any(|(_, child)| child.try_wait().is_ok_and(|status| status.is_some()))
    }

    /// True when all of them have.
    pub fn have_ended(&self) -> bool {
        let mut programs = self.programs.lock().expect("no holder panics");
        programs.iter_mut().all(|(_, child)| child.try_wait().is_ok_and(|status| status.is_some()))
    }

    /// Starts those programs again that have ended.
    pub fn revive(&self) {
        for (name, child) in self.programs.lock().expect("no holder panics").iter_mut() {
            if child.try_wait().is_ok_and(|status| status.is_some()) {
                *child = self.spawn(name);
            }
        }
    }

    /// Pids of the programs.
    pub fn pids(&self) -> Vec<u32> {
        self.programs.lock().expect("no holder panics").iter().map(|(_, c)| c.id()).collect()
    }

    /// Stops its programs, in the middle of whatever they do, until what this returns is dropped.
    pub fn freeze(&self) -> Vec<Frozen> {
        self.pids().into_iter().map(Frozen::new).collect()
    }

    /// Pid of one of the programs.
    pub fn pid(&self, program: &str) -> u32 {
        let programs = self.programs.lock().expect("no holder panics");
        let found = programs.iter().find(|(name, _)| name == program);
        found.unwrap_or_else(|| panic!("{program} is no program of this sandbox")).1.id()
    }

    /// Starts the programs once more on the same directories, and waits until each has ended; their exit codes.
    pub fn start_once_more(&self) -> Vec<i32> {
        let mut again: Vec<Child> = self.mode.programs().iter().map(|name| self.spawn(name)).collect();
        let end = Instant::now() + Duration::from_secs(20);
        let mut codes = Vec::new();
        for child in &mut again {
            loop {
                match child.try_wait() {
                    Ok(Some(status)) => break codes.push(status.code().unwrap_or(-1)),
                    Ok(None) if Instant::now() < end => std::thread::sleep(Duration::from_millis(50)),
                    _ => {
                        let _ = child.kill();
                        let _ = child.wait();
                        panic!("a second netloom on the same directories goes on running");
                    }
                }
            }
        }
        codes
    }

    /// Waits until the API answers.
    pub fn wait_until_healthy(&self) {
        eventually("netloom answers and its host is heard of", Duration::from_secs(30), || {
            self.get("/v1/hosts/local").is_ok_and(|r| r.body["state"] == "HOST_STATE_ONLINE")
        });
    }

    /// Runs `netloom` with these arguments.
    pub fn netloom<S: AsRef<std::ffi::OsStr>>(&self, args: &[S]) -> Output {
        finish(self.command().args(args), None)
    }

    /// Runs `netloom` over TCP with the token in this file.
    pub fn netloom_over_tcp(&self, token_file: &Path, args: &[&str]) -> Output {
        let mut command = self.namespace.command(binary("netloom"));
        command.args(["--endpoint", "http://127.0.0.1:7600", "--token-file"]).arg(token_file).args(args);
        finish(&mut command, None)
    }

    /// The command `netloom`, told where this sandbox is.
    pub fn command(&self) -> Command {
        let mut command = Command::new(binary("netloom"));
        command
            .env("NETLOOM_ENDPOINT", format!("unix:{}", self.socket().display()))
            .current_dir(self.dir.path());
        command
    }

    /// Writes a file below the sandbox's directory.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        std::fs::write(&path, text).expect("a file");
        path
    }

    /// Deploys a topology text and demands success.
    pub fn deploy(&self, text: &str) -> Output {
        self.try_deploy(text).must()
    }

    /// Deploys a topology text.
    pub fn try_deploy(&self, text: &str) -> Output {
        let file = self.write("lab.clab.yml", text);
        self.netloom(&["deploy", "-t", &file.display().to_string()])
    }

    /// Asks over HTTP.
    pub fn get(&self, path: &str) -> std::io::Result<Reply> {
        request(&self.socket(), "GET", path, None)
    }

    /// A lab as HTTP shows it.
    pub fn lab_json(&self, lab: &str) -> Value {
        self.get(&format!("/v1/labs/{lab}")).map_or(Value::Null, |r| r.body)
    }

    /// A node as HTTP shows it.
    pub fn node_json(&self, lab: &str, node: &str) -> Value {
        self.get(&format!("/v1/labs/{lab}/nodes/{node}")).map_or(Value::Null, |r| r.body)
    }

    /// Waits until a lab has this many nodes ready and links up.
    pub fn wait_ready(&self, lab: &str, nodes: u64, links: u64, bound: Duration) {
        eventually(&format!("{lab} has {nodes} nodes ready and {links} links up"), bound, || {
            let lab = self.lab_json(lab);
            lab["readyCount"] == nodes && lab["upLinkCount"] == links
        });
    }

    fn log_of(&self, program: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(format!("{program}.log"))).unwrap_or_default()
    }

    /// All that the programs wrote to their logs.
    pub fn logs(&self) -> String {
        let mut all = String::new();
        for name in FIVE.iter().chain(&["netloomd"]) {
            all += &self.log_of(name);
        }
        all
    }

    /// What is shown and what was logged last, for whoever reads that a test failed.
    fn tell(&self) {
        let shown = |path: &str| self.get(path).map_or(Value::Null, |reply| reply.body);
        let labs = shown("/v1/labs");
        eprintln!("---- what {} shows: {labs}\n{}", self.name, shown("/v1/hosts"));
        for lab in labs["labs"].as_array().into_iter().flatten().filter_map(|lab| lab["name"].as_str()) {
            for of in ["nodes", "links"] {
                eprintln!("{}", shown(&format!("/v1/{lab}/{of}")));
            }
        }
        eprintln!("{}", shown("/v1/operations"));
        for name in FIVE.iter().chain(&["netloomd"]) {
            let log =
                std::fs::read_to_string(self.dir.path().join(format!("{name}.log"))).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(40).collect();
            if !tail.is_empty() {
                eprintln!("---- what its {name} logged last");
            }
            tail.into_iter().rev().for_each(|line| eprintln!("{line}"));
        }
    }

    /// What joins links of two nodes: flows, and redirects; two of either a link.
    pub fn joints(&self) -> [usize; 2] {
        let flows = self.ovs.ofctl("dump-flows", &self.name, &["--no-stats"]).must().stdout;
        let flows = flows.lines().filter(|line| line.contains("actions=output")).count();
        let redirects =
            finish(self.namespace.command("tc").args(["actions", "list", "action", "mirred"]), None);
        [flows, redirects.must().stdout.matches("Egress Redirect to device").count()]
    }

    /// What is there of this sandbox's: containers, host interfaces, bridges, ports and flows. Where it cannot be looked, that is told as well.
    pub fn leftovers(&self) -> Vec<String> {
        let mut found = Vec::new();
        let owner = format!("label=netloom.owner={}", self.owner());
        let containers = self.docker(&["ps", "-aq", "--filter", &owner]);
        found.extend(told("container", &containers, str::split_whitespace));
        let networks = self.docker(&["network", "ls", "-q", "--filter", &owner]);
        found.extend(told("docker network", &networks, str::split_whitespace));
        // Of its bridges only that of all wires stays, and nothing in it.
        let bridges = self.ovs.vsctl(&["list-br"]);
        let is_segment = |bridge: &&str| bridge.starts_with("nl");
        found.extend(told("bridge", &bridges, |all| all.lines().filter(is_segment)));
        if bridges.stdout.lines().any(|bridge| bridge == self.name) {
            let ports = self.ovs.vsctl(&["list-ports", &self.name]);
            found.extend(told("port", &ports, str::split_whitespace));
            let flows = || self.ovs.ofctl("dump-flows", &self.name, &["--no-stats"]);
            // The switch takes up a bridge that has just been made a moment after the database has it.
            let end = Instant::now() + TAKEN_UP;
            let flows = std::iter::repeat_with(flows).find(|said| said.ok() || Instant::now() > end);
            let flows = flows.expect("it is tried until then");
            let is_flow = |line: &&str| line.contains("actions=");
            found.extend(told("flow", &flows, |all| all.lines().filter(is_flow)));
        }
        let links = finish(self.namespace.command("ip").args(["-d", "-o", "link"]), None);
        let alias = format!("netloom:{}", self.owner());
        // The namespace is the sandbox's own: what has a name of netloom's there is netloom's.
        let is_ours = |line: &&str| {
            let name = line.split(": ").nth(1).unwrap_or_default();
            name.starts_with("nl") || line.contains(&alias)
        };
        found.extend(told("interface", &links, |all| all.lines().filter(is_ours)));
        for kind in ["netns", "binds"] {
            let entries =
                std::fs::read_dir(self.dir.path().join("run").join(kind)).into_iter().flatten().flatten();
            found.extend(entries.map(|f| format!("in {kind}: {}", f.path().display())));
        }
        found
    }

    /// Its machine goes down without a word and comes up again, with nothing that is not on a disk: programs, Open vSwitch and its database,
    /// containers, interfaces, and the run directory. Open vSwitch and Docker, which has to be its own, run again then; netloom does not.
    pub fn reboot(&mut self) {
        self.crash();
        self.ovs.stop();
        self.private_docker.as_mut().expect("a Docker of its own").power_off();
        power_off(&self.dir.path().join("run"), &self.namespace);
        self.ovs.start_empty();
        self.private_docker.as_mut().expect("a Docker of its own").start_again();
    }
}

/// What a command told of, each named as what it is; or that it could not tell.
fn told<'a, I: Iterator<Item = &'a str>>(
    what: &str,
    said: &'a Output,
    each: impl Fn(&'a str) -> I,
) -> Vec<String> {
    if !said.ok() {
        return vec![format!("{what}: it cannot be seen: {}", said.stderr)];
    }
    each(&said.stdout).map(|one| format!("{what} {one}")).collect()
}

/// Takes from a machine what its kernel does not keep when it goes down: the run directory, and each interface that is no hardware.
pub(crate) fn power_off(run_dir: &Path, namespace: &Namespace) {
    unmount_below(run_dir);
    let _ = std::fs::remove_dir_all(run_dir);
    let links = finish(namespace.command("ip").args(["-o", "link"]), None).must().stdout;
    let names = links.lines().filter_map(|line| line.split(": ").nth(1)?.split('@').next());
    for name in names.filter(|name| !["lo", "u0", "up0"].contains(name)) {
        // One may go with another.
        finish(namespace.command("ip").args(["link", "delete", name]), None);
    }
}

/// Takes away what is mounted below a directory.
pub(crate) fn unmount_below(dir: &Path) {
    let table = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let points = table.lines().filter_map(|line| line.split(' ').nth(1)).map(PathBuf::from);
    let points: Vec<PathBuf> = points.filter(|p| p.starts_with(dir)).collect();
    // What is mounted last lies on top.
    for path in points.into_iter().rev() {
        let _ = nix::mount::umount2(&path, nix::mount::MntFlags::MNT_DETACH);
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.tell();
        }
        let mut programs: Vec<(String, Child)> =
            self.programs.lock().map(|mut p| p.drain(..).collect()).unwrap_or_default();
        for (_, child) in &programs {
            let _ = kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM);
        }
        for (_, child) in &mut programs {
            let end = Instant::now() + Duration::from_secs(5);
            while child.try_wait().is_ok_and(|s| s.is_none()) && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(20));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        let owner = self.owner();
        // One of its own takes everything along.
        if !owner.is_empty() && self.private_docker.is_none() {
            let filter = format!("label=netloom.owner={owner}");
            let containers = run("docker", &["ps", "-aq", "--filter", &filter]).stdout;
            for id in containers.split_whitespace() {
                run("docker", &["rm", "-f", id]);
            }
            for kind in ["network", "volume"] {
                let all = run("docker", &[kind, "ls", "-q", "--filter", &filter]).stdout;
                for id in all.split_whitespace() {
                    run("docker", &[kind, "rm", id]);
                }
            }
        }
        drop(self.private_docker.take());
        unmount_below(self.dir.path());
    }
}

/// Waits until the condition holds, asking again every 50 ms; panics with `what` when the bound is over first.
pub fn eventually(what: &str, bound: Duration, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + bound;
    while !condition() {
        assert!(Instant::now() < end, "not within {bound:?}: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Where the programs are built, beside this test: `target/<profile>`, where the test is in `deps`.
pub fn binaries() -> PathBuf {
    let test = std::env::current_exe().expect("this test has a path");
    test.parent().and_then(Path::parent).expect("tests lie in target/<profile>/deps").to_owned()
}

/// A program of netloom's.
pub(crate) fn binary(name: &str) -> PathBuf {
    let path = binaries().join(name);
    assert!(path.exists(), "{} is not built: run `make build`, or the tests by `make test`", path.display());
    path
}
