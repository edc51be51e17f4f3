//! The contract's edge: decode, call, encode.

use netloom_model::state::Runtime;
use netloom_model::{Code, Failure};
use netloom_proto::convert::{ConvertError, id, micros, timestamp};
use netloom_proto::image_registry::v1 as pb;
use netloom_proto::image_registry::v1::image_registry_service_server::ImageRegistryService;
use netloom_proto::v1::ImageFormat;
use netloom_service::status::to_status;
use tonic::{Request, Response, Status};

use crate::error::Error;
use crate::reference::Reference;
use crate::store::{Image, Store, now_us};
use crate::validate::{Format, ImageUse, Presence, Verdict, judge};

/// Most images of a page.
const MAX_PAGE: u32 = 1_000;

/// The service.
pub struct Service {
    store: Store,
}

impl Service {
    /// Over this store.
    pub fn new(store: Store) -> Service {
        Service { store }
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
        let verdict = |wanted: &ImageUse| {
            let index = wanted.reference.parse().ok().and_then(|r| references.binary_search(&r).ok());
            judge(wanted, index.map_or(&[], |i| known[i].as_slice()))
        };
        Ok(uses.iter().map(verdict).collect())
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
        let reference: Reference =
            request.into_inner().reference.parse().map_err(|e| status(Error::Reference(e)))?;
        let image = self.store.get(&reference).await.map_err(status)?;
        Ok(Response::new(encode_image(image)))
    }
}

fn status(e: Error) -> Status {
    to_status(e.into())
}

fn decode_presence(field: &str, host: &str, p: pb::Presence) -> Result<Presence, Failure> {
    let format = match p.format() {
        ImageFormat::Unspecified => Format::Unknown,
        ImageFormat::Docker => Format::Docker,
        ImageFormat::Qcow2 => Format::Qcow2,
        ImageFormat::Raw => Format::Raw,
    };
    let runtime = p.runtime().try_into().map_err(|e| at(field, e))?;
    let observed = micros(p.observe_time);
    Ok(Presence {
        host: host.to_owned(),
        runtime,
        present: p.present,
        digest: p.digest,
        format,
        size_bytes: p.size_bytes,
        architecture: p.architecture,
        observe_time_us: if observed == 0 { now_us() } else { observed },
    })
}

fn decode_use(index: usize, u: pb::ImageUse) -> Result<ImageUse, Failure> {
    let field = format!("uses[{index}]");
    let runtime: Runtime = u.runtime().try_into().map_err(|e| at(&field, e))?;
    if runtime == Runtime::Bridge {
        return Err(Failure::new(Code::InvalidArgument, "INVALID_REQUEST", "a bridge uses no image")
            .violation(format!("{field}.runtime"), "a bridge uses no image; leave its node out"));
    }
    Ok(ImageUse {
        policy: u.pull_policy().into(),
        node: u.node,
        reference: u.reference,
        runtime,
        host: u.host,
        architecture: u.architecture,
    })
}

/// The field that a part of a list stands in.
fn at(field: &str, e: ConvertError) -> Failure {
    ConvertError { field: format!("{field}.{}", e.field), what: e.what }.into()
}

fn encode_verdict(verdict: Verdict) -> pb::ImageVerdict {
    match verdict {
        Verdict::Use { digest } => pb::ImageVerdict {
            decision: pb::ImageDecision::Use.into(),
            digest,
            ..pb::ImageVerdict::default()
        },
        Verdict::Pull => {
            pb::ImageVerdict { decision: pb::ImageDecision::Pull.into(), ..pb::ImageVerdict::default() }
        }
        Verdict::Refuse { reason, message } => pb::ImageVerdict {
            decision: pb::ImageDecision::Refuse.into(),
            reason: reason.as_str().to_owned(),
            message,
            ..pb::ImageVerdict::default()
        },
    }
}

fn encode_image(image: Image) -> pb::Image {
    pb::Image {
        uid: image.uid,
        reference: image.reference,
        presences: image.presences.into_iter().map(encode_presence).collect(),
        create_time: timestamp(image.create_time_us),
    }
}

fn encode_presence(p: Presence) -> pb::Presence {
    let format = match p.format {
        Format::Unknown => ImageFormat::Unspecified,
        Format::Docker => ImageFormat::Docker,
        Format::Qcow2 => ImageFormat::Qcow2,
        Format::Raw => ImageFormat::Raw,
    };
    pb::Presence {
        host: p.host,
        runtime: netloom_proto::v1::Runtime::from(p.runtime).into(),
        present: p.present,
        digest: p.digest,
        format: format.into(),
        size_bytes: p.size_bytes,
        architecture: p.architecture,
        observe_time: timestamp(p.observe_time_us),
    }
}
