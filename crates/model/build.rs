//! Lists the files of `kinds/`, so that a kind is a file there and nothing else.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

fn main() {
    let kinds = Path::new(&std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("../../kinds");
    let kinds = kinds.canonicalize().unwrap_or_else(|e| panic!("{}: {e}", kinds.display()));
    println!("cargo::rerun-if-changed={}", kinds.display());
    let entries = std::fs::read_dir(&kinds).unwrap_or_else(|e| panic!("{}: {e}", kinds.display()));
    let mut files: Vec<PathBuf> = entries.map(|e| e.expect("a readable directory").path()).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "toml"));
    files.sort();
    let mut text = String::from("&[\n");
    for file in files {
        let name = file.file_name().and_then(|n| n.to_str()).expect("a name in UTF-8");
        writeln!(text, "    ({name:?}, include_str!({:?})),", file.display().to_string()).expect("a string");
    }
    text.push(']');
    let out = PathBuf::from(std::env::var("OUT_DIR").expect("cargo sets it")).join("kinds.rs");
    std::fs::write(&out, text).unwrap_or_else(|e| panic!("{}: {e}", out.display()));
}
