//! A lab on two hosts: what is true of one is true of two.

use std::time::{Duration, Instant};

use netloom_tests::{Pair, Sandbox, eventually, finish, in_node, on_plane};
use serde_json::Value;

use crate::{IMAGE, line, real};

const BOUND: Duration = Duration::from_secs(30);

fn link<'a>(links: &'a Value, id: &str) -> &'a Value {
    let all = links["links"].as_array().expect("links");
    all.iter().find(|link| link["name"].as_str().is_some_and(|name| name.ends_with(id))).expect("the link")
}

fn carrier(host: &Sandbox, lab: &str, node: &str, interface: &str) -> bool {
    in_node(host, lab, node, &["ip", "link", "show", interface]).stdout.contains("LOWER_UP")
}

#[test]
fn a_lab_runs_on_two_hosts_as_on_one() {
    if real("across::a_lab_runs_on_two_hosts_as_on_one") {
        runs_on_two_hosts_as_on_one("kernel", "hosts: both take the kernel", |_| {}, |lab| lab);
    }
}

#[test]
fn a_lab_runs_on_two_hosts_as_on_one_by_open_vswitch() {
    if real("across::a_lab_runs_on_two_hosts_as_on_one_by_open_vswitch") {
        let by_ovs = |lab: String| on_plane("ovs", &lab);
        runs_on_two_hosts_as_on_one("ovs", "lab: its plane is ovs", takes_tunnels, by_ovs);
    }
}

/// In userspace Open vSwitch takes tunnels only from an address on a bridge of its own.
fn takes_tunnels(pair: &Pair) {
    for (host, address) in [(&pair.near, "172.31.9.1/24"), (&pair.far, "172.31.9.2/24")] {
        let bridge = "add-br brphy -- set bridge brphy datapath_type=netdev -- add-port brphy u0";
        host.ovs.vsctl(&bridge.split(' ').collect::<Vec<_>>()).must();
        ip(host, &format!("address del {address} dev u0"));
        ip(host, &format!("address add {address} dev brphy"));
        ip(host, "link set brphy up");
    }
}

fn ip(host: &Sandbox, args: &str) {
    finish(host.in_namespace("ip").args(args.split(' ')), None).must();
}

