//! What was there before a change stays until what takes its place can be made, and is kept until that works.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::process::Stdio;
use std::time::Duration;

use netloom_tests::{Mode, Sandbox, container, docker, eventually, in_node, pid_of};

use super::foreign::Foreign;
use crate::{IMAGE, line};

const BOUND: Duration = Duration::from_secs(40);

fn in_container(id: &str, command: &str) -> String {
    docker(&["exec", id, "sh", "-c", command]).must().stdout.trim().to_owned()
}

fn a_mistyped_image_leaves_the_running_container(mode: Mode) {
    let sandbox = Sandbox::start(mode);
    let lab = sandbox.lab("mistyped");
    let text = line(&lab, 3);
    sandbox.deploy(&text);
    let of = |node: &str| (container(&sandbox, &lab, node).unwrap(), pid_of(&sandbox, &lab, node));
    let before = of("n2");
    in_container(&before.0, "echo mine > /mine");
    // One that may not be fetched is refused as a whole; one that cannot be had fails its node.
    let wrong = |policy: &str| {
        let image = format!("    n2:\n      image: {IMAGE}x\n      image-pull-policy: {policy}\n");
        text.replacen("    n2:\n", &image, 1)
    };
    let said = sandbox.try_deploy(&wrong("Never"));
    assert!(!said.ok() && said.stderr.contains("IMAGE_MISSING"), "{}", said.stderr);
    assert_eq!(of("n2"), before);
    let said = sandbox.try_deploy(&wrong("IfNotPresent"));
    assert!(!said.ok() && said.stderr.contains("what ran before runs on"), "{}{}", said.stdout, said.stderr);
    assert_eq!(of("n2"), before, "it is the same container and the same process");
    assert_eq!(in_container(&before.0, "cat /mine"), "mine");
    let node = sandbox.node_json(&lab, "n2");
    assert_eq!(node["state"], "NODE_STATE_READY");
    assert!(node["stateReason"].as_str().unwrap().starts_with("it is not made anew: "), "{node}");
    in_node(&sandbox, &lab, "n1", &["ping", "-c", "1", "-W", "2", "10.0.1.2"]).must();
    assert!(sandbox.netloom(&["exec", &lab, "n2", "--", "true"]).ok(), "it can be used");
    // Put right, there is nothing to do.
    let said = sandbox.deploy(&text);
    assert!(said.stdout.to_lowercase().contains("nothing to do"), "{}", said.stdout);
    assert_eq!(of("n2"), before);
    assert_eq!(sandbox.node_json(&lab, "n2")["stateReason"].as_str().unwrap_or_default(), "");
}

fn a_taken_port_or_subnet_leaves_the_running_containers(mode: Mode) {
    let sandbox = Sandbox::start(mode);
    let lab = sandbox.lab("taken");
    let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (mine, theirs) = (free(), free());
    let holder = format!("{lab}-holder");
    let publish = format!("127.0.0.1:{theirs}:80");
    docker(&["run", "-d", "--name", &holder, "-p", &publish, IMAGE, "sleep", "600"]).must();
    let held = Foreign(holder.clone());
    // Tests run side by side on one Docker: each has a subnet of its own.
    let third = mine % 125 * 2 + u16::from(mode == Mode::Five);
    let text = |subnet: &str, port: u16| {
        format!(
            "name: {lab}\nmgmt:\n  network: {lab}\n  ipv4-subnet: {subnet}\ntopology:\n  nodes:\n    web:\n      kind: linux\n      image: {IMAGE}\n      image-pull-policy: Never\n      ports: [\"127.0.0.1:{port}:80\"]\n"
        )
    };
    let own = format!("10.216.{third}.0/25");
    sandbox.deploy(&text(&own, mine));
    let of = || (container(&sandbox, &lab, "web").unwrap(), pid_of(&sandbox, &lab, "web"));
    let before = of();
    let said = sandbox.try_deploy(&text(&own, theirs));
    assert!(!said.ok() && said.stderr.contains("HOST_PORT_TAKEN"), "{}", said.stderr);
    let why = format!("host port {theirs}/tcp is taken: container {holder} has it");
    assert!(said.stderr.contains(&why), "{}", said.stderr);
    assert_eq!(of(), before);

    let other = format!("{lab}-other");
    let subnet = format!("10.216.{third}.128/25");
    docker(&["network", "create", "--subnet", &subnet, &other]).must();
    let said = sandbox.try_deploy(&text(&format!("10.216.{third}.0/24"), mine));
    docker(&["network", "rm", &other]).must();
    assert!(!said.ok() && said.stderr.contains("SUBNET_TAKEN"), "{}", said.stderr);
    assert_eq!(of(), before);

    // Nobody has them any more; the node's own port and network are not in its way.
    drop(held);
    sandbox.deploy(&text(&format!("10.216.{third}.0/24"), theirs));
    assert_ne!(of().0, before.0);
    sandbox.deploy(
        &text(&format!("10.216.{third}.0/24"), theirs).replace("web:\n", "web:\n      env: {A: \"1\"}\n"),
    );
}

