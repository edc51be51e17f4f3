//! What a container is made of, from what is wanted: pure.

use std::collections::HashMap;
use std::path::PathBuf;

use bollard::models::{
    ContainerCreateBody, EndpointIpamConfig, EndpointSettings, HostConfig, HostConfigLogConfig, Mount,
    MountType, NetworkingConfig, RestartPolicy, RestartPolicyNameEnum,
};
use netloom_model::id::Owner;
use netloom_model::slice::Instance;
use netloom_model::spec::NodeSpec;

use super::label;
use crate::hosts_file::hostname;

/// Where the program that waits for interfaces is inside.
pub(super) const WAIT: &str = "/.netloom/wait";
/// Where it reads their names.
pub(super) const INTERFACES: &str = "/.netloom/interfaces";

/// Something of the host's in the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mounted {
    /// On the host.
    pub source: PathBuf,
    /// Inside.
    pub target: String,
    /// Cannot be written.
    pub read_only: bool,
}

/// What the first process runs, as Docker puts it together: an entrypoint of one's own drops the image's command.
pub(super) fn program(image_entrypoint: Vec<String>, image_cmd: Vec<String>, spec: &NodeSpec) -> Vec<String> {
    let own_entrypoint = !spec.entrypoint.is_empty();
    let mut program = if own_entrypoint { spec.entrypoint.clone() } else { image_entrypoint };
    if !spec.cmd.is_empty() {
        program.extend_from_slice(&spec.cmd);
    } else if !own_entrypoint {
        program.extend(image_cmd);
    }
    program
}

/// The container's configuration.
pub(super) fn body(
    instance: &Instance,
    owner: Owner,
    program: Vec<String>,
    mounts: Vec<Mounted>,
) -> ContainerCreateBody {
    let spec = &instance.spec;
    let entrypoint = if spec.skip_interface_wait { Vec::new() } else { vec![WAIT.to_owned()] };
    // Without the wait the program is the entrypoint, so that Docker adds nothing of the image's.
    let (entrypoint, cmd) = if entrypoint.is_empty() { (program, Vec::new()) } else { (entrypoint, program) };
    let mut labels: HashMap<String, String> = spec.labels.clone().into_iter().collect();
    labels.extend(
        [
            (label::OWNER, owner.to_string()),
            (label::LAB, instance.lab.to_string()),
            (label::NODE, spec.id.clone()),
            (label::UID, instance.uid.to_string()),
            (label::LAB_UID, instance.lab_uid.to_string()),
            (label::SPEC_HASH, instance.spec_hash.clone()),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    );
    ContainerCreateBody {
        image: Some(spec.image.clone()),
        hostname: Some(hostname(instance).to_owned()),
        user: some(spec.user.clone()),
        env: Some(spec.env.iter().map(|(name, value)| format!("{name}={value}")).collect()),
        entrypoint: Some(entrypoint),
        cmd: Some(cmd),
        labels: Some(labels),
        network_disabled: Some(instance.network.is_none()),
        networking_config: instance.network.as_ref().map(|network| NetworkingConfig {
            endpoints_config: Some(HashMap::from([(network.name.clone(), endpoint(spec))])),
        }),
        host_config: Some(host_config(instance, mounts)),
        ..ContainerCreateBody::default()
    }
}

fn host_config(instance: &Instance, mounts: Vec<Mounted>) -> HostConfig {
    let spec = &instance.spec;
    let memory = i64::try_from(spec.memory_limit_bytes).ok().filter(|m| *m > 0);
    let cpus = (spec.cpu_limit_millis > 0).then(|| i64::from(spec.cpu_limit_millis) * 1_000_000);
    let network_mode = instance.network.as_ref().map_or("none", |network| &network.name);
    HostConfig {
        restart_policy: Some(RestartPolicy {
            name: Some(RestartPolicyNameEnum::NO),
            maximum_retry_count: None,
        }),
        network_mode: Some(network_mode.to_owned()),
        nano_cpus: cpus,
        memory,
        // Equal to memory: the limit is not evaded into swap.
        memory_swap: memory,
        cap_add: Some(spec.cap_add.clone()),
        sysctls: Some(spec.sysctls.clone().into_iter().collect()),
        mounts: Some(mounts.into_iter().map(mount).collect()),
        // A node that logs without end does not fill the host's disk.
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".to_owned()),
            config: Some(HashMap::from([
                ("max-size".to_owned(), "16m".to_owned()),
                ("max-file".to_owned(), "2".to_owned()),
            ])),
        }),
        ..HostConfig::default()
    }
}

fn mount(m: Mounted) -> Mount {
    Mount {
        typ: Some(MountType::BIND),
        source: Some(m.source.to_string_lossy().into_owned()),
        target: Some(m.target),
        read_only: Some(m.read_only),
        ..Mount::default()
    }
}

