//! What an administrator says of a host: labels and taints that say which nodes it takes, how often its CPU, memory and disk may be reserved, and what of them is left to the
//! host itself. Kept in its row, and counted from the next placement on: nodes that are there stay.

use std::collections::BTreeMap;

use netloom_model::failure::{Code, Failure};
use netloom_model::id::HostId;
use netloom_model::spec::{MAX_CPU_MILLIS, MAX_DISK_BYTES, MAX_MEMORY_BYTES, wrong_label};
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::error::Result;
use crate::membership::host_not_found;
use crate::rows::Resources;
use crate::scheduler::Scheduler;

/// Most labels of a host, and most taints.
const MOST: usize = 32;
/// How often at most something may be reserved.
const MOST_OFTEN: f64 = 1_000.0;
/// What can be changed.
const FIELDS: &str = "labels, labels.KEY, taints, taints.KEY, cpu_overcommit, memory_overcommit, disk_overcommit, system_cpu_millis, system_memory_bytes and system_disk_bytes";

/// What is said of a host.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct HostPolicy {
    /// What nodes may ask for in their host; in a column of its own.
    #[serde(skip)]
    pub labels: BTreeMap<String, String>,
    /// What keeps nodes away that do not tolerate it.
    pub taints: BTreeMap<String, String>,
    /// How many times its CPU may be reserved; 0 is as configured.
    pub cpu_overcommit: f64,
    /// How many times its memory may be reserved; 0 is as configured.
    pub memory_overcommit: f64,
    /// How many times its disk may be reserved; 0 is as configured.
    pub disk_overcommit: f64,
    /// CPU that is left to the host itself, in thousandths of a core.
    pub system_cpu_millis: u64,
    /// Memory that is left to the host itself, in bytes.
    pub system_memory_bytes: u64,
    /// Disk that is left to the host itself, in bytes.
    pub system_disk_bytes: u64,
}

fn or(own: f64, configured: f64) -> f64 {
    if own > 0.0 { own } else { configured }
}

/// What may be reserved of what there is.
fn room(has: u64, system: u64, times: f64) -> u64 {
    // All are positive, and a host's figures are far below what a double holds exactly.
    (has.saturating_sub(system) as f64 * times) as u64
}

impl HostPolicy {
    /// How many times its CPU, its memory and its disk may be reserved.
    pub fn overcommit(&self, config: &Config) -> [f64; 3] {
        [
            or(self.cpu_overcommit, config.cpu_overcommit),
            or(self.memory_overcommit, config.memory_overcommit),
            or(self.disk_overcommit, config.disk_overcommit),
        ]
    }

    /// What may be reserved of what a host has.
    pub fn room(&self, has: Resources, config: &Config) -> Resources {
        let [cpu, memory, disk] = self.overcommit(config);
        Resources {
            cpu_millis: room(has.cpu_millis, self.system_cpu_millis, cpu),
            memory_bytes: room(has.memory_bytes, self.system_memory_bytes, memory),
            disk_bytes: room(has.disk_bytes, self.system_disk_bytes, disk),
        }
    }

    /// Takes what the paths name from another one: a field, or one key of the labels or taints, which is taken away when the other one does not have it.
    pub fn take(&mut self, wish: &HostPolicy, paths: &[String]) -> Result<(), Failure> {
        if paths.is_empty() {
            return Err(invalid("update_mask", format!("names nothing to change; what can be is {FIELDS}")));
        }
        for path in paths {
            match path.split_once('.') {
                None => match path.as_str() {
                    "labels" => self.labels.clone_from(&wish.labels),
                    "taints" => self.taints.clone_from(&wish.taints),
                    "cpu_overcommit" => self.cpu_overcommit = wish.cpu_overcommit,
                    "memory_overcommit" => self.memory_overcommit = wish.memory_overcommit,
                    "disk_overcommit" => self.disk_overcommit = wish.disk_overcommit,
                    "system_cpu_millis" => self.system_cpu_millis = wish.system_cpu_millis,
                    "system_memory_bytes" => self.system_memory_bytes = wish.system_memory_bytes,
                    "system_disk_bytes" => self.system_disk_bytes = wish.system_disk_bytes,
                    _ => return Err(cannot(path)),
                },
                Some(("labels", key)) => take_key(&mut self.labels, &wish.labels, key),
                Some(("taints", key)) => take_key(&mut self.taints, &wish.taints, key),
                Some(_) => return Err(cannot(path)),
            }
        }
        self.check()
    }

