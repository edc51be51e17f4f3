//! A scheduler among fakes, and words to ask it with.

use std::path::Path;
use std::time::Duration;

use netloom_model::failure::Failure;
use netloom_proto::scheduler::v1 as ps;
use netloom_proto::scheduler::v1::scheduler_service_client::SchedulerServiceClient;
use netloom_proto::v1 as p;
use netloom_service::status::from_status;
use netloom_service::testing::eventually;
use netloom_service::{Channel, Connector, Settings, Shutdown};
use tonic::Status;

use crate::fake::{Host, Registry};

/// Ten times what anything here takes.
pub const BOUND: Duration = Duration::from_secs(20);

pub struct World {
    pub hosts: Vec<Host>,
    pub registry: Registry,
    pub connector: Connector,
    config: String,
    dir: tempfile::TempDir,
    fakes: Shutdown,
    scheduler: Option<(Shutdown, tokio::task::JoinHandle<anyhow::Result<()>>)>,
    pub client: SchedulerServiceClient<Channel>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.fakes.cancel();
        if let Some((shutdown, _)) = &self.scheduler {
            shutdown.cancel();
        }
    }
}

impl World {
    /// One host with 4 cores and 8 GiB.
    pub async fn new() -> World {
        World::with(&["h1"], "").await
    }

    /// These hosts, and more lines for `[scheduler]`.
    pub async fn with(hosts: &[&str], config: &str) -> World {
        let dir = tempfile::tempdir().unwrap();
        let connector = Connector::of(&Settings::from_toml("", dir.path(), dir.path()).unwrap());
        let fakes = Shutdown::new();
        let hosts: Vec<Host> = hosts.iter().map(|h| Host::new(h)).collect();
        let watch =
            if config.contains("_watch_ms") { "" } else { "start_watch_ms = 0\naside_watch_ms = 0\n" };
        let mut text = format!(
            "[scheduler]\ncpu_overcommit = 1.0\nsettle_bound_ms = 2000\nlink_bound_ms = 1000\nsilence_bound_ms = 2000\n{watch}{config}\n\
             [endpoints]\nscheduler = \"mem:scheduler\"\nimage_registry = \"mem:registry\"\n"
        );
        for host in &hosts {
            host.serve(&connector, &fakes).await;
            let (compute, network) = (host.endpoint("compute"), host.endpoint("network"));
            text.push_str(&format!(
                "[[hosts]]\nid = \"{}\"\ncompute = \"{compute}\"\nnetwork = \"{network}\"\n",
                host.name
            ));
        }
        let registry = Registry::default();
        registry.serve(&connector, &"mem:registry".parse().unwrap(), &fakes).await;
        let client = SchedulerServiceClient::new(connector.channel(&"mem:scheduler".parse().unwrap()));
        let mut world =
            World { hosts, registry, config: text, dir, fakes, scheduler: None, client, connector };
        world.start().await;
        world
    }

