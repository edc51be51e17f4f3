//! Images in Docker's store.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use bollard::Docker;
use bollard::models::{CreateImageInfo, ImageInspect};
use bollard::query_parameters::{
    CreateImageOptionsBuilder, ImportImageOptionsBuilder, InspectContainerOptions, TagImageOptionsBuilder,
};
use bytes::BytesMut;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use netloom_image::loadable::{Loadable, loadable};
use netloom_model::observed::NEEDS_IMAGE;
use netloom_model::slice::Instance;
use tokio::fs::File;
use tokio::io::AsyncReadExt as _;

use super::read::has_run;
use super::{DockerDriver, status};
use crate::driver::{Image, ImageFormat};
use crate::error::Error;

/// Bytes of an archive that are read at once.
const PIECE: usize = 1 << 20;
/// Progress is told at most this often.
const EVERY: Duration = Duration::from_millis(250);

impl DockerDriver {
    pub(super) async fn inspect_image(&self, reference: &str) -> Result<Option<Image>, Error> {
        match self.client().await?.inspect_image(reference).await {
            Err(e) if status(&e) == Some(404) => Ok(None),
            other => {
                let image = other.map_err(|e| self.error(e))?;
                // Where Docker keeps images in containerd its ids are those of manifests, which are no ids elsewhere.
                let id = image.id.filter(|_| image.descriptor.is_none());
                Ok(Some(Image {
                    digest: id.unwrap_or_default(),
                    format: ImageFormat::Docker,
                    size_bytes: image.size.and_then(|s| u64::try_from(s).ok()).unwrap_or_default(),
                    architecture: image.architecture.unwrap_or_default(),
                }))
            }
        }
    }

