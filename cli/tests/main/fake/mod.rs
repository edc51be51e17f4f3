//! A server that speaks netloom.v1 and says what it was told to, and a runner of the program against it.

mod lab;
mod link;
mod node;
mod operation;
mod other;
mod snapshot;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use netloom_api::v1 as api;
use netloom_api::v1::host_service_server::HostServiceServer;
use netloom_api::v1::kind_service_server::KindServiceServer;
use netloom_api::v1::lab_service_server::LabServiceServer;
use netloom_api::v1::link_service_server::LinkServiceServer;
use netloom_api::v1::node_service_server::NodeServiceServer;
use netloom_api::v1::operation_service_server::OperationServiceServer;
use netloom_api::v1::quota_service_server::QuotaServiceServer;
use netloom_api::v1::snapshot_service_server::SnapshotServiceServer;
use netloom_model::{Code, Failure};
use netloom_service::status::to_status;
use netloom_service::{Connector, Endpoint, Shutdown};
use tokio::io::AsyncWriteExt as _;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

/// Longest that a run of the program may take.
const BOUND: Duration = Duration::from_secs(60);

/// What the server says, and what it was asked.
#[derive(Default)]
pub struct Script {
    /// Refusals of ImportLab, each once, before its answer.
    pub import_refusals: Vec<Status>,
    /// Answer of ImportLab.
    pub import: Option<Result<api::Operation, Status>>,
    /// What each WatchOperation streams, call by call; the last is repeated. A stream ends with its error, or does not end.
    pub watches: Vec<(Vec<api::Operation>, Option<Status>)>,
    /// Why no operation is cancelled; none when it is.
    pub cancel_refusal: Option<Status>,
    /// Answers of DeleteLab, call by call; the last is repeated.
    pub deletes: Vec<Result<api::Operation, Status>>,
    /// Answer of GetOperation.
    pub operation: Option<api::Operation>,
    /// Refusals of changes, each once, before their answer.
    pub change_refusals: Vec<Status>,
    /// Answer of every change of a node or a link.
    pub change: Option<Result<api::Operation, Status>>,
    /// Answer of DrainHost.
    pub drain: api::DrainHostResponse,
    /// Answers of GetHost, one after the other; the last is repeated. One that joined when there is none.
    pub hosts: Vec<api::Host>,
    /// What each look at a link shows, one after the other; the last is repeated.
    pub looks: Vec<api::Link>,
    /// What the last CreateLink or UpdateLink asked for.
    pub asked_link: Option<api::Link>,
    /// The labs.
    pub labs: Vec<api::Lab>,
    /// The nodes of every lab.
    pub nodes: Vec<api::Node>,
    /// Snapshots of every node.
    pub snapshots: Vec<api::Snapshot>,
    /// The links of every lab.
    pub links: Vec<api::Link>,
    /// Answer of ExecNode.
    pub exec: Vec<Result<api::ExecNodeResponse, Status>>,
    /// Answers of ExecNode in single nodes, by their resource name.
    pub exec_in: HashMap<String, Vec<Result<api::ExecNodeResponse, Status>>>,
    /// Answers of GetNodeConfig, by the node's resource name.
    pub configs: HashMap<String, Result<api::NodeConfig, Status>>,
    /// What each WatchLabs streams, call by call; the last is repeated. A stream ends with its error, or does not end.
    pub lab_watches: Vec<(Vec<api::WatchLabsResponse>, Option<Status>)>,
    /// Answer of CheckLink.
    pub link_check: api::CheckLinkResponse,
    /// What CapturePackets streams; without a bound it then goes on.
    pub capture: Vec<Vec<u8>>,
    /// What CapturePackets streams once EndCapture was called.
    pub capture_rest: Vec<Vec<u8>>,
    /// Ends the captures that run.
    pub capture_end: Arc<tokio::sync::Notify>,
    /// Calls, with their trace id, token and request in short.
    pub calls: Vec<Call>,
    /// What the last ImportLab asked for.
    pub imported: Option<api::ImportLabRequest>,
    /// What each StreamLogs streams, call by call: lines with the second each was written in, and how it breaks off.
    pub logs: Vec<(Vec<LogLine>, Option<Status>)>,
    /// Whether StreamLogs has no end.
    pub endless_logs: bool,
    /// What arrived at OpenShell.
    pub shell_input: Vec<u8>,
    /// Terminal size that OpenShell was told first.
    pub shell_size: Option<api::ShellSize>,
}

/// A line and the second it was written in.
pub type LogLine = (&'static str, i64);

/// A call that was made.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// The method.
    pub method: &'static str,
    /// The request, in short.
    pub what: String,
    /// Its traceparent header.
    pub traceparent: String,
    /// Its authorization header.
    pub authorization: String,
}

