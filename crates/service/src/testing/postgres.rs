//! A PostgreSQL of a test's own: in a directory, over a Unix socket and an address of this machine, stopped by pid.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::unistd::{User, chown, geteuid};

/// How long it has to answer.
const BOUND: Duration = Duration::from_secs(60);

/// Runs a server until it is told to crash it, or nobody is there to tell: then the directory goes, too. SIGQUIT ends all its processes, which write nothing more.
const KEEPER: &str = r#"dir=$1; shift
"$@" </dev/null >/dev/null 2>>"$dir/log" & server=$!
read -r word; kill -QUIT "$server"; wait "$server"
[ "$word" = crash ] || rm -rf "$dir""#;

/// Where its programs are; none where it is not installed.
pub fn programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    let mut found: Vec<PathBuf> = versions.flatten().map(|v| v.path().join("bin")).collect();
    found.retain(|bin| bin.join("initdb").exists());
    found.sort();
    found.pop()
}

/// A server and its databases. They go when this is dropped, and also when this process ends otherwise.
pub struct Postgres {
    dir: PathBuf,
    address: String,
    user: User,
    keeper: Option<Child>,
}

impl Postgres {
    /// Makes a cluster of databases and starts its server.
    pub fn start() -> Postgres {
        Postgres::start_on(|_| {})
    }

    /// The same on a disk of its own that takes so much, which only root can make: see [`Postgres::fill`].
    pub fn start_on_disk(megabytes: u32) -> Postgres {
        Postgres::start_on(|dir| {
            let size = format!("size={megabytes}m");
            let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(dir).status();
            assert!(mount.is_ok_and(|status| status.success()), "cannot mount a file system");
        })
    }

    fn start_on(disk: impl FnOnce(&Path)) -> Postgres {
        let pid = std::process::id();
        let (dir, address) = (0..)
            // Whoever has a directory has an address, too, and so the port.
            .map(|n| {
                (
                    format!("/tmp/nlpg{pid}-{n}"),
                    format!("127.{}.{}.{}", 100 + n % 100, pid >> 8 & 255, pid & 255),
                )
            })
            .map(|(dir, address)| (PathBuf::from(dir), address))
            .find(|(dir, _)| std::fs::create_dir(dir).is_ok())
            .expect("one of them is free");
        // It refuses to run as root; its package makes a user for it.
        disk(&dir);
        let user = if geteuid().is_root() { User::from_name("postgres") } else { User::from_uid(geteuid()) };
        let user = user.expect("the users").expect("one to run as");
        chown(&dir, Some(user.uid), Some(user.gid)).expect("its directory");
        let mut postgres = Postgres { dir, address, user, keeper: None };
        let made = postgres
            .command(&program("initdb"))
            .args(["--no-sync", "--no-locale", "--encoding=UTF8", "--auth=trust", "--username=netloom", "-D"])
            .arg(postgres.data())
            .output()
            .expect("initdb");
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        postgres.start_again();
        postgres
    }

    /// The URL of its one database.
    pub fn url(&self) -> String {
        let directory = self.dir.to_string_lossy().replace('/', "%2F");
        format!("postgres://netloom@{directory}/postgres")
    }

    /// Where it takes connections over TCP.
    pub fn address(&self) -> String {
        format!("{}:5432", self.address)
    }

    /// The URL of its one database for who reaches the server at this address.
    pub fn url_at(address: &str) -> String {
        format!("postgres://netloom@{address}/postgres")
    }

    /// Runs statements.
    pub fn run(&self, sql: &str) {
        let done = self
            .command(&program("psql"))
            .args(["-qX", "-v", "ON_ERROR_STOP=1", "-c", sql])
            .arg(self.url())
            .output();
        let done = done.expect("psql");
        assert!(done.status.success(), "{sql}: {}", String::from_utf8_lossy(&done.stderr));
    }

    /// Takes all the room that its disk has, or gives it back.
    pub fn fill(&self, full: bool) {
        let path = self.dir.join("filler");
        if !full {
            return std::fs::remove_file(path).expect("the filler");
        }
        let mut file = std::fs::File::create(path).expect("a file");
        for size in [1 << 16, 1 << 12, 1] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
    }

    /// Ends the server at once, as a crash does.
    pub fn kill(&mut self) {
        if let Some(mut keeper) = self.keeper.take() {
            let _ = keeper.stdin.take().expect("piped").write_all(b"crash\n");
            let _ = keeper.wait();
        }
    }

    /// Starts the server on what is there, and waits until it answers.
    pub fn start_again(&mut self) {
        let mut keeper = self.command(Path::new("bash"));
        keeper.args(["-c", KEEPER, "keeper"]).arg(&self.dir).arg(program("postgres"));
        keeper.arg("-D").arg(self.data()).arg("-k").arg(&self.dir);
        keeper.args(["-c", &format!("listen_addresses={}", self.address)]);
        self.keeper = Some(keeper.stdin(Stdio::piped()).spawn().expect("bash"));
        let end = Instant::now() + BOUND;
        let ready = || self.command(&program("pg_isready")).arg("-q").arg("-h").arg(&self.dir).status();
        while !ready().is_ok_and(|status| status.success()) {
            let log = || std::fs::read_to_string(self.dir.join("log")).unwrap_or_default();
            assert!(Instant::now() < end, "PostgreSQL does not answer: {}", log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// A command that its user runs.
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir("/").stdin(Stdio::null());
        if geteuid().is_root() {
            command.uid(self.user.uid.as_raw()).gid(self.user.gid.as_raw());
        }
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.kill();
        // Only one with a disk of its own is one.
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        if mounts.lines().any(|line| line.split(' ').nth(1).is_some_and(|at| Path::new(at) == self.dir)) {
            let _ = Command::new("umount").arg("--lazy").arg(&self.dir).status();
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn program(name: &str) -> PathBuf {
    programs().expect("PostgreSQL is installed").join(name)
}
