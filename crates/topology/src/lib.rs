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
//! | `value`, `docker` | single values |
//! | `lab`, `mgmt`, `places` | the lab as a whole |
//! | `definition`, `merge`, `node`, `container`, `stages`, `certificate`, `magic` | nodes |
//! | `link`, `endpoint`, `impairment` | links |
//! | `bind`, `env_file`, `files`, `fs` | files |
//! | `diagnostic` | what is said about it |

mod bind;
mod certificate;
mod container;
mod definition;
mod diagnostic;
mod docker;
mod endpoint;
mod env_file;
mod expand;
mod files;
mod fs;
mod impairment;
mod keys;
mod lab;
mod link;
mod magic;
mod merge;
mod mgmt;
mod node;
mod places;
mod stages;
mod value;
mod window;
mod yaml;

use std::collections::BTreeMap;
use std::sync::Arc;

use netloom_model::id::LabId;
use netloom_model::kind::Catalogue;
use netloom_model::spec::LabSpec;

pub use crate::bind::MADE as MADE_FILES;
pub use crate::diagnostic::{Diagnostic, MAX_DIAGNOSTICS, Severity};
pub use crate::files::{BundleFiles, FileError, FileSource, Found, MAX_FILES};
pub use crate::fs::DirFiles;
pub use crate::magic::GIT_VARIABLES;

use crate::diagnostic::{Pos, Report};
use crate::expand::Expander;
use crate::yaml::{Node, Value};

/// Largest text, in bytes.
pub const MAX_TEXT: usize = 4 << 20;

/// A topology file and what it is read with.
pub struct Input<'a> {
    /// How diagnostics call the file.
    pub file_name: &'a str,
    /// Its text.
    pub text: &'a str,
    /// Value of an environment variable, if it is set. It is also asked for [`GIT_VARIABLES`].
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// All environment variables; asked for only when the file says `__IMPORT_ENVS`.
    pub all_env: &'a dyn Fn() -> BTreeMap<String, String>,
    /// Only these nodes, and the links between them; empty means all.
    pub node_filter: &'a [String],
    /// What nodes start with in place of what the file says: configurations by the node's name. Names of nodes that are not in the file are left alone.
    pub startup_configs: &'a BTreeMap<String, String>,
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
    /// Nodes of the file that the node filter leaves out.
    pub left_out: Vec<String>,
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
        Some(root) => lab::read(input, &root, &mut report),
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
    if let Some((at, c)) = text.char_indices().find(|(_, c)| is_forbidden(*c) || turns(*c)) {
        let code = u32::from(c);
        let message = if turns(c) {
            format!(
                "the character U+{code:04X} turns the direction of the text, so that what is shown is not what is read: take it out"
            )
        } else {
            format!("the character U+{code:04X} has no place in a text; is this a topology file?")
        };
        report.error(place(text, at), "FORBIDDEN_CHARACTER", message);
        return None;
    }
    if let Some(at) = template(text) {
        let (name, stem) = (input.file_name, stem(input.file_name));
        let message = format!(
            "this file is a template, and must be rendered first: with gomplate, \"gomplate -c .={stem}_vars.yaml -f {name} -o {stem}.rendered.clab.yml\", \
             where {stem}_vars.yaml are the variables that containerlab takes beside the file; then give the rendered file"
        );
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

/// True for a character that turns the direction of what follows, without being part of a word of any language.
fn turns(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A file's name without what tells that it is a topology file.
fn stem(name: &str) -> &str {
    [".clab.gotmpl", ".clab.yaml", ".clab.yml", ".yaml", ".yml"]
        .iter()
        .find_map(|end| name.strip_suffix(end))
        .unwrap_or(name)
}

/// Where the first template expression outside a comment begins.
fn template(text: &str) -> Option<usize> {
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        if let Some(at) = line[..comment(line)].find("{{") {
            return Some(start + at);
        }
        start += line.len();
    }
    None
}

/// Where the comment of a line begins, or its end: a '#' at the start or behind a space, outside quotes.
fn comment(line: &str) -> usize {
    let mut quote = None;
    let mut before = ' ';
    for (at, c) in line.char_indices() {
        match quote {
            Some(q) if c == q && (q == '\'' || before != '\\') => quote = None,
            Some(_) => {}
            None if c == '#' && before.is_whitespace() => return at,
            None if "'\"".contains(c) && (before.is_whitespace() || "[{,:".contains(before)) => {
                quote = Some(c)
            }
            None => {}
        }
        before = c;
    }
    line.len()
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
