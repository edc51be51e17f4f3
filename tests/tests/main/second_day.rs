//! What happens to a lab that runs: nodes are stopped and started, links come, go and are unplugged, and changes take the smallest action.

use std::io::BufRead as _;
use std::time::Duration;

use netloom_tests::{Mode, Sandbox, container, docker, eventually, in_node, pid_of};

use crate::{IMAGE, line};

const BOUND: Duration = Duration::from_secs(40);

fn start(mode: Mode, name: &str, nodes: usize) -> (Sandbox, String) {
    let sandbox = Sandbox::start(mode);
    let lab = sandbox.lab(name);
    sandbox.deploy(&line(&lab, nodes));
    (sandbox, lab)
}

fn carrier(sandbox: &Sandbox, lab: &str, node: &str, interface: &str) -> String {
    let file = format!("/sys/class/net/{interface}/carrier");
    // The files of sysfs are those of the namespace that mounted it: the container's own are asked for.
    let read = sandbox.netloom(&["exec", lab, node, "--", "cat", &file]);
    read.stdout.trim().to_owned()
}

fn pings(sandbox: &Sandbox, lab: &str, node: &str, address: &str) -> bool {
    in_node(sandbox, lab, node, &["ping", "-c", "1", "-W", "1", address]).ok()
}

fn link(sandbox: &Sandbox, lab: &str, id: &str) -> serde_json::Value {
    sandbox.get(&format!("/v1/labs/{lab}/links/{id}")).map_or(serde_json::Value::Null, |r| r.body)
}

fn nodes_stop_and_start(mode: Mode) {
    let (sandbox, lab) = start(mode, "verbs", 3);
    let ids = || ["n1", "n2", "n3"].map(|n| (container(&sandbox, &lab, n), pid_of(&sandbox, &lab, n)));
    let before = ids();
    let said = sandbox.netloom(&["node", "stop", &lab, "n2"]).must();
    assert!(said.stdout.contains("Stopped 1 node"), "{}", said.stdout);
    let node = sandbox.node_json(&lab, "n2");
    assert_eq!((&node["state"], &node["wanted"]), (&"NODE_STATE_STOPPED".into(), &"WANTED_STOPPED".into()));
    let state = docker(&["inspect", "-f", "{{.State.Running}}", before[1].0.as_ref().unwrap()]).must().stdout;
    assert_eq!(state.trim(), "false", "its container stays");
    eventually("the far end has no carrier", BOUND, || carrier(&sandbox, &lab, "n1", "eth2") == "0");
    eventually("its link says why", BOUND, || {
        let link = link(&sandbox, &lab, "n1:eth2--n2:eth1");
        link["state"] == "LINK_STATE_DOWN" && link["stateReason"] == "node n2 does not run"
    });
    assert_eq!(sandbox.lab_json(&lab)["state"], "LAB_STATE_RUNNING");

    // What was stopped is not started by anything else, and a plan says what a deploy would do.
    let file = sandbox.write("same.clab.yml", &line(&lab, 3)).display().to_string();
    let plan = sandbox.netloom(&["plan", "-t", &file, "--exit-code"]);
    assert!(plan.stdout.contains("node n2") && plan.stdout.contains("it was stopped"), "{}", plan.stdout);
    assert!(plan.stdout.contains("1 to start"), "{}", plan.stdout);

    sandbox.netloom(&["node", "start", &lab, "n2"]).must();
    assert!(pings(&sandbox, &lab, "n1", "10.0.1.2") && pings(&sandbox, &lab, "n3", "10.0.2.1"));
    let after = ids();
    assert_eq!((&after[0], &after[2]), (&before[0], &before[2]), "nobody else was touched");
    assert_eq!(after[1].0, before[1].0, "it is the same container");

    sandbox.netloom(&["node", "restart", &lab, "n1", "n3"]).must();
    let restarted = ids();
    assert!(restarted[0].1 != after[0].1 && restarted[2].1 != after[2].1, "their processes are others");
    assert_eq!(restarted[1], after[1]);
    assert!(pings(&sandbox, &lab, "n1", "10.0.1.2") && pings(&sandbox, &lab, "n2", "10.0.2.2"));

    sandbox.netloom(&["node", "stop", &lab, "*"]).must();
    assert_eq!(sandbox.lab_json(&lab)["state"], "LAB_STATE_STOPPED");
    sandbox.deploy(&line(&lab, 3));
    sandbox.wait_ready(&lab, 3, 2, BOUND);
    assert!(pings(&sandbox, &lab, "n1", "10.0.1.2"));
}

