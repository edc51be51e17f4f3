//! What is in which bin, and how that becomes better: moves, and changes of place. Pure.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use super::level::{Classes, Level, NOWHERE, sum, within};
use super::{Amount, Problem, part, rank};

/// Moves without a better point after which a round ends.
const PATIENCE: usize = 200;

/// Members of a bin that are asked to change places.
const WIDTH: usize = 16;

/// What is where.
pub struct Filling {
    pub at: Vec<u32>,
    free: Vec<Amount>,
    size: Vec<Amount>,
    /// The part of each bin that is free.
    part: Vec<u64>,
    members: Vec<Vec<u32>>,
    /// The place of each item among the members of its bin.
    place: Vec<u32>,
    /// Bins by the part of them that is free.
    emptiest: BTreeSet<(u64, Reverse<u32>)>,
    /// Links to each bin of the item that was looked at last, and the bins that have any.
    near: Vec<u32>,
    touched: Vec<u32>,
}

impl Filling {
    pub fn new(problem: &Problem, items: usize) -> Filling {
        let mut filling = Filling {
            at: vec![NOWHERE; items],
            free: problem.bins.iter().map(|b| b.free).collect(),
            size: problem.bins.iter().map(|b| b.size).collect(),
            part: problem.bins.iter().map(|b| part(b.free, b.size)).collect(),
            members: vec![Vec::new(); problem.bins.len()],
            place: vec![0; items],
            emptiest: BTreeSet::new(),
            near: vec![0; problem.bins.len()],
            touched: Vec::new(),
        };
        filling.emptiest = filling.part.iter().zip(0..).map(|(part, bin)| (*part, Reverse(bin))).collect();
        filling
    }

    /// Has a bin so much free from now on.
    fn set_free(&mut self, bin: u32, free: Amount) {
        let i = bin as usize;
        self.emptiest.remove(&(self.part[i], Reverse(bin)));
        (self.free[i], self.part[i]) = (free, part(free, self.size[i]));
        self.emptiest.insert((self.part[i], Reverse(bin)));
    }

    /// How good a bin is for an item where links do not decide.
    fn rank(&self, level: &Level, classes: &Classes, item: usize, bin: u32) -> impl Ord + use<> {
        (rank(self.part[bin as usize], level.suits(classes, item, bin)), Reverse(bin))
    }

    /// The emptiest bin that takes an item, or of those as good as equal the one that suits it best.
    fn emptiest(&self, level: &Level, classes: &Classes, item: usize) -> Option<u32> {
        let takes = |(_, bin): &(u64, u32)| self.takes(level, classes, item, *bin);
        let mut all = self.emptiest.iter().rev().map(|(part, Reverse(bin))| (*part, *bin));
        let (most, first) = all.find(takes)?;
        let most_suits = level.most_suits(classes, item);
        let (mut best, mut suits) = (first, level.suits(classes, item, first));
        let mut equal = all.take_while(|(part, _)| rank(*part, 0).0 == rank(most, 0).0).filter(takes);
        while suits < most_suits
            && let Some((_, bin)) = equal.next()
        {
            let of_bin = level.suits(classes, item, bin);
            if of_bin > suits {
                (best, suits) = (bin, of_bin);
            }
        }
        Some(best)
    }

    pub fn put(&mut self, level: &Level, item: usize, bin: u32) {
        let (free, takes) = (self.free[bin as usize], level.takes[item]);
        self.set_free(bin, std::array::from_fn(|r| free[r] - takes[r]));
        self.place[item] = self.members[bin as usize].len() as u32;
        self.members[bin as usize].push(item as u32);
        self.at[item] = bin;
    }

    fn take_out(&mut self, level: &Level, item: usize) {
        let bin = self.at[item];
        self.set_free(bin, sum(self.free[bin as usize], level.takes[item]));
        let (members, place) = (&mut self.members[bin as usize], self.place[item]);
        members.swap_remove(place as usize);
        if let Some(moved) = members.get(place as usize) {
            self.place[*moved as usize] = place;
        }
        self.at[item] = NOWHERE;
    }

