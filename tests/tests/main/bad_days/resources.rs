//! No room on the disk, and no descriptors left.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use netloom_tests::{Mode, Sandbox, eventually, run};

use super::{BOUND, Running, in_memory, is_as_asked, is_gone};
use crate::line;

/// A file that takes all the room there is.
fn fill(path: &std::path::Path) {
    let mut file = File::create(path).expect("a file");
    for size in [1 << 16, 1 << 12, 1] {
        let block = vec![0u8; size];
        while file.write_all(&block).is_ok() {}
    }
    // What is written is on it, not in a cache that hides the end.
    let _ = file.sync_all();
}

fn a_full_disk(mode: Mode) {
    let sandbox = Sandbox::prepare(mode, "");
    let data = sandbox.data_dir();
    in_memory(&sandbox, "6m");
    sandbox.run_programs();
    sandbox.wait_until_healthy();
    let (lab, next) = (sandbox.lab("before"), sandbox.lab("full"));
    sandbox.deploy(&line(&lab, 2));
    let filler = data.join("filler");
    fill(&filler);

    // Asked again and again it says what is wrong; nothing is half done.
    let refused = |text: &str| text.contains("full") || text.contains("No space left");
    for _ in 0..3 {
        let said = sandbox.try_deploy(&line(&next, 3));
        let text = said.stdout + &said.stderr;
        assert!(said.code > 0 && refused(&text), "{text}");
        assert!(text.contains("disk"), "{text}");
    }
    assert_eq!(sandbox.get(&format!("/v1/labs/{next}")).unwrap().status, 404);
    let said = sandbox.netloom(&["destroy", &lab, "--yes"]);
    assert!(said.code > 0 && refused(&said.stderr), "{}", said.stderr);
    // What was there is there, and is seen.
    sandbox.wait_ready(&lab, 2, 1, BOUND);
    assert!(sandbox.netloom(&["inspect", &lab]).must().stdout.contains("n2"));

    // Killed and started on the full disk, it loses no row: at the latest when there is room.
    sandbox.crash();
    sandbox.run_programs();
    std::thread::sleep(Duration::from_secs(1));
    std::fs::remove_file(&filler).unwrap();
    // One that is slow to begin may still end for want of room.
    eventually("it answers when there is room", BOUND, || {
        sandbox.revive();
        sandbox.get("/v1/hosts/local").is_ok_and(|r| r.body["state"] == "HOST_STATE_ONLINE")
    });
    is_as_asked(&sandbox, &lab, 2, 1);
    sandbox.deploy(&line(&next, 3));
    sandbox.wait_ready(&next, 3, 2, BOUND);
    is_gone_all(&sandbox, &[&lab, &next]);
    assert!(!sandbox.logs().contains("panicked"), "something panicked");
}

/// Nodes of a deploy that is under way, so many that it can be met in the middle.
const MANY: usize = 16;

/// Containers of the sandbox's.
fn containers(sandbox: &Sandbox) -> usize {
    let owner = format!("label=netloom.owner={}", sandbox.owner());
    sandbox.docker(&["ps", "-aq", "--filter", &owner]).must().stdout.split_whitespace().count()
}

fn a_disk_that_fills_in_the_middle_of_a_deploy(mode: Mode) {
    let sandbox = Sandbox::prepare(mode, "");
    let filler = sandbox.data_dir().join("filler");
    in_memory(&sandbox, "6m");
    sandbox.run_programs();
    sandbox.wait_until_healthy();
    let lab = sandbox.lab("filling");
    let file = sandbox.write("filling.clab.yml", &line(&lab, MANY)).display().to_string();
    let mut deploy = Running::start(&sandbox, &["deploy", "-t", &file]);
    eventually("some nodes are made", BOUND, || containers(&sandbox) > 0);
    fill(&filler);
    assert_eq!(deploy.has_ended(), None, "it was met in the middle");
    // Whatever is told of it meanwhile: with room again all is as asked, by itself.
    std::thread::sleep(Duration::from_secs(2));
    std::fs::remove_file(&filler).unwrap();
    eventually("it answers when there is room", BOUND, || {
        sandbox.revive();
        sandbox.get("/v1/hosts/local").is_ok_and(|r| r.body["state"] == "HOST_STATE_ONLINE")
    });
    deploy.ends();
    is_as_asked(&sandbox, &lab, MANY, MANY - 1);
    is_gone(&sandbox, &lab);
    assert!(!sandbox.logs().contains("panicked"), "something panicked");
}

