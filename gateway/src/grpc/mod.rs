//! The public services. A handler reads the request's names and page, makes the calls behind, and hands the answer to the view: it decides nothing.

mod host;
mod image;
mod kind;
pub(crate) mod lab;
mod link;
mod node;
mod operation;
mod quota;
mod snapshot;

use std::sync::Arc;

use netloom_api::v1;
use netloom_model::kind::Catalogue;
use netloom_service::Shutdown;
use tonic::service::Routes;

use crate::client::Peers;

/// Most bytes of a request to LabService: a lab's files come along, as bytes over gRPC and a third larger in JSON.
pub const MAX_LAB_REQUEST: usize = 96 << 20;
/// Most bytes of any other request.
pub const MAX_REQUEST: usize = 4 << 20;

/// What handlers work with.
#[derive(Clone)]
pub struct Api {
    /// The services behind.
    pub peers: Peers,
    /// The kinds there are.
    pub catalogue: Arc<Catalogue>,
    /// Ends streams when the gateway ends.
    pub shutdown: Shutdown,
}

impl Api {
    /// All public services.
    pub fn routes(self) -> Routes {
        use v1::{
            host_service_server::HostServiceServer, image_service_server::ImageServiceServer,
            kind_service_server::KindServiceServer, lab_service_server::LabServiceServer,
            link_service_server::LinkServiceServer, node_service_server::NodeServiceServer,
            operation_service_server::OperationServiceServer, quota_service_server::QuotaServiceServer,
            snapshot_service_server::SnapshotServiceServer,
        };
        Routes::new(LabServiceServer::new(self.clone()).max_decoding_message_size(MAX_LAB_REQUEST))
            .add_service(NodeServiceServer::new(self.clone()).max_decoding_message_size(MAX_REQUEST))
            .add_service(LinkServiceServer::new(self.clone()).max_decoding_message_size(MAX_REQUEST))
            .add_service(HostServiceServer::new(self.clone()).max_decoding_message_size(MAX_REQUEST))
            .add_service(ImageServiceServer::new(self.clone()).max_decoding_message_size(MAX_REQUEST))
            .add_service(KindServiceServer::new(self.clone()).max_decoding_message_size(MAX_REQUEST))
            .add_service(QuotaServiceServer::new(self.clone()).max_decoding_message_size(MAX_REQUEST))
            .add_service(SnapshotServiceServer::new(self.clone()).max_decoding_message_size(MAX_REQUEST))
            .add_service(OperationServiceServer::new(self).max_decoding_message_size(MAX_REQUEST))
    }
}
