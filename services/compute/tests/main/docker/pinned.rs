//! A container is made from the image that was judged, whatever its name has come to mean.

use std::io::Write as _;
use std::process::{Command, Stdio};

use bollard::query_parameters::{
    RemoveContainerOptionsBuilder, RemoveImageOptionsBuilder, TagImageOptionsBuilder,
};
use netloom_model::observed::{NEEDS_IMAGE, Observed, Phase};

use super::image::NAME;
use crate::rig::{Rig, Undo, connect};

/// Builds an image of this name, which tells itself from others; its id.
fn build(name: &str, which: &str) -> String {
    let mut build = Command::new("docker");
    build
        .args(["build", "--quiet", "--tag", name, "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut build = build.spawn().unwrap();
    let text = format!("FROM {NAME}\nENV WHICH={which}\n");
    build.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let built = build.wait_with_output().unwrap();
    assert!(built.status.success());
    String::from_utf8(built.stdout).unwrap().trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_is_made_from_what_was_judged_whatever_its_name_means_by_now() {
    let test = "a_container_is_made_from_what_was_judged_whatever_its_name_means_by_now";
    let Some(rig) = Rig::docker(test).await else { return };
    let docker = connect().await.unwrap();
    let (repo, tag) = (format!("netloom-test/pinned-{}", rig.lab), "1");
    let name = format!("{repo}:{tag}");
    let judged = build(&name, "judged");
    let other = build(&name, "other");
    let images = [judged.clone(), other.clone()];
    let _undo = Undo::new(move || {
        let remove = |id: &String| Command::new("docker").args(["image", "rm", "-f", id]).output();
        images.iter().for_each(|id| drop(remove(id)));
    });
    let pinned = |node: &str| {
        let mut one = rig.instance(node);
        one.spec.image = name.clone();
        one.image_digest = judged.clone();
        one
    };
    let made_from = async |o: &Observed| {
        let made = docker.inspect_container(&o.instance_id, None).await.unwrap();
        made.config.unwrap().image.unwrap()
    };

    // Somebody built anew under the same name after the verdict.
    let one = pinned("r1");
    let first = rig.run(&one).await;
    assert_eq!(rig.sh(one.uid, "echo $WHICH").await.0, "judged\n");
    assert_eq!(first.image_digest, judged);
    assert_eq!(made_from(&first).await, judged, "its name would say another");

    // As long as the name is right, people are shown it.
    let to = TagImageOptionsBuilder::default().repo(&repo).tag(tag).build();
    docker.tag_image(&judged, Some(to)).await.unwrap();
    let two = pinned("r2");
    let second = rig.run(&two).await;
    assert_eq!((made_from(&second).await, &second.image_digest), (name.clone(), &judged));

    // Made anew when somebody has removed it, it is the same still; and what Docker has lost is not replaced by what has its name.
    let to = TagImageOptionsBuilder::default().repo(&repo).tag(tag).build();
    docker.tag_image(&other, Some(to)).await.unwrap();
    let remove = async |o: &Observed| {
        let force = RemoveContainerOptionsBuilder::default().force(true).build();
        docker.remove_container(&o.instance_id, Some(force)).await.unwrap();
    };
    remove(&second).await;
    let anew = |o: &Observed| o.phase == Phase::Running && o.instance_id != second.instance_id;
    let third = rig.until_node(two.uid, "made anew", anew).await;
    assert_eq!(third.image_digest, judged);
    assert!(rig.remove(&[one.uid, two.uid], &[]).await.is_empty());
    let force = RemoveImageOptionsBuilder::default().force(true).build();
    docker.remove_image(&judged, Some(force), None).await.unwrap();
    let gone = pinned("r3");
    rig.ensure(std::slice::from_ref(&gone)).await;
    let failed = rig.until_phase(gone.uid, Phase::Failed).await;
    for part in [NEEDS_IMAGE, &judged, &name, "deploy again"] {
        assert!(failed.detail.contains(part), "{part}: {}", failed.detail);
    }
    assert!(failed.detail.starts_with(NEEDS_IMAGE), "the scheduler goes by it: {}", failed.detail);
}
