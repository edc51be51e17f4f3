//! NodeService. Byte streams go straight to the host: the scheduler gives a ticket and is not needed after that, so that its failover cuts nobody's terminal.

use std::future::ready;

use futures::{StreamExt as _, stream};
use netloom_api::v1::{self, node_service_server::NodeService};
use netloom_proto::compute::v1 as pc;
use netloom_proto::scheduler::v1 as ps;
use prost_types::Timestamp;
use tonic::{Request, Response, Status, Streaming};

use super::Api;
use crate::error::Error;
use crate::watch::{Answers, until_shutdown};
use crate::{changes, names, pages, running_config, view};

/// Most bytes of standard input in one message to a host.
const PART: usize = 64 << 10;

#[tonic::async_trait]
impl NodeService for Api {
    async fn list_nodes(
        &self,
        request: Request<v1::ListNodesRequest>,
    ) -> Result<Response<v1::ListNodesResponse>, Status> {
        let request = request.into_inner();
        let lab = names::read_lab("parent", &request.parent)?;
        let list = format!("{}/nodes", names::lab(lab.as_str()));
        let page = pages::read(&list, request.page_size, &request.page_token)?;
        let request = ps::ListNodesRequest { lab: lab.to_string(), page_size: page.size, after: page.after };
        let found = self.peers.scheduler().list_nodes(request).await.map_err(self.peers.scheduler_error())?;
        let found = found.into_inner();
        let last = found.nodes.last().and_then(|n| n.spec.as_ref()).map(|s| s.id.as_str());
        let next_page_token = pages::next(&list, found.more, last);
        let nodes = found.nodes.into_iter().map(view::node).collect();
        Ok(Response::new(v1::ListNodesResponse { nodes, next_page_token }))
    }

    async fn get_node(&self, request: Request<v1::GetNodeRequest>) -> Result<Response<v1::Node>, Status> {
        let (lab, node) = names::read_node("name", &request.into_inner().name)?;
        let request = ps::GetNodeRequest { lab: lab.to_string(), node: node.to_string() };
        let facts = self.peers.scheduler().get_node(request).await.map_err(self.peers.scheduler_error())?;
        Ok(Response::new(view::node(facts.into_inner())))
    }

    type ExecNodeStream = Answers<v1::ExecNodeResponse>;

    async fn exec_node(
        &self,
        request: Request<v1::ExecNodeRequest>,
    ) -> Result<Response<Self::ExecNodeStream>, Status> {
        let request = request.into_inner();
        let (lab, node) = names::read_node("name", &request.name)?;
        if request.command.is_empty() {
            return Err(Error::field("command", "is empty: name a command and its arguments").into());
        }
        tracing::info!(%lab, %node, "a command is run in a node");
        let (ticket, mut compute) = self.peers.ticket(&lab, &node, "exec").await?;
        let start = pc::ExecStart {
            ticket: ticket.ticket,
            uid: ticket.uid,
            command: request.command,
            tty: false,
            size: None,
        };
        let stdin: Vec<_> = request
            .stdin
            .chunks(PART)
            .map(|c| exec_part(pc::exec_request::Part::Stdin(c.to_vec())))
            .collect();
        let parts = stream::once(async { exec_part(pc::exec_request::Part::Start(start)) })
            .chain(stream::iter(stdin))
            .chain(stream::once(async { exec_part(pc::exec_request::Part::StdinEnd(true)) }));
        let failed = compute.error();
        let answers = compute.client.exec(parts).await.map_err(&failed)?.into_inner();
        let answers = answers.map(move |part| match part {
            Ok(part) => Ok(v1::ExecNodeResponse { part: part.part.map(exec_answer) }),
            Err(status) => Err(failed(status).into()),
        });
        Ok(Response::new(until_shutdown(answers, &self.shutdown)))
    }

    type OpenShellStream = Answers<v1::OpenShellResponse>;

