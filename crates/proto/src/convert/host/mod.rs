//! What hosts are told and what they read back: [`compute`] of instances, [`network`] of NICs, wires and segments.

mod compute;
mod network;

pub use self::compute::acceleration;

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use netloom_model::id::WireId;
use netloom_model::observed::Source;

use super::{ConvertError, words};
use crate::v1::EvidenceSource;

fn wire_id(field: &str, n: u64) -> Result<WireId, ConvertError> {
    WireId::try_from(n).map_err(|e| ConvertError::new(field, e))
}

words!(Source, EvidenceSource, "source" { Docker, Ovsdb, Flows, Interfaces, Redirects, Sim, Libvirt });

/// Sources as numbers on the wire.
pub fn told(sources: Vec<Source>) -> Vec<i32> {
    sources.into_iter().map(|s| EvidenceSource::from(s).into()).collect()
}

/// How long ago sources were read, as it goes over the wire.
pub fn read_ago(reads: &BTreeMap<Source, Instant>) -> HashMap<i32, u32> {
    let ago = |at: &Instant| u32::try_from(at.elapsed().as_millis()).unwrap_or(u32::MAX);
    reads.iter().map(|(source, at)| (EvidenceSource::from(*source).into(), ago(at))).collect()
}

/// How long ago sources were read, from the wire. What a newer host reads beside those that are known is left out.
pub fn ages(read_ago_ms: HashMap<i32, u32>) -> BTreeMap<Source, Duration> {
    let known = |(source, ms): (i32, u32)| {
        let source = Source::try_from(EvidenceSource::try_from(source).ok()?).ok()?;
        Some((source, Duration::from_millis(ms.into())))
    };
    read_ago_ms.into_iter().filter_map(known).collect()
}

fn read(sources: impl Iterator<Item = EvidenceSource>) -> Result<Vec<Source>, ConvertError> {
    sources.map(TryInto::try_into).collect()
}
