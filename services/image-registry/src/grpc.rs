//! The contract's edge: decode, call, encode.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use netloom_model::Failure;
use netloom_proto::convert::id;
use netloom_proto::image_registry::v1 as pb;
use netloom_proto::image_registry::v1::image_registry_service_server::ImageRegistryService;
use netloom_service::status::to_status;
use netloom_service::ticket;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::blob::Digest;
use crate::error::Error;
use crate::garbage::Keeper;
use crate::pull::Puller;
use crate::read;
use crate::reference::Reference;
use crate::store::Store;
use crate::upload::Uploads;
use crate::validate::{ImageUse, Known, Verdict, judge_all};

mod convert;

use convert::{
    decode_presence, decode_upload, decode_use, encode_garbage, encode_image, encode_upload, encode_verdict,
};

/// Most images of a page.
const MAX_PAGE: u32 = 1_000;

/// The service.
pub struct Service {
    /// Rows.
    pub store: Store,
    /// What comes into the store.
    pub uploads: Uploads,
    /// What goes out of it.
    pub keeper: Keeper,
    /// What is read from it.
    pub reader: read::Reader,
    /// What comes from other registries.
    pub puller: Puller,
}

impl Service {
    /// Takes the bytes of a stream.
    async fn write(&self, mut parts: Streaming<pb::WriteUploadRequest>) -> Result<pb::Upload, Status> {
        let first = parts.message().await?.unwrap_or_default();
        let writing = self.uploads.write(&first.id, first.offset).await.map_err(status)?;
        let mut next = Some(first.data);
        let mut broke = None;
        while let Some(data) = next {
            if !data.is_empty() && !writing.take(data).await {
                break;
            }
            // What came before is kept: the caller goes on behind it.
            next = match writing.hear(parts.message()).await {
                Ok(Ok(part)) => part.map(|p| p.data),
                Ok(Err(e)) => {
                    broke = Some(e);
                    None
                }
                Err(e) => {
                    broke = Some(status(e));
                    None
                }
            };
        }
        writing.finish().await.map_err(status)?;
        match broke {
            Some(e) => Err(e),
            None => Ok(encode_upload(self.uploads.progress(&first.id).await.map_err(status)?)),
        }
    }

    async fn record(&self, request: pb::RecordPresenceRequest) -> Result<(), Failure> {
        let host = id::<netloom_model::id::HostId>("host", &request.host)?;
        let mut said = Vec::with_capacity(request.images.len());
        for (i, image) in request.images.into_iter().enumerate() {
            // A text that is no reference cannot be in a store: ValidateImages is what refuses it, to whoever wrote it.
            let Ok(reference) = image.reference.parse::<Reference>() else {
                tracing::debug!(reference = image.reference, "not an image reference; not recorded");
                continue;
            };
            let presence = image.presence.unwrap_or_default();
            said.push((
                reference,
                decode_presence(&format!("images[{i}].presence"), host.as_str(), presence)?,
            ));
        }
        self.store.record(host.as_str(), &said).await?;
        Ok(())
    }

    async fn resolve(&self, request: pb::ResolveImagesRequest) -> Result<Vec<pb::ResolvedImage>, Error> {
        if !request.ticket_key.is_empty() {
            self.store.set_ticket_key(&request.ticket_key).await?;
        }
        let mut references = Vec::with_capacity(request.images.len());
        for wanted in request.images {
            references.push(match wanted.reference.as_str() {
                "" => self.store.preferred(&wanted.kind).await?,
                // ValidateImages is what refuses a text that is none, to whoever wrote it.
                text => text.parse().ok(),
            });
        }
        let stored = self.store.resolve(&references).await?;
        let encode = |(reference, stored): (Option<Reference>, Option<_>)| pb::ResolvedImage {
            reference: reference.map(|r| r.to_string()).unwrap_or_default(),
            stored: stored.map(convert::encode_blob),
        };
        Ok(references.into_iter().zip(stored).map(encode).collect())
    }

