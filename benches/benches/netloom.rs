//! `make bench`: each row is a ratio against a floor measured in the same run, never an absolute figure that says more of the machine than of netloom.
//!
//! `cargo bench --workspace --bench netloom -- deploy list` measures only these sections. `NETLOOM_BENCH_QUICK=1` makes everything small, to see that it works.

mod carrier;
mod deploy;
mod discovery;
mod floor;
mod hosts;
mod idle;
mod images;
mod latency;
mod list;
mod machines;
mod place;
mod repair;
mod rig;
mod wires;
mod work;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use netloom_benches::{head, over, quick, table};

/// The sections, in the order in which they are measured.
const SECTIONS: [(&str, fn()); 14] = [
    ("discovery", discovery::rows),
    ("latency", latency::rows),
    ("list", list::rows),
    ("place", place::rows),
    ("hosts", hosts::rows),
    ("deploy", deploy::rows),
    ("links", deploy::links_rows),
    ("work", work::rows),
    ("carrier", carrier::rows),
    ("wires", wires::rows),
    ("repair", repair::rows),
    ("images", images::rows),
    ("machines", machines::rows),
    ("idle", idle::rows),
];

fn main() -> ExitCode {
    if std::env::var_os("NETLOOM_LOG").is_none() {
        // SAFETY: no other thread runs yet. What an installation logs is what is measured, not what tests want to read.
        unsafe { std::env::set_var("NETLOOM_LOG", "info") };
    }
    // Cargo says `--bench`.
    let chosen: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    if let Some(unknown) = chosen.iter().find(|c| !SECTIONS.iter().any(|(name, _)| name == c)) {
        let names: Vec<&str> = SECTIONS.iter().map(|(name, _)| *name).collect();
        eprintln!("there is no section {unknown}: they are {}", names.join(", "));
        return ExitCode::from(2);
    }
    if quick() {
        println!("small sizes, which say nothing of bars");
    }
    println!("{}", head());
    let mut failed = Vec::new();
    for (name, rows) in SECTIONS {
        let wanted = chosen.is_empty() || chosen.iter().any(|c| c == name);
        // One that cannot be measured is no reason to lose the others.
        if wanted && catch_unwind(AssertUnwindSafe(rows)).is_err() {
            failed.push(name);
        }
    }
    let path = netloom_tests::binaries().join("bench.md");
    match std::fs::write(&path, table()) {
        Ok(()) => println!("\nThe table is in {}", path.display()),
        Err(e) => eprintln!("the table cannot be written to {}: {e}", path.display()),
    }
    if !failed.is_empty() {
        eprintln!("not measured: {}", failed.join(", "));
    }
    let over = if quick() { Vec::new() } else { over() };
    if !over.is_empty() {
        eprintln!("over their bars: {}", over.join("; "));
    }
    if failed.is_empty() && over.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
