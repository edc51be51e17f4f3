//! Deploy, destroy and a deploy with nothing to do, of 50 containers and 100 links; and the links alone.

use std::time::Duration;

use netloom_benches::{Turns, both, median, row, size, timed, told};
use netloom_tests::{Frozen, Mode, Sandbox};

use crate::floor::Lab;
use crate::rig::{Links, links, settle, topology};

/// What carries wires, as the configuration and the floor call it.
const PLANES: [&str; 2] = ["kernel", "ovs"];

pub fn rows() {
    for plane in PLANES {
        on(plane);
    }
}

/// Links alone.
pub fn links_rows() {
    for plane in PLANES {
        links_alone(plane);
    }
}

fn on(plane: &str) {
    let nodes = size(50, 6);
    let rounds = size(7, 2);
    let links = links(nodes);
    let count = format!("{nodes} containers, {} links, {plane}", links.len());
    let sandbox = Sandbox::start_on(Mode::One, &format!("plane = {plane:?}"));
    let lab = sandbox.lab("bench");
    let whole = topology(&lab, nodes, &links);
    let deploy = |text: &str| timed(|| sandbox.deploy(text)).0;
    let destroy = || timed(|| sandbox.netloom(&["destroy", &lab, "--yes"]).must()).0;

    deploy(&whole);
    let mut floor = Lab::start(&sandbox, plane, &links);
    destroy();
    settle(&sandbox);
    let [up_at_once, down_at_once] = best(&sandbox, &mut floor);

    let (mut deploys, mut destroys) = (Turns::default(), Turns::default());
    let mut again = Vec::new();
    for round in 0..rounds {
        let of_floor = || {
            let _alone = Alone::with_the_floor(&sandbox);
            settle(&sandbox);
            let up = floor.order(&format!("deploy {up_at_once}"));
            settle(&sandbox);
            let down = floor.order(&format!("destroy {down_at_once}"));
            (up, down)
        };
        let of_netloom = || {
            settle(&sandbox);
            let up = deploy(&whole);
            settle(&sandbox);
            let unchanged = median(3, || deploy(&whole));
            settle(&sandbox);
            (up, unchanged, destroy())
        };
        let (one, other) = both(round, of_netloom, of_floor);
        deploys.add(one.0, other.0);
        destroys.add(one.2, other.1);
        again.push(one.1);
    }
    deploys.row(&format!("deploy ({count}) / by hand"), 1.15);
    destroys.row(&format!("destroy ({count}) / by hand"), 1.2);
    again.sort();
    let unchanged = again[again.len() / 2];
    row(&format!("deploy with nothing to do ({count}) / deploy"), unchanged, deploys.measured(), 0.02);
}

/// Links added to containers that run, and taken away from them.
fn links_alone(plane: &str) {
    let nodes = size(50, 6);
    let links = links(nodes);
    let count = format!("{nodes} containers, {} links, {plane}", links.len());
    let sandbox = Sandbox::start_on(Mode::One, &format!("plane = {plane:?}"));
    let lab = sandbox.lab("links");
    let (whole, bare) = (topology(&lab, nodes, &links), topology(&lab, nodes, &Links::new()));
    sandbox.deploy(&whole);
    let mut floor = Lab::start(&sandbox, plane, &links);
    floor.order("containers 4");
    sandbox.deploy(&bare);
    let (mut added, mut removed) = (Turns::default(), Turns::default());
    for round in 0..size(9, 2) {
        let of_netloom = |text: &str| {
            settle(&sandbox);
            timed(|| sandbox.deploy(text)).0
        };
        let mut of_floor = |order: &str| {
            let _alone = Alone::with_the_floor(&sandbox);
            settle(&sandbox);
            floor.order(order)
        };
        let (one, other) = both(round, || of_netloom(&whole), || of_floor("wire"));
        added.add(one, other);
        let (one, other) = both(round, || of_netloom(&bare), || of_floor("unwire"));
        removed.add(one, other);
    }
    added.row(&format!("links alone, added ({count}) / by hand"), 1.3);
    removed.row(&format!("links alone, removed ({count}) / by hand"), 1.3);
    floor.order("remove 4");
    drop(floor);
    sandbox.netloom(&["destroy", &lab, "--yes"]).must();
}

/// Netloom stands still: what it hears of the floor's containers, ports and interfaces is no work for the machine meanwhile.
struct Alone(Vec<Frozen>);

impl Alone {
    fn with_the_floor(sandbox: &Sandbox) -> Alone {
        Alone(sandbox.freeze())
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        self.0.clear();
        // What it missed is taken up before anything else is measured.
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// How many containers at once are quickest by hand: to deploy, and to destroy.
fn best(sandbox: &Sandbox, floor: &mut Lab) -> [usize; 2] {
    let _alone = Alone::with_the_floor(sandbox);
    let mut tried: [Vec<(Duration, usize)>; 2] = Default::default();
    for at_once in size(vec![2, 4, 6, 8, 12], vec![4]) {
        for _ in 0..size(2, 1) {
            for (verb, tried) in ["deploy", "destroy"].into_iter().zip(&mut tried) {
                settle(sandbox);
                tried.push((floor.order(&format!("{verb} {at_once}")), at_once));
            }
        }
    }
    let mut verbs = ["deploy", "destroy"].into_iter();
    tried.map(|tried| {
        let text: Vec<String> =
            tried.iter().map(|(took, n)| format!("{n}: {:.2} s", took.as_secs_f64())).collect();
        let quickest = tried.iter().min().map_or(4, |(_, n)| *n);
        let verb = verbs.next().unwrap_or_default();
        told(
            &format!("floor: containers at once in a {verb} ({})", text.join(", ")),
            &quickest.to_string(),
            "",
            "",
        );
        quickest
    })
}
