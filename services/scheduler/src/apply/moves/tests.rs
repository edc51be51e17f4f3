use std::sync::LazyLock;

use netloom_model::kind::Catalogue;
use netloom_model::plan::Verb;
use netloom_model::spec::{Endpoint, LabSpec, LinkSpec, NodeSpec};
use netloom_model::state::Runtime;

use super::*;
use crate::place::{Allowed, Room};
use crate::plan::plan;

static CATALOGUE: LazyLock<Catalogue> = LazyLock::new(Catalogue::embedded);

/// Three nodes, of which two are linked.
fn rows() -> LabRows {
    let node =
        |id: &str| NodeSpec { id: id.into(), kind: "linux".into(), image: "i".into(), ..NodeSpec::default() };
    let end = |id: &str| Endpoint { node: id.into(), interface: "eth1".into(), ..Endpoint::default() };
    let spec = LabSpec {
        nodes: vec![node("a"), node("B"), node("c")],
        links: vec![LinkSpec { a: end("a"), b: end("B"), ..LinkSpec::default() }],
        ..LabSpec::default()
    };
    let room = Room {
        host: "h1".parse().unwrap(),
        heard: true,
        runtimes: [Runtime::Docker].into(),
        cpu_millis: 9_000,
        memory_bytes: 9 << 30,
        cpu_reserved: 0,
        memory_reserved: 0,
        disk_bytes: None,
        disk_reserved: 0,
        allowed: Allowed { capabilities: vec!["NET_ADMIN".into(), "SYS_ADMIN".into()], ..Default::default() },
    };
    let ctx = Purpose::Deploy.context(&CATALOGUE, std::slice::from_ref(&room), 1);
    plan(&LabRows::new("lab".parse().unwrap(), 1), &spec, ctx).rows
}

fn blamed(to: &[(&str, &str)], why: &[(&'static str, &str)]) -> Vec<String> {
    let of = |(id, host): &(&str, &str)| Action {
        verb: Verb::Recreate,
        object: Object::Node,
        id: (*id).into(),
        reason: String::new(),
        host: (*host).into(),
    };
    let plan = Plan { actions: to.iter().map(of).collect(), ..Plan::default() };
    let mut failure = Failure::new(Code::FailedPrecondition, "DEPLOY_INCOMPLETE", "why");
    for (key, value) in why {
        failure = failure.with(key, *value);
    }
    at_fault(&plan, &rows(), &failure).into_iter().map(|a| a.id.clone()).collect()
}

#[test]
fn a_slow_link_marks_its_ends_and_a_host_that_refuses_what_went_there() {
    let all = [("a", "h2"), ("B", "h2"), ("c", "h3")];
    let link = rows().links.values().next().unwrap().id.clone();
    assert_eq!(blamed(&all, &[("nodes", ""), ("links", &link)]), ["a", "B"]);
    assert_eq!(blamed(&all[1..], &[("nodes", ""), ("links", &link)]), ["B"], "the other end did not move");
    assert_eq!(blamed(&all, &[("nodes", "b"), ("links", "")]), ["B"]);
    assert_eq!(blamed(&all, &[("lab", "l"), ("host", "h3"), ("service", "compute")]), ["c"]);
    assert_eq!(blamed(&all, &[("lab", "l"), ("host", "h1")]), ["a", "B", "c"], "none of them went there");
    assert_eq!(blamed(&all, &[("nodes", ""), ("links", "")]), ["a", "B", "c"]);
}
