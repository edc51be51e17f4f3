//! What can go wrong at the service's edge. What goes wrong with a single NIC or wire is told in its observed state instead.

use std::io;

use netloom_model::failure::{Code, Failure, Violation};

/// Why a call was refused or the service cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration is wrong.
    #[error("{0}")]
    Config(String),
    /// A caller that no longer leads.
    #[error("term {given} is over: this host follows term {seen}; ask the scheduler that leads now")]
    StaleTerm {
        /// The term of the call.
        given: u64,
        /// The highest term this host saw.
        seen: u64,
    },
    /// Fields of a request are wrong.
    #[error("the request is wrong in {} field(s)", .0.len())]
    Invalid(Vec<Violation>),
    /// The term cannot be kept over a restart.
    #[error("the fencing term cannot be kept: make the data directory writable")]
    Term(#[source] io::Error),
    /// The kernel does not give what this service stands on.
    #[error("{what}: run as root, or with CAP_NET_ADMIN and CAP_SYS_ADMIN")]
    Kernel {
        /// What could not be done.
        what: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let message = error.to_string();
        match error {
            Error::StaleTerm { given, seen } => Failure::new(Code::FailedPrecondition, "STALE_TERM", message)
                .with("given", given.to_string())
                .with("seen", seen.to_string()),
            Error::Invalid(violations) => Failure::invalid(message, violations),
            Error::Term(source) => {
                Failure::new(Code::Unavailable, "TERM_NOT_KEPT", format!("{message} ({source})"))
            }
            Error::Config(_) | Error::Kernel { .. } => Failure::internal(message),
        }
    }
}
