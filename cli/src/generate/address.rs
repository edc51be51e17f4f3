//! Addresses of links, out of one network: two of a /31 for each link between two nodes, and one network for all that are linked with a bridge.

use std::net::Ipv4Addr;
use std::str::FromStr;

/// A network that addresses are taken from, in order.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Plan {
    network: u32,
    length: u32,
}

impl FromStr for Plan {
    type Err = String;

    fn from_str(text: &str) -> Result<Plan, String> {
        let refuse = || format!("\"{text}\" is not an IPv4 network: write for instance 10.0.0.0/16");
        let (address, length) = text.split_once('/').ok_or_else(refuse)?;
        let address: Ipv4Addr = address.parse().map_err(|_| refuse())?;
        let length: u32 = length.parse().ok().filter(|l| *l <= 31).ok_or_else(refuse)?;
        let address = u32::from(address);
        let network = address & mask(length);
        if network != address {
            let first = Ipv4Addr::from(network);
            return Err(format!(
                "\"{text}\" is an address within a network; the network is {first}/{length}"
            ));
        }
        Ok(Plan { network, length })
    }
}

fn mask(length: u32) -> u32 {
    if length == 0 { 0 } else { u32::MAX << (32 - length) }
}

/// Hands addresses out.
pub struct Addresses {
    plan: Plan,
    next: u64,
}

impl Addresses {
    /// From the beginning of a plan.
    pub fn of(plan: Plan) -> Addresses {
        Addresses { plan, next: u64::from(plan.network) }
    }

    /// The next network with room for so many nodes: their addresses with prefix length, or why there are none.
    pub fn network(&mut self, nodes: usize) -> Result<Vec<String>, String> {
        // A /31 has no address that is not a node's; all others have two.
        let needed = if nodes <= 2 { 2 } else { nodes as u64 + 2 };
        let size = needed.next_power_of_two();
        let first = self.next.div_ceil(size) * size;
        let end = u64::from(self.plan.network) + (1 << (32 - self.plan.length));
        if first + size > end {
            return Err(format!(
                "{}/{} has too few addresses for all links; take a larger network",
                Ipv4Addr::from(self.plan.network),
                self.plan.length
            ));
        }
        self.next = first + size;
        let length = 32 - size.trailing_zeros();
        let offset = u64::from(nodes > 2);
        let address = |i: usize| {
            let value = u32::try_from(first + offset + i as u64).map_err(|e| e.to_string())?;
            Ok(format!("{}/{length}", Ipv4Addr::from(value)))
        };
        (0..nodes).map(address).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_read_and_what_is_none_is_told() {
        assert!("10.0.0.0/16".parse::<Plan>().is_ok());
        assert!("10.0.0.1/16".parse::<Plan>().unwrap_err().contains("10.0.0.0/16"));
        for text in ["", "10.0.0.0", "10.0.0.0/32", "10.0.0/8", "x/8", "::/64"] {
            assert!(text.parse::<Plan>().is_err(), "{text}");
        }
    }

    #[test]
    fn links_take_pairs_and_segments_a_network_until_there_is_none() {
        let mut addresses = Addresses::of("192.0.2.0/28".parse().unwrap());
        assert_eq!(addresses.network(2).unwrap(), ["192.0.2.0/31", "192.0.2.1/31"]);
        assert_eq!(addresses.network(3).unwrap(), ["192.0.2.9/29", "192.0.2.10/29", "192.0.2.11/29"]);
        assert!(addresses.network(2).unwrap_err().contains("192.0.2.0/28"));
        let mut all = Addresses::of("0.0.0.0/0".parse().unwrap());
        assert_eq!(all.network(2).unwrap()[1], "0.0.0.1/31");
    }
}
