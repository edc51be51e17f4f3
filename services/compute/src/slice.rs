//! What is said of instances, as it comes in: the parts of a slice, and which of two calls was decided later.

use netloom_model::id::{LabUid, NodeUid};
use netloom_model::slice::Instance;
use netloom_service::order::{Decision, Order};

/// What calls say something of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Object {
    /// A node.
    Node(NodeUid),
    /// All that a lab has.
    Lab(LabUid),
}

impl Object {
    /// What is said something of by asking for this instance: also that its lab has something here.
    pub fn of(instance: &Instance) -> [Object; 2] {
        [Object::Node(instance.uid), Object::Lab(instance.lab_uid)]
    }
}

/// What the next call finds.
#[derive(Default)]
pub struct Turn {
    /// What passed so far.
    pub order: Order<Object>,
    /// A Sync of which parts are missing.
    pub parts: Parts,
}

/// Parts of a Sync, until the last has come.
#[derive(Default)]
pub struct Parts {
    of: Decision,
    instances: Vec<Instance>,
}

impl Parts {
    /// Adds a part; the whole slice at the last one. Parts of another decision begin anew.
    pub fn add(&mut self, of: Decision, part: Vec<Instance>, more: bool) -> Option<Vec<Instance>> {
        if self.of != of {
            *self = Parts { of, instances: Vec::new() };
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
        let (mut parts, by) = (Parts::default(), |term, number| Decision { term, number });
        assert!(parts.add(by(1, 1), vec![instance()], true).is_none());
        assert!(parts.add(by(2, 1), vec![instance()], true).is_none());
        assert!(parts.add(by(2, 2), vec![instance()], true).is_none());
        assert_eq!(parts.add(by(2, 2), vec![instance()], false).unwrap().len(), 2);
        assert_eq!(parts.add(by(2, 2), Vec::new(), false).unwrap().len(), 0);
    }
}
