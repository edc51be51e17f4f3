//! Which nodes of a lab a command means: by name, with * and ? as in a shell, by kind, by label, by group.

use netloom_api::v1 as api;
use netloom_model::{Code, Failure};

use crate::args::node::Select;
use crate::error::Error;
use crate::output::words::{last, natural};

/// What was asked for.
#[derive(Debug)]
pub struct Selection {
    names: Vec<String>,
    kinds: Vec<String>,
    groups: Vec<String>,
    labels: Vec<(String, Option<String>)>,
    all: bool,
}

impl Selection {
    /// From the command line. That nothing was named is an error: a command in all nodes has to be meant.
    pub fn new(names: &[String], select: &Select) -> Result<Selection, Error> {
        let labels = select.label.iter().map(|label| match label.split_once('=') {
            Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
            None => (label.clone(), None),
        });
        let selection = Selection {
            names: names.to_vec(),
            kinds: select.kind.clone(),
            groups: select.group.clone(),
            labels: labels.collect(),
            all: select.all,
        };
        if selection.names.is_empty() && !selection.is_narrowed() && !selection.all {
            return Err(Error::Usage("name nodes, or say --all, --kind, --group or --label".to_owned()));
        }
        Ok(selection)
    }

    /// Those of these names.
    pub fn by_name(names: &[String]) -> Selection {
        let names = names.to_vec();
        Selection { names, kinds: Vec::new(), groups: Vec::new(), labels: Vec::new(), all: false }
    }

    fn is_narrowed(&self) -> bool {
        !self.kinds.is_empty() || !self.groups.is_empty() || !self.labels.is_empty()
    }

    /// The node, when one is named and nothing else is said.
    pub fn only_one(&self) -> Option<&str> {
        match self.names.as_slice() {
            [one] if !self.is_narrowed() && !self.all && !is_pattern(one) => Some(one),
            _ => None,
        }
    }

    /// Names of the nodes that are meant, in natural order: those that match a name, if any is given, and all of the rest. Bridges are left out unless
    /// they are named: there is nothing inside.
    pub fn of(&self, lab: &str, nodes: &[api::Node]) -> Result<Vec<String>, Error> {
        for name in self.names.iter().filter(|n| !is_pattern(n)) {
            if !nodes.iter().any(|n| last(&n.name) == name) {
                let message = format!("lab {lab} has no node \"{name}\"");
                let failure = Failure::new(Code::NotFound, "NODE_NOT_FOUND", message);
                return Err(failure.with("lab", lab).into());
            }
        }
        let mut found: Vec<&api::Node> = nodes.iter().filter(|n| self.takes(n)).collect();
        if found.is_empty() {
            let message = format!("no node of lab {lab} is what was asked for");
            return Err(Failure::new(Code::NotFound, "NODE_NOT_FOUND", message).with("lab", lab).into());
        }
        found.sort_by_cached_key(|n| natural(&n.name));
        Ok(found.into_iter().map(|n| n.name.clone()).collect())
    }

    fn takes(&self, node: &api::Node) -> bool {
        let id = last(&node.name);
        let is_named = self.names.iter().any(|n| n == id);
        let has = |(key, value): &(String, Option<String>)| {
            node.labels.get(key).is_some_and(|v| value.as_ref().is_none_or(|wanted| v == wanted))
        };
        (self.names.is_empty() || self.names.iter().any(|n| matches(n, id)))
            && (self.kinds.is_empty() || self.kinds.contains(&node.kind))
            && (self.groups.is_empty() || self.groups.contains(&node.group))
            && self.labels.iter().all(has)
            && (is_named || node.runtime() != api::Runtime::Bridge)
    }
}

fn is_pattern(name: &str) -> bool {
    name.contains(['*', '?'])
}

/// Whether a name is what a pattern with * and ? says.
fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    // Where the last * stands, and how much of the name it takes so far.
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(c) if *c == '?' || *c == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match star {
                Some((at, taken)) => {
                    star = Some((at, taken + 1));
                    p = at + 1;
                    n = taken + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_those_of_a_shell() {
        for (pattern, yes, no) in [
            ("r*", &["r", "r1", "r10-x"][..], &["x", "xr"][..]),
            ("*1", &["1", "r1", "r11"], &["r12"]),
            ("r?", &["r1", "rx"], &["r", "r10"]),
            ("leaf*-a?", &["leaf1-a1", "leaf-a-a2"], &["leaf1-a", "leaf1-b1"]),
            ("r1", &["r1"], &["r10"]),
            ("**", &["", "x"], &[]),
        ] {
            yes.iter().for_each(|n| assert!(matches(pattern, n), "{pattern} {n}"));
            no.iter().for_each(|n| assert!(!matches(pattern, n), "{pattern} {n}"));
        }
    }

    #[test]
    fn what_is_said_narrows_what_is_named() {
        let node = |id: &str, kind: &str, label: &str| api::Node {
            name: format!("labs/x/nodes/{id}"),
            kind: kind.into(),
            runtime: if kind == "bridge" { api::Runtime::Bridge } else { api::Runtime::Docker }.into(),
            labels: [("site".to_owned(), label.to_owned())].into(),
            ..api::Node::default()
        };
        let nodes = [
            node("r10", "frr", "a"),
            node("r2", "frr", "b"),
            node("h1", "linux", "a"),
            node("rs", "bridge", "a"),
        ];
        let of = |names: &[&str], select: Select| {
            let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
            let found = Selection::new(&names, &select)?.of("x", &nodes)?;
            Ok::<_, Error>(found.iter().map(|n| last(n).to_owned()).collect::<Vec<String>>())
        };
        let none = Select::default;
        let list = |s: &str| vec![s.to_owned()];
        assert_eq!(of(&["r*"], none()).unwrap(), ["r2", "r10"]);
        assert_eq!(of(&["rs"], none()).unwrap(), ["rs"], "who names it means it");
        assert_eq!(of(&[], Select { all: true, ..none() }).unwrap(), ["h1", "r2", "r10"]);
        assert_eq!(of(&[], Select { label: list("site=a"), ..none() }).unwrap(), ["h1", "r10"]);
        assert_eq!(
            of(&[], Select { label: list("site"), kind: list("frr"), ..none() }).unwrap(),
            ["r2", "r10"]
        );
        assert_eq!(of(&["h*"], Select { kind: list("frr"), ..none() }).unwrap_err().exit_code(), 4);
        assert_eq!(of(&["r1"], none()).unwrap_err().exit_code(), 4);
        assert_eq!(of(&[], none()).unwrap_err().exit_code(), 2);
    }
}