    fn shift(&mut self, level: &Level, item: usize, bin: u32) {
        self.take_out(level, item);
        self.put(level, item, bin);
    }

    fn takes(&self, level: &Level, classes: &Classes, item: usize, bin: u32) -> bool {
        classes.bins[level.class[item] as usize][bin as usize]
            && within(level.takes[item], self.free[bin as usize])
    }

    /// Counts the links of an item by the bin of their other end.
    fn look(&mut self, level: &Level, item: usize) {
        for bin in self.touched.drain(..) {
            self.near[bin as usize] = 0;
        }
        let ends = level.links(item).iter().map(|(other, n)| (self.at[*other as usize], *n));
        for (bin, n) in ends.chain(level.pulls[item].iter().copied()).filter(|(bin, _)| *bin != NOWHERE) {
            if self.near[bin as usize] == 0 {
                self.touched.push(bin);
            }
            self.near[bin as usize] += n;
        }
    }

    /// Links of the item that was looked at, into a bin.
    fn near(&self, bin: u32) -> i64 {
        i64::from(self.near[bin as usize])
    }

    /// Puts what is nowhere: those with fewest bins first, then the largest, each to the bin of most of its links, then to the emptiest.
    pub fn put_rest(&mut self, level: &Level, classes: &Classes) {
        let mut rest: Vec<usize> = (0..level.len()).filter(|i| self.at[*i] == NOWHERE).collect();
        let able: Vec<usize> = classes.bins.iter().map(|b| b.iter().filter(|b| **b).count()).collect();
        rest.sort_by_key(|i| (able[level.class[*i] as usize], Reverse(level.takes[*i]), *i));
        for item in rest {
            self.look(level, item);
            let fits = |bin: &u32| self.takes(level, classes, item, *bin);
            let near = self.touched.iter().copied().filter(fits);
            let best = near.max_by_key(|b| (self.near(*b), self.rank(level, classes, item, *b)));
            let best = best.or_else(|| self.emptiest(level, classes, item));
            if let Some(bin) = best {
                self.put(level, item, bin);
            }
        }
    }

    /// Moves and changes places until neither helps.
    pub fn improve(&mut self, level: &Level, classes: &Classes) {
        for _ in 0..6 {
            let moved = self.moves(level, classes);
            let swapped = self.swaps(level, classes);
            if !moved && !swapped {
                break;
            }
        }
    }

    /// The best bin for an item beside its own, and how many links fewer are cut then.
    fn best_move(&mut self, level: &Level, classes: &Classes, item: usize) -> Option<(i64, u32)> {
        let from = self.at[item];
        if from == NOWHERE {
            return None;
        }
        self.look(level, item);
        let here = self.near(from);
        let fits = |bin: &u32| *bin != from && self.takes(level, classes, item, *bin);
        let best = self.touched.iter().copied().filter(fits);
        best.max_by_key(|b| (self.near(*b), self.rank(level, classes, item, *b)))
            .map(|b| (self.near(b) - here, b))
    }

