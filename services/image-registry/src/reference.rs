//! Image references, as Docker's reference grammar has them: `[host[:port]/]path[:tag][@digest]`.
//!
//! The same image can be written in many ways (`alpine`, `docker.io/library/alpine:latest`). [`Reference`] is the short one with its tag, which is also what
//! Docker shows, so that a catalogue has one row for one image.

use std::fmt;
use std::str::FromStr;

/// Longest name without tag and digest.
const MAX_NAME: usize = 255;
/// Longest tag.
const MAX_TAG: usize = 128;
/// The names of Docker Hub, which its images are written without.
const DEFAULT_DOMAINS: [&str; 2] = ["docker.io", "index.docker.io"];

/// An image reference in normal form.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference(String);

/// Why a text is not an image reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{text}\" is not an image reference: {why}; write name:tag, for instance netloom/frr:local or registry.example:5000/vendor/os:1.2"
)]
pub struct ReferenceError {
    text: String,
    why: &'static str,
}

impl Reference {
    /// The normal form as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The digest that it names bytes by.
    pub fn digest(&self) -> Option<&str> {
        self.0.split_once('@').map(|(_, digest)| digest)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Reference, ReferenceError> {
        parse(text).map(Reference).map_err(|why| {
            // A hostile text must not fill a terminal.
            let text = text.chars().take(MAX_NAME).flat_map(char::escape_debug).collect();
            ReferenceError { text, why }
        })
    }
}

fn parse(text: &str) -> Result<String, &'static str> {
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (text, None),
    };
    // A colon before the last slash belongs to a registry's port.
    let (name, tag) = match rest.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (rest, None),
    };
    if name.is_empty() {
        return Err("it has no name");
    }
    if name.len() > MAX_NAME {
        return Err("its name is longer than 255 characters");
    }
    let (domain, path) = match name.split_once('/') {
        Some((first, path)) if is_domain_like(first) => (Some(first), path),
        _ => (None, name),
    };
    if domain.is_some_and(|d| !is_domain(d)) {
        return Err("its registry is not a host name with an optional port");
    }
    if !path.split('/').all(is_path_component) {
        return Err(
            "its name may only hold lower-case letters and digits, with single '.', '_', '__' or '-' between them",
        );
    }
    if tag.is_some_and(|t| !is_tag(t)) {
        return Err("its tag may only hold letters, digits, '_', '.' and '-', at most 128");
    }
    if digest.is_some_and(|d| !is_digest(d)) {
        return Err("its digest is not an algorithm, ':' and hexadecimal digits");
    }
    let mut normal = match domain {
        Some(d) if DEFAULT_DOMAINS.contains(&d) => path.strip_prefix("library/").unwrap_or(path).to_owned(),
        Some(d) => format!("{d}/{path}"),
        None => path.strip_prefix("library/").filter(|p| !p.contains('/')).unwrap_or(path).to_owned(),
    };
    match (tag, digest) {
        (Some(tag), _) => normal.extend([":", tag]),
        (None, None) => normal.push_str(":latest"),
        (None, Some(_)) => {}
    }
    if let Some(digest) = digest {
        normal.extend(["@", digest]);
    }
    Ok(normal)
}

/// As Docker tells a registry from the first part of a path.
fn is_domain_like(part: &str) -> bool {
    part.contains(['.', ':']) || part == "localhost" || part.bytes().any(|b| b.is_ascii_uppercase())
}

fn is_domain(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((v6, "")) => return v6.parse::<std::net::Ipv6Addr>().is_ok(),
        Some((v6, port)) => {
            return v6.parse::<std::net::Ipv6Addr>().is_ok() && port.strip_prefix(':').is_some_and(is_port);
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let component = |c: &str| {
        !c.is_empty()
            && !c.starts_with('-')
            && !c.ends_with('-')
            && c.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    host.split('.').all(component) && port.is_none_or(is_port)
}

fn is_port(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

fn is_path_component(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    let ends = bytes.first().copied().is_some_and(word) && bytes.last().copied().is_some_and(word);
    // Between two words stands ".", "_", "__" or any number of "-".
    ends && text
        .split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        .all(|separator| matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|b| b == b'-'))
}

fn is_tag(text: &str) -> bool {
    text.len() <= MAX_TAG
        && text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
}

fn is_digest(text: &str) -> bool {
    let Some((algorithm, hex)) = text.split_once(':') else { return false };
    let algorithm_ok = algorithm.split(['-', '_', '+', '.']).all(|p| {
        p.bytes().next().is_some_and(|b| b.is_ascii_alphabetic())
            && p.bytes().all(|b| b.is_ascii_alphanumeric())
    });
    let hex_ok = hex.len() >= 32 && hex.bytes().all(|b| b.is_ascii_hexdigit());
    algorithm_ok && hex_ok && (algorithm != "sha256" || hex.len() == 64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn one_image_has_one_form() {
        for (written, normal) in [
            ("alpine", "alpine:latest"),
            ("library/alpine:3", "alpine:3"),
            ("docker.io/library/alpine", "alpine:latest"),
            ("index.docker.io/frrouting/frr:v9", "frrouting/frr:v9"),
            ("netloom/frr:local", "netloom/frr:local"),
            ("localhost/a", "localhost/a:latest"),
            ("registry.example:5000/a/b_c__d--e.f", "registry.example:5000/a/b_c__d--e.f:latest"),
            ("[::1]:5000/a:b", "[::1]:5000/a:b"),
            ("REG/a", "REG/a:latest"),
        ] {
            let parsed = written.parse::<Reference>().unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(parsed.as_str(), normal, "{written}");
            assert_eq!(normal.parse::<Reference>(), Ok(parsed), "the normal form of {written} is read back");
        }
        let pinned: Reference = format!("a/b@{DIGEST}").parse().unwrap();
        assert_eq!(pinned.as_str(), format!("a/b@{DIGEST}"));
        let both: Reference = format!("a/b:1@{DIGEST}").parse().unwrap();
        assert_eq!(both.as_str(), format!("a/b:1@{DIGEST}"));
    }

    #[test]
    fn what_docker_refuses_is_refused() {
        let long_name = "x".repeat(256);
        let long_tag = format!("a:{}", "x".repeat(129));
        for text in [
            "",
            ":tag",
            "a:",
            "A",
            "a/B",
            "a b",
            "a//b",
            "/a",
            "a/",
            "a..b",
            "a___b",
            "-a",
            "a-",
            "a._b",
            "a:b/c:",
            "a:-x",
            "a@sha256:12",
            "a@",
            "reg.example:x/a",
            "-r.example/a",
            "[::g]/a",
            "a\u{1b}[31m",
            &long_name,
            &long_tag,
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_refusal_is_safe_to_print() {
        let said = "a\u{1b}[31m".parse::<Reference>().unwrap_err().to_string();
        assert!(!said.contains('\u{1b}'), "{said:?}");
    }
}
