//! How soon what breaks is shown, and mended.

use std::time::{Duration, Instant};

use netloom_benches::{median, size, within};
use netloom_tests::{Mode, Sandbox};
use serde_json::Value;

use crate::rig::{links, topology};

/// Bounds of what is shown, and of what is mended.
const BARS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(3)];
/// When it is given up.
const NEVER: Duration = Duration::from_secs(60);

pub fn rows() {
    let rounds = size(5, 1);
    let sandbox = Sandbox::start_on(Mode::One, "plane = \"ovs\"");
    let lab = sandbox.lab("repair");
    let links = links(2)[..1].to_vec();
    sandbox.deploy(&topology(&lab, 2, &links));
    let counts = || -> [Value; 2] {
        let lab = sandbox.lab_json(&lab);
        [lab["readyCount"].clone(), lab["upLinkCount"].clone()]
    };
    let is_whole = || counts() == [Value::from(2), Value::from(1)];
    let whole = || until(is_whole);
    whole();

    let id = || {
        let owner = format!("label=netloom.owner={}", sandbox.owner());
        let ids = sandbox.docker(&["ps", "-q", "--filter", &owner]).must().stdout;
        ids.split_whitespace().next().expect("a container").to_owned()
    };
    let mut shown = Vec::new();
    let mended = median(rounds, || {
        sandbox.docker(&["kill", &id()]).must();
        let begin = Instant::now();
        shown.push(until(|| counts()[0] == 1));
        whole();
        begin.elapsed()
    });
    shown.sort();
    within("a container killed: shown", shown[shown.len() / 2], BARS[0]);
    within("a container killed: runs again, its link up", mended, BARS[1]);

    let flows = || sandbox.joints()[0] == 2;
    let mended = median(rounds, || {
        sandbox.ovs.ofctl("del-flows", sandbox.bridge(), &[]).must();
        until(flows)
    });
    within("flows of a wire deleted: there again", mended, BARS[1]);

    let ports = || -> Vec<String> {
        let listed = sandbox.ovs.vsctl(&["list-ports", sandbox.bridge()]).must().stdout;
        listed.split_whitespace().map(str::to_owned).collect()
    };
    let mended = median(rounds, || {
        let port = ports().first().expect("a port").clone();
        sandbox.ovs.vsctl(&["del-port", sandbox.bridge(), &port]).must();
        until(|| ports().contains(&port) && flows() && is_whole())
    });
    within("a port removed from the bridge: there again, the link up", mended, BARS[1]);
    sandbox.netloom(&["destroy", &lab, "--yes"]).must();
}

/// How long until it holds.
pub fn until(holds: impl Fn() -> bool) -> Duration {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < NEVER, "not within {NEVER:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
    begin.elapsed()
}
