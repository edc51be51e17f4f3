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
