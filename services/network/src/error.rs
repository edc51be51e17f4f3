//! What can go wrong at the service's edge. What goes wrong with a single NIC or wire is told in its observed state instead.

use std::io;

use netloom_model::failure::{Code, Failure, Violation};
use netloom_model::id::WireId;
use netloom_service::fence::FenceError;
use netloom_service::order::Overtaken;
use netloom_service::ticket::TicketError;

/// Why a call was refused or the service cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration is wrong.
    #[error("{0}")]
    Config(String),
    /// The caller no longer leads, or it cannot be kept who does.
    #[error(transparent)]
    Fence(#[from] FenceError),
    /// The call was decided before one that passed already.
    #[error(transparent)]
    Overtaken(#[from] Overtaken),
    /// Fields of a request are wrong.
    #[error("the request is wrong: see its fields")]
    Invalid(Vec<Violation>),
    /// The ticket does not open what is asked for.
    #[error(transparent)]
    Ticket(#[from] TicketError),
    /// A filter cannot be compiled.
    #[error("the filter \"{text}\" is wrong: {words}; see pcap-filter(7)")]
    Filter {
        /// The filter.
        text: String,
        /// What libpcap said.
        words: String,
    },
    /// There is no such NIC on this host.
    #[error("there is no NIC {0} on this host any more: look at the lab's links and ask again")]
    NoNic(WireId),
    /// There is no such capture on this host.
    #[error("no capture \"{0}\" runs on this host: it has ended")]
    NoCapture(String),
    /// The kernel does not give what this service stands on.
    #[error("{what}: run as root, or with CAP_NET_ADMIN, CAP_NET_BROADCAST and CAP_SYS_ADMIN")]
    Kernel {
        /// What could not be done.
        what: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A task that the loop stands on ended: what it told last would be taken for true for ever.
    #[error(
        "the task that {0} ended before the service did: the log before this says why; start the service again"
    )]
    Ended(&'static str),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let message = error.to_string();
        match error {
            Error::Fence(fence) => fence.into(),
            Error::Overtaken(_) => Failure::new(Code::Aborted, "OVERTAKEN", message),
            Error::Invalid(violations) => Failure::invalid(message, violations),
            Error::Ticket(ticket) => ticket.into(),
            Error::Filter { words, .. } => {
                Failure::new(Code::InvalidArgument, "FILTER_INVALID", message).violation("filter", words)
            }
            Error::NoNic(wire) => {
                Failure::new(Code::NotFound, "NIC_NOT_FOUND", message).with("nic", wire.to_string())
            }
            Error::NoCapture(id) => {
                Failure::new(Code::NotFound, "CAPTURE_NOT_FOUND", message).with("capture", id)
            }
            Error::Config(_) | Error::Kernel { .. } | Error::Ended(_) => Failure::internal(message),
        }
    }
}
