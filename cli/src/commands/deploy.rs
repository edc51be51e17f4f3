//! `deploy` and `plan`: the same request, once to be done and once to be told.

use std::io::IsTerminal as _;
use std::path::Path;
use std::time::Instant;

use netloom_api::v1 as api;
use netloom_service::status::from_status;
use tonic::Status;

use super::{Context, confirmed, inspect};
use crate::args::lab::{Deploy, OnInterrupt};
use crate::args::{Format, TopologyFile};
use crate::client::Client;
use crate::error::Error;
use crate::follow::{View, judge};
use crate::interrupt::{self, Policy};
use crate::output::words::{count, last, natural};
use crate::output::{diagnostics, json, plan as plan_text};
use crate::source::{Source, catalogue};

/// Brings a lab to what its file says.
pub async fn deploy(context: &Context, args: &Deploy) -> Result<(), Error> {
    let format = args.output.format;
    let source = Source::open(args.topology.path(), Path::new("."))?.only(&args.node_filter);
    let client = context.client().await?;
    if !args.node_filter.is_empty() && !args.yes && !may_leave_out(context, &client, &source, format).await? {
        return context.print("Nothing was changed\n");
    }
    let policy = match args.on_interrupt {
        Some(OnInterrupt::Cancel) => Policy::Cancel,
        Some(OnInterrupt::Detach) => Policy::Detach,
        None => Policy::ask_if_possible(format),
    };
    let begun = Instant::now();
    let remaining = || args.timeout.map(|t| t.saturating_sub(begun.elapsed()));
    let operation = match import(context, &client, &source, false).await? {
        Ok(operation) => operation,
        Err(refused) => {
            let Some(active) = active_deploy(&client, &refused).await? else { return Err(refused.into()) };
            let lab = last(&active.lab_name).to_owned();
            let what = if active.kind() == api::OperationKind::Deploy { "deploy" } else { "change" };
            let said = format!(
                "Lab {lab} is being {} already: follows that {what} to its end, then applies {} again\n",
                if what == "deploy" { "deployed" } else { "changed" },
                source.name
            );
            match format {
                Format::Table => context.print(&said)?,
                Format::Json => eprint!("{said}"),
            }
            let mut view =
                View::new(context.style, format!("follows the {what} of {lab}"), format == Format::Json);
            // How it ends is of no matter: the file is what counts.
            interrupt::follow(&client, active, &mut view, remaining(), policy).await?;
            import(context, &client, &source, false).await??
        }
    };
    let lab = last(&operation.lab_name).to_owned();
    let nothing_to_do =
        is_nothing(&operation) && operation.done && operation.state() == api::OperationState::Succeeded;
    let mut view = View::new(context.style, format!("deploys {lab}"), format == Format::Json);
    if format == Format::Table {
        if nothing_to_do {
            context.print(&format!("Nothing to do: lab {lab} is as {} says\n", source.name))?;
        } else if let Some(plan) = &operation.plan {
            context.print(&plan_text::text(context.style, plan))?;
        }
    }
    let operation = interrupt::follow(&client, operation, &mut view, remaining(), policy).await?;
    match format {
        Format::Json => context.print(&json::text(&json::value("Operation", &operation)))?,
        Format::Table => {
            let elapsed = view.elapsed();
            context.print("\n")?;
            // Of what failed the whole reason comes last, with the error.
            let whole = operation.state() == api::OperationState::Succeeded;
            let nodes = inspect::one(context, &client, &lab, format, whole).await?;
            if operation.state() == api::OperationState::Succeeded && !nothing_to_do {
                context.print(&format!("\nDeployed {lab} in {elapsed}\n"))?;
            }
            eprint!("{}", exec_warning(&lab, &nodes));
        }
    }
    judge(&operation)
}

