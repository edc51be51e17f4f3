//! What a node inherits: node before group before kind before defaults.
//!
//! | values | rule |
//! |---|---|
//! | single ones | the strongest level that sets it |
//! | `env`, `labels`, `sysctls` | key by key, the strongest level that sets the key |
//! | `exec` | one list behind the other, weakest level first |
//! | `cap-add`, `env-files` | the same, without repetitions |
//! | `binds` | by target, the strongest level that mounts there |
//!
//! The kind comes first, since it says which `kinds` entry counts: the node's, else its group's, else that of the group in `defaults`, else that of
//! `defaults`. Then the group: the node's, else its kind's, else that of `defaults`.

use std::collections::{BTreeMap, BTreeSet};

use crate::bind::BindText;
use crate::definition::Definition;
use crate::diagnostic::At;

/// The definitions of a file other than those of nodes.
#[derive(Debug, Default)]
pub(crate) struct Inherited {
    pub defaults: Definition,
    pub kinds: BTreeMap<String, Definition>,
    pub groups: BTreeMap<String, Definition>,
}

/// The levels of one node, weakest first.
pub(crate) struct Levels<'d> {
    levels: Vec<&'d Definition>,
    /// Its kind, and where that is said.
    pub kind: Option<&'d At<String>>,
    /// Its group, and where that is said.
    pub group: Option<&'d At<String>>,
}

impl Inherited {
    /// The levels of a node.
    pub fn levels<'d>(&'d self, node: &'d Definition) -> Levels<'d> {
        let kind_of_group =
            |group: &Option<At<String>>| self.groups.get(&group.as_ref()?.value)?.kind.as_ref();
        let kind = node
            .kind
            .as_ref()
            .or_else(|| kind_of_group(&node.group))
            .or_else(|| kind_of_group(&self.defaults.group))
            .or(self.defaults.kind.as_ref());
        let of_kind = kind.and_then(|k| self.kinds.get(&k.value));
        let group = node.group.as_ref().or_else(|| of_kind?.group.as_ref()).or(self.defaults.group.as_ref());
        let of_group = group.and_then(|g| self.groups.get(&g.value));
        let levels = [Some(&self.defaults), of_kind, of_group, Some(node)].into_iter().flatten().collect();
        Levels { levels, kind, group }
    }
}

impl<'d> Levels<'d> {
    /// The strongest single value.
    pub fn one<T>(&self, get: impl Fn(&'d Definition) -> &'d Option<At<T>>) -> Option<&'d At<T>> {
        self.levels.iter().rev().find_map(|d| get(d).as_ref())
    }

    /// Maps merged key by key.
    pub fn merged(
        &self,
        get: impl Fn(&'d Definition) -> &'d Vec<(String, At<String>)>,
    ) -> BTreeMap<&'d str, &'d At<String>> {
        self.levels.iter().flat_map(|d| get(d)).map(|(key, value)| (key.as_str(), value)).collect()
    }

    /// Lists one behind the other.
    pub fn joined(&self, get: impl Fn(&'d Definition) -> &'d Vec<At<String>>) -> Vec<&'d At<String>> {
        self.levels.iter().flat_map(|d| get(d)).collect()
    }

    /// The same without repetitions.
    pub fn united(&self, get: impl Fn(&'d Definition) -> &'d Vec<At<String>>) -> Vec<&'d At<String>> {
        let mut seen = BTreeSet::new();
        self.joined(get).into_iter().filter(|item| seen.insert(item.value.as_str())).collect()
    }

    /// Binds by target.
    pub fn binds(&self) -> Vec<&'d At<BindText>> {
        let mut places = BTreeMap::new();
        let mut binds: Vec<&At<BindText>> = Vec::new();
        for bind in self.levels.iter().flat_map(|d| &d.binds) {
            match places.get(bind.value.target.as_str()) {
                Some(place) => binds[*place] = bind,
                None => {
                    places.insert(bind.value.target.as_str(), binds.len());
                    binds.push(bind);
                }
            }
        }
        binds
    }

    /// About how many bytes the merged values come to: what a node costs before it is made.
    pub fn cost(&self) -> usize {
        const EACH: usize = 64;
        let pairs = |p: &Vec<(String, At<String>)>| {
            p.iter().map(|(k, v)| EACH + k.len() + v.value.len()).sum::<usize>()
        };
        let items = |i: &Vec<At<String>>| i.iter().map(|v| EACH + v.value.len()).sum::<usize>();
        self.levels
            .iter()
            .map(|d| {
                pairs(&d.env)
                    + pairs(&d.labels)
                    + pairs(&d.sysctls)
                    + items(&d.exec)
                    + items(&d.cap_add)
                    + items(&d.env_files)
                    + d.binds
                        .iter()
                        .map(|b| EACH + b.value.source.len() + b.value.target.len())
                        .sum::<usize>()
                    + [&d.cmd, &d.entrypoint, &d.image, &d.user, &d.r#type]
                        .iter()
                        .filter_map(|t| t.as_ref())
                        .map(|t| t.value.len())
                        .sum::<usize>()
            })
            .sum()
    }
}
