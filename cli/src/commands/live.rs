//! `inspect --watch`: the tables, drawn anew with each change that the server tells; nothing is asked again and again.

use std::collections::BTreeMap;
use std::time::Duration;

use netloom_api::v1 as api;
use netloom_api::v1::WatchEventType as Type;
use netloom_api::v1::watch_labs_response::Object;

use super::events::{Shown, Stop, clock, follow};
use super::{Context, inspect};
use crate::args::Format;
use crate::client::Client;
use crate::error::Error;
use crate::output::style::{Tone, cut};
use crate::output::words::last;
use crate::terminal::{self, Canvas};
use crate::watching::{Heard, Watch};

/// How soon after a change the next frame may be drawn: changes come in crowds.
const FRAME: Duration = Duration::from_millis(100);

/// Where it is shown.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Surface {
    /// Drawn in place.
    Canvas,
    /// A line for each change.
    Lines,
}

/// Shows one lab, or all, until Ctrl-C; one lab also until it is gone.
pub async fn run(
    context: &Context,
    client: &Client,
    lab: Option<&str>,
    wide: bool,
    surface: Surface,
) -> Result<(), Error> {
    let mut stop = Stop::listen()?;
    let shown = async {
        match surface {
            Surface::Lines => {
                follow(context, client, lab, 0, Shown { format: Format::Table, snapshot: true }).await
            }
            Surface::Canvas => draw(context, client, lab, wide).await,
        }
    };
    tokio::select! {
        ended = shown => ended,
        () = stop.wanted() => Ok(()),
    }
}

/// What there is, by name.
#[derive(Default)]
struct There {
    labs: BTreeMap<String, api::Lab>,
    nodes: BTreeMap<String, api::Node>,
    links: BTreeMap<String, api::Link>,
}

impl There {
    fn take(&mut self, object: Object, gone: bool) {
        fn put<T>(map: &mut BTreeMap<String, T>, name: String, value: T, gone: bool) {
            if gone {
                map.remove(&name);
            } else {
                map.insert(name, value);
            }
        }
        match object {
            Object::Lab(o) => put(&mut self.labs, o.name.clone(), o, gone),
            Object::Node(o) => put(&mut self.nodes, o.name.clone(), o, gone),
            Object::Link(o) => put(&mut self.links, o.name.clone(), o, gone),
            Object::Operation(_) => {}
        }
    }

    fn text(&self, context: &Context, lab: Option<&str>, wide: bool) -> String {
        let nodes: Vec<api::Node> = self.nodes.values().cloned().collect();
        let links: Vec<api::Link> = self.links.values().cloned().collect();
        match (lab, self.labs.values().next()) {
            (Some(_), Some(lab)) => inspect::one_text(context, lab, &nodes, &links, wide, true),
            (Some(lab), None) => format!("Lab {lab} is not there\n"),
            (None, _) => {
                let labs: Vec<api::Lab> = self.labs.values().cloned().collect();
                inspect::all_text(context, &labs, &nodes, wide)
            }
        }
    }
}

async fn draw(context: &Context, client: &Client, lab: Option<&str>, wide: bool) -> Result<(), Error> {
    let mut watch = Watch::begin(client, lab, 0).await?;
    let mut there = There::default();
    let mut canvas = Canvas::default();
    let mut notice = String::new();
    let mut whole = false;
    let mut changed = false;
    let mut frames = tokio::time::interval(FRAME);
    frames.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            heard = watch.next() => match heard? {
                Heard::Event(event) => {
                    let kind = event.r#type();
                    whole |= kind == Type::SnapshotEnd;
                    changed |= kind != Type::Heartbeat;
                    let Some(object) = event.object else { continue };
                    if let (Type::Deleted, Object::Lab(gone), Some(_)) = (kind, &object, lab) {
                        wipe(&mut canvas)?;
                        return context.print(&format!("Lab {} is gone\n", last(&gone.name)));
                    }
                    there.take(object, kind == Type::Deleted);
                }
                Heard::Lost(_) => {
                    notice = format!("the server went away at {}; what is shown was true then", clock());
                    changed = true;
                }
                Heard::Back => {
                    notice.clear();
                    changed = true;
                }
                Heard::Anew => {
                    there = There::default();
                    whole = false;
                }
            },
            _ = frames.tick() => if changed && (whole || !notice.is_empty()) {
                changed = false;
                let (columns, rows) = terminal::size();
                let room = (usize::from(columns).saturating_sub(1), usize::from(rows).saturating_sub(1));
                let mut lines = fit(&there.text(context, lab, wide), room);
                let last_line = if notice.is_empty() {
                    context.style.paint(Tone::Dim, &cut("Ctrl-C ends this", room.0))
                } else {
                    context.style.paint(Tone::Busy, &cut(&notice, room.0))
                };
                lines.push(last_line);
                canvas.draw(&lines, columns.into()).map_err(|e| Error::io("the tables cannot be drawn", e))?;
            },
        }
    }
}

fn wipe(canvas: &mut Canvas) -> Result<(), Error> {
    canvas.draw(&[], terminal::size().0.into()).map_err(|e| Error::io("the tables cannot be drawn", e))
}

/// What fits on the terminal: long lines are cut, of many the rest is counted.
fn fit(text: &str, (columns, rows): (usize, usize)) -> Vec<String> {
    let mut lines: Vec<String> = text.lines().map(|l| cut(l, columns)).collect();
    // One row is for the notice.
    let most = rows.saturating_sub(1).max(1);
    if lines.len() > most {
        let hidden = lines.len() - (most - 1);
        lines.truncate(most - 1);
        lines.push(cut(&format!("… {hidden} more lines; a taller terminal shows them"), columns));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_counted() {
        let text = "one\ntwo\nthree\nfour\nfive\n";
        assert_eq!(fit(text, (80, 10)).len(), 5);
        assert_eq!(fit(text, (80, 4)), ["one", "two", "… 3 more lines; a taller terminal shows them"]);
        assert_eq!(fit("abcdef\n", (4, 9)), ["abc…"]);
    }
}
