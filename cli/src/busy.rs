//! A change of a lab in which another operation is under way: what that is and how far, and waiting for its end where that was asked for.

use std::future::Future;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use netloom_api::v1 as api;
use netloom_model::Failure;
use netloom_service::status::from_status;
use tokio::time::Instant;
use tonic::Status;

use crate::client::Client;
use crate::error::Error;
use crate::output::progress::count;
use crate::output::words::last;

/// Pause before a lab that was busy without a name for it is asked again.
const AGAIN: Duration = Duration::from_millis(500);

/// How an operation that is in the way is met.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Whether it is waited for.
    pub wait: bool,
    /// How long at most.
    pub timeout: Duration,
}

/// Makes a call; where another operation works on the lab, again after its end, or never.
pub async fn call<T, F, Fut>(client: &Client, patience: Patience, call: F) -> Result<T, Error>
where
    F: Fn() -> Fut,
    Fut: Future<Output = Result<T, Status>>,
{
    let end = Instant::now() + patience.timeout;
    let mut told = String::new();
    loop {
        let refused = match call().await {
            Ok(answer) => return Ok(answer),
            Err(status) => from_status(&status),
        };
        if refused.reason != "OPERATION_ACTIVE" {
            return Err(refused.into());
        }
        let active = active(client, &refused).await;
        if !patience.wait {
            return Err(in_words(refused, active.as_ref()).into());
        }
        if Instant::now() >= end {
            let failure = in_words(refused, active.as_ref());
            return Err(Error::Failed(format!("waited {:.0?}, and {}", patience.timeout, failure.message)));
        }
        let Some(active) = active else {
            tokio::time::sleep(AGAIN).await;
            continue;
        };
        if told != active.name {
            eprintln!("note: lab {}; waits for its end", words(&active));
            told.clone_from(&active.name);
        }
        // It may be cut off, and may last longer than there is time: the lab is asked again either way.
        let mut operations = client.operations();
        let request = api::WaitOperationRequest { name: active.name, timeout: None };
        let waiting = operations.wait_operation(request);
        if let Ok(Err(_)) = tokio::time::timeout_at(end, waiting).await {
            tokio::time::sleep(AGAIN).await;
        }
    }
}

async fn active(client: &Client, refused: &Failure) -> Option<api::Operation> {
    let name = format!("operations/{}", last(refused.metadata.get("operation")?));
    let found = client.operations().get_operation(api::GetOperationRequest { name }).await;
    found.ok().map(|answer| answer.into_inner()).filter(|operation| !operation.done)
}

fn in_words(refused: Failure, active: Option<&api::Operation>) -> Failure {
    match active {
        Some(active) => {
            Failure { message: format!("lab {}; --wait waits for its end", words(active)), ..refused }
        }
        None => refused,
    }
}

/// `ospf is being deployed since 12s: 3 of 5 nodes, 0 of 4 links are done`.
fn words(active: &api::Operation) -> String {
    let what = match active.kind() {
        api::OperationKind::Deploy => "is being deployed",
        api::OperationKind::Destroy => "is being removed",
        api::OperationKind::Start => "has nodes that are being started",
        api::OperationKind::Stop => "has nodes that are being stopped",
        api::OperationKind::Restart => "has nodes that are being restarted",
        api::OperationKind::Wipe => "has nodes that are being wiped",
        api::OperationKind::Restore => "has a node that is being restored",
        api::OperationKind::Move => "has nodes that are being moved",
        _ => "is being changed",
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let since = active.create_time.as_ref().and_then(|t| now.checked_sub(u64::try_from(t.seconds).ok()?));
    let since = since.map(|seconds| format!(" since {seconds}s")).unwrap_or_default();
    let of = |object: &str| match count(active, object) {
        (_, 0) => None,
        (done, all) => Some(format!("{done} of {all} {object}s")),
    };
    let far: Vec<String> = ["node", "link"].into_iter().filter_map(of).collect();
    let far = if far.is_empty() { String::new() } else { format!(": {} are done", far.join(", ")) };
    format!("{} {what}{since}{far}", last(&active.lab_name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_the_way_is_told_with_how_far_it_is() {
        let progress = |object: &str, state: &str| api::Progress {
            object: object.into(),
            state: state.into(),
            ..api::Progress::default()
        };
        let active = api::Operation {
            lab_name: "labs/ospf".into(),
            kind: api::OperationKind::Deploy.into(),
            progress: vec![
                progress("node", "READY"),
                progress("node", "STARTING"),
                progress("link", "PENDING"),
            ],
            ..api::Operation::default()
        };
        assert_eq!(words(&active), "ospf is being deployed: 1 of 2 nodes, 0 of 1 links are done");
    }
}
