//! What the stages of a lab's nodes wait for, and whether they can ever come about.

use std::collections::HashMap;

use super::{NetworkMode, NodeSpec, Stage};

/// A stage of a node.
pub type Step<'a> = (&'a str, Stage);

/// Most cycles that are looked at: a hostile lab has no end of them.
const MAX_CYCLES: usize = 100;

/// Stages that wait for one another, each for the one behind it and the last for the first: cycles without a stage in common; none when every stage can come about.
///
/// A stage waits for the one before it on its node and for what its `wait_for` names; a node that shares another's network namespace is created
/// after it. That it waits for a node that is not there, or shares its own network, is another fault, and
/// is not looked at here.
pub fn cycles(nodes: &[NodeSpec]) -> Vec<Vec<Step<'_>>> {
    let index: HashMap<&str, usize> = nodes.iter().enumerate().map(|(i, n)| (n.id.as_str(), i)).collect();
    let stages = Stage::ALL.len();
    let number = |node: usize, stage: Stage| node * stages + stage as usize;
    let mut waits: Vec<Vec<usize>> = vec![Vec::new(); nodes.len() * stages];
    for (i, node) in nodes.iter().enumerate() {
        for pair in Stage::ALL.windows(2) {
            waits[number(i, pair[1])].push(number(i, pair[0]));
        }
        for stage in &node.stages {
            let others =
                stage.wait_for.iter().filter_map(|w| Some(number(*index.get(w.node.as_str())?, w.stage)));
            waits[number(i, stage.stage)].extend(others);
        }
        if let NetworkMode::Node(other) = &node.network_mode
            && *other != node.id
        {
            waits[number(i, Stage::Create)]
                .extend(index.get(other.as_str()).map(|o| number(*o, Stage::Create)));
        }
    }
    let step = |n: usize| (nodes[n / stages].id.as_str(), Stage::ALL[n % stages]);
    search(&waits).into_iter().map(|found| found.into_iter().map(step).collect()).collect()
}

/// Cycles of a graph that share nothing, found depth first without recursion.
fn search(waits: &[Vec<usize>]) -> Vec<Vec<usize>> {
    #[derive(Clone, Copy, PartialEq)]
    enum Seen {
        Not,
        OnPath,
        Done,
    }
    let mut seen = vec![Seen::Not; waits.len()];
    let (mut found, mut told, mut looked_at) = (Vec::new(), vec![false; waits.len()], 0);
    for start in 0..waits.len() {
        if seen[start] != Seen::Not {
            continue;
        }
        // Each with how many of the ones it waits for were looked at.
        let mut path = vec![(start, 0)];
        seen[start] = Seen::OnPath;
        while let Some((at, looked)) = path.last_mut() {
            let at = *at;
            let Some(next) = waits[at].get(*looked).copied() else {
                seen[at] = Seen::Done;
                path.pop();
                continue;
            };
            *looked += 1;
            match seen[next] {
                Seen::Done => {}
                Seen::OnPath => {
                    if told[at] || told[next] {
                        continue;
                    }
                    let cycle: Vec<usize> = path.iter().map(|(n, _)| *n).skip_while(|n| *n != next).collect();
                    if cycle.iter().all(|n| !told[*n]) {
                        cycle.iter().for_each(|n| told[*n] = true);
                        found.push(cycle);
                    }
                    looked_at += 1;
                    if looked_at == MAX_CYCLES {
                        return found;
                    }
                }
                Seen::Not => {
                    seen[next] = Seen::OnPath;
                    path.push((next, 0));
                }
            }
        }
    }
    found
}

