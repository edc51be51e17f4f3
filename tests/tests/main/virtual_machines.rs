//! Virtual machines and containers in one lab: from the image and the topology file to a routed network, through all services.

use std::path::Path;
use std::time::{Duration, Instant};

use netloom_service::testing::libvirt::{Libvirtd, guest};
use netloom_service::testing::require;
use netloom_service::{Connector, Endpoint};
use netloom_tests::{Mode, Sandbox, eventually, in_node, run};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

/// A guest boots in seconds where nothing else runs; here everything is emulated, on a busy machine.
const BOUND: Duration = Duration::from_secs(300);

/// What the guest that is looked at says on its console: each change of its carrier, and that it reaches the other one.
const SCRIPT: &str = "        watch() {
          last=
          while usleep 100000; do
            now=$(cat /sys/class/net/eth1/carrier)
            [ \"$now\" = \"$last\" ] || echo \"eth1 has carrier: $now\"
            last=$now
          done
        }
        watch &
        (until ping -c 1 -W 1 10.2.0.10 >/dev/null; do :; done; echo reaches v2) &
        (while :; do nc -l -p 7 </dev/null; done) >/dev/null 2>&1 &
";

/// What gives root a password, `secret`, in the guest that is looked at: it asks for a login then.
const PASSWORD: &str = "        sed -i 's|^root::|root:$1$netloom$QBrzA8qYbU0.RprzUFQXe1:|' /etc/passwd
";

/// A kind of guest that is told what it is at its console alone, and asked there whether it has booted.
const TYPIST: &str = r#"name = "typist"
description = "A guest that is configured at its console"
runtime = "libvirt"
verified = false
source = "a test of netloom's"

[interfaces]
pattern = "port{n}"
first = 1
max = 4

[resources]
cpu_request_millis = 1000
memory_request_mib = 128

[readiness]
method = "command"
command = ["test", "-e", "/data/boots"]
timeout_s = 300

[console]
method = "serial"

[command_line]
ends = "status"
user = "root"
error = "not found"

[config.startup]
method = "serial"
enter = ["cd /data"]
leave = ["cd /"]

[config.save]
method = "file"
command = ["sh", "-c", "ip -4 -o address show dev eth1 | awk '{ print $4 }' > /data/saved; hostname >> /data/saved"]
path = "/data/saved"
"#;

/// The addresses of the two on the management network: the last of it, and the one that is fixed.
const MGMT: [&str; 2] = ["172.30.7.254", "172.30.7.20"];

/// The example, as a lab of this name: one machine that asks for a login, and one from a raw disk that is told what it is at its console. Both are on a management network.
fn example(lab: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/vm-and-container.clab.yml");
    let text = std::fs::read_to_string(&path).expect("the example");
    let route = "        ip route replace default via 10.1.0.1\n";
    let v1 = "    v1:\n      kind: linux\n";
    let own = [
        ("name: vm-and-container", format!("name: {lab}\nmgmt: {{ipv4-subnet: 172.30.7.0/24}}")),
        (v1, format!("{v1}      env: {{PASSWORD: secret}}\n      save-file: /data/who\n      exec: [\"sh -c 'id -un >/data/who'\"]\n")),
        (route, format!("{route}{SCRIPT}{PASSWORD}")),
        (
            "    v2:\n      kind: linux\n",
            format!("    v2:\n      kind: typist\n      image: netloom/guest:raw\n      mgmt-ipv4: {}\n", MGMT[1]),
        ),
        (
            "        #!/bin/sh\n        ip route replace default via 10.2.0.1\n",
            "        hostname v2\n        ip addr add 172.30.7.20/24 dev eth0\n        ip addr add 10.2.0.10/24 dev eth1\n        ip route replace default via 10.2.0.1\n        pwd >where\n"
                .into(),
        ),
        ("\"v2:eth1\"]\n      ipv4: [\"\", 10.2.0.10/24]\n", "\"v2:port1\"]\n".into()),
    ];
    own.iter().fold(text, |text, (from, to)| {
        assert!(text.contains(from), "{from:?} is not in {text}");
        text.replacen(from, to, 1)
    })
}

