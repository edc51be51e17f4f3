//! Where the parts of a spec stand in the file, for what is only found wrong when the whole is held against the rules.

use std::collections::HashMap;

use netloom_model::failure::Violation;

use crate::diagnostic::{Pos, Report};

/// Places by the paths of a spec's fields.
#[derive(Default)]
pub(crate) struct Places {
    fields: HashMap<String, Pos>,
    nodes: usize,
    links: usize,
}

impl Places {
    pub fn add(&mut self, field: &str, pos: Pos) {
        self.fields.insert(field.to_owned(), pos);
    }

    /// The next node, with its parts.
    pub fn add_node(&mut self, pos: Pos, parts: Vec<(String, Pos)>) {
        let node = format!("nodes[{}]", self.nodes);
        self.nodes += 1;
        self.fields.extend(parts.into_iter().map(|(part, pos)| (format!("{node}.{part}"), pos)));
        self.fields.insert(node, pos);
    }

    /// The next link, with its ends.
    pub fn add_link(&mut self, pos: Pos, [a, b]: [Pos; 2], impairment: Pos) {
        let link = format!("links[{}]", self.links);
        self.links += 1;
        for (part, pos) in [("a", a), ("b", b), ("a_to_b", impairment), ("b_to_a", impairment)] {
            self.fields.insert(format!("{link}.{part}"), pos);
        }
        self.fields.insert(link, pos);
    }

    /// Tells what the rules of every spec find, as near to its place as is known.
    pub fn tell(&self, violation: &Violation, report: &mut Report) {
        self.tell_as(code(&violation.field), violation, report);
    }

    /// The same, by this code.
    pub fn tell_as(&self, code: &'static str, violation: &Violation, report: &mut Report) {
        report.error(self.of(violation), code, &violation.description);
    }

    /// The same, as what may be well all the same.
    pub fn warn(&self, code: &'static str, violation: &Violation, report: &mut Report) {
        report.warning(self.of(violation), code, &violation.description);
    }

    fn of(&self, violation: &Violation) -> Pos {
        let mut field = violation.field.as_str();
        loop {
            if let Some(pos) = self.fields.get(field) {
                return *pos;
            }
            // The part around this one.
            match field.rfind(['.', '[']) {
                Some(end) => field = &field[..end],
                None => return Pos::default(),
            }
        }
    }
}

/// The code of what is said of a field.
fn code(field: &str) -> &'static str {
    let mut parts = field.split('.');
    let first = parts.next().unwrap_or_default();
    let second = parts.next().unwrap_or_default();
    match (first.split('[').next().unwrap_or_default(), second) {
        ("nodes", "mgmt_ipv4" | "mgmt_ipv6") => "MGMT_ADDRESS",
        ("nodes", "runtime") => "RUNTIME_NOT_SUPPORTED",
        ("nodes", "stages") => "STAGES",
        ("nodes", "network_mode") => "NETWORK_MODE",
        ("nodes", p) if p.starts_with("ports") => "PORTS",
        ("nodes", "id") => "INVALID_NAME",
        ("nodes", _) => "INVALID_NODE",
        ("links", _) => "INVALID_LINK",
        ("mgmt", "ipv4_gateway" | "ipv6_gateway" | "ipv4_range" | "ipv6_range") => "MGMT_ADDRESS",
        ("mgmt", _) => "INVALID_VALUE",
        ("prefix", _) => "INVALID_PREFIX",
        _ => "INVALID_SPEC",
    }
}
