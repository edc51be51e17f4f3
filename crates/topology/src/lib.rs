//! Topology files, containerlab's `*.clab.yml`, to a [`LabSpec`] and diagnostics.
//!
//! The flow of [`parse`]: the text is refused if it is too large, holds characters that YAML forbids or a template that nobody rendered; it
//! becomes a tree whose every value knows its line and column, with environment variables put into its values; the definitions in
//! `defaults`, `kinds` and `groups` are read once each; each node is read, inherits and becomes a `NodeSpec`; each link is checked against the nodes;
//! the files that nodes mount are gathered through a [`FileSource`]; at last the spec is held against the rules that every spec must
//! keep, however it came in.
//!
//! What this prevents: a key that is read past. Every key there is stands in one table with what becomes of it, and everything that is not
//! done as written is told with file, line and column. The text may come from a stranger: time and memory are bounded, and nothing is read from
//! the disk but by a [`FileSource`].
//!
//! | module | its part |
//! |---|---|
//! | `yaml`, `window`, `expand` | text to tree |
//! | `keys` | the table of keys |
//! | `value` | single values |
//! | `definition`, `merge`, `node` | nodes |
//! | `link`, `mgmt` | links, the management network |
//! | `bind`, `env_file`, `files`, `fs` | files |
//! | `diagnostic`, `suggest` | what is said about it |

mod bind;
mod definition;
mod diagnostic;
mod env_file;
mod expand;
mod files;
mod fs;
mod keys;
mod link;
mod merge;
mod mgmt;
mod node;
mod suggest;
mod value;
mod window;
mod yaml;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use netloom_model::failure::Violation;
use netloom_model::id::LabId;
use netloom_model::kind::Catalogue;
use netloom_model::spec::{LabSpec, MAX_LINKS, MAX_NODES};

pub use crate::diagnostic::{Diagnostic, MAX_DIAGNOSTICS, Severity};
pub use crate::files::{BundleFiles, FileError, FileSource, Found, MAX_FILES};
pub use crate::fs::DirFiles;

use crate::definition::{Definition, Level};
use crate::diagnostic::{Pos, Report, quoted};
use crate::expand::Expander;
use crate::files::Collector;
use crate::keys::{Section, known};
use crate::merge::Inherited;
use crate::mgmt::Mgmt;
use crate::yaml::{Entry, Node, Value};

/// Largest text, in bytes.
pub const MAX_TEXT: usize = 4 << 20;

/// A topology file and what it is read with.
pub struct Input<'a> {
    /// How diagnostics call the file.
    pub file_name: &'a str,
    /// Its text.
    pub text: &'a str,
    /// Value of an environment variable, if it is set.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// Where the files it names are read from.
    pub files: &'a dyn FileSource,
    /// The kinds there are.
    pub catalogue: &'a Catalogue,
}

/// What a topology file says.
#[derive(Debug, Clone, Default)]
pub struct Parsed {
    /// The lab's name, if the file has a valid one.
    pub lab: Option<LabId>,
    /// The lab; usable only if [`Parsed::ok`].
    pub spec: LabSpec,
    /// Content of every file that the text names, by path: those of the spec, and those of `env-files`, which the spec is made from. Whoever reads
    /// the text elsewhere needs all of them.
    pub contents: BTreeMap<String, Arc<[u8]>>,
    /// What is to be said about the file, in its order.
    pub diagnostics: Vec<Diagnostic>,
}

impl Parsed {
    /// True when there is no error, so that the spec is what the file asks for.
    pub fn ok(&self) -> bool {
        !self.diagnostics.iter().any(|d| d.severity == Severity::Error)
    }
}

/// Reads a topology file. Never panics, whatever the text; time and memory are bounded.
pub fn parse(input: &Input<'_>) -> Parsed {
    let mut report = Report::new(input.file_name);
    let mut parsed = match tree(input, &mut report) {
        Some(root) => lab(input, &root, &mut report),
        None => Parsed::default(),
    };
    parsed.diagnostics = report.finish();
    parsed
}

