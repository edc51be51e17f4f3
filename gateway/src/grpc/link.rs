//! LinkService.

use netloom_api::v1::{self, link_service_server::LinkService};
use netloom_model::id::LabId;
use netloom_proto::scheduler::v1 as ps;
use tonic::{Request, Response, Status};

use super::Api;
use crate::error::Error;
use crate::{changes, names, pages, view};

#[tonic::async_trait]
impl LinkService for Api {
    async fn list_links(
        &self,
        request: Request<v1::ListLinksRequest>,
    ) -> Result<Response<v1::ListLinksResponse>, Status> {
        let request = request.into_inner();
        let lab = names::read_lab("parent", &request.parent)?;
        let list = format!("{}/links", names::lab(lab.as_str()));
        let page = pages::read(&list, request.page_size, &request.page_token)?;
        let request = ps::ListLinksRequest { lab: lab.to_string(), page_size: page.size, after: page.after };
        let found = self.peers.scheduler().list_links(request).await.map_err(self.peers.scheduler_error())?;
        let found = found.into_inner();
        let next_page_token = pages::next(&list, found.more, found.links.last().map(|l| l.id.as_str()));
        let links = found.links.into_iter().map(view::link).collect();
        Ok(Response::new(v1::ListLinksResponse { links, next_page_token }))
    }

    async fn get_link(&self, request: Request<v1::GetLinkRequest>) -> Result<Response<v1::Link>, Status> {
        let (lab, link) = names::read_link("name", &request.into_inner().name)?;
        let request = ps::GetLinkRequest { lab: lab.to_string(), link };
        let facts = self.peers.scheduler().get_link(request).await.map_err(self.peers.scheduler_error())?;
        Ok(Response::new(view::link(facts.into_inner())))
    }

    async fn create_link(
        &self,
        request: Request<v1::CreateLinkRequest>,
    ) -> Result<Response<v1::Operation>, Status> {
        let request = request.into_inner();
        let lab = names::read_lab("parent", &request.parent)?;
        let link = request.link.ok_or_else(|| Error::field("link", "is not set: say which ends it joins"))?;
        let spec = changes::described(link)?;
        tracing::info!(%lab, "a link is to be added");
        let request = ps::ChangeLinkRequest {
            lab: lab.to_string(),
            change: ps::LinkChange::Create.into(),
            spec: Some(spec),
            validate_only: request.validate_only,
            request_id: request.request_id,
            ..ps::ChangeLinkRequest::default()
        };
        Ok(Response::new(changes::link(&self.peers, request).await?))
    }

    async fn update_link(
        &self,
        request: Request<v1::UpdateLinkRequest>,
    ) -> Result<Response<v1::Operation>, Status> {
        let request = request.into_inner();
        let wish = request.link.ok_or_else(|| Error::field("link", "is not set: say which link it is"))?;
        let (lab, link) = names::read_link("link.name", &wish.name)?;
        let facts = self.link(&lab, &link).await?;
        let version = changes::version(&facts, &wish.etag)?;
        let spec = changes::masked(facts.spec.unwrap_or_default(), wish, request.update_mask)?;
        tracing::info!(%lab, %link, "a link is to be changed");
        let request = ps::ChangeLinkRequest {
            lab: lab.to_string(),
            change: ps::LinkChange::Update.into(),
            link: facts.id,
            spec: Some(spec),
            etag: version,
            validate_only: request.validate_only,
            request_id: request.request_id,
        };
        Ok(Response::new(changes::link(&self.peers, request).await?))
    }

    async fn delete_link(
        &self,
        request: Request<v1::DeleteLinkRequest>,
    ) -> Result<Response<v1::Operation>, Status> {
        let request = request.into_inner();
        let (lab, link) = names::read_link("name", &request.name)?;
        let etag = match request.etag.as_str() {
            "" => String::new(),
            sent => changes::version(&self.link(&lab, &link).await?, sent)?,
        };
        tracing::info!(%lab, %link, "a link is to be removed");
        let request = ps::ChangeLinkRequest {
            lab: lab.to_string(),
            change: ps::LinkChange::Delete.into(),
            link,
            etag,
            request_id: request.request_id,
            ..ps::ChangeLinkRequest::default()
        };
        Ok(Response::new(changes::link(&self.peers, request).await?))
    }

    async fn enable_link(
        &self,
        request: Request<v1::EnableLinkRequest>,
    ) -> Result<Response<v1::Link>, Status> {
        self.set_enabled(&request.into_inner().name, true).await
    }

    async fn disable_link(
        &self,
        request: Request<v1::DisableLinkRequest>,
    ) -> Result<Response<v1::Link>, Status> {
        self.set_enabled(&request.into_inner().name, false).await
    }

    async fn check_link(
        &self,
        request: Request<v1::CheckLinkRequest>,
    ) -> Result<Response<v1::CheckLinkResponse>, Status> {
        let request = request.into_inner();
        let (lab, link) = names::read_link("name", &request.name)?;
        let frame_count = u32::try_from(request.frame_count)
            .map_err(|_| Error::field("frame_count", "is negative: send 1 to 200, or say nothing"))?;
        let request = ps::CheckLinkRequest { lab: lab.to_string(), link, frame_count };
        let checked = self.peers.scheduler().check_link(request).await;
        let ps::CheckLinkResponse { a_to_b, b_to_a } =
            checked.map_err(self.peers.scheduler_error())?.into_inner();
        Ok(Response::new(v1::CheckLinkResponse { a_to_b, b_to_a }))
    }
}

impl Api {
    async fn link(&self, lab: &LabId, link: &str) -> Result<ps::LinkFacts, Error> {
        let request = ps::GetLinkRequest { lab: lab.to_string(), link: link.to_owned() };
        let facts = self.peers.scheduler().get_link(request).await.map_err(self.peers.scheduler_error())?;
        Ok(facts.into_inner())
    }

    async fn set_enabled(&self, name: &str, enabled: bool) -> Result<Response<v1::Link>, Status> {
        let (lab, link) = names::read_link("name", name)?;
        tracing::info!(%lab, %link, enabled, "a link is to be plugged or unplugged");
        let request = ps::SetLinkEnabledRequest { lab: lab.to_string(), link, enabled };
        let facts = self.peers.scheduler().set_link_enabled(request).await;
        let facts = facts.map_err(self.peers.scheduler_error())?;
        Ok(Response::new(view::link(facts.into_inner())))
    }
}
