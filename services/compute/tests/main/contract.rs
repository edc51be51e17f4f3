//! What every driver passes.

use std::time::Duration;

use netloom_model::id::NodeUid;
use netloom_model::observed::{ExecPhase, Observed, Phase};
use netloom_model::slice::{Instance, wiped_hash};
use netloom_model::spec::{PullPolicy, RestartPolicy};
use netloom_model::state::Wanted;
use netloom_proto::compute::v1 as p;
use netloom_proto::v1 as pv;
use netloom_service::status::from_status;
use tonic::Code;

use crate::rig::{Rig, file, rehash};

suite!(
    ensure_runs_it_and_said_again_does_nothing,
    nothing_happens_before_the_first_sync,
    another_spec_makes_it_anew,
    a_wipe_throws_away_what_was_written,
    what_a_container_can_change_does_not,
    remove_answers_when_it_is_gone,
    sync_leaves_alone_what_it_does_not_name,
    a_stale_term_is_refused_also_after_a_restart,
    what_was_decided_before_a_removal_does_not_come_after_it,
    stop_and_start_go_by_wish_not_by_policy,
    what_is_set_aside_makes_way_and_is_the_same_when_it_is_back,
    what_is_set_aside_is_removed_like_anything_else,
    an_end_is_answered_with_a_pause_and_counted,
    a_policy_of_never_leaves_it_stopped,
    exec_commands_run_once_after_settle,
    a_failing_command_is_told_and_the_rest_runs,
    a_missing_image_is_told_and_tried_again,
    many_come_and_go_together,
    an_observer_gets_all_then_changes_and_heartbeats,
    images_are_looked_up_and_pulled,
    files_are_put_once_and_edits_stay,
);

async fn ensure_runs_it_and_said_again_does_nothing(rig: Rig) {
    let one = rig.instance("r1");
    let first = rig.run(&one).await;
    assert!(first.wanted);
    assert!(!first.start_id.is_empty() && first.start_id.bytes().all(|b| b.is_ascii_alphanumeric()));
    assert_eq!((first.spec_hash.as_str(), first.lab_uid), (one.spec_hash.as_str(), rig.lab_uid));
    assert!(first.start_time_us > 0 && first.image_digest.starts_with("sha256:"));
    assert_eq!((first.exec_phase, first.restart_count, first.exit_code), (ExecPhase::Waiting, 0, None));
    rig.ensure(std::slice::from_ref(&one)).await;
    // Steps are taken in order of their coming: once a later one is done, an earlier one would be too.
    let other = rig.instance("r2");
    rig.ensure(&[one.clone(), other.clone()]).await;
    rig.until_phase(other.uid, Phase::Running).await;
    assert_eq!(rig.view.borrow().instances[&one.uid], first);
}

async fn nothing_happens_before_the_first_sync(rig: Rig) {
    let one = rig.instance("r1");
    rig.ensure(std::slice::from_ref(&one)).await;
    rig.until_phase(one.uid, Phase::Absent).await;
    let request =
        p::RemoveRequest { term: 1, uids: vec![one.uid.to_string()], ..p::RemoveRequest::default() };
    let refused = rig.client.clone().remove(request).await.unwrap_err();
    assert_eq!(from_status(&refused).reason, "NOT_SYNCED");
    assert!(!rig.view.borrow().synced);
    rig.sync(std::slice::from_ref(&one)).await;
    rig.until_phase(one.uid, Phase::Running).await;
    rig.until("synced", |v| v.synced).await;
}

async fn another_spec_makes_it_anew(rig: Rig) {
    let mut one = rig.instance("r1");
    let first = rig.run(&one).await;
    one.spec.env.insert("A".into(), "b".into());
    rehash(&mut one);
    rig.ensure(std::slice::from_ref(&one)).await;
    let hash = one.spec_hash.clone();
    let second =
        rig.until_node(one.uid, "runs anew", |o| o.phase == Phase::Running && o.spec_hash == hash).await;
    assert_ne!(second.start_id, first.start_id);
    assert_eq!(second.restart_count, 0, "to be made anew is no restart");
}

