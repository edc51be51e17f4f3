//! How far an operation is: plain lines where nobody looks, one for each state that changed, and now and then one for what boots; a frame drawn in place where somebody does.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use netloom_api::v1 as api;
use netloom_model::state::booting;

use super::style::{Style, Tone, clip, one_line};
use super::table::MAX_REASON;
use super::words;

/// How often it is said that something boots still, where nobody looks at a terminal.
const STILL: Duration = Duration::from_secs(15);

/// What was said already.
#[derive(Debug, Default)]
pub struct Seen {
    states: HashMap<(String, String), (String, String)>,
    /// When something was last said of a node.
    told: HashMap<String, Duration>,
}

impl Seen {
    /// A line for each node or link whose state is another than before, nodes first and in natural order. A detail that goes on changing is for those who
    /// look at a terminal, but for why something failed; and a link has nothing to say before it has a state.
    pub fn lines(&mut self, style: Style, elapsed: Duration, operation: &api::Operation) -> Vec<String> {
        let mut changed: Vec<&api::Progress> = Vec::new();
        for p in &operation.progress {
            let now = (p.state.clone(), if is_bad(&p.state) { p.detail.clone() } else { String::new() });
            let before = self.states.insert((p.object.clone(), p.id.clone()), now.clone());
            let is_first_of_link = before.is_none() && p.object == "link" && p.state == "PENDING";
            let is_still =
                || p.boot.is_some() && self.told.get(&p.id).is_some_and(|at| elapsed >= *at + STILL);
            if before.as_ref() != Some(&now) && !is_first_of_link || is_still() {
                changed.push(p);
                if p.object == "node" {
                    self.told.insert(p.id.clone(), elapsed);
                }
            }
        }
        changed.sort_by_cached_key(|p| (p.object != "node", words::natural(&p.id)));
        let told = |p: &api::Progress| {
            let detail = clip(&detail(p), MAX_REASON);
            format!("{:>7}  {}", seconds(elapsed), line(style, p, 0, &detail))
        };
        changed.into_iter().map(told).collect()
    }
}

/// `12.3s`.
pub fn seconds(elapsed: Duration) -> String {
    format!("{:.1}s", elapsed.as_secs_f64())
}

/// The nodes and links that went wrong, each with its whole reason, unless that was `told` already.
pub fn failures(operation: &api::Operation, told: &str) -> Vec<String> {
    let told = one_line(told);
    let is_told = |p: &api::Progress| {
        let reason = one_line(&p.detail);
        !reason.is_empty() && told.contains(&p.id) && told.contains(&reason)
    };
    let bad = operation.progress.iter().filter(|p| is_bad(&p.state) && !is_told(p));
    bad.map(|p| line(Style::PLAIN, p, 0, &one_line(&p.detail))).collect()
}

/// The frame: a summary and as many objects as fit, what is unfinished first. It always leaves the window's last row free for the cursor: a taller one
/// would scroll, and what has scrolled away cannot be drawn over.
pub fn frame(
    style: Style,
    title: &str,
    elapsed: Duration,
    operation: &api::Operation,
    (columns, rows): (usize, usize),
) -> Vec<String> {
    const SPINNER: [char; 10] = ['⠋', '⠙', '⠹', '⠸', '⠼', '⠴', '⠦', '⠧', '⠇', '⠏'];
    let turn = SPINNER[usize::try_from(elapsed.as_millis() / 100).unwrap_or(0) % SPINNER.len()];
    let mut header = format!("{turn} {title}  {}", seconds(elapsed));
    for object in ["node", "link"] {
        if let (done, all @ 1..) = count(operation, object) {
            header.push_str(&format!("  {object}s {done}/{all}"));
        }
    }
    // Cut lines are never wrapped.
    let mut lines = vec![style.paint(Tone::Strong, &clip(&header, columns))];

    let rank =
        |p: &&api::Progress| (is_done(operation.kind(), &p.state), !is_bad(&p.state), p.object != "node");
    let mut objects: Vec<&api::Progress> = operation.progress.iter().collect();
    let room = rows.saturating_sub(2);
    // A short list keeps its order and does not jump; a long one needs a line for what it leaves out.
    let shown = if objects.len() <= room {
        objects.len()
    } else {
        objects.sort_by_key(rank);
        room.saturating_sub(1)
    };
    let width = objects.iter().take(shown).map(|p| p.id.len()).max().unwrap_or(0).min(columns / 2);
    for p in objects.iter().take(shown) {
        let plain = format!("  {}", line(Style::PLAIN, p, width, &detail(p)));
        let plain = clip(&plain, columns);
        // The colour goes on last: a cut must not split it.
        lines.push(plain.replacen(
            &p.state,
            &style.paint(words::tone(&p.state), &p.state),
            usize::from(!p.state.is_empty()),
        ));
    }
    if room > 0 && objects.len() > shown {
        lines.push(clip(&format!("  … and {} more", objects.len() - shown), columns));
    }
    lines
}

/// How many nodes or links of an operation are done, and how many there are.
pub fn count(operation: &api::Operation, object: &str) -> (usize, usize) {
    let all = operation.progress.iter().filter(|p| p.object == object);
    let done = all.clone().filter(|p| is_done(operation.kind(), &p.state)).count();
    (done, all.count())
}

