//! An OTLP collector in memory: what it was sent, span by span.

use std::sync::{Arc, Mutex};

use netloom_service::Endpoint;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use tokio::net::TcpListener;
use tonic::{Request, Response, Status};

/// A span, and the service that sent it.
#[derive(Debug, Clone)]
pub struct Sent {
    pub service: String,
    pub span: Span,
}

impl Sent {
    /// An attribute as text.
    pub fn attribute(&self, key: &str) -> Option<String> {
        let found = self.span.attributes.iter().find(|a| a.key == key)?;
        match found.value.as_ref()?.value.as_ref()? {
            Value::StringValue(text) => Some(text.clone()),
            Value::IntValue(n) => Some(n.to_string()),
            other => Some(format!("{other:?}")),
        }
    }
}

/// See the module.
#[derive(Clone, Default)]
pub struct Collector(Arc<Mutex<Vec<Sent>>>);

impl Collector {
    /// Listens on a port of its own.
    pub async fn start() -> (Collector, Endpoint) {
        let collector = Collector::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let server =
            tonic::transport::Server::builder().add_service(TraceServiceServer::new(collector.clone()));
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        tokio::spawn(async move { server.serve_with_incoming(incoming).await.unwrap() });
        (collector, endpoint)
    }

    /// What came so far.
    pub fn spans(&self) -> Vec<Sent> {
        self.0.lock().unwrap().clone()
    }
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for of_resource in request.into_inner().resource_spans {
            let attributes = of_resource.resource.map(|r| r.attributes).unwrap_or_default();
            let service = attributes.into_iter().find(|a| a.key == "service.name");
            let service = match service.and_then(|s| s.value).and_then(|v| v.value) {
                Some(Value::StringValue(name)) => name,
                other => panic!("a resource without a name: {other:?}"),
            };
            let spans = of_resource.scope_spans.into_iter().flat_map(|s| s.spans);
            let sent = spans.map(|span| Sent { service: service.clone(), span });
            self.0.lock().unwrap().extend(sent);
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}