    /// What a container is made from, and how it is said to Docker: by its name, which is what people are shown then, as long as that means what was judged; else by its id.
    pub(super) async fn image_of<'i>(
        &self,
        client: &Docker,
        instance: &'i Instance,
    ) -> Result<(&'i str, ImageInspect), Error> {
        let (name, judged) = (instance.spec.image.as_str(), instance.image_digest.as_str());
        let find = async |reference: &str| match client.inspect_image(reference).await {
            Err(e) if status(&e) == Some(404) => Ok(None),
            other => other.map(Some).map_err(|e| self.error(e)),
        };
        let named = find(name).await?;
        if judged.is_empty() {
            return Ok((name, named.ok_or_else(|| Error::ImageMissing(name.to_owned()))?));
        }
        if let Some(image) = named.filter(|image| image.id.as_deref() == Some(judged)) {
            return Ok((name, image));
        }
        let lost = || {
            Error::ImageLost(format!(
                "{NEEDS_IMAGE} {judged}, which {name} was when it was deployed and which Docker has no more: load it there, or deploy again to take what {name} is now"
            ))
        };
        Ok((judged, find(judged).await?.ok_or_else(lost)?))
    }

    /// A name may have been moved to another image between a look at it and its use: what was made of that is not started.
    pub(super) async fn refuse_other_image(
        &self,
        client: &Docker,
        id: &str,
        instance: &Instance,
    ) -> Result<(), Error> {
        if instance.image_digest.is_empty() {
            return Ok(());
        }
        let made = client.inspect_container(id, None::<InspectContainerOptions>).await;
        let made = made.map_err(|e| self.error(e))?;
        if made.image.as_deref() == Some(&instance.image_digest) || made.state.is_some_and(|s| has_run(&s)) {
            return Ok(());
        }
        self.remove_container(id).await?;
        Err(Error::Busy(format!("{} has just become another image; it is made anew", instance.spec.image)))
    }

    pub(super) async fn pull_image(
        &self,
        reference: &str,
    ) -> Result<BoxStream<'static, Result<String, Error>>, Error> {
        let client = self.client().await?;
        let options = CreateImageOptionsBuilder::default().from_image(&with_tag(reference)).build();
        let reference = reference.to_owned();
        let answers = client.create_image(Some(options), None, None);
        let mut progress = Progress::default();
        let told = answers.filter_map(move |answer| {
            let told = match answer {
                Ok(info) => progress.takes(&info, Instant::now()).map(Ok),
                Err(e) => Some(Err(Error::PullFailed { reference: reference.clone(), message: in_words(e) })),
            };
            async move { told }
        });
        Ok(told.boxed())
    }

    /// Hands an archive to Docker, which loads all images in it, and says what it calls them: by a name, or by an id. An OCI layout gets what older ones read it by on the way.
    pub(super) async fn load_images(&self, reference: &str, archive: &Path) -> Result<Vec<String>, Error> {
        let failed = |message: String| Error::PullFailed { reference: reference.to_owned(), message };
        let unreadable = |e: std::io::Error| failed(format!("{}: {e}", archive.display()));
        let path = archive.to_owned();
        let added = tokio::task::spawn_blocking(move || loadable(&mut std::fs::File::open(path)?));
        let added = added.await.map_err(|e| failed(e.to_string()))?.map_err(unreadable)?;
        let Loadable { members, end } = added.unwrap_or(Loadable { members: u64::MAX, end: Vec::new() });
        let file = File::open(archive).await.map_err(unreadable)?;
        let bytes = file.take(members).chain(std::io::Cursor::new(end));
        let pieces = stream::try_unfold(bytes, |mut file| async move {
            let mut piece = BytesMut::with_capacity(PIECE);
            let length = file.read_buf(&mut piece).await?;
            Ok::<_, std::io::Error>((length > 0).then(|| (piece.freeze(), file)))
        });
        let options = ImportImageOptionsBuilder::default().quiet(true).build();
        let client = self.client().await?;
        let mut answers = std::pin::pin!(client.import_image_stream(options, pieces, None));
        let mut loaded = Vec::new();
        while let Some(answer) = answers.next().await {
            let said = match answer {
                Ok(info) => {
                    loaded.extend(info.stream.as_deref().and_then(loaded_as));
                    info.error_detail.and_then(|e| e.message)
                }
                Err(e) => Some(in_words(e)),
            };
            if let Some(message) = said {
                return Err(failed(format!("Docker does not load it: {message}")));
            }
        }
        Ok(loaded)
    }

    /// Loads an archive; true when its reference means what came, as far as Docker itself says which images these are.
    pub(super) async fn load_for(&self, reference: &str, archive: &Path) -> Result<bool, Error> {
        let (loaded, tagged) = (self.load_images(reference, archive).await?, with_tag(reference));
        match &loaded[..] {
            _ if loaded.contains(&tagged) => Ok(true),
            [only] if !reference.contains('@') => self.tag(only, &tagged).await,
            _ => Ok(false),
        }
    }

    /// Gives an image another name; false when that is none.
    async fn tag(&self, image: &str, tagged: &str) -> Result<bool, Error> {
        let Some((repo, tag)) = tagged.rsplit_once(':') else { return Ok(false) };
        let options = TagImageOptionsBuilder::default().repo(repo).tag(tag).build();
        self.client().await?.tag_image(image, Some(options)).await.map_err(|e| self.error(e))?;
        Ok(true)
    }

    /// An image that is alone in its archive gets the name that it is asked for by; of several, the archive has to say which is meant.
    pub(super) async fn adopt_image(&self, reference: &str, image_ids: &[String]) -> Result<bool, Error> {
        let named = self.inspect_image(reference).await?;
        if named.as_ref().is_some_and(|image| image_ids.contains(&image.digest)) {
            return Ok(true);
        }
        let ([id], false) = (image_ids, reference.contains('@')) else { return Ok(false) };
        if self.inspect_image(id).await?.is_none() {
            return Ok(false);
        }
        if !self.tag(id, &with_tag(reference)).await? {
            return Ok(false);
        }
        if let Some(before) = named {
            tracing::info!(
                reference,
                image = id,
                before = before.digest,
                "a name is what the store means by it"
            );
        }
        Ok(true)
    }
}

/// What Docker said, without what bollard says about it.
fn in_words(e: bollard::errors::Error) -> String {
    match e {
        bollard::errors::Error::DockerResponseServerError { message, .. } => message,
        bollard::errors::Error::DockerStreamError { error } => error,
        e => e.to_string(),
    }
}

