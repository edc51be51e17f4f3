//! Interface names: vendor name ↔ data-port index ↔ guest interface, for every kind, in this one place.
//!
//! When several programs each had their own rule, `et-0/0/0` became `eth0`, which is management in a container, and links of every 0-indexed
//! vendor never came up. Here the first data port is index 0, whatever the vendor counts from. In a container index 0 sits at `eth1`, in a virtual
//! machine at the first NIC behind management and the reserved ones.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Most data interfaces of a kind.
pub const MAX_INTERFACES: u32 = 1024;

/// Why a name is not a data interface of a kind.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("interface \"{name}\" {why} kind {kind}: it has {accepted}")]
pub struct NamingError {
    /// The name as given.
    pub name: String,
    /// The kind.
    pub kind: String,
    /// What is wrong with the name.
    pub why: Refusal,
    /// What the kind accepts, in words.
    pub accepted: String,
}

/// What is wrong with a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such interface.
    Unknown,
    /// It is management, which takes no link.
    Management,
    /// The device keeps it for itself.
    Reserved,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Refusal::Unknown => "does not exist on",
            Refusal::Management => "is management, which takes no link, on",
            Refusal::Reserved => "is reserved, and takes no link, on",
        })
    }
}

/// How a kind names its interfaces: the table `[interfaces]` of its file.
///
/// Beside `pattern` and `also`, every kind but a bridge accepts `eth1`, `eth2`, …: the data ports in order, whatever they are called inside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Naming {
    /// The name as the device writes it, with `{n}` where the port's number stands and, with `ports_per_slot`, `{slot}` before it: `eth{n}`,
    /// `Ethernet{slot}/{n}`. The single character `*` accepts any name: a bridge's ports.
    pub pattern: String,
    /// Other spellings that are accepted for the same ports, each a pattern of the same form: `Gi{n}` for `GigabitEthernet{n}`.
    #[serde(default)]
    pub also: Vec<String>,
    /// True accepts the names in upper and lower case alike.
    #[serde(default)]
    pub ignore_case: bool,
    /// Number of the first data interface; with slots its number in `first_slot`.
    pub first: u32,
    /// How many data interfaces there are at most, 1 to [`MAX_INTERFACES`].
    pub max: u32,
    /// By how much the number grows from one port to the next, at least 1: 4 where ports are counted in lanes.
    #[serde(default = "one")]
    pub step: u32,
    /// How many ports a slot has, counted from 0 in each; 0: there are no slots.
    #[serde(default)]
    pub ports_per_slot: u32,
    /// Slot of the first data interface.
    #[serde(default)]
    pub first_slot: u32,
    /// Name of the management interface on the device. `eth0` always means it too.
    #[serde(default = "eth0")]
    pub management: String,
    /// Interfaces of a virtual machine between management and the data ports that the device keeps for itself, in order, each by its name or by a label of its
    /// own.
    #[serde(default)]
    pub reserved: Vec<String>,
}

fn one() -> u32 {
    1
}

fn eth0() -> String {
    "eth0".to_owned()
}

impl Naming {
    /// The pattern that accepts any name.
    pub const ANY: &str = "*";

    /// Names by this pattern alone, with everything else as when a file does not say it.
    pub fn of(pattern: &str, first: u32, max: u32) -> Naming {
        Naming {
            pattern: pattern.to_owned(),
            also: Vec::new(),
            ignore_case: false,
            first,
            max,
            step: one(),
            ports_per_slot: 0,
            first_slot: 0,
            management: eth0(),
            reserved: Vec::new(),
        }
    }

    /// True when any name is a port: there is no index and no guest interface.
    pub fn is_any(&self) -> bool {
        self.pattern == Self::ANY
    }

    /// Index of the data port with this name in any of its spellings, from 0.
    pub fn index(&self, kind: &str, name: &str) -> Result<u32, NamingError> {
        let why = match self.find(name) {
            Some(index) => return Ok(index),
            None if name == "eth0" || self.same(name, &self.management) => Refusal::Management,
            None if self.reserved.iter().any(|r| self.same(name, r)) => Refusal::Reserved,
            None => Refusal::Unknown,
        };
        let (name, kind) = (name.to_owned(), kind.to_owned());
        Err(NamingError { name, kind, why, accepted: self.accepted() })
    }

    /// Name of the data port with this index as the device writes it; none when there is no such port.
    pub fn vendor_name(&self, index: u32) -> Option<String> {
        self.write(&self.pattern, index)
    }

