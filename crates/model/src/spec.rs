//! What a user asks for. The proto twins are in `proto/netloom/v1/spec.proto`, where each field is explained; here the ids are typed.
//!
//! [`LabSpec::check`] holds the rules that no reader of topology files can be trusted to have checked, since a spec also comes in over the API.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::failure::Violation;
use crate::id::{Digest, LabId, NodeId};

/// MTU of a link that names none, as containerlab's.
pub const DEFAULT_MTU: u32 = 9500;
/// Prefix of instance names of a lab that names none.
pub const DEFAULT_PREFIX: &str = "netloom";
/// Most nodes of a lab.
pub const MAX_NODES: usize = 5_000;
/// Most links of a lab.
pub const MAX_LINKS: usize = 20_000;
/// Most bytes of all files of a lab.
pub const MAX_FILES_BYTES: u64 = 64 << 20;
/// Most files of a lab.
pub const MAX_FILES: usize = 10_000;
/// Most CPU that a node can ask for, in thousandths of a core.
pub const MAX_CPU_MILLIS: u32 = 1_024_000;
/// Most memory that a node can ask for, in bytes.
pub const MAX_MEMORY_BYTES: u64 = 64 << 40;

/// A whole lab as asked for.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LabSpec {
    /// Prefix of instance names; empty means [`DEFAULT_PREFIX`].
    pub prefix: String,
    /// The management network, if there is to be one.
    pub mgmt: Option<MgmtSpec>,
    /// The nodes.
    pub nodes: Vec<NodeSpec>,
    /// The links.
    pub links: Vec<LinkSpec>,
    /// The files that binds refer to.
    pub files: Vec<FileEntry>,
    /// Labels of the lab.
    pub labels: BTreeMap<String, String>,
}

/// A lab's management network.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct MgmtSpec {
    /// Name of the Docker network; empty means `<prefix>-<lab>`.
    pub network: String,
    /// IPv4 subnet in CIDR form; empty lets Docker choose.
    pub ipv4_subnet: String,
    /// IPv6 subnet in CIDR form; empty means no IPv6.
    pub ipv6_subnet: String,
    /// IPv4 gateway; empty means the first address.
    pub ipv4_gateway: String,
    /// IPv6 gateway; empty means the first address.
    pub ipv6_gateway: String,
    /// MTU in bytes; 0 means Docker's default.
    pub mtu: u32,
}

/// A node as asked for. Empty fields take the value of its kind.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeSpec {
    /// Its id. Checked by [`LabSpec::check`].
    pub id: String,
    /// Its kind.
    pub kind: String,
    /// Image reference.
    pub image: String,
    /// When the image is fetched.
    pub image_pull_policy: PullPolicy,
    /// Kind-specific variant.
    pub r#type: String,
    /// The group it was declared in.
    pub group: String,
    /// Environment of its first process.
    pub env: BTreeMap<String, String>,
    /// Files and directories mounted into it.
    pub binds: Vec<Bind>,
    /// Commands run once per start, after its links; words as a shell splits them.
    pub exec: Vec<String>,
    /// Replaces the image's command.
    pub cmd: Vec<String>,
    /// Replaces the image's entrypoint.
    pub entrypoint: Vec<String>,
    /// User of its first process.
    pub user: String,
    /// Capabilities added to Docker's default set, without `CAP_`.
    pub cap_add: Vec<String>,
    /// Kernel parameters of its own namespaces.
    pub sysctls: BTreeMap<String, String>,
    /// Most CPU in thousandths of a core; 0 is no limit.
    pub cpu_limit_millis: u32,
    /// Most memory in bytes; 0 is no limit.
    pub memory_limit_bytes: u64,
    /// CPU counted against the host; 0 takes the kind's.
    pub cpu_request_millis: u32,
    /// Memory counted against the host; 0 takes the kind's.
    pub memory_request_bytes: u64,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Host name inside; empty means its id.
    pub hostname: String,
    /// Fixed management IPv4 address.
    pub mgmt_ipv4: String,
    /// Fixed management IPv6 address.
    pub mgmt_ipv6: String,
    /// What happens when its first process ends by itself.
    pub restart_policy: RestartPolicy,
    /// True starts the first process without waiting for the interfaces.
    pub skip_interface_wait: bool,
}

