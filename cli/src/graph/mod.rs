//! Pictures of labs. The flow: a [`Graph`] is made of what a topology file asks for or of what the server read back, [`layout`] says where everything
//! goes (pure, and the same for the same graph), [`svg`] draws it; [`text`] writes the graph for other programs to draw.

use std::collections::{BTreeMap, HashMap};

use netloom_api::v1 as api;
use netloom_model::kind::Catalogue;
use netloom_model::spec::{EndpointType, LabSpec};
use netloom_model::state::Runtime;

use crate::output::words::{self, last};

mod free;
mod geometry;
pub mod layout;
mod levels;
pub mod svg;
pub mod text;
mod tiers;

#[cfg(test)]
mod tests;

/// Label of a node that says what it is drawn as: router, switch or host.
const ICON_LABEL: &str = "graph-icon";
/// Label of a node that says which row it is drawn in; the smallest number is the topmost row.
const LEVEL_LABEL: &str = "graph-level";

/// What kinds of switches begin with.
const SWITCHES: [&str; 8] =
    ["ceos", "cvx", "sonic-", "iol-l2", "iosvl2", "cat9000v", "cisco_n9kv", "juniper_vjunosswitch"];
/// Kinds of hosts. All else is a router.
const HOSTS: [&str; 4] = ["linux", "alpine", "windows", "tcl"];

/// A lab as nodes and links.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    /// Name of the lab.
    pub name: String,
    /// True when states were read back.
    pub live: bool,
    /// The nodes.
    pub nodes: Vec<Node>,
    /// The links.
    pub links: Vec<Link>,
}

/// A node.
#[derive(Debug, Clone)]
pub struct Node {
    /// Its id.
    pub id: String,
    /// Its kind.
    pub kind: String,
    /// What it is drawn as.
    pub role: Role,
    /// The row asked for.
    pub level: Option<i64>,
    /// Its state's word; empty when it was not read back.
    pub state: String,
    /// Why the state is what it is.
    pub reason: String,
}

/// What a node is drawn as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// It forwards packets.
    Router,
    /// It forwards frames.
    Switch,
    /// It is where packets come from and go to.
    Host,
    /// It is no node of the lab: the host that the lab runs on, its management network, or nothing.
    Outside,
}

impl Role {
    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            Role::Router => "router",
            Role::Switch => "switch",
            Role::Host => "host",
            Role::Outside => "outside",
        }
    }

    /// From the node's label when it has one, else from what runs it, its kind and its name.
    fn of(id: &str, kind: &str, is_bridge: bool, label: Option<&String>) -> Role {
        match label.map(String::as_str) {
            Some("router") => return Role::Router,
            Some("switch") => return Role::Switch,
            Some("host" | "server" | "client") => return Role::Host,
            _ => {}
        }
        let is_called = |names: &[&str]| names.iter().any(|n| id.to_lowercase().starts_with(n));
        let is_switch = is_bridge || SWITCHES.iter().any(|k| kind.starts_with(k));
        // A kind that may be anything is what its name says; a router stays one wherever it stands.
        let may_be_any = HOSTS.contains(&kind);
        if is_switch || may_be_any && is_called(&["sw", "spine", "leaf", "tor"]) {
            Role::Switch
        } else if may_be_any {
            Role::Host
        } else {
            Role::Router
        }
    }
}

/// A link.
#[derive(Debug, Clone)]
pub struct Link {
    /// One end.
    pub a: End,
    /// The other end.
    pub b: End,
    /// Its state's word; empty when it was not read back.
    pub state: String,
    /// What it does to frames, in words; empty when nothing.
    pub impairment: String,
}

/// One end of a link.
#[derive(Debug, Clone)]
pub struct End {
    /// Which node.
    pub node: usize,
    /// Its interface.
    pub interface: String,
}

fn level(labels: Option<&BTreeMap<String, String>>) -> Option<i64> {
    labels?.get(LEVEL_LABEL)?.trim().parse().ok()
}

impl Graph {
    /// What a topology file asks for.
    pub fn of_spec(name: &str, spec: &LabSpec, catalogue: &Catalogue) -> Graph {
        let nodes: Vec<Node> = spec
            .nodes
            .iter()
            .map(|n| {
                let is_bridge = catalogue.get(&n.kind).is_some_and(|k| k.runtime == Runtime::Bridge);
                Node {
                    role: Role::of(&n.id, &n.kind, is_bridge, n.labels.get(ICON_LABEL)),
                    level: level(Some(&n.labels)),
                    id: n.id.clone(),
                    kind: n.kind.clone(),
                    state: String::new(),
                    reason: String::new(),
                }
            })
            .collect();
        let end = |e: &netloom_model::spec::Endpoint| NamedEnd {
            outside: e.kind.word(),
            node: e.node.clone(),
            interface: e.interface.clone(),
        };
        let ends = spec.links.iter().map(|l| Drawn {
            a: end(&l.a),
            b: end(&l.b),
            state: String::new(),
            impairment: words::both_ways(
                (&l.a.node, &l.b.node),
                &l.a_to_b.to_string(),
                &l.b_to_a.to_string(),
            ),
        });
        Graph::assemble(name, false, nodes, ends)
    }

