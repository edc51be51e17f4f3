//! Commands about kinds, hosts and images.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::Output;

/// What to do with kinds.
#[derive(Debug, Subcommand)]
pub enum Kinds {
    /// List them
    List {
        /// Format.
        #[command(flatten)]
        output: Output,
    },
    /// Show one
    Show {
        /// Its name
        name: String,
        /// Format.
        #[command(flatten)]
        output: Output,
    },
}

/// What to do with quotas.
#[derive(Debug, Subcommand)]
pub enum Quota {
    /// List them, with what is used
    #[command(visible_alias = "ls")]
    List {
        /// Format.
        #[command(flatten)]
        output: Output,
    },
    /// Show one
    Show {
        /// The project
        project: String,
        /// Format.
        #[command(flatten)]
        output: Output,
    },
    /// Set that of a project as a whole
    ///
    /// What is not named is without limit. A lab says its project in its topology file. Labs that ask for more already stay, and cannot ask for yet more.
    Set {
        /// The project
        project: String,
        /// Most nodes, bridges included
        #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32))]
        nodes: Option<u32>,
        /// Most CPU that nodes ask for, in cores
        #[arg(long, value_name = "CORES", value_parser = super::values::cores)]
        cpu: Option<i64>,
        /// Most memory that nodes ask for: 512MiB, 8GiB
        #[arg(long, value_name = "SIZE", value_parser = super::values::size)]
        memory: Option<i64>,
        /// Most disk that nodes ask for: 20GiB, 1TiB
        #[arg(long, value_name = "SIZE", value_parser = super::values::size)]
        disk: Option<i64>,
        /// Format.
        #[command(flatten)]
        output: Output,
    },
    /// Remove that of a project: its labs may ask for anything
    #[command(visible_alias = "rm")]
    Remove {
        /// The project
        project: String,
    },
}

/// A host that is named.
#[derive(Debug, Args)]
pub struct OneHost {
    /// The host
    pub host: String,
    /// Format.
    #[command(flatten)]
    pub output: Output,
}

/// What is said of a host, or not any more.
#[derive(Debug, Args)]
pub struct Said {
    /// The host
    pub host: String,
    /// KEY=VALUE or KEY sets it, KEY- takes it away
    #[arg(required = true, value_name = "KEY[=VALUE]|KEY-")]
    pub pairs: Vec<String>,
    /// Format.
    #[command(flatten)]
    pub output: Output,
}

/// What of a host may be reserved.
#[derive(Debug, Args)]
#[group(id = "what", required = true, multiple = true, args = ["cpu_overcommit", "memory_overcommit", "disk_overcommit", "system_cpu", "system_memory", "system_disk"])]
pub struct SetHost {
    /// The host
    pub host: String,
    /// How many times its CPU may be reserved, 0 to 1000; 0 is as the scheduler is configured
    #[arg(long, value_name = "TIMES")]
    pub cpu_overcommit: Option<f64>,
    /// How many times its memory may be reserved, 0 to 1000; 0 is as the scheduler is configured
    #[arg(long, value_name = "TIMES")]
    pub memory_overcommit: Option<f64>,
    /// How many times its disk may be reserved, 0 to 1000; 0 is as the scheduler is configured
    #[arg(long, value_name = "TIMES")]
    pub disk_overcommit: Option<f64>,
    /// CPU that is left to the host itself and never reserved, in cores
    #[arg(long, value_name = "CORES", value_parser = super::values::cores)]
    pub system_cpu: Option<i64>,
    /// Memory that is left to the host itself and never reserved: 512MiB, 8GiB
    #[arg(long, value_name = "SIZE", value_parser = super::values::size)]
    pub system_memory: Option<i64>,
    /// Disk that is left to the host itself and never reserved: 20GiB, 1TiB
    #[arg(long, value_name = "SIZE", value_parser = super::values::size)]
    pub system_disk: Option<i64>,
    /// Format.
    #[command(flatten)]
    pub output: Output,
}

/// What to do with hosts.
#[derive(Debug, Subcommand)]
pub enum Host {
    /// List them
    #[command(visible_alias = "ls")]
    List {
        /// Format.
        #[command(flatten)]
        output: Output,
    },
    /// Show one
    Show(OneHost),
    /// Make a token with which one machine can join, once
    ///
    /// It prints the command to type on that machine. The controller takes hosts in where its configuration says, by join_listen.
    Token {
        /// How long the token is good for, 1 minute to 7 days
        #[arg(long, value_name = "TIME", default_value = "1h", value_parser = super::values::duration)]
        ttl: Duration,
        /// Format.
        #[command(flatten)]
        output: Output,
    },
    /// Take no new nodes on a host; those on it stay
    Cordon(OneHost),
    /// Move all nodes away from a host, and take no new ones on it
    ///
    /// Each is made anew where there is room, as by node move; its links follow. What cannot move stays and is named with the reasons, and moves as soon as it can; the host stays as it is until host uncordon,
    /// which also cancels moves that are under way. The plan is shown first, and on a terminal it asks; where nobody can be asked it needs --yes. It waits until nothing of any lab is on the host, and fails when
    /// something stays.
    Drain(super::moves::Drain),
    /// Take nodes on a host again; a drain of it ends
    Uncordon(OneHost),
    /// Give a host labels, or take them away
    ///
    /// Nodes ask for labels of their host with placement in the topology file. It counts from the next placement on: nodes that are there stay.
    #[command(
        after_long_help = "Examples:\n  netloom host label rack2 rack=2 disk=nvme\n  netloom host label rack2 disk-"
    )]
    Label(Said),
    /// Give a host taints, which keep new nodes away that do not tolerate them, or take them away
    ///
    /// Nodes say with placement in the topology file which taints they tolerate. Nodes that are there stay.
    #[command(
        after_long_help = "Examples:\n  netloom host taint rack2 gpu=a100\n  netloom host taint rack2 gpu-"
    )]
    Taint(Said),
    /// Set how often a host's CPU, memory and disk may be reserved, and what of them is left to the host itself
    ///
    /// What is not named stays. Nodes that are there stay, also when more is reserved than may be from then on.
    #[command(
        after_long_help = "Examples:\n  netloom host set rack2 --cpu-overcommit 4\n  netloom host set rack2 --system-cpu 2 --system-memory 8GiB"
    )]
    Set(SetHost),
    /// Remove a host that joined; its certificate is refused from then on
    ///
    /// Refused while nodes are placed on it: drain it first.
    #[command(visible_alias = "rm")]
    Remove {
        /// The host
        host: String,
        /// Also with nodes on it: they are made anew elsewhere, and what runs there is no longer looked after
        #[arg(long)]
        force: bool,
    },
}