/// Why, or what is being done; for how long it boots, now.
fn detail(p: &api::Progress) -> String {
    let Some(boot) = &p.boot else { return one_line(&p.detail) };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    booting(now - boot.start_time.map_or(now, |at| at.seconds), boot.limit_seconds)
}

fn line(style: Style, p: &api::Progress, width: usize, detail: &str) -> String {
    let state = style.paint(words::tone(&p.state), &p.state);
    let line = format!("{} {:width$}  {state}  {detail}", p.object, one_line(&p.id));
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
                boot: None,
            })
            .collect();
        api::Operation { progress, ..api::Operation::default() }
    }

    #[test]
    fn a_line_is_only_for_what_changed() {
        let mut seen = Seen::default();
        let first = operation(&[("node", "r1", "CREATING", ""), ("link", "r1:eth1--r2:eth1", "PENDING", "")]);
        let lines = seen.lines(Style::PLAIN, Duration::from_millis(120), &first);
        assert_eq!(lines, ["   0.1s  node r1  CREATING"]);
        let pulled =
            operation(&[("node", "r1", "CREATING", "12%"), ("link", "r1:eth1--r2:eth1", "PENDING", "r1")]);
        assert!(seen.lines(Style::PLAIN, Duration::from_secs(1), &pulled).is_empty(), "nobody looks");
        assert!(seen.lines(Style::PLAIN, Duration::from_secs(1), &first).is_empty());
        let second = operation(&[
            ("node", "r1", "FAILED", "exit\ncode 1"),
            ("link", "r1:eth1--r2:eth1", "PENDING", ""),
        ]);
        let lines = seen.lines(Style::PLAIN, Duration::from_millis(61_040), &second);
        assert_eq!(lines, ["  61.0s  node r1  FAILED  exit code 1"]);
        assert_eq!(failures(&second, ""), ["node r1  FAILED  exit code 1"]);
        assert!(failures(&second, "1 node is not up\n  r1: FAILED: exit code 1").is_empty());
    }

    #[test]
    fn lines_are_in_order() {
        let all = operation(&[
            ("link", "a:1--b:1", "UP", ""),
            ("node", "n10", "READY", ""),
            ("node", "n2", "READY", ""),
        ]);
        let lines = Seen::default().lines(Style::PLAIN, Duration::ZERO, &all);
        assert_eq!(
            lines,
            ["   0.0s  node n2  READY", "   0.0s  node n10  READY", "   0.0s  link a:1--b:1  UP"]
        );
    }

    #[test]
    fn a_long_reason_is_whole_only_among_the_failures() {
        let reason = "x".repeat(300);
        let failed = operation(&[("node", "r1", "FAILED", &reason)]);
        let lines = Seen::default().lines(Style::PLAIN, Duration::ZERO, &failed);
        assert!(lines[0].ends_with("xx…") && lines[0].chars().count() < 120, "{lines:?}");
        assert_eq!(failures(&failed, ""), [format!("node r1  FAILED  {reason}")]);
    }

    #[test]
    fn the_frame_leaves_a_row_free_in_every_window() {
        let ids: Vec<String> = (0..12).map(|i| format!("n{i}")).collect();
        let states: Vec<(&str, &str, &str, &str)> =
            ids.iter().map(|id| ("node", id.as_str(), "STARTING", "")).collect();
        let op = operation(&states);
        for rows in 1..20 {
            let shown = frame(Style::PLAIN, "deploys x", Duration::ZERO, &op, (80, rows));
            assert!(shown.len() <= rows.saturating_sub(1).max(1), "{rows} rows: {shown:?}");
            let objects = shown.iter().filter(|l| l.contains("STARTING")).count();
            let folded = shown.iter().find_map(|l| l.strip_prefix("  … and ")?.strip_suffix(" more"));
            let folded: usize = folded.map_or(0, |n| n.parse().unwrap());
            assert!(rows < 3 || objects + folded == 12, "{rows} rows: {shown:?}");
        }
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
    fn a_machine_that_boots_says_for_how_long() {
        let mut op = operation(&[("node", "v1", "RUNNING", "waits until it is ready")]);
        let since = SystemTime::now() - Duration::from_secs(12);
        op.progress[0].boot = Some(api::Boot { start_time: Some(since.into()), limit_seconds: 300 });
        let shown = frame(Style::PLAIN, "deploys x", Duration::ZERO, &op, (80, 24));
        let told = ["12", "13"].map(|n| format!("  node v1  RUNNING  booting, {n} s of at most 300"));
        assert!(told.contains(&shown[1]), "{shown:?}");
        // Where nobody looks it is said now and then.
        let mut seen = Seen::default();
        let mut lines = |seconds| seen.lines(Style::PLAIN, Duration::from_secs(seconds), &op);
        let counts: Vec<usize> = [0, 1, 14, 15, 16, 29, 30].map(|at| lines(at).len()).into();
        assert_eq!(counts, [1, 0, 0, 1, 0, 0, 1]);
        assert!(lines(45)[0].contains("v1  RUNNING  booting, "), "{:?}", lines(60));
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
