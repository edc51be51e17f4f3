//! Only some of the nodes of a file.

use crate::{bundle, codes, read_filtered, said};

const LAB: &str = "name: lab
topology:
  defaults: {kind: frr}
  nodes:
    a:
    b: {stages: {create: {wait-for: [{node: c, stage: healthy}]}}}
    c: {network-mode: 'container:a'}
    d: {kind: nothing-known, binds: ['not-there:/x']}
    e:
  links:
    - endpoints: [a:eth1, b:eth1]
    - endpoints: [a:eth2, d:eth1]
    - endpoints: [a:eth3, host:x]
    - endpoints: [e:eth1, dummy]
";

fn filtered(nodes: &[&str]) -> (Vec<String>, Vec<String>, Vec<String>) {
    let parsed = read_filtered(LAB, &bundle(), nodes);
    let ids = parsed.spec.nodes.iter().map(|n| n.id.clone()).collect();
    let links = parsed.spec.links.iter().map(|l| l.id()).collect();
    (ids, links, codes(&parsed))
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|t| (*t).to_owned()).collect()
}

#[test]
fn only_the_nodes_named_and_the_links_between_them_are_there() {
    assert_eq!(filtered(&["a", "c"]), (texts(&["a", "c"]), texts(&["a:eth3--host:x"]), vec![]));
    // A cable to a node that is left out is none, and the faults of that node are not looked at.
    assert_eq!(filtered(&["a"]), (texts(&["a"]), texts(&["a:eth3--host:x"]), vec![]));
    assert_eq!(filtered(&["e"]), (texts(&["e"]), texts(&["dummy--e:eth1"]), vec![]));
}

#[test]
fn what_is_left_out_must_not_be_needed() {
    assert_eq!(filtered(&["a", "b"]).2, ["6:9 error NODE_FILTER"]);
    assert_eq!(filtered(&["c"]).2, ["7:23 error NODE_FILTER"]);
    let parsed = read_filtered(LAB, &bundle(), &["a", "b"]);
    assert!(
        said(&parsed)
            .iter()
            .any(|s| s.contains("\"b\" waits for \"c\"") && s.contains("add it to the filter"))
    );
}

#[test]
fn names_that_the_file_does_not_have_are_told() {
    let parsed = read_filtered(LAB, &bundle(), &["a", "aa"]);
    assert_eq!(codes(&parsed), ["0:0 error NODE_FILTER"]);
    assert!(said(&parsed)[0].contains("Did you mean \"a\"?"), "{:?}", said(&parsed));
}

#[test]
fn a_link_to_a_node_that_nobody_knows_is_told_all_the_same() {
    let text = LAB.replace("d:eth1", "x:eth1");
    assert_eq!(codes(&read_filtered(&text, &bundle(), &["a"])), ["12:27 error UNKNOWN_NODE"]);
}

#[test]
fn a_space_behind_the_comma_is_no_part_of_a_name() {
    assert_eq!(filtered(&["a", " e"]), filtered(&["a", "e"]));
    assert_eq!(filtered(&["a", " e"]).0, texts(&["a", "e"]));
}

#[test]
fn a_node_is_apart_from_what_is_left_out_anyway() {
    let lab = "name: lab
topology:
  defaults: {kind: frr, placement: {labels: {rack: '2'}}}
  nodes:
    a: {placement: {apart-from: [b, c]}}
    b:
    c: {placement: {}}
    s: {kind: bridge, placement: {host: h1}}
";
    let parsed = read_filtered(lab, &bundle(), &["a", "c", "s"]);
    assert!(parsed.ok(), "{:?}", said(&parsed));
    let placement = |i: usize| &parsed.spec.nodes[i].placement;
    assert_eq!(placement(0).apart_from, ["c"]);
    assert!(placement(0).labels.is_empty(), "the strongest level counts as a whole");
    assert!(placement(1).is_any(), "an empty map says anywhere");
    assert_eq!(placement(2).host, "h1");
}
