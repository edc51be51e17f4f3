//! Certificates: which of a lab's are to be issued. The lab has an authority of its own, made or given, and each node that asks for it a certificate from it.
//!
//! They are kept by node id, so that a lab deployed again, and a node made anew, has the one it had. One is issued anew when what was asked for it changed, when
//! its authority did, or when a tenth of its time is left. Keys go to the node's host and nowhere else: no message of the API and no event carries one.
//!
//! ```text
//! ApplyLab ─► could they be issued? (no key is made) ─► rows ─► task: what is missing, a few at a time ─► rows ─► the nodes are admitted to their hosts
//! ```
//!
//! Making an RSA key takes a core for seconds. Made while a deploy was asked for, a hundred of them held its caller for minutes, and nothing could be cancelled. So
//! it is a step of the operation: a node that is to be started waits for its certificate, one that runs has its former one meanwhile.

mod issue;
mod task;

use std::collections::BTreeSet;

use netloom_model::id::{Digest, LabId};
use netloom_model::spec::{CertificateSpec, LabSpec, NodeSpec};
use netloom_model::state::Wanted;
use serde::Serialize;

pub use self::issue::{check, issue};
pub use self::task::run;
use crate::rows::{AUTHORITY, CertificateRow, LabRows};

/// How long an authority is valid that says nothing of it.
const AUTHORITY_SECONDS: u64 = 5 * 365 * 86_400;
/// How long a node's certificate is valid that says nothing of it.
const NODE_SECONDS: u64 = 365 * 86_400;
/// The part of its time that is left when one is issued anew.
const LEFT: i64 = 10;

/// A certificate to be issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// What it is kept under: a node's id in lower case, or [`AUTHORITY`].
    pub key: String,
    /// Hash of what is asked for.
    pub request: String,
    /// The name it is for.
    pub common_name: String,
    /// Names and addresses it is valid for.
    pub names: Vec<String>,
    /// Size of its RSA key; 0 for an ECDSA one.
    pub key_bits: u32,
    /// How long it is valid.
    pub seconds: u64,
    /// The paths of the certificate and the key that are to be used instead of made ones, and their contents' digests.
    pub given: Option<[(String, Digest); 2]>,
}

/// Everything that a lab is to have, its authority first; nothing when no node asks for a certificate and nothing is said of an authority.
pub fn wishes(lab: &LabId, spec: &LabSpec) -> Vec<Wish> {
    let nodes: Vec<(&NodeSpec, &CertificateSpec)> =
        spec.nodes.iter().filter_map(|n| Some((n, n.certificate.as_ref()?))).collect();
    if nodes.is_empty() && spec.certificate_authority.is_none() {
        return Vec::new();
    }
    let authority = spec.certificate_authority.clone().unwrap_or_default();
    let digest = |path: &String| spec.files.iter().find(|f| f.path == *path).map(|f| f.digest.clone());
    let given = match (digest(&authority.certificate), digest(&authority.key)) {
        (Some(certificate), Some(key)) => {
            Some([(authority.certificate.clone(), certificate), (authority.key.clone(), key)])
        }
        _ => None,
    };
    let first = Wish {
        key: AUTHORITY.to_owned(),
        request: hash(&(&authority, given.as_ref().map(|[c, k]| (&c.1, &k.1)))),
        common_name: format!("{lab} lab authority"),
        names: Vec::new(),
        key_bits: authority.key_bits,
        seconds: or(authority.validity_seconds, AUTHORITY_SECONDS),
        given,
    };
    let node = |(node, asked): (&NodeSpec, &CertificateSpec)| {
        let names = names(lab, spec, node, asked);
        Wish {
            key: node.id.to_ascii_lowercase(),
            request: hash(&(&names, asked.key_bits, asked.validity_seconds, &first.request)),
            common_name: node.id.clone(),
            names,
            key_bits: asked.key_bits,
            seconds: or(asked.validity_seconds, NODE_SECONDS),
            given: None,
        }
    };
    let of_nodes: Vec<Wish> = nodes.into_iter().map(node).collect();
    [first].into_iter().chain(of_nodes).collect()
}

/// Those that are not there as asked for, or not for long any more. With a new authority all are.
pub fn missing(rows: &LabRows, now_us: i64) -> Vec<Wish> {
    lacking(rows, |wish, row| {
        let left = i64::try_from(wish.seconds).unwrap_or(i64::MAX).saturating_mul(1_000_000) / LEFT;
        wish.given.is_some() || row.expire_us.saturating_sub(now_us) > left
    })
}

/// What of those that are not there as asked for is kept under: an operation is not over before they are.
pub fn awaited(rows: &LabRows) -> BTreeSet<String> {
    lacking(rows, |_, _| true).into_iter().map(|wish| wish.key).collect()
}

fn lacking(rows: &LabRows, lasts: impl Fn(&Wish, &CertificateRow) -> bool) -> Vec<Wish> {
    if rows.lab.wanted == Wanted::Absent {
        return Vec::new();
    }
    let mut all = wishes(&rows.lab.id, &rows.lab.spec);
    let is_there = |wish: &Wish| {
        let row = rows.certificates.get(&wish.key);
        row.is_some_and(|row| row.request == wish.request && lasts(wish, row))
    };
    if all.first().is_some_and(is_there) {
        all.retain(|wish| !is_there(wish));
    }
    all
}

/// The names that a node's certificate is valid for: its own, then those asked for.
fn names(lab: &LabId, spec: &LabSpec, node: &NodeSpec, asked: &CertificateSpec) -> Vec<String> {
    let own = [node.id.clone(), format!("{}.{lab}", node.id), spec.instance_name(lab, &node.id)];
    let more = [node.hostname.clone(), node.mgmt_ipv4.clone(), node.mgmt_ipv6.clone()];
    let mut seen = BTreeSet::new();
    let all =
        own.into_iter().chain(more).chain(node.aliases.iter().cloned()).chain(asked.sans.iter().cloned());
    all.filter(|name| !name.is_empty() && seen.insert(name.clone())).collect()
}

fn hash(what: &impl Serialize) -> String {
    Digest::of(&serde_json::to_vec(what).unwrap_or_default()).to_string()
}

fn or(n: u64, otherwise: u64) -> u64 {
    if n == 0 { otherwise } else { n }
}

#[cfg(test)]
mod tests;
