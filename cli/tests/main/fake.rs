//! A server that speaks netloom.v1 and says what it was told to, and a runner of the program against it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures::stream::{self, BoxStream, StreamExt as _};
use netloom_api::v1 as api;
use netloom_api::v1::host_service_server::{HostService, HostServiceServer};
use netloom_api::v1::kind_service_server::{KindService, KindServiceServer};
use netloom_api::v1::lab_service_server::{LabService, LabServiceServer};
use netloom_api::v1::link_service_server::{LinkService, LinkServiceServer};
use netloom_api::v1::node_service_server::{NodeService, NodeServiceServer};
use netloom_api::v1::operation_service_server::{OperationService, OperationServiceServer};
use netloom_model::{Code, Failure};
use netloom_service::status::to_status;
use netloom_service::{Connector, Endpoint, Shutdown};
use tokio::io::AsyncWriteExt as _;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

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
    /// Answers of DeleteLab, call by call; the last is repeated.
    pub deletes: Vec<Result<api::Operation, Status>>,
    /// Answer of GetOperation.
    pub operation: Option<api::Operation>,
    /// Answer of every change of a node or a link.
    pub change: Option<Result<api::Operation, Status>>,
    /// What each look at a link shows, one after the other; the last is repeated.
    pub looks: Vec<api::Link>,
    /// What the last CreateLink or UpdateLink asked for.
    pub asked_link: Option<api::Link>,
    /// The labs.
    pub labs: Vec<api::Lab>,
    /// The nodes of every lab.
    pub nodes: Vec<api::Node>,
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
    /// What CapturePackets streams; without a bound it then goes on.
    pub capture: Vec<Vec<u8>>,
    /// Calls, with their trace id, token and request in short.
    pub calls: Vec<Call>,
    /// What the last ImportLab asked for.
    pub imported: Option<api::ImportLabRequest>,
    /// Whether StreamLogs has no end.
    pub endless_logs: bool,
    /// What arrived at OpenShell.
    pub shell_input: Vec<u8>,
    /// Terminal size that OpenShell was told first.
    pub shell_size: Option<api::ShellSize>,
}

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
            .add_service(KindServiceServer::new(server.clone()))
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

#[tonic::async_trait]
impl LabService for Server {
    type WatchLabsStream = BoxStream<'static, Result<api::WatchLabsResponse, Status>>;
    type CapturePacketsStream = BoxStream<'static, Result<netloom_api::google::api::HttpBody, Status>>;

    async fn capture_packets(
        &self,
        request: Request<api::CapturePacketsRequest>,
    ) -> Result<Response<Self::CapturePacketsStream>, Status> {
        let asked = request.get_ref();
        let bounds = (asked.snap_length, asked.packet_count, asked.duration_seconds);
        let what = format!("{} {} [{}] {bounds:?}", asked.name, asked.targets.join(" "), asked.filter);
        let script = self.called("CapturePackets", &what, &request);
        if asked.filter == "bad" {
            return Err(refused(Code::InvalidArgument, "FILTER_INVALID", "the filter \"bad\" is wrong"));
        }
        let part = |data: &Vec<u8>| {
            Ok(netloom_api::google::api::HttpBody {
                content_type: "application/x-pcapng".into(),
                data: data.clone(),
                ..Default::default()
            })
        };
        let parts = stream::iter(script.capture.iter().map(part).collect::<Vec<_>>());
        if request.get_ref().packet_count == 0 {
            return Ok(Response::new(parts.chain(stream::pending()).boxed()));
        }
        Ok(Response::new(parts.boxed()))
    }

    async fn list_labs(
        &self,
        request: Request<api::ListLabsRequest>,
    ) -> Result<Response<api::ListLabsResponse>, Status> {
        let labs = self.called("ListLabs", "", &request).labs.clone();
        Ok(Response::new(api::ListLabsResponse { labs, next_page_token: String::new() }))
    }

    async fn get_lab(&self, request: Request<api::GetLabRequest>) -> Result<Response<api::Lab>, Status> {
        let name = &request.get_ref().name;
        let script = self.called("GetLab", name, &request);
        match script.labs.iter().find(|l| l.name == *name) {
            Some(lab) => Ok(Response::new(lab.clone())),
            None => Err(refused(Code::NotFound, "LAB_NOT_FOUND", &format!("there is no lab {name}"))),
        }
    }

    async fn import_lab(
        &self,
        request: Request<api::ImportLabRequest>,
    ) -> Result<Response<api::Operation>, Status> {
        let mut script = self.called("ImportLab", "", &request);
        script.imported = Some(request.into_inner());
        if !script.import_refusals.is_empty() {
            return Err(script.import_refusals.remove(0));
        }
        script.import.clone().expect("the test says what ImportLab answers").map(Response::new)
    }

    async fn delete_lab(
        &self,
        request: Request<api::DeleteLabRequest>,
    ) -> Result<Response<api::Operation>, Status> {
        let mut script = self.called("DeleteLab", &request.get_ref().name, &request);
        next(&mut script.deletes).expect("the test says what DeleteLab answers").map(Response::new)
    }

