//! Files that nobody means well with, and very large ones.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use netloom_model::kind::Catalogue;
use netloom_topology::{MAX_DIAGNOSTICS, MAX_TEXT, Parsed};
use proptest::prelude::*;

use crate::{codes, read, said};

/// Ample for what takes well under a second; a square of the length would take minutes.
const BOUND: Duration = Duration::from_secs(60);

#[track_caller]
fn quick(what: &str, text: &str) -> Parsed {
    let start = Instant::now();
    let parsed = read(text);
    let took = start.elapsed();
    println!("{what}: {} bytes in {took:?}, {} diagnostics", text.len(), parsed.diagnostics.len());
    assert!(took < BOUND, "{what} took {took:?}");
    assert!(parsed.diagnostics.len() <= MAX_DIAGNOSTICS);
    parsed
}

/// A lab of this many nodes in a ring, every second link extended.
fn ring(nodes: usize, links: usize) -> String {
    let mut text = String::from(
        "name: big\ntopology:\n  defaults:\n    env: {A: a, B: b}\n    exec: [ip link set lo up]\n  kinds:\n    frr: {binds: ['r1:/etc/frr']}\n  nodes:\n",
    );
    for i in 0..nodes {
        writeln!(text, "    n{i}:\n      kind: frr\n      cpu: 0.5\n      labels: {{rack: r{}}}", i / 40)
            .unwrap();
    }
    text.push_str("  links:\n");
    for i in 0..links {
        let (a, b, port) = (i % nodes, (i + 1) % nodes, 2 * (i / nodes));
        if i % 2 == 0 {
            writeln!(text, "    - endpoints: [n{a}:eth{}, n{b}:eth{}]", port + 1, port + 2).unwrap();
        } else {
            writeln!(text, "    - type: veth\n      endpoints:\n        - {{node: n{a}, interface: eth{}}}\n        - {{node: n{b}, interface: eth{}}}", port + 1, port + 2).unwrap();
        }
    }
    text
}

#[test]
fn the_largest_lab_is_read_quickly() {
    let parsed = quick("5,000 nodes, 20,000 links", &ring(5_000, 20_000));
    assert!(parsed.ok(), "{:?}", &said(&parsed)[..1]);
    assert_eq!(
        (parsed.spec.nodes.len(), parsed.spec.links.len(), parsed.spec.files.len()),
        (5_000, 20_000, 2)
    );
}

#[test]
fn more_than_the_largest_is_refused() {
    assert_eq!(codes(&quick("5,001 nodes", &ring(5_001, 1))), ["2:1 error LAB_TOO_LARGE"]);
    let large = "#".repeat(100_000_000);
    assert_eq!(codes(&quick("100 MB", &large)), ["0:0 error FILE_TOO_LARGE"]);
    assert!(!quick("4 MiB of comment", &"#".repeat(MAX_TEXT)).ok());
}

#[test]
fn bombs_do_not_go_off() {
    let mut laughs = String::from("name: x\na: &a [l, l, l, l, l, l, l, l, l]\n");
    for (before, name) in ('a'..='h').zip('b'..='i') {
        writeln!(laughs, "{name}: &{name} [{}]", vec![format!("*{before}"); 9].join(", ")).unwrap();
    }
    assert!(said(&quick("billion laughs", &laughs))[0].contains("TOO_MANY_VALUES"));

    // Inheritance multiplies without any alias.
    let mut heavy = String::from("name: x\ntopology:\n  defaults:\n    kind: frr\n    env:\n");
    for i in 0..50_000 {
        writeln!(heavy, "      V{i}: vvvvvvvvvvvvvvvvvvvv").unwrap();
    }
    heavy.push_str("  nodes:\n");
    for i in 0..5_000 {
        writeln!(heavy, "    n{i}:").unwrap();
    }
    assert!(said(&quick("heavy defaults", &heavy)).iter().any(|s| s.contains("LAB_TOO_LARGE")));

    let unknown: String = (0..200_000).map(|i| format!("k{i}: v\n")).collect();
    assert!(!quick("200,000 unknown keys", &unknown).ok());
    let nowhere = "    - endpoints: [nodf1:eth1, nodf2:eth1]\n".repeat(20_000);
    let nodes: String = (0..5_000).map(|i| format!("    node{i}: {{kind: frr}}\n")).collect();
    assert!(
        !quick("40,000 unknown nodes", &format!("name: x\ntopology:\n  nodes:\n{nodes}  links:\n{nowhere}"))
            .ok()
    );
    let binds: String = (0..100_000).map(|i| format!("      - r1:/x{i}\n")).collect();
    quick(
        "100,000 binds",
        &format!("name: x\ntopology:\n  nodes:\n    n:\n      kind: frr\n      binds:\n{binds}"),
    );
}

#[test]
fn repetition_is_linear() {
    let fill = |unit: &str| unit.repeat(MAX_TEXT / 8 / unit.len());
    for unit in [
        "[",
        "{",
        "- ",
        "? ",
        "a: ",
        "a:\n",
        "a: b\n",
        "a,",
        "[a],",
        "\"",
        "'",
        "|\n",
        "&a ",
        "*a ",
        "!a ",
        "---\n",
        "${",
        "$V",
        "{a: b}\n",
        ": ",
        "\t",
        " ",
        "é",
        "\r",
        "%",
        "<<: ",
        "\"\\x\n",
        "[[],",
        "{a: {b: c}},",
    ] {
        for before in ["", "name: x\ntopology: ", "[", "{"] {
            let text = format!("{before}{}", fill(unit));
            assert!(!quick(&format!("{before:?} {unit:?}"), &text).ok());
        }
    }
}