fn a_cancelled_recreation_leaves_the_container(mode: Mode) {
    let sandbox = Sandbox::start(mode);
    let lab = sandbox.lab("kept");
    let text = line(&lab, 2);
    sandbox.deploy(&text);
    let of = || ["n1", "n2"].map(|n| (container(&sandbox, &lab, n).unwrap(), pid_of(&sandbox, &lab, n)));
    let before = of();
    in_container(&before[0].0, "echo mine > /mine");
    // A registry that takes a connection and says nothing: the image is awaited for as long as that goes on.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let image = format!("{}/router:1", silent.local_addr().unwrap());
    let far = format!("    n1:\n      image: {image}\n      image-pull-policy: Always\n");
    let changed =
        text.replacen("    n1:\n", &far, 1).replacen("    n2:\n", "    n2:\n      env: {A: \"1\"}\n", 1);
    let file = sandbox.write("far.clab.yml", &changed).display().to_string();
    let mut waiting = sandbox.command();
    waiting.args(["deploy", "-t", &file]).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = waiting.spawn().unwrap();
    eventually("its image is fetched", BOUND, || {
        let reason = sandbox.node_json(&lab, "n1")["stateReason"].as_str().unwrap_or_default().to_owned();
        reason.starts_with("it is to be made anew: ")
    });
    assert_eq!(of(), before, "nothing is touched while it is not known what can be made");
    sandbox.netloom(&["cancel", &lab]).must();
    eventually("the lab is what it was", BOUND, || {
        let now = sandbox.lab_json(&lab);
        now["state"] == "LAB_STATE_RUNNING" && now["upLinkCount"] == 1
    });
    assert_eq!(of(), before);
    assert_eq!(in_container(&before[0].0, "cat /mine"), "mine");
    in_node(&sandbox, &lab, "n1", &["ping", "-c", "1", "-W", "2", "10.0.1.2"]).must();
    assert!(!child.wait().unwrap().success());
    drop(silent);
}

