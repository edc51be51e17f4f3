//! The few error kinds in the middle.
//!
//! Each crate has its own typed errors; at a service's edge they become a [`Failure`], which has one mapping to gRPC and HTTP
//! (`netloom-service`). A failure says what was wrong, where, and what to do; its `reason` is for programs, its `message` for people.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// What kind of failure it is: a deliberately small part of the gRPC codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Code {
    /// The request itself is wrong; sending it again cannot help.
    InvalidArgument,
    /// What it names does not exist.
    NotFound,
    /// What it would make exists already.
    AlreadyExists,
    /// The system is not in a state in which this can be done.
    FailedPrecondition,
    /// Somebody else changed it meanwhile; read it again and retry.
    Aborted,
    /// There is not enough of something.
    ResourceExhausted,
    /// A number is outside what there is.
    OutOfRange,
    /// Who asks is not known.
    Unauthenticated,
    /// Who asks may not do this.
    PermissionDenied,
    /// This is not done here.
    Unimplemented,
    /// A part of the system does not answer; trying again may help.
    Unavailable,
    /// The time given was over first.
    DeadlineExceeded,
    /// Who asked went away or took it back.
    Cancelled,
    /// A fault of netloom's own.
    Internal,
}

/// One field of a request that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// Path of the field, for instance `spec.nodes[2].image`, or `file:line:column` of a topology file.
    pub field: String,
    /// What is wrong with it and what would be right.
    pub description: String,
}

/// A failure on its way to a caller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What kind it is.
    pub code: Code,
    /// UPPER_SNAKE, stable, for programs.
    pub reason: String,
    /// What was wrong, where, and what to do.
    pub message: String,
    /// Facts for programs, for instance the name of what is missing.
    pub metadata: BTreeMap<String, String>,
    /// Every field at fault, when the request was wrong.
    pub violations: Vec<Violation>,
}

impl Failure {
    /// A failure with nothing but a reason and a message.
    pub fn new(code: Code, reason: &str, message: impl Into<String>) -> Self {
        Failure {
            code,
            reason: reason.to_owned(),
            message: message.into(),
            metadata: BTreeMap::new(),
            violations: Vec::new(),
        }
    }

    /// Adds a fact for programs.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<String>) -> Self {
        self.metadata.insert(key.to_owned(), value.into());
        self
    }

    /// Adds a field at fault.
    #[must_use]
    pub fn violation(mut self, field: impl Into<String>, description: impl Into<String>) -> Self {
        self.violations.push(Violation { field: field.into(), description: description.into() });
        self
    }

    /// A request that is wrong in the fields given.
    pub fn invalid(message: impl Into<String>, violations: Vec<Violation>) -> Self {
        Failure { violations, ..Failure::new(Code::InvalidArgument, "INVALID_REQUEST", message) }
    }

    /// A fault of netloom's own.
    pub fn internal(message: impl Into<String>) -> Self {
        Failure::new(Code::Internal, "INTERNAL", message)
    }

    /// True when the same call may succeed later without any change.
    pub fn is_retryable(&self) -> bool {
        matches!(self.code, Code::Unavailable | Code::DeadlineExceeded | Code::Aborted)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        for v in &self.violations {
            write!(f, "\n  {}: {}", v.field, v.description)?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}
