//! The scheduler.

use std::sync::Arc;

use futures::{StreamExt as _, stream};
use netloom_model::{Code, Failure};
use netloom_proto::scheduler::v1 as ps;
use netloom_proto::scheduler::v1::scheduler_service_server::SchedulerService;
use netloom_proto::v1 as p;
use netloom_service::status::to_status;
use tonic::{Request, Response, Status, Streaming};

use super::{Answers, SEQUENCE, World, heartbeat, missing, page};
use crate::fixture::DONE;

pub struct Scheduler(pub Arc<World>);

#[tonic::async_trait]
impl SchedulerService for Scheduler {
    async fn apply_lab(
        &self,
        request: Request<ps::ApplyLabRequest>,
    ) -> Result<Response<ps::ApplyLabResponse>, Status> {
        self.0.trace("apply_lab", &request);
        self.0.check()?;
        let request = request.into_inner();
        let mut operation = self.0.operations.lock().unwrap()[DONE].clone();
        if request.validate_only {
            operation.id.clear();
        }
        operation.lab.clone_from(&request.lab);
        self.0.applied.lock().unwrap().push(request);
        Ok(Response::new(ps::ApplyLabResponse { operation: Some(operation) }))
    }

    async fn put_files(
        &self,
        request: Request<Streaming<ps::PutFilesRequest>>,
    ) -> Result<Response<ps::PutFilesResponse>, Status> {
        self.0.trace("put_files", &request);
        let mut parts = request.into_inner();
        while let Some(part) = parts.message().await? {
            self.0.parts.lock().unwrap().push((part.digest, part.content.len()));
        }
        Ok(Response::new(ps::PutFilesResponse {}))
    }

    async fn destroy_lab(
        &self,
        request: Request<ps::DestroyLabRequest>,
    ) -> Result<Response<ps::DestroyLabResponse>, Status> {
        self.0.check()?;
        let mut operation = self.0.operations.lock().unwrap()[DONE].clone();
        operation.lab = request.into_inner().lab;
        operation.kind = p::OperationKind::Destroy.into();
        Ok(Response::new(ps::DestroyLabResponse { operation: Some(operation) }))
    }

    async fn list_labs(
        &self,
        request: Request<ps::ListLabsRequest>,
    ) -> Result<Response<ps::ListLabsResponse>, Status> {
        self.0.trace("list_labs", &request);
        self.0.check()?;
        let request = request.into_inner();
        let (labs, more) = page(&self.0.labs, |l| &l.id, request.page_size, &request.after);
        Ok(Response::new(ps::ListLabsResponse { labs, more }))
    }

    async fn get_lab(&self, request: Request<ps::GetLabRequest>) -> Result<Response<ps::LabFacts>, Status> {
        self.0.trace("get_lab", &request);
        self.0.check()?;
        let id = request.into_inner().lab;
        let found = self.0.labs.iter().find(|l| l.id == id);
        Ok(Response::new(found.ok_or_else(|| missing("lab", &id))?.clone()))
    }

    async fn list_nodes(
        &self,
        request: Request<ps::ListNodesRequest>,
    ) -> Result<Response<ps::ListNodesResponse>, Status> {
        self.0.trace("list_nodes", &request);
        self.0.check()?;
        let request = request.into_inner();
        let mine: Vec<_> = self.0.nodes.iter().filter(|n| n.lab == request.lab).cloned().collect();
        let (nodes, more) = page(&mine, |n| &n.spec.as_ref().unwrap().id, request.page_size, &request.after);
        Ok(Response::new(ps::ListNodesResponse { nodes, more }))
    }

    async fn get_node(
        &self,
        request: Request<ps::GetNodeRequest>,
    ) -> Result<Response<ps::NodeFacts>, Status> {
        self.0.check()?;
        let r = request.into_inner();
        let found = self.0.nodes.iter().find(|n| n.lab == r.lab && n.spec.as_ref().unwrap().id == r.node);
        Ok(Response::new(found.ok_or_else(|| missing("node", &r.node))?.clone()))
    }

    async fn list_links(
        &self,
        request: Request<ps::ListLinksRequest>,
    ) -> Result<Response<ps::ListLinksResponse>, Status> {
        self.0.check()?;
        let request = request.into_inner();
        let mine: Vec<_> = self.0.links.iter().filter(|n| n.lab == request.lab).cloned().collect();
        let (links, more) = page(&mine, |l| &l.id, request.page_size, &request.after);
        Ok(Response::new(ps::ListLinksResponse { links, more }))
    }

