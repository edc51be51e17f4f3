//! `cancel`: ends what is under way in a lab.

use std::time::Duration;

use netloom_api::v1 as api;

use super::{Context, lab_named};
use crate::args::Topology;
use crate::error::Error;
use crate::follow::View;
use crate::interrupt::{End, cancel, noun};
use crate::output::words::last;

/// Cancels the operation of a lab, and waits until the lab is as it was before.
pub async fn run(
    context: &Context,
    lab: Option<String>,
    topology: &Topology,
    timeout: Duration,
) -> Result<(), Error> {
    let lab = lab_named(lab, topology)?;
    let client = context.client().await?;
    let lab = client.lab(&lab).await?;
    let id = last(&lab.name);
    if lab.operation.is_empty() {
        return context.print(&format!("Nothing to cancel: no operation is under way in lab {id}\n"));
    }
    let request = api::GetOperationRequest { name: lab.operation.clone() };
    let operation = client.operations().get_operation(request).await?.into_inner();
    let what = noun(&operation);
    let mut view = View::new(context.style, format!("cancels the {what} of {id}"), false);
    match cancel(&client, &operation, &mut view, Some(timeout)).await? {
        End::Over(_) => context.print(&format!("The {what} of {id} was over before it could be cancelled\n")),
        End::Cancelled(now) => context.print(&format!("Cancelled the {what}: {now}\n")),
    }
}
