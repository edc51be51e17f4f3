//! Any text is answered within bounds, and what has no error yields a spec that keeps the rules of every spec.

#![no_main]

use std::collections::BTreeMap;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use netloom_model::kind::Catalogue;
use netloom_topology::{BundleFiles, Input, parse};

static CATALOGUE: LazyLock<Catalogue> = LazyLock::new(Catalogue::embedded);

fuzz_target!(|text: &str| {
    let file = |content: &str| (content.as_bytes().to_vec(), 0o644);
    let files = BundleFiles(BTreeMap::from([
        ("r1/frr.conf".to_owned(), file("hostname r1\n")),
        ("common.env".to_owned(), file("A=1\n")),
        ("ca.pem".to_owned(), file("a certificate\n")),
        ("ca.key".to_owned(), file("a key\n")),
    ]));
    let env = |name: &str| (name == "IMAGE").then(|| "alpine:3.20".to_owned());
    let all_env = || BTreeMap::from([("IMAGE".to_owned(), "alpine:3.20".to_owned())]);
    let parsed = parse(&Input {
        file_name: "fuzz.clab.yml",
        text,
        env: &env,
        all_env: &all_env,
        node_filter: &[],
        startup_configs: &std::collections::BTreeMap::new(),
        files: &files,
        catalogue: &CATALOGUE,
    });
    if parsed.ok() {
        assert!(parsed.lab.is_some());
        assert_eq!(parsed.spec.check(), []);
        assert_eq!(CATALOGUE.check(&parsed.spec), []);
    }
});
