//! A lab's nodes for other tools. Pure: text from what the server said.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use netloom_api::v1 as api;
use serde_json::{Value, json};

use crate::output::style::one_line;
use crate::output::words::{last, natural};

/// Nodes that something can be done in, in natural order: bridges have nothing inside.
fn nodes(all: &[api::Node]) -> Vec<&api::Node> {
    let mut nodes: Vec<&api::Node> = all.iter().filter(|n| n.runtime() != api::Runtime::Bridge).collect();
    nodes.sort_by_cached_key(|n| natural(&n.name));
    nodes
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("strings always serialise")
}

/// A word that Ansible takes as a group's name.
fn group(word: &str) -> String {
    let name: String = word.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if name.starts_with(|c: char| c.is_ascii_digit()) { format!("_{name}") } else { name }
}

/// The address that a node is reached at, where there is a management network.
fn address(node: &api::Node) -> Option<&str> {
    [&node.mgmt_ipv4, &node.mgmt_ipv6].into_iter().find(|a| !a.is_empty()).map(|a| bare(a))
}

/// An address without its prefix length.
fn bare(address: &str) -> &str {
    address.split('/').next().unwrap_or(address)
}

/// For Ansible: a group for each kind and for each group of the topology. Containers are entered by Docker, all else by its address.
pub fn ansible(lab: &str, all: &[api::Node]) -> String {
    let mut kinds: BTreeMap<String, Vec<&api::Node>> = BTreeMap::new();
    let mut groups: BTreeMap<String, Vec<&api::Node>> = BTreeMap::new();
    for node in nodes(all) {
        kinds.entry(group(&node.kind)).or_default().push(node);
        if !node.group.is_empty() {
            groups.entry(group(&format!("group_{}", node.group))).or_default().push(node);
        }
    }
    let mut text = format!("# Lab {}, by netloom inventory.\nall:\n  vars:\n", one_line(lab));
    let _ = writeln!(text, "    netloom_lab: {}", quoted(lab));
    if kinds.is_empty() {
        return text;
    }
    text.push_str("  children:\n");
    for (kind, nodes) in kinds {
        let _ = writeln!(text, "    {kind}:\n      hosts:");
        for node in nodes {
            let _ = writeln!(text, "        {}:", quoted(last(&node.name)));
            if node.runtime() == api::Runtime::Docker {
                let _ = writeln!(text, "          ansible_connection: community.docker.docker");
                let _ = writeln!(text, "          ansible_host: {}", quoted(&node.instance_name));
                if let Some(address) = address(node) {
                    let _ = writeln!(text, "          netloom_mgmt_address: {}", quoted(address));
                }
            } else if let Some(address) = address(node) {
                let _ = writeln!(text, "          ansible_host: {}", quoted(address));
            }
            let _ = writeln!(text, "          netloom_kind: {}", quoted(&node.kind));
        }
    }
    for (group, nodes) in groups {
        let _ = writeln!(text, "    {group}:\n      hosts:");
        for node in nodes {
            let _ = writeln!(text, "        {}: {{}}", quoted(last(&node.name)));
        }
    }
    text
}

/// For ssh(1). The keys of a node made anew are others: they are not remembered.
pub fn ssh_config(lab: &str, all: &[api::Node]) -> String {
    let mut text = format!("# Lab {}, by netloom inventory.\n", one_line(lab));
    for node in nodes(all) {
        let Some(address) = address(node) else { continue };
        let id = last(&node.name);
        let instance =
            if node.instance_name.is_empty() { String::new() } else { format!(" {}", node.instance_name) };
        let _ = writeln!(
            text,
            "\nHost {id}.{lab}{instance}\n  HostName {address}\n  StrictHostKeyChecking no\n  UserKnownHostsFile /dev/null\n  LogLevel ERROR"
        );
    }
    text
}

/// For /etc/hosts, between two lines that a script finds again.
pub fn hosts(lab: &str, all: &[api::Node]) -> String {
    let mut text = format!("# BEGIN netloom lab {lab}\n");
    for node in nodes(all) {
        for address in [&node.mgmt_ipv4, &node.mgmt_ipv6].into_iter().filter(|a| !a.is_empty()) {
            let instance = &node.instance_name;
            let line = format!("{}\t{}.{lab} {instance}", bare(address), last(&node.name));
            let _ = writeln!(text, "{}", line.trim_end());
        }
    }
    let _ = writeln!(text, "# END netloom lab {lab}");
    text
}

/// Nodes that an inventory cannot say the address of.
#[derive(Debug, PartialEq)]
pub struct Unreachable {
    /// None has an address.
    pub all: bool,
    /// Which, why, and what to do.
    pub text: String,
}

