//! A container and a virtual machine are the same to who uses them: both are talked to, say what is kept, live on without the service, come back when they are killed, are late without being lost, and
//! are left alone where they are somebody else's.

use std::collections::HashMap;
use std::sync::Arc;

use bollard::models::ContainerCreateBody;
use bollard::query_parameters::{CreateContainerOptionsBuilder, InspectContainerOptions};
use netloom_model::id::Owner;
use netloom_model::observed::{ExecPhase, NOT_READY, Observed, Phase};
use netloom_model::slice::{Instance, Readiness, ReadinessCheck};
use netloom_model::spec::RestartPolicy;

use crate::docker::image;
use crate::libvirt::Console;
use crate::rig::{Rig, Undo, connect, rehash};

suite!(
    it_is_talked_to_lives_on_without_the_service_and_comes_back_when_it_is_killed,
    what_is_never_ready_runs_on_and_says_so,
    what_is_somebody_elses_is_told_where_it_is_in_the_way_and_left_alone,
);

/// An instance that says when it is up, and those words.
fn talkative(rig: &Rig, node: &str) -> (Instance, &'static str) {
    let mut one = rig.commanded(node);
    one.spec.restart_policy = RestartPolicy::Always;
    if rig.has_machines() {
        return (one, "tiny guest is up (boot 1)");
    }
    one.spec.cmd = ["/bin/sh", "-c", "echo start 1; exec sleep 1000000"].map(str::to_owned).to_vec();
    rehash(&mut one);
    (one, "start 1\n")
}

/// Has it compute something: a container by a command, a machine at its console.
async fn talk(rig: &Rig, one: &Instance) {
    let ask = "echo $((6 * 7))";
    if rig.has_machines() {
        let mut console = Console::open(rig, one).await;
        console.type_in("C\r").await;
        console.until("it counts", |c| c.text.contains("0000\r\n") && c.text.contains("1f3f\r\n")).await;
    } else {
        let expected = if rig.is_docker { "42\n".to_owned() } else { format!("/bin/sh -c {ask}\n") };
        assert_eq!(rig.sh(one.uid, ask).await, (expected, 0));
    }
}

async fn it_is_talked_to_lives_on_without_the_service_and_comes_back_when_it_is_killed(mut rig: Rig) {
    let (one, says) = talkative(&rig, "r1");
    let first = rig.run(&one).await;
    rig.settle(&first).await;
    rig.until_node(one.uid, "it is up", |o| o.exec_phase == ExecPhase::Done).await;
    talk(&rig, &one).await;
    assert!(rig.log(one.uid).await.contains(says));

    rig.stop().await;
    rig.start().await;
    let found = rig.until_phase(one.uid, Phase::Running).await;
    assert!(!found.wanted && !rig.view.borrow().synced, "nobody has said yet what is wanted");
    rig.sync(std::slice::from_ref(&one)).await;
    let adopted = rig.until_node(one.uid, "wanted", |o| o.wanted).await;
    assert_eq!((&adopted.instance_id, &adopted.start_id), (&first.instance_id, &first.start_id));
    talk(&rig, &one).await;
    assert!(rig.log(one.uid).await.contains(says), "what it said before is there");

    rig.kill(&one).await;
    let ended = rig.until_node(one.uid, "ended", |o| o.phase != Phase::Running).await;
    assert_eq!(ended.exit_code, Some(137));
    assert!(ended.detail.starts_with("exited with 137; starts again in 1 s"), "{}", ended.detail);
    let again = |o: &Observed| o.phase == Phase::Running && o.restart_count == 1;
    let next = rig.until_node(one.uid, "started again", again).await;
    assert_eq!(next.instance_id, first.instance_id, "the same one");
    assert_ne!(next.start_id, first.start_id);
    assert!(rig.log(one.uid).await.contains(says), "of its first start");
    assert!(rig.remove(&[one.uid], &[rig.lab_uid]).await.is_empty());
    rig.until("gone", |v| v.instances.is_empty()).await;
}

async fn what_is_never_ready_runs_on_and_says_so(rig: Rig) {
    let mut one = rig.instance("r1");
    let check = ReadinessCheck::LogPattern("^never said$".to_owned());
    one.readiness = Some(Readiness { check, timeout_seconds: 2 });
    let started = rig.run(&one).await;
    rig.settle(&started).await;
    let late = rig.until_node(one.uid, "it is late", |o| o.exec_phase == ExecPhase::Failed).await;
    assert_eq!((late.phase, late.start_id), (Phase::Running, started.start_id));
    let why = &late.exec_error;
    assert!(why.starts_with(&format!("{NOT_READY} 2 s: ")) && why.contains("never said"), "{why}");
}

