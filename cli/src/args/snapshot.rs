//! Commands about snapshots of nodes.

use clap::{Args, Subcommand};

use super::Output;
use super::change::Wait;
use super::lab_name::LabName;
use crate::error::Error;

/// A node that is named.
#[derive(Debug, Args)]
pub struct Of {
    /// The lab.
    #[command(flatten)]
    pub lab: LabName,
    /// The node
    #[arg(required_unless_present = "topology")]
    pub node: Option<String>,
    /// Format.
    #[command(flatten)]
    pub output: Output,
}

/// A snapshot that is named.
#[derive(Debug, Args)]
pub struct Named {
    /// The lab.
    #[command(flatten)]
    pub lab: LabName,
    /// The node
    #[arg(required_unless_present = "topology")]
    pub node: Option<String>,
    /// The snapshot, for instance before-upgrade
    #[arg(required_unless_present = "topology")]
    pub name: Option<String>,
}

impl Named {
    fn settle(&mut self) -> Result<(), Error> {
        self.lab.settle(&mut [&mut self.node, &mut self.name])
    }
}

/// What to do with snapshots.
#[derive(Debug, Subcommand)]
pub enum Snapshot {
    /// Keep a virtual machine as it is now: its disk, and its memory when it runs
    ///
    /// One that runs stands still while its memory is written. The snapshot is kept in the machine's own disk on its host: it is gone when the node is wiped, removed or made anew.
    Create {
        /// Which.
        #[command(flatten)]
        of: Named,
        /// Format.
        #[command(flatten)]
        output: Output,
    },
    /// List the snapshots of a node, oldest first
    #[command(visible_alias = "ls")]
    List(Of),
    /// Start a node from a snapshot, and wait until it is ready; what its disk holds by now is lost
    ///
    /// A node that runs is stopped first. With a snapshot that has its memory it goes on where it was, else it boots from the disk. On a terminal it asks first; where nobody can be asked it needs --yes.
    Restore {
        /// Which.
        #[command(flatten)]
        of: Named,
        /// Restore without asking
        #[arg(short, long)]
        yes: bool,
        /// How it is waited for.
        #[command(flatten)]
        wait: Wait,
    },
    /// Forget a snapshot
    #[command(visible_alias = "rm")]
    Delete(Named),
}

impl Snapshot {
    /// Reads the lab's name from its topology file, where one is given.
    pub fn settle(&mut self) -> Result<(), Error> {
        match self {
            Snapshot::List(of) => of.lab.settle(&mut [&mut of.node]),
            Snapshot::Create { of, .. } | Snapshot::Restore { of, .. } | Snapshot::Delete(of) => of.settle(),
        }
    }

    /// The lab and the node that are named.
    pub fn names(&self) -> (&str, &str) {
        let (lab, node) = match self {
            Snapshot::List(of) => (&of.lab, &of.node),
            Snapshot::Create { of, .. } | Snapshot::Restore { of, .. } | Snapshot::Delete(of) => {
                (&of.lab, &of.node)
            }
        };
        (lab.as_str(), node.as_deref().unwrap_or_default())
    }
}
