//! Interface names: vendor name ↔ data-port index ↔ guest interface, for every kind, in this one place.
//!
//! When several programs each had their own rule, `et-0/0/0` became `eth0`, which is management in a container, and links of every 0-indexed
//! vendor never came up. Here the first data port is index 0, whatever the vendor counts from, and index 0 sits at `eth1` in a container.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Why a name is not an interface of a kind.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("interface \"{name}\" does not exist on kind {kind}: it has {accepted}")]
pub struct NamingError {
    /// The name as given.
    pub name: String,
    /// The kind.
    pub kind: String,
    /// What the kind accepts, in words.
    pub accepted: String,
}

/// How a kind names its data interfaces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Naming {
    /// The name with `{n}` where the number stands, for instance `eth{n}`. The single character `*` accepts any name: a bridge's ports.
    pub pattern: String,
    /// Number of the first data interface.
    pub first: u32,
    /// How many data interfaces there are at most.
    pub max: u32,
}

impl Naming {
    /// The pattern that accepts any name.
    pub const ANY: &str = "*";

    /// True when any name is a port: there is no index and no guest interface.
    pub fn is_any(&self) -> bool {
        self.pattern == Self::ANY
    }

    /// Index of the data port with this vendor name, from 0.
    pub fn index(&self, kind: &str, name: &str) -> Result<u32, NamingError> {
        let refused =
            || NamingError { name: name.to_owned(), kind: kind.to_owned(), accepted: self.accepted() };
        let (before, after) = self.pattern.split_once("{n}").ok_or_else(refused)?;
        let digits = name.strip_prefix(before).and_then(|n| n.strip_suffix(after)).ok_or_else(refused)?;
        // "+1", "01" and "" parse elsewhere but are not how an interface is written.
        let canonical =
            digits == "0" || (!digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit()));
        let number: u32 = digits.parse().ok().filter(|_| canonical).ok_or_else(refused)?;
        number.checked_sub(self.first).filter(|i| *i < self.max).ok_or_else(refused)
    }

    /// Vendor name of the data port with this index; none when there is no such port.
    pub fn vendor_name(&self, index: u32) -> Option<String> {
        let number = self.first.checked_add(index).filter(|_| index < self.max && !self.is_any())?;
        Some(self.pattern.replace("{n}", &number.to_string()))
    }

    /// What the kind accepts, in words.
    pub fn accepted(&self) -> String {
        match (self.vendor_name(0), self.max.checked_sub(1).and_then(|last| self.vendor_name(last))) {
            _ if self.is_any() => "any name".to_owned(),
            (Some(first), Some(last)) => format!("{first} to {last}"),
            _ => "no data interfaces".to_owned(),
        }
    }
}

/// Name of a data port inside a container: index 0 is `eth1`, since `eth0` is management.
pub fn guest_name(index: u32) -> String {
    format!("eth{}", u64::from(index) + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::Catalogue;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_port_of_every_kind_round_trips() {
        for kind in Catalogue::embedded().kinds().filter(|k| !k.interfaces.is_any()) {
            let mut guests = BTreeSet::new();
            for index in 0..kind.interfaces.max {
                let name = kind.interfaces.vendor_name(index).unwrap();
                assert_eq!(kind.interfaces.index(&kind.name, &name), Ok(index), "{} {name}", kind.name);
                assert!(guests.insert(guest_name(index)));
            }
            assert_eq!(guest_name(0), "eth1");
            assert_eq!(kind.interfaces.vendor_name(kind.interfaces.max), None);
        }
    }

    #[test]
    fn a_kind_named_as_its_guest_keeps_its_names() {
        for kind in ["linux", "frr"] {
            let catalogue = Catalogue::embedded();
            let naming = &catalogue.get(kind).unwrap().interfaces;
            assert_eq!(guest_name(naming.index(kind, "eth1").unwrap()), "eth1");
            assert!(naming.index(kind, "eth0").is_err(), "eth0 is management");
        }
    }

    #[test]
    fn zero_indexed_vendors_start_at_eth1() {
        let naming = Naming { pattern: "et-0/0/{n}".into(), first: 0, max: 12 };
        assert_eq!(guest_name(naming.index("x", "et-0/0/0").unwrap()), "eth1");
        let said = naming.index("x", "et-0/0/12").unwrap_err().to_string();
        assert!(said.contains("et-0/0/0 to et-0/0/11"), "{said}");
    }

    proptest! {
        #[test]
        fn any_text_is_a_port_or_refused(name in "\\PC{0,20}", first in 0u32..4, max in 0u32..40) {
            let naming = Naming { pattern: "e{n}".into(), first, max };
            if let Ok(index) = naming.index("x", &name) {
                prop_assert_eq!(naming.vendor_name(index), Some(name));
            }
        }
    }
}
