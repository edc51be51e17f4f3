//! Each rule with a spec that breaks it.

use super::*;
use crate::id::Digest;
use crate::spec::{
    AuthoritySpec, Bind, BindSource, CertificateSpec, DeviceMapping, DnsSpec, Endpoint, EndpointType,
    FileEntry, Healthcheck, Impairment, LinkSpec, MgmtSpec, NetworkMode, NodeSpec, PortMapping, Stage,
    StageExec, StageSpec, StageWait, VolumeMount,
};

fn end(node: &str, interface: &str) -> Endpoint {
    Endpoint { node: node.into(), interface: interface.into(), ..Endpoint::default() }
}

fn link(a: Endpoint, b: Endpoint) -> LinkSpec {
    LinkSpec { a, b, ..LinkSpec::default() }
}

fn node(id: &str) -> NodeSpec {
    NodeSpec { id: id.into(), ..NodeSpec::default() }
}

fn file(path: &str) -> FileEntry {
    FileEntry { path: path.into(), digest: Digest::of(b""), size_bytes: 0, mode: 0o644 }
}

/// A lab with a management network and two nodes, changed.
fn lab(change: impl FnOnce(&mut LabSpec)) -> LabSpec {
    let mgmt = MgmtSpec { ipv4_subnet: "10.0.0.0/24".into(), ..MgmtSpec::default() };
    let mut spec = LabSpec { mgmt: Some(mgmt), nodes: vec![node("a"), node("b")], ..LabSpec::default() };
    change(&mut spec);
    spec
}

/// Holds that exactly one thing is said: of this field, with these words.
#[track_caller]
fn wrong(field: &str, words: &str, change: impl FnOnce(&mut LabSpec)) {
    let said = lab(change).check();
    assert_eq!(said.len(), 1, "{said:?}");
    assert_eq!(said[0].field, field, "{said:?}");
    assert!(said[0].description.contains(words), "{said:?}");
}

#[track_caller]
fn right(change: impl FnOnce(&mut LabSpec)) {
    assert_eq!(lab(change).check(), []);
}

fn port(host: u32, node: u32) -> PortMapping {
    PortMapping { host_port: host, node_port: node, ..PortMapping::default() }
}

fn stage(stage: Stage, wait_for: &[(&str, Stage)], exec: &[&str]) -> StageSpec {
    StageSpec {
        stage,
        wait_for: wait_for.iter().map(|(n, s)| StageWait { node: (*n).into(), stage: *s }).collect(),
        exec: exec.iter().map(|c| StageExec { command: (*c).into(), on_exit: false }).collect(),
    }
}

#[test]
fn a_link_is_the_same_from_both_sides() {
    let one = link(end("r2", "eth1"), end("r1", "eth1"));
    let other = link(end("r1", "eth1"), end("r2", "eth1"));
    assert_eq!(one.id(), "r1:eth1--r2:eth1");
    assert_eq!(one.id(), other.id());
    assert_eq!(one.sorted(), other.sorted());
}

#[test]
fn every_fault_is_named() {
    let spec = LabSpec {
        prefix: "-x".into(),
        nodes: vec![
            node("a"),
            NodeSpec {
                binds: vec![Bind {
                    source: BindSource::Bundle("../../etc/shadow".into()),
                    target: "etc".into(),
                    read_only: false,
                }],
                ..node("A")
            },
        ],
        links: vec![
            link(end("a", "eth1"), end("a", "eth1")),
            LinkSpec {
                mtu: 9,
                ..link(Endpoint { mac: "01:00:00:00:00:01".into(), ..end("a", "eth2") }, end("b", "eth1"))
            },
        ],
        ..LabSpec::default()
    };
    let fields: Vec<String> = spec.check().into_iter().map(|v| v.field).collect();
    for field in [
        "prefix",
        "nodes[1].id",
        "nodes[1].binds[0]",
        "links[0].b",
        "links[1].a.mac",
        "links[1].b",
        "links[1].mtu",
    ] {
        assert!(fields.iter().any(|f| f == field), "{field} missing in {fields:?}");
    }
}

