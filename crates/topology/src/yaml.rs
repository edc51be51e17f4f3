//! YAML text to a tree in which every key and value knows its place.
//!
//! Anchors, aliases and merge keys work, but what they expand to is counted as if it were written out: nine lines that stand for a billion
//! values are refused before anything of that size exists. Nothing here recurses, and the depth of the tree is bounded, so whoever walks it may.

use std::collections::HashMap;
use std::rc::Rc;

use saphyr_parser::{Event, ScalarStyle, Tag};

use crate::diagnostic::{Pos, Report, quoted};
use crate::expand::Expander;
use crate::window::{Events, MAX_AHEAD, Next};

/// Most values of a file, aliases counted as what they stand for.
pub(crate) const MAX_VALUES: usize = 500_000;
/// Most levels of nesting, likewise.
pub(crate) const MAX_DEPTH: usize = 64;

/// A value and where it stands. Cloning shares the value.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub pos: Pos,
    pub value: Rc<Value>,
}

#[derive(Debug)]
pub(crate) enum Value {
    Null,
    /// Text, a number or a truth value: what it means is for the key to say.
    Scalar(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key with its value.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub key: String,
    pub pos: Pos,
    pub node: Node,
}

/// The text could not be made a tree; why is in the report.
#[derive(Debug)]
pub(crate) struct Refused;

/// Reads the one document in the text.
pub(crate) fn read(text: &str, expander: &mut Expander<'_>, report: &mut Report) -> Result<Node, Refused> {
    let mut builder =
        Builder { expander, report, stack: Vec::new(), anchors: HashMap::new(), values: 0, root: None };
    let mut documents = 0;
    let mut events = Events::new(text);
    let mut last = Pos { line: 1, column: 1 };
    while let Some(next) = events.next() {
        match next {
            Next::TooFar => {
                let message =
                    format!("there are more than {MAX_AHEAD} characters from here to the next value");
                builder.report.error(last, "TOO_LONG", message);
                return Err(Refused);
            }
            Next::Invalid(e) => {
                let pos = events.place(e.marker());
                let line = text.lines().nth(pos.line.saturating_sub(1) as usize).unwrap_or_default();
                builder.report.error(pos, "YAML", format!("not valid YAML: {}{}", e.info(), hint(line)));
                return Err(Refused);
            }
            Next::Event(event, span) => {
                last = events.place(&span.start);
                if matches!(event, Event::DocumentStart(_)) {
                    documents += 1;
                }
                if documents > 1 {
                    let message = "a second YAML document begins here; a topology file holds one: put the others in files of their own";
                    builder.report.error(last, "SEVERAL_DOCUMENTS", message);
                    return Err(Refused);
                }
                builder.take(event, last)?;
            }
        }
    }
    // A text of comments alone has no document.
    Ok(builder.root.take().unwrap_or(Node { pos: Pos::default(), value: Rc::new(Value::Null) }))
}

/// What often stands behind a syntax error on this line.
fn hint(line: &str) -> &'static str {
    let indentation = line.len() - line.trim_start().len();
    if line[..indentation].contains('\t') {
        "; indent with spaces: YAML forbids tabs there"
    } else if line.contains("${") {
        "; put quotes around a value that holds ${…}"
    } else {
        ""
    }
}

/// A finished value, and how much it stands for.
#[derive(Clone)]
struct Built {
    node: Node,
    values: usize,
    depth: usize,
}

/// A list or map that is not closed yet.
struct Open {
    pos: Pos,
    anchor: usize,
    values: usize,
    depth: usize,
    content: Content,
}

enum Content {
    List(Vec<Node>),
    Map {
        entries: Vec<Entry>,
        /// Where each key stands.
        keys: HashMap<String, Pos>,
        /// The key that waits for its value.
        key: Option<(String, Pos, bool)>,
        /// What `<<` brings in.
        merged: Vec<Node>,
    },
}

struct Builder<'r, 'e> {
    expander: &'r mut Expander<'e>,
    report: &'r mut Report,
    stack: Vec<Open>,
    anchors: HashMap<usize, Built>,
    values: usize,
    root: Option<Node>,
}