/// The tree, if the text is one that can be read at all.
fn tree(input: &Input<'_>, report: &mut Report) -> Option<Node> {
    if input.text.len() > MAX_TEXT {
        let message =
            format!("the file has more than {MAX_TEXT} bytes, the most that a topology file may have");
        report.error(Pos::default(), "FILE_TOO_LARGE", message);
        return None;
    }
    let text = input.text.strip_prefix('\u{feff}').unwrap_or(input.text);
    if let Some((at, c)) = text.char_indices().find(|(_, c)| is_forbidden(*c)) {
        let message =
            format!("the character U+{:04X} has no place in a text; is this a topology file?", u32::from(c));
        report.error(place(text, at), "FORBIDDEN_CHARACTER", message);
        return None;
    }
    if let Some(at) = template(text) {
        let message = "this file is a template: {{ … }} must be rendered first, for instance with \
                       \"gomplate -f lab.clab.yml -d vars.yml > rendered.clab.yml\"; then give the rendered file";
        report.error(place(text, at), "TEMPLATE", message);
        return None;
    }
    let root = yaml::read(text, &mut Expander::new(input.env), report).ok()?;
    match &*root.value {
        Value::Map(_) => return Some(root),
        Value::Null => report.error(
            Pos::default(),
            "EMPTY_FILE",
            "the file is empty: a lab needs at least a name and topology.nodes",
        ),
        _ => report.error(
            root.pos,
            "WRONG_TYPE",
            "this is not a topology file: expected a map that begins with \"name: my-lab\"",
        ),
    }
    None
}

/// True for a character that YAML does not allow in a text (YAML 1.2.2 §5.1).
fn is_forbidden(c: char) -> bool {
    match c {
        '\t' | '\n' | '\r' | '\u{85}' => false,
        '\u{fffe}' | '\u{ffff}' => true,
        c => c.is_control(),
    }
}

/// Where the first template expression outside a comment begins.
fn template(text: &str) -> Option<usize> {
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        if let Some(at) = line.find("{{").filter(|_| !line.trim_start().starts_with('#')) {
            return Some(start + at);
        }
        start += line.len();
    }
    None
}

/// Line and column of a byte of the text.
fn place(text: &str, at: usize) -> Pos {
    let before = &text[..at];
    let line_start = before.rfind('\n').map_or(0, |n| n + 1);
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Pos {
        line: number(before.bytes().filter(|b| *b == b'\n').count() + 1),
        column: number(before[line_start..].chars().count() + 1),
    }
}

/// Where the parts of the spec stand, for what is only found wrong at the end.
#[derive(Default)]
struct Places {
    prefix: Pos,
    nodes: Vec<Pos>,
    links: Vec<(Pos, [Pos; 2])>,
}

