//! Configuration: a TOML file, where every key is also an environment variable `NETLOOM_…` (`NETLOOM_GATEWAY__LISTEN` is `listen` of `[gateway]`), over defaults.
//!
//! All programs read the same file: each takes the common keys and its own section, so that one file configures five programs or one.

use std::path::{Path, PathBuf};

use figment::Figment;
use figment::providers::{Env, Format as _, Toml};
use netloom_model::id::HostId;
use netloom_model::kind::Catalogue;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::tls::Peer;
use crate::{Endpoint, Replicas};

mod wrong;

/// Where configuration is read from when no file is named.
pub const DEFAULT_FILE: &str = "/etc/netloom/netloom.toml";
/// Where data is kept when nothing else is said.
pub const DEFAULT_DATA_DIR: &str = "/var/lib/netloom";
/// Where sockets and network namespaces are published when nothing else is said.
pub const DEFAULT_RUN_DIR: &str = "/run/netloom";

/// What all programs share.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What is kept over a reboot.
    pub data_dir: PathBuf,
    /// What is not.
    pub run_dir: PathBuf,
    /// This host's id.
    pub host: HostId,
    /// Token of internal services on TCP.
    pub token: Option<String>,
    /// Where the other programs are.
    pub endpoints: Endpoints,
    figment: Figment,
    file: Option<File>,
}

/// The file that configuration was read from.
#[derive(Debug, Clone)]
struct File {
    path: PathBuf,
    text: String,
}

/// Where each internal service is reached.
#[derive(Debug, Clone)]
pub struct Endpoints {
    /// The scheduler, or several of which one leads.
    pub scheduler: Replicas,
    /// The image registry, or several that keep the same images.
    pub image_registry: Replicas,
    /// This host's compute service.
    pub compute: Endpoint,
    /// This host's network service.
    pub network: Endpoint,
}

#[derive(Deserialize)]
struct Common {
    data_dir: Option<PathBuf>,
    run_dir: Option<PathBuf>,
    host: Option<HostId>,
    token: Option<String>,
    #[serde(default)]
    endpoints: EndpointsConfig,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct EndpointsConfig {
    scheduler: Option<Replicas>,
    image_registry: Option<Replicas>,
    compute: Option<Endpoint>,
    network: Option<Endpoint>,
}

impl Settings {
    /// Reads the file (the default one may be missing) and the environment; the directories given override both.
    pub fn load(
        file: Option<&Path>,
        data_dir: Option<&Path>,
        run_dir: Option<&Path>,
    ) -> anyhow::Result<Settings> {
        let figment = match file {
            Some(path) => {
                anyhow::ensure!(path.exists(), "the configuration file {} does not exist", path.display());
                Figment::from(Toml::file_exact(path))
            }
            None => Figment::from(Toml::file(DEFAULT_FILE)),
        };
        let path = file.unwrap_or(Path::new(DEFAULT_FILE));
        let file = std::fs::read_to_string(path).ok().map(|text| File { path: path.to_owned(), text });
        wrong::top_level(&figment, file.as_ref())?;
        let figment = figment.merge(Env::prefixed("NETLOOM_").split("__"));
        Settings::from_figment(figment, file, data_dir, run_dir)
    }

    /// Settings from TOML text and directories, without file or environment: for tests and embedding.
    pub fn from_toml(text: &str, data_dir: &Path, run_dir: &Path) -> anyhow::Result<Settings> {
        let figment = Figment::from(Toml::string(text));
        wrong::top_level(&figment, None)?;
        Settings::from_figment(figment, None, Some(data_dir), Some(run_dir))
    }

