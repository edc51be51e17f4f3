//! A Redis of a test's own: on a Unix socket in a directory, with nothing kept on disk.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long it has to answer.
const BOUND: Duration = Duration::from_secs(20);
const SERVER: &str = "/usr/bin/redis-server";

/// Runs a server until it is told to end it, or nobody is there to tell.
const KEEPER: &str = r#"dir=$1; shift
"$@" </dev/null >"$dir/log" 2>&1 & server=$!
read -r _; kill -KILL "$server"; wait "$server""#;

/// True where it is installed.
pub fn is_there() -> bool {
    Path::new(SERVER).exists()
}

/// A server; it goes when this is dropped, and also when this process ends otherwise.
pub struct Redis {
    dir: PathBuf,
    keeper: Option<Child>,
}

impl Redis {
    /// Starts one.
    pub fn start() -> Redis {
        let dir = (0..)
            .map(|n| PathBuf::from(format!("/tmp/nlredis{}-{n}", std::process::id())))
            .find(|dir| std::fs::create_dir(dir).is_ok())
            .expect("one of them is free");
        let mut redis = Redis { dir, keeper: None };
        redis.start_again();
        redis
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    fn socket(&self) -> PathBuf {
        self.dir.join("redis.sock")
    }

    /// Ends it at once, as a crash does: all that it knew is lost.
    pub fn kill(&mut self) {
        if let Some(mut keeper) = self.keeper.take() {
            let _ = keeper.stdin.take().expect("piped").write_all(b"end\n");
            let _ = keeper.wait();
            let _ = std::fs::remove_file(self.socket());
        }
    }

    /// Starts it, empty, and waits until it answers.
    pub fn start_again(&mut self) {
        let keeper = Command::new("bash")
            .args(["-c", KEEPER, "keeper"])
            .arg(&self.dir)
            .args([SERVER, "--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"])
            .arg(self.socket())
            .arg("--dir")
            .arg(&self.dir)
            .stdin(Stdio::piped())
            .spawn();
        self.keeper = Some(keeper.expect("bash"));
        let end = Instant::now() + BOUND;
        while self.ask(&["PING"]).trim() != "PONG" {
            let log = || std::fs::read_to_string(self.dir.join("log")).unwrap_or_default();
            assert!(Instant::now() < end, "Redis does not answer: {}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Runs a command, and tells what it answered.
    pub fn ask(&self, command: &[&str]) -> String {
        let asked = Command::new("redis-cli").arg("-s").arg(self.socket()).args(command).output();
        String::from_utf8_lossy(&asked.expect("redis-cli").stdout).into_owned()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