/// When an image is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PullPolicy {
    /// Only when the host does not have it.
    #[default]
    IfNotPresent,
    /// Never.
    Never,
    /// At each deploy that creates the node.
    Always,
}

/// What happens when a node's first process ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// It is started again.
    #[default]
    Always,
    /// It is started again unless it ended with 0.
    OnFailure,
    /// It stays stopped.
    Never,
}

/// A file or directory mounted into a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    /// Where the content comes from.
    pub source: BindSource,
    /// Absolute path inside the node.
    pub target: String,
    /// True mounts it read-only.
    pub read_only: bool,
}

/// Where the content of a bind comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BindSource {
    /// A file, or a directory of files, among the lab's files.
    Bundle(String),
    /// An absolute path on the host, below an allowed root.
    Host(String),
}

/// A file that belongs to a lab; its content travels separately, by digest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FileEntry {
    /// Relative path in normal form.
    pub path: String,
    /// Digest of its content.
    pub digest: Digest,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Permission bits.
    pub mode: u32,
}

/// A cable between two endpoints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkSpec {
    /// One end.
    pub a: Endpoint,
    /// The other end.
    pub b: Endpoint,
    /// MTU in bytes; 0 means [`DEFAULT_MTU`].
    pub mtu: u32,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// One end of a link.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Endpoint {
    /// The node's id.
    pub node: String,
    /// The interface as the kind names it.
    pub interface: String,
    /// MAC address; empty: a stable one is made.
    pub mac: String,
    /// IPv4 address with prefix length; empty: none.
    pub ipv4: String,
    /// IPv6 address with prefix length; empty: none.
    pub ipv6: String,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.node, self.interface)
    }
}

impl LinkSpec {
    /// The link with the end that sorts first as `a`, so that the same cable is the same value.
    #[must_use]
    pub fn sorted(mut self) -> LinkSpec {
        if (&self.b.node, &self.b.interface) < (&self.a.node, &self.a.interface) {
            std::mem::swap(&mut self.a, &mut self.b);
        }
        self
    }

    /// The link's id: its sorted end pair, for instance `r1:eth1--r2:eth1`. Two files mean the same link iff the ends are equal.
    pub fn id(&self) -> String {
        let (a, b) = (self.a.to_string(), self.b.to_string());
        let first = (&self.a.node, &self.a.interface) <= (&self.b.node, &self.b.interface);
        if first { format!("{a}--{b}") } else { format!("{b}--{a}") }
    }

    /// The MTU that both interfaces get.
    pub fn effective_mtu(&self) -> u32 {
        if self.mtu == 0 { DEFAULT_MTU } else { self.mtu }
    }
}

impl LabSpec {
    /// The prefix that instance names get.
    pub fn effective_prefix(&self) -> &str {
        if self.prefix.is_empty() { DEFAULT_PREFIX } else { &self.prefix }
    }

    /// Name of a node's container or domain.
    pub fn instance_name(&self, lab: &LabId, node: &str) -> String {
        format!("{}-{lab}-{node}", self.effective_prefix())
    }

    /// The files that a node's binds use, sorted by path.
    pub fn files_of(&self, node: &NodeSpec) -> Vec<FileEntry> {
        let used = |file: &&FileEntry| {
            node.binds.iter().any(|b| match &b.source {
                BindSource::Bundle(p) => {
                    file.path == *p || file.path.strip_prefix(p.as_str()).is_some_and(|r| r.starts_with('/'))
                }
                BindSource::Host(_) => false,
            })
        };
        let mut files: Vec<FileEntry> = self.files.iter().filter(used).cloned().collect();
        files.sort();
        files
    }

