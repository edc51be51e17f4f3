//! The gRPC service: decodes, calls, encodes.

mod changes;
mod checks;
mod encode;
mod moves;

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;

use futures::{Stream, StreamExt as _};
use netloom_model::failure::{Code, Failure};
use netloom_model::id::{Digest, HostId, LabId};
use netloom_model::observed::Phase;
use netloom_model::spec::{LabSpec, MAX_FILES_BYTES};
use netloom_proto::convert::id;
use netloom_proto::scheduler::v1 as ps;
use netloom_proto::scheduler::v1::scheduler_service_server::SchedulerService;
use netloom_service::status::to_status;
use netloom_service::{Shutdown, telemetry};
use prost::Message;
use tonic::{Request, Response, Status, Streaming};

use crate::apply::{Apply, Change, Existence, lab_not_found};
use crate::copies;
use crate::error::Error;
use crate::events;
use crate::policy::HostPolicy;
use crate::quota::Quota;
use crate::rows::LabRows;
use crate::scheduler::Scheduler;
use crate::store::{LabView, LinkView, NodeView, Of};

/// Most rows of a page.
const PAGE: u32 = 1_000;
/// Most bytes of a page of more than one row.
const PAGE_BYTES: usize = 3 << 20;

/// The service.
pub struct Grpc {
    core: Arc<Scheduler>,
    shutdown: Shutdown,
}

impl Grpc {
    /// Over these parts. Streams end at shutdown.
    pub fn new(core: Arc<Scheduler>, shutdown: Shutdown) -> Grpc {
        Grpc { core, shutdown }
    }

    fn lab(&self, text: &str) -> Result<Arc<LabRows>, Status> {
        telemetry::about("netloom.lab", &text);
        self.core.store.rows_of(&text.to_ascii_lowercase()).ok_or_else(|| to_status(lab_not_found(text)))
    }
}

fn host_id(text: &str) -> Result<HostId, Status> {
    text.parse().map_err(|_| not_found("host", "HOST_NOT_FOUND", text))
}

fn status(e: impl Into<Error>) -> Status {
    to_status(Failure::from(e.into()))
}

fn unreadable(e: netloom_proto::convert::ConvertError) -> Status {
    to_status(e.into())
}

fn not_found(what: &str, reason: &str, name: &str) -> Status {
    to_status(Failure::new(Code::NotFound, reason, format!("there is no {what} \"{name}\"")).with(what, name))
}

fn page_size(asked: u32) -> usize {
    asked.clamp(1, PAGE) as usize
}

fn request_id(text: &str) -> Result<Option<String>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    match uuid::Uuid::parse_str(text) {
        Ok(uuid) => Ok(Some(uuid.to_string())),
        Err(_) => Err(to_status(
            Failure::new(Code::InvalidArgument, "INVALID_REQUEST", "the request id is not a UUID")
                .violation("request_id", format!("\"{text}\" is not a UUID")),
        )),
    }
}

/// A page of rows sorted by a key, those after `after`.
fn page<T>(mut rows: Vec<T>, key: impl Fn(&T) -> String, after: &str, size: usize) -> (Vec<T>, bool) {
    rows.retain(|r| key(r).as_str() > after);
    rows.sort_by_key(|r| key(r));
    let more = rows.len() > size;
    rows.truncate(size);
    (rows, more)
}

/// The messages of a page up to its most bytes, but one at least: a page stays below the size of a message however large its rows are.
fn fitting<T: Message>(messages: impl Iterator<Item = T>, more: bool) -> (Vec<T>, bool) {
    let (mut page, mut bytes) = (Vec::new(), 0usize);
    for message in messages {
        bytes = bytes.saturating_add(message.encoded_len());
        if bytes > PAGE_BYTES && !page.is_empty() {
            return (page, true);
        }
        page.push(message);
    }
    (page, more)
}

type Answer<T> = Result<Response<T>, Status>;
type Verifying = Pin<Box<dyn Stream<Item = Result<ps::VerifyImageResponse, Status>> + Send>>;
type Watching = Pin<Box<dyn Stream<Item = Result<ps::WatchResponse, Status>> + Send>>;

