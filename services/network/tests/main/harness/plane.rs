//! Suites that run over both planes by name.

use std::fmt;

use super::{Host, run};

/// The plane that a host has for wires of labs that do not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum On {
    Ovs,
    Kernel,
    Auto,
    /// Every second node is a virtual machine.
    OvsWithMachines,
    /// See [`On::OvsWithMachines`].
    KernelWithMachines,
}

impl On {
    /// The plane alone.
    fn plane(self) -> On {
        match self {
            On::OvsWithMachines => On::Ovs,
            On::KernelWithMachines => On::Kernel,
            plane => plane,
        }
    }

    /// Whether some of its nodes are virtual machines.
    pub fn has_machines(self) -> bool {
        self != self.plane()
    }
}

impl fmt::Display for On {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.plane() {
            On::Ovs => "ovs",
            On::Kernel => "kernel",
            _ => "auto",
        })
    }
}

/// Makes of functions that take a plane one test for each plane: `ovs::NAME` and `kernel::NAME`.
macro_rules! on_both_planes {
    ($($test:ident),+ $(,)?) => {
        mod ovs {
            $(#[test] fn $test() { super::$test($crate::harness::On::Ovs); })+
        }
        mod kernel {
            $(#[test] fn $test() { super::$test($crate::harness::On::Kernel); })+
        }
    };
}
pub(crate) use on_both_planes;

/// The same, where every second node is a virtual machine: `with_machines::ovs::NAME` and `with_machines::kernel::NAME`.
macro_rules! with_machines {
    ($($test:ident),+ $(,)?) => {
        mod with_machines {
            mod ovs {
                $(#[test] fn $test() { super::super::$test($crate::harness::On::OvsWithMachines); })+
            }
            mod kernel {
                $(#[test] fn $test() { super::super::$test($crate::harness::On::KernelWithMachines); })+
            }
        }
    };
}
pub(crate) use with_machines;

impl Host {
    /// What makes the wires between NICs, as the plane tells it: flows, or redirects; two of a wire.
    pub fn joints(&self) -> Vec<String> {
        match self.on.plane() {
            On::Ovs => self.ovs.flows("nl0"),
            _ => {
                let of = |name: String| {
                    let shown = run("tc", &["filter", "show", "dev", &name, "ingress"]);
                    let line = shown.lines().find(|line| line.contains("Egress Redirect to device"))?;
                    Some(format!("{name}: {}", line.trim()))
                };
                self.interfaces().into_iter().filter_map(of).collect()
            }
        }
    }

    /// Takes all that away behind the service's back.
    pub fn cut(&self) {
        match self.on.plane() {
            On::Ovs => drop(self.ovs.ofctl("del-flows", "nl0", &[])),
            _ => {
                for name in self.interfaces() {
                    run("tc", &["filter", "del", "dev", &name, "ingress"]);
                }
            }
        }
    }

    /// Lets frames out where they do not belong, and leaves their way as it is.
    pub fn leak(&self) {
        match self.on.plane() {
            On::Ovs => drop(self.ovs.ofctl("add-flow", "nl0", &["priority=60000,actions=NORMAL"])),
            _ => {
                let joints = self.joints();
                let (from, rest) = joints[0].split_once(": ").unwrap();
                let to = rest.split_once("to device ").unwrap().1.split_once(')').unwrap().0;
                let (elsewhere, _) = joints.last().unwrap().split_once(": ").unwrap();
                let pref = shown_pref(from);
                run("tc", &["filter", "del", "dev", from, "ingress"]);
                let filter = format!(
                    "filter add dev {from} parent ffff: protocol all pref {pref} u32 match u32 0 0 \
                     action mirred egress mirror dev {elsewhere} pipe action mirred egress redirect dev {to}"
                );
                run("tc", &filter.split_whitespace().collect::<Vec<_>>());
            }
        }
    }
}

/// The preference of the filter that an interface has.
fn shown_pref(interface: &str) -> String {
    let shown = run("tc", &["filter", "show", "dev", interface, "ingress"]);
    shown.split_once("pref ").unwrap().1.split_whitespace().next().unwrap().to_owned()
}
