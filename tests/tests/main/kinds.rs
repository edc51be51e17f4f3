//! The kind catalogue, by what its kinds do.

use std::collections::BTreeSet;
use std::time::Duration;

use netloom_tests::{Mode, Sandbox, eventually, in_node};
use serde_json::Value;

use crate::IMAGE;

/// The kinds that [`every_verified_kind_runs`] runs. `verified` in a kind's file means that it is here.
const RUN: [&str; 3] = ["bridge", "frr", "linux"];

fn name(kind: &Value) -> &str {
    kind["name"].as_str().and_then(|n| n.strip_prefix("kinds/")).expect("a kind's name")
}

fn every_verified_kind_runs(mode: Mode) {
    let sandbox = Sandbox::start(mode);
    let listed = sandbox.netloom(&["kinds", "list", "--format", "json"]).must().stdout;
    let listed: Value = serde_json::from_str(&listed).expect("JSON");
    let kinds = listed["kinds"].as_array().expect("kinds");
    let verified: BTreeSet<&str> = kinds.iter().filter(|k| k["verified"] == true).map(name).collect();
    assert_eq!(verified, BTreeSet::from(RUN), "what says that a test runs it is run below, and nothing else");
    for kind in kinds.iter().filter(|k| k["verified"] == false) {
        assert!(kind["source"].as_str().is_some_and(|s| s.len() > 20), "{kind}");
    }
    let shown = sandbox.netloom(&["kinds", "show", "arista_ceos"]).must().stdout;
    for line in
        ["Kind            ceos\n", "Verified        no: no test runs it\n", "Source          Arista, "]
    {
        assert!(shown.contains(line), "{line} missing in {shown}");
    }

    // What the catalogue says of frr is so inside: where its configuration goes in, its shell, and how the configuration gets out.
    let frr = kinds.iter().find(|k| name(k) == "frr").expect("frr");
    let path = frr["configIn"]["path"].as_str().expect("a path");
    sandbox.write("frr.conf", "ip prefix-list TOLD seq 5 permit 192.0.2.0/24\n");
    let lab = sandbox.lab("kinds");
    sandbox.deploy(&format!(
        "name: {lab}\ntopology:\n  defaults: {{image-pull-policy: Never}}\n  nodes:\n    bridge: {{kind: bridge}}\n    frr: {{kind: frr, binds: [\"frr.conf:{path}\"]}}\n    \
         linux: {{kind: linux, image: {IMAGE}}}\n  links:\n    \
         - {{type: veth, endpoints: [{{node: frr, interface: eth1, ipv4: 10.0.0.1/24}}, {{node: bridge, interface: a}}]}}\n    \
         - {{type: veth, endpoints: [{{node: linux, interface: eth1, ipv4: 10.0.0.2/24}}, {{node: bridge, interface: b}}]}}\n"
    ));
    for kind in RUN {
        let node = sandbox.node_json(&lab, kind);
        assert_eq!((&node["kind"], &node["state"]), (&kind.into(), &"NODE_STATE_READY".into()), "{node}");
    }
    sandbox.netloom(&["exec", &lab, "linux", "--", "ping", "-c", "1", "-W", "2", "10.0.0.1"]).must();
    let words = |v: &Value| -> Vec<String> {
        v.as_array().expect("words").iter().map(|w| w.as_str().expect("a word").to_owned()).collect()
    };
    let mut version = words(&frr["shell"]);
    version.extend(["-c".to_owned(), "show version".to_owned()]);
    for (command, says) in
        [(version, "FRRouting"), (words(&frr["configOut"]["command"]), "ip prefix-list TOLD")]
    {
        let mut args = vec!["exec".to_owned(), lab.clone(), "frr".to_owned(), "--".to_owned()];
        args.extend(command);
        eventually(&format!("{args:?} says {says}"), Duration::from_secs(30), || {
            sandbox.netloom(&args).stdout.contains(says)
        });
    }
    sandbox.netloom(&["destroy", &lab, "--yes"]).must();
    assert_eq!(sandbox.leftovers(), Vec::<String>::new());
}

