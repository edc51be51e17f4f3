//! The fake image registry.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use netloom_model::id::Digest;
use netloom_proto::image_registry::v1 as pi;
use netloom_proto::image_registry::v1::image_registry_service_server::{
    ImageRegistryService, ImageRegistryServiceServer,
};
use netloom_proto::v1 as p;
use netloom_service::server::serve;
use netloom_service::{Connector, Endpoint, Shutdown};
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

use super::Answer;

/// A registry that believes what hosts said.
#[derive(Clone, Default)]
pub struct Registry {
    present: Arc<Mutex<BTreeMap<(String, String), bool>>>,
    preferred: Arc<Mutex<BTreeMap<String, String>>>,
    /// What the store has of images: the size of the disk that a guest sees.
    pub disks: Arc<Mutex<BTreeMap<String, u64>>>,
    /// Digests of what the store has.
    stored: Arc<Mutex<BTreeSet<String>>>,
    /// Architectures that images were judged for.
    pub judged_for: Arc<Mutex<BTreeSet<String>>>,
}

impl Registry {
    /// From now on this image stands for the kind.
    pub fn prefer(&self, kind: &str, reference: &str) {
        self.preferred.lock().unwrap().insert(kind.into(), reference.into());
    }

    /// From now on the store has these bytes.
    pub fn store(&self, digest: &Digest) {
        self.stored.lock().unwrap().insert(digest.to_string());
    }

    pub async fn serve(&self, connector: &Connector, endpoint: &Endpoint, shutdown: &Shutdown) {
        let routes = Routes::new(ImageRegistryServiceServer::new(self.clone()));
        let listener = connector.listen(endpoint).await.unwrap();
        tokio::spawn(serve(listener, routes, "registry", netloom_proto::DESCRIPTORS, shutdown.clone()));
    }
}

#[tonic::async_trait]
impl ImageRegistryService for Registry {
    async fn record_presence(
        &self,
        request: Request<pi::RecordPresenceRequest>,
    ) -> Answer<pi::RecordPresenceResponse> {
        let request = request.into_inner();
        for image in request.images {
            let present = image.presence.is_some_and(|p| p.present);
            self.present.lock().unwrap().insert((request.host.clone(), image.reference), present);
        }
        Ok(Response::new(pi::RecordPresenceResponse {}))
    }

    async fn resolve_images(
        &self,
        request: Request<pi::ResolveImagesRequest>,
    ) -> Answer<pi::ResolveImagesResponse> {
        let preferred = self.preferred.lock().unwrap();
        let (disks, known) = (self.disks.lock().unwrap(), self.stored.lock().unwrap());
        let resolved = |w: pi::WantedImage| {
            let of_kind = || preferred.get(&w.kind).cloned().unwrap_or_default();
            let reference = if w.reference.is_empty() { of_kind() } else { w.reference.clone() };
            let named = reference.rsplit_once('@').map_or("", |(_, digest)| digest).to_owned();
            let by_digest = pi::Blob { digest: named, size_bytes: 1, ..pi::Blob::default() };
            let stored = disks.get(&reference).map(|size| pi::Blob {
                digest: Digest::of(reference.as_bytes()).to_string(),
                virtual_size_bytes: *size,
                ..pi::Blob::default()
            });
            let stored = stored.or(Some(by_digest).filter(|blob| known.contains(&blob.digest)));
            pi::ResolvedImage { reference, stored }
        };
        let images = request.into_inner().images.into_iter().map(resolved).collect();
        Ok(Response::new(pi::ResolveImagesResponse { images }))
    }

    async fn validate_images(
        &self,
        request: Request<pi::ValidateImagesRequest>,
    ) -> Answer<pi::ValidateImagesResponse> {
        let present = self.present.lock().unwrap();
        let verdict = |u: pi::ImageUse| {
            self.judged_for.lock().unwrap().insert(u.architecture.clone());
            let there = present.get(&(u.host.clone(), u.reference.clone())).copied().unwrap_or(false);
            match (there, u.pull_policy()) {
                (true, _) => pi::ImageVerdict {
                    decision: pi::ImageDecision::Use.into(),
                    digest: match u.reference.rsplit_once('@') {
                        Some((_, digest)) => digest.to_owned(),
                        None => Digest::of(u.reference.as_bytes()).to_string(),
                    },
                    ..Default::default()
                },
                (false, p::ImagePullPolicy::Never) => pi::ImageVerdict {
                    decision: pi::ImageDecision::Refuse.into(),
                    reason: "IMAGE_MISSING".into(),
                    message: format!("node {}: image {} is not on host {}", u.node, u.reference, u.host),
                    ..Default::default()
                },
                (false, _) => {
                    pi::ImageVerdict { decision: pi::ImageDecision::Pull.into(), ..Default::default() }
                }
            }
        };
        let verdicts = request.into_inner().uses.into_iter().map(verdict).collect();
        Ok(Response::new(pi::ValidateImagesResponse { verdicts }))
    }

    async fn list_images(&self, _: Request<pi::ListImagesRequest>) -> Answer<pi::ListImagesResponse> {
        Err(Status::unimplemented("not part of these tests"))
    }

    async fn get_image(&self, _: Request<pi::GetImageRequest>) -> Answer<pi::Image> {
        Err(Status::unimplemented("not part of these tests"))
    }

    async fn delete_image(&self, _: Request<pi::DeleteImageRequest>) -> Result<Response<pi::Image>, Status> {
        unasked()
    }

    async fn verify_image(&self, _: Request<pi::VerifyImageRequest>) -> Result<Response<pi::Image>, Status> {
        unasked()
    }

    async fn collect_garbage(
        &self,
        _: Request<pi::CollectGarbageRequest>,
    ) -> Result<Response<pi::CollectGarbageResponse>, Status> {
        unasked()
    }

    async fn create_upload(
        &self,
        _: Request<pi::CreateUploadRequest>,
    ) -> Result<Response<pi::Upload>, Status> {
        unasked()
    }

    async fn get_upload(&self, _: Request<pi::GetUploadRequest>) -> Result<Response<pi::Upload>, Status> {
        unasked()
    }

    async fn delete_upload(
        &self,
        _: Request<pi::DeleteUploadRequest>,
    ) -> Result<Response<pi::Upload>, Status> {
        unasked()
    }

    async fn finish_upload(
        &self,
        _: Request<pi::FinishUploadRequest>,
    ) -> Result<Response<pi::Image>, Status> {
        unasked()
    }

    async fn write_upload(
        &self,
        _: Request<Streaming<pi::WriteUploadRequest>>,
    ) -> Result<Response<pi::Upload>, Status> {
        unasked()
    }

    type PullImageStream = futures::stream::Empty<Result<pi::PullImageResponse, Status>>;

    async fn pull_image(
        &self,
        _: Request<pi::PullImageRequest>,
    ) -> Result<Response<Self::PullImageStream>, Status> {
        unasked()
    }

    type ReadBlobStream = futures::stream::Empty<Result<pi::ReadBlobResponse, Status>>;

    async fn read_blob(
        &self,
        _: Request<pi::ReadBlobRequest>,
    ) -> Result<Response<Self::ReadBlobStream>, Status> {
        unasked()
    }
}

fn unasked<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("the scheduler does not call this"))
}
