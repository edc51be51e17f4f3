//! The nodes: what each inherits and says itself, as a [`NodeSpec`].

use std::collections::BTreeMap;
use std::rc::Rc;

use netloom_model::id::NodeId;
use netloom_model::kind::{Catalogue, Kind};
use netloom_model::spec::{Bind, BindSource, NodeSpec};
use netloom_model::state::Runtime;

use crate::bind::{self, Refusal};
use crate::definition::{Definition, Level};
use crate::diagnostic::{At, Pos, Report, quoted};
use crate::env_file;
use crate::files::Collector;
use crate::merge::{Inherited, Levels};
use crate::yaml::Entry;
use netloom_model::words;

/// Most bytes that the values of all nodes may come to. Inheritance multiplies: a few megabytes of defaults times thousands of nodes fit nowhere.
const MAX_SPEC_BYTES: usize = 32 << 20;

/// Kinds of containerlab's that stand for things outside the lab.
const FOREIGN_KINDS: [&str; 3] = ["host", "ext-container", "k8s-kind"];

/// The keys that mean something for a node without a container.
const BRIDGE_KEYS: [&str; 4] = ["kind", "group", "type", "labels"];

/// A node of the spec, and what the rest of the file is checked against.
pub(crate) struct Built {
    pub spec: NodeSpec,
    pub pos: Pos,
    pub mgmt: [Option<At<String>>; 2],
    /// True when it has a container, so that its interfaces can have addresses.
    pub has_interfaces: bool,
}

/// The variables of an `env-files` entry, or why there are none.
type EnvFile = Result<Rc<Vec<(String, String)>>, Refusal>;

/// Makes nodes.
pub(crate) struct Nodes<'a> {
    lab: &'a str,
    catalogue: &'a Catalogue,
    inherited: &'a Inherited,
    has_mgmt: bool,
    /// The files of the nodes made so far.
    pub files: Collector<'a>,
    env_files: BTreeMap<String, EnvFile>,
    left: usize,
}

impl<'a> Nodes<'a> {
    pub fn new(
        lab: &'a str,
        catalogue: &'a Catalogue,
        inherited: &'a Inherited,
        has_mgmt: bool,
        files: Collector<'a>,
    ) -> Self {
        Nodes { lab, catalogue, inherited, has_mgmt, files, env_files: BTreeMap::new(), left: MAX_SPEC_BYTES }
    }

    /// The node of an entry of `topology.nodes`; none when it cannot be one, which is told.
    pub fn build(&mut self, entry: &Entry, report: &mut Report) -> Option<Built> {
        let own = Definition::read(&entry.node, Level::Node, report);
        let levels = self.inherited.levels(&own);
        if let Err(e) = entry.key.parse::<NodeId>() {
            report.error(entry.pos, "INVALID_NAME", e.to_string());
            return None;
        }
        self.check_group(&levels, report);
        let kind = self.kind(&entry.key, entry.pos, &levels, report)?;
        let spec = NodeSpec {
            id: entry.key.clone(),
            kind: kind.name.clone(),
            r#type: text(levels.one(|d| &d.r#type)),
            group: text(levels.group),
            labels: owned(&levels.merged(|d| &d.labels)),
            ..NodeSpec::default()
        };
        if kind.runtime == Runtime::Bridge {
            let said = levels.kind.map_or(entry.pos, |k| k.pos);
            report.info(said, "BRIDGE_IS_MANAGED", "this bridge is a switch of the lab's own, made and removed with it; a bridge of the host is not used");
            for (key, pos) in own.keys.iter().filter(|(key, _)| !BRIDGE_KEYS.contains(key)) {
                report.warning(
                    *pos,
                    "KEY_NOT_SUPPORTED",
                    format!("{key} means nothing for a bridge, which has no container; leave it out"),
                );
            }
            return Some(Built { spec, pos: entry.pos, mgmt: [None, None], has_interfaces: false });
        }
        let spec = self.container(spec, &levels, entry.pos, report)?;
        if let (Some(none), true) = (levels.one(|d| &d.network_none), self.has_mgmt) {
            let message = "network-mode: none goes only with a file without mgmt: with it every node has its eth0 there. Leave one of the two out";
            report.error(none.pos, "NETWORK_MODE_NOT_SUPPORTED", message);
        }
        let mgmt = [own.mgmt_ipv4.clone(), own.mgmt_ipv6.clone()];
        Some(Built { spec, pos: entry.pos, mgmt, has_interfaces: true })
    }

