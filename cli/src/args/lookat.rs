//! Commands that show labs to people and to other programs: tables, events, pictures and inventories.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::lab_name::LabName;
use super::{Output, Topology};

/// Show labs, nodes and links as they are
///
/// With --watch the tables are drawn anew with each change until Ctrl-C; where standard output is no terminal, each change is a line instead.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_long_help = "\
Examples:
  netloom inspect ospf                    nodes and links of a lab
  netloom inspect ospf r1 --wide          one node, and all that is known of it
  netloom inspect ospf --watch            the same, as it changes
  netloom inspect --all --wide            all labs, and everything that is known of their nodes
  netloom inspect interfaces ospf         interfaces with addresses and what they are linked with
  netloom inspect ospf --format json | jq -r '.nodes[] | select(.state != \"NODE_STATE_READY\") | .name'

A lab that is called interfaces is shown by --all, or by -t with its topology file."
)]
pub struct Inspect {
    /// The lab [default: the one of the topology file]
    #[arg(conflicts_with_all = ["topology", "all"])]
    pub lab: Option<String>,
    /// Only these nodes and their links, by name or with * and ?; quote these, or the shell takes them for files
    #[arg(value_name = "NODE", conflicts_with_all = ["topology", "all", "watch"])]
    pub nodes: Vec<String>,
    /// The file.
    #[command(flatten)]
    pub topology: Topology,
    /// Show all labs and their nodes
    #[arg(short, long, conflicts_with = "topology")]
    pub all: bool,
    /// Show everything that is known of nodes, reasons whole, and how old each state is and what it was read from
    #[arg(short, long)]
    pub wide: bool,
    /// Go on, and show what changes
    #[arg(long)]
    pub watch: bool,
    /// How results are printed
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub format: Shape,
    /// Something else of a lab.
    #[command(subcommand)]
    pub what: Option<What>,
}

/// What of a lab is shown instead of all of it.
#[derive(Debug, Subcommand)]
pub enum What {
    Interfaces(Interfaces),
}

/// Show interfaces: MAC, MTU, addresses, and what they are linked with
///
/// The state is what was read back from the node: UP has carrier, DOWN has none, ABSENT is not in the node. INSIDE is the name in the node. ADDRESSES GIVEN
/// are those that the topology file gives; which ones the node has by now it says itself: netloom exec LAB NODE -- ip addr.
#[derive(Debug, Args)]
pub struct Interfaces {
    /// The lab [default: the one of the topology file]
    #[arg(conflicts_with = "topology")]
    pub lab: Option<String>,
    /// The file.
    #[command(flatten)]
    pub topology: Topology,
    /// Only those of this node
    #[arg(long, value_name = "NODE")]
    pub node: Option<String>,
    /// How results are printed
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub format: Shape,
}

/// How tables are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Shape {
    /// For people.
    #[default]
    Table,
    /// The API's own JSON, for programs.
    Json,
    /// Rows for spreadsheets: the nodes, or the interfaces.
    Csv,
}

/// Follow what changes in labs, until Ctrl-C
///
/// First comes a snapshot of what there is, then each change as it happens, with its number and what is new. When the server goes away it is asked
/// again until it is back, and the events go on after the last one that was seen; when it no longer has those, a new snapshot comes.
/// Standard error says so. With --format json each line is a WatchLabsResponse of the API, without the heartbeats.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  netloom events                         all labs
  netloom events ospf --no-snapshot      one lab, only what changes from now on
  netloom events --since 1042            what came after the event with this number
  netloom events ospf --format json | jq -r 'select(.node) | [.node.name, .node.state] | @tsv'")]
pub struct Events {
    /// Only of this lab [default: of all]
    #[arg(conflicts_with = "topology")]
    pub lab: Option<String>,
    /// Only of the lab of this topology file; - reads standard input
    #[arg(short, long = "topology", visible_alias = "topo", value_name = "FILE")]
    pub topology: Option<PathBuf>,
    /// Begin after the event with this number, without a snapshot; 0 begins with one
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub since: u64,
    /// Do not print the snapshot
    #[arg(long)]
    pub no_snapshot: bool,
    /// Format.
    #[command(flatten)]
    pub output: Output,
}

/// Draw a lab: as it runs, or as a topology file asks for it
///
/// With LAB the server is asked, and nodes and links have the colour of their state. With -t FILE nothing but the file is read: no server is
/// needed. Fabrics are drawn in rows, rings, meshes and stars as circles, everything else so that what is linked is near.
///
/// What a node is drawn as follows from its kind and its name; the labels graph-icon (router, switch or host) and graph-level (a number; the smallest is the
/// topmost row) of a node say otherwise. Levels count when all nodes have one.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  netloom graph ospf -o ospf.svg               the running lab, as a picture
  netloom graph -t lab.clab.yml --dark > x.svg what a file asks for, light on dark
  netloom graph ospf --format dot | dot -Tpdf -o ospf.pdf
  netloom graph ospf --format mermaid          for a Markdown page
  netloom graph ospf --format json             nodes, links and places, for programs")]
pub struct Graph {
    /// The lab [default: the one topology file in this directory, without a server]
    #[arg(conflicts_with = "topology")]
    pub lab: Option<String>,
    /// The file.
    #[command(flatten)]
    pub topology: Topology,
    /// What is written [default: what the name of the output file ends in, else svg]
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub format: Option<Picture>,
    /// Where to write; - is standard output. A file that exists is left as it is
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    pub output: PathBuf,
    /// Write over a file that exists
    #[arg(long)]
    pub force: bool,
    /// Light on dark; only for svg
    #[arg(long)]
    pub dark: bool,
}

/// Forms of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Picture {
    /// A picture that needs no other program.
    Svg,
    /// Text for Graphviz.
    Dot,
    /// Text for Markdown pages.
    Mermaid,
    /// Nodes, links and where the picture has them.
    Json,
}

/// Print a lab's nodes for other tools: Ansible, ssh, name resolution
///
/// The addresses are those of the management network, as netloom inspect shows them; a node without one is reached through its container, where
/// the format knows how. Where it does not, ssh-config and hosts leave the node out and say so on standard error; when that leaves nothing, as in
/// a lab without a management network, the exit code is 1.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  netloom inventory ospf > inventory.yml && ansible -i inventory.yml all -m raw -a 'ip -br addr'
  netloom inventory ospf --format ssh-config >> ~/.ssh/config
  netloom inventory ospf --format hosts | sudo tee -a /etc/hosts

The block of --format hosts stands between two lines that name the lab, so that a script can replace it.")]
pub struct Inventory {
    /// The lab.
    #[command(flatten)]
    pub lab: LabName,
    /// What is printed
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub format: InventoryFormat,
}

/// Forms of an inventory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum InventoryFormat {
    /// An inventory for Ansible, in YAML: a group for each kind.
    #[default]
    Ansible,
    /// Host entries for ssh(1), of the nodes that have a management address.
    SshConfig,
    /// Lines for /etc/hosts, of the nodes that have a management address.
    Hosts,
    /// The same for programs.
    Json,
}
