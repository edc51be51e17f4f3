//! A lab's management network as its runtime has it, and the addresses that virtual machines have there. Pure.
//!
//! Docker makes the network and gives its containers addresses from the lowest on, at each start, and asks nobody. So machines are given theirs from the highest on: the two meet only where the subnet is full. A
//! machine keeps its address as long as nobody else has it. One that cannot be told an address by its medium is given none that nobody would know: only the one that its node fixes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use netloom_model::spec::Subnet;

use crate::error::Error;

/// A management network.
#[derive(Debug, Clone, PartialEq)]
pub struct Management {
    /// Its name.
    pub name: String,
    /// Its Linux bridge.
    pub bridge: String,
    /// Where addresses come from, one for each version of IP.
    pub pools: Vec<Pool>,
    /// Addresses that are had by now, and who has them: `container c`, `machine v1`.
    pub taken: BTreeMap<IpAddr, String>,
}

/// Where addresses come from.
#[derive(Debug, Clone, PartialEq)]
pub struct Pool {
    /// The subnet.
    pub subnet: Subnet,
    /// The part of it that addresses are given from.
    pub range: Subnet,
    /// The host's own address there, where it leads beyond.
    pub gateway: IpAddr,
    /// True for IPv6.
    pub v6: bool,
}

/// What a machine asks for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Asked<'a> {
    /// The fixed address of its node; empty without one.
    pub fixed: &'a str,
    /// What it had before, with its prefix length; empty when it had none.
    pub former: &'a str,
    /// It can be told what it is given.
    pub is_told: bool,
}

impl Management {
    /// The address that a machine has of this version of IP, with its prefix length; empty when it has none. `kept` are those that others are to have, and it itself if its node fixes one of them.
    pub fn address(&self, v6: bool, asked: Asked<'_>, kept: &BTreeSet<IpAddr>) -> Result<String, Error> {
        let Some(pool) = self.pools.iter().find(|pool| pool.v6 == v6) else { return Ok(String::new()) };
        let with_length = |address: IpAddr| format!("{address}/{}", pool.subnet.length());
        if let Ok(fixed) = asked.fixed.parse::<IpAddr>() {
            return match self.taken.get(&fixed) {
                Some(holder) => Err(taken(&self.name, fixed, holder)),
                None => Ok(with_length(fixed)),
            };
        }
        if !asked.is_told {
            return Ok(String::new());
        }
        let is_free = |address: &IpAddr| {
            *address != pool.gateway && !self.taken.contains_key(address) && !kept.contains(address)
        };
        let former = asked.former.split('/').next().unwrap_or_default();
        if let Some(former) = former.parse().ok().filter(|_| pool.range.holds(former)).filter(is_free) {
            return Ok(with_length(former));
        }
        pool.range.addresses_down().find(is_free).map(with_length).ok_or_else(|| {
            Error::Refused(format!(
                "the management network {} has no address left in {}: give mgmt a larger subnet or range",
                self.name, pool.range
            ))
        })
    }
}

/// A fixed address that somebody else has by now.
pub fn taken(network: &str, fixed: IpAddr, holder: &str) -> Error {
    let version = if fixed.is_ipv6() { 6 } else { 4 };
    Error::Refused(format!(
        "{fixed} on the management network {network} is the address of {holder} already: give the node another mgmt-ipv{version}, or {holder} one of its own"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network() -> Management {
        let pool = |subnet: &str, range: &str, gateway: &str, v6| Pool {
            subnet: Subnet::parse(subnet, v6).unwrap(),
            range: Subnet::parse(range, v6).unwrap(),
            gateway: gateway.parse().unwrap(),
            v6,
        };
        Management {
            name: "m".into(),
            bridge: "b".into(),
            pools: vec![
                pool("192.0.2.0/24", "192.0.2.8/29", "192.0.2.14", false),
                pool("fd00::/64", "fd00::/64", "fd00::1", true),
            ],
            taken: [("192.0.2.13".parse().unwrap(), "container c".to_owned())].into(),
        }
    }

    #[test]
    fn machines_are_given_addresses_from_the_end_and_keep_them() {
        let (network, mut kept) = (network(), BTreeSet::new());
        let told = Asked { is_told: true, ..Asked::default() };
        let given = |kept: &BTreeSet<IpAddr>, asked| network.address(false, asked, kept);
        assert_eq!(given(&kept, told).unwrap(), "192.0.2.12/24", "neither the gateway's nor a container's");
        kept.insert("192.0.2.12".parse().unwrap());
        assert_eq!(given(&kept, told).unwrap(), "192.0.2.11/24");
        let again = |former| Asked { former, ..told };
        assert_eq!(given(&kept, again("192.0.2.9/24")).unwrap(), "192.0.2.9/24");
        for lost in ["192.0.2.12/24", "192.0.2.13/24", "192.0.2.77/24", "x"] {
            assert_eq!(given(&kept, again(lost)).unwrap(), "192.0.2.11/24", "{lost}");
        }
        assert_eq!(network.address(true, told, &kept).unwrap(), "fd00::ffff:ffff:ffff:feff/64");
        kept.extend((9..13).map(|n| format!("192.0.2.{n}").parse::<IpAddr>().unwrap()));
        let full = given(&kept, told).unwrap_err().to_string();
        assert!(full.contains("no address left in 192.0.2.8/29"), "{full}");
    }

    #[test]
    fn a_fixed_address_is_had_or_refused_and_one_that_nobody_could_know_is_not_given() {
        let (network, none) = (network(), BTreeSet::new());
        let fixed = |fixed| network.address(false, Asked { fixed, ..Asked::default() }, &none);
        assert_eq!(fixed("192.0.2.100").unwrap(), "192.0.2.100/24");
        let v1 = ("192.0.2.100".parse().unwrap(), "machine v1".to_owned());
        let with_v1 = Management { taken: [v1].into(), ..network.clone() };
        let asked = Asked { fixed: "192.0.2.100", ..Asked::default() };
        let kept = BTreeSet::from(["192.0.2.100".parse().unwrap()]);
        let refused = with_v1.address(false, asked, &kept).unwrap_err().to_string();
        assert!(refused.contains("the address of machine v1 already"), "{refused}");
        assert_eq!(network.address(false, asked, &kept).unwrap(), "192.0.2.100/24", "it is kept for itself");
        let refused = fixed("192.0.2.13").unwrap_err().to_string();
        assert!(refused.contains("container c") && refused.contains("another mgmt-ipv4"), "{refused}");
        assert_eq!(network.address(false, Asked::default(), &none).unwrap(), "");
        let only_four = Management { pools: network.pools[..1].to_vec(), ..network };
        let told = Asked { is_told: true, ..Asked::default() };
        assert_eq!(only_four.address(true, told, &none).unwrap(), "");
    }
}