/// The server. Ends when dropped.
pub struct Fake {
    script: Arc<Mutex<Script>>,
    shutdown: Shutdown,
    /// Where it listens, as the program takes it.
    pub endpoint: String,
    /// A directory of the test's own.
    pub dir: tempfile::TempDir,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Fake {
    /// Listens on a Unix socket.
    pub async fn start(script: Script) -> Fake {
        let dir = tempfile::tempdir().unwrap();
        let endpoint = Endpoint::Unix(dir.path().join("api.sock"));
        Fake::listen(script, dir, endpoint).await
    }

    /// Listens on a free TCP port of the loopback.
    pub async fn start_tcp(script: Script) -> Fake {
        Fake::listen(script, tempfile::tempdir().unwrap(), Endpoint::Tcp("127.0.0.1:0".into())).await
    }

    async fn listen(script: Script, dir: tempfile::TempDir, endpoint: Endpoint) -> Fake {
        let listener = Connector::default().listen(&endpoint).await.unwrap();
        let endpoint = match listener.port() {
            Some(port) => format!("http://127.0.0.1:{port}"),
            None => endpoint.to_string(),
        };
        let (script, shutdown) = (Arc::new(Mutex::new(script)), Shutdown::new());
        let server = Server(script.clone());
        let routes = Routes::new(LabServiceServer::new(server.clone()))
            .add_service(NodeServiceServer::new(server.clone()))
            .add_service(LinkServiceServer::new(server.clone()))
            .add_service(HostServiceServer::new(server.clone()))
            .add_service(QuotaServiceServer::new(server.clone()))
            .add_service(KindServiceServer::new(server.clone()))
            .add_service(SnapshotServiceServer::new(server.clone()))
            .add_service(OperationServiceServer::new(server));
        let serve = netloom_service::server::serve(
            listener,
            routes,
            "fake",
            netloom_api::DESCRIPTORS,
            shutdown.clone(),
        );
        tokio::spawn(serve);
        Fake { script, shutdown, endpoint, dir }
    }

    /// What it says and was asked.
    pub fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap()
    }

    /// The methods that were called, in order.
    pub fn methods(&self) -> Vec<&'static str> {
        self.script().calls.iter().map(|c| c.method).collect()
    }

    /// Writes a file beside which the program is run.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// The program, to be run against this server.
    pub fn command(&self, args: &[&str]) -> tokio::process::Command {
        let mut command = command(self.dir.path(), args);
        command.env("NETLOOM_ENDPOINT", &self.endpoint);
        command
    }

    /// Runs the program with nothing on standard input.
    pub async fn run(&self, args: &[&str]) -> Ended {
        self.run_with_input(args, b"").await
    }

    /// Runs the program.
    pub async fn run_with_input(&self, args: &[&str], input: &[u8]) -> Ended {
        finish(self.command(args), input).await
    }
}

/// The program in a directory, with nothing of the tester's own environment that it would listen to.
pub fn command(directory: &Path, args: &[&str]) -> tokio::process::Command {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_netloom"));
    command.args(args).current_dir(directory).kill_on_drop(true);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("NETLOOM_")) {
        command.env_remove(name);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// How a run ended.
pub struct Ended {
    /// Exit code.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Ended {
    /// Of a process's output.
    pub fn of(output: &Output) -> Ended {
        Ended {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Fails the test, with all that was printed, unless the exit code is this.
    #[track_caller]
    pub fn expect(self, code: i32) -> Ended {
        assert_eq!(self.code, code, "\nstdout:\n{}\nstderr:\n{}", self.out, self.err);
        self
    }
}

/// Runs a command to its end.
pub async fn finish(mut command: tokio::process::Command, input: &[u8]) -> Ended {
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A program that does not read its input closes it.
    let _ = stdin.write_all(input).await;
    drop(stdin);
    let output =
        tokio::time::timeout(BOUND, child.wait_with_output()).await.expect("the program ends").unwrap();
    Ended::of(&output)
}

/// A refusal as the server makes them.
pub fn refused(code: Code, reason: &str, message: &str) -> Status {
    to_status(Failure::new(code, reason, message))
}

#[derive(Clone)]
struct Server(Arc<Mutex<Script>>);

impl Server {
    fn called<T>(&self, method: &'static str, what: &str, request: &Request<T>) -> MutexGuard<'_, Script> {
        let header = |name: &str| {
            request.metadata().get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned()
        };
        let call = Call {
            method,
            what: what.to_owned(),
            traceparent: header("traceparent"),
            authorization: header("authorization"),
        };
        let mut script = self.0.lock().unwrap();
        script.calls.push(call);
        script
    }
}

fn not_scripted<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("no test needs this"))
}

/// The first, which is dropped unless it is the last.
fn next<T: Clone>(list: &mut Vec<T>) -> Option<T> {
    if list.len() > 1 { Some(list.remove(0)) } else { list.first().cloned() }
}

impl Server {
    fn changed<T>(
        &self,
        method: &'static str,
        what: &str,
        request: &Request<T>,
    ) -> Result<Response<api::Operation>, Status> {
        let mut script = self.called(method, what, request);
        if !script.change_refusals.is_empty() {
            return Err(script.change_refusals.remove(0));
        }
        script.change.clone().expect("the test says what a change answers").map(Response::new)
    }

    fn look<T>(
        &self,
        method: &'static str,
        what: &str,
        request: &Request<T>,
    ) -> Result<Response<api::Link>, Status> {
        let mut script = self.called(method, what, request);
        let link = if script.looks.len() > 1 { script.looks.remove(0) } else { script.looks[0].clone() };
        Ok(Response::new(link))
    }
}
