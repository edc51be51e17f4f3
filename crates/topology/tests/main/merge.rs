//! What a node inherits: the rules of the table in `docs/topology.md`, each with all levels at once.

use crate::spec;

/// A lab whose node `n` of kind frr and group g has these lines at its four levels.
fn levels(defaults: &str, kind: &str, group: &str, node: &str) -> String {
    format!(
        "name: lab\ntopology:\n  defaults: {{{defaults}}}\n  kinds: {{frr: {{{kind}}}}}\n  groups: {{g: {{{group}}}}}\n  nodes: {{n: {{kind: frr, group: g, {node}}}}}"
    )
}

#[test]
fn single_values_come_from_the_strongest_level() {
    for (text, image) in [
        (levels("image: d", "image: k", "image: g", "image: n"), "n"),
        (levels("image: d", "image: k", "image: g", ""), "g"),
        (levels("image: d", "image: k", "", ""), "k"),
        (levels("image: d", "", "", ""), "d"),
        (levels("", "", "", ""), ""),
        // An empty value is no value.
        (levels("image: d", "image: k", "image: ''", "image: "), "k"),
    ] {
        assert_eq!(spec(&text).nodes[0].image, image, "{text}");
    }
    let n = spec(&levels("cpu: 1, memory: 1gb, user: d", "cmd: k k", "restart-policy: no", "cpu: 2"))
        .nodes
        .remove(0);
    assert_eq!((n.cpu_limit_millis, n.memory_limit_bytes, n.user.as_str()), (2_000, 1_000_000_000, "d"));
    assert_eq!(n.cmd, ["k", "k"]);
    assert_eq!(n.restart_policy, netloom_model::spec::RestartPolicy::Never);
}

#[test]
fn maps_are_merged_key_by_key() {
    for key in ["env", "labels"] {
        let level = |name: &str, own: &str| format!("{key}: {{all: {name}, {own}: {name}}}");
        let n = spec(&levels(&level("d", "d"), &level("k", "k"), &level("g", "g"), &level("n", "n")))
            .nodes
            .remove(0);
        let map = if key == "env" { n.env } else { n.labels };
        let pairs: Vec<(&str, &str)> = map.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(pairs, [("all", "n"), ("d", "d"), ("g", "g"), ("k", "k"), ("n", "n")], "{key}");
    }
    let n = spec(&levels(
        "sysctls: {net.a: 1, net.b: 1}",
        "sysctls: {net.b: 2}",
        "sysctls: {net.c: 3}",
        "sysctls: {net.c: 4}",
    ))
    .nodes
    .remove(0);
    assert_eq!(
        n.sysctls.into_iter().collect::<Vec<_>>(),
        [("net.a", "1"), ("net.b", "2"), ("net.c", "4")].map(|(k, v)| (k.to_owned(), v.to_owned()))
    );
}

#[test]
fn lists_are_joined_weakest_first() {
    let n = spec(&levels("exec: [d, all]", "exec: [k]", "exec: [g]", "exec: [all, n, n]")).nodes.remove(0);
    assert_eq!(n.exec, ["d", "all", "k", "g", "n"]);
    let n = spec(&levels(
        "cap-add: [NET_RAW]",
        "cap-add: [CAP_NET_RAW, KILL]",
        "cap-add: [CHOWN]",
        "cap-add: [kill, MKNOD]",
    ))
    .nodes
    .remove(0);
    assert_eq!(n.cap_add, ["NET_RAW", "KILL", "CHOWN", "MKNOD"]);
    let n = spec(&levels("env-files: [common.env]", "env-files: [more.env]", "", "env-files: [common.env]"))
        .nodes
        .remove(0);
    assert_eq!(n.env["B"], "more", "a file that is named again is not read again");
}

#[test]
fn blocks_come_from_the_strongest_level_as_a_whole() {
    let n = spec(&levels(
        "dns: {servers: [192.0.2.1]}, healthcheck: {test: [NONE]}",
        "healthcheck: {test: [CMD, a], retries: 5}",
        "dns: {search: [a.example]}",
        "healthcheck: {interval: 7}",
    ))
    .nodes
    .remove(0);
    let dns = n.dns.unwrap();
    assert_eq!((dns.servers.len(), dns.search.len()), (0, 1));
    let health = n.healthcheck.unwrap();
    assert_eq!((health.test.len(), health.interval_seconds, health.retries), (0, 7, 0));
    let text = levels("ports: ['1:1', '2:2']", "ports: ['3:3']", "ports: []", "");
    let ports = spec(&text.replace("topology:", "mgmt: {}\ntopology:")).nodes.remove(0).ports;
    assert_eq!(ports.iter().map(|p| p.host_port).collect::<Vec<_>>(), [3]);
}

#[test]
fn certificates_and_tmpfs_are_merged_key_by_key() {
    let n = spec(&levels(
        "certificate: {issue: true, key-size: 2048}, tmpfs: {/a: size=1m, /b: ''}",
        "certificate: {sans: [a]}",
        "certificate: {validity-duration: 1h}, tmpfs: [/c]",
        "certificate: {key-size: 4096, SANs: [b]}, tmpfs: {/a: size=2m}",
    ))
    .nodes
    .remove(0);
    let certificate = n.certificate.unwrap();
    assert_eq!((certificate.key_bits, certificate.validity_seconds), (4_096, 3_600));
    assert_eq!(certificate.sans, ["b"]);
    assert_eq!(
        n.tmpfs.into_iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>(),
        ["/a=size=2m", "/b=", "/c="]
    );
    let none = spec(&levels("certificate: {issue: true}", "", "", "certificate: {issue: false}"));
    assert_eq!(none.nodes[0].certificate, None);
}