/// Once every call of libvirt froze every endpoint. Of calls that must not wait for it, the 99th in 100 is as quick as ever; what it takes exactly is for `make bench`.
fn answers_at_once(sandbox: &Sandbox, lab: &str, time: Duration) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let _within = runtime.enter();
    let of = |socket| HealthClient::new(Connector::default().channel(&Endpoint::Unix(socket)));
    let mut health = [of(sandbox.socket()), of(sandbox.path().join("run/compute.sock"))];
    let mut took = Vec::new();
    let end = Instant::now() + time;
    while Instant::now() < end {
        for client in &mut health {
            let begin = Instant::now();
            let checked = runtime.block_on(client.check(HealthCheckRequest::default()));
            took.push(begin.elapsed());
            assert_eq!(checked.expect("an answer").into_inner().status, 1, "it serves");
        }
        let begin = Instant::now();
        let nodes = sandbox.get(&format!("/v1/labs/{lab}/nodes")).expect("an answer").body;
        took.push(begin.elapsed());
        assert_eq!(nodes["nodes"].as_array().map(Vec::len), Some(4), "{nodes}");
    }
    took.sort();
    let p99 = took[took.len() * 99 / 100];
    assert!(p99 < Duration::from_millis(500), "of {} calls the 99th in 100 took {p99:?}", took.len());
}

#[test]
fn a_lab_of_virtual_machines_and_containers_works() {
    let test = "main::virtual_machines::a_lab_of_virtual_machines_and_containers_works";
    if !crate::real(test) || !require(test, "libvirt") {
        return;
    }
    let kinds = tempfile::tempdir().expect("a directory");
    std::fs::write(kinds.path().join("typist.toml"), TYPIST).expect("a kind");
    // Its own Docker, whose networks are where its libvirt is.
    let more = format!("kinds_dir = {:?}", kinds.path());
    let mut sandbox = Sandbox::prepare_with_docker(Mode::Five, &more, &["netloom/frr:local"]);
    let libvirtd = Libvirtd::start_by(sandbox.in_namespace("unshare"));
    sandbox.use_libvirt(libvirtd.uri());
    sandbox.run_programs();
    sandbox.wait_until_healthy();
    let host = || sandbox.get("/v1/hosts/local").map(|r| r.body).unwrap_or_default();
    eventually("libvirt answers", BOUND, || host()["state"] == "HOST_STATE_ONLINE");
    let (runs, why) = (host()["acceleration"].clone(), host()["accelerationReason"].clone());
    let is_emulated =
        runs == "ACCELERATION_EMULATED" && why.as_str().is_some_and(|why| why.contains("/dev/kvm"));
    assert!(is_emulated || runs == "ACCELERATION_KVM", "{runs} {why}");

    let lab = sandbox.lab("vms");
    let text = example(&lab);
    let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/vm-and-container");
    run("cp", &["-r", &files.display().to_string(), &sandbox.path().display().to_string()]).must();
    // Before anything is made it is known that the disk is not there.
    let refused = sandbox.try_deploy(&text);
    assert!(!refused.ok() && refused.stderr.contains("IMAGE_MISSING"), "{}", refused.stderr);
    assert!(refused.stderr.contains("netloom image push"), "{}", refused.stderr);
    let disk = guest().display().to_string();
    sandbox.netloom(&["image", "push", &disk, "netloom/guest:local"]).must();
    let raw = sandbox.path().join("guest.raw").display().to_string();
    run("qemu-img", &["convert", "-O", "raw", &disk, &raw]).must();
    sandbox.netloom(&["image", "push", &raw, "netloom/guest:raw", "--content", "raw"]).must();

    let said = sandbox.deploy(&text);
    for step in ["v1  RUNNING", "v1  READY", "r1  READY"] {
        assert!(said.stdout.contains(step), "{step:?} is not in {}", said.stdout);
    }
    let shown = sandbox.lab_json(&lab);
    for (field, value) in [("readyCount", 4), ("vmCount", 2), ("containerCount", 2), ("upLinkCount", 3)] {
        assert_eq!(shown[field], value, "{field} in {shown}");
    }
    let v1 = sandbox.node_json(&lab, "v1");
    assert_eq!(
        (&v1["runtime"], &v1["state"]),
        (&"RUNTIME_LIBVIRT".into(), &"NODE_STATE_READY".into()),
        "{v1}"
    );
    let image = sandbox.get("/v1/images/netloom/guest:local").expect("the image").body;
    assert_eq!(v1["imageDigest"], image["stored"]["digest"], "it is made from what was judged");
    let raw = sandbox.get("/v1/images/netloom/guest:raw").expect("the image").body;
    assert_eq!(raw["stored"]["format"], "IMAGE_FORMAT_RAW", "{raw}");
    assert_eq!(sandbox.node_json(&lab, "v2")["imageDigest"], raw["stored"]["digest"]);
    // What machines run on is not taken away from under them.
    let refused = sandbox.netloom(&["image", "rm", "netloom/guest:local"]);
    assert!(!refused.ok() && refused.stderr.contains("IMAGE_IN_USE"), "{}", refused.stderr);
    assert!(refused.stderr.contains(&lab), "{}", refused.stderr);
    sandbox.netloom(&["image", "gc", "--unused", "-y"]).must();
    let kept = sandbox.get("/v1/images/netloom/guest:local").expect("the image").body;
    assert_eq!(kept["stored"]["digest"], image["stored"]["digest"]);

    // A container reaches both machines, and one machine the other, across both containers.
    for address in ["10.1.0.10", "10.2.0.10"] {
        let reaches = || in_node(&sandbox, &lab, "r1", &["ping", "-c", "1", "-W", "1", address]).ok();
        eventually(&format!("r1 reaches {address}"), BOUND, reaches);
    }
    management(&sandbox, &lab);
    let log = || sandbox.netloom(&["logs", &lab, "v1"]).must().stdout;
    eventually("v1 reaches v2", BOUND, || log().contains("reaches v2"));
    assert!(log().contains("netloom guest is ready (boot 1)"), "{}", log());

    // A cable is pulled: the guest sees it, and that it is plugged again.
    let times = |what: &str| log().matches(&format!("eth1 has carrier: {what}")).count();
    eventually("v1 has carrier", BOUND, || times("1") > 0);
    for (verb, seen) in [("down", "0"), ("up", "1")] {
        let before = times(seen);
        sandbox.netloom(&["link", verb, &lab, "r1:eth2--v1:eth1"]).must();
        eventually(&format!("v1 sees that its link is {verb}"), BOUND, || times(seen) > before);
    }

    commands_and_configurations(&sandbox, &lab);

    // Stopped and started it is the same machine, with its disk, and its commands are run again.
    exec(&sandbox, &lab, "v1", &["rm", "/data/who"]);
    sandbox.netloom(&["node", "restart", &lab, "v1"]).must();
    assert!(log().contains("netloom guest is ready (boot 2)"), "{}", log());
    // What its guest says by itself may stand between.
    let said = || exec(&sandbox, &lab, "v1", &["cat", "/data/who", "/data/boots"]);
    eventually("its commands were run again", BOUND, || said() == ("root\n2\n".to_owned(), 0));

    links_and_snapshots(&sandbox, &lab);

    // What libvirt does not tell any more is not shown as if it had just been read, and what is not libvirt's is.
    let started = || ["v1", "v2"].map(|node| sandbox.node_json(&lab, node)["startTime"].clone());
    let state = |node: &str| sandbox.node_json(&lab, node)["state"].clone();
    let before = started();
    libvirtd.freeze();
    answers_at_once(&sandbox, &lab, Duration::from_secs(4));
    eventually("what hangs is unknown", BOUND, || state("v1") == "NODE_STATE_UNKNOWN");
    assert_eq!(state("r1"), "NODE_STATE_READY");
    libvirtd.thaw();
    let ready = || ["v1", "v2"].map(state).iter().all(|state| state == "NODE_STATE_READY");
    eventually("all is as it was", BOUND, ready);
    assert_eq!(started(), before, "nothing was started again");

    sandbox.netloom(&["destroy", &lab, "-y"]).must();
    assert_eq!(libvirtd.virsh(&["list", "--all", "--name"]).expect("virsh").trim(), "");
    let instances = std::fs::read_dir(sandbox.data_dir().join("instances")).expect("a directory");
    assert_eq!(instances.count(), 0, "disks go with their machines");
    assert_eq!(sandbox.leftovers(), Vec::<String>::new());
}

