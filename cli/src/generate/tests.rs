use std::collections::BTreeMap;

use netloom_model::kind::Catalogue;
use netloom_topology::{Input, Parsed, parse};
use proptest::prelude::*;

use super::*;

fn kinds() -> Kinds {
    let choice = |kind: &str, image: &str| Choice { kind: kind.into(), image: image.into() };
    Kinds { network: choice("frr", ""), host: choice("linux", "a:1"), hub: choice("bridge", "") }
}

fn read(shape: &Shape, plan: Option<Plan>) -> Parsed {
    let catalogue = Catalogue::embedded();
    let text = write(&"x".parse().unwrap(), "a test", shape, &kinds(), plan, &catalogue).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let files = netloom_topology::DirFiles::new(directory.path()).unwrap();
    let input = Input {
        file_name: "x.clab.yml",
        text: &text,
        env: &|_| None,
        all_env: &Default::default,
        node_filter: &[],
        startup_configs: &std::collections::BTreeMap::new(),
        files: &files,
        catalogue: &catalogue,
    };
    let parsed = parse(&input);
    assert!(parsed.ok(), "{:?}\n{text}", parsed.diagnostics);
    assert!(catalogue.check(&parsed.spec).is_empty() && parsed.spec.check().is_empty());
    parsed
}

/// How many links the nodes have whose names begin like this.
fn degrees(shape: &Shape, prefix: &str) -> Vec<usize> {
    let of = |node: usize| shape.links.iter().filter(|(a, b)| *a == node || *b == node).count();
    (0..shape.nodes.len()).filter(|n| shape.nodes[*n].id.starts_with(prefix)).map(of).collect()
}

/// Holds a shape against what is known of it, and its file against the reader of such files.
fn holds(shape: &Shape, plan: Option<Plan>, expected: &[(&str, usize, usize)]) {
    for (prefix, nodes, degree) in expected {
        assert_eq!(degrees(shape, prefix), vec![*degree; *nodes], "{prefix} of {}", shape.title);
    }
    assert_eq!(expected.iter().map(|e| e.1).sum::<usize>(), shape.nodes.len(), "{}", shape.title);
    let parsed = read(shape, plan);
    assert_eq!(parsed.spec.nodes.len(), shape.nodes.len());
    assert_eq!(parsed.spec.links.len(), shape.links.len());
    let ends = parsed.spec.links.iter().flat_map(|l| [&l.a, &l.b]);
    let mut seen = BTreeMap::new();
    for end in ends {
        assert!(seen.insert((end.node.clone(), end.interface.clone()), ()).is_none(), "{end} twice");
        let has = !end.ipv4.is_empty();
        assert_eq!(has, plan.is_some() && end.node != "hub", "{end} {}", end.ipv4);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn fabrics_have_the_links_they_are_known_for(
        spines in 1_usize..5, leaves in 1_usize..9, each in 0_usize..4, addressed: bool
    ) {
        let plan = addressed.then(|| "10.0.0.0/16".parse().unwrap());
        let expected =
            [("spine", spines, leaves), ("leaf", leaves, spines + each), ("host", leaves * each, 1)];
        holds(&shape::clos(spines, leaves, each), plan, &expected);
        let tiers = [spines, leaves, 3];
        let expected = [
            ("tier1-", spines, leaves), ("tier2-", leaves, spines + 3), ("tier3-", 3, leaves + each),
            ("host", 3 * each, 1),
        ];
        holds(&shape::tiers(&tiers, each), plan, &expected);
    }

    #[test]
    fn a_fat_tree_uses_every_port(half in 1_usize..5, addressed: bool) {
        let k = 2 * half;
        let plan = addressed.then(|| "10.0.0.0/8".parse().unwrap());
        let expected = [
            ("core", half * half, k), ("agg", k * half, k), ("edge", k * half, k), ("host", k * half * half, 1),
        ];
        holds(&shape::fat_tree(k, half), plan, &expected);
    }

    #[test]
    fn rings_lines_meshes_and_stars(n in 3_usize..12, each in 0_usize..3, addressed: bool) {
        let plan = addressed.then(|| "10.0.0.0/16".parse().unwrap());
        holds(&shape::ring(n, each), plan, &[("r", n, 2 + each), ("host", n * each, 1)]);
        holds(&shape::mesh(n, each), plan, &[("r", n, n - 1 + each), ("host", n * each, 1)]);
        holds(&shape::star(n), plan, &[("hub", 1, n), ("host", n, 1)]);
        let line = shape::line(n, 0);
        let mut of = degrees(&line, "r");
        of.sort_unstable();
        prop_assert_eq!(of, [vec![1, 1], vec![2; n - 2]].concat());
        read(&line, plan);
    }
}

#[test]
fn what_a_kind_cannot_have_is_told() {
    let catalogue = Catalogue::embedded();
    let say = |kinds: &Kinds, shape: &Shape, plan: Option<Plan>| {
        write(&"x".parse().unwrap(), "a test", shape, kinds, plan, &catalogue).unwrap_err()
    };
    let without_image = Kinds { host: Choice { kind: "linux".into(), image: String::new() }, ..kinds() };
    assert!(say(&without_image, &shape::star(3), None).contains("has no image"));
    let unknown = Kinds { network: Choice { kind: "nosuch".into(), image: String::new() }, ..kinds() };
    assert!(say(&unknown, &shape::ring(3, 0), None).contains("nosuch"));
    assert!(say(&kinds(), &shape::mesh(300, 0), None).contains("more than the 256 interfaces"));
    let small = "10.0.0.0/30".parse().unwrap();
    assert!(say(&kinds(), &shape::ring(3, 0), Some(small)).contains("too few addresses"));
}
