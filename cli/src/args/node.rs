//! Commands about what runs in nodes.

use std::path::PathBuf;

use clap::Args;

use super::lab_name::LabName;
use super::{Output, values};

/// Which nodes are meant.
#[derive(Debug, Clone, Default, Args)]
pub struct Select {
    /// All nodes, but for bridges
    #[arg(long, help_heading = "Which nodes")]
    pub all: bool,
    /// Only nodes of this kind; may be given several times
    #[arg(long, value_name = "KIND", help_heading = "Which nodes")]
    pub kind: Vec<String>,
    /// Only nodes of this group of the topology; may be given several times
    #[arg(long, value_name = "GROUP", help_heading = "Which nodes")]
    pub group: Vec<String>,
    /// Only nodes with this label; given several times, all of them count
    #[arg(long, value_name = "KEY[=VALUE]", help_heading = "Which nodes")]
    pub label: Vec<String>,
}

/// Run a command in a node, or in several at once; ends with the command's exit code
///
/// With one node its output is passed on as it comes, and its exit code is the end. With several nodes, by name with * and ?, or by --all, --kind,
/// --group and --label, they run at the same time; what each wrote is printed below its name as it is done, in the order of the names. The exit
/// code is then the highest of all, where a node in which the command could not be run counts as 1; 0 means that it was 0 everywhere.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  netloom exec ospf r1 -- vtysh -c 'show ip route'
  netloom exec ospf r1 -i -- sh < script.sh
  netloom exec ospf 'r*' -- vtysh -c 'show ip ospf neighbor'
  netloom exec ospf --kind linux -- ping -c1 10.2.0.10
  netloom exec ospf --all --prefix -- tail -f /var/log/frr.log
  netloom exec ospf --all --format json -- uname -r | jq -r 'to_entries[] | \"\\(.key) \\(.value.stdout)\"'

With --format json standard output is one object: {NODE: {\"stdout\", \"stderr\", \"exit_code\"}}; where the command could not be run exit_code
is null and \"error\" says why.")]
pub struct Exec {
    /// The lab.
    #[command(flatten)]
    pub lab: LabName,
    /// The nodes, by name or with * and ?; quote these, or the shell takes them for files
    #[arg(value_name = "NODE")]
    pub nodes: Vec<String>,
    /// Which nodes.
    #[command(flatten)]
    pub select: Select,
    /// Hand standard input to the command; it is read to its end first, and may be 4 MiB long, the command counted in
    #[arg(short, long)]
    pub interactive: bool,
    /// Print each line as it comes, with its node's name before it
    #[arg(long)]
    pub prefix: bool,
    /// Most nodes at the same time
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = values::at_once)]
    pub parallel: usize,
    /// Format.
    #[command(flatten)]
    pub output: Output,
    /// The command and its arguments; no shell is involved
    #[arg(last = true, required = true, value_name = "CMD")]
    pub command: Vec<String>,
}

/// Open a terminal in a node; leaving its shell ends it
///
/// Standard input has to be a terminal; exec -i hands a command what comes from a pipe or a file. Every key reaches the node: console has a key to
/// leave by.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  netloom shell ospf r1               the shell of the node's kind, for frr vtysh
  netloom shell ospf r1 -- bash       another")]
pub struct Shell {
    /// The lab.
    #[command(flatten)]
    pub lab: LabName,
    /// The node
    #[arg(required_unless_present = "topology")]
    pub node: Option<String>,
    /// Command instead of the shell of the node's kind
    #[arg(last = true, value_name = "CMD")]
    pub command: Vec<String>,
}

/// Open the console of a node, which a key leaves
///
/// Of a virtual machine it is the first serial port. First the end of what it has written is shown. Any number may read it; one writes at a time,
/// and --take takes over from who does. It has no size: a program in the machine takes it for 80 by 24, unless stty says otherwise. It goes on when
/// one leaves.
///
/// A container has no console of its own: this runs the shell of the node's kind in a terminal, as netloom shell does. What differs is that the
/// detach key leaves it at any time, also when what runs there takes all other keys, and that a line says so first. Leaving ends what was run in
/// it.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  netloom console ospf r1                           Ctrl-] leaves
  netloom console ospf r1 --detach-key ctrl-a
  netloom console ospf r1 --detach-key none         only the end of the shell leaves
  netloom console mixed vm1 --take                  from whoever writes there now")]
pub struct Console {
    /// The lab.
    #[command(flatten)]
    pub lab: LabName,
    /// The node
    #[arg(required_unless_present = "topology")]
    pub node: Option<String>,
    /// Key that leaves: ctrl- and a letter or one of @ [ \ ] ^ _, or none
    #[arg(long, value_name = "KEY", default_value = "ctrl-]", value_parser = values::key)]
    pub detach_key: values::Key,
    /// Of a virtual machine: write also when somebody else does, who is told and reads on
    #[arg(long, conflicts_with = "read_only")]
    pub take: bool,
    /// Of a virtual machine: read, and leave writing to others
    #[arg(long)]
    pub read_only: bool,
}

/// Print what the first process of a node wrote, or of several nodes
///
/// Lines of several nodes have the node's name before them. With --follow it goes on as more is written, also when a node is started again, which
/// standard error then says; it ends when the nodes are removed, or with Ctrl-C. When the server goes away it is asked again until it is back, and
/// the log goes on after the last line that came.
///
/// What steers a terminal is left out: serial consoles write much of it between their words. --raw prints that too.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  netloom logs ospf r1 --tail 20
  netloom logs ospf r1 r2 -f
  netloom logs ospf 'r*' --tail 5
  netloom logs ospf --all -f")]
pub struct Logs {
    /// The lab.
    #[command(flatten)]
    pub lab: LabName,
    /// The nodes, by name or with * and ?; quote these, or the shell takes them for files
    #[arg(value_name = "NODE")]
    pub nodes: Vec<String>,
    /// Which nodes.
    #[command(flatten)]
    pub select: Select,
    /// Go on as more is written
    #[arg(short, long)]
    pub follow: bool,
    /// Only the last N lines of each node
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub tail: Option<u32>,
    /// Also what steers a terminal: colours, and what else consoles write between their words
    #[arg(long)]
    pub raw: bool,
}

/// Save the running configuration of nodes to files
///
/// Each node is asked as its kind says, for frr by vtysh -c 'show running-config', or for the file that its save-file names, and what it says is written to DIR/NODE.cfg. A file is
/// replaced as a whole, and only by a configuration that was read to its end; where a node fails the file stays as it was. Saving again is what
/// it is for, so it asks for no --force, as those do that write one file (generate, graph, capture). Without nodes all of the lab are saved that are of a kind that can be asked; a node that is named and cannot is a failure.
///
/// What a file held before is kept in DIR/history/NODE under the time at which it was saved, the last 20 of each node. deploy --saved DIR starts nodes with what was saved.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  netloom save ospf                       all nodes, to ospf-config/
  netloom save ospf r1 r2 --dir backup
  netloom save ospf --kind frr

The exit code is 1 when a node could not be saved; the others are.")]
pub struct Save {
    /// The lab.
    #[command(flatten)]
    pub lab: LabName,
    /// The nodes, by name or with * and ? [default: all]
    #[arg(value_name = "NODE")]
    pub nodes: Vec<String>,
    /// Which nodes.
    #[command(flatten)]
    pub select: Select,
    /// Where to; it is made where it is not there [default: LAB-config]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Format.
    #[command(flatten)]
    pub output: Output,
}
