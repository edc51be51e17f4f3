//! Those who ask: they deploy, change, move and destroy labs, and say what hosts offer and projects may have, one after the other, and remember what they were promised.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use netloom_model::failure::Failure;
use netloom_proto::scheduler::v1 as ps;
use netloom_proto::v1 as p;
use tokio::time::sleep;

use crate::STEP;
use crate::wires::Dice;
use crate::world::{World, tell};

const LABS: [&str; 2] = ["a", "b"];
const PROJECT: &str = "p";

/// What a lab is to be, as far as it was promised.
pub enum Wish {
    /// There is none.
    Gone,
    Spec {
        spec: Box<p::LabSpec>,
        stopped: BTreeSet<String>,
    },
    /// One of several things: a deploy was taken back.
    Either,
}

pub struct People<'w> {
    world: &'w World,
    dice: Dice,
    pub wishes: BTreeMap<String, Wish>,
    last: String,
}

impl<'w> People<'w> {
    pub fn new(world: &'w World) -> People<'w> {
        let wishes = LABS.map(|lab| (lab.to_owned(), Wish::Gone)).into();
        People { world, dice: Dice::new(world.seed, "people"), wishes, last: String::new() }
    }

    pub async fn act(&mut self) {
        for _ in 0..8 + self.dice.below(10) {
            let lab = *self.dice.one_of(&LABS);
            match self.dice.below(30) {
                0..9 => self.deploy(lab).await,
                9..11 => self.destroy(lab).await,
                11..15 => self.change_nodes(lab).await,
                15..17 => self.cordon().await,
                17..19 => self.plug(lab).await,
                19..22 => self.cancel().await,
                22..25 => self.move_nodes(lab).await,
                25..27 => self.drain().await,
                27..29 => self.say_of_host().await,
                _ => self.say_of_project().await,
            }
            let rest = if self.dice.percent(40) { self.dice.millis(50) } else { self.dice.millis(4_000) };
            sleep(rest).await;
        }
        if self.dice.percent(30) {
            // Long enough for hosts to be given up.
            sleep(Duration::from_secs(200)).await;
        }
    }

    fn number(&mut self) -> String {
        let bytes: [u8; 16] = std::array::from_fn(|_| self.dice.below(256).to_le_bytes()[0]);
        uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
    }

    fn is_known(&self, lab: &str) -> bool {
        !matches!(self.wishes[lab], Wish::Gone)
    }

    fn note(&mut self, what: String, answer: Result<ps::OperationFacts, Failure>) -> bool {
        let said = match &answer {
            Ok(operation) => format!("{} {}", operation.id, operation.state().as_str_name()),
            Err(failure) => format!("refused: {} {}", failure.reason, failure.message),
        };
        tell(format!("{what}: {said}"));
        let taken = answer.is_ok();
        self.last = answer.map(|operation| operation.id).unwrap_or(std::mem::take(&mut self.last));
        taken
    }

    async fn deploy(&mut self, lab: &str) {
        let spec = self.spec();
        if self.apply(lab, spec.clone()).await.is_some() {
            self.wishes.insert(lab.to_owned(), Wish::Spec { spec: Box::new(spec), stopped: BTreeSet::new() });
        }
    }

    /// Its plan, if it was taken.
    pub async fn apply(&mut self, lab: &str, spec: p::LabSpec) -> Option<p::Plan> {
        let what = format!("deploy {lab} {}", text(&spec));
        let request_id = self.number();
        let request =
            ps::ApplyLabRequest { lab: lab.into(), spec: Some(spec), request_id, ..Default::default() };
        let mut answer =
            self.world.ask(request.clone(), |mut c, r| async move { c.apply_lab(r).await }).await;
        if answer.is_ok() && self.dice.percent(20) {
            // The answer was lost on its way: asked again, it is the same.
            let again = self.world.ask(request.clone(), |mut c, r| async move { c.apply_lab(r).await }).await;
            let id = |a: &Result<ps::ApplyLabResponse, Failure>| a.clone().map(|a| a.operation.map(|o| o.id));
            if !answer
                .as_ref()
                .is_ok_and(|a| a.operation.as_ref().is_some_and(|o| o.state() != p::OperationState::Running))
            {
                assert_eq!(id(&answer), id(&again), "asked for twice, done once");
            }
            answer = again;
        }
        let answer = answer.map(|a| a.operation.unwrap_or_default());
        let plan = answer.as_ref().ok().map(|o| o.plan.clone().unwrap_or_default());
        self.note(what, answer);
        plan
    }

    pub async fn destroy(&mut self, lab: &str) {
        let request = ps::DestroyLabRequest { lab: lab.into(), generation: 0, request_id: self.number() };
        let answer = self
            .world
            .ask(request, |mut c, r| async move { c.destroy_lab(r).await })
            .await
            .map(|a| a.operation.unwrap_or_default());
        let is_gone = answer.as_ref().is_err_and(|e| e.reason == "LAB_NOT_FOUND");
        if self.note(format!("destroy {lab}"), answer) || is_gone {
            self.wishes.insert(lab.to_owned(), Wish::Gone);
        }
    }

    async fn change_nodes(&mut self, lab: &str) {
        let Wish::Spec { spec, .. } = &self.wishes[lab] else { return };
        let are_started = spec.nodes.iter().filter(|n| n.kind != BRIDGE);
        let all: Vec<String> = are_started.map(|n| n.id.clone()).collect();
        let nodes: Vec<String> = all.into_iter().filter(|_| self.dice.percent(50)).collect();
        if nodes.is_empty() {
            return;
        }
        use ps::NodeChange as C;
        let change = *self.dice.one_of(&[C::Start, C::Stop, C::Stop, C::Restart]);
        let request = ps::ChangeNodesRequest {
            lab: lab.into(),
            nodes: nodes.clone(),
            change: change.into(),
            request_id: self.number(),
            snapshot: String::new(),
        };
        let answer = self
            .world
            .ask(request, |mut c, r| async move { c.change_nodes(r).await })
            .await
            .map(|a| a.operation.unwrap_or_default());
        let taken = self.note(format!("{} {lab} {nodes:?}", change.as_str_name()), answer);
        if let (true, Some(Wish::Spec { stopped, .. })) = (taken, self.wishes.get_mut(lab)) {
            for node in nodes {
                match change {
                    C::Stop => stopped.insert(node),
                    _ => stopped.remove(&node),
                };
            }
        }
    }

    async fn cordon(&mut self) {
        let host = self.dice.one_of(&self.world.machines).host.name.clone();
        let cordoned = self.dice.percent(50);
        self.set_cordoned(&host, cordoned).await;
    }

    pub async fn set_cordoned(&mut self, host: &str, cordoned: bool) {
        tell(format!("cordon {host}: {cordoned}"));
        let request = ps::SetHostCordonedRequest { host: host.into(), cordoned };
        assert_eq!(
            self.world
                .ask(request, |mut c, r| async move { c.set_host_cordoned(r).await })
                .await
                .expect("the host is known")
                .cordoned,
            cordoned
        );
    }

    async fn move_nodes(&mut self, lab: &str) {
        let Wish::Spec { spec, .. } = &self.wishes[lab] else { return };
        let all: Vec<String> = spec.nodes.iter().map(|n| n.id.clone()).collect();
        // None is those that would better be elsewhere.
        let nodes: Vec<String> = all.into_iter().filter(|_| self.dice.percent(40)).collect();
        let to = self.dice.percent(30).then(|| self.dice.one_of(&self.world.machines).host.name.clone());
        let host = to.filter(|_| !nodes.is_empty()).unwrap_or_default();
        let what = format!("move {lab} {nodes:?} to \"{host}\"");
        let request = ps::MoveNodesRequest {
            lab: lab.into(),
            nodes,
            host,
            request_id: self.number(),
            ..Default::default()
        };
        let answer = self.world.ask(request, |mut c, r| async move { c.move_nodes(r).await }).await;
        self.note(what, answer.map(|a| a.operation.unwrap_or_default()));
    }

    /// Until the host is uncordoned.
    async fn drain(&mut self) {
        let host = self.dice.one_of(&self.world.machines).host.name.clone();
        tell(format!("drain {host}"));
        let request = ps::DrainHostRequest { host, validate_only: self.dice.percent(20), lose_disks: false };
        let answer = self.world.ask(request, |mut c, r| async move { c.drain_host(r).await }).await;
        answer.expect("the host is known");
    }

    async fn say_of_host(&mut self) {
        let (field, wish) = match self.dice.below(3) {
            0 => {
                let cpu_overcommit = *self.dice.one_of(&[0.0, 0.5, 2.0]);
                ("cpu_overcommit", ps::UpdateHostRequest { cpu_overcommit, ..Default::default() })
            }
            1 => {
                let disk_overcommit = *self.dice.one_of(&[0.0, 0.5, 2.0]);
                ("disk_overcommit", ps::UpdateHostRequest { disk_overcommit, ..Default::default() })
            }
            _ => {
                let system_cpu_millis = *self.dice.one_of(&[0, 100, 400]);
                ("system_cpu_millis", ps::UpdateHostRequest { system_cpu_millis, ..Default::default() })
            }
        };
        let host = self.dice.one_of(&self.world.machines).host.name.clone();
        let request = ps::UpdateHostRequest { host: host.clone(), paths: vec![field.into()], ..wish };
        let answer = self.world.ask(request, |mut c, r| async move { c.update_host(r).await }).await;
        let now = answer.expect("the host is known");
        let now = (now.cpu_overcommit, now.disk_overcommit, now.system_cpu_millis);
        tell(format!("{field} of {host} is set: {now:?}"));
        // Who keeps the books is to see each of these.
        sleep(2 * STEP).await;
    }

    async fn say_of_project(&mut self) {
        let project = PROJECT.to_owned();
        if self.dice.percent(30) {
            let request = ps::RemoveQuotaRequest { project };
            let answer = self.world.ask(request, |mut c, r| async move { c.remove_quota(r).await }).await;
            tell(format!("no quota any more: {:?}", answer.map_err(|e| e.reason)));
            return;
        }
        let quota = ps::QuotaFacts {
            project,
            nodes: self.dice.percent(50).then(|| 1 + self.dice.below(7) as u64),
            cpu_millis: self.dice.percent(50).then(|| 100 * (1 + self.dice.below(15) as u64)),
            ..Default::default()
        };
        let request = ps::SetQuotaRequest { quota: Some(quota) };
        let set = self.world.ask(request, |mut c, r| async move { c.set_quota(r).await }).await;
        let set = set.expect("it makes sense");
        tell(format!("quota: {:?} nodes, {:?} CPU", set.nodes, set.cpu_millis));
    }

    async fn plug(&mut self, lab: &str) {
        let Wish::Spec { spec, .. } = &self.wishes[lab] else { return };
        if spec.links.is_empty() {
            return;
        }
        let link = self.dice.below(spec.links.len());
        let Wish::Spec { spec, .. } = &self.wishes[lab] else { return };
        let end = |e: &Option<p::Endpoint>| {
            e.as_ref().map(|e| format!("{}:{}", e.node, e.interface)).unwrap_or_default()
        };
        let mut ends = [end(&spec.links[link].a), end(&spec.links[link].b)];
        ends.sort();
        let link = ends.join("--");
        let enabled = self.dice.percent(50);
        let request = ps::SetLinkEnabledRequest { lab: lab.into(), link: link.clone(), enabled };
        let answer = self
            .world
            .ask(request, |mut c, r| async move { c.set_link_enabled(r).await })
            .await
            .map(|l| l.enabled)
            .map_err(|e| e.reason);
        tell(format!("link {lab} {link} {enabled}: {answer:?}"));
    }

    pub async fn cancel(&mut self) {
        let request = ps::CancelOperationRequest { operation: self.last.clone() };
        let answer = self.world.ask(request, |mut c, r| async move { c.cancel_operation(r).await }).await;
        // A move asks for nothing else.
        if let Some(operation) = answer.as_ref().ok().filter(|o| o.kind() != p::OperationKind::Move) {
            self.wishes.insert(operation.lab.clone(), Wish::Either);
        }
        let lab = answer.as_ref().map(|o| o.lab.clone()).unwrap_or_default();
        // It may have been taken back although its answer was lost.
        if answer.as_ref().is_err_and(|e| e.reason == "OPERATION_DONE") {
            for lab in LABS {
                if self.is_known(lab) {
                    self.wishes.insert(lab.to_owned(), Wish::Either);
                }
            }
        }
        self.note(format!("cancel {lab}"), answer);
    }

    fn spec(&mut self) -> p::LabSpec {
        let count = 1 + self.dice.below(5);
        let is_plain = self.dice.percent(60);
        let nodes = (1..=count).map(|i| {
            let id = format!("n{i}");
            if i > 1 && self.dice.percent(12) {
                return p::NodeSpec { id, kind: BRIDGE.into(), ..p::NodeSpec::default() };
            }
            p::NodeSpec {
                id,
                kind: "linux".into(),
                image: "linux:1".into(),
                cpu_request_millis: *self.dice.one_of(&[50, 100, 100, 300, 600]),
                disk_request_bytes: self.dice.one_of(&[0, 0, 5, 15]) << 30,
                env: if self.dice.percent(30) {
                    [("V".to_owned(), self.dice.below(3).to_string())].into()
                } else {
                    Default::default()
                },
                placement: if is_plain { None } else { self.placement(i, count) },
                ..p::NodeSpec::default()
            }
        });
        let nodes: Vec<p::NodeSpec> = nodes.collect();
        let mut used = vec![0; count + 1];
        let mut links = Vec::new();
        for _ in 0..self.dice.below(6) {
            let (a, b) = (1 + self.dice.below(count), 1 + self.dice.below(count));
            if a == b {
                continue;
            }
            let mut end = |node: usize| {
                used[node] += 1;
                let (node, interface) = (format!("n{node}"), format!("eth{}", used[node]));
                Some(p::Endpoint { node, interface, ..p::Endpoint::default() })
            };
            links.push(p::LinkSpec { a: end(a), b: end(b), ..p::LinkSpec::default() });
        }
        p::LabSpec {
            nodes,
            links,
            reschedule_after_seconds: *self.dice.one_of(&[0, 60, 60, 90]),
            placement_policy: match self.dice.percent(20) {
                true => p::PlacementPolicy::AllOrNothing.into(),
                false => p::PlacementPolicy::BestEffort.into(),
            },
            project: if self.dice.percent(50) { PROJECT.into() } else { String::new() },
            ..p::LabSpec::default()
        }
    }

    /// On one host alone, or apart from another node.
    fn placement(&mut self, node: usize, count: usize) -> Option<p::PlacementSpec> {
        match self.dice.below(4) {
            0 => {
                let host = self.dice.one_of(&self.world.machines).host.name.clone();
                Some(p::PlacementSpec { host, ..Default::default() })
            }
            1 if count > 1 => {
                let apart_from = vec![format!("n{}", node % count + 1)];
                Some(p::PlacementSpec { apart_from, ..Default::default() })
            }
            _ => None,
        }
    }
}

fn text(spec: &p::LabSpec) -> String {
    let node = |n: &p::NodeSpec| {
        let placement = n.placement.clone().unwrap_or_default();
        format!(
            "{}:{}:{}{}{}{}",
            n.id,
            if n.kind == BRIDGE { n.kind.clone() } else { n.cpu_request_millis.to_string() },
            n.disk_request_bytes >> 30,
            n.env.get("V").map(|v| format!(":{v}")).unwrap_or_default(),
            if placement.host.is_empty() { String::new() } else { format!("@{}", placement.host) },
            placement.apart_from.iter().map(|other| format!("!{other}")).collect::<String>()
        )
    };
    let nodes: Vec<String> = spec.nodes.iter().map(node).collect();
    let ends = |l: &p::LinkSpec| {
        let name = |e: &Option<p::Endpoint>| e.as_ref().map_or("", |e| e.node.as_str()).to_owned();
        format!("{}-{}", name(&l.a), name(&l.b))
    };
    let links: Vec<String> = spec.links.iter().map(ends).collect();
    let (after, policy) = (spec.reschedule_after_seconds, spec.placement_policy().as_str_name());
    let project = &spec.project;
    format!(
        "[{}] [{}], {policy}, project \"{project}\", hosts given up after {after} s",
        nodes.join(" "),
        links.join(" ")
    )
}

/// The kind of a node that is no instance.
pub const BRIDGE: &str = "bridge";

/// How long faults go on after each other.
pub fn pause(dice: &mut Dice) -> Duration {
    if dice.percent(30) { dice.millis(100) } else { dice.millis(5_000) }
}
