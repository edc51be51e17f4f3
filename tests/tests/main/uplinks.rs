//! A lab reaches what is behind an interface of a host that joined, from whichever host its nodes are on; the interface is as it was when the lab is gone.

use std::time::Duration;

use netloom_tests::{Host, Mode, Namespace, Sandbox, eventually, finish};

use crate::{IMAGE, real};

const BOUND: Duration = Duration::from_secs(60);

/// A bridge with this uplink on a host, of any where none is named, and a node at it on the host `local`.
fn topology(lab: &str, uplink: &str, host: &str) -> String {
    let placement = if host.is_empty() { String::new() } else { format!(", placement: {{host: {host}}}") };
    format!(
        "name: {lab}\ntopology:\n  nodes:\n    out: {{kind: bridge, uplink: {uplink}{placement}}}\n    pc: {{kind: linux, image: {IMAGE}, image-pull-policy: Never, placement: {{host: local}}}}\n  links:\n    - endpoints: [{{node: pc, interface: eth1, ipv4: 10.7.0.2/24}}, {{node: out, interface: p1}}]\n"
    )
}

#[test]
fn a_node_reaches_what_is_behind_an_interface_of_another_host() {
    if !real("uplinks::a_node_reaches_what_is_behind_an_interface_of_another_host") {
        return;
    }
    let scheduler = "[scheduler]\njoin_listen = \"0.0.0.0:7601\"\n";
    let sandbox = Sandbox::prepare_on(Mode::One, scheduler, "tunnel_address = \"10.99.0.1\"");
    let mut machine = Host::beside(&sandbox, &[]);
    machine.configure("uplinks = [\"wan0\", \"wan1\"]");
    let name = format!("{}o", sandbox.bridge());
    let out_there = Namespace::make(&name);
    let plug_in = |machine: &Host| {
        let cable = ["link", "add", "wan0", "type", "veth", "peer", "name", "far0", "netns", &name];
        machine.run("ip", &cable).must();
        for args in ["address add 10.7.0.9/24 dev far0", "link set far0 up"] {
            finish(out_there.command("ip").args(args.split(' ')), None).must();
        }
    };
    plug_in(&machine);
    // An interface has a queue once it was set up.
    for state in ["up", "down"] {
        machine.run("ip", &["link", "set", "wan0", state]).must();
    }
    let shown = |machine: &Host| machine.run("ip", &["-d", "-o", "link", "show", "wan0"]).must().stdout;
    let before = shown(&machine);
    sandbox.run_programs();
    sandbox.wait_until_healthy();
    machine.join(&sandbox, "rack2");
    eventually("rack2 is heard of", BOUND, || {
        sandbox.get("/v1/hosts/rack2").is_ok_and(|r| r.body["state"] == "HOST_STATE_ONLINE")
    });
    let host = sandbox.netloom(&["host", "show", "rack2"]).must().stdout;
    assert!(host.contains("wan0, an interface\n"), "{host}");
    assert!(host.contains("wan1: there is no interface wan1 on this host"), "{host}");

    // Whoever has none says so, in a plan too.
    let (lab, other) = (sandbox.lab("out"), sandbox.lab("other"));
    let refused = |text: &str, words: &[&str]| {
        let file = sandbox.write("refused.clab.yml", text).display().to_string();
        for verb in [&["plan", "-t", &file][..], &["deploy", "-t", &file, "--yes"][..]] {
            let said = sandbox.netloom(verb);
            let all = format!("{}{}", said.stdout, said.stderr);
            assert!(!said.ok() && words.iter().all(|word| all.contains(word)), "{words:?}: {all}");
        }
    };
    let lacks =
        |name: &str| format!("has no interface {name} that labs may use: name it in `uplinks` of [network]");
    refused(&topology(&lab, "wan7", ""), &["UPLINK_NOT_ALLOWED", "rack2", &lacks("wan7")]);
    refused(&topology(&lab, "wan0", "local"), &["UPLINK_NOT_ALLOWED", &lacks("wan0")]);
    refused(&topology(&lab, "up/0", ""), &["is not a name for an interface"]);
    let misused = topology(&lab, "wan0", "").replace("pc: {", "pc: {uplink: wan0, ");
    refused(&misused, &["only a node of kind bridge"]);

    sandbox.deploy(&topology(&lab, "wan0", ""));
    sandbox.wait_ready(&lab, 2, 1, BOUND);
    assert_eq!(sandbox.node_json(&lab, "out")["host"], "hosts/rack2");
    let inspected = sandbox.netloom(&["inspect", &lab]).must().stdout;
    assert!(inspected.contains("uplink wan0"), "{inspected}");
    let ping = ["exec", &lab, "pc", "--", "ping", "-c", "1", "-W", "1", "10.7.0.9"];
    let reaches = |what: &str| eventually(what, BOUND, || sandbox.netloom(&ping).ok());
    reaches("the node reaches what is out there");

    // An interface is in one bridge.
    let file = sandbox.write("other.clab.yml", &topology(&other, "wan0", "")).display().to_string();
    let planned = sandbox.netloom(&["plan", "-t", &file]);
    let planned = format!("{}{}", planned.stdout, planned.stderr);
    assert!(planned.contains(&format!("has its interface wan0 in bridge {lab}/out")), "{planned}");

    // It is pulled out, and back; its host's programs are started again.
    machine.run("ip", &["link", "delete", "wan0"]).must();
    let state = |state: &str, reason: &str| {
        let node = sandbox.node_json(&lab, "out");
        node["state"] == state && node["stateReason"].as_str().unwrap_or_default().contains(reason)
    };
    eventually("that is told", BOUND, || state("NODE_STATE_FAILED", "there is no interface wan0"));
    plug_in(&machine);
    eventually("it is back", BOUND, || state("NODE_STATE_READY", ""));
    reaches("the node reaches what is out there again");
    machine.stop();
    machine.start();
    reaches("the node reaches it while programs start");
    eventually("it is found", BOUND, || state("NODE_STATE_READY", ""));

    sandbox.netloom(&["destroy", &lab, "--yes"]).must();
    eventually("nothing is left", BOUND, || machine.leftovers().is_empty());
    let of_device = |shown: &str| {
        let words: Vec<&str> = shown.split_whitespace().collect();
        // Its numbers and its address are those of the new one.
        let at = words.iter().position(|word| *word == "link/ether").expect("an address");
        [&words[2..at + 1], &words[at + 2..]].concat().join(" ")
    };
    assert_eq!(of_device(&shown(&machine)), of_device(&before));
    assert!(!sandbox.logs().contains("panicked") && !machine.logs().contains("panicked"));
}
