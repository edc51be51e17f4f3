//! Commands about the command line itself.

use std::path::PathBuf;

use clap::Args;
use clap_complete::Shell;

/// Print what makes a shell complete netloom's commands and options
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  netloom completions bash | sudo tee /usr/share/bash-completion/completions/netloom
  netloom completions zsh > ~/.zfunc/_netloom
  netloom completions fish > ~/.config/fish/completions/netloom.fish

make install puts them where bash, zsh and fish look.")]
pub struct Completions {
    /// The shell
    #[arg(value_enum)]
    pub shell: Shell,
}

/// Write the manual pages, or the pages of docs/cli
///
/// For whoever packages or changes netloom: make install and make docs call it.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub struct Man {
    /// Write a manual page for each command to this directory
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Write a page in Markdown for each command to this directory, and remove those of commands that are no more
    #[arg(long, value_name = "DIR")]
    pub markdown: Option<PathBuf>,
}
