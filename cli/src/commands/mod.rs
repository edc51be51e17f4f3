//! One file a command: asks the server, hands what it said to `output`, prints.

use std::io::Write as _;

use crate::args::change;
use crate::args::things::Kinds;
use crate::args::{Command, Format, Global};
use crate::client::{Client, Trace};
use crate::error::Error;
use crate::output::json;
use crate::output::style::Style;

mod cancel;
mod capture;
mod console;
mod deploy;
mod destroy;
mod doctor;
mod events;
mod exec;
mod exec_many;
mod generate;
mod graph;
mod host;
mod image;
mod inspect;
mod inventory;
mod link;
mod list;
mod live;
mod logs;
mod moves;
mod node;
mod pull;
mod push;
mod quota;
mod reference;
mod save;
mod serial;
mod shell;
mod snapshot;
mod validate;
mod verify;
mod version;

/// What every command is run with.
pub struct Context {
    /// The global options.
    pub global: Global,
    /// The trace that its calls belong to.
    pub trace: Trace,
    /// Style of standard output.
    pub style: Style,
    /// Style of standard error.
    pub error_style: Style,
}

impl Context {
    /// The server.
    pub async fn client(&self) -> Result<Client, Error> {
        Client::connect(&self.global, &self.trace).await
    }

    /// Prints to standard output.
    pub fn print(&self, text: &str) -> Result<(), Error> {
        let mut out = std::io::stdout().lock();
        out.write_all(text.as_bytes())
            .and_then(|()| out.flush())
            .map_err(|e| Error::io("standard output cannot be written", e))
    }

    /// Prints a table, or the JSON that it shows.
    pub fn print_as(
        &self,
        format: Format,
        table: impl FnOnce() -> String,
        value: impl FnOnce() -> serde_json::Value,
    ) -> Result<(), Error> {
        match format {
            Format::Table => self.print(&table()),
            Format::Json => self.print(&json::text(&value())),
        }
    }
}

/// Runs a command; what it returns is the exit code.
pub async fn run(context: &Context, command: Command) -> Result<u8, Error> {
    let done = |()| 0;
    match command {
        Command::Deploy(a) => deploy::deploy(context, &a).await.map(done),
        Command::Plan(a) => deploy::plan(context, &a).await,
        Command::Node(change::Node::Snapshot(a)) => snapshot::run(context, a).await.map(done),
        Command::Node(change::Node::Move(a)) => moves::nodes(context, a).await.map(done),
        Command::Node(change::Node::Rebalance(a)) => moves::rebalance(context, a).await.map(done),
        Command::Node(change::Node::Change(a)) => node::run(context, a).await.map(done),
        Command::Link(a) => link::run(context, a).await,
        Command::Cancel(a) => cancel::run(context, a.lab, &a.topology, a.timeout).await.map(done),
        Command::Destroy(a) => destroy::run(context, a.lab, &a.topology, a.all, a.yes).await.map(done),
        Command::Inspect(a) => inspect::run(context, a).await.map(done),
        Command::Events(a) => events::run(context, a).await.map(done),
        Command::Graph(a) => graph::run(context, a).await.map(done),
        Command::Inventory(a) => inventory::run(context, &a.lab, a.format).await,
        Command::Generate(a) => generate::run(context, &a).map(done),
        Command::Exec(a) => exec::run(context, a).await,
        Command::Shell(a) => {
            shell::run(context, &a.lab, a.node.as_deref().unwrap_or_default(), a.command).await
        }
        Command::Console(a) => console::run(context, a).await,
        Command::Logs(a) => logs::run(context, a).await.map(done),
        Command::Capture(a) => capture::run(context, a).await.map(done),
        Command::Save(a) => save::run(context, a).await,
        Command::Validate(a) => {
            validate::run(context, a.topology.path(), &a.node_filter, a.kinds_dir.as_deref(), a.output.format)
        }
        Command::Kinds(Kinds::List { output }) => list::kinds(context, output.format).await.map(done),
        Command::Kinds(Kinds::Show { name, output }) => {
            list::kind(context, &name, output.format).await.map(done)
        }
        Command::Host(a) => host::run(context, a).await.map(done),
        Command::Quota(a) => quota::run(context, a).await.map(done),
        Command::Image(a) => image::run(context, a).await,
        Command::Doctor(a) => doctor::run(context, &a).await,
        Command::Completions(a) => reference::completions(context, &a).map(done),
        Command::Man(a) => reference::man(&a).map(done),
        Command::Version(a) => version::run(context, a.output.format).await.map(done),
    }
}

/// The lab that a command means: the one named, or the one of the topology file.
fn lab_named(lab: Option<String>, topology: &crate::args::Topology) -> Result<String, Error> {
    match lab {
        Some(lab) => Ok(lab),
        None => {
            let source =
                crate::source::Source::open(topology.topology.as_deref(), std::path::Path::new("."))?;
            Ok(source.lab()?.to_string())
        }
    }
}

/// Asks on the terminal; anything but yes is no.
fn confirmed(question: &str) -> Result<bool, Error> {
    use std::io::Write as _;
    print!("{question} [y/N] ");
    let mut answer = String::new();
    std::io::stdout()
        .flush()
        .and_then(|()| std::io::stdin().read_line(&mut answer))
        .map_err(|e| Error::io("the terminal cannot be asked", e))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Refuses to write over a file that exists, unless that is meant. A pipe or a device is there to be written to.
fn refuse_to_write_over(path: &std::path::Path, force: bool) -> Result<(), Error> {
    if force || !std::fs::metadata(path).is_ok_and(|m| m.is_file()) {
        return Ok(());
    }
    let file = path.display();
    Err(Error::Usage(format!("{file} exists already: name another file, or write over it with --force")))
}

/// Writes a result to standard output for "-", else to a file, which is replaced as a whole where that is meant.
fn write_to(context: &Context, path: &std::path::Path, force: bool, text: &str) -> Result<(), Error> {
    if path == std::path::Path::new("-") {
        return context.print(text);
    }
    refuse_to_write_over(path, force)?;
    crate::atomic::write(path, text.as_bytes())
        .map_err(|e| Error::io(format!("{} cannot be written", path.display()), e))
}

/// An instance's exit code as a program's.
fn exit_code(code: i32) -> u8 {
    u8::try_from(code).unwrap_or(u8::MAX)
}
