//! One definition of a node, as it stands in `defaults`, `kinds`, `groups` or `nodes`: read once and checked once, however many nodes inherit it.

use std::collections::BTreeMap;

use netloom_model::spec::{PullPolicy, RestartPolicy};

use crate::bind::BindText;
use crate::diagnostic::{At, Pos, Report, quoted};
use crate::keys::{Section, known};
use crate::value;
use crate::yaml::Node;

/// Where a definition stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    Defaults,
    Kind,
    Group,
    Node,
}

/// What a definition says; what it leaves out is empty.
#[derive(Debug, Default)]
pub(crate) struct Definition {
    pub kind: Option<At<String>>,
    pub r#type: Option<At<String>>,
    pub group: Option<At<String>>,
    pub image: Option<At<String>>,
    pub pull: Option<At<PullPolicy>>,
    pub hostname: Option<At<String>>,
    pub user: Option<At<String>>,
    pub cmd: Option<At<String>>,
    pub entrypoint: Option<At<String>>,
    pub restart: Option<At<RestartPolicy>>,
    pub cpu: Option<At<u32>>,
    pub memory: Option<At<u64>>,
    pub network_none: Option<At<()>>,
    pub mgmt_ipv4: Option<At<String>>,
    pub mgmt_ipv6: Option<At<String>>,
    pub env: Vec<(String, At<String>)>,
    pub labels: Vec<(String, At<String>)>,
    pub sysctls: Vec<(String, At<String>)>,
    pub env_files: Vec<At<String>>,
    pub exec: Vec<At<String>>,
    pub cap_add: Vec<At<String>>,
    pub binds: Vec<At<BindText>>,
    /// Every key that is set here.
    pub keys: Vec<(&'static str, Pos)>,
}

impl Definition {
    /// Reads a definition.
    pub fn read(node: &Node, level: Level, report: &mut Report) -> Definition {
        let mut d = Definition::default();
        for (key, entry) in known(Section::Node, value::map(node, report), report) {
            let node = &entry.node;
            d.keys.push((key, entry.pos));
            match key {
                "kind" if level == Level::Kind => says_nothing(key, "kinds", entry.pos, report),
                "group" if level == Level::Group => says_nothing(key, "groups", entry.pos, report),
                "kind" => d.kind = value::text(node, report),
                "type" => d.r#type = value::text(node, report),
                "group" => d.group = value::text(node, report),
                "image" => d.image = value::parsed(node, report, value::one_word),
                "image-pull-policy" => d.pull = value::parsed(node, report, pull_policy),
                "runtime" => check_runtime(node, report),
                "hostname" => d.hostname = value::parsed(node, report, value::label),
                "user" => d.user = value::parsed(node, report, value::one_word),
                "cmd" => d.cmd = value::parsed(node, report, value::command),
                "entrypoint" => d.entrypoint = value::parsed(node, report, value::command),
                "restart-policy" => d.restart = value::parsed(node, report, restart_policy),
                "cpu" => d.cpu = value::parsed(node, report, value::cpu),
                "memory" => d.memory = value::parsed(node, report, value::memory),
                "privileged" => check_privileged(node, report),
                "network-mode" => d.network_none = network_none(node, report),
                "mgmt-ipv4" | "mgmt_ipv4" | "mgmt-ipv6" | "mgmt_ipv6" if level != Level::Node => {
                    report.error(
                        entry.pos,
                        "KEY_NOT_HERE",
                        format!("{key} belongs to a single node: an address cannot be inherited"),
                    );
                }
                "mgmt-ipv4" | "mgmt_ipv4" => {
                    d.mgmt_ipv4 = value::parsed(node, report, |t| value::address(t, false))
                }
                "mgmt-ipv6" | "mgmt_ipv6" => {
                    d.mgmt_ipv6 = value::parsed(node, report, |t| value::address(t, true))
                }
                "env" => d.env = env(node, report),
                "labels" => d.labels = labels(node, report),
                "sysctls" => d.sysctls = sysctls(node, report),
                "env-files" => d.env_files = value::texts(node, report),
                "exec" => d.exec = exec(node, report),
                "cap-add" => {
                    d.cap_add = value::texts(node, report)
                        .iter()
                        .filter_map(|c| value::capability(c, report))
                        .collect();
                }
                "binds" => d.binds = binds(node, report),
                _ => unreachable!("{key} is in the table as done, and is not read here"),
            }
        }
        d
    }
}

fn says_nothing(key: &str, map: &str, pos: Pos, report: &mut Report) {
    let message = format!("{key} says nothing in an entry of {map}, which has it for a name; leave it out");
    report.warning(pos, "KEY_NOT_HERE", message);
}

fn pull_policy(text: &str) -> Result<PullPolicy, String> {
    match text.to_ascii_lowercase().as_str() {
        "ifnotpresent" => Ok(PullPolicy::IfNotPresent),
        "never" => Ok(PullPolicy::Never),
        "always" => Ok(PullPolicy::Always),
        _ => Err("is not an image-pull-policy: write IfNotPresent, Never or Always".into()),
    }
}

fn restart_policy(text: &str) -> Result<RestartPolicy, String> {
    match text.to_ascii_lowercase().as_str() {
        // YAML 1.1 reads a bare `no` as false.
        "no" | "false" => Ok(RestartPolicy::Never),
        "on-failure" => Ok(RestartPolicy::OnFailure),
        "always" | "unless-stopped" => Ok(RestartPolicy::Always),
        _ => Err("is not a restart-policy: write no, on-failure, always or unless-stopped".into()),
    }
}

fn check_runtime(node: &Node, report: &mut Report) {
    if let Some(runtime) = value::text(node, report).filter(|r| r.value != "docker") {
        let message =
            format!("the runtime {} is not supported: leave it out, or write docker", quoted(&runtime.value));
        report.error(runtime.pos, "RUNTIME_NOT_SUPPORTED", message);
    }
}

fn check_privileged(node: &Node, report: &mut Report) {
    if let Some(At { value: true, pos }) = value::parsed(node, report, value::truth) {
        let message = "nodes are never privileged; this one gets the capabilities of its kind. Name what else it needs with cap-add";
        report.warning(pos, "PRIVILEGED", message);
    }
}

fn network_none(node: &Node, report: &mut Report) -> Option<At<()>> {
    let mode = value::text(node, report)?;
    match mode.value.as_str() {
        "none" => Some(At { value: (), pos: mode.pos }),
        "bridge" => None,
        other => {
            let message = format!(
                "the network-mode {} is not supported: a node has a network namespace of its own. Leave it out, or write none",
                quoted(other)
            );
            report.error(mode.pos, "NETWORK_MODE_NOT_SUPPORTED", message);
            None
        }
    }
}

fn env(node: &Node, report: &mut Report) -> Vec<(String, At<String>)> {
    let mut env = value::text_map(node, report);
    env.retain(|(name, value)| {
        if name == "__IMPORT_ENVS" {
            if value.value != "false" {
                let message = "__IMPORT_ENVS is not supported: a lab must not depend on all that is in a shell. Name the variables: NAME: ${NAME}";
                report.error(value.pos, "KEY_NOT_SUPPORTED", message);
            }
            return false;
        }
        if name.contains('=') {
            report.error(value.pos, "INVALID_VALUE", format!("the variable name {} must not hold '='", quoted(name)));
        }
        true
    });
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
    let sysctls = value::text_map(node, report);
    for (name, value) in &sysctls {
        value::check_sysctl(name, value.pos, report);
    }
    sysctls
}

fn exec(node: &Node, report: &mut Report) -> Vec<At<String>> {
    value::list(node, report).iter().filter_map(|item| value::parsed(item, report, value::command)).collect()
}

fn binds(node: &Node, report: &mut Report) -> Vec<At<BindText>> {
    let mut binds = Vec::new();
    let mut places: BTreeMap<String, Pos> = BTreeMap::new();
    for item in value::list(node, report) {
        let Some(bind) = value::parsed(item, report, BindText::parse) else { continue };
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
