//! What Ctrl-C does to an operation that is waited for. On a terminal the user is asked; a second one detaches at once.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use netloom_api::v1 as api;
use netloom_service::status::from_status;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::args::Format;
use crate::client::Client;
use crate::error::Error;
use crate::follow::{self, View, to_its_end};
use crate::output::words::{lab_state, last};

/// How often a lab that goes back to what it was is looked at.
const LOOK: Duration = Duration::from_millis(250);

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// The operation goes on in the server.
    Detach,
    /// It is cancelled.
    Cancel,
    /// As the user says.
    Ask,
}

impl Policy {
    /// Asks where there is somebody to ask, and standard output is theirs.
    pub fn ask_if_possible(format: Format) -> Policy {
        let can_ask =
            format == Format::Table && std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
        if can_ask { Policy::Ask } else { Policy::Detach }
    }
}

/// How a cancel ended.
pub enum End {
    /// The operation was over before it could be cancelled.
    Over(Box<api::Operation>),
    /// It is cancelled, and this is how the lab is now.
    Cancelled(String),
}

/// Follows an operation until it is done, the time is over, or the user interrupts. A removal cannot be taken back, and is only left.
pub async fn follow(
    client: &Client,
    operation: api::Operation,
    view: &mut View,
    timeout: Option<Duration>,
    policy: Policy,
) -> Result<api::Operation, Error> {
    // Listened to before anything is shown: who sees progress can interrupt.
    let mut interrupts = listen()?;
    let watched = tokio::select! {
        // One that is done is done, also when the time is over too.
        biased;
        done = to_its_end(client, operation.clone(), view) => Some(done),
        _ = interrupts.recv() => None,
        () = over(timeout) => Some(Err(Error::Failed(format!(
            "not done within {}; {}", view.elapsed(), going_on(&operation)
        )))),
    };
    view.wipe();
    let cancels = match (watched, policy) {
        (Some(done), _) => return done,
        (None, _) if operation.kind() == api::OperationKind::Destroy => false,
        (None, Policy::Detach) => false,
        (None, Policy::Cancel) => true,
        (None, Policy::Ask) => asked(&operation, &mut interrupts).await?,
    };
    if !cancels {
        return Err(Error::Interrupted(format!("detached; {}", going_on(&operation))));
    }
    match cancel(client, &operation, view, None).await? {
        End::Over(operation) => Ok(*operation),
        End::Cancelled(now) => Err(Error::Interrupted(format!("cancelled; {now}"))),
    }
}

fn listen() -> Result<Signal, Error> {
    signal(SignalKind::interrupt()).map_err(|e| Error::io("Ctrl-C cannot be listened to", e))
}

async fn over(timeout: Option<Duration>) {
    match timeout {
        Some(timeout) => tokio::time::sleep(timeout).await,
        None => std::future::pending().await,
    }
}

/// What can be done about an operation that is not waited for any more.
fn going_on(operation: &api::Operation) -> String {
    let lab = last(&operation.lab_name);
    let rest = match operation.kind() {
        api::OperationKind::Destroy => format!("the same netloom destroy {lab} follows it again"),
        api::OperationKind::Deploy => {
            format!(
                "the same netloom deploy follows it again, netloom cancel {lab} cancels it, netloom destroy {lab} ends it and removes the lab"
            )
        }
        _ => format!("netloom cancel {lab} cancels it"),
    };
    format!("the operation goes on in the server.\nnetloom inspect {lab} shows how far it is, {rest}")
}

/// What an operation is called.
pub fn noun(operation: &api::Operation) -> &'static str {
    match operation.kind() {
        api::OperationKind::Destroy => "removal",
        api::OperationKind::Deploy => "deploy",
        _ => "change",
    }
}

/// True when the user says that the operation is to be cancelled. Nothing, the end of the input or another Ctrl-C leaves it alone.
async fn asked(operation: &api::Operation, interrupts: &mut Signal) -> Result<bool, Error> {
    let (what, lab) = (noun(operation), last(&operation.lab_name));
    print!("The {what} of {lab} goes on in the server. Detach, or cancel it? [D/c] ");
    std::io::stdout().flush().map_err(|e| Error::io("the terminal cannot be asked", e))?;
    // Not a task of the runtime, which would wait for the line at its end.
    let (tell, told) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        let read = std::io::stdin().read_line(&mut line);
        let _ = tell.send(read.map(|_| line));
    });
    tokio::select! {
        line = told => Ok(matches!(line, Ok(Ok(line)) if means_cancel(&line))),
        _ = interrupts.recv() => {
            println!();
            Ok(false)
        }
    }
}

fn means_cancel(line: &str) -> bool {
    matches!(line.trim().to_ascii_lowercase().as_str(), "c" | "cancel")
}