#[tonic::async_trait]
impl SchedulerService for Grpc {
    async fn apply_lab(&self, request: Request<ps::ApplyLabRequest>) -> Answer<ps::ApplyLabResponse> {
        let request = request.into_inner();
        telemetry::about("netloom.lab", &request.lab);
        let existence = match request.existence() {
            ps::Existence::Unspecified => Existence::May,
            ps::Existence::MustNotExist => Existence::MustNot,
            ps::Existence::MustExist => Existence::Must,
        };
        let apply = Apply {
            lab: id::<LabId>("lab", &request.lab).map_err(unreadable)?,
            change: Change::Whole(Box::new(
                LabSpec::try_from(request.spec.unwrap_or_default()).map_err(unreadable)?,
            )),
            validate_only: request.validate_only,
            generation: request.generation,
            request_id: request_id(&request.request_id)?,
            existence,
            left_out: request.left_out,
        };
        let operation = self.core.apply(apply).await.map_err(status)?;
        let mut facts = encode::operation(&self.core, operation);
        if request.validate_only {
            facts.id = String::new();
        }
        Ok(Response::new(ps::ApplyLabResponse { operation: Some(facts) }))
    }

    async fn put_files(
        &self,
        request: Request<Streaming<ps::PutFilesRequest>>,
    ) -> Answer<ps::PutFilesResponse> {
        let mut parts = request.into_inner();
        let mut open: Option<(String, Vec<u8>)> = None;
        while let Some(part) = parts.message().await? {
            match &mut open {
                Some((digest, content)) if *digest == part.digest => content.extend_from_slice(&part.content),
                _ => {
                    if let Some((digest, content)) = open.replace((part.digest, part.content)) {
                        self.keep_file(digest, content).await?;
                    }
                }
            }
            if open.as_ref().is_some_and(|(_, c)| c.len() as u64 > MAX_FILES_BYTES) {
                let message = format!("a file has more than {MAX_FILES_BYTES} bytes");
                return Err(to_status(Failure::new(Code::InvalidArgument, "FILE_TOO_LARGE", message)));
            }
        }
        if let Some((digest, content)) = open {
            self.keep_file(digest, content).await?;
        }
        Ok(Response::new(ps::PutFilesResponse {}))
    }

    async fn destroy_lab(&self, request: Request<ps::DestroyLabRequest>) -> Answer<ps::DestroyLabResponse> {
        let request = request.into_inner();
        telemetry::about("netloom.lab", &request.lab);
        let lab = request.lab.parse::<LabId>().map_err(|_| to_status(lab_not_found(&request.lab)))?;
        let request_id = request_id(&request.request_id)?;
        let operation = self.core.destroy(&lab, request.generation, request_id).await.map_err(status)?;
        let operation = Some(encode::operation(&self.core, operation));
        Ok(Response::new(ps::DestroyLabResponse { operation }))
    }

    async fn list_labs(&self, request: Request<ps::ListLabsRequest>) -> Answer<ps::ListLabsResponse> {
        let request = request.into_inner();
        let size = request.page_size.clamp(1, PAGE);
        let page =
            self.core.store.list_labs(size, &request.after.to_ascii_lowercase()).await.map_err(status)?;
        let labs = page.rows.into_iter().map(|l| encode::lab(&self.core, l));
        let (labs, more) = fitting(labs, page.more);
        Ok(Response::new(ps::ListLabsResponse { labs, more }))
    }

    async fn get_lab(&self, request: Request<ps::GetLabRequest>) -> Answer<ps::LabFacts> {
        let rows = self.lab(&request.into_inner().lab)?;
        Ok(Response::new(encode::lab(&self.core, LabView::whole(&rows))))
    }

    async fn list_nodes(&self, request: Request<ps::ListNodesRequest>) -> Answer<ps::ListNodesResponse> {
        let request = request.into_inner();
        let rows = self.lab(&request.lab)?;
        let shown = rows.nodes.values().filter(|n| !n.replaced).collect();
        let after = request.after.to_ascii_lowercase();
        let (nodes, more) = page(shown, |n| n.id.folded(), &after, page_size(request.page_size));
        let index = rows.index();
        let nodes = nodes.into_iter().map(|n| encode::node(&self.core, NodeView::new(&index, n)));
        let (nodes, more) = fitting(nodes, more);
        Ok(Response::new(ps::ListNodesResponse { nodes, more }))
    }

    async fn get_node(&self, request: Request<ps::GetNodeRequest>) -> Answer<ps::NodeFacts> {
        let request = request.into_inner();
        let rows = self.lab(&request.lab)?;
        let node = rows.node(&request.node.to_ascii_lowercase());
        let node = node.ok_or_else(|| not_found("node", "NODE_NOT_FOUND", &request.node))?;
        Ok(Response::new(encode::node(&self.core, NodeView::new(&rows.index(), node))))
    }

