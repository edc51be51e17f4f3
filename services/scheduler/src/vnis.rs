//! Network identifiers of links between hosts. Pure.
//!
//! There are 24 bits for one in each frame, and two links that had the same between the same hosts would be one. So each that is in use is in a unique column of the
//! database, and is free again only when the row of its link goes: when both hosts said that the link is gone. What is chosen begins at a random place, so that a
//! number that was just given up is not the next one to be used.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use netloom_model::shared::Shared;

use crate::rows::{LabRows, LinkRow};

/// What is said of a link for which none is free.
pub const NONE_FREE: &str = "no network identifier is free for a link between hosts";

/// Gives each wanted link between two hosts that has none one of these that is not taken; one for which none is left goes without.
pub fn allot(rows: &mut LabRows, taken: &BTreeSet<u32>, range: &RangeInclusive<u32>) {
    let mut own: BTreeSet<u32> = rows.links.values().filter_map(|link| link.vni).collect();
    let without = |link: &&mut Shared<LinkRow>| link.is_wanted() && link.far.is_some() && link.vni.is_none();
    for link in rows.links.values_mut().filter(without) {
        let count = range.end() - range.start() + 1;
        let from = range.start() + rand::random_range(0..count);
        let mut all = (from..=*range.end()).chain(*range.start()..from);
        let Some(free) = all.find(|vni| !taken.contains(vni) && !own.contains(vni)) else { return };
        own.insert(free);
        link.vni = Some(free);
    }
}

/// The links between hosts for which none was free.
pub fn without(rows: &LabRows) -> Vec<&LinkRow> {
    rows.links.values().filter(|link| link.is_wanted() && link.far.is_some() && link.vni.is_none()).collect()
}
