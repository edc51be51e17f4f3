//! Domains that are not ours are not touched.

use netloom_model::id::Owner;
use netloom_model::observed::Phase;

use crate::rig::{Rig, Undo};

/// Defines a domain of somebody else's.
fn define(rig: &Rig, name: &str, metadata: &str) -> Undo {
    let libvirtd = rig.libvirtd.unwrap();
    let xml = format!(
        "<domain type='qemu'><name>{name}</name>{metadata}<memory unit='MiB'>16</memory><os><type arch='x86_64' machine='pc'>hvm</type></os></domain>"
    );
    let file = rig.dir.path().join("foreign.xml");
    std::fs::write(&file, xml).unwrap();
    libvirtd.virsh(&["define", &file.display().to_string()]).unwrap();
    let name = name.to_owned();
    Undo::new(move || drop(libvirtd.virsh(&["undefine", &name]).unwrap()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_domain_of_somebody_else_under_our_name_is_told_and_left() {
    let test = "a_domain_of_somebody_else_under_our_name_is_told_and_left";
    let Some(rig) = Rig::libvirt(test).await else { return };
    let one = rig.instance("r1");
    let _undo = define(&rig, &one.name, "");
    rig.sync(std::slice::from_ref(&one)).await;
    let failed = rig.until_phase(one.uid, Phase::Failed).await;
    assert!(
        failed.detail.contains("not this installation's") && failed.detail.contains(&one.name),
        "{}",
        failed.detail
    );
    assert!(rig.remove(&[one.uid], &[rig.lab_uid]).await.is_empty());
    rig.libvirtd.unwrap().virsh(&["dominfo", &one.name]).expect("it is untouched");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_of_another_installation_is_not_even_seen() {
    let Some(rig) = Rig::libvirt("a_machine_of_another_installation_is_not_even_seen").await else { return };
    let one = rig.instance("r1");
    let name = format!("{}-other", one.name);
    let metadata = format!(
        "<metadata><n:instance xmlns:n='urn:netloom:instance:1' owner='{}' uid='{}' lab-uid='{}' lab='x' node='r1' spec-hash='h' image='i' cpu-millis='0' memory-bytes='0' cpu-set='' started='0'/></metadata>",
        Owner::new(),
        one.uid,
        rig.lab_uid
    );
    let _undo = define(&rig, &name, &metadata);
    rig.run(&rig.instance("r2")).await;
    assert!(rig.remove(&[one.uid], &[rig.lab_uid]).await.is_empty());
    assert!(!rig.view.borrow().instances.contains_key(&one.uid));
    rig.libvirtd.unwrap().virsh(&["dominfo", &name]).expect("it is untouched");
}
