//! Spreads linked items over bins so that few links go between bins. Pure; the same question has the same answer. Knows no labs.
//!
//! A list taken node by node, each to the bin of most of its neighbours, sees one step far: it begins many clusters in one bin, fills it, and cuts
//! all of them. So the multilevel way of graph partitioners is taken: linked items are merged into clusters of at most a bin's size, level by level; the
//! clusters are put into bins; then each merging is undone, and at every level items move, or change places, wherever that leaves fewer links between bins.
//! The node by node list, improved the same way, is tried as well, and the best is taken: most items placed, then fewest links cut.

mod filling;
mod level;

use self::filling::Filling;
use self::level::{Classes, Level, NOWHERE, contract, merge};

/// What an item takes and a bin has, by resource.
pub type Amount = [u64; 3];

/// What is put into a bin.
#[derive(Debug, Clone)]
pub struct Item {
    /// What it takes.
    pub takes: Amount,
    /// Which bins it may go to: an index of [`Problem::classes`].
    pub class: usize,
    /// Links to what is in a bin already: the bin, and how many.
    pub pulls: Vec<(usize, u32)>,
    /// What says which bins suit it: indexes of [`Problem::likes`].
    pub likes: Vec<usize>,
}

/// What items are put into.
#[derive(Debug, Clone)]
pub struct Bin {
    /// What is left.
    pub free: Amount,
    /// What it has in all: of two that fit, the one with the larger part free is taken.
    pub size: Amount,
}

/// Items, their links and the bins.
#[derive(Debug, Clone, Default)]
pub struct Problem {
    /// The items. Where nothing else decides, the earlier one is taken first.
    pub items: Vec<Item>,
    /// Links: two items, and how many.
    pub links: Vec<(usize, usize, u32)>,
    /// The bins.
    pub bins: Vec<Bin>,
    /// For each class of items, whether each bin takes them.
    pub classes: Vec<Vec<bool>>,
    /// For each thing that items like, how well each bin suits it.
    pub likes: Vec<Vec<u64>>,
}

/// Parts into which the room of a bin is divided where it counts how much is free: two in the same one are as good as equal.
const PARTS: u64 = 16;

/// All of a bin, in the unit of [`part`].
const WHOLE: u64 = 1_000_000;

/// The smallest of the free parts of a bin, so that none runs out first, in millionths.
pub fn part(free: Amount, size: Amount) -> u64 {
    let part = |(free, size): (u64, u64)| u128::from(free) * u128::from(WHOLE) / u128::from(size.max(1));
    let least = free.into_iter().zip(size).map(part).min().unwrap_or_default();
    u64::try_from(least).unwrap_or(u64::MAX)
}

/// How good a bin is by the part of it that is free and by how well it suits: the emptier, and of those as good as equal the one that suits better.
pub fn rank(part: u64, suits: u64) -> (u64, u64, u64) {
    (part.div_ceil(WHOLE / PARTS), suits, part)
}

/// The bin of each item; none for those that fit nowhere beside the others.
pub fn spread(problem: &Problem) -> Vec<Option<usize>> {
    let mut classes = Classes::new(problem);
    let fine = Level::of(problem);
    let nowhere = vec![NOWHERE; fine.len()];
    let listed = fill(problem, &classes, &fine, &nowhere);
    let by_links = problem.likes.iter().any(|suits| !suits.is_empty()).then(|| by_links(problem));
    let mut best = through_clusters(problem, &mut classes, &fine, nowhere);
    for listed in [Some(listed), by_links].into_iter().flatten() {
        if listed.worth(&fine) > best.worth(&fine) {
            best = listed;
        }
    }
    // Once more with clusters that stay within their bins: what is moved then is other than before.
    for _ in 0..CYCLES {
        let again = through_clusters(problem, &mut classes, &fine, best.at.clone());
        if again.worth(&fine) <= best.worth(&fine) {
            break;
        }
        best = again;
    }
    best.at.iter().map(|bin| (*bin != NOWHERE).then_some(*bin as usize)).collect()
}

/// The list that knows nothing of what suits: that decides where links do not, and may begin a cluster where there is no room for the rest of it.
fn by_links(problem: &Problem) -> Filling {
    let mut plain = problem.clone();
    plain.likes.clear();
    plain.items.iter_mut().for_each(|item| item.likes.clear());
    let fine = Level::of(&plain);
    fill(&plain, &Classes::new(&plain), &fine, &vec![NOWHERE; fine.len()])
}

/// How often a good answer is taken for the start of another. A third time finds next to nothing.
const CYCLES: usize = 2;

/// Fills the bins with clusters, and undoes the merging level by level. What is somewhere already starts from there.
fn through_clusters(problem: &Problem, classes: &mut Classes, fine: &Level, at: Vec<u32>) -> Filling {
    let (coarse, at) = coarsen(fine, classes, at);
    let mut filling = fill(problem, classes, coarse.last().map_or(fine, |(_, level)| level), &at);
    for depth in (0..coarse.len()).rev() {
        let level = if depth == 0 { fine } else { &coarse[depth - 1].1 };
        let at: Vec<u32> = coarse[depth].0.iter().map(|head| filling.at[*head as usize]).collect();
        filling = fill(problem, classes, level, &at);
    }
    filling
}

/// Puts items where they are said to be and the rest where they fit, and improves on it.
fn fill(problem: &Problem, classes: &Classes, level: &Level, at: &[u32]) -> Filling {
    let mut filling = Filling::new(problem, level.len());
    for (item, bin) in at.iter().enumerate().filter(|(_, bin)| **bin != NOWHERE) {
        filling.put(level, item, *bin);
    }
    filling.put_rest(level, classes);
    filling.improve(level, classes);
    filling
}

/// Ever coarser levels, each with the cluster of every item of the level before, and where the coarsest ones are.
fn coarsen(fine: &Level, classes: &mut Classes, mut at: Vec<u32>) -> (Vec<(Vec<u32>, Level)>, Vec<u32>) {
    let mut levels: Vec<(Vec<u32>, Level)> = Vec::new();
    loop {
        let level = levels.last().map_or(fine, |(_, level)| level);
        let (cluster, clusters) = merge(level, classes, &at);
        // The last steps merge next to nothing: they cost as much as the first.
        if clusters * 20 >= level.len() * 19 {
            return (levels, at);
        }
        let mut heads = vec![NOWHERE; clusters];
        cluster.iter().zip(&at).for_each(|(head, bin)| heads[*head as usize] = *bin);
        at = heads;
        let coarser = contract(level, &cluster, clusters, classes);
        levels.push((cluster, coarser));
    }
}
