//! What a check found, and what would mend it.

use serde::Serialize;

use super::plan::Change;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Status {
    /// As it should be.
    Ok,
    /// netloom works, with less than it could have, or it could not be checked.
    Warn,
    /// netloom cannot work, or not safely.
    Fail,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What was looked at.
    pub name: String,
    /// How bad it is.
    pub status: Status,
    /// What was seen.
    pub evidence: String,
    /// What to do; empty when there is nothing to do.
    pub fix: String,
    /// What `--fix` would do; empty when only a person can do it.
    pub plan: Vec<Change>,
}

impl Check {
    /// With what `--fix` would do.
    pub fn with(self, plan: Vec<Change>) -> Check {
        Check { plan, ..self }
    }
}

/// As it should be.
pub fn ok(name: &str, evidence: impl Into<String>) -> Check {
    Check {
        name: name.to_owned(),
        status: Status::Ok,
        evidence: evidence.into(),
        fix: String::new(),
        plan: Vec::new(),
    }
}

/// netloom works, with less than it could have.
pub fn warn(name: &str, evidence: impl Into<String>, fix: impl Into<String>) -> Check {
    Check { status: Status::Warn, fix: fix.into(), ..ok(name, evidence) }
}

/// netloom cannot work, or not safely.
pub fn fail(name: &str, evidence: impl Into<String>, fix: impl Into<String>) -> Check {
    Check { status: Status::Fail, ..warn(name, evidence, fix) }
}

/// What only root may look at is not wrong for that: the server is root.
pub fn not_allowed(name: &str, what: impl std::fmt::Display) -> Check {
    warn(name, format!("{what} may only be opened by root: not checked"), "run sudo netloom doctor")
}
