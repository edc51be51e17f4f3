//! The rules of a spec by itself.

use super::LabSpec;
use crate::failure::Violation;

mod lab;
mod link;
mod node;
mod placement;
mod text;

/// Collects what is wrong, below the field it is said of.
#[derive(Default)]
struct Wrong(Vec<Violation>);

impl Wrong {
    fn say(&mut self, field: impl Into<String>, description: impl Into<String>) {
        self.0.push(Violation { field: field.into(), description: description.into() });
    }
}

impl LabSpec {
    /// Everything that is wrong with this spec by itself; kinds and interface names are checked against the catalogue elsewhere
    /// ([`crate::kind::Catalogue::resolve`]).
    pub fn check(&self) -> Vec<Violation> {
        let mut wrong = Wrong::default();
        lab::check(self, &mut wrong);
        node::check(self, &mut wrong);
        link::check(self, &mut wrong);
        placement::check(self, &mut wrong);
        wrong.0
    }
}

/// True for a relative path without "..", ".", empty parts or NUL: it cannot leave the directory it is put below.
pub fn is_relative_normal(path: &str) -> bool {
    !path.is_empty()
        && !path.contains('\0')
        && path.split('/').all(|p| !p.is_empty() && p != "." && p != "..")
}

/// True for a unicast MAC address of six hexadecimal pairs that is not all zero.
pub fn is_mac(text: &str) -> bool {
    let parts: Vec<Option<u8>> =
        text.split(':').map(|p| if p.len() == 2 { u8::from_str_radix(p, 16).ok() } else { None }).collect();
    parts.len() == 6
        && parts.iter().all(Option::is_some)
        && parts[0].is_some_and(|b| b & 1 == 0)
        && parts.iter().any(|p| *p != Some(0))
}

/// True for an IPv4 (or IPv6) address with a prefix length.
pub fn is_cidr(text: &str, v6: bool) -> bool {
    let Some((address, length)) = text.split_once('/') else { return false };
    let Ok(length) = length.parse::<u8>() else { return false };
    if v6 {
        address.parse::<std::net::Ipv6Addr>().is_ok() && length <= 128
    } else {
        address.parse::<std::net::Ipv4Addr>().is_ok() && length <= 32
    }
}

/// What [`is_interface_name`] asks for, in words that follow "is not a name for an interface: ".
pub const INTERFACE_NAME: &str =
    "1 to 15 characters without spaces, '/', ':' and '%', and not \"lo\", \"all\" or \"default\"";

/// True for a name that an interface of Linux can be given and keeps, on a host and in a node: [`INTERFACE_NAME`] says it in words. The kernel
/// puts a number in the place of "%d", and has directories of its own called "all" and "default" beside those of interfaces.
pub fn is_interface_name(text: &str) -> bool {
    (1..=15).contains(&text.len())
        && ![".", "..", "lo", "all", "default"].contains(&text)
        && text.bytes().all(|b| b.is_ascii_graphic() && !b"/:%".contains(&b))
}

/// True for a name of letters, digits, '-', '.' and '_' that begins with a letter or digit.
pub fn is_word(text: &str, most: usize) -> bool {
    text.len() <= most
        && text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
}

/// A security option as it is compared: Docker takes `no-new-privileges` with and without `true` behind it.
pub fn security_option(text: &str) -> &str {
    match text.split_once(['=', ':']) {
        Some((name @ "no-new-privileges", "true")) => name,
        _ => text,
    }
}

/// True for a kernel parameter that a container has for itself.
pub fn is_sysctl(name: &str) -> bool {
    /// Those outside `net.` and `fs.mqueue.`.
    const OTHERS: [&str; 8] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    (name.starts_with("net.") || name.starts_with("fs.mqueue.") || OTHERS.contains(&name))
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/".contains(&b))
}

/// True for an absolute path inside a node where something can be mounted.
fn is_target(path: &str) -> bool {
    path.starts_with('/')
        && path.bytes().any(|b| b != b'/')
        && !path.contains('\0')
        && path.split('/').all(|p| p != "..")
}

#[cfg(test)]
mod tests;
