//! What is not ours is not touched.

use std::collections::HashMap;
use std::sync::Arc;

use bollard::models::{ContainerCreateBody, NetworkCreateRequest};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, InspectNetworkOptions,
};
use netloom_model::id::Owner;
use netloom_model::observed::Phase;
use netloom_model::slice::Network;
use netloom_model::spec::MgmtSpec;

use super::image;
use crate::rig::{Rig, Undo, connect, rehash};

async fn container(
    docker: &Arc<bollard::Docker>,
    name: &str,
    labels: HashMap<String, String>,
) -> (String, Undo) {
    let options = CreateContainerOptionsBuilder::default().name(name).build();
    let body = ContainerCreateBody {
        image: Some(image::NAME.into()),
        network_disabled: Some(true),
        labels: Some(labels),
        ..ContainerCreateBody::default()
    };
    let made = docker.create_container(Some(options), body).await.unwrap();
    (made.id, Undo::container(docker.clone(), name.to_owned()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_of_somebody_else_under_our_name_is_told_and_left() {
    let Some(rig) = Rig::docker("a_container_of_somebody_else_under_our_name_is_told_and_left").await else {
        return;
    };
    let docker = Arc::new(connect().await.unwrap());
    let one = rig.instance("r1");
    let (id, _undo) = container(&docker, &one.name, HashMap::new()).await;
    rig.sync(std::slice::from_ref(&one)).await;
    let failed = rig.until_phase(one.uid, Phase::Failed).await;
    assert!(
        failed.detail.contains("not this installation's") && failed.detail.contains(&one.name),
        "{}",
        failed.detail
    );
    assert!(rig.remove(&[one.uid], &[rig.lab_uid]).await.is_empty());
    assert!(docker.inspect_container(&id, None::<InspectContainerOptions>).await.is_ok(), "it is untouched");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_installation_is_not_even_seen() {
    let Some(rig) = Rig::docker("another_installation_is_not_even_seen").await else { return };
    let docker = Arc::new(connect().await.unwrap());
    let one = rig.instance("r1");
    let labels = HashMap::from([
        ("netloom.owner".to_owned(), Owner::new().to_string()),
        ("netloom.uid".to_owned(), one.uid.to_string()),
        ("netloom.lab-uid".to_owned(), rig.lab_uid.to_string()),
    ]);
    let (id, _undo) = container(&docker, &format!("{}-other", one.name), labels).await;
    rig.sync(&[]).await;
    rig.run(&rig.instance("r2")).await;
    assert!(rig.remove(&[one.uid], &[rig.lab_uid]).await.is_empty());
    assert!(!rig.view.borrow().instances.contains_key(&one.uid));
    assert!(docker.inspect_container(&id, None::<InspectContainerOptions>).await.is_ok(), "it is untouched");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_earlier_node_of_the_same_name_is_waited_for() {
    let Some(rig) = Rig::docker("an_earlier_node_of_the_same_name_is_waited_for").await else { return };
    let (old, new) = (rig.instance("r1"), rig.instance("r1"));
    rig.run(&old).await;
    rig.sync(std::slice::from_ref(&new)).await;
    let waits = rig.until_node(new.uid, "waits", |o| o.detail.contains("another node")).await;
    assert_eq!(waits.phase, Phase::Creating, "it is no failure");
    assert!(rig.remove(&[old.uid], &[]).await.is_empty());
    rig.until_phase(new.uid, Phase::Running).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_of_somebody_else_is_told_and_left() {
    let Some(rig) = Rig::docker("a_network_of_somebody_else_is_told_and_left").await else { return };
    let docker = Arc::new(connect().await.unwrap());
    let name = format!("nltest-{}", rig.lab);
    docker.create_network(NetworkCreateRequest { name: name.clone(), ..Default::default() }).await.unwrap();
    let undo = (docker.clone(), name.clone());
    let _undo = Undo::new(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(undo.0.remove_network(&undo.1)).unwrap();
    });
    let mut one = rig.instance("r1");
    one.network = Some(Network { name: name.clone(), spec: MgmtSpec::default() });
    rehash(&mut one);
    rig.sync(std::slice::from_ref(&one)).await;
    let failed = rig.until_phase(one.uid, Phase::Failed).await;
    assert!(failed.detail.contains("not this lab's") && failed.detail.contains(&name), "{}", failed.detail);
    assert!(rig.remove(&[one.uid], &[rig.lab_uid]).await.is_empty());
    assert!(docker.inspect_network(&name, None::<InspectNetworkOptions>).await.is_ok(), "it is untouched");
}
