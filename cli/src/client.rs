//! The way to the server: found by the rules that `--help` states, tried before the first call so that "nothing answers" is told in words.
//!
//! Each command is one trace: every call it makes carries the same W3C trace id, which the server's logs then show down to the Docker and OVSDB calls.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use netloom_api::v1 as api;
use netloom_api::v1::host_service_client::HostServiceClient;
use netloom_api::v1::image_service_client::ImageServiceClient;
use netloom_api::v1::kind_service_client::KindServiceClient;
use netloom_api::v1::lab_service_client::LabServiceClient;
use netloom_api::v1::link_service_client::LinkServiceClient;
use netloom_api::v1::node_service_client::NodeServiceClient;
use netloom_api::v1::operation_service_client::OperationServiceClient;
use netloom_api::v1::quota_service_client::QuotaServiceClient;
use netloom_api::v1::snapshot_service_client::SnapshotServiceClient;
use netloom_service::settings::{DEFAULT_DATA_DIR, DEFAULT_RUN_DIR};
use netloom_service::{Channel, Connector, Endpoint, Replicas, Whom};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::{Request, Status};
use uuid::Uuid;

use crate::args::Global;
use crate::error::Error;

/// Where the server listens on TCP when nothing else is said.
const DEFAULT_ADDRESS: &str = "127.0.0.1:7600";
/// What to do about a socket that may not be opened.
const JOIN_GROUP: &str = "You may not open the socket: join its group (sudo usermod -aG netloom $USER, then log in again) or use sudo.";
/// Largest answer that is read: a lab of 5,000 nodes fits many times.
const MAX_ANSWER: usize = 64 << 20;
/// Objects asked for at once.
const PAGE: i32 = 1_000;

/// A channel whose calls carry the command's trace.
pub type Traced = InterceptedService<Channel, Trace>;

/// The trace that a command's calls belong to (<https://www.w3.org/TR/trace-context/>).
#[derive(Debug, Clone)]
pub struct Trace {
    id: String,
    header: MetadataValue<Ascii>,
}

impl Trace {
    /// The trace that the environment names in `TRACEPARENT`, so that a pipeline's trace goes on; else a new one, with random ids.
    pub fn new() -> Trace {
        let given = std::env::var("TRACEPARENT").unwrap_or_default();
        let id = given.split('-').nth(1).filter(|id| is_trace_id(id)).map(str::to_owned);
        let id = id.unwrap_or_else(|| Uuid::new_v4().simple().to_string());
        let span = &Uuid::new_v4().simple().to_string()[..16];
        let header = format!("00-{id}-{span}-01").parse().expect("hexadecimal digits are a header's text");
        Trace { id, header }
    }

    /// The trace id, in 32 hexadecimal digits.
    pub fn id(&self) -> &str {
        &self.id
    }
}

fn is_trace_id(id: &str) -> bool {
    id.len() == 32
        && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        && id.bytes().any(|b| b != b'0')
}

impl Interceptor for Trace {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("traceparent", self.header.clone());
        Ok(request)
    }
}

/// A server that answered.
#[derive(Clone)]
pub struct Client {
    channel: Traced,
    endpoint: Replicas,
}