fn links_come_go_and_are_unplugged(mode: Mode) {
    let (sandbox, lab) = start(mode, "cables", 3);
    let pids = || ["n1", "n2", "n3"].map(|n| pid_of(&sandbox, &lab, n));
    let before = pids();
    sandbox.netloom(&["link", "add", &lab, "n1:eth9", "n3:eth9"]).must();
    let id = "n1:eth9--n3:eth9";
    assert_eq!(link(&sandbox, &lab, id)["state"], "LINK_STATE_UP");
    let mtu = |node: &str| in_node(&sandbox, &lab, node, &["ip", "-o", "link", "show", "eth9"]).stdout;
    assert!(mtu("n1").contains("mtu 9500"), "{}", mtu("n1"));
    let twice = sandbox.netloom(&["link", "add", &lab, "n3:eth9", "n1:eth9"]);
    assert!(!twice.ok() && twice.stderr.contains("LINK_EXISTS"), "{}", twice.stderr);

    let said = sandbox.netloom(&["link", "set", &lab, "n3:eth9", "--mtu", "1400"]).must();
    assert!(said.stdout.contains("mtu 9500 → 1400"), "{}", said.stdout);
    eventually("both interfaces have the MTU", BOUND, || {
        mtu("n1").contains("mtu 1400") && mtu("n3").contains("mtu 1400")
    });

    let said = sandbox.netloom(&["link", "down", &lab, "n1:eth2"]).must();
    assert!(said.stdout.contains("is DOWN: it is unplugged"), "{}", said.stdout);
    for (node, interface) in [("n1", "eth2"), ("n2", "eth1")] {
        eventually("both ends lose carrier", BOUND, || carrier(&sandbox, &lab, node, interface) == "0");
    }
    assert!(!pings(&sandbox, &lab, "n1", "10.0.1.2"));
    assert_eq!(sandbox.lab_json(&lab)["state"], "LAB_STATE_RUNNING", "it is so on request");
    sandbox.netloom(&["link", "up", &lab, "n2:eth1"]).must();
    eventually("it carries again", BOUND, || pings(&sandbox, &lab, "n1", "10.0.1.2"));

    sandbox.netloom(&["link", "remove", &lab, id]).must();
    assert!(!in_node(&sandbox, &lab, "n1", &["ip", "link", "show", "eth9"]).ok(), "its interfaces are gone");
    assert_eq!(pids(), before, "no node was restarted");
}

fn changes_take_the_smallest_action(mode: Mode) {
    let sandbox = Sandbox::start(mode);
    let lab = sandbox.lab("small");
    let file = |node: &str| {
        format!(
            "name: {lab}\ntopology:\n  defaults:\n    kind: linux\n    image: {IMAGE}\n    image-pull-policy: Never\n  nodes:\n    n1:\n{node}"
        )
    };
    sandbox.deploy(&file("      exec: [\"touch /one\"]\n      cpu: 0.5\n"));
    let of = || (container(&sandbox, &lab, "n1"), pid_of(&sandbox, &lab, "n1"));
    let before = of();
    let there = |path: &str| sandbox.netloom(&["exec", &lab, "n1", "--", "ls", path]).ok();
    assert!(there("/one"));

    let said = sandbox
        .deploy(&file("      exec: [\"touch /one\", \"touch /two\"]\n      cpu: 1\n      memory: 64mib\n"));
    assert!(
        said.stdout.contains("cpu 0.5 → 1") && said.stdout.contains("memory none → 64MiB"),
        "{}",
        said.stdout
    );
    assert_eq!(of(), before, "commands and limits restart nobody");
    assert!(there("/two"), "new commands are run on the running node");
    eventually("the limits are the new ones", BOUND, || {
        let id = before.0.as_ref().unwrap();
        let now = docker(&["inspect", "-f", "{{.HostConfig.NanoCpus}} {{.HostConfig.Memory}}", id]).stdout;
        now.trim() == "1000000000 67108864"
    });

    let said = sandbox.deploy(&file("      exec: [\"touch /one\", \"touch /two\"]\n      cpu: 1\n      memory: 64mib\n      env: {A: \"1\"}\n"));
    assert!(said.stdout.contains("forces a new container: env +A"), "{}", said.stdout);
    assert_ne!(of().0, before.0);
}

