//! Images from other registries of container images, by the distribution specification of the OCI.
//!
//! ```text
//! source ─► manifest, of an index the one for the architecture ─► configuration and layers, one after the other
//!                                                                        │ each compared with its digest
//!                                                                        ▼
//!                                         an archive that is an OCI layout and Docker's own, as an upload ─► image
//! ```
//!
//! The archive names no tag and has no times, so that the same image is the same bytes whatever it is called. What is asked of a registry, and how leave is got, is the
//! crate `oci-client`'s.

mod archive;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use netloom_image::credentials::{self, Credentials};
use oci_client::client::{BlobResponse, ClientConfig, ClientProtocol, SizedStream};
use oci_client::errors::{OciDistributionError, OciErrorCode};
use oci_client::manifest::OciDescriptor;
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference as Source, RegistryOperation};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use crate::blob::Digest;
use crate::error::Error;
use crate::reference::Reference;
use crate::store::Image;
use crate::store::blobs::{ImageKind, Upload};
use crate::upload::{Uploads, Writing, blocking};
use archive::Archive;

/// How netloom calls itself.
const AGENT: &str = concat!("netloom/", env!("CARGO_PKG_VERSION"));
/// How long a registry may take to answer a connection, and how long nothing may come from it.
const CONNECT: Duration = Duration::from_secs(10);
const SILENCE: Duration = Duration::from_secs(60);
/// How often a layer that is cut off is gone on with while no byte arrives, and how long it waits before.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(500);
/// Progress is told at most this often.
const EVERY: Duration = Duration::from_millis(250);
/// Most bytes of a manifest, and most layers that one may have.
const MAX_MANIFEST: usize = 4 << 20;
const MAX_LAYERS: usize = 1_000;

/// What may be answered to the question for a manifest.
const MANIFESTS: [&str; 4] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];

/// An image that is to be pulled.
#[derive(Clone)]
pub struct Order {
    /// Where it is.
    pub source: String,
    /// What it is to be called here.
    pub reference: Reference,
    /// The kinds that it is for.
    pub kinds: Vec<ImageKind>,
    /// Which architecture; empty takes this machine's.
    pub architecture: String,
    /// What the registry is shown; none takes what the configuration has.
    pub credentials: Option<Credentials>,
}

/// How far a pull is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that came.
    pub done: u64,
    /// Bytes that come in all.
    pub total: u64,
}

/// Pulls images.
#[derive(Clone)]
pub struct Puller {
    uploads: Uploads,
    docker_config: Option<PathBuf>,
    plain_http: Vec<String>,
}

/// A manifest, or an index of manifests.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    config: Option<OciDescriptor>,
    #[serde(default)]
    layers: Vec<OciDescriptor>,
    #[serde(default)]
    manifests: Vec<Described>,
}

/// A manifest in an index.
#[derive(Deserialize)]
struct Described {
    digest: String,
    #[serde(default)]
    platform: Platform,
}

#[derive(Deserialize, Default)]
struct Platform {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
}

impl Puller {
    /// Over these uploads, with what the configuration says.
    pub fn new(uploads: Uploads, docker_config: Option<PathBuf>, plain_http: Vec<String>) -> Puller {
        // A process has one; whoever installed another has it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Puller { uploads, docker_config, plain_http }
    }

    /// Pulls an image, until nobody hears of it any more.
    pub async fn pull(&self, order: Order, tell: mpsc::Sender<Progress>) -> Result<Image, Error> {
        let source: Source = order.source.parse().map_err(|e: oci_client::ParseError| Error::Pull {
            source_name: order.source.clone(),
            why: Why::Reference,
            message: format!("it is no reference of an image: {e}"),
        })?;
        let from = self.registry(&order, source).await?;
        let (manifest, raw) = from.manifest(&order.architecture).await?;
        let config = manifest.config.ok_or_else(|| from.failed("its manifest names no configuration"))?;
        let archive = Archive::new(&raw, manifest.media_type.as_deref(), &config, &manifest.layers)
            .map_err(|what| from.failed(what))?;
        let upload = self.uploads.create(Upload {
            id: String::new(),
            reference: order.reference,
            digest: None,
            size_bytes: archive.size(),
            format: None,
            kinds: order.kinds,
            file_name: String::new(),
            create_time_us: 0,
            resumed: false,
        });
        let id = upload.await?.upload.id;
        let filled = tokio::select! {
            filled = self.fill(&id, &from, &archive, &tell) => filled,
            () = tell.closed() => Err(from.failed("nobody waits for it any more")),
        };
        let pulled = match filled {
            Ok(()) => self.uploads.finish(&id, None).await,
            Err(e) => Err(e),
        };
        if pulled.is_err() {
            // Of what is not whole, nothing is of use to a later pull.
            let _ = self.uploads.delete(&id).await;
        }
        pulled
    }

