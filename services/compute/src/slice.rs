//! The parts of a slice as they come in.

use netloom_model::slice::Instance;

/// Parts of a Sync, until the last has come.
#[derive(Default)]
pub struct Parts {
    term: u64,
    instances: Vec<Instance>,
}

impl Parts {
    /// Adds a part; the whole slice at the last one. Parts of another leader begin anew.
    pub fn add(&mut self, term: u64, part: Vec<Instance>, more: bool) -> Option<Vec<Instance>> {
        if self.term != term {
            *self = Parts { term, instances: Vec::new() };
        }
        self.instances.extend(part);
        (!more).then(|| std::mem::take(&mut self.instances))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::testing::instance;

    #[test]
    fn a_slice_is_whole_at_its_last_part() {
        let mut parts = Parts::default();
        assert!(parts.add(1, vec![instance()], true).is_none());
        assert!(parts.add(2, vec![instance()], true).is_none());
        assert_eq!(parts.add(2, vec![instance()], false).unwrap().len(), 2);
        assert_eq!(parts.add(2, Vec::new(), false).unwrap().len(), 0);
    }
}
