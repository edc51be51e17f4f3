//! A lab from the tree of its file: the keys at the top, then the nodes, then the links.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Display;
use std::str::FromStr;

use netloom_model::failure::Violation;
use netloom_model::id::LabId;
use netloom_model::kind::Catalogue;
use netloom_model::spec::{
    AuthoritySpec, EndpointType, LAB_NAME_PREFIX, LabSpec, MAX_LINKS, MAX_NODES, NetworkMode, NodeSpec,
};
use netloom_model::state::Runtime;

use crate::certificate;
use crate::definition::{Definition, Level};
use crate::diagnostic::{Pos, Report, quoted};
use crate::files::Collector;
use crate::keys::{Section, known};
use crate::link::{self, Named};
use crate::magic;
use crate::merge::Inherited;
use crate::mgmt::{self, Mgmt};
use crate::node::{self, Nodes};
use crate::places::Places;
use crate::value;
use crate::yaml::{Entry, Node, Value};
use crate::{Input, Parsed};

/// The lab in a tree.
pub(crate) fn read(input: &Input<'_>, root: &Node, report: &mut Report) -> Parsed {
    let mut parsed = Parsed::default();
    let mut places = Places::default();
    let mut collector = Collector::new(input.files);
    let mut topology: Option<&Entry> = None;
    let (mut mgmt, mut mgmt_pos): (Option<Mgmt>, Pos) = (None, Pos::default());
    let mut named = false;
    for (key, entry) in known(Section::Top, value::map(root, report), report) {
        match key {
            "name" => {
                named = true;
                parsed.lab = name(entry, input, report);
            }
            "prefix" => {
                places.add("prefix", entry.node.pos);
                parsed.spec.prefix = prefix(entry, report);
            }
            "plane" => parsed.spec.plane = word(entry, report),
            "placement-policy" => parsed.spec.placement_policy = word(entry, report).unwrap_or_default(),
            "reschedule-after" => {
                places.add("reschedule_after_seconds", entry.node.pos);
                let seconds = |text: &str| {
                    value::duration(text).and_then(|s| u32::try_from(s).map_err(|_| "is too long".into()))
                };
                parsed.spec.reschedule_after_seconds =
                    value::parsed(&entry.node, report, seconds).map(|s| s.value).unwrap_or_default();
            }
            "project" => {
                places.add("project", entry.node.pos);
                parsed.spec.project = value::text(&entry.node, report).map(|p| p.value).unwrap_or_default();
            }
            "mgmt" => {
                mgmt_pos = entry.pos;
                mgmt = Some(Mgmt::read(&entry.node, report));
            }
            "settings" => {
                places.add("certificate_authority", entry.pos);
                parsed.spec.certificate_authority = settings(entry, &mut collector, report);
            }
            "topology" => topology = Some(entry),
            _ => unreachable!("{key} is in the table as done, and is not read here"),
        }
    }
    if !named {
        report.error(
            Pos::default(),
            "NAME_MISSING",
            "the lab has no name: begin the file with \"name: my-lab\"",
        );
    }
    if let Some(mgmt) = &mut mgmt {
        mgmt.choose(parsed.lab.as_ref().map_or("", LabId::as_str));
        for (field, pos) in &mgmt.places {
            places.add(&format!("mgmt.{field}"), *pos);
        }
        parsed.spec.mgmt = Some(mgmt.spec.clone());
    }
    match topology {
        Some(entry) => {
            let skip = mgmt.is_some_and(|m| m.skip_when_unused);
            Topology { input, places: &mut places, report }.read(entry, skip, collector, &mut parsed);
        }
        None => report.error(
            Pos::default(),
            "NO_NODES",
            "the file has no topology: name the nodes below topology.nodes",
        ),
    }
    if parsed.spec.mgmt.is_some() && mgmt_pos != Pos::default() {
        tell_machines_without_address(&parsed, input, mgmt_pos, report);
    }
    let of_machines = input.catalogue.check_machines(&parsed.spec);
    for violation in parsed.spec.check().into_iter().chain(input.catalogue.check(&parsed.spec)) {
        match of_machines.contains(&violation) {
            true => places.tell_as("NOT_FOR_VMS", &violation, report),
            false => places.tell(&violation, report),
        }
    }
    // Which image stands for a kind, only the image registry knows.
    for (i, node) in parsed.spec.nodes.iter().enumerate() {
        if let Some(description) = input.catalogue.lacks_image(node) {
            places.warn("NO_IMAGE", &Violation { field: format!("nodes[{i}]"), description }, report);
        }
    }
    parsed
}

