//! The image catalogue: which images there are, where they are, and whether one can run a node.
//!
//! The scheduler asks each host what its stores have ([`store`] keeps the answers), then asks here whether every image of a deploy can be used where it is
//! to be used ([`validate`] decides, purely, from what was recorded). So a missing image, a disk given to a container or a wrong architecture is refused in
//! one go before anything is created. This service never asks a host itself and never guesses a format from a name.
//!
//! [`grpc`] translates, [`mod@reference`] reads image references, [`store`] keeps rows, [`validate`] judges.

use anyhow::Context as _;
use netloom_proto::image_registry::v1::image_registry_service_server::ImageRegistryServiceServer;
use netloom_service::server::{MAX_MESSAGE, serve};
use netloom_service::{Connector, Settings, Shutdown};
use tonic::service::Routes;

pub mod config;
pub mod error;
pub mod grpc;
pub mod reference;
pub mod store;
pub mod validate;

/// Runs the service until it is shut down.
pub async fn run(settings: Settings, connector: Connector, shutdown: Shutdown) -> anyhow::Result<()> {
    let _claim = netloom_service::installation::claim(&settings, "image-registry").await?;
    let config: config::Config = settings.section("image_registry")?;
    let path = config.database.unwrap_or_else(|| settings.data_dir.join("image-registry.db"));
    let store = store::Store::open(&path)
        .await
        .with_context(|| format!("cannot open the image registry's database {}", path.display()))?;
    let endpoint = &settings.endpoints.image_registry;
    let listener = connector
        .listen(endpoint)
        .await
        .with_context(|| format!("the image registry cannot listen on {endpoint}"))?;
    tracing::info!(%endpoint, database = %path.display(), "image registry listens");
    let service =
        ImageRegistryServiceServer::new(grpc::Service::new(store)).max_decoding_message_size(MAX_MESSAGE);
    let name = "netloom.image_registry.v1.ImageRegistryService";
    serve(listener, Routes::new(service), name, netloom_proto::DESCRIPTORS, shutdown).await
}