    async fn get_link(
        &self,
        request: Request<ps::GetLinkRequest>,
    ) -> Result<Response<ps::LinkFacts>, Status> {
        self.0.check()?;
        let r = request.into_inner();
        let found = self.0.links.iter().find(|l| l.lab == r.lab && l.id == r.link);
        Ok(Response::new(found.ok_or_else(|| missing("link", &r.link))?.clone()))
    }

    async fn list_image_users(
        &self,
        _: Request<ps::ListImageUsersRequest>,
    ) -> Result<Response<ps::ListImageUsersResponse>, Status> {
        self.0.check()?;
        let of_lab = |lab: &ps::LabFacts| {
            let nodes = lab.spec.clone().unwrap_or_default().nodes.into_iter();
            let lab = lab.id.clone();
            nodes.map(move |n| ps::ImageUser { lab: lab.clone(), reference: n.image, digests: Vec::new() })
        };
        let users = self.0.labs.iter().flat_map(of_lab).filter(|u| !u.reference.is_empty()).collect();
        Ok(Response::new(ps::ListImageUsersResponse { users }))
    }

    type VerifyImageStream = tokio_stream::Iter<std::vec::IntoIter<Result<ps::VerifyImageResponse, Status>>>;

    /// Every host has a copy: one is right, and one was set aside.
    async fn verify_image(
        &self,
        request: Request<ps::VerifyImageRequest>,
    ) -> Result<Response<Self::VerifyImageStream>, Status> {
        use netloom_proto::v1::ImageCheckResult;
        use ps::verify_image_response::Event;
        self.0.check()?;
        let digest = format!("sha256:{}", "ab".repeat(32));
        let host = request.into_inner().host;
        let right = ps::ImageCheckFacts {
            host: if host.is_empty() { "alpha".into() } else { host.clone() },
            digest: digest.clone(),
            result: ImageCheckResult::Right.into(),
            size_bytes: 1 << 20,
            ..ps::ImageCheckFacts::default()
        };
        let aside = ps::ImageCheckFacts {
            host: "beta".into(),
            result: ImageCheckResult::SetAside.into(),
            message: "its bytes were others".into(),
            fetched: true,
            nodes: vec!["mixed/r1".into()],
            ..right.clone()
        };
        let far =
            ps::ImageCheckProgress { host: right.host.clone(), done_bytes: 1 << 19, total_bytes: 1 << 20 };
        let mut told = vec![Event::Progress(far), Event::Checked(right)];
        if host.is_empty() {
            told.push(Event::Checked(aside));
        }
        let told: Vec<_> =
            told.into_iter().map(|event| Ok(ps::VerifyImageResponse { event: Some(event) })).collect();
        Ok(Response::new(tokio_stream::iter(told)))
    }

    async fn list_hosts(
        &self,
        request: Request<ps::ListHostsRequest>,
    ) -> Result<Response<ps::ListHostsResponse>, Status> {
        self.0.check()?;
        let request = request.into_inner();
        let (hosts, more) = page(&self.0.hosts, |h| &h.id, request.page_size, &request.after);
        Ok(Response::new(ps::ListHostsResponse { hosts, more }))
    }

    async fn get_host(
        &self,
        request: Request<ps::GetHostRequest>,
    ) -> Result<Response<ps::HostFacts>, Status> {
        self.0.check()?;
        let id = request.into_inner().host;
        let found = self.0.hosts.iter().find(|h| h.id == id);
        Ok(Response::new(found.ok_or_else(|| missing("host", &id))?.clone()))
    }

    async fn create_host_token(
        &self,
        _: Request<ps::CreateHostTokenRequest>,
    ) -> Result<Response<ps::CreateHostTokenResponse>, Status> {
        self.0.check()?;
        Ok(Response::new(ps::CreateHostTokenResponse {
            token: "secret.fingerprint".into(),
            expire_time: None,
            endpoints: vec!["https://10.0.0.1:7601".into()],
        }))
    }

    async fn set_host_cordoned(
        &self,
        request: Request<ps::SetHostCordonedRequest>,
    ) -> Result<Response<ps::HostFacts>, Status> {
        self.get_host(Request::new(ps::GetHostRequest { host: request.into_inner().host })).await
    }

    async fn update_host(
        &self,
        request: Request<ps::UpdateHostRequest>,
    ) -> Result<Response<ps::HostFacts>, Status> {
        self.get_host(Request::new(ps::GetHostRequest { host: request.into_inner().host })).await
    }

