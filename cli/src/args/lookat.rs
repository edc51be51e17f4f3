//! Commands that show labs to people and to other programs: pictures and inventories.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::Topology;

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
    /// Where to write; - is standard output
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    pub output: PathBuf,
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
/// The addresses are those of the management network, read back from the nodes; a node without one is reached through its container, where
/// the format knows how.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  netloom inventory ospf > inventory.yml && ansible -i inventory.yml all -m raw -a 'ip -br addr'
  netloom inventory ospf --format ssh-config >> ~/.ssh/config
  netloom inventory ospf --format hosts | sudo tee -a /etc/hosts

The block of --format hosts stands between two lines that name the lab, so that a script can replace it.")]
pub struct Inventory {
    /// The lab
    pub lab: String,
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
