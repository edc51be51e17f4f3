//! Every key of a topology file and what becomes of it: the one table that the reader goes by and that `docs/topology.md` prints.
//!
//! A key that is known but not done is told: as an error when the lab would not be what the file asks for, as a warning when nothing in the lab
//! depends on it. A key that nobody knows is an error with a suggestion. Nothing is dropped in silence.

use std::fmt;

use crate::diagnostic::{Report, Severity, quoted};
use crate::yaml::{Entry, Value};

mod table;

use self::table::KEYS;
use Support::{Differs, Works};

/// Which map a key stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Section {
    Top,
    Settings,
    Authority,
    Mgmt,
    Topology,
    Node,
    Placement,
    Dns,
    Healthcheck,
    Stages,
    Stage,
    Wait,
    StageExec,
    Certificate,
    Link,
    Endpoint,
    Impairment,
}

impl Section {
    #[cfg(test)]
    pub const ALL: [Section; 17] = [
        Section::Top,
        Section::Settings,
        Section::Authority,
        Section::Mgmt,
        Section::Topology,
        Section::Node,
        Section::Placement,
        Section::Dns,
        Section::Healthcheck,
        Section::Stages,
        Section::Stage,
        Section::Wait,
        Section::StageExec,
        Section::Certificate,
        Section::Link,
        Section::Endpoint,
        Section::Impairment,
    ];
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Section::Top => "a topology file",
            Section::Settings => "settings",
            Section::Authority => "certificate-authority",
            Section::Mgmt => "mgmt",
            Section::Topology => "topology",
            Section::Node => "a node",
            Section::Placement => "placement",
            Section::Dns => "dns",
            Section::Healthcheck => "healthcheck",
            Section::Stages => "stages",
            Section::Stage => "a stage",
            Section::Wait => "an item of wait-for",
            Section::StageExec => "an item of exec",
            Section::Certificate => "certificate",
            Section::Link => "a link",
            Section::Endpoint => "an endpoint",
            Section::Impairment => "impairment",
        })
    }
}

/// What becomes of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Support {
    /// It does what containerlab does.
    Works,
    /// It is done in another way; the note says how.
    Differs,
    /// Not done yet; what is said of it when it is met.
    Later(Severity),
    /// Never done; what is said of it when it is met.
    Never(Severity),
}

impl fmt::Display for Support {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Support::Works => f.write_str("works"),
            Support::Differs => f.write_str("works differently"),
            Support::Later(severity) => write!(f, "not yet ({severity})"),
            Support::Never(severity) => write!(f, "never ({severity})"),
        }
    }
}

/// A row of the table.
pub(crate) struct Key {
    pub section: Section,
    pub name: &'static str,
    pub support: Support,
    /// For a key that is done, what it does; else what to do instead, or why.
    pub note: &'static str,
}

/// The entries that are done; what is not is told.
pub(crate) fn known<'m>(
    section: Section,
    entries: &'m [Entry],
    report: &mut Report,
) -> Vec<(&'static str, &'m Entry)> {
    let mut done = Vec::new();
    for entry in entries {
        let row = KEYS.iter().find(|k| k.section == section && k.name == entry.key);
        match row.map(|k| (k.support, k)) {
            Some((Works | Differs, k)) => {
                if let Some((other, first)) = spelt_otherwise(k.name, &done) {
                    let message = format!(
                        "{} and {other}, at {}, are spellings of one key: keep the one with hyphens",
                        k.name, first.pos
                    );
                    report.error(entry.pos, "DUPLICATE_KEY", message);
                }
                done.push((k.name, entry));
            }
            Some((Support::Later(severity) | Support::Never(severity), k)) => {
                if !is_nothing(&entry.node.value) {
                    let when = if matches!(k.support, Support::Later(_)) {
                        "is not supported yet"
                    } else {
                        "is not supported"
                    };
                    let message = format!("{} {when}: {}", k.name, k.note);
                    report.say(severity, entry.pos, "KEY_NOT_SUPPORTED", &message);
                }
            }
            None => {
                let meant = report
                    .did_you_mean(&entry.key, KEYS.iter().filter(|k| k.section == section).map(|k| k.name));
                let odd = odd_character(&entry.key);
                let is_impairment =
                    |k: &&Key| k.section == Section::Impairment && k.name == entry.key.as_str();
                let meant = match section == Section::Link && KEYS.iter().any(|k| is_impairment(&k)) {
                    true => format!(" Write it below `impairment:`, as `impairment: {{{}: …}}`", entry.key),
                    false => meant,
                };
                report.error(
                    entry.pos,
                    "UNKNOWN_KEY",
                    format!("{section} has no key {}.{meant}{odd}", quoted(&entry.key)),
                );
            }
        }
    }
    done
}

/// A key among these that is the same but for its spelling.
fn spelt_otherwise<'m>(name: &str, done: &[(&'static str, &'m Entry)]) -> Option<(&'static str, &'m Entry)> {
    done.iter().find(|(other, _)| *other != name && plain(other) == plain(name)).copied()
}

fn plain(name: &str) -> String {
    name.replace('_', "-").to_ascii_lowercase()
}

