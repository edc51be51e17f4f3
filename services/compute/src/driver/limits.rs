//! What instances may use at most.

use std::sync::LazyLock;

use netloom_model::spec::NodeSpec;
use serde::{Deserialize, Serialize};

/// What an instance may use at most, as read back. A limit that was taken off a running instance reads as all that the host has.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Limits {
    /// CPU in thousandths of a core; 0 is no limit.
    pub cpu_millis: u64,
    /// Memory in bytes; 0 is no limit.
    pub memory_bytes: u64,
    /// Cores; empty means any.
    pub cpu_set: String,
}

/// A limit of memory that is none: what cgroups take for it.
const UNLIMITED_MEMORY: u64 = (i64::MAX as u64) & !0xfff;

impl Limits {
    /// What is asked for.
    pub fn of(spec: &NodeSpec) -> Limits {
        Limits {
            cpu_millis: spec.cpu_limit_millis.into(),
            memory_bytes: spec.memory_limit_bytes,
            cpu_set: spec.cpu_set.clone(),
        }
    }

    /// The same, with no limit spelled as all that the host has: how it is said to an instance that had one.
    pub fn explicit(mut self) -> Limits {
        let cores = cores();
        if self.cpu_millis == 0 {
            self.cpu_millis = cores * 1000;
        }
        if self.memory_bytes == 0 {
            self.memory_bytes = UNLIMITED_MEMORY;
        }
        if self.cpu_set.is_empty() {
            self.cpu_set = format!("0-{}", cores - 1);
        }
        self
    }

    /// True when they are what is asked for.
    pub fn satisfy(&self, spec: &NodeSpec) -> bool {
        let asked = Limits::of(spec);
        let all = Limits::default().explicit();
        (self.cpu_millis == asked.cpu_millis || asked.cpu_millis == 0 && self.cpu_millis >= all.cpu_millis)
            && (self.memory_bytes == asked.memory_bytes
                || asked.memory_bytes == 0 && self.memory_bytes == UNLIMITED_MEMORY)
            && (self.cpu_set == asked.cpu_set || asked.cpu_set.is_empty() && self.cpu_set == all.cpu_set)
    }
}

/// Cores of this machine that processes may use. Asked once: the answer is read from several files, and every look at every instance needs it.
fn cores() -> u64 {
    static CORES: LazyLock<u64> = LazyLock::new(|| {
        nix::unistd::sysconf(nix::unistd::SysconfVar::_NPROCESSORS_ONLN)
            .ok()
            .flatten()
            .and_then(|n| u64::try_from(n).ok())
            .map_or(1, |n| n.max(1))
    });
    *CORES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_was_taken_off_is_none() {
        let mut spec = NodeSpec { cpu_limit_millis: 500, ..NodeSpec::default() };
        assert!(Limits::of(&spec).satisfy(&spec));
        assert!(!Limits::default().satisfy(&spec));
        assert!(!Limits::of(&spec).satisfy(&NodeSpec::default()));
        spec = NodeSpec::default();
        assert!(Limits::default().satisfy(&spec) && Limits::default().explicit().satisfy(&spec));
    }
}
