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

/// Check this machine: Docker, Open vSwitch, kernel, rights, disk, virtual machines; with --fix, prepare it
///
/// Exit code 1 when something is missing that netloom cannot do without, or when a fix did not take. Run it as root: what only root may look at is otherwise not
/// checked. Without --fix nothing is changed. With it, each change is shown, and made when you say so; each is then checked again, and files are put back where it did not
/// take. What was right already is left alone, and no fix makes a machine less secure.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  sudo netloom doctor
  sudo netloom doctor --format json | jq '.checks[] | select(.status != \"OK\")'
  sudo netloom doctor --fix --dry-run
  sudo netloom doctor --fix
  sudo netloom doctor --fix --yes lvm fs.inotify.max_user_instances")]
pub struct Doctor {
    /// Only these checks, by their names as doctor prints them [default: all]
    #[arg(value_name = "CHECK")]
    pub checks: Vec<String>,
    /// Also mend what can be mended from here, with backups of the files that are changed
    #[arg(long)]
    pub fix: bool,
    /// With --fix: only show what would be changed
    #[arg(long, requires = "fix", conflicts_with = "yes")]
    pub dry_run: bool,
    /// With --fix: do not ask
    #[arg(long, requires = "fix")]
    pub yes: bool,
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
