//! Certificates: that of a node, and the authority they come from.

use netloom_model::spec::{AuthoritySpec, CertificateSpec};

use crate::bind;
use crate::diagnostic::{At, Pos, Report};
use crate::files::Collector;
use crate::keys::{Section, known};
use crate::value;
use crate::yaml::Node;

/// What a definition says of a node's certificate: merged key by key.
#[derive(Debug, Default)]
pub(crate) struct Certificate {
    pub issue: Option<At<bool>>,
    pub sans: Option<At<Vec<String>>>,
    pub key_bits: Option<At<u32>>,
    pub validity: Option<At<u64>>,
}

impl Certificate {
    pub fn read(node: &Node, report: &mut Report) -> Certificate {
        let mut c = Certificate::default();
        for (key, entry) in known(Section::Certificate, value::map(node, report), report) {
            let node = &entry.node;
            match key {
                "issue" => c.issue = value::parsed(node, report, value::truth),
                "sans" | "SANs" => {
                    let sans: Vec<String> =
                        value::each(node, report, value::one_word).into_iter().map(|s| s.value).collect();
                    c.sans = (!sans.is_empty()).then_some(At { value: sans, pos: node.pos });
                }
                "key-size" => c.key_bits = value::parsed(node, report, bits),
                "validity-duration" => c.validity = value::parsed(node, report, value::duration),
                _ => unreachable!("{key} is in the table as done, and is not read here"),
            }
        }
        c
    }

    /// The certificate that levels ask for, weakest first; that there is none although something is said of it is told.
    pub fn merged<'c>(
        levels: impl Iterator<Item = &'c Certificate>,
        pos: Pos,
        report: &mut Report,
    ) -> Option<CertificateSpec> {
        let mut issue = None;
        let mut spec = CertificateSpec::default();
        for c in levels {
            issue = c.issue.as_ref().map(|i| i.value).or(issue);
            if let Some(sans) = &c.sans {
                spec.sans.clone_from(&sans.value);
            }
            spec.key_bits = c.key_bits.as_ref().map_or(spec.key_bits, |b| b.value);
            spec.validity_seconds = c.validity.as_ref().map_or(spec.validity_seconds, |v| v.value);
        }
        if issue.is_none() && spec != CertificateSpec::default() {
            let message = "no certificate is issued to this node, although something is said of one: write issue: true for it";
            report.info(pos, "NO_CERTIFICATE", message);
        }
        issue.unwrap_or(false).then_some(spec)
    }
}

/// `settings.certificate-authority`.
pub(crate) fn authority(node: &Node, files: &mut Collector<'_>, report: &mut Report) -> AuthoritySpec {
    let mut spec = AuthoritySpec::default();
    for (key, entry) in known(Section::Authority, value::map(node, report), report) {
        let node = &entry.node;
        match key {
            "cert" => spec.certificate = file(node, files, report),
            "key" => spec.key = file(node, files, report),
            "key-size" => spec.key_bits = value::parsed(node, report, bits).map_or(0, |b| b.value),
            "validity-duration" => {
                spec.validity_seconds = value::parsed(node, report, value::duration).map_or(0, |v| v.value);
            }
            _ => unreachable!("{key} is in the table as done, and is not read here"),
        }
    }
    spec
}

fn file(node: &Node, files: &mut Collector<'_>, report: &mut Report) -> String {
    let Some(text) = value::text(node, report) else { return String::new() };
    let found = bind::relative(&text.value).and_then(|path| files.collect_file(&path).map(|()| path));
    found.unwrap_or_else(|(code, message)| {
        report.error(text.pos, code, message);
        String::new()
    })
}

fn bits(text: &str) -> Result<u32, String> {
    value::number(text, 2_048, 4_096)
}