/// Machines are on the management network, where the host and containers reach them.
fn management(sandbox: &Sandbox, lab: &str) {
    let shown = sandbox.netloom(&["inspect", lab]).must().stdout;
    for (node, address) in ["v1", "v2"].into_iter().zip(MGMT) {
        assert_eq!(sandbox.node_json(lab, node)["mgmtIpv4"], address);
        assert!(shown.contains(address), "{shown}");
        let reaches = || in_node(sandbox, lab, "r1", &["ping", "-c", "1", "-W", "1", address]).ok();
        eventually(&format!("r1 reaches {node} by management"), BOUND, reaches);
    }
    let connects = || {
        let mut bash = sandbox.in_namespace("bash");
        bash.args(["-c", &format!("</dev/tcp/{}/7", MGMT[0])]).stderr(std::process::Stdio::null());
        bash.status().is_ok_and(|status| status.success())
    };
    eventually("the host connects to v1", BOUND, connects);
}

/// A machine that runs is given a link, goes back to what it was, and to its image.
fn links_and_snapshots(sandbox: &Sandbox, lab: &str) {
    // A link that is added to it while it runs is up without a restart, and the same NIC is there when it was gone.
    let nic = || {
        let v1 = sandbox.node_json(lab, "v1");
        let interfaces = v1["interfaces"].as_array().cloned().unwrap_or_default();
        let eth2 = interfaces.into_iter().find(|i| i["guestName"] == "eth2").unwrap_or_default();
        (v1["startTime"].clone(), eth2["mac"].clone(), eth2["link"].clone())
    };
    let (started, ..) = nic();
    sandbox.netloom(&["link", "add", lab, "v1:eth2", "r1:eth3"]).must();
    let (still, mac, link) = nic();
    assert!(still == started && mac.is_string() && link != "", "{still} {mac} {link}");
    let up = || sandbox.lab_json(lab)["upLinkCount"] == 4;
    eventually("the new link is up", BOUND, up);
    assert_eq!(exec(sandbox, lab, "v1", &["cat", "/sys/class/net/eth2/mtu"]), ("9500\n".to_owned(), 0));
    sandbox.netloom(&["link", "remove", lab, "v1:eth2"]).must();
    assert_eq!(nic(), (started.clone(), mac.clone(), "".into()), "a NIC outlives its cable");
    sandbox.netloom(&["link", "add", lab, "v1:eth2", "r1:eth3"]).must();
    eventually("it is up again", BOUND, up);
    assert_eq!((nic().0, nic().1), (started, mac));

    // What it was is kept, and it goes back to that; a wipe takes it back to its image.
    let snapshot = |rest: &[&str]| sandbox.netloom(&[&["node", "snapshot"], rest].concat());
    snapshot(&["create", lab, "v1", "kept"]).must();
    assert!(snapshot(&["list", lab, "v1"]).must().stdout.contains("kept"));
    let container = snapshot(&["create", lab, "r1", "kept"]);
    assert!(container.stderr.contains("SNAPSHOT_NOT_SUPPORTED"), "{}", container.stderr);
    let missing = snapshot(&["restore", lab, "v1", "lost", "-y"]);
    assert!(missing.stderr.contains("SNAPSHOT_NOT_FOUND"), "{}", missing.stderr);
    let said = snapshot(&["restore", lab, "v1", "kept", "-y"]).must().stdout;
    assert!(said.contains("Restored v1"), "{said}");
    eventually("its links are up again", BOUND, up);
    sandbox.netloom(&["node", "wipe", lab, "v1", "-y"]).must();
    let log = sandbox.netloom(&["logs", lab, "v1"]).must().stdout;
    let last = log.rsplit_once("netloom guest is ready ").map(|(_, boot)| boot.to_owned());
    assert!(last.is_some_and(|boot| boot.starts_with("(boot 1)")), "{log}");
    assert_eq!(snapshot(&["list", lab, "v1", "--format", "json"]).must().stdout.matches("kept").count(), 0);
    assert_eq!(sandbox.node_json(lab, "v1")["mgmtIpv4"], MGMT[0], "it has its address still");
}