    /// Everything that is wrong with this spec by itself; kinds and interface names are checked against the catalogue elsewhere
    /// ([`crate::kind::Catalogue::resolve`]).
    pub fn check(&self) -> Vec<Violation> {
        let mut wrong = Vec::new();
        let mut say = |field: String, description: String| wrong.push(Violation { field, description });

        let prefix_ok = self.prefix.len() <= 32
            && self.prefix.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
            && self.prefix.bytes().next().is_none_or(|b| b.is_ascii_alphanumeric());
        if !prefix_ok {
            say(
                "prefix".into(),
                format!("\"{}\" is not of the form [A-Za-z0-9][A-Za-z0-9-._]*, at most 32", self.prefix),
            );
        }
        if self.nodes.len() > MAX_NODES {
            say("nodes".into(), format!("{} nodes; a lab holds at most {MAX_NODES}", self.nodes.len()));
        }
        if self.links.len() > MAX_LINKS {
            say("links".into(), format!("{} links; a lab holds at most {MAX_LINKS}", self.links.len()));
        }
        let mut names = BTreeSet::new();
        for (i, node) in self.nodes.iter().enumerate() {
            match node.id.parse::<NodeId>() {
                Err(e) => say(format!("nodes[{i}].id"), e.to_string()),
                Ok(id) if !names.insert(id.folded()) => {
                    say(
                        format!("nodes[{i}].id"),
                        format!("two nodes are called \"{id}\" (names are the same ignoring case)"),
                    );
                }
                Ok(_) => {}
            }
            for (name, cpu) in
                [("cpu_request_millis", node.cpu_request_millis), ("cpu_limit_millis", node.cpu_limit_millis)]
            {
                if cpu > MAX_CPU_MILLIS {
                    say(
                        format!("nodes[{i}].{name}"),
                        format!("{cpu}; a node asks for at most {MAX_CPU_MILLIS}"),
                    );
                }
            }
            for (name, memory) in [
                ("memory_request_bytes", node.memory_request_bytes),
                ("memory_limit_bytes", node.memory_limit_bytes),
            ] {
                if memory > MAX_MEMORY_BYTES {
                    say(
                        format!("nodes[{i}].{name}"),
                        format!("{memory}; a node asks for at most {MAX_MEMORY_BYTES}"),
                    );
                }
            }
            for (j, bind) in node.binds.iter().enumerate() {
                let field = format!("nodes[{i}].binds[{j}]");
                if !bind.target.starts_with('/') || bind.target.split('/').any(|p| p == "..") {
                    say(
                        field.clone(),
                        format!("target \"{}\" is not an absolute path without \"..\"", bind.target),
                    );
                }
                match &bind.source {
                    BindSource::Bundle(p) if !is_relative_normal(p) => {
                        say(field, format!("\"{p}\" is not a relative path without \"..\""));
                    }
                    BindSource::Bundle(p) if self.files_under(p).next().is_none() => {
                        say(field, format!("\"{p}\" is not among the lab's files; send it along"));
                    }
                    BindSource::Host(p) if !p.starts_with('/') || p.split('/').any(|s| s == "..") => {
                        say(field, format!("\"{p}\" is not an absolute path without \"..\""));
                    }
                    _ => {}
                }
            }
        }
        let ids: BTreeSet<&str> = self.nodes.iter().map(|n| n.id.as_str()).collect();
        let mut ends = BTreeSet::new();
        for (i, link) in self.links.iter().enumerate() {
            for (side, end) in [("a", &link.a), ("b", &link.b)] {
                let field = format!("links[{i}].{side}");
                if !ids.contains(end.node.as_str()) {
                    say(field.clone(), format!("there is no node \"{}\"", end.node));
                }
                if !ends.insert((end.node.as_str(), end.interface.as_str())) {
                    say(
                        field.clone(),
                        format!("{end} is an end of another link too, or of both ends of this one"),
                    );
                }
                if !end.mac.is_empty() && !is_mac(&end.mac) {
                    say(
                        format!("{field}.mac"),
                        format!("\"{}\" is not a unicast MAC address like 02:00:00:00:00:01", end.mac),
                    );
                }
                for (name, text, v6) in [("ipv4", &end.ipv4, false), ("ipv6", &end.ipv6, true)] {
                    if !text.is_empty() && !is_cidr(text, v6) {
                        say(
                            format!("{field}.{name}"),
                            format!("\"{text}\" is not an {name} address with a prefix length"),
                        );
                    }
                }
            }
            if link.mtu != 0 && !(68..=65_535).contains(&link.mtu) {
                say(format!("links[{i}].mtu"), format!("{} is not from 68 to 65535", link.mtu));
            }
        }
        if self.files.len() > MAX_FILES {
            say("files".into(), format!("{} files; a lab holds at most {MAX_FILES}", self.files.len()));
        }
        let mut paths = BTreeSet::new();
        for (i, file) in self.files.iter().enumerate() {
            if !is_relative_normal(&file.path) {
                say(
                    format!("files[{i}].path"),
                    format!("\"{}\" is not a relative path without \"..\"", file.path),
                );
            } else if !paths.insert(file.path.as_str()) {
                say(format!("files[{i}].path"), format!("\"{}\" is listed twice", file.path));
            }
        }
        let bytes = self.files.iter().fold(0u64, |sum, f| sum.saturating_add(f.size_bytes));
        if bytes > MAX_FILES_BYTES {
            say("files".into(), format!("{bytes} bytes of files; a lab holds at most {MAX_FILES_BYTES}"));
        }
        wrong
    }