#[test]
fn odd_characters() {
    for (text, at) in [
        ("name: a\0b", "1:8 error FORBIDDEN_CHARACTER"),
        ("name: a\nx: \u{7}", "2:4 error FORBIDDEN_CHARACTER"),
        ("name: \u{1b}[31m", "1:7 error FORBIDDEN_CHARACTER"),
        ("", "0:0 error EMPTY_FILE"),
        ("\u{feff}", "0:0 error EMPTY_FILE"),
        ("# only a comment\n", "0:0 error EMPTY_FILE"),
        ("---\n...\n", "0:0 error EMPTY_FILE"),
    ] {
        let parsed = read(text);
        let told = codes(&parsed);
        assert_eq!(told, [at], "{text:?}");
    }
    let parsed = read("name: a\n\u{202e}key: v\n");
    assert!(said(&parsed).iter().all(|s| !s.contains('\u{202e}')), "{:?}", said(&parsed));
    // What is shown must be what is read: the direction of the text is not turned, and a letter that only looks like one is named.
    assert_eq!(codes(&parsed), ["2:1 error FORBIDDEN_CHARACTER"]);
    let node = |lines: &str| read(&format!("name: a\ntopology:\n  nodes:\n    n: {{kind: frr, {lines}}}"));
    let alike = node("\u{456}mage: x");
    assert!(
        said(&alike).iter().any(|s| s.contains("Did you mean \"image\"? It holds the character U+0456")),
        "{:?}",
        said(&alike)
    );
    for (lines, code) in [
        ("hostname: e\u{301}", "INVALID_VALUE"),
        ("hostname: \u{5d0}", "INVALID_VALUE"),
        ("aliases: [\u{430}]", "INVALID_NODE"),
        ("cpu: \u{ff11}", "INVALID_VALUE"),
        ("memory: 1\u{200b}gb", "INVALID_VALUE"),
        ("ports: ['\u{661}']", "INVALID_VALUE"),
        ("ima\u{feff}ge: x", "YAML"),
        ("stages: {create: {exec: [{command: a, phase: on\u{2010}exit}]}}", "INVALID_VALUE"),
    ] {
        let parsed = node(lines);
        assert!(
            codes(&parsed).iter().all(|c| c.ends_with(&format!("error {code}"))) && !parsed.ok(),
            "{lines}: {:?}",
            said(&parsed)
        );
    }
    let names = read("name: a\ntopology:\n  nodes:\n    re\u{301}: {kind: frr}");
    assert_eq!(codes(&names), ["4:5 error INVALID_NAME"]);
    // What a program in the node is given is the user's own, letter by letter.
    let value = node("env: {A: \"\u{5d0} e\u{301} \u{1f980}\"}");
    assert!(value.ok() && value.spec.nodes[0].env["A"] == "\u{5d0} e\u{301} \u{1f980}", "{:?}", said(&value));
    for text in ["just text", "[a, b]", "42"] {
        assert!(codes(&read(text))[0].ends_with("WRONG_TYPE"), "{text}");
    }
    for text in ["name: a\r\ntopology:\r\n\tnodes: x\r\n", "name:\n\t- a"] {
        assert!(
            codes(&read(text)).iter().any(|c| c.ends_with(" error YAML")),
            "{text:?} {:?}",
            codes(&read(text))
        );
    }
}

/// Whatever the text: an answer, within bounds, and a clean spec if it is accepted.
fn holds(text: &str) {
    let parsed = read(text);
    assert_eq!(parsed.ok(), !parsed.diagnostics.iter().any(|d| d.to_string().contains(": error: ")));
    if parsed.ok() {
        assert!(parsed.lab.is_some());
        assert!(
            parsed.spec.check().is_empty() && Catalogue::embedded().check(&parsed.spec).is_empty(),
            "{text}"
        );
    }
}

/// Something like a topology file: its words in some order and indentation.
fn yamlish() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "name",
        "topology",
        "nodes",
        "links",
        "kinds",
        "groups",
        "defaults",
        "kind",
        "image",
        "linux",
        "frr",
        "bridge",
        "endpoints",
        "r1",
        "r1:eth1",
        "r2:eth1",
        "exec",
        "binds",
        "r1:/etc",
        "env",
        "mgmt",
        "<<",
        "*a",
        "&a",
        "~",
        "null",
        "1",
        "-1",
        "1e9",
        "\"",
        "'",
        "[",
        "]",
        "{",
        "}",
        ",",
        "|",
        ">",
        "${X",
        "${X:-y}",
        "$$",
        "__clabNodeName__",
        "../x",
        "é",
        "!!str",
        "#",
        "?",
    ]);
    let part = (
        word,
        prop::sample::select(vec![
            ": ", ":\n", "\n", "\n  ", "\n    ", "\n      ", " ", "\n- ", "\n    - ", ", ",
        ]),
    )
        .prop_map(|(w, s)| format!("{w}{s}"));
    prop::collection::vec(part, 0..40).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_answered(text in "\\PC{0,200}") {
        holds(&text);
    }

    #[test]
    fn any_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        holds(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn anything_like_a_topology_is_answered(text in yamlish()) {
        holds(&text);
        holds(&format!("name: x\ntopology:\n  nodes:\n    r1: {{kind: frr}}\n  {text}"));
    }

    #[test]
    fn a_mangled_lab_is_answered(cut in 0usize..1_000, put in "[\\PC\n\t]{0,3}") {
        let mut text = ring(6, 8);
        let at = cut.min(text.len());
        text.insert_str(at, &put);
        holds(&text);
        text.truncate(at);
        holds(&text);
    }
}
