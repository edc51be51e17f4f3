//! Items at one level of detail, and how linked ones are merged into the next. Pure.

use std::collections::BTreeMap;

use super::{Amount, Problem};

/// No bin.
pub const NOWHERE: u32 = u32::MAX;

/// Items, or clusters of them, and the links between.
#[derive(Debug, Default)]
pub struct Level {
    pub takes: Vec<Amount>,
    pub class: Vec<u32>,
    pub pulls: Vec<Vec<(u32, u32)>>,
    /// What each likes, and how many of it do.
    pub likes: Vec<Vec<(u32, u64)>>,
    /// How many items each stands for.
    pub count: Vec<u32>,
    /// Links of item `i` are `links[first[i]..first[i + 1]]`: the other end, and how many.
    first: Vec<usize>,
    links: Vec<(u32, u32)>,
}

impl Level {
    pub fn of(problem: &Problem) -> Level {
        let items = &problem.items;
        let narrow = |(bin, n): &(usize, u32)| (*bin as u32, *n);
        let mut level = Level {
            takes: items.iter().map(|i| i.takes).collect(),
            class: items.iter().map(|i| i.class as u32).collect(),
            pulls: items.iter().map(|i| i.pulls.iter().map(narrow).collect()).collect(),
            likes: items.iter().map(|i| i.likes.iter().map(|l| (*l as u32, 1)).collect()).collect(),
            count: vec![1; items.len()],
            ..Level::default()
        };
        level.link(problem.links.iter().map(|&(a, b, n)| (a as u32, b as u32, n)));
        level
    }

    /// Sets the links; several between the same two become one of their sum.
    fn link(&mut self, links: impl Iterator<Item = (u32, u32, u32)>) {
        let mut ends: Vec<(u32, u32, u32)> =
            links.filter(|(a, b, _)| a != b).flat_map(|(a, b, n)| [(a, b, n), (b, a, n)]).collect();
        ends.sort_unstable();
        ends.dedup_by(|next, kept| {
            let same = (next.0, next.1) == (kept.0, kept.1);
            kept.2 += if same { next.2 } else { 0 };
            same
        });
        self.first = vec![0; self.takes.len() + 1];
        ends.iter().for_each(|(a, _, _)| self.first[*a as usize + 1] += 1);
        (0..self.takes.len()).for_each(|i| self.first[i + 1] += self.first[i]);
        self.links = ends.into_iter().map(|(_, b, n)| (b, n)).collect();
    }

    pub fn len(&self) -> usize {
        self.takes.len()
    }

    pub fn links(&self, item: usize) -> &[(u32, u32)] {
        &self.links[self.first[item]..self.first[item + 1]]
    }

    /// How well a bin suits an item.
    pub fn suits(&self, classes: &Classes, item: usize, bin: u32) -> u64 {
        let likes = self.likes[item].iter();
        likes.map(|(like, count)| count * classes.likes[*like as usize].0[bin as usize]).sum()
    }

    /// The most that a bin may suit it.
    pub fn most_suits(&self, classes: &Classes, item: usize) -> u64 {
        self.likes[item].iter().map(|(like, count)| count * classes.likes[*like as usize].1).sum()
    }
}

/// Sets of bins, and for each the most that one bin of it has free.
pub struct Classes {
    pub bins: Vec<Vec<bool>>,
    pub most: Vec<Amount>,
    /// For each thing that items like, how well each bin suits it, and the most that one does.
    likes: Vec<(Vec<u64>, u64)>,
    both: BTreeMap<(u32, u32), Option<u32>>,
    free: Vec<Amount>,
}

impl Classes {
    pub fn new(problem: &Problem) -> Classes {
        let free = problem.bins.iter().map(|b| b.free).collect();
        let most = |like: &Vec<u64>| like.iter().copied().max().unwrap_or_default();
        let likes = problem.likes.iter().map(|like| (like.clone(), most(like))).collect();
        let (bins, most) = (Vec::new(), Vec::new());
        let mut classes = Classes { bins, most, likes, both: BTreeMap::new(), free };
        problem.classes.iter().for_each(|bins| classes.add(bins.clone()));
        classes
    }

    fn add(&mut self, bins: Vec<bool>) {
        let taking = self.free.iter().zip(&bins).filter(|(_, takes)| **takes).map(|(free, _)| free);
        self.most.push(taking.fold(Amount::default(), |most, free| each(most, *free, u64::max)));
        self.bins.push(bins);
    }

