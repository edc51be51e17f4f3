//! A gRPC server behind the layers of every server of netloom's, which answers with what it was given.
//!
//! `GetLab` is an echo: one message, the same each time. `ListLabs` is the least that a list with counts can be: one aggregate query, and the encoding of the answer.

use std::collections::HashMap;
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use anyhow::Context as _;
use netloom_api::v1 as api;
use netloom_service::{Connector, Endpoint, Shutdown, server};
use prost::Message as _;
use serde::Deserialize;
use sqlx::Row as _;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions};
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::service::Routes;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

const TALLIES: &str = "SELECT lab_uid, COUNT(*) AS nodes, SUM(state = 'READY') AS ready FROM nodes WHERE replaced = 0 GROUP BY lab_uid";
/// So many lists are copied before the first is asked for.
const COPIES: usize = 40;

/// What is served, and where.
#[derive(Debug, Deserialize)]
struct Config {
    /// The socket.
    socket: PathBuf,
    /// The scheduler's database, where lists are served.
    database: Option<PathBuf>,
    /// An encoded `ListLabsResponse`.
    labs: PathBuf,
}

/// Serves until it is killed.
pub fn run(file: &str) -> anyhow::Result<()> {
    let config: Config = serde_json::from_slice(&std::fs::read(file)?)?;
    let labs = api::ListLabsResponse::decode(&*std::fs::read(&config.labs)?)?.labs;
    netloom_service::telemetry::init("netloom-bench-floor");
    // As in netloom's programs.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let pool = match &config.database {
            None => None,
            Some(path) => {
                let options = SqliteConnectOptions::new().filename(path).read_only(true);
                Some(SqlitePoolOptions::new().max_connections(4).connect_with(options).await?)
            }
        };
        let copies = if pool.is_some() { vec![labs.clone(); COPIES] } else { Vec::new() };
        let answers = Answers { labs: labs.into(), copies: Arc::new(Mutex::new(copies)), pool };
        let listener = Connector::default().listen(&Endpoint::Unix(config.socket)).await?;
        let routes = Routes::new(answers);
        let name = <Answers as NamedService>::NAME;
        server::serve(listener, routes, name, netloom_api::DESCRIPTORS, Shutdown::new()).await
    })
}

#[derive(Clone)]
struct Answers {
    labs: Arc<[api::Lab]>,
    /// Lists but for their counts: copying them is no part of what is measured.
    copies: Arc<Mutex<Vec<Vec<api::Lab>>>>,
    pool: Option<SqlitePool>,
}

impl NamedService for Answers {
    const NAME: &'static str = "netloom.v1.LabService";
}

impl Service<http::Request<Body>> for Answers {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let answers = self.clone();
        match request.uri().path() {
            "/netloom.v1.LabService/GetLab" => {
                Box::pin(
                    async move { Ok(Grpc::new(ProstCodec::default()).unary(Echo(answers), request).await) },
                )
            }
            "/netloom.v1.LabService/ListLabs" => {
                Box::pin(
                    async move { Ok(Grpc::new(ProstCodec::default()).unary(List(answers), request).await) },
                )
            }
            other => {
                let status = Status::unimplemented(format!("the floor has no {other}"));
                Box::pin(async move { Ok(status.into_http()) })
            }
        }
    }
}

struct Echo(Answers);

impl UnaryService<api::GetLabRequest> for Echo {
    type Response = api::Lab;
    type Future = BoxFuture<Response<api::Lab>, Status>;

    fn call(&mut self, _: Request<api::GetLabRequest>) -> Self::Future {
        let lab = self.0.labs.first().cloned().unwrap_or_default();
        Box::pin(async move { Ok(Response::new(lab)) })
    }
}

struct List(Answers);

impl UnaryService<api::ListLabsRequest> for List {
    type Response = api::ListLabsResponse;
    type Future = BoxFuture<Response<api::ListLabsResponse>, Status>;

    fn call(&mut self, _: Request<api::ListLabsRequest>) -> Self::Future {
        let answers = self.0.clone();
        Box::pin(async move {
            let failed = |e: anyhow::Error| Status::internal(format!("{e:#}"));
            let counts = answers.counts().await.map_err(failed)?;
            let copied = answers.copies.lock().expect("no holder panics").pop();
            let mut labs = copied.unwrap_or_else(|| answers.labs.to_vec());
            for lab in &mut labs {
                let (nodes, ready) = counts.get(&lab.uid).copied().unwrap_or_default();
                (lab.node_count, lab.running_count, lab.ready_count) = (nodes, ready, ready);
            }
            Ok(Response::new(api::ListLabsResponse { labs, next_page_token: String::new() }))
        })
    }
}

impl Answers {
    /// Nodes of each lab, and those that are ready.
    async fn counts(&self) -> anyhow::Result<HashMap<String, (i32, i32)>> {
        let pool = self.pool.as_ref().context("no database is served")?;
        let mut counts = HashMap::new();
        for row in sqlx::query(TALLIES).fetch_all(pool).await? {
            let of = |column| anyhow::Ok(i32::try_from(row.try_get::<i64, _>(column)?)?);
            counts.insert(row.try_get("lab_uid")?, (of("nodes")?, of("ready")?));
        }
        Ok(counts)
    }
}
