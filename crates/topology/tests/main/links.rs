//! Links: both forms, and each fault at its place.

use netloom_model::spec::{Endpoint, EndpointType, LinkSpec};

use crate::{codes, read, refused, said, spec};

/// A lab of r1, r2 (frr), pc (linux) and sw (bridge) with these links, the first of which is on line 9.
fn with_links(links: &str) -> String {
    format!(
        "name: lab\ntopology:\n  nodes:\n    r1: {{kind: frr}}\n    r2: {{kind: frr}}\n    pc: {{kind: linux, image: i}}\n    sw: {{kind: bridge}}\n  links:\n{links}"
    )
}

fn end(node: &str, interface: &str) -> Endpoint {
    Endpoint { node: node.into(), interface: interface.into(), ..Endpoint::default() }
}

fn link(a: Endpoint, b: Endpoint) -> LinkSpec {
    LinkSpec { a, b, ..LinkSpec::default() }
}

#[track_caller]
fn one(links: &str) -> LinkSpec {
    spec(&with_links(links)).links.remove(0)
}

#[track_caller]
fn wrong(links: &str, at: &str, words: &str) {
    let parsed = read(&with_links(links));
    let told: Vec<String> = codes(&parsed).into_iter().filter(|c| !c.contains("BRIDGE_IS_MANAGED")).collect();
    assert_eq!(told, [at], "{links}\n{:#?}", said(&parsed));
    assert!(said(&parsed).iter().any(|s| s.contains(words)), "{words}: {:#?}", said(&parsed));
}

#[test]
fn brief() {
    assert_eq!(
        one("    - endpoints: [\"r1:eth1\", \"r2:eth2\"]"),
        link(end("r1", "eth1"), end("r2", "eth2"))
    );
    let full = one(
        "    - endpoints: [r1:eth1, r2:eth2]\n      mtu: 1500\n      labels: {a: 1}\n      ipv4: [10.0.0.1/30, 10.0.0.2/30]\n      ipv6: ['', 'fd00::2/64']",
    );
    let a = Endpoint { ipv4: "10.0.0.1/30".into(), ..end("r1", "eth1") };
    let b = Endpoint { ipv4: "10.0.0.2/30".into(), ipv6: "fd00::2/64".into(), ..end("r2", "eth2") };
    assert_eq!(full, LinkSpec { mtu: 1500, labels: [("a".into(), "1".into())].into(), ..link(a, b) });
}

#[test]
fn extended() {
    let full = one(
        "    - type: veth\n      mtu: 9000\n      labels: {a: b}\n      endpoints:\n        - node: r1\n          interface: eth1\n          mac: 02:00:00:00:00:01\n          ipv4: 10.0.0.1/24\n          ipv6: fd00::1/64\n        - {node: pc, interface: eth1}",
    );
    let a = Endpoint {
        mac: "02:00:00:00:00:01".into(),
        ipv4: "10.0.0.1/24".into(),
        ipv6: "fd00::1/64".into(),
        ..end("r1", "eth1")
    };
    assert_eq!(
        full,
        LinkSpec { mtu: 9000, labels: [("a".into(), "b".into())].into(), ..link(a, end("pc", "eth1")) }
    );
    // The forms may be mixed.
    assert_eq!(
        one("    - endpoints: [{node: r1, interface: eth1}, 'r2:eth1']"),
        link(end("r1", "eth1"), end("r2", "eth1"))
    );
}

#[test]
fn a_bridge_has_any_port() {
    let lab = spec(&with_links(
        "    - endpoints: [r1:eth1, sw:r1-port]\n    - endpoints: [pc:eth1, sw:p2]\n    - endpoints: [r2:eth1, sw:eth1]",
    ));
    assert_eq!(
        lab.links.iter().map(|l| l.b.interface.as_str()).collect::<Vec<_>>(),
        ["r1-port", "p2", "eth1"]
    );
}

