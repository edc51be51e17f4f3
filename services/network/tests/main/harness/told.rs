//! What a host tells.

use std::collections::BTreeMap;

use netloom_proto::network::v1 as pb;
use netloom_proto::network::v1::observe_response::Event;

/// What is observed of a host, as told by its stream.
#[derive(Default, Clone, Debug)]
pub struct Told {
    pub nics: BTreeMap<u64, pb::ObservedNic>,
    pub wires: BTreeMap<u64, pb::ObservedWire>,
    pub segments: BTreeMap<u64, pb::ObservedSegment>,
    pub inventory: pb::Inventory,
    pub unwanted: Vec<u64>,
    pub synced: bool,
    pub snapshots: u32,
    pub heartbeats: u32,
    /// What wires carried.
    pub carried: BTreeMap<u64, pb::WireCarried>,
    /// Every state that was told of a wire or segment, in order.
    pub history: BTreeMap<u64, Vec<pb::WireState>>,
    /// True while parts of a snapshot are still to come.
    partial: bool,
}

impl Told {
    pub fn hear(&mut self, event: Event) {
        let (nics, wires, segments) = match event {
            Event::Heartbeat(beat) => {
                self.heartbeats += 1;
                self.carried.extend(beat.carried.into_iter().map(|c| (c.wire_id, c)));
                self.inventory = beat.inventory.unwrap_or(self.inventory.clone());
                return;
            }
            Event::Snapshot(s) => {
                if !self.partial {
                    (self.nics, self.wires, self.segments, self.unwanted) = Default::default();
                }
                self.partial = s.more;
                self.snapshots += u32::from(!s.more);
                self.unwanted.extend(s.unwanted);
                self.synced = s.synced;
                self.inventory = s.inventory.unwrap();
                (s.nics, s.wires, s.segments)
            }
            Event::Changes(c) => (c.nics, c.wires, c.segments),
        };
        let wire_states = wires.iter().map(|w| (w.wire_id, w.state()));
        for (id, state) in wire_states.chain(segments.iter().map(|s| (s.wire_id, s.state()))) {
            let history = self.history.entry(id).or_default();
            if history.last() != Some(&state) {
                history.push(state);
            }
        }
        self.nics.extend(nics.into_iter().map(|n| (n.wire_id, n)));
        self.wires.extend(wires.into_iter().map(|w| (w.wire_id, w)));
        self.segments.extend(segments.into_iter().map(|s| (s.wire_id, s)));
    }

    pub fn up(&self, wire: u64) -> bool {
        self.wires.get(&wire).is_some_and(|w| w.state() == pb::WireState::Up)
    }

    pub fn segment_up(&self, segment: u64) -> bool {
        self.segments.get(&segment).is_some_and(|s| s.state() == pb::WireState::Up)
    }

    /// How often it was told that a wire or segment is up, after it was told that it is not.
    pub fn ups(&self, id: u64) -> usize {
        self.history.get(&id).into_iter().flatten().filter(|s| **s == pb::WireState::Up).count()
    }
}
