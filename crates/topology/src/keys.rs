//! Every key of a topology file and what becomes of it: the one table that the reader goes by and that `docs/topology.md` prints.
//!
//! A key that is known but not done is told: as an error when the lab would not be what the file asks for, as a warning when nothing in the lab
//! depends on it. A key that nobody knows is an error with a suggestion. Nothing is dropped in silence.

use std::fmt;

use crate::diagnostic::{Report, Severity, quoted};
use crate::yaml::{Entry, Value};

/// Which map a key stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Section {
    Top,
    Mgmt,
    Topology,
    Node,
    Link,
    Endpoint,
}

impl Section {
    #[cfg(test)]
    pub const ALL: [Section; 6] =
        [Section::Top, Section::Mgmt, Section::Topology, Section::Node, Section::Link, Section::Endpoint];
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Section::Top => "a topology file",
            Section::Mgmt => "mgmt",
            Section::Topology => "topology",
            Section::Node => "a node",
            Section::Link => "a link",
            Section::Endpoint => "an endpoint",
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

const fn key(section: Section, name: &'static str, support: Support, note: &'static str) -> Key {
    Key { section, name, support, note }
}

use Section::{Endpoint, Link, Mgmt, Node, Top, Topology};
use Support::{Differs, Works};

const LATER: Support = Support::Later(Severity::Error);
const LATER_HARMLESS: Support = Support::Later(Severity::Warning);
const NEVER: Support = Support::Never(Severity::Error);
const NEVER_HARMLESS: Support = Support::Never(Severity::Warning);

/// The table.
pub(crate) const KEYS: &[Key] = &[
    key(Top, "name", Works, "name of the lab; required"),
    key(
        Top,
        "prefix",
        Differs,
        "the default is `netloom`; an empty prefix and `__lab-name` are a warning, since every instance is called `<prefix>-<lab>-<node>`",
    ),
    key(
        Top,
        "mgmt",
        Differs,
        "without it there is no management network and no `eth0`; `mgmt: {}` asks for one",
    ),
    key(Top, "topology", Works, "nodes, links and what they inherit"),
    key(Top, "settings", LATER_HARMLESS, "it only serves certificates, which are not issued yet"),
    key(
        Top,
        "debug",
        NEVER_HARMLESS,
        "how much is logged is a matter of the program, not of the lab: set NETLOOM_LOG",
    ),
    key(
        Mgmt,
        "network",
        Differs,
        "the network belongs to this lab alone; the default name is `<prefix>-<lab>`",
    ),
    key(Mgmt, "ipv4-subnet", Differs, "`auto` and nothing let Docker choose; there is no fixed default"),
    key(Mgmt, "ipv6-subnet", Differs, "nothing means no IPv6; `auto` is a warning and means no IPv6"),
    key(Mgmt, "ipv4-gw", Works, "the default is the first address of the subnet"),
    key(Mgmt, "ipv6-gw", Works, "the default is the first address of the subnet"),
    key(Mgmt, "mtu", Works, "576 to 65535; the default is Docker's"),
    key(Mgmt, "ipv4_subnet", Works, "the old spelling of `ipv4-subnet`"),
    key(Mgmt, "ipv6_subnet", Works, "the old spelling of `ipv6-subnet`"),
    key(
        Mgmt,
        "ipv4-range",
        LATER,
        "leave it out, and give the nodes that need one a fixed address with `mgmt-ipv4`",
    ),
    key(
        Mgmt,
        "ipv6-range",
        LATER,
        "leave it out, and give the nodes that need one a fixed address with `mgmt-ipv6`",
    ),
    key(Mgmt, "bridge", LATER_HARMLESS, "Docker names the Linux bridge"),
    key(Mgmt, "external-access", Differs, "`true` is how Docker's networks are anyway; `false` is an error"),
    key(Mgmt, "skip-when-unused", LATER_HARMLESS, "the network is made whenever `mgmt` is there"),
    key(Mgmt, "driver-opts", LATER, "leave it out; for the MTU use `mtu`"),
    key(Topology, "defaults", Works, "for every node; the weakest level"),
    key(Topology, "kinds", Works, "for the nodes of a kind; beats `defaults`"),
    key(Topology, "groups", Works, "for the nodes of a group; beats `kinds`"),
    key(Topology, "nodes", Works, "the nodes by name; beats everything; a node may be empty"),
    key(Topology, "links", Works, "the links"),
    key(
        Node,
        "kind",
        Differs,
        "`linux`, `frr` and `bridge`; `ovs-bridge` is `bridge`, a switch that belongs to the lab and is made with it",
    ),
    key(Node, "type", Works, "the variant of a kind that has variants"),
    key(Node, "group", Works, "the group it inherits from"),
    key(Node, "image", Works, "image reference; kinds may have one of their own"),
    key(Node, "image-pull-policy", Works, "`IfNotPresent`, `Never` or `Always`"),
    key(Node, "runtime", Differs, "`docker`; any other is an error"),
    key(Node, "hostname", Works, "host name inside; the default is the node's name"),
    key(Node, "labels", Works, "labels of the container; `netloom.…` is reserved"),
    key(
        Node,
        "env",
        Differs,
        "environment; `__IMPORT_ENVS` is an error: name the variables, `NAME: ${NAME}`",
    ),
    key(
        Node,
        "env-files",
        Works,
        "files of NAME=value lines relative to the topology file; `env` beats them",
    ),
    key(
        Node,
        "binds",
        Differs,
        "`source:target[:ro]`; a relative source is copied with the lab, and that copy is mounted; an absolute one must be below a root the host allows; Docker's socket never",
    ),
    key(
        Node,
        "exec",
        Works,
        "commands run in the node after its links are up, once per start; no shell: write `sh -c '…'` for one",
    ),
    key(Node, "cmd", Works, "replaces the image's command; split as a shell splits words"),
    key(Node, "entrypoint", Works, "replaces the image's entrypoint; split as a shell splits words"),
    key(Node, "user", Works, "user of the first process"),
    key(Node, "cap-add", Works, "capabilities added to Docker's default set and those of the kind"),
    key(Node, "sysctls", Works, "kernel parameters of the node's own namespaces"),
    key(Node, "cpu", Works, "most CPU, in cores; enforced"),
    key(Node, "memory", Works, "most memory: `512mb`, `1gb` (decimal), `1GiB` (binary); enforced"),
    key(
        Node,
        "restart-policy",
        Differs,
        "`no`, `on-failure`, `always`; `unless-stopped` is `always`, since a node stopped by command stays stopped anyway",
    ),
    key(
        Node,
        "privileged",
        Differs,
        "nodes are never privileged: they get the capabilities of their kind and `cap-add`; `true` is a warning",
    ),
    key(Node, "network-mode", Differs, "`none` where the file has no `mgmt`; any other is an error"),
    key(Node, "mgmt-ipv4", Works, "fixed address in the `mgmt` subnet; on a node only"),
    key(Node, "mgmt-ipv6", Works, "fixed address in the `mgmt` subnet; on a node only"),
    key(Node, "mgmt_ipv4", Works, "the old spelling of `mgmt-ipv4`"),
    key(Node, "mgmt_ipv6", Works, "the old spelling of `mgmt-ipv6`"),
    key(Node, "position", NEVER_HARMLESS, "it only places a node in a drawing"),
    key(Node, "license", LATER, "mount the file where the image expects it with `binds`"),
    key(Node, "aliases", LATER, "reach the node by its name, or write the alias to /etc/hosts with `exec`"),
    key(Node, "components", LATER, "no kind with cards or modules is there yet"),
    key(
        Node,
        "startup-config",
        LATER,
        "mount the file where the image reads it with `binds`, for instance `r1/frr.conf:/etc/frr/frr.conf`",
    ),
    key(
        Node,
        "startup-delay",
        LATER_HARMLESS,
        "a node starts as soon as it can, and its program waits for its interfaces",
    ),
    key(Node, "enforce-startup-config", LATER_HARMLESS, "it only serves `startup-config`"),
    key(Node, "suppress-startup-config", LATER_HARMLESS, "no configuration is made up for a node"),
    key(Node, "config", NEVER_HARMLESS, "its variables only serve containerlab's configuration engine"),
    key(Node, "extras", LATER, "mount the files that it would make with `binds`"),
    key(Node, "credentials", LATER_HARMLESS, "no kind that logs in is there yet"),
    key(Node, "username", LATER_HARMLESS, "no kind that logs in is there yet"),
    key(Node, "password", LATER_HARMLESS, "no kind that logs in is there yet"),
    key(
        Node,
        "auto-remove",
        LATER,
        "use `restart-policy: \"no\"`: the node then stays, stopped, and can be looked at",
    ),
    key(
        Node,
        "healthcheck",
        LATER_HARMLESS,
        "only stages wait for health; a node is ready when it runs and its links and `exec` are done",
    ),
    key(
        Node,
        "stages",
        LATER,
        "let the node's own commands wait, for instance `exec: [\"sh -c 'until ping -c1 r1; do sleep 1; done'\"]`",
    ),
    key(Node, "volumes", LATER, "use `binds`"),
    key(Node, "tmpfs", LATER, "mount it in the node with `exec`, and add SYS_ADMIN with `cap-add`"),
    key(Node, "devices", LATER, "leave it out if the image can do without the device"),
    key(Node, "shm-size", LATER, "leave it out if Docker's 64 MiB are enough"),
    key(Node, "security-opts", LATER, "leave it out if Docker's defaults are enough"),
    key(Node, "cgroupns-mode", LATER, "leave it out: a node has a cgroup namespace of its own"),
    key(
        Node,
        "cgroup-parent",
        LATER_HARMLESS,
        "it only groups the accounting; limits are `cpu` and `memory`",
    ),
    key(Node, "pid-mode", NEVER, "leave it out: a node must not see the host's processes"),
    key(
        Node,
        "cpu-set",
        LATER_HARMLESS,
        "which cores a node runs on is for its host to say; the limit is `cpu`",
    ),
    key(
        Node,
        "ports",
        LATER,
        "leave it out and reach the node at its management address, or with `netloom exec`",
    ),
    key(Node, "dns", LATER, "mount a resolv.conf with `binds`"),
    key(Node, "link-apply-mode", NEVER_HARMLESS, "links are always changed on the running node"),
    key(Node, "certificate", LATER, "make the certificate and mount it with `binds`"),
    key(Link, "endpoints", Works, "two ends, each `node:interface` or a map"),
    key(Link, "type", Differs, "`veth`; any other is an error"),
    key(Link, "mtu", Works, "68 to 65535; the default is 9500"),
    key(Link, "labels", Works, "labels of the link"),
    key(
        Link,
        "ipv4",
        Works,
        "a list: the address of the first end and that of the second, each with its prefix length",
    ),
    key(
        Link,
        "ipv6",
        Works,
        "a list: the address of the first end and that of the second, each with its prefix length",
    ),
    key(Link, "vars", NEVER_HARMLESS, "its variables only serve containerlab's configuration engine"),
    key(
        Link,
        "endpoint",
        LATER,
        "a link has two `endpoints`; links with one end to the host are not done yet",
    ),
    key(Link, "host-interface", LATER, "links to the host are not done yet"),
    key(Link, "mode", LATER, "macvlan links are not done yet"),
    key(Link, "remote", LATER, "tunnels are not done yet; links between hosts of netloom need none"),
    key(Link, "vni", LATER, "tunnels are not done yet; links between hosts of netloom need none"),
    key(Link, "dst-port", LATER, "tunnels are not done yet; links between hosts of netloom need none"),
    key(Link, "src-port", LATER, "tunnels are not done yet; links between hosts of netloom need none"),
    key(Endpoint, "node", Works, "the node"),
    key(Endpoint, "interface", Works, "the interface as the kind names it"),
    key(Endpoint, "mac", Works, "MAC address; the default is a stable one"),
    key(Endpoint, "ipv4", Works, "address with prefix length set on the interface"),
    key(Endpoint, "ipv6", Works, "address with prefix length set on the interface"),
    key(Endpoint, "vars", NEVER_HARMLESS, "its variables only serve containerlab's configuration engine"),
];

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
                report.error(
                    entry.pos,
                    "UNKNOWN_KEY",
                    format!("{section} has no key {}.{meant}", quoted(&entry.key)),
                );
            }
        }
    }
    done
}

