use proptest::prelude::*;

use super::layout::{Layout, Step, layout};
use super::*;
use crate::generate::{Part, Shape, shape};

/// A shape as a graph.
fn graph_of(shape: &Shape) -> Graph {
    let mut next = vec![0; shape.nodes.len()];
    let mut end = |node: usize| {
        next[node] += 1;
        End { node, interface: format!("eth{}", next[node]) }
    };
    let links = shape
        .links
        .iter()
        .map(|(a, b)| Link { a: end(*a), b: end(*b), state: String::new(), impairment: String::new() })
        .collect();
    let nodes = shape
        .nodes
        .iter()
        .map(|m| Node {
            id: m.id.clone(),
            kind: "linux".into(),
            role: match m.part {
                Part::Network => Role::Router,
                Part::Host => Role::Host,
                Part::Hub => Role::Switch,
            },
            level: None,
            state: String::new(),
            reason: String::new(),
        })
        .collect();
    Graph { name: "x".into(), live: false, nodes, links }
}

/// What holds of every picture.
fn holds(graph: &Graph, layout: &Layout) {
    assert_eq!((layout.nodes.len(), layout.wires.len()), (graph.nodes.len(), graph.links.len()));
    for (i, a) in layout.nodes.iter().enumerate() {
        assert!(a.centre.x.is_finite() && a.centre.y.is_finite());
        assert!(
            a.left() >= -0.1
                && a.top() >= -0.1
                && a.right() <= layout.width + 0.1
                && a.bottom() <= layout.height + 0.1
        );
        for (j, b) in layout.nodes.iter().enumerate().skip(i + 1) {
            assert!(a.overlap(b).is_none(), "{} on {}", graph.nodes[i].id, graph.nodes[j].id);
        }
    }
    for (link, wire) in graph.links.iter().zip(&layout.wires) {
        let points: Vec<_> = wire.path.iter().flat_map(Step::points).collect();
        let near = |p: &geometry::Point, node: usize| {
            layout.nodes[node].grown(0.5).overlap(&geometry::Rect::around(*p, 0.1, 0.1)).is_some()
        };
        assert!(
            near(&points[0], link.a.node) && near(&points[points.len() - 1], link.b.node),
            "{link:?} {wire:?}"
        );
        for label in wire.labels.iter().flatten() {
            for (node, place) in graph.nodes.iter().zip(&layout.nodes) {
                assert!(place.overlap(&label.place).is_none(), "{} of {link:?} on {}", label.text, node.id);
            }
        }
    }
}

#[test]
fn several_links_into_a_wide_card_keep_their_labels() {
    let node = |id: &str| Node {
        id: id.into(),
        kind: "frr".into(),
        role: Role::Router,
        level: None,
        state: String::new(),
        reason: String::new(),
    };
    // Not a chain, a ring or a star: as near to each other as cards may be.
    let pairs =
        [(0, 1), (0, 1), (0, 1), (0, 2), (0, 2), (0, 2), (1, 2), (2, 3), (3, 4), (1, 4), (0, 4), (0, 4)];
    for long in ["r1", "a-router-with-a-long-name-indeed"] {
        for interface in ["eth", "GigabitEthernet0/0/"] {
            let nodes = vec![node(long), node("r2"), node("r3"), node("r4"), node("r5")];
            let end = |node: usize, n: usize| End { node, interface: format!("{interface}{n}") };
            let links = pairs.iter().enumerate().map(|(n, (a, b))| Link {
                a: end(*a, n),
                b: end(*b, n),
                state: String::new(),
                impairment: String::new(),
            });
            let graph = Graph { name: "x".into(), live: false, nodes, links: links.collect() };
            let layout = layout(&graph);
            holds(&graph, &layout);
            assert_eq!(crowded(&layout).0, 0, "{long} {interface}");
        }
    }
}

