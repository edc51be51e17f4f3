//! Instances in memory, with scripted delays and faults: for tests of scale and of failures. It serves every runtime, so a lab of virtual machines can be played without any; nothing
//! has a network namespace.
//!
//! | label of a node | what it does |
//! |---|---|
//! | `sim.create-ms`, `sim.start-ms` | how long its creation and each start take, instead of the configured |
//! | `sim.fail-create`, `sim.fail-start`, `sim.fail-remove` | that step fails with this message |
//! | `sim.remove-together` | its removal ends only when so many are under way or over, and fails when that takes 60 s |
//! | `sim.image-missing` | its image is not there |
//! | `sim.exit-after-ms` | its process ends by itself so long after each start, with `sim.exit-code` (default 1) |
//! | `sim.exit-times` | … but only the first so many starts |
//! | `sim.health` | what its health check says once it has run for `sim.health-after-ms` (default 0); "starting" before |
//! | `sim.stop-ms` | how long its process takes to end when it is stopped |
//! | `sim.fail-exec` | the command with this text exits with 1; any other prints itself and exits with 0 |
//! | `sim.fail-exec-times` | … but only the first so many times |
//! | `sim.log` | a line that its process writes `sim.log-after-ms` (default 0) after each start |
//!
//! The command `kill` ends the process that it is run beside, as KILL does.
//!
//! They are gone with the service, unless `file` of `[compute.sim]` names where they are kept: then they live on without it, as containers do.
//!
//! An image reference that ends in `:missing` is in no store and cannot be pulled.

mod script;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{FutureExt as _, StreamExt as _};
use netloom_model::id::{Digest, LabUid, NodeUid};
use netloom_model::observed::Acceleration;
use netloom_model::slice::Instance;
use netloom_model::spec::{NetworkMode, PortMapping};
use netloom_model::state::Runtime;
use serde::{Deserialize, Serialize};
use tokio::sync::{broadcast, mpsc, watch};
use tokio_stream::wrappers::{BroadcastStream, ReceiverStream};

use self::script::{fault, number, pause};
use super::{
    Answer, Command, Driver, Found, Image, ImageFormat, Input, Limits, Line, Lines, Listed, NetworkOf,
    Output, Probe, Process, Session,
};
use crate::config::SimConfig;
use crate::error::Error;

/// How long a removal waits for others that are to be under way with it.
const TOGETHER: Duration = Duration::from_secs(60);

/// See the module.
pub struct SimDriver {
    config: SimConfig,
    world: Arc<World>,
}

struct World {
    /// Where they are kept.
    file: Option<PathBuf>,
    instances: Mutex<BTreeMap<String, Simulated>>,
    changes: broadcast::Sender<String>,
    /// Of instances and starts: names each.
    count: AtomicU64,
    /// How many removals began.
    removals: watch::Sender<u64>,
}

#[derive(Serialize, Deserialize)]
struct Simulated {
    found: Found,
    labels: BTreeMap<String, String>,
    #[serde(skip, default = "Instant::now")]
    started: Instant,
    starts: u32,
    log: Vec<(i64, String)>,
    /// How often a command was made to fail.
    failed: u32,
}

impl SimDriver {
    /// A world as it was kept, or an empty one.
    pub fn new(config: SimConfig) -> Result<SimDriver, Error> {
        let file = Some(config.file.clone()).filter(|f| !f.as_os_str().is_empty());
        let instances = file.as_deref().map(load).transpose()?.unwrap_or_default();
        let numbers = instances.values().filter_map(|i| i.found.namespace);
        let names = instances.keys().filter_map(|id| id.rsplit_once('.')?.1.parse().ok());
        let count = AtomicU64::new(numbers.chain(names).max().unwrap_or_default() + 1);
        let changes = broadcast::channel(4096).0;
        let world =
            World { file, instances: Mutex::new(instances), changes, count, removals: watch::Sender::new(0) };
        Ok(SimDriver { config, world: Arc::new(world) })
    }

