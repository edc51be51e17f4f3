//! What is said of kinds: those that do not run, or not yet as they should, and what nodes of a kind are given.

use std::collections::BTreeMap;

use netloom_model::kind::Catalogue;
use netloom_model::spec::{BindSource, MgmtSpec};
use netloom_topology::{BundleFiles, Input, Parsed, parse};

use crate::{bundle, codes, read, read_with, refused, said, spec, with_node};

/// What is said with this code.
fn told(parsed: &Parsed, code: &str) -> Vec<String> {
    said(parsed).into_iter().filter(|d| d.ends_with(&format!("[{code}]"))).collect()
}

fn nodes(lines: &str) -> String {
    format!("name: lab\ntopology:\n  nodes:\n{lines}")
}

#[test]
fn a_kind_that_is_known_not_to_work_is_told_once_at_its_name() {
    let parsed = read(&nodes(
        "    a: {kind: srl, image: i}\n    b: {kind: nokia_srlinux, image: i}\n    c: {kind: xrd, image: i}\n    d: {kind: frr}",
    ));
    assert!(parsed.ok(), "{:?}", said(&parsed));
    let limited = told(&parsed, "KIND_LIMITED");
    assert_eq!(limited.len(), 2, "{limited:?}");
    assert!(
        limited[0].starts_with("lab.clab.yml:4:15: warning: ") && limited[0].contains("e1-1"),
        "{limited:?}"
    );
    assert!(
        limited[1].starts_with("lab.clab.yml:6:15: ") && limited[1].contains("XR_INTERFACES"),
        "{limited:?}"
    );
    assert_eq!(told(&parsed, "KIND_NOT_VERIFIED"), [""; 0], "a kind has one of the two");
}

#[test]
fn a_kind_that_no_test_runs_is_told_once() {
    let parsed =
        read(&nodes("    a: {kind: crpd, image: i}\n    b: {kind: crpd, image: i}\n    c: {kind: frr}"));
    let unverified = told(&parsed, "KIND_NOT_VERIFIED");
    assert_eq!(unverified.len(), 1, "{unverified:?}");
    assert!(unverified[0].starts_with("lab.clab.yml:4:15: info: "), "{unverified:?}");
    assert!(unverified[0].contains("netloom kinds show juniper_crpd"), "{unverified:?}");
}

#[test]
fn a_virtual_machine_is_one_by_its_kind_or_by_its_runtime() {
    use netloom_model::state::Runtime::{Docker, Libvirt};
    let all = "name: lab\ntopology:\n  defaults: {image: i}\n  groups: {vms: {runtime: libvirt}}\n  kinds: {frr: {runtime: docker}}\n  nodes:\n    \
        a: {kind: cisco_iosv}\n    b: {kind: linux, group: vms}\n    c: {kind: linux, runtime: libvirt}\n    d: {kind: linux}\n    e: {kind: frr}\n";
    let parsed = read(all);
    assert!(parsed.ok(), "{:?}", said(&parsed));
    let runtimes: Vec<_> = parsed.spec.nodes.iter().map(|n| n.runtime).collect();
    assert_eq!(runtimes, [None, Some(Libvirt), Some(Libvirt), None, Some(Docker)]);
    assert_eq!(told(&parsed, "KIND_NOT_VERIFIED").len(), 1, "{:?}", said(&parsed));
}

#[test]
fn a_runtime_that_does_not_run_the_kind_is_refused_where_it_stands() {
    refused(
        &nodes("    a: {kind: frr, runtime: libvirt}"),
        "4:29 error RUNTIME_NOT_SUPPORTED",
        "nodes of kind frr are containers",
    );
    refused(
        &nodes("    a: {kind: cisco_iosv, image: i, runtime: docker}"),
        "4:46 error RUNTIME_NOT_SUPPORTED",
        "runs as kind linux",
    );
    refused(&nodes("    a: {kind: linux, runtime: libvirt}"), "4:5 warning NO_IMAGE", "a disk image");
}

