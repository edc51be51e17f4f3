//! `netloom`, the command line. It talks to the gateway only, through the same API as every other client, so that nothing can be done here that a program
//! cannot do.
//!
//! The flow: [`args`] reads what is asked, [`commands`] has one file a command, which asks the server through [`client`] and prints through
//! [`output`]; [`source`] reads topology files, [`select`] tells which nodes are meant, [`follow`] waits for operations, [`busy`] for those of others, [`watching`] for whatever
//! changes, [`terminal`] is the user's terminal; [`graph`], [`generate`] and [`inventory`] make text of labs, [`mod@reference`] pages of this program. How each ends is in [`error`].

use std::process::ExitCode;

use clap::Parser as _;

use crate::args::{Cli, habits};
use crate::client::Trace;
use crate::commands::Context;
use crate::output::style::Style;

mod args;
mod atomic;
mod busy;
mod client;
mod commands;
mod error;
mod follow;
mod generate;
mod graph;
mod interrupt;
mod inventory;
mod output;
mod reference;
mod select;
mod source;
mod terminal;
mod watching;

/// Exit code of a program whose reader went away, as the shell counts it.
const BROKEN_PIPE: u8 = 141;

fn main() -> ExitCode {
    let typed: Vec<String> = std::env::args_os().skip(1).map(|a| a.to_string_lossy().into_owned()).collect();
    let Cli { global, mut command } = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(refused) => habits::advised(refused, &typed).exit(),
    };
    let no_color = global.no_color;
    let ready = global.with_environment().and_then(|global| command.settle().map(|()| global));
    let global = match ready {
        Ok(global) => global,
        Err(e) => {
            let e = told(e, &typed);
            let style = Style::of(&std::io::stderr(), no_color);
            eprint!("{}", output::error::text(style, &e, "", &Default::default()));
            return ExitCode::from(e.exit_code());
        }
    };
    let context = Context {
        style: Style::of(&std::io::stdout(), global.no_color),
        error_style: Style::of(&std::io::stderr(), global.no_color),
        trace: Trace::new(),
        global,
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("error: cannot start: {e}");
            return ExitCode::FAILURE;
        }
    };
    let names = command.names();
    let outcome = runtime.block_on(commands::run(&context, command));
    // A read of standard input may still wait; the end does not wait for it.
    runtime.shutdown_background();
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(e) if e.is_broken_pipe() => ExitCode::from(BROKEN_PIPE),
        Err(e) => {
            let e = told(e, &typed);
            eprint!("{}", output::error::text(context.error_style, &e, context.trace.id(), &names));
            ExitCode::from(e.exit_code())
        }
    }
}

/// The error, or what is told in its stead.
fn told(error: error::Error, typed: &[String]) -> error::Error {
    habits::instead(&error, typed, |word| std::path::Path::new(word).is_file()).unwrap_or(error)
}
