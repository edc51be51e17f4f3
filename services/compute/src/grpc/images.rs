//! What the contract says of images.

use std::sync::Arc;

use futures::stream::{self, Stream, StreamExt as _};
use netloom_model::id::Digest;
use netloom_model::state::Runtime;
use netloom_proto::{compute::v1 as p, v1 as pv};
use p::pull_image_response::Event;
use tonic::Status;

use crate::driver::{Image, ImageFormat};
use crate::error::Error;
use crate::host::Host;
use crate::images::check::{Checked, Outcome};
use crate::images::scrub::{Pace, Told};
use crate::images::{Images, Stored, pinned};

/// What a store has of an image. A disk is looked for by the digest that the registry's store has under the reference.
pub(super) async fn facts(
    host: &Host,
    reference: String,
    runtime: pv::Runtime,
    digest: &str,
) -> Result<p::ImageFacts, Error> {
    let wanted: Runtime = runtime.try_into()?;
    let driver = &host.drivers[host.driver_of(wanted)?];
    let name = if wanted == Runtime::Libvirt && !digest.is_empty() { digest } else { &reference };
    if wanted == Runtime::Libvirt {
        // What is on disk is compared before it is said to be there.
        for digest in pinned(std::iter::once(name)) {
            host.images.look(&digest).await?;
        }
    }
    let image = driver.image(name, wanted).await?;
    let mut facts = p::ImageFacts { reference, runtime: runtime.into(), ..Default::default() };
    if let Some(Image { digest, format, size_bytes, architecture }) = image {
        let format = match format {
            ImageFormat::Docker => pv::ImageFormat::Docker,
            ImageFormat::Qcow2 => pv::ImageFormat::Qcow2,
            ImageFormat::Raw => pv::ImageFormat::Raw,
        };
        facts =
            p::ImageFacts { present: true, digest, format: format.into(), size_bytes, architecture, ..facts };
    }
    Ok(facts)
}

/// Fetches an image: its progress, and what the store then has of it.
pub(super) async fn pull(
    host: Arc<Host>,
    request: p::PullImageRequest,
) -> Result<impl Stream<Item = Result<p::PullImageResponse, Status>> + Send, Error> {
    let runtime = request.runtime();
    let wanted: Runtime = runtime.try_into()?;
    let driver = host.drivers[host.driver_of(wanted)?].clone();
    tracing::info!(image = request.reference, "image pull");
    let reference = request.reference;
    let digest = request.stored.as_ref().map(|s| s.digest.clone()).unwrap_or_default();
    let progress = match request.stored {
        Some(s) => host.images.clone().pull(driver, wanted, reference.clone(), stored(s)?).boxed(),
        None => driver.pull(&reference).await?,
    };
    let progress = progress.map(|told| Ok(Event::Progress(told?)));
    let done = stream::once(async move {
        let facts = facts(&host, reference.clone(), runtime, &digest).await?;
        if !facts.present {
            let message = "it is not in the store after it was pulled".to_owned();
            return Err(Error::PullFailed { reference, message });
        }
        Ok(Event::Done(facts))
    });
    let event = |event: Result<Event, Error>| Ok(p::PullImageResponse { event: Some(event?) });
    Ok(progress.chain(done).map(event))
}

/// Compares images with their digests: how far it is, and what came of each.
pub(super) fn verify(
    host: &Host,
    digests: Vec<String>,
) -> Result<impl Stream<Item = Result<p::VerifyImagesResponse, Status>> + Send + use<>, Error> {
    use p::verify_images_response::Event;
    let invalid = |e| Error::Invalid(format!("digests: {e}"));
    let digests: Vec<Digest> =
        digests.into_iter().map(|text| text.try_into().map_err(invalid)).collect::<Result<_, _>>()?;
    let images = host.images.clone();
    let told = images.clone().verify(digests, Pace::Full);
    Ok(told.map(move |told| {
        let event = match told? {
            Told::Under(digest, done_bytes, total_bytes) => {
                Event::Progress(p::VerifyProgress { digest: digest.into(), done_bytes, total_bytes })
            }
            Told::Checked(checked) => Event::Checked(self::checked(&images, checked)),
        };
        Ok(p::VerifyImagesResponse { event: Some(event) })
    }))
}

fn checked(images: &Images, Checked { digest, outcome, size_bytes, nodes }: Checked) -> p::CheckedImage {
    let (result, message) = match outcome {
        Outcome::Right => (pv::ImageCheckResult::Right, String::new()),
        Outcome::Absent => (pv::ImageCheckResult::Absent, String::new()),
        Outcome::SetAside => (
            pv::ImageCheckResult::SetAside,
            "its bytes on the disk were others than its SHA-256 says, and it was set aside".to_owned(),
        ),
        Outcome::Unreadable(why) => {
            (pv::ImageCheckResult::Unreadable, images.unreadable_words(&digest, &why))
        }
    };
    p::CheckedImage {
        digest: digest.into(),
        result: result.into(),
        size_bytes,
        message,
        node_uids: nodes.iter().map(ToString::to_string).collect(),
    }
}

fn stored(s: p::StoredImage) -> Result<Stored, Error> {
    let is_archive = match s.format() {
        pv::ImageFormat::DockerArchive | pv::ImageFormat::OciArchive => true,
        pv::ImageFormat::Qcow2 | pv::ImageFormat::Raw => false,
        other => {
            return Err(Error::Invalid(format!("stored.format: no runtime starts {}", other.as_str_name())));
        }
    };
    let digest = s.digest.try_into().map_err(|e| Error::Invalid(format!("stored.digest: {e}")))?;
    Ok(Stored { digest, size_bytes: s.size_bytes, is_archive, image_ids: s.image_ids, ticket: s.ticket })
}
