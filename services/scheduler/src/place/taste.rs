//! What decides between hosts that are as good as equal: that virtual machines run there by KVM, then that images are there. Pure.

use std::collections::{BTreeMap, BTreeSet};

use netloom_model::observed::Acceleration;
use netloom_model::state::Runtime;

use super::{Need, Room};

/// References of images that a host had when it was last asked, by what runs them.
pub type Images = BTreeMap<Runtime, BTreeSet<String>>;

/// How many images KVM outweighs.
const KVM: u64 = 1 << 20;

/// How well a host suits a node that this runs from this image.
pub fn suits(room: &Room, runtime: Runtime, image: &str) -> u64 {
    let kvm = runtime == Runtime::Libvirt && room.allowed.acceleration == Some(Acceleration::Kvm);
    let is_there = room.allowed.images.get(&runtime).is_some_and(|all| all.contains(image));
    u64::from(kvm) * KVM + u64::from(is_there)
}

/// How well hosts suit nodes together: a lab has many nodes, and few images.
pub struct Tastes<'a>(BTreeMap<(Runtime, &'a str), u64>);

impl<'a> Tastes<'a> {
    /// Of these nodes.
    pub fn of(needs: &'a [Need]) -> Tastes<'a> {
        let mut all = BTreeMap::new();
        needs.iter().for_each(|need| *all.entry((need.runtime, need.image.as_str())).or_default() += 1);
        Tastes(all)
    }

    /// How well a host suits all of them.
    pub fn suit(&self, room: &Room) -> u64 {
        self.0.iter().map(|((runtime, image), count)| count * suits(room, *runtime, image)).sum()
    }
}
