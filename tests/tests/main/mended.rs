//! Whatever is taken away or changed behind netloom's back is shown within a second and mended within three, or it says why not.
//!
//! A machine that does other things as well may be slow once: what took longer is done again, and one time of three is within the bounds. What was measured is
//! printed. What is not netloom's stays as it is through all of it.

use std::time::{Duration, Instant};

use netloom_tests::{Interface, Mode, Sandbox, Watch, container, eventually, in_node, on_plane, pid_of};

use crate::{IMAGE, line};

/// What is waited for at most.
const SHOWN: Duration = Duration::from_secs(10);
const MENDED: Duration = Duration::from_secs(30);
/// What it is to be shown and mended within, and how often that is tried.
const BARS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(3)];
const TRIES: usize = 3;
/// How much longer one may take that was killed: it is started again after a pause that grows with each time.
const PAUSES: Duration = Duration::from_secs(3);

/// A lab of two nodes and a link, and things of somebody else's beside it.
struct Bench {
    sandbox: Sandbox,
    lab: String,
    foreign: Foreign,
}

/// What somebody else has on the machine.
struct Foreign {
    container: String,
    port: String,
}

impl Bench {
    /// What is broken here are parts of Open vSwitch, and of the kernel where a link is impaired.
    fn start(mode: Mode, name: &str) -> Bench {
        Bench::start_on(mode, name, "ovs")
    }

    fn start_on(mode: Mode, name: &str, plane: &str) -> Bench {
        let sandbox = Sandbox::start(mode);
        let lab = sandbox.lab(name);
        sandbox.deploy(&on_plane(plane, &line(&lab, 2)));
        Bench::over(sandbox, lab)
    }

    fn over(sandbox: Sandbox, lab: String) -> Bench {
        let container = format!("{}-foreign", sandbox.bridge());
        sandbox
            .docker(&["run", "-d", "--rm", "--network=none", "--name", &container, IMAGE, "sleep", "9999"])
            .must();
        let port = format!("x{}", &sandbox.bridge()[2..]);
        let bench = Bench { sandbox, lab, foreign: Foreign { container, port } };
        bench.add_foreign_port();
        bench
    }

    fn add_foreign_port(&self) {
        let port = self.foreign.port.as_str();
        self.sandbox
            .ovs
            .vsctl(&["--may-exist", "add-br", port, "--", "set", "bridge", port, "datapath_type=netdev"])
            .must();
        self.sandbox.ovs.ofctl("add-flow", port, &["cookie=0x77,priority=5,actions=drop"]).must();
    }

    fn foreign_is_untouched(&self) {
        let running = self.sandbox.docker(&[
            "inspect",
            "-f",
            "{{.State.Running}} {{.RestartCount}}",
            &self.foreign.container,
        ]);
        assert_eq!(running.must().stdout.trim(), "true 0");
        assert!(self.sandbox.ovs.vsctl(&["list-br"]).must().stdout.contains(&self.foreign.port));
        assert!(
            self.sandbox
                .ovs
                .ofctl("dump-flows", &self.foreign.port, &[])
                .must()
                .stdout
                .contains("cookie=0x77")
        );
    }

    fn pings(&self) -> bool {
        in_node(&self.sandbox, &self.lab, "n1", &["ping", "-c", "1", "-W", "1", "10.0.1.2"]).ok()
    }

    fn is_well(&self) -> bool {
        let lab = self.sandbox.lab_json(&self.lab);
        lab["readyCount"] == 2 && lab["upLinkCount"] == 1 && lab["state"] == "LAB_STATE_RUNNING"
    }

    /// Does something to the lab; then it is shown in time, and then all is well again in time and carries.
    fn breaks(&self, what: &str, act: impl Fn(&Sandbox), shown: &[&str]) {
        self.breaks_within(BARS, what, act, shown);
    }

    fn breaks_within(&self, bars: [Duration; 2], what: &str, act: impl Fn(&Sandbox), shown: &[&str]) {
        let mut told = Vec::new();
        for _ in 0..TRIES {
            let (seen, well) = self.breaks_once(what, &act, shown);
            if seen < bars[0] && well < bars[1] {
                return;
            }
            told.push(format!("shown after {seen:.2?}, well after {well:.2?}"));
        }
        panic!("{what}: never within {bars:?}: {}", told.join("; "));
    }

