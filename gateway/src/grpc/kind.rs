//! KindService.

use netloom_api::v1::{self, kind_service_server::KindService};
use tonic::{Request, Response, Status};

use super::Api;
use crate::error::Error;
use crate::{names, pages, view};

const LIST: &str = "kinds";

#[tonic::async_trait]
impl KindService for Api {
    async fn list_kinds(
        &self,
        request: Request<v1::ListKindsRequest>,
    ) -> Result<Response<v1::ListKindsResponse>, Status> {
        let request = request.into_inner();
        let page = pages::read(LIST, request.page_size, &request.page_token)?;
        let size = usize::try_from(page.size).unwrap_or(usize::MAX);
        let mut rest = self.catalogue.kinds().filter(|k| k.name > page.after);
        let found: Vec<_> = rest.by_ref().take(size).collect();
        let next_page_token = pages::next(LIST, rest.next().is_some(), found.last().map(|k| k.name.as_str()));
        let kinds = found.into_iter().map(view::kind).collect();
        Ok(Response::new(v1::ListKindsResponse { kinds, next_page_token }))
    }

    async fn get_kind(&self, request: Request<v1::GetKindRequest>) -> Result<Response<v1::Kind>, Status> {
        let name = request.into_inner().name;
        let kind = names::read_kind("name", &name)?;
        let found = self.catalogue.get(kind).ok_or_else(|| Error::NoKind(kind.to_owned()))?;
        Ok(Response::new(view::kind(found)))
    }
}
