//! Builds the program that waits for interfaces: one static binary that runs in any image, whatever C library that has or lacks.

use std::env;
use std::path::PathBuf;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=wait/main.rs");
    println!("cargo::rerun-if-changed=build.rs");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("netloom-wait");
    let status = Command::new(env::var_os("RUSTC").expect("cargo sets RUSTC"))
        .args(["--edition=2024", "--crate-name=netloom_wait", "--crate-type=bin", "wait/main.rs"])
        .args(["-C", "target-feature=+crt-static", "-C", "panic=abort", "-C", "opt-level=2"])
        .args(["-C", "strip=symbols", "--target"])
        .arg(env::var_os("TARGET").expect("cargo sets TARGET"))
        .arg("-o")
        .arg(&out)
        .status()
        .expect("rustc runs");
    assert!(
        status.success(),
        "the interface wait (wait/main.rs) does not build; a static C library is needed: on Debian, package libc6-dev"
    );
}