impl Builder<'_, '_> {
    fn take(&mut self, event: Event<'_>, pos: Pos) -> Result<(), Refused> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain;
                if let Some(tag) =
                    tag.as_deref().filter(|t| !is_core(t, &["str", "int", "float", "bool", "null"]))
                {
                    self.foreign_tag(pos, &tag.to_string())?;
                }
                let is_text = tag.is_some_and(|t| t.suffix == "str");
                let null = plain && !is_text && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                let merge = plain && text == "<<";
                let value = match null {
                    true if !self.at_key() => Value::Null,
                    _ => Value::Scalar(self.expander.expand(&text, pos, self.report)),
                };
                self.put(
                    Built { node: Node { pos, value: Rc::new(value) }, values: 1, depth: 0 },
                    anchor,
                    merge,
                )
            }
            Event::SequenceStart(_, Some(tag)) if !is_core(&tag, &["seq"]) => {
                self.foreign_tag(pos, &tag.to_string())
            }
            Event::MappingStart(_, Some(tag)) if !is_core(&tag, &["map"]) => {
                self.foreign_tag(pos, &tag.to_string())
            }
            Event::SequenceStart(anchor, _) => self.open(pos, anchor, Content::List(Vec::new())),
            Event::MappingStart(anchor, _) => {
                let content =
                    Content::Map { entries: Vec::new(), keys: HashMap::new(), key: None, merged: Vec::new() };
                self.open(pos, anchor, content)
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Alias(anchor) => {
                let Some(mut built) = self.anchors.get(&anchor).cloned() else {
                    self.report.error(pos, "YAML", "this alias stands inside what it stands for");
                    return Err(Refused);
                };
                // A text that is used again belongs to where it is used; what is inside a map or list, to where it is written.
                built.node.pos = pos;
                self.put(built, 0, false)
            }
            _ => Ok(()),
        }
    }

    fn foreign_tag(&mut self, pos: Pos, tag: &str) -> Result<(), Refused> {
        self.report.error(
            pos,
            "YAML_TAG",
            format!("the tag {} means nothing here; leave it out", quoted(tag)),
        );
        Err(Refused)
    }

    /// True when the next value is a map's key.
    fn at_key(&self) -> bool {
        matches!(self.stack.last(), Some(Open { content: Content::Map { key: None, .. }, .. }))
    }

    fn open(&mut self, pos: Pos, anchor: usize, content: Content) -> Result<(), Refused> {
        if self.at_key() {
            self.report.error(pos, "YAML_KEY", "a key must be text, not a list or a map");
            return Err(Refused);
        }
        self.bound(pos, 1, 0)?;
        self.stack.push(Open { pos, anchor, values: 1, depth: 0, content });
        Ok(())
    }

    fn close(&mut self) -> Result<(), Refused> {
        let Some(open) = self.stack.pop() else { return Ok(()) };
        let value = match open.content {
            Content::List(items) => Value::List(items),
            Content::Map { entries, keys, merged, .. } => Value::Map(self.merge(entries, keys, merged)),
        };
        let node = Node { pos: open.pos, value: Rc::new(value) };
        // Its own value was counted when it was opened.
        self.values -= open.values;
        self.put(Built { node, values: open.values, depth: open.depth + 1 }, open.anchor, false)
    }

    /// Adds what merge keys bring in and the map does not say itself; of several the first to say it wins.
    fn merge(
        &mut self,
        mut entries: Vec<Entry>,
        mut keys: HashMap<String, Pos>,
        merged: Vec<Node>,
    ) -> Vec<Entry> {
        let mut sources = Vec::new();
        for node in merged {
            match &*node.value {
                Value::List(nodes) => sources.extend(nodes.iter().cloned()),
                _ => sources.push(node),
            }
        }
        for source in sources {
            let Value::Map(added) = &*source.value else {
                self.report.error(
                    source.pos,
                    "YAML_MERGE",
                    "<< takes a map, or a list of maps: write \"<<: *anchor\"",
                );
                continue;
            };
            for entry in added {
                if keys.insert(entry.key.clone(), entry.pos).is_none() {
                    entries.push(entry.clone());
                }
            }
        }
        entries
    }

    /// Refuses to grow beyond the bounds.
    fn bound(&mut self, pos: Pos, values: usize, depth: usize) -> Result<(), Refused> {
        self.values = self.values.saturating_add(values);
        if self.values > MAX_VALUES {
            let message = format!(
                "the file holds more than {MAX_VALUES} values, aliases counted as what they stand for; a lab does not need them"
            );
            self.report.error(pos, "TOO_MANY_VALUES", message);
            return Err(Refused);
        }
        if self.stack.len() + depth > MAX_DEPTH {
            self.report.error(pos, "TOO_DEEP", format!("values are nested more than {MAX_DEPTH} deep"));
            return Err(Refused);
        }
        Ok(())
    }

    /// Puts a finished value where it belongs.
    fn put(&mut self, built: Built, anchor: usize, is_merge: bool) -> Result<(), Refused> {
        let pos = built.node.pos;
        self.bound(pos, built.values, built.depth)?;
        if anchor != 0 {
            self.anchors.insert(anchor, built.clone());
        }
        let Some(open) = self.stack.last_mut() else {
            self.root = Some(built.node);
            return Ok(());
        };
        open.values += built.values;
        open.depth = open.depth.max(built.depth);
        match &mut open.content {
            Content::List(items) => items.push(built.node),
            Content::Map { key: waiting @ None, .. } => {
                let Value::Scalar(text) = &*built.node.value else {
                    self.report.error(pos, "YAML_KEY", "a key must be text");
                    return Err(Refused);
                };
                *waiting = Some((text.clone(), pos, is_merge));
            }
            Content::Map { entries, keys, key, merged } => {
                let Some((key, key_pos, is_merge)) = key.take() else { return Ok(()) };
                if let Some(first) = keys.get(&key) {
                    let message = format!(
                        "the key {} stands twice in this map, first at {first}; keep one",
                        quoted(&key)
                    );
                    self.report.error(key_pos, "DUPLICATE_KEY", message);
                    return Ok(());
                }
                keys.insert(key.clone(), key_pos);
                if is_merge {
                    merged.push(built.node);
                } else {
                    entries.push(Entry { key, pos: key_pos, node: built.node });
                }
            }
        }
        Ok(())
    }
}

