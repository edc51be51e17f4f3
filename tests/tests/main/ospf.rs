//! The main job: a routed network out of one file.

use std::path::Path;
use std::time::Duration;

use netloom_tests::{Mode, Sandbox, eventually, in_node, on_plane};
use serde_json::Value;

fn ospf_converges_and_carries_tcp(mode: Mode) {
    ospf(mode, "auto", "kernel");
}

fn ospf_converges_and_carries_tcp_on_open_vswitch(mode: Mode) {
    ospf(mode, "ovs", "ovs");
}

fn ospf(mode: Mode, asked: &str, carried: &str) {
    let sandbox = Sandbox::start(mode);
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/ospf-triangle.clab.yml");
    let lab = sandbox.lab("ospf");
    // Under a name of its own, so that a running demo is not in the way.
    let text = std::fs::read_to_string(&example).expect("the example");
    let renamed = text.replacen("name: ospf-triangle", &format!("name: {lab}"), 1);
    assert_ne!(text, renamed, "the example has the name that this test replaces");
    let copied = netloom_tests::run(
        "cp",
        &[
            "-r",
            &example.with_file_name("ospf-triangle").display().to_string(),
            &sandbox.path().display().to_string(),
        ],
    );
    copied.must();
    let said = sandbox.deploy(&on_plane(asked, &renamed));
    let links = sandbox.get(&format!("/v1/labs/{lab}/links")).expect("the links").body;
    let links = links["links"].as_array().expect("links");
    assert!(links.len() == 6 && links.iter().all(|link| link["plane"] == carried), "{links:?}");
    assert!(said.stdout.contains("r1") && said.stdout.contains("READY"), "{}", said.stdout);

    // READY implies that the daemons have read the configuration: what is saved at once is not half of it.
    let saved = sandbox.path().join("saved");
    sandbox.netloom(&["save", &lab, "--dir", &saved.display().to_string()]).must();
    for router in ["r1", "r2", "r3"] {
        let config = std::fs::read_to_string(saved.join(format!("{router}.cfg"))).unwrap_or_default();
        for line in ["\nrouter ospf\n", " ip ospf hello-interval 1\n", " timers lsa min-arrival 0\n"] {
            assert!(config.contains(line), "{line:?} is not in what {router} is saved as: {config}");
        }
    }

    let shown = sandbox.lab_json(&lab);
    for (field, value) in [
        ("nodeCount", 6),
        ("runningCount", 6),
        ("containerCount", 6),
        ("vmCount", 0),
        ("linkCount", 6),
        ("upLinkCount", 6),
    ] {
        assert_eq!(shown[field], value, "{field} in {shown}");
    }
    for router in ["r1", "r2", "r3"] {
        eventually(&format!("{router} is Full with both neighbours"), Duration::from_secs(60), || {
            let said =
                sandbox.netloom(&["exec", &lab, router, "--", "vtysh", "-c", "show ip ospf neighbor json"]);
            let json: Value = serde_json::from_str(&said.stdout).unwrap_or(Value::Null);
            said.stdout.matches("Full").count() >= 2
                && json["neighbors"].as_object().is_some_and(|n| n.len() == 2)
        });
    }
    let address = |node: &str| {
        let said = in_node(&sandbox, &lab, node, &["ip", "-br", "-4", "addr", "show", "eth1"]).must().stdout;
        let cidr = said.split_whitespace().nth(2).expect("an address").to_owned();
        cidr.split('/').next().expect("an address").to_owned()
    };
    for (from, to) in [("h1", "h2"), ("h1", "h3"), ("h2", "h3")] {
        let target = address(to);
        eventually(&format!("{from} pings {to} across the routers"), Duration::from_secs(20), || {
            sandbox.netloom(&["exec", &lab, from, "--", "ping", "-c", "1", "-W", "1", &target]).ok()
        });
    }
    // TCP needs transmit offload to be off where the datapath is in userspace; ping does not show that.
    let target = address("h3");
    let server = sandbox.netloom(&["exec", &lab, "h3", "--", "iperf3", "-s", "-D"]);
    server.must();
    eventually("h1 moves data to h3 over TCP", Duration::from_secs(30), || {
        let said = sandbox.netloom(&["exec", &lab, "h1", "--", "iperf3", "-c", &target, "-n", "2M", "-J"]);
        let json: Value = serde_json::from_str(&said.stdout).unwrap_or(Value::Null);
        json["end"]["sum_received"]["bytes"].as_u64().is_some_and(|bytes| bytes >= 1_000_000)
    });
    sandbox.netloom(&["destroy", &lab, "--yes"]).must();
    assert_eq!(sandbox.leftovers(), Vec::<String>::new());
}

