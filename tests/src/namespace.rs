//! A network namespace of a test's own: what is a host's there is not the machine's.

use std::fs::File;
use std::path::PathBuf;
use std::process::Command;

use nix::sched::{CloneFlags, setns};

use crate::command::run;

/// A network namespace, gone with its last user.
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes one, with loopback up.
    pub fn make(name: &str) -> Namespace {
        run("ip", &["netns", "add", name]).must();
        let namespace = Namespace { name: name.to_owned() };
        run("ip", &["-n", name, "link", "set", "lo", "up"]).must();
        namespace
    }

    /// A cable to another one: an interface of this name, with these addresses, in each.
    pub fn connect(&self, other: &Namespace, name: &str, addresses: [&str; 2]) {
        let line =
            format!("link add {name} netns {} type veth peer name {name} netns {}", self.name, other.name);
        run("ip", &line.split(' ').collect::<Vec<_>>()).must();
        for (namespace, address) in [self, other].into_iter().zip(addresses) {
            run("ip", &["-n", &namespace.name, "address", "add", address, "dev", name]).must();
            run("ip", &["-n", &namespace.name, "link", "set", name, "up"]).must();
        }
    }

    /// Takes this thread there, for as long as it runs.
    pub fn enter(&self) {
        let namespace = File::open(format!("/run/netns/{}", self.name)).expect("a namespace");
        setns(namespace, CloneFlags::CLONE_NEWNET).expect("the right to enter it");
    }

    /// A command that runs in it. Mounts stay the machine's, which `ip netns exec` would change.
    pub fn command(&self, program: impl Into<PathBuf>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.name)).arg("--").arg(program.into());
        command
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        run("ip", &["netns", "del", &self.name]);
    }
}