/// True when the deploy removes none of the nodes that the filter leaves out, or that is wanted. Where nobody can be asked it has to be said.
async fn may_leave_out(
    context: &Context,
    client: &Client,
    source: &Source,
    format: Format,
) -> Result<bool, Error> {
    // What is refused is told by the deploy itself, which also knows what to do about it.
    let Ok(operation) = import(context, client, source, true).await? else { return Ok(true) };
    let plan = operation.plan.unwrap_or_default();
    let is_removed = |a: &&api::Action| a.object == "node" && a.verb() == api::ActionVerb::Delete;
    let removed: Vec<&str> = plan.actions.iter().filter(is_removed).map(|a| a.id.as_str()).collect();
    if removed.is_empty() {
        return Ok(true);
    }
    let (lab, nodes) = (last(&operation.lab_name), count(removed.len() as i128, "node"));
    let can_ask =
        format == Format::Table && std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    if !can_ask {
        return Err(Error::Usage(format!(
            "--node-filter leaves out {nodes} that lab {lab} has ({}): they are removed, and nobody can be asked here; say --yes",
            removed.join(", ")
        )));
    }
    context.print(&plan_text::text(context.style, &plan))?;
    confirmed(&format!("Remove {nodes} of {lab} that --node-filter leaves out?"))
}

/// Which nodes have exec commands that failed; empty when none has. They are no reason for the deploy to have failed: the lab is as its file says.
fn exec_warning(lab: &str, nodes: &[api::Node]) -> String {
    let mut failed: Vec<&str> =
        nodes.iter().filter(|n| !n.exec_error.is_empty()).map(|n| last(&n.name)).collect();
    failed.sort_by_cached_key(|name| natural(name));
    if failed.is_empty() {
        return String::new();
    }
    format!("warning: exec commands failed in {}; `netloom inspect {lab}` says which\n", failed.join(", "))
}

/// Exit code of a plan with something to do, where that was asked for.
const SOMETHING_TO_DO: u8 = 10;

/// Says what deploy would do.
pub async fn plan(
    context: &Context,
    topology: &TopologyFile,
    node_filter: &[String],
    exit_code: bool,
    format: Format,
) -> Result<u8, Error> {
    let source = Source::open(topology.path(), Path::new("."))?.only(node_filter);
    let client = context.client().await?;
    let operation = import(context, &client, &source, true).await??;
    let lab = last(&operation.lab_name);
    match &operation.plan {
        _ if format == Format::Json => context.print(&json::text(&json::value("Operation", &operation)))?,
        Some(plan) if !is_nothing(&operation) => context.print(&plan_text::text(context.style, plan))?,
        _ => context.print(&format!("Nothing to do: lab {lab} is as {} says\n", source.name))?,
    }
    Ok(if exit_code && !is_nothing(&operation) { SOMETHING_TO_DO } else { 0 })
}

/// The deploy that is under way, as one that was left with Ctrl-C, when that is what the server refused for.
async fn active_deploy(client: &Client, refused: &Status) -> Result<Option<api::Operation>, Error> {
    let failure = from_status(refused);
    let (Some(lab), Some(operation)) = (failure.metadata.get("lab"), failure.metadata.get("operation"))
    else {
        return Ok(None);
    };
    if failure.reason != "OPERATION_ACTIVE" {
        return Ok(None);
    }
    let request = api::GetOperationRequest { name: format!("operations/{}", last(operation)) };
    let active = client.operations().get_operation(request).await?.into_inner();
    let follows = active.kind() != api::OperationKind::Destroy && last(&active.lab_name) == lab;
    Ok(follows.then_some(active))
}

/// Reads the file, shows what is to be said about it, and hands it to the server, which may refuse. What only informs is for -v.
async fn import(
    context: &Context,
    client: &Client,
    source: &Source,
    validate_only: bool,
) -> Result<Result<api::Operation, Status>, Error> {
    let read = source.read(&catalogue(&client.all_kinds().await?))?;
    let said = diagnostics::shown(&read.parsed.diagnostics, context.global.verbose);
    eprint!("{}", diagnostics::text(context.error_style, &source.text, &said));
    if !read.parsed.ok() {
        return Err(Error::Invalid(format!(
            "{} cannot be used: {}",
            source.name,
            diagnostics::summary(&said)
        )));
    }
    let request = source.import(read, validate_only);
    Ok(client.labs().import_lab(request).await.map(|answer| answer.into_inner()))
}

fn is_nothing(operation: &api::Operation) -> bool {
    operation.plan.as_ref().is_none_or(|p| p.actions.is_empty() && p.unplaced.is_empty())
}