/// Which nodes have no address where one is needed, for all (`by_address`) or for what is no container. None when each has one.
pub fn unreachable(lab: &str, all: &[api::Node], by_address: bool) -> Option<Unreachable> {
    let nodes = nodes(all);
    let needs = |n: &&&api::Node| by_address || n.runtime() != api::Runtime::Docker;
    let without: Vec<&str> =
        nodes.iter().filter(needs).filter(|n| address(n).is_none()).map(|n| last(&n.name)).collect();
    let first = without.first()?;
    let none = without.len() == nodes.len();
    let what = match without.len() {
        _ if none => format!("no node of lab {lab} has a management address"),
        1 => format!("node {first} has no management address and is left out"),
        n => format!("{n} nodes have no management address and are left out: {}", without.join(", ")),
    };
    let why = if nodes
        .iter()
        .filter(|n| address(n).is_none())
        .any(|n| !matches!(n.state(), api::NodeState::Running | api::NodeState::Ready))
    {
        format!("they have one once they run on a management network: netloom inspect {lab} shows which do")
    } else {
        "a node has one when its file has a management network, \"mgmt: {}\" at its top".to_owned()
    };
    let else_ =
        if by_address { "; netloom exec, and the format ansible, reach containers without" } else { "" };
    Some(Unreachable { all: none, text: format!("{what}: {why}{else_}") })
}

/// For programs.
pub fn json(lab: &str, all: &[api::Node]) -> Value {
    let runtime = crate::output::words::runtime;
    let nodes: Vec<Value> = nodes(all)
        .into_iter()
        .map(|n| {
            json!({
                "node": last(&n.name), "kind": n.kind, "group": n.group, "runtime": runtime(n.runtime()),
                "instance": n.instance_name, "host": last(&n.host), "image": n.image,
                "mgmt_ipv4": bare(&n.mgmt_ipv4), "mgmt_ipv6": bare(&n.mgmt_ipv6),
                "labels": n.labels.iter().collect::<BTreeMap<_, _>>(),
            })
        })
        .collect();
    json!({ "lab": lab, "nodes": nodes })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: &str, kind: &str, address: &str) -> api::Node {
        api::Node {
            name: format!("labs/x/nodes/{id}"),
            kind: kind.into(),
            runtime: api::Runtime::Docker.into(),
            instance_name: format!("netloom-x-{id}"),
            mgmt_ipv4: address.into(),
            ..api::Node::default()
        }
    }

    fn all() -> Vec<api::Node> {
        let bridge = api::Node { runtime: api::Runtime::Bridge.into(), ..node("sw", "bridge", "") };
        let spare = api::Node { group: "dc-1".into(), ..node("r2", "frr", "") };
        vec![bridge, node("r10", "frr", "172.20.20.3/24"), spare, node("h1", "linux", "172.20.20.2/24")]
    }

    #[test]
    fn ansible_has_a_group_for_each_kind() {
        let expected = "\
# Lab x, by netloom inventory.
all:
  vars:
    netloom_lab: \"x\"
  children:
    frr:
      hosts:
        \"r2\":
          ansible_connection: community.docker.docker
          ansible_host: \"netloom-x-r2\"
          netloom_kind: \"frr\"
        \"r10\":
          ansible_connection: community.docker.docker
          ansible_host: \"netloom-x-r10\"
          netloom_mgmt_address: \"172.20.20.3\"
          netloom_kind: \"frr\"
    linux:
      hosts:
        \"h1\":
          ansible_connection: community.docker.docker
          ansible_host: \"netloom-x-h1\"
          netloom_mgmt_address: \"172.20.20.2\"
          netloom_kind: \"linux\"
    group_dc_1:
      hosts:
        \"r2\": {}
";
        assert_eq!(ansible("x", &all()), expected);
    }

    #[test]
    fn only_who_has_an_address_is_found_by_it() {
        let expected = "# BEGIN netloom lab x\n172.20.20.2\th1.x netloom-x-h1\n172.20.20.3\tr10.x netloom-x-r10\n# END netloom lab x\n";
        assert_eq!(hosts("x", &all()), expected);
        let config = ssh_config("x", &all());
        assert!(config.contains("Host r10.x netloom-x-r10\n  HostName 172.20.20.3\n"), "{config}");
        assert!(!config.contains("r2"), "{config}");
    }

    #[test]
    fn who_has_no_address_is_named_with_what_to_do() {
        let ready = |mut nodes: Vec<api::Node>| {
            nodes.iter_mut().for_each(|n| n.set_state(api::NodeState::Ready));
            nodes
        };
        let some = unreachable("x", &ready(all()), true).unwrap();
        assert!(!some.all);
        assert_eq!(
            some.text,
            "node r2 has no management address and is left out: a node has one when its file has a management network, \"mgmt: {}\" at its top; \
             netloom exec, and the format ansible, reach containers without"
        );
        let none =
            unreachable("x", &ready(vec![node("a", "linux", ""), node("b", "linux", "")]), true).unwrap();
        assert!(none.all && none.text.starts_with("no node of lab x has a management address: "), "{none:?}");
        assert!(unreachable("x", &[node("a", "linux", "")], true).unwrap().text.contains("once they run"));
        assert_eq!(unreachable("x", &all(), false), None, "containers are entered by Docker");
        assert_eq!(unreachable("x", &[node("a", "linux", "1.2.3.4/24")], true), None);
    }

    #[test]
    fn programs_get_every_node_that_can_be_entered() {
        let value = json("x", &all());
        assert_eq!(value["nodes"].as_array().unwrap().len(), 3);
        assert_eq!(value["nodes"][0]["node"], "h1");
        assert_eq!(value["nodes"][0]["mgmt_ipv4"], "172.20.20.2");
    }
}
