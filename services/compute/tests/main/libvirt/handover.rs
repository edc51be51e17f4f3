//! How a running machine is handed over to the network service.

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use netloom_model::id::{NodeUid, WireId};
use netloom_model::observed::{Observed, Phase};
use netloom_model::slice::{Instance, MachineNic, mac_of};
use netloom_service::handover::Machine;
use netloom_service::testing::eventually;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::rig::{BOUND, NICS, Rig};

fn published(rig: &Rig) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(rig.run_dir().join("netns")).into_iter().flatten().flatten();
    entries.map(|e| e.path()).filter(|path| !path.ends_with(".changed")).collect()
}

fn path_of(rig: &Rig, o: &Observed) -> PathBuf {
    rig.run_dir().join("netns").join(format!("{}.{}", o.uid, o.start_id))
}

/// Waits until what is published is this start of it and nothing else.
async fn handed_over(rig: &Rig, one: &Instance, o: &Observed) {
    let qemu = rig.libvirtd.unwrap().qemu(&one.name).expect("it runs");
    let path = path_of(rig, o);
    eventually("it is handed over", BOUND, || async {
        published(rig) == [path.clone()] && Machine::read(&path).is_some_and(|machine| machine.pid == qemu)
    })
    .await;
    assert!(Machine::read(&path).unwrap().is_alive());
}

/// A NIC with a cable, of a wire id that nobody else has.
pub fn cabled(guest_name: &str) -> MachineNic {
    // The end of a UUIDv7 is random.
    let random = u64::from_str_radix(&NodeUid::new().to_string().replace('-', "")[18..], 16).unwrap();
    let wire_id = WireId::try_from(random | 1).unwrap();
    let (guest_name, mac, addresses) = (guest_name.to_owned(), mac_of(wire_id), Vec::new());
    MachineNic { wire_id, guest_name, mac, addresses, mtu: 1500 }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_is_handed_over_while_its_start_lives() {
    let Some(mut rig) = Rig::libvirt("a_machine_is_handed_over_while_its_start_lives").await else { return };
    let mut one = rig.instance("r1");
    one.nics = vec![cabled("eth1")];
    let first = rig.run(&one).await;
    handed_over(&rig, &one, &first).await;
    // Its tap is there before, and is called as the network service would call it.
    let tap = one.nics[0].wire_id.interface_name(NICS);
    assert!(std::path::Path::new("/sys/class/net").join(&tap).exists(), "{tap}");
    // Its guest is not offered to leave checksums to others.
    let qemu = rig.libvirtd.unwrap().qemu(&one.name).unwrap();
    let words = std::fs::read_to_string(format!("/proc/{qemu}/cmdline")).unwrap();
    let nics = words.split('\0').filter(|word| word.contains("virtio-net-pci"));
    let finished = nics.clone().filter(|nic| nic.contains("\"csum\":false") && nic.contains("\"gso\":false"));
    assert_eq!((nics.count(), finished.count()), (2, 2), "{words}");

    kill(Pid::from_raw(rig.libvirtd.unwrap().qemu(&one.name).unwrap()), Signal::SIGKILL).unwrap();
    let path = path_of(&rig, &first);
    eventually("it is taken back", BOUND, || async { !path.exists() }).await;
    let again = |o: &Observed| o.phase == Phase::Running && o.start_id != first.start_id;
    let second = rig.until_node(one.uid, "runs again", again).await;
    handed_over(&rig, &one, &second).await;

    // A service that starts again leaves it as it is, and takes away what is over: of an earlier start, and of before the host's own.
    let inode = || std::fs::metadata(path_of(&rig, &second)).unwrap().ino();
    let before = inode();
    rig.stop().await;
    let own = Machine::of(std::process::id() as i32).unwrap();
    own.write(&path).unwrap();
    let lost = rig.run_dir().join("netns").join(format!("{}.1", NodeUid::new()));
    Machine { started: own.started + 1, ..own }.write(&lost).unwrap();
    rig.start().await;
    rig.sync(std::slice::from_ref(&one)).await;
    handed_over(&rig, &one, &second).await;
    let inode = || std::fs::metadata(path_of(&rig, &second)).unwrap().ino();
    assert_eq!(inode(), before, "it was not made anew");

    assert!(rig.remove(&[one.uid], &[rig.lab_uid]).await.is_empty());
    eventually("nothing is published", BOUND, || async { published(&rig).is_empty() }).await;
}
