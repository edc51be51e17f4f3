//! What this host's kernel lets nodes write below /proc/sys. Why that is what it is: docs/decisions/0013-network-sysctls.md.

use std::collections::BTreeSet;
use std::path::Path;

/// What Docker keeps from being written by itself, but /proc/sys as a whole.
const READ_ONLY: [&str; 4] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sysrq-trigger"];
/// Parts of /proc/sys that are the whole machine's. A kernel has some of them, some only once a module is loaded; what does not exist is skipped as a container starts.
const MACHINE_WIDE: [&str; 14] = [
    "abi", "bus", "coda", "crypto", "debug", "dev", "fs", "kernel", "s390dbf", "sched", "sunrpc", "user",
    "vm", "xen",
];
/// The part that each network namespace has of its own.
const NETWORK: &str = "net";

/// Kernel parameters of this host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Kernel {
    /// IPv6 can be turned on.
    pub has_ipv6: bool,
    /// Names of what is directly below /proc/sys.
    pub parts: BTreeSet<String>,
}

impl Kernel {
    /// Reads them.
    pub fn read() -> Kernel {
        let names = std::fs::read_dir("/proc/sys").into_iter().flatten().flatten();
        Kernel {
            has_ipv6: Path::new("/proc/sys/net/ipv6/conf/all/disable_ipv6").exists(),
            parts: names.filter_map(|entry| entry.file_name().into_string().ok()).collect(),
        }
    }

    /// What a node with a network namespace of its own or of another node's cannot write: all that Docker keeps from it, but the parameters of that namespace.
    pub fn read_only(&self) -> Vec<String> {
        let own = self.parts.iter().map(String::as_str).filter(|part| *part != NETWORK);
        let parts: BTreeSet<&str> = MACHINE_WIDE.into_iter().chain(own).collect();
        let parts = parts.into_iter().map(|part| format!("/proc/sys/{part}"));
        READ_ONLY.into_iter().map(str::to_owned).chain(parts).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_parameters_but_those_of_the_network_stay_read_only() {
        let kernel = Kernel::read();
        assert!(kernel.parts.contains(NETWORK) && kernel.parts.contains("kernel"), "{kernel:?}");
        let paths = kernel.read_only();
        for part in kernel.parts.iter().map(String::as_str).chain(MACHINE_WIDE) {
            assert_eq!(paths.contains(&format!("/proc/sys/{part}")), part != NETWORK, "{part}");
        }
        assert!(READ_ONLY.iter().all(|path| paths.iter().any(|p| p == path)));
        let newer = Kernel { parts: BTreeSet::from(["brand_new".to_owned()]), ..kernel };
        assert!(newer.read_only().contains(&"/proc/sys/brand_new".to_owned()));
    }
}
