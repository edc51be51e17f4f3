//! The gateway: the public API `netloom.v1`, over gRPC and as HTTP/JSON, and the one view.
//!
//! A call comes in by a door ([`server`]), TCP or the Unix socket, which looks at who sends it ([`auth`]). A gRPC call, or one of
//! gRPC-Web, goes to its handler ([`grpc`]); anything else is taken for HTTP/JSON, becomes the same message and goes to the same handler ([`transcode`]);
//! [`openapi`] describes that. The handler asks the scheduler or the image
//! registry ([`client`]) for facts and hands them to the [`view`], the only place where public messages are built: what one method says of a lab,
//! every other says too. Streams follow what changes ([`watch`]), or go straight to a node's host with a ticket, as the question for a node's
//! configuration does ([`running_config`]). Topology files become specs here ([`import`]), and parts of links whole ones ([`changes`]).
//!
//! The gateway keeps nothing and decides nothing: any number of them may run.

pub mod apply;
pub mod auth;
pub mod changes;
pub mod client;
pub mod config;
pub mod cors;
pub mod error;
pub mod etag;
pub mod grpc;
pub mod import;
pub mod names;
pub mod openapi;
pub mod pages;
pub mod running_config;
pub mod server;
pub mod timeout;
pub mod transcode;
pub mod view;
pub mod watch;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use netloom_api::DESCRIPTORS;
use netloom_service::measure::MeasureLayer;
use netloom_service::server::with_reflection;
use netloom_service::{Connector, Settings, Shutdown};
use prost_reflect::DescriptorPool;
use tonic_health::ServingStatus;
use tower::Layer as _;

use crate::client::Peers;
use crate::config::Config;
use crate::grpc::Api;
use crate::openapi::Document;
use crate::server::{Doors, Inside};
use crate::transcode::http::Transcoder;

/// Runs the gateway until shut down.
pub async fn run(settings: Settings, connector: Connector, shutdown: Shutdown) -> anyhow::Result<()> {
    let _claim = netloom_service::installation::claim(&settings, "gateway").await?;
    Gateway::bind(&settings, connector, shutdown).await?.serve().await;
    Ok(())
}

/// A gateway whose doors are bound and not yet open.
pub struct Gateway {
    doors: Doors,
    inside: Inside,
    shutdown: Shutdown,
}

impl Gateway {
    /// Makes everything ready. The services behind need not run yet.
    pub async fn bind(
        settings: &Settings,
        connector: Connector,
        shutdown: Shutdown,
    ) -> anyhow::Result<Gateway> {
        let config: Config = settings.section("gateway")?;
        let api = Api {
            peers: Peers::new(connector, &settings.endpoints),
            catalogue: Arc::new(settings.catalogue()?),
            shutdown: shutdown.clone(),
        };
        let (health, health_service) = tonic_health::server::health_reporter();
        health.set_service_status("", ServingStatus::Serving).await;
        let pool = DescriptorPool::decode(DESCRIPTORS)?;
        for service in pool.services() {
            health.set_service_status(service.full_name(), ServingStatus::Serving).await;
        }
        let measure = MeasureLayer::new(&[DESCRIPTORS, tonic_health::pb::FILE_DESCRIPTOR_SET])?;
        let public = api.routes();
        let transcoder = Transcoder::new(&pool, measure.layer(public.clone().prepare()))?;
        let document = Document::new(&pool, transcoder.table());
        let routes = with_reflection(public.add_service(health_service), DESCRIPTORS)?;
        let inside = Inside { routes: measure.layer(routes.prepare()), transcoder, document };
        let doors = Doors::bind(&config, &settings.data_dir, &settings.run_dir).await?;
        Ok(Gateway { doors, inside, shutdown })
    }

    /// The TCP address that was bound, if any.
    pub fn address(&self) -> Option<SocketAddr> {
        self.doors.address()
    }

    /// The Unix socket that was bound.
    pub fn socket(&self) -> &Path {
        self.doors.socket()
    }

    /// Serves until shut down.
    pub async fn serve(self) {
        tracing::info!(socket = %self.doors.socket().display(), tcp = ?self.doors.address(), "the gateway is open");
        self.doors.serve(self.inside, self.shutdown).await;
    }
}