async fn a_wipe_throws_away_what_was_written(rig: Rig) {
    let mut one = rig.instance("r1");
    let first = rig.run(&one).await;
    rig.mark(&one).await;
    // As the scheduler says it.
    let hash = one.spec_hash.clone();
    let wipe = |one: &mut Instance| {
        (one.wipes, one.restarts) = (one.wipes + 1, one.restarts + 1);
        one.spec_hash = wiped_hash(&hash, one.wipes);
    };
    wipe(&mut one);
    rig.ensure(std::slice::from_ref(&one)).await;
    let asked = one.clone();
    let anew = |o: &Observed| {
        o.phase == Phase::Running && o.spec_hash == asked.spec_hash && o.restarts == asked.restarts
    };
    let second = rig.until_node(one.uid, "runs anew", anew).await;
    assert_ne!((&second.instance_id, &second.start_id), (&first.instance_id, &first.start_id));
    assert_eq!(second.restart_count, 0, "it is no restart by itself");
    rig.expect_mark(&one, false).await;
    // One that is stopped is not there until it is started.
    one.wanted = Wanted::Stopped;
    rig.ensure(std::slice::from_ref(&one)).await;
    rig.until_phase(one.uid, Phase::Stopped).await;
    wipe(&mut one);
    rig.ensure(std::slice::from_ref(&one)).await;
    rig.until_phase(one.uid, Phase::Absent).await;
    one.wanted = Wanted::Running;
    rig.ensure(std::slice::from_ref(&one)).await;
    rig.until_phase(one.uid, Phase::Running).await;
}

async fn what_a_container_can_change_does_not(rig: Rig) {
    let mut one = rig.instance("r1");
    let first = rig.run(&one).await;
    let before = one.spec_hash.clone();
    one.interfaces = vec!["eth1".into()];
    one.spec.exec = vec!["true".into()];
    one.spec.image_pull_policy = PullPolicy::Never;
    rehash(&mut one);
    assert_eq!(one.spec_hash, before);
    let other = rig.instance("r2");
    rig.ensure(&[one.clone(), other.clone()]).await;
    rig.until_phase(other.uid, Phase::Running).await;
    assert_eq!(rig.view.borrow().instances[&one.uid].start_id, first.start_id);
}

async fn remove_answers_when_it_is_gone(rig: Rig) {
    let one = rig.instance("r1");
    rig.run(&one).await;
    assert!(rig.remove(&[one.uid], &[rig.lab_uid]).await.is_empty());
    rig.until("gone", |v| !v.instances.contains_key(&one.uid)).await;
    assert!(rig.remove(&[one.uid], &[rig.lab_uid]).await.is_empty(), "said again it does nothing");
    assert!(!rig.data_dir().join("labs").join(rig.lab_uid.to_string()).exists());
}

async fn sync_leaves_alone_what_it_does_not_name(rig: Rig) {
    let (one, two) = (rig.instance("r1"), rig.instance("r2"));
    rig.run(&one).await;
    let before = rig.run(&two).await;
    rig.sync(std::slice::from_ref(&one)).await;
    let left = rig.until_node(two.uid, "not wanted", |o| !o.wanted).await;
    assert_eq!((left.phase, left.start_id), (Phase::Running, before.start_id));
    assert!(rig.remove(&[two.uid], &[]).await.is_empty());
    rig.until("gone", |v| !v.instances.contains_key(&two.uid)).await;
    assert!(rig.view.borrow().instances[&one.uid].wanted);
}

async fn a_stale_term_is_refused_also_after_a_restart(mut rig: Rig) {
    rig.try_sync(7, &[]).await.unwrap();
    for _ in 0..2 {
        let refused = rig.try_sync(6, &[]).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition);
        assert_eq!(from_status(&refused).reason, "STALE_TERM");
        let ensure =
            rig.client.clone().ensure(p::EnsureRequest { term: 6, ..p::EnsureRequest::default() }).await;
        assert_eq!(from_status(&ensure.unwrap_err()).reason, "STALE_TERM");
        rig.stop().await;
        rig.start().await;
    }
    rig.try_sync(7, &[]).await.unwrap();
}

async fn what_was_decided_before_a_removal_does_not_come_after_it(rig: Rig) {
    let (one, two) = (rig.instance("r1"), rig.instance("r2"));
    let ensure = |instance: &Instance, decision| p::EnsureRequest {
        term: 1,
        instances: vec![instance.clone().into()],
        decision,
        ..p::EnsureRequest::default()
    };
    let mut client = rig.client.clone();
    rig.run(&one).await;
    let uids = vec![one.uid.to_string()];
    client.remove(p::RemoveRequest { term: 1, uids, decision: 4, ..Default::default() }).await.unwrap();
    let late = client.ensure(ensure(&one, 3)).await.unwrap_err();
    assert_eq!(from_status(&late).reason, "OVERTAKEN");
    let instances = vec![one.clone().into()];
    let sync = p::SyncRequest { term: 1, instances, decision: 3, ..Default::default() };
    assert_eq!(from_status(&client.sync(sync).await.unwrap_err()).reason, "OVERTAKEN");
    client.ensure(ensure(&two, 3)).await.unwrap();
    rig.until_phase(two.uid, Phase::Running).await;
    assert!(!rig.view.borrow().instances.contains_key(&one.uid), "it is not made anew");
}

