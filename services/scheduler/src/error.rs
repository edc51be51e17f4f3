//! What can go wrong in the scheduler.

use netloom_model::{Code, Failure};
use thiserror::Error;

/// An error of the scheduler.
#[derive(Debug, Error)]
pub enum Error {
    /// The request cannot be done, and this is what its caller is told.
    #[error("{0}")]
    Refused(Box<Failure>),
    /// Another service does not answer, or refused.
    #[error("{service} of host {host} said: {failure}")]
    Host {
        /// "compute" or "network".
        service: &'static str,
        /// The host's id.
        host: String,
        /// What it said.
        failure: Box<Failure>,
    },
    /// The image registry does not answer, or refused.
    #[error("the image registry said: {0}")]
    Registry(Box<Failure>),
    /// The database.
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
    /// Another scheduler leads on the database.
    #[error("another scheduler leads on this database now: what was asked for was not done by this one")]
    Deposed,
    /// Another write reserved on a host, or changed what it offers, since this one looked at it: what was computed from that is not written.
    #[error(
        "what host {host} has was given to others, or is not there any more, since it was looked at; try again"
    )]
    Overtaken {
        /// The host's id.
        host: String,
    },
    /// Another one leads, and this one is asked.
    #[error(
        "this scheduler stands by, for another one leads: ask that one, or write both into `scheduler` of [endpoints]"
    )]
    StandsBy,
    /// The database's schema could not be brought up to date.
    #[error("the database's schema could not be brought up to date")]
    Schema(#[from] sqlx::migrate::MigrateError),
    /// A row holds what this version does not understand.
    #[error(
        "column {column} holds \"{value}\", which is not understood: was the database written by a newer version?"
    )]
    Row {
        /// Table and column.
        column: &'static str,
        /// What it holds.
        value: String,
    },
}

/// A result of the scheduler.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// The failure that another service answered with.
    pub fn peer(&self) -> Option<&Failure> {
        match self {
            Error::Host { failure, .. } | Error::Registry(failure) => Some(failure),
            _ => None,
        }
    }

    /// What a host's service said when it will not take what it was told, however often it is told again.
    pub fn refused_for_good(&self) -> Option<&Failure> {
        self.peer().filter(|f| matches!(f.code, Code::InvalidArgument | Code::OutOfRange))
    }

    /// True when another service refused with this reason.
    pub fn is_of(&self, reason: &str) -> bool {
        self.peer().is_some_and(|f| f.reason == reason)
    }

    /// True when it was refused here with this reason.
    pub fn is_refused_for(&self, reason: &str) -> bool {
        matches!(self, Error::Refused(failure) if failure.reason == reason)
    }

    /// True when a host does not answer, or is not there any more: another one may.
    pub fn is_silent_host(&self) -> bool {
        matches!(self, Error::Host { .. }) && self.is_unreachable() || self.is_refused_for("HOST_UNAVAILABLE")
    }

    /// True when another service could not be reached at all, so that the same call may succeed later.
    pub fn is_unreachable(&self) -> bool {
        self.peer().is_some_and(|f| f.is_retryable() && f.reason != "PULL_FAILED")
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Error {
        Error::Refused(Box::new(failure))
    }
}

impl From<Error> for Failure {
    fn from(e: Error) -> Failure {
        let unreachable = e.is_unreachable();
        let message = e.to_string();
        match e {
            Error::Refused(failure) => *failure,
            Error::Host { service, host, .. } if unreachable => Failure::new(
                Code::Unavailable,
                "HOST_UNAVAILABLE",
                format!(
                    "{message}. Check that netloom's {service} service runs on host {host}, then try again"
                ),
            )
            .with("host", host)
            .with("service", service),
            Error::Registry(_) if unreachable => Failure::new(
                Code::Unavailable,
                "IMAGE_REGISTRY_UNAVAILABLE",
                format!("{message}. Check that netloom's image registry runs, then try again"),
            ),
            Error::Host { failure, .. } | Error::Registry(failure) => Failure { message, ..*failure },
            Error::Database(source) if is_full(&source) => {
                tracing::error!(error = &source as &dyn std::error::Error, "the database's disk is full");
                let message = "the disk that the scheduler's database is on is full, so nothing was changed: make room on it (the disk of `data_dir`), then try again";
                Failure::new(Code::ResourceExhausted, "DISK_FULL", message)
            }
            Error::Database(source) => {
                tracing::error!(error = &source as &dyn std::error::Error, "the database failed");
                Failure::internal("the scheduler's database failed; its log says how")
            }
            Error::Deposed | Error::StandsBy => Failure::new(Code::Unavailable, "NOT_THE_LEADER", message),
            Error::Overtaken { host } => {
                Failure::new(Code::Aborted, "PLAN_OVERTAKEN", message).with("host", host)
            }
            Error::Schema(source) => {
                tracing::error!(error = &source as &dyn std::error::Error, "the schema failed");
                Failure::internal(message)
            }
            Error::Row { .. } => {
                tracing::error!("{message}");
                Failure::internal(message)
            }
        }
    }
}

/// SQLITE_FULL, or PostgreSQL's disk_full.
fn is_full(e: &sqlx::Error) -> bool {
    e.as_database_error().and_then(|e| e.code()).is_some_and(|code| code == "13" || code == "53100")
}
