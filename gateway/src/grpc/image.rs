//! ImageService.

use futures::{StreamExt as _, stream};
use netloom_api::v1::{self, image_service_server::ImageService};
use netloom_proto::image_registry::v1 as pr;
use netloom_proto::scheduler::v1 as ps;
use tonic::{Request, Response, Status, Streaming};

use super::Api;
use crate::error::Error;
use crate::watch::{Answers, until_shutdown};
use crate::{names, pages, view};

const LIST: &str = "images";

impl Api {
    /// Which lab uses which image, and what its nodes are made from.
    async fn image_users(&self) -> Result<Vec<pr::ImageUser>, Error> {
        let request = ps::ListImageUsersRequest {};
        let found =
            self.peers.scheduler().list_image_users(request).await.map_err(self.peers.scheduler_error())?;
        let user =
            |u: ps::ImageUser| pr::ImageUser { lab: u.lab, reference: u.reference, digests: u.digests };
        Ok(found.into_inner().users.into_iter().map(user).collect())
    }

    /// Kinds that are asked for, all of which there have to be.
    fn kinds(&self, field: &str, kinds: Vec<v1::ImageKind>) -> Result<Vec<pr::ImageKind>, Error> {
        for (i, kind) in kinds.iter().enumerate() {
            if self.catalogue.get(&kind.kind).is_none() {
                let what = format!("there is no kind \"{}\"; see `netloom kinds list`", kind.kind);
                return Err(Error::field(format!("{field}[{i}].kind"), what));
            }
        }
        let kind =
            |k: v1::ImageKind| pr::ImageKind { kind: k.kind, version: k.version, preferred: k.preferred };
        Ok(kinds.into_iter().map(kind).collect())
    }

    /// The upload that is asked for, for the registry.
    fn upload(&self, upload: v1::Upload) -> Result<pr::Upload, Error> {
        Ok(pr::Upload {
            kinds: self.kinds("upload.kinds", upload.kinds)?,
            reference: upload.reference,
            size_bytes: size("upload.size_bytes", upload.size_bytes)?,
            digest: upload.digest,
            format: upload.format,
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

    type VerifyImageOnHostsStream = Answers<v1::VerifyImageOnHostsResponse>;

    async fn verify_image_on_hosts(
        &self,
        request: Request<v1::VerifyImageOnHostsRequest>,
    ) -> Result<Response<Self::VerifyImageOnHostsStream>, Status> {
        let v1::VerifyImageOnHostsRequest { name, host } = request.into_inner();
        let reference = names::read_image("name", &name)?.to_owned();
        let host = match host.as_str() {
            "" => String::new(),
            host => names::read_host("host", host)?.to_string(),
        };
        let request = ps::VerifyImageRequest { reference, host };
        let failed = self.peers.scheduler_error();
        let told = self.peers.scheduler().verify_image(request).await.map_err(&failed)?.into_inner();
        let told = told.map(move |part| part.map(view::image_check).map_err(|status| failed(status).into()));
        Ok(Response::new(until_shutdown(told, &self.shutdown)))
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

    type PullImageStream = Answers<v1::PullImageResponse>;

    async fn pull_image(
        &self,
        request: Request<v1::PullImageRequest>,
    ) -> Result<Response<Self::PullImageStream>, Status> {
        use pr::pull_image_response::Event as Told;
        use v1::pull_image_response::Event;
        let request = request.into_inner();
        let shown = |c: v1::RegistryCredentials| pr::RegistryCredentials {
            username: c.username,
            password: c.password,
        };
        let request = pr::PullImageRequest {
            kinds: self.kinds("kinds", request.kinds)?,
            source: request.source,
            reference: request.reference,
            architecture: request.architecture,
            credentials: request.credentials.map(shown),
        };
        let failed = self.peers.registry_error();
        let told = self.peers.registry().pull_image(request).await.map_err(&failed)?.into_inner();
        let told = told.map(move |part| match part {
            Ok(part) => {
                let event = part.event.map(|event| match event {
                    Told::Progress(far) => Event::Progress(view::pull_progress(far)),
                    Told::Done(image) => Event::Image(view::image(image)),
                });
                Ok(v1::PullImageResponse { event })
            }
            Err(status) => Err(failed(status).into()),
        });
        Ok(Response::new(until_shutdown(told, &self.shutdown)))
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
