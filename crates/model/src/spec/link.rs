//! What a user asks for of a link. The proto twins explain each field.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::DEFAULT_MTU;
use crate::id::Digest;

/// A cable between two endpoints.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LinkSpec {
    /// One end.
    pub a: Endpoint,
    /// The other end.
    pub b: Endpoint,
    /// MTU in bytes; 0 means [`DEFAULT_MTU`].
    pub mtu: u32,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// What happens to frames from `a` to `b`.
    #[serde(skip_serializing_if = "Impairment::is_none")]
    pub a_to_b: Impairment,
    /// What happens to frames from `b` to `a`.
    #[serde(skip_serializing_if = "Impairment::is_none")]
    pub b_to_a: Impairment,
}

/// What a direction of a link does to frames; all zero is nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Impairment {
    /// Most bits a second; 0 is no limit.
    pub rate_bps: u64,
    /// Delay in microseconds.
    pub delay_us: u32,
    /// Random part of the delay, in microseconds.
    pub jitter_us: u32,
    /// Frames lost, in millionths.
    pub loss_ppm: u32,
    /// Frames with a flipped bit, in millionths.
    pub corrupt_ppm: u32,
    /// Frames sent twice, in millionths.
    pub duplicate_ppm: u32,
    /// Frames sent out of order, in millionths.
    pub reorder_ppm: u32,
}

impl Impairment {
    /// True when it does nothing.
    pub fn is_none(&self) -> bool {
        *self == Impairment::default()
    }

    /// The fields that do something, by name, in the order of their declaration.
    pub fn fields(&self) -> Vec<(&'static str, u64)> {
        let all = [
            ("rate_bps", self.rate_bps),
            ("delay_us", self.delay_us.into()),
            ("jitter_us", self.jitter_us.into()),
            ("loss_ppm", self.loss_ppm.into()),
            ("corrupt_ppm", self.corrupt_ppm.into()),
            ("duplicate_ppm", self.duplicate_ppm.into()),
            ("reorder_ppm", self.reorder_ppm.into()),
        ];
        all.into_iter().filter(|(_, value)| *value != 0).collect()
    }

    /// A field by the word that topology files and options have for it: `rate` for `rate_bps`.
    pub fn word(field: &str) -> &str {
        field.split('_').next().unwrap_or(field)
    }
}

/// As topology files and options write it: `rate 10mbit delay 5ms loss 1%`; empty when it does nothing.
impl std::fmt::Display for Impairment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, (field, value)) in self.fields().into_iter().enumerate() {
            let value = match field {
                "rate_bps" => rate_text(value),
                "delay_us" | "jitter_us" => time_text(value),
                _ => share_text(value),
            };
            let space = if i == 0 { "" } else { " " };
            write!(f, "{space}{} {value}", Impairment::word(field))?;
        }
        Ok(())
    }
}

/// A rate as it is written: `10mbit`.
pub fn rate_text(bits: u64) -> String {
    let units = [(1_000_000_000, "gbit"), (1_000_000, "mbit"), (1_000, "kbit")];
    let (factor, unit) = units.into_iter().find(|(n, _)| bits.is_multiple_of(*n)).unwrap_or((1, "bit"));
    format!("{}{unit}", bits / factor)
}

/// A time as it is written: `5ms`.
pub fn time_text(us: u64) -> String {
    let (factor, unit) = [(1_000_000, "s"), (1_000, "ms")]
        .into_iter()
        .find(|(n, _)| us.is_multiple_of(*n))
        .unwrap_or((1, "us"));
    format!("{}{unit}", us / factor)
}

/// A share of all frames as it is written: `0.05%`.
pub fn share_text(ppm: u64) -> String {
    format!("{}%", ppm as f64 / 10_000.0)
}

/// What an end of a link is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EndpointType {
    /// An interface of a node.
    #[default]
    Node,
    /// An interface of the host itself.
    Host,
    /// A port of the lab's management network.
    MgmtNet,
    /// Nothing.
    Dummy,
}

impl EndpointType {
    /// True for the default.
    pub fn is_node(&self) -> bool {
        *self == EndpointType::Node
    }

    /// The word that stands for the node in topology files and link ids; none for a node's interface.
    pub fn word(self) -> Option<&'static str> {
        match self {
            EndpointType::Node => None,
            EndpointType::Host => Some("host"),
            EndpointType::MgmtNet => Some("mgmt-net"),
            EndpointType::Dummy => Some("dummy"),
        }
    }
}

/// One end of a link.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Endpoint {
    /// The node's id.
    pub node: String,
    /// The interface as the kind names it.
    pub interface: String,
    /// MAC address; empty: a stable one is made.
    pub mac: String,
    /// IPv4 address with prefix length; empty: none.
    pub ipv4: String,
    /// IPv6 address with prefix length; empty: none.
    pub ipv6: String,
    /// What it is; `node` holds [`EndpointType::word`] where it is no node's.
    #[serde(rename = "type", skip_serializing_if = "EndpointType::is_node")]
    pub kind: EndpointType,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            EndpointType::Dummy => f.write_str(&self.node),
            _ => write!(f, "{}:{}", self.node, self.interface),
        }
    }
}

impl LinkSpec {
    /// The link with the end that sorts first as `a`, so that the same cable is the same value.
    #[must_use]
    pub fn sorted(mut self) -> LinkSpec {
        if (&self.b.node, &self.b.interface) < (&self.a.node, &self.a.interface) {
            std::mem::swap(&mut self.a, &mut self.b);
            std::mem::swap(&mut self.a_to_b, &mut self.b_to_a);
        }
        self
    }

    /// The link's id: its sorted end pair, for instance `r1:eth1--r2:eth1`. Two files mean the same link iff the ends are equal.
    pub fn id(&self) -> String {
        let (a, b) = (self.a.to_string(), self.b.to_string());
        let first = (&self.a.node, &self.a.interface) <= (&self.b.node, &self.b.interface);
        if first { format!("{a}--{b}") } else { format!("{b}--{a}") }
    }

    /// A short hash of it, its ends sorted: changes with the spec and with nothing else.
    pub fn version(&self) -> String {
        // Its maps are sorted, so that equal specs have equal texts.
        let text = serde_json::to_vec(&self.clone().sorted()).expect("a link always serialises");
        Digest::of(&text).as_str()["sha256:".len()..][..16].to_owned()
    }

    /// The ends that are interfaces of nodes.
    pub fn node_ends(&self) -> impl Iterator<Item = &Endpoint> {
        [&self.a, &self.b].into_iter().filter(|end| end.kind.is_node())
    }

    /// The MTU that both interfaces get.
    pub fn effective_mtu(&self) -> u32 {
        if self.mtu == 0 { DEFAULT_MTU } else { self.mtu }
    }
}
