//! The image registry.

use std::sync::Arc;

use netloom_proto::image_registry::v1 as pr;
use netloom_proto::image_registry::v1::image_registry_service_server::ImageRegistryService;
use tonic::{Request, Response, Status, Streaming};

use super::{World, missing, page};
use crate::fixture;

pub struct Registry(pub Arc<World>);

impl Registry {
    fn image(&self, reference: &str) -> Result<Response<pr::Image>, Status> {
        let found = self.0.images.iter().find(|i| i.reference == reference);
        Ok(Response::new(found.ok_or_else(|| missing("image", reference))?.clone()))
    }

    fn upload(id: &str) -> Result<Response<pr::Upload>, Status> {
        let upload = fixture::upload();
        if upload.id == id { Ok(Response::new(upload)) } else { Err(missing("upload", id)) }
    }
}

#[tonic::async_trait]
impl ImageRegistryService for Registry {
    async fn record_presence(
        &self,
        _: Request<pr::RecordPresenceRequest>,
    ) -> Result<Response<pr::RecordPresenceResponse>, Status> {
        Err(Status::unimplemented("the gateway does not call this"))
    }

    async fn resolve_images(
        &self,
        _: Request<pr::ResolveImagesRequest>,
    ) -> Result<Response<pr::ResolveImagesResponse>, Status> {
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
        self.image(&request.into_inner().reference)
    }

    async fn delete_image(
        &self,
        request: Request<pr::DeleteImageRequest>,
    ) -> Result<Response<pr::Image>, Status> {
        let request = request.into_inner();
        *self.0.users.lock().unwrap() = request.users;
        self.image(&request.reference)
    }

    async fn verify_image(
        &self,
        request: Request<pr::VerifyImageRequest>,
    ) -> Result<Response<pr::Image>, Status> {
        self.image(&request.into_inner().reference)
    }

    async fn collect_garbage(
        &self,
        request: Request<pr::CollectGarbageRequest>,
    ) -> Result<Response<pr::CollectGarbageResponse>, Status> {
        use pr::garbage::What;
        let request = request.into_inner();
        *self.0.users.lock().unwrap() = request.users;
        let one = |what, size_bytes| pr::Garbage { what: Some(what), size_bytes, reason: "nobody".into() };
        let mut garbage = vec![one(What::Digest("sha256:aa".into()), 5), one(What::Upload("u".into()), 7)];
        if request.unused_images {
            garbage.push(one(What::Reference("a:1".into()), 11));
        }
        Ok(Response::new(pr::CollectGarbageResponse { garbage }))
    }

    async fn create_upload(
        &self,
        request: Request<pr::CreateUploadRequest>,
    ) -> Result<Response<pr::Upload>, Status> {
        self.0.uploads.lock().unwrap().extend(request.into_inner().upload);
        Ok(Response::new(fixture::upload()))
    }

    async fn get_upload(
        &self,
        request: Request<pr::GetUploadRequest>,
    ) -> Result<Response<pr::Upload>, Status> {
        Registry::upload(&request.into_inner().id)
    }

    async fn write_upload(
        &self,
        request: Request<Streaming<pr::WriteUploadRequest>>,
    ) -> Result<Response<pr::Upload>, Status> {
        let mut parts = request.into_inner();
        let first = parts.message().await?.unwrap_or_default();
        let mut bytes = first.data.to_vec();
        while let Some(part) = parts.message().await? {
            bytes.extend(part.data);
        }
        self.0.written.lock().unwrap().push((first.offset, bytes));
        Registry::upload(&first.id)
    }

    async fn delete_upload(
        &self,
        request: Request<pr::DeleteUploadRequest>,
    ) -> Result<Response<pr::Upload>, Status> {
        Registry::upload(&request.into_inner().id)
    }

    async fn finish_upload(
        &self,
        request: Request<pr::FinishUploadRequest>,
    ) -> Result<Response<pr::Image>, Status> {
        Registry::upload(&request.into_inner().id)?;
        self.image("netloom/host:local")
    }

    type PullImageStream = tokio_stream::Iter<std::vec::IntoIter<Result<pr::PullImageResponse, Status>>>;

    async fn pull_image(
        &self,
        request: Request<pr::PullImageRequest>,
    ) -> Result<Response<Self::PullImageStream>, Status> {
        use pr::pull_image_response::Event;
        let image = self.image(&request.into_inner().source)?.into_inner();
        let far = pr::PullProgress { done_bytes: 1, total_bytes: 2 };
        let events = [Event::Progress(far), Event::Done(image)];
        let told = events.map(|event| Ok(pr::PullImageResponse { event: Some(event) }));
        Ok(Response::new(tokio_stream::iter(Vec::from(told))))
    }

    type ReadBlobStream = tokio_stream::Empty<Result<pr::ReadBlobResponse, Status>>;

    async fn read_blob(
        &self,
        _: Request<pr::ReadBlobRequest>,
    ) -> Result<Response<Self::ReadBlobStream>, Status> {
        Err(Status::unimplemented("the gateway does not call this"))
    }
}
