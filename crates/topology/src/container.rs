//! What a node with a container has: the levels it inherits from put together, its files gathered, containerlab's variables filled in.

use std::collections::BTreeMap;
use std::rc::Rc;

use netloom_model::kind::Kind;
use netloom_model::spec::{Bind, BindSource, NodeSpec, VolumeMount};
use netloom_model::state::Runtime;
use netloom_model::words;

use crate::bind::{self, MADE, Refusal};
use crate::certificate::Certificate;
use crate::definition::Definition;
use crate::diagnostic::{At, Pos, Report, quoted};
use crate::env_file;
use crate::files::Collector;
use crate::magic::Magic;
use crate::merge::Levels;
use crate::node::text;
use crate::stages::Stages;

/// Most bytes that the values of all nodes may come to. Inheritance multiplies: a few megabytes of defaults times thousands of nodes fit nowhere.
const MAX_SPEC_BYTES: usize = 32 << 20;

/// The variables of an `env-files` entry, or why there are none.
type EnvFile = Result<Rc<Vec<(String, String)>>, Refusal>;
/// Where parts of a node stand, by their names in the spec.
type Places = Vec<(String, Pos)>;

/// Fills nodes in, and gathers their files.
pub(crate) struct Containers<'a> {
    pub files: Collector<'a>,
    startup_configs: &'a BTreeMap<String, String>,
    env_files: BTreeMap<String, EnvFile>,
    /// Whether a file is JSON.
    json: BTreeMap<String, bool>,
    left: usize,
}

