//! Each key that is not done, each fault: what is said, and where.

use crate::{read, refused, said, with_node};

/// Where the first line of [`with_node`] stands.
fn at_node(severity: &str, code: &str) -> String {
    format!("7:7 {severity} {code}")
}

#[test]
fn keys_of_the_file() {
    let lab = |top: &str| format!("name: lab\n{top}\ntopology: {{nodes: {{n: {{kind: linux, image: i}}}}}}");
    for (top, at) in [
        ("settings: {certificate-authority: {cert: a}}", "2:42 error FILE_NOT_FOUND"),
        ("debug: true", "2:1 warning KEY_NOT_SUPPORTED"),
        ("mgmt: {ipv4-range: 10.0.0.0/25}", "2:20 error MGMT_ADDRESS"),
        ("mgmt: {bridge: a/b}", "2:16 error INVALID_VALUE"),
        ("mgmt: {ipv4-subnet: 10.0.0.1/24}", "2:21 error INVALID_VALUE"),
        ("mgmt: {network: bridge}", "2:17 error INVALID_VALUE"),
        ("mgmt: {mtu: 100}", "2:13 error INVALID_VALUE"),
        ("mgmt: {ipv4-subnet: 10.0.0.0/24, ipv4-gw: 10.0.1.1}", "2:43 error MGMT_ADDRESS"),
        ("mgmt: {ipv4-gw: 10.0.1.1}", "2:17 error MGMT_ADDRESS"),
        ("mgmt: {ipv4_subnet: 10.0.0.0/24, ipv4-subnet: 10.0.0.0/24}", "2:34 error DUPLICATE_KEY"),
        ("mgmt: [a]", "2:7 error WRONG_TYPE"),
        ("prefix: a b", "2:9 error INVALID_PREFIX"),
        ("nmae: x", "2:1 error UNKNOWN_KEY"),
    ] {
        refused(&lab(top), at, "");
    }
}

#[test]
fn unknown_keys_come_with_a_suggestion() {
    refused(
        &with_node("imgae: x"),
        &at_node("error", "UNKNOWN_KEY"),
        "a node has no key \"imgae\". Did you mean \"image\"?",
    );
    refused(&with_node("cap_add: [x]"), &at_node("error", "UNKNOWN_KEY"), "Did you mean \"cap-add\"?");
    refused(&with_node("zzzzzz: x"), &at_node("error", "UNKNOWN_KEY"), "a node has no key \"zzzzzz\".");
    refused(
        "name: a\ntopologie: {}\ntopology: {nodes: {n: {kind: frr}}}",
        "2:1 error UNKNOWN_KEY",
        "Did you mean \"topology\"?",
    );
}

