//! A Docker of a test's own: its daemons, its images, its containers, in a directory and a network namespace, stopped by pid.
//!
//! For tests that stop Docker, fill it, or lose its images. The namespace is needed: a second daemon without a bridge in the machine's own namespace would remove the bridge of the first.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::command::{Frozen, Output, finish};
use crate::namespace::Namespace;
use crate::sandbox::eventually;

/// How long the daemon has to answer once it was started, and to stop its containers and end.
const END: Duration = Duration::from_secs(60);

/// A private Docker.
pub struct Docker {
    dir: PathBuf,
    namespace: Arc<Namespace>,
    daemon: Option<Child>,
}

impl Docker {
    /// Starts one in this directory and namespace, and waits until it answers.
    pub fn start(dir: &Path, namespace: Arc<Namespace>) -> Docker {
        std::fs::create_dir_all(dir).expect("a directory for Docker");
        let mut docker = Docker { dir: dir.to_owned(), namespace, daemon: None };
        docker.start_again();
        docker
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("docker.sock")
    }

    /// Runs the docker command line against it.
    pub fn run(&self, args: &[&str]) -> Output {
        run_at(&self.socket(), args)
    }

    /// Takes an image over from the machine's own Docker.
    pub fn load(&self, image: &str) {
        let mut save = Command::new("docker")
            .args(["save", image])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("docker save");
        let saved = save.stdout.take().expect("piped");
        let mut load = Command::new("docker");
        load.arg("-H").arg(address(&self.socket())).arg("load").stdin(saved).stdout(Stdio::null());
        let loaded = load.status().expect("docker load");
        let saved = save.wait().expect("docker save ends");
        assert!(
            saved.success() && loaded.success(),
            "{image} cannot be taken over: build it by `make images`"
        );
    }

    /// Ends the daemon as a service manager does: it stops its containers, and they stay stopped. Fine when it does not run.
    pub fn stop(&mut self) {
        let Some(mut daemon) = self.daemon.take() else { return };
        let _ = kill(Pid::from_raw(daemon.id().cast_signed()), Signal::SIGTERM);
        let end = Instant::now() + END;
        while daemon.try_wait().is_ok_and(|s| s.is_none()) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = daemon.kill();
        let _ = daemon.wait();
    }

    /// Keeps the daemon from running for as long as what is returned lives: it answers nobody, its containers run on.
    pub fn freeze(&self) -> Frozen {
        Frozen::new(self.daemon.as_ref().expect("it runs").id())
    }

    /// Kills the daemon, as a crash does: its containers run on without it.
    pub fn kill(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
            // It takes containerd along, whose pid the next daemon would believe in while nobody has waited for it.
            let pid = self.exec_root().join("containerd/containerd.pid");
            eventually("containerd is gone", END, || {
                !self.helpers().iter().any(|(_, name)| name == "containerd")
            });
            let _ = std::fs::remove_file(pid);
        }
    }

    /// Ends everything at once, as a machine does whose power fails: daemon, helpers and containers, what is mounted, and what is not on a
    /// disk. What containers wrote stays.
    pub fn power_off(&mut self) {
        let running = self.run(&["ps", "-q"]).stdout;
        let mut inspect = vec!["inspect", "-f", "{{.State.Pid}}"];
        inspect.extend(running.split_whitespace());
        let first = self.run(&inspect).stdout;
        let first = first.split_whitespace().filter_map(|pid| pid.parse().ok()).map(Pid::from_raw);
        let first: Vec<Pid> = first.filter(|pid| pid.as_raw() > 1).collect();
        self.kill();
        for pid in self.helpers().into_iter().map(|(pid, _)| pid).chain(first.iter().copied()) {
            let _ = kill(pid, Signal::SIGKILL);
        }
        eventually("all of it has ended", END, || {
            self.helpers().is_empty() && first.iter().all(|pid| kill(*pid, None).is_err())
        });
        crate::sandbox::unmount_below(&self.dir);
        let _ = std::fs::remove_dir_all(self.exec_root());
        let _ = std::fs::remove_file(self.dir.join("docker.pid"));
    }

    /// Starts the daemon on what is there, and waits until it answers.
    pub fn start_again(&mut self) {
        self.spawn();
        eventually("Docker answers", END, || self.answers());
    }

    fn answers(&self) -> bool {
        self.run(&["version"]).ok()
    }

    fn spawn(&mut self) {
        assert!(self.daemon.is_none(), "Docker runs already");
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.dir.join("dockerd.log"))
            .expect("a log file");
        let mut daemon = self.namespace.command("dockerd");
        daemon
            .arg("--data-root")
            .arg(self.dir.join("data"))
            .arg("--exec-root")
            .arg(self.exec_root())
            .arg("--pidfile")
            .arg(self.dir.join("docker.pid"))
            .args(["-H", &address(&self.socket())])
            .args(["--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-masq=false"])
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file handle"))
            .stderr(log);
        self.daemon = Some(daemon.spawn().expect("dockerd, which `make deps` installs"));
    }

    fn exec_root(&self) -> PathBuf {
        self.dir.join("run")
    }

    /// Its processes beside the daemon, by pid and name: containerd, and a shim for each container.
    fn helpers(&self) -> Vec<(Pid, String)> {
        let mine = self.exec_root().display().to_string();
        let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = processes.filter_map(|p| p.file_name().to_str()?.parse::<i32>().ok());
        let is_mine = |pid: i32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            let line = String::from_utf8_lossy(&line);
            let program = line.split('\0').next().unwrap_or_default();
            let name = program.rsplit('/').next().unwrap_or_default();
            (name.starts_with("containerd") && line.contains(&mine))
                .then(|| (Pid::from_raw(pid), name.to_owned()))
        };
        pids.filter_map(is_mine).collect()
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        // Only the daemon can take away what containers have on the machine.
        if self.daemon.is_none() {
            self.spawn();
        }
        let end = Instant::now() + END;
        while !self.answers() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(50));
        }
        let all = self.run(&["ps", "-aq"]).stdout;
        let mut remove = vec!["rm", "-f"];
        remove.extend(all.split_whitespace());
        if remove.len() > 2 {
            self.run(&remove);
        }
        self.stop();
        for (shim, _) in self.helpers() {
            let children = format!("/proc/{shim}/task/{shim}/children");
            let nodes = std::fs::read_to_string(children).unwrap_or_default();
            for pid in
                nodes.split_whitespace().filter_map(|p| p.parse().ok()).map(Pid::from_raw).chain([shim])
            {
                let _ = kill(pid, Signal::SIGKILL);
            }
        }
        let table = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let points = table.lines().filter_map(|line| line.split(' ').nth(1)).map(PathBuf::from);
        let mine: Vec<PathBuf> = points.filter(|p| p.starts_with(&self.dir)).collect();
        for path in mine.into_iter().rev() {
            let _ = nix::mount::umount2(&path, nix::mount::MntFlags::MNT_DETACH);
        }
    }
}

/// Runs the docker command line against the daemon behind this socket.
pub(crate) fn run_at(socket: &Path, args: &[&str]) -> Output {
    finish(Command::new("docker").args(["-H", &address(socket)]).args(args), None)
}

fn address(socket: &Path) -> String {
    format!("unix://{}", socket.display())
}
