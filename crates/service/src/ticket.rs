//! Tickets: the right to one verb on one node for a short time, signed by the scheduler and checked by the host the caller then dials directly.
//!
//! A ticket is base64url(expiry in unix seconds, 8 bytes big-endian ‖ HMAC-SHA256(key, `uid|verb|expiry`)). It names neither node nor verb: the host puts in
//! what the caller asks for, so that a ticket for one thing opens no other.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use netloom_model::{Code, Failure};
use sha2::Sha256;

const EXPIRY: usize = 8;
const MAC: usize = 32;

/// Why a ticket is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    /// It is not a ticket, or not one for this.
    #[error("the ticket is not valid for this node and action: ask the scheduler for a new one")]
    Invalid,
    /// Its time is over.
    #[error("the ticket expired {0} s ago: ask the scheduler for a new one")]
    Expired(u64),
}

impl From<TicketError> for Failure {
    fn from(e: TicketError) -> Failure {
        let (code, reason) = match e {
            TicketError::Invalid => (Code::PermissionDenied, "TICKET_INVALID"),
            TicketError::Expired(_) => (Code::Unauthenticated, "TICKET_EXPIRED"),
        };
        Failure::new(code, reason, e.to_string())
    }
}

/// A ticket for a verb ("exec", "logs") on a node, good up to and including that second.
pub fn sign(key: &[u8], uid: &str, verb: &str, expires_unix: u64) -> String {
    let mut token = Vec::with_capacity(EXPIRY + MAC);
    token.extend_from_slice(&expires_unix.to_be_bytes());
    token.extend_from_slice(&mac(key, uid, verb, expires_unix).finalize().into_bytes());
    URL_SAFE_NO_PAD.encode(token)
}

/// What a ticket for the verb "capture" is signed for in place of a node's uid: the wire ids of the NICs, ascending, each once, joined by commas. Who checks
/// one makes it from the NICs that the caller asks for.
pub fn capture_uid(nics: impl IntoIterator<Item = u64>) -> String {
    let nics: std::collections::BTreeSet<u64> = nics.into_iter().collect();
    nics.iter().map(u64::to_string).collect::<Vec<_>>().join(",")
}

/// The verb of a ticket to read bytes of the image registry's store: it is signed for their digest in place of a node's uid.
pub const READ_BLOB: &str = "read-blob";

/// Checks a ticket against what the caller asks for.
pub fn verify(key: &[u8], uid: &str, verb: &str, token: &str, now_unix: u64) -> Result<(), TicketError> {
    let token = URL_SAFE_NO_PAD.decode(token).map_err(|_| TicketError::Invalid)?;
    let (expiry, signature) = token.split_first_chunk::<EXPIRY>().ok_or(TicketError::Invalid)?;
    let expires_unix = u64::from_be_bytes(*expiry);
    // An empty key means that none was given yet: then nothing is allowed.
    if key.is_empty() || mac(key, uid, verb, expires_unix).verify_slice(signature).is_err() {
        return Err(TicketError::Invalid);
    }
    match now_unix.checked_sub(expires_unix) {
        None | Some(0) => Ok(()),
        Some(ago) => Err(TicketError::Expired(ago)),
    }
}

fn mac(key: &[u8], uid: &str, verb: &str, expires_unix: u64) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(format!("{uid}|{verb}|{expires_unix}").as_bytes());
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_opens_only_what_it_was_signed_for() {
        let token = sign(b"key", "u1", "exec", 100);
        assert_eq!(verify(b"key", "u1", "exec", &token, 100), Ok(()));
        assert_eq!(verify(b"key", "u1", "exec", &token, 101), Err(TicketError::Expired(1)));
        assert_eq!(verify(b"other", "u1", "exec", &token, 1), Err(TicketError::Invalid));
        assert_eq!(verify(b"key", "u2", "exec", &token, 1), Err(TicketError::Invalid));
        assert_eq!(verify(b"key", "u1", "logs", &token, 1), Err(TicketError::Invalid));
    }

    #[test]
    fn a_capture_is_signed_for_its_interfaces_in_any_order() {
        assert_eq!(capture_uid([10, 9, 10]), "9,10");
        let token = sign(b"key", &capture_uid([9, 10]), "capture", 100);
        assert_eq!(verify(b"key", &capture_uid([10, 9]), "capture", &token, 1), Ok(()));
        assert_eq!(verify(b"key", &capture_uid([9]), "capture", &token, 1), Err(TicketError::Invalid));
    }

    #[test]
    fn what_is_no_ticket_is_refused() {
        for token in ["", "AAAA", "not base64!", &URL_SAFE_NO_PAD.encode([0; 40])] {
            assert_eq!(verify(b"key", "u1", "exec", token, 0), Err(TicketError::Invalid), "{token}");
        }
        let later = sign(b"key", "u1", "exec", 100);
        let mut bytes = URL_SAFE_NO_PAD.decode(later).unwrap();
        bytes[0] = 1;
        let stretched = URL_SAFE_NO_PAD.encode(bytes);
        assert_eq!(verify(b"key", "u1", "exec", &stretched, 1), Err(TicketError::Invalid));
        assert_eq!(verify(b"", "u1", "exec", &sign(b"", "u1", "exec", 9), 1), Err(TicketError::Invalid));
    }
}
