//! Nodes that move to other hosts: what is shown before, what is asked, and how it ends.

use netloom_api::v1 as api;

use crate::fake::{Fake, Script};

fn rejection(host: &str, code: &str, detail: &str) -> api::HostRejection {
    api::HostRejection { host: host.into(), code: code.into(), detail: detail.into(), resolvable: false }
}

/// The move of a node of the lab x, with one that stays.
fn moved() -> api::Operation {
    let action = api::Action {
        verb: api::ActionVerb::Recreate.into(),
        object: "node".into(),
        id: "r1".into(),
        reason: "moves from h1 to h2: what its programs wrote in it is lost".into(),
        host: "h2".into(),
    };
    let stays = api::Unplaced {
        node: "vm".into(),
        rejections: vec![rejection("h1", "DISK_ON_HOST", "has the node's disk")],
    };
    api::Operation {
        name: "operations/1".into(),
        kind: api::OperationKind::Move.into(),
        lab_name: "labs/x".into(),
        state: api::OperationState::Succeeded.into(),
        done: true,
        plan: Some(api::Plan { actions: vec![action], unplaced: vec![stays], ..api::Plan::default() }),
        ..api::Operation::default()
    }
}

const PLAN: &str = "\
-/+ node r1  on h2, moves from h1 to h2: what its programs wrote in it is lost
  ! node vm  stays where it is
           h1: has the node's disk [DISK_ON_HOST]; waiting does not help
Plan: 0 to make, 1 to make anew, 0 to change, 0 to remove, 1 that stay
";

fn whats(fake: &Fake) -> Vec<String> {
    fake.script().calls.iter().map(|c| format!("{} {}", c.method, c.what)).collect()
}

#[tokio::test]
async fn what_moves_is_shown_first_and_nothing_is_lost_unasked() {
    let fake = Fake::start(Script { change: Some(Ok(moved())), ..Script::default() }).await;
    let said = fake.run(&["node", "move", "x", "r1", "--dry-run"]).await.expect(0).out;
    assert_eq!(said, PLAN);
    let said = fake.run(&["node", "move", "x", "r1"]).await.expect(2);
    assert!(said.err.contains("--yes"), "{}", said.err);
    let args = ["node", "move", "x", "r1", "r2", "--to", "h2", "--lose-disks", "--force", "--yes"];
    let said = fake.run(&args).await.expect(0).out;
    assert!(said.starts_with(PLAN) && said.contains("\nMoved 1 node of x in "), "{said}");
    fake.run(&["node", "rebalance", "x", "-y"]).await.expect(0);
    let json = fake.run(&["node", "rebalance", "x", "--dry-run", "--format", "json"]).await.expect(0).out;
    assert!(json.contains("\"unplaced\""), "{json}");
    assert_eq!(
        whats(&fake),
        [
            "MoveNode labs/x/nodes/r1   true false false",
            "MoveNode labs/x/nodes/r1   true false false",
            "MoveNode labs/x/nodes/r1 r2 h2 true true true",
            "MoveNode labs/x/nodes/r1 r2 h2 false true true",
            "RebalanceLab labs/x true false",
            "RebalanceLab labs/x false false",
            "RebalanceLab labs/x true false",
        ]
    );
}

fn host(drain: api::DrainState, staying: &[&str]) -> api::Host {
    let stays = |node: &&str| api::StayingNode {
        node: (*node).to_owned(),
        rejections: vec![rejection("h1", "DISK_ON_HOST", "has the node's disk")],
    };
    api::Host {
        name: "hosts/h1".into(),
        state: api::HostState::Online.into(),
        cordoned: true,
        drain: drain.into(),
        staying: staying.iter().map(stays).collect(),
        node_count: i32::try_from(staying.len()).unwrap(),
        ..api::Host::default()
    }
}

#[tokio::test]
async fn a_drain_ends_when_nothing_is_left_and_fails_with_what_stays() {
    let drain = api::DrainHostResponse { moves: vec![moved()], busy_labs: vec!["labs/y".into()], host: None };
    let hosts = vec![
        api::Host { node_count: 1, ..host(api::DrainState::Draining, &[]) },
        host(api::DrainState::Drained, &[]),
    ];
    let fake = Fake::start(Script { drain, hosts, ..Script::default() }).await;
    let said = fake.run(&["host", "drain", "h1", "--plan"]).await.expect(0).out;
    assert_eq!(said, format!("Lab x\n{PLAN}"));
    fake.run(&["host", "drain", "h1"]).await.expect(2);
    let said = fake.run(&["host", "drain", "h1", "--lose-disks", "--yes"]).await.expect(0);
    assert!(said.out.contains("\nDrained h1 in "), "{}", said.out);
    assert!(said.err.contains("Lab y is being changed: its nodes move when that is over"), "{}", said.err);
    assert_eq!(
        whats(&fake),
        [
            "DrainHost hosts/h1 true false",
            "DrainHost hosts/h1 true false",
            "DrainHost hosts/h1 true true",
            "DrainHost hosts/h1 false true",
            "GetHost hosts/h1",
            "GetHost hosts/h1",
        ]
    );
    let shown = fake.run(&["host", "show", "h1"]).await.expect(0).out;
    assert!(shown.contains("Drain            drained\n"), "{shown}");

    let hosts = vec![host(api::DrainState::Draining, &["labs/x/nodes/vm"])];
    let fake = Fake::start(Script { hosts, ..Script::default() }).await;
    let said = fake.run(&["host", "drain", "h1"]).await.expect(1);
    assert!(said.out.contains("No node is on h1\n"), "nothing is lost, so nothing is asked: {}", said.out);
    let why = "1 node on h1; it goes on being drained";
    assert!(
        said.err.contains(why) && said.err.contains("x/vm stays: h1: has the node's disk [DISK_ON_HOST]"),
        "{}",
        said.err
    );
    let shown = fake.run(&["host", "show", "h1"]).await.expect(0).out;
    assert!(shown.contains("Stays            x/vm: h1: has the node's disk [DISK_ON_HOST]"), "{shown}");
}
