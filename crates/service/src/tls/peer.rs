//! Who a certificate is for.

use std::fmt;

use netloom_model::id::HostId;
use rustls::pki_types::CertificateDer;

/// The part of every peer's URI that says whose it is.
const SCHEME: &str = "netloom://";

/// A program of an installation, as a certificate names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Peer {
    /// Gateway, scheduler or image registry: who leads hosts.
    Controller,
    /// A host that joined.
    Host {
        /// Its id.
        id: HostId,
        /// Its uid, which tells it from one that had the same id before.
        uid: String,
    },
}

impl Peer {
    /// The URI that stands in its certificates.
    pub fn uri(&self) -> String {
        match self {
            Peer::Controller => format!("{SCHEME}controller"),
            Peer::Host { id, uid } => format!("{SCHEME}host/{id}/{uid}"),
        }
    }

    /// The peer of a certificate; none when it names none, or more than one.
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Peer> {
        let read = webpki::EndEntityCert::try_from(certificate).ok()?;
        let mut all = read.valid_uri_names();
        let peer = Peer::read(all.next()?)?;
        all.next().is_none().then_some(peer)
    }

    fn read(uri: &str) -> Option<Peer> {
        match uri.strip_prefix(SCHEME)?.split('/').collect::<Vec<_>>()[..] {
            ["controller"] => Some(Peer::Controller),
            ["host", id, uid] if !uid.is_empty() => {
                Some(Peer::Host { id: id.parse().ok()?, uid: uid.to_owned() })
            }
            _ => None,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Controller => f.write_str("the controller"),
            Peer::Host { id, .. } => write!(f, "host {id}"),
        }
    }
}

/// Who is at the other end of a connection, as the server of a call finds it among the request's extensions. None over TLS is somebody without a certificate, and
/// everybody on other transports.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Caller(pub Option<Peer>);