#[test]
fn files_of_a_node_are_those_below_its_binds_and_its_configuration() {
    let node = NodeSpec {
        binds: vec![Bind { source: BindSource::Bundle("r1".into()), target: "/x".into(), read_only: false }],
        startup_config: "c".into(),
        license: "l".into(),
        ..NodeSpec::default()
    };
    let files = ["r1/b", "r10/a", "r1/a", "l", "c", "d"].map(file).into();
    let spec = LabSpec { files, ..LabSpec::default() };
    let paths: Vec<String> = spec.files_of(&node).into_iter().map(|f| f.path).collect();
    assert_eq!(paths, ["c", "l", "r1/a", "r1/b"]);
}

#[test]
fn names_of_instances() {
    let lab = "x".parse().unwrap();
    for (prefix, name) in [("", "netloom-x-n"), ("p", "p-x-n"), (crate::spec::LAB_NAME_PREFIX, "x-n")] {
        let spec = LabSpec { prefix: prefix.into(), ..LabSpec::default() };
        assert_eq!(spec.instance_name(&lab, "n"), name);
        assert_eq!(spec.check(), []);
    }
    wrong("nodes[0].id", "no node", |l| l.nodes[0].id = "Mgmt-Net".into());
    wrong("nodes[1].aliases", "already", |l| l.nodes[1].aliases = vec!["A".into()]);
    wrong("nodes[1].aliases", "host name", |l| l.nodes[1].aliases = vec!["a b".into()]);
    right(|l| l.nodes[1].aliases = vec!["a.example.com".into(), "c".into()]);
}

#[test]
fn capabilities_are_named_one_by_one() {
    wrong("nodes[0].cap_add", "no way to ask for all", |l| l.nodes[0].cap_add = vec!["ALL".into()]);
    wrong("nodes[0].cap_add", "BOGUS", |l| l.nodes[0].cap_add = vec!["BOGUS".into()]);
    right(|l| l.nodes[0].cap_add = vec!["NET_RAW".into()]);
}

#[test]
fn management() {
    let mgmt = |change: fn(&mut MgmtSpec)| move |l: &mut LabSpec| change(l.mgmt.as_mut().unwrap());
    wrong("mgmt.network", "Docker's own", mgmt(|m| m.network = "host".into()));
    wrong("mgmt.bridge", "15", mgmt(|m| m.bridge = "a-name-that-is-too-long".into()));
    wrong("mgmt.mtu", "576", mgmt(|m| m.mtu = 100));
    wrong("mgmt.ipv4_subnet", "bits set", mgmt(|m| m.ipv4_subnet = "10.0.0.1/24".into()));
    wrong("mgmt.ipv4_range", "ipv4-subnet", mgmt(|m| m.ipv4_range = "10.0.1.0/24".into()));
    wrong("mgmt.ipv6_range", "ipv6-subnet", mgmt(|m| m.ipv6_range = "fd00::/64".into()));
    wrong("mgmt.ipv4_gateway", "ipv4-subnet", mgmt(|m| m.ipv4_gateway = "10.0.1.1".into()));
    wrong("mgmt.driver_options", "option", mgmt(|m| drop(m.driver_options.insert("a b".into(), "".into()))));
    right(mgmt(|m| m.ipv4_range = "10.0.0.128/25".into()));
    wrong("nodes[0].mgmt_ipv4", "not in the ipv4-subnet", |l| l.nodes[0].mgmt_ipv4 = "10.0.1.1".into());
    wrong("nodes[0].mgmt_ipv6", "needs mgmt", |l| l.nodes[0].mgmt_ipv6 = "fd00::1".into());
    wrong("nodes[0].mgmt_ipv4", "not an IPv4", |l| l.nodes[0].mgmt_ipv4 = "fd00::1".into());
    wrong("nodes[1].mgmt_ipv4", "\"a\" too", |l| {
        l.nodes.iter_mut().for_each(|n| n.mgmt_ipv4 = "10.0.0.5".into())
    });
}

