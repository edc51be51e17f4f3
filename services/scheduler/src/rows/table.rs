//! The rows of one kind, by key. A lab's rows are copied for every change, and most of them stay as they are: a copy shares each row with what it was
//! copied from until one of them writes to it, and rows that are shared are equal without being looked at.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::collections::btree_map::{IntoIter, Keys};
use std::ops::Index;

use netloom_model::shared::Shared;

/// See the module.
#[derive(Debug, Clone, PartialEq)]
pub struct Table<K, T>(BTreeMap<K, Shared<T>>);

impl<K: Ord, T: Clone + PartialEq> Table<K, T> {
    /// The row with this key.
    pub fn get(&self, key: &K) -> Option<&T> {
        self.0.get(key).map(|row| &**row)
    }

    /// The row with this key, to write to.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut Shared<T>> {
        self.0.get_mut(key)
    }

    /// True when there is one with this key.
    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.0.contains_key(key)
    }

    /// Puts a row in the place of what has its key.
    pub fn insert(&mut self, key: K, row: impl Into<Shared<T>>) {
        self.0.insert(key, row.into());
    }

    /// Takes a row out.
    pub fn remove(&mut self, key: &K) -> Option<Shared<T>> {
        self.0.remove(key)
    }

    /// Keeps those of which this is true.
    pub fn retain(&mut self, keep: impl FnMut(&K, &mut Shared<T>) -> bool) {
        self.0.retain(keep);
    }

    /// Takes all out.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// The keys, sorted.
    pub fn keys(&self) -> Keys<'_, K, Shared<T>> {
        self.0.keys()
    }

    /// The rows by key.
    pub fn values(&self) -> impl DoubleEndedIterator<Item = &T> + Clone {
        self.0.values().map(|row| &**row)
    }

    /// The rows by key, to write to: only what is written to is copied.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut Shared<T>> {
        self.0.values_mut()
    }

    /// Keys and rows.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&K, &T)> {
        self.0.iter().map(|(key, row)| (key, &**row))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Changes each row that was there before and is not as it was.
    pub fn each_changed(&mut self, before: &Self, change: impl Fn(&mut T)) {
        for (key, row) in &mut self.0 {
            if before.0.get(key).is_some_and(|old| old != row) {
                change(row);
            }
        }
    }

    /// What is here and not as it was before, with what it was, and what was before and is not here any more.
    pub fn since<'a>(&'a self, before: &'a Self) -> Difference<'a, T> {
        let old = |key: &K| before.0.get(key);
        let changed = self.0.iter().map(|(key, row)| (old(key), row)).filter(|(old, row)| *old != Some(*row));
        let removed = before.0.iter().filter(|(key, _)| !self.0.contains_key(key)).map(|(_, row)| &**row);
        Difference {
            changed: changed.map(|(old, row)| (old.map(|old| &**old), &**row)).collect(),
            removed: removed.collect(),
        }
    }
}

/// Two versions of the rows of one kind, compared by key.
pub struct Difference<'a, T> {
    /// What is not as it was, after what it was.
    pub changed: Vec<(Option<&'a T>, &'a T)>,
    /// What is no more.
    pub removed: Vec<&'a T>,
}

impl<K, T> Default for Table<K, T> {
    fn default() -> Self {
        Table(BTreeMap::new())
    }
}

impl<K: Ord, T> Index<&K> for Table<K, T> {
    type Output = T;

    fn index(&self, key: &K) -> &T {
        &self.0[key]
    }
}

impl<K: Ord, T, R: Into<Shared<T>>> FromIterator<(K, R)> for Table<K, T> {
    fn from_iter<I: IntoIterator<Item = (K, R)>>(rows: I) -> Self {
        Table(rows.into_iter().map(|(key, row)| (key, row.into())).collect())
    }
}

impl<K: Ord, T, R: Into<Shared<T>>> Extend<(K, R)> for Table<K, T> {
    fn extend<I: IntoIterator<Item = (K, R)>>(&mut self, rows: I) {
        self.0.extend(rows.into_iter().map(|(key, row)| (key, row.into())));
    }
}

impl<K, T> IntoIterator for Table<K, T> {
    type Item = (K, Shared<T>);
    type IntoIter = IntoIter<K, Shared<T>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}