#[test]
fn faults() {
    for (links, at, words) in [
        (
            "    - endpoints: [r1:eth1, r3:eth1]",
            "9:28 error UNKNOWN_NODE",
            "there is no node \"r3\". Did you mean \"r",
        ),
        ("    - endpoints: [r1:eth1, R2:eth1]", "9:28 error UNKNOWN_NODE", "Did you mean \"r2\"?"),
        ("    - endpoints: [r1:eth1, r1:eth1]", "9:28 error DUPLICATE_ENDPOINT", "at line 9, column 19"),
        (
            "    - endpoints: [r1:eth1, r2:eth1]\n    - endpoints: [pc:eth1, r2:eth1]",
            "10:28 error DUPLICATE_ENDPOINT",
            "at line 9, column 28",
        ),
        ("    - endpoints: [r1:eth0, r2:eth1]", "9:19 error UNKNOWN_INTERFACE", "eth1 to eth256"),
        ("    - endpoints: [r1:ge-0/0/0, r2:eth1]", "9:19 error UNKNOWN_INTERFACE", "kind frr"),
        ("    - endpoints: [r1, r2:eth1]", "9:19 error ENDPOINTS", "node:interface"),
        ("    - endpoints: ['r1:', r2:eth1]", "9:19 error ENDPOINTS", "node:interface"),
        ("    - endpoints: [r1:eth1]", "9:18 error ENDPOINTS", "this one has 1"),
        ("    - endpoints: [r1:eth1, r2:eth1, pc:eth1]", "9:18 error ENDPOINTS", "kind bridge"),
        ("    - mtu: 1500", "9:7 error ENDPOINTS", "no endpoints"),
        ("    - endpoints: r1:eth1", "9:18 error WRONG_TYPE", "expected a list"),
        ("    - r1:eth1", "9:7 error WRONG_TYPE", "expected a map"),
        ("    -", "9:6 error WRONG_TYPE", "found nothing"),
        ("    - endpoints: [[a], r2:eth1]", "9:19 error WRONG_TYPE", "expected an endpoint"),
        ("    - {endpoints: [r1:eth1, r2:eth1], mtu: 9}", "9:44 error INVALID_VALUE", "from 68 to 65535"),
        (
            "    - {endpoints: [r1:eth1, r2:eth1], ipv4: [10.0.0.1]}",
            "9:20 error INVALID_VALUE",
            "with a prefix length",
        ),
        (
            "    - {endpoints: [r1:eth1, r2:eth1], ipv4: [10.0.0.1/8, 10.0.0.2/8, 10.0.0.3/8]}",
            "9:45 error INVALID_VALUE",
            "two addresses",
        ),
        ("    - {endpoints: [r1:eth1, r2:eth1], mtuu: 9}", "9:39 error UNKNOWN_KEY", "Did you mean \"mtu\"?"),
        ("    - {endpoints: [r1:eth1, r2:eth1], vars: {a: b}}", "9:39 warning KEY_NOT_SUPPORTED", "vars"),
        (
            "    - {endpoints: [{node: r1, interface: eth1, mac: 01:00:00:00:00:01}, r2:eth1]}",
            "9:20 error INVALID_VALUE",
            "unicast MAC",
        ),
        ("    - {endpoints: [{node: r1}, r2:eth1]}", "9:20 error ENDPOINTS", "needs a node and an interface"),
        (
            "    - {endpoints: [{node: r1, interface: eth1, vars: {a: b}}, r2:eth1]}",
            "9:48 warning KEY_NOT_SUPPORTED",
            "vars",
        ),
        (
            "    - {endpoints: [{node: r1, interface: eth1, nic: e1000}, r2:eth1]}",
            "9:48 error UNKNOWN_KEY",
            "an endpoint has no key",
        ),
        (
            "    - {endpoints: [{node: sw, interface: a, ipv4: 10.0.0.1/8}, r2:eth1]}",
            "9:20 error ADDRESS_ON_BRIDGE",
            "no address",
        ),
        (
            "    - {endpoints: [{node: r1, interface: eth1, ipv4: 10.0.0.1/8}, r2:eth1], ipv4: [10.0.0.2/8]}",
            "9:84 error INVALID_VALUE",
            "already",
        ),
    ] {
        wrong(links, at, words);
    }
}

/// The other end of a link of r1's.
fn other(links: &str) -> Endpoint {
    let text = with_links(links).replace("topology:", "mgmt: {}\ntopology:");
    let parsed = read(&text);
    assert!(parsed.ok(), "{text}\n{:#?}", said(&parsed));
    let link = parsed.spec.links[0].clone();
    assert_eq!(link.a.to_string(), "r1:eth1");
    link.b
}