    async fn make(&self, instance: &Instance, shares: Option<&str>) -> Result<String, Error> {
        let labels = &instance.spec.labels;
        pause(labels, "sim.create-ms", self.config.create_ms).await;
        if labels.contains_key("sim.image-missing") || is_missing(&instance.spec.image) {
            return Err(Error::ImageMissing(instance.spec.image.clone()));
        }
        fault(labels, "sim.fail-create")?;
        // Another one each time, as containers are.
        let id = format!("{}.{}", instance.uid, self.world.count.fetch_add(1, Ordering::Relaxed));
        let found = Found {
            machine: None,
            id: id.clone(),
            uid: instance.uid,
            lab_uid: instance.lab_uid,
            lab: instance.lab.to_string(),
            node: instance.spec.id.clone(),
            spec_hash: instance.spec_hash.clone(),
            image_digest: Digest::of(instance.spec.image.as_bytes()).into(),
            process: Process::Created,
            aside: false,
            start_id: String::new(),
            started_us: 0,
            ran: Duration::ZERO,
            mgmt_ipv4: instance.spec.mgmt_ipv4.clone(),
            mgmt_ipv6: instance.spec.mgmt_ipv6.clone(),
            networks: instance.network.iter().map(|network| network.name.clone()).collect(),
            health: String::new(),
            trouble: String::new(),
            limits: Limits::of(&instance.spec),
            ports: instance.spec.ports.clone(),
            network: match &instance.spec.network_mode {
                NetworkMode::Own | NetworkMode::None => NetworkOf::Own,
                NetworkMode::Host => NetworkOf::Host,
                NetworkMode::Node(_) => NetworkOf::Instance(shares.unwrap_or_default().to_owned()),
            },
            namespace: None,
            prepared: false,
        };
        let simulated = Simulated {
            found,
            labels: labels.clone(),
            started: Instant::now(),
            starts: 0,
            log: Vec::new(),
            failed: 0,
        };
        self.world.lock().insert(id.clone(), simulated);
        self.world.changed(&id);
        Ok(id)
    }

    async fn run(&self, id: &str) -> Result<(), Error> {
        let labels = self.world.with(id, |i| i.labels.clone())?;
        pause(&labels, "sim.start-ms", self.config.start_ms).await;
        fault(&labels, "sim.fail-start")?;
        let after_ms: u64 = number(&labels, "sim.health-after-ms").unwrap_or_default();
        let peer = match self.world.with(id, |i| i.found.network.clone())? {
            NetworkOf::Instance(peer) => Some(self.world.with(&peer, |i| i.found.namespace)?),
            NetworkOf::Own | NetworkOf::Host => None,
        };
        let number_of_it = self.world.count.fetch_add(1, Ordering::Relaxed);
        let start_id = self.world.with(id, |i| {
            if matches!(i.found.process, Process::Running { .. }) {
                return None;
            }
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            i.starts += 1;
            i.started = Instant::now();
            i.found.process = Process::Running { pid: None };
            i.found.start_id = now.as_nanos().to_string();
            i.found.started_us = i64::try_from(now.as_micros()).unwrap_or_default();
            i.found.namespace = peer.unwrap_or(Some(number_of_it));
            i.found.health = match labels.get("sim.health") {
                Some(health) if after_ms == 0 => health.clone(),
                Some(_) => "starting".to_owned(),
                None => String::new(),
            };
            let at = i64::try_from(now.as_nanos()).unwrap_or_default();
            i.log.push((at, format!("start {}\n", i.starts)));
            Some((i.found.start_id.clone(), i.starts))
        })?;
        self.world.changed(id);
        let Some((start_id, starts)) = start_id else { return Ok(()) };
        if let Some(health) = labels.get("sim.health").filter(|_| after_ms > 0).cloned() {
            let (world, id, start_id) = (self.world.clone(), id.to_owned(), start_id.clone());
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(after_ms)).await;
                let is_it = |i: &mut Simulated| {
                    if i.found.start_id == start_id && i.runs() {
                        i.found.health = health;
                    }
                };
                if world.with(&id, is_it).is_ok() {
                    world.changed(&id);
                }
            });
        }
        if let Some(text) = labels.get("sim.log").cloned() {
            let after_ms = number(&labels, "sim.log-after-ms").unwrap_or_default();
            let (world, id, start_id) = (self.world.clone(), id.to_owned(), start_id.clone());
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(after_ms)).await;
                let _ = world.with(&id, |i| {
                    if i.found.start_id == start_id && i.runs() {
                        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                        i.log.push((i64::try_from(now.as_nanos()).unwrap_or_default(), text + "\n"));
                    }
                });
            });
        }
        let times = number(&labels, "sim.exit-times").unwrap_or(u32::MAX);
        if let Some(after) = number(&labels, "sim.exit-after-ms").filter(|_| starts <= times) {
            let code = number(&labels, "sim.exit-code").unwrap_or(1);
            let (world, id) = (self.world.clone(), id.to_owned());
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(after)).await;
                world.end(&id, Some(&start_id), code);
            });
        }
        Ok(())
    }
}

