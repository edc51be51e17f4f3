//! Commands about what runs in nodes.

use clap::Args;

/// Run a command in a node; ends with the command's exit code
#[derive(Debug, Args)]
pub struct Exec {
    /// The lab
    pub lab: String,
    /// The node
    pub node: String,
    /// Hand standard input to the command; it is read to its end first, and may be 4 MiB long, the command counted in
    #[arg(short, long)]
    pub interactive: bool,
    /// The command and its arguments; no shell is involved
    #[arg(last = true, required = true, value_name = "CMD")]
    pub command: Vec<String>,
}

/// Open a terminal in a node; leaving its shell ends it
///
/// Standard input has to be a terminal; exec -i hands a command what comes from a pipe or a file.
#[derive(Debug, Args)]
pub struct Shell {
    /// The lab
    pub lab: String,
    /// The node
    pub node: String,
    /// Command instead of the shell of the node's kind
    #[arg(last = true, value_name = "CMD")]
    pub command: Vec<String>,
}

/// Print what a node's first process wrote
#[derive(Debug, Args)]
pub struct Logs {
    /// The lab
    pub lab: String,
    /// The node
    pub node: String,
    /// Go on as more is written
    #[arg(short, long)]
    pub follow: bool,
    /// Only the last N lines
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub tail: Option<u32>,
}