    /// Lets the holder of a ticket for these bytes pass.
    async fn admit(&self, digest: &str, token: &str) -> Result<(), Error> {
        let key = self.store.ticket_key().await?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        Ok(ticket::verify(&key, digest, ticket::READ_BLOB, token, now)?)
    }

    async fn validate(&self, request: pb::ValidateImagesRequest) -> Result<Vec<Verdict>, Failure> {
        let uses = request
            .uses
            .into_iter()
            .enumerate()
            .map(|(i, u)| decode_use(i, u))
            .collect::<Result<Vec<ImageUse>, Failure>>()?;
        let mut references: Vec<Reference> = uses.iter().filter_map(|u| u.reference.parse().ok()).collect();
        references.sort();
        references.dedup();
        let known = self.store.ask(&references).await?;
        let nothing = Known::default();
        let of = |wanted: &ImageUse| {
            let index = wanted.reference.parse().ok().and_then(|r| references.binary_search(&r).ok());
            index.map_or(&nothing, |i| &known[i])
        };
        Ok(judge_all(&uses, of))
    }
}

#[tonic::async_trait]
impl ImageRegistryService for Service {
    async fn record_presence(
        &self,
        request: Request<pb::RecordPresenceRequest>,
    ) -> Result<Response<pb::RecordPresenceResponse>, Status> {
        self.record(request.into_inner()).await.map_err(to_status)?;
        Ok(Response::new(pb::RecordPresenceResponse {}))
    }

    async fn resolve_images(
        &self,
        request: Request<pb::ResolveImagesRequest>,
    ) -> Result<Response<pb::ResolveImagesResponse>, Status> {
        let images = self.resolve(request.into_inner()).await.map_err(status)?;
        Ok(Response::new(pb::ResolveImagesResponse { images }))
    }

    async fn validate_images(
        &self,
        request: Request<pb::ValidateImagesRequest>,
    ) -> Result<Response<pb::ValidateImagesResponse>, Status> {
        let verdicts = self.validate(request.into_inner()).await.map_err(to_status)?;
        Ok(Response::new(pb::ValidateImagesResponse {
            verdicts: verdicts.into_iter().map(encode_verdict).collect(),
        }))
    }

    async fn list_images(
        &self,
        request: Request<pb::ListImagesRequest>,
    ) -> Result<Response<pb::ListImagesResponse>, Status> {
        let request = request.into_inner();
        let size = request.page_size.clamp(1, MAX_PAGE);
        let (images, more) = self.store.list(&request.after, size).await.map_err(status)?;
        let images = images.into_iter().map(encode_image).collect();
        Ok(Response::new(pb::ListImagesResponse { images, more }))
    }

    async fn get_image(&self, request: Request<pb::GetImageRequest>) -> Result<Response<pb::Image>, Status> {
        let reference = reference(&request.into_inner().reference)?;
        let image = self.store.get(&reference).await.map_err(status)?;
        Ok(Response::new(encode_image(image)))
    }

    async fn delete_image(
        &self,
        request: Request<pb::DeleteImageRequest>,
    ) -> Result<Response<pb::Image>, Status> {
        let request = request.into_inner();
        let reference = reference(&request.reference)?;
        let users = convert::users(request.users);
        let image = self.keeper.delete(&reference, &users).await.map_err(status)?;
        Ok(Response::new(encode_image(image)))
    }

    async fn verify_image(
        &self,
        request: Request<pb::VerifyImageRequest>,
    ) -> Result<Response<pb::Image>, Status> {
        let reference = reference(&request.into_inner().reference)?;
        let image = self.keeper.verify(&reference).await.map_err(status)?;
        Ok(Response::new(encode_image(image)))
    }

    async fn collect_garbage(
        &self,
        request: Request<pb::CollectGarbageRequest>,
    ) -> Result<Response<pb::CollectGarbageResponse>, Status> {
        let request = request.into_inner();
        let users = convert::users(request.users);
        let garbage = self.keeper.collect(&users, request.unused_images, request.validate_only).await;
        let garbage = garbage.map_err(status)?.into_iter().map(encode_garbage).collect();
        Ok(Response::new(pb::CollectGarbageResponse { garbage }))
    }

