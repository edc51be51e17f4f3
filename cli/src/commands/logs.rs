//! `logs`: what the first processes of nodes wrote.

use std::collections::HashMap;
use std::time::Duration;

use anstream::adapter::StripBytes;
use futures::stream::{FuturesUnordered, StreamExt as _};
use netloom_api::v1 as api;
use netloom_api::v1::stream_logs_response::Part;
use netloom_api::v1::watch_labs_response::Object;
use netloom_service::status::is_lost;
use prost_reflect::prost_types::Timestamp;
use tonic::{Status, Streaming};

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
use crate::watching::{Heard, Watch, next_pause};

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
                let log = Log::new(&client, name, args.follow, tail);
                async move { (name, print(context, log, args.raw, width).await) }
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

/// Prints the log of a node; with a width, its name padded to that before each line. One that is followed goes on after the last line that came when the
/// server went away and is back, and ends when the node is removed.
async fn print(context: &Context, mut log: Log<'_>, raw: bool, width: Option<usize>) -> Result<(), Error> {
    let lines = |style| width.map(|width| Lines::new(style, last(log.name), width));
    let (mut out, mut err) = (lines(context.style), lines(context.error_style));
    let (mut plain_out, mut plain_err) = (StripBytes::new(), StripBytes::new());
    while let Some(part) = log.next().await? {
        let told = |lines: &mut Option<Lines>, plain: &mut StripBytes, bytes: Vec<u8>| {
            let bytes = if raw { bytes } else { plain.strip_next(&bytes).collect::<Vec<_>>().concat() };
            match lines {
                Some(lines) => lines.take(&bytes),
                None => bytes,
            }
        };
        match part {
            Part::Stdout(bytes) => write(&mut std::io::stdout(), &told(&mut out, &mut plain_out, bytes))?,
            Part::Stderr(bytes) => write(&mut std::io::stderr(), &told(&mut err, &mut plain_err, bytes))?,
        }
    }
    write(&mut std::io::stdout(), &out.map(|mut l| l.rest()).unwrap_or_default())?;
    write(&mut std::io::stderr(), &err.map(|mut l| l.rest()).unwrap_or_default())
}

/// The log of a node.
struct Log<'a> {
    client: &'a Client,
    name: &'a str,
    follow: bool,
    tail: u32,
    /// When the last line that came was written.
    after: Option<Timestamp>,
    parts: Option<Streaming<api::StreamLogsResponse>>,
    /// Pause before the next attempt, once a first one was answered.
    away: Option<Duration>,
}

impl<'a> Log<'a> {
    fn new(client: &'a Client, name: &'a str, follow: bool, tail: u32) -> Log<'a> {
        Log { client, name, follow, tail, after: None, parts: None, away: None }
    }

    /// What was written next; none when there is no more.
    async fn next(&mut self) -> Result<Option<Part>, Error> {
        loop {
            let Some(parts) = &mut self.parts else {
                let tail = if self.after.is_some() { 0 } else { self.tail };
                let (name, follow, after) = (self.name.to_owned(), self.follow, self.after);
                let request = api::StreamLogsRequest { name, follow, tail, after };
                match self.client.nodes().stream_logs(request).await {
                    Ok(parts) => {
                        self.parts = Some(parts.into_inner());
                        self.away = None;
                    }
                    Err(status) if self.away.is_some() => match self.pause(&status).await? {
                        true => {}
                        false => return Ok(None),
                    },
                    Err(status) => return Err(Error::gone(status)),
                }
                continue;
            };
            let ended = match parts.message().await {
                Ok(Some(message)) => {
                    self.after = message.write_time.or(self.after);
                    match message.part {
                        Some(part) => return Ok(Some(part)),
                        None => continue,
                    }
                }
                Ok(None) if !self.follow => return Ok(None),
                Err(status) if !self.follow => return Err(Error::gone(status)),
                // It ends when the node is removed, and may when a part of the server does.
                Ok(None) => {
                    let request = api::GetNodeRequest { name: self.name.to_owned() };
                    match self.client.nodes().get_node(request).await {
                        Ok(_) => Status::unavailable("the log broke off"),
                        Err(status) => status,
                    }
                }
                Err(status) => status,
            };
            self.parts = None;
            if !self.pause(&ended).await? {
                return Ok(None);
            }
        }
    }

    /// Waits before the server is asked again; false when there is nothing to ask for any more. What does not go by is an error.
    async fn pause(&mut self, status: &Status) -> Result<bool, Error> {
        match status.code() {
            tonic::Code::NotFound => return Ok(false),
            // Until the server has seen the node again, it is not known to run.
            tonic::Code::FailedPrecondition => {}
            _ if is_lost(status) => {}
            _ => return Err(Error::gone(status.clone())),
        }
        let pause = next_pause(self.away);
        self.away = Some(pause);
        tokio::time::sleep(pause).await;
        Ok(true)
    }
}

/// Says on standard error when one of these nodes is started again, and when the server goes away and is back. Never ends: where the server does not tell, nothing is said.
async fn tell_starts(context: &Context, client: &Client, lab: &str, names: &[String]) {
    let mut started: HashMap<String, (i64, i32)> = HashMap::new();
    if let Ok(mut watch) = Watch::begin(client, Some(lab), 0).await {
        while let Ok(heard) = watch.next().await {
            let note = context.error_style.paint(Tone::Busy, "note:");
            let event = match heard {
                Heard::Event(event) => event,
                Heard::Lost(why) => {
                    let why = one_line(&why);
                    eprintln!("{note} the server went away ({why}); asks it again until it is back");
                    continue;
                }
                Heard::Back => {
                    eprintln!("{note} the server is back: goes on after the last line");
                    continue;
                }
                Heard::Anew => continue,
            };
            let Some(Object::Node(node)) = event.object else { continue };
            let Some(time) = node.start_time.filter(|_| names.contains(&node.name)) else { continue };
            let time = (time.seconds, time.nanos);
            if started.insert(node.name.clone(), time).is_some_and(|before| before != time) {
                eprintln!("{note} {} was started again ({})", last(&node.name), clock());
            }
        }
    }
    std::future::pending().await
}