async fn stop_and_start_go_by_wish_not_by_policy(rig: Rig) {
    let mut one = rig.instance("r1");
    one.spec.restart_policy = RestartPolicy::Never;
    let first = rig.run(&one).await;
    one.wanted = Wanted::Stopped;
    rig.ensure(std::slice::from_ref(&one)).await;
    let stopped = rig.until_phase(one.uid, Phase::Stopped).await;
    assert_eq!(stopped.instance_id, first.instance_id, "its disk stays");
    one.wanted = Wanted::Running;
    rig.ensure(std::slice::from_ref(&one)).await;
    let again = rig.until_phase(one.uid, Phase::Running).await;
    assert_ne!(again.start_id, first.start_id);
    assert_eq!((again.restart_count, again.instance_id), (0, first.instance_id));
}

async fn what_is_set_aside_makes_way_and_is_the_same_when_it_is_back(mut rig: Rig) {
    let mut one = rig.instance("r1");
    one.spec.restart_policy = RestartPolicy::Always;
    let first = rig.run(&one).await;
    rig.mark(&one).await;
    one.wanted = Wanted::Aside;
    rig.ensure(std::slice::from_ref(&one)).await;
    let aside = rig.until_phase(one.uid, Phase::Aside).await;
    assert_eq!((&aside.instance_id, aside.detail.as_str()), (&first.instance_id, ""));
    if rig.is_docker || rig.has_machines() {
        // What was said of it is forgotten; what it is, is not.
        rig.stop().await;
        rig.start().await;
        rig.sync(&[]).await;
        rig.until_node(one.uid, "aside, unasked", |o| o.phase == Phase::Aside && !o.wanted).await;
    }
    // Another one has its name.
    let two = Instance { uid: NodeUid::new(), wanted: Wanted::Running, ..one.clone() };
    rig.ensure(std::slice::from_ref(&one)).await;
    let other = rig.run(&two).await;
    assert_ne!(other.instance_id, first.instance_id);
    assert_eq!(rig.view.borrow().instances[&one.uid].phase, Phase::Aside);
    // It waits until that is gone.
    one.wanted = Wanted::Running;
    rig.ensure(std::slice::from_ref(&one)).await;
    rig.until_node(one.uid, "waits", |o| o.phase == Phase::Starting && o.detail.starts_with("waits until"))
        .await;
    assert!(rig.remove(&[two.uid], &[]).await.is_empty());
    let back = rig.until_phase(one.uid, Phase::Running).await;
    assert_eq!((&back.instance_id, back.restart_count), (&first.instance_id, 0));
    assert_ne!(back.start_id, first.start_id);
    rig.expect_mark(&one, true).await;
}

async fn what_is_set_aside_is_removed_like_anything_else(rig: Rig) {
    let mut one = rig.instance("r1");
    rig.run(&one).await;
    one.wanted = Wanted::Aside;
    rig.ensure(std::slice::from_ref(&one)).await;
    rig.until_phase(one.uid, Phase::Aside).await;
    assert!(rig.remove(&[one.uid], &[rig.lab_uid]).await.is_empty());
    rig.until("gone", |v| !v.instances.contains_key(&one.uid)).await;
    // Of what is not there, nothing is to be set aside; nor is it made for that.
    let mut never = rig.instance("r2");
    never.wanted = Wanted::Aside;
    let other = rig.instance("r3");
    rig.ensure(&[never.clone(), other.clone()]).await;
    rig.until_phase(other.uid, Phase::Running).await;
    assert_eq!(rig.view.borrow().instances[&never.uid].phase, Phase::Absent);
}

async fn an_end_is_answered_with_a_pause_and_counted(rig: Rig) {
    let (one, code) = rig.short_lived("r1", RestartPolicy::Always);
    let first = rig.run(&one).await;
    let has_ended = |o: &Observed| o.phase == Phase::Starting && o.exit_code.is_some();
    let ended = rig.until_node(one.uid, "ended", has_ended).await;
    assert_eq!(ended.exit_code, Some(code));
    let told = format!("exited with {code}; starts again in 1 s");
    assert!(ended.detail.starts_with(&told), "{}", ended.detail);
    let second =
        rig.until_node(one.uid, "started again", |o| o.phase == Phase::Running && o.restart_count == 1).await;
    assert_ne!(second.start_id, first.start_id);
    assert!(second.start_time_us - ended.start_time_us >= 1_000_000, "the pause was kept");
    let detail = |o: &netloom_model::observed::Observed| o.detail.contains("starts again in 2 s");
    rig.until_node(one.uid, "a longer pause", detail).await;
}

