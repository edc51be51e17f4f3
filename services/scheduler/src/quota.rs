//! Quotas: what the labs of a project may ask for together.
//!
//! What a deploy asks for is compared by whoever holds the writer's lock, in the transaction that reserves it, with what all other labs of the project ask for then: two deploys at once
//! cannot both have the last of it. All that a lab asks for counts, whether its nodes run, are stopped or wait for room.

use std::iter::Sum;

use netloom_model::failure::{Code, Failure, Violation};
use netloom_model::spec::is_word;

use crate::error::Result;
use crate::rows::LabRows;
use crate::scheduler::Scheduler;
use crate::store::{Page, Tx};

/// What a project may ask for; none is without limit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Quota {
    /// The project.
    pub project: String,
    /// Nodes.
    pub nodes: Option<u64>,
    /// CPU in thousandths of a core.
    pub cpu_millis: Option<u64>,
    /// Memory in bytes.
    pub memory_bytes: Option<u64>,
    /// Disk in bytes.
    pub disk_bytes: Option<u64>,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Labs.
    pub labs: u32,
    /// Nodes.
    pub nodes: u64,
    /// CPU in thousandths of a core.
    pub cpu_millis: u64,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Disk in bytes.
    pub disk_bytes: u64,
}

impl Sum for Usage {
    fn sum<I: Iterator<Item = Usage>>(all: I) -> Usage {
        all.fold(Usage::default(), |sum, one| Usage {
            labs: sum.labs + one.labs,
            nodes: sum.nodes.saturating_add(one.nodes),
            cpu_millis: sum.cpu_millis.saturating_add(one.cpu_millis),
            memory_bytes: sum.memory_bytes.saturating_add(one.memory_bytes),
            disk_bytes: sum.disk_bytes.saturating_add(one.disk_bytes),
        })
    }
}

impl Usage {
    /// What a lab asks for.
    pub fn of(rows: &LabRows) -> Usage {
        let nodes = rows.asked_for().into_iter().map(|node| Usage {
            labs: 0,
            nodes: 1,
            cpu_millis: u64::from(node.spec.cpu_request_millis),
            memory_bytes: node.spec.memory_request_bytes,
            disk_bytes: node.spec.disk_request_bytes,
        });
        Usage { labs: 1, ..nodes.sum() }
    }
}