#[test]
fn what_only_a_container_can_have_is_refused_of_a_virtual_machine() {
    let vm = |key: &str| nodes(&format!("    a: {{kind: linux, runtime: libvirt, image: i, {key}}}"));
    for (key, what) in [
        ("binds: [/a]", "cannot have volumes"),
        ("env: {A: b}", "cannot have env"),
        ("network-mode: host", "cannot have network-mode"),
        ("ports: ['80']", "cannot have ports"),
        ("shm-size: 1MB", "cannot have shm-size"),
        ("healthcheck: {test: [CMD, ls]}", "cannot have healthcheck"),
        ("cap-add: [NET_ADMIN]", "cannot have cap-add"),
    ] {
        let parsed = read(&vm(key));
        let errors = told(&parsed, "NOT_FOR_VMS");
        assert_eq!(errors.len(), 1, "{key}: {:?}", said(&parsed));
        assert!(errors[0].starts_with("lab.clab.yml:4:") && errors[0].contains(what), "{errors:?}");
    }
    for key in [
        "cpu: 2",
        "memory: 256MB",
        "restart-policy: no",
        "hostname: h",
        "mgmt-ipv4: 172.20.20.9",
        "startup-delay: 1",
        "exec: [ls]",
        "stages: {create: {exec: [ls]}}",
        "env: {USERNAME: a, PASSWORD: b}",
    ] {
        let parsed = read(&vm(key));
        assert!(parsed.ok(), "{key}: {:?}", said(&parsed));
    }
    let link =
        "    a: {kind: linux, runtime: libvirt, image: i}\n    b: {kind: frr, network-mode: 'container:a'}";
    refused(&nodes(link), "5:34 error NETWORK_MODE", "is no container");
    // Nothing says how commands are typed at its console.
    let inherited = "name: lab\ntopology:\n  defaults: {exec: [ls]}\n  nodes: {a: {kind: fmcv, image: i}}";
    refused(inherited, "3:14 error NOT_FOR_VMS", "startup-config");
}

#[test]
fn who_asks_for_a_management_network_is_told_which_machines_know_no_address_there() {
    let lab = "name: lab\nmgmt: {ipv4-subnet: 192.0.2.0/24}\ntopology:\n  nodes:\n    a: {kind: iosv, image: i}\n    b: {kind: frr}\n    \
               c: {kind: linux, runtime: libvirt, image: i}\n";
    let parsed = read(lab);
    let said = told(&parsed, "MGMT_NOT_TOLD");
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(
        parsed.ok() && said[0].starts_with("lab.clab.yml:2:") && said[0].contains("virtual machine a is on"),
        "{said:?}"
    );
    let fixed = lab.replace("a: {", "a: {mgmt-ipv4: 192.0.2.9, ");
    assert!(told(&read(&fixed), "MGMT_NOT_TOLD").is_empty() && read(&fixed).ok());
}

#[test]
fn a_virtual_machine_is_told_its_addresses_where_its_kind_can_be() {
    let link = |kind: &str| {
        format!(
            "name: lab\ntopology:\n  nodes:\n    a: {{kind: {kind}, image: i, runtime: libvirt}}\n    b: {{kind: frr}}\n  links:\n    \
             - endpoints: [\"a:eth1\", \"b:eth1\"]\n      ipv4: [10.0.0.1/24, 10.0.0.2/24]\n"
        )
    };
    assert_eq!(codes(&read(&link("linux"))), [""; 0]);
    refused(&link("iosv"), "7:19 warning ADDRESS_NOT_SET", "in its own configuration");
    let config = |kind: &str| {
        nodes(&format!(
            "    a:\n      kind: {kind}\n      image: i\n      runtime: libvirt\n      startup-config: |\n        x\n        y\n"
        ))
    };
    for kind in ["linux", "iosv"] {
        assert!(!codes(&read(&config(kind))).contains(&"9:9 warning KEY_NOT_SUPPORTED".to_owned()), "{kind}");
    }
    refused(&config("fmcv"), "9:9 warning KEY_NOT_SUPPORTED", "into the disk image");
}

