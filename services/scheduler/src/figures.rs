//! What the scheduler counts, for Prometheus.

use std::sync::{Arc, LazyLock, Weak};

use netloom_model::state::{LinkState, NodeState};
use netloom_service::metrics::{self, Durations, IntGaugeVec};

use crate::rows::OperationRow;
use crate::scheduler::Scheduler;

/// How long operations took, from the request to the end.
pub static OPERATIONS: LazyLock<Durations> = LazyLock::new(|| {
    let help = "From the request for an operation to its end, in seconds.";
    metrics::work_seconds("netloom_operation_duration_seconds", help, &["kind", "outcome"])
});

/// How long a host's service took to take what a lab's rows ask of it.
pub static RECONCILES: LazyLock<Durations> = LazyLock::new(|| {
    let help = "How long a host's service took to take the changes of a lab, in seconds.";
    metrics::call_seconds("netloom_scheduler_reconcile_duration_seconds", help, &["service", "outcome"])
});

/// How long commits of the database took, with the wait until they are on the disk.
pub static COMMITS: LazyLock<Durations> = LazyLock::new(|| {
    let help = "How long a write to the scheduler's database took to be on the disk, in seconds.";
    metrics::call_seconds("netloom_scheduler_commit_duration_seconds", help, &["write", "outcome"])
});

/// Notes an operation that is over.
pub fn ended(operation: &OperationRow) {
    let took = u64::try_from(operation.end_us - operation.create_us).unwrap_or_default();
    let labels = [word(&operation.kind), word(&operation.state)];
    let labels = [labels[0].as_str(), labels[1].as_str()];
    OPERATIONS.note(&labels, std::time::Duration::from_micros(took));
}

fn word(value: &impl std::fmt::Debug) -> String {
    format!("{value:?}").to_lowercase()
}

/// Tells levels whenever somebody asks, as long as the scheduler is there.
pub fn tell_levels(core: &Arc<Scheduler>) {
    struct Levels {
        objects: IntGaugeVec,
        nodes: IntGaugeVec,
        links: IntGaugeVec,
        hosts: IntGaugeVec,
    }
    static LEVELS: LazyLock<Levels> = LazyLock::new(|| Levels {
        objects: metrics::gauges(
            "netloom_labs",
            "Labs, by whether an operation works on them.",
            &["operation"],
        ),
        nodes: metrics::gauges("netloom_nodes", "Nodes of all labs, by state.", &["state"]),
        links: metrics::gauges("netloom_links", "Links of all labs, by state.", &["state"]),
        hosts: metrics::gauges("netloom_hosts", "Hosts, by whether they are heard of.", &["heard"]),
    });
    let core: Weak<Scheduler> = Arc::downgrade(core);
    metrics::on_scrape(move || {
        let Some(core) = core.upgrade() else { return false };
        let all = core.store.all();
        let busy = all.iter().filter(|rows| rows.operation.is_some()).count();
        LEVELS.objects.with_label_values(&["active"]).set(level(busy));
        LEVELS.objects.with_label_values(&["none"]).set(level(all.len() - busy));
        // Every state is told, also those that nothing is in: a level that is missing is not a level of 0.
        let mut nodes: Vec<(NodeState, i64)> = NodeState::ALL.iter().map(|s| (*s, 0)).collect();
        let mut links: Vec<(LinkState, i64)> = LinkState::ALL.iter().map(|s| (*s, 0)).collect();
        for rows in &all {
            let (of_nodes, of_links) = rows.tallies();
            for tally in of_nodes {
                nodes
                    .iter_mut()
                    .filter(|(s, _)| *s == tally.state)
                    .for_each(|(_, n)| *n += i64::from(tally.count));
            }
            for tally in of_links {
                links
                    .iter_mut()
                    .filter(|(s, _)| *s == tally.state)
                    .for_each(|(_, n)| *n += i64::from(tally.count));
            }
        }
        nodes.iter().for_each(|(state, n)| LEVELS.nodes.with_label_values(&[state.as_str()]).set(*n));
        links.iter().for_each(|(state, n)| LEVELS.links.with_label_values(&[state.as_str()]).set(*n));
        let heard = core.world.read(|hosts| hosts.values().filter(|h| h.is_heard()).count());
        LEVELS.hosts.with_label_values(&["yes"]).set(level(heard));
        LEVELS.hosts.with_label_values(&["no"]).set(level(core.hosts.borrow().len().saturating_sub(heard)));
        true
    });
}

fn level(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
