//! A compute service of a test's own: its directories, owner, names and channel, and what an observer of it knows. Dropping it leaves nothing behind.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use bollard::query_parameters::KillContainerOptions;
use netloom_model::id::{Digest, LabId, LabUid, NodeUid, Owner};
use netloom_model::observed::{ComputeInventory, Observed, Phase, StagePoint};
use netloom_model::slice::Instance;
use netloom_model::spec::{NodeSpec, Stage};
use netloom_model::state::{Runtime, Wanted};
use netloom_proto::compute::v1 as p;
use netloom_proto::compute::v1::compute_service_client::ComputeServiceClient;
use netloom_proto::compute::v1::observe_response::Event;
use netloom_service::testing::libvirt::{self, Libvirtd};
use netloom_service::{Channel, Connector, Settings, Shutdown, installation, ticket};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::tiny::Tiny;
pub use crate::undo::{Undo, connect};
use crate::undo::{clean, unmount};

/// Bound of every wait: ten times what it takes on a busy machine.
pub const BOUND: Duration = Duration::from_secs(60);
/// What tickets are signed with.
pub const KEY: &[u8] = b"0123456789abcdef0123456789abcdef";
/// What taps with a cable begin with on a rig on libvirt.
pub const NICS: &str = "nt";

/// Waits until something holds.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let end = std::time::Instant::now() + BOUND;
    while !holds().await {
        assert!(std::time::Instant::now() < end, "not within {BOUND:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What an observer of the service knows.
#[derive(Debug, Clone, Default)]
pub struct View {
    pub instances: BTreeMap<NodeUid, Observed>,
    pub inventory: ComputeInventory,
    pub synced: bool,
    pub heartbeats: u32,
    /// How long ago the oldest of its sources was read, at the last heartbeat.
    pub oldest: Duration,
}

pub struct Rig {
    pub client: ComputeServiceClient<Channel>,
    pub view: watch::Receiver<View>,
    pub owner: Owner,
    pub lab: LabId,
    pub lab_uid: LabUid,
    pub is_docker: bool,
    /// The libvirtd of a rig on libvirt.
    pub libvirtd: Option<&'static Libvirtd>,
    /// Its virtual machines are those of [`Tiny`].
    is_tiny: bool,
    pub dir: tempfile::TempDir,
    config: String,
    running: Option<Running>,
}

struct Running {
    shutdown: Shutdown,
    service: JoinHandle<anyhow::Result<()>>,
    observer: JoinHandle<()>,
}

impl Rig {
    /// Its instances live on while its service is away, as those of other drivers do.
    pub async fn sim() -> Rig {
        Rig::sim_with("[compute.sim]\nfile = \"{dir}/sim.json\"\n").await
    }

    /// With more lines of configuration.
    pub async fn sim_with(config: &str) -> Rig {
        Rig::with(&format!("drivers = [\"sim\"]\n{config}"), false, None, false).await
    }

    /// A rig on Docker; none when that is not there.
    pub async fn docker(test: &str) -> Option<Rig> {
        Rig::docker_with(test, "").await
    }

    /// With more lines of configuration.
    pub async fn docker_with(test: &str, config: &str) -> Option<Rig> {
        if !netloom_service::testing::require(test, "docker")
            || !netloom_service::testing::require(test, "root")
        {
            return None;
        }
        crate::docker::image::ensure().await;
        Some(
            Rig::with(&format!("drivers = [\"docker\"]\nstop_timeout = 1\n{config}"), true, None, false)
                .await,
        )
    }

    /// A rig on a private libvirtd that all tests of this process share, with machines of one boot sector; none when there is no libvirt.
    pub async fn tiny(test: &str) -> Option<Rig> {
        Rig::libvirt_with(test, "\"libvirt\"", Libvirtd::shared, true).await
    }

    /// The same with the guest of `scripts/guest.sh`, which is a Linux.
    pub async fn libvirt(test: &str) -> Option<Rig> {
        Rig::libvirt_on(test, Libvirtd::shared).await
    }

    /// The same with Docker, whose networks are for management.
    pub async fn libvirt_and_docker(test: &str) -> Option<Rig> {
        if !netloom_service::testing::require(test, "docker") {
            return None;
        }
        crate::docker::image::ensure().await;
        Rig::libvirt_with(test, "\"libvirt\", \"docker\"", Libvirtd::shared, false).await
    }

    /// A rig on a libvirtd of its own.
    pub async fn libvirt_on(test: &str, libvirtd: impl FnOnce() -> &'static Libvirtd) -> Option<Rig> {
        Rig::libvirt_with(test, "\"libvirt\"", libvirtd, false).await
    }

    async fn libvirt_with(
        test: &str,
        drivers: &str,
        libvirtd: impl FnOnce() -> &'static Libvirtd,
        is_tiny: bool,
    ) -> Option<Rig> {
        use netloom_service::testing::require;
        if !require(test, "libvirt") || !require(test, "root") {
            return None;
        }
        let libvirtd = libvirtd();
        let config = format!(
            "drivers = [{drivers}]\nlibvirt_uri = {:?}\nstop_timeout = 2\n[network]\nnic_prefix = \"{NICS}\"\n",
            libvirtd.uri()
        );
        Some(Rig::with(&config, drivers.contains("docker"), Some(libvirtd), is_tiny).await)
    }

    async fn with(config: &str, is_docker: bool, libvirtd: Option<&'static Libvirtd>, is_tiny: bool) -> Rig {
        let dir = tempfile::Builder::new().prefix("netloom-compute-").tempdir().unwrap();
        if is_tiny {
            Tiny::default().put(&dir.path().join("data"));
            std::fs::create_dir(dir.path().join("kinds")).unwrap();
            std::fs::write(dir.path().join("kinds/tiny.toml"), include_str!("tiny.toml")).unwrap();
        } else if libvirtd.is_some() {
            let images = dir.path().join("data/images");
            std::fs::create_dir_all(&images).unwrap();
            std::fs::copy(libvirt::guest(), images.join(&guest_digest().as_str()["sha256:".len()..]))
                .unwrap();
            std::fs::create_dir(dir.path().join("kinds")).unwrap();
            let guest = include_str!("libvirt/guest.toml");
            std::fs::write(dir.path().join("kinds/guest.toml"), guest).unwrap();
            let typed = guest.replace("\"guest\"", "\"typed\"").replace("\"nocloud\"", "\"serial\"");
            std::fs::write(dir.path().join("kinds/typed.toml"), typed).unwrap();
        }
        let owner = installation::owner(&dir.path().join("data")).unwrap();
        // The end of a UUIDv7 is random.
        let lab: LabId = format!("t{}", &owner.to_string()[24..]).parse().unwrap();
        let (client, view) = (
            ComputeServiceClient::new(Connector::default().channel(&"mem:none".parse().unwrap())),
            watch::channel(View::default()).1,
        );
        let config = format!("[compute]\n{}", config.replace("{dir}", &dir.path().to_string_lossy()));
        let mut rig = Rig {
            client,
            view,
            owner,
            lab,
            lab_uid: LabUid::new(),
            is_docker,
            libvirtd,
            is_tiny,
            dir,
            config,
            running: None,
        };
        rig.start().await;
        rig
    }

    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub fn run_dir(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    /// Starts the service and an observer.
    pub async fn start(&mut self) {
        let kinds = self.dir.path().join("kinds");
        let kinds = if kinds.is_dir() { format!("kinds_dir = {kinds:?}\n") } else { String::new() };
        let text = format!("{kinds}[endpoints]\ncompute = \"mem:compute\"\n{}", self.config);
        let settings = Settings::from_toml(&text, &self.data_dir(), &self.run_dir()).unwrap();
        let (connector, shutdown) = (Connector::default(), Shutdown::new());
        let endpoint = settings.endpoints.compute.clone();
        let mut service = tokio::spawn(netloom_compute::run(settings, connector.clone(), shutdown.clone()));
        self.client = ComputeServiceClient::new(connector.channel(&endpoint));
        let (sender, view) = watch::channel(View::default());
        let observer = tokio::spawn(follow(self.client.clone(), sender));
        self.view = view;
        tokio::select! {
            ended = &mut service => panic!("the service ended at once: {ended:?}"),
            () = self.until("a runtime answers", |v| !v.inventory.runtimes.is_empty()) => {}
        }
        self.running = Some(Running { shutdown, service, observer });
    }

    /// Ends the service as a signal does.
    pub async fn stop(&mut self) {
        let running = self.running.take().expect("it runs");
        running.shutdown.cancel();
        tokio::time::timeout(BOUND, running.service).await.expect("the service ends").unwrap().unwrap();
        running.observer.abort();
    }

    /// Waits until the view is as described.
    pub async fn until(&self, what: &str, holds: impl Fn(&View) -> bool) {
        let mut view = self.view.clone();
        let seen = tokio::time::timeout(BOUND, view.wait_for(|v| holds(v))).await;
        if seen.is_err() {
            panic!("not within {BOUND:?}: {what}; seen: {:#?}", *self.view.borrow());
        }
    }

    /// Waits until an instance is as described, and answers it.
    pub async fn until_node(&self, uid: NodeUid, what: &str, holds: impl Fn(&Observed) -> bool) -> Observed {
        self.until(what, |v| v.instances.get(&uid).is_some_and(&holds)).await;
        // It may have gone on since; what held is looked for again only where it still holds.
        let now = self.view.borrow().instances.get(&uid).cloned();
        now.expect("it was there")
    }

    pub async fn until_phase(&self, uid: NodeUid, phase: Phase) -> Observed {
        self.until_node(uid, &format!("{phase:?}"), |o| o.phase == phase).await
    }

    /// An instance to ask for.
    pub fn instance(&self, node: &str) -> Instance {
        let mut spec = NodeSpec {
            id: node.to_owned(),
            kind: "linux".into(),
            image: self.image(),
            cmd: vec!["/bin/sleep".into(), "1000000".into()],
            ..NodeSpec::default()
        };
        if self.libvirtd.is_some() {
            (spec.kind, spec.cmd) = ("guest".into(), Vec::new());
            (spec.cpu_request_millis, spec.memory_request_bytes) = (1000, 128 << 20);
        }
        if self.is_tiny {
            (spec.kind, spec.memory_request_bytes) = ("tiny".into(), 32 << 20);
        }
        let mut instance = Instance {
            uid: NodeUid::new(),
            lab_uid: self.lab_uid,
            lab: self.lab.clone(),
            name: format!("nltest-{}-{node}", self.lab),
            spec: spec.into(),
            runtime: self.runtime(),
            wanted: Wanted::Running,
            interfaces: Vec::new(),
            nics: Vec::new(),
            network: None,
            files: Vec::new(),
            host_entries: Vec::new().into(),
            spec_hash: String::new(),
            restarts: 0,
            held: false,
            certificate: None,
            network_of: None,
            readiness: None,
            image_digest: String::new(),
            wipes: 0,
            restore: String::new(),
            lease: None,
            disk_of: None,
        };
        rehash(&mut instance);
        instance
    }

    /// An image that its runtime can start.
    pub fn image(&self) -> String {
        match (self.is_tiny, self.libvirtd) {
            (true, _) => Tiny::default().put(&self.data_dir()).to_string(),
            (false, Some(_)) => guest_digest().to_string(),
            (false, None) => crate::docker::image::NAME.into(),
        }
    }

    pub fn runtime(&self) -> Runtime {
        if self.libvirtd.is_some() { Runtime::Libvirt } else { Runtime::Docker }
    }

    /// The base image of its virtual machines.
    pub fn base(&self) -> PathBuf {
        self.data_dir().join("images").join(&guest_digest().as_str()["sha256:".len()..])
    }

    pub async fn sync(&self, instances: &[Instance]) {
        self.try_sync(1, instances).await.unwrap();
    }

    pub async fn try_sync(&self, term: u64, instances: &[Instance]) -> Result<(), tonic::Status> {
        let instances = instances.iter().cloned().map(Into::into).collect();
        let beat = String::new();
        let request =
            p::SyncRequest { term, instances, ticket_key: KEY.to_vec(), more: false, beat, decision: 0 };
        self.client.clone().sync(request).await.map(drop)
    }

    pub async fn ensure(&self, instances: &[Instance]) {
        let instances = instances.iter().cloned().map(Into::into).collect();
        self.client
            .clone()
            .ensure(p::EnsureRequest { term: 1, instances, ..p::EnsureRequest::default() })
            .await
            .unwrap();
    }

    pub async fn remove(&self, uids: &[NodeUid], labs: &[LabUid]) -> Vec<p::RemoveFailure> {
        let request = p::RemoveRequest {
            term: 1,
            uids: uids.iter().map(ToString::to_string).collect(),
            lab_uids: labs.iter().map(ToString::to_string).collect(),
            decision: 0,
        };
        self.client.clone().remove(request).await.unwrap().into_inner().failures
    }

    /// The links of a start are settled: its exec commands may run.
    pub async fn settle(&self, o: &Observed) {
        self.reach(o, &[StagePoint { stage: Stage::Configure, on_exit: false }]).await;
    }

    /// A start has reached these points.
    pub async fn reach(&self, o: &Observed, points: &[StagePoint]) {
        let reached = points.iter().map(|p| (*p).into()).collect();
        let starts = vec![p::Start { uid: o.uid.to_string(), start_id: o.start_id.clone(), reached }];
        self.client.clone().settle(p::SettleRequest { term: 1, starts }).await.unwrap();
    }

    /// Puts a file of the lab on the host.
    pub async fn put(&self, path: &str, content: &[u8]) -> netloom_model::spec::FileEntry {
        let entry = file(path, content);
        let part = p::PutFilesRequest {
            lab_uid: self.lab_uid.to_string(),
            file: Some(entry.clone().into()),
            content: content.to_vec(),
            term: 1,
            deploys: 0,
        };
        self.client.clone().put_files(tokio_stream::once(part)).await.unwrap();
        entry
    }

    /// Syncs nothing, then ensures this one and waits until it runs.
    pub async fn run(&self, instance: &Instance) -> Observed {
        if !self.view.borrow().synced {
            self.sync(&[]).await;
        }
        self.ensure(std::slice::from_ref(instance)).await;
        self.until_phase(instance.uid, Phase::Running).await
    }

    pub fn ticket(&self, uid: NodeUid, verb: &str) -> String {
        let in_a_minute =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() + 60;
        ticket::sign(KEY, &uid.to_string(), verb, in_a_minute)
    }

    /// What an instance has written to its standard output.
    pub async fn log(&self, uid: NodeUid) -> String {
        let (ticket, uid) = (self.ticket(uid, "logs"), uid.to_string());
        let request = p::LogsRequest { ticket, uid, ..p::LogsRequest::default() };
        let mut log = self.client.clone().logs(request).await.unwrap().into_inner();
        let mut text = Vec::new();
        while let Some(message) = log.message().await.unwrap() {
            if let Some(p::logs_response::Part::Stdout(bytes)) = message.part {
                text.extend(bytes);
            }
        }
        String::from_utf8(text).unwrap()
    }

    /// Ends an instance's process from outside, as the kernel does when memory is short.
    pub async fn kill(&self, one: &Instance) {
        match self.libvirtd {
            Some(libvirtd) => {
                let qemu = nix::unistd::Pid::from_raw(libvirtd.qemu(&one.name).expect("it runs"));
                nix::sys::signal::kill(qemu, nix::sys::signal::Signal::SIGKILL).unwrap();
            }
            None if self.is_docker => {
                let docker = connect().await.unwrap();
                docker.kill_container(&one.name, None::<KillContainerOptions>).await.unwrap();
            }
            None => assert_eq!(self.exec(one.uid, &["kill"], false).await.1, 0),
        }
    }

    /// Runs a command in an instance and answers what it wrote and its exit code.
    pub async fn sh(&self, uid: NodeUid, script: &str) -> (String, i32) {
        self.exec(uid, &["/bin/sh", "-c", script], false).await
    }

    /// Runs a command in an instance, in a terminal or not, and answers what it wrote and its exit code.
    pub async fn exec(&self, uid: NodeUid, command: &[&str], tty: bool) -> (String, i32) {
        let start = p::ExecStart {
            ticket: self.ticket(uid, "exec"),
            uid: uid.to_string(),
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            tty,
            size: None,
        };
        let first = p::ExecRequest { part: Some(p::exec_request::Part::Start(start)) };
        let mut output = self.client.clone().exec(tokio_stream::once(first)).await.unwrap().into_inner();
        let (mut text, mut code) = (Vec::new(), None);
        while let Some(message) = output.message().await.unwrap() {
            match message.part.unwrap() {
                p::exec_response::Part::Stdout(b) | p::exec_response::Part::Stderr(b) => text.extend(b),
                p::exec_response::Part::ExitCode(c) => code = Some(c),
            }
        }
        (String::from_utf8(text).unwrap(), code.expect("an exit code comes last"))
    }
}

/// Digest of the guest's disk.
fn guest_digest() -> &'static Digest {
    static DIGEST: OnceLock<Digest> = OnceLock::new();
    DIGEST.get_or_init(|| Digest::of(&std::fs::read(libvirt::guest()).unwrap()))
}

/// Gives an instance the hash of what it is now.
pub fn rehash(i: &mut Instance) {
    i.spec_hash = netloom_model::slice::spec_hash(&i.name, &i.spec, &i.files, i.network.as_ref());
}

pub fn file(path: &str, content: &[u8]) -> netloom_model::spec::FileEntry {
    netloom_model::spec::FileEntry {
        path: path.into(),
        digest: Digest::of(content),
        size_bytes: content.len() as u64,
        mode: 0o644,
    }
}

async fn follow(mut client: ComputeServiceClient<Channel>, view: watch::Sender<View>) {
    loop {
        let Ok(stream) = client.observe(p::ObserveRequest {}).await else {
            // The service is still starting.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let (mut stream, mut parts) = (stream.into_inner(), BTreeMap::new());
        while let Ok(Some(message)) = stream.message().await {
            view.send_modify(|view| match message.event.expect("an event") {
                Event::Snapshot(s) => {
                    let read = |o: p::Observed| Observed::try_from(o).expect("a valid instance");
                    parts.extend(s.instances.into_iter().map(read).map(|o| (o.uid, o)));
                    if s.more {
                        return;
                    }
                    view.instances = std::mem::take(&mut parts);
                    view.inventory = s.inventory.expect("an inventory").try_into().unwrap();
                    view.synced = s.synced;
                }
                Event::Changed(o) => {
                    let o = Observed::try_from(o).expect("a valid instance");
                    view.instances.insert(o.uid, o);
                }
                Event::Gone(uid) => {
                    view.instances.remove(&uid.parse().unwrap());
                }
                Event::Heartbeat(h) => {
                    view.heartbeats += 1;
                    let ages = h.read_ago_ms.values().max().copied();
                    view.oldest = Duration::from_millis(ages.unwrap_or_default().into());
                    if let Some(inventory) = h.inventory {
                        view.inventory = inventory.try_into().unwrap();
                    }
                }
            });
        }
        return;
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if let Some(running) = &self.running {
            running.shutdown.cancel();
            running.observer.abort();
        }
        if let Some(libvirtd) = self.libvirtd {
            // Twice: the service, which is ending, may just have been making one.
            for _ in 0..2 {
                for name in
                    libvirtd.virsh(&["list", "--all", "--name"]).unwrap_or_default().split_whitespace()
                {
                    if name.starts_with(&format!("nltest-{}-", self.lab)) {
                        let _ = libvirtd.virsh(&["destroy", name]);
                        let _ = libvirtd.virsh(&["undefine", name]);
                    }
                }
            }
        }
        if self.is_docker {
            let (owner, run) = (self.owner, self.run_dir());
            // A runtime of its own: a test's cannot be waited for while it unwinds.
            let cleaning = std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(clean(owner));
                unmount(&run.join("netns"));
                unmount(&run.join("binds"));
            });
            let _ = cleaning.join();
        }
    }
}