    fn breaks_once(&self, what: &str, act: impl Fn(&Sandbox), shown: &[&str]) -> (Duration, Duration) {
        let watch = Watch::start(&self.sandbox, &self.lab);
        let begun = Instant::now();
        act(&self.sandbox);
        eventually(&format!("{what}: it is shown"), SHOWN, || shown.iter().any(|words| watch.said(words)));
        let seen = begun.elapsed();
        eventually(&format!("{what}: all is well"), MENDED, || self.is_well());
        let well = begun.elapsed();
        eventually(&format!("{what}: it carries"), MENDED, || self.pings());
        println!(
            "{what}: shown after {seen:.2?}, well after {well:.2?}, carries after {:.2?}",
            begun.elapsed()
        );
        self.foreign_is_untouched();
        (seen, well)
    }

    /// Names of the host ends.
    fn host_ends(&self) -> Vec<String> {
        let links = self.sandbox.in_namespace("ip").args(["-o", "link"]).output().expect("ip").stdout;
        let links = String::from_utf8_lossy(&links).into_owned();
        let alias = format!("netloom:{}", self.sandbox.owner());
        let ours = links.lines().filter(|line| line.contains(&alias));
        ours.filter_map(|line| line.split(": ").nth(1)?.split('@').next().map(str::to_owned)).collect()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.sandbox.docker(&["rm", "-f", &self.foreign.container]);
    }
}

fn in_sandbox(sandbox: &Sandbox, program: &str, args: &[&str]) {
    let done = sandbox.in_namespace(program).args(args).output().expect("it starts");
    assert!(done.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&done.stderr));
}

const NOT_READY: &[&str] =
    &["NODE_STATE_STARTING", "NODE_STATE_PENDING", "NODE_STATE_CREATING", "NODE_STATE_STOPPED"];
const NOT_UP: &[&str] = &["LINK_STATE_DOWN", "LINK_STATE_PENDING", "LINK_STATE_FAILED", "LINK_STATE_UNKNOWN"];

fn containers_are_shown_and_mended(mode: Mode) {
    let bench = Bench::start(mode, "containers");
    let id = |node| container(&bench.sandbox, &bench.lab, node).expect("its container");
    let killed = id("n1");
    let paused = [BARS[0], BARS[1] + PAUSES];
    let kill = |s: &Sandbox| drop(s.docker(&["kill", &killed]).must());
    bench.breaks_within(paused, "container killed", kill, NOT_READY);
    assert_eq!(id("n1"), killed, "it is the same container");
    let removed = id("n2");
    bench.breaks("container removed", |s| drop(s.docker(&["rm", "-f", &id("n2")]).must()), NOT_READY);
    assert_ne!(id("n2"), removed);
}

fn flows_ports_and_the_database_are_shown_and_mended(mode: Mode) {
    let mut bench = Bench::start(mode, "ovs");
    let bridge = bench.sandbox.bridge().to_owned();
    bench.breaks("flow deleted", |s| drop(s.ovs.ofctl("del-flows", &bridge, &[]).must()), NOT_UP);
    let ports = bench.sandbox.ovs.vsctl(&["list-ports", &bridge]).must().stdout;
    let port = ports.split_whitespace().next().expect("a port").to_owned();
    bench.breaks("port removed", |s| drop(s.ovs.vsctl(&["del-port", &bridge, &port]).must()), NOT_UP);
    bench.breaks("bridge deleted", |s| drop(s.ovs.vsctl(&["del-br", &bridge]).must()), NOT_UP);

    let watch = Watch::start(&bench.sandbox, &bench.lab);
    let begun = Instant::now();
    bench.sandbox.ovs.wipe();
    let acted = begun.elapsed();
    eventually("database wiped: it is shown", SHOWN, || NOT_UP.iter().any(|words| watch.said(words)));
    let seen = begun.elapsed();
    eventually("database wiped: all is well and carries", MENDED, || bench.is_well() && bench.pings());
    println!(
        "database wiped: done after {acted:.2?}, shown after {seen:.2?}, well after {:.2?}",
        begun.elapsed()
    );
}

fn redirects_are_shown_and_mended(mode: Mode) {
    let bench = Bench::start(mode, "redirects");
    bench.sandbox.netloom(&["link", "set", &bench.lab, "n1:eth2", "--rate", "100mbit"]).must();
    eventually("it is slowed", MENDED, || bench.is_well() && bench.pings());
    let ends = bench.host_ends();
    assert_eq!(ends.len(), 2, "{ends:?}");
    let delete = |s: &Sandbox| in_sandbox(s, "tc", &["filter", "del", "dev", &ends[0], "ingress"]);
    bench.breaks("redirect deleted", delete, NOT_UP);
    let delete = |s: &Sandbox| in_sandbox(s, "tc", &["qdisc", "del", "dev", &ends[0], "ingress"]);
    bench.breaks("place of redirects deleted", delete, NOT_UP);
    let delete = |s: &Sandbox| in_sandbox(s, "tc", &["qdisc", "del", "dev", &ends[1], "root"]);
    // It carries all the same, only too well: what is to be seen of it is the queue.
    let queue = |s: &Sandbox| {
        let shown = s.in_namespace("tc").args(["qdisc", "show", "dev", &ends[1]]).output().expect("tc");
        String::from_utf8_lossy(&shown.stdout).contains("tbf")
    };
    assert!(queue(&bench.sandbox), "it is slowed by no queue");
    bench.breaks("queue deleted", delete, &["its impairment is being made"]);
    eventually("the queue is back", MENDED, || queue(&bench.sandbox));
}

