//! Ctrl-C on a terminal, and cancel.

use std::io::{Read as _, Write as _};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use netloom_api::v1 as api;
use netloom_service::testing::eventually;
use nix::libc;
use nix::pty::openpty;

use crate::fake::{Fake, Script};

const BOUND: Duration = Duration::from_secs(30);
const LAB: &str = "name: x\ntopology:\n  nodes:\n    a: {kind: linux, image: a:1}\n";

/// The program on a terminal of its own, which is its controlling one: what is typed there signals it.
struct OnTerminal {
    child: tokio::process::Child,
    master: std::fs::File,
    shown: Arc<Mutex<String>>,
}

impl OnTerminal {
    fn run(fake: &Fake, args: &[&str]) -> OnTerminal {
        let terminal = openpty(None, None).unwrap();
        let side = || terminal.slave.try_clone().unwrap();
        let mut command = fake.command(args);
        command.stdin(side()).stdout(side()).stderr(side());
        // SAFETY: only calls that are safe between fork and exec: a session of its own, and its standard input as its terminal.
        unsafe {
            command.pre_exec(|| {
                nix::unistd::setsid()?;
                match libc::ioctl(0, libc::TIOCSCTTY, 0) {
                    0 => Ok(()),
                    _ => Err(std::io::Error::last_os_error()),
                }
            });
        }
        let child = command.spawn().unwrap();
        let master = std::fs::File::from(terminal.master);
        let shown = Arc::new(Mutex::new(String::new()));
        let (mut reader, text) = (master.try_clone().unwrap(), shown.clone());
        std::thread::spawn(move || {
            let mut part = [0; 4096];
            // The end of a terminal is an error (EIO).
            while let Ok(read @ 1..) = reader.read(&mut part) {
                text.lock().unwrap().push_str(&String::from_utf8_lossy(&part[..read]));
            }
        });
        OnTerminal { child, master, shown }
    }

    fn shown(&self) -> String {
        self.shown.lock().unwrap().clone()
    }

    async fn wait_for(&self, text: &str) {
        eventually(&format!("\"{text}\" is shown"), BOUND, || async { self.shown().contains(text) }).await;
    }

    fn types(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).unwrap();
    }

    /// How it ended, once all that it wrote is read.
    async fn end(mut self, last: &str) -> (Option<i32>, String) {
        let status = tokio::time::timeout(BOUND, self.child.wait()).await.expect("it ends").unwrap();
        self.wait_for(last).await;
        (status.code(), self.shown())
    }
}

fn operation(kind: api::OperationKind, state: api::OperationState) -> api::Operation {
    let action = api::Action {
        verb: api::ActionVerb::Create.into(),
        object: "node".into(),
        id: "a".into(),
        ..api::Action::default()
    };
    api::Operation {
        name: "operations/1".into(),
        kind: kind.into(),
        lab_name: "labs/x".into(),
        state: state.into(),
        done: state != api::OperationState::Running,
        plan: Some(api::Plan { actions: vec![action], ..api::Plan::default() }),
        progress: vec![api::Progress {
            object: "node".into(),
            id: "a".into(),
            state: "STARTING".into(),
            detail: String::new(),
            boot: None,
        }],
        ..api::Operation::default()
    }
}

fn running(kind: api::OperationKind) -> api::Operation {
    operation(kind, api::OperationState::Running)
}

fn lab(state: api::LabState, operation: &str) -> api::Lab {
    api::Lab {
        name: "labs/x".into(),
        state: state.into(),
        operation: operation.into(),
        ..api::Lab::default()
    }
}

/// A lab that a deploy is under way in, which another deploy meets or begins.
fn script(met: bool) -> Script {
    let failure =
        netloom_model::Failure::new(netloom_model::Code::FailedPrecondition, "OPERATION_ACTIVE", "busy")
            .with("operation", "1")
            .with("lab", "x");
    let refusal = netloom_service::status::to_status(failure);
    Script {
        import_refusals: if met { vec![refusal] } else { Vec::new() },
        import: Some(Ok(running(api::OperationKind::Deploy))),
        change: Some(Ok(running(api::OperationKind::Stop))),
        operation: Some(running(api::OperationKind::Deploy)),
        watches: vec![(Vec::new(), None)],
        labs: vec![lab(api::LabState::Reconciling, "")],
        ..Script::default()
    }
}