    async fn open_shell(
        &self,
        request: Request<Streaming<v1::OpenShellRequest>>,
    ) -> Result<Response<Self::OpenShellStream>, Status> {
        use v1::open_shell_request::Part;
        let mut typed = request.into_inner();
        let Some(Part::Start(shell)) = typed.message().await?.and_then(|first| first.part) else {
            return Err(Error::field("start", "is not the first message: begin with the node's name").into());
        };
        let (lab, node) = names::read_node("start.name", &shell.name)?;
        tracing::info!(%lab, %node, "a terminal is opened in a node");
        let (ticket, mut compute) = self.peers.ticket(&lab, &node, "exec").await?;
        let start = pc::ExecStart {
            ticket: ticket.ticket,
            uid: ticket.uid,
            command: if shell.command.is_empty() { ticket.shell } else { shell.command },
            tty: true,
            size: shell.size.map(size),
        };
        // What ends the user's side, an error included, ends the terminal's input.
        let part = |message: v1::OpenShellRequest| match message.part? {
            Part::Input(bytes) => Some(exec_part(pc::exec_request::Part::Stdin(bytes))),
            Part::Resize(to) => Some(exec_part(pc::exec_request::Part::Resize(size(to)))),
            Part::Start(_) => None,
        };
        let typed = typed
            .take_while(|message| ready(message.is_ok()))
            .filter_map(move |message| ready(message.ok().and_then(part)));
        let parts = stream::once(async { exec_part(pc::exec_request::Part::Start(start)) })
            .chain(typed)
            .chain(stream::once(async { exec_part(pc::exec_request::Part::StdinEnd(true)) }));
        let failed = compute.error();
        let answers = compute.client.exec(parts).await.map_err(&failed)?.into_inner();
        let answers = answers.map(move |part| match part {
            Ok(part) => Ok(v1::OpenShellResponse { part: part.part.map(shell_answer) }),
            Err(status) => Err(failed(status).into()),
        });
        Ok(Response::new(until_shutdown(answers, &self.shutdown)))
    }

    type OpenConsoleStream = Answers<v1::OpenConsoleResponse>;

    async fn open_console(
        &self,
        request: Request<Streaming<v1::OpenConsoleRequest>>,
    ) -> Result<Response<Self::OpenConsoleStream>, Status> {
        use v1::open_console_request::Part;
        let mut typed = request.into_inner();
        let Some(Part::Start(how)) = typed.message().await?.and_then(|first| first.part) else {
            return Err(Error::field("start", "is not the first message: begin with the node's name").into());
        };
        let (lab, node) = names::read_node("start.name", &how.name)?;
        tracing::info!(%lab, %node, how.read_only, how.take, "a console is attached to");
        let (ticket, mut compute) = self.peers.ticket(&lab, &node, "console").await?;
        let start = pc::ConsoleStart {
            ticket: ticket.ticket,
            uid: ticket.uid,
            read_only: how.read_only,
            take: how.take,
        };
        let part = |part| pc::ConsoleRequest { part: Some(part) };
        let input = move |message: v1::OpenConsoleRequest| match message.part? {
            Part::Input(bytes) => Some(part(pc::console_request::Part::Input(bytes))),
            Part::Start(_) => None,
        };
        // What ends the user's side, an error included, ends what is written.
        let typed = typed
            .take_while(|message| ready(message.is_ok()))
            .filter_map(move |message| ready(message.ok().and_then(input)));
        let parts = stream::once(async move { part(pc::console_request::Part::Start(start)) }).chain(typed);
        let failed = compute.error();
        let told = compute.client.console(parts).await.map_err(&failed)?.into_inner();
        let told = told.map(move |part| match part {
            Ok(part) => Ok(v1::OpenConsoleResponse { part: part.part.map(console_part) }),
            Err(status) => Err(failed(status).into()),
        });
        Ok(Response::new(until_shutdown(told, &self.shutdown)))
    }

    async fn start_node(
        &self,
        request: Request<v1::StartNodeRequest>,
    ) -> Result<Response<v1::Operation>, Status> {
        let request = request.into_inner();
        self.change_nodes(&request.name, request.others, ps::NodeChange::Start, request.request_id).await
    }

    async fn stop_node(
        &self,
        request: Request<v1::StopNodeRequest>,
    ) -> Result<Response<v1::Operation>, Status> {
        let request = request.into_inner();
        self.change_nodes(&request.name, request.others, ps::NodeChange::Stop, request.request_id).await
    }

    async fn restart_node(
        &self,
        request: Request<v1::RestartNodeRequest>,
    ) -> Result<Response<v1::Operation>, Status> {
        let request = request.into_inner();
        self.change_nodes(&request.name, request.others, ps::NodeChange::Restart, request.request_id).await
    }

    async fn wipe_node(
        &self,
        request: Request<v1::WipeNodeRequest>,
    ) -> Result<Response<v1::Operation>, Status> {
        let request = request.into_inner();
        self.change_nodes(&request.name, request.others, ps::NodeChange::Wipe, request.request_id).await
    }