fn runs_on_two_hosts_as_on_one(
    plane: &str,
    why: &str,
    ready: impl FnOnce(&Pair),
    of_plane: impl FnOnce(String) -> String,
) {
    // Each host has room for two of the four nodes.
    let share = 0.1 / std::thread::available_parallelism().map_or(1.0, |n| n.get() as f64);
    let pair = Pair::start(&[IMAGE], &format!("[scheduler]\ncpu_overcommit = {share}\n"));
    ready(&pair);
    let (near, lab) = (&pair.near, pair.near.lab("wide"));
    // Each has measured the way to the other.
    eventually("the paths are measured both ways", BOUND, || {
        ["local", "far"].iter().all(|host| {
            let path = near.get(&format!("/v1/hosts/{host}")).expect("a host").body["paths"][0].clone();
            path["mtuTo"] == 1450 && path["mtuFrom"] == 1450
        })
    });
    let shown = near.netloom(&["host", "show", "local"]).must().stdout;
    assert!(shown.contains("far at 172.31.9.2, MTU 1450 there, 1450 back"), "{shown}");
    let text = of_plane(line(&lab, 4));
    let file = near.write("wide.clab.yml", &text).display().to_string();
    let planned = near.netloom(&["plan", "-t", &file]).must().stdout;
    assert!(planned.contains("its MTU is 1450, which is what fits between hosts"), "{planned}");
    near.deploy(&text);
    near.wait_ready(&lab, 4, 3, BOUND);
    let hosts: Vec<bool> =
        (1..=4).map(|n| std::ptr::eq(pair.host_of(&lab, &format!("n{n}")), near)).collect();
    assert_eq!(hosts.iter().filter(|is_near| **is_near).count(), 2, "{hosts:?}");
    let at = (1..4).find(|n| hosts[n - 1] != hosts[*n]).expect("a link that crosses");
    let (one, other) = (format!("n{at}"), format!("n{}", at + 1));
    let (here, there) = (pair.host_of(&lab, &one), pair.host_of(&lab, &other));
    let id = format!("{one}:eth2--{other}:eth1");
    let shown = |field: &str| {
        let links = near.get(&format!("/v1/labs/{lab}/links")).expect("links").body;
        link(&links, &id)[field].as_str().unwrap_or_default().to_owned()
    };
    assert_eq!(
        (shown("state"), shown("plane"), shown("planeReason")),
        ("LINK_STATE_UP".into(), plane.into(), why.into())
    );
    let far_address = format!("10.0.{at}.2");
    let ping = |size: &str| {
        let args = ["exec", &lab, &one, "--", "ping", "-c", "1", "-W", "2", "-s", size, &far_address];
        near.netloom(&args).ok()
    };
    // Up to the very last byte that fits.
    assert!(ping("56") && ping("1422"));
    assert!(in_node(here, &lab, &one, &["ip", "link", "show", "eth2"]).stdout.contains("mtu 1450"));
    assert_eq!(near.get(&format!("/v1/labs/{lab}/links/{id}")).unwrap().body["mtu"], 1450);

    // Marked frames come by each place of both hosts, both ways.
    let check = || near.netloom(&["link", "check", &lab, &id]);
    // Where other tests run a listener may be late for the first of them.
    eventually("all are seen everywhere", BOUND, || {
        let checked = check().must().stdout;
        assert_eq!(checked.matches(": frames pass").count(), 2, "{checked}");
        checked.matches("10/10").count() == 12
    });

    // Carrier is part of the cable.
    let ends = [(here, one.as_str(), "eth2"), (there, other.as_str(), "eth1")];
    for [(near, node, nic), (far, far_node, far_nic)] in [ends, [ends[1], ends[0]]] {
        in_node(near, &lab, node, &["ip", "link", "set", nic, "down"]).must();
        eventually("the far end sees it", BOUND, || !carrier(far, &lab, far_node, far_nic));
        eventually("the link says which end", BOUND, || {
            shown("stateReason").starts_with(&format!("{node}:{nic}: "))
        });
        in_node(near, &lab, node, &["ip", "link", "set", nic, "up"]).must();
        eventually("it is back", BOUND, || carrier(far, &lab, far_node, far_nic));
        eventually("frames pass", BOUND, || ping("56"));
    }
    near.netloom(&["link", "down", &lab, &id]).must();
    eventually("both ends are unplugged", BOUND, || {
        !carrier(here, &lab, &one, "eth2") && !carrier(there, &lab, &other, "eth1")
    });
    near.netloom(&["link", "up", &lab, &id]).must();
    near.wait_ready(&lab, 4, 3, BOUND);
    assert!(ping("56"));

    // The network between the hosts is gone while both are heard of: nothing passes, nothing else changes, and frames pass again when it is back.
    let cable = |state| ip(&pair.far, &format!("link set u0 {state}"));
    cable("down");
    assert!(!ping("56") && near.lab_json(&lab)["readyCount"] == 4);
    assert_eq!(shown("state"), "LINK_STATE_UP", "its ends are plugged and alive");
    let checked = check();
    assert!(!checked.ok(), "{}", checked.stdout);
    assert_eq!(checked.stdout.matches("do not leave it for the other host").count(), 2, "{}", checked.stdout);
    cable("up");
    eventually("frames pass again", BOUND, || ping("1422"));

    // A host that is lost: its nodes and links are not known, and the near end has no carrier. It comes back, and nothing was lost.
    pair.far.crash();
    pair.wait_for_far("HOST_STATE_UNKNOWN");
    let (near_node, near_interface) =
        if std::ptr::eq(here, near) { (&one, "eth2") } else { (&other, "eth1") };
    eventually("no carrier to a lost host", BOUND, || !carrier(near, &lab, near_node, near_interface));
    assert_eq!(shown("state"), "LINK_STATE_UNKNOWN");
    let pid = |node: &str| netloom_tests::pid_of(pair.host_of(&lab, node), &lab, node);
    let before = [pid(&one), pid(&other)];
    pair.far.run_programs();
    pair.wait_for_far("HOST_STATE_ONLINE");
    near.wait_ready(&lab, 4, 3, BOUND);
    // Its compute service may have been silent for so short that it was not missed, and not listen yet.
    eventually("frames pass", BOUND, || ping("56"));
    assert_eq!([pid(&one), pid(&other)], before, "no node was started anew");

    near.netloom(&["destroy", &lab, "--yes"]).must();
    for host in [&pair.near, &pair.far] {
        assert_eq!(host.leftovers(), [] as [String; 0]);
    }
}

