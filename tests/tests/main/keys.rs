//! Each key of a topology file, by what it does inside the node.

use std::time::Duration;

use netloom_tests::{Mode, Sandbox, container, docker, eventually, in_node};

use crate::IMAGE;

fn keys_do_inside_the_node_what_they_say(mode: Mode) {
    let sandbox = Sandbox::start(mode);
    let lab = sandbox.lab("keys");
    // Docker's networks are the machine's: the two modes run side by side.
    let subnet = if mode == Mode::One { "10.213.77" } else { "10.213.78" };
    sandbox.write("conf/motd", "hello from the file\n");
    sandbox.write("one.txt", "one\n");
    let text = format!(
        r#"
name: {lab}
prefix: pre
mgmt:
  network: {lab}-mgmt
  ipv4-subnet: {subnet}.0/24
topology:
  defaults:
    image: {IMAGE}
    env: {{WHO: defaults, ONLY: defaults}}
  kinds:
    linux:
      env: {{WHO: kind, KIND: "yes"}}
      labels: {{team: blue}}
  groups:
    edge:
      kind: linux
      env: {{WHO: group}}
      exec: ["sh -c 'echo group >> /order'"]
  nodes:
    a:
      group: edge
      env: {{WHO: node, HOME_OF: "${{NETLOOM_TEST_VALUE:=fallback}}"}}
      binds: ["conf:/etc/conf:ro", "one.txt:/one.txt"]
      exec: ["sh -c 'echo node >> /order'"]
      cap-add: [IPC_OWNER]
      sysctls: {{net.ipv4.ip_forward: "1"}}
      cpu: 0.5
      memory: 128mb
      mgmt-ipv4: {subnet}.50
    b:
      kind: linux
      entrypoint: /bin/busybox
      cmd: sleep 100000
      user: "1000"
    sw:
      kind: bridge
    c:
      kind: linux
  links:
    - endpoints: ["a:eth1", "b:eth1"]
      mtu: 1400
    - type: veth
      endpoints:
        - {{node: a, interface: eth2, mac: "02:00:00:00:aa:01", ipv4: 192.0.2.1/24}}
        - {{node: sw, interface: p1}}
    - endpoints: ["b:eth2", "sw:p2"]
      ipv4: ["192.0.2.2/24", ""]
    - endpoints: ["c:eth7", "sw:p3"]
      ipv4: ["192.0.2.3/24", ""]
"#
    );
    sandbox.deploy(&text);
    let lab_json = sandbox.lab_json(&lab);
    for (field, value) in
        [("nodeCount", 4), ("containerCount", 3), ("bridgeCount", 1), ("linkCount", 4), ("upLinkCount", 4)]
    {
        assert_eq!(lab_json[field], value, "{field} in {lab_json}");
    }
    let exec = |node: &str, command: &[&str]| {
        let mut args = vec!["exec", lab.as_str(), node, "--"];
        args.extend(command);
        sandbox.netloom(&args).must().stdout
    };
    let env = exec("a", &["env"]);
    for line in ["WHO=node", "ONLY=defaults", "KIND=yes", "HOME_OF=fallback"] {
        assert!(env.lines().any(|l| l == line), "{line} in\n{env}");
    }
    assert_eq!(exec("a", &["cat", "/etc/conf/motd"]), "hello from the file\n");
    assert!(
        !sandbox.netloom(&["exec", &lab, "a", "--", "sh", "-c", "echo x > /etc/conf/motd"]).ok(),
        "read-only"
    );
    exec("a", &["sh", "-c", "echo edited >> /one.txt"]);
    assert_eq!(exec("a", &["cat", "/order"]), "group\nnode\n");
    assert_eq!(exec("a", &["cat", "/proc/sys/net/ipv4/ip_forward"]).trim(), "1");
    assert_eq!(exec("a", &["hostname"]).trim(), "a");
    assert_eq!(exec("b", &["id", "-u"]).trim(), "1000");
    assert!(exec("b", &["cat", "/proc/1/cmdline"]).contains("sleep\x00100000"));

    let inspect = |format: &str| {
        let id = container(&sandbox, &lab, "a").unwrap();
        docker(&["inspect", "-f", format, &id]).must().stdout.trim().to_owned()
    };
    assert_eq!(inspect("{{.Name}}"), format!("/pre-{lab}-a"));
    assert_eq!(inspect("{{.HostConfig.NanoCpus}} {{.HostConfig.Memory}}"), "500000000 128000000");
    assert_eq!(inspect("{{index .Config.Labels \"team\"}}"), "blue");
    assert!(inspect("{{.HostConfig.CapAdd}}").contains("IPC_OWNER"));
    assert_eq!(inspect("{{.HostConfig.Privileged}} {{.HostConfig.RestartPolicy.Name}}"), "false no");
    assert_eq!(sandbox.node_json(&lab, "a")["mgmtIpv4"], format!("{subnet}.50"));
    assert!(
        exec("c", &["cat", "/etc/hosts"]).contains(&format!("{subnet}.50")),
        "every node of the lab is in /etc/hosts"
    );

    let links = in_node(&sandbox, &lab, "a", &["ip", "-d", "link"]).must().stdout;
    assert!(
        links.contains("eth0") && links.contains("mtu 1400") && links.contains("02:00:00:00:aa:01"),
        "{links}"
    );
    for target in ["192.0.2.2", "192.0.2.3"] {
        eventually("the segment carries", Duration::from_secs(10), || {
            in_node(&sandbox, &lab, "a", &["ping", "-c", "1", "-W", "1", target]).ok()
        });
    }

    // An edit inside stays over a deploy that does not change the file.
    sandbox.deploy(&text);
    assert_eq!(exec("a", &["cat", "/one.txt"]), "one\nedited\n");
    sandbox.netloom(&["destroy", &lab, "--yes"]).must();
    assert_eq!(sandbox.leftovers(), Vec::<String>::new());
}