/// The lab in a tree.
fn lab(input: &Input<'_>, root: &Node, report: &mut Report) -> Parsed {
    let mut parsed = Parsed::default();
    let mut places = Places::default();
    let mut topology: Option<&Entry> = None;
    let mut mgmt: Option<Mgmt> = None;
    let mut named = false;
    for (key, entry) in known(Section::Top, value::map(root, report), report) {
        match key {
            "name" => {
                named = true;
                parsed.lab = name(entry, report);
            }
            "prefix" => {
                places.prefix = entry.node.pos;
                parsed.spec.prefix = prefix(entry, report);
            }
            "mgmt" => mgmt = Some(Mgmt::read(&entry.node, report)),
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
    parsed.spec.mgmt = mgmt.as_ref().map(|m| m.spec.clone());
    match topology {
        Some(entry) => read_topology(input, entry, mgmt.as_ref(), &mut parsed, &mut places, report),
        None => report.error(
            Pos::default(),
            "NO_NODES",
            "the file has no topology: name the nodes below topology.nodes",
        ),
    }
    for violation in parsed.spec.check().into_iter().chain(input.catalogue.check(&parsed.spec)) {
        tell(&violation, &places, report);
    }
    parsed
}

fn name(entry: &Entry, report: &mut Report) -> Option<LabId> {
    let name = value::text(&entry.node, report);
    let Some(name) = name else {
        report.error(entry.node.pos, "NAME_MISSING", "the lab has no name: write one behind \"name:\"");
        return None;
    };
    if name.value.contains("__git") {
        report.error(
            name.pos,
            "MAGIC_VARIABLE",
            "__gitBranch__ and __gitHash__ are not supported: write ${NAME} and set NAME when you deploy",
        );
        return None;
    }
    name.value
        .parse()
        .map_err(|e: netloom_model::id::IdError| report.error(name.pos, "INVALID_NAME", e.to_string()))
        .ok()
}

fn prefix(entry: &Entry, report: &mut Report) -> String {
    match &*entry.node.value {
        Value::Scalar(text) if text.is_empty() || text == "__lab-name" => {
            let message = "instances are always called <prefix>-<lab>-<node>: the prefix \"netloom\" is used. Name one of your own, or leave it out";
            report.warning(entry.node.pos, "PREFIX_NOT_SUPPORTED", message);
            String::new()
        }
        _ => value::text(&entry.node, report).map(|p| p.value).unwrap_or_default(),
    }
}

/// Reads `topology` into the spec.
fn read_topology(
    input: &Input<'_>,
    entry: &Entry,
    mgmt: Option<&Mgmt>,
    parsed: &mut Parsed,
    places: &mut Places,
    report: &mut Report,
) {
    let mut inherited = Inherited::default();
    let (mut nodes, mut links): (&[Entry], &[Node]) = (&[], &[]);
    for (key, entry) in known(Section::Topology, value::map(&entry.node, report), report) {
        match key {
            "defaults" => inherited.defaults = Definition::read(&entry.node, Level::Defaults, report),
            "kinds" => {
                inherited.kinds = definitions(&entry.node, Level::Kind, report);
                check_kinds(&entry.node, input.catalogue, report);
            }
            "groups" => inherited.groups = definitions(&entry.node, Level::Group, report),
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
            report.error(entry.pos, "LAB_TOO_LARGE", format!("{count} {what}; a lab holds at most {most}"));
            return;
        }
    }

    let lab = parsed.lab.as_ref().map_or("", LabId::as_str);
    let mut maker =
        node::Nodes::new(lab, input.catalogue, &inherited, mgmt.is_some(), Collector::new(input.files));
    let mut built = Vec::new();
    let mut kinds = HashMap::new();
    let mut folded: HashMap<String, &Entry> = HashMap::new();
    for entry in nodes {
        if let Some(other) = folded.insert(entry.key.to_ascii_lowercase(), entry) {
            let message = format!(
                "{} and {} (at {}) differ only in case, and names are the same ignoring case",
                quoted(&entry.key),
                quoted(&other.key),
                other.pos
            );
            report.error(entry.pos, "INVALID_NAME", message);
            kinds.insert(entry.key.as_str(), None);
            continue;
        }
        let node = maker.build(entry, report);
        kinds.insert(entry.key.as_str(), node.as_ref().and_then(|n| input.catalogue.get(&n.spec.kind)));
        built.extend(node);
        if maker.is_full() {
            return;
        }
    }
    mgmt::check_nodes(mgmt, built.iter().map(|n| (n.spec.id.as_str(), &n.mgmt)), report);
    if mgmt.is_none() && built.iter().any(|n| n.has_interfaces) {
        let message = "without mgmt there is no management network, and the nodes have no eth0; write \"mgmt: {}\" at the top of the file for one";
        report.info(entry.pos, "NO_MGMT", message);
    }
    (parsed.spec.files, parsed.contents) = maker.files.finish();
    for node in built {
        places.nodes.push(node.pos);
        parsed.spec.nodes.push(node.spec);
    }
    let mut maker = link::Links { nodes: kinds, ends: BTreeMap::new() };
    for link in links.iter().filter_map(|link| maker.build(link, report)) {
        places.links.push((link.pos, link.ends));
        parsed.spec.links.push(link.spec);
    }
}

fn definitions(node: &Node, level: Level, report: &mut Report) -> BTreeMap<String, Definition> {
    value::map(node, report)
        .iter()
        .map(|e| (e.key.clone(), Definition::read(&e.node, level, report)))
        .collect()
}

/// Tells `kinds` entries that no node can inherit from. A node of such a kind is an error at the node; the entry alone does no harm.
fn check_kinds(node: &Node, catalogue: &Catalogue, report: &mut Report) {
    for entry in value::map(node, report).iter().filter(|e| catalogue.get(&e.key).is_none()) {
        let meant = report.did_you_mean(&entry.key, catalogue.kinds().map(|k| k.name.as_str()));
        report.warning(
            entry.pos,
            "UNKNOWN_KIND",
            format!("there is no kind {}, so this entry serves no node.{meant}", quoted(&entry.key)),
        );
    }
}

/// Tells what the rules of every spec find, as near to its place as is known.
fn tell(violation: &Violation, places: &Places, report: &mut Report) {
    let field = violation.field.as_str();
    let index =
        |of: &str| field.strip_prefix(of)?.strip_prefix('[')?.split(']').next()?.parse::<usize>().ok();
    let (pos, code) = if let Some(i) = index("nodes") {
        (places.nodes.get(i).copied().unwrap_or_default(), "INVALID_NODE")
    } else if let Some(i) = index("links") {
        let (link, ends) = places.links.get(i).copied().unwrap_or_default();
        let side = field.split('.').nth(1);
        (side.map_or(link, |s| if s == "a" { ends[0] } else { ends[1] }), "INVALID_LINK")
    } else if field == "prefix" {
        (places.prefix, "INVALID_PREFIX")
    } else {
        (Pos::default(), "INVALID_SPEC")
    };
    report.error(pos, code, &violation.description);
}
