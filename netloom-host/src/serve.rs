//! Serving: compute and network, and the front that the controller dials.

use anyhow::Context as _;
use netloom_proto::compute::v1::compute_service_server::ComputeServiceServer;
use netloom_proto::network::v1::network_service_server::NetworkServiceServer;
use netloom_service::programs::Programs;
use netloom_service::relay::Relay;
use netloom_service::tls::{Identity, Peer};
use netloom_service::{Connector, Endpoint, Settings, Shutdown, server};
use tonic::service::Routes;

use crate::membership::Membership;
use crate::renew;

/// Serves until shut down.
pub async fn run(mut settings: Settings, shutdown: Shutdown) -> anyhow::Result<()> {
    let member = Membership::read(&settings.data_dir)?.context(
        "this machine has not joined: ask for a token on the controller (netloom host token), then netloom-host join here",
    )?;
    anyhow::ensure!(
        member.is_valid(),
        "this machine was away for so long that its certificate is no longer valid: let it join again with a new token (netloom host token), under the same id"
    );
    let identity = Identity::host(&member.given()?, &member.authority()?)?;
    let connector = Connector::default().showing(identity.clone());
    settings.host = member.host.clone();
    settings.endpoints.compute = Endpoint::Memory("compute".into());
    settings.endpoints.network = Endpoint::Memory("network".into());
    settings.endpoints.image_registry = member.controller.clone();

    let (data_dir, shown) = (settings.data_dir.clone(), member.clone());
    let mut programs = Programs::new(shutdown.clone());
    let c = connector.clone();
    programs.start("renewal", |stop| renew::run(data_dir, shown, identity, c, stop));
    let (s, c) = (settings.clone(), connector.clone());
    programs.start("compute", |stop| netloom_compute::run(s, c, stop));
    let (s, c) = (settings.clone(), connector.clone());
    programs.start("network", |stop| netloom_network::run(s, c, stop));
    let this = Peer::Host { id: member.host.clone(), uid: member.uid.clone() };
    let front = Endpoint::Tls { peer: this, address: member.listen.clone() };
    // The last to end, since the calls that it hands on end when compute and network do.
    programs.start("front", |stop| async move {
        let listener =
            connector.listen(&front).await.with_context(|| format!("listen on {}", member.listen))?;
        let compute: Relay<ComputeServiceServer<()>> =
            Relay::all(connector.channel(&settings.endpoints.compute));
        let network: Relay<NetworkServiceServer<()>> =
            Relay::all(connector.channel(&settings.endpoints.network));
        let routes = Routes::new(compute).add_service(network);
        let name = "netloom.compute.v1.ComputeService";
        server::serve(listener, routes, name, netloom_proto::DESCRIPTORS, stop).await
    });
    programs.finish(shutdown).await
}
