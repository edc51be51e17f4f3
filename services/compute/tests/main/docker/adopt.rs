//! What was there before the service, or happens behind its back.

use bollard::query_parameters::RemoveContainerOptionsBuilder;
use netloom_model::observed::{ExecPhase, Phase};
use netloom_model::state::Wanted;

use crate::rig::{Rig, connect};

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_service_adopts_what_runs() {
    let Some(mut rig) = Rig::docker("a_restarted_service_adopts_what_runs").await else { return };
    let mut one = rig.instance("r1");
    one.spec.exec = vec!["/bin/sh -c 'echo x >> /count'".into()];
    let gone = rig.instance("r2");
    let before = rig.run(&one).await;
    let gone_before = rig.run(&gone).await;
    rig.settle(&before).await;
    rig.until_node(one.uid, "exec done", |o| o.exec_phase == ExecPhase::Done).await;
    rig.stop().await;
    let docker = connect().await.unwrap();
    let force = RemoveContainerOptionsBuilder::default().force(true).build();
    docker.remove_container(&gone_before.instance_id, Some(force)).await.unwrap();
    let netns = rig.run_dir().join("netns");
    let published = |o: &netloom_model::observed::Observed| netns.join(format!("{}.{}", o.uid, o.start_id));
    assert!(published(&before).exists(), "nodes keep their interfaces while the service is away");

    rig.start().await;
    assert!(!published(&gone_before).exists(), "what an end left is taken away");
    let adopted = rig.until_phase(one.uid, Phase::Running).await;
    assert!(!adopted.wanted && !rig.view.borrow().synced);
    rig.sync(std::slice::from_ref(&one)).await;
    let adopted = rig.until_node(one.uid, "wanted", |o| o.wanted).await;
    assert_eq!((&adopted.instance_id, &adopted.start_id), (&before.instance_id, &before.start_id));
    assert!(published(&before).exists());
    rig.settle(&adopted).await;
    let after = rig.until_node(one.uid, "exec done", |o| o.exec_phase == ExecPhase::Done).await;
    assert_eq!(after.start_id, before.start_id);
    assert_eq!(rig.sh(one.uid, "wc -l < /count").await.0, "1\n", "its commands are not run twice");

    // A new start runs them again.
    docker.restart_container(&before.instance_id, None).await.unwrap();
    let anew = rig
        .until_node(one.uid, "restarted", |o| o.phase == Phase::Running && o.start_id != before.start_id)
        .await;
    assert_eq!(anew.exec_phase, ExecPhase::Waiting);
    rig.settle(&anew).await;
    rig.until_node(one.uid, "exec done", |o| o.exec_phase == ExecPhase::Done).await;
    assert_eq!(rig.sh(one.uid, "wc -l < /count").await.0, "2\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_removed_or_started_behind_our_back_is_mended() {
    let Some(rig) = Rig::docker("what_is_removed_or_started_behind_our_back_is_mended").await else { return };
    let mut one = rig.instance("r1");
    let first = rig.run(&one).await;
    let docker = connect().await.unwrap();
    let force = RemoveContainerOptionsBuilder::default().force(true).build();
    docker.remove_container(&first.instance_id, Some(force)).await.unwrap();
    let other = |o: &netloom_model::observed::Observed| {
        o.phase == Phase::Running && o.instance_id != first.instance_id
    };
    let second = rig.until_node(one.uid, "made anew", other).await;
    one.wanted = Wanted::Stopped;
    rig.ensure(std::slice::from_ref(&one)).await;
    rig.until_phase(one.uid, Phase::Stopped).await;
    docker.start_container(&second.instance_id, None).await.unwrap();
    let seen = second.start_id.clone();
    rig.until_node(one.uid, "stopped again", |o| o.phase == Phase::Stopped && o.start_id != seen).await;
}
