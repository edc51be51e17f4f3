//! The nodes: what each inherits and says itself, as a [`NodeSpec`].

use std::collections::{BTreeMap, BTreeSet};

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

/// How to see the kinds.
const SHOW_KINDS: &str = "\"netloom kinds list\" shows those there are";

/// Types that stand for another kind here, and what to write.
const OTHER_KINDS: [(&str, &str, &str); 1] =
    [("iol-xe", "l2", "the switch is a kind of its own: write kind: iol-l2, and leave type out")];

/// The keys that mean something for a node without a container.
const BRIDGE_KEYS: [&str; 6] = ["kind", "group", "type", "labels", "placement", "uplink"];

/// A node of the spec, and what the rest of the file is checked against.
pub(crate) struct Built {
    pub spec: NodeSpec,
    pub pos: Pos,
    /// Where its parts stand, by their names in the spec.
    pub places: Vec<(String, Pos)>,
    /// True when it has a container, which a management network is for.
    pub has_container: bool,
}

/// Makes nodes.
pub(crate) struct Nodes<'a> {
    lab: &'a str,
    catalogue: &'a Catalogue,
    inherited: &'a Inherited,
    all_env: AllEnv<'a>,
    containers: Containers<'a>,
    /// The kinds of which it was told how far they work.
    told: BTreeSet<&'a str>,
}

impl<'a> Nodes<'a> {
    pub fn new(
        lab: &'a str,
        catalogue: &'a Catalogue,
        inherited: &'a Inherited,
        all_env: AllEnv<'a>,
        files: Collector<'a>,
        startup_configs: &'a BTreeMap<String, String>,
    ) -> Self {
        Nodes {
            lab,
            catalogue,
            inherited,
            all_env,
            containers: Containers::new(files, startup_configs),
            told: BTreeSet::new(),
        }
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
        let runtime = levels.one(|d| &d.runtime);
        // What is not run so is told of the whole spec; for all else it is as it would be.
        let run = runtime.and_then(|r| self.catalogue.on(&kind.name, r.value));
        let kind = run.unwrap_or(kind);
        self.tell_type(kind, &levels, report);
        let kind_pos = levels.kind.map_or(entry.pos, |k| k.pos);
        self.tell_limits(kind, kind_pos, report);
        let placement = levels.one(|d| &d.placement);
        let spec = NodeSpec {
            id: entry.key.clone(),
            kind: kind.name.clone(),
            r#type: text(levels.one(|d| &d.r#type)),
            group: text(levels.group),
            labels: levels.owned(|d| &d.labels),
            runtime: runtime.map(|r| r.value),
            placement: placement.map(|p| p.value.clone()).unwrap_or_default(),
            uplink: text(own.uplink.as_ref()),
            ..NodeSpec::default()
        };
        if kind.runtime == Runtime::Bridge {
            let places =
                [("placement", placement.map(|p| p.pos)), ("uplink", own.uplink.as_ref().map(|u| u.pos))];
            let places =
                places.into_iter().filter_map(|(field, pos)| Some((field.to_owned(), pos?))).collect();
            tell_bridge(&own, &levels, entry.pos, report);
            return Some(Built { spec, pos: entry.pos, places, has_container: false });
        }
        let magic = Magic { lab: self.lab, node: &entry.key };
        let (spec, mut places) = self.containers.fill(spec, &levels, kind, magic, entry.pos, report)?;
        places.push(("kind".to_owned(), kind_pos));
        let has_container = kind.runtime == Runtime::Docker;
        Some(Built { spec, pos: entry.pos, places, has_container })
    }

    /// Tells that a type changes nothing: no kind has variants.
    fn tell_type(&self, kind: &Kind, levels: &Levels<'_>, report: &mut Report) {
        let Some(variant) = levels.one(|d| &d.r#type) else { return };
        let is = |of: &str, word: &str| of == kind.name && word.eq_ignore_ascii_case(&variant.value);
        if let Some((_, _, instead)) = OTHER_KINDS.iter().find(|(of, word, _)| is(of, word)) {
            let message = format!("kind {} has no type {}: {instead}", kind.name, quoted(&variant.value));
            report.error(variant.pos, "TYPE_NOT_SUPPORTED", message);
        } else {
            let message = format!(
                "kind {} has no variants, so the type {} changes nothing",
                kind.name,
                quoted(&variant.value)
            );
            report.warning(variant.pos, "TYPE_IGNORED", message);
        }
    }

    /// Tells once of each kind what is known not to work, or that nothing is known to.
    fn tell_limits(&mut self, kind: &'a Kind, pos: Pos, report: &mut Report) {
        if kind.verified || !self.told.insert(&kind.name) {
            return;
        }
        if kind.limitation.is_empty() {
            let message = format!(
                "no test of netloom's runs the kind {}: see \"netloom kinds show {}\" for where its facts come from",
                kind.name, kind.name
            );
            report.info(pos, "KIND_NOT_VERIFIED", message);
        } else {
            let message =
                format!("nodes of kind {} do not work as they should yet. {}", kind.name, kind.limitation);
            report.warning(pos, "KIND_LIMITED", message);
        }
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
        let Some(kind) = levels.kind else {
            let message = format!(
                "the node {} has no kind: give it one, or its group, or topology.defaults; {SHOW_KINDS}",
                quoted(node)
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
                format!("there is no kind {}.{meant} {SHOW_KINDS}", quoted(&kind.value)),
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
    if own.uplink.is_none() {
        let said = levels.kind.map_or(pos, |k| k.pos);
        report.info(
            said,
            "BRIDGE_IS_MANAGED",
            "this bridge is a switch of the lab's own, made and removed with it; a bridge of the host is not used: uplink joins it to one",
        );
    }
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