#[tokio::test]
async fn ctrl_c_asks_in_a_deploy_and_in_one_that_is_followed_again() {
    for met in [false, true] {
        let fake = Fake::start(script(met)).await;
        fake.write("x.clab.yml", LAB);
        for (typed, said) in [("\n", "detached; the operation goes on"), ("\x03", "detached;")] {
            fake.script().import_refusals = script(met).import_refusals;
            let mut deploy = OnTerminal::run(&fake, &["deploy"]);
            deploy.wait_for("STARTING").await;
            deploy.types("\x03");
            deploy.wait_for("Detach, or cancel it? [D/c] ").await;
            deploy.types(typed);
            let (code, shown) = deploy.end(said).await;
            assert_eq!(code, Some(130), "{shown}");
            assert!(shown.contains("netloom cancel x cancels it"), "{shown}");
            assert!(!fake.methods().contains(&"CancelOperation"));
        }

        fake.script().import_refusals = script(met).import_refusals;
        let mut deploy = OnTerminal::run(&fake, &["deploy"]);
        deploy.wait_for("STARTING").await;
        deploy.types("\x03");
        deploy.wait_for("Detach, or cancel it? [D/c] ").await;
        deploy.types("c\n");
        deploy.wait_for("goes back to what was deployed before").await;
        eventually("it looks how the lab is", BOUND, || async {
            fake.methods().iter().filter(|m| **m == "GetLab").count() > 2
        })
        .await;
        assert!(fake.methods().contains(&"CancelOperation"));
        assert!(!deploy.shown().contains("is back"), "it waits for the way back: {}", deploy.shown());
        fake.script().labs = vec![lab(api::LabState::Running, "")];
        let (code, shown) = deploy.end("and is RUNNING").await;
        assert_eq!(code, Some(130), "{shown}");
        assert!(shown.contains("interrupted:") && shown.contains("cancelled; lab x is back at"), "{shown}");
    }
}

#[tokio::test]
async fn a_deploy_that_is_followed_again_is_cancelled_as_was_said_beforehand() {
    let mut script = script(true);
    script.labs = vec![lab(api::LabState::Running, "")];
    let fake = Fake::start(script).await;
    fake.write("x.clab.yml", LAB);
    let mut deploy = OnTerminal::run(&fake, &["deploy", "--on-interrupt", "cancel"]);
    deploy.wait_for("STARTING").await;
    deploy.types("\x03");
    let (code, shown) = deploy.end("cancelled; lab x is back at").await;
    assert_eq!(code, Some(130), "{shown}");
    assert!(!shown.contains("[D/c]"), "{shown}");
    let imports = fake.methods().iter().filter(|m| **m == "ImportLab").count();
    assert_eq!(imports, 1, "who cancels does not want the file applied again");
}

#[tokio::test]
async fn ctrl_c_asks_in_changes_of_nodes_and_links() {
    for args in [&["node", "stop", "x", "a"][..], &["link", "add", "x", "a:eth1", "b:eth1"]] {
        let fake = Fake::start(script(false)).await;
        fake.script().operation = Some(running(api::OperationKind::Stop));
        let mut change = OnTerminal::run(&fake, args);
        change.wait_for("STARTING").await;
        change.types("\x03");
        change.wait_for("The change of x goes on in the server. Detach, or cancel it? [D/c] ").await;
        change.types("cancel\n");
        let (code, shown) = change.end("stays asked").await;
        assert_eq!(code, Some(130), "{shown}");
        assert!(fake.methods().contains(&"CancelOperation"));
    }
}

#[tokio::test]
async fn ctrl_c_leaves_a_removal_without_asking() {
    let fake = Fake::start(script(false)).await;
    fake.script().deletes = vec![Ok(running(api::OperationKind::Destroy))];
    let mut removal = OnTerminal::run(&fake, &["destroy", "x", "-y"]);
    removal.wait_for("STARTING").await;
    removal.types("\x03");
    let (code, shown) = removal.end("the same netloom destroy x follows it again").await;
    assert_eq!(code, Some(130), "{shown}");
    assert!(!shown.contains("[D/c]") && !fake.methods().contains(&"CancelOperation"), "{shown}");
}

#[tokio::test]
async fn cancel_ends_what_is_under_way_and_waits() {
    let fake = Fake::start(script(false)).await;
    fake.script().labs = vec![lab(api::LabState::Running, "")];
    let nothing = fake.run(&["cancel", "x"]).await.expect(0);
    assert_eq!(nothing.out, "Nothing to cancel: no operation is under way in lab x\n");
    assert!(!fake.methods().contains(&"CancelOperation"));

    // What was cancelled goes back, which the lab shows.
    fake.script().labs = vec![lab(api::LabState::Deploying, "operations/1")];
    let child = fake.command(&["cancel", "x"]).spawn().unwrap();
    eventually("it is cancelled", BOUND, || async { fake.methods().contains(&"CancelOperation") }).await;
    fake.script().labs = vec![lab(api::LabState::Running, "")];
    let output = tokio::time::timeout(BOUND, child.wait_with_output()).await.expect("it ends").unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.starts_with("Cancelled the deploy: lab x is "), "{said}");

    // A first deploy is removed, and the removal waited for.
    fake.script().operation = Some(operation(api::OperationKind::Destroy, api::OperationState::Succeeded));
    fake.script().labs = vec![lab(api::LabState::Deleting, "operations/1")];
    let first = fake.run(&["cancel", "x"]).await.expect(0);
    assert!(first.out.contains("what was made of it is removed"), "{}", first.out);
    fake.run(&["cancel", "nowhere"]).await.expect(4);
}
