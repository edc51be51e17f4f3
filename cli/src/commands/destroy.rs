//! `destroy`: a lab and all that belongs to it.

use std::io::IsTerminal as _;

use netloom_api::v1 as api;
use netloom_service::status::from_status;

use super::{Context, confirmed, lab_named};
use crate::args::Topology;
use crate::client::Client;
use crate::error::Error;
use crate::follow::{View, judge};
use crate::interrupt::{Policy, follow, noun};
use crate::output::words::{count, last};

/// Removes one lab, or all.
pub async fn run(
    context: &Context,
    lab: Option<String>,
    topology: &Topology,
    all: bool,
    yes: bool,
) -> Result<(), Error> {
    let can_ask = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    if all && !yes && !can_ask {
        return Err(Error::Usage(
            "--all removes every lab and nobody can be asked here; say --yes".to_owned(),
        ));
    }
    let (client, labs) = if all {
        let client = context.client().await?;
        let labs = client.all_labs().await?;
        (client, labs)
    } else {
        let lab = lab_named(lab, topology)?;
        let client = context.client().await?;
        let lab = client.lab(&lab).await?;
        (client, vec![lab])
    };
    if labs.is_empty() {
        return context.print("There are no labs\n");
    }
    if can_ask && !yes && !confirmed(&question(&labs))? {
        return context.print("Nothing was removed\n");
    }
    // All are begun before the first is waited for: they go on side by side.
    let mut operations = Vec::with_capacity(labs.len());
    for lab in &labs {
        operations.push(delete(context, &client, &lab.name).await?);
    }
    let mut outcome = Ok(());
    for operation in operations {
        let lab = last(&operation.lab_name).to_owned();
        let mut view = View::new(context.style, format!("removes {lab}"), false);
        let operation = follow(&client, operation, &mut view, None, Policy::Detach).await?;
        match judge(&operation) {
            Ok(()) => context.print(&format!("Removed {lab} in {}\n", view.elapsed()))?,
            failed => outcome = outcome.and(failed),
        }
    }
    outcome
}

/// Starts to remove a lab. A deploy that is under way is cancelled first, or awaited where it cannot be any more; a removal that is, is joined.
async fn delete(context: &Context, client: &Client, name: &str) -> Result<api::Operation, Error> {
    loop {
        let request = api::DeleteLabRequest { name: name.to_owned(), ..api::DeleteLabRequest::default() };
        let refused = match client.labs().delete_lab(request).await {
            Ok(operation) => return Ok(operation.into_inner()),
            Err(status) if from_status(&status).reason == "OPERATION_ACTIVE" => status,
            Err(status) => return Err(status.into()),
        };
        let active = client.lab(last(name)).await?.operation;
        if active.is_empty() {
            // It ended just now.
            continue;
        }
        let request = api::GetOperationRequest { name: active.clone() };
        let active = client.operations().get_operation(request).await?.into_inner();
        match active.kind() {
            api::OperationKind::Destroy => return Ok(active),
            _ if !active.done => {
                let what = noun(&active);
                context.print(&format!("Cancels the {what} of {} that is under way\n", last(name)))?;
                let request = api::CancelOperationRequest { name: active.name.clone() };
                let cancelled = match client.operations().cancel_operation(request).await {
                    Ok(operation) => operation.into_inner(),
                    Err(status) if from_status(&status).reason == "OPERATION_DONE" => continue,
                    // All of it is there, and what was before is being removed.
                    Err(status) if from_status(&status).reason == "NOT_CANCELLABLE" => {
                        let title = format!("waits for the {what} of {}", last(name));
                        let mut view = View::new(context.style, title, false);
                        follow(client, active, &mut view, None, Policy::Detach).await?;
                        continue;
                    }
                    Err(status) => return Err(status.into()),
                };
                let mut view =
                    View::new(context.style, format!("cancels the {what} of {}", last(name)), false);
                follow(client, cancelled, &mut view, None, Policy::Detach).await?;
            }
            _ => return Err(refused.into()),
        }
    }
}

fn question(labs: &[api::Lab]) -> String {
    let names: Vec<String> = labs
        .iter()
        .map(|l| {
            format!("{} ({}, {})", last(&l.name), count(l.node_count, "node"), count(l.link_count, "link"))
        })
        .collect();
    format!("Remove {}?", names.join(", "))
}