    /// The class of what goes only where both go; none when there is no such bin.
    pub fn both(&mut self, a: u32, b: u32) -> Option<u32> {
        if a == b {
            return Some(a);
        }
        let pair = (a.min(b), a.max(b));
        if let Some(known) = self.both.get(&pair) {
            return *known;
        }
        let bins: Vec<bool> =
            self.bins[a as usize].iter().zip(&self.bins[b as usize]).map(|(x, y)| *x && *y).collect();
        let class = if !bins.contains(&true) {
            None
        } else if let Some(same) = self.bins.iter().position(|known| *known == bins) {
            Some(same as u32)
        } else {
            self.add(bins);
            Some(self.bins.len() as u32 - 1)
        };
        self.both.insert(pair, class);
        class
    }
}

fn each(a: Amount, b: Amount, of: impl Fn(u64, u64) -> u64) -> Amount {
    std::array::from_fn(|r| of(a[r], b[r]))
}

pub fn sum(a: Amount, b: Amount) -> Amount {
    each(a, b, u64::saturating_add)
}

pub fn within(a: Amount, b: Amount) -> bool {
    a.into_iter().zip(b).all(|(a, b)| a <= b)
}

/// Merges linked items two by two, and what is left over with its best linked pair: the cluster of each, and how many there are.
pub fn merge(level: &Level, classes: &mut Classes, at: &[u32]) -> (Vec<u32>, usize) {
    let mut order: Vec<u32> = (0..level.len() as u32).collect();
    // Few links first: who has one chance only takes it.
    order.sort_by_key(|i| (level.links(*i as usize).len(), scatter(*i)));
    let mut cluster = vec![NOWHERE; level.len()];
    let mut heads: Vec<(Amount, u32, u32)> = Vec::new();
    for item in order {
        let i = item as usize;
        if cluster[i] != NOWHERE {
            continue;
        }
        let mut best: Option<((u128, u128), u32, Option<u32>)> = None;
        for &(other, links) in level.links(i) {
            let o = other as usize;
            if at[o] != at[i] {
                continue;
            }
            let (takes, count, class, joined) = match cluster[o] {
                NOWHERE => (level.takes[o], level.count[o], level.class[o], None),
                head => {
                    let (takes, count, class) = heads[head as usize];
                    (takes, count, class, Some(head))
                }
            };
            // Small clusters of many links first, so that they grow alike.
            let rate =
                (u128::from(links) * u128::from(links), u128::from(level.count[i]) * u128::from(count));
            let better = best.is_none_or(|(r, ..)| rate.0 * r.1 > r.0 * rate.1);
            if !better || joined.is_some() && count > level.count[i] + level.count[o] {
                continue;
            }
            let takes = sum(level.takes[i], takes);
            let fits =
                classes.both(level.class[i], class).is_some_and(|c| within(takes, classes.most[c as usize]));
            if fits {
                best = Some((rate, other, joined));
            }
        }
        let Some((_, other, joined)) = best else {
            cluster[i] = heads.len() as u32;
            heads.push((level.takes[i], level.count[i], level.class[i]));
            continue;
        };
        let o = other as usize;
        let head = joined.unwrap_or_else(|| {
            cluster[o] = heads.len() as u32;
            heads.push((level.takes[o], level.count[o], level.class[o]));
            cluster[o]
        });
        cluster[i] = head;
        let (takes, count, class) = &mut heads[head as usize];
        *takes = sum(*takes, level.takes[i]);
        *count += level.count[i];
        *class = classes.both(*class, level.class[i]).unwrap_or(*class);
    }
    let clusters = heads.len();
    (cluster, clusters)
}

/// The level of which each item is a cluster.
pub fn contract(level: &Level, cluster: &[u32], clusters: usize, classes: &mut Classes) -> Level {
    let mut coarser = Level {
        takes: vec![Amount::default(); clusters],
        class: vec![NOWHERE; clusters],
        pulls: vec![Vec::new(); clusters],
        likes: vec![Vec::new(); clusters],
        count: vec![0; clusters],
        ..Level::default()
    };
    for (i, head) in cluster.iter().enumerate() {
        let c = *head as usize;
        coarser.takes[c] = sum(coarser.takes[c], level.takes[i]);
        coarser.count[c] += level.count[i];
        coarser.class[c] = match coarser.class[c] {
            NOWHERE => level.class[i],
            class => classes.both(class, level.class[i]).unwrap_or(class),
        };
        coarser.pulls[c].extend(&level.pulls[i]);
        for (like, count) in &level.likes[i] {
            match coarser.likes[c].iter_mut().find(|(known, _)| known == like) {
                Some((_, all)) => *all += count,
                None => coarser.likes[c].push((*like, *count)),
            }
        }
    }
    let ends = |i: usize| level.links(i).iter().map(move |(o, n)| (i as u32, *o, *n));
    let links = (0..level.len()).flat_map(ends).filter(|(i, o, _)| i < o);
    coarser.link(links.map(|(i, o, n)| (cluster[i as usize], cluster[o as usize], n)));
    coarser
}

/// A fixed order that follows no pattern of the ids (splitmix64).
fn scatter(i: u32) -> u64 {
    let mut z = u64::from(i).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
