//! ImageService.

use futures::{StreamExt as _, stream};
use netloom_api::v1::{self, image_service_server::ImageService};
use netloom_proto::image_registry::v1 as pr;
use netloom_proto::scheduler::v1 as ps;
use tonic::{Request, Response, Status, Streaming};

use super::Api;
use crate::error::Error;
use crate::{names, pages, view};

const LIST: &str = "images";
/// Labs that are asked for at once.
const LABS: u32 = 1_000;

impl Api {
    /// Which lab uses which image, those that its kinds stand for included.
    async fn image_users(&self) -> Result<Vec<pr::ImageUser>, Error> {
        let mut users = Vec::new();
        let mut after = String::new();
        loop {
            let request = ps::ListLabsRequest { page_size: LABS, after: after.clone() };
            let page =
                self.peers.scheduler().list_labs(request).await.map_err(self.peers.scheduler_error())?;
            let page = page.into_inner();
            for lab in page.labs {
                after.clone_from(&lab.id);
                for node in lab.spec.unwrap_or_default().nodes {
                    let of_kind =
                        || self.catalogue.get(&node.kind).map(|k| k.image.clone()).unwrap_or_default();
                    let reference = if node.image.is_empty() { of_kind() } else { node.image };
                    users.push(pr::ImageUser { lab: lab.id.clone(), reference });
                }
            }
            if !page.more {
                users.sort_by(|a, b| (&a.lab, &a.reference).cmp(&(&b.lab, &b.reference)));
                users.dedup();
                return Ok(users);
            }
        }
    }

    /// The upload that is asked for, for the registry.
    fn upload(&self, upload: v1::Upload) -> Result<pr::Upload, Error> {
        for (i, kind) in upload.kinds.iter().enumerate() {
            if self.catalogue.get(&kind.kind).is_none() {
                let what = format!("there is no kind \"{}\"; see `netloom kinds list`", kind.kind);
                return Err(Error::field(format!("upload.kinds[{i}].kind"), what));
            }
        }
        let kind =
            |k: v1::ImageKind| pr::ImageKind { kind: k.kind, version: k.version, preferred: k.preferred };
        Ok(pr::Upload {
            reference: upload.reference,
            size_bytes: size("upload.size_bytes", upload.size_bytes)?,
            digest: upload.digest,
            format: upload.format,
            kinds: upload.kinds.into_iter().map(kind).collect(),
            file_name: upload.file_name,
            ..pr::Upload::default()
        })
    }
}

fn size(field: &str, number: i64) -> Result<u64, Error> {
    u64::try_from(number).map_err(|_| Error::field(field, "is negative"))
}

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

    async fn delete_image(
        &self,
        request: Request<v1::DeleteImageRequest>,
    ) -> Result<Response<v1::Image>, Status> {
        let name = request.into_inner().name;
        let reference = names::read_image("name", &name)?.to_owned();
        let request = pr::DeleteImageRequest { reference, users: self.image_users().await? };
        let facts = self.peers.registry().delete_image(request).await.map_err(self.peers.registry_error())?;
        Ok(Response::new(view::image(facts.into_inner())))
    }

    async fn verify_image(
        &self,
        request: Request<v1::VerifyImageRequest>,
    ) -> Result<Response<v1::Image>, Status> {
        let name = request.into_inner().name;
        let request = pr::VerifyImageRequest { reference: names::read_image("name", &name)?.to_owned() };
        let facts = self.peers.registry().verify_image(request).await.map_err(self.peers.registry_error())?;
        Ok(Response::new(view::image(facts.into_inner())))
    }

    async fn collect_garbage(
        &self,
        request: Request<v1::CollectGarbageRequest>,
    ) -> Result<Response<v1::CollectGarbageResponse>, Status> {
        let v1::CollectGarbageRequest { validate_only, unused_images } = request.into_inner();
        let request =
            pr::CollectGarbageRequest { validate_only, unused_images, users: self.image_users().await? };
        let found =
            self.peers.registry().collect_garbage(request).await.map_err(self.peers.registry_error())?;
        Ok(Response::new(view::garbage(found.into_inner())))
    }

    async fn create_upload(
        &self,
        request: Request<v1::CreateUploadRequest>,
    ) -> Result<Response<v1::Upload>, Status> {
        let upload = self.upload(request.into_inner().upload.unwrap_or_default())?;
        let request = pr::CreateUploadRequest { upload: Some(upload) };
        let facts =
            self.peers.registry().create_upload(request).await.map_err(self.peers.registry_error())?;
        Ok(Response::new(view::upload(facts.into_inner())))
    }

    async fn get_upload(
        &self,
        request: Request<v1::GetUploadRequest>,
    ) -> Result<Response<v1::Upload>, Status> {
        let name = request.into_inner().name;
        let request = pr::GetUploadRequest { id: names::read_upload("name", &name)?.to_owned() };
        let facts = self.peers.registry().get_upload(request).await.map_err(self.peers.registry_error())?;
        Ok(Response::new(view::upload(facts.into_inner())))
    }

    async fn write_upload(
        &self,
        request: Request<Streaming<v1::WriteUploadRequest>>,
    ) -> Result<Response<v1::Upload>, Status> {
        let mut parts = request.into_inner();
        let first = parts.message().await?.unwrap_or_default();
        let id = names::read_upload("name", &first.name)?.to_owned();
        let first = pr::WriteUploadRequest { id, offset: size("offset", first.offset)?, data: first.data };
        // A caller that goes away ends the stream: what came of it is kept.
        let rest =
            parts.take_while(|part| std::future::ready(part.is_ok())).map(|part| pr::WriteUploadRequest {
                data: part.map(|p| p.data).unwrap_or_default(),
                ..pr::WriteUploadRequest::default()
            });
        let parts = stream::once(std::future::ready(first)).chain(rest);
        let facts = self.peers.registry().write_upload(parts).await.map_err(self.peers.registry_error())?;
        Ok(Response::new(view::upload(facts.into_inner())))
    }

    async fn delete_upload(
        &self,
        request: Request<v1::DeleteUploadRequest>,
    ) -> Result<Response<v1::Upload>, Status> {
        let name = request.into_inner().name;
        let request = pr::DeleteUploadRequest { id: names::read_upload("name", &name)?.to_owned() };
        let facts =
            self.peers.registry().delete_upload(request).await.map_err(self.peers.registry_error())?;
        Ok(Response::new(view::upload(facts.into_inner())))
    }

    async fn finish_upload(
        &self,
        request: Request<v1::FinishUploadRequest>,
    ) -> Result<Response<v1::Image>, Status> {
        let v1::FinishUploadRequest { name, digest } = request.into_inner();
        let request = pr::FinishUploadRequest { id: names::read_upload("name", &name)?.to_owned(), digest };
        let facts =
            self.peers.registry().finish_upload(request).await.map_err(self.peers.registry_error())?;
        Ok(Response::new(view::image(facts.into_inner())))
    }
}