fn endpoint(spec: &NodeSpec) -> EndpointSettings {
    let (ipv4_address, ipv6_address) = (some(spec.mgmt_ipv4.clone()), some(spec.mgmt_ipv6.clone()));
    let fixed = ipv4_address.is_some() || ipv6_address.is_some();
    EndpointSettings {
        ipam_config: fixed.then_some(EndpointIpamConfig { ipv4_address, ipv6_address, link_local_ips: None }),
        aliases: Some(vec![spec.id.clone()]),
        ..EndpointSettings::default()
    }
}

fn some(text: String) -> Option<String> {
    Some(text).filter(|t| !t.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::testing::instance;
    use netloom_model::slice::Network;
    use netloom_model::spec::MgmtSpec;
    use serde_json::{Value, json};

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    fn json_of(instance: &Instance, mounts: Vec<Mounted>) -> Value {
        let owner = "0192f0c1-2345-7000-8000-0000000000ff".parse().unwrap();
        let mut value = serde_json::to_value(body(instance, owner, words("/bin/frr start"), mounts)).unwrap();
        drop_nulls(&mut value);
        value
    }

    fn drop_nulls(value: &mut Value) {
        if let Value::Object(map) = value {
            map.retain(|_, v| !v.is_null());
            map.values_mut().for_each(drop_nulls);
        }
    }

    #[test]
    fn the_whole_of_a_container_without_management() {
        let mut i = instance();
        i.spec.env.insert("A".into(), "b=c".into());
        i.spec.labels.insert("team".into(), "x".into());
        i.spec.labels.insert("netloom.owner".into(), "forged".into());
        i.spec.cap_add = words("NET_ADMIN");
        i.spec.sysctls.insert("net.ipv4.ip_forward".into(), "1".into());
        (i.spec.cpu_limit_millis, i.spec.memory_limit_bytes) = (500, 64 << 20);
        i.spec.user = "1000".into();
        let mounts = vec![Mounted { source: "/data/a:b".into(), target: "/etc/x".into(), read_only: true }];
        assert_eq!(
            json_of(&i, mounts),
            json!({
                "Image": "i:1",
                "Hostname": "r1",
                "User": "1000",
                "Env": ["A=b=c"],
                "Entrypoint": ["/.netloom/wait"],
                "Cmd": ["/bin/frr", "start"],
                "Labels": {
                    "team": "x",
                    "netloom.owner": "0192f0c1-2345-7000-8000-0000000000ff",
                    "netloom.lab": "x",
                    "netloom.node": "r1",
                    "netloom.uid": "0192f0c1-2345-7000-8000-000000000001",
                    "netloom.lab-uid": "0192f0c1-2345-7000-8000-0000000000aa",
                    "netloom.spec-hash": "h",
                },
                "NetworkDisabled": true,
                "HostConfig": {
                    "RestartPolicy": { "Name": "no" },
                    "NetworkMode": "none",
                    "NanoCpus": 500_000_000,
                    "Memory": 67_108_864,
                    "MemorySwap": 67_108_864,
                    "CapAdd": ["NET_ADMIN"],
                    "Sysctls": { "net.ipv4.ip_forward": "1" },
                    "Mounts": [{ "Type": "bind", "Source": "/data/a:b", "Target": "/etc/x", "ReadOnly": true }],
                    "LogConfig": { "Type": "json-file", "Config": { "max-size": "16m", "max-file": "2" } },
                },
            })
        );
    }

    #[test]
    fn a_management_network_is_joined_with_fixed_addresses() {
        let mut i = instance();
        i.network = Some(Network { name: "netloom-x".into(), spec: MgmtSpec::default() });
        i.spec.mgmt_ipv4 = "172.20.20.11".into();
        let made = json_of(&i, Vec::new());
        assert_eq!(made["NetworkDisabled"], json!(false));
        assert_eq!(made["HostConfig"]["NetworkMode"], json!("netloom-x"));
        let endpoint = &made["NetworkingConfig"]["EndpointsConfig"]["netloom-x"];
        assert_eq!(endpoint, &json!({ "IPAMConfig": { "IPv4Address": "172.20.20.11" }, "Aliases": ["r1"] }));
    }

    #[test]
    fn unlimited_means_no_limit_and_the_wait_can_be_left_out() {
        let mut i = instance();
        i.spec.skip_interface_wait = true;
        let made = json_of(&i, Vec::new());
        assert_eq!(made["Entrypoint"], json!(["/bin/frr", "start"]));
        assert_eq!(made["Cmd"], json!([]));
        for limit in ["NanoCpus", "Memory", "MemorySwap"] {
            assert!(made["HostConfig"].get(limit).is_none(), "{limit}");
        }
    }

    #[test]
    fn the_program_is_put_together_as_docker_does() {
        let spec = |entrypoint: &str, cmd: &str| NodeSpec {
            entrypoint: words(entrypoint),
            cmd: words(cmd),
            ..NodeSpec::default()
        };
        let of = |spec: &NodeSpec| program(words("/entry e"), words("run r"), spec).join(" ");
        assert_eq!(of(&spec("", "")), "/entry e run r");
        assert_eq!(of(&spec("", "mine")), "/entry e mine");
        assert_eq!(of(&spec("/own", "")), "/own");
        assert_eq!(of(&spec("/own o", "mine")), "/own o mine");
    }
}
