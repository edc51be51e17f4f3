//! Which of two calls was decided later. A call that was cut off may still be on its way, or wait in a service that hangs, while its sender has long said something else over another
//! connection; what it says of an object is old then, and must not undo what came after it.

use std::collections::HashMap;
use std::hash::Hash;

/// So many objects are remembered each by itself; of the older half of more than that, only what is newest is.
const MOST: usize = 1 << 14;

/// A decision of a leader.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Decision {
    /// The leader's fencing term.
    pub term: u64,
    /// Which of its decisions: they count upwards from 1. 0 is one of which that is not known: it passes, and says nothing of others.
    pub number: u64,
}

/// The call was decided before one that passed already.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("this host was told something newer meanwhile; say what is wanted now")]
pub struct Overtaken;

/// What passed so far, of one leader.
#[derive(Debug)]
pub struct Order<K> {
    term: u64,
    /// Nothing that was decided before this passes.
    floor: u64,
    /// The newest that passed.
    newest: u64,
    last: HashMap<K, u64>,
}

impl<K> Default for Order<K> {
    fn default() -> Order<K> {
        Order { term: 0, floor: 0, newest: 0, last: HashMap::new() }
    }
}

impl<K: Eq + Hash> Order<K> {
    /// Lets a call pass that says something of these objects.
    ///
    /// # Errors
    /// When a later one of all, or of one of them, has passed.
    pub fn admit(&mut self, decision: Decision, of: impl IntoIterator<Item = K>) -> Result<(), Overtaken> {
        let number = self.number(decision);
        if number == 0 {
            return Ok(());
        }
        let of: Vec<K> = of.into_iter().collect();
        let newest = of.iter().filter_map(|key| self.last.get(key)).max();
        if number < self.floor || newest.is_some_and(|newest| number < *newest) {
            return Err(Overtaken);
        }
        self.newest = self.newest.max(number);
        self.last.extend(of.into_iter().map(|key| (key, number)));
        self.forget();
        Ok(())
    }

    /// Lets a call pass that says what all objects are.
    ///
    /// # Errors
    /// When a later one of any has passed.
    pub fn admit_all(&mut self, decision: Decision) -> Result<(), Overtaken> {
        let number = self.number(decision);
        if number == 0 {
            return Ok(());
        }
        if number < self.newest {
            return Err(Overtaken);
        }
        (self.floor, self.newest) = (number, number);
        self.last.clear();
        Ok(())
    }

    /// Another leader counts anew.
    fn number(&mut self, Decision { term, number }: Decision) -> u64 {
        if self.term != term {
            *self = Order { term, ..Order::default() };
        }
        number
    }

    fn forget(&mut self) {
        if self.last.len() <= MOST {
            return;
        }
        let mut numbers: Vec<u64> = self.last.values().copied().collect();
        let half = numbers.len() / 2;
        let (_, middle, _) = numbers.select_nth_unstable(half);
        let floor = self.floor.max(*middle);
        self.floor = floor;
        self.last.retain(|_, number| *number > floor);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn by(term: u64, number: u64) -> Decision {
        Decision { term, number }
    }

    #[test]
    fn what_was_decided_before_does_not_pass_what_was_said_since() {
        let mut order = Order::default();
        assert_eq!(order.admit(by(1, 2), ["a", "b"]), Ok(()));
        assert_eq!(order.admit(by(1, 2), ["a"]), Ok(()), "the rest of one decision");
        assert_eq!(order.admit(by(1, 1), ["b"]), Err(Overtaken));
        assert_eq!(order.admit(by(1, 1), ["c"]), Ok(()), "another object");
        assert_eq!(order.admit(by(1, 1), ["c", "a"]), Err(Overtaken));
        assert_eq!(order.admit_all(by(1, 1)), Err(Overtaken));
        assert_eq!(order.admit_all(by(1, 3)), Ok(()));
        assert_eq!(order.admit(by(1, 2), ["d"]), Err(Overtaken), "all were told since");
        assert_eq!(order.admit(by(1, 3), ["d"]), Ok(()));
    }

    #[test]
    fn a_leader_counts_anew_and_one_that_does_not_count_passes() {
        let mut order = Order::default();
        assert_eq!(order.admit_all(by(1, 9)), Ok(()));
        assert_eq!(order.admit(by(2, 1), ["a"]), Ok(()));
        assert_eq!(order.admit(by(2, 0), ["a"]), Ok(()));
        assert_eq!(order.admit_all(by(2, 0)), Ok(()));
        assert_eq!(order.admit(by(2, 1), ["a"]), Ok(()));
    }

    #[test]
    fn it_does_not_grow_for_ever() {
        let mut order = Order::default();
        for n in 1..=10 * MOST as u64 {
            assert_eq!(order.admit(by(1, n), [n]), Ok(()));
            assert!(order.last.len() <= MOST);
        }
        assert_eq!(order.admit(by(1, 1), [1]), Err(Overtaken), "what is forgotten is old");
    }

    proptest! {
        #[test]
        fn however_calls_arrive_the_last_decision_of_each_object_stands(
            calls in Just((1..=30u64).collect::<Vec<_>>()).prop_shuffle(),
            objects in proptest::collection::vec(proptest::collection::btree_set(0..5u8, 1..4), 30),
        ) {
            let (mut order, mut stands) = (Order::default(), HashMap::new());
            for number in calls {
                let of = &objects[number as usize - 1];
                if order.admit(by(1, number), of.iter().copied()).is_ok() {
                    for object in of {
                        let before = stands.insert(*object, number).unwrap_or_default();
                        prop_assert!(before <= number, "{before} was undone by {number}");
                    }
                }
            }
        }
    }
}
