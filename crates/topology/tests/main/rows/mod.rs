//! Each row of the tables in `docs/topology.md`: a good file and what it does, a bad one and what is said of it.
//!
//! A row of the manual without a case here fails, and so does a case without a row; that the manual has a row for each key that the reader knows is held in
//! `keys`.

mod blocks;
mod links;
mod nodes;
mod top;

use std::collections::BTreeMap;

use crate::{codes, read, said};

/// A row.
pub(crate) struct Case {
    /// The heading that its table stands below, behind "Keys of ".
    pub section: &'static str,
    pub key: &'static str,
    /// What a good file has in this place, and a part of the spec's JSON that it yields.
    pub good: (&'static str, &'static str),
    /// What a bad file has, and severity, code and words of what is said.
    pub bad: (&'static str, &'static str),
}

pub(crate) const fn case(
    section: &'static str,
    key: &'static str,
    good: (&'static str, &'static str),
    bad: (&'static str, &'static str),
) -> Case {
    Case { section, key, good, bad }
}

/// A file with these keys in a map of the section.
fn file(section: &str, keys: &str) -> String {
    let has = |key: &str| keys.starts_with(&format!("{key}:"));
    let node = |keys: &str| {
        let kind = if keys.starts_with("kind:") { "" } else { "kind: linux, " };
        let image =
            if keys.starts_with("image:") || keys.starts_with("kind: bridge") { "" } else { "image: i, " };
        format!("    n: {{{kind}{image}{keys}}}\n")
    };
    let (mut top, mut topology, mut n, mut links) = (String::new(), String::new(), node(""), String::new());
    let mut mgmt = "mgmt: {ipv4-subnet: 10.0.0.0/24, ipv6-subnet: 'fd00::/64'}\n".to_owned();
    match section {
        "the file" if has("name") => {
            return format!("{keys}\n{mgmt}topology:\n  nodes: {{n: {{kind: linux, image: i}}}}\n");
        }
        "the file" if has("topology") => return format!("name: lab\n{keys}\n"),
        "the file" if has("mgmt") => mgmt = format!("{keys}\n"),
        "the file" => top = format!("{keys}\n"),
        "`settings`" => top = format!("settings: {{{keys}}}\n"),
        "`certificate-authority`" => top = format!("settings: {{certificate-authority: {{{keys}}}}}\n"),
        "`mgmt`" => mgmt = format!("mgmt: {{{keys}}}\n"),
        "`topology`" if has("nodes") => return format!("name: lab\ntopology: {{{keys}}}\n"),
        "`topology`" => topology = format!("  {keys}\n"),
        "a node" => n = node(keys),
        "`placement`" if has("kvm") => n = node(&format!("runtime: libvirt, placement: {{{keys}}}")),
        "`placement`" => n = node(&format!("placement: {{{keys}}}")),
        "`dns`" => n = node(&format!("dns: {{{keys}}}")),
        "`healthcheck`" => n = node(&format!("healthcheck: {{{keys}}}")),
        "`stages`" => n = node(&format!("stages: {{{keys}}}")),
        "a stage" => n = node(&format!("stages: {{create: {{{keys}}}}}")),
        "an item of `wait-for`" => n = node(&format!("stages: {{create: {{wait-for: [{{{keys}}}]}}}}")),
        "an item of `exec` of a stage" => n = node(&format!("stages: {{create: {{exec: [{{{keys}}}]}}}}")),
        "`certificate`" => n = node(&format!("certificate: {{{keys}}}")),
        "a link" if ["endpoints", "endpoint", "type", "host-interface"].into_iter().any(has) => {
            links = keys.to_owned()
        }
        "a link" => links = format!("endpoints: ['n:eth1', 'm:eth1'], {keys}"),
        "an endpoint" => links = format!("endpoints: [{{{keys}}}, 'm:eth1']"),
        "`impairment`" => links = format!("endpoints: ['n:eth1', 'm:eth1'], impairment: {{{keys}}}"),
        other => panic!("the section {other} has no place in a file"),
    }
    let links = if links.is_empty() { links } else { format!("  links:\n    - {{{links}}}\n") };
    format!(
        "name: lab\n{top}{mgmt}topology:\n{topology}  nodes:\n{n}    m: {{kind: linux, image: i}}\n{links}"
    )
}

