//! What the compute service counts, for Prometheus.

use std::sync::LazyLock;

use netloom_service::metrics::{self, Durations};

/// How long steps of instances take.
pub(crate) static STEPS: LazyLock<Durations> = LazyLock::new(|| {
    let help = "How long a step of an instance took (create includes the start), in seconds.";
    metrics::call_seconds("netloom_compute_step_duration_seconds", help, &["step", "outcome"])
});

/// How long calls of Docker take. One that answers by a stream counts until the stream begins.
pub(crate) static DOCKER: LazyLock<Durations> = LazyLock::new(|| {
    let help = "How long Docker took to answer what the driver asked for, in seconds.";
    metrics::call_seconds("netloom_docker_call_duration_seconds", help, &["call", "outcome"])
});
