//! What a node inherits: node before group before kind before defaults.
//!
//! | values | rule |
//! |---|---|
//! | single ones | the strongest level that sets it |
//! | `ports`, `dns`, `healthcheck`, `placement` | the strongest level that sets it, as a whole |
//! | `env`, `labels`, `sysctls`, `tmpfs`, `certificate` | key by key, the strongest level that sets the key |
//! | `exec`, `env-files`, `devices`, `cap-add`, `security-opts` | one list behind the other, weakest level first, without repetitions |
//! | `binds`, `volumes` | by target, the strongest level that mounts there |
//! | `stages` | stage by stage: `wait-for` joined without repetitions, `exec` one behind the other |
//!
//! The kind comes first, since it says which `kinds` entry counts: the node's, else its group's, else that of the group in `defaults`, else that of
//! `defaults`. Then the group: the node's, else its kind's, else that of `defaults`.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::Hash;

use crate::definition::Definition;
use crate::diagnostic::At;

/// The definitions of a file other than those of nodes.
#[derive(Debug, Default)]
pub(crate) struct Inherited {
    pub defaults: Definition,
    pub kinds: BTreeMap<String, Definition>,
    /// The `kinds` entry that counts for a kind's other names.
    pub kind_names: HashMap<String, String>,
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
        let of_kind = kind.and_then(|k| {
            let named = self.kinds.get(&k.value);
            named.or_else(|| self.kinds.get(self.kind_names.get(&k.value)?))
        });
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

    /// Lists one behind the other, without repetitions.
    pub fn united<T: Hash + Eq>(&self, get: impl Fn(&'d Definition) -> &'d Vec<At<T>>) -> Vec<&'d At<T>> {
        let mut seen = HashSet::new();
        self.levels.iter().flat_map(|d| get(d)).filter(|item| seen.insert(&item.value)).collect()
    }

    /// What is mounted, by target.
    pub fn by_target<T>(
        &self,
        get: impl Fn(&'d Definition) -> &'d Vec<At<T>>,
        target: impl Fn(&'d T) -> &'d str,
    ) -> Vec<&'d At<T>> {
        let mut places = BTreeMap::new();
        let mut mounts: Vec<&At<T>> = Vec::new();
        for mount in self.levels.iter().flat_map(|d| get(d)) {
            match places.get(target(&mount.value)) {
                Some(place) => mounts[*place] = mount,
                None => {
                    places.insert(target(&mount.value), mounts.len());
                    mounts.push(mount);
                }
            }
        }
        mounts
    }

    /// Maps merged key by key, as a spec has them.
    pub fn owned(
        &self,
        get: impl Fn(&'d Definition) -> &'d Vec<(String, At<String>)>,
    ) -> BTreeMap<String, String> {
        self.merged(get).into_iter().map(|(k, v)| (k.to_owned(), v.value.clone())).collect()
    }

    /// Lists one behind the other without repetitions, as a spec has them.
    pub fn texts(&self, get: impl Fn(&'d Definition) -> &'d Vec<At<String>>) -> Vec<String> {
        self.united(get).into_iter().map(|t| t.value.clone()).collect()
    }

    /// The definitions, weakest first.
    pub fn all(&self) -> impl Iterator<Item = &'d Definition> {
        self.levels.iter().copied()
    }

    /// About how many bytes the merged values come to: what a node costs before it is made.
    pub fn cost(&self) -> usize {
        const EACH: usize = 64;
        let pairs = |p: &Vec<(String, At<String>)>| {
            p.iter().map(|(k, v)| EACH + k.len() + v.value.len()).sum::<usize>()
        };
        let items = |i: &Vec<At<String>>| i.iter().map(|v| EACH + v.value.len()).sum::<usize>();
        let one = |d: &&Definition| {
            let maps: usize = [&d.env, &d.labels, &d.sysctls, &d.tmpfs].into_iter().map(pairs).sum();
            let lists = [&d.exec, &d.cap_add, &d.env_files, &d.security_opts, &d.aliases];
            let lists: usize = lists.into_iter().map(items).sum();
            let binds: usize = d
                .binds
                .iter()
                .map(|b| EACH + b.value.source.as_ref().map_or(0, String::len) + b.value.target.len())
                .sum();
            let volumes: usize =
                d.volumes.iter().map(|v| EACH + v.value.name.len() + v.value.target.len()).sum();
            let devices: usize =
                d.devices.iter().map(|v| EACH + v.value.host_path.len() + v.value.target.len()).sum();
            let ports = d.ports.as_ref().map_or(0, |p| EACH * p.value.len());
            let dns = d.dns.as_ref().map_or(0, |d| {
                let texts = |t: &Vec<String>| t.iter().map(|t| EACH + t.len()).sum::<usize>();
                texts(&d.value.servers) + texts(&d.value.search) + texts(&d.value.options)
            });
            let health =
                d.healthcheck.as_ref().map_or(0, |h| h.value.test.iter().map(|t| EACH + t.len()).sum());
            let placement = d.placement.as_ref().map_or(0, |p| {
                let p = &p.value;
                let labels = p.labels.iter().map(|(k, v)| EACH + k.len() + v.len()).sum::<usize>();
                labels + p.tolerations.iter().chain(&p.apart_from).map(|t| EACH + t.len()).sum::<usize>()
            });
            let sans =
                d.certificate.sans.as_ref().map_or(0, |s| s.value.iter().map(|t| EACH + t.len()).sum());
            let texts = [
                &d.cmd,
                &d.entrypoint,
                &d.image,
                &d.user,
                &d.r#type,
                &d.startup_config,
                &d.cgroup_parent,
                &d.cpu_set,
            ];
            let texts: usize = texts.iter().filter_map(|t| t.as_ref()).map(|t| t.value.len()).sum();
            let sum: usize =
                [maps, lists, binds, volumes, devices, ports, dns, health, placement, sans, texts]
                    .iter()
                    .sum();
            sum + d.stages.cost()
        };
        self.levels.iter().map(one).sum()
    }
}