    async fn list_quotas(
        &self,
        request: Request<ps::ListQuotasRequest>,
    ) -> Result<Response<ps::ListQuotasResponse>, Status> {
        let project = match request.into_inner().project {
            empty if empty.is_empty() => "course".to_owned(),
            project => project,
        };
        Ok(Response::new(ps::ListQuotasResponse {
            quotas: vec![crate::fixture::quota(&project)],
            more: false,
        }))
    }

    async fn set_quota(
        &self,
        request: Request<ps::SetQuotaRequest>,
    ) -> Result<Response<ps::QuotaFacts>, Status> {
        let asked = request.into_inner().quota.unwrap_or_default();
        let used = crate::fixture::quota(&asked.project);
        let ps::QuotaFacts { nodes, cpu_millis, memory_bytes, disk_bytes, .. } = asked;
        Ok(Response::new(ps::QuotaFacts { nodes, cpu_millis, memory_bytes, disk_bytes, ..used }))
    }

    async fn remove_quota(
        &self,
        _: Request<ps::RemoveQuotaRequest>,
    ) -> Result<Response<ps::RemoveQuotaResponse>, Status> {
        Ok(Response::new(ps::RemoveQuotaResponse {}))
    }

    async fn drain_host(
        &self,
        request: Request<ps::DrainHostRequest>,
    ) -> Result<Response<ps::DrainHostResponse>, Status> {
        let request = request.into_inner();
        let host = self.get_host(Request::new(ps::GetHostRequest { host: request.host })).await?;
        let mut operation = self.0.operations.lock().unwrap()[DONE].clone();
        if request.validate_only {
            operation.id.clear();
        }
        let busy_labs = vec!["busy".to_owned()];
        Ok(Response::new(ps::DrainHostResponse {
            host: Some(host.into_inner()),
            moves: vec![operation],
            busy_labs,
        }))
    }

    async fn remove_host(
        &self,
        request: Request<ps::RemoveHostRequest>,
    ) -> Result<Response<ps::RemoveHostResponse>, Status> {
        self.get_host(Request::new(ps::GetHostRequest { host: request.into_inner().host })).await?;
        Ok(Response::new(ps::RemoveHostResponse {}))
    }

    async fn list_operations(
        &self,
        request: Request<ps::ListOperationsRequest>,
    ) -> Result<Response<ps::ListOperationsResponse>, Status> {
        self.0.check()?;
        let request = request.into_inner();
        let all = self.0.operations.lock().unwrap();
        let mut newest =
            all.values().rev().filter(|o| request.before.is_empty() || o.id < request.before).cloned();
        let operations = newest.by_ref().take(request.page_size as usize).collect();
        Ok(Response::new(ps::ListOperationsResponse { operations, more: newest.next().is_some() }))
    }

    async fn get_operation(
        &self,
        request: Request<ps::GetOperationRequest>,
    ) -> Result<Response<ps::OperationFacts>, Status> {
        self.0.check()?;
        self.0.read_operations.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let id = request.into_inner().operation;
        let found = self.0.operations.lock().unwrap().get(&id).cloned();
        Ok(Response::new(found.ok_or_else(|| missing("operation", &id))?))
    }

    async fn cancel_operation(
        &self,
        request: Request<ps::CancelOperationRequest>,
    ) -> Result<Response<ps::OperationFacts>, Status> {
        let request = ps::GetOperationRequest { operation: request.into_inner().operation };
        self.get_operation(Request::new(request)).await
    }

    type WatchStream = Answers<ps::WatchResponse>;

    async fn watch(&self, request: Request<ps::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        self.0.check()?;
        let request = request.into_inner();
        if request.since == 1 {
            let failure =
                Failure::new(Code::OutOfRange, "RELIST_NEEDED", "events after 1 were dropped: list again");
            return Err(to_status(failure.with("since", "1")));
        }
        let events = self.0.events.subscribe();
        let script = self.0.script.lock().unwrap().clone();
        let after = move |e: &ps::WatchResponse| e.sequence > request.since.max(SEQUENCE);
        let first = (request.since == 0).then(|| heartbeat(SEQUENCE));
        let told: Vec<_> = first.into_iter().chain(script.into_iter().filter(after)).collect();
        let world = self.0.clone();
        let live =
            stream::unfold(events, |mut events| async move { Some((events.recv().await.ok()?, events)) });
        let all = stream::iter(told).chain(live).map(move |event| {
            world.watched.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            Ok(event)
        });
        Ok(Response::new(Box::pin(all)))
    }

