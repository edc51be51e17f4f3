//! What runs instances. A driver makes, starts, stops and removes one instance at a time, says what exists, and tells when something changes; what is to be done, and when, is
//! decided above it. A second driver (libvirt) is this trait over another library; `tests/` holds the suite that each passes.

pub mod docker;
pub mod sim;

use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use netloom_model::id::{LabUid, NodeUid};
use netloom_model::slice::Instance;
use netloom_model::state::Runtime;
use tokio::sync::mpsc;

use crate::error::Error;

/// What a driver answers.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, Error>>;

/// An instance that exists and carries our owner.
#[derive(Debug, Clone, PartialEq)]
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
}

/// The first process of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
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

/// Runs instances.
pub trait Driver: Send + Sync + 'static {
    /// True when this driver runs instances of this runtime.
    fn serves(&self, runtime: Runtime) -> bool;
    /// Asks the runtime who it is: the proof that it works.
    fn probe(&self) -> Answer<'_, Probe>;
    /// Ids of instances as they change, from now on. The stream ends when changes may have been missed.
    fn events(&self) -> Answer<'_, BoxStream<'static, String>>;
    /// Every instance that carries our owner.
    fn list(&self) -> Answer<'_, Vec<Listed>>;
    /// One instance; none when there is none of that id, or it is not ours.
    fn inspect<'a>(&'a self, id: &'a str) -> Answer<'a, Option<Found>>;
    /// Makes an instance and answers its id.
    fn create<'a>(&'a self, instance: &'a Instance) -> Answer<'a, String>;
    /// Starts an instance.
    fn start<'a>(&'a self, id: &'a str, instance: &'a Instance) -> Answer<'a, ()>;
    /// Brings what may change while an instance lives up to date.
    fn refresh<'a>(&'a self, instance: &'a Instance) -> Answer<'a, ()>;
    /// Stops an instance, keeping its disk.
    fn stop<'a>(&'a self, id: &'a str) -> Answer<'a, ()>;
    /// Removes an instance at once; fine when there is none.
    fn remove<'a>(&'a self, id: &'a str) -> Answer<'a, ()>;
    /// Removes what a lab has besides its instances, for instance its management network.
    fn remove_lab(&self, lab: LabUid) -> Answer<'_, ()>;
    /// Runs a command in an instance.
    fn exec<'a>(&'a self, id: &'a str, command: Command) -> Answer<'a, Session>;
    /// What an instance wrote; `tail` 0 means all of it.
    fn logs<'a>(
        &'a self,
        id: &'a str,
        follow: bool,
        tail: u32,
    ) -> Answer<'a, BoxStream<'static, Result<Output, Error>>>;
    /// What the store has of an image.
    fn image<'a>(&'a self, reference: &'a str, runtime: Runtime) -> Answer<'a, Option<Image>>;
    /// Fetches an image, telling its progress in words.
    fn pull<'a>(&'a self, reference: &'a str) -> Answer<'a, BoxStream<'static, Result<String, Error>>>;
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
            },
            runtime: Runtime::Docker,
            wanted: Wanted::Running,
            interfaces: Vec::new(),
            network: None,
            files: Vec::new(),
            host_entries: Vec::new(),
            spec_hash: "h".into(),
            restarts: 0,
            held: false,
            certificate: None,
            network_of: None,
        }
    }

    pub(crate) fn found() -> Found {
        let i = instance();
        Found {
            id: "c1".into(),
            uid: i.uid,
            lab_uid: i.lab_uid,
            lab: i.lab.to_string(),
            node: i.spec.id,
            spec_hash: i.spec_hash,
            image_digest: String::new(),
            process: Process::Running { pid: None },
            start_id: "1".into(),
            started_us: 1,
            ran: Duration::ZERO,
            mgmt_ipv4: String::new(),
            mgmt_ipv6: String::new(),
        }
    }
}
