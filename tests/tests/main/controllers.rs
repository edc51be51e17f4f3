//! Several controllers, of which one leads: what a user sees through any of them when the one that leads is killed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use netloom_service::testing::require;
use netloom_service::tls::Authority;
use netloom_tests::{Controllers, eventually, finish};
use nix::sys::signal::Signal;
use serde_json::Value;

const BOUND: Duration = Duration::from_secs(60);
/// How long the API may be without an answer.
const TAKEOVER: Duration = Duration::from_secs(5);
const NODES: usize = 12;

/// Two controllers, a deploy in the middle of which the leader's scheduler is killed, and a day's work after it.
#[test]
fn the_leader_is_killed_in_the_middle_of_a_deploy() {
    let test = "controllers::the_leader_is_killed_in_the_middle_of_a_deploy";
    if !crate::real(test) || !require(test, "postgres") || !require(test, "redis") {
        return;
    }
    let mut both = Controllers::start();
    assert!(both.logged(1, "netloom-scheduler").contains("this one stands by"), "the first one leads");

    eventually("both sign for hosts as one", BOUND, || {
        both.authority(0).contains("PRIVATE KEY") && both.authority(0) == both.authority(1)
    });

    let watch = Watching::start(&both, 1);
    let deploy = deploy(&both, "lab");

    // What Redis knew is no loss.
    assert_eq!(both.redis.ask(&["FLUSHALL"]).trim(), "OK");
    both.redis.kill();
    let begun = Instant::now();
    both.end(0, "netloom-scheduler", Signal::SIGKILL);
    for gateway in 0..2 {
        eventually("the other one leads", BOUND, || {
            both.get(gateway, "/v1/labs/lab").is_ok_and(|r| r.status == 200)
        });
    }
    let taken = begun.elapsed();
    eprintln!("answered again after {taken:?}");
    assert!(taken < TAKEOVER, "{taken:?}");

    ended_well(deploy);
    let labs: Vec<Value> = (0..2).map(|n| both.get(n, "/v1/labs/lab").expect("an answer").body).collect();
    assert_eq!(labs[0]["readyCount"], NODES, "{}", labs[0]);
    assert_eq!(labs[0]["uid"], labs[1]["uid"]);
    let made = instances(&both);
    assert_eq!(made.len(), NODES, "each once");
    assert!(made.values().all(|starts| *starts == 1), "and started once: {made:?}");

    // The watch that was begun before tells of every node after it, each number once.
    eventually("the watch tells of all nodes", BOUND, || watch.ready() == NODES);
    let numbers = watch.numbers();
    assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");

    both.redis.start_again();
    // The former leader comes back and stands by; when the present one is stopped it leads again.
    both.run(0, "netloom-scheduler");
    let stands_by = "this one stands by";
    eventually("it stands by", BOUND, || both.logged(0, "netloom-scheduler").contains(stands_by));
    let begun = Instant::now();
    both.end(1, "netloom-scheduler", Signal::SIGTERM);
    let ended = begun.elapsed();
    eventually("the first one leads again", BOUND, || {
        both.get(1, "/v1/labs/lab").is_ok_and(|r| r.status == 200)
    });
    eprintln!("stopped after {ended:?}, answered again after {:?}", begun.elapsed());

    // Images: pushed through one, seen through the other, also when the registry beside it is gone.
    let disk = both.path().join("disk.img");
    let mut bytes = vec![0; 3 << 20];
    bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
    std::fs::write(&disk, bytes).expect("a disk");
    let disk = disk.display().to_string();
    finish(&mut both.netloom(0, &["image", "push", &disk, "disk:1", "--content", "raw"]), None).must();
    both.end(0, "netloom-image-registry", Signal::SIGKILL);
    for gateway in 0..2 {
        let listed = finish(&mut both.netloom(gateway, &["image", "list"]), None).must().stdout;
        assert!(listed.contains("disk"), "{listed}");
    }
    finish(&mut both.netloom(0, &["destroy", "lab", "--yes"]), None).must();
    eventually("nothing is left", BOUND, || instances(&both).is_empty());
}

