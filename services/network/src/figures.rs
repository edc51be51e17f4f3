//! What the network service counts, for Prometheus.

use std::sync::LazyLock;

use netloom_service::metrics::{self, Durations, IntCounter, IntCounterVec};

/// How long passes take: from the levels read to everything done that they ask for.
pub static PASSES: LazyLock<Durations> = LazyLock::new(|| {
    let help = "How long a pass over what is wanted and what is there took, in seconds.";
    metrics::call_seconds("netloom_network_pass_duration_seconds", help, &["outcome"])
});

/// How long transactions of Open vSwitch's database take.
pub static OVSDB: LazyLock<Durations> = LazyLock::new(|| {
    let help = "How long a transaction of Open vSwitch's database took, in seconds.";
    metrics::call_seconds("netloom_ovsdb_transaction_duration_seconds", help, &["outcome"])
});

/// NICs made in nodes.
pub static NICS_MADE: LazyLock<IntCounter> =
    LazyLock::new(|| metrics::counter("netloom_nics_made_total", "NICs made in nodes."));

/// NICs taken away.
pub static NICS_REMOVED: LazyLock<IntCounter> =
    LazyLock::new(|| metrics::counter("netloom_nics_removed_total", "NICs taken away."));

/// Flows of wires that were written, by what was done and whether the bridge took it. A wire is two flows.
pub static FLOWS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let help = "Flows added to and removed from bridges; a wire is two.";
    metrics::counters("netloom_flows_changed_total", help, &["change", "outcome"])
});