/// A cycle in words: `a create waits for b healthy, which waits for a create`.
pub fn in_words(cycle: &[Step<'_>]) -> String {
    let mut words = String::new();
    for (i, (node, stage)) in cycle.iter().chain(cycle.first()).enumerate() {
        words.push_str(match i {
            0 => "",
            1 => " waits for ",
            _ => ", which waits for ",
        });
        words.push_str(&format!("{node} {}", stage.as_str()));
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cycle(nodes: &[NodeSpec]) -> Option<Vec<Step<'_>>> {
        cycles(nodes).into_iter().next()
    }
    use crate::spec::{StageSpec, StageWait};

    fn node(id: &str, waits: &[(Stage, &str, Stage)]) -> NodeSpec {
        let stages = waits
            .iter()
            .map(|(stage, node, other)| StageSpec {
                stage: *stage,
                wait_for: vec![StageWait { node: (*node).into(), stage: *other }],
                exec: Vec::new(),
            })
            .collect();
        NodeSpec { id: id.into(), stages, ..NodeSpec::default() }
    }

    #[test]
    fn a_chain_is_no_cycle() {
        use Stage::{Create, CreateLinks, Exit, Healthy};
        let nodes = [
            node("a", &[(Create, "b", CreateLinks), (Exit, "b", Healthy)]),
            node("b", &[(Create, "c", Healthy), (Create, "nobody", Create)]),
            // A node may wait for what is over by then anyway.
            node("c", &[(Healthy, "c", Create)]),
        ];
        assert_eq!(cycle(&nodes), None);
    }

    #[test]
    fn a_cycle_is_named_also_through_the_order_of_stages() {
        use Stage::{Configure, Create, CreateLinks, Healthy};
        // a's create waits for b's configure, which comes after b's create-links, which waits for a's create.
        let nodes = [node("a", &[(Create, "b", Configure)]), node("b", &[(CreateLinks, "a", Create)])];
        let found = cycle(&nodes).unwrap();
        assert_eq!(
            in_words(&found),
            "a create waits for b configure, which waits for b create-links, which waits for a create"
        );
        let own = [node("a", &[(Create, "a", Healthy)])];
        assert!(in_words(&cycle(&own).unwrap()).starts_with("a create waits for a healthy"));
    }

    #[test]
    fn every_cycle_of_its_own_is_found() {
        use Stage::{Create, Healthy};
        let nodes = [
            node("a", &[(Create, "b", Create)]),
            node("b", &[(Create, "a", Create)]),
            node("c", &[(Create, "a", Create), (Create, "d", Healthy)]),
            node("d", &[(Create, "c", Create)]),
        ];
        let words: Vec<String> = cycles(&nodes).iter().map(|c| in_words(c)).collect();
        assert_eq!(words.len(), 2, "{words:?}");
        assert_eq!(words[0], "a create waits for b create, which waits for a create");
        assert!(words[1].contains("waits for d healthy"), "{words:?}");
        // All wait for all: bounded, however many cycles there are.
        let names: Vec<String> = (0..150).map(|i| format!("n{i}")).collect();
        let all: Vec<NodeSpec> = names
            .iter()
            .map(|n| {
                let waits: Vec<_> =
                    names.iter().filter(|o| *o != n).map(|o| (Create, o.as_str(), Create)).collect();
                node(n, &waits)
            })
            .collect();
        let found = cycles(&all);
        assert!(!found.is_empty() && found.len() <= MAX_CYCLES);
    }

    #[test]
    fn a_shared_namespace_is_waited_for() {
        let mut nodes = [node("a", &[(Stage::Create, "b", Stage::Create)]), node("b", &[])];
        nodes[1].network_mode = NetworkMode::Node("a".into());
        assert!(cycle(&nodes).is_some());
    }

    #[test]
    fn thousands_in_a_row_do_not_recurse() {
        let names: Vec<String> = (0..5_000).map(|i| format!("n{i}")).collect();
        let mut nodes: Vec<NodeSpec> =
            names.windows(2).map(|w| node(&w[0], &[(Stage::Create, &w[1], Stage::Healthy)])).collect();
        nodes.push(node("n4999", &[]));
        assert_eq!(cycle(&nodes), None);
        nodes[4_999] = node("n4999", &[(Stage::Create, "n0", Stage::Create)]);
        assert!(cycle(&nodes).unwrap().len() > 5_000);
    }
}