/// Labels that are missing, and pairs of labels that overlap.
fn crowded(layout: &Layout) -> (usize, usize) {
    let missing = layout.wires.iter().flat_map(|w| &w.labels).filter(|l| l.is_none()).count();
    let labels: Vec<_> = layout.wires.iter().flat_map(|w| &w.labels).flatten().collect();
    let mut pairs = 0;
    for (i, a) in labels.iter().enumerate() {
        pairs += labels[i + 1..].iter().filter(|b| a.place.grown(-0.5).overlap(&b.place).is_some()).count();
    }
    (missing, pairs)
}

/// Nodes that are linked as it comes, each with so many others; the same for the same seed.
fn irregular(nodes: usize, links: usize, seed: u64) -> Graph {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut dice = |sides: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % sides as u64) as usize
    };
    let mut pairs: Vec<(usize, usize)> = (1..nodes).map(|node| (dice(node), node)).collect();
    while pairs.len() < links {
        let (a, b) = (dice(nodes), dice(nodes));
        if a != b {
            pairs.push((a.min(b), a.max(b)));
        }
    }
    let mut next = vec![0; nodes];
    let mut end = |node: usize| {
        next[node] += 1;
        End { node, interface: format!("GigabitEthernet0/0/{}", next[node]) }
    };
    let links = pairs.into_iter().map(|(a, b)| Link {
        a: end(a),
        b: end(b),
        state: String::new(),
        impairment: String::new(),
    });
    let links = links.collect();
    let node = |i: usize| Node {
        id: format!("router-{i}"),
        kind: "frr".into(),
        role: Role::Router,
        level: None,
        state: String::new(),
        reason: String::new(),
    };
    Graph { name: "x".into(), live: false, nodes: (0..nodes).map(node).collect(), links }
}

#[test]
fn well_known_shapes_have_every_label_and_none_on_another() {
    let shapes = [
        shape::clos(2, 4, 1),
        shape::clos(4, 16, 5),
        shape::clos(1, 2, 0),
        shape::tiers(&[2, 4, 8], 0),
        shape::fat_tree(4, 2),
        shape::ring(3, 1),
        shape::ring(20, 0),
        shape::mesh(5, 1),
        shape::mesh(8, 0),
        shape::line(5, 0),
        shape::line(100, 0),
        shape::line(6, 2),
        shape::star(4),
        shape::star(100),
    ];
    for shape in shapes {
        let graph = graph_of(&shape);
        let layout = layout(&graph);
        holds(&graph, &layout);
        assert_eq!(crowded(&layout), (0, 0), "{}", shape.title);
    }
}

#[test]
fn fabrics_are_in_rows_with_the_hosts_below() {
    for (shape, names) in [
        (shape::clos(2, 4, 1), ["spine1", "leaf1", "host1"]),
        (shape::tiers(&[2, 4, 8], 0), ["tier1-1", "tier2-1", "tier3-1"]),
        (shape::fat_tree(4, 1), ["core1", "agg1-1", "edge1-1"]),
    ] {
        let graph = graph_of(&shape);
        let layout = layout(&graph);
        let y = |name: &str| layout.nodes[graph.nodes.iter().position(|n| n.id == name).unwrap()].centre.y;
        assert!(y(names[0]) < y(names[1]) && y(names[1]) < y(names[2]), "{}", shape.title);
    }
}

#[test]
fn a_node_is_drawn_as_its_label_its_kind_or_its_name_says() {
    let role = |id: &str, kind: &str, label: &str| {
        let label = Some(label.to_owned()).filter(|l| !l.is_empty());
        Role::of(id, kind, kind == "bridge", label.as_ref())
    };
    assert_eq!(role("r1", "frr", ""), Role::Router);
    assert_eq!(role("x", "linux", ""), Role::Host);
    assert_eq!(role("x", "bridge", ""), Role::Switch);
    assert_eq!(role("x", "sonic-vs", ""), Role::Switch);
    assert_eq!(role("Leaf3", "frr", ""), Role::Router, "a router is one wherever it stands");
    assert_eq!(role("Leaf3", "linux", ""), Role::Switch);
    assert_eq!(role("leaf3", "frr", "router"), Role::Router);
    assert_eq!(role("r1", "frr", "a word of somebody else's"), Role::Router);
}

