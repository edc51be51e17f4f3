//! Commands about whole labs.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::{Output, Topology, TopologyFile, values};

/// Bring a lab to what its topology file says, and wait until it is
///
/// Deploying an unchanged file does nothing; a changed one touches only what changed. Ctrl-C asks whether to detach or to cancel on a
/// terminal, and detaches elsewhere: the deploy goes on in the server, and the same command follows it again. Nodes that fit on no host
/// do not stop the others. A command of exec that fails stops nothing either: the node is READY and says so, the deploy ends with a
/// warning that names the nodes, and its exit code stays 0.
///
/// With --node-filter the lab is to have only these nodes: what else runs of it is removed. On a terminal it asks before it does that, elsewhere it
/// needs --yes.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  netloom deploy                          the one *.clab.yml in this directory
  netloom deploy lab.clab.yml             this file; -t lab.clab.yml says the same
  netloom deploy -t lab.clab.yml --timeout 10m
  netloom deploy -t lab.clab.yml --node-filter r1,r2
  netloom deploy -t lab.clab.yml --saved lab-config
  netloom generate ring -n 5 | netloom deploy -t -
  netloom deploy -t lab.clab.yml --format json | jq -r .state")]
pub struct Deploy {
    /// The file.
    #[command(flatten)]
    pub topology: TopologyFile,
    /// Longest time to wait, for instance 90s, 10m or 1h; the deploy itself goes on in the server
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    pub timeout: Option<Duration>,
    /// Only these nodes of the file, and the links between them: r1,r2. All else of the lab is removed
    #[arg(long, value_name = "NODES", value_delimiter = ',')]
    pub node_filter: Vec<String>,
    /// Start nodes with what netloom save wrote there, DIR/NODE.cfg, in place of their startup-config
    #[arg(long, value_name = "DIR")]
    pub saved: Option<PathBuf>,
    /// Do not ask before nodes are removed that --node-filter leaves out
    #[arg(short, long)]
    pub yes: bool,
    /// What Ctrl-C does: leave the deploy to the server, or cancel it [default: ask on a terminal, detach elsewhere]
    #[arg(long, value_enum, value_name = "WHAT")]
    pub on_interrupt: Option<OnInterrupt>,
    /// Format.
    #[command(flatten)]
    pub output: Output,
}

/// What Ctrl-C does to a deploy that is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OnInterrupt {
    /// It goes on in the server.
    Detach,
    /// It is cancelled: the lab goes back to what was deployed before.
    Cancel,
}

/// Say what deploy would do, and change nothing
///
/// Each line is a step: + is made, -/+ is removed and made anew, ~ is changed in place, - is removed, ! fits on no host. Then come the links whose ends
/// will be on two hosts.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  netloom plan
  netloom plan -t lab.clab.yml --exit-code || echo 'there is something to do'
  netloom plan -t lab.clab.yml --why
  netloom plan -t lab.clab.yml --format json | jq '.plan.actions | length'")]
pub struct Plan {
    /// The file.
    #[command(flatten)]
    pub topology: TopologyFile,
    /// Only these nodes of the file, and the links between them: r1,r2
    #[arg(long, value_name = "NODES", value_delimiter = ',')]
    pub node_filter: Vec<String>,
    /// Start nodes with what netloom save wrote there, DIR/NODE.cfg, in place of their startup-config
    #[arg(long, value_name = "DIR")]
    pub saved: Option<PathBuf>,
    /// End with exit code 10 when there is something to do, with 0 when there is nothing
    #[arg(long)]
    pub exit_code: bool,
    /// Say also why each node that is placed is not on the other hosts
    #[arg(long)]
    pub why: bool,
    /// Format.
    #[command(flatten)]
    pub output: Output,
}

/// Cancel what is under way in a lab, and wait until that is over
///
/// A cancelled deploy, or change of a link, takes the lab back to what was deployed before; what a first deploy had made is removed, and what was made anew or dropped is back as the same container. What was
/// asked of nodes with netloom node stays asked. A removal cannot be taken back. Where nothing is under way, nothing is done.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  netloom cancel ospf
  netloom cancel -t lab.clab.yml --timeout 10m")]
pub struct Cancel {
    /// The lab [default: the one of the topology file]
    #[arg(conflicts_with = "topology")]
    pub lab: Option<String>,
    /// The file.
    #[command(flatten)]
    pub topology: Topology,
    /// Longest time to wait, for instance 90s, 10m or 1h; the lab goes back by itself
    #[arg(long, value_name = "TIME", value_parser = values::duration, default_value = "5m")]
    pub timeout: Duration,
}

/// Remove a lab and all that belongs to it
///
/// On a terminal it asks first; where nobody can be asked, as in a pipe or a script, it does not, but --all then needs --yes. A lab
/// that does not exist is an error, exit code 4.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  netloom destroy ospf
  netloom destroy -t lab.clab.yml -y
  netloom destroy --all --yes")]
pub struct Destroy {
    /// The lab [default: the one of the topology file]
    #[arg(conflicts_with_all = ["topology", "all"])]
    pub lab: Option<String>,
    /// The file.
    #[command(flatten)]
    pub topology: Topology,
    /// Remove all labs
    #[arg(short, long, conflicts_with = "topology")]
    pub all: bool,
    /// Do not ask; needed with --all where there is no terminal to ask on
    #[arg(short, long)]
    pub yes: bool,
}
