//! Machines that share a base image.

use netloom_model::id::Digest;

use super::console::{boot, ready_by_console};
use crate::rig::Rig;

/// The base's digest as it is on the disk now, past the page cache.
fn digest(rig: &Rig) -> Digest {
    use std::os::unix::fs::OpenOptionsExt as _;
    #[repr(align(4096))]
    struct Block([u8; 1 << 16]);
    let mut file =
        std::fs::File::options().read(true).custom_flags(nix::libc::O_DIRECT).open(rig.base()).unwrap();
    let (mut block, mut all) = (Box::new(Block([0; 1 << 16])), Vec::new());
    loop {
        match std::io::Read::read(&mut file, &mut block.0).unwrap() {
            0 => return Digest::of(&all),
            n => all.extend(&block.0[..n]),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_machines_write_and_their_base_stays_as_it_is() {
    let Some(rig) = Rig::libvirt("two_machines_write_and_their_base_stays_as_it_is").await else { return };
    let before = digest(&rig);
    assert_eq!(before.to_string(), rig.image());
    let (one, two) = (ready_by_console(rig.instance("r1")), ready_by_console(rig.instance("r2")));
    // Each counts its boots on its disk: by the time that they are ready they have written.
    tokio::join!(boot(&rig, &one), boot(&rig, &two));
    assert_eq!(digest(&rig), before, "while they run");
    for machine in [&one, &two] {
        let live = rig.libvirtd.unwrap().virsh(&["dumpxml", &machine.name]).unwrap();
        let disks = live.matches("<disk ").count();
        assert_eq!((disks, live.matches("cache='none' io='native'").count()), (1, 1), "{live}");
        assert!(live.contains(&rig.base().display().to_string()), "on the shared base: {live}");
        let overlay = rig.data_dir().join(format!("instances/{}/disk.qcow2", machine.uid));
        assert!(std::fs::metadata(overlay).unwrap().len() > 200_000, "it was written to");
    }
    assert!(rig.remove(&[], &[rig.lab_uid]).await.is_empty());
    assert_eq!(digest(&rig), before, "after they are gone");
    assert_eq!(
        std::fs::read_dir(rig.data_dir().join("instances")).unwrap().count(),
        0,
        "their disks are too"
    );
}
