//! LinkService.

use netloom_api::v1::{self, link_service_server::LinkService};
use netloom_proto::scheduler::v1 as ps;
use tonic::{Request, Response, Status};

use super::Api;
use crate::{names, pages, view};

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
        _: Request<v1::CreateLinkRequest>,
    ) -> Result<Response<v1::Operation>, Status> {
        Err(Status::unimplemented("CreateLink"))
    }

    async fn update_link(
        &self,
        _: Request<v1::UpdateLinkRequest>,
    ) -> Result<Response<v1::Operation>, Status> {
        Err(Status::unimplemented("UpdateLink"))
    }

    async fn delete_link(
        &self,
        _: Request<v1::DeleteLinkRequest>,
    ) -> Result<Response<v1::Operation>, Status> {
        Err(Status::unimplemented("DeleteLink"))
    }

    async fn enable_link(&self, _: Request<v1::EnableLinkRequest>) -> Result<Response<v1::Link>, Status> {
        Err(Status::unimplemented("EnableLink"))
    }

    async fn disable_link(&self, _: Request<v1::DisableLinkRequest>) -> Result<Response<v1::Link>, Status> {
        Err(Status::unimplemented("DisableLink"))
    }
}
