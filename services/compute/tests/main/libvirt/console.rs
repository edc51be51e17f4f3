//! What a machine says on its serial console, and being ready by it.

use netloom_model::observed::{ExecPhase, Observed, Phase};
use netloom_model::slice::{Readiness, ReadinessCheck};

use crate::rig::Rig;

/// Makes it ready by what its console says.
pub fn ready_by_console(mut one: netloom_model::slice::Instance) -> netloom_model::slice::Instance {
    let check = ReadinessCheck::LogPattern("guest is ready".to_owned());
    one.readiness = Some(Readiness { check, timeout_seconds: 120 });
    one
}

/// Runs it, and waits until it has booted.
pub async fn boot(rig: &Rig, one: &netloom_model::slice::Instance) -> Observed {
    let started = rig.run(one).await;
    rig.settle(&started).await;
    let booted = |o: &Observed| o.phase == Phase::Running && o.exec_phase == ExecPhase::Done;
    rig.until_node(one.uid, "booted", booted).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_is_ready_when_its_console_says_so() {
    let Some(rig) = Rig::libvirt("a_machine_is_ready_when_its_console_says_so").await else { return };
    let mut one = ready_by_console(rig.instance("r1"));
    boot(&rig, &one).await;
    let log = rig.log(one.uid).await;
    assert!(log.contains("netloom guest is ready (boot 1)"), "{log}");
    // Its disk stays over a restart, and so does what it said before.
    one.restarts = 1;
    rig.ensure(std::slice::from_ref(&one)).await;
    let again = |o: &Observed| o.phase == Phase::Running && o.restarts == 1;
    let started = rig.until_node(one.uid, "restarted", again).await;
    rig.settle(&started).await;
    let booted = |o: &Observed| o.start_id == started.start_id && o.exec_phase == ExecPhase::Done;
    rig.until_node(one.uid, "booted again", booted).await;
    let log = rig.log(one.uid).await;
    assert!(log.contains("(boot 1)") && log.contains("(boot 2)"), "{log}");
}