    async fn fill(
        &self,
        id: &str,
        from: &Registry,
        archive: &Archive,
        tell: &mpsc::Sender<Progress>,
    ) -> Result<(), Error> {
        let writing = self.uploads.write(id, 0).await?;
        let mut far = Far { done: 0, total: archive.fetched(), told: Instant::now(), tell };
        for member in archive.members() {
            let is_taken = writing.take(member.head.clone()).await
                && match &member.content {
                    archive::Content::Known(bytes) => writing.take(bytes.clone()).await,
                    archive::Content::Fetched(of) => from.blob(of, &writing, &mut far).await?,
                }
                && writing.take(member.filling.clone()).await;
            if !is_taken {
                break;
            }
        }
        writing.finish().await
    }

    /// The registry that has an image, with the leave to read it.
    async fn registry(&self, order: &Order, source: Source) -> Result<Registry, Error> {
        let at = source.registry();
        let is_plain = is_loopback(at) || self.plain_http.iter().any(|r| r == at);
        let mut registry = Registry {
            auth: self.auth(order).await?,
            client: Client::new(ClientConfig {
                protocol: if is_plain { ClientProtocol::Http } else { ClientProtocol::Https },
                connect_timeout: Some(CONNECT),
                read_timeout: Some(SILENCE),
                user_agent: AGENT,
                ..ClientConfig::default()
            }),
            http: reqwest::Client::new(),
            scheme: if is_plain { "http" } else { "https" },
            token: None,
            name: order.source.clone(),
            source,
        };
        let http =
            reqwest::Client::builder().connect_timeout(CONNECT).read_timeout(SILENCE).user_agent(AGENT);
        registry.http = http.build().map_err(|e| registry.error(e.into()))?;
        let leave = registry.client.auth(&registry.source, &registry.auth, RegistryOperation::Pull).await;
        registry.token = leave.map_err(|e| registry.error(e))?;
        Ok(registry)
    }

    /// What is shown to the registry.
    async fn auth(&self, order: &Order) -> Result<RegistryAuth, Error> {
        let shown = match (&order.credentials, &self.docker_config) {
            (Some(given), _) => Some(given.clone()),
            (None, None) => None,
            (None, Some(path)) => {
                let unreadable = |e: &dyn std::fmt::Display| Error::Pull {
                    source_name: order.source.clone(),
                    why: Why::Other,
                    message: format!("docker_config = {} cannot be used: {e}", path.display()),
                };
                let file = path.clone();
                let text =
                    blocking(move || std::fs::read_to_string(file)).await.map_err(|e| unreadable(&e))?;
                credentials::find(&text, credentials::registry_of(&order.source))
                    .map_err(|e| unreadable(&e))?
            }
        };
        Ok(shown.map_or(RegistryAuth::Anonymous, |c| RegistryAuth::Basic(c.username, c.password)))
    }
}

/// How far a pull is, for whoever waits for it.
struct Far<'a> {
    done: u64,
    total: u64,
    told: Instant,
    tell: &'a mpsc::Sender<Progress>,
}

impl Far<'_> {
    fn came(&mut self, bytes: usize) {
        self.done += bytes as u64;
        if self.told.elapsed() >= EVERY || self.done == self.total {
            self.told = Instant::now();
            // Who is slow hears of a later one.
            let _ = self.tell.try_send(Progress { done: self.done, total: self.total });
        }
    }
}

/// Why an image is not pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The text is no reference.
    Reference,
    /// There is none.
    NotFound,
    /// The registry does not give it to whoever asks.
    Denied,
    /// Bytes are others than their digest says.
    Digest,
    /// Anything else.
    Other,
}

/// An image in another registry.
struct Registry {
    client: Client,
    http: reqwest::Client,
    scheme: &'static str,
    /// What the registry gave for what it was shown.
    token: Option<String>,
    auth: RegistryAuth,
    source: Source,
    name: String,
}

impl Registry {
    fn failed(&self, message: impl Into<String>) -> Error {
        Error::Pull { source_name: self.name.clone(), why: Why::Other, message: message.into() }
    }

    fn wrong(&self, what: &str, wanted: &str, found: &str) -> Error {
        let message = format!("the SHA-256 of its {what} is {found}, and {wanted} was said");
        Error::Pull { source_name: self.name.clone(), why: Why::Digest, message }
    }

