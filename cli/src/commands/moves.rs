//! Nodes that move to other hosts: by name, to rebalance a lab, or off a host that is drained.
//!
//! What would move where, and what would stay, is always asked for and shown before anything is done.

use std::time::{Duration, Instant};

use netloom_api::v1 as api;

use super::Context;
use super::node::meant;
use super::snapshot::asked as asked_first;
use crate::args::Format;
use crate::args::moves::{Drain, How, Move, Rebalance};
use crate::busy::{self, Patience};
use crate::client::Client;
use crate::error::Error;
use crate::follow::{View, judge};
use crate::interrupt::{Policy, follow};
use crate::output::words::{count, last};
use crate::output::{json, plan};

/// How often a host that is drained is looked at.
const LOOK: Duration = Duration::from_millis(250);
/// How many nodes that stay are named.
const NAMED: usize = 20;

/// Moves nodes by name.
pub async fn nodes(context: &Context, args: Move) -> Result<(), Error> {
    let Move { asked, to, force, how } = args;
    let client = context.client().await?;
    let (first, others) = meant(&client, &asked).await?;
    let moves = |validate_only| api::MoveNodeRequest {
        name: first.clone(),
        request_id: if validate_only { String::new() } else { uuid::Uuid::new_v4().to_string() },
        others: others.clone(),
        host: to.clone().unwrap_or_default(),
        validate_only,
        lose_disks: how.lose_disks,
        force,
    };
    let planned = client.nodes().move_node(moves(true)).await?.into_inner();
    let begin = || async { Ok(client.nodes().move_node(moves(false)).await?.into_inner()) };
    let (format, timeout) = (asked.wait.output.format, asked.wait.timeout);
    one_lab(context, &client, planned, begin, how, (format, timeout, asked.wait.patience())).await
}

/// Moves those nodes of a lab that would better be elsewhere.
pub async fn rebalance(context: &Context, args: Rebalance) -> Result<(), Error> {
    let Rebalance { lab, wait, how } = args;
    let client = context.client().await?;
    let moves = |validate_only| api::RebalanceLabRequest {
        name: format!("labs/{lab}"),
        request_id: if validate_only { String::new() } else { uuid::Uuid::new_v4().to_string() },
        validate_only,
        lose_disks: how.lose_disks,
    };
    let planned = client.labs().rebalance_lab(moves(true)).await?.into_inner();
    let begin = || async { Ok(client.labs().rebalance_lab(moves(false)).await?.into_inner()) };
    one_lab(context, &client, planned, begin, how, (wait.output.format, wait.timeout, wait.patience())).await
}

/// Shows the plan, asks, moves and waits.
async fn one_lab<F: Future<Output = Result<api::Operation, tonic::Status>>>(
    context: &Context,
    client: &Client,
    planned: api::Operation,
    begin: impl Fn() -> F,
    how: How,
    (format, timeout, patience): (Format, Duration, Patience),
) -> Result<(), Error> {
    let lab = last(&planned.lab_name).to_owned();
    let steps = planned.plan.clone().unwrap_or_default();
    if format == Format::Table {
        context.print(&plan::moves(context.style, &steps))?;
    }
    if how.dry_run || steps.actions.is_empty() {
        return match format {
            Format::Json => context.print(&json::text(&json::value("Operation", &planned))),
            Format::Table if steps.actions.is_empty() => context.print(&format!("Nothing of {lab} moves\n")),
            Format::Table => Ok(()),
        };
    }
    let question =
        format!("What programs of {} wrote in containers is lost. Move?", count(moving(&steps), "node"));
    if !how.yes && !asked_first(&question, format)? {
        return context.print("Nothing was moved\n");
    }
    let operation = busy::call(client, patience, begin).await?;
    let mut view = View::new(context.style, format!("moves nodes of {lab}"), format == Format::Json);
    let policy = Policy::ask_if_possible(format);
    let operation = follow(client, operation, &mut view, Some(timeout), policy).await?;
    if format == Format::Json {
        context.print(&json::text(&json::value("Operation", &operation)))?;
    } else if operation.state() == api::OperationState::Succeeded {
        let moved = count(moving(&operation.plan.clone().unwrap_or_default()), "node");
        context.print(&format!("Moved {moved} of {lab} in {}\n", view.elapsed()))?;
    }
    judge(&operation)
}

fn moving(plan: &api::Plan) -> i128 {
    plan.actions.iter().filter(|action| action.object == "node").count() as i128
}

