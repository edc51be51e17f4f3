//! Nodes and links that are changed: what the scheduler is asked.

use netloom_proto::scheduler::v1 as ps;
use serde_json::json;

use crate::rig::Rig;

const LINK: &str = "/v1/labs/mixed/links/r1:eth1--r2:eth1";

#[tokio::test]
async fn node_verbs_name_one_node() {
    let rig = Rig::new().await;
    for (verb, change) in [
        ("start", ps::NodeChange::Start),
        ("stop", ps::NodeChange::Stop),
        ("restart", ps::NodeChange::Restart),
        ("wipe", ps::NodeChange::Wipe),
    ] {
        let id = "0190c0de-0000-7000-8000-000000000001";
        let path = format!("/v1/labs/mixed/nodes/r1:{verb}");
        let answer = rig
            .send("POST", &path, &[], json!({"requestId": id, "others": ["r2"]}).to_string().into_bytes())
            .await;
        assert_eq!(answer.status(), 200);
        let asked = rig.world.changed_nodes.lock().unwrap().pop().unwrap();
        assert_eq!((asked.change(), asked.nodes.join(" ").as_str()), (change, "r1 r2"));
        assert_eq!((asked.lab.as_str(), asked.request_id.as_str()), ("mixed", id));
    }
}

#[tokio::test]
async fn nodes_move_and_labs_are_rebalanced_as_asked() {
    let rig = Rig::new().await;
    let post = |path: &'static str, body: serde_json::Value| {
        let rig = &rig;
        async move { rig.http("POST", path, &[], body.to_string()).await.json() }
    };
    let body = json!({"others": ["r2"], "host": "h2", "loseDisks": true, "force": true});
    post("/v1/labs/mixed/nodes/r1:move", body).await;
    let asked = rig.world.moved_nodes.lock().unwrap().pop().unwrap();
    assert_eq!(
        (asked.lab.as_str(), asked.nodes.join(" ").as_str(), asked.host.as_str()),
        ("mixed", "r1 r2", "h2")
    );
    assert!(asked.lose_disks && asked.force && !asked.validate_only);
    let planned = post("/v1/labs/mixed:rebalance", json!({"validateOnly": true})).await;
    assert_eq!(planned["name"], "", "a plan is no operation");
    let asked = rig.world.moved_nodes.lock().unwrap().pop().unwrap();
    assert!(asked.nodes.is_empty() && asked.validate_only && !asked.lose_disks);
    let told = post("/v1/hosts/local:drain", json!({"validateOnly": true})).await;
    assert_eq!((&told["host"]["name"], &told["busyLabs"]), (&json!("hosts/local"), &json!(["labs/busy"])));
    assert_eq!(told["moves"][0]["name"], "");
}

