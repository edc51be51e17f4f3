//! One checked-in answer for each resource: what clients were promised. A change of these files is a change of the API.
//!
//! `NETLOOM_UPDATE_GOLDEN=1` writes them anew.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use crate::fixture::{DONE, FAILED, UPLOAD};
use crate::rig::Rig;

/// Answers whose content is of the moment; other tests look at them.
const OF_THE_MOMENT: [&str; 1] = ["NodeConfig"];

/// Compares with what is checked in, or writes it.
fn compare(name: &str, what: &str, is: &Value) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{name}.json"));
    if std::env::var_os("NETLOOM_UPDATE_GOLDEN").is_some() {
        std::fs::write(&file, format!("{}\n", serde_json::to_string_pretty(is).unwrap())).unwrap();
    }
    let text = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let was: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(*is, was, "{what} is not as in {}", file.display());
}

#[tokio::test]
async fn resources_look_as_they_did() {
    let rig = Rig::new().await;
    let mut on_record: BTreeSet<String> = OF_THE_MOMENT.iter().map(|m| (*m).to_owned()).collect();
    for (name, message, path) in [
        ("lab", "Lab", "/v1/labs/mixed".to_owned()),
        ("node", "Node", "/v1/labs/mixed/nodes/r1".to_owned()),
        ("node-unschedulable", "Node", "/v1/labs/mixed/nodes/x1".to_owned()),
        ("link", "Link", "/v1/labs/mixed/links/r1:eth1--r2:eth1".to_owned()),
        ("host", "Host", "/v1/hosts/local".to_owned()),
        ("quota", "Quota", "/v1/quotas/course".to_owned()),
        ("image", "Image", "/v1/images/netloom/frr:local".to_owned()),
        ("image-stored", "Image", "/v1/images/netloom/host:local".to_owned()),
        ("snapshot", "Snapshot", "/v1/labs/mixed/nodes/r1/snapshots/kept".to_owned()),
        ("upload", "Upload", format!("/v1/uploads/{UPLOAD}")),
        ("kind", "Kind", "/v1/kinds/bridge".to_owned()),
        ("kind-container", "Kind", "/v1/kinds/nokia_srlinux".to_owned()),
        ("kind-vm", "Kind", "/v1/kinds/cisco_iosxr".to_owned()),
        ("operation", "Operation", format!("/v1/operations/{DONE}")),
        ("operation-failed", "Operation", format!("/v1/operations/{FAILED}")),
    ] {
        let answer = rig.get(&path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
        compare(name, &path, &answer.json());
        on_record.insert(message.to_owned());
    }
    // None is missing: whatever a method gets by its name is on record.
    let methods = rig.pool.services().flat_map(|s| s.methods().collect::<Vec<_>>());
    let got = methods.filter(|m| m.name().starts_with("Get")).map(|m| m.output().name().to_owned());
    assert_eq!(got.collect::<BTreeSet<_>>(), on_record);
}

#[tokio::test]
async fn events_look_as_they_did() {
    let rig = Rig::new().await;
    let watching = rig.send("GET", "/v1/labs/mixed:watch?since=42", &[], Vec::new()).await;
    let events: Vec<Value> =
        rig.lines(watching, 3).await.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    compare("events", "the stream of changes", &events.into());
}