impl<'a> Containers<'a> {
    pub fn new(files: Collector<'a>, startup_configs: &'a BTreeMap<String, String>) -> Containers<'a> {
        Containers {
            files,
            startup_configs,
            env_files: BTreeMap::new(),
            json: BTreeMap::new(),
            left: MAX_SPEC_BYTES,
        }
    }

    /// The node with all that its levels say.
    pub fn fill(
        &mut self,
        spec: NodeSpec,
        levels: &Levels<'_>,
        kind: &Kind,
        magic: Magic<'_>,
        pos: Pos,
        report: &mut Report,
    ) -> Option<(NodeSpec, Places)> {
        self.pay(levels.cost(), pos, report)?;
        let env = self.env(levels, magic, report);
        self.pay(env.iter().map(|(k, v)| k.len() + v.len()).sum(), pos, report)?;
        let mut places = places(levels);
        let (mut binds, volumes) = self.mounts(levels, magic, &mut places, report);
        let command = |item: Option<&At<String>>, report: &mut Report| match item {
            Some(item) => words::split(&magic.text(&item.value, item.pos, report)).unwrap_or_default(),
            None => Vec::new(),
        };
        let ports = levels.one(|d| &d.ports).map(|p| p.value.as_slice()).unwrap_or_default();
        places.extend(ports.iter().enumerate().map(|(i, p)| (format!("ports[{i}]"), p.pos)));
        let devices = levels.united(|d| &d.devices);
        places.extend(devices.iter().enumerate().map(|(i, d)| (format!("devices[{i}]"), d.pos)));
        let is = |get: fn(&Definition) -> &Option<At<bool>>| levels.one(get).is_some_and(|b| b.value);
        let mut stages = Stages::merged(levels.all().map(|d| &d.stages));
        let stages_pos = place(&places, "stages").unwrap_or(pos);
        for exec in stages.iter_mut().flat_map(|s| &mut s.exec) {
            exec.command = magic.text(&exec.command, stages_pos, report);
        }
        let mut healthcheck = levels.one(|d| &d.healthcheck).map(|h| h.value.clone());
        for word in healthcheck.iter_mut().flat_map(|h| &mut h.test) {
            *word = magic.text(word, place(&places, "healthcheck").unwrap_or(pos), report);
        }
        let save_file = levels.one(|d| &d.save_file);
        let mut own = self.startup_configs.get(magic.node).map(|text| At { value: text.clone(), pos });
        if let Some(path) = save_file
            && let Some(saved) = own.take()
        {
            self.put_back(&saved.value, path, kind, magic, &mut binds, report);
        }
        let bound = kind.startup_path().and_then(|path| binds.iter().position(|b| b.target == path));
        let startup_config = match own.as_ref().or_else(|| levels.one(|d| &d.startup_config)) {
            Some(_) if own.is_some() && bound.is_some() => {
                let i = bound.unwrap_or_default();
                let message = format!(
                    "there is a saved configuration of node {}, and this bind puts a file at {}, where that would go: leave the bind out and name its file as startup-config, which gives way to what was saved, or deploy without --saved",
                    magic.node, binds[i].target
                );
                report.error(
                    place(&places, &format!("binds[{i}]")).unwrap_or(pos),
                    "SAVED_CONFIG_BOUND",
                    message,
                );
                String::new()
            }
            Some(config) if own.is_some() => {
                let takes = takes(kind, kind.takes_startup_config(), "startup-config", config.pos, report);
                if takes { self.startup_config(config, true, kind, magic, report) } else { String::new() }
            }
            Some(config) if !is(|d| &d.suppress_startup_config) => {
                let takes = takes(kind, kind.takes_startup_config(), "startup-config", config.pos, report);
                if takes { self.startup_config(config, false, kind, magic, report) } else { String::new() }
            }
            _ => String::new(),
        };
        let license = match levels.one(|d| &d.license) {
            Some(license) if takes(kind, kind.license_path().is_some(), "license", license.pos, report) => {
                let path = self.file(&magic.path(&license.value));
                told(path, license.pos, report)
            }
            _ => String::new(),
        };
        let certificate_pos = place(&places, "certificate").unwrap_or(pos);
        let spec = NodeSpec {
            image: text(levels.one(|d| &d.image)),
            image_pull_policy: levels.one(|d| &d.pull).map(|p| p.value).unwrap_or_default(),
            env,
            binds,
            volumes,
            exec: levels
                .united(|d| &d.exec)
                .into_iter()
                .map(|e| magic.text(&e.value, e.pos, report))
                .collect(),
            cmd: command(levels.one(|d| &d.cmd), report),
            entrypoint: command(levels.one(|d| &d.entrypoint), report),
            user: text(levels.one(|d| &d.user)),
            cap_add: levels.texts(|d| &d.cap_add),
            security_opts: levels.texts(|d| &d.security_opts),
            sysctls: levels.owned(|d| &d.sysctls),
            tmpfs: levels.owned(|d| &d.tmpfs),
            devices: devices.into_iter().map(|d| d.value.clone()).collect(),
            cpu_limit_millis: levels.one(|d| &d.cpu).map_or(0, |c| c.value),
            cpu_set: text(levels.one(|d| &d.cpu_set)),
            memory_limit_bytes: levels.one(|d| &d.memory).map_or(0, |m| m.value),
            disk_request_bytes: levels.one(|d| &d.disk).map_or(0, |m| m.value),
            shm_size_bytes: levels.one(|d| &d.shm_size).map_or(0, |m| m.value),
            cgroup_parent: text(levels.one(|d| &d.cgroup_parent)),
            hostname: text(levels.one(|d| &d.hostname)),
            aliases: levels.texts(|d| &d.aliases),
            mgmt_ipv4: text(levels.one(|d| &d.mgmt_ipv4)),
            mgmt_ipv6: text(levels.one(|d| &d.mgmt_ipv6)),
            network_mode: levels.one(|d| &d.network_mode).map(|m| m.value.clone()).unwrap_or_default(),
            ports: ports.iter().map(|p| p.value.clone()).collect(),
            dns: levels.one(|d| &d.dns).map(|d| d.value.clone()),
            restart_policy: levels.one(|d| &d.restart).map(|r| r.value).unwrap_or_default(),
            auto_remove: is(|d| &d.auto_remove),
            startup_delay_seconds: levels.one(|d| &d.startup_delay).map_or(0, |d| d.value),
            enforce_startup_config: !startup_config.is_empty() && is(|d| &d.enforce_startup_config),
            startup_config,
            license,
            save_file: text(save_file),
            healthcheck,
            stages,
            certificate: Certificate::merged(levels.all().map(|d| &d.certificate), certificate_pos, report),
            ..spec
        };
        Some((spec, places))
    }

    /// Takes the cost of a node from what all may cost; none when it is more than is left.
    fn pay(&mut self, cost: usize, pos: Pos, report: &mut Report) -> Option<()> {
        self.left = self.left.checked_sub(cost).filter(|left| *left > 0).unwrap_or_default();
        if self.is_full() {
            let message = format!(
                "the nodes up to this one come to more than {MAX_SPEC_BYTES} bytes with what they inherit: inherit less"
            );
            report.error(pos, "LAB_TOO_LARGE", message);
            return None;
        }
        Some(())
    }

    /// True when no further node fits.
    pub fn is_full(&self) -> bool {
        self.left == 0
    }

    fn env(
        &mut self,
        levels: &Levels<'_>,
        magic: Magic<'_>,
        report: &mut Report,
    ) -> BTreeMap<String, String> {
        let mut env = BTreeMap::new();
        for item in levels.united(|d| &d.env_files) {
            match self.env_file(&magic.path(&item.value)) {
                Ok(variables) => env.extend(variables.iter().cloned()),
                Err((code, message)) => report.error(item.pos, code, message),
            }
        }
        for (name, value) in levels.merged(|d| &d.env) {
            env.insert(name.to_owned(), magic.text(&value.value, value.pos, report));
        }
        env
    }

    fn env_file(&mut self, path: &str) -> EnvFile {
        if let Some(known) = self.env_files.get(path) {
            return known.clone();
        }
        let read = bind::relative(path)
            .and_then(|path| Ok((self.files.read(&path)?, path)))
            .and_then(|(content, path)| env_file::read(&path, &content))
            .map(Rc::new);
        self.env_files.insert(path.to_owned(), read.clone());
        read
    }

    /// The binds and the volumes; a bind without a source is a volume too.
    fn mounts(
        &mut self,
        levels: &Levels<'_>,
        magic: Magic<'_>,
        places: &mut Places,
        report: &mut Report,
    ) -> (Vec<Bind>, Vec<VolumeMount>) {
        let (mut binds, mut volumes) = (Vec::new(), Vec::new());
        for At { value: bind, pos } in levels.by_target(|d| &d.binds, |b| &b.target) {
            let target = magic.text(&bind.target, *pos, report);
            let Some(source) = &bind.source else {
                places.push((format!("volumes[{}]", volumes.len()), *pos));
                volumes.push(VolumeMount { name: String::new(), target, read_only: bind.read_only });
                continue;
            };
            match self.source(&magic.path(source), *pos, report) {
                Ok(source) => {
                    places.push((format!("binds[{}]", binds.len()), *pos));
                    binds.push(Bind { source, target, read_only: bind.read_only });
                }
                Err((code, message)) => report.error(*pos, code, message),
            }
        }
        for At { value: volume, pos } in levels.by_target(|d| &d.volumes, |v| &v.target) {
            places.push((format!("volumes[{}]", volumes.len()), *pos));
            let (name, target) =
                (magic.text(&volume.name, *pos, report), magic.text(&volume.target, *pos, report));
            volumes.push(VolumeMount { name, target, read_only: volume.read_only });
        }
        (binds, volumes)
    }

    /// Puts what was saved of a node where it was read: a bind there gives way to it. A virtual machine whose kind takes files is told it at its start.
    fn put_back(
        &mut self,
        saved: &str,
        path: &At<String>,
        kind: &Kind,
        magic: Magic<'_>,
        binds: &mut Vec<Bind>,
        report: &mut Report,
    ) {
        if kind.runtime == Runtime::Libvirt && !kind.takes_files() {
            let message = format!(
                "what was saved of {} is not put back into node {}, a virtual machine whose kind takes no files at its start: have its startup-config write it",
                path.value, magic.node
            );
            report.warning(path.pos, "KEY_NOT_SUPPORTED", message);
            return;
        }
        let file = format!("{MADE}/{}/save-file", magic.node);
        let source = BindSource::Bundle(told(self.files.make(&file, saved).map(|()| file), path.pos, report));
        match binds.iter_mut().find(|bind| bind.target == path.value) {
            Some(bind) => bind.source = source,
            None => binds.push(Bind { source, target: path.value.clone(), read_only: false }),
        }
    }

    fn source(&mut self, path: &str, pos: Pos, report: &mut Report) -> Result<BindSource, Refusal> {
        let source = bind::source(path)?;
        match &source {
            BindSource::Bundle(path) => self.files.collect(path)?,
            BindSource::Host(path) => {
                let message = format!(
                    "{} is a path on the host: it is mounted only if the host's configuration allows a directory above it",
                    quoted(path)
                );
                report.info(pos, "HOST_PATH", message);
            }
        }
        Ok(source)
    }

    /// The path of a node's configuration among the lab's files: one that is named, or one that holds the text itself.
    fn startup_config(
        &mut self,
        config: &At<String>,
        is_given: bool,
        kind: &Kind,
        magic: Magic<'_>,
        report: &mut Report,
    ) -> String {
        let path = if is_given || config.value.contains('\n') {
            let path = format!("{MADE}/{}/startup-config", magic.node);
            let text = match is_given {
                true => config.value.clone(),
                false => magic.text(&config.value, config.pos, report),
            };
            self.files.make(&path, &text).map(|()| path)
        } else if let Some((scheme, _)) = config.value.split_once("://") {
            let message = format!(
                "the startup-config lies elsewhere, and nothing is fetched by {} here: fetch it yourself, put it beside the topology file, and name it",
                quoted(scheme)
            );
            Err(("REMOTE_FILE", message))
        } else {
            self.file(&magic.path(&config.value))
        };
        let place = kind.startup_path().filter(|p| p.ends_with(".json"));
        let path = match (path, place) {
            (Ok(path), Some(place)) if !self.is_json(&path) => {
                let message = format!(
                    "kind {} reads its configuration from {place}, and this is not JSON: give it the configuration that a node saved, or leave it out and configure the node once it runs",
                    kind.name
                );
                Err(("STARTUP_CONFIG_NOT_JSON", message))
            }
            (path, _) => path,
        };
        told(path, config.pos, report)
    }

    fn is_json(&mut self, path: &str) -> bool {
        if let Some(known) = self.json.get(path) {
            return *known;
        }
        let content = self.files.content(path);
        let is = content.is_some_and(|c| serde_json::from_slice::<serde::de::IgnoredAny>(c).is_ok());
        self.json.insert(path.to_owned(), is);
        is
    }

    fn file(&mut self, path: &str) -> Result<String, Refusal> {
        let path = bind::relative(path)?;
        self.files.collect_file(&path)?;
        Ok(path)
    }
}

