//! Changes of nodes and links, and leave to capture at interfaces: what requests say.

use netloom_model::failure::{Code, Failure};
use netloom_model::id::{HostId, LabId};
use netloom_model::spec::LinkSpec;
use netloom_proto::scheduler::v1 as ps;
use netloom_service::status::to_status;
use netloom_service::ticket;
use tonic::Status;

use super::{Grpc, not_found, request_id, status};
use crate::apply::{Apply, Change, ChangeNodes, Existence, LinkChange, LinkEdit, lab_not_found};
use crate::plan::NodeChange;
use crate::rows::{LabRows, LinkRow, NicRow, OperationRow};
use crate::store::LinkView;

/// Most interfaces that are captured at once.
const CAPTURED: usize = 64;

pub(super) fn invalid(field: &str, what: impl Into<String>) -> Status {
    let what = what.into();
    let failure = Failure::new(Code::InvalidArgument, "INVALID_REQUEST", format!("{field} {what}"));
    to_status(failure.violation(field, what))
}

pub(super) fn lab_id(text: &str) -> Result<LabId, Status> {
    text.parse().map_err(|_| to_status(lab_not_found(text)))
}

impl Grpc {
    pub(super) async fn nodes_changed(
        &self,
        request: ps::ChangeNodesRequest,
    ) -> Result<OperationRow, Status> {
        let change = match request.change() {
            ps::NodeChange::Start => NodeChange::Start,
            ps::NodeChange::Stop => NodeChange::Stop,
            ps::NodeChange::Restart => NodeChange::Restart,
            ps::NodeChange::Wipe => NodeChange::Wipe,
            ps::NodeChange::Restore if request.snapshot.is_empty() => {
                return Err(invalid("snapshot", "is not set"));
            }
            ps::NodeChange::Restore => NodeChange::Restore(request.snapshot),
            ps::NodeChange::Unspecified => return Err(invalid("change", "is not set")),
        };
        let change = ChangeNodes {
            lab: lab_id(&request.lab)?,
            nodes: request.nodes,
            change,
            request_id: request_id(&request.request_id)?,
        };
        self.core.change_nodes(change).await.map_err(status)
    }

    pub(super) async fn link_changed(&self, request: ps::ChangeLinkRequest) -> Result<OperationRow, Status> {
        let change = match request.change() {
            ps::LinkChange::Create => LinkChange::Create,
            ps::LinkChange::Update => LinkChange::Update,
            ps::LinkChange::Delete => LinkChange::Delete,
            ps::LinkChange::Unspecified => return Err(invalid("change", "is not set")),
        };
        let link = match (request.spec, change) {
            (Some(link), _) => LinkSpec::from(link),
            (None, LinkChange::Delete) => LinkSpec::default(),
            (None, _) => return Err(invalid("spec", "is not set")),
        };
        let edit = LinkEdit { change, id: request.link, link: link.sorted(), version: request.etag };
        let apply = Apply {
            lab: lab_id(&request.lab)?,
            change: Change::Link(Box::new(edit)),
            validate_only: request.validate_only,
            generation: 0,
            request_id: request_id(&request.request_id)?,
            existence: Existence::Must,
            left_out: Vec::new(),
        };
        self.core.apply(apply).await.map_err(status)
    }

    pub(super) async fn link_plugged(&self, request: ps::SetLinkEnabledRequest) -> Result<LinkView, Status> {
        let lab = lab_id(&request.lab)?;
        self.core.set_link_enabled(&lab, &request.link, request.enabled).await.map_err(status)
    }

