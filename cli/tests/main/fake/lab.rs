//! LabService, by the script.

use futures::stream::{self, BoxStream, StreamExt as _};
use netloom_api::v1 as api;
use netloom_api::v1::lab_service_server::LabService;
use netloom_model::Code;
use tonic::{Request, Response, Status};

use super::{Server, next, not_scripted, refused};

#[tonic::async_trait]
impl LabService for Server {
    type WatchLabsStream = BoxStream<'static, Result<api::WatchLabsResponse, Status>>;
    type CapturePacketsStream = BoxStream<'static, Result<netloom_api::google::api::HttpBody, Status>>;

    async fn capture_packets(
        &self,
        request: Request<api::CapturePacketsRequest>,
    ) -> Result<Response<Self::CapturePacketsStream>, Status> {
        let asked = request.get_ref();
        let bounds = (asked.snap_length, asked.packet_count, asked.duration_seconds);
        let what = format!("{} {} [{}] {bounds:?}", asked.name, asked.targets.join(" "), asked.filter);
        let script = self.called("CapturePackets", &what, &request);
        if asked.filter == "bad" {
            return Err(refused(Code::InvalidArgument, "FILTER_INVALID", "the filter \"bad\" is wrong"));
        }
        let part = |data: &Vec<u8>| {
            Ok(netloom_api::google::api::HttpBody {
                content_type: "application/x-pcapng".into(),
                data: data.clone(),
                ..Default::default()
            })
        };
        let parts = stream::iter(script.capture.iter().map(part).collect::<Vec<_>>());
        let rest: Vec<_> = script.capture_rest.iter().map(part).collect();
        let end = script.capture_end.clone();
        if request.get_ref().packet_count == 0 {
            let rest = stream::once(async move {
                end.notified().await;
                stream::iter(rest)
            });
            return Ok(Response::new(parts.chain(rest.flatten()).boxed()));
        }
        Ok(Response::new(parts.boxed()))
    }

    async fn end_capture(
        &self,
        request: Request<api::EndCaptureRequest>,
    ) -> Result<Response<api::EndCaptureResponse>, Status> {
        let asked = request.get_ref();
        let what = format!("{} {}", asked.name, asked.targets.join(" "));
        self.called("EndCapture", &what, &request).capture_end.notify_one();
        Ok(Response::new(api::EndCaptureResponse {}))
    }

    async fn list_labs(
        &self,
        request: Request<api::ListLabsRequest>,
    ) -> Result<Response<api::ListLabsResponse>, Status> {
        let labs = self.called("ListLabs", "", &request).labs.clone();
        Ok(Response::new(api::ListLabsResponse { labs, next_page_token: String::new() }))
    }

    async fn get_lab(&self, request: Request<api::GetLabRequest>) -> Result<Response<api::Lab>, Status> {
        let name = &request.get_ref().name;
        let script = self.called("GetLab", name, &request);
        match script.labs.iter().find(|l| l.name == *name) {
            Some(lab) => Ok(Response::new(lab.clone())),
            None => Err(refused(Code::NotFound, "LAB_NOT_FOUND", &format!("there is no lab {name}"))),
        }
    }

    async fn import_lab(
        &self,
        request: Request<api::ImportLabRequest>,
    ) -> Result<Response<api::Operation>, Status> {
        let mut script = self.called("ImportLab", "", &request);
        script.imported = Some(request.into_inner());
        if !script.import_refusals.is_empty() {
            return Err(script.import_refusals.remove(0));
        }
        script.import.clone().expect("the test says what ImportLab answers").map(Response::new)
    }

    async fn rebalance_lab(
        &self,
        request: Request<api::RebalanceLabRequest>,
    ) -> Result<Response<api::Operation>, Status> {
        let r = request.get_ref();
        let what = format!("{} {} {}", r.name, r.validate_only, r.lose_disks);
        self.changed("RebalanceLab", &what, &request)
    }

    async fn delete_lab(
        &self,
        request: Request<api::DeleteLabRequest>,
    ) -> Result<Response<api::Operation>, Status> {
        let mut script = self.called("DeleteLab", &request.get_ref().name, &request);
        next(&mut script.deletes).expect("the test says what DeleteLab answers").map(Response::new)
    }

    async fn create_lab(&self, _: Request<api::CreateLabRequest>) -> Result<Response<api::Lab>, Status> {
        not_scripted()
    }

    async fn update_lab(&self, _: Request<api::UpdateLabRequest>) -> Result<Response<api::Lab>, Status> {
        not_scripted()
    }

    async fn apply_lab(&self, _: Request<api::ApplyLabRequest>) -> Result<Response<api::Operation>, Status> {
        not_scripted()
    }

    async fn watch_labs(
        &self,
        request: Request<api::WatchLabsRequest>,
    ) -> Result<Response<Self::WatchLabsStream>, Status> {
        let asked = request.get_ref();
        let what = format!("{} since={}", asked.name, asked.since);
        let mut script = self.called("WatchLabs", &what, &request);
        let (events, end) = next(&mut script.lab_watches).unwrap_or_default();
        let events = stream::iter(events.into_iter().map(Ok));
        Ok(Response::new(match end {
            Some(status) => events.chain(stream::iter([Err(status)])).boxed(),
            None => events.chain(stream::pending()).boxed(),
        }))
    }
}