fn interfaces_of_links_on_open_vswitch_are_shown_and_mended(mode: Mode) {
    interfaces_are_shown_and_mended(mode, "ovs");
}

fn interfaces_of_links_in_the_kernel_are_shown_and_mended(mode: Mode) {
    interfaces_are_shown_and_mended(mode, "kernel");
}

fn interfaces_are_shown_and_mended(mode: Mode, plane: &str) {
    let bench = Bench::start_on(mode, "interfaces", plane);
    let ends = bench.host_ends();
    let rename = |s: &Sandbox| {
        in_sandbox(s, "ip", &["link", "set", &ends[0], "down"]);
        in_sandbox(s, "ip", &["link", "set", &ends[0], "name", "renamed0"]);
    };
    bench.breaks("host end renamed", rename, NOT_UP);
    assert_eq!(bench.host_ends(), ends);
    let rename = |s: &Sandbox| {
        in_node(s, &bench.lab, "n1", &["ip", "link", "set", "eth2", "name", "wan"]).must();
    };
    bench.breaks("interface in the node renamed", rename, &["calls the interface wan"]);
    let delete = |s: &Sandbox| in_sandbox(s, "ip", &["link", "delete", &ends[1]]);
    bench.breaks("host end deleted", delete, NOT_UP);
    let delete = |s: &Sandbox| {
        in_node(s, &bench.lab, "n2", &["ip", "link", "delete", "eth1"]).must();
    };
    bench.breaks("interface in the node deleted", delete, NOT_UP);

    // What a node does to its own interface is its own: the other end sees it, the link says which end, and nobody sets it up again.
    let far = |carrier: &str| {
        in_node(&bench.sandbox, &bench.lab, "n1", &["ip", "-o", "link", "show", "eth2"])
            .stdout
            .contains(carrier)
    };
    let open = |node, name| Interface::open(pid_of(&bench.sandbox, &bench.lab, node), name);
    let (far_end, near_end) = (open("n1", "eth2"), open("n2", "eth1"));
    near_end.set_up(false);
    println!(
        "an interface set down: the far end has no carrier after {:.2?}",
        far_end.until_carrier(false, SHOWN)
    );
    assert!(far("NO-CARRIER"));
    let link = format!("/v1/labs/{}/links/n1:eth2--n2:eth1", bench.lab);
    eventually("its link says which end is down", SHOWN, || {
        let link = bench.sandbox.get(&link).map(|reply| reply.body).unwrap_or_default();
        link["state"] == "LINK_STATE_DOWN"
            && link["stateReason"] == "n2:eth1: the interface is down in its node"
    });
    in_node(&bench.sandbox, &bench.lab, "n2", &["ip", "link", "set", "eth1", "up"]).must();
    eventually("all is well", MENDED, || bench.is_well() && far("LOWER_UP"));
}

fn a_management_network_that_is_removed_is_told_and_back_with_the_next_start(mode: Mode) {
    let sandbox = Sandbox::start(mode);
    let lab = sandbox.lab("mgmt");
    let mgmt = format!("mgmt: {{ipv4-subnet: 10.213.{}.0/24}}\ntopology:", number_of(&sandbox));
    let text = line(&lab, 2).replacen("topology:", &mgmt, 1);
    sandbox.deploy(&text);
    let bench = Bench::over(sandbox, lab);
    let (sandbox, lab) = (&bench.sandbox, &bench.lab);
    let owner = format!("label=netloom.owner={}", sandbox.owner());
    let network =
        || sandbox.docker(&["network", "ls", "-q", "--filter", &owner]).must().stdout.trim().to_owned();
    let address =
        |node: &str| sandbox.node_json(lab, node)["mgmtIpv4"].as_str().unwrap_or_default().to_owned();
    let (old, before) = (network(), address("n1"));
    assert!(!old.is_empty() && !before.is_empty());
    let begun = Instant::now();
    for node in ["n1", "n2"] {
        let id = container(sandbox, lab, node).expect("its container");
        sandbox.docker(&["network", "disconnect", "-f", &old, &id]).must();
    }
    sandbox.docker(&["network", "rm", &old]).must();
    for node in ["n1", "n2"] {
        eventually("it says that its network is gone, and what to do", SHOWN, || {
            let node = sandbox.node_json(lab, node);
            let why = node["stateReason"].as_str().unwrap_or_default().to_owned();
            node["state"] == "NODE_STATE_READY"
                && why.contains("is not on its management network")
                && why.contains(&format!("netloom node restart {lab}"))
        });
    }
    println!("management network deleted: told of both nodes after {:.2?}", begun.elapsed());
    assert!(bench.pings(), "its links carry on");
    assert_eq!(address("n1"), "", "an address that it has not is not shown");
    sandbox.netloom(&["node", "restart", lab, "n1", "n2"]).must();
    eventually("all is well", MENDED, || bench.is_well() && bench.pings());
    assert!(!network().is_empty() && network() != old);
    assert!(!address("n1").is_empty());
    let reason = sandbox.node_json(lab, "n1")["stateReason"].as_str().unwrap_or_default().to_owned();
    assert_eq!(reason, "");
    let interfaces = in_node(sandbox, lab, "n1", &["ip", "-br", "link"]).must().stdout;
    assert!(interfaces.contains("eth0") && interfaces.contains("eth2"), "{interfaces}");
    bench.foreign_is_untouched();
}