/// There is no DHCP: virtual machines whose kind has no medium that says their address know only the one that their own configuration sets.
fn tell_machines_without_address(parsed: &Parsed, input: &Input<'_>, pos: Pos, report: &mut Report) {
    let lacks = |node: &&NodeSpec| {
        let kind = input.catalogue.of(node).filter(|kind| kind.runtime == Runtime::Libvirt);
        kind.is_some_and(|kind| kind.without_address(node, &parsed.spec).is_some())
    };
    let machines: Vec<&str> = parsed.spec.nodes.iter().filter(lacks).map(|n| n.id.as_str()).collect();
    if !machines.is_empty() {
        let message = format!(
            "{} on the management network, and nothing tells {} an address there: give mgmt-ipv4, and have the startup-config set it",
            match machines.as_slice() {
                [one] => format!("virtual machine {one} is"),
                all => format!("virtual machines {} are", all.join(", ")),
            },
            if machines.len() == 1 { "it" } else { "them" },
        );
        report.info(pos, "MGMT_NOT_TOLD", message);
    }
}

fn name(entry: &Entry, input: &Input<'_>, report: &mut Report) -> Option<LabId> {
    let Some(name) = value::text(&entry.node, report) else {
        report.error(entry.node.pos, "NAME_MISSING", "the lab has no name: write one behind \"name:\"");
        return None;
    };
    magic::git(&name.value, input.env, name.pos, report)?
        .parse()
        .map_err(|e: netloom_model::id::IdError| report.error(name.pos, "INVALID_NAME", e.to_string()))
        .ok()
}

fn prefix(entry: &Entry, report: &mut Report) -> String {
    match &*entry.node.value {
        Value::Scalar(text) if text.is_empty() => {
            let message = format!(
                "with an empty prefix instances of two labs could have one name, so \"netloom\" is used: name a prefix of your own, leave it out, or write {LAB_NAME_PREFIX}"
            );
            report.warning(entry.node.pos, "PREFIX_NOT_SUPPORTED", message);
            String::new()
        }
        _ => value::text(&entry.node, report).map(|p| p.value).unwrap_or_default(),
    }
}

/// A word that says itself what is wrong with it.
fn word<T: FromStr<Err: Display>>(entry: &Entry, report: &mut Report) -> Option<T> {
    let text = value::text(&entry.node, report)?;
    let wrong = |e: T::Err| report.error(text.pos, "INVALID_VALUE", e.to_string());
    text.value.parse().map_err(wrong).ok()
}

fn settings(entry: &Entry, files: &mut Collector<'_>, report: &mut Report) -> Option<AuthoritySpec> {
    let mut authority = None;
    for (key, entry) in known(Section::Settings, value::map(&entry.node, report), report) {
        match key {
            "certificate-authority" => authority = Some(certificate::authority(&entry.node, files, report)),
            _ => unreachable!("{key} is in the table as done, and is not read here"),
        }
    }
    authority
}

/// Reads `topology` into the spec.
struct Topology<'t, 'i> {
    input: &'t Input<'i>,
    places: &'t mut Places,
    report: &'t mut Report,
}

