//! What a scheduler answers while another one leads.

use std::convert::Infallible;
use std::sync::{Arc, RwLock};
use std::task::{Context, Poll};

use netloom_model::Failure;
use netloom_service::status::to_status;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::NamedService;

use crate::error::Error;

/// A service that is there while this scheduler leads; before and after that its calls are refused, and say why.
pub struct StandBy<S>(Arc<RwLock<Option<S>>>);

impl<S> Default for StandBy<S> {
    fn default() -> Self {
        StandBy(Arc::default())
    }
}

impl<S> Clone for StandBy<S> {
    fn clone(&self) -> Self {
        StandBy(self.0.clone())
    }
}

impl<S> StandBy<S> {
    /// From now on calls are answered by this.
    pub fn lead(&self, service: S) {
        *self.0.write().expect("no holder panics") = Some(service);
    }

    /// From now on they are refused again.
    pub fn stand_by(&self) {
        *self.0.write().expect("no holder panics") = None;
    }
}

impl<S: NamedService> NamedService for StandBy<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for StandBy<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible> + Clone,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // The services here take every call; they hold none back.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let service = self.0.read().expect("no holder panics").clone();
        match service {
            Some(mut service) => Box::pin(service.call(request)),
            None => Box::pin(async { Ok(to_status(Failure::from(Error::StandsBy)).into_http()) }),
        }
    }
}