    /// All names of the data port with this index: the device's own, the other spellings, the guest's; none when there is no such port.
    pub fn spellings(&self, index: u32) -> Vec<String> {
        let mut names: Vec<String> = self.patterns().filter_map(|p| self.write(p, index)).collect();
        let guest = guest_name(index);
        if !names.is_empty() && !names.contains(&guest) {
            names.push(guest);
        }
        names
    }

    /// Number of the data port's NIC in a virtual machine, counted from 0, which is management; none when there is no such port.
    pub fn nic(&self, index: u32) -> Option<u32> {
        (index < self.max && !self.is_any()).then(|| index + 1 + self.reserved_nics())
    }

    /// Index of the data port at this NIC of a virtual machine; none for management, reserved NICs and what is out of range.
    pub fn index_of_nic(&self, nic: u32) -> Option<u32> {
        nic.checked_sub(1 + self.reserved_nics()).filter(|i| *i < self.max && !self.is_any())
    }

    /// What the kind accepts, in words.
    pub fn accepted(&self) -> String {
        if self.is_any() {
            return "any name".to_owned();
        }
        let last = self.max.checked_sub(1).and_then(|last| self.vendor_name(last));
        let (Some(first), Some(last)) = (self.vendor_name(0), last) else {
            return "no data interfaces".to_owned();
        };
        let mut text = format!("{first} to {last}");
        if self.ports_per_slot > 0 {
            text += &format!(" with {} ports a slot", self.ports_per_slot);
        }
        if self.step > 1 {
            text += &format!(" in steps of {}", self.step);
        }
        let others: Vec<String> = self.spellings(0).into_iter().skip(1).collect();
        if !others.is_empty() {
            text += &format!(" (the first is also written {})", others.join(", "));
        }
        text
    }