/// The failure of a lab that asks for more than is left of its project's quota; none when it does not, or asks for no more of that than it `had`.
pub fn exceeded(quota: &Quota, others: Usage, had: Usage, asks: Usage) -> Option<Failure> {
    let count = |n: u64| n.to_string();
    let cores = |n: u64| format!("{}.{:02}", n / 1_000, n % 1_000 / 10);
    let size = netloom_model::human::bytes;
    type Told<'a> = &'a dyn Fn(u64) -> String;
    let all: [(&str, Option<u64>, [u64; 3], Told<'_>); 4] = [
        ("nodes", quota.nodes, [others.nodes, had.nodes, asks.nodes], &count),
        ("cpu", quota.cpu_millis, [others.cpu_millis, had.cpu_millis, asks.cpu_millis], &cores),
        ("memory", quota.memory_bytes, [others.memory_bytes, had.memory_bytes, asks.memory_bytes], &size),
        ("disk", quota.disk_bytes, [others.disk_bytes, had.disk_bytes, asks.disk_bytes], &size),
    ];
    let over = all.into_iter().filter_map(|(resource, limit, [others, had, asks], told)| {
        let limit = limit.filter(|limit| asks > had && others.saturating_add(asks) > *limit)?;
        let description = format!(
            "{} asked for, {} used by other labs of the project, {} allowed",
            told(asks),
            told(others),
            told(limit)
        );
        Some(Violation { field: resource.to_owned(), description })
    });
    let over: Vec<Violation> = over.collect();
    if over.is_empty() {
        return None;
    }
    let parts: Vec<String> = over.iter().map(|v| format!("{}: {}", v.field, v.description)).collect();
    let message =
        format!("the quota of project \"{}\" does not allow that: {}", quota.project, parts.join("; "));
    let resources: Vec<&str> = over.iter().map(|v| v.field.as_str()).collect();
    let failure = Failure::new(Code::ResourceExhausted, "QUOTA_EXCEEDED", message)
        .with("project", quota.project.clone())
        .with("resources", resources.join(","));
    Some(Failure { violations: over, ..failure })
}

fn is_of(rows: &LabRows, project: &str) -> bool {
    rows.lab.spec.project.eq_ignore_ascii_case(project)
}

fn not_found(project: &str) -> Failure {
    let message = format!("project \"{project}\" has no quota: see netloom quota list");
    Failure::new(Code::NotFound, "QUOTA_NOT_FOUND", message).with("project", project)
}

impl Scheduler {
    /// Refuses rows that ask for more than their project may.
    pub(crate) async fn refuse_over_quota(
        &self,
        tx: &mut Tx<'_>,
        before: Option<&LabRows>,
        after: &LabRows,
    ) -> Result<()> {
        let project = &after.lab.spec.project;
        if project.is_empty() {
            return Ok(());
        }
        let Some(quota) = tx.quota(project).await? else { return Ok(()) };
        let others = self.store.all().into_iter().filter(|r| r.lab.uid != after.lab.uid && is_of(r, project));
        let others = others.map(|rows| Usage::of(&rows)).sum();
        let had = before.filter(|rows| is_of(rows, project)).map(Usage::of).unwrap_or_default();
        exceeded(&quota, others, had, Usage::of(after)).map_or(Ok(()), |failure| Err(failure.into()))
    }

    /// What the labs of a project ask for.
    pub fn usage(&self, project: &str) -> Usage {
        self.store.all().iter().filter(|rows| is_of(rows, project)).map(|rows| Usage::of(rows)).sum()
    }

    /// Sets the quota of a project, which it returns as it is kept.
    pub async fn set_quota(&self, quota: Quota) -> Result<Quota> {
        if !is_word(&quota.project, 63) {
            let what =
                format!("\"{}\" is not of the form [A-Za-z0-9][A-Za-z0-9-._]*, at most 63", quota.project);
            let failure = Failure::new(Code::InvalidArgument, "INVALID_REQUEST", format!("project: {what}"));
            return Err(failure.violation("project", what).into());
        }
        let mut tx = self.store.begin("scheduler.quota").await?;
        tx.put_quota(&quota).await?;
        let kept = tx.quota(&quota.project).await?;
        tx.commit().await?;
        Ok(kept.unwrap_or(quota))
    }

    /// Removes the quota of a project.
    pub async fn remove_quota(&self, project: &str) -> Result<()> {
        let mut tx = self.store.begin("scheduler.quota").await?;
        if !tx.remove_quota(project).await? {
            return Err(not_found(project).into());
        }
        tx.commit().await
    }

    /// Quotas by project, or that of one.
    pub async fn quotas(&self, project: &str, page_size: u32, after: &str) -> Result<Page<Quota>> {
        if project.is_empty() {
            return self.store.list_quotas(page_size, after).await;
        }
        let one = self.store.quota(project).await?.ok_or_else(|| not_found(project))?;
        Ok(Page { rows: vec![one], more: false })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_asked_for_and_allowed_is_told_of_each_resource_at_fault() {
        let quota = Quota {
            project: "p".into(),
            nodes: Some(4),
            cpu_millis: Some(2_000),
            memory_bytes: None,
            disk_bytes: Some(30 << 30),
        };
        let usage = |nodes, cpu_millis| Usage {
            labs: 1,
            nodes,
            cpu_millis,
            memory_bytes: 1 << 40,
            disk_bytes: 10 << 30,
        };
        let none = Usage::default();
        assert_eq!(exceeded(&quota, usage(2, 1_000), none, usage(2, 1_000)), None, "up to the limit");
        let failure = exceeded(&quota, usage(2, 1_000), none, usage(3, 1_050)).unwrap();
        assert_eq!(
            (failure.code, failure.metadata["resources"].as_str()),
            (Code::ResourceExhausted, "nodes,cpu")
        );
        let told: Vec<&str> = failure.violations.iter().map(|v| v.description.as_str()).collect();
        assert_eq!(
            told,
            [
                "3 asked for, 2 used by other labs of the project, 4 allowed",
                "1.05 asked for, 1.00 used by other labs of the project, 2.00 allowed",
            ]
        );
        // What is beyond a quota that was lowered can be changed, as long as it does not grow.
        assert_eq!(exceeded(&quota, usage(9, 9_000), usage(3, 1_000), usage(3, 500)), None);
        let grown = exceeded(&quota, usage(9, 9_000), usage(3, 1_000), usage(2, 1_001)).unwrap();
        assert_eq!(grown.metadata["resources"], "cpu");
        let disks = Usage { disk_bytes: 25 << 30, ..usage(1, 100) };
        let failure = exceeded(&quota, usage(1, 100), none, disks).unwrap();
        assert_eq!(
            (failure.violations[0].field.as_str(), failure.violations[0].description.as_str()),
            ("disk", "25.0 GiB asked for, 10.0 GiB used by other labs of the project, 30.0 GiB allowed")
        );
    }
}
