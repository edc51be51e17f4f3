//! What lies between two programs: calls that come late, twice, or not at all, and streams that are cut.
//!
//! It stands before a service; before the scheduler it is [`World::ask`](crate::world::World::ask) that asks for the fate of a call. What was on its way when its scheduler died, or gave it up, is carried out all the same: when the next one leads already, or after what was said since.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use http_body_util::{BodyExt as _, BodyStream, Full, StreamBody};
use tokio::sync::{oneshot, watch};
use tokio::time::sleep;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::NamedService;

use crate::machine::next;

/// Numbers from a seed.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64, of: &str) -> Dice {
        Dice(of.bytes().fold(seed, |state, b| next(state ^ u64::from(b)).1))
    }

    pub fn below(&mut self, bound: usize) -> usize {
        let (state, number) = next(self.0);
        self.0 = state;
        (number % bound as u64) as usize
    }

    /// True so often out of a hundred.
    pub fn percent(&mut self, of_hundred: usize) -> bool {
        self.below(100) < of_hundred
    }

    pub fn millis(&mut self, below: usize) -> Duration {
        Duration::from_millis(self.below(below) as u64)
    }

    pub fn one_of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

/// What becomes of a call.
pub struct Fate {
    /// How long it takes to arrive.
    pub before: Duration,
    /// How long its answer takes.
    pub after: Duration,
    /// It never arrives.
    pub is_lost: bool,
    /// It is carried out, and nobody hears of it.
    pub answer_is_lost: bool,
    /// It comes a second time.
    pub twice: bool,
    /// Its stream is cut so much later.
    cut: Option<Duration>,
}

/// The way to one service.
pub struct Wire {
    dice: Mutex<Dice>,
    /// True while calls have a fate.
    bad: watch::Sender<bool>,
    /// False while nothing passes.
    open: watch::Sender<bool>,
    /// Grows with each cut of all connections.
    cuts: watch::Sender<u64>,
}

impl Wire {
    pub fn new(seed: u64, name: &str) -> Arc<Wire> {
        Arc::new(Wire {
            dice: Mutex::new(Dice::new(seed, name)),
            bad: watch::Sender::new(true),
            open: watch::Sender::new(true),
            cuts: watch::Sender::new(0),
        })
    }

    /// From now on everything passes.
    pub fn mend(&self) {
        self.bad.send_replace(false);
        self.open.send_replace(true);
    }

    /// Nothing passes any more, or everything does again.
    pub fn set_open(&self, open: bool) {
        self.open.send_replace(open);
    }

    /// Every call and stream that is under way is cut.
    pub fn cut(&self) {
        self.cuts.send_modify(|n| *n += 1);
    }

    async fn until_open(&self) {
        let _ = self.open.subscribe().wait_for(|open| *open).await;
    }

    async fn cut_since(&self, cuts: u64) {
        let _ = self.cuts.subscribe().wait_for(|now| *now > cuts).await;
    }

    /// The fate of the next call.
    pub fn fate(&self) -> Fate {
        let bad = *self.bad.borrow();
        let mut dice = self.dice.lock().unwrap();
        let mut late = |percent| match dice.below(100) {
            _ if !bad => Duration::ZERO,
            n if n < percent => dice.millis(12_000),
            n if n < 30 => dice.millis(200),
            _ => Duration::from_millis(1),
        };
        let (before, after) = (late(2), late(2));
        let mut is = |percent| bad && dice.percent(percent);
        let (is_lost, answer_is_lost, twice, cut) = (is(3), is(3), is(5), is(25));
        Fate { before, after, is_lost, answer_is_lost, twice, cut: cut.then(|| dice.millis(8_000)) }
    }
}

/// A service at the end of a wire.
#[derive(Clone)]
pub struct Wired<S> {
    pub service: S,
    pub wire: Arc<Wire>,
}

impl<S: NamedService> NamedService for Wired<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for Wired<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let (service, wire) = (self.service.clone(), self.wire.clone());
        let cuts = *wire.cuts.borrow();
        let (tell, told) = oneshot::channel();
        let fate = wire.fate();
        let cut = fate.cut;
        tokio::spawn(carry(service, wire.clone(), fate, request, tell));
        Box::pin(async move {
            let answer = tokio::select! {
                answer = told => answer.ok(),
                () = wire.cut_since(cuts) => None,
            };
            let lost = || Status::unavailable("the connection was lost").into_http();
            Ok(answer.map_or_else(lost, |answer| answer.map(|body| cuttable(body, wire, cuts, cut))))
        })
    }
}

/// Does what the call asks for, if it arrives, and brings back the answer, if that does.
async fn carry<S>(
    mut service: S,
    wire: Arc<Wire>,
    fate: Fate,
    request: http::Request<Body>,
    tell: oneshot::Sender<http::Response<Body>>,
) where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    let (parts, body) = request.into_parts();
    let Ok(body) = body.collect().await.map(|b| b.to_bytes()) else { return };
    let make = |body: Bytes| {
        let mut request = http::Request::new(Body::new(Full::new(body)));
        (*request.method_mut(), *request.uri_mut()) = (parts.method.clone(), parts.uri.clone());
        *request.headers_mut() = parts.headers.clone();
        request
    };
    sleep(fate.before).await;
    wire.until_open().await;
    if fate.is_lost {
        return;
    }
    let Ok(mut answer) = service.call(make(body.clone())).await;
    if fate.twice {
        let Ok(again) = service.call(make(body)).await;
        answer = again;
    }
    sleep(fate.after).await;
    wire.until_open().await;
    if !fate.answer_is_lost {
        let _ = tell.send(answer);
    }
}

/// An answer that nothing passes of while the wire is closed, and that ends where it is cut.
fn cuttable(body: Body, wire: Arc<Wire>, cuts: u64, cut: Option<Duration>) -> Body {
    let end = cut.map(|after| tokio::time::Instant::now() + after);
    let frames = futures::stream::unfold(Some(BodyStream::new(body)), move |frames| {
        let wire = wire.clone();
        async move {
            let mut frames = frames?;
            let next = async {
                let frame = frames.next().await;
                wire.until_open().await;
                frame
            };
            let cut = async {
                match end {
                    Some(end) => tokio::time::sleep_until(end).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                frame = next => Some((frame?, Some(frames))),
                () = wire.cut_since(cuts) => Some((Err(Status::unavailable("the connection was lost")), None)),
                () = cut => Some((Err(Status::unavailable("the stream was cut")), None)),
            }
        }
    });
    Body::new(StreamBody::new(Box::pin(frames)))
}