#[test]
fn levels_that_are_asked_for_count() {
    let mut graph = graph_of(&shape::ring(4, 0));
    for (i, node) in graph.nodes.iter_mut().enumerate() {
        node.level = Some(if i == 2 { 1 } else { 5 });
    }
    let layout = layout(&graph);
    holds(&graph, &layout);
    assert!((0..4).filter(|i| *i != 2).all(|i| layout.nodes[2].centre.y < layout.nodes[i].centre.y));
}

#[test]
fn links_between_the_same_nodes_are_drawn_apart() {
    let mut shape = shape::line(2, 0);
    shape.links = vec![(0, 1); 4];
    shape.links.push((0, 0));
    let graph = graph_of(&shape);
    let layout = layout(&graph);
    holds(&graph, &layout);
    let mut ways: Vec<String> = layout.wires.iter().map(|w| format!("{:?}", w.path)).collect();
    ways.sort();
    ways.dedup();
    assert_eq!(ways.len(), 5);
}

#[test]
fn a_picture_is_xml_with_every_node_and_link_however_they_are_called() {
    let mut graph = graph_of(&shape::ring(3, 1));
    graph.name = "<lab> & \"co\"]]>".into();
    graph.nodes[0].id = "r1\"><script>alert('x')</script>".into();
    graph.nodes[1].kind = "a&b\u{7}\u{202e}".into();
    graph.nodes[2].state = "FAILED".into();
    graph.nodes[2].reason = "it said \"no\" -->".into();
    graph.links[0].a.interface = "Gi0/0<1>".into();
    for dark in [false, true] {
        let drawn = svg::draw(&graph, dark);
        // saphyr reads no XML, and a parser for one test is much: what matters is that no text opens or closes anything.
        let tags = balanced(&drawn);
        assert_eq!(tags.iter().filter(|t| t.contains("class=\"node\"")).count(), 6);
        assert_eq!(tags.iter().filter(|t| t.contains("class=\"link\"")).count(), 6);
        assert!(!drawn.contains("<script"), "{drawn}");
        assert!(!drawn.chars().any(|c| c.is_control() && c != '\n'));
    }
    let dot = text::dot(&graph);
    assert!(dot.contains("\"r1\\\"><script>"), "{dot}");
    let mermaid = text::mermaid(&graph);
    assert!(mermaid.contains("r1#34;#62;#60;script"), "{mermaid}");
    assert_eq!(text::json(&graph)["nodes"].as_array().unwrap().len(), 6);
}

/// The tags of an XML text, which have to close each other.
fn balanced(text: &str) -> Vec<String> {
    let mut open: Vec<String> = Vec::new();
    let mut tags = Vec::new();
    let mut rest = text;
    while let Some(begin) = rest.find('<') {
        let between = &rest[..begin];
        for piece in between.split('&').skip(1) {
            let known = ["amp;", "lt;", "gt;", "quot;", "#39;"];
            assert!(known.iter().any(|k| piece.starts_with(k)), "&{piece}");
        }
        let end = begin + rest[begin..].find('>').expect("every tag ends");
        let tag = &rest[begin + 1..end];
        assert_eq!(tag.matches('"').count() % 2, 0, "<{tag}>");
        match tag.strip_prefix('/') {
            Some(name) => assert_eq!(open.pop().as_deref(), Some(name)),
            None if tag.ends_with('/') => {}
            None => open.push(tag.split_whitespace().next().unwrap().to_owned()),
        }
        tags.push(tag.to_owned());
        rest = &rest[end + 1..];
    }
    assert!(open.is_empty(), "{open:?}");
    tags
}

