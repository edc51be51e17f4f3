//! Why operations fail beside what their nodes and links are.

use netloom_model::failure::{Code, Failure};
use netloom_model::id::HostId;

use crate::rows::{LabRows, OperationRow};
use crate::world::Refusal;

/// The reason of an operation whose lab went away meanwhile.
pub(super) const LAB_REMOVED: &str = "LAB_REMOVED";

/// Why an operation fails whose lab a host will not take.
pub(super) fn host_refused(
    rows: &LabRows,
    (host, service, refusal): (HostId, &'static str, Refusal),
) -> Failure {
    let message = format!(
        "host {host} will not take what lab \"{}\" asks of its {service} service: {}; change the lab and deploy it again",
        rows.lab.id, refusal.why
    );
    Failure::new(Code::FailedPrecondition, "HOST_REFUSED", message)
        .with("lab", rows.lab.id.to_string())
        .with("host", host.to_string())
        .with("service", service)
}

/// Why an operation ends whose lab was removed meanwhile.
pub(super) fn lab_removed(operation: &OperationRow) -> Failure {
    let message = format!("lab \"{}\" was removed while this was under way; deploy it again", operation.lab);
    Failure::new(Code::FailedPrecondition, LAB_REMOVED, message)
}
