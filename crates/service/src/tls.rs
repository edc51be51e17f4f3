//! TLS between programs on different machines: each shows a certificate of the installation's own authority, and each looks who the other one is.
//!
//! ```text
//! authority (scheduler's machine) ─► signs ─► identity of the controller's programs (made anew in memory, by themselves)
//!                                        └──► identity of a host (its key never leaves it; joins with a token, renewed over the old one)
//!          connect(address, expected): chain of the authority? name that was dialled? the peer that was meant?
//!          accept: chain of the authority, or no certificate at all; what a peer may do is decided call by call
//! ```
//!
//! A certificate says who it is for ([`Peer`]) in a URI beside the names it can be dialled by. Both are compared: the name alone would let a host that took another one's
//! address answer for it, and the peer alone would let it be reached where nobody put it.

pub mod authority;
mod controller;
pub(crate) mod handshakes;
mod identity;
mod peer;
pub(crate) mod plain;
mod token;

pub use self::authority::Authority;
pub(crate) use self::controller::Controller;
pub(crate) use self::identity::host_of;
pub use self::identity::{Given, Identity, Pinned};
pub use self::peer::{Caller, Peer};
pub use self::token::{JoinToken, JoinTokenError};

/// What is wrong with the program at the other end, or with what is to be shown to it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// Its certificate is not one of this installation's, or not for the name that was dialled, or out of its time.
    #[error("the program at {address} is not trusted: {why}")]
    Untrusted {
        /// What was dialled.
        address: String,
        /// The library's words.
        why: String,
    },
    /// It is one of this installation's, and another one than was meant.
    #[error("the program at {address} shows the certificate of {shown}, not of {expected}")]
    OtherPeer {
        /// What was dialled.
        address: String,
        /// Whose certificate it is.
        shown: String,
        /// Whom it was meant to be.
        expected: String,
    },
    /// Its answer is no TLS.
    #[error(
        "the program at {address} does not speak TLS: its `listen` says http://, or it is another one than was meant"
    )]
    Plain {
        /// What was dialled.
        address: String,
    },
    /// It takes connections, and shows no certificate.
    #[error(
        "the program at {address} shows no certificate: a controller's waits for its authority.pem, as its log says; another one does not speak TLS, or is ending"
    )]
    Silent {
        /// What was dialled.
        address: String,
    },
    /// It does not belong to the installation that made the token.
    #[error(
        "the program at {address} does not belong to the installation that made this token: check the address, and that nobody is in between"
    )]
    OtherInstallation {
        /// What was dialled.
        address: String,
    },
    /// The file of the authority is still to come.
    #[error("there is no {} yet, which the scheduler of this data directory makes or fetches from its database", .0.display())]
    NoAuthority(std::path::PathBuf),
    /// This program has no certificate to show.
    #[error("there is no certificate to show: {0}")]
    NoIdentity(String),
    /// What was read cannot be used.
    #[error("{what} cannot be used: {why}")]
    Unusable {
        /// A key, a certificate, an address.
        what: &'static str,
        /// Why.
        why: String,
    },
}

impl TlsError {
    fn unusable(what: &'static str, why: impl std::fmt::Display) -> TlsError {
        TlsError::Unusable { what, why: why.to_string() }
    }
}

impl From<TlsError> for std::io::Error {
    fn from(e: TlsError) -> std::io::Error {
        std::io::Error::new(std::io::ErrorKind::PermissionDenied, e)
    }
}

#[cfg(test)]
mod tests;