/// Drains a host: shows what that does, asks, and waits until nothing is on it or what is left stays.
pub async fn drain(context: &Context, args: Drain) -> Result<(), Error> {
    let Drain { host, how, timeout, output } = args;
    let client = context.client().await?;
    let request = |validate_only| api::DrainHostRequest {
        name: format!("hosts/{host}"),
        validate_only,
        lose_disks: how.lose_disks,
    };
    let planned = client.hosts().drain_host(request(true)).await?.into_inner();
    let is_table = output.format == Format::Table;
    if is_table {
        for operation in &planned.moves {
            let steps = operation.plan.clone().unwrap_or_default();
            let text = plan::moves(context.style, &steps);
            context.print(&format!("Lab {}\n{text}", last(&operation.lab_name)))?;
        }
        if planned.moves.is_empty() {
            context.print(&format!("No node is on {host}\n"))?;
        }
    }
    if how.dry_run {
        return match is_table {
            true => Ok(()),
            false => context.print(&json::text(&json::value("DrainHostResponse", &planned))),
        };
    }
    let nodes: i128 = planned.moves.iter().map(|o| moving(&o.plan.clone().unwrap_or_default())).sum();
    let question =
        format!("What programs of {} wrote in containers is lost. Drain {host}?", count(nodes, "node"));
    if nodes > 0 && !how.yes && !asked_first(&question, output.format)? {
        return context.print("Nothing was moved\n");
    }
    let since = Instant::now();
    let began = client.hosts().drain_host(request(false)).await?.into_inner();
    for lab in &began.busy_labs {
        eprintln!("Lab {} is being changed: its nodes move when that is over", last(lab));
    }
    for operation in began.moves.into_iter().filter(|operation| !operation.done) {
        let lab = last(&operation.lab_name).to_owned();
        let mut view = View::new(context.style, format!("moves nodes of {lab}"), !is_table);
        let rest = timeout.saturating_sub(since.elapsed());
        let policy = Policy::ask_if_possible(output.format);
        let operation = follow(&client, operation, &mut view, Some(rest), policy).await?;
        // What did not work is told with what stays.
        if let (Err(why), true) = (judge(&operation), is_table) {
            context.print(&format!("{why}\n"))?;
        }
    }
    let found = settled(&client, &host, timeout.saturating_sub(since.elapsed())).await?;
    if !is_table {
        context.print(&json::text(&json::value("Host", &found)))?;
    } else if found.drain() == api::DrainState::Drained {
        context
            .print(&format!("Drained {host} in {}\n", crate::output::progress::seconds(since.elapsed())))?;
    }
    match found.drain() {
        api::DrainState::Drained => Ok(()),
        _ => Err(Error::Failed(left(&found))),
    }
}

/// The host once nothing is on it, or nothing but what stays; as it is when the time is over.
async fn settled(client: &Client, host: &str, timeout: Duration) -> Result<api::Host, Error> {
    let since = Instant::now();
    loop {
        let request = api::GetHostRequest { name: format!("hosts/{host}") };
        let found = client.hosts().get_host(request).await?.into_inner();
        let stay = i32::try_from(found.staying.len()).unwrap_or(i32::MAX);
        let is_over = match found.drain() {
            api::DrainState::Draining => stay > 0 && stay >= found.node_count,
            api::DrainState::Drained | api::DrainState::Unspecified => true,
        };
        if is_over || since.elapsed() >= timeout {
            return Ok(found);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// What is left on a host, and what becomes of it.
fn left(host: &api::Host) -> String {
    let name = last(&host.name);
    if host.drain() == api::DrainState::Unspecified {
        return format!("{name} is not drained any more: it was uncordoned");
    }
    let mut text = match host.node_count {
        0 => format!("links or files of labs are on {name} still; it goes on being drained"),
        nodes => format!("{} on {name}; it goes on being drained", count(nodes, "node")),
    };
    text += &format!(": see netloom host show {name}, and netloom host uncordon {name} to end that");
    for node in host.staying.iter().take(NAMED) {
        let why: Vec<String> = node.rejections.iter().map(plan::rejected).collect();
        let short = node.node.trim_start_matches("labs/").replacen("/nodes/", "/", 1);
        text += &format!("\n  {short} stays: {}", why.join("; "));
    }
    if host.staying.len() > NAMED {
        text += &format!("\n  and {} more", host.staying.len() - NAMED);
    }
    text
}
