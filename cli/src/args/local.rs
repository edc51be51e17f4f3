//! Commands that need no server, or hardly.

use std::path::PathBuf;

use clap::Args;

use super::{Output, TopologyFile};

/// Check a topology file without a server; exit code 1 when it has errors
///
/// Everything that is wrong is told at once, each with its line and column. What merely informs is shown with -v; the JSON always has it.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  netloom validate
  netloom validate lab.clab.yml --kinds-dir /etc/netloom/kinds
  netloom validate lab.clab.yml --format json | jq '.diagnostics[] | select(.severity == \"SEVERITY_ERROR\")'")]
pub struct Validate {
    /// The file.
    #[command(flatten)]
    pub topology: TopologyFile,
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
#[command(after_long_help = "\
Examples:
  sudo netloom doctor
  sudo netloom doctor --format json | jq '.checks[] | select(.status != \"OK\")'")]
pub struct Doctor {
    /// The server's configuration, for its paths [default: /etc/netloom/netloom.toml where it exists]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Format.
    #[command(flatten)]
    pub output: Output,
}

/// Print the version of this program, and of the server where it answers
///
/// That no server answers is said, and is no error.
#[derive(Debug, Args)]
pub struct Version {
    /// Format.
    #[command(flatten)]
    pub output: Output,
}