/// Interfaces of a bridge take larger frames than fit between hosts, or than a link that names its MTU takes: of full size are frames that are as large as the link's.
#[test]
fn links_of_a_bridge_are_checked_with_frames_of_their_own_size() {
    if !real("across::links_of_a_bridge_are_checked_with_frames_of_their_own_size") {
        return;
    }
    let pair = Pair::start(&[IMAGE], "");
    let (near, lab) = (&pair.near, pair.near.lab("switched"));
    let mut text = format!(
        "name: {lab}\ntopology:\n  defaults: {{image: {IMAGE:?}, image-pull-policy: Never}}\n  nodes:\n    sw: {{kind: bridge, placement: {{host: local}}}}\n    br: {{kind: bridge, placement: {{host: far}}}}\n"
    );
    let ends = [("n1", "local", 1), ("n2", "far", 2), ("n3", "far", 3)];
    for (node, host, _) in ends {
        text += &format!("    {node}: {{kind: linux, placement: {{host: {host}}}}}\n");
    }
    text += "  links:\n    - {endpoints: [\"br:p1\", \"sw:p4\"]}\n";
    for (node, _, n) in ends {
        let mtu = if node == "n3" { ", mtu: 1300" } else { "" };
        text += &format!("    - {{endpoints: [\"{node}:eth1\", \"sw:p{n}\"], ipv4: [10.0.0.{n}/24]{mtu}}}\n");
    }
    near.deploy(&text);
    near.wait_ready(&lab, 5, 4, BOUND);
    let ping = |from: &str, to: u8, size: &str| {
        let to = format!("10.0.0.{to}");
        near.netloom(&["exec", &lab, from, "--", "ping", "-c", "1", "-W", "2", "-s", size, &to]).ok()
    };
    eventually("frames pass", BOUND, || ping("n1", 2, "1422") && ping("n2", 3, "1272"));
    let passes = |id: &str, places: usize| {
        eventually(&format!("all are seen everywhere on {id}"), BOUND, || {
            let checked = near.netloom(&["link", "check", &lab, id]).must().stdout;
            checked.matches(": frames pass").count() == 2 && checked.matches("10/10").count() == places
        });
    };
    passes("n2:eth1--sw:p2", 12);
    passes("n3:eth1--sw:p3", 12);
    passes("br:p1--sw:p4", 12);
    // An impaired one goes through the kernel on its own host, too.
    near.netloom(&["link", "set", &lab, "n1:eth1", "--rate", "1gbit"]).must();
    eventually("it is slowed", BOUND, || ping("n1", 2, "1422"));
    near.wait_ready(&lab, 5, 4, BOUND);
    passes("n1:eth1--sw:p1", 8);
    near.netloom(&["destroy", &lab, "--yes"]).must();
    for host in [&pair.near, &pair.far] {
        assert_eq!(host.leftovers(), [] as [String; 0]);
    }
}

/// How long the two hosts are cut off from each other: paths are measured each minute, and neighbours of the kernel's are forgotten after one.
const LONG: Duration = Duration::from_secs(70);

