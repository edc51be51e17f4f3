//! Commands that need no server, or hardly.

use std::path::PathBuf;

use clap::Args;

use super::Output;

/// Check a topology file without a server; exit code 1 when it has errors
#[derive(Debug, Args)]
pub struct Validate {
    /// The file; - reads standard input [default: the one *.clab.yml or *.clab.yaml in this directory]
    pub file: Option<PathBuf>,
    /// Directory with kinds of your own, as the server's kinds_dir
    #[arg(long, value_name = "DIR")]
    pub kinds_dir: Option<PathBuf>,
    /// Only these nodes of the file, and the links between them: r1,r2
    #[arg(long, value_name = "NODES", value_delimiter = ',')]
    pub node_filter: Vec<String>,
    /// Format.
    #[command(flatten)]
    pub output: Output,
}

/// Check this machine: Docker, Open vSwitch, kernel, rights, disk; changes nothing
///
/// Exit code 1 when something is missing that netloom cannot do without. Run it as root: what only root may look at is otherwise not
/// checked.
#[derive(Debug, Args)]
pub struct Doctor {
    /// The server's configuration, for its paths [default: /etc/netloom/netloom.toml where it exists]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Format.
    #[command(flatten)]
    pub output: Output,
}

/// Print the version of this program, and of the server where it answers
#[derive(Debug, Args)]
pub struct Version {
    /// Format.
    #[command(flatten)]
    pub output: Output,
}
