//! Etags: opaque to callers, made of an object's uid and the version of its spec, so that an object made anew under the same name has another.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

/// The etag of a version of an object.
pub fn of(uid: &str, version: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(format!("{uid}/{version}"))
}

/// The uid and generation in a lab's etag; none when it never was one.
pub fn read(etag: &str) -> Option<(String, u64)> {
    let text = String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(etag).ok()?).ok()?;
    let (uid, version) = text.split_once('/')?;
    Some((uid.to_owned(), version.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_etag_is_read_back() {
        assert_eq!(read(&of("u-1", "7")), Some(("u-1".to_owned(), 7)));
        for foreign in ["", "*", "W/\"1\"", &of("u", "x")] {
            assert_eq!(read(foreign), None, "{foreign}");
        }
    }
}