    async fn create_upload(
        &self,
        request: Request<pb::CreateUploadRequest>,
    ) -> Result<Response<pb::Upload>, Status> {
        let upload = decode_upload(request.into_inner().upload.unwrap_or_default()).map_err(to_status)?;
        let progress = self.uploads.create(upload).await.map_err(status)?;
        Ok(Response::new(encode_upload(progress)))
    }

    async fn get_upload(
        &self,
        request: Request<pb::GetUploadRequest>,
    ) -> Result<Response<pb::Upload>, Status> {
        let progress = self.uploads.progress(&request.into_inner().id).await.map_err(status)?;
        Ok(Response::new(encode_upload(progress)))
    }

    async fn write_upload(
        &self,
        request: Request<Streaming<pb::WriteUploadRequest>>,
    ) -> Result<Response<pb::Upload>, Status> {
        self.write(request.into_inner()).await.map(Response::new)
    }

    async fn delete_upload(
        &self,
        request: Request<pb::DeleteUploadRequest>,
    ) -> Result<Response<pb::Upload>, Status> {
        let progress = self.uploads.delete(&request.into_inner().id).await.map_err(status)?;
        Ok(Response::new(encode_upload(progress)))
    }

    async fn finish_upload(
        &self,
        request: Request<pb::FinishUploadRequest>,
    ) -> Result<Response<pb::Image>, Status> {
        let request = request.into_inner();
        let digest = convert::digest("digest", &request.digest).map_err(to_status)?;
        let image = self.uploads.finish(&request.id, digest).await.map_err(status)?;
        Ok(Response::new(encode_image(image)))
    }

    type PullImageStream = ReceiverStream<Result<pb::PullImageResponse, Status>>;

    async fn pull_image(
        &self,
        request: Request<pb::PullImageRequest>,
    ) -> Result<Response<Self::PullImageStream>, Status> {
        let order = convert::decode_order(request.into_inner()).map_err(to_status)?;
        tracing::info!(source = order.source, image = %order.reference, "image pull");
        let (give, take) = mpsc::channel(1);
        let (tell, mut told) = mpsc::channel(1);
        let puller = self.puller.clone();
        tokio::spawn(async move {
            let mut pull = std::pin::pin!(puller.pull(order, tell));
            let done = loop {
                tokio::select! {
                    done = &mut pull => break done,
                    Some(far) = told.recv() => {
                        // Whoever asked went away: dropping the other end of `tell` ends the pull in order.
                        if give.send(Ok(convert::encode_progress(far))).await.is_err() {
                            told.close();
                        }
                    }
                    () = give.closed(), if !told.is_closed() => told.close(),
                }
            };
            let _ = give.send(done.map(convert::encode_pulled).map_err(status)).await;
        });
        Ok(Response::new(ReceiverStream::new(take)))
    }

    type ReadBlobStream = tokio_stream::adapters::Map<
        ReceiverStream<Result<Bytes, Error>>,
        fn(Result<Bytes, Error>) -> Result<pb::ReadBlobResponse, Status>,
    >;

    async fn read_blob(
        &self,
        request: Request<pb::ReadBlobRequest>,
    ) -> Result<Response<Self::ReadBlobStream>, Status> {
        let request = request.into_inner();
        self.admit(&request.digest, &request.ticket).await.map_err(status)?;
        let digest =
            Digest::parse(&request.digest).ok_or_else(|| status(Error::BlobNotFound(request.digest)))?;
        let bytes = self.reader.read(digest, request.offset).await.map_err(status)?;
        let encode: fn(Result<Bytes, Error>) -> Result<pb::ReadBlobResponse, Status> =
            |part| part.map(|data| pb::ReadBlobResponse { data }).map_err(status);
        Ok(Response::new(bytes.map(encode)))
    }
}

fn reference(text: &str) -> Result<Reference, Status> {
    text.parse().map_err(|e| status(Error::Reference(e)))
}

fn status(e: Error) -> Status {
    to_status(e.into())
}
