//! `deploy` and `plan`: the same request, once to be done and once to be told.

use std::path::Path;
use std::time::Duration;

use netloom_api::v1 as api;
use netloom_topology::{Diagnostic, Severity};

use super::{Context, inspect};
use crate::args::{Format, Topology};
use crate::client::Client;
use crate::error::Error;
use crate::follow::{View, follow, judge};
use crate::output::words::last;
use crate::output::{diagnostics, json, plan as plan_text};
use crate::source::{Source, catalogue};

/// Brings a lab to what its file says.
pub async fn deploy(
    context: &Context,
    topology: &Topology,
    timeout: Option<Duration>,
    format: Format,
) -> Result<(), Error> {
    let source = Source::open(topology.topology.as_deref(), Path::new("."))?;
    let client = context.client().await?;
    let operation = import(context, &client, &source, false).await?;
    let lab = last(&operation.lab_name).to_owned();
    let nothing_to_do = is_nothing(&operation) && operation.done;
    let mut view = View::new(context.style, format!("deploys {lab}"), format == Format::Json);
    if format == Format::Table {
        if nothing_to_do {
            context.print(&format!("Nothing to do: lab {lab} is as {} says\n", source.name))?;
        } else if let Some(plan) = &operation.plan {
            context.print(&plan_text::text(context.style, plan))?;
        }
    }
    let operation = follow(&client, operation, &mut view, timeout).await?;
    match format {
        Format::Json => context.print(&json::text(&json::value("Operation", &operation)))?,
        Format::Table => {
            let elapsed = view.elapsed();
            context.print("\n")?;
            inspect::one(context, &client, &lab, format).await?;
            if operation.state() == api::OperationState::Succeeded && !nothing_to_do {
                context.print(&format!("\nDeployed {lab} in {elapsed}\n"))?;
            }
        }
    }
    judge(&operation)
}

/// Says what deploy would do.
pub async fn plan(context: &Context, topology: &Topology, format: Format) -> Result<(), Error> {
    let source = Source::open(topology.topology.as_deref(), Path::new("."))?;
    let client = context.client().await?;
    let operation = import(context, &client, &source, true).await?;
    if format == Format::Json {
        return context.print(&json::text(&json::value("Operation", &operation)));
    }
    let lab = last(&operation.lab_name);
    match &operation.plan {
        Some(plan) if !is_nothing(&operation) => context.print(&plan_text::text(context.style, plan)),
        _ => context.print(&format!("Nothing to do: lab {lab} is as {} says\n", source.name)),
    }
}

/// Reads the file, shows what is to be said about it, and hands it to the server. What only informs is for validate and -v.
async fn import(
    context: &Context,
    client: &Client,
    source: &Source,
    validate_only: bool,
) -> Result<api::Operation, Error> {
    let read = source.read(&catalogue(&client.all_kinds().await?))?;
    let said: Vec<Diagnostic> = read
        .parsed
        .diagnostics
        .iter()
        .filter(|d| context.global.verbose || d.severity != Severity::Info)
        .cloned()
        .collect();
    eprint!("{}", diagnostics::text(context.error_style, &source.text, &said));
    if !read.parsed.ok() {
        return Err(Error::Invalid(format!(
            "{} cannot be used: {}",
            source.name,
            diagnostics::summary(&said)
        )));
    }
    let request = source.import(read, validate_only);
    Ok(client.labs().import_lab(request).await?.into_inner())
}

fn is_nothing(operation: &api::Operation) -> bool {
    operation.plan.as_ref().is_none_or(|p| p.actions.is_empty() && p.unplaced.is_empty())
}