    async fn create_lab(&self, _: Request<api::CreateLabRequest>) -> Result<Response<api::Lab>, Status> {
        not_scripted()
    }

    async fn update_lab(&self, _: Request<api::UpdateLabRequest>) -> Result<Response<api::Lab>, Status> {
        not_scripted()
    }

    async fn apply_lab(&self, _: Request<api::ApplyLabRequest>) -> Result<Response<api::Operation>, Status> {
        not_scripted()
    }

    async fn watch_labs(
        &self,
        request: Request<api::WatchLabsRequest>,
    ) -> Result<Response<Self::WatchLabsStream>, Status> {
        let asked = request.get_ref();
        let what = format!("{} since={}", asked.name, asked.since);
        let mut script = self.called("WatchLabs", &what, &request);
        let (events, end) = next(&mut script.lab_watches).unwrap_or_default();
        let events = stream::iter(events.into_iter().map(Ok));
        Ok(Response::new(match end {
            Some(status) => events.chain(stream::iter([Err(status)])).boxed(),
            None => events.chain(stream::pending()).boxed(),
        }))
    }
}

#[tonic::async_trait]
impl OperationService for Server {
    type WatchOperationStream = BoxStream<'static, Result<api::Operation, Status>>;

    async fn watch_operation(
        &self,
        request: Request<api::WatchOperationRequest>,
    ) -> Result<Response<Self::WatchOperationStream>, Status> {
        let mut script = self.called("WatchOperation", &request.get_ref().name, &request);
        let (operations, end) = next(&mut script.watches).expect("the test says what WatchOperation streams");
        let operations = stream::iter(operations.into_iter().map(Ok));
        Ok(Response::new(match end {
            Some(status) => operations.chain(stream::iter([Err(status)])).boxed(),
            None => operations.chain(stream::pending()).boxed(),
        }))
    }

    async fn get_operation(
        &self,
        request: Request<api::GetOperationRequest>,
    ) -> Result<Response<api::Operation>, Status> {
        let script = self.called("GetOperation", &request.get_ref().name, &request);
        Ok(Response::new(script.operation.clone().expect("the test says what GetOperation answers")))
    }

    async fn cancel_operation(
        &self,
        request: Request<api::CancelOperationRequest>,
    ) -> Result<Response<api::Operation>, Status> {
        let script = self.called("CancelOperation", &request.get_ref().name, &request);
        Ok(Response::new(script.operation.clone().expect("the test says what CancelOperation answers")))
    }

    async fn list_operations(
        &self,
        _: Request<api::ListOperationsRequest>,
    ) -> Result<Response<api::ListOperationsResponse>, Status> {
        not_scripted()
    }

    async fn wait_operation(
        &self,
        _: Request<api::WaitOperationRequest>,
    ) -> Result<Response<api::Operation>, Status> {
        not_scripted()
    }
}

#[tonic::async_trait]
impl NodeService for Server {
    type ExecNodeStream = BoxStream<'static, Result<api::ExecNodeResponse, Status>>;
    type OpenShellStream = BoxStream<'static, Result<api::OpenShellResponse, Status>>;
    type StreamLogsStream = BoxStream<'static, Result<api::StreamLogsResponse, Status>>;

    async fn start_node(
        &self,
        request: Request<api::StartNodeRequest>,
    ) -> Result<Response<api::Operation>, Status> {
        let r = request.get_ref();
        let what = format!("{} {}", r.name, r.others.join(" "));
        self.changed("StartNode", &what, &request)
    }

    async fn stop_node(
        &self,
        request: Request<api::StopNodeRequest>,
    ) -> Result<Response<api::Operation>, Status> {
        let r = request.get_ref();
        let what = format!("{} {}", r.name, r.others.join(" "));
        self.changed("StopNode", &what, &request)
    }

    async fn restart_node(
        &self,
        request: Request<api::RestartNodeRequest>,
    ) -> Result<Response<api::Operation>, Status> {
        let r = request.get_ref();
        let what = format!("{} {}", r.name, r.others.join(" "));
        self.changed("RestartNode", &what, &request)
    }

    async fn get_node_config(
        &self,
        request: Request<api::GetNodeConfigRequest>,
    ) -> Result<Response<api::NodeConfig>, Status> {
        let name = &request.get_ref().name;
        let answer = self.called("GetNodeConfig", name, &request).configs.get(name).cloned();
        answer.expect("the test says what GetNodeConfig answers").map(Response::new)
    }

    async fn list_nodes(
        &self,
        request: Request<api::ListNodesRequest>,
    ) -> Result<Response<api::ListNodesResponse>, Status> {
        let nodes = self.called("ListNodes", &request.get_ref().parent, &request).nodes.clone();
        Ok(Response::new(api::ListNodesResponse { nodes, next_page_token: String::new() }))
    }

    async fn get_node(&self, request: Request<api::GetNodeRequest>) -> Result<Response<api::Node>, Status> {
        let name = &request.get_ref().name;
        let found = self.called("GetNode", name, &request).nodes.iter().find(|n| n.name == *name).cloned();
        found
            .map(Response::new)
            .ok_or_else(|| refused(Code::NotFound, "NODE_NOT_FOUND", "there is no such node"))
    }

