//! Commands about kinds, hosts and images.

use clap::Subcommand;

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

/// What to do with objects that can only be listed.
#[derive(Debug, Subcommand)]
pub enum List {
    /// List them
    List {
        /// Format.
        #[command(flatten)]
        output: Output,
    },
}
