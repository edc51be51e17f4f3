//! What a machine that runs is given and goes back to: NICs, snapshots, and a wipe. One boot for all of it.

use std::collections::BTreeSet;
use std::io::Write as _;

use netloom_model::id::{NodeUid, WireId};
use netloom_model::observed::{ExecPhase, Observed, Phase};
use netloom_model::slice::{Instance, wiped_hash};
use netloom_model::state::Wanted;
use netloom_proto::compute::v1 as p;
use netloom_service::handover::Machine;
use netloom_service::status::from_status;
use netloom_service::testing::eventually;

use super::console::{boot, ready_by_console};
use super::handover::cabled;
use crate::rig::{BOUND, NICS, Rig};

/// What a command prints in the guest, asked over its console.
pub async fn ask(rig: &Rig, one: &Instance, command: &str) -> String {
    let terminal = rig.libvirtd.unwrap().virsh(&["ttyconsole", &one.name]).unwrap();
    let mut terminal = std::fs::File::options().write(true).open(terminal.trim()).unwrap();
    let log = || async { rig.log(one.uid).await };
    let before = log().await.matches("answer=").count();
    // The echo of what is typed does not have the word.
    terminal.write_all(format!("echo ans''wer=$({command})=; sync\n").as_bytes()).unwrap();
    let answered = || async { log().await.matches("answer=").count() > before };
    eventually("the guest answers", BOUND, answered).await;
    let log = log().await;
    log.rsplit_once("answer=").unwrap().1.split('=').next().unwrap().to_owned()
}

/// Waits until the guest has these NICs.
async fn sees(rig: &Rig, one: &Instance, nics: &str) {
    let has = || async { ask(rig, one, "ls /sys/class/net").await == nics };
    eventually("the guest sees its NICs", BOUND, has).await;
}

impl Rig {
    pub async fn snapshots(&self, uid: NodeUid) -> Vec<(String, bool)> {
        let request = p::ListSnapshotsRequest { ticket: self.ticket(uid, "snapshot"), uid: uid.to_string() };
        let all = self.client.clone().list_snapshots(request).await.unwrap().into_inner().snapshots;
        assert!(all.iter().all(|s| s.taken_ns > 1_600_000_000_000_000_000 && s.size_bytes > 100_000));
        all.into_iter().map(|s| (s.id, s.has_memory)).collect()
    }

    pub async fn keep(&self, uid: NodeUid, name: &str) -> Result<p::DiskSnapshot, tonic::Status> {
        self.keep_once(uid, name, "").await
    }

    async fn keep_once(&self, uid: NodeUid, name: &str, id: &str) -> Result<p::DiskSnapshot, tonic::Status> {
        let (ticket, uid) = (self.ticket(uid, "snapshot"), uid.to_string());
        let (snapshot, request_id) = (name.to_owned(), id.to_owned());
        let request = p::CreateSnapshotRequest { ticket, uid, snapshot, request_id };
        self.client.clone().create_snapshot(request).await.map(tonic::Response::into_inner)
    }

    async fn forget(&self, uid: NodeUid, name: &str) -> Result<p::DeleteSnapshotResponse, tonic::Status> {
        let (ticket, uid) = (self.ticket(uid, "snapshot"), uid.to_string());
        let request = p::DeleteSnapshotRequest { ticket, uid, snapshot: name.to_owned() };
        self.client.clone().delete_snapshot(request).await.map(tonic::Response::into_inner)
    }

    /// The NICs that a start goes without, by its hand-over.
    fn lacks(&self, start: &Observed) -> BTreeSet<WireId> {
        let file = self.run_dir().join("netns").join(format!("{}.{}", start.uid, start.start_id));
        Machine::read(&file).map(|machine| machine.lacks).unwrap_or_default()
    }

