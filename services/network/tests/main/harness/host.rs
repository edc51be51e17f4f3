//! A host with its service.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use netloom_proto::network::v1 as pb;
use netloom_proto::network::v1::network_service_client::NetworkServiceClient;
use netloom_service::{Channel, Connector, Settings, Shutdown};
use tokio::task::JoinHandle;

use super::{BOUND, KEY, Machine, Node, On, Ovs, Slice, Told, interfaces};

/// A host with its service running.
pub struct Host {
    pub client: NetworkServiceClient<Channel>,
    pub told: Arc<Mutex<Told>>,
    shutdown: Shutdown,
    service: Option<JoinHandle<anyhow::Result<()>>>,
    observer: Option<JoinHandle<()>>,
    // Dropped in this order: what has mounts in the directory before it.
    pub ovs: Ovs,
    pub dir: tempfile::TempDir,
    settings: String,
    /// The plane that it has for wires of labs that do not say.
    pub on: On,
    /// Its virtual machines, by node.
    machines: Mutex<HashMap<String, Arc<Machine>>>,
    nodes: AtomicUsize,
}

impl Host {
    /// With wires on Open vSwitch.
    pub async fn start() -> Host {
        Host::start_on(On::Ovs).await
    }

    pub async fn start_on(on: On) -> Host {
        Host::start_as(on, "", |_| {}).await
    }

    /// With more lines for `[network]`, and something done to Open vSwitch before the service starts.
    pub async fn start_with(more: &str, before: impl FnOnce(&Host)) -> Host {
        Host::start_as(On::Ovs, more, before).await
    }

    pub async fn start_as(on: On, more: &str, before: impl FnOnce(&Host)) -> Host {
        let dir = tempfile::tempdir().unwrap();
        let ovs = Ovs::start(dir.path().join("ovs"));
        let settings = format!(
            "[network]\novsdb_socket = \"{0}/db.sock\"\novs_run_dir = \"{0}\"\nplane = \"{on}\"\n{more}\n",
            ovs.dir.display()
        );
        std::fs::create_dir_all(dir.path().join("run/netns")).unwrap();
        let client = NetworkServiceClient::new(Connector::default().channel(&"mem:none".parse().unwrap()));
        let (told, shutdown) = (Arc::default(), Shutdown::new());
        let (service, observer, machines, nodes) = Default::default();
        let mut host =
            Host { client, told, shutdown, service, observer, ovs, dir, settings, on, machines, nodes };
        before(&host);
        host.start_service().await;
        host
    }

    pub fn owner(&self) -> String {
        netloom_service::installation::owner(&self.dir.path().join("data")).unwrap().to_string()
    }

    pub async fn start_service(&mut self) {
        let (data, run) = (self.dir.path().join("data"), self.dir.path().join("run"));
        let settings = Settings::from_toml(&self.settings, &data, &run).unwrap();
        let connector = Connector::default();
        self.client = NetworkServiceClient::new(connector.channel(&settings.endpoints.network));
        self.shutdown = Shutdown::new();
        self.service = Some(tokio::spawn(netloom_network::run(settings, connector, self.shutdown.clone())));
        self.told = Arc::default();
        let (mut client, told) = (self.client.clone(), self.told.clone());
        self.observer = Some(tokio::spawn(async move {
            loop {
                if let Ok(stream) = client.observe(pb::ObserveRequest {}).await {
                    let mut stream = stream.into_inner();
                    while let Ok(Some(message)) = stream.message().await {
                        told.lock().unwrap().hear(message.event.unwrap());
                    }
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }));
        self.until("the service observes", |told| told.snapshots > 0).await;
    }

    pub async fn stop_service(&mut self) {
        self.observer.take().unwrap().abort();
        self.shutdown.cancel();
        self.service.take().unwrap().await.unwrap().unwrap();
    }

    pub fn told(&self) -> Told {
        self.told.lock().unwrap().clone()
    }

    /// Waits until what is told of the host is so; says what was told last if that does not come.
    pub async fn until(&self, what: &str, condition: impl Fn(&Told) -> bool) -> Duration {
        let begun = Instant::now();
        while !condition(&self.told.lock().unwrap()) {
            if begun.elapsed() > BOUND {
                let log = std::fs::read_to_string(self.ovs.dir.join("ovs-vswitchd.log")).unwrap_or_default();
                let log: Vec<&str> = log.lines().rev().take(20).collect();
                panic!("not within {BOUND:?}: {what}; told: {:#?}\n{}", self.told(), log.join("\n"));
            }
            assert!(!self.service.as_ref().is_some_and(JoinHandle::is_finished), "the service ended: {what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        begun.elapsed()
    }

    pub async fn until_up(&self, wires: &[u64]) -> Duration {
        self.until("wires are up", |told| wires.iter().all(|wire| told.up(*wire))).await
    }

    /// Gives virtual machines the NICs that they have in this slice: compute does that at their start.
    fn plug(&self, slice: &Slice) {
        let machines = self.machines.lock().unwrap();
        for nic in &slice.0.nics {
            machines.get(&nic.node_uid).into_iter().for_each(|machine| machine.plug(nic));
        }
    }

    pub async fn sync(&self, slice: &Slice) {
        self.plug(slice);
        self.sync_without_machines(slice).await;
    }

    /// Syncs, and leaves virtual machines without their NICs.
    pub async fn sync_without_machines(&self, slice: &Slice) {
        let slice = Some(slice.0.clone());
        let request = pb::SyncRequest { term: 1, slice, more: false, ticket_key: KEY.to_vec(), decision: 0 };
        self.client.clone().sync(request).await.unwrap();
    }

    pub async fn ensure(&self, slice: &Slice) {
        self.plug(slice);
        let request = pb::EnsureRequest { term: 1, slice: Some(slice.0.clone()), decision: 0 };
        self.client.clone().ensure(request).await.unwrap();
    }

    /// Removes; panics when something is left.
    pub async fn remove(&self, wire_ids: Vec<u64>) {
        let request = pb::RemoveRequest { term: 1, wire_ids, decision: 0 };
        let response = self.client.clone().remove(request).await.unwrap().into_inner();
        assert_eq!(response.failures, [], "left over");
    }

    pub fn node(&self) -> Node {
        let number = self.nodes.fetch_add(1, Ordering::Relaxed);
        if self.on.has_machines() && number % 2 == 1 {
            return self.machine();
        }
        Node::start(&self.dir.path().join("run/netns"))
    }

    /// A virtual machine. It gets its NICs with the slice that names them first.
    pub fn machine(&self) -> Node {
        let (node, machine) = Node::start_machine(&self.dir.path().join("run/netns"));
        self.machines.lock().unwrap().insert(node.uid.to_string(), machine);
        node
    }

    /// Names of the interfaces of the host itself.
    pub fn interfaces(&self) -> Vec<String> {
        let mut names: Vec<String> = interfaces().into_iter().map(|i| i.name).collect();
        names.retain(|name| name.starts_with("nl") && name != "nl0");
        names
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(observer) = self.observer.take() {
            observer.abort();
        }
        self.shutdown.cancel();
    }
}