    fn from_figment(
        figment: Figment,
        file: Option<File>,
        data_dir: Option<&Path>,
        run_dir: Option<&Path>,
    ) -> anyhow::Result<Settings> {
        let common: Common =
            figment.extract().map_err(|e| anyhow::anyhow!(wrong::told(e, "", file.as_ref())))?;
        let data_dir =
            data_dir.map(Path::to_owned).or(common.data_dir).unwrap_or_else(|| DEFAULT_DATA_DIR.into());
        let run_dir =
            run_dir.map(Path::to_owned).or(common.run_dir).unwrap_or_else(|| DEFAULT_RUN_DIR.into());
        let socket = |given: Option<Endpoint>, name: &str| {
            given.unwrap_or_else(|| Endpoint::Unix(run_dir.join(format!("{name}.sock"))))
        };
        let endpoints = Endpoints {
            scheduler: common.endpoints.scheduler.unwrap_or_else(|| socket(None, "scheduler").into()),
            image_registry: (common.endpoints.image_registry)
                .unwrap_or_else(|| socket(None, "image-registry").into()),
            compute: socket(common.endpoints.compute, "compute"),
            network: socket(common.endpoints.network, "network"),
        };
        for (name, of) in [("scheduler", &endpoints.scheduler), ("image_registry", &endpoints.image_registry)]
        {
            let is_host = |e: &&Endpoint| matches!(e, Endpoint::Tls { peer: Peer::Host { .. }, .. });
            if let Some(host) = of.all().iter().find(is_host) {
                anyhow::bail!(
                    "[endpoints] {name} names {host}, and controllers are no hosts: write https://address:port"
                );
            }
            let is_tls = |e: &Endpoint| e.tls_name().is_some();
            let is_tcp = |e: &Endpoint| matches!(e, Endpoint::Tcp(_));
            anyhow::ensure!(
                !(of.all().iter().any(is_tls) && of.all().iter().any(is_tcp)),
                "[endpoints] {name} has https:// and http://: write https:// in all of {of}"
            );
        }
        let this_hosts = [&endpoints.compute, &endpoints.network];
        if let Some(tls) = this_hosts.into_iter().find(|e| e.tls_name().is_some()) {
            anyhow::bail!(
                "[endpoints] names {tls}, and compute and network of this host do not talk over TLS: write unix:/path or http://address:port; hosts on other machines join (netloom host token)"
            );
        }
        let host = common.host.unwrap_or_else(|| "local".parse().expect("a valid host id"));
        Ok(Settings { data_dir, run_dir, host, token: common.token, endpoints, figment, file })
    }

    /// Where schedulers and image registries of this installation are reached, and where those of this controller listen.
    pub(crate) fn controllers(&self) -> Vec<Endpoint> {
        // A section that cannot be read is told by the program whose it is.
        let listen = |section: &str| self.value::<Endpoint>(&format!("{section}.listen")).ok().flatten();
        let mut all = [&self.endpoints.scheduler, &self.endpoints.image_registry].map(Replicas::all).concat();
        let own = ["scheduler", "image_registry"].into_iter().filter_map(listen);
        all.extend(own.filter(|own| !all.contains(own)).collect::<Vec<_>>());
        all
    }

    /// True where controllers talk to each other over TLS.
    pub fn controllers_use_tls(&self) -> bool {
        self.controllers().iter().any(|e| e.tls_name().is_some())
    }

    /// The names and addresses that controllers are dialled by: what the configuration says of them anyway. Each may be dialled by those of all, since their configurations are alike.
    pub(crate) fn controller_names(&self) -> Vec<String> {
        let of_hosts: Option<Vec<String>> = self.value("scheduler.join_names").ok().flatten();
        let mut names: Vec<String> = self
            .controllers()
            .iter()
            .filter_map(|e| e.tls_name().map(str::to_owned))
            .chain(of_hosts.into_iter().flatten())
            .collect();
        names.retain(|name| !["0.0.0.0", "::"].contains(&name.as_str()));
        names.sort();
        names.dedup();
        names
    }

    /// Where a program tells its figures by themselves; none when the configuration names no address. `metrics` is one address, for whichever program
    /// reads it, or a table of them by program.
    pub fn metrics(&self, program: &str) -> anyhow::Result<Option<String>> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Metrics {
            One(String),
            Each(std::collections::BTreeMap<String, String>),
        }
        let program = program.strip_prefix("netloom-").unwrap_or(program);
        Ok(match self.value::<Metrics>("metrics")? {
            None => None,
            Some(Metrics::One(address)) => Some(address),
            Some(Metrics::Each(addresses)) => addresses.get(program).cloned(),
        })
    }

    /// The URL of the Redis that wakes replicas; none when the configuration names none.
    pub fn redis(&self) -> anyhow::Result<Option<String>> {
        Ok(self.value::<String>("redis")?.filter(|url| !url.is_empty()))
    }

    /// Where spans are sent, as `otlp_endpoint` or OpenTelemetry's own variables say; none when nothing does.
    pub fn otlp_endpoint(&self) -> anyhow::Result<Option<Endpoint>> {
        use anyhow::Context as _;
        let from_environment = || {
            let names = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
            names.iter().find_map(|n| Some((*n, std::env::var(n).ok()?)))
        };
        let configured = self.value::<String>("otlp_endpoint")?.map(|text| ("otlp_endpoint", text));
        let Some((key, text)) = configured.or_else(from_environment).filter(|(_, text)| !text.is_empty())
        else {
            return Ok(None);
        };
        let endpoint: Endpoint = text.parse().with_context(|| format!("{key} cannot be used"))?;
        anyhow::ensure!(
            matches!(endpoint, Endpoint::Unix(_) | Endpoint::Tcp(_)),
            "{key} is {endpoint}; it must be http://address:port or unix:/path"
        );
        Ok(Some(endpoint))
    }

