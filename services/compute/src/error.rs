//! What can go wrong here, and what each kind is on the wire.

use std::any::Any;
use std::fmt::Display;
use std::io;

use netloom_model::id::Digest;
use netloom_model::spec::PortMapping;
use netloom_model::{Code, Failure};
use netloom_proto::convert::ConvertError;
use netloom_service::fence::FenceError;
use netloom_service::order::Overtaken;
use netloom_service::ticket::TicketError;
use nix::errno::Errno;

/// An error of the compute service.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A call of a leader that has been replaced, or the term cannot be kept.
    #[error(transparent)]
    Fence(#[from] FenceError),
    /// Something is to be removed before the first Sync.
    #[error("this host has not been told what it is to run since it started; send Sync first")]
    NotSynced,
    /// It was said before something that this host was told since, or that its leases were lost.
    #[error("{Overtaken}")]
    Overtaken,
    /// The runtime does not answer, or this service has no descriptor left to ask with.
    #[error("{0}")]
    Unavailable(String),
    /// Too much waits for the runtime already.
    #[error("{0}")]
    Overloaded(String),
    /// A file system cannot do what disks of virtual machines need.
    #[error("{0}")]
    NoDirectIo(String),
    /// The runtime refused.
    #[error("{0}")]
    Refused(String),
    /// The host's configuration does not allow it.
    #[error("{message}")]
    NotAllowed {
        /// The reason, as the scheduler says it when it places nodes.
        reason: &'static str,
        /// What, and what to do.
        message: String,
    },
    /// A port of the host is somebody else's.
    #[error("{0}")]
    PortTaken(String),
    /// The addresses of a management network are somebody else's.
    #[error("{0}")]
    SubnetTaken(String),
    /// Something that is not ours is in the way.
    #[error("{0}")]
    Foreign(String),
    /// An earlier thing of ours is still in the way; it goes by itself.
    #[error("{0}")]
    Busy(String),
    /// The image is not in the host's store.
    #[error("image \"{0}\" is not on this host: pull it, or build it here under this name")]
    ImageMissing(String),
    /// What a container was to be made from, or what a machine's disk lies on, is gone from the host, or was set aside; begins with [`NEEDS_IMAGE`](netloom_model::observed::NEEDS_IMAGE).
    #[error("{0}")]
    ImageLost(String),
    /// The registry did not give the image.
    #[error("image \"{reference}\" cannot be pulled: {message}")]
    PullFailed {
        /// The image.
        reference: String,
        /// What was answered.
        message: String,
    },
    /// The image registry does not answer.
    #[error("{0}")]
    NoRegistry(String),
    /// What the image registry said.
    #[error("{}", .0.message)]
    Registry(Box<Failure>),
    /// Bytes of an image that are not the ones that were meant.
    #[error(
        "the bytes that came of image {0} are others than its digest says; look at it with `netloom image inspect --verify`, and push it again"
    )]
    WrongBytes(Digest),
    /// There is no room for an image.
    #[error("{0}")]
    DiskFull(String),
    /// What it is for was removed.
    #[error("{0}")]
    Gone(String),
    /// No such instance runs here.
    #[error("node {0} does not run on this host")]
    NotRunning(String),
    /// It has no console that one can attach to.
    #[error("{0}")]
    NoConsole(String),
    /// Somebody else writes to its console.
    #[error(
        "somebody else writes to the console of {0}: read it only, or take it over (--read-only, --take)"
    )]
    ConsoleInUse(String),
    /// What was to be typed at its console could not be, or its end was not seen.
    #[error("{0}")]
    ConsoleFailed(String),
    /// Nothing can be run in it from outside.
    #[error("{0}")]
    NoExec(String),
    /// Its disk cannot be kept as it is.
    #[error("{0}")]
    NoSnapshots(String),
    /// There is no such snapshot.
    #[error("node {node} has no snapshot {snapshot}; see netloom node snapshot list")]
    NoSnapshot {
        /// The node.
        node: String,
        /// The snapshot's id.
        snapshot: String,
    },
    /// There is one of that name already.
    #[error("node {node} has a snapshot {snapshot} already: delete it, or give the new one another name")]
    SnapshotExists {
        /// The node.
        node: String,
        /// The snapshot's id.
        snapshot: String,
    },
    /// What runs it keeps no disk that could go elsewhere.
    #[error("{0}")]
    NoDisks(String),
    /// It is to be made on a disk that was brought here, and that is not here.
    #[error("{0}")]
    NoDisk(String),
    /// Not all of a disk came, or other bytes than were read.
    #[error("{0}")]
    CutOff(String),
    /// A request that makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// The ticket does not open this.
    #[error(transparent)]
    Ticket(#[from] TicketError),
    /// The host itself failed.
    #[error("{0}")]
    Host(String),
}

