//! destroy.

use netloom_api::v1 as api;
use netloom_model::Code;

use crate::fake::{Fake, Script, refused};

fn removal(done: bool) -> api::Operation {
    let state = if done { api::OperationState::Succeeded } else { api::OperationState::Running };
    api::Operation {
        name: "operations/2".into(),
        kind: api::OperationKind::Destroy.into(),
        lab_name: "labs/x".into(),
        state: state.into(),
        done,
        progress: vec![api::Progress {
            object: "node".into(),
            id: "a".into(),
            state: if done { "GONE".into() } else { "STOPPING".into() },
            detail: String::new(),
            boot: None,
        }],
        ..api::Operation::default()
    }
}

fn lab(name: &str, operation: &str) -> api::Lab {
    api::Lab { name: format!("labs/{name}"), operation: operation.into(), ..api::Lab::default() }
}

#[tokio::test]
async fn a_lab_is_removed_and_waited_for() {
    let fake = Fake::start(Script {
        labs: vec![lab("x", "")],
        deletes: vec![Ok(removal(false))],
        watches: vec![(vec![removal(true)], None)],
        ..Script::default()
    })
    .await;
    let ended = fake.run(&["destroy", "x"]).await.expect(0);
    assert!(
        ended.out.contains("node a  STOPPING\n") && ended.out.contains("node a  GONE\n"),
        "{}",
        ended.out
    );
    assert!(ended.out.lines().last().unwrap().starts_with("Removed x in "), "{}", ended.out);
}

#[tokio::test]
async fn a_lab_that_does_not_exist_is_told() {
    let fake = Fake::start(Script::default()).await;
    let ended = fake.run(&["destroy", "x", "--yes"]).await.expect(4);
    assert!(ended.err.contains("LAB_NOT_FOUND"), "{}", ended.err);
    assert!(!fake.methods().contains(&"DeleteLab"));
}

#[tokio::test]
async fn all_labs_are_only_removed_when_somebody_said_so() {
    let fake = Fake::start(Script {
        labs: vec![lab("x", ""), lab("y", "")],
        deletes: vec![Ok(removal(true))],
        ..Script::default()
    })
    .await;
    let refused = fake.run(&["destroy", "--all"]).await.expect(2);
    assert!(refused.err.contains("--yes"), "{}", refused.err);
    assert!(fake.methods().is_empty());
    fake.run(&["destroy", "--all", "--yes"]).await.expect(0);
    let removed: Vec<String> =
        fake.script().calls.iter().filter(|c| c.method == "DeleteLab").map(|c| c.what.clone()).collect();
    assert_eq!(removed, ["labs/x", "labs/y"]);
}

#[tokio::test]
async fn a_deploy_under_way_is_cancelled_first() {
    let active = || Err(refused(Code::FailedPrecondition, "OPERATION_ACTIVE", "operations/1 is at work"));
    let deploy = api::Operation {
        name: "operations/1".into(),
        kind: api::OperationKind::Deploy.into(),
        lab_name: "labs/x".into(),
        ..api::Operation::default()
    };
    let cancelled =
        api::Operation { state: api::OperationState::Cancelled.into(), done: true, ..deploy.clone() };
    let fake = Fake::start(Script {
        labs: vec![lab("x", "operations/1")],
        deletes: vec![active(), Ok(removal(true))],
        operation: Some(deploy),
        watches: vec![(vec![cancelled], None)],
        ..Script::default()
    })
    .await;
    let ended = fake.run(&["destroy", "x"]).await.expect(0);
    assert!(ended.out.starts_with("Cancels the deploy of x"), "{}", ended.out);
    let methods = fake.methods();
    let expected =
        ["GetLab", "DeleteLab", "GetLab", "GetOperation", "CancelOperation", "WatchOperation", "DeleteLab"];
    assert_eq!(methods, expected);
}

#[tokio::test]
async fn a_removal_under_way_is_joined() {
    let fake = Fake::start(Script {
        labs: vec![lab("x", "operations/2")],
        deletes: vec![Err(refused(Code::FailedPrecondition, "OPERATION_ACTIVE", "operations/2 is at work"))],
        operation: Some(removal(false)),
        watches: vec![(vec![removal(true)], None)],
        ..Script::default()
    })
    .await;
    fake.run(&["destroy", "x"]).await.expect(0);
    assert!(!fake.methods().contains(&"CancelOperation"));
}
