//! What runs instances. A driver makes, starts, stops and removes one instance at a time, says what exists, and tells when something changes; what is to be done, and when, is
//! decided above it. `tests/` holds the suite that each passes.

pub mod docker;
pub mod libvirt;
mod limits;
pub mod management;
pub mod sim;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt as _};
use futures::stream::BoxStream;
use netloom_model::id::{LabUid, NodeUid};
use netloom_model::observed::Acceleration;
use netloom_model::slice::Instance;
use netloom_model::spec::PortMapping;
use netloom_model::state::Runtime;
use netloom_service::handover::Machine;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::error::Error;
pub use limits::Limits;

/// What a driver answers.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, Error>>;

/// An instance that exists and carries our owner.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Found {
    /// The container's or domain's own id.
    pub id: String,
    /// The node.
    pub uid: NodeUid,
    /// Its lab.
    pub lab_uid: LabUid,
    /// Its lab's id, for people.
    pub lab: String,
    /// Its own id, for people.
    pub node: String,
    /// The hash it was made with.
    pub spec_hash: String,
    /// Digest of the image it was made from.
    pub image_digest: String,
    /// Its first process.
    pub process: Process,
    /// Of a virtual machine that runs: what the network service has to know of it.
    #[serde(skip)]
    pub machine: Option<Machine>,
    /// It does not run and is out of the way: what takes its place can have its name.
    #[serde(default)]
    pub aside: bool,
    /// Which start this is; empty before the first.
    pub start_id: String,
    /// When its process started, in microseconds since 1970; 0 when it did not.
    pub started_us: i64,
    /// How long the process ran, when it has ended.
    pub ran: Duration,
    /// Management IPv4 address.
    pub mgmt_ipv4: String,
    /// Management IPv6 address.
    pub mgmt_ipv6: String,
    /// Names of the networks of its runtime that it is on.
    pub networks: BTreeSet<String>,
    /// What its health check says; empty without one or while it does not run.
    pub health: String,
    /// What keeps it from going on though it runs, and what to do; empty while nothing does.
    #[serde(default)]
    pub trouble: String,
    /// What it may use at most.
    pub limits: Limits,
    /// Its ports on the host.
    pub ports: Vec<PortMapping>,
    /// Which network namespace it was made to have.
    pub network: NetworkOf,
    /// Names the network namespace that its process is in, where that can be read.
    pub namespace: Option<u64>,
    /// All that is done once in a start was done before this one: it goes on from a memory.
    pub prepared: bool,
}

/// Which network namespace an instance was made to have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum NetworkOf {
    /// Its own.
    Own,
    /// The host's.
    Host,
    /// That of the instance with this id.
    Instance(String),
}

/// The first process of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Process {
    /// Never started.
    Created,
    /// Runs; its pid where the host can see it.
    Running {
        /// In the host's pid namespace.
        pid: Option<i32>,
    },
    /// Has ended.
    Ended {
        /// Its exit code.
        code: i32,
        /// What the runtime said about it.
        error: String,
    },
    /// The instance is being removed.
    Removing,
}

/// An instance in a list: enough to see whether it must be looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The container's or domain's own id.
    pub id: String,
    /// Its process runs.
    pub running: bool,
}

/// What a runtime said of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// What it runs.
    pub runtimes: Vec<Runtime>,
    /// For instance "Docker 20.10.24".
    pub version: String,
    /// What virtual machines run on; none where it runs none.
    pub acceleration: Option<Acceleration>,
}

/// What a store has of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Digest of its configuration.
    pub digest: String,
    /// Its format.
    pub format: ImageFormat,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Architecture.
    pub architecture: String,
}

/// Format of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageFormat {
    /// A Docker image.
    Docker,
    /// A disk for a virtual machine.
    Qcow2,
    /// A disk for a virtual machine, byte for byte.
    Raw,
}

/// What a process wrote, or that it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// To standard output, or to its terminal.
    Stdout(Bytes),
    /// To standard error.
    Stderr(Bytes),
    /// Its exit code; nothing follows.
    Exit(i32),
    /// It was never started; nothing follows.
    NotStarted(NotStarted),
}

/// Why a command was never started, and the exit code that a shell gives for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotStarted {
    /// 127 where there is no such command, 126 where it cannot be run.
    pub code: i32,
    /// Why, in words.
    pub why: String,
}