    /// A program's own section, its defaults where the file says nothing.
    pub fn section<T: DeserializeOwned + Default>(&self, name: &str) -> anyhow::Result<T> {
        match self.figment.find_value(name) {
            Err(_) => Ok(T::default()),
            Ok(_) => self.figment.extract_inner(name).map_err(|e| self.wrong(e, name)),
        }
    }

    /// What is wrong with a section, as one line for each key; nothing when it can be read.
    pub fn check<T: DeserializeOwned + Default>(&self, name: &str) -> Vec<String> {
        self.section::<T>(name).err().map(|e| format!("{e:#}")).into_iter().collect()
    }

    fn wrong(&self, error: figment::Error, section: &str) -> anyhow::Error {
        anyhow::anyhow!(wrong::told(error, section, self.file.as_ref()))
    }

    /// The kind catalogue: the embedded kinds, and the files `*.toml` of the directory `kinds_dir` when the configuration names one.
    pub fn catalogue(&self) -> anyhow::Result<Catalogue> {
        use anyhow::Context as _;
        let mut catalogue = Catalogue::embedded();
        let Some(directory) = self.value::<PathBuf>("kinds_dir")? else { return Ok(catalogue) };
        let entries = std::fs::read_dir(&directory)
            .with_context(|| format!("cannot read the directory kinds_dir = {}", directory.display()))?;
        let mut files = entries.map(|e| Ok(e?.path())).collect::<std::io::Result<Vec<PathBuf>>>()?;
        files.retain(|f| f.extension().is_some_and(|e| e == "toml"));
        files.sort();
        for file in files {
            let text =
                std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
            catalogue.add_own(&file.display().to_string(), &text)?;
        }
        Ok(catalogue)
    }

