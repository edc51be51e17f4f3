//! NodeService, by the script.

use futures::stream::{self, BoxStream, StreamExt as _};
use netloom_api::v1 as api;
use netloom_api::v1::node_service_server::NodeService;
use netloom_model::Code;
use prost_reflect::prost_types::Timestamp;
use tonic::{Request, Response, Status, Streaming};

use super::{Server, refused};

#[tonic::async_trait]
impl NodeService for Server {
    type ExecNodeStream = BoxStream<'static, Result<api::ExecNodeResponse, Status>>;
    type OpenConsoleStream = BoxStream<'static, Result<api::OpenConsoleResponse, Status>>;
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

    async fn wipe_node(
        &self,
        request: Request<api::WipeNodeRequest>,
    ) -> Result<Response<api::Operation>, Status> {
        let r = request.get_ref();
        let what = format!("{} {}", r.name, r.others.join(" "));
        self.changed("WipeNode", &what, &request)
    }

    async fn move_node(
        &self,
        request: Request<api::MoveNodeRequest>,
    ) -> Result<Response<api::Operation>, Status> {
        let r = request.get_ref();
        let others = r.others.join(" ");
        let what = format!("{} {others} {} {} {} {}", r.name, r.host, r.validate_only, r.lose_disks, r.force);
        self.changed("MoveNode", &what, &request)
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

    /// Echoes what is typed; `t` has somebody else take it, Ctrl-D ends the machine.
    async fn open_console(
        &self,
        request: Request<Streaming<api::OpenConsoleRequest>>,
    ) -> Result<Response<Self::OpenConsoleStream>, Status> {
        use api::open_console_request::Part;
        use api::open_console_response::Part as Answer;
        drop(self.called("OpenConsole", "", &request));
        let script = self.0.clone();
        let answers = request.into_inner().flat_map(move |message| {
            let mut answers = Vec::new();
            match message.ok().and_then(|m| m.part) {
                Some(Part::Start(start)) => {
                    answers.push(Answer::Event(api::ConsoleEvent::Attached.into()));
                    let how = format!("{} {} {}\r\n", start.name, start.read_only, start.take);
                    answers.push(Answer::Output(how.into_bytes()));
                }
                Some(Part::Input(bytes)) => {
                    script.lock().unwrap().shell_input.extend(&bytes);
                    if bytes.contains(&b't') {
                        answers.push(Answer::Event(api::ConsoleEvent::Taken.into()));
                    }
                    if bytes.contains(&4) {
                        answers.push(Answer::Event(api::ConsoleEvent::Ended.into()));
                    }
                    answers.push(Answer::Output(bytes));
                }
                None => {}
            }
            stream::iter(answers).map(|part| Ok(api::OpenConsoleResponse { part: Some(part) }))
        });
        Ok(Response::new(answers.boxed()))
    }

    async fn stream_logs(
        &self,
        request: Request<api::StreamLogsRequest>,
    ) -> Result<Response<Self::StreamLogsStream>, Status> {
        use api::stream_logs_response::Part;
        let asked = request.get_ref();
        let mut what = format!("{} follow={} tail={}", asked.name, asked.follow, asked.tail);
        if let Some(after) = &asked.after {
            what.push_str(&format!(" after={}", after.seconds));
        }
        let mut script = self.called("StreamLogs", &what, &request);
        if !script.logs.is_empty() {
            let (lines, end) = script.logs.remove(0);
            let line = |(text, seconds): (&str, i64)| {
                let write_time = Some(Timestamp { seconds, nanos: 0 });
                Ok(api::StreamLogsResponse { part: Some(Part::Stdout(text.into())), write_time })
            };
            let lines: Vec<_> = lines.into_iter().map(line).chain(end.map(Err)).collect();
            return Ok(Response::new(stream::iter(lines).boxed()));
        }
        let endless = script.endless_logs;
        drop(script);
        let part = |part| Ok(api::StreamLogsResponse { part: Some(part), write_time: None });
        let parts = [part(Part::Stdout(b"hello\n".to_vec())), part(Part::Stderr(b"oops\n".to_vec()))];
        let parts = stream::iter(parts);
        Ok(Response::new(if endless { parts.chain(stream::pending()).boxed() } else { parts.boxed() }))
    }
}