#[test]
fn ends_that_are_no_node() {
    for (kind, word) in
        [(EndpointType::Host, "host"), (EndpointType::MgmtNet, "mgmt-net"), (EndpointType::Dummy, "dummy")]
    {
        let interface = if word == "dummy" { "" } else { "x" };
        let expected = Endpoint { kind, ..end(word, interface) };
        assert_eq!(other(&format!("    - endpoints: [r1:eth1, {word}:x]")), expected);
        assert_eq!(other(&format!("    - endpoints: [r1:eth1, {{node: {word}, interface: x}}]")), expected);
        let named = if word == "dummy" { "" } else { "\n      host-interface: x" };
        let single = format!("    - type: {word}\n      endpoint: {{node: r1, interface: eth1}}{named}");
        assert_eq!(other(&single), expected);
    }
    assert_eq!(other("    - endpoints: [r1:eth1, dummy]").kind, EndpointType::Dummy);
    // They may come first.
    let first = one("    - endpoints: [host:x, r1:eth1]\n      impairment: {a-to-b: {loss: 1%}}");
    assert_eq!(
        (first.a.to_string(), first.a_to_b.loss_ppm, first.b_to_a.loss_ppm),
        ("host:x".into(), 10_000, 0)
    );
    // Nothing is at the other end as often as one likes.
    let two = spec(&with_links("    - endpoints: [r1:eth1, dummy]\n    - endpoints: [r1:eth2, dummy]")).links;
    assert_ne!(two[0].id(), two[1].id());
}

#[test]
fn faults_of_ends_that_are_no_node() {
    for (links, at, words) in [
        ("    - endpoints: [r1:eth1, mgmt-net:x]", "9:28 error INVALID_LINK", "give it one with mgmt"),
        ("    - endpoints: [r1:eth1, host:a-name-that-is-too-long]", "9:28 error INVALID_LINK", "1 to 15"),
        ("    - endpoints: [host:a, host:b]", "9:7 error INVALID_LINK", "at least one end"),
        (
            "    - endpoints: [r1:eth1, host:x]\n    - endpoints: [r2:eth1, host:x]",
            "10:28 error DUPLICATE_ENDPOINT",
            "at line 9, column 28",
        ),
        ("    - endpoints: [r1:eth1, macvlan:x]", "9:28 error LINK_TYPE_NOT_SUPPORTED", "host:NAME"),
        (
            "    - {type: host, endpoint: {node: r1, interface: eth1}}",
            "9:7 error ENDPOINTS",
            "host-interface: NAME",
        ),
        (
            "    - {type: dummy, endpoint: 'r1:eth1', host-interface: x}",
            "9:58 error ENDPOINTS",
            "ends in nothing",
        ),
        ("    - {type: host, host-interface: x}", "9:7 error ENDPOINTS", "write endpoint:"),
        ("    - {type: host, endpoints: [r1:eth1, r2:eth1]}", "9:20 error ENDPOINTS", "write endpoint:"),
        ("    - {type: veth, endpoint: {node: r1, interface: eth1}}", "9:20 error ENDPOINTS", "go"),
    ] {
        wrong(links, at, words);
    }
    for kind in ["macvlan", "vxlan", "vxlan-stitch", "veth-stitch"] {
        let link = format!(
            "    - type: {kind}\n      endpoint: {{node: r1, interface: eth1}}\n      host-interface: x\n      remote: 1.2.3.4\n      vni: 1"
        );
        wrong(&link, "9:13 error LINK_TYPE_NOT_SUPPORTED", kind);
    }
    wrong(
        "    - {type: vteh, endpoints: [r1:eth1, r2:eth1]}",
        "9:14 error INVALID_VALUE",
        "Did you mean \"veth\"?",
    );
}

#[test]
fn both_ways_of_a_link_may_differ() {
    let link = one(
        "    - endpoints: [r1:eth1, r2:eth1]\n      impairment:\n        rate: 10mbit\n        delay: 5ms\n        b-to-a: {delay: 40ms, jitter: 2ms}",
    );
    assert_eq!((link.a_to_b.rate_bps, link.a_to_b.delay_us, link.a_to_b.jitter_us), (10_000_000, 5_000, 0));
    assert_eq!(
        (link.b_to_a.rate_bps, link.b_to_a.delay_us, link.b_to_a.jitter_us),
        (10_000_000, 40_000, 2_000)
    );
    // A key is another one than its value: the whole block is meant.
    wrong(
        "    - endpoints: [r1:eth1, r2:eth1]\n      impairment: {reorder: 1%}",
        "10:7 error INVALID_LINK",
        "reorder needs a delay",
    );
}

#[test]
fn a_node_without_interfaces_of_its_own_has_no_links() {
    let text = "name: lab\ntopology:\n  nodes:\n    a: {kind: frr}\n    b: {kind: frr, network-mode: 'container:a'}\n  links:\n    - endpoints: [a:eth1, b:eth1]";
    refused(text, "7:27 error INVALID_LINK", "give the link to that one");
}

#[test]
fn a_link_to_a_faulty_node_is_not_told_too() {
    let text = "name: lab\ntopology:\n  nodes:\n    a: {kind: frrr}\n    b: {kind: frr}\n  links:\n    - endpoints: [a:eth1, b:eth1]";
    refused(text, "4:15 error UNKNOWN_KIND", "frrr");
}