/// True when nodes of the kind have a place for such a file; that they have none is told, since it then does nothing, as with containerlab.
fn takes(kind: &Kind, takes: bool, key: &str, pos: Pos, report: &mut Report) -> bool {
    if takes {
        return true;
    }
    if kind.runtime == Runtime::Libvirt {
        let message = format!(
            "{key} does nothing for the kind {} as a virtual machine, which reads no such file: put what it says into the disk image",
            kind.name
        );
        report.warning(pos, "KEY_NOT_SUPPORTED", message);
    } else {
        let message = format!(
            "{key} does nothing for the kind {}, which reads no such file: mount the file with binds where the image expects it",
            kind.name
        );
        report.warning(pos, "KEY_NOT_SUPPORTED", message);
    }
    false
}

fn told(path: Result<String, Refusal>, pos: Pos, report: &mut Report) -> String {
    path.unwrap_or_else(|(code, message)| {
        report.error(pos, code, message);
        String::new()
    })
}

/// Where the keys stand that count, by the names of the spec's fields.
fn places(levels: &Levels<'_>) -> Places {
    let mut places: BTreeMap<String, Pos> = BTreeMap::new();
    for (key, pos) in levels.all().flat_map(|d| &d.keys) {
        let field = match *key {
            "memory" => "memory_limit_bytes",
            "cpu" => "cpu_limit_millis",
            "disk" => "disk_request_bytes",
            "shm-size" => "shm_size_bytes",
            // Variables of a file are variables.
            "env-files" => "env",
            "startup-delay" => "startup_delay_seconds",
            other => other,
        };
        places.insert(field.replace('-', "_"), *pos);
    }
    // A value says more of its place than its key does.
    let of = |at: Option<Pos>, field: &str| at.map(|pos| (field.to_owned(), pos));
    places.extend(
        [
            of(levels.one(|d| &d.mgmt_ipv4).map(|a| a.pos), "mgmt_ipv4"),
            of(levels.one(|d| &d.mgmt_ipv6).map(|a| a.pos), "mgmt_ipv6"),
            of(levels.one(|d| &d.network_mode).map(|a| a.pos), "network_mode"),
            of(levels.one(|d| &d.cpu_set).map(|a| a.pos), "cpu_set"),
            of(levels.one(|d| &d.ports).map(|a| a.pos), "ports"),
            of(levels.one(|d| &d.hostname).map(|a| a.pos), "hostname"),
            of(levels.one(|d| &d.runtime).map(|a| a.pos), "runtime"),
            of(levels.one(|d| &d.placement).map(|a| a.pos), "placement"),
        ]
        .into_iter()
        .flatten(),
    );
    places.into_iter().collect()
}

fn place(places: &Places, field: &str) -> Option<Pos> {
    places.iter().find(|(f, _)| f == field).map(|(_, pos)| *pos)
}