async fn a_policy_of_never_leaves_it_stopped(rig: Rig) {
    let (one, code) = rig.short_lived("r1", RestartPolicy::Never);
    rig.run(&one).await;
    let stopped = rig.until_phase(one.uid, Phase::Stopped).await;
    assert_eq!((stopped.exit_code, stopped.detail), (Some(code), format!("ended with exit code {code}")));
    let stopped = rig.view.borrow().instances[&one.uid].clone();
    assert_eq!((stopped.exec_phase, stopped.restart_count), (ExecPhase::None, 0));
    // Asked for again, it is left as it ended; so is one that did its work.
    let (mut done, _) = rig.short_lived("r2", RestartPolicy::OnFailure);
    if let Some(script) = done.spec.cmd.last_mut() {
        *script = "sleep 0.3".into();
    }
    done.spec.labels.insert("sim.exit-code".into(), "0".into());
    rehash(&mut done);
    rig.ensure(&[one.clone(), done.clone()]).await;
    let done = rig.until_phase(done.uid, Phase::Stopped).await;
    assert_eq!((done.exit_code, done.detail.as_str()), (Some(0), "ended with exit code 0"));
    assert_eq!(rig.view.borrow().instances[&one.uid], stopped);
}

async fn exec_commands_run_once_after_settle(rig: Rig) {
    let mut one = rig.commanded("r1");
    one.spec.exec = vec![rig.leaves("x"), rig.leaves("y")];
    let started = rig.run(&one).await;
    assert_eq!(started.exec_phase, ExecPhase::Waiting);
    let mut other = started.clone();
    other.start_id = "1".into();
    rig.settle(&other).await;
    rig.settle(&started).await;
    rig.settle(&started).await;
    rig.until_node(one.uid, "exec done", |o| o.exec_phase == ExecPhase::Done).await;
    rig.settle(&started).await;
    // None to run is done as soon as the links are.
    let plain = rig.instance("r2");
    let plain_start = rig.run(&plain).await;
    rig.settle(&plain_start).await;
    rig.until_node(plain.uid, "exec done", |o| o.exec_phase == ExecPhase::Done).await;
    rig.expect_left(&one, &["x", "y"]).await;
}

async fn a_failing_command_is_told_and_the_rest_runs(rig: Rig) {
    let mut one = rig.commanded("r1");
    one.spec.exec = vec![rig.fails().into(), rig.leaves("after"), "\"open".into()];
    one.spec.labels.insert("sim.fail-exec".into(), "/bin/sh -c exit 1".into());
    rehash(&mut one);
    let started = rig.run(&one).await;
    rig.settle(&started).await;
    let failed = rig.until_node(one.uid, "exec failed", |o| o.exec_phase == ExecPhase::Failed).await;
    assert!(failed.exec_error.contains("; \"\"open\" cannot be split"), "{}", failed.exec_error);
    let told = format!("2 exec commands failed: \"{}\" exited with 1", rig.fails());
    assert!(failed.exec_error.starts_with(&told), "{}", failed.exec_error);
    assert_eq!(failed.phase, Phase::Running);
    rig.expect_left(&one, &["after"]).await;
}

async fn a_missing_image_is_told_and_tried_again(rig: Rig) {
    let mut one = rig.instance("r1");
    one.spec.image = "netloom/none:missing".into();
    rehash(&mut one);
    rig.sync(std::slice::from_ref(&one)).await;
    let failed = rig.until_phase(one.uid, Phase::Failed).await;
    assert!(failed.detail.contains("\"netloom/none:missing\" is not on this host"), "{}", failed.detail);
    // Another spec is tried at once, whatever the pause.
    one.spec.image = rig.image();
    rehash(&mut one);
    rig.ensure(std::slice::from_ref(&one)).await;
    rig.until_phase(one.uid, Phase::Running).await;
}

async fn many_come_and_go_together(rig: Rig) {
    // A machine takes more than a process.
    let count = if rig.libvirtd.is_some() { 4 } else { 12 };
    let many: Vec<_> = (0..count).map(|n| rig.instance(&format!("r{n}"))).collect();
    rig.sync(&many).await;
    rig.until("all run", |v| {
        many.iter().all(|i| v.instances.get(&i.uid).is_some_and(|o| o.phase == Phase::Running))
    })
    .await;
    assert!(rig.remove(&[], &[rig.lab_uid]).await.is_empty());
    rig.until("all gone", |v| v.instances.is_empty()).await;
}

