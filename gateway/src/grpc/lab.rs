//! LabService.

use futures::StreamExt as _;
use netloom_api::google::api::HttpBody;
use netloom_api::v1::{self, lab_service_server::LabService};
use netloom_proto::network::v1 as pn;
use netloom_proto::scheduler::v1 as ps;
use netloom_service::telemetry;
use tonic::{Request, Response, Status};

use super::Api;
use crate::apply::{self, Wish, apply, with_lab};
use crate::error::Error;
use crate::import::{Imported, import};
use crate::watch::{self, Answers, until_shutdown};
use crate::{changes, names, pages, view};

const LIST: &str = "labs";
/// What a capture is, over HTTP: the name that desktops and Wireshark know it by; none is registered.
/// The content type of a capture.
pub const PCAPNG: &str = "application/x-pcapng";

#[tonic::async_trait]
impl LabService for Api {
    async fn list_labs(
        &self,
        request: Request<v1::ListLabsRequest>,
    ) -> Result<Response<v1::ListLabsResponse>, Status> {
        let request = request.into_inner();
        let page = pages::read(LIST, request.page_size, &request.page_token)?;
        let request = ps::ListLabsRequest { page_size: page.size, after: page.after };
        let found = self.peers.scheduler().list_labs(request).await.map_err(self.peers.scheduler_error())?;
        let found = found.into_inner();
        let next_page_token = pages::next(LIST, found.more, found.labs.last().map(|l| l.id.as_str()));
        let labs = found.labs.into_iter().map(view::lab).collect::<Result<_, _>>()?;
        Ok(Response::new(v1::ListLabsResponse { labs, next_page_token }))
    }

    async fn get_lab(&self, request: Request<v1::GetLabRequest>) -> Result<Response<v1::Lab>, Status> {
        let lab = names::read_lab("name", &request.into_inner().name)?;
        Ok(Response::new(view::lab(self.peers.lab(&lab).await?)?))
    }

    async fn create_lab(&self, request: Request<v1::CreateLabRequest>) -> Result<Response<v1::Lab>, Status> {
        let request = request.into_inner();
        let lab = names::read_lab_id("lab_id", &request.lab_id)?;
        let wish = Wish {
            lab: lab.clone(),
            spec: request.lab.and_then(|l| l.spec),
            contents: apply::Contents::new(),
            validate_only: false,
            etag: String::new(),
            request_id: request.request_id,
            left_out: Vec::new(),
            existence: ps::Existence::MustNotExist,
        };
        apply(&self.peers, wish).await?;
        Ok(Response::new(view::lab(self.peers.lab(&lab).await?)?))
    }

    async fn update_lab(&self, request: Request<v1::UpdateLabRequest>) -> Result<Response<v1::Lab>, Status> {
        let request = request.into_inner();
        let change = request.lab.unwrap_or_default();
        let lab = names::read_lab("lab.name", &change.name)?;
        // Without a spec the lab would become empty, which is not what a forgotten field means.
        let spec = change.spec.ok_or_else(|| Error::field("lab.spec", "is not set: send the whole spec"))?;
        let wish = Wish {
            lab: lab.clone(),
            spec: Some(spec),
            contents: apply::Contents::new(),
            validate_only: false,
            etag: change.etag,
            request_id: request.request_id,
            left_out: Vec::new(),
            existence: ps::Existence::MustExist,
        };
        apply(&self.peers, wish).await?;
        Ok(Response::new(view::lab(self.peers.lab(&lab).await?)?))
    }

    async fn apply_lab(
        &self,
        request: Request<v1::ApplyLabRequest>,
    ) -> Result<Response<v1::Operation>, Status> {
        let request = request.into_inner();
        let lab = names::read_lab("name", &request.name)?;
        let spec = request.spec.ok_or_else(|| Error::field("spec", "is not set: send the whole spec"))?;
        let files = request.files;
        let hash = move || apply::contents(&spec, files).map(|contents| (spec, contents));
        let hashed =
            tokio::task::spawn_blocking(hash).await.map_err(|_| Error::Lost("the hashing of files"))?;
        let (spec, contents) = hashed?;
        let wish = Wish {
            lab,
            spec: Some(spec),
            contents,
            validate_only: request.validate_only,
            etag: request.etag,
            request_id: request.request_id,
            left_out: Vec::new(),
            existence: ps::Existence::Unspecified,
        };
        let operation = apply(&self.peers, wish).await?;
        Ok(Response::new(with_lab(&self.peers, operation, Vec::new()).await?))
    }

    async fn import_lab(
        &self,
        request: Request<v1::ImportLabRequest>,
    ) -> Result<Response<v1::Operation>, Status> {
        let request = request.into_inner();
        let (validate_only, request_id) = (request.validate_only, request.request_id.clone());
        let Imported { lab, spec, contents, left_out, diagnostics } =
            import(self.catalogue.clone(), request).await?;
        telemetry::about("netloom.lab", &lab);
        let wish = Wish {
            lab,
            spec: Some(spec),
            contents,
            validate_only,
            etag: String::new(),
            request_id,
            left_out,
            existence: ps::Existence::Unspecified,
        };
        let operation = apply(&self.peers, wish).await?;
        Ok(Response::new(with_lab(&self.peers, operation, diagnostics).await?))
    }