    fn files_under<'a>(&'a self, path: &'a str) -> impl Iterator<Item = &'a FileEntry> {
        self.files.iter().filter(move |f| {
            f.path == path || f.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('/'))
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn end(node: &str, interface: &str) -> Endpoint {
        Endpoint { node: node.into(), interface: interface.into(), ..Endpoint::default() }
    }

    fn link(a: Endpoint, b: Endpoint) -> LinkSpec {
        LinkSpec { a, b, mtu: 0, labels: BTreeMap::new() }
    }

    #[test]
    fn a_link_is_the_same_from_both_sides() {
        let one = link(end("r2", "eth1"), end("r1", "eth1"));
        let other = link(end("r1", "eth1"), end("r2", "eth1"));
        assert_eq!(one.id(), "r1:eth1--r2:eth1");
        assert_eq!(one.id(), other.id());
        assert_eq!(one.sorted(), other.sorted());
    }

    #[test]
    fn every_fault_is_named() {
        let spec = LabSpec {
            prefix: "-x".into(),
            nodes: vec![
                NodeSpec { id: "a".into(), ..NodeSpec::default() },
                NodeSpec {
                    id: "A".into(),
                    binds: vec![Bind {
                        source: BindSource::Bundle("../../etc/shadow".into()),
                        target: "etc".into(),
                        read_only: false,
                    }],
                    ..NodeSpec::default()
                },
            ],
            links: vec![
                link(end("a", "eth1"), end("a", "eth1")),
                LinkSpec {
                    mtu: 9,
                    ..link(Endpoint { mac: "01:00:00:00:00:01".into(), ..end("a", "eth2") }, end("b", "eth1"))
                },
            ],
            ..LabSpec::default()
        };
        let fields: Vec<String> = spec.check().into_iter().map(|v| v.field).collect();
        for field in [
            "prefix",
            "nodes[1].id",
            "nodes[1].binds[0]",
            "links[0].b",
            "links[1].a.mac",
            "links[1].b",
            "links[1].mtu",
        ] {
            assert!(fields.iter().any(|f| f == field), "{field} missing in {fields:?}");
        }
    }

    #[test]
    fn files_of_a_node_are_those_below_its_binds() {
        let file =
            |path: &str| FileEntry { path: path.into(), digest: Digest::of(b""), size_bytes: 0, mode: 0o644 };
        let node = NodeSpec {
            binds: vec![Bind {
                source: BindSource::Bundle("r1".into()),
                target: "/x".into(),
                read_only: false,
            }],
            ..NodeSpec::default()
        };
        let spec = LabSpec { files: vec![file("r1/b"), file("r10/a"), file("r1/a")], ..LabSpec::default() };
        let paths: Vec<String> = spec.files_of(&node).into_iter().map(|f| f.path).collect();
        assert_eq!(paths, ["r1/a", "r1/b"]);
    }
}