in_both_modes!(keys_do_inside_the_node_what_they_say);

fn links_have_ipv6_and_nodes_write_their_networks_parameters_beside_a_management_network(mode: Mode) {
    let sandbox = Sandbox::start(mode);
    let lab = sandbox.lab("six");
    let text = format!(
        r#"
name: {lab}
mgmt: {{}}
topology:
  defaults:
    image: {IMAGE}
    kind: linux
  nodes:
    a:
      exec: ["sysctl -w net.ipv4.ip_forward=1", "sh -c 'echo x > /proc/sys/kernel/core_pattern'", "false"]
      healthcheck: {{test: [CMD, "false"], interval: 1, retries: 1}}
    b:
      sysctls: {{net.ipv6.conf.all.disable_ipv6: "1"}}
    c:
  links:
    - endpoints: ["a:eth1", "c:eth1"]
      ipv6: ["2001:db8:5::1/64", "2001:db8:5::2/64"]
    - endpoints: ["a:eth2", "b:eth2"]
"#
    );
    let said = sandbox.try_deploy(&text);
    let warning = format!("warning: exec commands failed in a; `netloom inspect {lab}` says which\n");
    assert!(said.stderr.contains(&warning), "{}", said.stderr);
    let ill = "1 of 3 nodes did not come up\n  a: READY: 2 exec commands failed";
    assert!(!said.ok() && said.stderr.contains(ill), "{}", said.stderr);
    let exec = |node: &str, command: &[&str]| {
        let mut args = vec!["exec", lab.as_str(), node, "--"];
        args.extend(command);
        sandbox.netloom(&args).must().stdout.trim().to_owned()
    };
    eventually("IPv6 is carried", Duration::from_secs(10), || {
        in_node(&sandbox, &lab, "a", &["ping", "-6", "-c", "1", "-W", "1", "2001:db8:5::2"]).ok()
    });
    let link_local = in_node(&sandbox, &lab, "a", &["ip", "-6", "addr", "show", "dev", "eth2"]).must().stdout;
    assert!(link_local.contains("inet6 fe80:"), "{link_local}");
    assert_eq!(exec("b", &["cat", "/proc/sys/net/ipv6/conf/all/disable_ipv6"]), "1", "as the file says");

    assert_eq!(exec("a", &["cat", "/proc/sys/net/ipv4/ip_forward"]), "1");
    assert_ne!(exec("a", &["cat", "/proc/sys/kernel/core_pattern"]), "x");
    let node = sandbox.node_json(&lab, "a");
    let told = node["execError"].as_str().unwrap_or_default();
    assert!(
        told.starts_with("2 exec commands failed: \"sh -c 'echo x") && told.contains("Read-only"),
        "{told}"
    );
    assert!(told.ends_with("; \"false\" exited with 1"), "{told}");

    // Its state is as it is; why it is not well is in every table.
    eventually("the health check is told", Duration::from_secs(20), || {
        let node = sandbox.node_json(&lab, "a");
        node["health"] == "unhealthy" && node["state"] == "NODE_STATE_READY"
    });
    let shown = sandbox.netloom(&["inspect", &lab]).must().stdout;
    assert!(shown.contains("; its health check fails"), "{shown}");
    sandbox.netloom(&["destroy", &lab, "--yes"]).must();
    assert_eq!(sandbox.leftovers(), Vec::<String>::new());
}

in_both_modes!(links_have_ipv6_and_nodes_write_their_networks_parameters_beside_a_management_network);

fn a_capability_that_the_host_does_not_give_is_refused_before_anything_is_made(mode: Mode) {
    let sandbox = Sandbox::start(mode);
    let lab = sandbox.lab("caps");
    let text = |cap: &str| {
        format!(
            "name: {lab}\ntopology:\n  nodes:\n    a: {{kind: linux, image: {IMAGE}, cap-add: [{cap}]}}\n"
        )
    };
    for cap in ["SYS_MODULE", "SYS_RAWIO", "DAC_READ_SEARCH", "SYS_TIME"] {
        let refused = sandbox.try_deploy(&text(cap));
        assert!(!refused.ok(), "{cap}");
        for word in ["CAPABILITY_NOT_ALLOWED", cap, "`capabilities` of [compute]"] {
            assert!(refused.stderr.contains(word), "{word} in {}", refused.stderr);
        }
    }
    assert_eq!(container(&sandbox, &lab, "a"), None);
    assert_eq!(sandbox.leftovers(), Vec::<String>::new());
    sandbox.deploy(&text("SYS_PTRACE"));
    sandbox.netloom(&["destroy", &lab, "--yes"]).must();
}

in_both_modes!(a_capability_that_the_host_does_not_give_is_refused_before_anything_is_made);
