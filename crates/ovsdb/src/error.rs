//! What can go wrong between a caller and the database.

/// Why a transaction did not give an outcome.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is no connection with a complete snapshot; nothing was sent. Wait for a snapshot and compose anew.
    #[error("not connected to the OVSDB server; wait for the next snapshot")]
    Disconnected,
    /// The connection broke after sending and before the answer: the transaction may or may not have
    /// committed. The next snapshot tells.
    #[error(
        "the connection to the OVSDB server broke before it answered; read the next snapshot to see whether it committed"
    )]
    Interrupted,
    /// The server refused the transaction; nothing of it was committed.
    #[error("OVSDB refused {}: {error}{}", Place(*.op, *.table), Details(.details))]
    Rejected {
        /// Index in the transaction of the operation at fault; `None` when the commit as a whole was refused
        /// (a duplicate key, a dangling reference).
        op: Option<usize>,
        /// The table that operation was on.
        table: Option<&'static str>,
        /// The error string of OVSDB, such as `constraint violation` or `timed out`.
        error: String,
        /// The server's explanation, empty when it gave none.
        details: String,
    },
    /// The server's answer does not follow RFC 7047.
    #[error("the OVSDB server's answer makes no sense: {0}")]
    Malformed(String),
}

struct Place(Option<usize>, Option<&'static str>);

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.0, self.1) {
            (Some(op), Some(table)) => write!(f, "operation {op} (table {table})"),
            (Some(op), None) => write!(f, "operation {op}"),
            (None, _) => f.write_str("the commit"),
        }
    }
}

struct Details<'a>(&'a str);

impl std::fmt::Display for Details<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, ": {}", self.0) }
    }
}