    /// What the server read back.
    pub fn of_lab(lab: &api::Lab, nodes: &[api::Node], links: &[api::Link]) -> Graph {
        let labels: HashMap<&str, BTreeMap<String, String>> = lab
            .spec
            .iter()
            .flat_map(|s| &s.nodes)
            .map(|n| (n.id.as_str(), n.labels.clone().into_iter().collect()))
            .collect();
        let nodes: Vec<Node> = nodes
            .iter()
            .map(|n| {
                let id = last(&n.name);
                let labels = labels.get(id);
                let is_bridge = n.runtime() == api::Runtime::Bridge;
                Node {
                    id: id.to_owned(),
                    kind: n.kind.clone(),
                    role: Role::of(id, &n.kind, is_bridge, labels.and_then(|l| l.get(ICON_LABEL))),
                    level: level(labels),
                    state: words::node_state(n.state()).to_owned(),
                    reason: n.state_reason.clone(),
                }
            })
            .collect();
        let end = |e: &api::Endpoint| NamedEnd {
            outside: match e.r#type() {
                api::EndpointType::Unspecified => None,
                api::EndpointType::Host => EndpointType::Host.word(),
                api::EndpointType::MgmtNet => EndpointType::MgmtNet.word(),
                api::EndpointType::Dummy => EndpointType::Dummy.word(),
            },
            node: e.node.clone(),
            interface: e.interface.clone(),
        };
        let ends = links.iter().filter_map(|l| {
            let (a, b, (there, back)) = (l.a.as_ref()?, l.b.as_ref()?, words::ways(l));
            Some(Drawn {
                a: end(a),
                b: end(b),
                state: words::link_state(l.state()).to_owned(),
                impairment: words::both_ways((&a.node, &b.node), &there, &back),
            })
        });
        Graph::assemble(last(&lab.name), true, nodes, ends)
    }

    /// In natural order, so that the picture does not depend on the order of a file or of an answer. What links end in that is no node is drawn as one:
    /// the host and the management network once, nothing once for each link that ends in it.
    fn assemble(name: &str, live: bool, mut nodes: Vec<Node>, drawn: impl Iterator<Item = Drawn>) -> Graph {
        nodes.sort_by_cached_key(|n| words::natural(&n.id));
        let by_id: HashMap<String, usize> =
            nodes.iter().enumerate().map(|(i, n)| (n.id.clone(), i)).collect();
        let mut outside: HashMap<&'static str, usize> = HashMap::new();
        let mut place = |end: NamedEnd| -> Option<End> {
            let NamedEnd { outside: word, node, interface } = end;
            let mut add = |word: &str| {
                nodes.push(Node {
                    id: word.to_owned(),
                    kind: "outside the lab".to_owned(),
                    role: Role::Outside,
                    level: None,
                    state: String::new(),
                    reason: String::new(),
                });
                nodes.len() - 1
            };
            let number = match word {
                None => *by_id.get(&node)?,
                Some(word) if Some(word) == EndpointType::Dummy.word() => add(word),
                Some(word) => *outside.entry(word).or_insert_with(|| add(word)),
            };
            Some(End { node: number, interface })
        };
        let mut links: Vec<Link> = Vec::new();
        for Drawn { a, b, state, impairment } in drawn {
            let (Some(mut a), Some(mut b)) = (place(a), place(b)) else { continue };
            if b.node < a.node {
                std::mem::swap(&mut a, &mut b);
            }
            links.push(Link { a, b, state, impairment });
        }
        links.sort_by_cached_key(|l| {
            (l.a.node, l.b.node, words::natural(&l.a.interface), words::natural(&l.b.interface))
        });
        Graph { name: name.to_owned(), live, nodes, links }
    }
}

/// A link whose ends are named.
struct Drawn {
    a: NamedEnd,
    b: NamedEnd,
    state: String,
    impairment: String,
}

/// An end of a link, by name.
struct NamedEnd {
    /// The word of what is no node of the lab.
    outside: Option<&'static str>,
    node: String,
    interface: String,
}
