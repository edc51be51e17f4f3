//! Disks that go to another host: refused where there are none, and whole on the other host where there are.

use std::path::PathBuf;

use netloom_model::id::NodeUid;
use netloom_model::observed::Phase;
use netloom_model::slice::Instance;
use netloom_model::state::Wanted;
use netloom_proto::compute::v1 as p;
use netloom_service::status::from_status;
use p::disk_part::Part;
use tonic::Status;

use crate::rig::{Rig, eventually};

suite!(what_has_no_disk_of_its_own_gives_none);

/// Reads a disk to its end.
pub async fn read(rig: &Rig, uid: NodeUid, size_only: bool) -> Result<Vec<p::DiskPart>, Status> {
    let request = p::ReadDiskRequest { term: 1, uid: uid.to_string(), size_only };
    let mut stream = rig.client.clone().read_disk(request).await?.into_inner();
    let mut parts = Vec::new();
    while let Some(part) = stream.message().await? {
        parts.push(part);
    }
    Ok(parts)
}

/// Writes these parts as the disk of a node.
pub async fn write(rig: &Rig, uid: NodeUid, parts: Vec<p::DiskPart>) -> Result<(), Status> {
    let request = move |part| p::WriteDiskRequest { term: 1, uid: uid.to_string(), part: Some(part) };
    let parts = tokio_stream::iter(parts.into_iter().map(request).collect::<Vec<_>>());
    rig.client.clone().write_disk(parts).await.map(drop)
}

/// The other host's.
pub fn successor(rig: &Rig, of: &Instance) -> Instance {
    let there = rig.instance(&of.spec.id);
    Instance { disk_of: Some(of.origin()), ..there }
}

fn reason(refused: Status) -> String {
    from_status(&refused).reason
}

fn instances(rig: &Rig) -> PathBuf {
    rig.data_dir().join("instances")
}