#[test]
fn stages_are_joined_stage_by_stage() {
    let wait = |stage| format!("{{node: m, stage: {stage}}}");
    let text = levels(
        &format!("stages: {{create: {{wait-for: [{}], exec: [d]}}}}", wait("create")),
        &format!("stages: {{create: {{wait-for: [{}, {}]}}}}", wait("create"), wait("healthy")),
        "stages: {create-links: {exec: {on-exit: [g]}}}",
        "stages: {create: {exec: [{command: n, phase: on-exit}]}}",
    );
    let text = text.replace("nodes: {n:", "nodes: {m: {kind: linux, image: i, stages: }, n:");
    // What m inherits it may not wait for itself.
    let text = text.replace("defaults: {stages", "defaults: {labels: {a: b}, stages");
    let parsed = crate::read(&text);
    assert!(crate::said(&parsed).iter().any(|s| s.contains("m create waits for m create")), "{text}");
    let stages = &parsed.spec.nodes[1].stages;
    let waits: Vec<&str> = stages[0].wait_for.iter().map(|w| w.stage.as_str()).collect();
    assert_eq!(waits, ["create", "healthy"]);
    let execs = |i: usize| stages[i].exec.iter().map(|e| (e.command.as_str(), e.on_exit)).collect::<Vec<_>>();
    assert_eq!(execs(0), [("d", false), ("n", true)]);
    assert_eq!(execs(1), [("g", true)]);
}

#[test]
fn volumes_and_devices_are_joined() {
    let n = spec(&levels(
        "volumes: ['d:/a', 'd:/d'], devices: [/dev/kvm], security-opts: [a]",
        "volumes: ['k:/a:ro'], devices: [/dev/kvm], security-opts: [a, b]",
        "",
        "devices: ['/dev/kvm:/dev/x']",
    ))
    .nodes
    .remove(0);
    let volumes: Vec<String> =
        n.volumes.iter().map(|v| format!("{}:{}:{}", v.name, v.target, v.read_only)).collect();
    assert_eq!(volumes, ["k:/a:true", "d:/d:false"]);
    assert_eq!((n.devices.len(), n.security_opts.len()), (2, 2));
}

#[test]
fn a_kinds_entry_counts_for_all_names_of_its_kind() {
    let lab = |kinds: &str, kind: &str| {
        let text = format!("name: lab\ntopology:\n  kinds: {{{kinds}}}\n  nodes: {{n: {{kind: {kind}}}}}");
        spec(&text).nodes.remove(0).labels.remove("from").unwrap_or_default()
    };
    let entry = |name: &str| format!("{name}: {{labels: {{from: {name}}}}}");
    assert_eq!(lab(&entry("bridge"), "ovs-bridge"), "bridge");
    assert_eq!(lab(&entry("ovs-bridge"), "bridge"), "ovs-bridge");
    assert_eq!(lab(&format!("{}, {}", entry("bridge"), entry("ovs-bridge")), "ovs-bridge"), "ovs-bridge");
}

#[test]
fn binds_are_joined_by_target() {
    let text = levels(
        "binds: ['r1/frr.conf:/a', 'r1/daemons:/d']",
        "binds: ['r1/daemons:/a/']",
        "binds: ['start.sh:/g']",
        "binds: ['r2/frr.conf:/a:ro']",
    );
    let binds: Vec<String> = spec(&text).nodes[0]
        .binds
        .iter()
        .map(|b| format!("{:?} {} {}", b.source, b.target, b.read_only))
        .collect();
    assert_eq!(
        binds,
        [
            "Bundle(\"r2/frr.conf\") /a true",
            "Bundle(\"r1/daemons\") /d false",
            "Bundle(\"start.sh\") /g false"
        ]
    );
}

#[test]
fn the_kind_is_found_first() {
    let node = |topology: &str| spec(&format!("name: lab\ntopology:\n{topology}")).nodes.remove(0);
    let groups = "  groups: {g: {kind: frr, type: of-group}}\n  kinds: {frr: {image: of-frr}, linux: {image: of-linux, group: g}}\n";
    for (rest, kind, image, group) in [
        // The node's own.
        ("  defaults: {kind: frr}\n  nodes: {n: {kind: linux}}", "linux", "of-linux", "g"),
        // Its group's.
        ("  defaults: {kind: linux}\n  nodes: {n: {group: g}}", "frr", "of-frr", "g"),
        // That of the group in defaults.
        ("  defaults: {group: g}\n  nodes: {n: }", "frr", "of-frr", "g"),
        // That of defaults; then the group of that kind.
        ("  defaults: {kind: linux}\n  nodes: {n: }", "linux", "of-linux", "g"),
        ("  defaults: {kind: frr}\n  nodes: {n: }", "frr", "of-frr", ""),
        // A group that is a mere word.
        ("  defaults: {kind: linux}\n  nodes: {n: {group: other}}", "linux", "of-linux", "other"),
    ] {
        let n = node(&format!("{groups}{rest}"));
        assert_eq!((n.kind.as_str(), n.image.as_str(), n.group.as_str()), (kind, image, group), "{rest}");
        assert_eq!(n.r#type, if group == "g" { "of-group" } else { "" }, "{rest}");
    }
}
