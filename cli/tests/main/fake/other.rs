//! HostService, QuotaService and KindService, by the script.

use netloom_api::v1 as api;
use netloom_api::v1::host_service_server::HostService;
use netloom_api::v1::kind_service_server::KindService;
use netloom_api::v1::quota_service_server::QuotaService;
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

    async fn get_host(&self, request: Request<api::GetHostRequest>) -> Result<Response<api::Host>, Status> {
        let name = request.get_ref().name.clone();
        let mut script = self.called("GetHost", &name, &request);
        let host = match script.hosts.len() {
            0 => joined(&name, false),
            1 => script.hosts[0].clone(),
            _ => script.hosts.remove(0),
        };
        Ok(Response::new(host))
    }

    async fn create_host_token(
        &self,
        request: Request<api::CreateHostTokenRequest>,
    ) -> Result<Response<api::HostToken>, Status> {
        let ttl = request.get_ref().ttl.map(|ttl| ttl.seconds.to_string()).unwrap_or_default();
        drop(self.called("CreateHostToken", &ttl, &request));
        let endpoints = vec!["https://10.0.0.1:7601".into(), "https://ctl:7601".into()];
        Ok(Response::new(api::HostToken { token: "secret.print".into(), expire_time: None, endpoints }))
    }

    async fn cordon_host(
        &self,
        request: Request<api::CordonHostRequest>,
    ) -> Result<Response<api::Host>, Status> {
        let name = request.get_ref().name.clone();
        drop(self.called("CordonHost", &name, &request));
        Ok(Response::new(joined(&name, true)))
    }

    async fn uncordon_host(
        &self,
        request: Request<api::UncordonHostRequest>,
    ) -> Result<Response<api::Host>, Status> {
        let name = request.get_ref().name.clone();
        drop(self.called("UncordonHost", &name, &request));
        Ok(Response::new(joined(&name, false)))
    }

    async fn update_host(
        &self,
        request: Request<api::UpdateHostRequest>,
    ) -> Result<Response<api::Host>, Status> {
        let api::UpdateHostRequest { host, update_mask } = request.get_ref().clone();
        let (host, paths) = (host.unwrap_or_default(), update_mask.unwrap_or_default().paths);
        let values =
            [&host.labels, &host.taints].map(|all| std::collections::BTreeMap::from_iter(all.clone()));
        drop(self.called("UpdateHost", &format!("{} {paths:?} {values:?}", host.name), &request));
        Ok(Response::new(api::Host { labels: joined("", false).labels, ..host }))
    }

    async fn drain_host(
        &self,
        request: Request<api::DrainHostRequest>,
    ) -> Result<Response<api::DrainHostResponse>, Status> {
        let asked = request.get_ref().clone();
        let what = format!("{} {} {}", asked.name, asked.validate_only, asked.lose_disks);
        let script = self.called("DrainHost", &what, &request);
        Ok(Response::new(script.drain.clone()))
    }

    async fn delete_host(&self, request: Request<api::DeleteHostRequest>) -> Result<Response<()>, Status> {
        let asked = request.get_ref();
        let what = format!("{} {}", asked.name, asked.force);
        drop(self.called("DeleteHost", &what, &request));
        Ok(Response::new(()))
    }
}

fn joined(name: &str, cordoned: bool) -> api::Host {
    api::Host {
        name: name.to_owned(),
        state: api::HostState::Online.into(),
        cordoned,
        labels: [("rack".to_owned(), "2".to_owned())].into(),
        address: "10.0.0.2:7610".into(),
        certificate_serial: "4f1c".into(),
        ..api::Host::default()
    }
}

#[tonic::async_trait]
impl QuotaService for Server {
    async fn list_quotas(
        &self,
        request: Request<api::ListQuotasRequest>,
    ) -> Result<Response<api::ListQuotasResponse>, Status> {
        drop(self.called("ListQuotas", "", &request));
        let quota = |name: &str, nodes| api::Quota {
            name: format!("quotas/{name}"),
            nodes,
            lab_count: 2,
            used_nodes: 14,
            used_cpu_millis: 1_450,
            used_memory_bytes: 2 << 30,
            ..api::Quota::default()
        };
        let quotas = vec![quota("course-10", Some(20)), quota("course-9", None)];
        Ok(Response::new(api::ListQuotasResponse { quotas, next_page_token: String::new() }))
    }

    async fn get_quota(
        &self,
        request: Request<api::GetQuotaRequest>,
    ) -> Result<Response<api::Quota>, Status> {
        let name = request.get_ref().name.clone();
        drop(self.called("GetQuota", &name, &request));
        Ok(Response::new(api::Quota { name, ..api::Quota::default() }))
    }

    async fn update_quota(
        &self,
        request: Request<api::UpdateQuotaRequest>,
    ) -> Result<Response<api::Quota>, Status> {
        let quota = request.get_ref().quota.clone().unwrap_or_default();
        let what =
            format!("{} {:?} {:?} {:?}", quota.name, quota.nodes, quota.cpu_millis, quota.memory_bytes);
        drop(self.called("UpdateQuota", &what, &request));
        Ok(Response::new(quota))
    }

    async fn delete_quota(&self, request: Request<api::DeleteQuotaRequest>) -> Result<Response<()>, Status> {
        let name = request.get_ref().name.clone();
        drop(self.called("DeleteQuota", &name, &request));
        Ok(Response::new(()))
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