#[test]
fn wrong_values_of_a_node() {
    let value = |lines: &str, column: usize, words: &str| {
        refused(&with_node(lines), &format!("7:{column} error INVALID_VALUE"), words);
    };
    value("cpu: two", 12, "\"two\" is not a number of cores");
    value("memory: lots", 15, "is not a size like 512mb");
    value("memory: 1mb", 15, "6 MiB");
    value("sysctls: {kernel.panic: 1}", 17, "kernel parameter");
    value("restart-policy: sometimes", 23, "write no, on-failure, always");
    value("image-pull-policy: maybe", 26, "IfNotPresent, Never or Always");
    value("exec: [\"echo 'a\"]", 14, "a single quote is not closed");
    value("cmd: 'a \"b'", 12, "a double quote is not closed");
    value("hostname: a_b!", 17, "is not a name");
    value("user: a b", 13, "must not hold spaces");
    value("privileged: maybe", 19, "neither true nor false");
    value("env: {A=B: c}", 13, "must not hold '='");
    value("binds: [data]", 15, "names no source");
    value("binds: ['r1:etc']", 15, "absolute path in the node");
    for (lines, at, words) in [
        ("exec: ip link", "7:13 error WRONG_TYPE", "expected a list"),
        ("env: [a]", "7:12 error WRONG_TYPE", "expected a map"),
        ("user: [a]", "7:13 error WRONG_TYPE", "expected text, found a list"),
        ("exec: [{a: b}]", "7:14 error WRONG_TYPE", "expected text, found a map"),
        ("runtime: podman", "7:16 error RUNTIME_NOT_SUPPORTED", "podman"),
        ("network-mode: own", "7:21 error INVALID_VALUE", "container:NODE"),
        ("network-mode: container:x", "7:21 error NETWORK_MODE", "no node \"x\""),
        ("privileged: true", "7:19 warning PRIVILEGED", "cap-add"),
        ("env: {__IMPORT_ENVS: true}", "7:13 info ENVIRONMENT_IMPORTED", "all 3 variables"),
        ("labels: {netloom.lab: x}", "7:16 error RESERVED_LABEL", "reserved"),
        ("binds: ['r1:/a', 'r2:/a/']", "7:24 error DUPLICATE_BIND", "first at line 7, column 15"),
        ("binds: ['__clabNodeDir__/x:/x']", "7:15 error FILE_NOT_FOUND", "clab-lab/n/x"),
        ("exec: [cat __clabDir__/x]", "7:14 error MAGIC_VARIABLE", "mount what it needs with binds"),
        ("startup-config: r1/frr.conf", "7:23 warning KEY_NOT_SUPPORTED", "does nothing for the kind linux"),
        ("license: r1/frr.conf", "7:16 warning KEY_NOT_SUPPORTED", "mount the file with binds"),
        ("tmpfs: [/a, '/a/:size=1m']", "7:19 error DUPLICATE_BIND", "first at line 7, column 15"),
        ("volumes: [/a]\ntmpfs: {/a: }", "8:7 error INVALID_NODE", "already"),
        ("network-mode: container:n", "7:21 error NETWORK_MODE", "of itself"),
        ("ports: ['53:53/sctp']", "7:15 error INVALID_VALUE", "write tcp or udp"),
        ("ports: [80]\nnetwork-mode: none", "7:14 error PORTS", "needs the management network"),
        ("certificate: {key-size: 4096}", "7:7 info NO_CERTIFICATE", "issue: true"),
        ("image: i", "7:7 error DUPLICATE_KEY", "first at line 6, column 7"),
        ("group: ${NONE}", "7:14 warning VARIABLE_NOT_SET", "NONE is not set"),
    ] {
        let parsed = read(&with_node(lines));
        let first = parsed.diagnostics.iter().find(|d| d.code != "NO_MGMT").unwrap();
        assert_eq!(
            format!("{}:{} {} {}", first.line, first.column, first.severity, first.code),
            at,
            "{lines}: {:?}",
            said(&parsed)
        );
        assert!(first.message.contains(words), "{lines}: {}", first.message);
    }
}

#[test]
fn files_of_a_kind() {
    let lab = |key: &str| format!("name: lab\ntopology:\n  nodes:\n    n: {{kind: crpd, image: i, {key}}}");
    for (key, at, words) in [
        ("startup-config: s3://b/x", "4:47 error REMOTE_FILE", "fetch it yourself"),
        ("startup-config: r1", "4:47 error FILE_UNREADABLE", "a directory"),
        ("startup-config: no", "4:47 error FILE_NOT_FOUND", "no such file"),
        ("license: .netloom/x", "4:40 error PATH_RESERVED", "reserved"),
        ("license: /etc/shadow", "4:40 error PATH_OUTSIDE", "relative"),
    ] {
        refused(&lab(key), at, words);
    }
}

#[test]
fn kinds_and_groups() {
    let lab = |topology: &str| format!("name: lab\ntopology:\n{topology}");
    for (topology, at, words) in [
        ("  nodes:\n    n: {image: i}", "4:5 error KIND_MISSING", "netloom kinds list"),
        ("  nodes:\n    n: {kind: lynux, image: i}", "4:15 error UNKNOWN_KIND", "Did you mean \"linux\"?"),
        ("  nodes:\n    n: {kind: host}", "4:15 error KIND_NOT_SUPPORTED", "\"host:r1-eth1\""),
        ("  nodes:\n    n: {kind: ext-container}", "4:15 error KIND_NOT_SUPPORTED", "outside the lab"),
        ("  nodes:\n    n: {kind: linux}", "4:5 warning NO_IMAGE", "give the node an image"),
        (
            "  nodes:\n    n: {kind: frr, group: rooters}\n  groups: {routers: }",
            "4:27 warning UNKNOWN_GROUP",
            "Did you mean \"routers\"?",
        ),
        (
            "  kinds: {toaster: {image: x}}\n  nodes: {n: {kind: frr}}",
            "3:11 warning UNKNOWN_KIND",
            "serves no node",
        ),
        (
            "  defaults: {kind: frr, mgmt-ipv4: 10.0.0.1}\n  nodes: {n: }",
            "3:25 error KEY_NOT_HERE",
            "cannot be inherited",
        ),
        (
            "  kinds: {frr: {kind: linux}}\n  nodes: {n: {kind: frr}}",
            "3:17 warning KEY_NOT_HERE",
            "entry of kinds",
        ),
        (
            "  groups: {g: {group: h}}\n  nodes: {n: {kind: frr}}",
            "3:16 warning KEY_NOT_HERE",
            "entry of groups",
        ),
        ("  nodes:\n    a: {kind: frr}\n    A: {kind: frr}", "5:5 error INVALID_NAME", "line 4, column 5"),
        ("  nodes:\n    a b: {kind: frr}", "4:5 error INVALID_NAME", "\"a b\" is not a valid node name"),
        ("  nodes: {}", "2:1 error NO_NODES", "topology.nodes"),
        (
            "  defaults: {startup-config: x}\n  nodes: {a: {kind: frr}, b: {kind: frr}}",
            "3:30 error FILE_NOT_FOUND",
            "no such file",
        ),
        (
            "  kinds: {bridge: {}, ovs-bridge: {}}\n  nodes: {n: {kind: frr}}",
            "3:23 warning KIND_TWICE",
            "are one kind",
        ),
        (
            "  nodes:\n    a: {kind: frr}\n    'b|a': {kind: bridge}",
            "5:5 error INVALID_NAME",
            "in the network of another node",
        ),
        ("  nodes:\n    dummy: {kind: frr}", "4:5 error INVALID_NAME", "choose another name"),
    ] {
        refused(&lab(topology), at, words);
    }
}