/// `et-0/0/0` once became `eth0`, which is management, and links of every vendor that counts from 0 never came up.
fn a_vendor_that_counts_from_zero_gets_its_links_at_eth1(mode: Mode) {
    let kinds = tempfile::tempdir().expect("a directory");
    let file = "name = \"zero\"\ndescription = \"Counts from 0\"\naliases = [\"nought\"]\nruntime = \"docker\"\nverified = false\nsource = \"a test\"\n\
                [interfaces]\npattern = \"et-0/0/{n}\"\nalso = [\"xe-0/0/{n}\"]\nfirst = 0\nmax = 4\nmanagement = \"fxp0\"\n\
                [resources]\ncpu_request_millis = 50\nmemory_request_mib = 64\n[container]\nenv = { FROM = \"the kind\" }\n";
    std::fs::write(kinds.path().join("zero.toml"), file).expect("a file");
    let sandbox = Sandbox::start_with(mode, &format!("kinds_dir = {:?}", kinds.path()));
    let lab = sandbox.lab("zero");
    let text = |first: &str, second: &str| {
        format!(
            "name: {lab}\nmgmt: {{}}\ntopology:\n  defaults: {{kind: nought, image: {IMAGE}, image-pull-policy: Never}}\n  nodes: {{a: , b: }}\n  links:\n    \
             - {{endpoints: [\"a:{first}\", \"b:et-0/0/0\"], ipv4: [10.0.0.1/24, 10.0.0.2/24]}}\n    \
             - {{endpoints: [\"a:{second}\", \"b:et-0/0/1\"], ipv4: [10.0.1.1/24, 10.0.1.2/24]}}\n"
        )
    };
    sandbox.deploy(&text("et-0/0/0", "xe-0/0/1"));
    for (address, interface) in [("10.0.0.1/24", "eth1"), ("10.0.1.1/24", "eth2")] {
        let said =
            in_node(&sandbox, &lab, "a", &["ip", "-br", "-4", "addr", "show", interface]).must().stdout;
        assert!(said.contains(address), "{said}");
    }
    for address in ["10.0.0.2", "10.0.1.2"] {
        sandbox.netloom(&["exec", &lab, "a", "--", "ping", "-c", "1", "-W", "2", address]).must();
    }
    let node = sandbox.node_json(&lab, "a");
    let names: Vec<(&str, &str)> = node["interfaces"]
        .as_array()
        .expect("interfaces")
        .iter()
        .map(|i| (i["name"].as_str().unwrap_or_default(), i["guestName"].as_str().unwrap_or_default()))
        .collect();
    assert_eq!(names, [("et-0/0/0", "eth1"), ("et-0/0/1", "eth2")], "shown as the device writes them");
    let env = sandbox.netloom(&["exec", &lab, "a", "--", "sh", "-c", "echo $FROM"]).must().stdout;
    assert_eq!(env, "the kind\n");

    // Another spelling is no other link.
    let plan = sandbox.write("again.clab.yml", &text("eth1", "et-0/0/1"));
    let plan = sandbox.netloom(&["plan", "-t", &plan.display().to_string()]).must().stdout;
    assert!(plan.starts_with("Nothing to do: "), "{plan}");
    // One interface takes one link, however it is called.
    for (first, second, says) in [
        ("et-0/0/0", "eth1", "takes one cable"),
        ("fxp0", "eth2", "management"),
        ("et-0/0/4", "eth2", "et-0/0/0 to et-0/0/3"),
    ] {
        let refused = sandbox.try_deploy(&text(first, second));
        assert!(!refused.ok(), "{first} {second}");
        assert!(
            format!("{}{}", refused.stdout, refused.stderr).contains(says),
            "{}{}",
            refused.stdout,
            refused.stderr
        );
    }
    sandbox.wait_ready(&lab, 2, 2, Duration::from_secs(10));
}

fn a_virtual_machine_without_a_host_for_it_says_why_and_the_rest_runs(mode: Mode) {
    let sandbox = Sandbox::start(mode);
    let lab = sandbox.lab("vm");
    let partly = sandbox.try_deploy(&format!(
        "name: {lab}\ntopology:\n  nodes:\n    h: {{kind: linux, image: {IMAGE}}}\n    v: {{kind: vr-csr, image: csr.qcow2}}\n  links:\n    \
         - endpoints: [\"h:eth1\", \"v:Gi2\"]\n"
    ));
    let said = format!("{}{}", partly.stdout, partly.stderr);
    assert!(!partly.ok() && said.contains("node v  fits on no host"), "{said}");
    assert!(said.contains("libvirt does not answer on it") && said.contains("[RUNTIME_MISSING]"), "{said}");
    let state = |node: &str| sandbox.node_json(&lab, node)["state"].clone();
    assert_eq!((state("h"), state("v")), ("NODE_STATE_READY".into(), "NODE_STATE_UNSCHEDULABLE".into()));
}

in_both_modes!(
    every_verified_kind_runs,
    a_vendor_that_counts_from_zero_gets_its_links_at_eth1,
    a_virtual_machine_without_a_host_for_it_says_why_and_the_rest_runs
);