/// `netloom save` right after a deploy once wrote what a router had read of its configuration by then.
fn a_router_is_ready_when_it_has_read_its_configuration(mode: Mode) {
    let sandbox = Sandbox::start(mode);
    let lab = sandbox.lab("late");
    sandbox.write(
        "frr.conf",
        "hostname r1\nservice integrated-vtysh-config\n!\nrouter ospf\n ospf router-id 10.255.0.1\n!\n",
    );
    sandbox.deploy(&format!(
        "name: {lab}\ntopology:\n  defaults: {{image-pull-policy: Never}}\n  nodes:\n    \
         r1: {{kind: frr, cmd: \"sh -c 'sleep 3; exec /usr/sbin/frr-node'\", binds: [\"frr.conf:/etc/frr/frr.conf\"]}}\n"
    ));
    assert_eq!(sandbox.node_json(&lab, "r1")["state"], "NODE_STATE_READY");
    let saved = sandbox.path().join("saved");
    sandbox.netloom(&["save", &lab, "--dir", &saved.display().to_string()]).must();
    let config = std::fs::read_to_string(saved.join("r1.cfg")).expect("what was saved");
    assert!(config.contains("\nrouter ospf\n ospf router-id 10.255.0.1\n"), "{config}");
    assert!(!config.contains("Building configuration"), "{config}");
    what_was_saved_is_kept_and_started_with(&sandbox, &lab, &saved, &config);
    sandbox.netloom(&["destroy", &lab, "--yes"]).must();
    assert_eq!(sandbox.leftovers(), Vec::<String>::new());
}

/// Changed in the router and saved again, both are there; and it starts with what was saved where that is asked for.
fn what_was_saved_is_kept_and_started_with(sandbox: &Sandbox, lab: &str, saved: &Path, config: &str) {
    let vtysh = |commands: &[&str]| {
        let words = commands.iter().flat_map(|command| ["-c", command]);
        let words = ["exec", lab, "r1", "--", "vtysh"].into_iter().chain(words).collect::<Vec<_>>();
        sandbox.netloom(&words).must().stdout
    };
    let dir = saved.display().to_string();
    vtysh(&["configure", "ip prefix-list late permit 10.9.0.0/16"]);
    sandbox.netloom(&["save", lab, "--dir", &dir]).must();
    let history = std::fs::read_dir(saved.join("history/r1")).expect("what was saved before");
    let before: Vec<_> =
        history.map(|e| std::fs::read_to_string(e.expect("a file").path()).expect("text")).collect();
    assert_eq!(before, [config]);
    // Its own file still has the place.
    let file = sandbox.path().join("lab.clab.yml").display().to_string();
    let refused = sandbox.netloom(&["deploy", "-t", &file, "--saved", &dir]);
    assert!(!refused.ok() && refused.stderr.contains("SAVED_CONFIG_BOUND"), "{}", refused.stderr);
    let text = format!(
        "name: {lab}\ntopology:\n  defaults: {{image-pull-policy: Never}}\n  nodes:\n    r1: {{kind: frr}}\n    h1:\n      kind: linux\n      image: netloom/frr:local\n      cmd: sleep 1000000\n      save-file: /etc/app.conf\n      exec: [\"sh -c 'test -s /etc/app.conf || echo first >/etc/app.conf'\"]\n"
    );
    let file = sandbox.write("plain.clab.yml", &text).display().to_string();
    sandbox.netloom(&["deploy", "-t", &file, "--saved", &dir]).must();
    let told = vtysh(&["show running-config"]);
    assert!(told.contains("ip prefix-list late seq 5 permit 10.9.0.0/16"), "{told}");
    assert!(told.contains("\n ospf router-id 10.255.0.1\n"), "{told}");
    // There and back it is the same.
    let again = sandbox.netloom(&["save", lab, "--dir", &dir]).must().stdout;
    assert!(again.contains("as before"), "{again}");
    // A plain Linux says which of its files that is, and has it back though it was made anew.
    let h1 = |script: &str| sandbox.netloom(&["exec", lab, "h1", "--", "sh", "-c", script]).must().stdout;
    sandbox.netloom(&["deploy", "-t", &file, "--saved", &dir]).must();
    assert_eq!(h1("grep -c ' /etc/app.conf ' /proc/mounts; cat /etc/app.conf"), "1\nfirst\n");
    h1("echo second >/etc/app.conf");
    sandbox.netloom(&["save", lab, "h1", "--dir", &dir]).must();
    assert_eq!(std::fs::read_to_string(saved.join("h1.cfg")).expect("what was saved"), "second\n");
}

in_both_modes!(
    ospf_converges_and_carries_tcp,
    ospf_converges_and_carries_tcp_on_open_vswitch,
    a_router_is_ready_when_it_has_read_its_configuration
);
