//! One checked-in answer for each resource: what clients were promised. A change of these files is a change of the API.
//!
//! `NETLOOM_UPDATE_GOLDEN=1` writes them anew.

use std::path::Path;

use serde_json::Value;

use crate::fixture::{DONE, FAILED};
use crate::rig::Rig;

#[tokio::test]
async fn resources_look_as_they_did() {
    let rig = Rig::new().await;
    let update = std::env::var_os("NETLOOM_UPDATE_GOLDEN").is_some();
    for (name, path) in [
        ("lab", "/v1/labs/mixed".to_owned()),
        ("node", "/v1/labs/mixed/nodes/r1".to_owned()),
        ("node-unschedulable", "/v1/labs/mixed/nodes/x1".to_owned()),
        ("link", "/v1/labs/mixed/links/r1:eth1--r2:eth1".to_owned()),
        ("host", "/v1/hosts/local".to_owned()),
        ("image", "/v1/images/netloom/frr:local".to_owned()),
        ("kind", "/v1/kinds/bridge".to_owned()),
        ("kind-container", "/v1/kinds/nokia_srlinux".to_owned()),
        ("kind-vm", "/v1/kinds/cisco_iosxr".to_owned()),
        ("operation", format!("/v1/operations/{DONE}")),
        ("operation-failed", format!("/v1/operations/{FAILED}")),
    ] {
        let answer = rig.get(&path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{name}.json"));
        let is = answer.json();
        if update {
            std::fs::write(&file, format!("{}\n", serde_json::to_string_pretty(&is).unwrap())).unwrap();
        }
        let text = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let was: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(is, was, "{path} is not as in {}", file.display());
    }
}
