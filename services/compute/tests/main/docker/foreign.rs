//! What is in the way: an earlier node of ours, which is waited for, and a network of somebody else's, which is left alone.

use bollard::models::NetworkCreateRequest;
use bollard::query_parameters::InspectNetworkOptions;
use netloom_model::observed::Phase;
use netloom_model::slice::Network;
use netloom_model::spec::MgmtSpec;

use crate::rig::{Rig, Undo, connect, rehash};

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
    let docker = connect().await.unwrap();
    let name = format!("nltest-{}", rig.lab);
    docker.create_network(NetworkCreateRequest { name: name.clone(), ..Default::default() }).await.unwrap();
    let undo = (docker.clone(), name.clone());
    let _undo = Undo::new(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(undo.0.remove_network(&undo.1)).unwrap();
    });
    let mut one = rig.instance("r1");
    one.network = Some(Network { name: name.clone(), spec: MgmtSpec::default(), ..Network::default() });
    rehash(&mut one);
    rig.sync(std::slice::from_ref(&one)).await;
    let failed = rig.until_phase(one.uid, Phase::Failed).await;
    assert!(failed.detail.contains("not this lab's") && failed.detail.contains(&name), "{}", failed.detail);
    assert!(rig.remove(&[one.uid], &[rig.lab_uid]).await.is_empty());
    assert!(docker.inspect_network(&name, None::<InspectNetworkOptions>).await.is_ok(), "it is untouched");
}
