//! The rules of a spec by itself.

use std::collections::BTreeSet;

use super::{
    BindSource, LabSpec, MAX_CPU_MILLIS, MAX_FILES, MAX_FILES_BYTES, MAX_LINKS, MAX_MEMORY_BYTES, MAX_NODES,
};
use crate::failure::Violation;
use crate::id::NodeId;

impl LabSpec {
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
            for (key, file) in [("startup_config", &node.startup_config), ("license", &node.license)] {
                if !file.is_empty() && !self.files.iter().any(|f| f.path == *file) {
                    say(
                        format!("nodes[{i}].{key}"),
                        format!("\"{file}\" is not a file among the lab's files; send it along"),
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
    use crate::id::Digest;
    use crate::spec::{Bind, Endpoint, FileEntry, LinkSpec, NodeSpec};

    fn end(node: &str, interface: &str) -> Endpoint {
        Endpoint { node: node.into(), interface: interface.into(), ..Endpoint::default() }
    }

    fn link(a: Endpoint, b: Endpoint) -> LinkSpec {
        LinkSpec { a, b, ..LinkSpec::default() }
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
