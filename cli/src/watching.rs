//! Follows what changes in labs, for as long as the user wants: a connection that is lost is made again and goes on after the last event that was seen;
//! where the server no longer has what came after that, everything is told anew.

use std::time::Duration;

use netloom_api::v1 as api;
use netloom_service::status::{from_status, is_lost};
use tonic::{Status, Streaming};

use crate::client::Client;
use crate::error::Error;

/// First pause before a server that went away is asked again; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Longest pause.
const LAST_PAUSE: Duration = Duration::from_secs(5);
/// The server says something every 5 s: one that is silent for so long is gone.
const SILENCE: Duration = Duration::from_secs(30);

/// What is heard.
#[derive(Debug)]
pub enum Heard {
    /// An event.
    Event(Box<api::WatchLabsResponse>),
    /// The server went away; it is asked again. Told once.
    Lost(String),
    /// The server is back.
    Back,
    /// What was told before is void: a new snapshot follows.
    Anew,
}

/// A watch of one lab, or of all.
pub struct Watch<'a> {
    client: &'a Client,
    name: String,
    since: u64,
    stream: Option<Streaming<api::WatchLabsResponse>>,
    /// Pause before the next attempt, while the server is away.
    away: Option<Duration>,
    /// Whether part of a snapshot was told that is not complete.
    in_snapshot: bool,
}

impl<'a> Watch<'a> {
    /// Begins after an event, or with a snapshot for 0. That the server refuses, or does not answer now, is an error.
    pub async fn begin(client: &'a Client, lab: Option<&str>, since: u64) -> Result<Watch<'a>, Error> {
        let name = lab.map(|lab| format!("labs/{lab}")).unwrap_or_default();
        let mut watch = Watch { client, name, since, stream: None, away: None, in_snapshot: false };
        match watch.open().await {
            Ok(stream) => watch.stream = Some(stream),
            Err(status) if is_relist(&status) => {}
            Err(status) => return Err(Error::gone(status)),
        }
        Ok(watch)
    }

    /// What comes next. It may be dropped before it is over: nothing is lost by that.
    pub async fn next(&mut self) -> Result<Heard, Error> {
        loop {
            let Some(stream) = &mut self.stream else {
                if let Some(pause) = self.away {
                    tokio::time::sleep(pause).await;
                }
                match self.open().await {
                    Ok(stream) => {
                        self.stream = Some(stream);
                        if self.away.take().is_some() {
                            return Ok(Heard::Back);
                        }
                    }
                    Err(status) if is_relist(&status) => {
                        self.since = 0;
                        return Ok(Heard::Anew);
                    }
                    Err(status) if is_lost(&status) => {
                        if let Some(lost) = self.lost(&status) {
                            return Ok(lost);
                        }
                    }
                    Err(status) => return Err(status.into()),
                }
                continue;
            };
            let ended = match tokio::time::timeout(SILENCE, stream.message()).await {
                Ok(Ok(Some(event))) => {
                    use api::WatchEventType as Type;
                    match event.r#type() {
                        // Of half a snapshot there is nothing to go on after.
                        Type::Snapshot => self.in_snapshot = true,
                        _ => {
                            self.in_snapshot = false;
                            self.since = event.sequence;
                        }
                    }
                    return Ok(Heard::Event(Box::new(event)));
                }
                Ok(Ok(None)) => Status::unavailable("the server ended the stream"),
                Ok(Err(status)) => status,
                Err(_) => Status::unavailable("the server says nothing any more"),
            };
            self.stream = None;
            if is_relist(&ended) {
                self.since = 0;
                return Ok(Heard::Anew);
            }
            if !is_lost(&ended) {
                return Err(ended.into());
            }
            if std::mem::take(&mut self.in_snapshot) {
                self.since = 0;
                self.lost(&ended);
                return Ok(Heard::Anew);
            }
            if let Some(lost) = self.lost(&ended) {
                return Ok(lost);
            }
        }
    }

    async fn open(&self) -> Result<Streaming<api::WatchLabsResponse>, Status> {
        let request = api::WatchLabsRequest { name: self.name.clone(), since: self.since };
        self.client.labs().watch_labs(request).await.map(|answer| answer.into_inner())
    }

    /// Counts an attempt that failed; the first is told.
    fn lost(&mut self, status: &Status) -> Option<Heard> {
        let first = self.away.is_none();
        self.away = Some(next_pause(self.away));
        first.then(|| Heard::Lost(status.message().to_owned()))
    }
}

/// The pause before a server that went away is asked again, after this one.
pub fn next_pause(before: Option<Duration>) -> Duration {
    before.map_or(FIRST_PAUSE, |pause| (pause * 2).min(LAST_PAUSE))
}

fn is_relist(status: &Status) -> bool {
    status.code() == tonic::Code::OutOfRange && from_status(status).reason == "RELIST_NEEDED"
}
