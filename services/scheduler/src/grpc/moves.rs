//! Nodes that move to other hosts: what requests say.

use netloom_proto::scheduler::v1 as ps;
use netloom_proto::scheduler::v1::scheduler_service_server::SchedulerService as _;
use tonic::{Request, Status};

use super::changes::lab_id;
use super::{Grpc, encode, host_id, request_id, status};
use crate::apply::{Move, What};
use crate::drain::DrainHost;
use crate::rows::OperationRow;

impl Grpc {
    pub(super) async fn moved(&self, request: ps::MoveNodesRequest) -> Result<ps::OperationFacts, Status> {
        let to = match request.host.as_str() {
            "" => None,
            host => Some(host_id(host)?),
        };
        let asked = Move {
            lab: lab_id(&request.lab)?,
            what: match request.nodes.is_empty() {
                true => What::Rebalance,
                false => What::Nodes(request.nodes, to),
            },
            lose_disks: request.lose_disks,
            force: request.force,
            asked: true,
            validate_only: request.validate_only,
            request_id: request_id(&request.request_id)?,
        };
        let validate_only = asked.validate_only;
        let operation = self.core.move_nodes(asked).await.map_err(status)?;
        Ok(self.told(operation, validate_only))
    }

    pub(super) async fn drained(
        &self,
        request: ps::DrainHostRequest,
    ) -> Result<ps::DrainHostResponse, Status> {
        let ps::DrainHostRequest { host, validate_only, lose_disks } = request;
        let asked = DrainHost { host: host_id(&host)?, lose_disks, validate_only };
        let drained = self.core.drain(asked).await.map_err(status)?;
        let host = self.get_host(Request::new(ps::GetHostRequest { host: drained.host.to_string() })).await?;
        Ok(ps::DrainHostResponse {
            host: Some(host.into_inner()),
            moves: drained.moves.into_iter().map(|o| self.told(o, validate_only)).collect(),
            busy_labs: drained.busy.iter().map(ToString::to_string).collect(),
        })
    }

    fn told(&self, operation: OperationRow, validate_only: bool) -> ps::OperationFacts {
        let mut facts = encode::operation(&self.core, operation);
        if validate_only {
            facts.id = String::new();
        }
        facts
    }
}