#[test]
fn what_a_link_ends_in_outside_the_lab_is_drawn() {
    let node = |id: &str| api::Node { name: format!("labs/x/nodes/{id}"), ..api::Node::default() };
    let end = |node: &str, interface: &str, kind: api::EndpointType| {
        Some(api::Endpoint {
            node: node.into(),
            interface: interface.into(),
            r#type: kind.into(),
            ..Default::default()
        })
    };
    let link = |a, b| api::Link { a, b, ..api::Link::default() };
    let links = [
        link(
            end("r1", "eth1", api::EndpointType::Unspecified),
            end("host", "veth7", api::EndpointType::Host),
        ),
        link(
            end("host", "veth8", api::EndpointType::Host),
            end("r2", "eth1", api::EndpointType::Unspecified),
        ),
        link(end("r1", "eth2", api::EndpointType::Unspecified), end("dummy", "", api::EndpointType::Dummy)),
        link(end("r2", "eth2", api::EndpointType::Unspecified), end("dummy", "", api::EndpointType::Dummy)),
    ];
    let graph = Graph::of_lab(&api::Lab::default(), &[node("r1"), node("r2")], &links);
    let outside: Vec<&str> =
        graph.nodes.iter().filter(|n| n.role == Role::Outside).map(|n| n.id.as_str()).collect();
    assert_eq!(outside, ["host", "dummy", "dummy"]);
    assert_eq!(graph.links.len(), 4);
    holds(&graph, &layout(&graph));
    assert!(svg::draw(&graph, false).contains(">2 nodes, 4 links<"), "what is outside is no node of the lab");
}

#[test]
fn what_a_link_does_to_frames_is_in_every_form() {
    let node = |id: &str| api::Node {
        name: format!("labs/x/nodes/{id}"),
        kind: "frr".into(),
        ..api::Node::default()
    };
    let end = |node: &str| {
        Some(api::Endpoint { node: node.into(), interface: "eth1".into(), ..api::Endpoint::default() })
    };
    let slow = api::Impairment { rate_bps: 10_000_000, delay_us: 5_000, ..api::Impairment::default() };
    let link = api::Link { a: end("r2"), b: end("r1"), a_to_b: Some(slow), ..api::Link::default() };
    let graph = Graph::of_lab(&api::Lab::default(), &[node("r1"), node("r2")], &[link]);
    let told = "r2 to r1 rate 10mbit delay 5ms";
    assert_eq!(graph.links[0].impairment, told);
    for picture in
        [svg::draw(&graph, false), text::dot(&graph), text::mermaid(&graph), text::json(&graph).to_string()]
    {
        assert!(picture.contains(told), "{picture}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Labels stood on each other in pictures of irregular labs.
    #[test]
    fn irregular_graphs_have_every_label_and_none_on_another(
        nodes in 2_usize..60,
        share in 0_usize..15,
        seed in any::<u64>(),
    ) {
        // Up to two and a half links for each node, some of them between the same two.
        let graph = irregular(nodes, nodes - 1 + nodes * share / 10, seed);
        let layout = layout(&graph);
        holds(&graph, &layout);
        prop_assert_eq!(crowded(&layout), (0, 0));
    }

    #[test]
    fn any_graph_can_be_laid_out(
        roles in proptest::collection::vec(0_u8..3, 1..40),
        links in proptest::collection::vec((0_usize..40, 0_usize..40, "[a-zA-Z0-9/-]{1,16}"), 0..90),
        levels in proptest::collection::vec(0_i64..4, 40),
        has_levels in proptest::bool::weighted(0.2),
    ) {
        let n = roles.len();
        let nodes = roles
            .iter()
            .enumerate()
            .map(|(i, role)| Node {
                id: format!("node-{i}"),
                kind: "k".repeat(1 + i % 30),
                role: [Role::Router, Role::Switch, Role::Host][usize::from(*role)],
                level: has_levels.then_some(levels[i]),
                state: String::new(),
                reason: String::new(),
            })
            .collect();
        let links = links
            .into_iter()
            .map(|(a, b, interface)| {
                let (a, b) = (a % n, b % n);
                let end = |node| End { node, interface: interface.clone() };
                Link { a: end(a.min(b)), b: end(a.max(b)), state: String::new(), impairment: String::new() }
            })
            .collect();
        let graph = Graph { name: "x".into(), live: false, nodes, links };
        let first = layout(&graph);
        holds(&graph, &first);
        prop_assert_eq!(format!("{first:?}"), format!("{:?}", layout(&graph)), "the same graph, the same picture");
    }
}