/// PostgreSQL goes down in the middle of a deploy, for a moment and for so long that nobody may lead any more: the deploy goes on when it is back, and makes each node once.
#[test]
fn postgresql_is_restarted_in_the_middle_of_a_deploy() {
    let test = "controllers::postgresql_is_restarted_in_the_middle_of_a_deploy";
    if !crate::real(test) || !require(test, "postgres") || !require(test, "redis") {
        return;
    }
    let mut both = Controllers::start();
    for (lab, outage) in [("short", Duration::from_secs(1)), ("long", Duration::from_secs(6))] {
        let mut deploy = deploy(&both, lab);
        both.postgres.kill();
        // Whoever ends for want of it is started again, as a service manager does.
        let begun = Instant::now();
        eventually("it is away for long enough", BOUND, || {
            both.run_again();
            begun.elapsed() > outage
        });
        both.postgres.start_again();
        let begun = Instant::now();
        eventually("the deploy is over", BOUND, || {
            both.run_again();
            deploy.try_wait().is_ok_and(|status| status.is_some())
        });
        eprintln!("away for {outage:?}: the deploy was over {:?} later", begun.elapsed());
        ended_well(deploy);
        for gateway in 0..2 {
            let shown = both.get(gateway, &format!("/v1/labs/{lab}")).expect("an answer").body;
            assert_eq!((&shown["readyCount"], &shown["operation"]), (&NODES.into(), &"".into()), "{shown}");
        }
        let made = instances(&both);
        assert_eq!(made.len(), NODES, "each once");
        assert!(made.values().all(|starts| *starts == 1), "and started once: {made:?}");
        let operations = both.get(0, "/v1/operations").expect("an answer").body;
        let states: Vec<&Value> =
            operations["operations"].as_array().expect("operations").iter().map(|o| &o["state"]).collect();
        assert!(states.iter().all(|state| **state == "OPERATION_STATE_SUCCEEDED"), "{operations}");
        finish(&mut both.netloom(1, &["destroy", lab, "--yes"]), None).must();
        eventually("nothing is left", BOUND, || instances(&both).is_empty());
    }
    for n in 0..2 {
        assert!(!both.logged(n, "netloom-scheduler").contains("panicked"));
    }
}

/// A leader that hangs keeps its sessions and its connections: nobody but who stands by sees that it does nothing any more.
#[test]
fn a_leader_that_hangs_loses_the_lead() {
    let test = "controllers::a_leader_that_hangs_loses_the_lead";
    if !crate::real(test) || !require(test, "postgres") || !require(test, "redis") {
        return;
    }
    let mut both = Controllers::start();
    assert!(both.logged(1, "netloom-scheduler").contains("this one stands by"), "the first one leads");
    let file = both.host.write(
        "lab.clab.yml",
        "name: lab\ntopology:\n  nodes:\n    n1:\n      kind: linux\n      image: sim:1\n",
    );
    let file = file.display().to_string();
    finish(&mut both.netloom(0, &["deploy", "-t", &file]), None).must();
    let begun = Instant::now();
    both.signal(0, "netloom-scheduler", Signal::SIGSTOP);
    for gateway in 0..2 {
        eventually("the other one leads", BOUND, || {
            both.get(gateway, "/v1/labs/lab").is_ok_and(|r| r.status == 200)
        });
    }
    let taken = begun.elapsed();
    eprintln!("a leader that hangs: answered again after {taken:?}");
    assert!(taken < TAKEOVER, "{taken:?}");
    assert!(both.logged(1, "netloom-scheduler").contains("the scheduler that leads hangs"));
    finish(&mut both.netloom(1, &["node", "restart", "lab", "n1"]), None).must();
    // It goes on, and finds that it leads no more, or that it does not know.
    both.signal(0, "netloom-scheduler", Signal::SIGCONT);
    both.until_ended(0, "netloom-scheduler");
    let said = both.logged(0, "netloom-scheduler");
    let why = ["another scheduler leads on the database now", "another scheduler may lead"];
    assert!(why.iter().any(|why| said.contains(why)), "{said}");
    assert_eq!(both.get(0, "/v1/labs/lab").expect("an answer").body["readyCount"], 1);
    finish(&mut both.netloom(0, &["destroy", "lab", "--yes"]), None).must();
}