fn is_gone_all(sandbox: &Sandbox, labs: &[&str]) {
    for lab in labs {
        sandbox.netloom(&["destroy", lab, "--yes"]).must();
    }
    eventually("nothing is left", BOUND, || sandbox.leftovers().is_empty());
}

/// Lets these programs have so many descriptors more than they have open.
fn limit(pids: &[u32], more: usize) {
    for pid in pids {
        let open = std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
        run("prlimit", &["--pid", &pid.to_string(), &format!("--nofile={}:", open + more)]).must();
    }
}

fn unlimited(pids: &[u32]) {
    for pid in pids {
        run("prlimit", &["--pid", &pid.to_string(), "--nofile=1024:"]).must();
    }
}

fn no_descriptors_left(mode: Mode) {
    let sandbox = Sandbox::start(mode);
    let (lab, next) = (sandbox.lab("before"), sandbox.lab("without"));
    sandbox.deploy(&line(&lab, 2));
    let pids = sandbox.pids();
    for more in [0, 2, 4, 8] {
        limit(&pids, more);
        // Those who hold what there is: as many connections as it takes.
        let held: Vec<UnixStream> =
            (0..64).filter_map(|_| UnixStream::connect(sandbox.socket()).ok()).collect();
        let mut command = std::process::Command::new("timeout");
        let netloom = netloom_tests::binaries().join("netloom");
        let file = sandbox.write("next.clab.yml", &line(&next, 3)).display().to_string();
        command
            .arg("5")
            .arg(netloom)
            .env("NETLOOM_ENDPOINT", format!("unix:{}", sandbox.socket().display()))
            .args(["deploy", "-t", &file]);
        let asked = netloom_tests::run_with_input(&mut command, "");
        let text = asked.stdout + &asked.stderr;
        assert!(!text.contains("panicked"), "{text}");
        drop(held);
        unlimited(&pids);
        sandbox.wait_until_healthy();
        assert!(!sandbox.has_died(), "with {more} descriptors left: a program ended\n{text}");
        // It is as ever: what was there is, and what was asked for meanwhile comes about when it is asked for.
        sandbox.wait_ready(&lab, 2, 1, BOUND);
        eventually("nothing is under way", BOUND, || {
            sandbox.lab_json(&next)["operation"].as_str().unwrap_or_default().is_empty()
        });
        sandbox.deploy(&line(&next, 3));
        sandbox.wait_ready(&next, 3, 2, BOUND);
        sandbox.netloom(&["destroy", &next, "--yes"]).must();
        is_as_asked(&sandbox, &lab, 2, 1);
    }
    assert!(!sandbox.logs().contains("panicked"), "something panicked");
    is_gone(&sandbox, &lab);
}

/// The programs that carry a deploy out have none any more in its middle: it stops where it is, and goes on when they have some again.
#[test]
fn no_descriptors_left_while_a_deploy_is_under_way() {
    if !crate::real("no_descriptors_left_while_a_deploy_is_under_way") {
        return;
    }
    const NODES: usize = 8;
    let sandbox = Sandbox::start(Mode::Five);
    let (lab, next) = (sandbox.lab("before"), sandbox.lab("during"));
    sandbox.deploy(&line(&lab, 2));
    let pids = ["netloom-compute", "netloom-network", "netloom-scheduler"].map(|name| sandbox.pid(name));
    for more in [0, 2, 4, 8] {
        let file = sandbox.write("next.clab.yml", &line(&next, NODES)).display().to_string();
        let mut running = Running::start(&sandbox, &["deploy", "-t", &file]);
        // Not before: who cannot reach Docker is no host for it.
        eventually("it is under way, or over", BOUND, || {
            sandbox.lab_json(&next)["operation"].is_string() || running.has_ended().is_some()
        });
        limit(&pids, more);
        // Long enough for more than one attempt.
        std::thread::sleep(Duration::from_secs(2));
        eprintln!("with {more} descriptors left: ended {:?} after two seconds", running.has_ended());
        unlimited(&pids);
        running.ends_well();
        assert!(!sandbox.has_died(), "with {more} descriptors left: a program ended");
        sandbox.wait_ready(&next, NODES as u64, NODES as u64 - 1, BOUND);
        sandbox.netloom(&["destroy", &next, "--yes"]).must();
        is_as_asked(&sandbox, &lab, 2, 1);
    }
    assert!(sandbox.logs().contains("Too many open files"), "no limit was met");
    assert!(!sandbox.logs().contains("panicked"), "something panicked");
    is_gone(&sandbox, &lab);
}

in_both_modes!(a_full_disk, a_disk_that_fills_in_the_middle_of_a_deploy, no_descriptors_left);
