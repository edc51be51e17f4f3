//! The door for hosts on other machines: one TLS port at which they join, renew their certificates, and fetch images.
//!
//! Who joins has no certificate yet; all else is for hosts that are members. Bytes of images are handed on from the image registry as they come, so that a host needs one
//! address only.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::Context as _;
use netloom_model::Failure;
use netloom_model::id::HostId;
use netloom_proto::image_registry::v1::image_registry_service_server::ImageRegistryServiceServer;
use netloom_proto::scheduler::v1 as ps;
use netloom_proto::scheduler::v1::membership_service_server::{MembershipService, MembershipServiceServer};
use netloom_service::relay::Relay;
use netloom_service::server::serve;
use netloom_service::status::to_status;
use netloom_service::tls::{Authority, Caller, Identity};
use netloom_service::{Channel, Connector, Endpoint, Settings, Shutdown};
use tonic::service::Routes;
use tonic::service::interceptor::InterceptedService;
use tonic::{Request, Response, Status};

use crate::config::Config;
use crate::membership::Join;
use crate::scheduler::Scheduler;

/// What of the image registry is for hosts.
const FOR_HOSTS: &[&str] = &["ReadBlob"];

/// Where hosts come in.
#[derive(Clone)]
pub struct Door {
    /// Who signs their certificates.
    pub authority: Arc<Authority>,
    listen: String,
    names: Vec<String>,
}

impl Door {
    /// The door that the configuration asks for.
    pub fn open(settings: &Settings, config: &Config, authority: Authority) -> anyhow::Result<Door> {
        let (host, _) = config
            .join_listen
            .rsplit_once(':')
            .context("[scheduler] join_listen must be address:port, for instance 0.0.0.0:7601")?;
        let names = match config.join_names.is_empty() {
            false => config.join_names.clone(),
            true => {
                let of_all = settings.endpoints.scheduler.all().iter().filter_map(Endpoint::tls_name);
                let own = own_names(host.trim_start_matches('[').trim_end_matches(']'));
                let mut seen = BTreeSet::new();
                of_all.map(str::to_owned).chain(own).filter(|name| seen.insert(name.clone())).collect()
            }
        };
        Ok(Door { authority: Arc::new(authority), listen: config.join_listen.clone(), names })
    }

    /// Where it is found, the likeliest first.
    pub fn endpoints(&self) -> Vec<String> {
        let port = self.listen.rsplit_once(':').map_or("", |(_, port)| port);
        let bracketed = |name: &String| match name.contains(':') {
            true => format!("https://[{name}]:{port}"),
            false => format!("https://{name}:{port}"),
        };
        self.names.iter().map(bracketed).collect()
    }

    /// Serves it until shut down.
    pub async fn serve(
        self,
        core: Arc<Scheduler>,
        connector: &Connector,
        registry: Channel,
        shutdown: Shutdown,
    ) -> anyhow::Result<()> {
        let identity = Identity::controller(self.authority.clone(), self.names.clone())?;
        let listener = connector.clone().showing(identity).listen_for_hosts(&self.listen).await;
        let listener = listener.with_context(|| format!("listen for hosts on {}", self.listen))?;
        tracing::info!(listen = %self.listen, "hosts may join");
        let members = core.clone();
        let is_member = move |request: Request<()>| {
            members.member(caller(&request).as_ref()).map(|_| request).map_err(to_status)
        };
        let images: Relay<ImageRegistryServiceServer<()>> = Relay::only(registry, FOR_HOSTS);
        let routes = Routes::new(MembershipServiceServer::new(Membership(core)))
            .add_service(InterceptedService::new(images, is_member));
        let name = "netloom.scheduler.v1.MembershipService";
        serve(listener, routes, name, netloom_proto::DESCRIPTORS, shutdown).await
    }
}

fn caller<T>(request: &Request<T>) -> Option<netloom_service::tls::Peer> {
    request.extensions().get::<Caller>().and_then(|caller| caller.0.clone())
}

/// The names and addresses of this machine that others may reach it by, when it listens at this address.
fn own_names(listens_at: &str) -> Vec<String> {
    if !["0.0.0.0", "::", ""].contains(&listens_at) {
        return vec![listens_at.to_owned()];
    }
    let addresses = nix::ifaddrs::getifaddrs().into_iter().flatten().filter_map(|interface| {
        let storage = interface.address?;
        let v4 = storage.as_sockaddr_in().map(|a| std::net::IpAddr::from(a.ip()));
        v4.or_else(|| storage.as_sockaddr_in6().map(|a| std::net::IpAddr::from(a.ip())))
    });
    let is_link_local =
        |a: &std::net::IpAddr| matches!(a, std::net::IpAddr::V6(a) if a.segments()[0] & 0xffc0 == 0xfe80);
    let mut addresses: Vec<std::net::IpAddr> = addresses.filter(|a| !is_link_local(a)).collect();
    addresses.sort_by_key(|a| (a.is_loopback(), a.is_ipv6()));
    addresses.dedup();
    let (loopback, others): (Vec<_>, Vec<_>) = addresses.into_iter().partition(std::net::IpAddr::is_loopback);
    let own = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let own = Some(own.trim().to_owned()).filter(|name| !name.is_empty() && name != "localhost");
    let words = |all: Vec<std::net::IpAddr>| all.into_iter().map(|a| a.to_string());
    words(others).chain(own).chain(["localhost".to_owned()]).chain(words(loopback)).collect()
}

/// The service at the door.
struct Membership(Arc<Scheduler>);

fn status(e: impl Into<crate::error::Error>) -> Status {
    to_status(Failure::from(e.into()))
}

#[tonic::async_trait]
impl MembershipService for Membership {
    async fn join(&self, request: Request<ps::JoinRequest>) -> Result<Response<ps::JoinResponse>, Status> {
        let asked = request.into_inner();
        let host: HostId =
            netloom_proto::convert::id("host", &asked.host).map_err(|e| to_status(e.into()))?;
        let join = Join {
            secret: asked.secret,
            host,
            address: asked.address,
            labels: asked.labels.into_iter().collect(),
            request: asked.request,
        };
        let (host, issued) = self.0.join(join).await.map_err(status)?;
        let authority = self.0.door().map_err(status)?.authority.certificate().to_vec();
        Ok(Response::new(ps::JoinResponse {
            host: host.id.to_string(),
            uid: host.uid,
            certificate: issued.certificate,
            authority,
            expire_us: issued.expire_us,
        }))
    }

    async fn renew(&self, request: Request<ps::RenewRequest>) -> Result<Response<ps::RenewResponse>, Status> {
        let caller = caller(&request);
        let issued = self.0.renew(caller.as_ref(), &request.into_inner().request).await.map_err(status)?;
        Ok(Response::new(ps::RenewResponse { certificate: issued.certificate, expire_us: issued.expire_us }))
    }
}
