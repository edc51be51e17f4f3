//! Calls that are worked to their end also when their caller goes away.
//!
//! A server drops the work of a call whose client is gone. In the middle of a commit that would leave what is in memory behind what is in the database, and a host that was just
//! removed dialled on.

use std::convert::Infallible;
use std::task::{Context, Poll};

use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::NamedService;
use tracing::Instrument as _;

/// A service each call of which is a task of its own.
#[derive(Clone)]
pub struct Detached<S>(pub S);

impl<S: NamedService> NamedService for Detached<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for Detached<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let work = tokio::spawn(self.0.call(request).in_current_span());
        Box::pin(async move {
            match work.await {
                Ok(answer) => answer,
                Err(ended) => std::panic::resume_unwind(ended.into_panic()),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn work_goes_on_when_nobody_waits_for_it() {
        let (done, mut ended) = tokio::sync::mpsc::channel(1);
        #[derive(Clone)]
        struct Slow(tokio::sync::mpsc::Sender<()>);
        impl Service<http::Request<Body>> for Slow {
            type Response = http::Response<Body>;
            type Error = Infallible;
            type Future = BoxFuture<Self::Response, Infallible>;

            fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
                Poll::Ready(Ok(()))
            }

            fn call(&mut self, _: http::Request<Body>) -> Self::Future {
                let done = self.0.clone();
                Box::pin(async move {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    done.send(()).await.unwrap();
                    Ok(http::Response::new(Body::empty()))
                })
            }
        }
        drop(Detached(Slow(done)).call(http::Request::new(Body::empty())));
        tokio::time::timeout(Duration::from_secs(10), ended.recv()).await.unwrap().unwrap();
    }
}
