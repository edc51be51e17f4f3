//! How each method that carries a resource is called: over gRPC, and over HTTP by each of its rules.

use serde_json::{Value, json};

use crate::fixture::{DONE, FAILED, UPLOAD};

/// One way to call a method.
pub struct Call {
    /// `Service/Method`.
    pub method: &'static str,
    /// The request over gRPC, as JSON.
    pub request: Value,
    /// The same over HTTP.
    pub http: (&'static str, String, Value),
    /// How many messages of a stream are read; all of them where it ends by itself.
    pub messages: usize,
}

/// A topology file of the lab `mixed`.
pub const TOPOLOGY: &str = "name: mixed\ntopology:\n  nodes:\n    a:\n      kind: linux\n      image: x\n";

/// All of them.
pub fn all() -> Vec<Call> {
    let call = |method, request: Value, verb, path: &str, body: Value| Call {
        method,
        request,
        http: (verb, path.to_owned(), body),
        messages: usize::MAX,
    };
    let spec = json!({"nodes": [{"id": "a", "kind": "linux", "image": "x"}]});
    let link = json!({"a": {"node": "r1", "interface": "eth9"}, "b": {"node": "r2", "interface": "eth9"}});
    let operation = |id: &str| format!("operations/{id}");
    let one_lab = |path: &str| Call {
        // 1 lab, 8 nodes, 5 links, the end of the snapshot, 4 events.
        messages: 19,
        ..call("LabService/WatchLabs", json!({"name": "labs/mixed"}), "GET", path, Value::Null)
    };
    vec![
        call("LabService/ListLabs", json!({}), "GET", "/v1/labs", Value::Null),
        call("LabService/GetLab", json!({"name": "labs/mixed"}), "GET", "/v1/labs/mixed", Value::Null),
        call("LabService/GetLab", json!({"name": "labs/busy"}), "GET", "/v1/labs/busy", Value::Null),
        call(
            "LabService/CreateLab",
            json!({"labId": "mixed", "lab": {"spec": spec}}),
            "POST",
            "/v1/labs?labId=mixed",
            json!({"spec": spec}),
        ),
        call(
            "LabService/UpdateLab",
            json!({"lab": {"name": "labs/mixed", "spec": spec}}),
            "PATCH",
            "/v1/labs/mixed",
            json!({"spec": spec}),
        ),
        call(
            "LabService/ApplyLab",
            json!({"name": "labs/mixed", "spec": spec}),
            "POST",
            "/v1/labs/mixed:apply",
            json!({"spec": spec}),
        ),
        call(
            "LabService/ImportLab",
            json!({"text": TOPOLOGY}),
            "POST",
            "/v1/labs:import",
            json!({"text": TOPOLOGY}),
        ),
        call("LabService/DeleteLab", json!({"name": "labs/mixed"}), "DELETE", "/v1/labs/mixed", Value::Null),
        // 2 labs, 9 nodes, 5 links, the end of the snapshot, 4 events.
        Call {
            messages: 21,
            ..call("LabService/WatchLabs", json!({}), "GET", "/v1/labs:watch", Value::Null)
        },
        one_lab("/v1/labs/mixed:watch"),
        one_lab("/v1/labs:watch?name=labs/mixed"),
        call(
            "NodeService/ListNodes",
            json!({"parent": "labs/mixed"}),
            "GET",
            "/v1/labs/mixed/nodes",
            Value::Null,
        ),
        call(
            "NodeService/ListNodes",
            json!({"parent": "labs/busy"}),
            "GET",
            "/v1/labs/busy/nodes",
            Value::Null,
        ),
        call(
            "NodeService/GetNode",
            json!({"name": "labs/mixed/nodes/r1"}),
            "GET",
            "/v1/labs/mixed/nodes/r1",
            Value::Null,
        ),
        call(
            "NodeService/GetNode",
            json!({"name": "labs/mixed/nodes/x1"}),
            "GET",
            "/v1/labs/mixed/nodes/x1",
            Value::Null,
        ),
        call(
            "LinkService/ListLinks",
            json!({"parent": "labs/mixed"}),
            "GET",
            "/v1/labs/mixed/links",
            Value::Null,
        ),
        call(
            "LinkService/GetLink",
            json!({"name": "labs/mixed/links/r1:eth1--r2:eth1"}),
            "GET",
            "/v1/labs/mixed/links/r1:eth1--r2:eth1",
            Value::Null,
        ),
        call(
            "NodeService/StartNode",
            json!({"name": "labs/mixed/nodes/s1"}),
            "POST",
            "/v1/labs/mixed/nodes/s1:start",
            json!({}),
        ),
        call(
            "NodeService/StopNode",
            json!({"name": "labs/mixed/nodes/r1"}),
            "POST",
            "/v1/labs/mixed/nodes/r1:stop",
            json!({}),
        ),
        call(
            "NodeService/RestartNode",
            json!({"name": "labs/mixed/nodes/r1"}),
            "POST",
            "/v1/labs/mixed/nodes/r1:restart",
            json!({}),
        ),
        call(
            "NodeService/WipeNode",
            json!({"name": "labs/mixed/nodes/r1"}),
            "POST",
            "/v1/labs/mixed/nodes/r1:wipe",
            json!({}),
        ),
        call(
            "NodeService/MoveNode",
            json!({"name": "labs/mixed/nodes/r1", "host": "lost"}),
            "POST",
            "/v1/labs/mixed/nodes/r1:move",
            json!({"host": "lost"}),
        ),
        call(
            "LabService/RebalanceLab",
            json!({"name": "labs/mixed"}),
            "POST",
            "/v1/labs/mixed:rebalance",
            json!({}),
        ),
        call(
            "SnapshotService/RestoreSnapshot",
            json!({"name": "labs/mixed/nodes/r1/snapshots/kept"}),
            "POST",
            "/v1/labs/mixed/nodes/r1/snapshots/kept:restore",
            json!({}),
        ),
        call(
            "LinkService/CreateLink",
            json!({"parent": "labs/mixed", "link": link}),
            "POST",
            "/v1/labs/mixed/links",
            link.clone(),
        ),
        call(
            "LinkService/UpdateLink",
            json!({"link": {"name": "labs/mixed/links/r1:eth1--r2:eth1", "mtu": 1500}, "updateMask": "mtu"}),
            "PATCH",
            "/v1/labs/mixed/links/r1:eth1--r2:eth1?updateMask=mtu",
            json!({"mtu": 1500}),
        ),
        call(
            "LinkService/DeleteLink",
            json!({"name": "labs/mixed/links/r1:eth1--r2:eth1"}),
            "DELETE",
            "/v1/labs/mixed/links/r1:eth1--r2:eth1",
            Value::Null,
        ),
        call(
            "LinkService/EnableLink",
            json!({"name": "labs/mixed/links/r1:eth1--r2:eth1"}),
            "POST",
            "/v1/labs/mixed/links/r1:eth1--r2:eth1:enable",
            json!({}),
        ),
        call(
            "LinkService/DisableLink",
            json!({"name": "labs/mixed/links/r1:eth2--s1:eth1"}),
            "POST",
            "/v1/labs/mixed/links/r1:eth2--s1:eth1:disable",
            json!({}),
        ),
        call("HostService/ListHosts", json!({}), "GET", "/v1/hosts", Value::Null),
        call("HostService/GetHost", json!({"name": "hosts/local"}), "GET", "/v1/hosts/local", Value::Null),
        call("HostService/GetHost", json!({"name": "hosts/lost"}), "GET", "/v1/hosts/lost", Value::Null),
        call(
            "HostService/CordonHost",
            json!({"name": "hosts/local"}),
            "POST",
            "/v1/hosts/local:cordon",
            json!({}),
        ),
        call(
            "HostService/UncordonHost",
            json!({"name": "hosts/local"}),
            "POST",
            "/v1/hosts/local:uncordon",
            json!({}),
        ),
        call(
            "HostService/UpdateHost",
            json!({"host": {"name": "hosts/local", "labels": {"rack": "2"}}, "updateMask": "labels"}),
            "PATCH",
            "/v1/hosts/local?updateMask=labels",
            json!({"labels": {"rack": "2"}}),
        ),
        call(
            "HostService/DrainHost",
            json!({"name": "hosts/local"}),
            "POST",
            "/v1/hosts/local:drain",
            json!({}),
        ),
        call("ImageService/ListImages", json!({}), "GET", "/v1/images", Value::Null),
        call(
            "ImageService/GetImage",
            json!({"name": "images/netloom/frr:local"}),
            "GET",
            "/v1/images/netloom/frr:local",
            Value::Null,
        ),
        call(
            "ImageService/DeleteImage",
            json!({"name": "images/netloom/host:local"}),
            "DELETE",
            "/v1/images/netloom/host:local",
            Value::Null,
        ),
        call(
            "ImageService/VerifyImage",
            json!({"name": "images/netloom/host:local"}),
            "POST",
            "/v1/images/netloom/host:local:verify",
            json!({}),
        ),
        call(
            "ImageService/PullImage",
            json!({"source": "netloom/host:local"}),
            "POST",
            "/v1/images:pull",
            json!({"source": "netloom/host:local"}),
        ),
        call(
            "ImageService/FinishUpload",
            json!({"name": format!("uploads/{UPLOAD}")}),
            "POST",
            &format!("/v1/uploads/{UPLOAD}:finish"),
            json!({}),
        ),
        call("OperationService/ListOperations", json!({}), "GET", "/v1/operations", Value::Null),
        call(
            "OperationService/GetOperation",
            json!({"name": operation(DONE)}),
            "GET",
            &format!("/v1/{}", operation(DONE)),
            Value::Null,
        ),
        call(
            "OperationService/WaitOperation",
            json!({"name": operation(FAILED), "timeout": "5s"}),
            "POST",
            &format!("/v1/{}:wait", operation(FAILED)),
            json!({"timeout": "5s"}),
        ),
        call(
            "OperationService/WatchOperation",
            json!({"name": operation(DONE)}),
            "GET",
            &format!("/v1/{}:watch", operation(DONE)),
            Value::Null,
        ),
        call(
            "OperationService/CancelOperation",
            json!({"name": operation(DONE)}),
            "POST",
            &format!("/v1/{}:cancel", operation(DONE)),
            json!({}),
        ),
    ]
}