#[test]
fn an_unknown_kind_is_not_answered_with_all_kinds() {
    let parsed = read(&nodes("    a: {kind: lynux, image: i}"));
    let message = &parsed.diagnostics[0].message;
    assert_eq!(
        message,
        "there is no kind \"lynux\". Did you mean \"linux\"? \"netloom kinds list\" shows those there are"
    );
}

#[test]
fn a_type_changes_nothing_and_the_switch_is_a_kind_of_its_own() {
    refused(&with_node("type: x"), "7:13 warning TYPE_IGNORED", "kind linux has no variants");
    refused(
        &nodes("    a: {kind: cisco_iol, image: i, type: L2}"),
        "4:42 error TYPE_NOT_SUPPORTED",
        "write kind: iol-l2",
    );
}

#[test]
fn capabilities_are_named_one_by_one() {
    refused(&with_node("cap-add: [NET_RAW, all]"), "7:26 error ALL_CAPABILITIES", "one by one");
    refused(&with_node("cap-add: [BOGUS]"), "7:17 error UNKNOWN_CAPABILITY", "BOGUS");
}

#[test]
fn a_configuration_that_is_no_json_is_not_given_where_json_is_read() {
    let files = |text: &str| BundleFiles([("s.cfg".to_owned(), (text.as_bytes().to_vec(), 0o644))].into());
    let text = nodes("    a: {kind: srl, image: i, startup-config: s.cfg}");
    let lines = read_with(&text, &files("set / interface ethernet-1/1 admin-state enable\n"));
    assert_eq!(codes(&lines), ["4:15 warning KIND_LIMITED", "4:46 error STARTUP_CONFIG_NOT_JSON"]);
    assert!(read_with(&text, &files("{\"interface\": []}\n")).ok());
    let inline = "    a:\n      kind: srl\n      image: i\n      startup-config: |\n        set / a\n        set / b\n";
    assert!(
        told(&read(&nodes(inline)), "STARTUP_CONFIG_NOT_JSON")[0].contains("/etc/opt/srlinux/config.json")
    );
}

/// Reads a file for which these configurations were saved.
fn parse_saved(text: &str, saved: &BTreeMap<String, String>) -> Parsed {
    parse(&Input {
        file_name: "lab.clab.yml",
        text,
        env: &|_| None,
        all_env: &BTreeMap::new,
        node_filter: &[],
        startup_configs: saved,
        files: &bundle(),
        catalogue: &Catalogue::embedded(),
    })
}

/// It was told as two files at one place, and that one of them be left out.
#[test]
fn a_saved_configuration_is_refused_where_a_bind_has_its_place() {
    let text = "name: lab\ntopology:\n  nodes:\n    r1:\n      kind: frr\n      binds: [\"r1/frr.conf:/etc/frr/frr.conf\"]\n    r2: {kind: frr, startup-config: r2/frr.conf}\n";
    let with_saved =
        |node: &str| parse_saved(text, &BTreeMap::from([(node.to_owned(), "hostname saved\n".to_owned())]));
    let refused = with_saved("r1");
    assert_eq!(codes(&refused), ["6:15 error SAVED_CONFIG_BOUND"]);
    let why = told(&refused, "SAVED_CONFIG_BOUND");
    assert!(why[0].contains("node r1") && why[0].contains("without --saved"), "{why:?}");
    let taken = with_saved("r2");
    assert!(taken.ok(), "{:?}", said(&taken));
    assert_eq!(
        taken.spec.nodes[1].startup_config, ".netloom/r2/startup-config",
        "in place of the file's own"
    );
}