fn a_changed_file_is_written_where_it_is_mounted(mode: Mode) {
    let sandbox = Sandbox::start(mode);
    let lab = sandbox.lab("files");
    let text = format!(
        "name: {lab}\ntopology:\n  nodes:\n    n1:\n      kind: linux\n      image: {IMAGE}\n      image-pull-policy: Never\n\
         \x20     binds: [\"a.conf:/etc/a.conf\", \"conf.d:/etc/conf.d\"]\n"
    );
    std::fs::create_dir(sandbox.path().join("conf.d")).unwrap();
    let write = |what: &str| {
        for file in ["a.conf", "conf.d/b.conf"] {
            sandbox.write(file, &format!("{file} {what}\n"));
        }
    };
    write("one");
    sandbox.deploy(&text);
    let of = || (container(&sandbox, &lab, "n1").unwrap(), pid_of(&sandbox, &lab, "n1"));
    let before = of();
    let read = |path: &str| in_container(&before.0, &format!("cat {path}"));
    assert_eq!(read("/etc/a.conf"), "a.conf one");
    // A node's own edits stay as long as the source does.
    in_container(&before.0, "echo mine > /etc/conf.d/b.conf");
    sandbox.deploy(&text);
    assert_eq!(read("/etc/conf.d/b.conf"), "mine");

    write("two is longer");
    let said = sandbox.deploy(&text).stdout;
    for line in [
        "bind /etc/a.conf: content changes, in place; the node reads it when it next does, and what it changed in it itself is lost",
        "bind /etc/conf.d: b.conf changes, in place; the node reads it when it next does, and what it changed in it itself is lost",
    ] {
        assert!(said.contains(line), "{said}");
    }
    assert_eq!(of(), before, "the node runs on");
    assert_eq!(read("/etc/a.conf"), "a.conf two is longer");
    assert_eq!(read("/etc/conf.d/b.conf"), "conf.d/b.conf two is longer");
    write("3");
    sandbox.deploy(&text);
    assert_eq!((of(), read("/etc/a.conf")), (before.clone(), "a.conf 3".to_owned()));

    // What a directory has no more goes, what the node put there stays, and a mode alone is a change.
    in_container(&before.0, "echo own > /etc/conf.d/own");
    sandbox.write("conf.d/c.conf", "c\n");
    std::fs::remove_file(sandbox.path().join("conf.d/b.conf")).unwrap();
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(sandbox.path().join("a.conf"), executable).unwrap();
    let said = sandbox.deploy(&text).stdout;
    for line in [
        "bind /etc/a.conf: mode 644 → 755, in place",
        "bind /etc/conf.d: c.conf changes, b.conf goes, in place",
    ] {
        assert!(said.contains(line), "{said}");
    }
    assert_eq!(in_container(&before.0, "ls /etc/conf.d; stat -c %a /etc/a.conf"), "c.conf\nown\n755");
    assert_eq!(of(), before);

    // With something that makes the node anew and does not work: what the node made of the file is there again with its former container.
    in_container(&before.0, "echo mine > /etc/a.conf");
    sandbox.write("a.conf", "a.conf 4\n");
    let said = sandbox.try_deploy(&text.replacen("    n1:\n", "    n1:\n      cmd: slep 1000\n", 1));
    let told =
        "cmd none → slep 1000; bind /etc/a.conf: content changes, and what it changed in it itself is lost";
    assert!(!said.ok() && said.stdout.contains(told), "{}{}", said.stdout, said.stderr);
    sandbox.write("a.conf", "a.conf 3\n");
    let said = sandbox.deploy(&text).stdout;
    assert!(said.contains("its former container comes back"), "{said}");
    assert_eq!(
        (of().0, read("/etc/a.conf"), read("/etc/conf.d/own")),
        (before.0.clone(), "mine".into(), "own".into())
    );

    // An image that cannot be had: nothing is written over below the node that runs on.
    let back = of();
    sandbox.write("a.conf", "a.conf 5\n");
    let mistyped = text.replace(IMAGE, &format!("{IMAGE}x")).replace("policy: Never", "policy: IfNotPresent");
    let said = sandbox.try_deploy(&mistyped);
    assert!(!said.ok() && said.stderr.contains("what ran before runs on"), "{}{}", said.stdout, said.stderr);
    assert_eq!((of(), read("/etc/a.conf")), (back.clone(), "mine".into()));

    // Written over in place by a deploy that is cancelled while another node waits: what the node made of it is there again, and the node never ended.
    sandbox.write("a.conf", "a.conf 3\n");
    sandbox.deploy(&text);
    sandbox.write("a.conf", "a.conf 6\n");
    let waits = "    n2:\n      kind: linux\n      image: ".to_owned()
        + IMAGE
        + "\n      stages: {create: {wait-for: [{node: n1, stage: exit}]}}\n";
    let file = sandbox.write("waits.clab.yml", &format!("{text}{waits}")).display().to_string();
    let mut waiting = sandbox.command();
    waiting.args(["deploy", "-t", &file]).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = waiting.spawn().unwrap();
    eventually("the file is written over", BOUND, || read("/etc/a.conf") == "a.conf 6");
    sandbox.netloom(&["cancel", &lab]).must();
    eventually("the file is what the node made of it", BOUND, || read("/etc/a.conf") == "mine");
    assert_eq!((of(), read("/etc/conf.d/own")), (back, "own".into()));
    assert!(!child.wait().unwrap().success());
}

/// Ids of all containers of a sandbox, and how many of them are set aside.
fn containers(sandbox: &Sandbox) -> (BTreeSet<String>, usize) {
    let owner = format!("label=netloom.owner={}", sandbox.owner());
    let all = docker(&["ps", "-a", "--no-trunc", "--format", "{{.ID}} {{.Names}}", "--filter", &owner])
        .must()
        .stdout;
    let aside = all.lines().filter(|l| l.contains(".aside.")).count();
    (all.lines().filter_map(|l| l.split(' ').next()).map(str::to_owned).collect(), aside)
}