/// Commands in machines, and the configurations that they were told and tell.
fn commands_and_configurations(sandbox: &Sandbox, lab: &str) {
    // What is exec in the file ran before the node was ready, by whom its env says; so does what is asked for now.
    assert_eq!(exec(sandbox, lab, "v1", &["cat", "/data/who"]), ("root\n".to_owned(), 0));
    assert_eq!(exec(sandbox, lab, "v1", &["sh", "-c", "echo out; exit 3"]), ("out\n".to_owned(), 3));
    // A container and a machine are asked at once.
    let both = sandbox.netloom(&["exec", lab, "r1", "v1", "--prefix", "--", "echo", "hello"]).must().stdout;
    assert!(both.contains("r1") && both.matches("hello").count() == 2, "{both}");
    // What it starts with was typed where its kind says, and is there.
    assert_eq!(exec(sandbox, lab, "v2", &["cat", "/data/where"]), ("/data\n".to_owned(), 0));
    let shell = sandbox.netloom(&["exec", lab, "v2", "--", "sh", "-c", "exit 0"]);
    assert!(shell.ok(), "{}", shell.stderr);
    let dir = sandbox.path().join("saved");
    let saved = sandbox.netloom(&["save", lab, "--dir", &dir.display().to_string()]).must().stdout;
    assert!(saved.contains("4 configurations saved"), "{saved}");
    let config = |node| std::fs::read_to_string(dir.join(format!("{node}.cfg"))).expect("a configuration");
    assert_eq!(config("v2"), "10.2.0.10/24\nv2\n");
    // Of a plain Linux it is what its node says, whatever runs it.
    assert_eq!(config("v1"), "root\n");
}

/// A command in a node: what it wrote, and its exit code.
fn exec(sandbox: &Sandbox, lab: &str, node: &str, command: &[&str]) -> (String, i32) {
    let ran = sandbox.netloom(&[&["exec", lab, node, "--"], command].concat());
    assert!(ran.stderr.is_empty(), "{}", ran.stderr);
    (ran.stdout, ran.code)
}