/// Which lines of a log are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lines {
    /// Goes on until the process ends.
    pub follow: bool,
    /// Only the last so many; 0 means all.
    pub tail: u32,
    /// Only those written after this, in nanoseconds since 1970; 0 means all.
    pub after_ns: i64,
}

/// Something that an instance wrote to its log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// When, in nanoseconds since 1970.
    pub at_ns: i64,
    /// What.
    pub output: Output,
}

/// What is handed to a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Bytes for its standard input.
    Data(Bytes),
    /// No more input.
    End,
    /// Its terminal has another size.
    Resize(Size),
}

/// Size of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Columns.
    pub columns: u16,
    /// Rows.
    pub rows: u16,
}

/// A command to run in an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// It and its arguments.
    pub argv: Vec<String>,
    /// Gives it a terminal.
    pub tty: bool,
    /// Its standard input is used.
    pub stdin: bool,
    /// The terminal's size.
    pub size: Option<Size>,
}

/// A running command. Dropping `output` ends the command.
pub struct Session {
    /// What it writes, ending with its exit code.
    pub output: BoxStream<'static, Result<Output, Error>>,
    /// What it is given.
    pub input: mpsc::Sender<Input>,
}

/// How one attaches to a console.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attach {
    /// Reads it.
    Read,
    /// Writes to it too, when nobody else does.
    Write,
    /// Writes to it from now on, whoever does.
    Take,
}

/// What a console tells who is attached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// It wrote this.
    Output(Bytes),
    /// Somebody else writes from now on.
    Taken,
    /// Its machine has ended; nothing follows.
    Ended,
}

/// A console that one is attached to.
pub struct Console {
    /// What it tells. One that is not read holds up nobody else.
    pub told: BoxStream<'static, Result<Told, Error>>,
    /// What is written to it; none when it is only read. Dropping it lets others write.
    pub input: Option<mpsc::Sender<Bytes>>,
}

/// A disk as it was once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Its id, unique for the instance.
    pub id: String,
    /// When it was taken, in nanoseconds since 1970.
    pub taken_ns: i64,
    /// Bytes that the disks had taken on the host by then, and those of the memory.
    pub size_bytes: u64,
    /// The machine ran, and its memory was kept with its disk.
    pub has_memory: bool,
}

/// A snapshot to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSnapshot {
    /// Its id.
    pub id: String,
    /// Names the request: one that is repeated answers with what it made; empty names none.
    pub request_id: String,
    /// All that is done once in a start was done in the one that runs.
    pub prepared: bool,
}

/// A file of a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskFile {
    /// Its name below the directory of its machine.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
}

/// Disks of instances as files, which go to other hosts. Nobody else works on the instance meanwhile.
pub trait Carries: Send + Sync {
    /// The files of the disk of a node that was wiped so often; none where there is none. [`Error::Busy`] while its machine runs, unless that does not matter.
    fn files(&self, node: NodeUid, wipes: u64, also_running: bool) -> Answer<'_, Vec<DiskFile>>;
    /// Begins to bring a disk, with nothing of an earlier try; false where the node has its disk.
    fn begin(&self, node: NodeUid) -> Answer<'_, bool>;
    /// Bytes that there is room for where disks are.
    fn room(&self) -> Answer<'_, u64>;
    /// Where a file of this name and so many bytes is to be written; refused where no disk has such a file.
    fn place(&self, node: NodeUid, name: &str, size_bytes: u64) -> Result<PathBuf, Error>;
    /// What was written is whole: it is the node's disk from now on.
    fn take(&self, node: NodeUid) -> Answer<'_, ()>;
    /// Removes what was brought of a node that was never made, or was to be; fine when there is nothing.
    fn forget(&self, node: NodeUid) -> Answer<'_, ()>;
}

/// So many instances are made, started or removed at once for each core, where a driver says nothing: Docker has enough to do then while others are being looked at.
const AT_ONCE_OF_CORE: usize = 4;
/// But no more than this: more was never tried.
const MOST_AT_ONCE: usize = 32;

fn at_once() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    (AT_ONCE_OF_CORE * cores).min(MOST_AT_ONCE)
}

