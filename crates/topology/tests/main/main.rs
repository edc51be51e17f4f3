//! Topology files as their users write them: what comes out, and what is said about them.

mod files;
mod filter;
mod hostile;
mod kinds;
mod links;
mod merge;
mod mutants;
mod rows;
mod supported;
mod unsupported;

use std::collections::BTreeMap;

use netloom_model::kind::Catalogue;
use netloom_model::spec::{LabSpec, NodeSpec};
use netloom_topology::{BundleFiles, FileSource, Input, Parsed, parse};

/// The files that tests mount.
fn bundle() -> BundleFiles {
    let file = |content: &str, mode| (content.as_bytes().to_vec(), mode);
    BundleFiles(BTreeMap::from([
        ("r1/frr.conf".to_owned(), file("hostname r1\n", 0o644)),
        ("r1/daemons".to_owned(), file("ospfd=yes\n", 0o640)),
        ("r2/frr.conf".to_owned(), file("hostname r2\n", 0o644)),
        ("start.sh".to_owned(), file("#!/bin/sh\n", 0o755)),
        ("clab-lab/n/conf".to_owned(), file("conf\n", 0o644)),
        ("ca.pem".to_owned(), file("a certificate\n", 0o644)),
        ("ca.key".to_owned(), file("a key\n", 0o600)),
        ("common.env".to_owned(), file("A=file\nB=file\n", 0o644)),
        ("more.env".to_owned(), file("# more\nB=more\n", 0o644)),
    ]))
}

/// The environment that tests have.
fn environment() -> BTreeMap<String, String> {
    let pairs = [("IMAGE", "alpine:3.20"), ("LAB", "from-env"), ("STRUCTURE", "a: [b]\nc: {d: e}")];
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

/// Reads a file that lies in no repository.
fn read_without_git(text: &str) -> Parsed {
    parse(&Input {
        file_name: "lab.clab.yml",
        text,
        env: &|_| None,
        all_env: &BTreeMap::new,
        node_filter: &[],
        startup_configs: &std::collections::BTreeMap::new(),
        files: &BundleFiles::default(),
        catalogue: &Catalogue::embedded(),
    })
}

fn read_filtered(text: &str, files: &dyn FileSource, node_filter: &[&str]) -> Parsed {
    let env = |name: &str| match name {
        "__gitBranch__" => Some("feature/x".to_owned()),
        "__gitHash__" => Some("0123abc".to_owned()),
        name => environment().remove(name),
    };
    let node_filter: Vec<String> = node_filter.iter().map(|n| (*n).to_owned()).collect();
    parse(&Input {
        file_name: "lab.clab.yml",
        text,
        env: &env,
        all_env: &environment,
        node_filter: &node_filter,
        startup_configs: &std::collections::BTreeMap::new(),
        files,
        catalogue: &Catalogue::embedded(),
    })
}

fn read_with(text: &str, files: &dyn FileSource) -> Parsed {
    read_filtered(text, files, &[])
}

fn read(text: &str) -> Parsed {
    read_with(text, &bundle())
}

/// The spec of a file without errors.
#[track_caller]
fn spec(text: &str) -> LabSpec {
    let parsed = read(text);
    assert!(parsed.ok(), "{:#?}", said(&parsed));
    parsed.spec
}

/// A file with one node `n` of kind linux that has these lines, whose first is line 7, column 7.
fn with_node(lines: &str) -> String {
    let lines = lines.lines().map(|l| format!("      {l}\n")).collect::<String>();
    format!("name: lab\ntopology:\n  nodes:\n    n:\n      kind: linux\n      image: i\n{lines}")
}

/// The node of such a file.
#[track_caller]
fn node(lines: &str) -> NodeSpec {
    spec(&with_node(lines)).nodes.remove(0)
}

fn said(parsed: &Parsed) -> Vec<String> {
    parsed.diagnostics.iter().map(ToString::to_string).collect()
}

/// Said of most files, and by the tests that are about it alone looked at.
const USUAL: [&str; 2] = ["NO_MGMT", "KIND_NOT_VERIFIED"];

/// What is said, as `line:column severity CODE`, without the usual.
fn codes(parsed: &Parsed) -> Vec<String> {
    let told = parsed.diagnostics.iter().filter(|d| !USUAL.contains(&d.code));
    told.map(|d| format!("{}:{} {} {}", d.line, d.column, d.severity, d.code)).collect()
}

/// Holds that exactly this is said, with the words given in the message.
#[track_caller]
fn refused(text: &str, at: &str, words: &str) {
    let parsed = read(text);
    assert_eq!(codes(&parsed), [at], "{text}\n{:#?}", said(&parsed));
    let message = &parsed.diagnostics.iter().find(|d| !USUAL.contains(&d.code)).unwrap().message;
    assert!(message.contains(words), "{message}");
    assert_eq!(parsed.ok(), !at.contains(" error "), "{text}");
}

#[test]
fn the_examples_are_without_errors() {
    let examples = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples"));
    let mut files = 0;
    for dir in [examples.to_owned(), examples.join("host")] {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            if !path.to_string_lossy().ends_with(".clab.yml") {
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let parsed = read_with(&text, &netloom_topology::DirFiles::new(&dir).unwrap());
            let loud = parsed.diagnostics.iter().any(|d| d.severity != netloom_topology::Severity::Info);
            assert!(parsed.ok() && !loud, "{}: {:#?}", path.display(), said(&parsed));
            assert!(parsed.spec.check().is_empty() && Catalogue::embedded().check(&parsed.spec).is_empty());
            files += 1;
        }
    }
    assert!(files > 5, "there are {files} examples in {}", examples.display());
}
