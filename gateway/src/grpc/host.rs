//! HostService.

use netloom_api::v1::{self, host_service_server::HostService};
use netloom_proto::scheduler::v1 as ps;
use tonic::{Request, Response, Status};

use super::Api;
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
}