async fn an_observer_gets_all_then_changes_and_heartbeats(rig: Rig) {
    use p::observe_response::Event;
    let one = rig.instance("r1");
    rig.run(&one).await;
    let mut late = rig.client.clone().observe(p::ObserveRequest {}).await.unwrap().into_inner();
    let first = late.message().await.unwrap().unwrap().event.unwrap();
    let Event::Snapshot(snapshot) = first else { panic!("not a snapshot first: {first:?}") };
    assert!(snapshot.synced);
    assert_eq!(snapshot.instances.len(), 1);
    assert_eq!(snapshot.instances[0].uid, one.uid.to_string());
    let inventory = snapshot.inventory.unwrap();
    assert!(inventory.cpu_millis >= 1000 && inventory.memory_bytes > 0);
    assert!(inventory.runtimes.contains(&pv::Runtime::from(rig.runtime()).into()));
    let expected = match (rig.is_docker, rig.libvirtd) {
        (true, _) => "Docker ",
        (false, Some(_)) => "libvirt ",
        (false, None) => "sim",
    };
    assert!(inventory.runtime_versions[0].starts_with(expected), "{:?}", inventory.runtime_versions);
    let two = rig.instance("r2");
    rig.ensure(std::slice::from_ref(&two)).await;
    let (mut changed, mut beats) = (false, 0);
    while !changed || beats < 2 {
        let next = tokio::time::timeout(Duration::from_secs(30), late.message())
            .await
            .expect("a heartbeat each second");
        match next.unwrap().unwrap().event.unwrap() {
            Event::Changed(o) => changed |= o.uid == two.uid.to_string() && o.phase() == p::Phase::Running,
            Event::Heartbeat(_) => beats += 1,
            other => panic!("not expected: {other:?}"),
        }
    }
}

async fn images_are_looked_up_and_pulled(rig: Rig) {
    // Nothing listens on port 1, so this registry refuses at once. Disks of machines come from the store only.
    let missing = "127.0.0.1:1/netloom/none:missing";
    let query = |reference: &str| p::ImageQuery {
        reference: reference.into(),
        runtime: pv::Runtime::from(rig.runtime()).into(),
        digest: String::new(),
    };
    let request = p::InspectImagesRequest { images: vec![query(&rig.image()), query(missing)] };
    let images = rig.client.clone().inspect_images(request).await.unwrap().into_inner().images;
    assert!(images[0].present && images[0].digest.starts_with("sha256:") && images[0].size_bytes > 0);
    // A disk does not say what processor it is for.
    let expected = match rig.has_machines() {
        true => (pv::ImageFormat::Raw, true),
        false => (pv::ImageFormat::Docker, false),
    };
    assert_eq!((images[0].format(), images[0].architecture.is_empty()), expected);
    assert_eq!((images[1].present, images[1].reference.as_str()), (false, missing));
    let pull = p::PullImageRequest {
        term: 1,
        reference: missing.into(),
        runtime: pv::Runtime::from(rig.runtime()).into(),
        stored: None,
    };
    let pulled = async {
        let mut progress = rig.client.clone().pull_image(pull).await?.into_inner();
        while progress.message().await?.is_some() {}
        Ok(())
    };
    let failure = from_status(&pulled.await.expect_err("nobody has it"));
    assert_eq!(failure.reason, "PULL_FAILED");
    assert!(failure.message.contains(missing), "{}", failure.message);
}

async fn files_are_put_once_and_edits_stay(rig: Rig) {
    let put = async |path: &str, content: &[u8]| {
        let entry = file(path, content);
        let part = |content: &[u8]| p::PutFilesRequest {
            lab_uid: rig.lab_uid.to_string(),
            file: Some(entry.clone().into()),
            content: content.to_vec(),
            term: 1,
            deploys: 0,
        };
        let half = content.len() / 2;
        let parts = [part(&content[..half]), part(&content[half..])];
        rig.client.clone().put_files(tokio_stream::iter(parts)).await.map(|r| r.into_inner().written)
    };
    assert_eq!(put("r1/conf", b"one").await.unwrap(), 1);
    assert_eq!(put("r1/empty", b"").await.unwrap(), 1);
    let path = rig.data_dir().join("labs").join(rig.lab_uid.to_string()).join("files/r1/conf");
    std::fs::write(&path, "edited").unwrap();
    assert_eq!(put("r1/conf", b"one").await.unwrap(), 0);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "edited");
    assert_eq!(put("r1/conf", b"two").await.unwrap(), 1);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "two");
    assert_eq!(put("../x", b"no").await.unwrap_err().code(), Code::InvalidArgument);
}