#[tokio::test]
async fn snapshots_are_the_hosts_and_only_one_that_is_there_is_restored() {
    let rig = Rig::new().await;
    let parent = "/v1/labs/mixed/nodes/r1/snapshots";
    let post = |path: String| {
        let rig = &rig;
        async move { rig.http("POST", &path, &[], "{}").await }
    };
    for id in ["b", "a"] {
        let taken = post(format!("{parent}?snapshotId={id}")).await.json();
        assert_eq!(taken["name"], format!("labs/mixed/nodes/r1/snapshots/{id}"));
        assert_eq!(
            (&taken["createTime"], &taken["sizeBytes"], &taken["hasMemory"]),
            (&json!("2023-11-14T22:13:20Z"), &json!("5242880"), &json!(true))
        );
    }
    assert_eq!(post(format!("{parent}?snapshotId=a")).await.status.as_u16(), 409);
    let again = format!("{parent}?snapshotId=a&requestId=0192f0c1-2345-7000-8000-000000000001");
    assert_eq!(post(again).await.json()["name"], "labs/mixed/nodes/r1/snapshots/a");
    assert_eq!(post(format!("{parent}?snapshotId=..")).await.status.as_u16(), 400);
    let first = rig.get(&format!("{parent}?pageSize=1")).await.json();
    assert_eq!(first["snapshots"][0]["name"], "labs/mixed/nodes/r1/snapshots/a");
    let next = first["nextPageToken"].as_str().unwrap();
    let second = rig.get(&format!("{parent}?pageSize=1&pageToken={next}")).await.json();
    assert_eq!(second["snapshots"][0]["name"], "labs/mixed/nodes/r1/snapshots/b");
    assert!(second["nextPageToken"].as_str().is_some_and(|t| !t.is_empty()), "there is one more");
    assert_eq!(rig.get(&format!("{parent}/a")).await.json()["hasMemory"], true);

    assert_eq!(post(format!("{parent}/a:restore")).await.status.as_u16(), 200);
    let asked = rig.world.changed_nodes.lock().unwrap().pop().unwrap();
    assert_eq!((asked.change(), asked.snapshot.as_str()), (ps::NodeChange::Restore, "a"));
    assert_eq!(rig.send("DELETE", &format!("{parent}/a"), &[], Vec::new()).await.status(), 200);
    let missing = post(format!("{parent}/a:restore")).await;
    assert_eq!(missing.status.as_u16(), 404);
    assert!(rig.world.changed_nodes.lock().unwrap().is_empty(), "nothing is stopped for it");
}

#[tokio::test]
async fn an_update_changes_the_fields_of_its_mask_and_is_held_to_what_was_read() {
    let rig = Rig::new().await;
    let etag = rig.get(LINK).await.json()["etag"].as_str().unwrap().to_owned();
    let patch = |query: &str, body: serde_json::Value| {
        let path = format!("{LINK}{query}");
        let rig = &rig;
        async move { rig.send("PATCH", &path, &[], body.to_string().into_bytes()).await.status() }
    };
    let asked = || rig.world.changed_links.lock().unwrap().pop().unwrap();
    assert_eq!(patch("?updateMask=mtu", json!({"mtu": 1500, "etag": etag})).await, 200);
    let first = asked();
    let spec = first.spec.clone().unwrap();
    assert_eq!((spec.mtu, spec.labels["k"].as_str()), (1_500, "v"), "what the mask does not name stays");
    assert_eq!((first.change(), first.link.as_str()), (ps::LinkChange::Update, "r1:eth1--r2:eth1"));
    assert!(!first.etag.is_empty() && !first.validate_only);

    let body = json!({"a": {"ipv4": "10.9.9.1/24"}, "aToB": {"rateBps": "1000"}});
    assert_eq!(patch("?updateMask=a.ipv4,aToB&validateOnly=true", body).await, 200);
    let second = asked();
    let spec = second.spec.unwrap();
    assert_eq!((spec.a.unwrap().ipv4.as_str(), spec.a_to_b.unwrap().rate_bps), ("10.9.9.1/24", 1_000));
    assert!(second.validate_only);

    assert_eq!(patch("?updateMask=state", json!({})).await, 400);
    assert_eq!(patch("?updateMask=mtu", json!({"mtu": 1500, "etag": "x"})).await, 409);
    assert!(rig.world.changed_links.lock().unwrap().is_empty(), "what is refused is not passed on");
}

#[tokio::test]
async fn a_removal_is_held_to_its_etag() {
    let rig = Rig::new().await;
    let etag = rig.get(LINK).await.json()["etag"].as_str().unwrap().to_owned();
    let delete = |query: String| {
        let rig = &rig;
        async move { rig.send("DELETE", &format!("{LINK}{query}"), &[], Vec::new()).await.status() }
    };
    assert_eq!(delete("?etag=other".to_owned()).await, 409);
    assert_eq!(delete(format!("?etag={etag}")).await, 200);
    let asked = rig.world.changed_links.lock().unwrap().pop().unwrap();
    assert_eq!((asked.change(), asked.link.as_str()), (ps::LinkChange::Delete, "r1:eth1--r2:eth1"));
}