/// What a node says is its configuration is put back where it was read, in the place of a bind there, also in a virtual machine that is told files.
#[test]
fn a_saved_file_goes_back_to_where_it_was_read() {
    let text = "name: lab\ntopology:\n  nodes:\n    h: {kind: linux, image: i, save-file: /etc/app.conf}\n    b: {kind: linux, image: i, save-file: /etc/app.conf, binds: [\"r1/frr.conf:/etc/app.conf\"]}\n    v: {kind: linux, image: i, save-file: /etc/app.conf, runtime: libvirt}\n    r: {kind: iosv, image: i, save-file: /etc/app.conf}\n";
    let saved = ["h", "b", "v", "r"].map(|n| (n.to_owned(), format!("saved of {n}\n"))).into();
    let taken = parse_saved(text, &saved);
    for (node, name) in taken.spec.nodes.iter().zip(["h", "b", "v"]) {
        let [bind] = node.binds.as_slice() else { panic!("{node:?}") };
        let file = format!(".netloom/{name}/save-file");
        assert_eq!(
            (&bind.source, bind.target.as_str()),
            (&BindSource::Bundle(file.clone()), "/etc/app.conf")
        );
        assert_eq!(&*taken.contents[&file], format!("saved of {name}\n").as_bytes());
        assert!(node.startup_config.is_empty());
    }
    assert!(taken.spec.nodes[3].binds.is_empty(), "{:?}", taken.spec.nodes[3]);
    let told_of = |code| told(&taken, code).concat();
    assert!(told_of("KEY_NOT_SUPPORTED").contains("node r, a virtual machine"), "{:?}", said(&taken));
    assert_eq!(told(&taken, "NOT_FOR_VMS").len(), 1, "{:?}", said(&taken));
    assert!(told_of("NOT_FOR_VMS").contains("save-file: its kind says of no shell"), "{:?}", said(&taken));
}

#[test]
fn containerlabs_variables_are_filled_into_an_inline_configuration() {
    let inline = "    r1:\n      kind: frr\n      startup-config: |\n        hostname __clabNodeName__\n        ! __clabLabName__\n";
    let parsed = read(&nodes(inline));
    assert!(parsed.ok(), "{:?}", said(&parsed));
    assert_eq!(&*parsed.contents[".netloom/r1/startup-config"], b"hostname r1\n! lab\n");
    let directory = read(&nodes(&inline.replace("__clabLabName__", "__clabDir__")));
    assert_eq!(codes(&directory), ["7:9 error MAGIC_VARIABLE"]);
}

#[test]
fn what_needs_a_management_network_gets_one_without_mgmt() {
    for (key, mgmt, at) in [
        ("ports: ['8080:80']", MgmtSpec::default(), "7:15"),
        (
            "mgmt-ipv4: 172.20.20.11",
            MgmtSpec { ipv4_subnet: "172.20.20.0/24".into(), ..MgmtSpec::default() },
            "7:18",
        ),
        (
            "mgmt-ipv6: 'fd00::7:1'",
            MgmtSpec { ipv6_subnet: "fd00::/64".into(), ..MgmtSpec::default() },
            "7:18",
        ),
    ] {
        let parsed = read(&with_node(key));
        assert_eq!(said(&parsed).len(), 1, "{:?}", said(&parsed));
        assert_eq!(codes(&parsed), [format!("{at} info MGMT_IMPLIED")], "{key}");
        assert_eq!(parsed.spec.mgmt, Some(mgmt), "{key}");
    }
    let two = "    a: {kind: frr, mgmt-ipv4: 10.0.0.9}\n    b: {kind: frr, mgmt-ipv4: 10.0.1.9}";
    assert_eq!(codes(&read(&nodes(two))), ["4:31 info MGMT_IMPLIED", "5:31 error MGMT_ADDRESS"]);
    assert_eq!(spec(&with_node("env: {A: b}")).mgmt, None);
}

#[test]
fn every_cycle_of_stages_is_told() {
    let wait = |node: &str, on: &str| {
        format!(
            "    {node}: {{kind: frr, stages: {{create: {{wait-for: [{{node: {on}, stage: create}}]}}}}}}\n"
        )
    };
    let all = [wait("a", "b"), wait("b", "a"), wait("c", "d"), wait("d", "c")].concat();
    let cycles = told(&read(&nodes(&all)), "STAGES");
    assert_eq!(cycles.len(), 2, "{cycles:?}");
}
