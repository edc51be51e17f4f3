//! Commands that change nodes and links of a lab that runs.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::lab_name::LabName;
use super::moves::{Move, Rebalance};
use super::snapshot::Snapshot;
use super::{Output, values};
use crate::busy::Patience;
use crate::error::Error;

/// Longest time that a change is waited for, and how its outcome is printed.
#[derive(Debug, Clone, Args)]
pub struct Wait {
    /// Longest time to wait, for instance 90s, 10m or 1h; the change itself goes on in the server
    #[arg(long, value_name = "TIME", value_parser = values::duration, default_value = "5m")]
    pub timeout: Duration,
    /// Where another operation works on the lab, wait for its end first
    #[arg(long)]
    pub wait: bool,
    /// Format.
    #[command(flatten)]
    pub output: Output,
}

impl Wait {
    /// How an operation that is in the way is met.
    pub fn patience(&self) -> Patience {
        Patience { wait: self.wait, timeout: self.timeout }
    }
}

/// The nodes of a lab that are meant.
#[derive(Debug, Args)]
pub struct Nodes {
    /// The lab.
    #[command(flatten)]
    pub lab: LabName,
    /// The nodes; * and ? stand for any text and any character
    #[arg(required_unless_present = "topology", value_name = "NODE")]
    pub nodes: Vec<String>,
    /// How it is waited for.
    #[command(flatten)]
    pub wait: Wait,
}

/// What to do with nodes.
#[derive(Debug, Subcommand)]
pub enum Node {
    /// Changes them.
    #[command(flatten)]
    Change(Change),
    /// Move nodes to other hosts, and wait until they are ready there
    ///
    /// Each is made anew on the other host, with its links and addresses; it runs on where it is until the image is there, and comes back there when it does not come up. What programs wrote in a container is lost.
    /// The disk of a virtual machine is copied there with its snapshots, unless --lose-disks says that it may begin with a new one; the machine is down while it is. Nodes that share a network namespace move together.
    /// The plan is shown first, and on a terminal it asks; where nobody can be asked it needs --yes.
    Move(Move),
    /// Move nodes so that fewer links of a lab go between hosts, or one host is less full than another
    ///
    /// Nothing moves where neither can be had, and nothing that has to stay where it is. See node move for what is lost.
    Rebalance(Rebalance),
    /// Keep virtual machines as they are, and go back to that
    #[command(subcommand)]
    Snapshot(Snapshot),
}

/// How nodes are changed.
#[derive(Debug, Subcommand)]
pub enum Change {
    /// Start nodes that were stopped, and wait until they are ready
    Start(Nodes),
    /// Stop nodes, and wait until they are; they keep their disks, and their links lose carrier
    Stop(Nodes),
    /// Stop nodes and start them again, and wait until they are ready
    Restart(Nodes),
    /// Throw away what nodes have written, and make them anew from their images
    ///
    /// Of a virtual machine its disks go, with their snapshots; of a container all that it has changed, and its volumes of its own. Files of the lab that a node mounts stay as they are, and so do its links and
    /// addresses. Nodes that run are stopped first, started again after, and waited for; one that is stopped stays so, and is made anew when it is next started. On a terminal it asks first; where nobody can
    /// be asked it needs --yes.
    Wipe(Wipe),
}

/// Which nodes to wipe.
#[derive(Debug, Args)]
pub struct Wipe {
    /// Which.
    #[command(flatten)]
    pub asked: Nodes,
    /// Wipe without asking
    #[arg(short, long)]
    pub yes: bool,
}

impl Node {
    /// Reads the lab's name from its topology file, where one is given.
    pub fn settle(&mut self) -> Result<(), Error> {
        let asked = match self {
            Node::Change(
                Change::Start(a) | Change::Stop(a) | Change::Restart(a) | Change::Wipe(Wipe { asked: a, .. }),
            ) => a,
            Node::Move(moves) => &mut moves.asked,
            Node::Rebalance(rebalance) => return rebalance.lab.settle(&mut []),
            Node::Snapshot(snapshot) => return snapshot.settle(),
        };
        asked.lab.settle_many(&mut asked.nodes)?;
        match asked.nodes.is_empty() {
            true => Err(Error::Usage("name the nodes; '*' means all of them".to_owned())),
            false => Ok(()),
        }
    }

    /// The lab and the node that are named; no node where several may be.
    pub fn names(&self) -> (&str, &str) {
        match self {
            Node::Change(
                Change::Start(a) | Change::Stop(a) | Change::Restart(a) | Change::Wipe(Wipe { asked: a, .. }),
            ) => (&a.lab, ""),
            Node::Move(moves) => (&moves.asked.lab, ""),
            Node::Rebalance(rebalance) => (&rebalance.lab, ""),
            Node::Snapshot(snapshot) => snapshot.names(),
        }
    }
}

/// Which way an impairment is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Direction {
    /// From the end that the link shows first to the other.
    AToB,
    /// The other way.
    BToA,
    /// Both ways.
    Both,
}

