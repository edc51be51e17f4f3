//! Pages: size and token of list calls.
//!
//! A token holds the id to go on after and a checksum over the list it was given out for, so that a token of another list, or one that was typed by hand,
//! is refused instead of silently skipping objects.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

use crate::error::Error;

/// Objects in a page when nothing is said.
const DEFAULT_SIZE: u32 = 100;
/// Most objects in a page.
pub const MAX_SIZE: u32 = 1_000;
/// Bytes of the checksum in a token.
const SUM: usize = 8;

/// One page as it is asked for.
#[derive(Debug, PartialEq, Eq)]
pub struct Page {
    /// Most objects in it.
    pub size: u32,
    /// The id to begin after; empty for the first page.
    pub after: String,
}

/// Reads a request's page of a list, which is named by its collection, for instance `labs/x/nodes`.
pub fn read(list: &str, size: i32, token: &str) -> Result<Page, Error> {
    let size = match u32::try_from(size) {
        Err(_) => return Err(Error::field("page_size", format!("{size} is negative; 1 to {MAX_SIZE}"))),
        Ok(0) => DEFAULT_SIZE,
        Ok(n) => n.min(MAX_SIZE),
    };
    if token.is_empty() {
        return Ok(Page { size, after: String::new() });
    }
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(token).map_err(|_| Error::PageToken)?;
    let (sum, after) = bytes.split_at_checked(SUM).ok_or(Error::PageToken)?;
    let after = std::str::from_utf8(after).map_err(|_| Error::PageToken)?;
    if sum != checksum(list, after) {
        return Err(Error::PageToken);
    }
    Ok(Page { size, after: after.to_owned() })
}

/// The token of the page after the one that ends with this id; empty when there is none.
pub fn next(list: &str, more: bool, last: Option<&str>) -> String {
    match last {
        Some(last) if more => {
            let mut bytes = checksum(list, last).to_vec();
            bytes.extend_from_slice(last.as_bytes());
            BASE64_URL_SAFE_NO_PAD.encode(bytes)
        }
        _ => String::new(),
    }
}

fn checksum(list: &str, after: &str) -> [u8; SUM] {
    let digest = Sha256::new().chain_update(list).chain_update([0]).chain_update(after).finalize();
    let mut sum = [0; SUM];
    sum.copy_from_slice(&digest[..SUM]);
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_bounded() {
        for (asked, given) in [(0, 100), (1, 1), (1_000, 1_000), (1_001, 1_000), (i32::MAX, 1_000)] {
            assert_eq!(read("labs", asked, "").unwrap(), Page { size: given, after: String::new() });
        }
        assert!(matches!(read("labs", -1, ""), Err(Error::Field { .. })));
    }

    #[test]
    fn a_token_is_good_for_its_own_list_only() {
        let token = next("labs/a/nodes", true, Some("r1"));
        assert_eq!(read("labs/a/nodes", 5, &token).unwrap().after, "r1");
        assert!(matches!(read("labs/b/nodes", 5, &token), Err(Error::PageToken)));
        for wrong in ["x", "AAAA", "ä", &token[1..], &format!("{token}A"), &token.to_uppercase()] {
            assert!(matches!(read("labs/a/nodes", 5, wrong), Err(Error::PageToken)), "{wrong}");
        }
        assert_eq!(next("labs", false, Some("r1")), "");
        assert_eq!(next("labs", true, None), "");
    }
}
