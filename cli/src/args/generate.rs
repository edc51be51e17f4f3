//! `generate`: shapes of topologies.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::generate::Plan;

/// Write a topology file of a well-known shape
///
/// The file is one that deploy takes as it is, with the interface names that the kinds have. What stands in it besides nodes and links is for you to add.
#[derive(Debug, Subcommand)]
#[command(after_long_help = "\
Examples:
  netloom generate clos --spines 2 --leaves 4 --hosts 2 -o fabric.clab.yml
  netloom generate clos --nodes 2,4,8              three tiers, each node linked with all of the next
  netloom generate fat-tree -k 4 --name dc1
  netloom generate ring -n 5 --ipv4 10.0.0.0/16    with two addresses of a /31 on each link
  netloom generate star -n 3 | netloom deploy -t -")]
pub enum Generate {
    /// A fabric of spines and leaves, or of several tiers
    Clos {
        /// Spines
        #[arg(long, value_name = "N", default_value_t = 2, value_parser = number(1))]
        spines: u32,
        /// Leaves
        #[arg(long, value_name = "N", default_value_t = 4, value_parser = number(1))]
        leaves: u32,
        /// Tiers instead, the topmost first, for instance 2,4,8
        #[arg(long, value_name = "N,…", value_delimiter = ',', conflicts_with_all = ["spines", "leaves"], value_parser = number(1))]
        nodes: Vec<u32>,
        /// Hosts behind each node of the lowest tier
        #[arg(long, value_name = "N", default_value_t = 1, value_parser = number(0))]
        hosts: u32,
        /// What the file says besides.
        #[command(flatten)]
        file: File,
    },
    /// A fat-tree of switches with k ports
    FatTree {
        /// Ports of a switch, an even number
        #[arg(short, value_name = "K", default_value_t = 4, value_parser = even)]
        k: u32,
        /// Hosts behind each edge switch [default: half of k]
        #[arg(long, value_name = "N", value_parser = number(0))]
        hosts: Option<u32>,
        /// What the file says besides.
        #[command(flatten)]
        file: File,
    },
    /// Each node linked with the next, the last with the first
    Ring {
        /// Nodes
        #[arg(short, value_name = "N", default_value_t = 5, value_parser = number(3))]
        n: u32,
        /// Hosts behind each node
        #[arg(long, value_name = "N", default_value_t = 0, value_parser = number(0))]
        hosts: u32,
        /// What the file says besides.
        #[command(flatten)]
        file: File,
    },
    /// Each node linked with the next
    Line {
        /// Nodes
        #[arg(short, value_name = "N", default_value_t = 4, value_parser = number(2))]
        n: u32,
        /// Hosts behind each node
        #[arg(long, value_name = "N", default_value_t = 0, value_parser = number(0))]
        hosts: u32,
        /// What the file says besides.
        #[command(flatten)]
        file: File,
    },
    /// Each node linked with each
    Mesh {
        /// Nodes
        #[arg(short, value_name = "N", default_value_t = 4, value_parser = number(2))]
        n: u32,
        /// Hosts behind each node
        #[arg(long, value_name = "N", default_value_t = 0, value_parser = number(0))]
        hosts: u32,
        /// What the file says besides.
        #[command(flatten)]
        file: File,
    },
    /// Hosts around a hub: one segment
    Star {
        /// Hosts
        #[arg(short, value_name = "N", default_value_t = 4, value_parser = number(1))]
        n: u32,
        /// Kind of the hub
        #[arg(long, value_name = "KIND", default_value = "bridge")]
        hub_kind: String,
        /// Image of the hub [default: the kind's]
        #[arg(long, value_name = "IMAGE", default_value = "", hide_default_value = true)]
        hub_image: String,
        /// What the file says besides.
        #[command(flatten)]
        file: File,
    },
}

/// What a generated file says besides its shape.
#[derive(Debug, Clone, Args)]
pub struct File {
    /// Name of the lab [default: that of the shape]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Kind of the nodes
    #[arg(long, value_name = "KIND", default_value = "frr")]
    pub kind: String,
    /// Image of the nodes [default: the kind's]
    #[arg(long, value_name = "IMAGE", default_value = "", hide_default_value = true)]
    pub image: String,
    /// Kind of the hosts
    #[arg(long, value_name = "KIND", default_value = "linux")]
    pub host_kind: String,
    /// Image of the hosts [default: the kind's, for linux netloom/host:local]
    #[arg(long, value_name = "IMAGE")]
    pub host_image: Option<String>,
    /// Give addresses out of this network: a /31 for each link, one network for what is linked with a bridge
    #[arg(long, value_name = "NETWORK")]
    pub ipv4: Option<Plan>,
    /// Directory with kinds of your own, as the server's kinds_dir
    #[arg(long, value_name = "DIR")]
    pub kinds_dir: Option<PathBuf>,
    /// Where to write; - is standard output. A file that exists is left as it is
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    pub output: PathBuf,
    /// Write over a file that exists
    #[arg(long)]
    pub force: bool,
}

impl Generate {
    /// What its file says besides its shape.
    pub fn file(&self) -> &File {
        match self {
            Generate::Clos { file, .. }
            | Generate::FatTree { file, .. }
            | Generate::Ring { file, .. }
            | Generate::Line { file, .. }
            | Generate::Mesh { file, .. }
            | Generate::Star { file, .. } => file,
        }
    }
}

/// A number of nodes. A lab holds 5,000.
fn number(least: i64) -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(least..=5_000)
}

fn even(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(k) if (2..=64).contains(&k) && k % 2 == 0 => Ok(k),
        _ => Err("write an even number from 2 to 64".to_owned()),
    }
}