/// The rows of the manual: what it says of each key of each section.
fn manual() -> BTreeMap<(String, String), String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/topology.md");
    let text = std::fs::read_to_string(path).unwrap();
    let mut section = String::new();
    let mut rows = BTreeMap::new();
    for line in text.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            section = heading.strip_prefix("Keys of ").unwrap_or_default().to_owned();
        }
        let Some(row) = line.strip_prefix("| `").filter(|_| !section.is_empty()) else { continue };
        let (key, rest) = row.split_once("` | ").unwrap();
        let support = rest.split(" | ").next().unwrap();
        let twice = rows.insert((section.clone(), key.to_owned()), support.to_owned());
        assert_eq!(twice, None, "{key} of {section} stands twice");
    }
    rows
}

fn cases() -> impl Iterator<Item = &'static Case> {
    [top::CASES, nodes::CASES, blocks::CASES, links::CASES].into_iter().flatten()
}

/// The good files of all rows.
pub(crate) fn good_files() -> impl Iterator<Item = String> {
    cases().map(|case| file(case.section, case.good.0))
}

#[test]
fn each_row_of_the_manual_has_a_good_and_a_bad_file() {
    let manual = manual();
    let mut missing: Vec<_> = manual.keys().cloned().collect();
    for case in cases() {
        let row = (case.section.to_owned(), case.key.to_owned());
        assert!(manual.contains_key(&row), "{row:?} is not in the manual");
        for (keys, what) in [case.good, case.bad] {
            assert!(
                keys.contains(&format!("{}:", case.key)) && !what.is_empty(),
                "the case of {row:?} does not say what {keys:?} does"
            );
        }
        missing.retain(|m| *m != row);
    }
    assert_eq!(missing, [], "no case here");
}

#[test]
fn good_files_do_what_the_manual_says() {
    for case in cases() {
        let (keys, does) = case.good;
        let text = file(case.section, keys);
        let parsed = read(&text);
        assert!(parsed.ok(), "{text}\n{:#?}", said(&parsed));
        let loud: Vec<String> = codes(&parsed).into_iter().filter(|c| !c.contains(" info ")).collect();
        assert_eq!(loud, [""; 0], "{text}\n{:#?}", said(&parsed));
        let json = serde_json::json!({"lab": parsed.lab, "spec": parsed.spec}).to_string();
        assert!(json.contains(does), "{text}\nlacks {does} in\n{json}");
    }
}

#[test]
fn bad_files_are_told_what_to_do() {
    let manual = manual();
    for case in cases() {
        let (keys, says) = case.bad;
        let text = file(case.section, keys);
        let parsed = read(&text);
        let mut parts = says.splitn(3, ' ');
        let mut part = || parts.next().unwrap_or_default();
        let (severity, code, words) = (part(), part(), part());
        assert!(!words.is_empty(), "{says}");
        let found = parsed
            .diagnostics
            .iter()
            .any(|d| d.severity.to_string() == severity && d.code == code && d.message.contains(words));
        assert!(found, "{text}\nlacks {says} in\n{:#?}", said(&parsed));
        assert_eq!(parsed.ok(), severity != "error", "{text}\n{:#?}", said(&parsed));
        let placed = parsed.diagnostics.iter().filter(|d| d.code != "NAME_MISSING").all(|d| d.line > 0);
        assert!(placed, "{text}\n{:#?}", said(&parsed));
        // What is not done is told as the manual says.
        let support = &manual[&(case.section.to_owned(), case.key.to_owned())];
        if let Some((_, told)) = support.split_once('(') {
            assert_eq!(
                format!("{} {code}", told.trim_end_matches(')')),
                format!("{severity} KEY_NOT_SUPPORTED"),
                "{text}"
            );
        }
    }
}