impl Simulated {
    fn runs(&self) -> bool {
        matches!(self.found.process, Process::Running { .. })
    }
}

impl World {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Simulated>> {
        self.instances.lock().expect("no holder panics")
    }

    fn with<T>(&self, id: &str, f: impl FnOnce(&mut Simulated) -> T) -> Result<T, Error> {
        self.lock()
            .get_mut(id)
            .map(f)
            .ok_or_else(|| Error::Refused(format!("there is no simulated instance {id}")))
    }

    fn changed(&self, id: &str) {
        if let Some(file) = &self.file {
            // Locked until it is written: what is kept is never older than what was.
            let instances = self.lock();
            let kept = serde_json::to_vec(&*instances).expect("instances always serialise");
            let draft = file.with_extension("new");
            if let Err(error) = std::fs::write(&draft, kept).and_then(|()| std::fs::rename(&draft, file)) {
                tracing::error!(%error, file = %file.display(), "simulated instances cannot be kept");
            }
        }
        // Nobody listening is fine.
        let _ = self.changes.send(id.to_owned());
    }

    /// Ends a process, of one start only where one is given.
    fn end(&self, id: &str, start_id: Option<&str>, code: i32) {
        let ended = self.with(id, |i| {
            let runs = i.runs();
            let is_it = start_id.is_none_or(|s| s == i.found.start_id);
            if runs && is_it {
                i.found.process = Process::Ended { code, error: String::new() };
                i.found.ran = i.started.elapsed();
                (i.found.namespace, i.found.health) = (None, String::new());
            }
            runs && is_it
        });
        if ended.unwrap_or(false) {
            self.changed(id);
        }
    }
}

impl Driver for SimDriver {
    fn serves(&self, runtime: Runtime) -> bool {
        runtime != Runtime::Bridge
    }

    fn at_once(&self) -> usize {
        if self.config.at_once == 0 { super::at_once() } else { self.config.at_once }
    }