/// True for a tag of YAML's own with one of these names: what is made of `!!python/object` elsewhere is nothing here.
fn is_core(tag: &Tag, names: &[&str]) -> bool {
    tag.is_yaml_core_schema() && names.contains(&tag.suffix.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> (Option<Node>, Vec<String>) {
        let mut report = Report::new("f");
        let none = |_: &str| None;
        let node = read(text, &mut Expander::new(&none), &mut report).ok();
        (node, report.finish().iter().map(ToString::to_string).collect())
    }

    /// The tree in one line, without places.
    fn flat(node: &Node) -> String {
        match &*node.value {
            Value::Null => "null".into(),
            Value::Scalar(text) => format!("{text:?}"),
            Value::List(items) => format!("[{}]", items.iter().map(flat).collect::<Vec<_>>().join(" ")),
            Value::Map(entries) => {
                format!(
                    "{{{}}}",
                    entries
                        .iter()
                        .map(|e| format!("{}={}", e.key, flat(&e.node)))
                        .collect::<Vec<_>>()
                        .join(" ")
                )
            }
        }
    }

    fn tree(text: &str) -> String {
        let (node, said) = parse(text);
        assert!(said.is_empty(), "{said:?}");
        flat(&node.unwrap())
    }

    fn said(text: &str) -> String {
        let (_, said) = parse(text);
        assert_eq!(said.len(), 1, "{said:?}");
        said[0].clone()
    }

    #[test]
    fn values_keep_what_is_written() {
        assert_eq!(
            tree("a: no\nb: 0x10\nc: 1.0\nd:\ne: ~\nf: ''\ng: \"~\"\nh: !!str null"),
            r#"{a="no" b="0x10" c="1.0" d=null e=null f="" g="~" h="null"}"#
        );
        assert_eq!(tree("{\"a\": [1, 'b', {c: d}]}"), r#"{a=["1" "b" {c="d"}]}"#);
        assert_eq!(tree("a: |\n  x\n  y\nb: >-\n  x\n  y\n"), r#"{a="x\ny\n" b="x y"}"#);
        assert_eq!(tree("a:\r\n  b: c\r\n"), r#"{a={b="c"}}"#);
    }

    #[test]
    fn places_are_those_of_the_text() {
        let (node, _) = parse("a:\n  é: [x, y]\n");
        let Value::Map(top) = &*node.unwrap().value else { panic!() };
        let Value::Map(inner) = &*top[0].node.value else { panic!() };
        assert_eq!(inner[0].pos, Pos { line: 2, column: 3 });
        let Value::List(items) = &*inner[0].node.value else { panic!() };
        assert_eq!(items[1].pos, Pos { line: 2, column: 10 });
    }

    #[test]
    fn json_has_its_places_too() {
        for (text, line, column) in
            [("{\"a\": 1, \"b\": 2}", 1, 10), ("# c\n\n  {a: 1, b: 2}", 3, 10), ("{a: 1,\n  b: 2}", 2, 3)]
        {
            let (node, said) = parse(text);
            assert!(said.is_empty(), "{said:?}");
            let Value::Map(entries) = &*node.unwrap().value else { panic!() };
            assert_eq!(entries[1].pos, Pos { line, column }, "{text}");
        }
        let row = format!("{{\"k\": [{}]}}", vec!["\"value\""; 100].join(", "));
        let long = format!("{{\"rows\": [{}]}}", vec![row; 1_000].join(",\n"));
        assert!(long.len() > MAX_AHEAD && parse(&long).1.is_empty());
    }

    #[test]
    fn what_is_kept_for_a_key_is_bounded() {
        for text in [format!("- [{}", "[a],".repeat(200_000)), format!("a: \"{}\"", "x".repeat(600_000))] {
            assert!(said(&text).contains("TOO_LONG"));
        }
    }

    #[test]
    fn aliases_and_merge_keys_work() {
        assert_eq!(tree("a: &x {k: 1}\nb: *x\nc: &y z\nd: *y"), r#"{a={k="1"} b={k="1"} c="z" d="z"}"#);
        assert_eq!(tree("a: &x {k: 1, l: 2}\nb: {<<: *x, l: 3}"), r#"{a={k="1" l="2"} b={l="3" k="1"}}"#);
        assert_eq!(
            tree("- &x {k: 1}\n- &y {k: 2, m: 3}\n- <<: [*x, *y]"),
            r#"[{k="1"} {k="2" m="3"} {k="1" m="3"}]"#
        );
    }

    #[test]
    fn faults_are_told_with_their_place() {
        for (text, is) in [
            (
                "a: 1\nb: 2\na: 3",
                "f:3:1: error: the key \"a\" stands twice in this map, first at line 1, column 1; keep one [DUPLICATE_KEY]",
            ),
            ("a: [1, 2", "f:2:1: error: not valid YAML"),
            ("a: *b", "f:1:4: error: not valid YAML"),
            ("a: &a [*a]", "f:1:8: error: this alias stands inside what it stands for [YAML]"),
            ("a: 1\n---\nb: 2", "f:2:1: error: a second YAML document"),
            ("a: !foo b", "f:1:4: error: the tag"),
            ("a: !foo [b]", "f:1:4: error: the tag"),
            ("a: !!python/object a", "f:1:4: error: the tag"),
            ("a: !!set {b: c}", "f:1:4: error: the tag"),
            ("a: !!str [b]", "f:1:4: error: the tag"),
            ("x: {[a]: b}", "f:1:5: error: a key must be text"),
            ("a: {<<: 1}", "f:1:9: error: << takes a map"),
            ("a:\n\tb: c", "f:2:"),
            ("a: [${X}:eth1]", "put quotes around a value that holds ${…}"),
        ] {
            let said = said(text);
            assert!(said.contains(is), "{text:?}: {said}");
        }
    }

    #[test]
    fn a_bomb_is_refused() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for i in 1..12 {
            let row = vec![format!("*a{}", i - 1); 10].join(", ");
            text.push_str(&format!("a{i}: &a{i} [{row}]\n"));
        }
        assert!(said(&text).contains("TOO_MANY_VALUES"));
        let wide = (0..1_000).map(|i| format!("k{i}: v")).collect::<Vec<_>>().join(", ");
        let many = "- {<<: *w}\n".repeat(1_000);
        assert!(said(&format!("- &w {{{wide}}}\n{many}")).contains("TOO_MANY_VALUES"));
    }

    #[test]
    fn depth_is_bounded_also_through_aliases() {
        for text in [
            "[".repeat(100_000),
            "- ".repeat(100_000),
            "{a: ".repeat(1_000),
            "? ".repeat(10_000),
            "a:\n".repeat(3) + &"- ".repeat(65),
        ] {
            assert!(!parse(&text).1.is_empty());
        }
        let deep = format!("a: &a {}x{}\n", "[".repeat(40), "]".repeat(40));
        assert!(parse(&deep).1.is_empty());
        let twice = format!("{deep}b: {}*a{}\n", "[".repeat(40), "]".repeat(40));
        assert!(said(&twice).contains("TOO_DEEP"));
    }
}
