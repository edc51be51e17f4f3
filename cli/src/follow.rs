//! Follows an operation to its end, and shows how far it is.
//!
//! The operation lives in the server: a lost connection is made again, and leaving early changes nothing.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use netloom_api::v1 as api;
use netloom_service::status::is_lost;
use tonic::Status;

use crate::client::Client;
use crate::error::Error;
use crate::output::progress::{Seen, failures, frame, seconds};
use crate::output::style::Style;
use crate::output::words::last;
use crate::terminal::{self, Canvas};

/// How long a server that went away is waited for.
const AWAY: Duration = Duration::from_secs(60);
/// How long to wait before asking it again.
const AGAIN: Duration = Duration::from_millis(500);
/// How often the frame is drawn.
const FRAME: Duration = Duration::from_millis(100);

/// Where progress is shown.
pub struct View {
    style: Style,
    started: Instant,
    title: String,
    surface: Surface,
}

enum Surface {
    /// Drawn in place.
    Canvas(Canvas),
    /// A line for each change, on standard output.
    Lines(Seen),
    /// The same on standard error, where standard output is for programs.
    ErrorLines(Seen),
}

impl View {
    /// In place on a terminal, else lines; on standard error when standard output is for programs.
    pub fn new(style: Style, title: String, for_programs: bool) -> View {
        let surface = if for_programs {
            Surface::ErrorLines(Seen::default())
        } else if std::io::stdout().is_terminal() {
            Surface::Canvas(Canvas::default())
        } else {
            Surface::Lines(Seen::default())
        };
        View { style, started: Instant::now(), title, surface }
    }

    /// How long it has been shown.
    pub fn elapsed(&self) -> String {
        seconds(self.started.elapsed())
    }

    fn show(&mut self, operation: &api::Operation) -> Result<(), Error> {
        let elapsed = self.started.elapsed();
        match &mut self.surface {
            Surface::Canvas(canvas) => {
                let (columns, rows) = terminal::size();
                // Not all terminals wait for one more character before they wrap: the last column stays free.
                let room = (usize::from(columns).saturating_sub(1), usize::from(rows));
                let lines = frame(self.style, &self.title, elapsed, operation, room);
                canvas.draw(&lines, columns.into())
            }
            Surface::Lines(seen) => {
                let mut out = std::io::stdout().lock();
                seen.lines(self.style, elapsed, operation).iter().try_for_each(|l| writeln!(out, "{l}"))
            }
            Surface::ErrorLines(seen) => {
                let mut out = std::io::stderr().lock();
                seen.lines(Style::PLAIN, elapsed, operation).iter().try_for_each(|l| writeln!(out, "{l}"))
            }
        }
        .map_err(|e| Error::io("progress cannot be printed", e))
    }

    pub(crate) fn wipe(&mut self) {
        if let Surface::Canvas(canvas) = &mut self.surface {
            // What was drawn is only decoration.
            let _ = canvas.draw(&[], terminal::size().0.into());
        }
    }
}

/// Watches an operation until it is done, however often the connection is lost.
pub(crate) async fn to_its_end(
    client: &Client,
    mut operation: api::Operation,
    view: &mut View,
) -> Result<api::Operation, Error> {
    let mut heard = Instant::now();
    view.show(&operation)?;
    while !operation.done {
        let lost = match watch(client, &mut operation, view, &mut heard).await? {
            None => continue,
            Some(lost) => lost,
        };
        if heard.elapsed() > AWAY {
            return Err(Error::gone(lost));
        }
        tokio::time::sleep(AGAIN).await;
    }
    Ok(operation)
}

/// Watches until the operation is done or the connection is lost, which is returned.
async fn watch(
    client: &Client,
    operation: &mut api::Operation,
    view: &mut View,
    heard: &mut Instant,
) -> Result<Option<Status>, Error> {
    let request = api::WatchOperationRequest { name: operation.name.clone() };
    let mut stream = match client.operations().watch_operation(request).await {
        Ok(answer) => answer.into_inner(),
        Err(status) => return lost(status).map(Some),
    };
    let mut spoke = false;
    let mut frames = tokio::time::interval(FRAME);
    while !operation.done {
        tokio::select! {
            message = stream.message() => match message {
                Ok(Some(now)) => {
                    *operation = now;
                    spoke = true;
                    view.show(operation)?;
                }
                ended => {
                    // A server that spoke on this stream was there until now, however long it had nothing to say.
                    if spoke {
                        *heard = Instant::now();
                    }
                    let status = ended.err().unwrap_or_else(|| Status::unavailable("the server ended the stream"));
                    return lost(status).map(Some);
                }
            },
            _ = frames.tick() => view.show(operation)?,
        }
    }
    Ok(None)
}

/// The status of a connection that was lost; an error when it is an answer that will not change.
fn lost(status: Status) -> Result<Status, Error> {
    if is_lost(&status) { Ok(status) } else { Err(status.into()) }
}

/// An error when the operation did not succeed, with each node and link at fault.
pub fn judge(operation: &api::Operation) -> Result<(), Error> {
    let lab = last(&operation.lab_name);
    let what = match operation.kind() {
        api::OperationKind::Destroy => "the removal",
        api::OperationKind::Start => "the start of nodes",
        api::OperationKind::Stop => "the stop of nodes",
        api::OperationKind::Restart => "the restart of nodes",
        api::OperationKind::Wipe => "the wipe of nodes",
        api::OperationKind::Restore => "the restore of a node",
        api::OperationKind::Move => "the move of nodes",
        _ => "the deploy",
    };
    match operation.state() {
        api::OperationState::Succeeded => Ok(()),
        api::OperationState::Cancelled => Err(Error::Failed(format!("{what} of {lab} was cancelled"))),
        _ => {
            let why = operation.error.as_ref().map_or("", |e| e.message.as_str());
            let separator = if why.is_empty() { "" } else { ": " };
            let changes_nothing = operation.kind() == api::OperationKind::Deploy
                && operation.plan.as_ref().is_some_and(|p| p.actions.is_empty());
            let mut text = if changes_nothing {
                format!("there was nothing to change in {lab}, and not all of it is ready{separator}{why}")
            } else {
                format!("{what} of {lab} failed{separator}{why}")
            };
            for failure in failures(operation, why) {
                text.push_str(&format!("\n  {failure}"));
            }
            Err(Error::Failed(text))
        }
    }
}
