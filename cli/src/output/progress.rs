//! How far an operation is: plain lines where nobody looks, one for each state that changed; a frame drawn in place where somebody does.

use std::collections::HashMap;
use std::time::Duration;

use netloom_api::v1 as api;

use super::style::{Style, Tone, one_line};
use super::words;

/// What was said already.
#[derive(Debug, Default)]
pub struct Seen {
    states: HashMap<(String, String), (String, String)>,
}

impl Seen {
    /// A line for each node or link whose state or detail is another than before.
    pub fn lines(&mut self, style: Style, elapsed: Duration, operation: &api::Operation) -> Vec<String> {
        let mut lines = Vec::new();
        for p in &operation.progress {
            let now = (p.state.clone(), p.detail.clone());
            let before = self.states.insert((p.object.clone(), p.id.clone()), now.clone());
            if before.as_ref() != Some(&now) {
                lines.push(format!("{:>7}  {}", seconds(elapsed), line(style, p, 0)));
            }
        }
        lines
    }
}

/// `12.3s`.
pub fn seconds(elapsed: Duration) -> String {
    format!("{:.1}s", elapsed.as_secs_f64())
}

/// The nodes and links that went wrong, each with its reason.
pub fn failures(operation: &api::Operation) -> Vec<String> {
    let bad = operation.progress.iter().filter(|p| is_bad(&p.state));
    bad.map(|p| line(Style::PLAIN, p, 0)).collect()
}

/// The frame: a summary and as many objects as fit, what is unfinished first.
pub fn frame(
    style: Style,
    title: &str,
    elapsed: Duration,
    operation: &api::Operation,
    (columns, rows): (usize, usize),
) -> Vec<String> {
    const SPINNER: [char; 10] = ['⠋', '⠙', '⠹', '⠸', '⠼', '⠴', '⠦', '⠧', '⠇', '⠏'];
    let turn = SPINNER[usize::try_from(elapsed.as_millis() / 100).unwrap_or(0) % SPINNER.len()];
    let count = |object: &str| {
        let all = operation.progress.iter().filter(|p| p.object == object);
        let done = all.clone().filter(|p| is_done(operation.kind(), &p.state)).count();
        (done, all.count())
    };
    let mut header = format!("{turn} {title}  {}", seconds(elapsed));
    for object in ["node", "link"] {
        if let (done, all @ 1..) = count(object) {
            header.push_str(&format!("  {object}s {done}/{all}"));
        }
    }
    let mut lines = vec![style.paint(Tone::Strong, &cut(&header, columns))];

    let rank =
        |p: &&api::Progress| (is_done(operation.kind(), &p.state), !is_bad(&p.state), p.object != "node");
    let mut objects: Vec<&api::Progress> = operation.progress.iter().collect();
    // A short list keeps its order and does not jump.
    let room = rows.saturating_sub(3).max(1);
    if objects.len() > room {
        objects.sort_by_key(rank);
    }
    let width = objects.iter().take(room).map(|p| p.id.len()).max().unwrap_or(0).min(columns / 2);
    for p in objects.iter().take(room) {
        let plain = format!("  {}", line(Style::PLAIN, p, width));
        let plain = cut(&plain, columns);
        // The colour goes on last: a cut must not split it.
        lines.push(plain.replacen(
            &p.state,
            &style.paint(words::tone(&p.state), &p.state),
            usize::from(!p.state.is_empty()),
        ));
    }
    if objects.len() > room {
        lines.push(cut(&format!("  … and {} more", objects.len() - room), columns));
    }
    lines
}

fn line(style: Style, p: &api::Progress, width: usize) -> String {
    let state = style.paint(words::tone(&p.state), &p.state);
    let line = format!("{} {:width$}  {state}  {}", p.object, one_line(&p.id), one_line(&p.detail));
    line.trim_end().to_owned()
}

/// True when the operation has no more to do with it.
fn is_done(kind: api::OperationKind, state: &str) -> bool {
    match kind {
        api::OperationKind::Destroy => state == "GONE",
        _ => matches!(state, "READY" | "UP" | "GONE" | "STOPPED"),
    }
}