impl Topology<'_, '_> {
    fn read(self, entry: &Entry, skip_unused_mgmt: bool, files: Collector<'_>, parsed: &mut Parsed) {
        let Topology { input, places, report } = self;
        let mut inherited = Inherited::default();
        let (mut nodes, mut links): (&[Entry], &[Node]) = (&[], &[]);
        for (key, entry) in known(Section::Topology, value::map(&entry.node, report), report) {
            match key {
                "defaults" => {
                    inherited.defaults =
                        Definition::read(&entry.node, Level::Defaults, input.all_env, report);
                }
                "kinds" => kinds(&mut inherited, &entry.node, input, report),
                "groups" => inherited.groups = definitions(&entry.node, Level::Group, input, report),
                "nodes" => nodes = value::map(&entry.node, report),
                "links" => links = value::list(&entry.node, report),
                _ => unreachable!("{key} is in the table as done, and is not read here"),
            }
        }
        if nodes.is_empty() {
            report.error(entry.pos, "NO_NODES", "the lab has no nodes: name them below topology.nodes");
        }
        for (count, most, what) in [(nodes.len(), MAX_NODES, "nodes"), (links.len(), MAX_LINKS, "links")] {
            if count > most {
                report.error(
                    entry.pos,
                    "LAB_TOO_LARGE",
                    format!("{count} {what}; a lab holds at most {most}"),
                );
                return;
            }
        }
        let wanted = wanted(nodes, input.node_filter, report);
        let lab = parsed.lab.as_ref().map_or("", LabId::as_str).to_owned();
        let mut maker =
            Nodes::new(&lab, input.catalogue, &inherited, input.all_env, files, input.startup_configs);
        let mut built = Vec::new();
        let mut known_nodes = HashMap::new();
        let mut folded: HashMap<String, &Entry> = HashMap::new();
        for entry in nodes {
            if wanted.as_ref().is_some_and(|w| !w.contains(entry.key.as_str())) {
                known_nodes.insert(entry.key.as_str(), Named::Filtered);
                parsed.left_out.push(entry.key.clone());
                continue;
            }
            if let Some(other) = folded.insert(entry.key.to_ascii_lowercase(), entry) {
                let message = format!(
                    "{} and {} (at {}) differ only in case, and names are the same ignoring case",
                    quoted(&entry.key),
                    quoted(&other.key),
                    other.pos
                );
                report.error(entry.pos, "INVALID_NAME", message);
                known_nodes.insert(entry.key.as_str(), Named::Faulty);
                continue;
            }
            let node = maker.build(entry, report);
            let kind = node
                .as_ref()
                .and_then(|n| input.catalogue.of(&n.spec).or_else(|| input.catalogue.get(&n.spec.kind)));
            known_nodes.insert(entry.key.as_str(), kind.map_or(Named::Faulty, Named::Kind));
            built.extend(node);
            if maker.is_full() {
                return;
            }
        }
        (parsed.spec.files, parsed.contents) = maker.into_files().finish();
        let mut on_mgmt = false;
        let mut has_container = false;
        let mut needs_mgmt = None;
        for mut node in built {
            on_mgmt |= node.has_container && node.spec.network_mode == NetworkMode::Own;
            has_container |= node.has_container;
            if needs_mgmt.is_none() && node.spec.network_mode == NetworkMode::Own {
                let keys = ["ports[0]", "mgmt_ipv4", "mgmt_ipv6"];
                let is_set = |field: &str| match field {
                    "mgmt_ipv4" => !node.spec.mgmt_ipv4.is_empty(),
                    "mgmt_ipv6" => !node.spec.mgmt_ipv6.is_empty(),
                    _ => true,
                };
                let found = |key: &&str| node.places.iter().find(|(f, _)| f == *key && is_set(f));
                needs_mgmt = keys.iter().filter_map(found).map(|(_, pos)| *pos).min();
            }
            check_references(&mut node, &known_nodes, report);
            places.add_node(node.pos, node.places);
            parsed.spec.nodes.push(node.spec);
        }
        let mut maker = link::Links { nodes: known_nodes, ends: BTreeMap::new() };
        for link in links.iter().filter_map(|link| maker.build(link, report)) {
            places.add_link(link.pos, link.ends, link.impairment);
            parsed.spec.links.push(link.spec);
        }
        if let Some(pos) = needs_mgmt.filter(|_| parsed.spec.mgmt.is_none()) {
            let on_it = parsed.spec.nodes.iter().filter(|n| n.network_mode == NetworkMode::Own);
            parsed.spec.mgmt = Some(mgmt::implied(on_it));
            let message = "this needs a management network, and the file has no mgmt: the lab gets one, as with \"mgmt: {}\", and every node an eth0 on it";
            report.info(pos, "MGMT_IMPLIED", message);
        }
        manage(&mut parsed.spec, skip_unused_mgmt && !on_mgmt, has_container, entry.pos, report);
    }
}

/// Leaves out a management network that nothing is on, and says so when there is none.
fn manage(spec: &mut LabSpec, unused: bool, has_container: bool, pos: Pos, report: &mut Report) {
    let linked = || spec.links.iter().any(|l| [l.a.kind, l.b.kind].contains(&EndpointType::MgmtNet));
    if unused && !linked() {
        spec.mgmt = None;
    } else if spec.mgmt.is_none() && has_container {
        let message = "without mgmt there is no management network, and the nodes have no eth0; write \"mgmt: {}\" at the top of the file for one";
        report.info(pos, "NO_MGMT", message);
    }
}

