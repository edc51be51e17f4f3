//! Calls to the image registry.

use std::collections::BTreeMap;

use netloom_model::failure::Failure;
use netloom_model::id::HostId;
use netloom_model::spec::PullPolicy;
use netloom_model::state::Runtime;
use netloom_proto::convert::timestamp;
use netloom_proto::image_registry::v1 as pi;
use netloom_proto::image_registry::v1::image_registry_service_client::ImageRegistryServiceClient;
use netloom_proto::v1 as p;
use netloom_service::{Channel, Connector, Replicas, Whom};
use tonic::Request;

use super::{ImageFacts, NOTE, bounded};
use crate::error::{Error, Result};
use crate::rows::now_us;

fn registry_said(failure: Failure) -> Error {
    Error::Registry(Box::new(failure))
}

/// An image that a node is to use.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageUse {
    /// The node's id, for the message.
    pub node: String,
    /// The reference.
    pub reference: String,
    /// The runtime that will use it.
    pub runtime: Runtime,
    /// The host it will be used on.
    pub host: HostId,
    /// When it may be fetched.
    pub policy: PullPolicy,
}

/// What counts of a host that images are to be used on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImageHost {
    /// Its architecture; empty when not known.
    pub architecture: String,
    /// Bytes that its disk has room for, where that is known.
    pub room_bytes: Option<u64>,
}

/// Whether an image can be used.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// It is there and can be used.
    Use {
        /// Its digest.
        digest: String,
    },
    /// It is to be fetched first.
    Pull {
        /// What the registry's store has of it; none when the runtime fetches it from elsewhere.
        stored: Option<StoredBlob>,
    },
    /// It cannot be used.
    Refuse {
        /// UPPER_SNAKE.
        reason: String,
        /// Image, host and remedy in words.
        message: String,
    },
}

/// Bytes in the registry's store.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredBlob(pub(super) pi::Blob);

impl StoredBlob {
    /// Their digest, with `sha256:` before it.
    pub fn digest(&self) -> &str {
        &self.0.digest
    }

    /// Size of the disk that a guest sees.
    pub fn virtual_size_bytes(&self) -> u64 {
        self.0.virtual_size_bytes
    }
}

/// What a reference means in the registry's store.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolved {
    /// The reference in normal form; empty when there is none.
    pub reference: String,
    /// What the store has under it.
    pub stored: Option<StoredBlob>,
}

/// The image registry.
#[derive(Clone)]
pub struct RegistryClient(ImageRegistryServiceClient<Channel>);

impl RegistryClient {
    /// A channel to the registry; it connects when first used.
    pub fn new(endpoints: &Replicas, connector: &Connector) -> RegistryClient {
        RegistryClient(ImageRegistryServiceClient::new(connector.channel_to(endpoints, Whom::Any)))
    }

    /// Tells what a host's stores have.
    pub async fn record(&self, host: &HostId, facts: Vec<ImageFacts>) -> Result<()> {
        let now = timestamp(now_us());
        let report = |ImageFacts(f): ImageFacts| pi::ReportedImage {
            reference: f.reference,
            presence: Some(pi::Presence {
                host: String::new(),
                runtime: f.runtime,
                present: f.present,
                digest: f.digest,
                format: f.format,
                size_bytes: f.size_bytes,
                architecture: f.architecture,
                observe_time: now,
            }),
        };
        let request = pi::RecordPresenceRequest {
            host: host.to_string(),
            images: facts.into_iter().map(report).collect(),
        };
        bounded(NOTE, self.0.clone().record_presence(Request::new(request))).await.map_err(registry_said)?;
        Ok(())
    }

    /// The images that stand for these kinds, in order; empty where there is none.
    pub async fn preferred(&self, kinds: &[String]) -> Result<Vec<String>> {
        let wanted = |kind: &String| pi::WantedImage { reference: String::new(), kind: kind.clone() };
        let images = kinds.iter().map(wanted).collect();
        let resolved = self.resolved(pi::ResolveImagesRequest { images, ticket_key: Vec::new() }).await?;
        Ok(resolved.into_iter().map(|r| r.reference).collect())
    }

    /// What references mean in the store now, in order. Tells the registry the key that tickets for its bytes are signed with.
    pub async fn resolve(&self, references: &[String], ticket_key: &[u8]) -> Result<Vec<Resolved>> {
        let wanted =
            |reference: &String| pi::WantedImage { reference: reference.clone(), kind: String::new() };
        let request = pi::ResolveImagesRequest {
            images: references.iter().map(wanted).collect(),
            ticket_key: ticket_key.to_vec(),
        };
        let resolved =
            |r: pi::ResolvedImage| Resolved { reference: r.reference, stored: r.stored.map(StoredBlob) };
        Ok(self.resolved(request).await?.into_iter().map(resolved).collect())
    }

    async fn resolved(&self, request: pi::ResolveImagesRequest) -> Result<Vec<pi::ResolvedImage>> {
        let asked = request.images.len();
        let response = bounded(NOTE, self.0.clone().resolve_images(request)).await.map_err(registry_said)?;
        if response.images.len() != asked {
            return Err(registry_said(Failure::internal("it did not resolve each image")));
        }
        Ok(response.images)
    }

    /// Judges whether images can be used on these hosts, in order.
    pub async fn validate(
        &self,
        uses: &[ImageUse],
        hosts: &BTreeMap<HostId, ImageHost>,
    ) -> Result<Vec<Verdict>> {
        let image_use = |u: &ImageUse| pi::ImageUse {
            node: u.node.clone(),
            reference: u.reference.clone(),
            runtime: p::Runtime::from(u.runtime).into(),
            host: u.host.to_string(),
            pull_policy: p::ImagePullPolicy::from(u.policy).into(),
            architecture: hosts.get(&u.host).map(|h| h.architecture.clone()).unwrap_or_default(),
            room_bytes: hosts.get(&u.host).and_then(|h| h.room_bytes),
        };
        let request = pi::ValidateImagesRequest { uses: uses.iter().map(image_use).collect() };
        let response = bounded(NOTE, self.0.clone().validate_images(request)).await.map_err(registry_said)?;
        if response.verdicts.len() != uses.len() {
            return Err(registry_said(Failure::internal("it did not judge each image")));
        }
        let verdict = |v: pi::ImageVerdict| match v.decision() {
            pi::ImageDecision::Use => Verdict::Use { digest: v.digest },
            pi::ImageDecision::Pull => Verdict::Pull { stored: v.stored.map(StoredBlob) },
            _ => Verdict::Refuse { reason: v.reason, message: v.message },
        };
        Ok(response.verdicts.into_iter().map(verdict).collect())
    }
}
