//! Deploy, destroy and a deploy with nothing to do, of 50 containers and 100 links; and the links alone.

use std::time::Duration;

use netloom_benches::{Turns, both, median, row, size, timed, told};
use netloom_tests::{Mode, Sandbox};

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
    let rounds = size(5, 2);
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
    let (at_once, tried) = best(&sandbox, &mut floor);
    told(&format!("floor: containers at once ({tried})"), &format!("{at_once}"), "", "");

    let (mut deploys, mut destroys) = (Turns::default(), Turns::default());
    let mut again = Vec::new();
    for round in 0..rounds {
        let of_floor = || {
            settle(&sandbox);
            let up = floor.order(&format!("deploy {at_once}"));
            settle(&sandbox);
            let down = floor.order(&format!("destroy {at_once}"));
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
    for _ in 0..size(7, 2) {
        let quiet = |work: &mut dyn FnMut() -> Duration| {
            settle(&sandbox);
            work()
        };
        let one = quiet(&mut || timed(|| sandbox.deploy(&whole)).0);
        let other = quiet(&mut || floor.order("wire"));
        added.add(one, other);
        let one = quiet(&mut || timed(|| sandbox.deploy(&bare)).0);
        let other = quiet(&mut || floor.order("unwire"));
        removed.add(one, other);
    }
    added.row(&format!("links alone, added ({count}) / by hand"), 1.3);
    removed.row(&format!("links alone, removed ({count}) / by hand"), 1.3);
    floor.order("remove 4");
    drop(floor);
    sandbox.netloom(&["destroy", &lab, "--yes"]).must();
}

/// How many containers at once are quickest by hand.
fn best(sandbox: &Sandbox, floor: &mut Lab) -> (usize, String) {
    let mut tried: Vec<(Duration, usize)> = Vec::new();
    for at_once in size(vec![2, 3, 4, 6, 8], vec![4]) {
        settle(sandbox);
        tried.push((floor.order(&format!("deploy {at_once}")), at_once));
        settle(sandbox);
        floor.order(&format!("destroy {at_once}"));
    }
    let text: Vec<String> =
        tried.iter().map(|(took, n)| format!("{n}: {:.1} s", took.as_secs_f64())).collect();
    let quickest = tried.iter().min().map_or(4, |(_, n)| *n);
    (quickest, text.join(", "))
}
