//! Where wires to other hosts begin: the tunnel address of this host, the interface that has it, and how large frames may be that go through there.
//!
//! An address that no interface has is told as a problem of the host, and as the reason of each wire that needs it.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use nix::ifaddrs::getifaddrs;

use crate::config::Config;
use crate::links::Links;
use crate::paths::Site;

/// How often it is looked which interface has the address.
const LOOK: Duration = Duration::from_secs(5);
/// What a tunnel adds to a frame without its own Ethernet header: that header, VXLAN's, UDP's, and IPv4's or IPv6's.
const OVERHEAD: [u32; 2] = [14 + 8 + 8 + 20, 14 + 8 + 8 + 40];

/// The tunnel address as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Underlay {
    /// The address.
    pub address: IpAddr,
    /// UDP port of tunnels in the kernel.
    pub port: u16,
    /// The interface that has it.
    pub interface: Option<String>,
}

impl Underlay {
    /// UDP port of the tunnels of Open vSwitch. Another one than the kernel's: only one of the two can have a port.
    pub fn ovs_port(&self) -> u16 {
        self.port + 1
    }

    /// UDP port that paths to other hosts are measured at: the one after those of tunnels.
    pub fn path_port(&self) -> u16 {
        self.port + 2
    }

    /// Where paths to other hosts are measured from; none while no interface has the address.
    pub fn site(&self, links: &Links) -> Option<Site> {
        let link = links.get(self.interface.as_ref()?)?;
        Some(Site { address: self.address, port: self.path_port(), mtu: link.mtu })
    }

    /// MTU that a NIC may have whose frames go through a tunnel in packets of so many bytes.
    pub fn within(&self, packet: u32) -> u32 {
        packet.saturating_sub(OVERHEAD[usize::from(self.address.is_ipv6())])
    }

    /// MTU that a NIC may have whose frames go through a tunnel, by what the interface takes; none while no interface has the address.
    pub fn mtu(&self, links: &Links) -> Option<u32> {
        Some(self.within(self.site(links)?.mtu))
    }

    /// Why no wire can begin there; none when one can.
    pub fn problem(&self, links: &Links) -> Option<String> {
        self.mtu(links).is_none().then(|| {
            format!(
                "no interface of this host has the address {} of network.tunnel_address: give it to one, or correct the key",
                self.address
            )
        })
    }
}

/// Looks now and then.
pub struct Look {
    underlay: Option<Underlay>,
    at: Option<Instant>,
}

impl Look {
    /// For this configuration.
    pub fn new(config: &Config) -> Look {
        let port = config.tunnel_port;
        let underlay = config.tunnel_address.map(|address| Underlay { address, port, interface: None });
        Look { underlay, at: None }
    }

    /// The tunnel address as it is; none when there is none.
    pub fn now(&mut self, links: &Links) -> Option<&Underlay> {
        let underlay = self.underlay.as_mut()?;
        let stands = underlay.interface.as_ref().is_some_and(|name| links.contains_key(name));
        if !stands || self.at.is_none_or(|at| at.elapsed() >= LOOK) {
            self.at = Some(Instant::now());
            match getifaddrs() {
                Ok(all) => underlay.interface = interface_of(underlay.address, all),
                Err(e) => tracing::warn!("addresses of this host cannot be read: {e}"),
            }
        }
        Some(underlay)
    }
}

fn interface_of(address: IpAddr, all: nix::ifaddrs::InterfaceAddressIterator) -> Option<String> {
    let has = |one: &nix::ifaddrs::InterfaceAddress| {
        let Some(of) = &one.address else { return false };
        let four = of.as_sockaddr_in().map(|a| IpAddr::from(a.ip()));
        let six = of.as_sockaddr_in6().map(|a| IpAddr::from(a.ip()));
        four.or(six) == Some(address)
    };
    all.into_iter().find(has).map(|one| one.interface_name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::Link;

    #[test]
    fn what_fits_is_the_interface_without_what_a_tunnel_adds() {
        let link = Link { name: "u0".into(), mtu: 1_500, ..Link::default() };
        let links: Links = [("u0".to_owned(), link)].into();
        let underlay = |address: &str, interface: Option<&str>| Underlay {
            address: address.parse().unwrap(),
            port: 4789,
            interface: interface.map(str::to_owned),
        };
        assert_eq!(underlay("192.0.2.1", Some("u0")).mtu(&links), Some(1_450));
        assert_eq!(underlay("2001:db8::1", Some("u0")).mtu(&links), Some(1_430));
        let nowhere = underlay("192.0.2.1", None);
        assert_eq!(nowhere.mtu(&links), None);
        assert!(nowhere.problem(&links).unwrap().contains("192.0.2.1"));
    }

    #[test]
    fn an_address_is_found_on_the_interface_that_has_it() {
        let config = Config { tunnel_address: Some([127, 0, 0, 1].into()), ..Config::default() };
        let found = Look::new(&config).now(&Links::new()).cloned().unwrap();
        assert_eq!(found.interface.as_deref(), Some("lo"));
        assert!(Look::new(&Config::default()).now(&Links::new()).is_none());
    }
}
