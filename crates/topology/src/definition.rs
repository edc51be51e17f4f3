//! One definition of a node, as it stands in `defaults`, `kinds`, `groups` or `nodes`: read once and checked once, however many nodes inherit it.

use std::collections::BTreeMap;

use netloom_model::spec::{
    DeviceMapping, DnsSpec, Healthcheck, NetworkMode, Placement, PortMapping, PullPolicy, RestartPolicy,
    VolumeMount, is_sysctl,
};
use netloom_model::state::Runtime;

use crate::bind::BindText;
use crate::certificate::Certificate;
use crate::diagnostic::{At, Pos, Report, quoted};
use crate::docker;
use crate::keys::{Section, known};
use crate::stages::Stages;
use crate::value;
use crate::yaml::{Node, Value};

/// Where a definition stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    Defaults,
    Kind,
    Group,
    Node,
}

/// All variables of the environment, for `__IMPORT_ENVS`.
pub(crate) type AllEnv<'a> = &'a dyn Fn() -> BTreeMap<String, String>;

/// What a definition says; what it leaves out is empty.
#[derive(Debug, Default)]
pub(crate) struct Definition {
    pub kind: Option<At<String>>,
    pub r#type: Option<At<String>>,
    pub group: Option<At<String>>,
    pub runtime: Option<At<Runtime>>,
    pub image: Option<At<String>>,
    pub pull: Option<At<PullPolicy>>,
    pub hostname: Option<At<String>>,
    pub user: Option<At<String>>,
    pub cmd: Option<At<String>>,
    pub entrypoint: Option<At<String>>,
    pub restart: Option<At<RestartPolicy>>,
    pub cpu: Option<At<u32>>,
    pub cpu_set: Option<At<String>>,
    pub memory: Option<At<u64>>,
    pub shm_size: Option<At<u64>>,
    pub disk: Option<At<u64>>,
    pub cgroup_parent: Option<At<String>>,
    pub network_mode: Option<At<NetworkMode>>,
    pub mgmt_ipv4: Option<At<String>>,
    pub mgmt_ipv6: Option<At<String>>,
    pub startup_config: Option<At<String>>,
    pub startup_delay: Option<At<u32>>,
    pub enforce_startup_config: Option<At<bool>>,
    pub suppress_startup_config: Option<At<bool>>,
    pub license: Option<At<String>>,
    pub save_file: Option<At<String>>,
    pub auto_remove: Option<At<bool>>,
    pub ports: Option<At<Vec<At<PortMapping>>>>,
    pub dns: Option<At<DnsSpec>>,
    pub healthcheck: Option<At<Healthcheck>>,
    pub placement: Option<At<Placement>>,
    pub uplink: Option<At<String>>,
    pub certificate: Certificate,
    pub stages: Stages,
    pub env: Vec<(String, At<String>)>,
    pub labels: Vec<(String, At<String>)>,
    pub sysctls: Vec<(String, At<String>)>,
    pub tmpfs: Vec<(String, At<String>)>,
    pub env_files: Vec<At<String>>,
    pub exec: Vec<At<String>>,
    pub cap_add: Vec<At<String>>,
    pub security_opts: Vec<At<String>>,
    pub aliases: Vec<At<String>>,
    pub devices: Vec<At<DeviceMapping>>,
    pub binds: Vec<At<BindText>>,
    pub volumes: Vec<At<VolumeMount>>,
    /// Every key that is set here.
    pub keys: Vec<(&'static str, Pos)>,
}

impl Definition {
    /// Reads a definition.
    pub fn read(node: &Node, level: Level, all_env: AllEnv<'_>, report: &mut Report) -> Definition {
        let mut d = Definition::default();
        for (key, entry) in known(Section::Node, value::map(node, report), report) {
            d.keys.push((key, entry.pos));
            match key {
                "kind" if level == Level::Kind => says_nothing(key, "kinds", entry.pos, report),
                "group" if level == Level::Group => says_nothing(key, "groups", entry.pos, report),
                "mgmt-ipv4" | "mgmt_ipv4" | "mgmt-ipv6" | "mgmt_ipv6" | "aliases" | "uplink"
                    if level != Level::Node =>
                {
                    let message = format!("{key} belongs to a single node, and cannot be inherited");
                    report.error(entry.pos, "KEY_NOT_HERE", message);
                }
                "env" => d.env = env(&entry.node, all_env, report),
                _ => d.take(key, &entry.node, report),
            }
        }
        d
    }

