//! The lab that a command means: by its name, or by its topology file with `-t`, as hands that are used to containerlab type it.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::error::Error;
use crate::source::Source;

/// The lab that is meant. With `-t` the name is not typed: what stands in its place is the next argument, and [`LabName::settle`] moves all by one.
#[derive(Debug, Clone, Args)]
pub struct LabName {
    /// The lab; left out with -t
    #[arg(required_unless_present = "topology")]
    lab: Option<String>,
    /// Topology file that names the lab; - reads standard input
    #[arg(short, long = "topology", visible_alias = "topo", value_name = "FILE")]
    topology: Option<PathBuf>,
}

impl LabName {
    /// Its name; empty before the file is read.
    pub fn as_str(&self) -> &str {
        self.lab.as_deref().unwrap_or_default()
    }

    /// Reads the name from the file, where one is given; the arguments behind it are at their places then.
    pub fn settle(&mut self, rest: &mut [&mut Option<String>]) -> Result<(), Error> {
        let Some(file) = self.topology.take() else { return Ok(()) };
        let mut moved = self.lab.take();
        for argument in rest.iter_mut() {
            std::mem::swap(&mut moved, argument);
        }
        match (moved, rest.last()) {
            (Some(_), _) => Err(Error::Usage(format!(
                "name the lab or its topology file: with -t {} the lab is not named again",
                file.display()
            ))),
            (None, Some(None)) => {
                Err(Error::Usage("an argument is missing; --help shows which there are".to_owned()))
            }
            (None, _) => self.read(&file),
        }
    }

    /// The same where any number of arguments follows, which is told.
    pub fn settle_many(&mut self, rest: &mut Vec<String>) -> Result<(), Error> {
        let Some(file) = self.topology.take() else { return Ok(()) };
        if let Some(first) = self.lab.take() {
            rest.insert(0, first);
        }
        self.read(&file)
    }

    fn read(&mut self, file: &Path) -> Result<(), Error> {
        self.lab = Some(Source::open(Some(file), Path::new("."))?.lab()?.to_string());
        Ok(())
    }
}

impl std::ops::Deref for LabName {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl std::fmt::Display for LabName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(lab: Option<&str>, file: &Path) -> LabName {
        LabName { lab: lab.map(str::to_owned), topology: Some(file.to_owned()) }
    }

    #[test]
    fn the_name_comes_from_the_file_and_what_is_typed_moves_by_one() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("x.clab.yml");
        std::fs::write(&file, "name: ospf\ntopology:\n  nodes:\n    h: {kind: linux, image: a:1}\n").unwrap();

        let mut lab = named(Some("r1"), &file);
        let mut nodes = vec!["r2".to_owned()];
        lab.settle_many(&mut nodes).unwrap();
        assert_eq!((lab.as_str(), nodes.as_slice()), ("ospf", &["r1".to_owned(), "r2".to_owned()][..]));

        let mut lab = named(Some("r1:eth1"), &file);
        let (mut a, mut b) = (Some("r2:eth1".to_owned()), None);
        lab.settle(&mut [&mut a, &mut b]).unwrap();
        assert_eq!((lab.as_str(), a.as_deref(), b.as_deref()), ("ospf", Some("r1:eth1"), Some("r2:eth1")));

        let mut lab = named(None, &file);
        lab.settle(&mut []).unwrap();
        assert_eq!(lab.as_str(), "ospf");
        for (lab, node) in [(Some("ospf"), Some("r1")), (None, None)] {
            let mut node = node.map(str::to_owned);
            let said = named(lab, &file).settle(&mut [&mut node]).unwrap_err();
            assert!(matches!(said, Error::Usage(_)), "{said}");
        }
    }
}
