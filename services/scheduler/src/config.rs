//! What can be configured: `[scheduler]`, and the list `[[hosts]]`.

use std::ops::RangeInclusive;
use std::time::Duration;

use netloom_model::id::HostId;
use netloom_model::slice::VNI_MAX;
use netloom_service::{Endpoint, Settings};
use serde::Deserialize;

use crate::store::Database;

/// `[scheduler]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where it listens, where `scheduler` of `[endpoints]` names several; else at the one that it names.
    pub listen: Option<Endpoint>,
    /// How many times a host's CPU may be reserved.
    pub cpu_overcommit: f64,
    /// How many times a host's memory may be reserved.
    pub memory_overcommit: f64,
    /// How many times a host's disk may be reserved. Disks of virtual machines take on the host what was written to them, which is much less than they are large.
    pub disk_overcommit: f64,
    /// The database: a file of SQLite, or a URL of PostgreSQL; `<data-dir>/scheduler.db` when not said.
    pub database: Option<String>,
    /// How long a started node's links may take before its exec commands are run without them.
    pub settle_bound_ms: u64,
    /// How long links may take after both their nodes are ready before a deploy is said to have failed.
    pub link_bound_ms: u64,
    /// How long each node that an operation starts has run before that succeeds: what cannot do its work mostly ends soon.
    pub start_watch_ms: u64,
    /// How long a deploy that replaces nodes keeps what ran before, once all that replaces it is there.
    pub aside_watch_ms: u64,
    /// How long a deploy of which all else is there waits for the removal of former containers and nodes; they are removed after it, too.
    pub removal_bound_ms: u64,
    /// How long a host may be silent before what it told is unknown.
    pub silence_bound_ms: u64,
    /// How long a host may fail to reach the image registry before the nodes that wait for an image from there have failed.
    pub registry_bound_ms: u64,
    /// How many events are kept.
    pub events_kept: u64,
    /// Where hosts on other machines come in, as `address:port`; empty: they cannot join.
    pub join_listen: String,
    /// Names and addresses that they reach this machine by; all of its own when not said.
    pub join_names: Vec<String>,
    /// How long a host's certificate is valid; it is renewed when a third of that is left.
    pub host_certificate_seconds: u64,
    /// The first network identifier that links between hosts may have.
    pub first_vni: u32,
    /// The last one.
    pub last_vni: u32,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            listen: None,
            cpu_overcommit: 8.0,
            memory_overcommit: 1.0,
            disk_overcommit: 4.0,
            database: None,
            settle_bound_ms: 15_000,
            link_bound_ms: 30_000,
            start_watch_ms: 100,
            aside_watch_ms: 1_000,
            removal_bound_ms: 10_000,
            silence_bound_ms: 3_000,
            registry_bound_ms: 120_000,
            events_kept: 100_000,
            join_listen: String::new(),
            join_names: Vec::new(),
            host_certificate_seconds: 30 * 86_400,
            first_vni: 1,
            last_vni: VNI_MAX,
        }
    }
}

/// One of `[[hosts]]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostConfig {
    /// The host's id.
    pub id: HostId,
    /// Its compute service.
    pub compute: Endpoint,
    /// Its network service.
    pub network: Endpoint,
}

impl Config {
    /// Reads and checks the section.
    pub fn load(settings: &Settings) -> anyhow::Result<Config> {
        let config: Config = settings.section("scheduler")?;
        for (key, value) in [
            ("cpu_overcommit", config.cpu_overcommit),
            ("memory_overcommit", config.memory_overcommit),
            ("disk_overcommit", config.disk_overcommit),
        ] {
            anyhow::ensure!(
                value.is_finite() && value > 0.0,
                "[scheduler] {key} is {value}; it must be more than 0"
            );
        }
        anyhow::ensure!(
            config.host_certificate_seconds > 0,
            "[scheduler] host_certificate_seconds must be more than 0"
        );
        anyhow::ensure!(config.events_kept > 0, "[scheduler] events_kept must be more than 0");
        anyhow::ensure!(
            0 < config.first_vni && config.first_vni <= config.last_vni && config.last_vni <= VNI_MAX,
            "[scheduler] first_vni and last_vni must be 1 to {VNI_MAX}, and the first not more than the last"
        );
        Ok(config)
    }