    /// A value that is not in a section, for instance the list `hosts`; none when the file says nothing.
    pub fn value<T: DeserializeOwned>(&self, name: &str) -> anyhow::Result<Option<T>> {
        match self.figment.find_value(name) {
            Err(_) => Ok(None),
            Ok(_) => self.figment.extract_inner(name).map(Some).map_err(|e| self.wrong(e, name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize, Default, PartialEq, Debug)]
    #[serde(deny_unknown_fields, default)]
    struct Section {
        bridge: String,
    }

    #[test]
    fn common_keys_and_a_section() {
        let text =
            "host = \"h1\"\n[network]\nbridge = \"b\"\n[endpoints]\ncompute = \"http://127.0.0.1:1\"\n";
        let s = Settings::from_toml(text, Path::new("/d"), Path::new("/r")).unwrap();
        assert_eq!(s.host.as_str(), "h1");
        assert_eq!(s.endpoints.compute.to_string(), "http://127.0.0.1:1");
        assert_eq!(s.endpoints.scheduler.to_string(), "unix:/r/scheduler.sock");
        assert_eq!(s.section::<Section>("network").unwrap().bridge, "b");
        assert_eq!(s.section::<Section>("compute").unwrap(), Section::default());
    }

    #[test]
    fn the_default_file_may_be_missing_and_a_named_one_may_not() {
        assert!(Path::new(DEFAULT_FILE).exists() || Settings::load(None, None, None).is_ok());
        let said = Settings::load(Some(Path::new("/nonexistent.toml")), None, None).unwrap_err().to_string();
        assert!(said.contains("/nonexistent.toml"), "{said}");
    }

    #[test]
    fn services_of_a_host_are_not_reached_over_tls_by_configuration() {
        let tls = "[endpoints]\ncompute = \"https://h1:uid@10.0.0.2:7610\"\n";
        let said = Settings::from_toml(tls, Path::new("/d"), Path::new("/r")).unwrap_err().to_string();
        assert!(said.contains("hosts on other machines join"), "{said}");
        let host = "[endpoints]\nscheduler = [\"unix:/a\", \"https://h1:uid@10.0.0.2:7611\"]\n";
        let said = Settings::from_toml(host, Path::new("/d"), Path::new("/r")).unwrap_err().to_string();
        assert!(said.contains("https://h1:uid@10.0.0.2:7611"), "{said}");
        let mixed = "[endpoints]\nimage_registry = [\"https://10.0.0.1:7612\", \"http://10.0.0.2:7612\"]\n";
        let said = Settings::from_toml(mixed, Path::new("/d"), Path::new("/r")).unwrap_err().to_string();
        assert!(said.contains("image_registry has https:// and http://"), "{said}");
    }

    #[test]
    fn controllers_are_dialled_by_the_names_that_the_configuration_has() {
        let of = |text: &str| Settings::from_toml(text, Path::new("/d"), Path::new("/r")).unwrap();
        assert!(!of("").controllers_use_tls() && of("").controller_names().is_empty());
        let all = of(
            "[endpoints]\nscheduler = [\"https://10.0.0.1:7611\", \"unix:/s\"]\nimage_registry = \"https://[fd00::1]:7612\"\n\
             [scheduler]\nlisten = \"https://0.0.0.0:7611\"\njoin_names = [\"lab.example\", \"10.0.0.1\"]\n\
             [image_registry]\nlisten = \"https://c1:7612\"\n",
        );
        assert!(all.controllers_use_tls());
        assert_eq!(all.controller_names(), ["10.0.0.1", "c1", "fd00::1", "lab.example"]);
        assert!(of("[image_registry]\nlisten = \"https://c1:7612\"").controllers_use_tls());
    }

    #[test]
    fn a_users_kinds_join_the_catalogue() {
        let dir = tempfile::tempdir().unwrap();
        let text = "name = \"mine\"\ndescription = \"d\"\nruntime = \"libvirt\"\nverified = false\nsource = \"s\"\n\
                    [interfaces]\npattern = \"e{n}\"\nfirst = 0\nmax = 4\n";
        std::fs::write(dir.path().join("mine.toml"), text).unwrap();
        let toml = format!("kinds_dir = {:?}", dir.path());
        let s = Settings::from_toml(&toml, Path::new("/d"), Path::new("/r")).unwrap();
        assert!(s.catalogue().unwrap().get("mine").is_some());
        std::fs::write(dir.path().join("bad.toml"), "name = 1").unwrap();
        assert!(s.catalogue().unwrap_err().to_string().contains("bad.toml"));
        std::fs::write(dir.path().join("bad.toml"), text.replace("verified = false", "verified = true"))
            .unwrap();
        assert!(!s.catalogue().unwrap().get("mine").unwrap().verified, "netloom's tests do not run it");
    }

    #[test]
    fn metrics_are_told_at_one_address_or_at_one_a_program() {
        let at = |text: &str, program: &str| {
            let s = Settings::from_toml(text, Path::new("/d"), Path::new("/r")).unwrap();
            s.metrics(program).unwrap()
        };
        assert_eq!(at("", "netloomd"), None);
        assert_eq!(at("metrics = \"127.0.0.1:1\"", "netloomd").as_deref(), Some("127.0.0.1:1"));
        let each = "[metrics]\nscheduler = \"127.0.0.1:2\"\n";
        assert_eq!(at(each, "netloom-scheduler").as_deref(), Some("127.0.0.1:2"));
        assert_eq!(at(each, "netloom-compute"), None);
    }

    #[test]
    fn spans_go_where_the_configuration_says() {
        let at =
            |text: &str| Settings::from_toml(text, Path::new("/d"), Path::new("/r")).unwrap().otlp_endpoint();
        let endpoint = at("otlp_endpoint = \"http://127.0.0.1:4317\"").unwrap().unwrap();
        assert_eq!(endpoint.to_string(), "http://127.0.0.1:4317");
        assert!(at("otlp_endpoint = \"\"").unwrap().is_none());
        for wrong in ["https://collector:4317", "mem:x", "collector"] {
            let said = format!("{:#}", at(&format!("otlp_endpoint = \"{wrong}\"")).unwrap_err());
            assert!(said.contains("otlp_endpoint"), "{said}");
        }
    }

    #[test]
    fn a_wrong_key_is_named() {
        let s = Settings::from_toml("[network]\nbrigde = \"b\"\n", Path::new("/d"), Path::new("/r")).unwrap();
        let said = s.section::<Section>("network").unwrap_err().to_string();
        assert_eq!(said, "there is no key network.brigde. Did you mean \"bridge\"?");
    }

    #[test]
    fn a_wrong_key_is_told_at_its_place_in_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("netloom.toml");
        let write = |text: &str| std::fs::write(&file, text).unwrap();
        let load = || Settings::load(Some(&file), None, None);
        let at = |line: usize| format!("{}:{line}: ", file.display());
        write("# a comment\nhost = \"h1\"\n\n[network]\n# brigde = 1\nbrigde = \"b\"\n");
        let said = load().unwrap().check::<Section>("network");
        assert_eq!(said, [format!("{}there is no key network.brigde. Did you mean \"bridge\"?", at(6))]);
        write("[network]\nbridge = 7\n");
        let said = load().unwrap().check::<Section>("network");
        assert_eq!(said.len(), 1);
        assert!(said[0].starts_with(&format!("{}network.bridge: ", at(2))), "{said:?}");
        write("\n[netwrok]\nbridge = \"b\"\n");
        let said = load().unwrap_err().to_string();
        assert_eq!(said, format!("{}there is no key netwrok. Did you mean \"network\"?", at(2)));
        write("[endpoints]\nsheduler = \"unix:/x\"\n");
        let said = load().unwrap_err().to_string();
        assert_eq!(said, format!("{}there is no key endpoints.sheduler. Did you mean \"scheduler\"?", at(2)));
    }
}