/// Names a character that no key has: one of another script may look like a letter that a key has.
fn odd_character(key: &str) -> String {
    key.chars().find(|c| !c.is_ascii()).map_or_else(String::new, |c| {
        format!(" It holds the character U+{:04X}, which no key has, whatever it looks like", u32::from(c))
    })
}

/// True for a value that asks for nothing, whatever its key.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Scalar(text) => matches!(text.as_str(), "" | "false" | "0"),
        Value::List(items) => items.is_empty(),
        Value::Map(entries) => entries.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table as `docs/topology.md` has it.
    fn markdown(section: Section) -> String {
        let mut out =
            String::from("| Key | Support | What it does, or what to do instead |\n|---|---|---|\n");
        for k in KEYS.iter().filter(|k| k.section == section) {
            out.push_str(&format!("| `{}` | {} | {} |\n", k.name, k.support, k.note.replace('|', "\\|")));
        }
        out
    }

    #[test]
    fn the_manual_has_this_table_and_no_other() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/topology.md");
        let manual = std::fs::read_to_string(path).unwrap();
        for section in Section::ALL {
            let table = markdown(section);
            assert!(manual.contains(&table), "docs/topology.md lacks the table of {section}:\n{table}");
        }
        let rows = manual.lines().filter(|l| l.starts_with("| `") && l.matches(" | ").count() == 2).count();
        assert_eq!(rows, KEYS.len(), "docs/topology.md has rows of keys that the code does not know");
    }

    /// A file with this line in a map of the section.
    fn placed(section: Section, line: &str) -> String {
        let node = |line: String| format!("topology: {{nodes: {{n: {{kind: frr, {line}}}}}}}");
        let link = |line: String| format!("topology: {{nodes: {{n: {{kind: frr}}}}, links: [{{{line}}}]}}");
        match section {
            Section::Top => line.to_owned(),
            Section::Settings => format!("settings: {{{line}}}"),
            Section::Authority => format!("settings: {{certificate-authority: {{{line}}}}}"),
            Section::Mgmt => format!("mgmt: {{{line}}}"),
            Section::Topology => format!("topology: {{{line}}}"),
            Section::Node if line.starts_with("kind:") => format!("topology: {{nodes: {{n: {{{line}}}}}}}"),
            Section::Node => node(line.to_owned()),
            Section::Placement => node(format!("placement: {{{line}}}")),
            Section::Dns => node(format!("dns: {{{line}}}")),
            Section::Healthcheck => node(format!("healthcheck: {{{line}}}")),
            Section::Stages => node(format!("stages: {{{line}}}")),
            Section::Stage => node(format!("stages: {{create: {{{line}}}}}")),
            Section::Wait => node(format!("stages: {{create: {{wait-for: [{{{line}}}]}}}}")),
            Section::StageExec => node(format!("stages: {{create: {{exec: [{{{line}}}]}}}}")),
            Section::Certificate => node(format!("certificate: {{{line}}}")),
            Section::Link => link(line.to_owned()),
            Section::Endpoint => link(format!("endpoints: [{{{line}}}, x]")),
            Section::Impairment => link(format!("endpoints: [n:eth1, dummy], impairment: {{{line}}}")),
        }
    }

    #[test]
    fn every_key_is_met_as_the_table_says() {
        use crate::{BundleFiles, Input, parse};
        for k in KEYS {
            let lines = placed(k.section, &format!("{}: [x]", k.name));
            let (files, catalogue) = (BundleFiles::default(), netloom_model::kind::Catalogue::embedded());
            let parsed = parse(&Input {
                file_name: "f",
                text: &lines,
                env: &|_| None,
                all_env: &Default::default,
                node_filter: &[],
                startup_configs: &std::collections::BTreeMap::new(),
                files: &files,
                catalogue: &catalogue,
            });
            let told = parsed
                .diagnostics
                .iter()
                .find(|d| d.code == "KEY_NOT_SUPPORTED" && d.message.starts_with(k.name));
            let expected = match k.support {
                Works | Differs => None,
                Support::Later(severity) | Support::Never(severity) => Some(severity),
            };
            assert_eq!(told.map(|d| d.severity), expected, "{lines}: {:?}", parsed.diagnostics);
            assert!(!parsed.diagnostics.iter().any(|d| d.code == "UNKNOWN_KEY"), "{lines}");
        }
    }

    #[test]
    fn a_rate_directly_on_a_link_is_pointed_to_its_place() {
        use crate::{BundleFiles, Input, parse};
        let (files, catalogue) = (BundleFiles::default(), netloom_model::kind::Catalogue::embedded());
        let parsed = parse(&Input {
            file_name: "f",
            text: &placed(Section::Link, "rate: 10mbit"),
            env: &|_| None,
            all_env: &Default::default,
            node_filter: &[],
            startup_configs: &std::collections::BTreeMap::new(),
            files: &files,
            catalogue: &catalogue,
        });
        let told = parsed.diagnostics.iter().find(|d| d.code == "UNKNOWN_KEY").expect("it is refused");
        assert!(told.message.contains("below `impairment:`, as `impairment: {rate: …}`"), "{}", told.message);
    }

    #[test]
    fn no_key_stands_twice() {
        let mut seen = std::collections::BTreeSet::new();
        for k in KEYS {
            assert!(seen.insert((k.section, k.name)), "{} in {}", k.name, k.section);
        }
    }
}