    async fn delete_lab(
        &self,
        request: Request<v1::DeleteLabRequest>,
    ) -> Result<Response<v1::Operation>, Status> {
        let request = request.into_inner();
        let lab = names::read_lab("name", &request.name)?;
        tracing::info!(%lab, "a lab is to be removed");
        let generation = apply::generation(&self.peers, &lab, &request.etag).await?;
        let request =
            ps::DestroyLabRequest { lab: lab.to_string(), generation, request_id: request.request_id };
        let answer =
            self.peers.scheduler().destroy_lab(request).await.map_err(self.peers.scheduler_error())?;
        let operation = answer.into_inner().operation.ok_or_else(|| Error::missing("operation"))?;
        Ok(Response::new(with_lab(&self.peers, operation, Vec::new()).await?))
    }

    async fn rebalance_lab(
        &self,
        request: Request<v1::RebalanceLabRequest>,
    ) -> Result<Response<v1::Operation>, Status> {
        let request = request.into_inner();
        let lab = names::read_lab("name", &request.name)?;
        tracing::info!(%lab, validate_only = request.validate_only, "a lab is to be rebalanced");
        let request = ps::MoveNodesRequest {
            lab: lab.to_string(),
            lose_disks: request.lose_disks,
            validate_only: request.validate_only,
            request_id: request.request_id,
            ..ps::MoveNodesRequest::default()
        };
        Ok(Response::new(changes::moves(&self.peers, request).await?))
    }

    type WatchLabsStream = Answers<v1::WatchLabsResponse>;

    async fn watch_labs(
        &self,
        request: Request<v1::WatchLabsRequest>,
    ) -> Result<Response<Self::WatchLabsStream>, Status> {
        let request = request.into_inner();
        let lab = match request.name.as_str() {
            "" => None,
            name => Some(names::read_lab("name", name)?),
        };
        let events = watch::labs(self.peers.clone(), self.shutdown.clone(), lab, request.since).await?;
        Ok(Response::new(events))
    }

    type CapturePacketsStream = Answers<HttpBody>;

    async fn capture_packets(
        &self,
        request: Request<v1::CapturePacketsRequest>,
    ) -> Result<Response<Self::CapturePacketsStream>, Status> {
        let request = request.into_inner();
        let lab = names::read_lab("name", &request.name)?;
        if request.targets.is_empty() {
            return Err(Error::field("targets", "is empty: name an interface, a link or a node").into());
        }
        tracing::info!(%lab, targets = request.targets.join(" "), "packets are captured");
        let (ticket, mut network) = self.peers.capture_ticket(&lab, request.targets).await?;
        let nic = |i: ps::CaptureInterface| pn::CaptureNic { wire_id: i.nic, name: i.name };
        let order = pn::CaptureRequest {
            ticket: ticket.ticket,
            nics: ticket.interfaces.into_iter().map(nic).collect(),
            filter: request.filter,
            snap_length: request.snap_length,
            packet_count: request.packet_count,
            duration_seconds: request.duration_seconds,
            lab: lab.to_string(),
            capture_id: request.capture_id,
        };
        let failed = network.error();
        let parts = network.client.capture(order).await.map_err(&failed)?.into_inner();
        let parts = parts.map(move |part| match part {
            Ok(part) => {
                Ok(HttpBody { content_type: PCAPNG.to_owned(), data: part.data, ..HttpBody::default() })
            }
            Err(status) => Err(failed(status).into()),
        });
        Ok(Response::new(until_shutdown(parts, &self.shutdown)))
    }

    async fn end_capture(
        &self,
        request: Request<v1::EndCaptureRequest>,
    ) -> Result<Response<v1::EndCaptureResponse>, Status> {
        let request = request.into_inner();
        let lab = names::read_lab("name", &request.name)?;
        let empty = [("targets", request.targets.is_empty()), ("capture_id", request.capture_id.is_empty())];
        if let Some((field, _)) = empty.into_iter().find(|(_, is_empty)| *is_empty) {
            return Err(Error::field(field, "is empty: say what CapturePackets was told").into());
        }
        let (ticket, mut network) = self.peers.capture_ticket(&lab, request.targets).await?;
        let order = pn::EndCaptureRequest {
            ticket: ticket.ticket,
            nics: ticket.interfaces.into_iter().map(|i| i.nic).collect(),
            capture_id: request.capture_id,
        };
        let failed = network.error();
        network.client.end_capture(order).await.map_err(failed)?;
        Ok(Response::new(v1::EndCaptureResponse {}))
    }
}
