//! Cuts what is told of a host into messages that every channel takes: a host of thousands of wires, each with a reason in words, does not
//! fit into one.

use netloom_proto::network::v1 as pb;
use prost::Message as _;

use crate::observe::{Changes, Observed};

/// Most bytes of the items of one message.
const MOST: usize = 2 << 20;
/// Room for the tag and the length of an item.
const FRAME: usize = 8;
/// Most bytes of a wire id.
const ID: usize = 10;

enum Item {
    Nic(pb::ObservedNic),
    Wire(pb::ObservedWire),
    Segment(pb::ObservedSegment),
    Unwanted(u64),
}

impl Item {
    fn size(&self) -> usize {
        match self {
            Item::Nic(nic) => nic.encoded_len() + FRAME,
            Item::Wire(wire) => wire.encoded_len() + FRAME,
            Item::Segment(segment) => segment.encoded_len() + FRAME,
            Item::Unwanted(_) => ID,
        }
    }
}

/// The items of a message.
#[derive(Default)]
struct Part {
    nics: Vec<pb::ObservedNic>,
    wires: Vec<pb::ObservedWire>,
    segments: Vec<pb::ObservedSegment>,
    unwanted: Vec<u64>,
}

/// At least one part, each of at most so many bytes unless a single item has more.
fn cut(items: impl Iterator<Item = Item>, most: usize) -> Vec<Part> {
    let (mut parts, mut part, mut bytes) = (Vec::new(), Part::default(), 0);
    for item in items {
        let size = item.size();
        if bytes > 0 && bytes + size > most {
            parts.push(std::mem::take(&mut part));
            bytes = 0;
        }
        bytes += size;
        match item {
            Item::Nic(nic) => part.nics.push(nic),
            Item::Wire(wire) => part.wires.push(wire),
            Item::Segment(segment) => part.segments.push(segment),
            Item::Unwanted(wire) => part.unwanted.push(wire),
        }
    }
    parts.push(part);
    parts
}

/// Everything.
pub fn snapshot(observed: &Observed) -> Vec<pb::Snapshot> {
    snapshot_in(observed, MOST)
}

fn snapshot_in(observed: &Observed, most: usize) -> Vec<pb::Snapshot> {
    let nics = observed.nics.values().cloned().map(|nic| Item::Nic(nic.into()));
    let wires = observed.wires.values().cloned().map(|wire| Item::Wire(wire.into()));
    let segments = observed.segments.values().cloned().map(|segment| Item::Segment(segment.into()));
    let unwanted = observed.unwanted.iter().map(|wire| Item::Unwanted(wire.get()));
    let parts = cut(nics.chain(wires).chain(segments).chain(unwanted), most);
    let last = parts.len() - 1;
    let snapshot = |(at, Part { nics, wires, segments, unwanted })| {
        let inventory = Some(observed.inventory.clone().into());
        pb::Snapshot { nics, wires, segments, inventory, synced: observed.synced, unwanted, more: at < last }
    };
    parts.into_iter().enumerate().map(snapshot).collect()
}

/// What changed.
pub fn changes(Changes { nics, wires, segments }: Changes) -> Vec<pb::Changes> {
    let nics = nics.into_iter().map(|nic| Item::Nic(nic.into()));
    let wires = wires.into_iter().map(|wire| Item::Wire(wire.into()));
    let segments = segments.into_iter().map(|segment| Item::Segment(segment.into()));
    let parts = cut(nics.chain(wires).chain(segments), MOST).into_iter();
    parts.map(|Part { nics, wires, segments, .. }| pb::Changes { nics, wires, segments }).collect()
}

#[cfg(test)]
mod tests {
    use netloom_model::observed::{ObservedWire, WireState};

    use super::*;

    fn observed(wires: u64, detail: usize) -> Observed {
        let wire = |n: u64| {
            let (wire_id, detail, plane) = (n.try_into().unwrap(), "x".repeat(detail), String::new());
            let (state, plane_reason) = (WireState::Failed, String::new());
            (
                wire_id,
                ObservedWire { wire_id, state, detail, plane, plane_reason, end: None, sources: Vec::new() },
            )
        };
        let unwanted = (1..=wires).map(|n| (u64::MAX / 2 - n).try_into().unwrap()).collect();
        Observed { wires: (1..=wires).map(wire).collect(), unwanted, synced: true, ..Observed::default() }
    }

    #[test]
    fn parts_are_small_and_make_the_whole() {
        let observed = observed(500, 100);
        let parts = snapshot_in(&observed, 10_000);
        assert!(parts.len() > 4 && parts.iter().all(|part| part.encoded_len() < 10_100));
        let more: Vec<bool> = parts.iter().rev().map(|part| part.more).collect();
        assert!(!more[0] && more[1..].iter().all(|more| *more));
        assert!(parts.iter().all(|part| part.synced && part.inventory.is_some()));
        let wires: Vec<u64> = parts.iter().flat_map(|part| &part.wires).map(|wire| wire.wire_id).collect();
        assert_eq!(wires, (1..=500).collect::<Vec<_>>());
        assert_eq!(parts.iter().map(|part| part.unwanted.len()).sum::<usize>(), 500);
    }

    #[test]
    fn a_large_host_is_told_in_messages_of_less_than_3_mib() {
        let observed = observed(20_000, 300);
        let parts = snapshot(&observed);
        assert!(parts.len() > 2 && parts.iter().all(|part| part.encoded_len() < 3 << 20));
        let told = Changes { wires: observed.wires.into_values().collect(), ..Changes::default() };
        let parts = changes(told);
        assert!(parts.len() > 2 && parts.iter().all(|part| part.encoded_len() < 3 << 20));
    }

    #[test]
    fn nothing_is_one_part() {
        let parts = snapshot(&Observed::default());
        assert_eq!((parts.len(), parts[0].more), (1, false));
    }
}
