//! ImageService.

use netloom_api::v1::{self, image_service_server::ImageService};
use netloom_proto::image_registry::v1 as pr;
use tonic::{Request, Response, Status};

use super::Api;
use crate::{names, pages, view};

const LIST: &str = "images";

#[tonic::async_trait]
impl ImageService for Api {
    async fn list_images(
        &self,
        request: Request<v1::ListImagesRequest>,
    ) -> Result<Response<v1::ListImagesResponse>, Status> {
        let request = request.into_inner();
        let page = pages::read(LIST, request.page_size, &request.page_token)?;
        let request = pr::ListImagesRequest { page_size: page.size, after: page.after };
        let found = self.peers.registry().list_images(request).await.map_err(self.peers.registry_error())?;
        let found = found.into_inner();
        let next_page_token =
            pages::next(LIST, found.more, found.images.last().map(|i| i.reference.as_str()));
        let images = found.images.into_iter().map(view::image).collect();
        Ok(Response::new(v1::ListImagesResponse { images, next_page_token }))
    }

    async fn get_image(&self, request: Request<v1::GetImageRequest>) -> Result<Response<v1::Image>, Status> {
        let name = request.into_inner().name;
        let request = pr::GetImageRequest { reference: names::read_image("name", &name)?.to_owned() };
        let facts = self.peers.registry().get_image(request).await.map_err(self.peers.registry_error())?;
        Ok(Response::new(view::image(facts.into_inner())))
    }
}
