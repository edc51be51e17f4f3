//! What the same wish is on each driver, and how it is seen there that it came true: a container runs what a test writes, a virtual machine of one boot sector takes commands at its console, and the
//! sim driver does as labels say.

use netloom_model::slice::{Instance, Readiness, ReadinessCheck};
use netloom_model::spec::RestartPolicy;
use netloom_proto::compute::v1 as p;

use crate::rig::{Rig, eventually, rehash};
use crate::tiny::{SECOND, Tiny, UP};

impl Rig {
    /// True where instances are virtual machines.
    pub fn has_machines(&self) -> bool {
        self.libvirtd.is_some()
    }

    /// Makes it a machine that does this.
    pub fn program(&self, one: &mut Instance, tiny: Tiny<'_>) {
        one.spec.image = tiny.put(&self.data_dir()).to_string();
        (one.spec.cmd, one.spec.kind) = (Vec::new(), "tiny".into());
        rehash(one);
    }

    /// An instance whose process ends by itself, with 3 where it has an exit code: a machine has none, and is said to have ended with 0.
    pub fn short_lived(&self, node: &str, policy: RestartPolicy) -> (Instance, i32) {
        let mut one = self.instance(node);
        one.spec.restart_policy = policy;
        if self.has_machines() {
            self.program(&mut one, Tiny { ends_after: Some(SECOND), ..Tiny::default() });
            return (one, 0);
        }
        one.spec.cmd = ["/bin/sh", "-c", "sleep 0.3; exit 3"].map(str::to_owned).to_vec();
        one.spec.labels.insert("sim.exit-after-ms".into(), "300".into());
        one.spec.labels.insert("sim.exit-code".into(), "3".into());
        rehash(&mut one);
        (one, 3)
    }

    /// An instance to which commands can be given as soon as it is said to be ready.
    pub fn commanded(&self, node: &str) -> Instance {
        let mut one = self.instance(node);
        if self.has_machines() {
            let check = ReadinessCheck::LogPattern(UP.to_owned());
            one.readiness = Some(Readiness { check, timeout_seconds: 60 });
        }
        one
    }

    /// A command that leaves a word behind.
    pub fn leaves(&self, word: &str) -> String {
        if self.has_machines() { word.to_owned() } else { format!("/bin/sh -c 'echo {word} >> /order'") }
    }

    /// A command that fails with 1.
    pub fn fails(&self) -> &'static str {
        if self.has_machines() { "F" } else { "/bin/sh -c 'exit 1'" }
    }

    /// These words were left behind, in this order, and no others. The sim driver's commands leave nothing.
    pub async fn expect_left(&self, one: &Instance, words: &[&str]) {
        let left: Vec<String> = if self.is_docker {
            self.sh(one.uid, "cat /order").await.0.lines().map(str::to_owned).collect()
        } else if self.has_machines() {
            self.typed(one).await.into_iter().filter(|line| line != self.fails()).collect()
        } else {
            return;
        };
        assert_eq!(left, words);
    }

    /// What was typed at the prompt of a machine.
    pub async fn typed(&self, one: &Instance) -> Vec<String> {
        let log = self.log(one.uid).await;
        let lines = log.lines().filter_map(|line| line.strip_prefix("> "));
        lines.map(|line| line.trim_end().to_owned()).filter(|line| !line.is_empty()).collect()
    }

    /// Has it keep something on its disk. A machine counts its boots there by itself; the sim driver has no disks.
    pub async fn mark(&self, one: &Instance) {
        if self.is_docker {
            assert_eq!(self.sh(one.uid, "echo mine > /mine").await, (String::new(), 0));
        }
        if self.has_machines() {
            eventually("it counts", async || self.log(one.uid).await.contains("(boot 1)")).await;
        }
    }

    /// In its second start, what was kept on its disk is there, or is not.
    pub async fn expect_mark(&self, one: &Instance, is_there: bool) {
        if self.is_docker {
            assert_eq!(self.sh(one.uid, "cat /mine").await.1 == 0, is_there);
        }
        if self.has_machines() {
            let (boot, other) = if is_there { (2, 3) } else { (1, 2) };
            let log = async || self.log(one.uid).await;
            eventually("it counts", async || log().await.contains(&format!("(boot {boot})"))).await;
            assert!(!log().await.contains(&format!("(boot {other})")));
        }
    }

    /// A host refuses it, since no virtual machine has this.
    pub async fn expect_refused(&self, one: &Instance, what: &str) {
        let request =
            p::CheckInstancesRequest { instances: vec![one.clone().into()], leaving_uids: Vec::new() };
        let failures = self.client.clone().check_instances(request).await.unwrap().into_inner().failures;
        let told: Vec<_> = failures.iter().map(|f| (f.uid.as_str(), f.reason.as_str())).collect();
        assert_eq!(told, [(one.uid.to_string().as_str(), "RUNTIME_REFUSED")]);
        assert!(failures[0].message.contains(&format!("takes no {what}")), "{}", failures[0].message);
    }
}
