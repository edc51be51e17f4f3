//! Packet captures: from the host's network service to the caller, bytes as they are.

use std::pin::Pin;
use std::sync::Arc;

use futures::{Stream, StreamExt as _, stream};
use http_body_util::BodyExt as _;
use netloom_model::{Code, Failure};
use netloom_proto::network::v1 as pn;
use netloom_proto::network::v1::network_service_server::NetworkService;
use netloom_service::status::to_status;
use prost_reflect::Value;
use serde_json::json;
use tonic::{Request, Response, Status};

use crate::fake::World;
use crate::rig::{BOUND, Rig};

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// A network service of which only captures are asked.
pub struct Network(pub Arc<World>);

#[tonic::async_trait]
impl NetworkService for Network {
    async fn sync(&self, _: Request<pn::SyncRequest>) -> Result<Response<pn::SyncResponse>, Status> {
        Err(Status::unimplemented("the gateway does not call this"))
    }

    async fn ensure(&self, _: Request<pn::EnsureRequest>) -> Result<Response<pn::EnsureResponse>, Status> {
        Err(Status::unimplemented("the gateway does not call this"))
    }

    async fn remove(&self, _: Request<pn::RemoveRequest>) -> Result<Response<pn::RemoveResponse>, Status> {
        Err(Status::unimplemented("the gateway does not call this"))
    }

    type ObserveStream = Answers<pn::ObserveResponse>;

    async fn observe(&self, _: Request<pn::ObserveRequest>) -> Result<Response<Self::ObserveStream>, Status> {
        Err(Status::unimplemented("the gateway does not call this"))
    }

    async fn set_peers(
        &self,
        _: Request<pn::SetPeersRequest>,
    ) -> Result<Response<pn::SetPeersResponse>, Status> {
        Err(Status::unimplemented("the gateway does not call this"))
    }

    type WatchFramesStream = Answers<pn::WatchFramesResponse>;

    async fn watch_frames(
        &self,
        _: Request<pn::WatchFramesRequest>,
    ) -> Result<Response<Self::WatchFramesStream>, Status> {
        Err(Status::unimplemented("the gateway does not call this"))
    }

    async fn send_frames(
        &self,
        _: Request<pn::SendFramesRequest>,
    ) -> Result<Response<pn::SendFramesResponse>, Status> {
        Err(Status::unimplemented("the gateway does not call this"))
    }

    type CaptureStream = Answers<pn::CaptureResponse>;

    /// Two parts; the filter `bad` is refused, and `endless` goes on.
    async fn capture(
        &self,
        request: Request<pn::CaptureRequest>,
    ) -> Result<Response<Self::CaptureStream>, Status> {
        let request = request.into_inner();
        let filter = request.filter.clone();
        self.0.captured.lock().unwrap().push(request);
        if filter == "bad" {
            let said = "the filter \"bad\" is wrong: syntax error";
            return Err(to_status(Failure::new(Code::InvalidArgument, "FILTER_INVALID", said)));
        }
        let parts = [&b"\x0a\x0d\x0d\x0a"[..], &b"\xff\x00 rest"[..]];
        let parts = stream::iter(parts.map(|data| Ok(pn::CaptureResponse { data: data.to_vec() })));
        if filter == "endless" {
            return Ok(Response::new(parts.chain(stream::pending()).boxed()));
        }
        Ok(Response::new(parts.boxed()))
    }

    async fn end_capture(
        &self,
        request: Request<pn::EndCaptureRequest>,
    ) -> Result<Response<pn::EndCaptureResponse>, Status> {
        let request = request.into_inner();
        let is_known = |c: &pn::CaptureRequest| {
            c.capture_id == request.capture_id
                && c.nics.iter().map(|n| n.wire_id).eq(request.nics.iter().copied())
        };
        match self.0.captured.lock().unwrap().iter().any(is_known) {
            true => Ok(Response::new(pn::EndCaptureResponse {})),
            false => Err(to_status(Failure::new(Code::NotFound, "CAPTURE_NOT_FOUND", "it has ended"))),
        }
    }
}

#[tokio::test]
async fn a_capture_is_ended_by_its_id() {
    let rig = Rig::new().await;
    let body = json!({"targets": ["r1:eth1", "r2:eth1"], "captureId": "one"}).to_string();
    let answer = rig.send("POST", "/v1/labs/mixed:capture", &[], body.clone().into_bytes()).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(rig.world.captured.lock().unwrap()[0].capture_id, "one");
    let ended = rig.post("/v1/labs/mixed:endCapture", &body).await;
    assert_eq!((ended.status.as_u16(), ended.text.trim()), (200, "{}"));
    let body = body.replace("one", "gone");
    let gone = rig.post("/v1/labs/mixed:endCapture", &body).await;
    assert_eq!((gone.status.as_u16(), gone.reason()), (404, "CAPTURE_NOT_FOUND".to_owned()));
    let unnamed = rig.post("/v1/labs/mixed:endCapture", "{\"targets\": [\"r1\"]}").await;
    assert_eq!((unnamed.status.as_u16(), unnamed.reason()), (400, "INVALID_REQUEST".to_owned()));
}

#[tokio::test]
async fn a_capture_is_its_own_bytes_over_http_and_grpc() {
    let rig = Rig::new().await;
    let body = json!({"targets": ["r1:eth1", "r2:eth1"], "filter": "icmp", "snapLength": 96,
        "packetCount": "5", "durationSeconds": 9});
    let answer = rig.send("POST", "/v1/labs/mixed:capture", &[], body.to_string().into_bytes()).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-type"], "application/x-pcapng");
    let bytes = tokio::time::timeout(BOUND, answer.into_body().collect()).await.unwrap().unwrap();
    assert_eq!(&bytes.to_bytes()[..], b"\x0a\x0d\x0d\x0a\xff\x00 rest");
    let asked = rig.world.captured.lock().unwrap().pop().unwrap();
    let names: Vec<(u64, &str)> = asked.nics.iter().map(|n| (n.wire_id, n.name.as_str())).collect();
    assert_eq!(names, [(1, "r1:eth1"), (2, "r2:eth1")]);
    assert_eq!((asked.ticket.as_str(), asked.lab.as_str()), ("ticket for mixed", "mixed"));
    assert_eq!((asked.filter.as_str(), asked.snap_length), ("icmp", 96));
    assert_eq!((asked.packet_count, asked.duration_seconds), (5, 9));

    let request = json!({"name": "labs/mixed", "targets": ["r1"], "filter": "endless"});
    let parts = rig.grpc_messages("LabService/CapturePackets", &request, 2).await;
    let data = parts[1].get_field_by_name("data").unwrap().into_owned();
    assert_eq!(data, Value::Bytes(b"\xff\x00 rest".to_vec().into()));
}

#[tokio::test]
async fn a_capture_that_cannot_be_is_refused_before_it_begins() {
    let rig = Rig::new().await;
    let answer = rig.post("/v1/labs/mixed:capture", "{}").await;
    assert_eq!((answer.status.as_u16(), answer.reason()), (400, "INVALID_REQUEST".to_owned()));
    let answer = rig.get("/v1/labs/mixed:capture?targets=r1&filter=bad").await;
    assert_eq!((answer.status.as_u16(), answer.reason()), (400, "FILTER_INVALID".to_owned()));
    assert!(answer.text.contains("syntax error"), "{}", answer.text);
}