/// A key among these that is the same but for its spelling.
fn spelt_otherwise<'m>(name: &str, done: &[(&'static str, &'m Entry)]) -> Option<(&'static str, &'m Entry)> {
    done.iter()
        .find(|(other, _)| *other != name && other.replace('_', "-") == name.replace('_', "-"))
        .copied()
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

    #[test]
    fn every_key_is_met_as_the_table_says() {
        use crate::{BundleFiles, Input, parse};
        for k in KEYS {
            let lines = match k.section {
                Section::Top => format!("{}: [x]", k.name),
                Section::Mgmt => format!("mgmt: {{{}: [x]}}", k.name),
                Section::Topology => format!("topology: {{{}: [x]}}", k.name),
                Section::Node => format!("topology: {{nodes: {{n: {{{}: [x]}}}}}}", k.name),
                Section::Link => {
                    format!("topology: {{nodes: {{n: {{kind: frr}}}}, links: [{{{}: [x]}}]}}", k.name)
                }
                Section::Endpoint => {
                    format!("topology: {{nodes: {{n: }}, links: [{{endpoints: [{{{}: [x]}}, x]}}]}}", k.name)
                }
            };
            let (none, files, catalogue) =
                (|_: &str| None, BundleFiles::default(), netloom_model::kind::Catalogue::embedded());
            let parsed = parse(&Input {
                file_name: "f",
                text: &lines,
                env: &none,
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
    fn no_key_stands_twice() {
        let mut seen = std::collections::BTreeSet::new();
        for k in KEYS {
            assert!(seen.insert((k.section, k.name)), "{} in {}", k.name, k.section);
        }
    }
}