#[test]
fn ports_and_name_servers() {
    right(|l| l.nodes[0].ports = vec![port(80, 80), port(81, 80), port(0, 80), port(0, 80)]);
    let at = |address: &str| PortMapping { host_address: address.into(), ..port(80, 80) };
    right(|l| {
        l.nodes[0].ports =
            vec![at("10.0.0.1"), at("10.0.0.2"), PortMapping { protocol: "udp".into(), ..at("10.0.0.1") }]
    });
    wrong("nodes[1].ports[0]", "leads to \"a\"", |l| {
        l.nodes.iter_mut().for_each(|n| n.ports = vec![port(80, 80)])
    });
    wrong("nodes[0].ports[1]", "already", |l| l.nodes[0].ports = vec![at("0.0.0.0"), at("10.0.0.1")]);
    wrong("nodes[0].ports[1]", "already", |l| l.nodes[0].ports = vec![at("::ffff:127.0.0.1"), port(80, 80)]);
    wrong("nodes[0].ports[0]", "1 to 65535", |l| l.nodes[0].ports = vec![port(80, 0)]);
    wrong("nodes[0].ports[0]", "0 to 65535", |l| l.nodes[0].ports = vec![port(70_000, 1)]);
    wrong("nodes[0].ports[0]", "address", |l| l.nodes[0].ports = vec![at("x")]);
    wrong("nodes[0].ports[0]", "protocol", |l| {
        l.nodes[0].ports = vec![PortMapping { protocol: "sctp".into(), ..port(80, 80) }];
    });
    wrong("nodes[0].ports", "management network", |l| {
        l.mgmt = None;
        l.nodes[0].ports = vec![port(80, 80)];
    });
    wrong("nodes[0].ports", "management network", |l| {
        l.nodes[0].network_mode = NetworkMode::None;
        l.nodes[0].ports = vec![port(80, 80)];
    });
    let dns = |servers: &[&str], search: &[&str], options: &[&str]| {
        let texts = |t: &[&str]| t.iter().map(|s| (*s).to_owned()).collect();
        Some(DnsSpec { servers: texts(servers), search: texts(search), options: texts(options) })
    };
    right(|l| l.nodes[0].dns = dns(&["1.1.1.1", "::1"], &["example.com", "."], &["ndots:2"]));
    wrong("nodes[0].dns.servers", "name server", |l| l.nodes[0].dns = dns(&["dns"], &[], &[]));
    wrong("nodes[0].dns.search", "domain", |l| l.nodes[0].dns = dns(&[], &["a b"], &[]));
    wrong("nodes[0].dns.options", "resolv.conf", |l| l.nodes[0].dns = dns(&[], &[], &["a b"]));
}

#[test]
fn shared_networks() {
    let share =
        |of: &'static str| move |l: &mut LabSpec| l.nodes[0].network_mode = NetworkMode::Node(of.into());
    right(share("b"));
    wrong("nodes[0].network_mode", "no node \"c\"", share("c"));
    wrong("nodes[0].network_mode", "no network of its own", |l| {
        share("b")(l);
        l.nodes[1].network_mode = NetworkMode::Host;
    });
    wrong("nodes[0].hostname", "host name", |l| {
        share("b")(l);
        l.nodes[0].hostname = "x".into();
    });
    wrong("links[0].a", "give the link to that one", |l| {
        share("b")(l);
        l.links = vec![link(end("a", "eth1"), end("b", "eth1"))];
    });
    wrong("nodes[0].network_mode", "of itself", share("a"));
}

