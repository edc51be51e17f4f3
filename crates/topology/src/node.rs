//! The nodes: what each inherits and says itself, as a [`NodeSpec`].

use netloom_model::id::NodeId;
use netloom_model::kind::{Catalogue, Kind};
use netloom_model::spec::NodeSpec;
use netloom_model::state::Runtime;

use crate::container::Containers;
use crate::definition::{AllEnv, Definition, Level};
use crate::diagnostic::{At, Pos, Report, quoted};
use crate::files::Collector;
use crate::magic::Magic;
use crate::merge::{Inherited, Levels};
use crate::yaml::Entry;

/// Kinds of containerlab's that stand for things outside the lab, and what to do instead.
const FOREIGN_KINDS: [(&str, &str); 3] = [
    (
        "host",
        "to link a node with the host, write the host's interface into the link: \"r1:eth1\", \"host:r1-eth1\"",
    ),
    ("ext-container", "make the container a node of the lab, with its image"),
    ("k8s-kind", "make a cluster yourself, and join it with a link to the host"),
];

/// The keys that mean something for a node without a container.
const BRIDGE_KEYS: [&str; 4] = ["kind", "group", "type", "labels"];

/// A node of the spec, and what the rest of the file is checked against.
pub(crate) struct Built {
    pub spec: NodeSpec,
    pub pos: Pos,
    /// Where its parts stand, by their names in the spec.
    pub places: Vec<(String, Pos)>,
    /// True when it has a container, so that its interfaces can have addresses.
    pub has_container: bool,
}

/// Makes nodes.
pub(crate) struct Nodes<'a> {
    lab: &'a str,
    catalogue: &'a Catalogue,
    inherited: &'a Inherited,
    all_env: AllEnv<'a>,
    containers: Containers<'a>,
}

impl<'a> Nodes<'a> {
    pub fn new(
        lab: &'a str,
        catalogue: &'a Catalogue,
        inherited: &'a Inherited,
        all_env: AllEnv<'a>,
        files: Collector<'a>,
    ) -> Self {
        Nodes { lab, catalogue, inherited, all_env, containers: Containers::new(files) }
    }

    /// The node of an entry of `topology.nodes`; none when it cannot be one, which is told.
    pub fn build(&mut self, entry: &Entry, report: &mut Report) -> Option<Built> {
        let own = Definition::read(&entry.node, Level::Node, self.all_env, report);
        let levels = self.inherited.levels(&own);
        if let Err(e) = entry.key.parse::<NodeId>() {
            let message = match entry.key.split_once('|') {
                Some(_) => format!(
                    "{} is a bridge in the network of another node, which is not supported: write a node of kind bridge, a switch of the lab's own",
                    quoted(&entry.key)
                ),
                None => e.to_string(),
            };
            report.error(entry.pos, "INVALID_NAME", message);
            return None;
        }
        self.check_group(&levels, report);
        let kind = self.kind(&entry.key, entry.pos, &levels, report)?;
        let spec = NodeSpec {
            id: entry.key.clone(),
            kind: kind.name.clone(),
            r#type: text(levels.one(|d| &d.r#type)),
            group: text(levels.group),
            labels: levels.owned(|d| &d.labels),
            ..NodeSpec::default()
        };
        if kind.runtime == Runtime::Bridge {
            tell_bridge(&own, &levels, entry.pos, report);
            return Some(Built { spec, pos: entry.pos, places: Vec::new(), has_container: false });
        }
        let magic = Magic { lab: self.lab, node: &entry.key };
        let (spec, places) = self.containers.fill(spec, &levels, kind, magic, entry.pos, report)?;
        Some(Built { spec, pos: entry.pos, places, has_container: true })
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
        if found.is_some() {
            return found;
        }
        if let Some((_, instead)) = FOREIGN_KINDS.iter().find(|(k, _)| *k == kind.value) {
            let message = format!(
                "the kind {} stands for something outside the lab, which is not supported: {instead}",
                quoted(&kind.value)
            );
            report.error(kind.pos, "KIND_NOT_SUPPORTED", message);
        } else {
            let meant = report.did_you_mean(&kind.value, names());
            report.error(
                kind.pos,
                "UNKNOWN_KIND",
                format!("there is no kind {}; the kinds are {}.{meant}", quoted(&kind.value), listed()),
            );
        }
        None
    }

    /// True when no further node fits.
    pub fn is_full(&self) -> bool {
        self.containers.is_full()
    }

    /// The files of the nodes.
    pub fn into_files(self) -> Collector<'a> {
        self.containers.files
    }
}

fn tell_bridge(own: &Definition, levels: &Levels<'_>, pos: Pos, report: &mut Report) {
    let said = levels.kind.map_or(pos, |k| k.pos);
    report.info(
        said,
        "BRIDGE_IS_MANAGED",
        "this bridge is a switch of the lab's own, made and removed with it; a bridge of the host is not used",
    );
    for (key, pos) in own.keys.iter().filter(|(key, _)| !BRIDGE_KEYS.contains(key)) {
        report.warning(
            *pos,
            "KEY_NOT_SUPPORTED",
            format!("{key} means nothing for a bridge, which has no container; leave it out"),
        );
    }
}

pub(crate) fn text(value: Option<&At<String>>) -> String {
    value.map(|v| v.value.clone()).unwrap_or_default()
}
