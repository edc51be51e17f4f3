//! The section `[network]` of the configuration.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;

use netloom_model::spec::{INTERFACE_NAME, Plane, is_interface_name};
use serde::Deserialize;

use crate::error::Error;

/// What Open vSwitch forwards with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Datapath {
    /// The kernel's where it really works, else userspace.
    #[default]
    Auto,
    /// The kernel's.
    System,
    /// Userspace.
    Netdev,
}

/// The section `[network]`. Names and sockets are configuration so that two installations, and tests, live on one machine.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The bridge that all wires between NICs go through.
    pub bridge: String,
    /// What host ends of NICs begin with: one or two characters.
    pub nic_prefix: String,
    /// What bridges of segments begin with: one to three characters.
    pub segment_prefix: String,
    /// Socket of ovsdb-server.
    pub ovsdb_socket: PathBuf,
    /// Where ovs-vswitchd has the management sockets of its bridges.
    pub ovs_run_dir: PathBuf,
    /// What Open vSwitch forwards with.
    pub datapath: Datapath,
    /// What carries wires of labs that do not say.
    pub plane: Plane,
    /// Whether wires may end in interfaces of the host.
    pub host_interfaces: bool,
    /// Interfaces and bridges of the host that segments may have for uplinks.
    pub uplinks: BTreeSet<String>,
    /// Address of this host that tunnels to other hosts begin at; without it no wire goes to another host.
    pub tunnel_address: Option<IpAddr>,
    /// UDP port of tunnels in the kernel, alike on all hosts; those of Open vSwitch have the next one, and paths are measured at the one after that.
    pub tunnel_port: u16,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            bridge: "nl0".to_owned(),
            nic_prefix: "nl".to_owned(),
            segment_prefix: "nls".to_owned(),
            ovsdb_socket: "/var/run/openvswitch/db.sock".into(),
            ovs_run_dir: "/var/run/openvswitch".into(),
            datapath: Datapath::Auto,
            plane: Plane::Auto,
            host_interfaces: true,
            uplinks: BTreeSet::new(),
            tunnel_address: None,
            tunnel_port: 4789,
        }
    }
}

impl Config {
    /// Refuses names that the kernel would cut off or that could not be told apart.
    pub fn check(&self) -> Result<(), Error> {
        let word = |s: &str, max: usize| {
            (1..=max).contains(&s.len()) && s.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        };
        let wrong = |key: &str, max: usize| {
            Error::Config(format!("network.{key} must be 1 to {max} letters, digits or '-'"))
        };
        if !word(&self.bridge, 15) {
            return Err(wrong("bridge", 15));
        }
        if !word(&self.nic_prefix, 2) {
            return Err(wrong("nic_prefix", 2));
        }
        if !word(&self.segment_prefix, 3) || self.segment_prefix == self.nic_prefix {
            return Err(Error::Config(
                "network.segment_prefix must be 1 to 3 letters, digits or '-', and not the nic_prefix"
                    .to_owned(),
            ));
        }
        let is_tail = |rest: &str| matches!(rest, "v" | "w" | "x" | "y" | "z");
        if self.segment_prefix.strip_prefix(&self.nic_prefix).is_some_and(is_tail) {
            return Err(Error::Config(
                "network.segment_prefix must not be the nic_prefix with v, w, x, y or z behind it".to_owned(),
            ));
        }
        if let Some(name) = self.uplinks.iter().find(|name| !is_interface_name(name)) {
            return Err(Error::Config(format!(
                "network.uplinks: \"{name}\" is not a name for an interface: {INTERFACE_NAME}"
            )));
        }
        if !(1..u16::MAX - 1).contains(&self.tunnel_port) {
            return Err(Error::Config(
                "network.tunnel_port must be 1 to 65533: the next two are used, too".to_owned(),
            ));
        }
        if self.tunnel_address.is_some_and(|address| address.is_unspecified() || address.is_multicast()) {
            return Err(Error::Config(
                "network.tunnel_address must be an address of an interface of this host that other hosts reach".to_owned(),
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_do_not_fit_are_refused() {
        assert!(Config::default().check().is_ok());
        for bad in [
            Config { bridge: "a-bridge-too-long".into(), ..Config::default() },
            Config { nic_prefix: "nlx".into(), ..Config::default() },
            Config { segment_prefix: "nl".into(), ..Config::default() },
            Config { segment_prefix: "nlx".into(), ..Config::default() },
            Config { segment_prefix: "nlv".into(), ..Config::default() },
            Config { tunnel_port: u16::MAX - 1, ..Config::default() },
            Config { tunnel_address: Some([0, 0, 0, 0].into()), ..Config::default() },
            Config { bridge: "a/b".into(), ..Config::default() },
            Config { uplinks: ["a/b".to_owned()].into(), ..Config::default() },
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
    }
}