fn a_cancel_gives_back_the_very_containers(mode: Mode) {
    let sandbox = Sandbox::start(mode);
    let lab = sandbox.lab("given-back");
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let web = format!("    n1:\n      ports: [\"127.0.0.1:{port}:80\"]\n      binds: [\"/data\"]\n");
    let third = u8::try_from(port % 250).unwrap_or(1);
    let mgmt = format!("mgmt:\n  network: {lab}\n  ipv4-subnet: 10.214.{third}.0/24\ntopology:\n");
    let text = line(&lab, 4).replacen("topology:\n", &mgmt, 1).replacen("    n1:\n", &web, 1);
    sandbox.deploy(&text);
    let of = |node: &str| container(&sandbox, &lab, node).unwrap();
    let before = ["n1", "n2", "n3", "n4"].map(of);
    for id in &before {
        in_container(id, "echo mine > /mine");
    }
    in_container(&before[0], "echo mine > /data/mine");
    let mac = |id: &str| in_container(id, "cat /sys/class/net/eth2/address");
    let macs = mac(&before[1]);

    // n1 is made anew, with the same port and volume; n2 with it, and never comes to run; n4 is dropped.
    let changed = text
        .replacen("      binds: [\"/data\"]\n", "      binds: [\"/data\"]\n      env: {A: \"1\"}\n", 1)
        .replacen(
            "    n2:\n",
            "    n2:\n      env: {A: \"1\"}\n      stages: {create: {wait-for: [{node: n1, stage: exit}]}}\n",
            1,
        )
        .replacen("    n4:\n", "", 1);
    let changed = changed[..changed.find("    - endpoints: [\"n3").unwrap()].to_owned();
    let file = sandbox.write("changed.clab.yml", &changed).display().to_string();
    let mut waiting = sandbox.command();
    waiting.args(["deploy", "-t", &file]).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = waiting.spawn().unwrap();
    eventually("n1 is another, and what was before is aside", BOUND, || {
        let n1 = sandbox.node_json(&lab, "n1");
        n1["state"] == "NODE_STATE_READY" && of("n1") != before[0] && containers(&sandbox).1 == 3
    });
    assert_eq!(in_container(&of("n1"), "ls /data /mine 2>/dev/null || true"), "/data:");
    sandbox.crash();
    sandbox.run_programs();
    sandbox.wait_until_healthy();
    assert_eq!(containers(&sandbox).1, 3, "nothing of it is taken for a stray");
    sandbox.netloom(&["cancel", &lab]).must();
    eventually("the lab is what it was", BOUND, || {
        let now = sandbox.lab_json(&lab);
        now["state"] == "LAB_STATE_RUNNING" && now["upLinkCount"] == 3
    });
    assert_eq!(["n1", "n2", "n3", "n4"].map(of), before, "the same containers");
    assert_eq!(containers(&sandbox), (before.iter().cloned().collect(), 0), "and no other");
    for id in &before {
        assert_eq!(in_container(id, "cat /mine"), "mine");
    }
    assert_eq!(in_container(&before[0], "cat /data/mine"), "mine");
    assert_eq!(mac(&before[1]), macs);
    assert!(docker(&["port", &before[0]]).must().stdout.contains(&port.to_string()));
    let name = docker(&["inspect", "-f", "{{.Name}}", &before[0]]).must().stdout;
    assert_eq!(name.trim(), format!("/netloom-{lab}-n1"));
    for (node, peer) in [("n1", "10.0.1.2"), ("n4", "10.0.3.1")] {
        in_node(&sandbox, &lab, node, &["ping", "-c", "1", "-W", "2", peer]).must();
    }
    let _ = child.wait();
}

fn a_mistyped_command_keeps_what_ran_before(mode: Mode) {
    let sandbox = Sandbox::start(mode);
    let lab = sandbox.lab("mistyped-cmd");
    let exec = "    n1:\n      exec: [\"sh -c 'echo ran >> /ran'\"]\n";
    let text = line(&lab, 3).replacen("    n1:\n", exec, 1);
    sandbox.deploy(&text);
    let of = |node: &str| container(&sandbox, &lab, node).unwrap();
    let before = ["n1", "n2", "n3"].map(of);
    in_container(&before[0], "echo mine > /mine");
    let with = |what: &str| text.replacen("    n1:\n", &format!("    n1:\n      {what}\n"), 1);
    let fails = || {
        let said = sandbox.try_deploy(&with("cmd: slep 1000000"));
        assert!(
            !said.ok() && said.stderr.contains("what ran before is kept (n1): deploy the former file"),
            "{}{}",
            said.stdout,
            said.stderr
        );
        assert_eq!(containers(&sandbox).1, 1);
    };
    fails();
    let node = sandbox.node_json(&lab, "n1");
    assert!(node["stateReason"].as_str().unwrap().contains("what ran before is kept"), "{node}");
    // As it was, it is the same.
    let said = sandbox.deploy(&text).stdout;
    assert!(said.contains("its former container comes back"), "{said}");
    assert_eq!(["n1", "n2", "n3"].map(of), before);
    assert_eq!(containers(&sandbox), (before.iter().cloned().collect(), 0));
    assert_eq!(in_container(&before[0], "cat /mine; wc -l < /ran"), "mine\n2");
    in_node(&sandbox, &lab, "n1", &["ping", "-c", "1", "-W", "2", "10.0.1.2"]).must();

    // Nothing is left of what works, nor of what is destroyed.
    sandbox.deploy(&with("env: {A: \"1\"}"));
    assert_eq!(containers(&sandbox).1, 0);
    assert!(!containers(&sandbox).0.contains(&before[0]));
    fails();
    sandbox.netloom(&["destroy", &lab, "--yes"]).must();
    eventually("nothing is left", BOUND, || {
        sandbox.leftovers().is_empty() && containers(&sandbox).0.is_empty()
    });
}

in_both_modes!(
    a_cancel_gives_back_the_very_containers,
    a_mistyped_command_keeps_what_ran_before,
    a_changed_file_is_written_where_it_is_mounted,
    a_mistyped_image_leaves_the_running_container,
    a_taken_port_or_subnet_leaves_the_running_containers,
    a_cancelled_recreation_leaves_the_container,
);
