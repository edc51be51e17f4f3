//! A scheduler among hosts, each end of each wire in hand. Hosts outlive their programs; of the scheduler only what is on its disk does.

use std::cell::RefCell;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use netloom_database::Database;
use netloom_model::failure::{Code, Failure};
use netloom_proto::compute::v1::compute_service_server::ComputeServiceServer;
use netloom_proto::image_registry::v1::image_registry_service_server::ImageRegistryServiceServer;
use netloom_proto::network::v1::network_service_server::NetworkServiceServer;
use netloom_proto::scheduler::v1 as ps;
use netloom_proto::scheduler::v1::scheduler_service_client::SchedulerServiceClient;
use netloom_service::status::{from_status, is_lost};
use netloom_service::{Channel, Connector, Endpoint, Settings, Shutdown};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tonic::service::Routes;
use tonic::{Response, Status};

use crate::fake::{Host, Registry};
use crate::machine;
use crate::wires::{Dice, Wire, Wired};

pub type Client = SchedulerServiceClient<Channel>;

/// How long whoever asks waits for an answer before asking again.
const PATIENCE: Duration = Duration::from_secs(30);
const AGAIN: Duration = Duration::from_millis(300);
/// Nobody asks more often: hosts are cut off for minutes.
const ATTEMPTS: usize = 1_500;

