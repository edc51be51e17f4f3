//! A host that is led from another machine: compute and network in one process, behind one TLS port.
//!
//! ```text
//! join ENDPOINT TOKEN ─► key made here ─► certificate ─► <data-dir>/membership.json
//! serve: controller ══TLS══► front ─┬─► mem:compute ─── images ══TLS══► controller
//!                                   └─► mem:network
//!        renew: a new key and certificate when a third of the old one's time is left
//! ```
//!
//! The same two services as in netloomd, which cannot tell the difference. The controller dials; nobody else is admitted.

mod args;
mod join;
mod membership;
mod renew;
mod serve;

use std::process::ExitCode;

use clap::Parser as _;
use netloom_service::program;

use crate::args::{Args, Command};

fn main() -> ExitCode {
    let args = Args::parse();
    match args.command {
        None => program::run("netloom-host", &args.places(), serve::run),
        Some(Command::Join(ref join)) => {
            let asked = join.clone();
            program::run("netloom-host", &args.places(), |settings, _| async move {
                join::run(&settings, asked).await
            })
        }
        Some(Command::Completions { shell }) => {
            args::completions(shell);
            ExitCode::SUCCESS
        }
        Some(Command::Man { dir }) => match args::man(&dir) {
            Ok(()) => ExitCode::SUCCESS,
            Err(e) => {
                eprintln!("netloom-host: {} cannot be written: {e}", dir.display());
                ExitCode::FAILURE
            }
        },
    }
}
