//! Calls of one service, handed on as they are to where it really is: messages are neither read nor held, streams flow both ways.
//!
//! So that several services have one address and one certificate on a network, and each still its own endpoint behind it.

use std::convert::Infallible;
use std::marker::PhantomData;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use http::{Request, Response};
use netloom_model::{Code, Failure};
use tonic::body::Body;
use tonic::server::NamedService;
use tower::{Service, ServiceExt as _};

use crate::Channel;
use crate::status::to_status;

/// Hands calls of the service `N` on.
pub struct Relay<N> {
    to: Channel,
    methods: Option<&'static [&'static str]>,
    of: PhantomData<fn() -> N>,
}

impl<N: NamedService> Relay<N> {
    /// All of its methods.
    pub fn all(to: Channel) -> Relay<N> {
        Relay { to, methods: None, of: PhantomData }
    }

    /// These methods of it only; all others are refused.
    pub fn only(to: Channel, methods: &'static [&'static str]) -> Relay<N> {
        Relay { to, methods: Some(methods), of: PhantomData }
    }
}

impl<N> Clone for Relay<N> {
    fn clone(&self) -> Self {
        Relay { to: self.to.clone(), methods: self.methods, of: PhantomData }
    }
}

impl<N: NamedService> NamedService for Relay<N> {
    const NAME: &'static str = N::NAME;
}

impl<N> Service<Request<Body>> for Relay<N> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let method = request.uri().path().rsplit('/').next().unwrap_or_default();
        if self.methods.is_some_and(|methods| !methods.contains(&method)) {
            let failure = Failure::new(
                Code::PermissionDenied,
                "PEER_REFUSED",
                format!("{method} is not for callers from other machines"),
            );
            return Box::pin(async move { Ok(to_status(failure).into_http()) });
        }
        let to = self.to.clone();
        Box::pin(async move {
            match to.oneshot(request).await {
                Ok(answer) => Ok(answer.map(Body::new)),
                Err(e) => Ok(tonic::Status::from_error(e.into()).into_http()),
            }
        })
    }
}