#[test]
fn mounts_and_devices() {
    let volume =
        |name: &str, target: &str| VolumeMount { name: name.into(), target: target.into(), read_only: false };
    right(|l| l.nodes[0].volumes = vec![volume("", "/a"), volume("v", "/b")]);
    wrong("nodes[0].volumes[1]", "already", |l| {
        l.nodes[0].volumes = vec![volume("", "/a"), volume("v", "/a/")]
    });
    wrong("nodes[0].volumes[0]", "name", |l| l.nodes[0].volumes = vec![volume("/x", "/a")]);
    wrong("nodes[0].volumes[0]", "absolute", |l| l.nodes[0].volumes = vec![volume("", "/")]);
    wrong("nodes[0].tmpfs", "absolute", |l| drop(l.nodes[0].tmpfs.insert("tmp".into(), "".into())));
    wrong("nodes[0].tmpfs", "options", |l| drop(l.nodes[0].tmpfs.insert("/t".into(), "size=1 m".into())));
    let device = |host: &str, target: &str, permissions: &str| DeviceMapping {
        host_path: host.into(),
        target: target.into(),
        permissions: permissions.into(),
    };
    right(|l| l.nodes[0].devices = vec![device("/dev/net/tun", "", ""), device("/dev/kvm", "/dev/x", "rw")]);
    wrong("nodes[0].devices[0]", "absolute", |l| l.nodes[0].devices = vec![device("", "/x", "")]);
    wrong("nodes[0].devices[0]", "permissions", |l| l.nodes[0].devices = vec![device("/x", "", "rx")]);
    wrong("nodes[0].startup_config", "send it along", |l| l.nodes[0].startup_config = "c".into());
    wrong("nodes[0].license", "send it along", |l| l.nodes[0].license = "c".into());
    right(|l| l.nodes[0].save_file = "/etc/app.conf".into());
    wrong("nodes[0].save_file", "absolute", |l| l.nodes[0].save_file = "etc/app.conf".into());
}

#[test]
fn single_values() {
    for good in ["0", "0-3", "0,2-3", "7"] {
        right(|l| l.nodes[0].cpu_set = good.into());
    }
    for bad in ["a", "3-1", "0-", ",", "0,,1", "5000", "+1"] {
        wrong("nodes[0].cpu_set", "cores", |l| l.nodes[0].cpu_set = bad.into());
    }
    wrong("nodes[0].sysctls", "kernel parameter", |l| {
        l.nodes[0].sysctls.insert("kernel.panic".into(), "1".into());
    });
    wrong("nodes[0].startup_delay_seconds", "3600", |l| l.nodes[0].startup_delay_seconds = 3_601);
    wrong("nodes[0].shm_size_bytes", "at most", |l| l.nodes[0].shm_size_bytes = u64::MAX);
    wrong("nodes[0].security_opts", "security option", |l| l.nodes[0].security_opts = vec!["a b".into()]);
    wrong("nodes[0].cgroup_parent", "cgroup", |l| l.nodes[0].cgroup_parent = "../x".into());
    wrong("nodes[0].exec", "quote", |l| l.nodes[0].exec = vec!["'".into()]);
    wrong("nodes[0].env", "variable", |l| drop(l.nodes[0].env.insert("A=B".into(), "".into())));
    wrong("nodes[0].hostname", "host name", |l| l.nodes[0].hostname = "a b".into());
    let health = |test: &[&str]| Healthcheck {
        test: test.iter().map(|t| (*t).into()).collect(),
        ..Healthcheck::default()
    };
    for good in [&[][..], &["NONE"], &["CMD", "true"], &["CMD-SHELL", "exit 0"]] {
        right(|l| l.nodes[0].healthcheck = Some(health(good)));
    }
    for bad in [&["CMD"][..], &["NONE", "x"], &["true"], &[""]] {
        wrong("nodes[0].healthcheck.test", "CMD-SHELL", |l| l.nodes[0].healthcheck = Some(health(bad)));
    }
    wrong("nodes[0].healthcheck.interval_seconds", "day", |l| {
        l.nodes[0].healthcheck = Some(Healthcheck { interval_seconds: 90_000, ..health(&["NONE"]) });
    });
    wrong("nodes[0].healthcheck.retries", "1000", |l| {
        l.nodes[0].healthcheck = Some(Healthcheck { retries: 1_001, ..health(&["NONE"]) });
    });
    let certificate = |change: fn(&mut CertificateSpec)| {
        move |l: &mut LabSpec| {
            let mut certificate = CertificateSpec::default();
            change(&mut certificate);
            l.nodes[0].certificate = Some(certificate);
        }
    };
    right(certificate(|c| c.key_bits = 4_096));
    wrong("nodes[0].certificate.key_bits", "2048", certificate(|c| c.key_bits = 512));
    wrong("nodes[0].certificate.key_bits", "to 4096", certificate(|c| c.key_bits = 8_192));
    wrong(
        "nodes[0].certificate.validity_seconds",
        "100 years",
        certificate(|c| c.validity_seconds = u64::MAX),
    );
    wrong("nodes[0].certificate.sans", "neither", certificate(|c| c.sans = vec!["a b".into()]));
}

