//! A command in several nodes at once: what each wrote below its name, or line by line with the name before it, or as JSON.

use futures::stream::{self, StreamExt as _};
use netloom_api::v1 as api;
use netloom_api::v1::exec_node_response::Part;
use serde_json::{Map, Value, json};

use super::exec::write;
use super::{Context, exit_code};
use crate::args::Format;
use crate::client::Client;
use crate::error::Error;
use crate::output::json as out_json;
use crate::output::lines::Lines;
use crate::output::style::{Tone, one_line};
use crate::output::words::last;

/// Most bytes of one node's output that are held until it is complete.
const MAX_HELD: usize = 16 << 20;

/// How it is done and shown.
#[derive(Clone, Copy)]
pub struct How {
    /// Tables, which here is text, or JSON.
    pub format: Format,
    /// Each line as it comes, with the node's name before it.
    pub prefix: bool,
    /// Nodes at once.
    pub at_once: usize,
}

/// How it ended in a node.
struct Ended {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    /// The exit code, or why there is none.
    outcome: Result<i32, Error>,
}

/// Runs the command in these nodes; ends with the highest exit code, at least 1 where it could not be run.
pub async fn run(
    context: &Context,
    client: &Client,
    nodes: &[String],
    request: &api::ExecNodeRequest,
    how: How,
) -> Result<u8, Error> {
    let width = nodes.iter().map(|n| last(n).len()).max().unwrap_or(0);
    let mut ended = stream::iter(nodes.to_vec())
        .map(|node| async move {
            let ended = one(context, client, &node, request, how.prefix.then_some(width)).await;
            (node, ended)
        })
        .buffered(how.at_once.max(1));
    let mut highest = 0;
    let mut failed = Vec::new();
    let mut all = Map::new();
    while let Some((name, ended)) = ended.next().await {
        let id = last(&name).to_owned();
        let ended = ended?;
        let (code, why) = match &ended.outcome {
            Ok(code) => (Some(*code), String::new()),
            Err(e) => (None, one_line(&e.to_string())),
        };
        highest = highest.max(code.map_or(1, exit_code));
        match code {
            None => failed.push(format!("{id} ({why})")),
            Some(0) => {}
            Some(code) => failed.push(format!("{id} (exit code {code})")),
        }
        if how.format == Format::Json {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let mut value = json!({
                "stdout": text(&ended.stdout), "stderr": text(&ended.stderr), "exit_code": code,
            });
            if code.is_none() {
                value["error"] = Value::String(why);
            }
            all.insert(id, value);
        } else if !how.prefix {
            let head = match code {
                Some(0) => format!("== {id}"),
                Some(code) => format!("== {id}: exit code {code}"),
                None => format!("== {id}: {why}"),
            };
            let tone = if code == Some(0) { Tone::Strong } else { Tone::Bad };
            context.print(&format!("{}\n", context.style.paint(tone, &head)))?;
            write(&mut std::io::stdout(), &ended_line(ended.stdout))?;
            write(&mut std::io::stderr(), &ended_line(ended.stderr))?;
        }
    }
    if how.format == Format::Json {
        context.print(&out_json::text(&Value::Object(all)))?;
    } else if !failed.is_empty() {
        eprintln!("{} of {} nodes failed: {}", failed.len(), nodes.len(), failed.join(", "));
    }
    Ok(highest)
}

/// What follows begins on a line of its own.
fn ended_line(mut bytes: Vec<u8>) -> Vec<u8> {
    if bytes.last().is_some_and(|b| *b != b'\n') {
        bytes.push(b'\n');
    }
    bytes
}

/// Runs it in one node. An error is one of this program's own; what the node or the server says is in the outcome.
async fn one(
    context: &Context,
    client: &Client,
    name: &str,
    request: &api::ExecNodeRequest,
    prefix: Option<usize>,
) -> Result<Ended, Error> {
    let request = api::ExecNodeRequest { name: name.to_owned(), ..request.clone() };
    let mut ended = Ended { stdout: Vec::new(), stderr: Vec::new(), outcome: Ok(0) };
    let gone = || Error::Unreachable("the server went away before the command's exit code came".to_owned());
    let mut parts = match client.nodes().exec_node(request).await {
        Ok(parts) => parts.into_inner(),
        Err(status) => return Ok(Ended { outcome: Err(Error::gone(status)), ..ended }),
    };
    let id = last(name);
    let mut out = Lines::new(context.style, id, prefix.unwrap_or(0));
    let mut err = Lines::new(context.error_style, id, prefix.unwrap_or(0));
    ended.outcome = loop {
        let part = match parts.message().await {
            Ok(Some(part)) => part.part,
            Ok(None) => break Err(gone()),
            Err(status) => break Err(Error::gone(status)),
        };
        match part {
            Some(Part::Stdout(bytes)) if prefix.is_some() => {
                write(&mut std::io::stdout(), &out.take(&bytes))?
            }
            Some(Part::Stderr(bytes)) if prefix.is_some() => {
                write(&mut std::io::stderr(), &err.take(&bytes))?
            }
            Some(Part::Stdout(bytes)) => ended.stdout.extend(bytes),
            Some(Part::Stderr(bytes)) => ended.stderr.extend(bytes),
            Some(Part::ExitCode(code)) => break Ok(code),
            None => {}
        }
        if ended.stdout.len() + ended.stderr.len() > MAX_HELD {
            break Err(Error::Failed(format!(
                "it wrote more than {} MiB; with --prefix nothing is held back",
                MAX_HELD >> 20
            )));
        }
    };
    write(&mut std::io::stdout(), &out.rest())?;
    write(&mut std::io::stderr(), &err.rest())?;
    Ok(ended)
}
