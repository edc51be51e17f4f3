use super::*;
use crate::driver::libvirt::identity::tests::identity;
use crate::driver::libvirt::medium;
use netloom_model::kind::{Catalogue, Kind, Startup};
use netloom_model::spec::NodeSpec;
use netloom_service::testing::libvirt::Libvirtd;

/// The XML of a machine of this kind with so many NICs.
fn of_kind(kind: &str, kvm: bool, nics: usize) -> String {
    let catalogue = Catalogue::embedded();
    let vm = catalogue.get(kind).and_then(|k| k.vm.clone()).expect("a kind of virtual machines");
    let nics: Vec<Nic> = (0..nics)
        .map(|n| Nic {
            tap: format!("nl000000000000{n}"),
            mac: format!("02:00:00:00:00:0{n}"),
            mtu: if n > 0 { 9500 } else { 0 },
            // Management is on a bridge where there are other NICs.
            bridge: if n == 0 && nics > 1 { "nlm0123456789ab".to_owned() } else { String::new() },
        })
        .collect();
    let disks = [Path::new("/d/instances/u/disk.qcow2"), Path::new("/d/instances/u/data.qcow2")];
    domain(&Machine {
        name: "netloom-x-r1",
        id: "0192f0c1-2345-4000-8000-0000000000d1",
        identity: &identity(),
        vm: &vm,
        kvm,
        cpus: 2,
        cpu_set: if !kvm { "0-1" } else { "" },
        memory_bytes: 256 << 20,
        disks: if vm.data_disk_gib > 0 { &disks } else { &disks[..1] },
        medium: medium(&catalogue.get(kind).unwrap().config.startup),
        nics: &nics,
        console_log: Path::new("/d/instances/u/console/7.log"),
        // One that came from another host brings it.
        nvram: (nics.len() > 1).then_some(Path::new("/d/instances/u/nvram.fd")),
    })
}

/// A machine of a kind that reads its configuration from a medium is shown with one.
fn medium(startup: &Startup) -> Option<Medium<'static>> {
    let spec = NodeSpec { startup_config: "c".into(), ..NodeSpec::default() };
    let file = Path::new("/d/instances/u/config.iso");
    medium::is_cd(startup, &spec).map(|is_cd| Medium { file, is_cd })
}

/// Compares with a file beside this one, which `NETLOOM_UPDATE_GOLDEN=1` writes anew.
fn golden(name: &str, xml: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/driver/libvirt/xml/golden").join(name);
    if std::env::var_os("NETLOOM_UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, xml).unwrap();
    }
    let expected = std::fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(xml, expected, "{} differs; NETLOOM_UPDATE_GOLDEN=1 writes it anew", file.display());
}

#[test]
fn a_machine_of_each_make_is_as_it_was() {
    golden("tcl.xml", &of_kind("tcl", false, 2));
    // Older machine, EFI, two serial ports, a masked processor, SATA.
    golden("cisco_n9kv.xml", &of_kind("cisco_n9kv", true, 3));
    golden("cat-sdwan-manager.xml", &of_kind("cat-sdwan-manager", true, 1));
}

#[test]
fn no_disk_of_any_kind_has_a_cache() {
    let catalogue = Catalogue::embedded();
    let mut disks = 0;
    for kind in catalogue.kinds().filter(|k| k.vm.is_some()) {
        for kvm in [true, false] {
            let xml = of_kind(&kind.name, kvm, 2);
            let all = xml.matches("<disk ").count();
            let safe = xml.matches(" cache='none' io='native'/>").count();
            assert_eq!((all, xml.matches("cache=").count()), (safe, safe), "{}", kind.name);
            disks += all;
        }
    }
    assert!(disks > 40, "all kinds were looked at: {disks}");
}

/// Which machine types, buses, NIC models and processors go together is for libvirt and QEMU to say.
#[test]
fn libvirt_takes_the_machine_of_each_kind() {
    let test = "libvirt_takes_the_machine_of_each_kind";
    if !["libvirt", "root"].iter().all(|need| netloom_service::testing::require(test, need)) {
        return;
    }
    let libvirtd = Libvirtd::start();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("domain.xml").display().to_string();
    let catalogue = Catalogue::embedded();
    let mut refused = Vec::new();
    let has_firmware = netloom_service::testing::require(test, "efi");
    let is_looked_at = |k: &&Kind| k.vm.as_ref().is_some_and(|vm| has_firmware || !vm.efi);
    for kind in catalogue.kinds().filter(is_looked_at) {
        // Without the device libvirt knows of no KVM.
        let ways = [(false, 1), (false, 3), (true, 3)]
            .into_iter()
            .filter(|(kvm, _)| !kvm || Path::new("/dev/kvm").exists());
        for (kvm, nics) in ways {
            std::fs::write(&file, of_kind(&kind.name, kvm, nics)).unwrap();
            // The second also makes QEMU's command line of it, as a start does.
            for command in
                [["define", "--validate", file.as_str()], ["domxml-to-native", "qemu-argv", file.as_str()]]
            {
                let said = libvirtd.virsh(&command).err();
                refused.extend(
                    said.map(|said| format!("{} kvm={kvm} nics={nics} {}: {said}", kind.name, command[0])),
                );
            }
            let _ = libvirtd.virsh(&["undefine", "--nvram", "netloom-x-r1"]);
        }
    }
    assert!(refused.is_empty(), "{}", refused.join(""));
}

#[test]
fn names_of_files_cannot_break_out() {
    assert_eq!(text("a'b\"<c>&"), "a&apos;b&quot;&lt;c&gt;&amp;");
}