/// Gateway and image registry of a controller may be there before its scheduler, which fetches the authority; and its file may be a wrong one.
#[test]
fn a_controller_waits_for_the_authority_and_takes_no_other_one() {
    let test = "controllers::a_controller_waits_for_the_authority_and_takes_no_other_one";
    if !crate::real(test) || !require(test, "postgres") || !require(test, "redis") {
        return;
    }
    let mut both = Controllers::start();
    let file = both.authority_file(1);
    for program in ["netloom-scheduler", "netloom-image-registry", "netloom-gateway"] {
        both.end(1, program, Signal::SIGTERM);
    }
    std::fs::remove_file(&file).expect("an authority");
    let answers = |both: &Controllers| both.get(1, "/v1/labs").is_ok_and(|r| r.status == 200);
    let said =
        |both: &Controllers| both.get(1, "/v1/labs").map_or_else(|e| e.to_string(), |r| r.body.to_string());

    let before = both.logged(1, "netloom-image-registry").len();
    both.run(1, "netloom-image-registry");
    both.run(1, "netloom-gateway");
    let waits = format!("there is no {} yet", file.display());
    eventually("whoever asks is told what is waited for", BOUND, || said(&both).contains(&waits));
    eventually("the log tells it", BOUND, || {
        both.logged(1, "netloom-image-registry")[before..].contains(&waits)
    });
    both.run(1, "netloom-scheduler");
    eventually("the gateway goes on by itself", BOUND, || answers(&both));
    eventually("it is the one authority", BOUND, || both.authority(0) == both.authority(1));

    both.end(1, "netloom-scheduler", Signal::SIGTERM);
    std::fs::write(&file, Authority::make().expect("an authority")).expect("a file");
    both.run(1, "netloom-scheduler");
    both.until_ended(1, "netloom-scheduler");
    let told = format!("the database keeps another authority than {}", file.display());
    assert!(both.logged(1, "netloom-scheduler").contains(&told));
    both.end(1, "netloom-gateway", Signal::SIGTERM);
    both.run(1, "netloom-gateway");
    eventually("a gateway tells it, too", BOUND, || said(&both).contains("is of another authority"));
    std::fs::remove_file(&file).expect("a file");
    both.run(1, "netloom-scheduler");
    eventually("it is fetched again, and the gateway goes on", BOUND, || answers(&both));

    // What leads now is killed: the one whose file was wrong goes on, and over TLS.
    both.end(0, "netloom-scheduler", Signal::SIGKILL);
    for gateway in 0..2 {
        eventually("the other one leads", BOUND, || {
            both.get(gateway, "/v1/labs").is_ok_and(|r| r.status == 200)
        });
    }
}

