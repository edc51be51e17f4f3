//! Deploys that meet each other, programs that end at once, and images that go away.

use std::process::Command;
use std::time::Duration;

use netloom_tests::{Mode, Sandbox, container, docker, eventually, run, run_with_input};

use super::{BOUND, Running, is_as_asked, is_gone};
use crate::{IMAGE, line};

fn deploys_of_one_lab_at_once(mode: Mode) {
    let sandbox = Sandbox::start(mode);
    let lab = sandbox.lab("at-once");
    for round in 0..3 {
        // All of these are right, and they want different things.
        let files: Vec<String> = (2..=5)
            .map(|nodes| {
                sandbox.write(&format!("{nodes}.clab.yml"), &line(&lab, nodes)).display().to_string()
            })
            .collect();
        let deploys: Vec<Running> = files
            .iter()
            .enumerate()
            .map(|(i, file)| Running::start_as(&sandbox, &format!("deploy-{i}"), &["deploy", "-t", file]))
            .collect();
        let mut won = Vec::new();
        for (i, deploy) in deploys.into_iter().enumerate() {
            let code = deploy.ends();
            let said = std::fs::read_to_string(sandbox.path().join(format!("deploy-{i}.log"))).unwrap();
            match code {
                0 => won.push(i + 2),
                _ => assert!(
                    said.contains("OPERATION_ACTIVE") && said.contains("operation "),
                    "{code}: {said}"
                ),
            }
        }
        assert!(!won.is_empty(), "round {round}: somebody has to win");
        let nodes = sandbox.lab_json(&lab)["nodeCount"].as_u64().expect("a lab") as usize;
        assert!(
            won.contains(&nodes),
            "round {round}: {nodes} nodes, and {won:?} were told that they had won"
        );
        is_as_asked(&sandbox, &lab, nodes, nodes - 1);
    }
    is_gone(&sandbox, &lab);
}

fn a_node_that_ends_at_once(mode: Mode) {
    let sandbox = Sandbox::start(mode);
    let lab = sandbox.lab("ends");
    let bad = line(&lab, 3).replacen("    n2:\n", "    n2: {cmd: \"sh -c 'exit 7'\"}\n", 1);
    // A deploy is not done well because it ran for a moment.
    for cmd in ["exit 7", "sleep 0.02; exit 7"] {
        let said = sandbox.try_deploy(&bad.replace("exit 7", cmd));
        let text = said.stdout.clone() + &said.stderr;
        assert!(!said.ok() && text.contains("n2: FAILED: exited with 7"), "{cmd}: {text}");
        // Each of its ends but the last was followed by a restart.
        let node = sandbox.node_json(&lab, "n2");
        assert!(node["restartCount"].as_u64().is_some_and(|n| n >= 3), "{node}");
    }
    eventually("its end is told", BOUND, || {
        let node = sandbox.node_json(&lab, "n2");
        node["state"] != "NODE_STATE_READY"
            && node["stateReason"].as_str().is_some_and(|why| why.contains("exited with 7"))
    });
    // The others are not held up by it, and it is tried again ever more seldom.
    for node in ["n1", "n3"] {
        eventually("the others are ready", BOUND, || {
            sandbox.node_json(&lab, node)["state"] == "NODE_STATE_READY"
        });
    }
    let restarts = || sandbox.node_json(&lab, "n2")["restartCount"].as_u64().unwrap_or_default();
    eventually("it is started again", BOUND, || restarts() >= 1);
    let before = restarts();
    std::thread::sleep(Duration::from_secs(3));
    assert!(restarts() - before <= 3, "{} restarts within 3 s", restarts() - before);
    // Put right, it comes up, and nothing of the earlier one is left.
    sandbox.deploy(&line(&lab, 3));
    is_as_asked(&sandbox, &lab, 3, 2);
    // One that ends like that while it is removed is gone all the same.
    sandbox.try_deploy(&bad);
    is_gone(&sandbox, &lab);
}