/// What happens to frames.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct Impairment {
    /// Most bits a second, for instance 10mbit, 500kbit or 1gbit; 0 is no limit
    #[arg(long, value_name = "RATE", value_parser = values::rate)]
    pub rate: Option<u64>,
    /// Delay, for instance 5ms, 200us or 1s
    #[arg(long, value_name = "TIME", value_parser = values::microseconds)]
    pub delay: Option<u32>,
    /// Random part of the delay
    #[arg(long, value_name = "TIME", value_parser = values::microseconds)]
    pub jitter: Option<u32>,
    /// Frames lost, for instance 1% or 0.05%
    #[arg(long, value_name = "PERCENT", value_parser = values::millionths)]
    pub loss: Option<u32>,
    /// Frames with a flipped bit
    #[arg(long, value_name = "PERCENT", value_parser = values::millionths)]
    pub corrupt: Option<u32>,
    /// Frames sent twice
    #[arg(long, value_name = "PERCENT", value_parser = values::millionths)]
    pub duplicate: Option<u32>,
    /// Frames sent out of order
    #[arg(long, value_name = "PERCENT", value_parser = values::millionths)]
    pub reorder: Option<u32>,
}

/// A link that is named.
#[derive(Debug, Args)]
pub struct Named {
    /// The lab.
    #[command(flatten)]
    pub lab: LabName,
    /// The link, as r1:eth1--r2:eth1 or by either of its ends, as r1:eth1
    #[arg(required_unless_present = "topology")]
    pub link: Option<String>,
    /// How it is waited for.
    #[command(flatten)]
    pub wait: Wait,
}

impl Named {
    fn settle(&mut self) -> Result<(), Error> {
        self.lab.settle(&mut [&mut self.link])
    }

    /// The link as it was named.
    pub fn link(&self) -> &str {
        self.link.as_deref().unwrap_or_default()
    }
}

/// A link to add.
#[derive(Debug, Args)]
pub struct Add {
    /// The lab.
    #[command(flatten)]
    pub lab: LabName,
    /// One end, as r1:eth3
    #[arg(required_unless_present = "topology")]
    pub a: Option<String>,
    /// The other end, as r2:eth3
    #[arg(required_unless_present = "topology")]
    pub b: Option<String>,
    /// MTU in bytes of both interfaces [default: 9500]
    #[arg(long, value_name = "BYTES")]
    pub mtu: Option<i32>,
    /// What happens to frames, both ways.
    #[command(flatten)]
    pub impairment: Impairment,
    /// Say what would be done, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// How it is waited for.
    #[command(flatten)]
    pub wait: Wait,
}

/// What of a link is set.
#[derive(Debug, Args)]
pub struct Set {
    /// The link.
    #[command(flatten)]
    pub link: Named,
    /// MTU in bytes of both interfaces
    #[arg(long, value_name = "BYTES")]
    pub mtu: Option<i32>,
    /// What happens to frames; what is not named stays.
    #[command(flatten)]
    pub impairment: Impairment,
    /// Which way frames go to which it happens
    #[arg(long, value_enum, default_value = "both", value_name = "DIRECTION")]
    pub direction: Direction,
    /// Forget what happened to frames before
    #[arg(long)]
    pub clear: bool,
    /// Say what would be done, and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// A link to check.
#[derive(Debug, Args)]
pub struct Check {
    /// The lab.
    #[command(flatten)]
    pub lab: LabName,
    /// The link, as r1:eth1--r2:eth1 or by either of its ends, as r1:eth1
    #[arg(required_unless_present = "topology")]
    pub link: Option<String>,
    /// How many frames are sent each way, 1 to 200 [default: 10, more where the link loses some]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(i32).range(1..=200))]
    pub frames: Option<i32>,
    /// Format.
    #[command(flatten)]
    pub output: Output,
}

/// What to do with links.
#[derive(Debug, Subcommand)]
pub enum Link {
    /// List the links of a lab
    List {
        /// The lab.
        #[command(flatten)]
        lab: LabName,
        /// Format.
        #[command(flatten)]
        output: Output,
    },
    /// Add a link; its nodes run on
    ///
    /// The lab's spec changes by it: a deploy of the topology file removes the link again unless the file has it too.
    Add(Add),
    /// Remove a link; its nodes run on and lose the interfaces
    Remove(Named),
    /// Plug a link that was unplugged
    Up(Named),
    /// Unplug a link: both ends lose carrier, until it is plugged or the lab is deployed again
    Down(Named),
    /// Change the MTU of a link, and what happens to frames on it; its nodes run on
    Set(Set),
    /// Send marked frames over a link, both ways, and say where they stop
    ///
    /// They go from the interfaces of the nodes themselves, and are looked for at each place that they come by. Nothing behind the link takes them up,
    /// and nothing is left of them. What the link is asked to lose is no fault. Exit code 1 when frames stop.
    Check(Check),
}

impl Link {
    /// Reads the lab's name from its file, where that is given.
    pub fn settle(&mut self) -> Result<(), Error> {
        match self {
            Link::List { lab, .. } => lab.settle(&mut []),
            Link::Add(add) => add.lab.settle(&mut [&mut add.a, &mut add.b]),
            Link::Remove(named) | Link::Up(named) | Link::Down(named) => named.settle(),
            Link::Set(set) => set.link.settle(),
            Link::Check(check) => check.lab.settle(&mut [&mut check.link]),
        }
    }

    /// The lab that is named.
    pub fn lab(&self) -> &str {
        match self {
            Link::List { lab, .. } => lab,
            Link::Add(a) => &a.lab,
            Link::Remove(a) | Link::Up(a) | Link::Down(a) => &a.lab,
            Link::Set(a) => &a.link.lab,
            Link::Check(a) => &a.lab,
        }
    }
}