fn starts_go_in_stages(mode: Mode) {
    let sandbox = Sandbox::start(mode);
    let lab = sandbox.lab("stages");
    sandbox.deploy(&format!(
        "name: {lab}\ntopology:\n  defaults:\n    kind: linux\n    image: {IMAGE}\n    image-pull-policy: Never\n  nodes:\n\
         \x20   first:\n      cmd: sh -c 'sleep 2; touch /ready; exec sleep 1000'\n\
         \x20     healthcheck: {{test: [CMD-SHELL, test -e /ready], interval: 1, timeout: 2, retries: 30}}\n\
         \x20   second:\n      stages:\n        create: {{wait-for: [{{node: first, stage: healthy}}]}}\n\
         \x20   third:\n      exec: [\"touch /configured\"]\n      stages:\n\
         \x20       create-links: {{wait-for: [{{node: second, stage: configure}}], exec: [{{command: \"sh -c 'ls /sys/class/net > /before'\", phase: on-enter}}, {{command: \"sh -c 'ls /sys/class/net > /after'\", phase: on-exit}}]}}\n\
         \x20 links:\n    - endpoints: [\"second:eth1\", \"third:eth1\"]\n"
    ));
    let started = |node: &str| {
        let id = container(&sandbox, &lab, node).unwrap();
        docker(&["inspect", "-f", "{{.State.StartedAt}}", &id]).must().stdout
    };
    // RFC 3339 in UTC: the order of the texts is that of the times.
    assert!(started("first") < started("second"));
    let health = sandbox.node_json(&lab, "first")["health"].clone();
    assert_eq!(health, "healthy");
    let said = |path: &str| sandbox.netloom(&["exec", &lab, "third", "--", "cat", path]).must().stdout;
    assert!(
        !said("/before").contains("eth1") && said("/after").contains("eth1"),
        "{} {}",
        said("/before"),
        said("/after")
    );
    said("/configured");
    assert_eq!(link(&sandbox, &lab, "second:eth1--third:eth1")["state"], "LINK_STATE_UP");
}

fn certificates_are_the_labs_own_and_stay(mode: Mode) {
    let sandbox = Sandbox::start(mode);
    let lab = sandbox.lab("tls");
    let file = |more: &str| {
        format!(
            "name: {lab}\ntopology:\n  defaults:\n    kind: linux\n    image: {IMAGE}\n    image-pull-policy: Never\n  nodes:\n    n1:\n      certificate: {{issue: true, sans: [web.example]}}\n{more}"
        )
    };
    sandbox.deploy(&file(""));
    let read = |name: &str| {
        let path = format!("/etc/netloom/tls/{name}.pem");
        sandbox.netloom(&["exec", &lab, "n1", "--", "cat", &path]).must().stdout
    };
    let (certificate, key) = (read("cert"), read("key"));
    let write = |name: &str, text: &str| sandbox.write(name, text).display().to_string();
    let (ca, cert) = (write("ca.pem", &read("ca")), write("cert.pem", &certificate));
    let verify =
        netloom_tests::run("openssl", &["verify", "-verify_hostname", "web.example", "-CAfile", &ca, &cert]);
    assert!(verify.ok(), "{}", verify.stderr);
    // Made anew, the node keeps its own.
    sandbox.deploy(&file("      env: {A: \"1\"}\n"));
    assert_eq!((read("cert"), read("key")), (certificate, key.clone()));
    let shown = sandbox.get(&format!("/v1/labs/{lab}/nodes/n1")).unwrap().body.to_string();
    let lab_shown = sandbox.lab_json(&lab).to_string();
    assert!(!shown.contains("PRIVATE KEY") && !lab_shown.contains("PRIVATE KEY"));
}

fn a_cancelled_change_leaves_what_was_there(mode: Mode) {
    let (sandbox, lab) = start(mode, "cancel", 2);
    let before = ["n1", "n2"].map(|n| pid_of(&sandbox, &lab, n));
    // A node whose start takes long.
    let text = line(&lab, 3).replacen("    n3:\n", "    n3:\n      startup-delay: 600\n", 1);
    let file = sandbox.write("slow.clab.yml", &text).display().to_string();
    let mut waiting = sandbox.command();
    waiting.args(["deploy", "-t", &file, "--on-interrupt", "cancel"]);
    let mut child =
        waiting.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    eventually("the deploy is under way", BOUND, || sandbox.lab_json(&lab)["state"] == "LAB_STATE_DEPLOYING");
    let refused = sandbox.netloom(&["node", "stop", &lab, "n1"]);
    assert!(!refused.ok() && refused.stderr.contains("OPERATION_ACTIVE"), "{}", refused.stderr);
    // Who sees progress can interrupt.
    let mut lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("node n3  PENDING")), "there is progress");
    netloom_tests::run("kill", &["-INT", &child.id().to_string()]).must();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(130) && said.contains("cancelled"), "{said}");
    eventually("the lab is what it was", BOUND, || {
        let now = sandbox.lab_json(&lab);
        now["nodeCount"] == 2 && now["state"] == "LAB_STATE_RUNNING" && now["upLinkCount"] == 1
    });
    assert_eq!(["n1", "n2"].map(|n| pid_of(&sandbox, &lab, n)), before, "nothing that was there was touched");
    assert!(pings(&sandbox, &lab, "n1", "10.0.1.2"));
}

in_both_modes!(
    nodes_stop_and_start,
    links_come_go_and_are_unplugged,
    changes_take_the_smallest_action,
    starts_go_in_stages,
    certificates_are_the_labs_own_and_stay,
    a_cancelled_change_leaves_what_was_there,
);
