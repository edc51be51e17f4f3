//! `events`: what changes in labs, as it changes.

use netloom_api::v1 as api;

use super::Context;
use crate::args::Format;
use crate::args::lookat::Events;
use crate::client::Client;
use crate::error::Error;
use crate::output::events::Known;
use crate::output::json;
use crate::output::style::{Style, Tone, one_line};
use crate::watching::{Heard, Watch};

/// Follows them until Ctrl-C.
pub async fn run(context: &Context, args: Events) -> Result<(), Error> {
    let client = context.client().await?;
    let shown = Shown { format: args.output.format, snapshot: !args.no_snapshot };
    let mut stop = Stop::listen()?;
    tokio::select! {
        ended = follow(context, &client, args.lab.as_deref(), args.since, shown) => ended,
        // Nothing else ends it, so this is no failure.
        () = stop.wanted() => Ok(()),
    }
}

/// What of the events is printed, and how.
#[derive(Clone, Copy)]
pub struct Shown {
    /// Lines for people, or JSON a line for programs.
    pub format: Format,
    /// Whether a snapshot is printed.
    pub snapshot: bool,
}

/// Prints events for ever.
pub async fn follow(
    context: &Context,
    client: &Client,
    lab: Option<&str>,
    since: u64,
    shown: Shown,
) -> Result<(), Error> {
    let mut watch = Watch::begin(client, lab, since).await?;
    let mut known = Known::default();
    loop {
        let event = match watch.next().await? {
            Heard::Event(event) => event,
            other => {
                say(context.error_style, &other);
                if matches!(other, Heard::Anew) {
                    known.clear();
                }
                continue;
            }
        };
        let in_snapshot =
            matches!(event.r#type(), api::WatchEventType::Snapshot | api::WatchEventType::SnapshotEnd);
        let line = match shown.format {
            Format::Table => known.line(context.style, &event, &at(&event)),
            // A heartbeat is for connections, not for readers.
            Format::Json if event.r#type() == api::WatchEventType::Heartbeat => None,
            Format::Json => Some(json::value("WatchLabsResponse", &*event).to_string()),
        };
        if let Some(line) = line.filter(|_| shown.snapshot || !in_snapshot) {
            context.print(&format!("{line}\n"))?;
        }
    }
}

/// Says on standard error how the connection is.
pub fn say(style: Style, heard: &Heard) {
    let said = match heard {
        Heard::Event(_) => return,
        Heard::Lost(why) => {
            format!("the server went away ({}); asks it again until it is back", one_line(why))
        }
        Heard::Back => "the server is back: goes on after the last event".to_owned(),
        Heard::Anew => {
            "the server has no events after the last one that was seen: a new snapshot follows".to_owned()
        }
    };
    eprintln!("{} {said}", style.paint(Tone::Busy, "note:"));
}

/// When an event happened, as local time: when it was written to the server's log, else now.
fn at(event: &api::WatchLabsResponse) -> String {
    let written = event.time.and_then(|t| jiff::Timestamp::new(t.seconds, t.nanos).ok());
    written.map_or_else(clock, |t| t.to_zoned(jiff::tz::TimeZone::system()).strftime("%H:%M:%S").to_string())
}

/// The local time.
pub fn clock() -> String {
    jiff::Zoned::now().strftime("%H:%M:%S").to_string()
}

/// The ways in which the user ends what has no end.
pub struct Stop {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Stop {
    /// Listens from now on.
    pub fn listen() -> Result<Stop, Error> {
        use tokio::signal::unix::{SignalKind, signal};
        let listen = |kind| signal(kind).map_err(|e| Error::io("signals cannot be listened to", e));
        Ok(Stop { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    /// Waits for one.
    pub async fn wanted(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_the_time_at_which_it_was_written() {
        let at = |minute: i64| {
            let time = Some(prost_types::Timestamp { seconds: minute * 60 + 7, nanos: 0 });
            at(&api::WatchLabsResponse { time, ..Default::default() })
        };
        // Whatever the time zone is, it is one of whole minutes.
        assert!(at(28_333_333).ends_with(":07"), "{}", at(28_333_333));
        assert_ne!(at(28_333_333), at(28_333_334));
    }
}
