//! `deploy` and `plan`: the same request, once to be done and once to be told.

use std::cell::RefCell;
use std::io::IsTerminal as _;
use std::path::Path;
use std::time::Instant;

use netloom_api::v1 as api;
use netloom_service::status::from_status;
use tonic::Status;

use super::{Context, confirmed, inspect};
use crate::args::Format;
use crate::args::lab::{Deploy, OnInterrupt, Plan};
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
    let source = source.with_saved(args.saved.as_deref())?;
    let client = context.client().await?;
    let file = File::new(context, &client, &source);
    let asks = !args.node_filter.is_empty() && !args.yes;
    let policy = match args.on_interrupt {
        Some(OnInterrupt::Cancel) => Policy::Cancel,
        Some(OnInterrupt::Detach) => Policy::Detach,
        None => Policy::ask_if_possible(format),
    };
    let begun = Instant::now();
    let remaining = || args.timeout.map(|t| t.saturating_sub(begun.elapsed()));
    let operation = match file.apply(asks, format).await? {
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
            file.apply(asks, format).await??
        }
    };
    let Some(operation) = operation else { return context.print("Nothing was changed\n") };
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
pub async fn plan(context: &Context, args: &Plan) -> Result<u8, Error> {
    let Plan { topology, node_filter, saved, exit_code, why, output } = args;
    let source = Source::open(topology.path(), Path::new("."))?.only(node_filter);
    let source = source.with_saved(saved.as_deref())?;
    let client = context.client().await?;
    let operation = File::new(context, &client, &source).import(true).await??;
    let lab = last(&operation.lab_name);
    match &operation.plan {
        _ if output.format == Format::Json => {
            context.print(&json::text(&json::value("Operation", &operation)))?;
        }
        Some(plan) if !is_nothing(&operation) => {
            context.print(&plan_text::text(context.style, plan))?;
            context.print(&plan_text::placement(plan, *why))?;
        }
        _ => match &operation.error {
            Some(why) => context.print(&format!(
                "Nothing to change in lab {lab}, but not all of it is as {} says: {}\n",
                source.name, why.message
            ))?,
            None => context.print(&format!("Nothing to do: lab {lab} is as {} says\n", source.name))?,
        },
    }
    // All else that a plan can end with is of what is there already.
    let refused = operation.error.as_ref().filter(|e| e.code == tonic::Code::ResourceExhausted as i32);
    if let Some(why) = refused {
        return Err(Error::Failed(format!("a deploy would be refused: {}", why.message)));
    }
    Ok(if *exit_code && !is_nothing(&operation) { SOMETHING_TO_DO } else { 0 })
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

/// A topology file on its way to the server.
struct File<'a> {
    context: &'a Context,
    client: &'a Client,
    source: &'a Source,
    /// What was last said about it: it is read for each request, and what is the same is said once.
    said: RefCell<String>,
    /// Nodes that the filter left out when it was last read.
    left_out: RefCell<Vec<String>>,
}

impl<'a> File<'a> {
    fn new(context: &'a Context, client: &'a Client, source: &'a Source) -> File<'a> {
        File { context, client, source, said: RefCell::default(), left_out: RefCell::default() }
    }

    /// Has the lab brought to what it says; none when that removes nodes which a filter leaves out, and is not meant. Each time that the server is
    /// asked, so is the user: the lab may be another one by then.
    async fn apply(
        &self,
        asks: bool,
        format: Format,
    ) -> Result<Result<Option<api::Operation>, Status>, Error> {
        if asks {
            match self.import(true).await? {
                Ok(planned) if !self.may_leave_out(&planned, format)? => return Ok(Ok(None)),
                Ok(_) => {}
                Err(refused) => return Ok(Err(refused)),
            }
        }
        Ok(self.import(false).await?.map(Some))
    }

    /// True when none of the nodes that the filter leaves out is removed, or that is wanted. Where nobody can be asked it has to be said.
    fn may_leave_out(&self, planned: &api::Operation, format: Format) -> Result<bool, Error> {
        let plan = planned.plan.clone().unwrap_or_default();
        let left_out = self.left_out.borrow();
        // What the file itself has no more is removed by any deploy of it.
        let is_removed = |a: &&api::Action| {
            let is_left_out = left_out.iter().any(|node| node.eq_ignore_ascii_case(&a.id));
            a.object == "node" && a.verb() == api::ActionVerb::Delete && is_left_out
        };
        let removed: Vec<&str> = plan.actions.iter().filter(is_removed).map(|a| a.id.as_str()).collect();
        if removed.is_empty() {
            return Ok(true);
        }
        let (lab, nodes) = (last(&planned.lab_name), count(removed.len() as i128, "node"));
        let can_ask =
            format == Format::Table && std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
        if !can_ask {
            return Err(Error::Usage(format!(
                "--node-filter leaves out {nodes} that lab {lab} has ({}): they are removed, and nobody can be asked here; say --yes",
                removed.join(", ")
            )));
        }
        self.context.print(&plan_text::text(self.context.style, &plan))?;
        confirmed(&format!("Remove {nodes} of {lab} that --node-filter leaves out?"))
    }

    /// Reads it, shows what is to be said about it, and hands it to the server, which may refuse. What only informs is for -v.
    async fn import(&self, validate_only: bool) -> Result<Result<api::Operation, Status>, Error> {
        let (context, source) = (self.context, self.source);
        let read = source.read(&catalogue(&self.client.all_kinds().await?))?;
        let shown = diagnostics::shown(&read.parsed.diagnostics, context.global.verbose);
        let text = diagnostics::text(context.error_style, &source.text, &shown);
        if self.said.replace(text.clone()) != text {
            eprint!("{text}");
        }
        if !read.parsed.ok() {
            return Err(Error::Invalid(format!(
                "{} cannot be used: {}",
                source.name,
                diagnostics::summary(&shown)
            )));
        }
        self.left_out.borrow_mut().clone_from(&read.parsed.left_out);
        let request = source.import(read, validate_only);
        Ok(self.client.labs().import_lab(request).await.map(|answer| answer.into_inner()))
    }
}

fn is_nothing(operation: &api::Operation) -> bool {
    operation.plan.as_ref().is_none_or(|p| p.actions.is_empty() && p.unplaced.is_empty())
}