    fn check_group(&self, levels: &Levels<'_>, report: &mut Report) {
        let Some(group) = levels.group.filter(|g| !self.inherited.groups.contains_key(&g.value)) else {
            return;
        };
        // Without any groups a group is a mere word, as containerlab allows.
        if self.inherited.groups.is_empty() {
            return;
        }
        let meant = report.did_you_mean(&group.value, self.inherited.groups.keys().map(String::as_str));
        report.warning(
            group.pos,
            "UNKNOWN_GROUP",
            format!(
                "topology.groups has no group {}, so nothing is inherited from it.{meant}",
                quoted(&group.value)
            ),
        );
    }

    fn kind(&self, node: &str, pos: Pos, levels: &Levels<'_>, report: &mut Report) -> Option<&'a Kind> {
        let names =
            || self.catalogue.kinds().flat_map(|k| k.aliases.iter().chain([&k.name])).map(String::as_str);
        let listed = || self.catalogue.kinds().map(|k| k.name.as_str()).collect::<Vec<_>>().join(", ");
        let Some(kind) = levels.kind else {
            let message = format!(
                "the node {} has no kind: give it one, or its group, or topology.defaults. The kinds are {}",
                quoted(node),
                listed()
            );
            report.error(pos, "KIND_MISSING", message);
            return None;
        };
        let found = self.catalogue.get(&kind.value);
        if found.is_none() && FOREIGN_KINDS.contains(&kind.value.as_str()) {
            let message = format!(
                "the kind {} stands for something outside the lab, which is not supported; the kinds are {}",
                quoted(&kind.value),
                listed()
            );
            report.error(kind.pos, "KIND_NOT_SUPPORTED", message);
        } else if found.is_none() {
            let meant = report.did_you_mean(&kind.value, names());
            report.error(
                kind.pos,
                "UNKNOWN_KIND",
                format!("there is no kind {}; the kinds are {}.{meant}", quoted(&kind.value), listed()),
            );
        }
        found
    }

    /// Fills in what a node with a container has.
    fn container(
        &mut self,
        spec: NodeSpec,
        levels: &Levels<'_>,
        pos: Pos,
        report: &mut Report,
    ) -> Option<NodeSpec> {
        let id = spec.id.clone();
        self.pay(levels.cost(), pos, report)?;
        let env = self.env(&id, levels, report);
        self.pay(env.iter().map(|(k, v)| k.len() + v.len()).sum(), pos, report)?;
        let fill = |item: &At<String>, report: &mut Report| self.fill(&id, &item.value, item.pos, report);
        let command = |item: Option<&At<String>>, report: &mut Report| match item {
            Some(item) => words::split(&fill(item, report)).unwrap_or_default(),
            None => Vec::new(),
        };
        let (cmd, entrypoint) =
            (command(levels.one(|d| &d.cmd), report), command(levels.one(|d| &d.entrypoint), report));
        let exec = levels.joined(|d| &d.exec).into_iter().map(|item| fill(item, report)).collect();
        let binds = self.binds(&id, levels, report);
        Some(NodeSpec {
            image: text(levels.one(|d| &d.image)),
            image_pull_policy: levels.one(|d| &d.pull).map(|p| p.value).unwrap_or_default(),
            env,
            binds,
            exec,
            cmd,
            entrypoint,
            user: text(levels.one(|d| &d.user)),
            cap_add: levels.united(|d| &d.cap_add).into_iter().map(|c| c.value.clone()).collect(),
            sysctls: owned(&levels.merged(|d| &d.sysctls)),
            cpu_limit_millis: levels.one(|d| &d.cpu).map_or(0, |c| c.value),
            memory_limit_bytes: levels.one(|d| &d.memory).map_or(0, |m| m.value),
            hostname: text(levels.one(|d| &d.hostname)),
            mgmt_ipv4: text(levels.one(|d| &d.mgmt_ipv4)),
            mgmt_ipv6: text(levels.one(|d| &d.mgmt_ipv6)),
            restart_policy: levels.one(|d| &d.restart).map(|r| r.value).unwrap_or_default(),
            ..spec
        })
    }

    /// Takes the cost of a node from what all may cost; none when it is more than is left.
    fn pay(&mut self, cost: usize, pos: Pos, report: &mut Report) -> Option<()> {
        self.left = self.left.checked_sub(cost).filter(|left| *left > 0).unwrap_or_default();
        if self.is_full() {
            let message = format!(
                "the nodes up to this one come to more than {MAX_SPEC_BYTES} bytes with what they inherit: inherit less"
            );
            report.error(pos, "LAB_TOO_LARGE", message);
            return None;
        }
        Some(())
    }

    /// True when no further node fits.
    pub fn is_full(&self) -> bool {
        self.left == 0
    }

    /// Puts in containerlab's `__clab…__` variables.
    fn fill(&self, node: &str, text: &str, pos: Pos, report: &mut Report) -> String {
        if !text.contains("__clab") {
            return text.to_owned();
        }
        for variable in ["__clabDir__", "__clabNodeDir__"] {
            if text.contains(variable) {
                let message = format!(
                    "{variable} is not supported: there is no directory of the lab on the host. Put files beside the topology file and name them relative to it"
                );
                report.error(pos, "MAGIC_VARIABLE", message);
            }
        }
        text.replace("__clabNodeName__", node).replace("__clabLabName__", self.lab)
    }

    fn env(&mut self, node: &str, levels: &Levels<'_>, report: &mut Report) -> BTreeMap<String, String> {
        let mut env = BTreeMap::new();
        for item in levels.united(|d| &d.env_files) {
            let path = self.fill(node, &item.value, item.pos, report);
            match self.env_file(&path) {
                Ok(variables) => env.extend(variables.iter().cloned()),
                Err((code, message)) => report.error(item.pos, code, message),
            }
        }
        for (name, value) in levels.merged(|d| &d.env) {
            env.insert(name.to_owned(), self.fill(node, &value.value, value.pos, report));
        }
        env
    }

    fn env_file(&mut self, path: &str) -> EnvFile {
        if let Some(known) = self.env_files.get(path) {
            return known.clone();
        }
        let read = bind::relative(path)
            .and_then(|path| Ok((self.files.read(&path)?, path)))
            .and_then(|(content, path)| env_file::read(&path, &content))
            .map(Rc::new);
        self.env_files.insert(path.to_owned(), read.clone());
        read
    }

    fn binds(&mut self, node: &str, levels: &Levels<'_>, report: &mut Report) -> Vec<Bind> {
        let mut binds = Vec::new();
        for At { value: bind, pos } in levels.binds() {
            let path = self.fill(node, &bind.source, *pos, report);
            let target = self.fill(node, &bind.target, *pos, report);
            let source = bind::source(&path).and_then(|source| match &source {
                BindSource::Bundle(path) => self.files.collect(path).map(|()| source),
                BindSource::Host(_) => Ok(source),
            });
            match source {
                Ok(source) => {
                    if let BindSource::Host(path) = &source {
                        let message = format!(
                            "{} is a path on the host: it is mounted only if the host's configuration allows a directory above it",
                            quoted(path)
                        );
                        report.info(*pos, "HOST_PATH", message);
                    }
                    binds.push(Bind { source, target, read_only: bind.read_only });
                }
                Err((code, message)) => report.error(*pos, code, message),
            }
        }
        binds
    }
}

fn text(value: Option<&At<String>>) -> String {
    value.map(|v| v.value.clone()).unwrap_or_default()
}

fn owned(map: &BTreeMap<&str, &At<String>>) -> BTreeMap<String, String> {
    map.iter().map(|(k, v)| ((*k).to_owned(), v.value.clone())).collect()
}
