//! What a machine joins with: a secret that says that it may, and the fingerprint that says whom it may believe.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use sha2::{Digest as _, Sha256};

use super::authority::hex;

/// `<secret>.<fingerprint>`, both in base64url.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// What is shown once to the controller, which keeps its hash only.
    pub secret: String,
    /// SHA-256 of the authority's certificate.
    pub fingerprint: [u8; 32],
}

/// Why a text is no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("that is no token of \"netloom host token\": copy it whole, it is two words with a dot between them")]
pub struct JoinTokenError;

impl JoinToken {
    /// One of this authority, with a secret of nearly 128 random bits. It does not begin with a dash, which command lines would take for an option.
    pub fn new(fingerprint: [u8; 32]) -> JoinToken {
        let secret = || {
            let random =
                uuid::Uuid::new_v4().into_bytes().into_iter().chain(uuid::Uuid::new_v4().into_bytes());
            // A uuid of version 4 has 122 random bits: of two of them more than enough are left.
            let digest = Sha256::digest(random.collect::<Vec<_>>());
            BASE64.encode(&digest[..16])
        };
        let secret = std::iter::repeat_with(secret).find(|s| !s.starts_with('-')).expect("it has no end");
        JoinToken { secret, fingerprint }
    }

    /// What is kept of a secret.
    pub fn hash(secret: &str) -> String {
        hex(&Sha256::digest(secret.as_bytes()))
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.secret, BASE64.encode(self.fingerprint))
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinToken(…)")
    }
}

impl FromStr for JoinToken {
    type Err = JoinTokenError;
    fn from_str(text: &str) -> Result<JoinToken, JoinTokenError> {
        let (secret, fingerprint) = text.trim().split_once('.').ok_or(JoinTokenError)?;
        let fingerprint = BASE64.decode(fingerprint).map_err(|_| JoinTokenError)?;
        if BASE64.decode(secret).map_or(0, |s| s.len()) != 16 {
            return Err(JoinTokenError);
        }
        let fingerprint = fingerprint.try_into().map_err(|_| JoinTokenError)?;
        Ok(JoinToken { secret: secret.to_owned(), fingerprint })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_back_and_half_of_one_is_not() {
        let token = JoinToken::new([7; 32]);
        let text = token.to_string();
        assert_eq!(text.parse(), Ok(token));
        assert_eq!(text.len(), 22 + 1 + 43);
        for wrong in ["", ".", &text[1..], &text[..text.len() - 2], &text[..22]] {
            assert_eq!(wrong.parse::<JoinToken>(), Err(JoinTokenError), "{wrong}");
        }
        assert_ne!(JoinToken::new([7; 32]).to_string(), text);
    }

    #[test]
    fn no_token_looks_like_an_option() {
        // One in 64 would.
        assert!((0..2_000).all(|_| !JoinToken::new([7; 32]).to_string().starts_with('-')));
    }
}
