//! Where a node may be, and what becomes of a lab that does not fit. The proto twins explain each field.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Where a node may be. It counts when the node is placed; one that is placed stays.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Placement {
    /// The one host that it may be on; empty means any.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub host: String,
    /// Labels that its host has.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Taints that its host may have: `key`, or `key=value`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<String>,
    /// Ids of nodes of the lab that are on other hosts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub apart_from: Vec<String>,
    /// Whether a virtual machine needs KVM there; none is as its kind says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kvm: Option<KvmNeed>,
}

/// Whether a virtual machine needs a host on which guests run by KVM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KvmNeed {
    /// It is emulated where there is none.
    #[default]
    Preferred,
    /// No other host takes it.
    Required,
}

impl FromStr for KvmNeed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "preferred" => Ok(KvmNeed::Preferred),
            "required" => Ok(KvmNeed::Required),
            _ => Err("is not how KVM is needed: write required or preferred".to_owned()),
        }
    }
}

impl Placement {
    /// True when the node may be anywhere.
    pub fn is_any(&self) -> bool {
        *self == Placement::default()
    }

    /// True when it may be on a host with this taint.
    pub fn tolerates(&self, key: &str, value: &str) -> bool {
        self.tolerations.iter().any(|t| match t.split_once('=') {
            Some((k, v)) => (k, v) == (key, value),
            None => t == key,
        })
    }
}

/// What becomes of a lab that does not fit whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PlacementPolicy {
    /// What fits runs; the rest waits for room.
    #[default]
    BestEffort,
    /// A deploy of it changes nothing.
    AllOrNothing,
}

impl PlacementPolicy {
    /// True for the default.
    pub fn is_best_effort(&self) -> bool {
        *self == PlacementPolicy::BestEffort
    }
}

/// That a word is no policy, and which there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoPolicy(String);

impl fmt::Display for NoPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\" is not a placement-policy: write best-effort or all-or-nothing", self.0)
    }
}

impl FromStr for PlacementPolicy {
    type Err = NoPolicy;

    fn from_str(text: &str) -> Result<Self, NoPolicy> {
        match text.to_ascii_lowercase().replace('_', "-").as_str() {
            "best-effort" => Ok(PlacementPolicy::BestEffort),
            "all-or-nothing" => Ok(PlacementPolicy::AllOrNothing),
            _ => Err(NoPolicy(text.to_owned())),
        }
    }
}

/// Most bytes of the key of a label or taint, and of its value.
const TEXT: usize = 256;

/// What is wrong with a label or taint of a host; none when nothing is. A key ends in no hyphen, which on the command line takes it away.
pub fn wrong_label(key: &str, value: &str) -> Option<String> {
    let is_plain = |text: &str| text.len() <= TEXT && text.bytes().all(|b| b.is_ascii_graphic());
    let good_key = !key.is_empty() && is_plain(key) && !key.contains(['=', ',']) && !key.ends_with('-');
    if good_key && is_plain(value) {
        return None;
    }
    Some(format!(
        "\"{key}={value}\": a key has 1 to {TEXT} characters without spaces, '=' and ',' and does not end in '-', a value up to {TEXT} without spaces"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_toleration_is_of_a_key_or_of_one_value_of_it() {
        let placement =
            Placement { tolerations: vec!["gpu".into(), "slow=disk".into()], ..Placement::default() };
        assert!(placement.tolerates("gpu", "a100") && placement.tolerates("gpu", ""));
        assert!(placement.tolerates("slow", "disk") && !placement.tolerates("slow", "net"));
        assert!(!placement.tolerates("gp", ""));
    }

    #[test]
    fn labels_that_a_command_line_cannot_say_are_refused() {
        for (key, value) in [("rack", "2"), ("topology.kubernetes.io/zone", "eu-1a"), ("gpu", "")] {
            assert_eq!(wrong_label(key, value), None);
        }
        for (key, value) in [("", "x"), ("a=b", ""), ("a b", ""), ("gpu-", ""), ("k", "a b")] {
            assert!(wrong_label(key, value).is_some(), "{key} {value}");
        }
    }
}
