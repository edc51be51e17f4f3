//! What can go wrong in the gateway itself. What goes wrong behind it passes through unchanged.

use netloom_model::failure::{Code, Failure, Violation};
use netloom_proto::convert::ConvertError;
use netloom_service::status::{cause, from_status, to_status};
use tonic::Status;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A field of the request is wrong.
    #[error("{field}: {what}")]
    Field {
        /// Path of the field.
        field: String,
        /// What is wrong with it and what would be right.
        what: String,
    },
    /// A page token that was not given out for this list.
    #[error(
        "this page token was not given out for this list: begin again without one, or pass next_page_token unchanged"
    )]
    PageToken,
    /// An etag that is not the lab's current one.
    #[error("lab {0} was changed meanwhile: its etag is another; read it again and decide anew")]
    Etag(String),
    /// A topology file with errors in it.
    #[error("{}", topology_message(.0))]
    Topology(Vec<Violation>),
    /// There is no such kind.
    #[error("there is no kind \"{0}\"; \"netloom kinds list\" shows those there are")]
    NoKind(String),
    /// A service behind the gateway answered with a failure.
    #[error(transparent)]
    Behind(Failure),
    /// A service behind the gateway cannot be reached.
    #[error("{service} does not answer: {}. See whether it runs, and what its log says", cause(source))]
    Unreachable {
        /// Which one, and where.
        service: String,
        /// What the connection said.
        #[source]
        source: Status,
    },
    /// A service behind the gateway ended a stream that has no end.
    #[error("{0} ended the stream; ask again")]
    Ended(String),
    /// A service behind the gateway said something that means nothing.
    #[error("{service} sent facts that cannot be shown; its log and the gateway's say more")]
    Facts {
        /// Which one.
        service: &'static str,
        /// What it was.
        #[source]
        source: ConvertError,
    },
    /// A node has no snapshot of that name.
    #[error("node {node} has no snapshot {snapshot}; netloom node snapshot list shows those that it has")]
    NoSnapshot {
        /// The node.
        node: String,
        /// The snapshot's id.
        snapshot: String,
    },
    /// A node of a kind that has no way to tell its configuration.
    #[error(
        "node {0} is of a kind that has no command that prints its configuration: say save-file in the topology file, which file of it that is, or read any by netloom exec"
    )]
    NoConfig(String),
    /// A node that did not tell its configuration.
    #[error("node {node} did not tell its configuration: {why}")]
    ConfigFailed {
        /// Which.
        node: String,
        /// Why, with what it said.
        why: String,
    },
    /// The gateway ends.
    #[error("the gateway is shutting down; ask again")]
    ShuttingDown,
    /// A computation ended in a panic.
    #[error("{0} ended without an answer; see the gateway's log")]
    Lost(&'static str),
}

impl Error {
    /// A wrong field.
    pub fn field(field: impl Into<String>, what: impl Into<String>) -> Error {
        Error::Field { field: field.into(), what: what.into() }
    }

    /// What a failed call to a service means. A status that has a source was made on this side: the service did not answer.
    pub fn behind(service: &str, status: Status) -> Error {
        if std::error::Error::source(&status).is_some() {
            Error::Unreachable { service: service.to_owned(), source: status }
        } else {
            Error::Behind(from_status(&status))
        }
    }

    /// The scheduler's answer lacks what it must have.
    pub fn missing(field: &str) -> Error {
        let source = ConvertError { field: field.to_owned(), what: "is not set".to_owned() };
        Error::Facts { service: "the scheduler", source }
    }

    /// True for what is over when the scheduler runs again, or another one leads.
    pub fn is_passing(&self) -> bool {
        match self {
            Error::Unreachable { .. } | Error::Ended(_) => true,
            Error::Behind(failure) => failure.reason == "NOT_THE_LEADER",
            _ => false,
        }
    }

    /// True when what was asked for does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Error::Behind(f) if f.code == Code::NotFound)
    }
}

fn topology_message(violations: &[Violation]) -> String {
    match violations {
        [one] => format!("the topology file has an error: {}: {}", one.field, one.description),
        all => format!("the topology file has {} errors", all.len()),
    }
}

impl From<Error> for Failure {
    fn from(e: Error) -> Failure {
        let message = e.to_string();
        match e {
            Error::Field { field, what } => {
                Failure::invalid(message, vec![Violation { field, description: what }])
            }
            Error::PageToken => Failure::new(Code::InvalidArgument, "PAGE_TOKEN_INVALID", message)
                .violation("page_token", "was not given out for this list"),
            Error::Etag(lab) => Failure::new(Code::Aborted, "ETAG_MISMATCH", message).with("lab", lab),
            Error::Topology(violations) => {
                Failure { violations, ..Failure::new(Code::InvalidArgument, "TOPOLOGY_INVALID", message) }
            }
            Error::NoKind(kind) => Failure::new(Code::NotFound, "KIND_NOT_FOUND", message).with("kind", kind),
            Error::Behind(failure) => failure,
            Error::Unreachable { service, source } => {
                tracing::warn!(%service, error = %source, "a service does not answer");
                Failure::new(Code::Unavailable, "SERVICE_UNREACHABLE", message).with("service", service)
            }
            Error::Ended(service) => {
                Failure::new(Code::Unavailable, "STREAM_ENDED", message).with("service", service)
            }
            Error::NoSnapshot { .. } => Failure::new(Code::NotFound, "SNAPSHOT_NOT_FOUND", message),
            Error::NoConfig(node) => {
                Failure::new(Code::FailedPrecondition, "CONFIG_NOT_SUPPORTED", message).with("node", node)
            }
            Error::ConfigFailed { node, .. } => {
                Failure::new(Code::FailedPrecondition, "CONFIG_FAILED", message).with("node", node)
            }
            Error::ShuttingDown => Failure::new(Code::Unavailable, "SHUTTING_DOWN", message),
            Error::Facts { service, source } => {
                tracing::error!(service, error = %source, "a service sent facts that cannot be shown");
                Failure::internal(message)
            }
            Error::Lost(_) => Failure::internal(message),
        }
    }
}

impl From<Error> for Status {
    fn from(e: Error) -> Status {
        to_status(e.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_from_behind_is_not_changed() {
        let failure =
            Failure::new(Code::FailedPrecondition, "OPERATION_ACTIVE", "busy").with("operation", "x");
        let passed = Error::behind("the scheduler", to_status(failure.clone()));
        assert_eq!(Failure::from(passed), failure);
    }
}