    pub fn host(&self) -> &Host {
        &self.hosts[0]
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Starts the scheduler, and waits until it answers and has heard of every host that is not silent.
    pub async fn start(&mut self) {
        let client = self.client.clone();
        let mut answers = std::pin::pin!(eventually("the scheduler answers", BOUND, || {
            let mut client = client.clone();
            async move {
                client.list_hosts(ps::ListHostsRequest { page_size: 100, after: String::new() }).await.is_ok()
            }
        }));
        loop {
            let settings = Settings::from_toml(&self.config, self.dir(), &self.dir().join("run")).unwrap();
            let shutdown = Shutdown::new();
            let run = netloom_scheduler::run(settings, self.connector.clone(), shutdown.clone());
            let mut running = tokio::spawn(run);
            let ended = tokio::select! {
                () = &mut answers => {
                    self.scheduler = Some((shutdown, running));
                    return;
                }
                ended = &mut running => ended.expect("no task panics").expect_err("nobody asked it to end"),
            };
            // Calls of one that was killed in this process still write to their end.
            assert!(format!("{ended:#}").contains("database is locked"), "the scheduler ended: {ended:#}");
        }
    }

    /// Stops the scheduler; its database stays.
    pub async fn stop(&mut self) {
        let (shutdown, running) = self.scheduler.take().unwrap();
        shutdown.cancel();
        running.await.unwrap().unwrap();
    }

    /// Waits until the scheduler ends by itself, and says what it said.
    pub async fn ended(&mut self) -> anyhow::Result<()> {
        let (_, running) = self.scheduler.take().unwrap();
        running.await.unwrap()
    }

    /// Kills the scheduler's tasks where they are, as a SIGKILL would; its database stays.
    pub async fn kill(&mut self) {
        let (shutdown, running) = self.scheduler.take().unwrap();
        running.abort();
        let _ = running.await;
        shutdown.cancel();
    }

    pub async fn apply(&self, lab: &str, spec: p::LabSpec) -> Result<ps::OperationFacts, Failure> {
        self.request(ps::ApplyLabRequest { lab: lab.into(), spec: Some(spec), ..Default::default() }).await
    }

    pub async fn request(&self, request: ps::ApplyLabRequest) -> Result<ps::OperationFacts, Failure> {
        let response = self.client.clone().apply_lab(request).await;
        response.map(|r| r.into_inner().operation.unwrap()).map_err(|s| from_status(&s))
    }

    /// Applies and waits until it is done.
    pub async fn deploy(&self, lab: &str, spec: p::LabSpec) -> ps::OperationFacts {
        let operation = self.apply(lab, spec).await.unwrap();
        self.done(&operation.id).await
    }

    pub async fn destroy(&self, lab: &str) -> Result<ps::OperationFacts, Failure> {
        let request = ps::DestroyLabRequest { lab: lab.into(), ..Default::default() };
        let response = self.client.clone().destroy_lab(request).await;
        response.map(|r| r.into_inner().operation.unwrap()).map_err(|s| from_status(&s))
    }

    pub async fn cancel(&self, operation: &str) -> Result<ps::OperationFacts, Failure> {
        let request = ps::CancelOperationRequest { operation: operation.into() };
        self.client
            .clone()
            .cancel_operation(request)
            .await
            .map(|r| r.into_inner())
            .map_err(|s| from_status(&s))
    }

    pub async fn change_nodes(
        &self,
        lab: &str,
        change: ps::NodeChange,
        nodes: &[&str],
    ) -> Result<ps::OperationFacts, Failure> {
        let request = ps::ChangeNodesRequest {
            snapshot: String::new(),
            lab: lab.into(),
            nodes: nodes.iter().map(|n| (*n).to_owned()).collect(),
            change: change.into(),
            request_id: String::new(),
        };
        let response = self.client.clone().change_nodes(request).await;
        response.map(|r| r.into_inner().operation.unwrap()).map_err(|s| from_status(&s))
    }

    pub async fn change_link(&self, request: ps::ChangeLinkRequest) -> Result<ps::OperationFacts, Failure> {
        let response = self.client.clone().change_link(request).await;
        response.map(|r| r.into_inner().operation.unwrap()).map_err(|s| from_status(&s))
    }

    pub async fn set_link(&self, lab: &str, link: &str, enabled: bool) -> Result<ps::LinkFacts, Failure> {
        let request = ps::SetLinkEnabledRequest { lab: lab.into(), link: link.into(), enabled };
        let response = self.client.clone().set_link_enabled(request).await;
        response.map(|r| r.into_inner()).map_err(|s| from_status(&s))
    }

    pub async fn link(&self, lab: &str, link: &str) -> ps::LinkFacts {
        self.links(lab).await.into_iter().find(|l| l.id == link).unwrap()
    }

    /// Waits until a link is in a state.
    pub async fn link_is(&self, lab: &str, link: &str, state: p::LinkState) {
        let what = format!("{lab}/{link} is {}", state.as_str_name());
        eventually(&what, BOUND, || async { self.link(lab, link).await.state() == state }).await;
    }

    pub async fn operation(&self, id: &str) -> ps::OperationFacts {
        let request = ps::GetOperationRequest { operation: id.into() };
        self.client.clone().get_operation(request).await.unwrap().into_inner()
    }

    /// Waits until an operation is over.
    pub async fn done(&self, id: &str) -> ps::OperationFacts {
        eventually("the operation is over", BOUND, || async {
            self.operation(id).await.state() != p::OperationState::Running
        })
        .await;
        self.operation(id).await
    }

    pub async fn lab(&self, lab: &str) -> Result<ps::LabFacts, Status> {
        self.client.clone().get_lab(ps::GetLabRequest { lab: lab.into() }).await.map(|r| r.into_inner())
    }

    pub async fn node(&self, lab: &str, node: &str) -> ps::NodeFacts {
        let request = ps::GetNodeRequest { lab: lab.into(), node: node.into() };
        self.client.clone().get_node(request).await.unwrap().into_inner()
    }

    pub async fn nodes(&self, lab: &str) -> Vec<ps::NodeFacts> {
        let request = ps::ListNodesRequest { lab: lab.into(), page_size: 1_000, after: String::new() };
        self.client.clone().list_nodes(request).await.unwrap().into_inner().nodes
    }

    pub async fn links(&self, lab: &str) -> Vec<ps::LinkFacts> {
        let request = ps::ListLinksRequest { lab: lab.into(), page_size: 1_000, after: String::new() };
        self.client.clone().list_links(request).await.unwrap().into_inner().links
    }

    /// Waits until a node is in a state.
    pub async fn node_is(&self, lab: &str, node: &str, state: p::NodeState) {
        let what = format!("{lab}/{node} is {}", state.as_str_name());
        eventually(&what, BOUND, || async { self.node(lab, node).await.state() == state }).await;
    }
}

/// A spec of linux nodes n1…, and links between them given by their numbers: each takes the next free interface.
pub fn spec(nodes: u32, links: &[(u32, u32)]) -> p::LabSpec {
    let node = |i: u32| p::NodeSpec {
        id: format!("n{i}"),
        kind: "linux".into(),
        image: "linux:1".into(),
        ..p::NodeSpec::default()
    };
    let mut used = std::collections::BTreeMap::<u32, u32>::new();
    let mut end = |node: u32| {
        let next = used.entry(node).or_insert(0);
        *next += 1;
        Some(p::Endpoint {
            node: format!("n{node}"),
            interface: format!("eth{next}"),
            ..p::Endpoint::default()
        })
    };
    let links = links.iter().map(|(a, b)| p::LinkSpec { a: end(*a), b: end(*b), ..p::LinkSpec::default() });
    p::LabSpec { links: links.collect(), nodes: (1..=nodes).map(node).collect(), ..p::LabSpec::default() }
}

pub fn actions(operation: &ps::OperationFacts) -> Vec<String> {
    let plan = operation.plan.clone().unwrap_or_default();
    plan.actions
        .iter()
        .map(|a| {
            format!("{} {} {}", a.verb().as_str_name().trim_start_matches("ACTION_VERB_"), a.object, a.id)
        })
        .collect()
}