#[test]
fn names() {
    let nodes = "topology: {nodes: {n: {kind: frr}}}";
    refused(nodes, "0:0 error NAME_MISSING", "name: my-lab");
    refused(&format!("name:\n{nodes}"), "1:5 error NAME_MISSING", "");
    refused(&format!("name: a/b\n{nodes}"), "1:7 error INVALID_NAME", "\"a/b\" is not a valid lab name");
    let elsewhere = crate::read_without_git(&format!("name: x-__gitBranch__\n{nodes}"));
    assert_eq!(crate::codes(&elsewhere), ["1:7 error MAGIC_VARIABLE"]);
    refused("name: a", "0:0 error NO_NODES", "topology.nodes");
}

#[test]
fn management_addresses() {
    let lab = |mgmt: &str, nodes: &str| format!("name: lab\n{mgmt}\ntopology:\n  nodes:\n{nodes}");
    let one = "    n: {kind: frr, mgmt-ipv4: 10.0.0.9}";
    for (mgmt, nodes, at, words) in [
        ("mgmt: {}", one, "5:31 error MGMT_ADDRESS", "needs mgmt with an ipv4-subnet"),
        ("mgmt: {ipv4-subnet: 10.0.1.0/24}", one, "5:31 error MGMT_ADDRESS", "is not in the ipv4-subnet"),
        (
            "mgmt: {}",
            "    n: {kind: frr, mgmt-ipv6: 'fd00::1'}",
            "5:31 error MGMT_ADDRESS",
            "needs mgmt with an ipv6-subnet",
        ),
        (
            "mgmt: {}",
            "    n: {kind: frr, mgmt-ipv4: 10.0.0.9/24}",
            "5:31 error INVALID_VALUE",
            "without a prefix length",
        ),
        (
            "mgmt: {ipv4-subnet: 10.0.0.0/24}",
            "    n: {kind: frr, mgmt-ipv4: 10.0.0.9}\n    m: {kind: frr, mgmt-ipv4: 10.0.0.9}",
            "6:31 error MGMT_ADDRESS",
            "\"n\" too",
        ),
        (
            "mgmt: {ipv4-subnet: 10.0.0.0/24}",
            "    n: {kind: frr, network-mode: none, mgmt-ipv4: 10.0.0.9}",
            "5:51 error MGMT_ADDRESS",
            "needs the management network",
        ),
    ] {
        refused(&lab(mgmt, nodes), at, words);
    }
}

#[test]
fn templates_must_be_rendered_first() {
    refused(
        "name: a\ntopology:\n  nodes:\n    {{ range .x }}",
        "4:5 error TEMPLATE",
        "gomplate -c .=lab_vars.yaml -f lab.clab.yml",
    );
    let commented = "name: a\n# {{ .x }}\ntopology: {nodes: {n: {kind: frr}}}";
    assert!(read(commented).ok());
    let trailing = |line: &str| read(&format!("name: a\ntopology: {{nodes: {{n: {{kind: frr}}}}}} {line}\n"));
    assert!(trailing("# {{ .x }}").ok(), "a comment behind a value is a comment");
    refused(
        "name: \"a # {{ .x }}\"\ntopology: {nodes: {n: {kind: frr}}}",
        "1:12 error TEMPLATE",
        "must be rendered first",
    );
}
