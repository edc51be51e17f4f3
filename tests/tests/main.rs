//! netloom from outside: what a user sees, on real Docker and Open vSwitch.
//!
//! Every suite runs twice, on one process and on five, and cannot tell which it is.

use netloom_service::testing::require;

/// Makes two tests of a function that takes a mode: with all programs in one process, and with five.
macro_rules! in_both_modes {
    ($($name:ident),+ $(,)?) => {$(
        mod $name {
            use netloom_tests::Mode;

            #[test]
            fn in_one_process() {
                if crate::real(concat!(module_path!(), "::in_one_process")) {
                    super::$name(Mode::One);
                }
            }

            #[test]
            fn in_five_processes() {
                if crate::real(concat!(module_path!(), "::in_five_processes")) {
                    super::$name(Mode::Five);
                }
            }
        }
    )+};
}

mod main {
    pub mod across;
    pub mod backup;
    pub mod bad_days;
    pub mod budget;
    pub mod change;
    pub mod controllers;
    pub mod crash;
    pub mod demo;
    pub mod dependencies;
    pub mod docs;
    pub mod doors;
    pub mod examples;
    pub mod foreign;
    pub mod hostile;
    pub mod hosts;
    pub mod images;
    pub mod install;
    pub mod joined;
    pub mod keep;
    pub mod keys;
    pub mod kinds;
    pub mod mended;
    pub mod moved_machines;
    pub mod ospf;
    pub mod oversubscribed;
    pub mod planes;
    pub mod reboot;
    pub mod refused_images;
    pub mod repair;
    pub mod second_day;
    pub mod silent;
    pub mod telemetry;
    pub mod tutorial;
    pub mod uplinks;
    pub mod virtual_machines;
    pub mod vrnetlab;
    pub mod whole;
}

/// True when Docker and Open vSwitch are there and this is root; otherwise the test is skipped, loudly.
fn real(test: &str) -> bool {
    require(test, "root") && require(test, "docker") && require(test, "ovs")
}

/// The small image that `make images` builds: busybox.
const IMAGE: &str = "netloom/test:local";

/// Nodes `n1 … n<count>` in a line, each with an address on every link: link i joins n<i> and n<i+1> as 10.0.i.0/24.
fn line(lab: &str, count: usize) -> String {
    let mut text = format!(
        "name: {lab}\ntopology:\n  defaults:\n    kind: linux\n    image: {IMAGE}\n    image-pull-policy: Never\n  nodes:\n"
    );
    for n in 1..=count {
        text += &format!("    n{n}:\n");
    }
    text += "  links:\n";
    for n in 1..count {
        text += &format!(
            "    - endpoints: [\"n{n}:eth2\", \"n{next}:eth1\"]\n      ipv4: [\"10.0.{n}.1/24\", \"10.0.{n}.2/24\"]\n",
            next = n + 1
        );
    }
    text
}