    /// What an error of the client's means. Its own words may hold an address, and never what the registry was shown.
    fn error(&self, e: OciDistributionError) -> Error {
        use OciDistributionError as E;
        let has = |codes: &[OciErrorCode], envelope: &oci_client::errors::OciEnvelope| {
            envelope.errors.iter().any(|e| codes.contains(&e.code))
        };
        let unknown = [OciErrorCode::ManifestUnknown, OciErrorCode::NameUnknown, OciErrorCode::BlobUnknown];
        let denied = [OciErrorCode::Unauthorized, OciErrorCode::Denied];
        let (why, message) = match e {
            E::ImageManifestNotFoundError(_) => (Why::NotFound, "the registry has no such image".to_owned()),
            E::RegistryError { envelope, .. } if has(&unknown, &envelope) => {
                (Why::NotFound, "the registry has no such image".to_owned())
            }
            E::ServerError { code: 404, .. } => (Why::NotFound, "the registry has no such image".to_owned()),
            E::UnauthorizedError { .. } | E::AuthenticationFailure(_) => {
                (Why::Denied, "the registry does not give it to whoever asks as this".to_owned())
            }
            E::RegistryError { envelope, .. } if has(&denied, &envelope) => {
                (Why::Denied, "the registry does not give it to whoever asks as this".to_owned())
            }
            E::DigestError(e) => (Why::Digest, e.to_string()),
            E::RequestError(e) => {
                let cause = std::iter::successors(std::error::Error::source(&e), |e| e.source()).last();
                (Why::Other, cause.map_or_else(|| e.to_string(), |cause| format!("{e}: {cause}")))
            }
            e => (Why::Other, e.to_string()),
        };
        Error::Pull { source_name: self.name.clone(), why, message }
    }

    /// The manifest of the image for an architecture, and its bytes.
    async fn manifest(&self, architecture: &str) -> Result<(Manifest, Vec<u8>), Error> {
        let (first, raw) = self.manifest_of(&self.source).await?;
        if first.config.is_some() || first.manifests.is_empty() {
            if let Some(config) = first.config.as_ref().filter(|_| !architecture.is_empty()) {
                self.is_for(config, architecture).await?;
            }
            return Ok((first, raw));
        }
        let wanted = if architecture.is_empty() { machine() } else { architecture };
        let fits = |d: &&Described| d.platform.os == "linux" && d.platform.architecture == wanted;
        let Some(described) = first.manifests.iter().find(fits) else {
            let mut has: Vec<&str> =
                first.manifests.iter().map(|d| d.platform.architecture.as_str()).collect();
            has.retain(|a| !a.is_empty() && *a != "unknown");
            has.dedup();
            return Err(self.other_architecture(&has.join(", "), wanted));
        };
        let one = self.source.clone_with_digest(described.digest.clone());
        self.manifest_of(&one).await
    }

    async fn manifest_of(&self, source: &Source) -> Result<(Manifest, Vec<u8>), Error> {
        let (raw, said) = self.raw_manifest(source).await?;
        let found = digest_of(Sha256::new_with_prefix(&raw));
        let wanted = source.digest().map(str::to_owned).or(said).unwrap_or_else(|| found.clone());
        if found != wanted {
            return Err(self.wrong("manifest", &wanted, &found));
        }
        let manifest: Manifest = serde_json::from_slice(&raw)
            .map_err(|e| self.failed(format!("its manifest cannot be read: {e}")))?;
        if manifest.layers.len() > MAX_LAYERS {
            return Err(self.failed("its manifest has too many layers"));
        }
        Ok((manifest, raw))
    }

    /// The bytes of a manifest, no more of them than one may have, and the digest that the registry says. `oci-client` reads as much as comes.
    async fn raw_manifest(&self, source: &Source) -> Result<(Vec<u8>, Option<String>), Error> {
        let which = source.digest().or(source.tag()).unwrap_or("latest");
        let url = format!(
            "{}://{}/v2/{}/manifests/{which}",
            self.scheme,
            source.resolve_registry(),
            source.repository()
        );
        let request = self.http.get(url).header("accept", MANIFESTS.join(", "));
        let request = match (&self.token, &self.auth) {
            (Some(token), _) => request.bearer_auth(token),
            (None, RegistryAuth::Basic(name, password)) => request.basic_auth(name, Some(password)),
            (None, _) => request,
        };
        let mut answer = request.send().await.map_err(|e| self.error(e.into()))?;
        match answer.status().as_u16() {
            200 => {}
            404 => return Err(self.error(OciDistributionError::ImageManifestNotFoundError(String::new()))),
            401 | 403 => return Err(self.error(OciDistributionError::AuthenticationFailure(String::new()))),
            code => {
                return Err(
                    self.failed(format!("the registry answers {code} when its manifest is asked for"))
                );
            }
        }
        let said =
            answer.headers().get("docker-content-digest").and_then(|d| d.to_str().ok()).map(str::to_owned);
        let mut raw = Vec::new();
        while let Some(piece) = answer.chunk().await.map_err(|e| self.error(e.into()))? {
            if raw.len() + piece.len() > MAX_MANIFEST {
                return Err(self.failed(format!("its manifest is larger than {} MiB", MAX_MANIFEST >> 20)));
            }
            raw.extend_from_slice(&piece);
        }
        Ok((raw, said))
    }

