//! Each key that is done, and what it yields.

use std::collections::BTreeMap;

use netloom_model::spec::{Bind, BindSource, MgmtSpec, NetworkMode, NodeSpec, PullPolicy, RestartPolicy};
use netloom_model::state::Runtime;

use crate::{codes, node, read, read_with, said, spec, with_node};

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

fn plain() -> NodeSpec {
    NodeSpec { id: "n".into(), kind: "linux".into(), image: "i".into(), ..NodeSpec::default() }
}

#[test]
fn name_and_prefix() {
    let nodes = "topology: {nodes: {n: {kind: linux, image: i}}}";
    let parsed = read(&format!("name: my-lab_1.x\nprefix: corp\n{nodes}"));
    assert_eq!(parsed.lab.unwrap().as_str(), "my-lab_1.x");
    assert_eq!(parsed.spec.prefix, "corp");
    assert_eq!(spec(&format!("name: a\n{nodes}")).prefix, "");
    let parsed = read(&format!("name: a\nprefix: \"\"\n{nodes}"));
    assert!(parsed.ok() && parsed.spec.prefix.is_empty());
    assert_eq!(codes(&parsed), ["2:9 warning PREFIX_NOT_SUPPORTED"]);
    assert_eq!(spec(&format!("name: a\nprefix: __lab-name\n{nodes}")).prefix, "__lab-name");
}

#[test]
fn mgmt() {
    let with = |mgmt: &str| {
        let lab =
            spec(&format!("name: a\nmgmt:{mgmt}\ntopology: {{nodes: {{n: {{kind: linux, image: i}}}}}}"));
        lab.mgmt.unwrap()
    };
    assert_eq!(with(" {}"), MgmtSpec::default());
    assert_eq!(with(""), MgmtSpec::default());
    assert_eq!(with(" {ipv4-subnet: auto}"), MgmtSpec::default());
    let full = MgmtSpec {
        network: "net".into(),
        ipv4_subnet: "172.30.0.0/24".into(),
        ipv6_subnet: "2001:db8::/64".into(),
        ipv4_gateway: "172.30.0.254".into(),
        ipv6_gateway: "2001:db8::fe".into(),
        mtu: 1400,
        ..MgmtSpec::default()
    };
    let lines = "\n  network: net\n  ipv4-subnet: 172.30.0.0/24\n  ipv6-subnet: 2001:db8::/64\n  ipv4-gw: 172.30.0.254\n  ipv6-gw: 2001:db8::fe\n  mtu: 1400\n  external-access: true";
    assert_eq!(with(lines), full);
    assert_eq!(with(&lines.replace("-subnet", "_subnet")), full);
    assert_eq!(spec("name: a\ntopology: {nodes: {n: {kind: linux, image: i}}}").mgmt, None);
}

#[test]
fn fixed_addresses() {
    let text = "name: a\nmgmt: {ipv4-subnet: 172.30.0.0/24, ipv6-subnet: 'fd00::/64'}\ntopology:\n  nodes:\n    n: {kind: linux, image: i, mgmt-ipv4: 172.30.0.9, mgmt-ipv6: 'fd00:0::9'}\n    m: {kind: linux, image: i, mgmt_ipv4: 172.30.0.10, mgmt_ipv6: 'fd00::a'}";
    let nodes = spec(text).nodes;
    assert_eq!((nodes[0].mgmt_ipv4.as_str(), nodes[0].mgmt_ipv6.as_str()), ("172.30.0.9", "fd00::9"));
    assert_eq!((nodes[1].mgmt_ipv4.as_str(), nodes[1].mgmt_ipv6.as_str()), ("172.30.0.10", "fd00::a"));
}