/// The compose file cannot be run here, where no image can be fetched: what it names has to be there.
#[test]
fn what_the_compose_files_name_is_there() {
    let compose = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/compose");
    let read =
        |name: &str| std::fs::read_to_string(compose.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    let programs = read("Dockerfile");
    for file in ["single.yml", "processes.yml", "cluster.yml"] {
        let text = read(file);
        for event in saphyr_parser::Parser::new_from_str(&text) {
            event.unwrap_or_else(|e| panic!("{file}: {e}"));
        }
        for line in text.lines().map(str::trim) {
            if let Some(program) = line.strip_prefix("command: netloom") {
                assert!(
                    programs.contains(&format!("/release/netloom{program} ")),
                    "{file}: netloom{program} is in the image"
                );
            }
            if let Some((mounted, _)) = line.strip_prefix("- ./").and_then(|rest| rest.split_once(':')) {
                assert!(compose.join(mounted).is_file(), "{file}: {mounted}");
            }
            if let Some(dockerfile) = line.strip_prefix("dockerfile: ") {
                assert!(compose.join("../..").join(dockerfile).is_file(), "{file}: {dockerfile}");
            }
        }
    }
    let copied = read("Dockerfile.host");
    assert!(copied.contains("COPY deploy/compose/host-machine "));
    let machine = compose.join("host-machine");
    assert!(Command::new("bash").arg("-n").arg(&machine).status().expect("bash").success());
    // A name of cluster.toml is a service of cluster.yml.
    let (names, services) = (read("cluster.toml"), read("cluster.yml"));
    for name in ["postgres", "redis", "scheduler1", "scheduler2", "registry1", "registry2"] {
        assert!(names.contains(name) && services.contains(&format!("\n  {name}:\n")), "{name}");
    }
}

/// Whoever names all gateways notices nothing when the one that is asked is killed: a deploy is followed to its end over the other one.
#[test]
fn a_gateway_is_killed_in_the_middle_of_a_deploy() {
    let test = "controllers::a_gateway_is_killed_in_the_middle_of_a_deploy";
    if !crate::real(test) || !require(test, "postgres") || !require(test, "redis") {
        return;
    }
    let mut both = Controllers::start();
    eventually("both gateways answer", BOUND, || {
        (0..2).all(|gateway| both.get(gateway, "/v1/labs").is_ok_and(|r| r.status == 200))
    });
    let deploy = deploy_by(&both, &[1, 0], "lab");
    both.end(1, "netloom-gateway", Signal::SIGKILL);
    ended_well(deploy);
    let made = instances(&both);
    assert!(made.len() == NODES && made.values().all(|starts| *starts == 1), "each once: {made:?}");
    // One that does not answer is passed over, wherever it is named; when none does all are told.
    let shown = finish(&mut both.netloom_of(&[1, 0], &["inspect", "lab"]), None).must().stdout;
    assert!(shown.contains("n12"), "{shown}");
    finish(&mut both.netloom_of(&[1, 0], &["destroy", "lab", "--yes"]), None).must();
    both.end(0, "netloom-gateway", Signal::SIGKILL);
    let told = finish(&mut both.netloom_of(&[1, 0], &["inspect"]), None);
    let sockets = [0, 1].map(|gateway| both.socket(gateway).display().to_string());
    assert!(!told.ok() && sockets.iter().all(|socket| told.stderr.contains(socket)), "{}", told.stderr);
}

/// Begins to deploy a lab through the second gateway, and is in the middle of it.
fn deploy(both: &Controllers, lab: &str) -> Child {
    deploy_by(both, &[1], lab)
}

/// The same through any of these gateways.
fn deploy_by(both: &Controllers, gateways: &[usize], lab: &str) -> Child {
    let mut text = format!(
        "name: {lab}\ntopology:\n  defaults:\n    kind: linux\n    image: sim:1\n    labels: {{sim.create-ms: '250'}}\n  nodes:\n"
    );
    (1..=NODES).for_each(|n| text += &format!("    n{n}:\n"));
    let file = both.host.write(&format!("{lab}.clab.yml"), &text).display().to_string();
    let mut command = both.netloom_of(gateways, &["deploy", "-t", &file]);
    let mut deploy = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("netloom starts");
    let mut is_over = || deploy.try_wait().is_ok_and(|status| status.is_some());
    eventually("some nodes are made", BOUND, || (1..NODES).contains(&instances(both).len()) || is_over());
    assert!(!is_over(), "the deploy goes on");
    deploy
}

fn ended_well(deploy: Child) {
    let said = deploy.wait_with_output().expect("netloom ends");
    let told = [said.stdout, said.stderr].concat();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&told));
}

/// Instances by node, and how often each was started.
fn instances(both: &Controllers) -> BTreeMap<String, u64> {
    let all = both.instances();
    let each = all.as_object().into_iter().flatten();
    each.map(|(id, i)| (id.clone(), i["starts"].as_u64().unwrap_or_default())).collect()
}

/// A watch of everything through one of the gateways.
struct Watching {
    curl: Child,
    file: std::path::PathBuf,
}

impl Watching {
    fn start(both: &Controllers, controller: usize) -> Watching {
        let file = both.path().join("watching.ndjson");
        let curl = Command::new("curl")
            .args(["-sN", "--unix-socket"])
            .arg(both.socket(controller))
            .arg("http://localhost/v1/labs:watch")
            .stdout(File::create(&file).expect("a file"))
            .spawn()
            .expect("curl");
        let watching = Watching { curl, file };
        eventually("the snapshot is complete", BOUND, || {
            watching.events().iter().any(|e| e["type"] == "WATCH_EVENT_TYPE_SNAPSHOT_END")
        });
        watching
    }

    fn events(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.file).unwrap_or_default();
        text.lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .map(|v| v["result"].clone())
            .collect()
    }

    /// How many nodes were told of as ready.
    fn ready(&self) -> usize {
        let ready = |e: &&Value| e["node"]["state"] == "NODE_STATE_READY";
        self.events()
            .iter()
            .filter(ready)
            .map(|e| e["node"]["name"].to_string())
            .collect::<BTreeSet<_>>()
            .len()
    }

    /// The numbers of changes.
    fn numbers(&self) -> Vec<u64> {
        let is_change = |e: &&Value| {
            ["WATCH_EVENT_TYPE_CHANGED", "WATCH_EVENT_TYPE_DELETED"].iter().any(|t| e["type"] == **t)
        };
        let number = |e: &Value| e["sequence"].as_str().and_then(|n| n.parse().ok()).expect("a number");
        self.events().iter().filter(is_change).map(number).collect()
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.curl.kill();
        let _ = self.curl.wait();
    }
}