    async fn get_ticket(
        &self,
        request: Request<ps::GetTicketRequest>,
    ) -> Result<Response<ps::Ticket>, Status> {
        self.0.check()?;
        let r = request.into_inner();
        if r.verb == "exec" && r.node == "s1" {
            let said = "node s1 does not run; start it first";
            return Err(to_status(Failure::new(Code::FailedPrecondition, "NODE_NOT_RUNNING", said)));
        }
        let endpoint = if r.node == "v1" { "mem:nowhere" } else { "mem:host" };
        Ok(Response::new(ps::Ticket {
            endpoint: endpoint.into(),
            uid: format!("uid of {}", r.node),
            ticket: format!("ticket for {}", r.verb),
            shell: vec!["/bin/sh".into()],
            save: match r.node.as_str() {
                "r1" => vec!["show".into(), "running config".into()],
                "r2" => vec!["fail".into()],
                "r3" => vec!["silent".into()],
                "r4" => vec!["endless".into()],
                "r5" => vec!["cat".into()],
                _ => vec![],
            },
            save_strip: "^Building ".into(),
        }))
    }

    async fn get_capture_ticket(
        &self,
        request: Request<ps::GetCaptureTicketRequest>,
    ) -> Result<Response<ps::CaptureTicket>, Status> {
        self.0.check()?;
        let request = request.into_inner();
        let interfaces = request.targets.iter().enumerate().map(|(at, target)| {
            let name = target.clone();
            ps::CaptureInterface { nic: at as u64 + 1, name }
        });
        Ok(Response::new(ps::CaptureTicket {
            endpoint: "mem:network".into(),
            ticket: format!("ticket for {}", request.lab),
            interfaces: interfaces.collect(),
        }))
    }

    async fn change_nodes(
        &self,
        request: Request<ps::ChangeNodesRequest>,
    ) -> Result<Response<ps::ChangeNodesResponse>, Status> {
        self.0.check()?;
        let mut operation = self.0.operations.lock().unwrap()[DONE].clone();
        operation.lab.clone_from(&request.get_ref().lab);
        self.0.changed_nodes.lock().unwrap().push(request.into_inner());
        Ok(Response::new(ps::ChangeNodesResponse { operation: Some(operation) }))
    }

    async fn move_nodes(
        &self,
        request: Request<ps::MoveNodesRequest>,
    ) -> Result<Response<ps::MoveNodesResponse>, Status> {
        self.0.check()?;
        let mut operation = self.0.operations.lock().unwrap()[DONE].clone();
        operation.lab.clone_from(&request.get_ref().lab);
        if request.get_ref().validate_only {
            operation.id.clear();
        }
        self.0.moved_nodes.lock().unwrap().push(request.into_inner());
        Ok(Response::new(ps::MoveNodesResponse { operation: Some(operation) }))
    }

    async fn change_link(
        &self,
        request: Request<ps::ChangeLinkRequest>,
    ) -> Result<Response<ps::ChangeLinkResponse>, Status> {
        self.0.check()?;
        let mut operation = self.0.operations.lock().unwrap()[DONE].clone();
        operation.lab.clone_from(&request.get_ref().lab);
        if request.get_ref().validate_only {
            operation.id.clear();
        }
        self.0.changed_links.lock().unwrap().push(request.into_inner());
        Ok(Response::new(ps::ChangeLinkResponse { operation: Some(operation) }))
    }

    async fn set_link_enabled(
        &self,
        request: Request<ps::SetLinkEnabledRequest>,
    ) -> Result<Response<ps::LinkFacts>, Status> {
        self.0.check()?;
        let r = request.into_inner();
        let found = self.0.links.iter().find(|l| l.lab == r.lab && l.id == r.link);
        Ok(Response::new(found.ok_or_else(|| missing("link", &r.link))?.clone()))
    }

    async fn check_link(
        &self,
        request: Request<ps::CheckLinkRequest>,
    ) -> Result<Response<ps::CheckLinkResponse>, Status> {
        self.0.check()?;
        let r = request.into_inner();
        let found = self.0.links.iter().find(|l| l.lab == r.lab && l.id == r.link);
        found.ok_or_else(|| missing("link", &r.link))?;
        let way = |verdict: p::PathVerdict| p::PathCheck {
            verdict: verdict.into(),
            sent: r.frame_count,
            stops: vec![p::PathStop {
                place: p::PathPlace::SendingInterface.into(),
                seen: Some(0),
                ..p::PathStop::default()
            }],
            ..p::PathCheck::default()
        };
        Ok(Response::new(ps::CheckLinkResponse {
            a_to_b: Some(way(p::PathVerdict::Passes)),
            b_to_a: Some(way(p::PathVerdict::Stops)),
        }))
    }
}