/// Nothing passes between two hosts that are both heard of, and nobody is told: for longer than paths stay measured and addresses known. Nothing moves, no interface gets another MTU, and frames pass as soon as the network does.
#[test]
fn hosts_that_are_cut_off_from_each_other_for_long_keep_what_they_have() {
    if !real("across::hosts_that_are_cut_off_from_each_other_for_long_keep_what_they_have") {
        return;
    }
    let share = 0.1 / std::thread::available_parallelism().map_or(1.0, |n| n.get() as f64);
    let pair = Pair::start(&[IMAGE], &format!("[scheduler]\ncpu_overcommit = {share}\n"));
    let (near, lab) = (&pair.near, pair.near.lab("apart"));
    let paths = || {
        let path = |host: &str| near.get(&format!("/v1/hosts/{host}")).map(|r| r.body["paths"][0].clone());
        ["local", "far"].map(|host| path(host).unwrap_or_default())
    };
    let measured = || paths().iter().all(|path| path["mtuTo"] == 1450 && path["mtuFrom"] == 1450);
    eventually("the paths are measured both ways", BOUND, measured);
    near.deploy(&line(&lab, 4));
    near.wait_ready(&lab, 4, 3, BOUND);
    let on = |n: usize| std::ptr::eq(pair.host_of(&lab, &format!("n{n}")), near);
    let at = (1..4).find(|n| on(*n) != on(n + 1)).expect("a link that crosses");
    let ends = [(format!("n{at}"), "eth2"), (format!("n{}", at + 1), "eth1")];
    // What is in the containers, whichever host they are on.
    let lives = || {
        let of = |n: usize| {
            let (node, host) = (format!("n{n}"), pair.host_of(&lab, &format!("n{n}")));
            (netloom_tests::container(host, &lab, &node), netloom_tests::pid_of(host, &lab, &node))
        };
        (1..=4).map(of).collect::<Vec<_>>()
    };
    let as_it_was = || {
        let shown = near.lab_json(&lab);
        assert_eq!((&shown["readyCount"], &shown["upLinkCount"]), (&4.into(), &3.into()), "{shown}");
        for (node, interface) in &ends {
            let shown =
                in_node(pair.host_of(&lab, node), &lab, node, &["ip", "link", "show", interface]).stdout;
            assert!(shown.contains("mtu 1450") && shown.contains("LOWER_UP"), "{node}: {shown}");
        }
    };
    let (far_address, before) = (format!("10.0.{at}.2"), lives());
    let ping = |size: &str| {
        let args = ["exec", &lab, &ends[0].0, "--", "ping", "-c", "1", "-W", "1", "-s", size, &far_address];
        near.netloom(&args).ok()
    };
    assert!(ping("1422"));

    // The cable stays plugged, as where a switch between them fails: neither packets nor who has which address get through.
    let cut = |cut: bool| {
        let verb = if cut { "-A" } else { "-D" };
        for rule in ["INPUT -i", "OUTPUT -o"] {
            let rule = format!("{verb} {rule} u0 -j DROP");
            finish(pair.far.in_namespace("iptables").args(rule.split(' ')), None).must();
        }
        ip(&pair.far, &format!("link set u0 arp {}", if cut { "off" } else { "on" }));
    };
    cut(true);
    let begun = Instant::now();
    let unknown = || paths().iter().any(|path| path["problem"].as_str().is_some_and(|why| !why.is_empty()));
    let mut seen = false;
    while begun.elapsed() < LONG || !seen {
        assert!(!ping("56"), "nothing passes");
        as_it_was();
        seen |= unknown();
        assert!(begun.elapsed() < 2 * LONG, "nobody notices that the path is gone: {:?}", paths());
    }
    assert_eq!(lives(), before, "nothing moves, and nothing is started anew");

    cut(false);
    let begun = Instant::now();
    eventually("frames pass again", BOUND, || ping("1422"));
    println!("frames pass {:.1?} after the network does", begun.elapsed());
    as_it_was();
    assert_eq!(lives(), before);
    near.netloom(&["destroy", &lab, "--yes"]).must();
    for host in [&pair.near, &pair.far] {
        assert_eq!(host.leftovers(), [] as [String; 0]);
    }
}
