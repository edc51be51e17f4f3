//! `node`: starts, stops, restarts and wipes nodes of a lab.

use std::collections::BTreeSet;

use netloom_api::v1 as api;
use netloom_model::{Code, Failure};

use tonic::Status;

use super::Context;
use super::snapshot::asked as asked_first;
use crate::args::Format;
use crate::args::change::{Change, Nodes, Wipe};
use crate::busy;
use crate::client::Client;
use crate::error::Error;
use crate::follow::{View, judge};
use crate::interrupt::{Policy, follow};
use crate::output::json;
use crate::output::words::{count, last};

/// Changes nodes, and waits until they are as asked.
pub async fn run(context: &Context, node: Change) -> Result<(), Error> {
    let (asked, verb, done) = match &node {
        Change::Start(a) => (a, "starts", "started"),
        Change::Stop(a) => (a, "stops", "stopped"),
        Change::Restart(a) => (a, "restarts", "restarted"),
        Change::Wipe(a) => (&a.asked, "wipes", "wiped"),
    };
    let format = asked.wait.output.format;
    let client = context.client().await?;
    let (first, others) = meant(&client, asked).await?;
    if let Change::Wipe(Wipe { yes: false, .. }) = &node {
        let names: Vec<&str> = [last(&first)].into_iter().chain(others.iter().map(String::as_str)).collect();
        let question = format!("What {} of {} has written is lost. Wipe it?", names.join(", "), asked.lab);
        if !asked_first(&question, format)? {
            return context.print("Nothing was wiped\n");
        }
    }
    let change = || change(&client, &node, first.clone(), others.clone());
    let operation = busy::call(&client, asked.wait.patience(), change).await?;
    let lab = asked.lab.as_str();
    let nothing = operation.plan.as_ref().is_none_or(|p| p.actions.is_empty());
    let mut view = View::new(context.style, format!("{verb} nodes of {lab}"), format == Format::Json);
    let policy = Policy::ask_if_possible(format);
    let operation = follow(&client, operation, &mut view, Some(asked.wait.timeout), policy).await?;
    if format == Format::Json {
        context.print(&json::text(&json::value("Operation", &operation)))?;
    } else if nothing {
        context.print(&format!("Nothing to do: they are {done} already\n"))?;
    } else if operation.state() == api::OperationState::Succeeded {
        let nodes = operation.progress.iter().filter(|p| p.object == "node").count();
        let what = count(i128::try_from(nodes).unwrap_or_default(), "node");
        context.print(&format!(
            "{}{} {what} of {lab} in {}\n",
            done[..1].to_uppercase(),
            &done[1..],
            view.elapsed()
        ))?;
    }
    judge(&operation)
}

async fn change(
    client: &Client,
    node: &Change,
    name: String,
    others: Vec<String>,
) -> Result<api::Operation, Status> {
    let request_id = uuid::Uuid::new_v4().to_string();
    let mut nodes = client.nodes();
    let answer = match node {
        Change::Start(_) => nodes.start_node(api::StartNodeRequest { name, request_id, others }).await?,
        Change::Stop(_) => nodes.stop_node(api::StopNodeRequest { name, request_id, others }).await?,
        Change::Restart(_) => {
            nodes.restart_node(api::RestartNodeRequest { name, request_id, others }).await?
        }
        Change::Wipe(_) => nodes.wipe_node(api::WipeNodeRequest { name, request_id, others }).await?,
    };
    Ok(answer.into_inner())
}

/// The resource name of the first node that is meant, and the ids of the others. A pattern means those that can be started and stopped.
pub(super) async fn meant(client: &Client, asked: &Nodes) -> Result<(String, Vec<String>), Error> {
    let is_pattern = |name: &String| name.contains(['*', '?']);
    let mut ids: BTreeSet<String> = asked.nodes.iter().filter(|n| !is_pattern(n)).cloned().collect();
    if asked.nodes.iter().any(is_pattern) {
        let all = client.all_nodes(&format!("labs/{}", asked.lab)).await?;
        for pattern in asked.nodes.iter().filter(|n| is_pattern(n)) {
            let fits =
                |n: &&api::Node| n.runtime() != api::Runtime::Bridge && matches(pattern, last(&n.name));
            let found: Vec<String> = all.iter().filter(fits).map(|n| last(&n.name).to_owned()).collect();
            if found.is_empty() {
                let message = format!("no node of lab {} is called like \"{pattern}\"", asked.lab);
                return Err(Failure::new(Code::NotFound, "NODE_NOT_FOUND", message).into());
            }
            ids.extend(found);
        }
    }
    let mut ids = ids.into_iter();
    let first = ids.next().unwrap_or_default();
    Ok((format!("labs/{}/nodes/{first}", asked.lab), ids.collect()))
}

/// True when a name fits a pattern, in which * stands for any text and ? for any character, ignoring case.
fn matches(pattern: &str, name: &str) -> bool {
    fn fits(pattern: &[char], name: &[char]) -> bool {
        match pattern.split_first() {
            None => name.is_empty(),
            Some(('*', rest)) => (0..=name.len()).any(|skip| fits(rest, &name[skip..])),
            Some(('?', rest)) => !name.is_empty() && fits(rest, &name[1..]),
            Some((c, rest)) => {
                name.first().is_some_and(|n| n.eq_ignore_ascii_case(c)) && fits(rest, &name[1..])
            }
        }
    }
    let characters = |text: &str| text.chars().collect::<Vec<_>>();
    fits(&characters(pattern), &characters(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_whole_names() {
        for (pattern, name) in [("*", "r1"), ("r*", "R12"), ("r?", "r1"), ("*-leaf", "a-leaf"), ("r1", "r1")]
        {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [("r?", "r12"), ("r*", "xr1"), ("?", ""), ("r1", "r10")] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }
}