/// The nodes that the filter names; none when there is no filter.
fn wanted<'f>(nodes: &[Entry], filter: &'f [String], report: &mut Report) -> Option<BTreeSet<&'f str>> {
    if filter.is_empty() {
        return None;
    }
    let names: BTreeSet<&str> = nodes.iter().map(|n| n.key.as_str()).collect();
    let filter: BTreeSet<&str> = filter.iter().map(|f| f.trim()).collect();
    for unknown in filter.iter().filter(|f| !names.contains(**f)) {
        let meant = report.did_you_mean(unknown, names.iter().copied());
        let message =
            format!("the node filter names {}, and the file has no such node.{meant}", quoted(unknown));
        report.error(Pos::default(), "NODE_FILTER", message);
    }
    Some(filter)
}

/// Tells what a node needs of nodes that the filter leaves out, and forgets what it needs of nodes whose faults are told already.
fn check_references(node: &mut node::Built, nodes: &HashMap<&str, Named<'_>>, report: &mut Report) {
    let pos = |field: &str| node.places.iter().find(|(f, _)| f == field).map_or(node.pos, |(_, pos)| *pos);
    let (stages_pos, mode_pos) = (pos("stages"), pos("network_mode"));
    let id = node.spec.id.clone();
    let mut usable = |other: &str, pos: Pos, what: &str| match nodes.get(other) {
        Some(Named::Filtered) => {
            let message = format!(
                "{} {what} {}, which the node filter leaves out: add it to the filter",
                quoted(&id),
                quoted(other)
            );
            report.error(pos, "NODE_FILTER", message);
            false
        }
        Some(Named::Faulty) => false,
        Some(Named::Kind(_)) | None => true,
    };
    for stage in &mut node.spec.stages {
        stage.wait_for.retain(|w| usable(&w.node, stages_pos, "waits for"));
    }
    // It is apart from what is not there.
    let is_there =
        |other: &String| !matches!(nodes.get(other.as_str()), Some(Named::Filtered | Named::Faulty));
    node.spec.placement.apart_from.retain(is_there);
    if let NetworkMode::Node(other) = &node.spec.network_mode
        && !usable(other, mode_pos, "shares the network of")
    {
        node.spec.network_mode = NetworkMode::None;
    }
}

fn definitions(
    node: &Node,
    level: Level,
    input: &Input<'_>,
    report: &mut Report,
) -> BTreeMap<String, Definition> {
    let entries = value::map(node, report).iter();
    entries.map(|e| (e.key.clone(), Definition::read(&e.node, level, input.all_env, report))).collect()
}

/// The `kinds` entries by the names of their kinds. That no node can inherit from one is told: a node of such a kind is an error at the node, the
/// entry alone does no harm.
fn kinds(inherited: &mut Inherited, node: &Node, input: &Input<'_>, report: &mut Report) {
    let catalogue: &Catalogue = input.catalogue;
    let mut first: HashMap<&str, &Entry> = HashMap::new();
    for entry in value::map(node, report) {
        let definition = Definition::read(&entry.node, Level::Kind, input.all_env, report);
        let Some(kind) = catalogue.get(&entry.key) else {
            let meant = report.did_you_mean(&entry.key, catalogue.kinds().map(|k| k.name.as_str()));
            let message =
                format!("there is no kind {}, so this entry serves no node.{meant}", quoted(&entry.key));
            report.warning(entry.pos, "UNKNOWN_KIND", message);
            continue;
        };
        // A node inherits from the entry that is called as it calls its kind, else from one that means the same kind.
        if let Some(other) = first.insert(&kind.name, entry) {
            let message = format!(
                "{} and {}, at {}, are one kind: a node inherits from the entry that is called as it calls its kind",
                quoted(&entry.key),
                quoted(&other.key),
                other.pos
            );
            report.warning(entry.pos, "KIND_TWICE", message);
        }
        for name in kind.aliases.iter().chain([&kind.name]) {
            inherited.kind_names.entry(name.clone()).or_insert_with(|| entry.key.clone());
        }
        inherited.kinds.insert(entry.key.clone(), definition);
    }
}