/// What Docker says that it calls an image that it has just loaded.
fn loaded_as(line: &str) -> Option<String> {
    let line = line.trim();
    let name = line.strip_prefix("Loaded image ID: ").or_else(|| line.strip_prefix("Loaded image: "))?;
    Some(name.to_owned())
}

/// Docker pulls every tag of a name without one.
fn with_tag(reference: &str) -> String {
    let last = reference.rsplit('/').next().unwrap_or(reference);
    if last.contains(':') || last.contains('@') {
        reference.to_owned()
    } else {
        format!("{reference}:latest")
    }
}

/// Adds up what Docker says of each layer.
#[derive(Default)]
struct Progress {
    layers: BTreeMap<String, (i64, i64)>,
    said: String,
    at: Option<Instant>,
}

impl Progress {
    fn takes(&mut self, info: &CreateImageInfo, now: Instant) -> Option<String> {
        let status = info.status.as_deref().unwrap_or_default();
        if let (Some(id), Some(detail)) = (&info.id, &info.progress_detail)
            && status == "Downloading"
        {
            self.layers
                .insert(id.clone(), (detail.current.unwrap_or_default(), detail.total.unwrap_or_default()));
        } else if let (Some(id), "Download complete" | "Pull complete") = (&info.id, status)
            && let Some((current, total)) = self.layers.get_mut(id)
        {
            *current = *total;
        }
        let (current, total) = self.layers.values().fold((0, 0), |(c, t), (lc, lt)| (c + lc, t + lt));
        let text = if total > current {
            format!("downloading {:.1} of {:.1} MB", current as f64 / 1e6, total as f64 / 1e6)
        } else if total > 0 {
            format!("unpacking {:.1} MB", total as f64 / 1e6)
        } else {
            status.to_lowercase()
        };
        let soon = self.at.is_some_and(|at| now.duration_since(at) < EVERY);
        if text.is_empty() || text == self.said || soon {
            return None;
        }
        (self.said, self.at) = (text.clone(), Some(now));
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bollard::models::ProgressDetail;

    #[test]
    fn what_docker_says_that_it_loaded_is_a_name_or_an_id() {
        assert_eq!(loaded_as("Loaded image: a/frr:9\n").as_deref(), Some("a/frr:9"));
        assert_eq!(loaded_as("Loaded image ID: sha256:ab\n").as_deref(), Some("sha256:ab"));
        assert_eq!(loaded_as("3c5ab9ee: Loading layer [==>]  1B/2B"), None);
    }

    #[test]
    fn a_name_without_tag_means_latest() {
        for (given, asked) in [
            ("frr", "frr:latest"),
            ("quay.io:443/a/frr", "quay.io:443/a/frr:latest"),
            ("quay.io/a/frr:9", "quay.io/a/frr:9"),
            ("frr@sha256:ab", "frr@sha256:ab"),
        ] {
            assert_eq!(with_tag(given), asked);
        }
    }

    #[test]
    fn layers_add_up() {
        let (mut progress, start) = (Progress::default(), Instant::now());
        let mut at = start;
        let mut say = |id: &str, status: &str, current, total| {
            at += EVERY;
            let info = CreateImageInfo {
                id: Some(id.into()),
                status: Some(status.into()),
                progress_detail: Some(ProgressDetail { current: Some(current), total: Some(total) }),
                ..CreateImageInfo::default()
            };
            progress.takes(&info, at)
        };
        assert_eq!(say("a", "Downloading", 1_000_000, 4_000_000).unwrap(), "downloading 1.0 of 4.0 MB");
        assert_eq!(say("b", "Downloading", 500_000, 2_000_000).unwrap(), "downloading 1.5 of 6.0 MB");
        assert_eq!(say("b", "Downloading", 500_000, 2_000_000), None);
        assert_eq!(say("a", "Download complete", 0, 0).unwrap(), "downloading 4.5 of 6.0 MB");
        assert_eq!(say("b", "Download complete", 0, 0).unwrap(), "unpacking 6.0 MB");
    }
}
