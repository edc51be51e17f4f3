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
      cap-add: [SYS_TIME]
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
    assert!(inspect("{{.HostConfig.CapAdd}}").contains("SYS_TIME"));
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
