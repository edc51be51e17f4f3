//! What a plan means for nodes' namespaces: which are visited, and what each NIC that is made or changed there is to be like.

use std::collections::BTreeSet;

use netloom_model::id::{NodeUid, WireId};
use netloom_ovsdb::Uuid;

use crate::guest::Guest;
use crate::links::Links;
use crate::names::Names;
use crate::namespace::{Adjust, Plug, Visit};
use crate::netns::Starts;
use crate::plan::{Adjustment, Plan};
use crate::slice::Wanted;

/// Numbers of host ends begin here: an end in a node never gets so high.
const FIRST: u32 = 100_001;

/// Numbers for host ends.
pub struct Numbers {
    next: u32,
}

impl Numbers {
    /// Somewhere in a wide range, so that two installations seldom meet; a number that is taken is passed over.
    pub fn new() -> Numbers {
        let spread = (1u32 << 30) - FIRST;
        Numbers { next: FIRST + Uuid::new_v4().as_fields().0 % spread }
    }

    fn give(&mut self, taken: &BTreeSet<u32>) -> u32 {
        while taken.contains(&self.next) {
            self.next += 1;
        }
        let number = self.next;
        self.next = number.wrapping_add(1).clamp(FIRST, i32::MAX as u32);
        number
    }
}

/// The visits that bring a plan about, by node.
pub fn of(
    plan: &Plan,
    names: &Names,
    wanted: &Wanted,
    starts: &Starts,
    links: &Links,
    numbers: &mut Numbers,
) -> Vec<(String, Visit)> {
    let nodes: BTreeSet<&NodeUid> = plan.plug.keys().chain(plan.adjust.keys()).collect();
    if nodes.is_empty() {
        return Vec::new();
    }
    let taken: BTreeSet<u32> = links.values().map(|link| link.index).collect();
    let mut visits = Vec::new();
    for node in nodes {
        let Some(start) = starts.get(node) else { continue };
        // Those that cannot be are not in the plan.
        let known = |wire: WireId| {
            let nic = wanted.slice.nics.get(&wire)?;
            Some((nic, Guest::parse(nic).ok()?))
        };
        let mut plugs = Vec::new();
        for wish in plan.plug.get(node).into_iter().flatten() {
            let Some((nic, guest)) = known(wish.wire) else { continue };
            plugs.push(Plug {
                wire: nic.wire_id,
                guest,
                host_name: wish.host_name.clone(),
                host_index: numbers.give(&taken),
                alias: names.alias(nic, &start.id, Some(wish.offload)),
                group: names.group,
                offload: wish.offload,
            });
        }
        let adjust = |adjustment: &Adjustment| {
            let (nic, guest) = known(adjustment.wire)?;
            Some(Adjust {
                wire: adjustment.wire,
                guest_index: adjustment.guest_index,
                host_index: adjustment.host_index,
                called: adjustment.called.clone(),
                name: guest.name,
                before: adjustment.before.clone(),
                after: guest.setting,
                offload: adjustment.offload,
                alias: names.alias(nic, &start.id, adjustment.offload),
            })
        };
        let adjusts = plan.adjust.get(node).into_iter().flatten().filter_map(adjust).collect();
        visits.push((node.to_string(), Visit { path: start.path.clone(), plugs, adjusts }));
    }
    visits
}
