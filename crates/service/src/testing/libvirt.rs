//! A private libvirtd, and the disk of a guest that boots in seconds: the machine's own libvirtd is not touched by tests.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, OnceLock};

const SCRIPT: &str = include_str!("libvirtd.sh");

/// A libvirtd in a mount namespace of its own. It, its virtual machines and its directories go when this is dropped, and also when this process ends otherwise.
pub struct Libvirtd {
    dir: PathBuf,
    /// Its keeper's input and output; the input is none once it was closed.
    talk: Mutex<(Option<ChildStdin>, BufReader<ChildStdout>)>,
    child: Mutex<Child>,
}

impl Libvirtd {
    /// Starts one, and waits until it listens.
    pub fn start() -> Libvirtd {
        Libvirtd::start_by(Command::new("unshare"))
    }

    /// The same by a command that runs `unshare` elsewhere, for instance in another network namespace.
    pub fn start_by(unshare: Command) -> Libvirtd {
        Libvirtd::start_as(unshare, "plain")
    }

    /// One as distributions have it: QEMU runs as a user of its own, and the log daemon writes consoles in its place.
    pub fn distributed() -> Libvirtd {
        Libvirtd::start_as(Command::new("unshare"), "distributed")
    }

    fn start_as(mut unshare: Command, flavour: &str) -> Libvirtd {
        // Short: paths of sockets below it must stay under 108 bytes.
        let dir = (0..)
            .map(|n| PathBuf::from(format!("/tmp/nlv{}-{n}", std::process::id())))
            .find(|dir| std::fs::create_dir(dir).is_ok())
            .expect("one of them is free");
        let mut child = unshare
            .args(["--mount", "bash", "-c", SCRIPT, "libvirtd.sh"])
            .arg(&dir)
            .arg(flavour)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare runs");
        let talk = (child.stdin.take(), BufReader::new(child.stdout.take().expect("piped")));
        let this = Libvirtd { dir, talk: Mutex::new(talk), child: Mutex::new(child) };
        this.answer("up");
        this
    }

    /// One for all tests of this process.
    pub fn shared() -> &'static Libvirtd {
        static SHARED: OnceLock<Libvirtd> = OnceLock::new();
        SHARED.get_or_init(Libvirtd::start)
    }

    /// What to connect to.
    pub fn uri(&self) -> String {
        format!("qemu+unix:///system?socket={}", self.dir.join("run/libvirt/libvirt-sock").display())
    }

    /// Ends it, not its virtual machines.
    pub fn stop(&self) {
        self.tell("stop");
    }

    /// Starts it again.
    pub fn start_again(&self) {
        self.tell("start");
    }

    /// Keeps it from doing anything, as a hanging one.
    pub fn freeze(&self) {
        self.tell("freeze");
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.tell("thaw");
    }

    /// Process id of a running virtual machine, by the domain's name.
    pub fn qemu(&self, name: &str) -> Option<i32> {
        std::fs::read_to_string(self.dir.join(format!("run/libvirt/qemu/{name}.pid")))
            .ok()?
            .trim()
            .parse()
            .ok()
    }

    /// What `virsh` says.
    pub fn virsh(&self, arguments: &[&str]) -> Result<String, String> {
        let output = Command::new("virsh").args(["-q", "-c", &self.uri()]).args(arguments).output();
        let output = output.expect("virsh runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    fn tell(&self, command: &str) {
        let mut talk = self.talk.lock().expect("no holder panics");
        writeln!(talk.0.as_mut().expect("piped"), "{command}").expect("its keeper lives");
        drop(talk);
        self.answer("done");
    }

    fn answer(&self, expected: &str) {
        let mut line = String::new();
        self.talk.lock().expect("no holder panics").1.read_line(&mut line).expect("its keeper lives");
        let log = || std::fs::read_to_string(self.dir.join("libvirtd.log")).unwrap_or_default();
        assert!(line.starts_with(expected), "the private libvirtd: {line:?}; its log: {}", log());
    }
}

impl Drop for Libvirtd {
    fn drop(&mut self) {
        // The keeper ends with its input, and what it keeps with it.
        if let Ok(talk) = self.talk.get_mut() {
            talk.0 = None;
        }
        if let Ok(child) = self.child.get_mut() {
            let _ = child.wait();
        }
    }
}

/// The guest's disk, built when it is not there: a qcow2 that `scripts/guest.sh` describes.
pub fn guest() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let file = repository.join("target/guest/guest.qcow2");
        let built = Command::new(repository.join("scripts/guest.sh")).arg(&file).output().expect("it runs");
        assert!(built.status.success(), "scripts/guest.sh: {}", String::from_utf8_lossy(&built.stderr));
        file.canonicalize().expect("it was built")
    })
}