    async fn list_links(&self, request: Request<ps::ListLinksRequest>) -> Answer<ps::ListLinksResponse> {
        let request = request.into_inner();
        let rows = self.lab(&request.lab)?;
        let shown = rows.links.values().filter(|l| !l.replaced).collect();
        let (links, more) = page(shown, |l| l.id.clone(), &request.after, page_size(request.page_size));
        let mtus = rows.mtus();
        let links = links.into_iter().map(|l| encode::link(&self.core, LinkView::new(&rows, l, &mtus)));
        let (links, more) = fitting(links, more);
        Ok(Response::new(ps::ListLinksResponse { links, more }))
    }

    async fn get_link(&self, request: Request<ps::GetLinkRequest>) -> Answer<ps::LinkFacts> {
        let request = request.into_inner();
        let rows = self.lab(&request.lab)?;
        let link =
            rows.link(&request.link).ok_or_else(|| not_found("link", "LINK_NOT_FOUND", &request.link))?;
        Ok(Response::new(encode::link(&self.core, LinkView::new(&rows, link, &rows.mtus()))))
    }

    async fn list_image_users(
        &self,
        _: Request<ps::ListImageUsersRequest>,
    ) -> Answer<ps::ListImageUsersResponse> {
        let user = |((lab, reference), digests): (_, BTreeSet<String>)| {
            let digests = digests.into_iter().collect();
            ps::ImageUser { lab, reference, digests }
        };
        let users = self.core.image_users().into_iter().map(user).collect();
        Ok(Response::new(ps::ListImageUsersResponse { users }))
    }

    type VerifyImageStream = Verifying;

    async fn verify_image(&self, request: Request<ps::VerifyImageRequest>) -> Answer<Verifying> {
        let ps::VerifyImageRequest { reference, host } = request.into_inner();
        let host = (!host.is_empty()).then(|| host_id(&host)).transpose()?;
        let told = copies::verify(self.core.clone(), &reference, host).await.map_err(status)?;
        let told = told.map(|told| Ok(encode::copies(told)));
        Ok(Response::new(Box::pin(told.take_until(self.shutdown.clone().cancelled_owned()))))
    }

    async fn list_hosts(&self, request: Request<ps::ListHostsRequest>) -> Answer<ps::ListHostsResponse> {
        let request = request.into_inner();
        let store = &self.core.store;
        let page =
            store.list_hosts(request.page_size.clamp(1, PAGE), &request.after).await.map_err(status)?;
        let (reserved, tallies) =
            futures::try_join!(store.reserved(), store.host_tallies()).map_err(status)?;
        let host = |h| encode::host(&self.core, h, &reserved, &tallies);
        Ok(Response::new(ps::ListHostsResponse {
            hosts: page.rows.into_iter().map(host).collect(),
            more: page.more,
        }))
    }

    async fn get_host(&self, request: Request<ps::GetHostRequest>) -> Answer<ps::HostFacts> {
        let name = request.into_inner().host;
        let all = self
            .list_hosts(Request::new(ps::ListHostsRequest { page_size: PAGE, after: String::new() }))
            .await?;
        let host = all.into_inner().hosts.into_iter().find(|h| h.id.eq_ignore_ascii_case(&name));
        host.map(Response::new).ok_or_else(|| not_found("host", "HOST_NOT_FOUND", &name))
    }

    async fn create_host_token(
        &self,
        request: Request<ps::CreateHostTokenRequest>,
    ) -> Answer<ps::CreateHostTokenResponse> {
        let seconds = request.into_inner().ttl_seconds;
        let ttl = (seconds > 0).then(|| std::time::Duration::from_secs(seconds));
        let (token, expire_us, endpoints) = self.core.create_host_token(ttl).await.map_err(status)?;
        let expire_time = netloom_proto::convert::timestamp(expire_us);
        Ok(Response::new(ps::CreateHostTokenResponse { token: token.to_string(), expire_time, endpoints }))
    }

    async fn set_host_cordoned(&self, request: Request<ps::SetHostCordonedRequest>) -> Answer<ps::HostFacts> {
        let request = request.into_inner();
        let host = host_id(&request.host)?;
        let host = self.core.set_cordoned(&host, request.cordoned).await.map_err(status)?;
        self.get_host(Request::new(ps::GetHostRequest { host: host.to_string() })).await
    }