    /// Where the database is.
    pub fn database(&self, settings: &Settings) -> Database {
        let default = || Database::File(settings.data_dir.join("scheduler.db"));
        self.database.as_deref().map_or_else(default, Database::named)
    }

    /// The network identifiers that links between hosts may have.
    pub fn vnis(&self) -> RangeInclusive<u32> {
        self.first_vni..=self.last_vni
    }

    /// How long a started node's links may take.
    pub fn settle_bound(&self) -> Duration {
        Duration::from_millis(self.settle_bound_ms)
    }

    /// How long links may take after both their nodes are ready.
    pub fn link_bound(&self) -> Duration {
        Duration::from_millis(self.link_bound_ms)
    }

    /// How long an operation goes on looking at nodes that it starts.
    pub fn start_watch(&self) -> Duration {
        Duration::from_millis(self.start_watch_ms)
    }

    /// How long a deploy keeps what it replaced.
    pub fn aside_watch(&self) -> Duration {
        Duration::from_millis(self.aside_watch_ms)
    }

    /// How long a deploy waits for removals once all else is there.
    pub fn removal_bound(&self) -> Duration {
        Duration::from_millis(self.removal_bound_ms)
    }

    /// How long a host may fail to reach the image registry.
    pub fn registry_bound(&self) -> Duration {
        Duration::from_millis(self.registry_bound_ms)
    }

    /// How long a host's certificate is valid.
    pub fn host_certificate(&self) -> Duration {
        Duration::from_secs(self.host_certificate_seconds)
    }

    /// How long a host may be silent.
    pub fn silence_bound(&self) -> Duration {
        Duration::from_millis(self.silence_bound_ms)
    }
}

/// The hosts: those listed, or this one.
pub fn hosts(settings: &Settings) -> anyhow::Result<Vec<HostConfig>> {
    let this = || HostConfig {
        id: settings.host.clone(),
        compute: settings.endpoints.compute.clone(),
        network: settings.endpoints.network.clone(),
    };
    let hosts = settings.value::<Vec<HostConfig>>("hosts")?.unwrap_or_else(|| vec![this()]);
    let mut seen = std::collections::BTreeSet::new();
    for host in &hosts {
        let by_tls = [&host.compute, &host.network].into_iter().any(|e| matches!(e, Endpoint::Tls { .. }));
        anyhow::ensure!(
            !by_tls,
            "host \"{}\" of [[hosts]] has an https endpoint: let it join instead (netloom host token), and it need not be listed",
            host.id
        );
        anyhow::ensure!(seen.insert(host.id.folded()), "two [[hosts]] are called \"{}\"", host.id);
        for endpoint in [&host.compute, &host.network] {
            endpoint.warn_of_plain("let that host join (netloom host token)");
        }
    }
    Ok(hosts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn settings(text: &str) -> Settings {
        Settings::from_toml(text, Path::new("/d"), Path::new("/r")).unwrap()
    }

    #[test]
    fn without_a_word_there_is_one_host() {
        let s = settings("host = \"h1\"");
        let all = hosts(&s).unwrap();
        assert_eq!(all.len(), 1);
        assert_eq!((all[0].id.as_str(), all[0].compute.to_string()), ("h1", "unix:/r/compute.sock".into()));
        assert_eq!(Config::load(&s).unwrap().database(&s), Database::File("/d/scheduler.db".into()));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        assert!(Config::load(&settings("[scheduler]\ncpu_overcommit = 0.0")).is_err());
        assert!(Config::load(&settings("[scheduler]\ncpu_overcomit = 1.0")).is_err());
        assert!(Config::load(&settings("[scheduler]\nfirst_vni = 0")).is_err());
        assert!(Config::load(&settings("[scheduler]\nfirst_vni = 8\nlast_vni = 7")).is_err());
        assert!(Config::load(&settings("[scheduler]\nlast_vni = 16777216")).is_err());
        let host = "[[hosts]]\nid = \"a\"\ncompute = \"mem:c\"\nnetwork = \"mem:n\"\n";
        assert_eq!(hosts(&settings(host)).unwrap().len(), 1);
        let tls = host.replace("mem:c", "https://a:uid@10.0.0.2:7610");
        assert!(hosts(&settings(&tls)).unwrap_err().to_string().contains("let it join"));
        assert!(hosts(&settings(&format!("{host}{}", host.replace("\"a\"", "\"A\"")))).is_err());
    }
}