thread_local! {
    static TOLD: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Notes what happens in a story.
pub fn tell(what: String) {
    let line = format!("{:9.3} {what}", machine::now().as_secs_f64());
    if std::env::var_os("NETLOOM_SEED").is_some() {
        eprintln!("{line}");
    }
    TOLD.with_borrow_mut(|told| told.push(line));
}

/// What happened so far.
pub fn told_so_far() -> String {
    TOLD.with_borrow(|told| told.join("\n"))
}

/// A host, and the ways to its services.
pub struct Machine {
    pub host: Host,
    pub compute: Arc<Wire>,
    pub network: Arc<Wire>,
}

impl Machine {
    pub fn wires(&self) -> [&Arc<Wire>; 2] {
        [&self.compute, &self.network]
    }
}

struct Running {
    client: Client,
    shutdown: Shutdown,
    task: JoinHandle<anyhow::Result<()>>,
}

pub struct World {
    pub seed: u64,
    pub machines: Vec<Machine>,
    registry: Arc<Wire>,
    /// The way of those who ask to the scheduler.
    people: Arc<Wire>,
    /// Whether somebody gave up waiting for an answer: that call may still be carried out, after what was asked since.
    gave_up: AtomicBool,
    connector: Connector,
    config: String,
    disk: tempfile::TempDir,
    /// How many schedulers there have been.
    count: Arc<AtomicU64>,
    scheduler: Mutex<Option<Running>>,
}

impl World {
    pub async fn new(seed: u64) -> World {
        let mut dice = Dice::new(seed, "world");
        let count = 1 + dice.below(3);
        World::of(seed, dice, count).await
    }

    /// So many hosts, where nothing fails by itself.
    pub async fn calm(seed: u64, hosts: usize) -> World {
        let world = World::of(seed, Dice::new(seed, "world"), hosts).await;
        world.mend();
        world
    }

    async fn of(seed: u64, mut dice: Dice, hosts: usize) -> World {
        let disk = tempfile::Builder::new().prefix("netloom-sim").tempdir_in("/dev/shm").unwrap();
        let connector = Connector::default();
        let count = Arc::new(AtomicU64::new(0));
        let mut config = format!(
            "cpu_overcommit = 1.0\ndisk_overcommit = 1.0\nsettle_bound_ms = 2000\nlink_bound_ms = 3000\nsilence_bound_ms = 3000\nstart_watch_ms = {}\naside_watch_ms = {}\nremoval_bound_ms = {}\n",
            dice.one_of(&[0, 100]),
            dice.one_of(&[0, 1_000]),
            dice.one_of(&[2_000, 10_000])
        );
        let mut machines = Vec::new();
        for i in 1..=hosts {
            let mut host = Host::new(&format!("h{i}"));
            host.heartbeat = Duration::from_millis(900);
            host.with(|s| {
                s.cpu_millis = *dice.one_of(&[500, 1_000, 2_000]);
                s.disk_bytes = *dice.one_of(&[None, Some(20 << 30), Some(50 << 30)]);
            });
            let machine = Machine {
                compute: Wire::new(seed, &format!("compute {i}")),
                network: Wire::new(seed, &format!("network {i}")),
                host,
            };
            let service = ComputeServiceServer::new(machine.host.clone());
            let routes = Routes::new(Wired { service, wire: machine.compute.clone() });
            let compute = machine.host.endpoint("compute");
            listen(&connector, &compute, routes).await;
            let service = NetworkServiceServer::new(machine.host.clone());
            let routes = Routes::new(Wired { service, wire: machine.network.clone() });
            let network = machine.host.endpoint("network");
            listen(&connector, &network, routes).await;
            config +=
                &format!("[[hosts]]\nid = \"h{i}\"\ncompute = \"{compute}\"\nnetwork = \"{network}\"\n");
            machines.push(machine);
        }
        let registry = Wire::new(seed, "registry");
        let service = ImageRegistryServiceServer::new(Registry::default());
        let routes = Routes::new(Wired { service, wire: registry.clone() });
        listen(&connector, &"mem:registry".parse().unwrap(), routes).await;
        let scheduler = Mutex::new(None);
        let people = Wire::new(seed, "people");
        let gave_up = AtomicBool::new(false);
        let world =
            World { seed, machines, registry, people, gave_up, connector, config, disk, count, scheduler };
        tell(format!("{} hosts", world.machines.len()));
        world.start();
        world
    }

    /// Which scheduler there is, or was last.
    pub fn incarnation(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    fn disk_of(&self, incarnation: u64) -> PathBuf {
        self.disk.path().join(incarnation.to_string())
    }

    fn endpoint(&self) -> Endpoint {
        format!("mem:scheduler-{}", self.incarnation()).parse().unwrap()
    }

    /// Starts a scheduler on what the former one left on its disk.
    pub fn start(&self) {
        let before = self.disk_of(self.incarnation());
        self.count.fetch_add(1, Ordering::Relaxed);
        let disk = self.disk_of(self.incarnation());
        if before.exists() {
            // What still runs of the former one may write what it likes: nobody will read it.
            std::fs::create_dir(&disk).unwrap();
            for file in std::fs::read_dir(&before).unwrap().flatten() {
                let name = file.file_name();
                if file.path().is_file() && !name.to_string_lossy().ends_with("-shm") {
                    std::fs::copy(file.path(), disk.join(name)).unwrap();
                }
            }
        }
        let config = format!(
            "[endpoints]\nscheduler = \"{}\"\nimage_registry = \"mem:registry\"\n[scheduler]\n{}",
            self.endpoint(),
            self.config
        );
        let settings = Settings::from_toml(&config, &disk, &disk.join("run")).unwrap();
        let shutdown = Shutdown::new();
        let task = tokio::spawn(netloom_scheduler::run(settings, self.connector.clone(), shutdown.clone()));
        tell(format!("scheduler {} starts", self.incarnation()));
        let client = Client::new(self.connector.channel(&self.endpoint()));
        *self.scheduler.lock().unwrap() = Some(Running { client, shutdown, task });
    }

    /// True between a scheduler and the next one.
    pub fn is_down(&self) -> bool {
        self.scheduler.lock().unwrap().is_none()
    }

    /// Ends the scheduler where it is.
    pub async fn kill(&self) {
        let running = self.scheduler.lock().unwrap().take();
        if let Some(Running { shutdown, task, .. }) = running {
            tell(format!("scheduler {} is killed", self.incarnation()));
            task.abort();
            let ended = task.await;
            shutdown.cancel();
            if let Ok(ended) = ended {
                panic!("the scheduler ended by itself: {ended:?}");
            }
        }
    }

    /// From now on everything works.
    pub fn mend(&self) {
        tell("from now on nothing fails".to_owned());
        let between = [&self.registry, &self.people];
        self.machines.iter().flat_map(Machine::wires).chain(between).for_each(|w| w.mend());
    }

    /// The database of the scheduler that there is, or was last.
    pub fn database(&self) -> Database {
        Database::File(self.disk_of(self.incarnation()).join("scheduler.db"))
    }

    /// True when a call may be under way of which nobody waits for the answer.
    pub fn has_strays(&self) -> bool {
        self.gave_up.load(Ordering::Relaxed)
    }

    fn client(&self) -> Option<Client> {
        self.scheduler.lock().unwrap().as_ref().map(|running| running.client.clone())
    }

    /// The hosts as the scheduler says, by a way on which nothing is lost; none while there is none.
    pub async fn hosts(&self) -> Option<Vec<ps::HostFacts>> {
        let all = ps::ListHostsRequest { page_size: 100, after: String::new() };
        Some(self.client()?.list_hosts(all).await.ok()?.into_inner().hosts)
    }

    /// Asks the scheduler until there is an answer that counts: what one said that was killed meanwhile does not. A call that was lost, or whose answer was, is asked again.
    pub async fn ask<R, T, F>(&self, request: R, ask: impl Fn(Client, R) -> F) -> Result<T, Failure>
    where
        R: Clone,
        F: Future<Output = Result<Response<T>, Status>>,
    {
        for _ in 0..ATTEMPTS {
            let fate = self.people.fate();
            sleep(fate.before).await;
            let incarnation = self.incarnation();
            let Some(client) = self.client().filter(|_| !fate.is_lost) else {
                sleep(AGAIN).await;
                continue;
            };
            let mut answer = timeout(PATIENCE, ask(client.clone(), request.clone())).await;
            if fate.twice {
                answer = timeout(PATIENCE, ask(client, request.clone())).await;
            }
            sleep(fate.after).await;
            let counts = incarnation == self.incarnation() && !self.is_down() && !fate.answer_is_lost;
            if answer.is_err() {
                tell("nobody answers; it is asked again".to_owned());
                self.gave_up.store(true, Ordering::Relaxed);
            }
            match answer {
                Ok(Ok(answer)) if counts => return Ok(answer.into_inner()),
                Ok(Err(status)) if counts && !is_lost(&status) => {
                    let failure = from_status(&status);
                    assert_ne!(failure.code, Code::Internal, "{failure:?}");
                    return Err(failure);
                }
                _ => sleep(AGAIN).await,
            }
        }
        panic!("nobody answers");
    }
}

async fn listen(connector: &Connector, endpoint: &Endpoint, routes: Routes) {
    let listener = connector.listen(endpoint).await.unwrap();
    // Without what other servers bring: it takes longer to make than most stories to tell.
    tokio::spawn(tonic::transport::Server::builder().add_routes(routes).serve_with_incoming(listener));
}