    async fn update_host(&self, request: Request<ps::UpdateHostRequest>) -> Answer<ps::HostFacts> {
        let request = request.into_inner();
        let host = host_id(&request.host)?;
        let wish = HostPolicy {
            labels: request.labels.into_iter().collect(),
            taints: request.taints.into_iter().collect(),
            cpu_overcommit: request.cpu_overcommit,
            memory_overcommit: request.memory_overcommit,
            disk_overcommit: request.disk_overcommit,
            system_cpu_millis: request.system_cpu_millis,
            system_memory_bytes: request.system_memory_bytes,
            system_disk_bytes: request.system_disk_bytes,
        };
        let host = self.core.update_host(&host, &wish, &request.paths).await.map_err(status)?;
        self.get_host(Request::new(ps::GetHostRequest { host: host.to_string() })).await
    }

    async fn list_quotas(&self, request: Request<ps::ListQuotasRequest>) -> Answer<ps::ListQuotasResponse> {
        let ps::ListQuotasRequest { page_size, after, project } = request.into_inner();
        let page = self.core.quotas(&project, page_size.clamp(1, PAGE), &after).await.map_err(status)?;
        let quotas = page.rows.into_iter().map(|quota| encode::quota(&self.core, quota)).collect();
        Ok(Response::new(ps::ListQuotasResponse { quotas, more: page.more }))
    }

    async fn set_quota(&self, request: Request<ps::SetQuotaRequest>) -> Answer<ps::QuotaFacts> {
        let asked = request.into_inner().quota.unwrap_or_default();
        let ps::QuotaFacts { project, nodes, cpu_millis, memory_bytes, disk_bytes, .. } = asked;
        let quota = Quota { project, nodes, cpu_millis, memory_bytes, disk_bytes };
        let quota = self.core.set_quota(quota).await.map_err(status)?;
        Ok(Response::new(encode::quota(&self.core, quota)))
    }

    async fn remove_quota(
        &self,
        request: Request<ps::RemoveQuotaRequest>,
    ) -> Answer<ps::RemoveQuotaResponse> {
        self.core.remove_quota(&request.into_inner().project).await.map_err(status)?;
        Ok(Response::new(ps::RemoveQuotaResponse {}))
    }

    async fn drain_host(&self, request: Request<ps::DrainHostRequest>) -> Answer<ps::DrainHostResponse> {
        self.drained(request.into_inner()).await.map(Response::new)
    }

    async fn remove_host(&self, request: Request<ps::RemoveHostRequest>) -> Answer<ps::RemoveHostResponse> {
        let request = request.into_inner();
        self.core.remove_host(&host_id(&request.host)?, request.force).await.map_err(status)?;
        Ok(Response::new(ps::RemoveHostResponse {}))
    }

    async fn list_operations(
        &self,
        request: Request<ps::ListOperationsRequest>,
    ) -> Answer<ps::ListOperationsResponse> {
        let request = request.into_inner();
        let size = request.page_size.clamp(1, PAGE);
        let page = self.core.store.list_operations(size, &request.before).await.map_err(status)?;
        let operations = page.rows.into_iter().map(|o| encode::operation(&self.core, o));
        let (operations, more) = fitting(operations, page.more);
        Ok(Response::new(ps::ListOperationsResponse { operations, more }))
    }

    async fn get_operation(&self, request: Request<ps::GetOperationRequest>) -> Answer<ps::OperationFacts> {
        let name = request.into_inner().operation;
        let operation = match name.parse() {
            Ok(id) => self.core.store.operation(id).await.map_err(status)?,
            Err(_) => None,
        };
        let operation = operation.ok_or_else(|| not_found("operation", "OPERATION_NOT_FOUND", &name))?;
        Ok(Response::new(encode::operation(&self.core, operation)))
    }

    async fn cancel_operation(
        &self,
        request: Request<ps::CancelOperationRequest>,
    ) -> Answer<ps::OperationFacts> {
        let operation = self.core.cancel(&request.into_inner().operation).await.map_err(status)?;
        Ok(Response::new(encode::operation(&self.core, operation)))
    }

    type WatchStream = Watching;

    async fn watch(&self, request: Request<ps::WatchRequest>) -> Answer<Watching> {
        let request = request.into_inner();
        let core = self.core.clone();
        let of = Of { lab: request.lab, operations: request.operations };
        let events = events::watch(self.core.clone(), request.since, of)
            .await
            .map_err(status)?
            .map(move |heard| heard.map(|heard| encode::heard(&core, heard)).map_err(status));
        let stream: Watching = Box::pin(events.take_until(self.shutdown.clone().cancelled_owned()));
        Ok(Response::new(stream))
    }

