//! QuotaService.

use netloom_api::v1::{self, quota_service_server::QuotaService};
use netloom_proto::scheduler::v1 as ps;
use tonic::{Request, Response, Status};

use super::Api;
use crate::error::Error;
use crate::{names, pages, view};

const LIST: &str = "quotas";

#[tonic::async_trait]
impl QuotaService for Api {
    async fn list_quotas(
        &self,
        request: Request<v1::ListQuotasRequest>,
    ) -> Result<Response<v1::ListQuotasResponse>, Status> {
        let request = request.into_inner();
        let page = pages::read(LIST, request.page_size, &request.page_token)?;
        let request =
            ps::ListQuotasRequest { page_size: page.size, after: page.after, project: String::new() };
        let found =
            self.peers.scheduler().list_quotas(request).await.map_err(self.peers.scheduler_error())?;
        let found = found.into_inner();
        let next_page_token = pages::next(LIST, found.more, found.quotas.last().map(|q| q.project.as_str()));
        let quotas = found.quotas.into_iter().map(view::quota).collect();
        Ok(Response::new(v1::ListQuotasResponse { quotas, next_page_token }))
    }

    async fn get_quota(&self, request: Request<v1::GetQuotaRequest>) -> Result<Response<v1::Quota>, Status> {
        let project = names::read_quota("name", &request.into_inner().name)?.to_owned();
        let request = ps::ListQuotasRequest { page_size: 1, after: String::new(), project };
        let found =
            self.peers.scheduler().list_quotas(request).await.map_err(self.peers.scheduler_error())?;
        let quota = found.into_inner().quotas.pop().unwrap_or_default();
        Ok(Response::new(view::quota(quota)))
    }

    async fn update_quota(
        &self,
        request: Request<v1::UpdateQuotaRequest>,
    ) -> Result<Response<v1::Quota>, Status> {
        let quota = request.into_inner().quota.unwrap_or_default();
        let project = names::read_quota("quota.name", &quota.name)?.to_owned();
        let limit = |field: &str, limit: Option<i64>| {
            let read = |n| u64::try_from(n).map_err(|_| Error::field(field, format!("{n} is less than 0")));
            limit.map(read).transpose()
        };
        let quota = ps::QuotaFacts {
            project,
            nodes: limit("quota.nodes", quota.nodes)?,
            cpu_millis: limit("quota.cpu_millis", quota.cpu_millis)?,
            memory_bytes: limit("quota.memory_bytes", quota.memory_bytes)?,
            disk_bytes: limit("quota.disk_bytes", quota.disk_bytes)?,
            ..ps::QuotaFacts::default()
        };
        let request = ps::SetQuotaRequest { quota: Some(quota) };
        let quota = self.peers.scheduler().set_quota(request).await.map_err(self.peers.scheduler_error())?;
        Ok(Response::new(view::quota(quota.into_inner())))
    }

    async fn delete_quota(&self, request: Request<v1::DeleteQuotaRequest>) -> Result<Response<()>, Status> {
        let project = names::read_quota("name", &request.into_inner().name)?.to_owned();
        let request = ps::RemoveQuotaRequest { project };
        self.peers.scheduler().remove_quota(request).await.map_err(self.peers.scheduler_error())?;
        Ok(Response::new(()))
    }
}
