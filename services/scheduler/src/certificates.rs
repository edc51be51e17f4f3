//! Certificates: which of a lab's are to be issued. The lab has an authority of its own, made or given, and each node that asks for it a certificate from it.
//!
//! They are kept by node id, so that a lab deployed again, and a node made anew, has the one it had. One is issued anew when what was asked for it changed, when
//! its authority did, or when a tenth of its time is left. Keys go to the node's host and nowhere else: no message of the API and no event carries one.

mod issue;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use netloom_model::Failure;
use netloom_model::failure::Code;
use netloom_model::id::Digest;
use netloom_model::spec::{CertificateSpec, NodeSpec};
use serde::Serialize;

pub use self::issue::issue;
use crate::error::Result;
use crate::rows::{AUTHORITY, CertificateRow, LabRows};
use crate::scheduler::Scheduler;
use crate::store::Tx;

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
pub fn wishes(rows: &LabRows) -> Vec<Wish> {
    let spec = &rows.lab.spec;
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
        common_name: format!("{} lab authority", rows.lab.id),
        names: Vec::new(),
        key_bits: authority.key_bits,
        seconds: or(authority.validity_seconds, AUTHORITY_SECONDS),
        given,
    };
    let node = |(node, asked): (&NodeSpec, &CertificateSpec)| {
        let names = names(rows, node, asked);
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
    let mut all = wishes(rows);
    let is_there = |wish: &Wish| {
        rows.certificates.get(&wish.key).is_some_and(|row| {
            let left = i64::try_from(wish.seconds).unwrap_or(i64::MAX).saturating_mul(1_000_000) / LEFT;
            row.request == wish.request
                && (wish.given.is_some() || row.expire_us.saturating_sub(now_us) > left)
        })
    };
    if all.first().is_some_and(is_there) {
        all.retain(|wish| !is_there(wish));
    }
    all
}

/// The names that a node's certificate is valid for: its own, then those asked for.
fn names(rows: &LabRows, node: &NodeSpec, asked: &CertificateSpec) -> Vec<String> {
    let lab = &rows.lab.id;
    let own = [node.id.clone(), format!("{}.{lab}", node.id), rows.lab.spec.instance_name(lab, &node.id)];
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

/// Certificates issued for a plan that is being made. It may be made again; they are not.
#[derive(Default)]
pub struct Issued {
    rows: BTreeMap<String, CertificateRow>,
}

impl Issued {
    /// Puts into the rows what was issued for them; says what is still to be.
    pub fn put(&self, rows: &mut LabRows, now_us: i64) -> Vec<Wish> {
        let wanted = missing(rows, now_us);
        for wish in &wanted {
            if let Some(row) = self.rows.get(&wish.key).filter(|row| row.request == wish.request) {
                rows.certificates.insert(wish.key.clone(), row.clone());
            }
        }
        missing(rows, now_us)
    }
}

impl Scheduler {
    /// Issues what is missing. Keys take their time: nothing waits for them but their caller.
    pub async fn issue(&self, rows: &LabRows, missing: Vec<Wish>, issued: &mut Issued) -> Result<()> {
        let mut contents = BTreeMap::new();
        let given: Vec<(String, Digest)> = missing.iter().flat_map(|w| w.given.clone()).flatten().collect();
        for (path, digest) in &given {
            let content = self.store.file(digest).await?.ok_or_else(|| {
                let message = format!("file {path} was not sent: put it first, then apply");
                Failure::new(Code::FailedPrecondition, "FILES_MISSING", message)
                    .with("digests", digest.to_string())
            })?;
            contents.insert(path.clone(), content);
        }
        let authority = rows.certificates.get(AUTHORITY).cloned();
        let work = move || issue(&missing, authority, &contents);
        let new = tokio::task::spawn_blocking(work).await;
        let new = new.map_err(|_| Failure::internal("the issuing of certificates ended"))?;
        issued.rows.extend(new?);
        Ok(())
    }

    /// Issues anew what runs out, in every lab.
    pub async fn renew_certificates(self: &Arc<Self>) -> Result<()> {
        for rows in self.store.all() {
            let (now, mut issued) = (crate::rows::now_us(), Issued::default());
            let wanted = if rows.operation.is_none() { missing(&rows, now) } else { Vec::new() };
            if wanted.is_empty() {
                continue;
            }
            tracing::info!(lab = %rows.lab.id, certificates = wanted.len(), "certificates are issued anew");
            self.issue(&rows, wanted, &mut issued).await?;
            self.change("scheduler.renew", rows.lab.uid, |rows| drop(issued.put(rows, now))).await?;
        }
        Ok(())
    }
}

/// Says what of a plan's certificates is to be issued before it can be written.
pub fn certify(tx: &Tx<'_>, rows: &mut LabRows, issued: &Issued) -> Vec<Wish> {
    issued.put(rows, tx.now())
}

#[cfg(test)]
mod tests;