/// Runs instances.
pub trait Driver: Send + Sync + 'static {
    /// True when this driver runs instances of this runtime.
    fn serves(&self, runtime: Runtime) -> bool;
    /// So many instances are made, started or removed at once: as many as is quickest.
    fn at_once(&self) -> usize {
        at_once()
    }
    /// Asks the runtime who it is: the proof that it works.
    fn probe(&self) -> Answer<'_, Probe>;
    /// Whether the runtime answers now. False where that cannot be asked for next to nothing: how fresh what is known of it is, only its list tells then.
    fn answers(&self) -> Answer<'_, bool> {
        async { Ok(false) }.boxed()
    }
    /// Ids of instances as they change, from now on. The stream ends when changes may have been missed.
    fn events(&self) -> Answer<'_, BoxStream<'static, String>>;
    /// Every instance that carries our owner.
    fn list(&self) -> Answer<'_, Vec<Listed>>;
    /// One instance; none when there is none of that id, or it is not ours.
    fn inspect<'a>(&'a self, id: &'a str) -> Answer<'a, Option<Found>>;
    /// Which of these instances could not be made once those of the leaving nodes are gone, and why. Changes nothing.
    fn check<'a>(
        &'a self,
        instances: &'a [Instance],
        leaving: &'a BTreeSet<NodeUid>,
    ) -> Answer<'a, Vec<(NodeUid, Error)>>;
    /// Makes an instance and answers its id. `shares` is the id of the instance whose network namespace it has.
    fn create<'a>(&'a self, instance: &'a Instance, shares: Option<&'a str>) -> Answer<'a, String>;
    /// Starts an instance.
    fn start<'a>(&'a self, id: &'a str, instance: &'a Instance) -> Answer<'a, ()>;
    /// Brings what may change while an instance lives up to date, limits only where those it `has` are others.
    fn refresh<'a>(&'a self, id: &'a str, instance: &'a Instance, has: &'a Limits) -> Answer<'a, ()>;
    /// Stops an instance, keeping its disk.
    fn stop<'a>(&'a self, id: &'a str) -> Answer<'a, ()>;
    /// The same, without the time that it is given to end by itself where there is such a time.
    fn halt<'a>(&'a self, id: &'a str) -> Answer<'a, ()> {
        self.stop(id)
    }
    /// Stops an instance and takes it out of the way, keeping its disk: its name, host ports, addresses and network namespace are free for another one. That it is so
    /// is to be found by every later look ([`Found::aside`]), whatever was started anew since. Done in part before, it is done to the end.
    fn set_aside<'a>(&'a self, id: &'a str, instance: &'a Instance) -> Answer<'a, ()>;
    /// Gives an instance that was set aside its place again; it is not started by that. What has its place by then is an error that passes when it is ours.
    fn bring_back<'a>(&'a self, id: &'a str, instance: &'a Instance) -> Answer<'a, ()>;
    /// Removes an instance at once; fine when there is none. When it answers, there is none any more.
    fn remove<'a>(&'a self, id: &'a str) -> Answer<'a, ()>;
    /// Removes what a node has besides its instance, for instance volumes of its own.
    fn remove_node(&self, node: NodeUid) -> Answer<'_, ()>;
    /// Removes what a lab has besides its instances, for instance its management network and volumes.
    fn remove_lab(&self, lab: LabUid) -> Answer<'_, ()>;
    /// Runs a command in an instance. What is asked of the instance says how, where that is not all the same; none where it is not known.
    fn exec<'a>(
        &'a self,
        id: &'a str,
        instance: Option<&'a Instance>,
        command: Command,
    ) -> Answer<'a, Session>;
    /// True as long as a person types at its console, and nothing else can be typed there therefore.
    fn console_held(&self, _id: &str) -> bool {
        false
    }
    /// Gives an instance that has booted the configuration that it could not be given before. Fine when there is none.
    fn configure<'a>(&'a self, _id: &'a str, _instance: &'a Instance) -> Answer<'a, ()> {
        async { Ok(()) }.boxed()
    }
    /// Attaches to the console of an instance, where it has one.
    fn console<'a>(&'a self, _: &'a str, _: Attach) -> Answer<'a, Console> {
        let message = "a container has no console: netloom shell opens a terminal in it".to_owned();
        async { Err(Error::NoConsole(message)) }.boxed()
    }
    /// The snapshots of an instance, where its disk can be kept as it is.
    fn snapshots<'a>(&'a self, _: &'a str) -> Answer<'a, Vec<Snapshot>> {
        no_snapshots()
    }
    /// Keeps the disk of an instance as it is now, with its memory when it runs. Nobody else works on it meanwhile.
    fn take_snapshot<'a>(&'a self, _: &'a str, _new: &'a NewSnapshot) -> Answer<'a, Snapshot> {
        no_snapshots()
    }
    /// Forgets a snapshot. Nobody else works on the instance meanwhile.
    fn delete_snapshot<'a>(&'a self, _: &'a str, _name: &'a str) -> Answer<'a, ()> {
        no_snapshots()
    }
    /// What brings disks of instances from other hosts, and gives them; none where they are no files of their own.
    fn carries(&self) -> Option<&dyn Carries> {
        None
    }
    /// What an instance wrote, over all its starts. Following ends with its process.
    fn logs<'a>(&'a self, id: &'a str, which: Lines) -> Answer<'a, BoxStream<'static, Result<Line, Error>>>;
    /// What the store has of an image.
    fn image<'a>(&'a self, reference: &'a str, runtime: Runtime) -> Answer<'a, Option<Image>>;
    /// Fetches an image, telling its progress in words.
    fn pull<'a>(&'a self, reference: &'a str) -> Answer<'a, BoxStream<'static, Result<String, Error>>>;
    /// Takes an archive of container images into the runtime's own store, for the sake of this reference; true when that means what came, as the runtime says.
    fn load<'a>(&'a self, reference: &'a str, archive: &'a Path) -> Answer<'a, bool> {
        async move {
            Err(Error::Refused(format!("image {reference}: this runtime takes no {}", archive.display())))
        }
        .boxed()
    }
    /// Sees to it that a reference means one of these images, where the runtime's own store has it; false where it does not.
    fn adopt<'a>(&'a self, _reference: &'a str, _image_ids: &'a [String]) -> Answer<'a, bool> {
        async { Ok(false) }.boxed()
    }
}