    /// Asks for it and waits until it is ready in this restart.
    pub async fn ready_again(&self, one: &Instance) -> Observed {
        self.ensure(std::slice::from_ref(one)).await;
        let (restarts, hash) = (one.restarts, one.spec_hash.clone());
        let runs = |o: &Observed| o.phase == Phase::Running && o.restarts == restarts && o.spec_hash == hash;
        let started = self.until_node(one.uid, "runs again", runs).await;
        self.settle(&started).await;
        let ready = |o: &Observed| o.start_id == started.start_id && o.exec_phase == ExecPhase::Done;
        self.until_node(one.uid, "is ready again", ready).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_machine_is_given_nics_and_goes_back_to_what_it_was() {
    let test = "a_running_machine_is_given_nics_and_goes_back_to_what_it_was";
    let Some(mut rig) = Rig::libvirt(test).await else { return };
    let libvirtd = rig.libvirtd.unwrap();
    let mut one = ready_by_console(rig.instance("r1"));
    one.nics = vec![cabled("eth1")];
    one.spec.exec = vec!["sh -c 'echo run >> /data/runs; sync'".to_owned()];
    let first = boot(&rig, &one).await;
    assert_eq!(ask(&rig, &one, "ls /sys/class/net").await, "eth0 eth1 lo");
    one.nics.extend(["eth2", "eth3"].map(cabled));
    rig.ensure(std::slice::from_ref(&one)).await;
    sees(&rig, &one, "eth0 eth1 eth2 eth3 lo").await;

    // With its memory, once: a second one of the name finds the first, however soon it comes; and the same request is answered the same.
    ask(&rig, &one, "echo one > /data/mark").await;
    let terminal = libvirtd.virsh(&["ttyconsole", &one.name]).unwrap();
    let mut terminal = std::fs::File::options().write(true).open(terminal.trim()).unwrap();
    terminal.write_all(b"IN_MEMORY=kept\n").unwrap();
    assert_eq!(ask(&rig, &one, "echo $IN_MEMORY").await, "kept");
    let in_the_way = rig.data_dir().join(format!("instances/{}/snapshots", one.uid));
    std::fs::write(&in_the_way, "").unwrap();
    let refused = rig.keep(one.uid, "before").await.unwrap_err();
    assert_eq!(from_status(&refused).reason, "HOST_ERROR");
    assert_eq!(rig.snapshots(one.uid).await, [], "nothing is kept by halves");
    std::fs::remove_file(&in_the_way).unwrap();
    let (id, other) = ("0192f0c1-2345-7000-8000-000000000001", "0192f0c1-2345-7000-8000-000000000002");
    let (taken, again) =
        tokio::join!(rig.keep_once(one.uid, "before", id), rig.keep_once(one.uid, "before", id));
    let taken = taken.unwrap();
    assert!(taken.has_memory && taken.size_bytes > 20 << 20, "{taken:?}");
    assert_eq!(again.unwrap(), taken);
    let again = rig.keep_once(one.uid, "before", other).await.unwrap_err();
    assert_eq!(from_status(&again).reason, "SNAPSHOT_EXISTS");
    assert_eq!(rig.view.borrow().instances[&one.uid].start_id, first.start_id, "it went on");
    ask(&rig, &one, "echo two > /data/mark").await;

    // As many as there are spare slots are added, in order and without a restart; what is beyond is told.
    one.nics.extend(["eth4", "eth5", "eth6"].map(cabled));
    rig.ensure(std::slice::from_ref(&one)).await;
    let last: BTreeSet<WireId> = one.nics.iter().rev().take(1).map(|nic| nic.wire_id).collect();
    eventually("the last is told", BOUND, || async { rig.lacks(&first) == last }).await;
    let taps = || libvirtd.virsh(&["domiflist", &one.name]).unwrap();
    let there = taps();
    for nic in &one.nics {
        let has = there.contains(&nic.wire_id.interface_name(NICS)) && there.contains(&nic.mac);
        assert_eq!(has, nic.guest_name != "eth6", "{}: {there}", nic.guest_name);
    }
    sees(&rig, &one, "eth0 eth1 eth2 eth3 eth4 eth5 lo").await;
    let macs = ask(&rig, &one, "cat /sys/class/net/eth3/address").await;
    assert_eq!(macs, one.nics[2].mac, "in their order");
    // One that loses its cable stays.
    let mut fewer = one.clone();
    fewer.nics.truncate(3);
    rig.ensure(std::slice::from_ref(&fewer)).await;
    eventually("nothing is lacking", BOUND, || async { rig.lacks(&first).is_empty() }).await;
    assert_eq!(taps(), there);
    assert_eq!(rig.view.borrow().instances[&one.uid].start_id, first.start_id, "it ran on");
    one.nics.truncate(5);

    // What is kept outlives this service.
    rig.stop().await;
    rig.start().await;
    rig.sync(std::slice::from_ref(&one)).await;
    rig.until_phase(one.uid, Phase::Running).await;
    assert_eq!(rig.snapshots(one.uid).await, [("before".to_owned(), true)]);

    // It goes on where it was, as another start that has the NICs of now, and what is done once in a start is not done again.
    (one.restarts, one.restore) = (1, "before".to_owned());
    let restored = rig.ready_again(&one).await;
    assert_ne!(restored.start_id, first.start_id);
    assert_eq!(ask(&rig, &one, "cat /data/mark").await, "one");
    assert_eq!(ask(&rig, &one, "echo $IN_MEMORY").await, "kept", "its memory is back");
    sees(&rig, &one, "eth0 eth1 eth2 eth3 eth4 eth5 lo").await;
    assert_eq!(ask(&rig, &one, "grep -c run /data/runs").await, "1");
    assert_eq!(libvirtd.virsh(&["snapshot-list", "--name", &one.name]).unwrap().trim(), "");

    // Of one that is off its disk is kept; a snapshot is for one start.
    one.wanted = Wanted::Stopped;
    rig.ensure(std::slice::from_ref(&one)).await;
    rig.until_phase(one.uid, Phase::Stopped).await;
    let (taken, again) = tokio::join!(rig.keep(one.uid, "off"), rig.keep(one.uid, "off"));
    let (taken, again) = if taken.is_ok() { (taken, again) } else { (again, taken) };
    assert!(!taken.unwrap().has_memory);
    assert_eq!(from_status(&again.unwrap_err()).reason, "SNAPSHOT_EXISTS");
    let both = [("before".to_owned(), true), ("off".to_owned(), false)];
    assert_eq!(rig.snapshots(one.uid).await, both);

    // What libvirt was left with, since this service ended meanwhile, is not in the way of its name.
    libvirtd.virsh(&["snapshot-create-as", &one.name, "netloom-lost"]).unwrap();
    rig.forget(one.uid, "lost").await.unwrap();
    let known = || libvirtd.virsh(&["snapshot-list", "--name", &first.instance_id]).unwrap();
    assert_eq!(known().trim(), "netloom-lost");
    one.wanted = Wanted::Aside;
    rig.ensure(std::slice::from_ref(&one)).await;
    rig.until_phase(one.uid, Phase::Aside).await;
    assert_eq!((known().trim(), rig.snapshots(one.uid).await), ("", both.to_vec()));
    (one.wanted, one.restarts, one.restore) = (Wanted::Running, 2, String::new());
    let booted = rig.ready_again(&one).await;
    assert!(rig.log(one.uid).await.contains("(boot 2)"), "it booted");
    assert_eq!(ask(&rig, &one, "grep -c run /data/runs").await, "2", "with its commands");
    for name in ["before", "off"] {
        rig.forget(one.uid, name).await.unwrap();
    }
    assert_eq!(rig.snapshots(one.uid).await, []);
    let missing = rig.forget(one.uid, "before").await.unwrap_err();
    assert_eq!(from_status(&missing).reason, "SNAPSHOT_NOT_FOUND");
    assert_eq!(rig.view.borrow().instances[&one.uid].start_id, booted.start_id, "it ran on");

    // A wipe takes its disk with its snapshots.
    rig.keep(one.uid, "last").await.unwrap();
    let disk = rig.data_dir().join(format!("instances/{}/disk.qcow2", one.uid));
    let disk = std::fs::File::open(disk).unwrap();
    (one.wipes, one.restarts) = (1, 3);
    one.spec_hash = wiped_hash(&one.spec_hash, one.wipes);
    rig.ensure(std::slice::from_ref(&one)).await;
    let anew = |o: &Observed| o.phase == Phase::Running && o.restarts == 3;
    rig.until_node(one.uid, "runs anew", anew).await;
    assert_eq!(std::os::unix::fs::MetadataExt::nlink(&disk.metadata().unwrap()), 0, "the disk is gone");
    assert_eq!(rig.snapshots(one.uid).await, []);

    // A snapshot that is asked for while the machine is removed is taken before, or not at all.
    let (uids, labs) = ([one.uid], [rig.lab_uid]);
    let (left, _) = tokio::join!(rig.remove(&uids, &labs), rig.keep(one.uid, "late"));
    assert!(left.is_empty());
    assert!(!rig.data_dir().join(format!("instances/{}", one.uid)).exists(), "nothing is left behind");
}
