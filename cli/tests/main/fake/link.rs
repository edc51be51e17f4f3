//! LinkService, by the script.

use netloom_api::v1 as api;
use netloom_api::v1::link_service_server::LinkService;
use tonic::{Request, Response, Status};

use super::Server;

#[tonic::async_trait]
impl LinkService for Server {
    async fn create_link(
        &self,
        request: Request<api::CreateLinkRequest>,
    ) -> Result<Response<api::Operation>, Status> {
        self.0.lock().unwrap().asked_link = request.get_ref().link.clone();
        let what = format!("{} {}", request.get_ref().parent, request.get_ref().validate_only);
        self.changed("CreateLink", &what, &request)
    }

    async fn update_link(
        &self,
        request: Request<api::UpdateLinkRequest>,
    ) -> Result<Response<api::Operation>, Status> {
        self.0.lock().unwrap().asked_link = request.get_ref().link.clone();
        let what = request.get_ref().update_mask.clone().unwrap_or_default().paths.join(",");
        self.changed("UpdateLink", &what, &request)
    }

    async fn delete_link(
        &self,
        request: Request<api::DeleteLinkRequest>,
    ) -> Result<Response<api::Operation>, Status> {
        self.changed("DeleteLink", &request.get_ref().name, &request)
    }

    async fn enable_link(
        &self,
        request: Request<api::EnableLinkRequest>,
    ) -> Result<Response<api::Link>, Status> {
        self.look("EnableLink", &request.get_ref().name, &request)
    }

    async fn disable_link(
        &self,
        request: Request<api::DisableLinkRequest>,
    ) -> Result<Response<api::Link>, Status> {
        self.look("DisableLink", &request.get_ref().name, &request)
    }

    async fn check_link(
        &self,
        request: Request<api::CheckLinkRequest>,
    ) -> Result<Response<api::CheckLinkResponse>, Status> {
        let what = format!("{} {}", request.get_ref().name, request.get_ref().frame_count);
        Ok(Response::new(self.called("CheckLink", &what, &request).link_check.clone()))
    }

    async fn list_links(
        &self,
        request: Request<api::ListLinksRequest>,
    ) -> Result<Response<api::ListLinksResponse>, Status> {
        let links = self.called("ListLinks", &request.get_ref().parent, &request).links.clone();
        Ok(Response::new(api::ListLinksResponse { links, next_page_token: String::new() }))
    }

    async fn get_link(&self, request: Request<api::GetLinkRequest>) -> Result<Response<api::Link>, Status> {
        self.look("GetLink", &request.get_ref().name, &request)
    }
}