fn entries(dir: PathBuf) -> Vec<String> {
    let all = std::fs::read_dir(dir).unwrap();
    all.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

async fn what_has_no_disk_of_its_own_gives_none(rig: Rig) {
    if rig.libvirtd.is_some() {
        return a_disk_is_whole_on_the_other_host_or_not_there(rig).await;
    }
    let one = rig.instance("r1");
    rig.run(&one).await;
    for size_only in [false, true] {
        let refused = read(&rig, one.uid, size_only).await.unwrap_err();
        assert_eq!(reason(refused), "DISK_NOT_SUPPORTED");
    }
    let begin = p::DiskPart { part: Some(Part::Begin(p::DiskBegin { size_bytes: 1 })) };
    let refused = write(&rig, NodeUid::new(), vec![begin]).await.unwrap_err();
    assert_eq!(reason(refused), "DISK_NOT_SUPPORTED");
}

async fn a_disk_is_whole_on_the_other_host_or_not_there(rig: Rig) {
    let other = Rig::tiny("carry").await.expect("it is there: the first one is");
    let mut one = rig.instance("r1");
    rig.run(&one).await;
    // How large it is is told of one that runs, and no more.
    let size = |parts: &[p::DiskPart]| match &parts[0].part {
        Some(Part::Begin(begin)) => begin.size_bytes,
        part => panic!("{part:?}"),
    };
    let parts = read(&rig, one.uid, true).await.unwrap();
    assert!(parts.len() == 1 && size(&parts) > 0, "{parts:?}");
    assert_eq!(reason(read(&rig, one.uid, false).await.unwrap_err()), "BUSY");
    let request = p::ReadDiskRequest { term: 0, uid: one.uid.to_string(), size_only: false };
    assert_eq!(reason(rig.client.clone().read_disk(request).await.unwrap_err()), "STALE_TERM");

    one.wanted = Wanted::Aside;
    rig.ensure(std::slice::from_ref(&one)).await;
    rig.until_phase(one.uid, Phase::Aside).await;
    let disk = instances(&rig).join(one.uid.to_string()).join("disk.qcow2");
    let mut command = std::process::Command::new("qemu-io");
    command.args(["-f", "qcow2", "-c", "write -P 0xa5 64k 64k"]).arg(&disk);
    let written = command.output().unwrap();
    assert!(written.status.success(), "{written:?}");
    let parts = read(&rig, one.uid, false).await.unwrap();
    let of_data = |part: &p::DiskPart| match &part.part {
        Some(Part::Data(data)) => data.content.len() as u64,
        _ => 0,
    };
    assert_eq!(parts.iter().map(of_data).sum::<u64>(), size(&parts));

    let new = successor(&other, &one);
    other.sync(&[]).await;
    // Without its disk it is not made.
    other.ensure(std::slice::from_ref(&new)).await;
    let failed = other.until_phase(new.uid, Phase::Failed).await;
    assert!(failed.detail.contains("is to come from another host"), "{failed:?}");
    assert!(other.remove(&[new.uid], &[]).await.is_empty());

    // What breaks off, or comes as something else, leaves nothing.
    let cut = parts[..parts.len() - 1].to_vec();
    assert_eq!(reason(write(&other, new.uid, cut).await.unwrap_err()), "DISK_CUT_OFF");
    let mut spoiled = parts.clone();
    let data = spoiled.iter_mut().find_map(|part| match &mut part.part {
        Some(Part::Data(data)) => Some(data),
        _ => None,
    });
    data.unwrap().content[0] ^= 1;
    assert_eq!(reason(write(&other, new.uid, spoiled).await.unwrap_err()), "DISK_CUT_OFF");
    let mut large = parts.clone();
    large[0].part = Some(Part::Begin(p::DiskBegin { size_bytes: 1 << 60 }));
    assert_eq!(reason(write(&other, new.uid, large).await.unwrap_err()), "DISK_FULL");
    let mut foreign = parts.clone();
    foreign[1].part = Some(Part::File(p::DiskFile { name: "../../passwd".into(), size_bytes: 1 }));
    assert_eq!(reason(write(&other, new.uid, foreign.clone()).await.unwrap_err()), "RUNTIME_REFUSED");
    foreign[1].part = Some(Part::File(p::DiskFile { name: "nvram.fd".into(), size_bytes: 65 << 20 }));
    assert_eq!(reason(write(&other, new.uid, foreign).await.unwrap_err()), "RUNTIME_REFUSED");
    let headless = parts[1..].to_vec();
    assert_eq!(reason(write(&other, new.uid, headless).await.unwrap_err()), "INVALID_REQUEST");
    assert_eq!(entries(instances(&other)), [] as [String; 0]);
    // One that lies on an image that is not here.
    let base = other.data_dir().join("images").join(&other.image()["sha256:".len()..]);
    let away = base.with_extension("away");
    std::fs::rename(&base, &away).unwrap();
    assert_eq!(reason(write(&other, new.uid, parts.clone()).await.unwrap_err()), "IMAGE_NOT_FOUND");
    std::fs::rename(&away, &base).unwrap();

    write(&other, new.uid, parts.clone()).await.unwrap();
    // Said again it is there already, whatever comes.
    write(&other, new.uid, vec![parts[0].clone()]).await.unwrap();
    other.ensure(std::slice::from_ref(&new)).await;
    other.until_phase(new.uid, Phase::Running).await;
    let virsh = |command| other.libvirtd.unwrap().virsh(&[command, &new.name]).unwrap();
    let live = virsh("dumpxml");
    let there = instances(&other).join(new.uid.to_string()).join("disk.qcow2");
    assert!(live.contains(&*there.to_string_lossy()) && live.contains(&*base.to_string_lossy()), "{live}");
    // The same machine to its guest, whose NICs it knows by their addresses.
    let mac = |xml: &str| xml.split("<mac address='").nth(1).unwrap()[..17].to_owned();
    let former = rig.libvirtd.unwrap().virsh(&["dumpxml", &aside(&rig, &one)]).unwrap();
    assert_eq!(mac(&live), mac(&former));
    let mut stopped = new.clone();
    stopped.wanted = Wanted::Stopped;
    other.ensure(&[stopped]).await;
    other.until_phase(new.uid, Phase::Stopped).await;
    let mut command = std::process::Command::new("qemu-io");
    command.args(["-f", "qcow2", "-c", "read -P 0xa5 64k 64k"]).arg(&there);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && !said.contains("failed"), "{said}");

    // What was brought and wiped before it was made does not go on to yet another host.
    let wiped = Instance { wipes: 1, wanted: Wanted::Stopped, ..successor(&other, &one) };
    write(&other, wiped.uid, parts.clone()).await.unwrap();
    let sized = async || size(&read(&other, wiped.uid, false).await.unwrap());
    assert_eq!(sized().await, size(&parts));
    other.ensure(std::slice::from_ref(&wiped)).await;
    assert_eq!(sized().await, 0);
    assert!(other.remove(&[wiped.uid], &[]).await.is_empty());

    // What was brought and never made goes with what is removed.
    let never = successor(&other, &one);
    write(&other, never.uid, parts.clone()).await.unwrap();
    assert!(other.remove(&[never.uid, new.uid], &[]).await.is_empty());
    assert_eq!(reason(write(&other, never.uid, parts).await.unwrap_err()), "LAB_REMOVED");
    eventually("nothing is left", async || entries(instances(&other)).is_empty()).await;
    assert!(rig.remove(&[one.uid], &[]).await.is_empty());
}

/// The name of the domain of a machine that is set aside.
fn aside(rig: &Rig, one: &Instance) -> String {
    let all = rig.libvirtd.unwrap().virsh(&["list", "--all", "--name"]).unwrap();
    all.split_whitespace().find(|name| name.starts_with(&one.name)).expect("it is set aside").to_owned()
}