    async fn move_node(
        &self,
        request: Request<v1::MoveNodeRequest>,
    ) -> Result<Response<v1::Operation>, Status> {
        let request = request.into_inner();
        let (lab, node) = names::read_node("name", &request.name)?;
        let v1::MoveNodeRequest { host, lose_disks, force, validate_only, .. } = request;
        tracing::info!(%lab, %node, %host, force, validate_only, "a node is to be moved");
        let request = ps::MoveNodesRequest {
            lab: lab.to_string(),
            nodes: [node.to_string()].into_iter().chain(request.others).collect(),
            host,
            lose_disks,
            force,
            validate_only,
            request_id: request.request_id,
        };
        Ok(Response::new(changes::moves(&self.peers, request).await?))
    }

    async fn get_node_config(
        &self,
        request: Request<v1::GetNodeConfigRequest>,
    ) -> Result<Response<v1::NodeConfig>, Status> {
        let (lab, node) = names::read_node("name", &request.into_inner().name)?;
        tracing::info!(%lab, %node, "the running configuration of a node is asked for");
        Ok(Response::new(running_config::read(&self.peers, &lab, &node).await?))
    }

    type StreamLogsStream = Answers<v1::StreamLogsResponse>;

    async fn stream_logs(
        &self,
        request: Request<v1::StreamLogsRequest>,
    ) -> Result<Response<Self::StreamLogsStream>, Status> {
        use pc::logs_response::Part as Told;
        use v1::stream_logs_response::Part;
        let request = request.into_inner();
        let (lab, node) = names::read_node("name", &request.name)?;
        let (ticket, mut compute) = self.peers.ticket(&lab, &node, "logs").await?;
        let request = pc::LogsRequest {
            ticket: ticket.ticket,
            uid: ticket.uid,
            follow: request.follow,
            tail: request.tail,
            after_ns: request.after.as_ref().map_or(0, nanoseconds),
        };
        let failed = compute.error();
        let lines = compute.client.logs(request).await.map_err(&failed)?.into_inner();
        let lines = lines.map(move |part| match part {
            Ok(part) => {
                let write_time = view::time_of(part.at_ns);
                let part = part.part.map(|p| match p {
                    Told::Stdout(bytes) => Part::Stdout(bytes),
                    Told::Stderr(bytes) => Part::Stderr(bytes),
                });
                Ok(v1::StreamLogsResponse { part, write_time })
            }
            Err(status) => Err(failed(status).into()),
        });
        Ok(Response::new(until_shutdown(lines, &self.shutdown)))
    }
}

impl Api {
    async fn change_nodes(
        &self,
        name: &str,
        others: Vec<String>,
        change: ps::NodeChange,
        request_id: String,
    ) -> Result<Response<v1::Operation>, Status> {
        let (lab, node) = names::read_node("name", name)?;
        tracing::info!(%lab, %node, change = change.as_str_name(), "a node is to be changed");
        let request = ps::ChangeNodesRequest {
            lab: lab.to_string(),
            nodes: [node.to_string()].into_iter().chain(others).collect(),
            change: change.into(),
            request_id,
            snapshot: String::new(),
        };
        Ok(Response::new(changes::nodes(&self.peers, request).await?))
    }
}

fn exec_part(part: pc::exec_request::Part) -> pc::ExecRequest {
    pc::ExecRequest { part: Some(part) }
}

fn exec_answer(part: pc::exec_response::Part) -> v1::exec_node_response::Part {
    use pc::exec_response::Part as Told;
    use v1::exec_node_response::Part;
    match part {
        Told::Stdout(bytes) => Part::Stdout(bytes),
        Told::Stderr(bytes) => Part::Stderr(bytes),
        Told::ExitCode(code) => Part::ExitCode(code),
    }
}

fn shell_answer(part: pc::exec_response::Part) -> v1::open_shell_response::Part {
    use pc::exec_response::Part as Told;
    use v1::open_shell_response::Part;
    match part {
        Told::Stdout(bytes) | Told::Stderr(bytes) => Part::Output(bytes),
        Told::ExitCode(code) => Part::ExitCode(code),
    }
}

fn console_part(part: pc::console_response::Part) -> v1::open_console_response::Part {
    use pc::console_response::Part as Told;
    use v1::open_console_response::Part;
    match part {
        Told::Output(bytes) => Part::Output(bytes),
        Told::Event(event) => Part::Event(event),
    }
}

fn size(size: v1::ShellSize) -> pc::ExecSize {
    pc::ExecSize { columns: size.columns, rows: size.rows }
}

/// Nanoseconds since 1970.
fn nanoseconds(time: &Timestamp) -> i64 {
    time.seconds.saturating_mul(1_000_000_000).saturating_add(time.nanos.into())
}
