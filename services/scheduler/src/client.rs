//! Calls to the hosts and to the image registry, in the model's words. Messages stop here.
//!
//! Every call has a bound, so that a peer that hangs is a peer that does not answer.

mod compute;
mod network;
mod registry;

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use netloom_model::failure::{Code, Failure};
use netloom_model::id::HostId;
use netloom_proto::compute::v1::compute_service_client::ComputeServiceClient;
use netloom_proto::convert::ConvertError;
use netloom_proto::network::v1::network_service_client::NetworkServiceClient;
use netloom_service::server::MAX_MESSAGE;
use netloom_service::status::{from_status, is_cut};
use netloom_service::{Channel, Connector, Endpoint};
use tonic::Status;

pub use self::compute::{CheckResult, CheckedImage, Clocks, ComputeEvent, ImageFacts, Refused};
pub use self::network::{NetworkEvent, NetworkObjects};
pub use self::registry::{ImageHost, ImageUse, RegistryClient, Resolved, StoredBlob, Verdict};
use crate::config::HostConfig;
use crate::error::{Error, Result};

/// The compute service, in messages and keys.
pub const COMPUTE: &str = "compute";
/// The network service, in messages and keys.
pub const NETWORK: &str = "network";

/// Most bytes of one batch.
const BATCH: usize = 3 << 20;
/// Bound of a call that only takes note of something.
const NOTE: Duration = Duration::from_secs(10);
/// Bound of a call that returns when something is gone.
const REMOVAL: Duration = Duration::from_secs(300);

/// Splits items into batches by their size.
fn batches<T>(items: impl IntoIterator<Item = T>, size: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
    let (mut all, mut batch, mut bytes) = (Vec::new(), Vec::new(), 0);
    for item in items {
        let more = size(&item);
        if bytes + more > BATCH && !batch.is_empty() {
            all.push(std::mem::take(&mut batch));
            bytes = 0;
        }
        bytes += more;
        batch.push(item);
    }
    if !batch.is_empty() {
        all.push(batch);
    }
    all
}

async fn bounded<T>(
    bound: Duration,
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, Failure> {
    match tokio::time::timeout(bound, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(failure(&status)),
        Err(_) => {
            Err(Failure::new(Code::DeadlineExceeded, "TIMED_OUT", format!("no answer within {bound:?}")))
        }
    }
}

/// What a status says; one that was cut off does not answer.
fn failure(status: &Status) -> Failure {
    if is_cut(status) {
        let message = format!("it ended in the middle of its answer: {}", status.message());
        return Failure::new(Code::Unavailable, "SERVICE_UNREACHABLE", message);
    }
    from_status(status)
}

fn unreadable(e: ConvertError) -> Failure {
    Failure::internal(format!("its answer is not understood: {e}"))
}

/// A host's services.
#[derive(Clone)]
pub struct HostClient {
    /// The host.
    pub id: HostId,
    /// Its uid.
    pub uid: String,
    /// Where its compute service is.
    pub endpoint: Endpoint,
    /// Where its network service is.
    pub network_endpoint: Endpoint,
    compute: ComputeServiceClient<Channel>,
    network: NetworkServiceClient<Channel>,
    term: u64,
    /// What was heard of it before what it is told was read: see [`HostClient::deciding`].
    beat: String,
    /// Number of the decision; 0 for what decides nothing.
    decision: u64,
}

/// Counts the decisions of this program; a leader's term is one program's.
static DECISIONS: AtomicU64 = AtomicU64::new(1);

impl HostClient {
    /// Channels to a host; they connect when first used. Every call carries the term.
    pub fn new(config: &HostConfig, uid: &str, connector: &Connector, term: u64) -> HostClient {
        let channel = connector.channel(&config.compute);
        // A host that joined answers for both services at one place: one connection does, and each takes some 60 kB.
        let to_network = match config.network == config.compute {
            true => channel.clone(),
            false => connector.channel(&config.network),
        };
        let compute = ComputeServiceClient::new(channel);
        let network = NetworkServiceClient::new(to_network);
        HostClient {
            id: config.id.clone(),
            uid: uid.to_owned(),
            endpoint: config.compute.clone(),
            network_endpoint: config.network.clone(),
            compute: compute.max_decoding_message_size(MAX_MESSAGE),
            network: network.max_decoding_message_size(MAX_MESSAGE),
            term,
            beat: String::new(),
            decision: 0,
        }
    }

    /// The same, to tell what is read from now on, when so much was heard of the host. It refuses what was read before it lost leases, and what was decided before what it was told since:
    /// a call that was cut off may come to it after the next.
    pub fn deciding(&self, beat: String) -> HostClient {
        HostClient { beat, decision: DECISIONS.fetch_add(1, Ordering::Relaxed), ..self.clone() }
    }

    fn error(&self, service: &'static str) -> impl Fn(Failure) -> Error + use<> {
        let host = self.id.to_string();
        move |failure| Error::Host { service, host: host.clone(), failure: Box::new(failure) }
    }

    /// Says what a host could not remove.
    pub fn could_not_remove(&self, service: &'static str, what: &str, why: &str) -> Error {
        let message = format!("{what} could not be removed: {why}");
        self.error(service)(Failure::new(Code::Unavailable, "REMOVAL_FAILED", message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_stay_under_their_size_and_lose_nothing() {
        let items: Vec<usize> = vec![BATCH / 2, BATCH / 2, 1, BATCH * 2, 5, 6];
        let all = batches(items.clone(), |n| *n);
        assert_eq!(all.iter().map(Vec::len).collect::<Vec<_>>(), [2, 1, 1, 2]);
        assert_eq!(all.concat(), items);
        assert!(all.iter().all(|b| b.len() == 1 || b.iter().sum::<usize>() <= BATCH));
    }
}
