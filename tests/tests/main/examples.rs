//! Every example is valid, deploys, does what its `# check:` lines say and leaves nothing behind.
//!
//! One that says `# needs: netem` is refused where the kernel lacks that, and the refusal names it. One that says `# needs: libvirt` has a test of its own.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use netloom_tests::docs::{Session, check_lines};
use netloom_tests::{Mode, Sandbox, docker, run_with_input};

use super::docs::root;

/// How many are tried at a time: more is no faster on two cores.
const AT_A_TIME: usize = 2;

/// Longest time for one line of a check to become true: routing protocols converge.
const WITHIN: Duration = Duration::from_secs(60);

/// The files, by name.
fn examples() -> Vec<String> {
    let entries = std::fs::read_dir(root().join("examples")).expect("examples").flatten();
    let mut names: Vec<String> = entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.retain(|n| n.ends_with(".clab.yml"));
    names.sort();
    names
}

#[test]
fn every_example_has_a_name_of_its_own_and_says_how_to_see_that_it_works() {
    let mut labs = BTreeSet::new();
    for file in examples() {
        let text = std::fs::read_to_string(root().join("examples").join(&file)).expect("an example");
        let name = text.lines().find_map(|l| l.strip_prefix("name:")).expect("a name").trim();
        assert_eq!(format!("{name}.clab.yml"), file, "a lab is called as its file");
        assert!(labs.insert(name.to_owned()));
        if let Err(why) = check_lines(&text) {
            panic!("examples/{file}: {why}");
        }
    }
    assert!(!labs.is_empty());
}

#[test]
fn every_example_works() {
    if !crate::real("main::examples::every_example_works") {
        return;
    }
    let sandbox = Sandbox::start(Mode::One);
    let todo = Mutex::new(examples());
    let failed = Mutex::new(Vec::new());
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| stand_in_for_management_bridges(&sandbox, &done));
        let mut workers = Vec::new();
        for worker in 0..AT_A_TIME {
            let (sandbox, todo, failed) = (&sandbox, &todo, &failed);
            workers.push(scope.spawn(move || {
                // A directory each: what one writes is not the other's.
                let session = Session::open(sandbox, &root(), &format!("work{worker}"));
                let next = || todo.lock().expect("no holder panics").pop();
                while let Some(file) = next() {
                    let begin = Instant::now();
                    let outcome = try_one(&session, &file);
                    println!("{file}: {} s", begin.elapsed().as_secs());
                    if let Err(why) = outcome {
                        failed.lock().expect("no holder panics").push(why);
                    }
                }
            }));
        }
        for worker in workers {
            let _ = worker.join();
        }
        done.store(true, Ordering::Relaxed);
    });
    let failed = failed.into_inner().expect("no holder panics");
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
    assert_eq!(sandbox.leftovers(), Vec::<String>::new());
}

/// Docker's bridges are in the machine's network namespace, and the sandbox's netloom is in another: bridges of the same names stand in for them there.
fn stand_in_for_management_bridges(sandbox: &Sandbox, done: &AtomicBool) {
    let owner = format!("label=netloom.owner={}", sandbox.owner());
    let name = "{{index .Options \"com.docker.network.bridge.name\"}}";
    while !done.load(Ordering::Relaxed) {
        let networks = docker(&["network", "ls", "-q", "--filter", &owner]).stdout;
        for network in networks.split_whitespace() {
            let bridge = docker(&["network", "inspect", "-f", name, network]).stdout.trim().to_owned();
            if !bridge.is_empty() {
                let mut add = sandbox.in_namespace("ip");
                let _ = run_with_input(add.args(["link", "add", &bridge, "up", "type", "bridge"]), "");
            }
        }
        std::thread::sleep(Duration::from_millis(300));
    }
}

fn try_one(session: &Session, file: &str) -> Result<(), String> {
    let path = format!("examples/{file}");
    let text = std::fs::read_to_string(root().join(&path)).map_err(|e| format!("{path}: {e}"))?;
    let checks = check_lines(&text).map_err(|e| format!("{path}: {e}"))?;
    session.say(&format!("netloom validate {path}"))?;
    if text.contains("# needs: libvirt\n") {
        return Ok(());
    }
    if text.contains("# needs: netem\n")
        && session.say("tc qdisc replace dev lo root netem delay 1us").is_err()
    {
        return match session.say(&format!("netloom deploy -t {path}")) {
            Err(why) if why.contains("IMPAIRMENT_NOT_SUPPORTED") && why.contains("delay") => Ok(()),
            other => Err(format!("{path}: the kernel has no netem, and that is not what is said: {other:?}")),
        };
    }
    let tried = session
        .say(&format!("netloom deploy -t {path}"))
        .and_then(|_| session.steps(&path, &checks, Some(WITHIN), 0))
        .and_then(|()| {
            let again = session.say(&format!("netloom deploy -t {path}"))?.join("\n");
            let idle = again.to_lowercase().contains("nothing to do");
            if idle { Ok(()) } else { Err(format!("{path}: deployed again, it says:\n{again}")) }
        });
    let destroyed = session.say(&format!("netloom destroy -t {path} --yes"));
    tried.and(destroyed.map(|_| ()))
}
