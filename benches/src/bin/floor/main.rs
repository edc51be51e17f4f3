//! The floor: the work that netloom does, done by hand by somebody who knows before what is wanted, with every batching there is and nothing of what makes netloom
//! netloom (no API, no plan, no state that is read back, no repair).
//!
//! `netloom-bench-floor lab FILE` takes orders on standard input, a line each, and answers each with `ok` or `error: …`; `netloom-bench-floor serve FILE` is a gRPC server that answers
//! with what it was given; `netloom-bench-floor machines FILE` takes orders as the first does, and makes virtual machines. Each is a process of its own, as netloomd is.

mod docker;
mod lab;
mod machines;
mod netlink;
mod ovs;
mod serve;
mod wires;

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let done = match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["lab", file] => lab::run(file),
        ["serve", file] => serve::run(file),
        ["machines", file] => machines::run(file),
        _ => Err(anyhow::anyhow!("say: netloom-bench-floor lab|serve|machines FILE")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{e:#}");
            ExitCode::FAILURE
        }
    }
}
