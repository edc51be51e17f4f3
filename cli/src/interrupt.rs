//! What Ctrl-C does to a deploy that is waited for. On a terminal the user is asked; a second one detaches at once.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use netloom_api::v1 as api;
use netloom_service::status::from_status;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::client::Client;
use crate::error::Error;
use crate::follow::{self, View, to_its_end};
use crate::output::words::last;

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// The deploy goes on in the server.
    Detach,
    /// It is cancelled.
    Cancel,
    /// As the user says.
    Ask,
}

impl Policy {
    /// Asks where there is somebody to ask.
    pub fn ask_if_possible() -> Policy {
        let can_ask = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
        if can_ask { Policy::Ask } else { Policy::Detach }
    }
}

/// Follows a deploy until it is done, the time is over, or the user interrupts.
pub async fn follow(
    client: &Client,
    operation: api::Operation,
    view: &mut View,
    timeout: Option<Duration>,
    policy: Policy,
) -> Result<api::Operation, Error> {
    if policy == Policy::Detach {
        return follow::follow(client, operation, view, timeout).await;
    }
    // Listened to before anything is shown: who sees progress can interrupt.
    let listening = |e| Error::io("Ctrl-C cannot be listened to", e);
    let mut interrupts = signal(SignalKind::interrupt()).map_err(listening)?;
    let watched = tokio::select! {
        biased;
        done = to_its_end(client, operation.clone(), view) => Some(done),
        _ = interrupts.recv() => None,
        () = over(timeout) => {
            let rest = Some(Duration::ZERO);
            Some(follow::follow(client, operation.clone(), view, rest).await)
        }
    };
    view.wipe();
    match watched {
        Some(done) => done,
        None if policy == Policy::Cancel || asked(&operation, &mut interrupts).await? => {
            cancel(client, &operation, view).await
        }
        None => Err(detached(&operation)),
    }
}

async fn over(timeout: Option<Duration>) {
    match timeout {
        Some(timeout) => tokio::time::sleep(timeout).await,
        None => std::future::pending().await,
    }
}

fn detached(operation: &api::Operation) -> Error {
    let lab = last(&operation.lab_name);
    Error::Interrupted(format!(
        "detached; the operation goes on in the server.\nnetloom inspect {lab} shows how far it is, the same netloom deploy follows it again, \
         netloom destroy {lab} ends it and removes the lab"
    ))
}

/// True when the user says that the deploy is to be cancelled. Nothing, the end of the input or another Ctrl-C leaves it alone.
async fn asked(operation: &api::Operation, interrupts: &mut Signal) -> Result<bool, Error> {
    print!("The deploy of {} goes on in the server. Detach, or cancel it? [D/c] ", last(&operation.lab_name));
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

/// Cancels a deploy, and waits until what a first one had made is gone. One that ended meanwhile is as if nothing had been asked.
async fn cancel(
    client: &Client,
    operation: &api::Operation,
    view: &mut View,
) -> Result<api::Operation, Error> {
    let lab = last(&operation.lab_name);
    let request = api::CancelOperationRequest { name: operation.name.clone() };
    match client.operations().cancel_operation(request).await {
        Ok(_) => {}
        Err(status) if from_status(&status).reason == "OPERATION_DONE" => {
            let request = api::GetOperationRequest { name: operation.name.clone() };
            return Ok(client.operations().get_operation(request).await?.into_inner());
        }
        Err(status) => return Err(status.into()),
    }
    let removal = match client.lab(lab).await {
        Ok(now) if now.state() == api::LabState::Deleting => now.operation,
        Ok(_) => {
            return Err(Error::Interrupted(format!(
                "cancelled; lab {lab} goes back to what was deployed before.\nnetloom inspect {lab} shows how far it is"
            )));
        }
        Err(Error::Refused(failure)) if failure.reason == "LAB_NOT_FOUND" => String::new(),
        Err(e) => return Err(e),
    };
    if !removal.is_empty() {
        let request = api::GetOperationRequest { name: removal };
        let removal = client.operations().get_operation(request).await?.into_inner();
        follow::judge(&follow::follow(client, removal, view, None).await?)?;
    }
    Err(Error::Interrupted(format!(
        "cancelled; lab {lab} had not been deployed before, and what was made of it is removed"
    )))
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
