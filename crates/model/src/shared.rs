//! What is large, changes rarely and is held by many: shared, and compared by where it is before it is compared by what it is.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// See the module.
#[derive(Debug, Default)]
pub struct Shared<T>(Arc<T>);

impl<T: Clone> Shared<T> {
    /// It, as one's own.
    pub fn into_inner(self) -> T {
        Arc::unwrap_or_clone(self.0)
    }
}

impl<T: Clone + PartialEq> Shared<T> {
    /// Changes it. Where that changes nothing it stays the same for all who hold it.
    pub fn update(&mut self, change: impl FnOnce(&mut T)) {
        let mut changed = T::clone(self);
        change(&mut changed);
        if changed != **self {
            *self = changed.into();
        }
    }
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Shared(self.0.clone())
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// To change it: other holders keep what they have.
impl<T: Clone> DerefMut for Shared<T> {
    fn deref_mut(&mut self) -> &mut T {
        Arc::make_mut(&mut self.0)
    }
}

impl<T> From<T> for Shared<T> {
    fn from(value: T) -> Self {
        Shared(Arc::new(value))
    }
}

impl<T> FromIterator<T> for Shared<Vec<T>> {
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Self {
        Vec::from_iter(values).into()
    }
}

impl<T: PartialEq> PartialEq for Shared<T> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0 == other.0
    }
}

impl<T: Serialize> Serialize for Shared<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        T::serialize(self, serializer)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Shared<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::deserialize(deserializer).map(Shared::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_one_holder_is_no_change_of_another() {
        let one: Shared<Vec<u8>> = vec![1].into();
        let mut other = one.clone();
        assert!(one == other && one == Shared::from(vec![1]));
        other.push(2);
        assert_eq!((one.into_inner(), other.into_inner()), (vec![1], vec![1, 2]));
    }

    #[test]
    fn a_change_that_changes_nothing_leaves_it_shared() {
        let one: Shared<Vec<u8>> = vec![1].into();
        let mut other = one.clone();
        other.update(|bytes| bytes.truncate(1));
        assert!(Arc::ptr_eq(&one.0, &other.0));
        other.update(|bytes| bytes.push(2));
        assert_eq!((one.into_inner(), other.into_inner()), (vec![1], vec![1, 2]));
    }

    #[test]
    fn it_is_written_and_read_as_what_it_holds() {
        let text = serde_json::to_string(&Shared::from(vec![1])).unwrap();
        assert_eq!(
            (text.as_str(), serde_json::from_str::<Shared<Vec<u8>>>(&text).unwrap()),
            ("[1]", vec![1].into())
        );
    }
}