#[test]
fn texts_that_docker_would_refuse_are_refused_here() {
    for good in ["root", "0", "root:root", "1000:1000", "www-data"] {
        right(|l| l.nodes[0].user = good.into());
    }
    for bad in ["root:root\n", " ", "root:", ":0", "a:b:c", "a b", "\0"] {
        wrong("nodes[0].user", "is not a user", |l| l.nodes[0].user = bad.into());
    }
    for bad in [" x", "", "CAP_", "NET_ADMIN ", "CAP_KILL", "kill"] {
        wrong("nodes[0].cap_add", "capabilities(7)", |l| l.nodes[0].cap_add = vec![bad.into()]);
    }
    right(|l| drop(l.nodes[0].env.insert("A".into(), "two\nlines = \"é\"".into())));
    wrong("nodes[0].env", "NUL", |l| drop(l.nodes[0].env.insert("A".into(), "a\0b".into())));
    wrong("nodes[0].cmd", "NUL", |l| l.nodes[0].cmd = vec!["a".into(), "\0".into()]);
    wrong("nodes[0].entrypoint", "NUL", |l| l.nodes[0].entrypoint = vec!["\0".into()]);
    wrong("nodes[0].exec", "NUL", |l| l.nodes[0].exec = vec!["echo \0".into()]);
    wrong("nodes[0].sysctls", "one line", |l| {
        drop(l.nodes[0].sysctls.insert("net.ipv4.ip_forward".into(), "1\n".into()));
    });
    for good in
        ["", "size=64m,mode=1777", "rw,noexec,nosuid,size=50%", "uid=0,gid=5,nr_inodes=10k", "mpol=local"]
    {
        right(|l| drop(l.nodes[0].tmpfs.insert("/t".into(), good.into())));
    }
    for bad in
        ["bogus", "size=", "size=x", "mode=9", "uid=-1", "size=1m,", "size=1m,bogus=1", "uid=99999999999"]
    {
        wrong("nodes[0].tmpfs", "of a tmpfs", |l| drop(l.nodes[0].tmpfs.insert("/t".into(), bad.into())));
    }
    right(|l| drop(l.nodes[0].labels.insert("com.example/site".into(), "two words".into())));
    for bad in ["", "a=b", "a b", "a\n", "\0"] {
        wrong("nodes[0].labels", "name of a label", |l| {
            drop(l.nodes[0].labels.insert(bad.into(), "".into()))
        });
    }
    wrong("nodes[0].labels", "NUL", |l| drop(l.nodes[0].labels.insert("a".into(), "\0".into())));
    wrong("nodes[0].image", "name of an image", |l| l.nodes[0].image = "a b".into());
}

#[test]
fn a_security_option_is_the_same_however_docker_takes_it() {
    for same in ["no-new-privileges", "no-new-privileges:true", "no-new-privileges=true"] {
        assert_eq!(crate::spec::security_option(same), "no-new-privileges");
    }
    for other in ["no-new-privileges:false", "seccomp=unconfined", "label:true"] {
        assert_eq!(crate::spec::security_option(other), other);
    }
}

#[test]
fn certificate_authority() {
    let authority = |certificate: &str, key: &str| {
        Some(AuthoritySpec { certificate: certificate.into(), key: key.into(), ..AuthoritySpec::default() })
    };
    right(|l| {
        l.files = vec![file("c"), file("k")];
        l.certificate_authority = authority("c", "k");
    });
    wrong("certificate_authority", "go together", |l| {
        l.files = vec![file("c")];
        l.certificate_authority = authority("c", "");
    });
    wrong("certificate_authority.key", "send it along", |l| {
        l.files = vec![file("c")];
        l.certificate_authority = authority("c", "k");
    });
}