fn no_snapshots<'a, T: Send + 'a>() -> Answer<'a, T> {
    let message = "only the disk of a virtual machine can be kept as it is: what a container writes is in layers that its runtime shares with others; docker commit makes an image of it";
    async move { Err(Error::NoSnapshots(message.to_owned())) }.boxed()
}

#[cfg(test)]
pub(crate) mod testing {
    //! An instance and what exists of it, for tests of pure functions.

    use super::*;
    use netloom_model::spec::NodeSpec;
    use netloom_model::state::Wanted;

    pub(crate) fn instance() -> Instance {
        Instance {
            uid: "0192f0c1-2345-7000-8000-000000000001".parse().unwrap(),
            lab_uid: "0192f0c1-2345-7000-8000-0000000000aa".parse().unwrap(),
            lab: "x".parse().unwrap(),
            name: "netloom-x-r1".into(),
            spec: NodeSpec {
                id: "r1".into(),
                kind: "linux".into(),
                image: "i:1".into(),
                ..NodeSpec::default()
            }
            .into(),
            runtime: Runtime::Docker,
            wanted: Wanted::Running,
            interfaces: Vec::new(),
            nics: Vec::new(),
            network: None,
            files: Vec::new(),
            host_entries: Vec::new().into(),
            spec_hash: "h".into(),
            restarts: 0,
            held: false,
            certificate: None,
            network_of: None,
            readiness: None,
            image_digest: String::new(),
            wipes: 0,
            restore: String::new(),
            lease: None,
            disk_of: None,
        }
    }

    pub(crate) fn found() -> Found {
        let i = instance();
        Found {
            id: "c1".into(),
            uid: i.uid,
            lab_uid: i.lab_uid,
            lab: i.lab.to_string(),
            node: i.spec.id.clone(),
            spec_hash: i.spec_hash,
            image_digest: String::new(),
            process: Process::Running { pid: None },
            machine: None,
            aside: false,
            start_id: "1".into(),
            started_us: 1,
            ran: Duration::ZERO,
            mgmt_ipv4: String::new(),
            mgmt_ipv6: String::new(),
            networks: BTreeSet::new(),
            health: String::new(),
            trouble: String::new(),
            limits: Limits::default(),
            ports: Vec::new(),
            network: NetworkOf::Own,
            namespace: None,
            prepared: false,
        }
    }
}
