//! A backup is put back, as docs/operations.md tells: what it says is brought about again, and what it does not know is nobody's.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use netloom_service::testing::{postgres, require};
use netloom_tests::{Controllers, Mode, Sandbox, container, eventually, finish, in_node};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::line;

const BOUND: Duration = Duration::from_secs(90);

/// Ends the programs as `systemctl stop` does.
fn stop(sandbox: &Sandbox) {
    for pid in sandbox.pids() {
        kill(Pid::from_raw(pid.cast_signed()), Signal::SIGTERM).expect("a signal");
    }
    eventually("all have ended", BOUND, || sandbox.have_ended());
    sandbox.crash();
}

fn copy(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(copied.is_ok_and(|status| status.success()), "{} is copied", from.display());
}

fn what_is_put_back_is_brought_about_again(mode: Mode) {
    let sandbox = Sandbox::start(mode);
    let (kept, later) = (sandbox.lab("kept"), sandbox.lab("later"));
    sandbox.deploy(&line(&kept, 3));
    sandbox.netloom(&["node", "stop", &kept, "n3"]).must();
    let ids =
        |lab: &str, nodes: &[&str]| nodes.iter().map(|n| container(&sandbox, lab, n)).collect::<Vec<_>>();
    let before = ids(&kept, &["n1", "n2"]);
    let backup = sandbox.path().join("backup");
    stop(&sandbox);
    copy(&sandbox.data_dir(), &backup);
    sandbox.run_programs();
    sandbox.wait_until_healthy();

    // What is done from then on is not in it.
    sandbox.netloom(&["link", "down", &kept, "n1:eth2"]).must();
    sandbox.netloom(&["node", "start", &kept, "n3"]).must();
    sandbox.netloom(&["node", "stop", &kept, "n2"]).must();
    sandbox.deploy(&line(&later, 1));
    let stranger = container(&sandbox, &later, "n1").expect("it is there");
    stop(&sandbox);
    copy(&backup, &sandbox.data_dir());
    sandbox.run_programs();
    sandbox.wait_until_healthy();

    let state = |node: &str| sandbox.node_json(&kept, node)["state"].clone();
    eventually("all is as it was then", BOUND, || {
        [state("n1"), state("n2"), state("n3")]
            == ["NODE_STATE_READY", "NODE_STATE_READY", "NODE_STATE_STOPPED"]
            && sandbox.lab_json(&kept)["upLinkCount"] == 1
    });
    assert_eq!(ids(&kept, &["n1", "n2"]), before, "in the same containers");
    assert!(in_node(&sandbox, &kept, "n1", &["ping", "-c", "1", "-W", "2", "10.0.1.2"]).ok());

    // What it does not know it leaves alone; its label tells whose it was.
    let unknown = sandbox.netloom(&["inspect", &later]);
    assert!(!unknown.ok() && unknown.stderr.contains("LAB_NOT_FOUND"), "{}", unknown.stderr);
    let of_later = format!("label=netloom.lab={later}");
    let found = sandbox.docker(&["ps", "-q", "--no-trunc", "--filter", &of_later]).must().stdout;
    assert_eq!(found.trim(), stranger, "it runs on");
    sandbox.docker(&["rm", "-f", "-v", found.trim()]).must();
    sandbox.netloom(&["destroy", &kept, "--yes"]).must();
    assert_eq!(sandbox.leftovers(), Vec::<String>::new());
}

in_both_modes!(what_is_put_back_is_brought_about_again);

/// Two controllers, whose databases are written down and read again by the means of PostgreSQL.
#[test]
fn databases_of_several_controllers_are_put_back() {
    let test = "backup::databases_of_several_controllers_are_put_back";
    if !crate::real(test) || !require(test, "postgres") || !require(test, "redis") {
        return;
    }
    let mut both = Controllers::start();
    let netloom = |both: &Controllers, args: &[&str]| finish(&mut both.netloom(1, args), None);
    let deploy = |both: &Controllers, lab: &str| {
        let text = format!("name: {lab}\ntopology:\n  nodes:\n    n1: {{kind: linux, image: 'sim:1'}}\n");
        let file = both.host.write(&format!("{lab}.clab.yml"), &text).display().to_string();
        netloom(both, &["deploy", "-t", &file]).must();
    };
    deploy(&both, "kept");
    let uid = |both: &Controllers| both.get(0, "/v1/labs/kept").expect("an answer").body["uid"].clone();
    let before = uid(&both);
    let url = both.postgres.url();
    let urls = [url.clone(), url.replace("/postgres", "/images")];
    let dumps = [both.path().join("scheduler.dump"), both.path().join("images.dump")];
    let run = |program: &str, args: &[&str]| {
        let program = postgres::programs().expect("they are there").join(program);
        finish(Command::new(program).args(args), None).must();
    };
    for (url, dump) in urls.iter().zip(&dumps) {
        run("pg_dump", &["--format=custom", "--file", &dump.display().to_string(), url]);
    }

    netloom(&both, &["destroy", "kept", "--yes"]).must();
    deploy(&both, "later");
    for n in 0..2 {
        for program in ["netloom-gateway", "netloom-image-registry", "netloom-scheduler"] {
            both.end(n, program, Signal::SIGTERM);
        }
    }
    for (url, dump) in urls.iter().zip(&dumps) {
        run("pg_restore", &["--clean", "--if-exists", "--dbname", url, &dump.display().to_string()]);
    }
    for n in 0..2 {
        for program in ["netloom-scheduler", "netloom-image-registry", "netloom-gateway"] {
            both.run(n, program);
        }
    }
    eventually("what was deployed then is there again", BOUND, || {
        (0..2).all(|n| both.get(n, "/v1/labs/kept").is_ok_and(|r| r.body["readyCount"] == 1))
    });
    assert_eq!(uid(&both), before);
    assert_eq!(both.get(1, "/v1/labs/later").expect("an answer").status, 404, "it is not in the backup");
    netloom(&both, &["destroy", "kept", "--yes"]).must();
}
