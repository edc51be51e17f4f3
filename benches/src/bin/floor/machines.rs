//! Orders on standard input: virtual machines by hand, as netloom's own are. Each gets an overlay, one definition and a start, a few at once over connections that are open before.

use std::io::{BufRead as _, Write as _};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, bail, ensure};
use serde::Deserialize;
use virt::connect::Connect;
use virt::domain::Domain;
use virt::sys;

use crate::lab::note;

/// What the floor works on.
#[derive(Debug, Deserialize)]
struct Config {
    /// A directory of its own.
    dir: PathBuf,
    /// Where libvirt is.
    uri: String,
    /// Where disks of netloom's machines are.
    instances: PathBuf,
    /// The base image of all: a raw disk.
    base: PathBuf,
}

struct Machine {
    name: String,
    xml: String,
    dir: PathBuf,
}

struct Floor {
    config: Config,
    connections: Vec<Connect>,
    all: Vec<Machine>,
}

/// Takes orders until its input ends.
pub fn run(file: &str) -> anyhow::Result<()> {
    let config: Config = serde_json::from_slice(&std::fs::read(file)?)?;
    std::fs::create_dir_all(&config.dir)?;
    let mut floor = Floor { config, connections: Vec::new(), all: Vec::new() };
    for line in std::io::stdin().lock().lines() {
        let answer = match floor.order(&line?) {
            Ok(()) => "ok".to_owned(),
            Err(e) => format!("error: {e:#}").replace('\n', " "),
        };
        println!("{answer}");
        std::io::stdout().flush()?;
    }
    Ok(())
}

impl Floor {
    fn order(&mut self, line: &str) -> anyhow::Result<()> {
        let dir = self.config.dir.clone();
        match line.split(' ').collect::<Vec<_>>().as_slice() {
            // Not measured: takes what netloom has defined, so that the two cannot come apart.
            ["copy", owner] => self.copy(owner),
            ["deploy", at_once] => {
                let wanted: String = self.all.iter().map(|m| m.xml.as_str()).collect();
                note(&dir, "wanted", wanted.as_bytes())?;
                self.each(at_once.parse()?, |connect, machine| self.make(connect, machine))?;
                note(&dir, "done", b"deployed")
            }
            ["destroy", at_once] => {
                note(&dir, "wanted", b"")?;
                self.each(at_once.parse()?, remove)?;
                note(&dir, "done", b"removed")
            }
            _ => bail!("unknown order: {line}"),
        }
    }

    fn copy(&mut self, owner: &str) -> anyhow::Result<()> {
        self.connections = (0..8).map(|_| Connect::open(Some(&self.config.uri))).collect::<Result<_, _>>()?;
        let [theirs, own] =
            [&self.config.instances, &self.config.dir].map(|d| d.to_string_lossy().into_owned());
        self.all.clear();
        for domain in self.connections[0].list_all_domains(0)? {
            let xml = domain.get_xml_desc(sys::VIR_DOMAIN_XML_INACTIVE)?;
            if !xml.contains(owner) {
                continue;
            }
            let name = format!("floor-{}", domain.get_name()?);
            let id = uuid::Uuid::new_v4();
            let xml = with(&xml, "<name>", "</name>", &name)?;
            let xml = with(&xml, "<uuid>", "</uuid>", &id.to_string())?;
            // Without netloom's owner, so that netloom leaves it alone.
            let xml = with(&xml, "<metadata>", "</metadata>", "")?.replace(&theirs, &own);
            let at = xml.find(&own).context("a machine without a disk")? + own.len() + 1;
            let node = xml[at..].split('/').next().unwrap_or_default();
            self.all.push(Machine { dir: self.config.dir.join(node), name, xml });
        }
        ensure!(!self.all.is_empty(), "there are no machines of {owner}");
        Ok(())
    }

    /// Does something to all, so many at once.
    fn each(
        &self,
        at_once: usize,
        what: impl Fn(&Connect, &Machine) -> anyhow::Result<()> + Sync,
    ) -> anyhow::Result<()> {
        let next = AtomicUsize::new(0);
        let work = |connect: &Connect| {
            while let Some(machine) = self.all.get(next.fetch_add(1, Ordering::Relaxed)) {
                what(connect, machine).with_context(|| machine.name.clone())?;
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let hands: Vec<_> =
                self.connections.iter().take(at_once).map(|c| scope.spawn(|| work(c))).collect();
            hands.into_iter().try_for_each(|hand| hand.join().expect("no panic"))
        })
    }

    fn make(&self, connect: &Connect, machine: &Machine) -> anyhow::Result<()> {
        std::fs::create_dir_all(machine.dir.join("console"))?;
        let disk = machine.dir.join("disk.qcow2");
        let made = Command::new("qemu-img")
            .args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"])
            .args([&self.config.base, &disk])
            .status()?;
        ensure!(made.success(), "qemu-img made no overlay");
        std::fs::File::open(&disk)?.sync_all()?;
        Domain::define_xml(connect, &machine.xml)?.create()?;
        Ok(())
    }
}

fn remove(connect: &Connect, machine: &Machine) -> anyhow::Result<()> {
    let domain = Domain::lookup_by_name(connect, &machine.name)?;
    domain.destroy()?;
    domain.undefine()?;
    Ok(std::fs::remove_dir_all(&machine.dir)?)
}

/// The text with what is between these two replaced.
fn with(text: &str, open: &str, close: &str, new: &str) -> anyhow::Result<String> {
    let (before, rest) = text.split_once(open).with_context(|| format!("no {open}"))?;
    let (_, after) = rest.split_once(close).with_context(|| format!("no {close}"))?;
    Ok(format!("{before}{open}{new}{close}{after}"))
}
