//! How compute hands a running virtual machine to network: a regular file `<run-dir>/netns/<node uid>.<start id>`, beside the namespaces of
//! containers.
//!
//! ```text
//! process 4711 90210          its QEMU, and when that started, in clock ticks since the host did
//! carrier 17 18               wire ids of its NICs whose link was read back to be up
//! lacks 19                    wire ids of NICs that it runs without, and has from its next start on; left out where there are none
//! ```
//!
//! A process id is given out again, so the file also says when its process started: one that a crash or a reboot left behind is known for what it is.
//! The file is replaced as a whole, so nobody reads half of it.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io;
use std::path::Path;
use std::str::FromStr;

use netloom_model::id::WireId;

/// A running virtual machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Its QEMU.
    pub pid: i32,
    /// When that started, in clock ticks since the host did.
    pub started: u64,
    /// Its NICs whose link was read back to be up: the guest sees carrier there.
    pub carrier: BTreeSet<WireId>,
    /// NICs that it runs without, and has from its next start on.
    pub lacks: BTreeSet<WireId>,
}

impl Machine {
    /// The machine that this process runs, without carrier.
    pub fn of(pid: i32) -> io::Result<Machine> {
        Ok(Machine { pid, started: started(pid)?, carrier: BTreeSet::new(), lacks: BTreeSet::new() })
    }

    /// True while its process lives.
    pub fn is_alive(&self) -> bool {
        started(self.pid).is_ok_and(|started| started == self.started)
    }

    /// Puts it where network looks, in place of what was there.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        // A name with a dot in front is nobody's.
        let new = path.with_file_name(format!(".{name}"));
        fs::write(&new, self.to_string())?;
        fs::rename(&new, path)
    }

    /// The machine that a file tells of; none when it is not such a file.
    pub fn read(path: &Path) -> Option<Machine> {
        fs::read_to_string(path).ok()?.parse().ok()
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "process {} {}", self.pid, self.started)?;
        f.write_str("carrier")?;
        self.carrier.iter().try_for_each(|wire| write!(f, " {wire}"))?;
        if !self.lacks.is_empty() {
            f.write_str("\nlacks")?;
            self.lacks.iter().try_for_each(|wire| write!(f, " {wire}"))?;
        }
        f.write_str("\n")
    }
}

impl FromStr for Machine {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Machine, &'static str> {
        Machine::parse(text).ok_or("not what a virtual machine is handed over by")
    }
}

impl Machine {
    fn parse(text: &str) -> Option<Machine> {
        let mut lines = text.lines();
        let mut process = lines.next()?.strip_prefix("process ")?.split_whitespace();
        let (pid, started) = (process.next()?.parse().ok()?, process.next()?.parse().ok()?);
        let wires = |text: &str| {
            let wires = text.split_whitespace();
            wires.map(|wire| WireId::try_from(wire.parse::<u64>().ok()?).ok()).collect::<Option<_>>()
        };
        let carrier = wires(lines.next()?.strip_prefix("carrier")?)?;
        let lacks = lines.next().map_or(Some(BTreeSet::new()), |line| wires(line.strip_prefix("lacks")?))?;
        Some(Machine { pid, started, carrier, lacks })
    }
}

/// When a process started, in clock ticks since the host did.
fn started(pid: i32) -> io::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // Its name, which may hold anything, stands in brackets before the rest; the state is the first word behind.
    let words = stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace()).into_iter().flatten();
    let words: Vec<&str> = words.collect();
    let ended = matches!(words.first(), None | Some(&"Z" | &"X"));
    let started = words.get(19).and_then(|word| word.parse().ok());
    started.filter(|_| !ended).ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the process has ended"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.1");
        let pid = i32::try_from(std::process::id()).unwrap();
        let mut machine = Machine::of(pid).unwrap();
        assert!(machine.is_alive());
        for wires in [vec![], vec![7u64, 1 << 62]] {
            machine.carrier = wires.into_iter().map(|wire| wire.try_into().unwrap()).collect();
            machine.lacks = machine.carrier.iter().take(1).copied().collect();
            machine.write(&path).unwrap();
            assert_eq!(Machine::read(&path), Some(machine.clone()));
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing else stays");
        for damaged in [
            "",
            "process",
            "process 1\ncarrier\n",
            "process 1 2\n",
            "process 1 2\ncarrier x\n",
            "process 1 2\ncarrier\nlacks x\n",
        ] {
            assert!(damaged.parse::<Machine>().is_err(), "{damaged:?}");
        }
    }

    #[test]
    fn a_process_with_the_same_number_is_not_the_same() {
        let machine = Machine::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(!Machine { started: machine.started + 1, ..machine.clone() }.is_alive());
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let of_child = Machine::of(i32::try_from(child.id()).unwrap()).unwrap();
        assert!(of_child.is_alive());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!of_child.is_alive());
    }
}
