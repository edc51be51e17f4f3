//! Health checks of the nodes that a deploy starts, where its file says how their health is told. Until the check has said something, it is not known that they work; what
//! a failing one says of them is that they do not.

use std::collections::HashMap;
use std::time::Duration;

use netloom_model::id::NodeUid;
use netloom_model::spec::Healthcheck;
use tokio::time::Instant;

use crate::rows::{LabRows, NodeRow};

/// What runtimes take where the file says nothing, in seconds and checks.
const DEFAULTS: (u32, u32, u32) = (30, 30, 3);
/// What a host may take beside the checks.
const SLACK: Duration = Duration::from_secs(5);

/// What the checks of started nodes say.
pub(super) enum Health<'r> {
    /// Nothing against them.
    Well,
    /// One has not said anything yet, and may until then.
    Awaited(Instant),
    /// These fail, or said nothing in the time that they have.
    Failing(Vec<&'r NodeRow>),
}

/// What health checks say of nodes that were started, each since then.
pub(super) fn health<'r>(
    rows: &'r LabRows,
    started: &HashMap<NodeUid, (String, Instant)>,
    now: Instant,
) -> Health<'r> {
    let (mut failing, mut until) = (Vec::new(), None);
    for (node, since) in started.iter().filter_map(|(uid, (_, since))| Some((rows.nodes.get(uid)?, since))) {
        let Some(check) = node.spec.healthcheck.as_ref().filter(|c| is_asked(c)) else { continue };
        let over = *since + longest(check);
        match node.observed.as_ref().map_or("", |o| o.health.as_str()) {
            "healthy" => {}
            "unhealthy" => failing.push(node),
            _ if over > now => until = until.max(Some(over)),
            _ => failing.push(node),
        }
    }
    failing.sort_by(|a, b| a.id.cmp(&b.id));
    match until {
        _ if !failing.is_empty() => Health::Failing(failing),
        Some(until) => Health::Awaited(until),
        None => Health::Well,
    }
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