macro_rules! services {
    ($($(#[$doc:meta])* $name:ident: $client:ident,)+) => {
        $($(#[$doc])* pub fn $name(&self) -> $client<Traced> {
            $client::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER)
        })+
    };
}

impl Client {
    /// Finds the server and tries whether it answers.
    pub async fn connect(global: &Global, trace: &Trace) -> Result<Client, Error> {
        let (endpoint, token) = find(global).await?;
        if global.verbose {
            eprintln!("server: {endpoint}\ntrace: {}", trace.id());
        }
        let channel = Connector::with_token(token.as_deref()).channel_to(&endpoint, Whom::Any);
        Ok(Client { channel: InterceptedService::new(channel, trace.clone()), endpoint })
    }

    /// Where the server is, or all that stand for it.
    pub fn endpoint(&self) -> &Replicas {
        &self.endpoint
    }

    services! {
        /// Labs.
        labs: LabServiceClient,
        /// Nodes.
        nodes: NodeServiceClient,
        /// Links.
        links: LinkServiceClient,
        /// Hosts.
        hosts: HostServiceClient,
        /// Images.
        images: ImageServiceClient,
        /// Kinds.
        kinds: KindServiceClient,
        /// Operations.
        operations: OperationServiceClient,
        /// Quotas of projects.
        quotas: QuotaServiceClient,
        /// Snapshots of nodes.
        snapshots: SnapshotServiceClient,
    }

    /// One lab.
    pub async fn lab(&self, lab: &str) -> Result<api::Lab, Error> {
        let request = api::GetLabRequest { name: format!("labs/{lab}") };
        Ok(self.labs().get_lab(request).await?.into_inner())
    }

    /// All labs.
    pub async fn all_labs(&self) -> Result<Vec<api::Lab>, Error> {
        pages(|page_token| async move {
            let request = api::ListLabsRequest { page_size: PAGE, page_token };
            self.labs().list_labs(request).await.map(|r| r.into_inner()).map(|r| (r.labs, r.next_page_token))
        })
        .await
    }

    /// All nodes of a lab, by its resource name.
    pub async fn all_nodes(&self, parent: &str) -> Result<Vec<api::Node>, Error> {
        pages(|page_token| async move {
            let request = api::ListNodesRequest { parent: parent.to_owned(), page_size: PAGE, page_token };
            self.nodes()
                .list_nodes(request)
                .await
                .map(|r| r.into_inner())
                .map(|r| (r.nodes, r.next_page_token))
        })
        .await
    }

    /// All links of a lab, by its resource name.
    pub async fn all_links(&self, parent: &str) -> Result<Vec<api::Link>, Error> {
        pages(|page_token| async move {
            let request = api::ListLinksRequest { parent: parent.to_owned(), page_size: PAGE, page_token };
            self.links()
                .list_links(request)
                .await
                .map(|r| r.into_inner())
                .map(|r| (r.links, r.next_page_token))
        })
        .await
    }

    /// All snapshots of a node, by its resource name.
    pub async fn all_snapshots(&self, parent: &str) -> Result<Vec<api::Snapshot>, Error> {
        pages(|page_token| async move {
            let request =
                api::ListSnapshotsRequest { parent: parent.to_owned(), page_size: PAGE, page_token };
            self.snapshots()
                .list_snapshots(request)
                .await
                .map(|r| r.into_inner())
                .map(|r| (r.snapshots, r.next_page_token))
        })
        .await
    }

    /// All quotas.
    pub async fn all_quotas(&self) -> Result<Vec<api::Quota>, Error> {
        pages(|page_token| async move {
            let request = api::ListQuotasRequest { page_size: PAGE, page_token };
            let found = self.quotas().list_quotas(request).await.map(|r| r.into_inner());
            found.map(|r| (r.quotas, r.next_page_token))
        })
        .await
    }

    /// All hosts.
    pub async fn all_hosts(&self) -> Result<Vec<api::Host>, Error> {
        pages(|page_token| async move {
            let request = api::ListHostsRequest { page_size: PAGE, page_token };
            self.hosts()
                .list_hosts(request)
                .await
                .map(|r| r.into_inner())
                .map(|r| (r.hosts, r.next_page_token))
        })
        .await
    }

    /// All images.
    pub async fn all_images(&self) -> Result<Vec<api::Image>, Error> {
        pages(|page_token| async move {
            let request = api::ListImagesRequest { page_size: PAGE, page_token };
            self.images()
                .list_images(request)
                .await
                .map(|r| r.into_inner())
                .map(|r| (r.images, r.next_page_token))
        })
        .await
    }

    /// All kinds.
    pub async fn all_kinds(&self) -> Result<Vec<api::Kind>, Error> {
        pages(|page_token| async move {
            let request = api::ListKindsRequest { page_size: PAGE, page_token };
            self.kinds()
                .list_kinds(request)
                .await
                .map(|r| r.into_inner())
                .map(|r| (r.kinds, r.next_page_token))
        })
        .await
    }
}

/// Everything of a list, page by page.
async fn pages<T, F, Fut>(mut fetch: F) -> Result<Vec<T>, Error>
where
    F: FnMut(String) -> Fut,
    Fut: Future<Output = Result<(Vec<T>, String), Status>>,
{
    let (mut all, mut token) = (Vec::new(), String::new());
    loop {
        let (page, next) = fetch(token).await?;
        all.extend(page);
        if next.is_empty() {
            return Ok(all);
        }
        token = next;
    }
}

/// The server's endpoints, of which one answered, and the token to show there.
async fn find(global: &Global) -> Result<(Replicas, Option<String>), Error> {
    if let Some(servers) = &global.endpoint {
        any_answers(servers).await?;
        let is_tcp = servers.all().iter().any(|e| matches!(e, Endpoint::Tcp(_)));
        let token = is_tcp.then(|| read_token(global).map_err(Error::Unreachable)).transpose()?;
        return Ok((servers.clone(), token));
    }
    let socket = Endpoint::Unix(Path::new(DEFAULT_RUN_DIR).join("api.sock"));
    let Err(no_socket) = answers(&socket).await else { return Ok((socket.into(), None)) };
    let tcp = Endpoint::Tcp(DEFAULT_ADDRESS.to_owned());
    match answers(&tcp).await {
        // Who may not open the socket mostly may not read the token either: both are told.
        Ok(()) => match read_token(global) {
            Ok(token) => Ok((tcp.into(), Some(token))),
            Err(why) => Err(Error::Unreachable(format!(
                "{why}.\nThe socket {socket} could not be opened either: {no_socket}.{}",
                if no_socket.kind() == std::io::ErrorKind::PermissionDenied {
                    format!("\n{JOIN_GROUP}")
                } else {
                    String::new()
                }
            ))),
        },
        Err(no_tcp) => Err(unreachable(&[(socket, no_socket), (tcp, no_tcp)])),
    }
}

/// Tries to connect to all at once, until one answers.
async fn any_answers(servers: &Replicas) -> Result<(), Error> {
    let ask = |e: &Endpoint| {
        let endpoint = e.clone();
        async move { answers(&endpoint).await.map_err(|why| (endpoint, why)) }
    };
    let mut asked: FuturesUnordered<_> = servers.all().iter().map(ask).collect();
    let mut failed = Vec::new();
    while let Some(answer) = asked.next().await {
        match answer {
            Ok(()) => return Ok(()),
            Err(why) => failed.push(why),
        }
    }
    Err(unreachable(&failed))
}

/// Tries to connect.
async fn answers(endpoint: &Endpoint) -> std::io::Result<()> {
    let attempt = async {
        match endpoint {
            Endpoint::Unix(path) => tokio::net::UnixStream::connect(path).await.map(drop),
            Endpoint::Tcp(address) | Endpoint::Tls { address, .. } => {
                tokio::net::TcpStream::connect(address.as_str()).await.map(drop)
            }
            Endpoint::Memory(_) => Ok(()),
        }
    };
    tokio::time::timeout(Duration::from_secs(5), attempt)
        .await
        .unwrap_or_else(|_| Err(std::io::Error::new(std::io::ErrorKind::TimedOut, "no answer within 5 s")))
}

fn unreachable(tried: &[(Endpoint, std::io::Error)]) -> Error {
    use std::io::ErrorKind::PermissionDenied;
    let list: Vec<String> = tried.iter().map(|(e, why)| format!("\n  {e}: {why}")).collect();
    let remedy = if tried.iter().any(|(_, why)| why.kind() == PermissionDenied) {
        JOIN_GROUP
    } else {
        "Start the server (sudo netloomd, or sudo systemctl start netloomd), or say where it is with --endpoint."
    };
    Error::Unreachable(format!("no netloom server answers{}\n{remedy}", list.concat()))
}

/// The token, or why there is none.
fn read_token(global: &Global) -> Result<String, String> {
    let path =
        global.token_file.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_DATA_DIR).join("admin.token"));
    let text = std::fs::read_to_string(&path).map_err(|e| {
        format!(
            "the token for the server on TCP cannot be read from {}: {e}; name the file with --token-file, or use sudo",
            path.display()
        )
    })?;
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_as_the_standard_writes_it() {
        let trace = Trace::new();
        let header = trace.header.to_str().unwrap();
        let parts: Vec<&str> = header.split('-').collect();
        assert_eq!((parts[0], parts[1], parts[3]), ("00", trace.id(), "01"));
        assert_eq!((parts[1].len(), parts[2].len()), (32, 16));
        assert_ne!(Trace::new().id(), trace.id());
    }

    #[tokio::test]
    async fn pages_are_read_to_the_end() {
        let all = pages(|token| async move {
            Ok(match token.as_str() {
                "" => (vec![1, 2], "a".to_owned()),
                "a" => (vec![], "b".to_owned()),
                "b" => (vec![3], String::new()),
                other => return Err(Status::invalid_argument(other)),
            })
        });
        assert_eq!(all.await.unwrap(), [1, 2, 3]);
    }
}