fn is_bad(state: &str) -> bool {
    matches!(state, "FAILED" | "UNSCHEDULABLE")
}

/// At most so many characters, so that a line is never wrapped.
fn cut(text: &str, columns: usize) -> String {
    if text.chars().count() <= columns {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(columns.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(states: &[(&str, &str, &str, &str)]) -> api::Operation {
        let progress = states
            .iter()
            .map(|(object, id, state, detail)| api::Progress {
                object: (*object).into(),
                id: (*id).into(),
                state: (*state).into(),
                detail: (*detail).into(),
            })
            .collect();
        api::Operation { progress, ..api::Operation::default() }
    }

    #[test]
    fn a_line_is_only_for_what_changed() {
        let mut seen = Seen::default();
        let first = operation(&[("node", "r1", "CREATING", ""), ("link", "r1:eth1--r2:eth1", "PENDING", "")]);
        let lines = seen.lines(Style::PLAIN, Duration::from_millis(120), &first);
        assert_eq!(lines, ["   0.1s  node r1  CREATING", "   0.1s  link r1:eth1--r2:eth1  PENDING"]);
        assert!(seen.lines(Style::PLAIN, Duration::from_secs(1), &first).is_empty());
        let second = operation(&[
            ("node", "r1", "FAILED", "exit\ncode 1"),
            ("link", "r1:eth1--r2:eth1", "PENDING", ""),
        ]);
        let lines = seen.lines(Style::PLAIN, Duration::from_millis(61_040), &second);
        assert_eq!(lines, ["  61.0s  node r1  FAILED  exit code 1"]);
        assert_eq!(failures(&second), ["node r1  FAILED  exit code 1"]);
    }

    #[test]
    fn a_small_lab_is_shown_whole_and_in_order() {
        let op = operation(&[
            ("node", "r1", "READY", ""),
            ("node", "router2", "STARTING", "waits for eth1"),
            ("link", "r1:eth1--router2:eth1", "PENDING", ""),
        ]);
        let shown = frame(Style::PLAIN, "deploys ospf", Duration::from_millis(4_200), &op, (80, 24));
        assert_eq!(
            shown,
            [
                "⠹ deploys ospf  4.2s  nodes 1/2  links 0/1",
                "  node r1                     READY",
                "  node router2                STARTING  waits for eth1",
                "  link r1:eth1--router2:eth1  PENDING",
            ]
        );
    }

    #[test]
    fn what_runs_is_not_done_while_it_is_being_removed() {
        let mut op = operation(&[("node", "r1", "GONE", ""), ("link", "r1:eth1--r2:eth1", "UP", "")]);
        op.kind = api::OperationKind::Destroy.into();
        let shown = frame(Style::PLAIN, "removes x", Duration::ZERO, &op, (80, 24));
        assert_eq!(shown[0], "⠋ removes x  0.0s  nodes 1/1  links 0/1");
    }

    #[test]
    fn a_large_lab_fits_the_terminal_with_what_is_unfinished_first() {
        let ids: Vec<String> = (0..100).map(|i| format!("n{i}")).collect();
        let mut states: Vec<(&str, &str, &str, &str)> =
            ids.iter().map(|id| ("node", id.as_str(), "READY", "")).collect();
        states[90].2 = "FAILED";
        states[95].2 = "PULLING";
        states[95].3 = "a detail that is much longer than the terminal is wide";
        let shown = frame(Style::PLAIN, "deploys big", Duration::ZERO, &operation(&states), (40, 10));
        assert_eq!(shown.len(), 1 + 7 + 1);
        assert!(shown[1].contains("n90") && shown[2].contains("n95"), "{shown:?}");
        assert_eq!(shown.last().map(String::as_str), Some("  … and 93 more"));
        assert!(shown.iter().all(|l| l.chars().count() <= 40), "{shown:?}");
    }
}