#[test]
fn single_values_of_a_node() {
    for (lines, expected) in [
        ("type: x1", NodeSpec { r#type: "x1".into(), ..plain() }),
        ("group: spines", NodeSpec { group: "spines".into(), ..plain() }),
        ("image-pull-policy: Never", NodeSpec { image_pull_policy: PullPolicy::Never, ..plain() }),
        ("image-pull-policy: always", NodeSpec { image_pull_policy: PullPolicy::Always, ..plain() }),
        ("image-pull-policy: IfNotPresent", plain()),
        ("runtime: docker", NodeSpec { runtime: Some(Runtime::Docker), ..plain() }),
        ("hostname: web-1", NodeSpec { hostname: "web-1".into(), ..plain() }),
        ("user: 1000", NodeSpec { user: "1000".into(), ..plain() }),
        ("cpu: 1.5", NodeSpec { cpu_limit_millis: 1_500, ..plain() }),
        ("memory: 1gb", NodeSpec { memory_limit_bytes: 1_000_000_000, ..plain() }),
        ("memory: 512MiB", NodeSpec { memory_limit_bytes: 512 << 20, ..plain() }),
        ("disk: 20GB", NodeSpec { disk_request_bytes: 20_000_000_000, ..plain() }),
        ("restart-policy: no", NodeSpec { restart_policy: RestartPolicy::Never, ..plain() }),
        ("restart-policy: on-failure", NodeSpec { restart_policy: RestartPolicy::OnFailure, ..plain() }),
        ("restart-policy: unless-stopped", plain()),
        ("network-mode: none", NodeSpec { network_mode: NetworkMode::None, ..plain() }),
        ("network-mode: host", NodeSpec { network_mode: NetworkMode::Host, ..plain() }),
        ("network-mode: bridge", plain()),
        ("privileged: false", plain()),
        (
            "cmd: sh -c 'echo \"a b\"'",
            NodeSpec { cmd: vec!["sh".into(), "-c".into(), "echo \"a b\"".into()], ..plain() },
        ),
        (
            "entrypoint: /bin/tini -- x",
            NodeSpec { entrypoint: vec!["/bin/tini".into(), "--".into(), "x".into()], ..plain() },
        ),
        // Nothing behind a key is as if it were not there.
        ("cmd:\nuser: \"\"\nstages:\nports: []\nstartup-delay: 0\nauto-remove: false", plain()),
    ] {
        assert_eq!(node(lines), expected, "{lines}");
    }
}

#[test]
fn lists_and_maps_of_a_node() {
    for (lines, expected) in [
        (
            "env: {A: 1, B: two, C: }",
            NodeSpec { env: map(&[("A", "1"), ("B", "two"), ("C", "")]), ..plain() },
        ),
        ("labels: {tier: 1}", NodeSpec { labels: map(&[("tier", "1")]), ..plain() }),
        (
            "sysctls: {net.ipv4.ip_forward: 1}",
            NodeSpec { sysctls: map(&[("net.ipv4.ip_forward", "1")]), ..plain() },
        ),
        (
            "cap-add: [net_raw, CAP_SYS_TIME]",
            NodeSpec { cap_add: vec!["NET_RAW".into(), "SYS_TIME".into()], ..plain() },
        ),
        (
            "exec:\n  - ip link set eth1 up\n  - sh -c 'a; b'",
            NodeSpec { exec: vec!["ip link set eth1 up".into(), "sh -c 'a; b'".into()], ..plain() },
        ),
        (
            "env-files: [common.env, more.env]\nenv: {A: own}",
            NodeSpec { env: map(&[("A", "own"), ("B", "more")]), ..plain() },
        ),
    ] {
        assert_eq!(node(lines), expected, "{lines}");
    }
}

#[test]
fn binds() {
    let bind = |source, target: &str, read_only| Bind { source, target: target.into(), read_only };
    let inside = |path: &str| BindSource::Bundle(path.into());
    let parsed = read(&with_node(
        "binds:\n  - ./r1/frr.conf:/etc/frr/frr.conf:ro\n  - r1:/etc/frr/\n  - r1/../start.sh:/start.sh:rw\n  - /srv/data:/data",
    ));
    assert_eq!(codes(&parsed), ["11:11 info HOST_PATH"]);
    assert_eq!(
        parsed.spec.nodes[0].binds,
        [
            bind(inside("r1/frr.conf"), "/etc/frr/frr.conf", true),
            bind(inside("r1"), "/etc/frr", false),
            bind(inside("start.sh"), "/start.sh", false),
            bind(BindSource::Host("/srv/data".into()), "/data", false),
        ]
    );
    let files: Vec<(&str, u64, u32)> =
        parsed.spec.files.iter().map(|f| (f.path.as_str(), f.size_bytes, f.mode)).collect();
    assert_eq!(files, [("r1/daemons", 10, 0o640), ("r1/frr.conf", 12, 0o644), ("start.sh", 10, 0o755)]);
    assert_eq!(&*parsed.contents["r1/frr.conf"], b"hostname r1\n");
    assert_eq!(parsed.contents.len(), 3);
}

#[test]
fn what_was_read_here_can_be_read_again_elsewhere() {
    let text = with_node("binds: ['r1:/etc/frr']\nenv-files: [common.env]");
    let here = read(&text);
    assert_eq!(here.contents.keys().collect::<Vec<_>>(), ["common.env", "r1/daemons", "r1/frr.conf"]);
    let mode = |path: &String| here.spec.files.iter().find(|f| f.path == *path).map_or(0o644, |f| f.mode);
    let sent = here.contents.iter().map(|(p, c)| (p.clone(), (c.to_vec(), mode(p)))).collect();
    let there = read_with(&text, &netloom_topology::BundleFiles(sent));
    assert!(there.ok(), "{:?}", said(&there));
    assert_eq!(there.spec, here.spec);
}

#[test]
fn containerlab_variables() {
    let n = node(
        "binds: ['r1/frr.conf:/etc/__clabNodeName__.conf']\nexec: [echo __clabLabName__]\nenv: {N: __clabNodeName__}\ncmd: run __clabNodeName__",
    );
    assert_eq!(n.binds[0].target, "/etc/n.conf");
    assert_eq!(n.exec, ["echo lab"]);
    assert_eq!(n.env["N"], "n");
    assert_eq!(n.cmd, ["run", "n"]);
    let text = "name: lab\ntopology:\n  defaults: {kind: frr, binds: ['__clabNodeName__/frr.conf:/etc/frr/frr.conf']}\n  nodes: {r1: , r2: }";
    let files: Vec<String> = spec(text).files.into_iter().map(|f| f.path).collect();
    assert_eq!(files, ["r1/frr.conf", "r2/frr.conf"]);
}

#[test]
fn directories_of_containerlab_lie_beside_the_file() {
    let n = node("binds: ['__clabNodeDir__/conf:/a', '__clabDir__/n:/b']\nenv-files: []");
    let sources: Vec<String> = n.binds.iter().map(|b| format!("{:?}", b.source)).collect();
    assert_eq!(sources, ["Bundle(\"clab-lab/n/conf\")", "Bundle(\"clab-lab/n\")"]);
}

#[test]
fn a_configuration_that_is_written_in_the_file_becomes_a_file_of_the_lab() {
    let crpd = |lines: &str| with_node(lines).replace("kind: linux", "kind: crpd");
    let text = crpd("startup-config: |\n  hostname n\n  !");
    let parsed = read(&text);
    assert!(parsed.ok(), "{:?}", said(&parsed));
    assert_eq!(&*parsed.contents[".netloom/n/startup-config"], b"hostname n\n!\n");
    let n = &parsed.spec.nodes[0];
    assert_eq!(parsed.spec.files_of(n)[0].path, n.startup_config);
    // It is made again wherever the text is read, and need not be sent along.
    let there = read_with(&text, &netloom_topology::BundleFiles::default());
    assert_eq!(there.spec, parsed.spec);
    let named = read(&crpd("startup-config: __clabNodeName__/../r1/frr.conf\nlicense: ca.pem"));
    assert_eq!(named.contents.keys().collect::<Vec<_>>(), ["ca.pem", "r1/frr.conf"]);
}

#[test]
fn environment_variables() {
    let text = "name: ${LAB}\ntopology:\n  nodes:\n    ${X:=n}:\n      kind: linux\n      image: ${IMAGE}\n      env: {A: \"${NONE:-d}\", B: \"$STRUCTURE\", C: \"$$HOME\"}\n      exec: [\"sh -c 'echo $HOME'\"]";
    let parsed = read(text);
    assert!(codes(&parsed).is_empty(), "{:?}", said(&parsed));
    assert_eq!(parsed.lab.unwrap().as_str(), "from-env");
    let n = &parsed.spec.nodes[0];
    assert_eq!((n.id.as_str(), n.image.as_str()), ("n", "alpine:3.20"));
    // A value is text and never structure.
    assert_eq!(n.env, map(&[("A", "d"), ("B", "a: [b]\nc: {d: e}"), ("C", "$HOME")]));
    assert_eq!(n.exec, ["sh -c 'echo $HOME'"]);
}

#[test]
fn bridges() {
    let text = "name: lab\ntopology:\n  defaults: {image: x, exec: [a], env: {A: b}}\n  nodes:\n    sw: {kind: bridge, labels: {a: b}}\n    ovs: {kind: ovs-bridge, exec: [x]}";
    let parsed = read(text);
    assert_eq!(
        codes(&parsed),
        ["5:16 info BRIDGE_IS_MANAGED", "6:17 info BRIDGE_IS_MANAGED", "6:29 warning KEY_NOT_SUPPORTED"]
    );
    assert!(parsed.ok());
    let nodes = parsed.spec.nodes;
    assert_eq!(
        nodes[0],
        NodeSpec {
            id: "sw".into(),
            kind: "bridge".into(),
            labels: map(&[("a", "b")]),
            ..NodeSpec::default()
        }
    );
    assert_eq!(nodes[1], NodeSpec { id: "ovs".into(), kind: "bridge".into(), ..NodeSpec::default() });
}

#[test]
fn what_yaml_can_do() {
    let text = "name: lab\ntopology:\n  defaults: &d\n    kind: linux\n    image: i\n  nodes:\n    a:\n      <<: *d\n      image: j\n    b: *d\n    c:\n      exec:\n        - >-\n          ip link\n          set eth1 up\n";
    let nodes = spec(text).nodes;
    assert_eq!(
        nodes.iter().map(|n| (n.id.as_str(), n.image.as_str())).collect::<Vec<_>>(),
        [("a", "j"), ("b", "i"), ("c", "i")]
    );
    assert_eq!(nodes[2].exec, ["ip link set eth1 up"]);
    let json = r#"{"name": "lab", "topology": {"nodes": {"n": {"kind": "linux", "image": "i", "cpu": 2}}}}"#;
    assert_eq!(spec(json).nodes[0].cpu_limit_millis, 2_000);
    let odd = "\u{feff}name: lab\r\ntopology:\r\n  nodes:\r\n    n: {kind: linux, image: i, env: {Ü: '日本語 🦀'}}\r\n";
    assert_eq!(spec(odd).nodes[0].env["Ü"], "日本語 🦀");
}

#[test]
fn no_management_network_is_mentioned() {
    let parsed = read("name: lab\ntopology: {nodes: {n: {kind: linux, image: i}}}");
    assert_eq!(said(&parsed).len(), 1);
    assert!(said(&parsed)[0].starts_with("lab.clab.yml:2:1: info: without mgmt"), "{:?}", said(&parsed));
    assert!(said(&read("name: lab\nmgmt: {}\ntopology: {nodes: {n: {kind: linux, image: i}}}")).is_empty());
}
