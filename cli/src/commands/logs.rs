//! `logs`: what the first processes of nodes wrote.

use std::collections::HashMap;

use futures::stream::{FuturesUnordered, StreamExt as _};
use netloom_api::v1 as api;
use netloom_api::v1::stream_logs_response::Part;
use netloom_api::v1::watch_labs_response::Object;

use super::Context;
use super::events::{Stop, clock};
use super::exec::write;
use crate::args::node::Logs;
use crate::client::Client;
use crate::error::Error;
use crate::output::lines::Lines;
use crate::output::style::{Tone, one_line};
use crate::output::words::last;
use crate::select::Selection;
use crate::watching::{Heard, Watch};

/// Prints them, to the stream each was written to.
pub async fn run(context: &Context, args: Logs) -> Result<(), Error> {
    let selection = Selection::new(&args.nodes, &args.select)?;
    let client = context.client().await?;
    let tail = args.tail.unwrap_or(0);
    let names = match selection.only_one() {
        Some(node) => vec![format!("labs/{}/nodes/{node}", args.lab)],
        None => selection.of(&args.lab, &client.all_nodes(&format!("labs/{}", args.lab)).await?)?,
    };
    let width = (names.len() > 1 || selection.only_one().is_none())
        .then(|| names.iter().map(|n| last(n).len()).max().unwrap_or(0));
    let printing = async {
        let mut all: FuturesUnordered<_> = names
            .iter()
            .map(|name| {
                let (client, follow) = (&client, args.follow);
                async move { (name, print(context, client, name, follow, tail, width).await) }
            })
            .collect();
        let mut failed = Vec::new();
        while let Some((name, done)) = all.next().await {
            match done {
                Ok(()) => {}
                Err(e) if names.len() == 1 || e.is_broken_pipe() => return Err(e),
                // What the others write is printed all the same.
                Err(e) => failed.push(format!("\n  {}: {}", last(name), one_line(&e.to_string()))),
            }
        }
        match failed.len() {
            0 => Ok(()),
            n => Err(Error::Failed(format!(
                "of {n} of {} nodes there is no log:{}",
                names.len(),
                failed.concat()
            ))),
        }
    };
    if !args.follow {
        return printing.await;
    }
    let mut stop = Stop::listen()?;
    tokio::select! {
        done = printing => done,
        () = stop.wanted() => Ok(()),
        // A log is one stream over all starts of a node: where one begins is not in it.
        () = tell_starts(context, &client, &args.lab, &names) => Ok(()),
    }
}

/// Prints the log of a node; with a width, its name padded to that before each line.
async fn print(
    context: &Context,
    client: &Client,
    name: &str,
    follow: bool,
    tail: u32,
    width: Option<usize>,
) -> Result<(), Error> {
    let request = api::StreamLogsRequest { name: name.to_owned(), follow, tail };
    let mut parts = client.nodes().stream_logs(request).await.map_err(Error::gone)?.into_inner();
    let lines = |style| width.map(|width| Lines::new(style, last(name), width));
    let (mut out, mut err) = (lines(context.style), lines(context.error_style));
    while let Some(part) = parts.message().await.map_err(Error::gone)? {
        let told = |lines: &mut Option<Lines>, bytes: Vec<u8>| match lines {
            Some(lines) => lines.take(&bytes),
            None => bytes,
        };
        match part.part {
            Some(Part::Stdout(bytes)) => write(&mut std::io::stdout(), &told(&mut out, bytes))?,
            Some(Part::Stderr(bytes)) => write(&mut std::io::stderr(), &told(&mut err, bytes))?,
            None => {}
        }
    }
    write(&mut std::io::stdout(), &out.map(|mut l| l.rest()).unwrap_or_default())?;
    write(&mut std::io::stderr(), &err.map(|mut l| l.rest()).unwrap_or_default())
}

/// Says on standard error when one of these nodes is started again. Never ends: where the server does not tell, nothing is said.
async fn tell_starts(context: &Context, client: &Client, lab: &str, names: &[String]) {
    let mut started: HashMap<String, (i64, i32)> = HashMap::new();
    if let Ok(mut watch) = Watch::begin(client, Some(lab), 0).await {
        while let Ok(heard) = watch.next().await {
            let Heard::Event(event) = heard else { continue };
            let Some(Object::Node(node)) = event.object else { continue };
            let Some(time) = node.start_time.filter(|_| names.contains(&node.name)) else { continue };
            let time = (time.seconds, time.nanos);
            if started.insert(node.name.clone(), time).is_some_and(|before| before != time) {
                let note = context.error_style.paint(Tone::Busy, "note:");
                eprintln!("{note} {} was started again ({})", last(&node.name), clock());
            }
        }
    }
    std::future::pending().await
}