    /// A ticket for the NICs that are meant. It is for one host, since a ticket is checked there.
    pub(super) fn capture(&self, request: &ps::GetCaptureTicketRequest) -> Result<ps::CaptureTicket, Status> {
        let rows = self.lab(&request.lab)?;
        if request.targets.is_empty() {
            return Err(invalid("targets", "is empty: name a link, a node or node:interface"));
        }
        let mut nics: Vec<(&NicRow, String)> = Vec::new();
        for target in &request.targets {
            for nic in targets(&rows, target)? {
                let node = rows.nodes.get(&nic.node_uid).map(|n| n.id.to_string()).unwrap_or_default();
                if !nics.iter().any(|(other, _)| other.wire_id == nic.wire_id) {
                    nics.push((nic, format!("{node}:{}", nic.interface)));
                }
            }
        }
        if nics.len() > CAPTURED {
            let what = format!("mean {} interfaces; at most {CAPTURED} are captured at once", nics.len());
            return Err(invalid("targets", what));
        }
        let unplaced = nics.iter().find(|(nic, _)| nic.host.is_none()).map(|(_, name)| name);
        if let Some(name) = unplaced {
            let message = format!("{name} is on no host yet: its node has not been placed");
            let failure = Failure::new(Code::FailedPrecondition, "NODE_NOT_RUNNING", message);
            return Err(to_status(failure.with("interface", name.clone())));
        }
        let mut hosts: Vec<&HostId> = nics.iter().filter_map(|(nic, _)| nic.host.as_ref()).collect();
        hosts.sort();
        hosts.dedup();
        if let [first, second, ..] = hosts[..] {
            return Err(invalid(
                "targets",
                format!("are on hosts {first} and {second}: capture on one host at a time"),
            ));
        }
        let client = hosts.first().and_then(|host| self.core.host(host));
        let client = client.ok_or_else(|| not_found("host", "HOST_NOT_FOUND", &request.lab))?;
        let uid = ticket::capture_uid(nics.iter().map(|(nic, _)| nic.wire_id.get()));
        let interface =
            |(nic, name): (&NicRow, String)| ps::CaptureInterface { nic: nic.wire_id.get(), name };
        Ok(ps::CaptureTicket {
            endpoint: client.network_endpoint.to_string(),
            ticket: self.core.ticket(&client.id, &uid, "capture"),
            interfaces: nics.into_iter().map(interface).collect(),
        })
    }
}

/// The NICs that a target means: `node:interface`, a link's id (its end `a`, or the other where that is no node's), or a node's id for all its interfaces.
fn targets<'r>(rows: &'r LabRows, target: &str) -> Result<Vec<&'r NicRow>, Status> {
    if let Some(link) = rows.link(target) {
        return match end_of(rows, link) {
            Some(nic) => Ok(vec![nic]),
            None => Err(invalid(
                "targets",
                format!("hold link {target}, of which no end is an interface of a node"),
            )),
        };
    }
    if target.contains("--") {
        return Err(not_found("link", "LINK_NOT_FOUND", target));
    }
    let (node, interface) = match target.split_once(':') {
        Some((node, interface)) => (node, Some(interface)),
        None => (target, None),
    };
    let row = rows.node(&node.to_ascii_lowercase());
    let row = row.ok_or_else(|| not_found("node", "NODE_NOT_FOUND", node))?;
    let nics = rows.nics_of(row.uid);
    let names = nics.iter().map(|n| n.interface.as_str()).collect::<Vec<_>>().join(", ");
    match interface {
        None if nics.is_empty() => {
            Err(invalid("targets", format!("hold node {node}, which has no interfaces that can be captured")))
        }
        None => Ok(nics),
        Some(interface) => {
            let of_name = |n: &&NicRow| n.interface == interface || crate::plan::guest_name(n) == interface;
            match nics.iter().find(|n| of_name(n)) {
                Some(nic) => Ok(vec![nic]),
                None => {
                    let has = if names.is_empty() { "none".to_owned() } else { names };
                    Err(invalid(
                        "targets",
                        format!("hold {target}: node {node} has no such interface; it has {has}"),
                    ))
                }
            }
        }
    }
}

fn end_of<'r>(rows: &'r LabRows, link: &LinkRow) -> Option<&'r NicRow> {
    let of_end = |end: &netloom_model::spec::Endpoint| {
        rows.nics.values().find(|n| {
            !n.absent && n.link_uid == Some(link.uid) && {
                let node = rows.nodes.get(&n.node_uid);
                node.is_some_and(|node| node.spec.id == end.node) && n.interface == end.interface
            }
        })
    };
    [&link.spec.a, &link.spec.b].into_iter().find_map(of_end)
}