/// A number that networks of other tests hardly have.
fn number_of(sandbox: &Sandbox) -> u8 {
    sandbox.bridge().bytes().fold(0, |sum: u8, byte| sum.wrapping_mul(31).wrapping_add(byte))
}

fn states_say_how_old_they_are_and_what_they_were_read_from(mode: Mode) {
    let mut bench = Bench::start(mode, "evidence");
    let link = format!("/v1/labs/{}/links/n1:eth2--n2:eth1", bench.lab);
    let link = |sandbox: &Sandbox| sandbox.get(&link).map(|reply| reply.body).unwrap_or_default();
    let node = bench.sandbox.node_json(&bench.lab, "n1");
    let both = ["EVIDENCE_SOURCE_DOCKER", "EVIDENCE_SOURCE_INTERFACES"];
    assert_eq!(node["evidence"], serde_json::json!(both));
    assert!(node["observeTime"].is_string());
    let evidence = link(&bench.sandbox)["evidence"].to_string();
    assert!(
        evidence.contains("INTERFACES") && (evidence.contains("FLOWS") || evidence.contains("REDIRECTS"))
    );
    bench.sandbox.netloom(&["link", "set", &bench.lab, "n1:eth2", "--rate", "100mbit"]).must();
    eventually("it is read where it is", SHOWN, || {
        let read = ["EVIDENCE_SOURCE_INTERFACES", "EVIDENCE_SOURCE_REDIRECTS"];
        link(&bench.sandbox)["evidence"] == serde_json::json!(read)
    });
    let wide = bench.sandbox.netloom(&["inspect", &bench.lab, "--wide"]).must().stdout;
    let table = wide.split_once("STATE OF").expect("the table").1;
    assert!(table.contains("READ FROM") && table.contains("Docker, interfaces of the kernel"), "{wide}");
    assert!(table.contains("redirects and queues of the kernel"), "{wide}");
    // A host says once a second that all is so.
    let of = |name: &str| table.lines().find(|line| line.starts_with(name)).expect("its line").to_owned();
    for line in [of("n1 "), of("n1:eth2--")] {
        let age =
            line.split("  ").filter(|word| !word.is_empty()).nth(2).unwrap_or_default().trim().to_owned();
        let seconds: f64 = age.strip_suffix(" s").and_then(|age| age.parse().ok()).expect(&line);
        assert!(seconds < 10.0, "{line}");
    }

    // What does not answer is not vouched for, however good it was a moment ago.
    bench.sandbox.netloom(&["link", "set", &bench.lab, "n1:eth2", "--clear"]).must();
    eventually("it is well", MENDED, || bench.is_well());
    bench.sandbox.ovs.stop();
    let is_unknown = |sandbox: &Sandbox| link(sandbox)["state"] == "LINK_STATE_UNKNOWN";
    let on_ovs = link(&bench.sandbox)["plane"] == "ovs";
    if on_ovs {
        eventually("nobody says that it is up", SHOWN, || is_unknown(&bench.sandbox));
    }
    bench.sandbox.ovs.start_empty();
    eventually("it is well again", MENDED, || bench.is_well());
}

in_both_modes!(
    states_say_how_old_they_are_and_what_they_were_read_from,
    containers_are_shown_and_mended,
    flows_ports_and_the_database_are_shown_and_mended,
    redirects_are_shown_and_mended,
    interfaces_of_links_on_open_vswitch_are_shown_and_mended,
    interfaces_of_links_in_the_kernel_are_shown_and_mended,
    a_management_network_that_is_removed_is_told_and_back_with_the_next_start,
);
