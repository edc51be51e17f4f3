//! Machines on the management network of their lab, and being ready by a port there. One boot for all of it.

use netloom_model::observed::{ExecPhase, NOT_READY, Observed, Phase};
use netloom_model::slice::{Network, Readiness, ReadinessCheck};
use netloom_model::spec::{MgmtSpec, NodeSpec};
use netloom_model::state::Runtime;
use netloom_service::testing::eventually;
use tokio::net::TcpStream;

use super::serial::Console;
use crate::docker::image;
use crate::rig::{BOUND, Rig, rehash};

fn answers(port: u16, timeout_seconds: u32) -> Option<Readiness> {
    let check = ReadinessCheck::TcpPort(port.try_into().unwrap());
    Some(Readiness { check, timeout_seconds })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_is_on_the_management_network_and_ready_when_its_port_answers() {
    let test = "a_machine_is_on_the_management_network_and_ready_when_its_port_answers";
    let Some(rig) = Rig::libvirt_and_docker(test).await else { return };
    // Of a range for documentation (RFC 5737), cut small so that tests side by side do not meet.
    let part = rig.owner.to_string().bytes().map(u32::from).sum::<u32>() % 32 * 8;
    let address = |n: u32| format!("192.0.2.{}", part + n);
    let bridge = format!("nlt{}", &rig.owner.to_string()[24..32]);
    let spec = MgmtSpec {
        ipv4_subnet: format!("192.0.2.{part}/29"),
        bridge: bridge.clone(),
        mtu: 1400,
        ..MgmtSpec::default()
    };
    let name = format!("nltest-{}", rig.lab);
    // One of the lab's containers is to have the last address.
    let network = Network { name: name.clone(), spec, fixed: vec![address(6)], ..Network::default() };
    let mut one = rig.instance("vm");
    one.network = Some(network.clone());
    one.readiness = answers(7, 120);
    rehash(&mut one);
    let first = rig.run(&one).await;
    assert_eq!(first.mgmt_ipv4, address(5), "from the end, without what is fixed");
    rig.settle(&first).await;
    let waits = |o: &Observed| o.detail.contains("TCP port 7 of its management address is to answer");
    rig.until_node(one.uid, "it says what it waits for", waits).await;

    // A container on the same network, made later.
    let mut other = rig.instance("c");
    other.runtime = Runtime::Docker;
    other.spec = NodeSpec {
        id: "c".into(),
        kind: "linux".into(),
        image: image::NAME.into(),
        cmd: vec!["/bin/sleep".into(), "1000000".into()],
        ..NodeSpec::default()
    }
    .into();
    other.network = Some(network);
    rehash(&mut other);
    let container = rig.run(&other).await;
    assert_eq!(container.mgmt_ipv4, address(2));

    // Docker knows of no machine: it would give a container the address of one.
    let mut same = rig.instance("same");
    (same.runtime, same.spec, same.network) = (other.runtime, other.spec.clone(), other.network.clone());
    (same.spec.id, same.spec.mgmt_ipv4) = ("same".into(), address(5));
    rehash(&mut same);
    rig.ensure(std::slice::from_ref(&same)).await;
    let refused = rig.until_phase(same.uid, Phase::Failed).await;
    let says =
        format!("{} on the management network {name} is the address of machine vm already", address(5));
    assert!(refused.detail.contains(&says), "{}", refused.detail);
    assert!(rig.remove(&[same.uid], &[]).await.is_empty());

    // The guest is told its address; it is not ready for having booted.
    let mut console = Console::open(&rig, &one).await;
    console.until("it has booted", |c| c.text.contains("guest is ready (boot 1)")).await;
    console.says("ip -4 -o addr show dev eth0", &format!("inet {}/29", address(5))).await;
    console.says("cat /sys/class/net/eth0/carrier /sys/class/net/eth0/mtu", "1400").await;
    assert_eq!(rig.view.borrow().instances[&one.uid].exec_phase, ExecPhase::Running);
    let (_, pinged) = rig.sh(other.uid, &format!("ping -c 1 -W 5 {}", address(5))).await;
    assert_eq!(pinged, 0, "a container reaches it");
    console.says("(while :; do nc -l -p 7 </dev/null; done) >/dev/null 2>&1 & echo open''ed", "opened").await;
    // Who is ready is given what is typed at its console, once nobody types there.
    drop(console);
    rig.until_node(one.uid, "its port answers", |o| o.exec_phase == ExecPhase::Done).await;
    let connected = || async { TcpStream::connect(format!("{}:7", address(5))).await.is_ok() };
    eventually("the host reaches it", BOUND, connected).await;

    // Only what is read back is told.
    let taps = rig.libvirtd.unwrap().virsh(&["domiflist", &one.name]).unwrap();
    let tap = taps.lines().find(|line| line.contains(&bridge)).unwrap().split_whitespace().next().unwrap();
    let ip = |arguments: &[&str]| std::process::Command::new("ip").args(arguments).status().unwrap();
    assert!(ip(&["link", "set", tap, "nomaster"]).success());
    let lost = |o: &Observed| o.mgmt_ipv4.is_empty() && o.detail.contains("not on its management network");
    rig.until_node(one.uid, "it is told that it is not there any more", lost).await;
    assert!(ip(&["link", "set", tap, "master", &bridge]).success());
    let back = |o: &Observed| o.mgmt_ipv4 == address(5) && o.detail.is_empty();
    rig.until_node(one.uid, "it is back", back).await;

    // Started again it has its address again; a port that never opens is told.
    (one.restarts, one.readiness) = (1, answers(9, 3));
    rig.ensure(std::slice::from_ref(&one)).await;
    let again = |o: &Observed| o.phase == Phase::Running && o.restarts == 1;
    let second = rig.until_node(one.uid, "started again", again).await;
    assert_eq!(second.mgmt_ipv4, address(5));
    rig.settle(&second).await;
    let late = |o: &Observed| o.start_id == second.start_id && o.exec_phase == ExecPhase::Failed;
    let late = rig.until_node(one.uid, "it is late", late).await;
    let says =
        format!("{NOT_READY} 3 s: TCP port 9 of its management address does not answer at {}", address(5));
    assert!(late.exec_error.starts_with(&says), "{}", late.exec_error);
    assert!(rig.remove(&[one.uid, other.uid], &[]).await.is_empty());
    rig.until("both are gone", |v| v.instances.is_empty()).await;
    assert!(rig.remove(&[], &[rig.lab_uid]).await.is_empty());
    assert!(!ip(&["link", "show", &bridge]).success(), "the network goes with the lab");
}