impl Error {
    /// A port of the host that somebody else has.
    pub fn port_taken(port: &PortMapping, who: &str) -> Error {
        let protocol = if port.protocol.is_empty() { "tcp" } else { &port.protocol };
        Error::PortTaken(format!(
            "host port {}/{protocol} is taken: {who}; give the node another host port, or free this one",
            port.host_port
        ))
    }

    /// A failed system call, with what was being done. That there are no descriptors left is over when others are done: it is no failure of what was being done.
    pub fn host(doing: impl Display, e: impl Display + 'static) -> Error {
        let message = format!("{doing}: {e}");
        let e: &dyn Any = &e;
        let errno = e.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error).map(Errno::from_raw);
        match errno.as_ref().or(e.downcast_ref::<Errno>()) {
            Some(Errno::EMFILE | Errno::ENFILE) => Error::Unavailable(message),
            _ => Error::Host(message),
        }
    }
}

impl From<Overtaken> for Error {
    fn from(_: Overtaken) -> Error {
        Error::Overtaken
    }
}

impl From<ConvertError> for Error {
    fn from(e: ConvertError) -> Error {
        Error::Invalid(e.to_string())
    }
}

impl From<Error> for Failure {
    fn from(e: Error) -> Failure {
        let message = e.to_string();
        let (code, reason) = match e {
            Error::Fence(e) => return e.into(),
            Error::NotSynced => (Code::FailedPrecondition, "NOT_SYNCED"),
            Error::Overtaken => (Code::Aborted, "OVERTAKEN"),
            Error::Unavailable(_) => (Code::Unavailable, "RUNTIME_UNREACHABLE"),
            Error::Overloaded(_) => (Code::ResourceExhausted, "RUNTIME_OVERLOADED"),
            Error::NoDirectIo(_) => (Code::FailedPrecondition, "NO_DIRECT_IO"),
            Error::Refused(_) => (Code::FailedPrecondition, "RUNTIME_REFUSED"),
            Error::NotAllowed { reason, .. } => (Code::FailedPrecondition, reason),
            Error::PortTaken(_) => (Code::FailedPrecondition, "HOST_PORT_TAKEN"),
            Error::SubnetTaken(_) => (Code::FailedPrecondition, "SUBNET_TAKEN"),
            Error::Foreign(_) => (Code::FailedPrecondition, "NAME_TAKEN"),
            Error::Busy(_) => (Code::Aborted, "BUSY"),
            Error::ImageMissing(_) | Error::ImageLost(_) => (Code::NotFound, "IMAGE_NOT_FOUND"),
            Error::PullFailed { .. } => (Code::Unavailable, "PULL_FAILED"),
            Error::NoRegistry(_) => (Code::Unavailable, "IMAGE_REGISTRY_UNAVAILABLE"),
            Error::Registry(failure) => return *failure,
            Error::WrongBytes(_) => (Code::InvalidArgument, "DIGEST_MISMATCH"),
            Error::DiskFull(_) => (Code::ResourceExhausted, "DISK_FULL"),
            Error::NotRunning(_) => (Code::FailedPrecondition, "NODE_NOT_RUNNING"),
            Error::NoConsole(_) => (Code::FailedPrecondition, "CONSOLE_NOT_SUPPORTED"),
            Error::ConsoleInUse(_) => (Code::FailedPrecondition, "CONSOLE_IN_USE"),
            Error::NoSnapshots(_) => (Code::FailedPrecondition, "SNAPSHOT_NOT_SUPPORTED"),
            Error::NoSnapshot { .. } => (Code::NotFound, "SNAPSHOT_NOT_FOUND"),
            Error::SnapshotExists { .. } => (Code::AlreadyExists, "SNAPSHOT_EXISTS"),
            Error::ConsoleFailed(_) => (Code::FailedPrecondition, "CONSOLE_FAILED"),
            Error::NoExec(_) => (Code::FailedPrecondition, "EXEC_NOT_SUPPORTED"),
            Error::NoDisks(_) => (Code::FailedPrecondition, "DISK_NOT_SUPPORTED"),
            Error::NoDisk(_) => (Code::FailedPrecondition, "DISK_NOT_HERE"),
            Error::CutOff(_) => (Code::Unavailable, "DISK_CUT_OFF"),
            Error::Gone(_) => (Code::FailedPrecondition, "LAB_REMOVED"),
            Error::Invalid(_) => (Code::InvalidArgument, "INVALID_REQUEST"),
            Error::Ticket(e) => return e.into(),
            Error::Host(_) => (Code::Internal, "HOST_ERROR"),
        };
        Failure::new(code, reason, message)
    }
}

impl From<Error> for tonic::Status {
    fn from(e: Error) -> tonic::Status {
        netloom_service::status::to_status(e.into())
    }
}
