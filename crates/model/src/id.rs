//! Names that users choose, uids, wire ids and digests: one type each, so that a swapped id does not compile.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

/// Longest name of a lab or node, so that it fits a DNS label (RFC 1035 §2.3.4).
pub const MAX_NAME: usize = 63;

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum IdError {
    /// Not of the form of a name.
    #[error(
        "\"{0}\" is not a valid {1} name: use letters, digits, '-', '.' and '_', begin with a letter or digit, at most {MAX_NAME} characters"
    )]
    Name(String, &'static str),
    /// Not a uid.
    #[error("\"{0}\" is not a uid")]
    Uid(String),
    /// Not a wire id.
    #[error("{0} is not a wire id: it must be from 1 to 2^63-1")]
    Wire(u64),
    /// Not a digest.
    #[error("\"{0}\" is not a digest: write \"sha256:\" and 64 hexadecimal digits")]
    Digest(String),
}

fn is_name(s: &str) -> bool {
    let mut bytes = s.bytes();
    s.len() <= MAX_NAME
        && bytes.next().is_some_and(|b| b.is_ascii_alphanumeric())
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
}

macro_rules! name_type {
    ($(#[$doc:meta])* $type:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// The name as given.
            pub fn as_str(&self) -> &str {
                &self.0
            }
            /// The form in which two names are the same: names are unique ignoring case.
            pub fn folded(&self) -> String {
                self.0.to_ascii_lowercase()
            }
        }

        impl TryFrom<String> for $type {
            type Error = IdError;
            fn try_from(s: String) -> Result<Self, IdError> {
                if is_name(&s) { Ok(Self(s)) } else { Err(IdError::Name(s, $what)) }
            }
        }

        impl FromStr for $type {
            type Err = IdError;
            fn from_str(s: &str) -> Result<Self, IdError> {
                Self::try_from(s.to_owned())
            }
        }

        impl From<$type> for String {
            fn from(id: $type) -> String {
                id.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name_type!(
    /// A lab's id: the name its user chose, unique ignoring case.
    LabId, "lab"
);
name_type!(
    /// A node's id: the name its user chose, unique in its lab ignoring case.
    NodeId, "node"
);
name_type!(
    /// A host's id.
    HostId, "host"
);

macro_rules! uid_type {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $type(Uuid);

        impl $type {
            /// A new one: UUIDv7 (RFC 9562 §5.7), so that they sort by time.
            #[allow(clippy::new_without_default)]
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }
        }

        impl FromStr for $type {
            type Err = IdError;
            fn from_str(s: &str) -> Result<Self, IdError> {
                Uuid::parse_str(s).map(Self).map_err(|_| IdError::Uid(s.to_owned()))
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

uid_type!(
    /// A lab for all time: made again under the same name it has another.
    LabUid
);
uid_type!(
    /// A node for all time: recreated, it has another.
    NodeUid
);
uid_type!(
    /// A link for all time.
    LinkUid
);
uid_type!(
    /// An operation.
    OperationId
);
uid_type!(
    /// This installation: what it makes carries it, and what carries another is never touched.
    Owner
);

/// A NIC, a wire or a segment, unique in the installation: the cookie of its flows and, in base 32, the name of its host interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct WireId(u64);

impl WireId {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    /// Digits that 63 bits take in base 32.
    pub const DIGITS: usize = 13;

    /// True for so many digits of [`WireId::interface_name`].
    pub fn are_digits(text: &str, count: usize) -> bool {
        text.len() == count && text.bytes().all(|b| Self::ALPHABET.contains(&b))
    }

    /// The number.
    pub fn get(self) -> u64 {
        self.0
    }

    /// Name of the host interface: the prefix and 13 digits. With a prefix of two it fills IFNAMSIZ-1.
    pub fn interface_name(self, prefix: &str) -> String {
        let mut name = String::with_capacity(prefix.len() + Self::DIGITS);
        name.push_str(prefix);
        for digit in (0..Self::DIGITS).rev() {
            name.push(char::from(Self::ALPHABET[(self.0 >> (5 * digit)) as usize & 31]));
        }
        name
    }

    /// The wire id in an interface name made by [`WireId::interface_name`]; none when the name is not one.
    pub fn from_interface_name(prefix: &str, name: &str) -> Option<WireId> {
        let digits = name.strip_prefix(prefix).filter(|d| d.len() == Self::DIGITS)?;
        let mut number: u128 = 0;
        for b in digits.bytes() {
            number = number << 5 | Self::ALPHABET.iter().position(|a| *a == b)? as u128;
        }
        u64::try_from(number).ok().and_then(|n| WireId::try_from(n).ok())
    }
}

impl TryFrom<u64> for WireId {
    type Error = IdError;
    fn try_from(n: u64) -> Result<Self, IdError> {
        if n == 0 || n >> 63 != 0 { Err(IdError::Wire(n)) } else { Ok(WireId(n)) }
    }
}

impl From<WireId> for u64 {
    fn from(id: WireId) -> u64 {
        id.0
    }
}

impl fmt::Display for WireId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The SHA-256 of some bytes, written `sha256:` and 64 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

impl Digest {
    /// The digest of these bytes.
    pub fn of(bytes: &[u8]) -> Digest {
        use sha2::Digest as _;
        let mut text = String::from("sha256:");
        for b in sha2::Sha256::digest(bytes) {
            text.push_str(&format!("{b:02x}"));
        }
        Digest(text)
    }

    /// The written form.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Digest {
    type Error = IdError;
    fn try_from(s: String) -> Result<Self, IdError> {
        let hex = s.strip_prefix("sha256:").unwrap_or_default();
        let valid = hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if valid { Ok(Digest(s)) } else { Err(IdError::Digest(s)) }
    }
}

impl From<Digest> for String {
    fn from(d: Digest) -> String {
        d.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_checked() {
        for good in ["r1", "R1", "a-b.c_d", &"x".repeat(63)] {
            assert!(good.parse::<NodeId>().is_ok(), "{good}");
        }
        for bad in ["", "-a", ".a", "a b", "a/b", "ä", "a\0", &"x".repeat(64)] {
            assert!(bad.parse::<NodeId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn digest_of_nothing_is_the_known_one() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Digest::of(b"").as_str(), empty);
        assert!(Digest::try_from(empty.to_uppercase()).is_err());
    }

    proptest! {
        #[test]
        fn interface_name_is_the_wire_id(n in 1u64..1 << 63) {
            let id = WireId::try_from(n).unwrap();
            let name = id.interface_name("nl");
            prop_assert_eq!(name.len(), 15);
            prop_assert_eq!(WireId::from_interface_name("nl", &name), Some(id));
        }

        #[test]
        fn any_name_is_read_or_refused(name in "\\PC*") {
            let _ = WireId::from_interface_name("nl", &name);
        }
    }
}
