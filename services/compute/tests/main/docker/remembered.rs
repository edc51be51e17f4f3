//! What a restarted service still knows of its nodes.

use netloom_model::observed::{Observed, Phase, StagePoint};
use netloom_model::spec::{RestartPolicy, Stage, StageExec, StageSpec};
use netloom_model::state::Wanted;

use crate::rig::{Rig, rehash};

async fn restarted(rig: &mut Rig, slice: &[netloom_model::slice::Instance]) {
    rig.stop().await;
    rig.start().await;
    rig.sync(slice).await;
    rig.until("synced", |v| v.synced).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stops_restarts_and_ends_are_remembered() {
    let Some(mut rig) = Rig::docker("stops_restarts_and_ends_are_remembered").await else { return };
    let mut nodes =
        [rig.instance("stopped"), rig.instance("restarted"), rig.instance("ended"), rig.instance("gone")];
    for node in &mut nodes[2..] {
        node.spec.cmd = ["/bin/sh", "-c", "exit 5"].map(str::to_owned).to_vec();
    }
    nodes[3].spec.auto_remove = true;
    for node in &mut nodes {
        node.spec.restart_policy = RestartPolicy::Never;
        rehash(node);
    }
    rig.sync(&nodes).await;
    rig.until_phase(nodes[0].uid, Phase::Running).await;
    rig.until_phase(nodes[1].uid, Phase::Running).await;
    nodes[0].wanted = Wanted::Stopped;
    nodes[1].restarts = 7;
    rig.ensure(&nodes).await;
    let stopped = rig.until_phase(nodes[0].uid, Phase::Stopped).await;
    let again =
        rig.until_node(nodes[1].uid, "restarted", |o| o.phase == Phase::Running && o.restarts == 7).await;
    let ended = rig.until_node(nodes[2].uid, "ended", |o| o.phase == Phase::Stopped && o.exited).await;
    let is_gone = |o: &Observed| o.phase == Phase::Stopped && o.instance_id.is_empty() && o.exited;
    rig.until_node(nodes[3].uid, "gone", is_gone).await;

    restarted(&mut rig, &nodes).await;
    let other = rig.instance("other");
    rig.run(&other).await;
    let now = |uid| rig.view.borrow().instances[&uid].clone();
    assert_eq!(
        (now(nodes[0].uid).phase, now(nodes[0].uid).start_id),
        (Phase::Stopped, stopped.start_id.clone())
    );
    assert_eq!((now(nodes[1].uid).restarts, now(nodes[1].uid).start_id), (7, again.start_id));
    let still = now(nodes[2].uid);
    assert_eq!((still.phase, still.exited, still.start_id), (Phase::Stopped, true, ended.start_id));
    assert!(is_gone(&now(nodes[3].uid)), "{:?}", now(nodes[3].uid));
    assert_eq!(now(nodes[3].uid).exit_code, Some(5));

    // What was stopped on demand runs again when that is wanted, though its policy starts nothing by itself and the service was away meanwhile.
    nodes[0].wanted = Wanted::Running;
    restarted(&mut rig, &nodes).await;
    let runs = rig.until_phase(nodes[0].uid, Phase::Running).await;
    assert_eq!((runs.instance_id, runs.exited), (stopped.instance_id, false));
}

#[tokio::test(flavor = "multi_thread")]
async fn stage_commands_are_not_run_twice() {
    let Some(mut rig) = Rig::docker("stage_commands_are_not_run_twice").await else { return };
    let mut one = rig.instance("r1");
    let exec =
        |text: &str, on_exit| StageExec { command: format!("/bin/sh -c 'echo {text} >> /order'"), on_exit };
    one.spec.stages = vec![StageSpec {
        stage: Stage::CreateLinks,
        wait_for: Vec::new(),
        exec: vec![exec("entered", false), exec("left", true)],
    }];
    let points = [false, true].map(|on_exit| StagePoint { stage: Stage::CreateLinks, on_exit });
    let started = rig.run(&one).await;
    rig.reach(&started, &points[..1]).await;
    rig.until_node(one.uid, "entered", |o| o.stages_done == points[..1]).await;
    restarted(&mut rig, std::slice::from_ref(&one)).await;
    // Without being told again it knows where it was.
    rig.until_node(one.uid, "is where it was", |o| o.stages_done == points[..1]).await;
    rig.reach(&started, &points).await;
    rig.until_node(one.uid, "left", |o| o.stages_done == points).await;
    assert_eq!(rig.sh(one.uid, "cat /order").await.0, "entered\nleft\n");
}