#[test]
fn stages() {
    let of = |stages: Vec<StageSpec>| move |l: &mut LabSpec| l.nodes[0].stages = stages;
    right(of(vec![stage(Stage::Create, &[("b", Stage::Healthy)], &["echo x"])]));
    wrong("nodes[0].stages", "\"c\"", of(vec![stage(Stage::Create, &[("c", Stage::Create)], &[])]));
    wrong("nodes[0].stages", "twice", of(vec![stage(Stage::Exit, &[], &[]), stage(Stage::Exit, &[], &[])]));
    wrong("nodes[0].stages", "quote", of(vec![stage(Stage::Create, &[], &["'"])]));
    wrong("nodes[0].stages", "ended by then", of(vec![stage(Stage::Exit, &[], &["echo"])]));
    wrong("nodes[0].stages", "a create waits for b create, which waits for a create", |l| {
        l.nodes[0].stages = vec![stage(Stage::Create, &[("b", Stage::Create)], &[])];
        l.nodes[1].stages = vec![stage(Stage::Create, &[("a", Stage::Create)], &[])];
    });
}

#[test]
fn ends_that_are_no_node() {
    let other = |kind: EndpointType, interface: &str| Endpoint {
        kind,
        ..end(kind.word().unwrap_or_default(), interface)
    };
    let to = |b: Endpoint| move |l: &mut LabSpec| l.links = vec![link(end("a", "eth1"), b)];
    for kind in [EndpointType::Host, EndpointType::MgmtNet] {
        right(to(other(kind, "a-eth1")));
        for bad in
            ["", "a-name-too-long-for-linux", "a/b", "a b", "..", "é", "lo", "%d", "a:1", "all", "default"]
        {
            wrong("links[0].b.interface", "1 to 15", to(other(kind, bad)));
        }
    }
    right(to(other(EndpointType::Dummy, "")));
    wrong("links[0].b.interface", "no interface", to(other(EndpointType::Dummy, "x")));
    wrong(
        "links[0].b.node",
        "must be \"host\"",
        to(Endpoint { node: "x".into(), ..other(EndpointType::Host, "x") }),
    );
    wrong(
        "links[0].b",
        "no address",
        to(Endpoint { ipv4: "10.0.0.1/8".into(), ..other(EndpointType::Host, "x") }),
    );
    wrong("links[0].b", "no management network", |l| {
        l.mgmt = None;
        to(other(EndpointType::MgmtNet, "x"))(l);
    });
    wrong("links[1].b", "another link", |l| {
        let to_host = |i| link(end("a", i), other(EndpointType::Host, "x"));
        l.links = vec![to_host("eth1"), to_host("eth2")];
    });
    wrong("links[0]", "at least one", |l| {
        l.links = vec![link(other(EndpointType::Dummy, ""), other(EndpointType::Host, "x"))];
    });
    right(|l| {
        let to_nothing = |i| link(end("a", i), other(EndpointType::Dummy, ""));
        l.links = vec![to_nothing("eth1"), to_nothing("eth2")];
    });
}

#[test]
fn impairments() {
    let with = |impairment: Impairment| {
        move |l: &mut LabSpec| {
            l.links = vec![LinkSpec { a_to_b: impairment, ..link(end("a", "eth1"), end("b", "eth1")) }];
        }
    };
    let none = Impairment::default();
    right(with(Impairment {
        rate_bps: 10_000_000,
        delay_us: 5_000,
        jitter_us: 1_000,
        loss_ppm: 10_000,
        ..none
    }));
    for (impairment, words) in [
        (Impairment { rate_bps: 1, ..none }, "rate"),
        (Impairment { delay_us: u32::MAX, ..none }, "delay"),
        (Impairment { jitter_us: 5, ..none }, "jitter"),
        (Impairment { loss_ppm: 1_000_001, ..none }, "loss"),
        (Impairment { reorder_ppm: 1, ..none }, "reorder"),
    ] {
        wrong("links[0].a_to_b", words, with(impairment));
    }
}
