use super::*;
use crate::driver::testing::instance;
use netloom_model::spec::{DnsSpec, MgmtSpec};
use serde_json::{Value, json};

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn json_of(instance: &Instance, mounts: Vec<Mounted>) -> Value {
    let owner = "0192f0c1-2345-7000-8000-0000000000ff".parse().unwrap();
    made(instance, network(instance, None).unwrap(), owner, mounts)
}

fn made(instance: &Instance, network: Network<'_>, owner: Owner, mounts: Vec<Mounted>) -> Value {
    let kernel = Kernel { has_ipv6: true, ..Kernel::default() };
    let program = words("/bin/frr start");
    let body = body(instance, owner, &instance.spec.image, &network, program, mounts, &kernel);
    let mut value = serde_json::to_value(body).unwrap();
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
    let mounts =
        vec![Mounted { source: Source::Path("/data/a:b".into()), target: "/etc/x".into(), read_only: true }];
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
                "ReadonlyPaths": Kernel::default().read_only(),
                "Mounts": [{ "Type": "bind", "Source": "/data/a:b", "Target": "/etc/x", "ReadOnly": true }],
                "LogConfig": { "Type": "json-file", "Config": { "max-size": "16m", "max-file": "2" } },
            },
        })
    );
}

#[test]
fn a_management_network_is_joined_with_fixed_addresses() {
    let mut i = instance();
    i.network = Some(slice::Network {
        name: "netloom-x".into(),
        spec: MgmtSpec::default(),
        ..slice::Network::default()
    });
    i.spec.mgmt_ipv4 = "172.20.20.11".into();
    i.spec.aliases = words("edge");
    let made = json_of(&i, Vec::new());
    assert_eq!(made["NetworkDisabled"], json!(false));
    assert_eq!(made["HostConfig"]["NetworkMode"], json!("netloom-x"));
    let endpoint = &made["NetworkingConfig"]["EndpointsConfig"]["netloom-x"];
    assert_eq!(
        endpoint,
        &json!({ "IPAMConfig": { "IPv4Address": "172.20.20.11" }, "Aliases": ["r1", "edge"] })
    );
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

#[test]
fn every_option_is_said_to_docker() {
    let mut i = instance();
    i.network = Some(slice::Network {
        name: "netloom-x".into(),
        spec: MgmtSpec::default(),
        ..slice::Network::default()
    });
    let spec = &mut i.spec;
    spec.tmpfs.insert("/run".into(), "size=64m".into());
    spec.devices = vec![netloom_model::spec::DeviceMapping {
        host_path: "/dev/net/tun".into(),
        ..netloom_model::spec::DeviceMapping::default()
    }];
    spec.shm_size_bytes = 128 << 20;
    spec.security_opts = words("no-new-privileges");
    (spec.cpu_set, spec.cgroup_parent) = ("0-1".into(), "/labs".into());
    let port = |host_address: &str, host_port, protocol: &str| PortMapping {
        host_address: host_address.into(),
        host_port,
        node_port: 80,
        protocol: protocol.into(),
    };
    spec.ports = vec![port("", 8080, ""), port("0.0.0.0", 0, "tcp"), port("", 0, "udp")];
    spec.dns = Some(DnsSpec { servers: words("10.0.0.1"), search: words("a.x"), options: words("ndots:2") });
    spec.healthcheck = Some(Healthcheck {
        test: words("CMD true"),
        interval_seconds: 2,
        retries: 4,
        ..Healthcheck::default()
    });
    let volume =
        Mounted { source: Source::Volume("netloom-x-data".into()), target: "/d".into(), read_only: false };
    let made = json_of(&i, vec![volume]);
    assert_eq!(
        made["Healthcheck"],
        json!({ "Test": ["CMD", "true"], "Interval": 2_000_000_000, "Timeout": 0, "Retries": 4, "StartPeriod": 0 })
    );
    let host = &made["HostConfig"];
    for (name, value) in [
        ("Tmpfs", json!({ "/run": "size=64m" })),
        (
            "Devices",
            json!([{ "PathOnHost": "/dev/net/tun", "PathInContainer": "/dev/net/tun", "CgroupPermissions": "rwm" }]),
        ),
        ("ShmSize", json!(128 << 20)),
        ("SecurityOpt", json!(["no-new-privileges"])),
        ("CpusetCpus", json!("0-1")),
        ("CgroupParent", json!("/labs")),
        (
            "PortBindings",
            json!({
                "80/tcp": [{ "HostIp": "127.0.0.1", "HostPort": "8080" }, { "HostIp": "0.0.0.0" }],
                "80/udp": [{ "HostIp": "127.0.0.1" }],
            }),
        ),
        ("Dns", json!(["10.0.0.1"])),
        ("DnsSearch", json!(["a.x"])),
        ("DnsOptions", json!(["ndots:2"])),
        (
            "Mounts",
            json!([{ "Type": "volume", "Source": "netloom-x-data", "Target": "/d", "ReadOnly": false }]),
        ),
    ] {
        assert_eq!(host[name], value, "{name}");
    }
    i.network = None;
    assert!(network(&i, None).unwrap_err().to_string().contains("publishes ports"));
}

#[test]
fn a_namespace_of_another_or_of_the_host_takes_no_settings_of_its_own() {
    let mut i = instance();
    i.network = Some(slice::Network {
        name: "netloom-x".into(),
        spec: MgmtSpec::default(),
        ..slice::Network::default()
    });
    i.spec.sysctls.insert("net.ipv4.ip_forward".into(), "1".into());
    i.spec.sysctls.insert("kernel.msgmax".into(), "9000".into());
    i.spec.network_mode = NetworkMode::Node("r2".into());
    assert!(matches!(network(&i, None), Err(Error::Busy(_))));
    let shared = made(&i, network(&i, Some("c2")).unwrap(), Owner::new(), Vec::new());
    assert_eq!(shared["HostConfig"]["NetworkMode"], json!("container:c2"));
    assert_eq!((shared.get("Hostname"), &shared["NetworkDisabled"]), (None, &json!(false)));
    assert!(shared.get("NetworkingConfig").is_none());
    i.spec.network_mode = NetworkMode::Host;
    let host = json_of(&i, Vec::new());
    assert_eq!((&host["HostConfig"]["NetworkMode"], &host["Hostname"]), (&json!("host"), &json!("r1")));
    assert_eq!(host["HostConfig"]["Sysctls"], json!({ "kernel.msgmax": "9000" }));
    assert_eq!(
        host["HostConfig"].get("ReadonlyPaths"),
        None,
        "the host's network is not the node's to change"
    );
    assert_eq!(shared["HostConfig"]["Sysctls"].as_object().unwrap().len(), 2);
    i.spec.network_mode = NetworkMode::None;
    assert_eq!(json_of(&i, Vec::new())["NetworkDisabled"], json!(true));
}

#[test]
fn ipv6_is_on_beside_a_management_network_unless_it_is_said_otherwise() {
    let mut i = instance();
    let of = |i: &Instance| json_of(i, Vec::new())["HostConfig"]["Sysctls"].clone();
    assert_eq!(of(&i), json!({}));
    i.network = Some(slice::Network {
        name: "netloom-x".into(),
        spec: MgmtSpec::default(),
        ..slice::Network::default()
    });
    let (all, default) = ("net.ipv6.conf.all.disable_ipv6", "net.ipv6.conf.default.disable_ipv6");
    assert_eq!(of(&i), json!({ all: "0", default: "0" }));
    i.spec.sysctls.insert(all.into(), "1".into());
    assert_eq!(of(&i), json!({ all: "1" }), "which sets the default too");
    // It was lost when "all" happened to be set after it.
    i.spec.sysctls = [(default.to_owned(), "1".to_owned())].into();
    assert_eq!(of(&i), json!({ default: "1", "net.ipv6.conf.lo.disable_ipv6": "0" }));
    let network = network(&i, None).unwrap();
    assert_eq!(
        sysctls(&i.spec, &network, &Kernel::default()).len(),
        1,
        "a kernel without IPv6 has no switch for it"
    );
}
