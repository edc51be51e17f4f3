//! `node snapshot`: virtual machines as they were once.

use std::io::IsTerminal as _;

use netloom_api::v1 as api;
use serde_json::json;

use super::{Context, confirmed};
use crate::args::Format;
use crate::args::snapshot::{Named, Snapshot};
use crate::busy;
use crate::client::Client;
use crate::error::Error;
use crate::follow::{View, judge};
use crate::interrupt::{Policy, follow};
use crate::output::words::{bytes, last};
use crate::output::{json, table};

/// Runs a command about snapshots.
pub async fn run(context: &Context, command: Snapshot) -> Result<(), Error> {
    let (lab, node) = command.names();
    let parent = format!("labs/{lab}/nodes/{node}");
    match &command {
        Snapshot::List(of) => {
            let all = all(&context.client().await?, &parent).await?;
            context.print_as(
                of.output.format,
                || table::snapshots(context.style, &all),
                || json!({ "snapshots": json::list("Snapshot", &all) }),
            )
        }
        Snapshot::Create { of, output } => {
            let snapshot_id = id(of).to_owned();
            let request_id = uuid::Uuid::new_v4().to_string();
            let request = api::CreateSnapshotRequest { parent, snapshot_id, snapshot: None, request_id };
            let taken = context.client().await?.snapshots().create_snapshot(request).await?.into_inner();
            let with = if taken.has_memory { "its disk and memory" } else { "its disk" };
            let said = || format!("Kept {with} as {} ({})\n", last(&taken.name), bytes(taken.size_bytes));
            context.print_as(output.format, said, || json::value("Snapshot", &taken))
        }
        Snapshot::Delete(of) => {
            let request = api::DeleteSnapshotRequest { name: format!("{parent}/snapshots/{}", id(of)) };
            context.client().await?.snapshots().delete_snapshot(request).await?;
            context.print(&format!("Deleted snapshot {} of {node}\n", id(of)))
        }
        Snapshot::Restore { of, yes, wait } => {
            let name = format!("{parent}/snapshots/{}", id(of));
            let question =
                format!("What {node} of {lab} has written since snapshot {} is lost. Restore it?", id(of));
            if !*yes && !asked(&question, wait.output.format)? {
                return context.print("Nothing was restored\n");
            }
            let client = context.client().await?;
            let restore = || {
                let request_id = uuid::Uuid::new_v4().to_string();
                let request = api::RestoreSnapshotRequest { name: name.clone(), request_id };
                let mut snapshots = client.snapshots();
                async move { snapshots.restore_snapshot(request).await.map(tonic::Response::into_inner) }
            };
            let operation = busy::call(&client, wait.patience(), restore).await?;
            let format = wait.output.format;
            let mut view =
                View::new(context.style, format!("restores {node} of {lab}"), format == Format::Json);
            let policy = Policy::ask_if_possible(format);
            let operation = follow(&client, operation, &mut view, Some(wait.timeout), policy).await?;
            if format == Format::Json {
                context.print(&json::text(&json::value("Operation", &operation)))?;
            } else if operation.state() == api::OperationState::Succeeded {
                context.print(&format!("Restored {node} of {lab} in {}\n", view.elapsed()))?;
            }
            judge(&operation)
        }
    }
}

fn id(of: &Named) -> &str {
    of.name.as_deref().unwrap_or_default()
}

/// Asks before something is lost; where nobody can be asked, that has to be said.
pub fn asked(question: &str, format: Format) -> Result<bool, Error> {
    if format == Format::Json || !std::io::stdin().is_terminal() || !std::io::stdout().is_terminal() {
        return Err(Error::Usage(
            "something is lost by this and nobody can be asked here; say --yes".to_owned(),
        ));
    }
    confirmed(question)
}

/// All of a node, oldest first.
async fn all(client: &Client, parent: &str) -> Result<Vec<api::Snapshot>, Error> {
    let mut all = client.all_snapshots(parent).await?;
    all.sort_by_key(|s| s.create_time.as_ref().map(|t| (t.seconds, t.nanos)));
    Ok(all)
}