    /// What is wrong with these rules: the key of the file and why. When nothing is, every spelling of every port means that port and no other.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        if self.max == 0 || self.max > MAX_INTERFACES {
            return Err(("max", format!("{} is not from 1 to {MAX_INTERFACES}", self.max)));
        }
        if self.is_any() {
            let plain = Naming::of(Self::ANY, self.first, self.max);
            let others = "with pattern \"*\" only first and max have a meaning";
            return if *self == plain { Ok(()) } else { Err(("pattern", others.to_owned())) };
        }
        if self.step == 0 {
            return Err(("step", "0 gives all ports one number: 1 is the least".to_owned()));
        }
        if self.ports_per_slot == 0 && self.first_slot != 0 {
            return Err(("first_slot", "it has a meaning only with ports_per_slot".to_owned()));
        }
        if self.ports_per_slot > 0 && self.step != 1 {
            return Err(("step", "it cannot be combined with ports_per_slot".to_owned()));
        }
        if self.ports_per_slot > 0 && self.first >= self.ports_per_slot {
            let what = format!("{} is not a port of a slot with {} ports", self.first, self.ports_per_slot);
            return Err(("first", what));
        }
        for (key, pattern) in self.also.iter().map(|p| ("also", p)).chain([("pattern", &self.pattern)]) {
            self.check_pattern(pattern).map_err(|what| (key, format!("\"{pattern}\": {what}")))?;
        }
        for index in 0..self.max {
            let Some(name) = self.vendor_name(index) else {
                return Err(("first", format!("the number of port {index} is larger than {}", u32::MAX)));
            };
            for spelling in self.spellings(index) {
                if self.find(&spelling) != Some(index) {
                    let what = format!(
                        "\"{spelling}\" would mean two ports, one of them {name}; every kind's first data port is also called eth1"
                    );
                    return Err(("pattern", what));
                }
            }
        }
        if self.management.is_empty() || self.find(&self.management).is_some() {
            let what = format!("\"{}\" is to be a name that no data port has", self.management);
            return Err(("management", what));
        }
        for (i, reserved) in self.reserved.iter().enumerate() {
            let taken = self.find(reserved).is_some()
                || self.same(reserved, &self.management)
                || self.reserved[..i].iter().any(|r| self.same(reserved, r));
            if taken || reserved.is_empty() {
                return Err(("reserved", format!("\"{reserved}\" is to be a name that nothing else has")));
            }
        }
        Ok(())
    }

    fn check_pattern(&self, pattern: &str) -> Result<(), String> {
        if pattern.matches("{n}").count() != 1 {
            return Err("it must hold {n} once".to_owned());
        }
        let slots = pattern.matches("{slot}").count();
        if self.ports_per_slot == 0 && slots != 0 {
            return Err("{slot} has a meaning only with ports_per_slot".to_owned());
        }
        if self.ports_per_slot > 0 && (slots != 1 || pattern.find("{slot}") > pattern.find("{n}")) {
            return Err("with ports_per_slot it must hold {slot} once, before {n}".to_owned());
        }
        // Where digits follow a number, nobody can tell where it ends.
        let (before, slot, after) = self.parts(pattern).ok_or("it must hold {n} once")?;
        let digit = |text: &str| text.starts_with(|c: char| c.is_ascii_digit());
        if digit(after) || slot.is_some_and(|between| digit(between) || between.is_empty()) {
            return Err("a number must not be followed by a digit or by another number".to_owned());
        }
        let odd = |c: char| c.is_whitespace() || c.is_control() || "{}:".contains(c);
        if [before, slot.unwrap_or_default(), after].iter().any(|text| text.contains(odd)) {
            return Err("a name holds no space, colon or brace".to_owned());
        }
        Ok(())
    }

    fn patterns(&self) -> impl Iterator<Item = &str> {
        [&self.pattern].into_iter().chain(&self.also).map(String::as_str)
    }

    fn reserved_nics(&self) -> u32 {
        u32::try_from(self.reserved.len()).unwrap_or(u32::MAX)
    }

    fn same(&self, one: &str, other: &str) -> bool {
        if self.ignore_case { one.eq_ignore_ascii_case(other) } else { one == other }
    }

    /// The text before the first number, between slot and port if there are slots, and behind the port.
    fn parts<'a>(&self, pattern: &'a str) -> Option<(&'a str, Option<&'a str>, &'a str)> {
        let (before, after) = pattern.split_once("{n}")?;
        match before.split_once("{slot}") {
            Some((before, between)) if self.ports_per_slot > 0 => Some((before, Some(between), after)),
            _ => Some((before, None, after)),
        }
    }

    fn write(&self, pattern: &str, index: u32) -> Option<String> {
        if index >= self.max || self.is_any() {
            return None;
        }
        let number = index.checked_mul(self.step)?.checked_add(self.first)?;
        if self.ports_per_slot == 0 {
            return Some(pattern.replace("{n}", &number.to_string()));
        }
        let slot = self.first_slot.checked_add(number / self.ports_per_slot)?;
        let port = number % self.ports_per_slot;
        Some(pattern.replace("{slot}", &slot.to_string()).replace("{n}", &port.to_string()))
    }

    /// The port with this name. Spellings of the kind's own come before the guest's.
    fn find(&self, name: &str) -> Option<u32> {
        if self.is_any() {
            return None;
        }
        let guest = || guest_index(name).filter(|i| *i < self.max);
        self.patterns().find_map(|p| self.read(p, name)).or_else(guest)
    }

    fn read(&self, pattern: &str, name: &str) -> Option<u32> {
        let (before, between, after) = self.parts(pattern)?;
        let (mut count, mut rest) = number(self.strip(name, before)?)?;
        if let Some(between) = between {
            let (port, tail) = number(self.strip(rest, between)?)?;
            let slot = count.checked_sub(self.first_slot).filter(|_| port < self.ports_per_slot)?;
            (count, rest) = (slot.checked_mul(self.ports_per_slot)?.checked_add(port)?, tail);
        }
        if !self.same(rest, after) {
            return None;
        }
        let offset = count.checked_sub(self.first)?;
        let index = offset.checked_div(self.step)?;
        (offset % self.step == 0 && index < self.max).then_some(index)
    }

    fn strip<'a>(&self, text: &'a str, prefix: &str) -> Option<&'a str> {
        let head = text.get(..prefix.len())?;
        self.same(head, prefix).then(|| &text[prefix.len()..])
    }
}

/// The number that a text begins with, and the rest. "+1", "01" and "" parse elsewhere but are not how an interface is written.
fn number(text: &str) -> Option<(u32, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    (digits == "0" || !digits.starts_with('0')).then(|| Some((digits.parse().ok()?, rest)))?
}

/// Name of a data port inside a container: index 0 is `eth1`, since `eth0` is management.
pub fn guest_name(index: u32) -> String {
    format!("eth{}", u64::from(index) + 1)
}

/// Index of the data port with this name inside a container; none for `eth0` and for what is no such name.
pub fn guest_index(name: &str) -> Option<u32> {
    let (number, rest) = number(name.strip_prefix("eth")?)?;
    number.checked_sub(1).filter(|_| rest.is_empty())
}

#[cfg(test)]
#[path = "naming/tests.rs"]
mod tests;