    fn probe(&self) -> Answer<'_, Probe> {
        let probe = Probe {
            runtimes: vec![Runtime::Docker, Runtime::Libvirt],
            version: "sim".to_owned(),
            // What is only played is as fast as on KVM.
            acceleration: Some(Acceleration::Kvm),
        };
        async { Ok(probe) }.boxed()
    }

    fn answers(&self) -> Answer<'_, bool> {
        async { Ok(true) }.boxed()
    }

    fn events(&self) -> Answer<'_, BoxStream<'static, String>> {
        let changes = BroadcastStream::new(self.world.changes.subscribe());
        // Lagging ends the stream, as losing Docker's does.
        let changes = changes.take_while(|c| futures::future::ready(c.is_ok()));
        async { Ok(changes.filter_map(|c| futures::future::ready(c.ok())).boxed()) }.boxed()
    }

    fn list(&self) -> Answer<'_, Vec<Listed>> {
        let listed = |i: &Simulated| Listed { id: i.found.id.clone(), running: i.runs() };
        let all = self.world.lock().values().map(listed).collect();
        async { Ok(all) }.boxed()
    }

    fn inspect<'a>(&'a self, id: &'a str) -> Answer<'a, Option<Found>> {
        async move { Ok(self.world.lock().get(id).map(|i| i.found.clone())) }.boxed()
    }

    fn check<'a>(
        &'a self,
        instances: &'a [Instance],
        leaving: &'a BTreeSet<NodeUid>,
    ) -> Answer<'a, Vec<(NodeUid, Error)>> {
        let taken = |instance: &Instance| {
            let all = self.world.lock();
            let stays = |i: &&Simulated| i.found.uid != instance.uid && !i.found.aside;
            let others = all.values().filter(stays).filter(|i| !leaving.contains(&i.found.uid));
            let mut ports = others.flat_map(|i| i.found.ports.iter().map(|p| (p, i.found.node.clone())));
            let same = |a: &PortMapping, b: &PortMapping| {
                a.host_port == b.host_port && a.host_port > 0 && a.protocol == b.protocol
            };
            ports
                .find(|(p, _)| instance.spec.ports.iter().any(|own| same(p, own)))
                .map(|(p, node)| (instance.uid, Error::port_taken(p, &format!("node {node} has it"))))
        };
        let refused = instances.iter().filter_map(taken).collect();
        async { Ok(refused) }.boxed()
    }

    fn create<'a>(&'a self, instance: &'a Instance, shares: Option<&'a str>) -> Answer<'a, String> {
        self.make(instance, shares).boxed()
    }

    fn start<'a>(&'a self, id: &'a str, _: &'a Instance) -> Answer<'a, ()> {
        self.run(id).boxed()
    }

    fn refresh<'a>(&'a self, id: &'a str, instance: &'a Instance, has: &'a Limits) -> Answer<'a, ()> {
        async move {
            if !has.satisfy(&instance.spec) {
                self.world.with(id, |i| i.found.limits = Limits::of(&instance.spec).explicit())?;
                self.world.changed(id);
            }
            Ok(())
        }
        .boxed()
    }

    fn stop<'a>(&'a self, id: &'a str) -> Answer<'a, ()> {
        async move {
            if let Ok(labels) = self.world.with(id, |i| i.labels.clone()) {
                pause(&labels, "sim.stop-ms", 0).await;
            }
            self.world.end(id, None, 0);
            Ok(())
        }
        .boxed()
    }

    fn set_aside<'a>(&'a self, id: &'a str, _: &'a Instance) -> Answer<'a, ()> {
        async move {
            self.stop(id).await?;
            self.world.with(id, |i| i.found.aside = true)?;
            self.world.changed(id);
            Ok(())
        }
        .boxed()
    }

    fn bring_back<'a>(&'a self, id: &'a str, instance: &'a Instance) -> Answer<'a, ()> {
        async move {
            let takes_it = |i: &Simulated| {
                let place = (&i.found.lab_uid, i.found.node.as_str());
                i.found.id != id && !i.found.aside && place == (&instance.lab_uid, instance.spec.id.as_str())
            };
            if self.world.lock().values().any(takes_it) {
                return Err(Error::Busy(format!("waits until another {} is removed", instance.name)));
            }
            self.world.with(id, |i| i.found.aside = false)?;
            self.world.changed(id);
            Ok(())
        }
        .boxed()
    }

    fn remove<'a>(&'a self, id: &'a str) -> Answer<'a, ()> {
        async move {
            if let Ok(labels) = self.world.with(id, |i| i.labels.clone()) {
                fault(&labels, "sim.fail-remove")?;
                self.world.removals.send_modify(|n| *n += 1);
                if let Some(together) = number::<u64>(&labels, "sim.remove-together") {
                    let mut begun = self.world.removals.subscribe();
                    let others = tokio::time::timeout(TOGETHER, begun.wait_for(|n| *n >= together));
                    if others.await.is_err() {
                        return Err(Error::Refused(format!("no {together} removals were under way at once")));
                    }
                }
                self.world.lock().remove(id);
                self.world.changed(id);
            }
            Ok(())
        }
        .boxed()
    }

    fn remove_node(&self, _: NodeUid) -> Answer<'_, ()> {
        async { Ok(()) }.boxed()
    }

    fn remove_lab(&self, _: LabUid) -> Answer<'_, ()> {
        async { Ok(()) }.boxed()
    }

    fn exec<'a>(&'a self, id: &'a str, _: Option<&'a Instance>, command: Command) -> Answer<'a, Session> {
        async move {
            let text = command.argv.join(" ");
            let (runs, fails) = self.world.with(id, |i| {
                let times = number(&i.labels, "sim.fail-exec-times").unwrap_or(u32::MAX);
                let fails = i.labels.get("sim.fail-exec") == Some(&text) && i.failed < times;
                i.failed += u32::from(fails);
                (i.runs(), fails)
            })?;
            if !runs {
                return Err(Error::NotRunning(id.to_owned()));
            }
            if command.argv == ["kill"] {
                self.world.end(id, None, 137);
            }
            let code = i32::from(fails);
            let (output, from) = mpsc::channel(32);
            let (input, mut given) = mpsc::channel(32);
            tokio::spawn(async move {
                let told = output.send(Ok(Output::Stdout(Bytes::from(text + "\n")))).await;
                while told.is_ok() && command.stdin {
                    match given.recv().await {
                        Some(Input::Data(bytes)) => {
                            if output.send(Ok(Output::Stdout(bytes))).await.is_err() {
                                break;
                            }
                        }
                        Some(Input::Resize(_)) => {}
                        Some(Input::End) | None => break,
                    }
                }
                let _ = output.send(Ok(Output::Exit(code))).await;
            });
            Ok(Session { output: ReceiverStream::new(from).boxed(), input })
        }
        .boxed()
    }

    fn logs<'a>(&'a self, id: &'a str, which: Lines) -> Answer<'a, BoxStream<'static, Result<Line, Error>>> {
        async move {
            // First the changes, then the log: an end in between is told.
            let mut changes = self.world.changes.subscribe();
            let (log, start) = self.world.with(id, |i| (i.log.clone(), i.found.start_id.clone()))?;
            let mut log: Vec<_> = log.into_iter().filter(|(at, _)| *at > which.after_ns).collect();
            if which.tail > 0 {
                log.drain(..log.len().saturating_sub(which.tail as usize));
            }
            let line = |(at_ns, text)| Ok(Line { at_ns, output: Output::Stdout(Bytes::from(text)) });
            let said = stream::iter(log.into_iter().map(line));
            if !which.follow {
                return Ok(said.boxed());
            }
            let (world, id) = (self.world.clone(), id.to_owned());
            let ended = async move {
                let runs = |i: &mut Simulated| i.runs() && i.found.start_id == start;
                while world.with(&id, runs).unwrap_or(false) {
                    if let Err(broadcast::error::RecvError::Closed) = changes.recv().await {
                        break;
                    }
                }
            };
            let until = stream::once(ended).filter_map(|()| futures::future::ready(None));
            Ok(said.chain(until).boxed())
        }
        .boxed()
    }

    fn image<'a>(&'a self, reference: &'a str, runtime: Runtime) -> Answer<'a, Option<Image>> {
        async move {
            let format = if runtime == Runtime::Libvirt { ImageFormat::Qcow2 } else { ImageFormat::Docker };
            let digest = Digest::of(reference.as_bytes()).into();
            let image = Image { digest, format, size_bytes: 1 << 20, architecture: "amd64".to_owned() };
            Ok((!is_missing(reference)).then_some(image))
        }
        .boxed()
    }

    fn pull<'a>(&'a self, reference: &'a str) -> Answer<'a, BoxStream<'static, Result<String, Error>>> {
        async move {
            let outcome = if is_missing(reference) {
                Err(Error::PullFailed {
                    reference: reference.to_owned(),
                    message: "manifest unknown".to_owned(),
                })
            } else {
                Ok("downloading 0.5 of 1.0 MB".to_owned())
            };
            Ok(stream::once(async { outcome }).boxed())
        }
        .boxed()
    }

    fn adopt<'a>(&'a self, reference: &'a str, _: &'a [String]) -> Answer<'a, bool> {
        async move { Ok(!is_missing(reference)) }.boxed()
    }
}

fn load(file: &Path) -> Result<BTreeMap<String, Simulated>, Error> {
    match std::fs::read(file) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        read => read
            .and_then(|text| Ok(serde_json::from_slice(&text)?))
            .map_err(|e| Error::host(format!("cannot read simulated instances in {}", file.display()), e)),
    }
}

fn is_missing(reference: &str) -> bool {
    reference.ends_with(":missing")
}
