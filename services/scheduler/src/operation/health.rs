//! Health checks of nodes, where the file says how their health is told. Until the check has said something after a start, it is not known that a node works; what
//! a failing one says is that it does not.

use std::collections::HashMap;
use std::time::Duration;

use netloom_model::id::NodeUid;
use netloom_model::spec::Healthcheck;
use netloom_model::state::Wanted;
use tokio::time::Instant;

use crate::rows::{LabRows, NodeRow};

/// What runtimes take where the file says nothing, in seconds and checks.
const DEFAULTS: (u32, u32, u32) = (30, 30, 3);
/// What a host may take beside the checks.
const SLACK: Duration = Duration::from_secs(5);

/// What checks have not said yet.
pub(super) enum Health<'r> {
    /// Nothing is awaited.
    Told,
    /// One has not said anything yet, and may until then.
    Awaited(Instant),
    /// These said nothing in the time that they have.
    Silent(Vec<&'r NodeRow>),
}

/// What is awaited of health checks of nodes, each since it was started, or since then.
pub(super) fn health<'r>(
    rows: &'r LabRows,
    started: &HashMap<NodeUid, (String, Instant)>,
    otherwise: Instant,
) -> Health<'r> {
    let (mut silent, mut until) = (Vec::new(), None);
    for node in rows.nodes.values().filter(|n| n.is_wanted() && n.wanted == Wanted::Running) {
        let check = node.spec.healthcheck.as_ref().filter(|c| is_asked(c));
        let Some(check) = check.filter(|_| told_of(node) == "starting") else { continue };
        let over = started.get(&node.uid).map_or(otherwise, |(_, since)| *since) + longest(check);
        if over > Instant::now() {
            until = until.max(Some(over));
        } else {
            silent.push(node);
        }
    }
    silent.sort_by(|a, b| a.id.cmp(&b.id));
    match until {
        _ if !silent.is_empty() => Health::Silent(silent),
        Some(until) => Health::Awaited(until),
        None => Health::Told,
    }
}

/// True for a node that runs and of which the check that its file asks for says that it does not work.
pub(super) fn is_ill(node: &NodeRow) -> bool {
    node.spec.healthcheck.as_ref().is_some_and(is_asked) && told_of(node) == "unhealthy"
}

fn told_of(node: &NodeRow) -> &str {
    node.observed.as_deref().map_or("", |o| o.health.as_str())
}

fn is_asked(check: &Healthcheck) -> bool {
    check.test.first().is_none_or(|word| word != "NONE")
}

/// How long a check takes at most to say that it fails.
fn longest(check: &Healthcheck) -> Duration {
    let or = |n: u32, otherwise: u32| u64::from(if n == 0 { otherwise } else { n });
    let (interval, timeout, retries) = DEFAULTS;
    let each = or(check.interval_seconds, interval) + or(check.timeout_seconds, timeout);
    let all = each.saturating_mul(or(check.retries, retries));
    Duration::from_secs(all.saturating_add(check.start_period_seconds.into())) + SLACK
}
