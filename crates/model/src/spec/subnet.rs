//! Subnets, and the addresses in them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A subnet: an address whose bits behind the prefix are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subnet {
    /// The address as a number; of IPv4 in the low 32 bits.
    bits: u128,
    length: u32,
    v6: bool,
}

impl Subnet {
    /// Reads `172.20.20.0/24` or `2001:db8::/64`; what is wrong is said so that it follows the text.
    pub fn parse(text: &str, v6: bool) -> Result<Subnet, String> {
        let example = if v6 { "2001:db8::/64" } else { "172.20.20.0/24" };
        let refused = || format!("is not a subnet like {example}");
        let (address, length) = text.split_once('/').ok_or_else(refused)?;
        let width = if v6 { 128 } else { 32 };
        let length: u32 = length
            .parse()
            .ok()
            .filter(|n| *n <= width && length.bytes().all(|b| b.is_ascii_digit()))
            .ok_or_else(refused)?;
        let bits = address_bits(address, v6).ok_or_else(refused)?;
        let subnet = Subnet { bits: bits & mask(length, width), length, v6 };
        if subnet.bits != bits {
            return Err(format!("has bits set behind its prefix: write {subnet}"));
        }
        Ok(subnet)
    }

    /// The subnet of this length that holds the address; none when it is no address of the version.
    pub fn around(address: &str, length: u8, v6: bool) -> Option<Subnet> {
        let width = if v6 { 128 } else { 32 };
        let length = u32::from(length).min(width);
        Some(Subnet { bits: address_bits(address, v6)? & mask(length, width), length, v6 })
    }

    /// How many bits of an address it fixes.
    pub fn length(&self) -> u32 {
        self.length
    }

    /// Its first address that a device can have; none when it has none.
    pub fn first(&self) -> Option<IpAddr> {
        self.addresses_down().next().map(|_| match self.v6 {
            true => IpAddr::V6(Ipv6Addr::from(self.bits + 1)),
            false => IpAddr::V4(Ipv4Addr::from(self.bits as u32 + 1)),
        })
    }

    /// Its addresses that a device can have, from the last to the first: of IPv6 without the last 256 of it, which stand for routers and servers (RFC 2526).
    pub fn addresses_down(&self) -> impl Iterator<Item = IpAddr> + use<> {
        let (v6, first) = (self.v6, self.bits);
        let size = u128::MAX >> (128 - (self.width() - self.length).max(1));
        let kept = match v6 {
            true if size > 512 => 256,
            true => 0,
            false => 1,
        };
        let number = move |bits: u128| match v6 {
            true => IpAddr::V6(Ipv6Addr::from(bits)),
            false => IpAddr::V4(Ipv4Addr::from(bits as u32)),
        };
        (1..=size.saturating_sub(kept)).rev().map(move |n| number(first + n))
    }

    fn width(&self) -> u32 {
        if self.v6 { 128 } else { 32 }
    }

    /// True when the address lies in it.
    pub fn holds(&self, address: &str) -> bool {
        address_bits(address, self.v6).is_some_and(|b| b & mask(self.length, self.width()) == self.bits)
    }

    /// True when the other one lies in it as a whole.
    pub fn holds_all_of(&self, other: &Subnet) -> bool {
        self.v6 == other.v6
            && other.length >= self.length
            && other.bits & mask(self.length, self.width()) == self.bits
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.v6 {
            write!(f, "{}/{}", Ipv6Addr::from(self.bits), self.length)
        } else {
            write!(f, "{}/{}", Ipv4Addr::from(self.bits as u32), self.length)
        }
    }
}

fn mask(length: u32, width: u32) -> u128 {
    let ones = |n: u32| if n == 0 { 0 } else { u128::MAX >> (128 - n) };
    ones(width) & !ones(width - length)
}

/// An address as a number.
fn address_bits(text: &str, v6: bool) -> Option<u128> {
    match (text.parse().ok()?, v6) {
        (IpAddr::V4(a), false) => Some(u128::from(u32::from(a))),
        (IpAddr::V6(a), true) => Some(u128::from(a)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_lies_in_the_subnet_around_it() {
        let around = |a: &str, n, v6| Subnet::around(a, n, v6).map(|s| s.to_string());
        assert_eq!(around("172.20.20.11", 24, false).as_deref(), Some("172.20.20.0/24"));
        assert_eq!(around("2001:db8::7:1", 64, true).as_deref(), Some("2001:db8::/64"));
        assert_eq!(around("2001:db8::1", 24, false), None);
    }

    #[test]
    fn subnets_hold_their_addresses() {
        let four = Subnet::parse("172.20.20.0/24", false).unwrap();
        assert!(four.holds("172.20.20.9") && !four.holds("172.20.21.9") && !four.holds("x"));
        let six = Subnet::parse("2001:db8::/64", true).unwrap();
        assert!(six.holds("2001:db8::1") && !six.holds("2001:db9::1") && !six.holds("172.20.20.9"));
        assert!(Subnet::parse("0.0.0.0/0", false).unwrap().holds("9.9.9.9"));
        assert_eq!(
            Subnet::parse("10.0.0.1/24", false),
            Err("has bits set behind its prefix: write 10.0.0.0/24".into())
        );
        for text in ["10.0.0.0", "10.0.0.0/33", "10.0.0.0/+8", "x/8", "2001:db8::/64"] {
            assert!(Subnet::parse(text, false).is_err(), "{text}");
        }
    }

    #[test]
    fn a_range_is_a_part_of_a_subnet() {
        let subnet = |text| Subnet::parse(text, false).unwrap();
        let whole = subnet("10.0.0.0/16");
        assert!(whole.holds_all_of(&subnet("10.0.3.0/24")) && whole.holds_all_of(&whole));
        assert!(!whole.holds_all_of(&subnet("10.0.0.0/8")) && !whole.holds_all_of(&subnet("10.1.0.0/24")));
        assert!(!whole.holds_all_of(&Subnet::parse("::/64", true).unwrap()));
    }
}
