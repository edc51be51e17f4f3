//! A guest sees carrier as the network service sets its tap up and down.

use std::io::Write as _;
use std::process::Command;

use netloom_model::observed::Observed;
use netloom_model::slice::Instance;
use netloom_service::handover::Machine;
use netloom_service::testing::eventually;

use super::console::{boot, ready_by_console};
use super::handover::cabled;
use crate::rig::{BOUND, NICS, Rig};

fn ip(arguments: &[&str]) {
    assert!(Command::new("ip").args(arguments).status().unwrap().success(), "ip {arguments:?}");
}

/// What the guest says of carrier of its data port, asked over its console.
async fn seen(rig: &Rig, one: &Instance) -> String {
    let terminal = rig.libvirtd.unwrap().virsh(&["ttyconsole", &one.name]).unwrap();
    let mut terminal = std::fs::File::options().write(true).open(terminal.trim()).unwrap();
    let before = rig.log(one.uid).await.matches("carrier=").count();
    // The echo of what is typed does not have the word.
    terminal.write_all(b"echo car''rier=$(cat /sys/class/net/eth1/carrier)\n").unwrap();
    let log = || async { rig.log(one.uid).await };
    eventually("the guest answers", BOUND, || async { log().await.matches("carrier=").count() > before })
        .await;
    let log = log().await;
    let last = log.rsplit_once("carrier=").unwrap().1;
    last.chars().take_while(char::is_ascii_digit).collect()
}

/// Waits until the guest sees carrier or not, and the hand-over says so.
async fn until_seen(rig: &Rig, one: &Instance, started: &Observed, carrier: bool) {
    let file = rig.run_dir().join("netns").join(format!("{}.{}", started.uid, started.start_id));
    let wire = one.nics[0].wire_id;
    eventually("it is read back", BOUND, || async {
        Machine::read(&file).is_some_and(|machine| machine.carrier.contains(&wire) == carrier)
    })
    .await;
    let expected = if carrier { "1" } else { "0" };
    eventually("the guest sees it", BOUND, || async { seen(rig, one).await == expected }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_sees_a_cable_as_its_tap_is_up() {
    let Some(mut rig) = Rig::libvirt("a_guest_sees_a_cable_as_its_tap_is_up").await else { return };
    let mut one = ready_by_console(rig.instance("r1"));
    one.nics = vec![cabled("eth1")];
    let started = boot(&rig, &one).await;
    let tap = one.nics[0].wire_id.interface_name(NICS);
    // libvirt has set the tap up; nobody has taken it over, so there is no cable.
    until_seen(&rig, &one, &started, false).await;
    // As the network service does it.
    ip(&["link", "set", &tap, "down"]);
    ip(&["link", "set", &tap, "alias", "netloom:test"]);
    for up in [true, false, true] {
        ip(&["link", "set", &tap, if up { "up" } else { "down" }]);
        until_seen(&rig, &one, &started, up).await;
    }
    // A service that starts again changes nothing of it, and hears what it missed.
    rig.stop().await;
    assert_eq!(seen_without_service(&rig, &one), "up");
    rig.start().await;
    rig.sync(std::slice::from_ref(&one)).await;
    until_seen(&rig, &one, &started, true).await;
    rig.stop().await;
    ip(&["link", "set", &tap, "down"]);
    assert_eq!(seen_without_service(&rig, &one), "up");
    rig.start().await;
    rig.sync(std::slice::from_ref(&one)).await;
    until_seen(&rig, &one, &started, false).await;
    assert!(rig.remove(&[one.uid], &[rig.lab_uid]).await.is_empty());
}

/// What libvirt says of the link of the data port.
fn seen_without_service(rig: &Rig, one: &Instance) -> String {
    let tap = one.nics[0].wire_id.interface_name(NICS);
    let said = rig.libvirtd.unwrap().virsh(&["domif-getlink", &one.name, &tap]).unwrap();
    said.split_whitespace().last().unwrap_or_default().to_owned()
}