/// An image of a test's own name, gone with the test.
struct Image(String);

impl Image {
    /// One with bytes of its own.
    fn build(name: String) -> Image {
        let of = format!("FROM {IMAGE}\nENV OF={name}\n");
        run_with_input(Command::new("docker").args(["build", "--quiet", "--tag", &name, "-"]), &of).must();
        Image(name)
    }

    fn tag(name: String) -> Image {
        docker(&["tag", IMAGE, &name]).must();
        Image(name)
    }

    fn remove(&self) {
        docker(&["rmi", "-f", &self.0]).must();
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        run("docker", &["rmi", "-f", &self.0]);
    }
}

fn an_image_that_is_removed_meanwhile(mode: Mode) {
    let sandbox = Sandbox::start(mode);
    let lab = sandbox.lab("image");
    let image = Image::build(format!("netloom/{}:mine", sandbox.bridge()));
    let id = docker(&["image", "inspect", "--format", "{{.Id}}", &image.0]).must().stdout.trim().to_owned();
    let saved = sandbox.path().join("image.tar").display().to_string();
    docker(&["save", "--output", &saved, &image.0]).must();
    let text = line(&lab, 2).replacen("    n2:\n", &format!("    n2: {{image: \"{}\"}}\n", image.0), 1);
    sandbox.deploy(&text);
    let n2 = || container(&sandbox, &lab, "n2").unwrap();
    // What runs needs it no more, and what is made anew not its name.
    image.remove();
    is_as_asked(&sandbox, &lab, 2, 1);
    docker(&["restart", "-t", "0", &n2()]).must();
    is_as_asked(&sandbox, &lab, 2, 1);
    let first = n2();
    docker(&["rm", "-f", &first]).must();
    eventually("it is made anew", BOUND, || container(&sandbox, &lab, "n2").is_some_and(|id| id != first));
    is_as_asked(&sandbox, &lab, 2, 1);
    // Without its bytes it cannot come back, and says which it needs, until they are there again.
    docker(&["kill", &n2()]).must();
    docker(&["rmi", "-f", &id]).must();
    docker(&["rm", "-f", &n2()]).must();
    eventually("the missing image is told", BOUND, || {
        let node = sandbox.node_json(&lab, "n2");
        node["stateReason"].as_str().is_some_and(|why| why.contains(&id))
            && node["state"] != "NODE_STATE_READY"
    });
    assert_eq!(sandbox.node_json(&lab, "n1")["state"], "NODE_STATE_READY");
    docker(&["load", "--input", &saved]).must();
    is_as_asked(&sandbox, &lab, 2, 1);
    is_gone(&sandbox, &lab);
}

/// What was judged is what runs: the name may go while its nodes are being made.
fn an_image_whose_name_goes_in_the_middle_of_a_deploy(mode: Mode) {
    const NODES: usize = 16;
    let sandbox = Sandbox::start(mode);
    let lab = sandbox.lab("nameless");
    let image = Image::tag(format!("netloom/{}:going", sandbox.bridge()));
    let text = line(&lab, NODES).replace(IMAGE, &image.0);
    let file = sandbox.write("nameless.clab.yml", &text).display().to_string();
    let mut deploy = Running::start(&sandbox, &["deploy", "-t", &file]);
    let owner = format!("label=netloom.owner={}", sandbox.owner());
    let made = || sandbox.docker(&["ps", "-aq", "--filter", &owner]).must().stdout.lines().count();
    eventually("some nodes are made", BOUND, || made() > 0);
    image.remove();
    assert_eq!(deploy.has_ended(), None, "it was met in the middle");
    deploy.ends_well();
    is_as_asked(&sandbox, &lab, NODES, NODES - 1);
    is_gone(&sandbox, &lab);
}

in_both_modes!(
    deploys_of_one_lab_at_once,
    a_node_that_ends_at_once,
    an_image_that_is_removed_meanwhile,
    an_image_whose_name_goes_in_the_middle_of_a_deploy
);