    fn take(&mut self, key: &'static str, node: &Node, report: &mut Report) {
        match key {
            "kind" => self.kind = value::text(node, report),
            "type" => self.r#type = value::text(node, report),
            "group" => self.group = value::text(node, report),
            "image" => self.image = value::parsed(node, report, value::one_word),
            "image-pull-policy" => self.pull = value::parsed(node, report, docker::pull_policy),
            "runtime" => self.runtime = runtime(node, report),
            "hostname" => self.hostname = value::parsed(node, report, value::label),
            "user" => self.user = value::parsed(node, report, value::one_word),
            "cmd" => self.cmd = value::parsed(node, report, value::command),
            "entrypoint" => self.entrypoint = value::parsed(node, report, value::command),
            "restart-policy" => self.restart = value::parsed(node, report, docker::restart_policy),
            "cpu" => self.cpu = value::parsed(node, report, value::cpu),
            "cpu-set" => self.cpu_set = value::parsed(node, report, |t| Ok(t.replace(' ', ""))),
            "memory" => self.memory = value::parsed(node, report, value::memory),
            "disk" => self.disk = value::parsed(node, report, value::size),
            "shm-size" => self.shm_size = value::parsed(node, report, value::size),
            "cgroup-parent" => self.cgroup_parent = value::parsed(node, report, value::one_word),
            "cgroupns-mode" => check_cgroup_namespace(node, report),
            "privileged" => check_privileged(node, report),
            "network-mode" => self.network_mode = value::parsed(node, report, docker::network_mode),
            "mgmt-ipv4" | "mgmt_ipv4" => {
                self.mgmt_ipv4 = value::parsed(node, report, |t| value::address(t, false));
            }
            "mgmt-ipv6" | "mgmt_ipv6" => {
                self.mgmt_ipv6 = value::parsed(node, report, |t| value::address(t, true));
            }
            "startup-config" => self.startup_config = value::text(node, report),
            "startup-delay" => {
                self.startup_delay = value::parsed(node, report, |t| value::number(t, 0, 3_600))
            }
            "enforce-startup-config" => {
                self.enforce_startup_config = value::parsed(node, report, value::truth)
            }
            "suppress-startup-config" => {
                self.suppress_startup_config = value::parsed(node, report, value::truth)
            }
            "license" => self.license = value::text(node, report),
            "save-file" => self.save_file = value::text(node, report),
            "auto-remove" => self.auto_remove = value::parsed(node, report, value::truth),
            "ports" => self.ports = docker::ports(node, report),
            "dns" => self.dns = docker::dns(node, report),
            "healthcheck" => self.healthcheck = docker::healthcheck(node, report),
            "placement" => self.placement = placement(node, report),
            "uplink" => self.uplink = value::parsed(node, report, value::one_word),
            "certificate" => self.certificate = Certificate::read(node, report),
            "stages" => self.stages = Stages::read(node, report),
            "labels" => self.labels = labels(node, report),
            "sysctls" => self.sysctls = sysctls(node, report),
            "tmpfs" => self.tmpfs = docker::tmpfs(node, report),
            "env-files" => self.env_files = value::texts(node, report),
            "exec" => self.exec = value::each(node, report, value::command),
            "cap-add" => {
                let named = value::texts(node, report);
                self.cap_add = named.iter().filter_map(|c| value::capability(c, report)).collect();
            }
            "security-opts" => self.security_opts = value::each(node, report, value::one_word),
            "aliases" => self.aliases = value::each(node, report, value::one_word),
            "devices" => self.devices = value::each(node, report, docker::device),
            "binds" => self.binds = binds(node, report),
            "volumes" => self.volumes = value::each(node, report, docker::volume),
            _ => unreachable!("{key} is in the table as done, and is not read here"),
        }
    }
}

fn says_nothing(key: &str, map: &str, pos: Pos, report: &mut Report) {
    let message = format!("{key} says nothing in an entry of {map}, which has it for a name; leave it out");
    report.warning(pos, "KEY_NOT_HERE", message);
}

fn runtime(node: &Node, report: &mut Report) -> Option<At<Runtime>> {
    let At { value, pos } = value::text(node, report)?;
    let runtime = match value.as_str() {
        "docker" => Runtime::Docker,
        "libvirt" => Runtime::Libvirt,
        _ => {
            let message = format!(
                "the runtime {} is not supported: leave it out, or write docker or libvirt",
                quoted(&value)
            );
            report.error(pos, "RUNTIME_NOT_SUPPORTED", message);
            return None;
        }
    };
    Some(At { value: runtime, pos })
}

/// Where it may be; a map without keys says anywhere, whatever it would inherit.
fn placement(node: &Node, report: &mut Report) -> Option<At<Placement>> {
    let mut placement = Placement::default();
    for (key, entry) in known(Section::Placement, value::map(node, report), report) {
        let node = &entry.node;
        let texts = |report: &mut Report| value::texts(node, report).into_iter().map(|t| t.value).collect();
        match key {
            "host" => placement.host = value::text(node, report).map(|h| h.value).unwrap_or_default(),
            "labels" => {
                let labels = value::text_map(node, report).into_iter();
                placement.labels = labels.map(|(key, label)| (key, label.value)).collect();
            }
            "tolerations" => placement.tolerations = texts(report),
            "apart-from" => placement.apart_from = texts(report),
            "kvm" => placement.kvm = value::parsed(node, report, str::parse).map(|need| need.value),
            _ => unreachable!("{key} is in the table as done, and is not read here"),
        }
    }
    matches!(*node.value, Value::Map(_)).then_some(At { value: placement, pos: node.pos })
}

fn check_cgroup_namespace(node: &Node, report: &mut Report) {
    if let Some(mode) = value::text(node, report).filter(|m| m.value != "private") {
        let message = format!(
            "the cgroupns-mode {} is not supported: a node sees its own cgroups only, as with private",
            quoted(&mode.value)
        );
        report.error(mode.pos, "CGROUPNS_NOT_SUPPORTED", message);
    }
}

fn check_privileged(node: &Node, report: &mut Report) {
    if let Some(At { value: true, pos }) = value::parsed(node, report, value::truth) {
        let message = "nodes are never privileged; this one gets the capabilities of its kind. Name what else it needs with cap-add";
        report.warning(pos, "PRIVILEGED", message);
    }
}

fn env(node: &Node, all_env: AllEnv<'_>, report: &mut Report) -> Vec<(String, At<String>)> {
    let mut env = value::text_map(node, report);
    let mut import = None;
    env.retain(|(name, value)| {
        if name == "__IMPORT_ENVS" {
            import = (value.value == "true").then_some(value.pos);
            return false;
        }
        if name.contains('=') {
            let message = format!("the variable name {} must not hold '='", quoted(name));
            report.error(value.pos, "INVALID_VALUE", message);
            return false;
        }
        true
    });
    if let Some(pos) = import {
        let mut all = all_env();
        all.retain(|name, value| {
            let usable =
                !name.is_empty() && !name.starts_with("__") && !name.contains('=') && !value.contains('\0');
            usable && !env.iter().any(|(own, _)| own == name)
        });
        let message = format!(
            "__IMPORT_ENVS sets all {} variables of your environment that are not set here, and they are sent to the server",
            all.len()
        );
        report.info(pos, "ENVIRONMENT_IMPORTED", message);
        env.extend(all.into_iter().map(|(name, value)| (name, At { value, pos })));
    }
    env
}

fn labels(node: &Node, report: &mut Report) -> Vec<(String, At<String>)> {
    let labels = value::text_map(node, report);
    for (name, value) in labels.iter().filter(|(name, _)| name.starts_with("netloom.")) {
        let message = format!(
            "the label {} is reserved: labels that begin with \"netloom.\" tell which lab a container belongs to",
            quoted(name)
        );
        report.error(value.pos, "RESERVED_LABEL", message);
    }
    labels
}

fn sysctls(node: &Node, report: &mut Report) -> Vec<(String, At<String>)> {
    let mut sysctls = value::text_map(node, report);
    sysctls.retain(|(name, value)| {
        let good = is_sysctl(name);
        if !good {
            let message = format!(
                "{} is not a kernel parameter that a container has for itself: those begin with net., fs.mqueue., kernel.msg, kernel.sem or kernel.shm",
                quoted(name)
            );
            report.error(value.pos, "INVALID_VALUE", message);
        }
        good
    });
    sysctls
}

fn binds(node: &Node, report: &mut Report) -> Vec<At<BindText>> {
    let mut binds = Vec::new();
    let mut places: BTreeMap<String, Pos> = BTreeMap::new();
    for bind in value::each(node, report, BindText::parse) {
        if let Some(first) = places.get(&bind.value.target) {
            let message =
                format!("{} is mounted twice, first at {first}; keep one", quoted(&bind.value.target));
            report.error(bind.pos, "DUPLICATE_BIND", message);
        } else {
            places.insert(bind.value.target.clone(), bind.pos);
            binds.push(bind);
        }
    }
    binds
}
