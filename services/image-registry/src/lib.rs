//! Images: which there are, where they are, their bytes, and whether one can run a node.
//!
//! The scheduler asks each host what its stores have ([`store`] keeps the answers), then asks here whether every image of a deploy can be used where it is
//! to be used ([`validate`] decides, purely, from what was recorded). So a missing image, a disk given to a container or a wrong architecture is refused in
//! one go before anything is created. This service never asks a host itself and never guesses a format from a name.
//!
//! Bytes come in by an [`upload`], which hashes them and tells what they are in the one pass in which it writes them, and stand by their SHA-256 in a directory or a
//! bucket ([`blob`]); [`pull`] brings them from other registries. They are read and compared again by [`read`], and go out by [`garbage`]; [`held`] keeps these from each other.
//!
//! [`grpc`] translates, [`mod@reference`] reads image references, [`store`] keeps rows, [`validate`] judges.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use netloom_proto::image_registry::v1::image_registry_service_server::ImageRegistryServiceServer;
use netloom_service::server::{MAX_MESSAGE, serve};
use netloom_service::{Connector, Settings, Shutdown};
use tonic::service::Routes;

pub mod blob;
pub mod config;
pub mod error;
pub mod garbage;
pub mod grpc;
pub mod held;
pub mod pull;
pub mod read;
pub mod reference;
pub mod store;
pub mod upload;
pub mod validate;

/// How often abandoned uploads are looked for: a quarter of what they are kept for, within these.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(600);

/// Runs the service until it is shut down.
pub async fn run(settings: Settings, connector: Connector, shutdown: Shutdown) -> anyhow::Result<()> {
    let _claim = netloom_service::installation::claim(&settings, "image-registry").await?;
    let config: config::Config = settings.section("image_registry")?;
    let database = match config.database.as_deref() {
        Some(text) => store::Database::named(text),
        None => store::Database::File(settings.data_dir.join("image-registry.db")),
    };
    let store = store::Store::open(&database)
        .await
        .with_context(|| format!("cannot open the image registry's database {database}"))?;
    if config.new_scheduler {
        store.forget_ticket_key().await?;
    }
    let endpoint = settings.endpoints.image_registry.own(config.listen.as_ref(), "image_registry")?;
    let listener = connector
        .listen(&endpoint)
        .await
        .with_context(|| format!("the image registry cannot listen on {endpoint}"))?;
    tracing::info!(%endpoint, %database, "image registry listens");
    let dir = config.blobs.unwrap_or_else(|| settings.data_dir.join("image-registry"));
    let id = store.id().await?;
    // What several keep belongs to the rows that they share; where there is one, also to its installation.
    let (owner, whose) = match store.is_shared() {
        true => (id.to_string().parse()?, format!("database {id}")),
        false => {
            let owner = netloom_service::installation::owner(&settings.data_dir)?;
            (owner, format!("installation {owner}, database {id}"))
        }
    };
    let shelf: Option<Arc<dyn blob::Shelf>> = match &config.s3 {
        Some(s3) => Some(Arc::new(s3.open(owner)?)),
        None => None,
    };
    let blobs = blob::Blobs::open(&dir, shelf, &whose)
        .with_context(|| format!("cannot keep images in the directory blobs = {}", dir.display()))?;
    // A store of bytes that does not answer, or is another's, is told in the log, and by whatever needs it: labs whose images are on their hosts run without it.
    tokio::spawn({
        let blobs = blobs.clone();
        async move {
            if let Err(e) = blobs.claim().await {
                tracing::error!("{e}");
            }
        }
    });
    let keep = Duration::from_secs(config.upload_keep_seconds);
    let silence = Duration::from_secs(config.upload_silence_seconds.max(1));
    let uploads = upload::Uploads::new(store.clone(), blobs.clone(), keep, silence);
    let keeper = garbage::Keeper::new(store.clone(), blobs.clone(), uploads.clone());
    let reader = read::Reader::new(blobs, keeper.clone());
    let puller = pull::Puller::new(uploads.clone(), config.docker_config, config.plain_http_registries);
    let expiry = garbage::run(uploads.clone(), (keep / 4).clamp(SHORTEST, LONGEST), shutdown.clone());
    let service = grpc::Service { store, uploads, keeper, reader, puller };
    let service = ImageRegistryServiceServer::new(service).max_decoding_message_size(MAX_MESSAGE);
    let name = "netloom.image_registry.v1.ImageRegistryService";
    let served = serve(listener, Routes::new(service), name, netloom_proto::DESCRIPTORS, shutdown);
    tokio::join!(served, expiry).0
}