    /// One round of moves by Fiduccia and Mattheyses: each item moves once, the best move first also when it makes things worse, and what came after the
    /// best point is taken back. A hill between two valleys is climbed so.
    fn moves(&mut self, level: &Level, classes: &Classes) -> bool {
        let mut heap: BinaryHeap<(i64, Reverse<u32>, u32)> = BinaryHeap::new();
        for item in 0..level.len() {
            if let Some((gain, bin)) = self.best_move(level, classes, item) {
                heap.push((gain, Reverse(item as u32), bin));
            }
        }
        let mut done = vec![false; level.len()];
        let mut log: Vec<(usize, u32)> = Vec::new();
        let (mut now, mut best, mut kept) = (0i64, 0i64, 0usize);
        while let Some((gain, Reverse(item), bin)) = heap.pop() {
            let i = item as usize;
            if done[i] {
                continue;
            }
            let real = self.best_move(level, classes, i);
            if real != Some((gain, bin)) {
                if let Some((gain, bin)) = real {
                    heap.push((gain, Reverse(item), bin));
                }
                continue;
            }
            done[i] = true;
            log.push((i, self.at[i]));
            self.shift(level, i, bin);
            now += gain;
            if now > best {
                (best, kept) = (now, log.len());
            } else if log.len() - kept > PATIENCE {
                break;
            }
            for (other, _) in level.links(i).to_vec() {
                if !done[other as usize]
                    && let Some((gain, bin)) = self.best_move(level, classes, other as usize)
                {
                    heap.push((gain, Reverse(other), bin));
                }
            }
        }
        for (item, bin) in log.drain(kept..).rev() {
            self.shift(level, item, bin);
        }
        best > 0
    }

    /// Lets two items change places where a full bin keeps one from moving.
    fn swaps(&mut self, level: &Level, classes: &Classes) -> bool {
        let mut any = false;
        for item in 0..level.len() {
            let from = self.at[item];
            if from == NOWHERE {
                continue;
            }
            self.look(level, item);
            let here = self.near(from);
            let mut wishes: Vec<(i64, u32)> = self
                .touched
                .iter()
                .filter(|b| **b != from && classes.bins[level.class[item] as usize][**b as usize])
                .map(|b| (self.near(*b) - here, *b))
                .collect();
            wishes.sort_by_key(|(gain, bin)| (Reverse(*gain), *bin));
            let swap = wishes.iter().find_map(|(gain, bin)| self.partner(level, classes, item, *gain, *bin));
            if let Some((other, bin)) = swap {
                self.take_out(level, item);
                self.shift(level, other, from);
                self.put(level, item, bin);
                any = true;
            }
        }
        any
    }

    /// Who of a bin changes places with an item so that fewer links are cut: the best of the first few.
    fn partner(
        &mut self,
        level: &Level,
        classes: &Classes,
        item: usize,
        gain: i64,
        bin: u32,
    ) -> Option<(usize, u32)> {
        let from = self.at[item];
        let mut best: Option<(i64, usize)> = None;
        for at in 0..self.members[bin as usize].len().min(WIDTH) {
            let other = self.members[bin as usize][at] as usize;
            let room = |bin: u32, goes: usize, comes: usize| {
                within(level.takes[comes], sum(self.free[bin as usize], level.takes[goes]))
            };
            if !classes.bins[level.class[other] as usize][from as usize]
                || !room(bin, other, item)
                || !room(from, item, other)
            {
                continue;
            }
            self.look(level, other);
            let between = level.links(item).iter().find(|(o, _)| *o as usize == other).map_or(0, |(_, n)| *n);
            let total = gain + self.near(from) - self.near(bin) - 2 * i64::from(between);
            if total > 0 && best.is_none_or(|(b, _)| total > b) {
                best = Some((total, other));
            }
        }
        best.map(|(_, other)| (other, bin))
    }

    /// Items placed, and links not cut.
    pub fn worth(&self, level: &Level) -> (usize, u64) {
        let mut kept = 0;
        for i in (0..level.len()).filter(|i| self.at[*i] != NOWHERE) {
            let same =
                |(o, n): &(u32, u32)| if self.at[*o as usize] == self.at[i] { u64::from(*n) } else { 0 };
            let pulled =
                level.pulls[i].iter().filter(|(b, _)| *b == self.at[i]).map(|(_, n)| 2 * u64::from(*n));
            kept += level.links(i).iter().map(same).sum::<u64>() + pulled.sum::<u64>();
        }
        (self.at.iter().filter(|b| **b != NOWHERE).count(), kept)
    }
}
