//! `completions` and `man`: what other programs read of this one's definition.

use std::path::Path;

use clap::CommandFactory as _;

use super::Context;
use crate::args::Cli;
use crate::args::reference::{Completions, Man};
use crate::error::Error;
use crate::reference;

/// Prints completions.
pub fn completions(context: &Context, args: &Completions) -> Result<(), Error> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "netloom", &mut text);
    context.print(&String::from_utf8_lossy(&text))
}

/// Writes pages.
pub fn man(args: &Man) -> Result<(), Error> {
    if let Some(directory) = &args.dir {
        make(directory)?;
        clap_mangen::generate_to(Cli::command(), directory).map_err(|e| cannot(directory, e))?;
    }
    if let Some(directory) = &args.markdown {
        make(directory)?;
        let pages = reference::pages(Cli::command());
        for entry in std::fs::read_dir(directory).map_err(|e| cannot(directory, e))? {
            let path = entry.map_err(|e| cannot(directory, e))?.path();
            let is_page = path.extension().is_some_and(|e| e == "md");
            let is_made = path.file_name().and_then(|n| n.to_str()).is_some_and(|n| pages.contains_key(n));
            if is_page && !is_made {
                std::fs::remove_file(&path).map_err(|e| cannot(&path, e))?;
            }
        }
        for (name, text) in pages {
            let path = directory.join(name);
            std::fs::write(&path, text).map_err(|e| cannot(&path, e))?;
        }
    }
    Ok(())
}

fn make(directory: &Path) -> Result<(), Error> {
    std::fs::create_dir_all(directory).map_err(|e| cannot(directory, e))
}

fn cannot(path: &Path, e: std::io::Error) -> Error {
    Error::io(format!("{} cannot be written", path.display()), e)
}