/// Something of somebody else's.
struct Foreign {
    name: String,
    /// Docker's id of it; empty of a domain.
    id: String,
    _undo: Undo,
}

impl Foreign {
    /// Makes one that does not run. It is of nobody, or of another installation that says the same of it as this one would.
    async fn make(rig: &Rig, name: &str, of: Option<&Instance>) -> Foreign {
        let owner = Owner::new();
        let name = name.to_owned();
        let Some(libvirtd) = rig.libvirtd else {
            let docker = Arc::new(connect().await.unwrap());
            let labels = of.map(|one| {
                HashMap::from([
                    ("netloom.owner".to_owned(), owner.to_string()),
                    ("netloom.uid".to_owned(), one.uid.to_string()),
                    ("netloom.lab-uid".to_owned(), rig.lab_uid.to_string()),
                ])
            });
            let body = ContainerCreateBody {
                image: Some(image::NAME.into()),
                network_disabled: Some(true),
                labels,
                ..ContainerCreateBody::default()
            };
            let options = CreateContainerOptionsBuilder::default().name(&name).build();
            let id = docker.create_container(Some(options), body).await.unwrap().id;
            return Foreign { _undo: Undo::container(docker, name.clone()), id, name };
        };
        let metadata = of.map_or_else(String::new, |one| {
            format!(
                "<metadata><n:instance xmlns:n='urn:netloom:instance:1' owner='{owner}' uid='{}' lab-uid='{}' lab='x' node='r1' spec-hash='h' image='i' cpu-millis='0' memory-bytes='0' cpu-set='' started='0'/></metadata>",
                one.uid, rig.lab_uid
            )
        });
        let xml = format!(
            "<domain type='qemu'><name>{name}</name>{metadata}<memory unit='MiB'>16</memory><os><type arch='x86_64' machine='pc'>hvm</type></os></domain>"
        );
        let file = rig.dir.path().join("foreign.xml");
        std::fs::write(&file, xml).unwrap();
        libvirtd.virsh(&["define", &file.display().to_string()]).unwrap();
        let gone = name.clone();
        let undo = Undo::new(move || drop(libvirtd.virsh(&["undefine", &gone]).unwrap()));
        Foreign { name, id: String::new(), _undo: undo }
    }

    async fn is_untouched(&self, rig: &Rig) -> bool {
        match rig.libvirtd {
            Some(libvirtd) => libvirtd.virsh(&["domstate", &self.name]).is_ok_and(|s| s.contains("shut off")),
            None => {
                let docker = connect().await.unwrap();
                docker.inspect_container(&self.id, None::<InspectContainerOptions>).await.is_ok()
            }
        }
    }
}

/// The sim driver's world has nothing of others in it: there is only that what is not ours is not seen.
async fn what_is_somebody_elses_is_told_where_it_is_in_the_way_and_left_alone(rig: Rig) {
    let (one, two) = (rig.instance("r1"), rig.instance("r2"));
    if !rig.is_docker && rig.libvirtd.is_none() {
        rig.run(&two).await;
        assert!(rig.remove(&[one.uid], &[]).await.is_empty());
        assert_eq!(rig.view.borrow().instances.keys().collect::<Vec<_>>(), [&two.uid]);
        return;
    }
    let in_the_way = Foreign::make(&rig, &one.name, None).await;
    let hidden = Foreign::make(&rig, &format!("{}-other", two.name), Some(&two)).await;
    rig.sync(std::slice::from_ref(&one)).await;
    let failed = rig.until_phase(one.uid, Phase::Failed).await;
    let why = &failed.detail;
    assert!(why.contains("not this installation's") && why.contains(&one.name), "{why}");
    // One that says the uid of what is removed, and is another installation's.
    assert!(rig.remove(&[one.uid, two.uid], &[rig.lab_uid]).await.is_empty());
    assert!(!rig.view.borrow().instances.contains_key(&two.uid), "it is not even seen");
    assert!(in_the_way.is_untouched(&rig).await && hidden.is_untouched(&rig).await);
}
