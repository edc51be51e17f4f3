//! What a request can be refused for before anything is written.

use std::collections::{BTreeMap, BTreeSet};

use netloom_model::failure::{Code, Failure, Violation};
use netloom_model::id::{Digest, HostId, LabId};
use netloom_model::plan::Unplaced;
use netloom_model::spec::LabSpec;
use netloom_model::state::Wanted;

use crate::config::Config;
use crate::error::Result;
use crate::plan::Planned;
use crate::rows::{LabRows, NodeRow, OperationKind, OperationRow};
use crate::store::Tx;
use crate::vnis;

/// How many digests of missing files are named at once: they travel in a header.
const MISSING_NAMED: usize = 50;

/// Says that there is no such lab.
pub fn lab_not_found(lab: &str) -> Failure {
    Failure::new(
        Code::NotFound,
        "LAB_NOT_FOUND",
        format!("there is no lab \"{lab}\"; list labs to see those there are"),
    )
    .with("lab", lab)
}

pub(super) fn refuse_if_busy(rows: &LabRows) -> Result<()> {
    let Some(operation) = rows.operation else { return Ok(()) };
    let what = if rows.lab.wanted == Wanted::Absent { "being removed" } else { "being changed" };
    let message = format!(
        "lab \"{}\" is {what} by operation {operation}; wait until that is done{}",
        rows.lab.id,
        if rows.lab.wanted == Wanted::Absent { "" } else { ", or cancel it" },
    );
    let failure = Failure::new(Code::FailedPrecondition, "OPERATION_ACTIVE", message);
    Err(failure.with("operation", operation.to_string()).with("lab", rows.lab.id.to_string()).into())
}

pub(super) fn refuse_if_changed(rows: &LabRows, generation: u64) -> Result<()> {
    if generation == 0 || generation == rows.lab.generation {
        return Ok(());
    }
    let message = format!(
        "lab \"{}\" was changed meanwhile: it is at generation {}, not {generation}; read it again",
        rows.lab.id, rows.lab.generation
    );
    Err(Failure::new(Code::Aborted, "ETAG_MISMATCH", message).with("lab", rows.lab.id.to_string()).into())
}

/// Refuses a new lab of which no node can run because what runs them answers on no host: there is nothing to wait for.
pub(super) fn refuse_if_nothing_can_run(planned: &Planned) -> Result<()> {
    let nodes = &planned.rows.nodes;
    let missing = |n: &NodeRow| n.host.is_none() && n.rejections.iter().all(|r| r.code == "RUNTIME_MISSING");
    if nodes.is_empty() || !nodes.values().all(missing) {
        return Ok(());
    }
    let why: BTreeSet<String> =
        nodes.values().flat_map(|n| &n.rejections).map(|r| format!("{}: {}", r.host, r.detail)).collect();
    let message = format!(
        "no node of the lab can run ({}): start it, then try again",
        why.into_iter().collect::<Vec<_>>().join("; ")
    );
    Err(Failure::new(Code::FailedPrecondition, "RUNTIME_MISSING", message).into())
}

/// Refuses a node that asks for more than its host has free: it keeps running as it was.
pub(super) fn refuse_growth(planned: &Planned) -> Result<()> {
    let Some((_, first)) = planned.overgrown.first() else { return Ok(()) };
    let lines = planned.overgrown.iter().map(|(node, r)| format!("  {node}: {} {}", r.host, r.detail));
    let message = format!(
        "nodes ask for more than their hosts have free, and keep what they have:\n{}",
        lines.collect::<Vec<_>>().join("\n")
    );
    let nodes: Vec<&str> = planned.overgrown.iter().map(|(node, _)| node.as_str()).collect();
    Err(Failure::new(Code::FailedPrecondition, &first.code, message)
        .with("nodes", nodes.join(","))
        .with("host", first.host.clone())
        .into())
}

/// Refuses nodes that are to be on a host that there is not.
pub(super) fn refuse_unknown_hosts<'h>(
    planned: &Planned,
    hosts: impl Iterator<Item = &'h HostId> + Clone,
) -> Result<()> {
    let lost = |node: &&NodeRow| {
        let named = &node.spec.placement.host;
        !named.is_empty() && !hosts.clone().any(|h| h.as_str().eq_ignore_ascii_case(named))
    };
    let nodes: Vec<&NodeRow> = planned.rows.asked_for().into_iter().filter(lost).collect();
    let Some(first) = nodes.first() else { return Ok(()) };
    let known: Vec<&str> = hosts.map(HostId::as_str).collect();
    let wrong = nodes.iter().map(|node| Violation {
        field: format!("node {}", node.id),
        description: format!("there is no host \"{}\"", node.spec.placement.host),
    });
    let message = format!(
        "nodes of lab \"{}\" are to be on hosts that there are not; there are {}",
        planned.rows.lab.id,
        known.join(", ")
    );
    let failure = Failure::new(Code::NotFound, "HOST_NOT_FOUND", message);
    let failure = failure.with("host", first.spec.placement.host.clone());
    Err(Failure { violations: wrong.collect(), ..failure }.into())
}

