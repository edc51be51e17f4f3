//! A second machine joins, runs a lab, and is removed: real programs, certificates, Docker and Open vSwitch on either side of a cable.

use std::time::Duration;

use netloom_tests::{Host, Mode, Sandbox, eventually};
use serde_json::Value;

use crate::{IMAGE, line};

const BOUND: Duration = Duration::from_secs(60);

fn host(sandbox: &Sandbox, id: &str) -> Value {
    sandbox.get(&format!("/v1/hosts/{id}")).map_or(Value::Null, |r| r.body)
}

fn is_online(sandbox: &Sandbox, id: &str) {
    eventually(&format!("{id} is heard of"), BOUND, || host(sandbox, id)["state"] == "HOST_STATE_ONLINE");
}

/// A token, and the endpoint that is told first.
fn invited(sandbox: &Sandbox) -> (String, String) {
    let said = sandbox.netloom(&["host", "token", "--format", "json"]).must().stdout;
    let said: Value = serde_json::from_str(&said).expect("JSON");
    let text = |v: &Value| v.as_str().expect("a text").to_owned();
    (text(&said["endpoints"][0]), text(&said["token"]))
}

fn a_machine_joins_and_runs_a_lab(mode: Mode) {
    // Certificates are renewed after two thirds of this: after 14 s.
    let sandbox = Sandbox::prepare(
        mode,
        "[scheduler]\njoin_listen = \"0.0.0.0:7601\"\nhost_certificate_seconds = 21\n",
    );
    let mut machine = Host::beside(&sandbox, &[IMAGE]);
    sandbox.run_programs();
    sandbox.wait_until_healthy();

    // There is no room for it yet.
    sandbox.netloom(&["host", "set", "local", "--cpu-overcommit", "0.001"]).must();
    let lab = sandbox.lab("far");
    let waits = sandbox.try_deploy(&line(&lab, 2));
    assert!(!waits.ok() && waits.stderr.contains("UNSCHEDULABLE"), "{}{}", waits.stdout, waits.stderr);

    let (endpoint, token) = invited(&sandbox);
    assert_eq!(endpoint, "https://10.99.0.1:7601", "the address that is not the machine's own comes first");
    let refused = machine.netloom_host(&[]);
    assert!(!refused.ok() && refused.stderr.contains("has not joined"), "{}", refused.stderr);
    // The secret of one token with the fingerprint of another installation.
    let (secret, print) = token.split_once('.').expect("two words");
    let other = print.replace(|c: char| c != 'A', "A");
    let other = format!("{secret}.{other}");
    let refused = machine.netloom_host(&["join", &endpoint, &other, "--id", "rack2"]);
    assert!(refused.stderr.contains("does not belong to the installation"), "{}", refused.stderr);
    let joined =
        machine.netloom_host(&["join", &endpoint, &token, "--id", "rack2", "--label", "rack=2"]).must();
    assert!(joined.stdout.contains("host rack2 now, reached at 10.99.0.2:7610"), "{}", joined.stdout);
    let again = machine.netloom_host(&["join", &endpoint, &token]);
    assert!(!again.ok() && again.stderr.contains("is host rack2 already"), "{}", again.stderr);
    machine.start();
    is_online(&sandbox, "rack2");
    let shown = sandbox.netloom(&["host", "show", "rack2"]).must().stdout;
    assert!(shown.contains("rack=2") && shown.contains("10.99.0.2:7610"), "{shown}");

    sandbox.netloom(&["host", "cordon", "local"]).must();
    let listed = sandbox.netloom(&["host", "list"]).must().stdout;
    let local = listed.lines().find(|l| l.starts_with("local")).expect("a line");
    assert!(local.contains("cordoned"), "{listed}");
    // A host that is added is used without anyone asking.
    sandbox.wait_ready(&lab, 2, 1, BOUND);
    assert_eq!(machine.containers().len(), 2, "{:?}", machine.containers());
    // By the gateway's own way to the host: its bytes do not pass the scheduler.
    let ping = ["exec", &lab, "n1", "--", "ping", "-c", "1", "-W", "5", "10.0.1.2"];
    sandbox.netloom(&ping).must();

    let refused = sandbox.netloom(&["host", "remove", "rack2"]);
    assert!(!refused.ok() && refused.stderr.contains(&lab), "{}", refused.stderr);
    let serial = host(&sandbox, "rack2")["certificateSerial"].clone();
    sandbox.crash();
    sandbox.run_programs();
    sandbox.wait_until_healthy();
    is_online(&sandbox, "rack2");
    sandbox.wait_ready(&lab, 2, 1, BOUND);
    eventually("the certificate is renewed", BOUND, || {
        let now = host(&sandbox, "rack2")["certificateSerial"].clone();
        now.is_string() && now != serial
    });
    // The new one is shown, by a program that is started again.
    machine.stop();
    machine.start();
    eventually("a node there is reached again", BOUND, || sandbox.netloom(&ping).ok());
    is_online(&sandbox, "rack2");

    sandbox.netloom(&["destroy", &lab, "--yes"]).must();
    assert!(machine.containers().is_empty());
    sandbox.netloom(&["host", "remove", "rack2"]).must();
    assert_eq!(host(&sandbox, "rack2")["code"], 5, "it is not found");
    eventually("its certificate is refused", BOUND, || machine.logs().contains("host rack2 was removed"));
}

in_both_modes!(a_machine_joins_and_runs_a_lab);
