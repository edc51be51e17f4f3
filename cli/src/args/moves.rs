//! Commands that move nodes to other hosts.

use clap::Args;

use super::change::{Nodes, Wait};
use super::lab_name::LabName;

/// What is said of any move.
#[derive(Debug, Clone, Copy, Args)]
pub struct How {
    /// Say what would move where and what would stay, and change nothing
    #[arg(long, visible_alias = "plan")]
    pub dry_run: bool,
    /// Do not copy the disks of virtual machines: each begins with a new one on the other host
    #[arg(long)]
    pub lose_disks: bool,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
}

/// Which nodes move, and where.
#[derive(Debug, Args)]
pub struct Move {
    /// Which.
    #[command(flatten)]
    pub asked: Nodes,
    /// The host that they move to [default: whichever has room]
    #[arg(long, value_name = "HOST")]
    pub to: Option<String>,
    /// Also from a host that is not heard of: if it runs on, there are two of each until it is heard of again
    #[arg(long)]
    pub force: bool,
    /// How.
    #[command(flatten)]
    pub how: How,
}

/// The lab that is rebalanced.
#[derive(Debug, Args)]
pub struct Rebalance {
    /// The lab.
    #[command(flatten)]
    pub lab: LabName,
    /// How it is waited for.
    #[command(flatten)]
    pub wait: Wait,
    /// How.
    #[command(flatten)]
    pub how: How,
}

/// The host that is drained.
#[derive(Debug, Args)]
pub struct Drain {
    /// The host
    pub host: String,
    /// How.
    #[command(flatten)]
    pub how: How,
    /// Longest time to wait, for instance 90s, 10m or 1h; the host goes on being drained
    #[arg(long, value_name = "TIME", value_parser = super::values::duration, default_value = "10m")]
    pub timeout: std::time::Duration,
    /// Format.
    #[command(flatten)]
    pub output: super::Output,
}
