//! HostService and KindService, by the script.

use netloom_api::v1 as api;
use netloom_api::v1::host_service_server::HostService;
use netloom_api::v1::kind_service_server::KindService;
use tonic::{Request, Response, Status};

use super::{Server, not_scripted};

#[tonic::async_trait]
impl HostService for Server {
    async fn list_hosts(
        &self,
        request: Request<api::ListHostsRequest>,
    ) -> Result<Response<api::ListHostsResponse>, Status> {
        drop(self.called("ListHosts", "", &request));
        let host = api::Host {
            name: "hosts/local".into(),
            state: api::HostState::Degraded.into(),
            state_reason: "Docker does not answer".into(),
            ..api::Host::default()
        };
        Ok(Response::new(api::ListHostsResponse { hosts: vec![host], next_page_token: String::new() }))
    }

    async fn get_host(&self, _: Request<api::GetHostRequest>) -> Result<Response<api::Host>, Status> {
        not_scripted()
    }
}

#[tonic::async_trait]
impl KindService for Server {
    /// One kind at a time, so that the program has to ask for the next page.
    async fn list_kinds(
        &self,
        request: Request<api::ListKindsRequest>,
    ) -> Result<Response<api::ListKindsResponse>, Status> {
        let token = request.get_ref().page_token.clone();
        drop(self.called("ListKinds", &token, &request));
        let kind = |name: &str| api::Kind {
            name: format!("kinds/{name}"),
            description: "d".into(),
            runtime: api::Runtime::Docker.into(),
            interface_pattern: "eth{n}".into(),
            first_interface: 1,
            max_interfaces: 8,
            source: "s".into(),
            ..api::Kind::default()
        };
        let (kinds, next_page_token) = match token.as_str() {
            "" => (vec![kind("linux")], "2".to_owned()),
            _ => (vec![kind("only-here")], String::new()),
        };
        Ok(Response::new(api::ListKindsResponse { kinds, next_page_token }))
    }

    async fn get_kind(&self, _: Request<api::GetKindRequest>) -> Result<Response<api::Kind>, Status> {
        not_scripted()
    }
}
