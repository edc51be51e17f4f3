//! What a command can end with other than well, and the exit code of each. Documented in `docs/cli.md` and in `netloom --help`.

use netloom_model::{Code, Failure};
use netloom_service::status::{from_status, is_lost};
use tonic::Status;

use crate::output::style::one_line;

/// Why a command did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line asks for something that makes no sense.
    #[error("{0}")]
    Usage(String),
    /// No server answers.
    #[error("{0}")]
    Unreachable(String),
    /// The server refused.
    #[error("{0}")]
    Refused(Box<Failure>),
    /// A file that cannot be used.
    #[error("{0}")]
    Invalid(String),
    /// It was tried and did not work.
    #[error("{0}")]
    Failed(String),
    /// Standard output, a terminal or a file failed.
    #[error("{what}")]
    Io {
        /// What was being done.
        what: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The user interrupted; the text says what goes on without them.
    #[error("{0}")]
    Interrupted(String),
}

impl Error {
    /// An error of the system's while something was being done.
    pub fn io(what: impl Into<String>, source: std::io::Error) -> Error {
        Error::Io { what: what.into(), source }
    }

    /// What a call or a stream ended with, where a server that went away is told in words.
    pub fn gone(status: Status) -> Error {
        if is_lost(&status) && status.details().is_empty() {
            Error::Unreachable(format!(
                "the server went away: {}\nnetloom doctor says whether it is back",
                one_line(status.message())
            ))
        } else {
            status.into()
        }
    }

    /// The exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Usage(_) => 2,
            Error::Unreachable(_) => 3,
            Error::Refused(failure) => match failure.code {
                Code::Unavailable => 3,
                Code::NotFound => 4,
                Code::InvalidArgument | Code::OutOfRange => 5,
                _ => 1,
            },
            Error::Invalid(_) => 5,
            Error::Failed(_) | Error::Io { .. } => 1,
            Error::Interrupted(_) => 130,
        }
    }

    /// True when whoever reads standard output went away, as `head` does: not worth a word.
    pub fn is_broken_pipe(&self) -> bool {
        matches!(self, Error::Io { source, .. } if source.kind() == std::io::ErrorKind::BrokenPipe)
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Error {
        Error::Refused(Box::new(from_status(&status)))
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Error {
        Error::Refused(Box::new(failure))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_the_documented_ones() {
        let refused = |code| Error::from(Failure::new(code, "X", "x")).exit_code();
        assert_eq!(refused(Code::Unavailable), 3);
        assert_eq!(refused(Code::NotFound), 4);
        assert_eq!(refused(Code::InvalidArgument), 5);
        assert_eq!(refused(Code::FailedPrecondition), 1);
        assert_eq!(Error::Usage(String::new()).exit_code(), 2);
        assert_eq!(Error::Invalid(String::new()).exit_code(), 5);
        assert_eq!(Error::Interrupted(String::new()).exit_code(), 130);
    }

    #[test]
    fn a_server_that_went_away_is_told_from_one_that_refused() {
        let cut = Error::gone(Status::unknown("error reading a body from connection"));
        assert_eq!(cut.exit_code(), 3);
        assert!(cut.to_string().starts_with("the server went away: error reading"), "{cut}");
        let failure = Failure::internal("a fault of its own");
        let refused = Error::gone(netloom_service::status::to_status(failure));
        assert!(matches!(&refused, Error::Refused(_)) && refused.exit_code() == 1, "{refused}");
    }
}