/// That a lab of which all is to run or nothing does not fit; none when it does, or need not.
pub(super) fn does_not_fit(planned: &Planned) -> Option<Failure> {
    let (lab, unplaced) = (&planned.rows.lab, &planned.plan.unplaced);
    if lab.spec.placement_policy.is_best_effort() || unplaced.is_empty() {
        return None;
    }
    let describe = |node: &Unplaced| {
        let hosts = node.rejections.iter().map(|r| format!("host {}: {}", r.host, r.detail));
        Violation { field: format!("node {}", node.node), description: hosts.collect::<Vec<_>>().join("; ") }
    };
    let nodes: Vec<&str> = unplaced.iter().map(|u| u.node.as_str()).collect();
    let message = format!(
        "{} of {} nodes of lab \"{}\" fit on no host, and its placement-policy is all-or-nothing, so nothing is changed",
        nodes.len(),
        planned.rows.asked_for().len(),
        lab.id
    );
    let failure = Failure::new(Code::ResourceExhausted, "LAB_DOES_NOT_FIT", message);
    let failure = failure.with("lab", lab.id.to_string()).with("nodes", nodes.join(","));
    Some(Failure { violations: unplaced.iter().map(describe).collect(), ..failure })
}

/// Refuses nodes that ask for what no host allows or can do: nothing of that comes by waiting.
pub(super) fn refuse_forbidden(planned: &Planned) -> Result<()> {
    let Some((_, first)) = planned.forbidden.first() else { return Ok(()) };
    // What holds for several, as for both ends of a link, is told once.
    let mut told: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for (node, why) in &planned.forbidden {
        told.entry((why.host.as_str(), why.detail.as_str())).or_default().push(node.as_str());
    }
    let describe = |((host, detail), nodes): ((&str, &str), Vec<&str>)| Violation {
        field: format!("{} {}", if nodes.len() == 1 { "node" } else { "nodes" }, nodes.join(", ")),
        description: format!("host {host}: {detail}"),
    };
    let message =
        format!("lab \"{}\" asks for what its hosts do not allow or cannot do", planned.rows.lab.id);
    let failure = Failure::new(Code::FailedPrecondition, &first.code, message);
    let mut nodes: Vec<&str> = planned.forbidden.iter().map(|(node, _)| node.as_str()).collect();
    nodes.dedup();
    let failure = failure.with("host", first.host.clone()).with("nodes", nodes.join(","));
    Err(Failure { violations: told.into_iter().map(describe).collect(), ..failure }.into())
}

/// Refuses a lab with links between hosts for which no network identifier is free.
pub(super) fn refuse_without_vni(rows: &LabRows, config: &Config) -> Result<()> {
    let without = vnis::without(rows);
    let Some(first) = without.iter().map(|link| link.id.as_str()).min() else { return Ok(()) };
    let message = format!(
        "{} for {} of lab \"{}\", {first} among them: {} to {} are in use; destroy labs with links between hosts, or widen first_vni and last_vni of [scheduler]",
        vnis::NONE_FREE,
        without.len(),
        rows.lab.id,
        config.first_vni,
        config.last_vni
    );
    let failure = Failure::new(Code::ResourceExhausted, "VNI_EXHAUSTED", message);
    Err(failure.with("lab", rows.lab.id.to_string()).with("link", first).into())
}

/// The operation that a request made when it was sent before. An id that made something else is refused: its caller would be told of what it never asked.
pub(super) async fn repeated_in(
    tx: &mut Tx<'_>,
    request_id: Option<&str>,
    kind: OperationKind,
    lab: &LabId,
) -> Result<Option<OperationRow>> {
    let Some(id) = request_id else { return Ok(None) };
    let Some(first) = tx.operation_of_request(id).await? else { return Ok(None) };
    if first.kind == kind && first.lab.folded() == lab.folded() {
        return Ok(Some(first));
    }
    let message = format!(
        "request id {id} was used before: operation {} {} lab \"{}\" by it; use a new one",
        first.id,
        first.kind.words(),
        first.lab
    );
    let failure = Failure::new(Code::InvalidArgument, "REQUEST_ID_REUSED", message.clone());
    Err(failure.violation("request_id", message).with("operation", first.id.to_string()).into())
}

pub(super) async fn files_are_there(tx: &mut Tx<'_>, spec: &LabSpec) -> Result<()> {
    let named: BTreeSet<&Digest> = spec.files.iter().map(|f| &f.digest).collect();
    let sizes = tx.file_sizes(&named).await?;
    let missing: Vec<&Digest> = named.iter().copied().filter(|d| !sizes.contains_key(d)).collect();
    if missing.is_empty() {
        return sizes_are_right(spec, &sizes);
    }
    let digests: Vec<&str> = missing.iter().take(MISSING_NAMED).map(|d| d.as_str()).collect();
    let message =
        format!("{} of {} files were not sent: put them first, then apply", missing.len(), named.len());
    let failure = Failure::new(Code::FailedPrecondition, "FILES_MISSING", message);
    Err(failure.with("digests", digests.join(",")).into())
}

/// Refuses files of which the spec tells another size than they have: limits go by what the spec tells.
fn sizes_are_right(spec: &LabSpec, sizes: &BTreeMap<Digest, u64>) -> Result<()> {
    let wrong = spec.files.iter().enumerate().filter_map(|(i, file)| {
        let is = sizes.get(&file.digest).filter(|is| **is != file.size_bytes)?;
        let description = format!("{} has {is} bytes, not {}", file.path, file.size_bytes);
        Some(Violation { field: format!("spec.files[{i}].size_bytes"), description })
    });
    let wrong: Vec<Violation> = wrong.collect();
    if wrong.is_empty() {
        return Ok(());
    }
    Err(Failure::invalid(format!("{} files have another size than the spec tells", wrong.len()), wrong)
        .into())
}
