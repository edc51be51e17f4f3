//! What hosts are told and what they read back: [`compute`] of instances, [`network`] of NICs, wires and segments.

mod compute;
mod network;

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

fn read(sources: impl Iterator<Item = EvidenceSource>) -> Result<Vec<Source>, ConvertError> {
    sources.map(TryInto::try_into).collect()
}
