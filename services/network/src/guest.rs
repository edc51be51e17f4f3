//! What a node sees of a NIC, read from what is asked for and from the mark that a NIC's host end carries.

use std::net::IpAddr;

use netloom_model::slice::Nic;
use netloom_model::spec::{INTERFACE_NAME, is_interface_name};

/// What a node sees of a NIC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guest {
    /// Its name in the node.
    pub name: String,
    /// What can be changed while it is there.
    pub setting: Setting,
}

/// What of a NIC can be changed while it is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Its MAC address.
    pub mac: [u8; 6],
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Its addresses with their prefix lengths: those that are ours to set.
    pub addresses: Vec<(IpAddr, u8)>,
}

impl Setting {
    /// How it stands in a mark.
    pub fn text(nic: &Nic) -> String {
        let words = [nic.mac.to_ascii_lowercase(), nic.mtu.to_string()];
        words.into_iter().chain(nic.addresses.iter().cloned()).collect::<Vec<_>>().join(",")
    }

    /// Reads it from a mark; none when it was too long to stand there.
    pub fn read(text: &str) -> Option<Setting> {
        let mut words = text.split(',');
        let (mac, mtu) = (mac(words.next()?)?, words.next()?.parse().ok()?);
        let addresses = words.map(address).collect::<Option<_>>()?;
        Some(Setting { mac, mtu, addresses })
    }
}

impl Guest {
    /// Reads what a NIC asks for; the error says all that is wrong with it.
    pub fn parse(nic: &Nic) -> Result<Guest, String> {
        let mut wrong = Vec::new();
        let mut refuse = |key: &str, why: String| wrong.push(format!("its {key} {why}"));
        let name = &nic.guest_name;
        if !is_interface_name(name) {
            refuse("name", format!("\"{name}\" is not a name for an interface: {INTERFACE_NAME}"));
        }
        let mac = mac(&nic.mac).filter(|mac| mac[0] & 1 == 0 && *mac != [0; 6]);
        if mac.is_none() {
            refuse("MAC", format!("\"{}\" is not a unicast MAC address", nic.mac));
        }
        if !(68..=65_535).contains(&nic.mtu) {
            refuse("MTU", format!("{} is not from 68 to 65535", nic.mtu));
        }
        let mut addresses = Vec::new();
        for text in &nic.addresses {
            match address(text) {
                Some(address) => addresses.push(address),
                None => refuse("address", format!("\"{text}\" is not an address with its prefix length")),
            }
        }
        match mac {
            Some(mac) if wrong.is_empty() => {
                Ok(Guest { name: name.clone(), setting: Setting { mac, mtu: nic.mtu, addresses } })
            }
            _ => Err(wrong.join("; ")),
        }
    }
}

fn mac(text: &str) -> Option<[u8; 6]> {
    let digits = |b: &str| b.len() == 2 && b.bytes().all(|d| d.is_ascii_hexdigit());
    let mut bytes = text.split(':').map(|b| u8::from_str_radix(b, 16).ok().filter(|_| digits(b)));
    let mut mac = [0; 6];
    for byte in &mut mac {
        *byte = bytes.next()??;
    }
    bytes.next().is_none().then_some(mac)
}

fn address(text: &str) -> Option<(IpAddr, u8)> {
    let (ip, prefix) = text.split_once('/')?;
    let (ip, prefix): (IpAddr, u8) = (ip.parse().ok()?, prefix.parse().ok()?);
    (prefix <= if ip.is_ipv4() { 32 } else { 128 }).then_some((ip, prefix))
}

#[cfg(test)]
mod tests {
    use netloom_model::id::{LabUid, NodeUid};

    use super::*;

    fn nic() -> Nic {
        Nic {
            wire_id: 1.try_into().unwrap(),
            node_uid: NodeUid::new(),
            guest_name: "eth1".into(),
            mac: "02:00:00:0a:0B:01".into(),
            mtu: 9500,
            addresses: vec!["10.0.0.1/24".into(), "2001:db8::1/64".into()],
            lab_uid: LabUid::new(),
        }
    }

    #[test]
    fn a_nic_is_read() {
        let guest = Guest::parse(&nic()).unwrap();
        let setting = &guest.setting;
        assert_eq!(setting.mac, [2, 0, 0, 10, 11, 1]);
        assert_eq!(setting.addresses[0], ("10.0.0.1".parse().unwrap(), 24));
        assert_eq!(setting.addresses[1].1, 64);
        assert_eq!(Setting::read(&Setting::text(&nic())).as_ref(), Some(setting), "as a mark tells it");
        assert_eq!(Setting::read("#12345678"), None);
    }

    #[test]
    fn every_wrong_field_is_named() {
        let bad = Nic {
            guest_name: "a/b".into(),
            mac: "01:00:00:00:00:00".into(),
            mtu: 12,
            addresses: vec!["10.0.0.1".into(), "10.0.0.1/33".into(), "x/8".into()],
            ..nic()
        };
        let why = Guest::parse(&bad).unwrap_err();
        let expected = ["its name \"a/b\"", "its MAC", "its MTU 12", "10.0.0.1\"", "10.0.0.1/33", "x/8"];
        assert_eq!(why.split("; ").count(), expected.len(), "{why}");
        for (why, part) in why.split("; ").zip(expected) {
            assert!(why.contains(part), "{why}");
        }
        for name in ["", "lo", "..", "sixteen-letters-", "a b", "a:1", "eth%d", "all"] {
            assert!(Guest::parse(&Nic { guest_name: name.into(), ..nic() }).is_err(), "{name}");
        }
        for mac in ["", "02:00:00:00:00", "02:00:00:00:00:00:00", "2:0:0:0:0:1", "+2:00:00:00:00:01"] {
            assert!(Guest::parse(&Nic { mac: mac.into(), ..nic() }).is_err(), "{mac}");
        }
    }
}
