//! Orders on standard input: containers and wires, made and removed by hand.

use std::io::{BufRead as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde::Deserialize;

use crate::docker::Containers;
use crate::ovs::Ovs;
use crate::wires::{Link, Plane, Wires};

/// What the floor works on.
#[derive(Debug, Deserialize)]
pub struct Config {
    /// A directory of its own.
    pub dir: PathBuf,
    /// Open vSwitch's database.
    pub ovsdb: PathBuf,
    /// Where bridges' management sockets are.
    pub ovs_run_dir: PathBuf,
    /// Its own bridge.
    pub bridge: String,
    /// What carries wires.
    pub plane: Plane,
    /// The links: node, interface, node, interface.
    pub links: Vec<[String; 4]>,
    /// MTU of all interfaces.
    pub mtu: u32,
}

/// Takes orders until its input ends.
pub fn run(file: &str) -> anyhow::Result<()> {
    let config: Config = serde_json::from_slice(&std::fs::read(file)?)?;
    std::fs::create_dir_all(&config.dir)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut floor = runtime.block_on(Floor::new(config))?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let answer = match runtime.block_on(floor.order(&line)) {
            Ok(()) => "ok".to_owned(),
            Err(e) => format!("error: {e:#}").replace('\n', " "),
        };
        println!("{answer}");
        std::io::stdout().flush()?;
    }
    Ok(())
}

struct Floor {
    containers: Containers,
    wires: Wires,
    dir: PathBuf,
}

impl Floor {
    async fn new(config: Config) -> anyhow::Result<Floor> {
        let ovs = match config.plane {
            Plane::Ovs => Some(Ovs::connect(&config).await?),
            Plane::Kernel => None,
        };
        let links = config.links.iter().map(|[a, x, b, y]| Link::new([(a, x), (b, y)])).collect();
        Ok(Floor {
            containers: Containers::new(config.dir.join("nodes"))?,
            wires: Wires::new(links, config.mtu, ovs),
            dir: config.dir,
        })
    }

    async fn order(&mut self, line: &str) -> anyhow::Result<()> {
        match line.split(' ').collect::<Vec<_>>().as_slice() {
            // Not measured: takes the options of netloom's own containers, so that they cannot come apart.
            ["copy", owner] => self.containers.copy(owner).await,
            ["containers", at_once] => self.containers.make(at_once.parse()?).await,
            ["remove", at_once] => self.containers.remove(at_once.parse()?).await,
            ["wire"] => self.wires.make(self.containers.pids()).await,
            ["unwire"] => self.wires.remove().await,
            ["deploy", at_once] => {
                // What was asked for survives a power cut, and so does that it was done.
                note(&self.dir, "wanted", &self.containers.wanted()).context("the note of what is wanted")?;
                self.containers.make(at_once.parse()?).await?;
                self.wires.make(self.containers.pids()).await?;
                note(&self.dir, "done", b"deployed").context("the note of what is done")
            }
            ["destroy", at_once] => {
                note(&self.dir, "wanted", b"")?;
                let (wires, containers) =
                    tokio::join!(self.wires.remove(), self.containers.remove(at_once.parse()?));
                wires.and(containers)?;
                note(&self.dir, "done", b"removed")
            }
            _ => bail!("unknown order: {line}"),
        }
    }
}

/// Writes something down so that it survives a power cut.
pub fn note(dir: &Path, name: &str, text: &[u8]) -> anyhow::Result<()> {
    let mut file = std::fs::File::create(dir.join(name))?;
    file.write_all(text)?;
    Ok(file.sync_all()?)
}