    /// Refuses what makes no sense.
    pub fn check(&self) -> Result<(), Failure> {
        for (field, all) in [("labels", &self.labels), ("taints", &self.taints)] {
            if all.len() > MOST {
                return Err(invalid(field, format!("a host has at most {MOST} {field}")));
            }
            if let Some(wrong) = all.iter().find_map(|(key, value)| wrong_label(key, value)) {
                return Err(invalid(field, wrong));
            }
        }
        for (field, times) in [
            ("cpu_overcommit", self.cpu_overcommit),
            ("memory_overcommit", self.memory_overcommit),
            ("disk_overcommit", self.disk_overcommit),
        ] {
            if !(0.0..=MOST_OFTEN).contains(&times) {
                return Err(invalid(
                    field,
                    format!("{times} is not from 0 to {MOST_OFTEN}; 0 is as the scheduler is configured"),
                ));
            }
        }
        if self.system_cpu_millis > u64::from(MAX_CPU_MILLIS) {
            return Err(invalid("system_cpu_millis", format!("is at most {MAX_CPU_MILLIS}")));
        }
        if self.system_memory_bytes > MAX_MEMORY_BYTES {
            return Err(invalid("system_memory_bytes", format!("is at most {MAX_MEMORY_BYTES}")));
        }
        if self.system_disk_bytes > MAX_DISK_BYTES {
            return Err(invalid("system_disk_bytes", format!("is at most {MAX_DISK_BYTES}")));
        }
        Ok(())
    }
}

fn take_key(all: &mut BTreeMap<String, String>, wish: &BTreeMap<String, String>, key: &str) {
    match wish.get(key) {
        Some(value) => drop(all.insert(key.to_owned(), value.clone())),
        None => drop(all.remove(key)),
    }
}

fn cannot(path: &str) -> Failure {
    invalid("update_mask", format!("\"{path}\" cannot be changed; what can is {FIELDS}"))
}

fn invalid(field: &str, what: impl Into<String>) -> Failure {
    let what = what.into();
    Failure::new(Code::InvalidArgument, "INVALID_REQUEST", format!("{field}: {what}")).violation(field, what)
}

impl Scheduler {
    /// Changes what is said of a host, as far as the paths name it. Nodes that wait for room are placed again.
    pub async fn update_host(&self, host: &HostId, wish: &HostPolicy, paths: &[String]) -> Result<HostId> {
        let mut tx = self.store.begin("scheduler.update_host").await?;
        let Some(mut row) = tx.host(host).await? else { return Err(host_not_found(host).into()) };
        row.policy.take(wish, paths)?;
        tx.put_policy(&row.id, &row.policy).await?;
        tx.commit().await?;
        self.world.set_policy(&row.id, row.policy);
        Ok(row.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(paths: &[&str]) -> Vec<String> {
        paths.iter().map(|p| (*p).to_owned()).collect()
    }

    #[test]
    fn one_label_is_set_and_taken_away_beside_the_others() {
        let mut policy = HostPolicy { labels: [("a".into(), "1".into())].into(), ..HostPolicy::default() };
        let wish = HostPolicy { labels: [("b.c/d".into(), "2".into())].into(), ..HostPolicy::default() };
        policy.take(&wish, &paths(&["labels.b.c/d"])).unwrap();
        assert_eq!(policy.labels.keys().collect::<Vec<_>>(), ["a", "b.c/d"]);
        policy.take(&HostPolicy::default(), &paths(&["labels.a"])).unwrap();
        assert_eq!(policy.labels, wish.labels);
        policy.take(&HostPolicy::default(), &paths(&["labels"])).unwrap();
        assert_eq!(policy, HostPolicy::default());
    }

    #[test]
    fn what_cannot_be_is_refused_by_its_field() {
        let refused = |wish: HostPolicy, path: &str| {
            let e = HostPolicy::default().take(&wish, &paths(&[path])).unwrap_err();
            (e.reason.clone(), e.violations[0].field.clone())
        };
        let field = |field: &str| ("INVALID_REQUEST".to_owned(), field.to_owned());
        let taints = [("gpu-".to_owned(), String::new())].into();
        assert_eq!(refused(HostPolicy { taints, ..HostPolicy::default() }, "taints"), field("taints"));
        for times in [-1.0, f64::NAN, f64::INFINITY, 1e9] {
            let wish = HostPolicy { cpu_overcommit: times, ..HostPolicy::default() };
            assert_eq!(refused(wish, "cpu_overcommit"), field("cpu_overcommit"));
        }
        for path in ["uid", "labels2", "state.x"] {
            assert_eq!(refused(HostPolicy::default(), path), field("update_mask"));
        }
        assert!(HostPolicy::default().take(&HostPolicy::default(), &[]).is_err());
    }

    #[test]
    fn what_is_left_to_the_host_is_not_reserved_however_often() {
        let config =
            Config { cpu_overcommit: 8.0, memory_overcommit: 1.0, disk_overcommit: 2.0, ..Config::default() };
        let policy = HostPolicy {
            system_cpu_millis: 1_000,
            system_memory_bytes: 2 << 30,
            system_disk_bytes: 10 << 30,
            cpu_overcommit: 2.0,
            ..HostPolicy::default()
        };
        let of = |cpu_millis: u64, memory: u64, disk: u64| Resources {
            cpu_millis,
            memory_bytes: memory << 30,
            disk_bytes: disk << 30,
        };
        assert_eq!(HostPolicy::default().room(of(4_000, 8, 50), &config), of(32_000, 8, 100));
        assert_eq!(policy.room(of(4_000, 8, 50), &config), of(6_000, 6, 80));
        assert_eq!(policy.room(of(500, 1, 9), &config), of(0, 0, 0), "a host that has less takes none");
    }
}
