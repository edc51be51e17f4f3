//! The image registry.

use std::sync::Arc;

use netloom_proto::image_registry::v1 as pr;
use netloom_proto::image_registry::v1::image_registry_service_server::ImageRegistryService;
use tonic::{Request, Response, Status};

use super::{World, missing, page};

pub struct Registry(pub Arc<World>);

#[tonic::async_trait]
impl ImageRegistryService for Registry {
    async fn record_presence(
        &self,
        _: Request<pr::RecordPresenceRequest>,
    ) -> Result<Response<pr::RecordPresenceResponse>, Status> {
        Err(Status::unimplemented("the gateway does not call this"))
    }

    async fn validate_images(
        &self,
        _: Request<pr::ValidateImagesRequest>,
    ) -> Result<Response<pr::ValidateImagesResponse>, Status> {
        Err(Status::unimplemented("the gateway does not call this"))
    }

    async fn list_images(
        &self,
        request: Request<pr::ListImagesRequest>,
    ) -> Result<Response<pr::ListImagesResponse>, Status> {
        let request = request.into_inner();
        let (images, more) = page(&self.0.images, |i| &i.reference, request.page_size, &request.after);
        Ok(Response::new(pr::ListImagesResponse { images, more }))
    }

    async fn get_image(&self, request: Request<pr::GetImageRequest>) -> Result<Response<pr::Image>, Status> {
        let reference = request.into_inner().reference;
        let found = self.0.images.iter().find(|i| i.reference == reference);
        Ok(Response::new(found.ok_or_else(|| missing("image", &reference))?.clone()))
    }
}
