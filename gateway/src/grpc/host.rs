//! HostService.

use netloom_api::v1::{self, host_service_server::HostService};
use netloom_proto::scheduler::v1 as ps;
use tonic::{Request, Response, Status};

use super::Api;
use crate::error::Error;
use crate::{names, pages, view};

const LIST: &str = "hosts";

#[tonic::async_trait]
impl HostService for Api {
    async fn list_hosts(
        &self,
        request: Request<v1::ListHostsRequest>,
    ) -> Result<Response<v1::ListHostsResponse>, Status> {
        let request = request.into_inner();
        let page = pages::read(LIST, request.page_size, &request.page_token)?;
        let request = ps::ListHostsRequest { page_size: page.size, after: page.after };
        let found = self.peers.scheduler().list_hosts(request).await.map_err(self.peers.scheduler_error())?;
        let found = found.into_inner();
        let next_page_token = pages::next(LIST, found.more, found.hosts.last().map(|h| h.id.as_str()));
        let hosts = found.hosts.into_iter().map(view::host).collect::<Result<_, _>>()?;
        Ok(Response::new(v1::ListHostsResponse { hosts, next_page_token }))
    }

    async fn get_host(&self, request: Request<v1::GetHostRequest>) -> Result<Response<v1::Host>, Status> {
        let host = names::read_host("name", &request.into_inner().name)?;
        let request = ps::GetHostRequest { host: host.to_string() };
        let facts = self.peers.scheduler().get_host(request).await.map_err(self.peers.scheduler_error())?;
        Ok(Response::new(view::host(facts.into_inner())?))
    }

    async fn create_host_token(
        &self,
        request: Request<v1::CreateHostTokenRequest>,
    ) -> Result<Response<v1::HostToken>, Status> {
        let ttl_seconds = match request.into_inner().ttl {
            None => 0,
            Some(ttl) => match u64::try_from(ttl.seconds) {
                Ok(seconds) if seconds > 0 => seconds,
                _ => {
                    return Err(Error::field(
                        "ttl",
                        "is less than a second; a token is good for 1 minute to 7 days",
                    )
                    .into());
                }
            },
        };
        let request = ps::CreateHostTokenRequest { ttl_seconds };
        let made =
            self.peers.scheduler().create_host_token(request).await.map_err(self.peers.scheduler_error())?;
        let ps::CreateHostTokenResponse { token, expire_time, endpoints } = made.into_inner();
        Ok(Response::new(v1::HostToken { token, expire_time, endpoints }))
    }

    async fn cordon_host(
        &self,
        request: Request<v1::CordonHostRequest>,
    ) -> Result<Response<v1::Host>, Status> {
        self.set_cordoned(&request.into_inner().name, true).await
    }

    async fn uncordon_host(
        &self,
        request: Request<v1::UncordonHostRequest>,
    ) -> Result<Response<v1::Host>, Status> {
        self.set_cordoned(&request.into_inner().name, false).await
    }

    async fn update_host(
        &self,
        request: Request<v1::UpdateHostRequest>,
    ) -> Result<Response<v1::Host>, Status> {
        let request = request.into_inner();
        let wish = request.host.unwrap_or_default();
        let host = names::read_host("host.name", &wish.name)?;
        let positive = |field: &str, n: i64| {
            u64::try_from(n).map_err(|_| Error::field(field, format!("{n} is less than 0")))
        };
        let request = ps::UpdateHostRequest {
            host: host.to_string(),
            paths: request.update_mask.map(|mask| mask.paths).unwrap_or_default(),
            system_cpu_millis: positive("host.system_cpu_millis", wish.system_cpu_millis)?,
            system_memory_bytes: positive("host.system_memory_bytes", wish.system_memory_bytes)?,
            system_disk_bytes: positive("host.system_disk_bytes", wish.system_disk_bytes)?,
            labels: wish.labels,
            taints: wish.taints,
            cpu_overcommit: wish.cpu_overcommit,
            memory_overcommit: wish.memory_overcommit,
            disk_overcommit: wish.disk_overcommit,
        };
        let facts =
            self.peers.scheduler().update_host(request).await.map_err(self.peers.scheduler_error())?;
        Ok(Response::new(view::host(facts.into_inner())?))
    }

    async fn drain_host(
        &self,
        request: Request<v1::DrainHostRequest>,
    ) -> Result<Response<v1::DrainHostResponse>, Status> {
        let v1::DrainHostRequest { name, validate_only, lose_disks } = request.into_inner();
        let host = names::read_host("name", &name)?;
        tracing::info!(%host, validate_only, lose_disks, "a host is to be drained");
        let request = ps::DrainHostRequest { host: host.to_string(), validate_only, lose_disks };
        let told = self.peers.scheduler().drain_host(request).await.map_err(self.peers.scheduler_error())?;
        let told = told.into_inner();
        Ok(Response::new(v1::DrainHostResponse {
            host: told.host.map(view::host).transpose()?,
            moves: told.moves.into_iter().map(|o| view::operation(o, None, Vec::new())).collect(),
            busy_labs: told.busy_labs.iter().map(|lab| names::lab(lab)).collect(),
        }))
    }

    async fn delete_host(&self, request: Request<v1::DeleteHostRequest>) -> Result<Response<()>, Status> {
        let request = request.into_inner();
        let host = names::read_host("name", &request.name)?;
        let request = ps::RemoveHostRequest { host: host.to_string(), force: request.force };
        self.peers.scheduler().remove_host(request).await.map_err(self.peers.scheduler_error())?;
        Ok(Response::new(()))
    }
}

impl Api {
    async fn set_cordoned(&self, name: &str, cordoned: bool) -> Result<Response<v1::Host>, Status> {
        let host = names::read_host("name", name)?;
        let request = ps::SetHostCordonedRequest { host: host.to_string(), cordoned };
        let facts =
            self.peers.scheduler().set_host_cordoned(request).await.map_err(self.peers.scheduler_error())?;
        Ok(Response::new(view::host(facts.into_inner())?))
    }
}