    async fn get_ticket(&self, request: Request<ps::GetTicketRequest>) -> Answer<ps::Ticket> {
        let request = request.into_inner();
        let rows = self.lab(&request.lab)?;
        let node = rows.node(&request.node.to_ascii_lowercase());
        let node = node.ok_or_else(|| not_found("node", "NODE_NOT_FOUND", &request.node))?;
        if !matches!(request.verb.as_str(), "exec" | "console" | "logs" | "snapshot") {
            let failure = Failure::new(Code::InvalidArgument, "INVALID_REQUEST", "there is no such verb");
            return Err(to_status(
                failure.violation(
                    "verb",
                    format!("\"{}\" is not exec, console, logs or snapshot", request.verb),
                ),
            ));
        }
        let client = node.host.as_ref().and_then(|h| self.core.host(h));
        let client = client.filter(|_| {
            // One that did not boot in its time runs, and is to be looked at.
            let runs = node.state.is_running() || node.phase() == Some(Phase::Running);
            matches!(request.verb.as_str(), "logs" | "snapshot") || runs
        });
        if node.segment.is_some() {
            let message = format!(
                "node {} is a bridge and has no process: nothing runs in it and it writes no log",
                node.id
            );
            let failure = Failure::new(Code::FailedPrecondition, "NODE_HAS_NO_PROCESS", message);
            return Err(to_status(failure.with("node", node.id.to_string())));
        }
        let Some(client) = client else {
            let message = format!("node {} does not run: it is {} {}", node.id, node.state, node.reason);
            let failure = Failure::new(Code::FailedPrecondition, "NODE_NOT_RUNNING", message.trim_end());
            return Err(to_status(
                failure.with("node", node.id.to_string()).with("state", node.state.as_str()),
            ));
        };
        let uid = node.uid.to_string();
        let kind = self.core.catalogue.of(&node.spec);
        let (save, strip) = kind.map(|k| k.save_of(&node.spec)).unwrap_or_default();
        Ok(Response::new(ps::Ticket {
            endpoint: client.endpoint.to_string(),
            ticket: self.core.ticket(&client.id, &uid, &request.verb),
            uid,
            shell: kind.map(|k| k.shell.clone()).unwrap_or_default(),
            save,
            save_strip: strip.to_owned(),
        }))
    }

    async fn get_capture_ticket(
        &self,
        request: Request<ps::GetCaptureTicketRequest>,
    ) -> Answer<ps::CaptureTicket> {
        self.capture(&request.into_inner()).map(Response::new)
    }

    async fn change_nodes(
        &self,
        request: Request<ps::ChangeNodesRequest>,
    ) -> Answer<ps::ChangeNodesResponse> {
        let operation = self.nodes_changed(request.into_inner()).await?;
        let operation = Some(encode::operation(&self.core, operation));
        Ok(Response::new(ps::ChangeNodesResponse { operation }))
    }

    async fn move_nodes(&self, request: Request<ps::MoveNodesRequest>) -> Answer<ps::MoveNodesResponse> {
        let operation = Some(self.moved(request.into_inner()).await?);
        Ok(Response::new(ps::MoveNodesResponse { operation }))
    }

    async fn change_link(&self, request: Request<ps::ChangeLinkRequest>) -> Answer<ps::ChangeLinkResponse> {
        let request = request.into_inner();
        let validate_only = request.validate_only;
        let operation = self.link_changed(request).await?;
        let mut facts = encode::operation(&self.core, operation);
        if validate_only {
            facts.id = String::new();
        }
        Ok(Response::new(ps::ChangeLinkResponse { operation: Some(facts) }))
    }

    async fn set_link_enabled(&self, request: Request<ps::SetLinkEnabledRequest>) -> Answer<ps::LinkFacts> {
        let view = self.link_plugged(request.into_inner()).await?;
        Ok(Response::new(encode::link(&self.core, view)))
    }

    async fn check_link(&self, request: Request<ps::CheckLinkRequest>) -> Answer<ps::CheckLinkResponse> {
        self.checked(request.into_inner()).await.map(Response::new)
    }
}

impl Grpc {
    async fn keep_file(&self, digest: String, content: Vec<u8>) -> Result<(), Status> {
        let refuse = |message: String| {
            let failure = Failure::new(Code::InvalidArgument, "DIGEST_MISMATCH", message.clone());
            to_status(failure.violation("digest", message))
        };
        let said = Digest::try_from(digest).map_err(|e| refuse(e.to_string()))?;
        let is = Digest::of(&content);
        if said != is {
            return Err(refuse(format!(
                "the content sent as {said} is {is}: it was changed on its way, send it again"
            )));
        }
        let mut tx = self.core.store.begin("scheduler.file").await.map_err(status)?;
        tx.put_file(&said, &content).await.map_err(status)?;
        tx.commit().await.map_err(status)
    }
}
