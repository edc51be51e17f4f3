//! Deploying again: nothing to do is nothing done, and a change touches only what changed.

use std::time::Duration;

use netloom_tests::{Mode, Sandbox, container, in_node, pid_of};

use crate::{IMAGE, line};

fn again_and_changed(mode: Mode) {
    let sandbox = Sandbox::start(mode);
    let lab = sandbox.lab("change");
    let text = line(&lab, 3);
    sandbox.deploy(&text);
    sandbox.wait_ready(&lab, 3, 2, Duration::from_secs(30));
    let ids = || ["n1", "n2", "n3"].map(|n| (container(&sandbox, &lab, n), pid_of(&sandbox, &lab, n)));
    let before = ids();
    let generation = sandbox.lab_json(&lab)["generation"].clone();

    let said = sandbox.deploy(&text);
    assert!(said.stdout.to_lowercase().contains("nothing to do"), "{}", said.stdout);
    assert_eq!(ids(), before, "an unchanged file touches nothing");
    assert_eq!(sandbox.lab_json(&lab)["generation"], generation);

    // A new environment recreates one node, and only it; its links come back.
    let changed = text.replacen("    n2:\n", "    n2:\n      env: {A: \"1\"}\n", 1);
    let plan = sandbox
        .netloom(&["plan", "-t", &sandbox.write("changed.clab.yml", &changed).display().to_string()])
        .must();
    assert!(plan.stdout.contains("n2") && !plan.stdout.contains(" n3"), "{}", plan.stdout);
    assert_eq!(ids(), before, "a plan touches nothing");
    sandbox.deploy(&changed);
    sandbox.wait_ready(&lab, 3, 2, Duration::from_secs(30));
    let after = ids();
    assert_eq!((&after[0], &after[2]), (&before[0], &before[2]));
    assert_ne!(after[1], before[1]);
    in_node(&sandbox, &lab, "n1", &["ping", "-c", "1", "-W", "2", "10.0.1.2"]).must();

    // A link more restarts nobody.
    let linked = changed.clone() + "    - endpoints: [\"n1:eth5\", \"n3:eth5\"]\n";
    sandbox.deploy(&linked);
    sandbox.wait_ready(&lab, 3, 3, Duration::from_secs(30));
    assert_eq!(ids(), after, "a changed link never restarts a node");
    assert!(in_node(&sandbox, &lab, "n1", &["ip", "link", "show", "eth5"]).ok());

    // A bridge more, too.
    let bridged = linked.replacen("    n2:\n", "    sw: {kind: bridge}\n    n2:\n", 1)
        + "    - endpoints: [\"n1:eth6\", \"sw:p1\"]\n";
    sandbox.deploy(&bridged);
    sandbox.wait_ready(&lab, 4, 4, Duration::from_secs(30));
    assert_eq!(ids(), after);

    // And links and nodes less.
    let smaller = line(&lab, 2).replacen("    n2:\n", "    n2:\n      env: {A: \"1\"}\n", 1);
    sandbox.deploy(&smaller);
    sandbox.wait_ready(&lab, 2, 1, Duration::from_secs(30));
    assert_eq!(container(&sandbox, &lab, "n3"), None);
    assert!(
        !in_node(&sandbox, &lab, "n1", &["ip", "link", "show", "eth5"]).ok(),
        "its interface went with the link"
    );
    assert_eq!(ids()[0], before[0]);

    sandbox.netloom(&["destroy", &lab, "--yes"]).must();
    assert_eq!(sandbox.leftovers(), Vec::<String>::new());
    assert_eq!(sandbox.get(&format!("/v1/labs/{lab}")).unwrap().status, 404);
}

fn what_does_not_fit_is_named_and_starts_when_room_appears(mode: Mode) {
    let sandbox = Sandbox::start_with(mode, "[scheduler]\ncpu_overcommit = 0.06\n");
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let room = cores * 60 / 50;
    let first = sandbox.lab("room");
    sandbox.deploy(&line(&first, room));
    let second = sandbox.lab("wait");
    let text = format!("name: {second}\ntopology:\n  nodes:\n    late: {{kind: linux, image: {IMAGE}}}\n");
    let said = sandbox.try_deploy(&text);
    assert!(!said.ok());
    assert!((said.stdout + &said.stderr).contains("CPU"), "the missing resource is named");
    let node = sandbox.node_json(&second, "late");
    assert_eq!(node["state"], "NODE_STATE_UNSCHEDULABLE");
    assert_eq!(node["rejections"][0]["code"], "INSUFFICIENT_CPU", "{node}");
    sandbox.netloom(&["destroy", &first, "--yes"]).must();
    sandbox.wait_ready(&second, 1, 0, Duration::from_secs(30));
}

in_both_modes!(what_does_not_fit_is_named_and_starts_when_room_appears, again_and_changed);