/// Cancels an operation, and waits until the lab is as it was before: what a first deploy had made is gone, what a later one had changed is back.
/// One that ended meanwhile is as if nothing had been asked.
pub async fn cancel(
    client: &Client,
    operation: &api::Operation,
    view: &mut View,
    timeout: Option<Duration>,
) -> Result<End, Error> {
    let mut interrupts = listen()?;
    let lab = last(&operation.lab_name);
    let request = api::CancelOperationRequest { name: operation.name.clone() };
    match client.operations().cancel_operation(request).await {
        Ok(_) => {}
        Err(status) if from_status(&status).reason == "OPERATION_DONE" => {
            let request = api::GetOperationRequest { name: operation.name.clone() };
            let over = client.operations().get_operation(request).await?.into_inner();
            return Ok(End::Over(Box::new(over)));
        }
        // Its last moment, in which what was before is removed: it ends by itself, and soon.
        Err(status) if is_too_late(operation, &status) => {
            eprintln!(
                "Too late to cancel: all that the {} was for is there; waits for its end",
                noun(operation)
            );
            return tokio::select! {
                biased;
                over = to_its_end(client, operation.clone(), view) => over.map(|over| End::Over(Box::new(over))),
                _ = interrupts.recv() => Err(Error::Interrupted(format!("detached; {}", going_on(operation)))),
                () = over(timeout) => Err(Error::Failed(format!("not done within {}; {}", view.elapsed(), going_on(operation)))),
            };
        }
        Err(status) => return Err(status.into()),
    }
    let removal = match client.lab(lab).await {
        Ok(now) if now.state() == api::LabState::Deleting => now.operation,
        Ok(_) if operation.kind() == api::OperationKind::Deploy => {
            eprintln!("Cancelled; lab {lab} goes back to what was deployed before");
            let elsewhere = || format!("netloom inspect {lab} shows how far it is");
            return tokio::select! {
                biased;
                now = way_back(client, lab) => now.map(End::Cancelled),
                _ = interrupts.recv() => Err(Error::Interrupted(format!("detached; the lab goes back by itself, {}", elsewhere()))),
                () = over(timeout) => Err(Error::Failed(format!("not back within {}; {}", view.elapsed(), elsewhere()))),
            };
        }
        Ok(_) => {
            return Ok(End::Cancelled(format!(
                "what was asked of the nodes of lab {lab} stays asked, and the lab can be changed again"
            )));
        }
        Err(Error::Refused(failure)) if failure.reason == "LAB_NOT_FOUND" => String::new(),
        Err(e) => return Err(e),
    };
    if !removal.is_empty() {
        let request = api::GetOperationRequest { name: removal };
        let removal = client.operations().get_operation(request).await?.into_inner();
        // It ends in the same function with a removal, which asks nothing.
        let removal = Box::pin(follow(client, removal, view, timeout, Policy::Detach)).await?;
        follow::judge(&removal)?;
    }
    Ok(End::Cancelled(format!("lab {lab} had not been deployed before, and what was made of it is removed")))
}

/// True when a cancel was refused since a deploy had brought about all that it was for.
fn is_too_late(operation: &api::Operation, refused: &tonic::Status) -> bool {
    operation.kind() != api::OperationKind::Destroy && from_status(refused).reason == "NOT_CANCELLABLE"
}

/// Waits until nothing of a lab moves any more; says how it is then.
async fn way_back(client: &Client, lab: &str) -> Result<String, Error> {
    let begun = Instant::now();
    loop {
        let now = client.lab(lab).await?;
        if !now.operation.is_empty() {
            return Ok(format!("lab {lab} is being changed by somebody else meanwhile"));
        }
        let state = now.state();
        let moves = match state {
            api::LabState::Running | api::LabState::Stopped => false,
            // What is failed or unknown hides what still moves.
            api::LabState::Degraded | api::LabState::Unknown => {
                client.all_nodes(&now.name).await?.iter().any(|n| !is_settled(n.state()))
            }
            _ => true,
        };
        if !moves {
            let took = crate::output::progress::seconds(begun.elapsed());
            let why =
                if now.state_reason.is_empty() { String::new() } else { format!(": {}", now.state_reason) };
            return Ok(format!(
                "lab {lab} is back at what was deployed before after {took}, and is {}{why}",
                lab_state(state)
            ));
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn is_settled(state: api::NodeState) -> bool {
    use api::NodeState::{Failed, Ready, Stopped, Unknown, Unschedulable};
    matches!(state, Ready | Failed | Stopped | Unknown | Unschedulable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clear_word_cancels() {
        for yes in ["c\n", " Cancel \n"] {
            assert!(means_cancel(yes));
        }
        for no in ["", "\n", "d\n", "detach\n", "y\n"] {
            assert!(!means_cancel(no));
        }
    }
}