    /// Refuses an image of one architecture that is not the one that was asked for.
    async fn is_for(&self, config: &OciDescriptor, wanted: &str) -> Result<(), Error> {
        let mut bytes = self.open(config, 0).await?.0.stream;
        let mut raw = Vec::new();
        while let Some(piece) = bytes.next().await {
            raw.extend_from_slice(
                &piece.map_err(|e| self.failed(format!("its configuration is cut off: {e}")))?,
            );
            if raw.len() > MAX_MANIFEST {
                return Err(self.failed("its configuration is too large"));
            }
        }
        let found = digest_of(Sha256::new_with_prefix(&raw));
        if found != config.digest {
            return Err(self.wrong("configuration", &config.digest, &found));
        }
        let has: Platform = serde_json::from_slice(&raw)
            .map_err(|e| self.failed(format!("its configuration cannot be read: {e}")))?;
        if has.architecture == wanted {
            Ok(())
        } else {
            Err(self.other_architecture(&has.architecture, wanted))
        }
    }

    fn other_architecture(&self, has: &str, wanted: &str) -> Error {
        self.failed(format!("it is there for {has}, and not for {wanted}"))
    }

    /// Hands on the bytes of a configuration or a layer; false when no more are taken.
    async fn blob(&self, of: &OciDescriptor, writing: &Writing, far: &mut Far<'_>) -> Result<bool, Error> {
        let size = u64::try_from(of.size).unwrap_or_default();
        let (mut hash, mut at, mut tries) = (Sha256::new(), 0u64, 0);
        loop {
            let before = at;
            match self.open(of, at).await {
                Ok((mut bytes, mut skipped)) => {
                    while let Some(piece) = bytes.stream.next().await {
                        let Ok(mut piece) = piece else { break };
                        let passed = usize::try_from(skipped).unwrap_or(usize::MAX).min(piece.len());
                        skipped -= passed as u64;
                        let piece = piece.split_off(passed);
                        at += piece.len() as u64;
                        if at > size {
                            return Err(self.failed(format!("{} has more bytes than was said", of.digest)));
                        }
                        hash.update(&piece);
                        far.came(piece.len());
                        if !piece.is_empty() && !writing.take(piece).await {
                            return Ok(false);
                        }
                    }
                }
                Err(e) if at == 0 => return Err(e),
                Err(e) => tracing::warn!(source = self.name, "{e}"),
            }
            if at == size {
                let found = digest_of(hash);
                return if found == of.digest {
                    Ok(true)
                } else {
                    Err(self.wrong("layer", &of.digest, &found))
                };
            }
            tries = if at > before { 1 } else { tries + 1 };
            if tries > TRIES {
                return Err(self.failed(format!("{} is cut off again and again", of.digest)));
            }
            tokio::time::sleep(PAUSE * tries).await;
        }
    }

    /// The bytes from an offset, and how many of them come before it.
    async fn open(&self, of: &OciDescriptor, offset: u64) -> Result<(SizedStream, u64), Error> {
        let opened = match offset {
            0 => self.client.pull_blob_stream(&self.source, of).await.map(|bytes| (bytes, 0)),
            _ => match self.client.pull_blob_stream_partial(&self.source, of, offset, None).await {
                Ok(BlobResponse::Full(bytes)) => Ok((bytes, offset)),
                Ok(BlobResponse::Partial(bytes)) => Ok((bytes, 0)),
                Err(e) => Err(e),
            },
        };
        opened.map_err(|e| self.error(e))
    }
}

fn digest_of(hash: Sha256) -> String {
    Digest::of(hash).to_string()
}

/// True for a registry on this very machine, which is asked without TLS, as Docker does.
fn is_loopback(registry: &str) -> bool {
    let host = registry.rsplit_once(':').map_or(registry, |(host, _)| host);
    host == "localhost"
        || host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// This machine's architecture, as images name it.
fn machine() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
