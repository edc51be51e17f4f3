//! Topology files: text and the files it refers to, read into a spec and its contents.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use netloom_api::v1;
use netloom_model::failure::Violation;
use netloom_model::id::{Digest, LabId};
use netloom_model::kind::Catalogue;
use netloom_model::spec::is_relative_normal;
use netloom_topology::{BundleFiles, Diagnostic, Input, Severity, parse};

use crate::apply::Contents;
use crate::error::Error;
use crate::view;

/// How diagnostics call a file that was sent without a name.
const NAMELESS: &str = "topology.clab.yml";
/// Permission bits of a file that was sent without.
const MODE: u32 = 0o644;

/// What a topology file asks for.
pub struct Imported {
    /// The lab.
    pub lab: LabId,
    /// Its spec.
    pub spec: v1::LabSpec,
    /// What its files hold.
    pub contents: Contents,
    /// Nodes that the node filter leaves out of it.
    pub left_out: Vec<String>,
    /// What is to be said about the file although it can be used.
    pub diagnostics: Vec<v1::Diagnostic>,
}

/// Reads a topology file, away from the threads that serve calls: a large one takes a while.
pub async fn import(catalogue: Arc<Catalogue>, request: v1::ImportLabRequest) -> Result<Imported, Error> {
    let span = tracing::Span::current();
    let read = move || span.in_scope(|| read(&catalogue, request));
    tokio::task::spawn_blocking(read).await.map_err(|_| Error::Lost("the reader of topology files"))?
}

fn read(catalogue: &Catalogue, request: v1::ImportLabRequest) -> Result<Imported, Error> {
    let files = bundle(request.files)?;
    let env: HashMap<String, String> = request.env;
    let startup_configs: BTreeMap<String, String> = request.startup_configs.into_iter().collect();
    let file_name = if request.file_name.is_empty() { NAMELESS } else { &request.file_name };
    let parsed = parse(&Input {
        file_name,
        text: &request.text,
        env: &|name| env.get(name).cloned(),
        all_env: &|| env.clone().into_iter().collect(),
        node_filter: &request.node_filter,
        startup_configs: &startup_configs,
        files: &files,
        catalogue,
    });
    let lab = parsed.lab.clone().filter(|_| parsed.ok());
    let Some(lab) = lab else {
        let errors = parsed.diagnostics.iter().filter(|d| d.severity == Severity::Error);
        return Err(Error::Topology(errors.map(violation).collect()));
    };
    // Only what nodes mount: of an env-file the values are in the spec.
    let mounted: BTreeSet<&str> = parsed.spec.files.iter().map(|f| f.path.as_str()).collect();
    let contents = parsed.contents.into_iter().filter(|(path, _)| mounted.contains(path.as_str()));
    let contents = contents.map(|(_, c)| (Digest::of(&c), Bytes::from_owner(c))).collect();
    let diagnostics = parsed.diagnostics.iter().map(view::diagnostic).collect();
    Ok(Imported { lab, spec: parsed.spec.into(), contents, left_out: parsed.left_out, diagnostics })
}

fn bundle(files: Vec<v1::FileContent>) -> Result<BundleFiles, Error> {
    let mut bundle = BTreeMap::new();
    for (i, file) in files.into_iter().enumerate() {
        let field = format!("files[{i}].path");
        if !is_relative_normal(&file.path) {
            return Err(Error::field(
                field,
                format!("\"{}\" is not a relative path without \"..\"", file.path),
            ));
        }
        let mode = if file.mode == 0 { MODE } else { file.mode };
        if let Some(_twice) = bundle.insert(file.path.clone(), (file.content, mode)) {
            return Err(Error::field(field, format!("\"{}\" was sent twice", file.path)));
        }
    }
    Ok(BundleFiles(bundle))
}

fn violation(d: &Diagnostic) -> Violation {
    let field = if d.line == 0 { d.file.clone() } else { format!("{}:{}:{}", d.file, d.line, d.column) };
    Violation { field, description: format!("{} [{}]", d.message, d.code) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_files_path_must_stay_below_the_topology_file() {
        let file = |path: &str| v1::FileContent { path: path.into(), content: Vec::new(), mode: 0 };
        for bad in ["../a", "/a", "a/../b", "", "a//b"] {
            assert!(bundle(vec![file(bad)]).is_err(), "{bad}");
        }
        assert!(bundle(vec![file("a"), file("a")]).is_err());
        assert_eq!(bundle(vec![file("a")]).unwrap().0["a"].1, 0o644);
    }

    #[test]
    fn the_filter_and_the_environment_of_the_request_count() {
        let text = "name: x-__gitBranch__\ntopology:\n  nodes:\n    a: {kind: frr, env: {__IMPORT_ENVS: true}}\n    b: {kind: nothing}\n";
        let env = [("A", "1"), ("__gitBranch__", "main")].map(|(n, v)| (n.to_owned(), v.to_owned()));
        let request = v1::ImportLabRequest {
            text: text.into(),
            env: env.into(),
            node_filter: vec!["a".into()],
            ..v1::ImportLabRequest::default()
        };
        let imported = read(&Catalogue::embedded(), request.clone()).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(imported.lab.as_str(), "x-main");
        assert_eq!(imported.spec.nodes.len(), 1);
        assert_eq!(imported.spec.nodes[0].env, [("A".to_owned(), "1".to_owned())].into());
        let all = v1::ImportLabRequest { node_filter: Vec::new(), ..request };
        assert!(read(&Catalogue::embedded(), all).is_err(), "b has no known kind");
    }

    #[test]
    fn a_configuration_in_the_text_is_a_file_of_the_lab() {
        let text = "name: x\ntopology:\n  nodes:\n    a:\n      kind: frr\n      startup-config: |\n        hostname a\n        !\n";
        let request = v1::ImportLabRequest { text: text.into(), ..v1::ImportLabRequest::default() };
        let imported = read(&Catalogue::embedded(), request).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(imported.spec.nodes[0].startup_config, imported.spec.files[0].path);
        let content = imported.contents.get(&Digest::of(b"hostname a\n!\n"));
        assert!(content.is_some(), "its content goes to the scheduler with the others");
        // One that is given takes its place, as it is.
        let saved = [("a", "hostname ${b}"), ("gone", "x")].map(|(n, text)| (n.to_owned(), text.to_owned()));
        let request =
            v1::ImportLabRequest { startup_configs: saved.into(), text: text.into(), ..Default::default() };
        let imported = read(&Catalogue::embedded(), request).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(imported.contents.keys().collect::<Vec<_>>(), [&Digest::of(b"hostname ${b}")]);
        assert_eq!(imported.spec.nodes[0].startup_config, imported.spec.files[0].path);
    }
}
