//! What a guest is told at its start.

use netloom_model::slice::MachineNic;

use super::console::{boot, ready_by_console};
use super::serial::Console;
use crate::rig::{Rig, rehash};

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_is_told_its_name_its_addresses_and_its_configuration() {
    let test = "a_guest_is_told_its_name_its_addresses_and_its_configuration";
    let Some(rig) = Rig::libvirt(test).await else { return };
    let mut one = ready_by_console(rig.instance("r1"));
    rig.sync(&[]).await;
    one.files = vec![rig.put("r1.cfg", b"hostname told-so\n").await];
    one.spec.startup_config = "r1.cfg".into();
    let wire_id = u64::from_str_radix(&rig.lab.as_str()[1..], 16).unwrap().try_into().unwrap();
    let nic = MachineNic {
        wire_id,
        guest_name: "eth1".into(),
        mac: "02:00:00:00:00:17".into(),
        mtu: 1400,
        addresses: vec!["10.9.8.7/24".into()],
    };
    one.nics = vec![nic];
    rehash(&mut one);
    let first = boot(&rig, &one).await;
    let live = rig.libvirtd.unwrap().virsh(&["dumpxml", &one.name]).unwrap();
    assert!(live.contains("<readonly/>") && live.matches("cache='none' io='native'").count() == 2, "{live}");
    let mut console = Console::open(&rig, &one).await;
    // The label where ISO 9660 has it, then lines of its files.
    console.says("dd if=/dev/vdb bs=1 skip=32808 count=6 2>/dev/null; echo .", "cidata.").await;
    console.says("grep name: /dev/vdb", "\nlocal-hostname: r1").await;
    console.says("grep -A3 'macaddress:.*:17' /dev/vdb", "    set-name: eth1").await;
    console.says("grep -A1 'addresses:$' /dev/vdb", "      - \"10.9.8.7/24\"").await;
    console.says("grep told- /dev/vdb", "hostname told-so").await;
    console.says("echo x >/dev/vdb || echo kept", "\nkept").await;
    // What is changed is told at the next start.
    one.nics[0].addresses = vec!["10.9.8.77/24".into()];
    one.restarts = 1;
    rig.ensure(std::slice::from_ref(&one)).await;
    let again = |o: &netloom_model::observed::Observed| o.restarts == 1 && o.start_id != first.start_id;
    let second = rig.until_node(one.uid, "restarted", again).await;
    rig.settle(&second).await;
    let booted = |o: &netloom_model::observed::Observed| {
        o.start_id == second.start_id && o.exec_phase == netloom_model::observed::ExecPhase::Done
    };
    rig.until_node(one.uid, "booted", booted).await;
    let mut console = Console::open(&rig, &one).await;
    console.says("grep 8.77/ /dev/vdb", "      - \"10.9.8.77/24\"").await;
}