    async fn exec_node(
        &self,
        request: Request<api::ExecNodeRequest>,
    ) -> Result<Response<Self::ExecNodeStream>, Status> {
        let asked = request.get_ref();
        let what = format!("{} {:?} {}", asked.name, asked.command, String::from_utf8_lossy(&asked.stdin));
        let script = self.called("ExecNode", &what, &request);
        let parts = script.exec_in.get(&asked.name).unwrap_or(&script.exec).clone();
        drop(script);
        Ok(Response::new(stream::iter(parts).boxed()))
    }

    /// Echoes what is typed until Ctrl-D, then ends with exit code 7.
    async fn open_shell(
        &self,
        request: Request<Streaming<api::OpenShellRequest>>,
    ) -> Result<Response<Self::OpenShellStream>, Status> {
        use api::open_shell_request::Part;
        use api::open_shell_response::Part as Answer;
        drop(self.called("OpenShell", "", &request));
        let script = self.0.clone();
        let answers = stream::unfold((request.into_inner(), false), move |(mut requests, over)| {
            let script = script.clone();
            async move {
                if over {
                    return None;
                }
                loop {
                    let part = requests.message().await.ok()??.part?;
                    let mut script = script.lock().unwrap();
                    let answer = match part {
                        Part::Start(start) => {
                            script.shell_size = start.size;
                            Answer::Output(format!("opened {}\r\n", start.name).into_bytes())
                        }
                        Part::Input(bytes) => {
                            script.shell_input.extend(&bytes);
                            match bytes.contains(&4) {
                                true => Answer::ExitCode(7),
                                false => Answer::Output(bytes),
                            }
                        }
                        Part::Resize(size) => {
                            script.shell_size = Some(size);
                            continue;
                        }
                    };
                    drop(script);
                    let over = matches!(answer, Answer::ExitCode(_));
                    return Some((Ok(api::OpenShellResponse { part: Some(answer) }), (requests, over)));
                }
            }
        });
        Ok(Response::new(answers.boxed()))
    }

    async fn stream_logs(
        &self,
        request: Request<api::StreamLogsRequest>,
    ) -> Result<Response<Self::StreamLogsStream>, Status> {
        use api::stream_logs_response::Part;
        let asked = request.get_ref();
        let what = format!("{} follow={} tail={}", asked.name, asked.follow, asked.tail);
        let endless = self.called("StreamLogs", &what, &request).endless_logs;
        let part = |part| Ok(api::StreamLogsResponse { part: Some(part) });
        let parts = [part(Part::Stdout(b"hello\n".to_vec())), part(Part::Stderr(b"oops\n".to_vec()))];
        let parts = stream::iter(parts);
        Ok(Response::new(if endless { parts.chain(stream::pending()).boxed() } else { parts.boxed() }))
    }
}

#[tonic::async_trait]
impl LinkService for Server {
    async fn create_link(
        &self,
        request: Request<api::CreateLinkRequest>,
    ) -> Result<Response<api::Operation>, Status> {
        self.0.lock().unwrap().asked_link = request.get_ref().link.clone();
        let what = format!("{} {}", request.get_ref().parent, request.get_ref().validate_only);
        self.changed("CreateLink", &what, &request)
    }

    async fn update_link(
        &self,
        request: Request<api::UpdateLinkRequest>,
    ) -> Result<Response<api::Operation>, Status> {
        self.0.lock().unwrap().asked_link = request.get_ref().link.clone();
        let what = request.get_ref().update_mask.clone().unwrap_or_default().paths.join(",");
        self.changed("UpdateLink", &what, &request)
    }

    async fn delete_link(
        &self,
        request: Request<api::DeleteLinkRequest>,
    ) -> Result<Response<api::Operation>, Status> {
        self.changed("DeleteLink", &request.get_ref().name, &request)
    }

    async fn enable_link(
        &self,
        request: Request<api::EnableLinkRequest>,
    ) -> Result<Response<api::Link>, Status> {
        self.look("EnableLink", &request.get_ref().name, &request)
    }

    async fn disable_link(
        &self,
        request: Request<api::DisableLinkRequest>,
    ) -> Result<Response<api::Link>, Status> {
        self.look("DisableLink", &request.get_ref().name, &request)
    }

    async fn list_links(
        &self,
        request: Request<api::ListLinksRequest>,
    ) -> Result<Response<api::ListLinksResponse>, Status> {
        let links = self.called("ListLinks", &request.get_ref().parent, &request).links.clone();
        Ok(Response::new(api::ListLinksResponse { links, next_page_token: String::new() }))
    }

    async fn get_link(&self, request: Request<api::GetLinkRequest>) -> Result<Response<api::Link>, Status> {
        self.look("GetLink", &request.get_ref().name, &request)
    }
}

impl Server {
    fn changed<T>(
        &self,
        method: &'static str,
        what: &str,
        request: &Request<T>,
    ) -> Result<Response<api::Operation>, Status> {
        let script = self.called(method, what, request);
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
