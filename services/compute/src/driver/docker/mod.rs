//! Containers, over Docker's socket.
//!
//! What a container is made of is in [`create`] (pure), what a host allows of it in [`policy`], what its kernel does in [`kernel`], what is mounted into it in [`mounts`] and [`volumes`], its management network in [`network`]; what is in its way in [`beside`], how it gets out of the way itself in [`aside`];
//! what is read back of it in [`read`], commands in [`exec`], its output in [`log`], changes in [`events`], images in [`images`]. Docker's own restart policy is always "no": netloom restarts. A container without a management network has `NetworkDisabled`, which halves its start; then Docker makes no sandbox and writes no
//! /etc/hosts, so netloom writes it.

mod aside;
mod beside;
mod create;
mod events;
mod exec;
mod images;
mod kernel;
mod log;
mod mounts;
mod network;
mod not_started;
mod policy;
mod read;
mod terminal;
mod volumes;

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error as DockerError;
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, ListContainersOptionsBuilder,
    RemoveContainerOptionsBuilder, StartContainerOptions, StopContainerOptionsBuilder,
};
use futures::FutureExt as _;
use futures::stream::BoxStream;
use netloom_model::id::{LabUid, NodeUid, Owner};
use netloom_model::slice::Instance;
use netloom_model::spec::NetworkMode;
use netloom_model::state::Runtime;
use netloom_service::fail_point;

use super::{Answer, Command, Driver, Found, Image, Limits, Line, Lines, Listed, Probe, Session};
use crate::config::Config;
use crate::error::Error;
use crate::figures::DOCKER;
use crate::files::Files;
use crate::pins::Pins;

/// Labels that netloom puts on what it makes.
pub(crate) mod label {
    pub(crate) const OWNER: &str = "netloom.owner";
    pub(crate) const LAB: &str = "netloom.lab";
    pub(crate) const NODE: &str = "netloom.node";
    pub(crate) const UID: &str = "netloom.uid";
    pub(crate) const LAB_UID: &str = "netloom.lab-uid";
    pub(crate) const SPEC_HASH: &str = "netloom.spec-hash";
}

/// Longest wait for an answer to a request that Docker answers when done: a start under load takes seconds, never this.
const LONGEST_REQUEST: Duration = Duration::from_secs(120);
/// Longest wait for "who are you".
const LONGEST_PROBE: Duration = Duration::from_secs(10);
/// The program that waits for interfaces.
const WAIT_PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/netloom-wait"));

/// See the module.
pub struct DockerDriver {
    owner: Owner,
    config: Arc<Config>,
    mounts: mounts::Mounts,
    /// Speaks the version that Docker was last found to speak.
    client: Mutex<Option<Docker>>,
    starts: events::Starts,
    networks: tokio::sync::Mutex<()>,
    /// Uids of nodes that may have volumes of their own; none until Docker was asked. Only this program makes such.
    nodes_with_volumes: tokio::sync::Mutex<Option<BTreeSet<String>>>,
}

impl DockerDriver {
    /// Puts the interface wait on the host; Docker itself need not answer yet.
    pub fn new(
        owner: Owner,
        config: Config,
        files: Arc<Files>,
        pins: Arc<Pins>,
        data_dir: &Path,
    ) -> Result<DockerDriver, Error> {
        let wait_program = data_dir.join("compute/netloom-wait");
        install(&wait_program, WAIT_PROGRAM)
            .map_err(|e| Error::host(format!("cannot write {}", wait_program.display()), e))?;
        let config = Arc::new(config);
        let mounts = mounts::Mounts { files, pins, wait_program, config: config.clone() };
        let (client, starts, networks, nodes_with_volumes) = Default::default();
        Ok(DockerDriver { owner, config, mounts, client, starts, networks, nodes_with_volumes })
    }

    /// A client that speaks Docker's version.
    async fn client(&self) -> Result<Docker, Error> {
        let known = self.client.lock().expect("no holder panics").clone();
        match known {
            Some(client) => Ok(client),
            None => self.connect().await,
        }
    }

    async fn connect(&self) -> Result<Docker, Error> {
        let socket = self.config.docker_socket.display();
        let connecting = async {
            Docker::connect_with_unix(
                &socket.to_string(),
                LONGEST_REQUEST.as_secs(),
                bollard::API_DEFAULT_VERSION,
            )?
            .negotiate_version()
            .await
        };
        let client = tokio::time::timeout(LONGEST_PROBE, connecting)
            .await
            .map_err(|_| self.silent("no answer"))?
            .map_err(|e| self.error(e))?;
        *self.client.lock().expect("no holder panics") = Some(client.clone());
        Ok(client)
    }

    fn silent(&self, why: impl std::fmt::Display) -> Error {
        Error::Unavailable(format!(
            "Docker does not answer on {} ({why}); start it: systemctl start docker",
            self.config.docker_socket.display()
        ))
    }

    /// An error of Docker's client: Docker said no, or said nothing.
    fn error(&self, e: DockerError) -> Error {
        match e {
            DockerError::DockerResponseServerError { message, .. } => {
                Error::Refused(format!("Docker: {message}"))
            }
            DockerError::DockerStreamError { error } => Error::Refused(format!("Docker: {error}")),
            DockerError::JsonDataError { message, .. } => {
                Error::Refused(format!("Docker answered what cannot be read: {message}"))
            }
            e => self.silent(e),
        }
    }

    /// Everything of ours, of one lab where one is given.
    fn filters(&self, lab: Option<LabUid>) -> HashMap<&'static str, Vec<String>> {
        let mut labels = vec![format!("{}={}", label::OWNER, self.owner)];
        labels.extend(lab.map(|lab| format!("{}={lab}", label::LAB_UID)));
        HashMap::from([("label", labels)])
    }

    async fn create_container(&self, instance: &Instance, shares: Option<&str>) -> Result<String, Error> {
        policy::check(&instance.spec, &self.config)?;
        let network = create::network(instance, shares)?;
        let client = self.client().await?;
        let (reference, image) = self.image_of(&client, instance).await?;
        fail_point::pass("compute.node-files", "before");
        let mut mounts = self.mounts.put(instance).await?;
        fail_point::pass("compute.node-files", "after");
        mounts.extend(self.ensure_volumes(&client, instance).await?);
        if let create::Network::Management(network) = network {
            self.ensure_network(&client, network, instance.lab_uid, instance.lab.as_str()).await?;
            fail_point::pass("compute.management-network", "after");
        }
        let config = image.config.unwrap_or_default();
        let program = create::program(
            config.entrypoint.unwrap_or_default(),
            config.cmd.unwrap_or_default(),
            &instance.spec,
        );
        if program.is_empty() {
            return Err(Error::Refused(format!(
                "image \"{}\" names no program to run; give the node a `cmd`",
                instance.spec.image
            )));
        }
        let kernel = kernel::Kernel::read();
        let body = create::body(instance, self.owner, reference, &network, program, mounts, &kernel);
        let options = CreateContainerOptionsBuilder::default().name(&instance.name).build();
        let id = match client.create_container(Some(options), body).await {
            Err(e) if status(&e) == Some(409) => self.taken(&client, &instance.name, instance).await?,
            other => other.map_err(|e| self.error(e))?.id,
        };
        self.refuse_other_image(&client, &id, instance).await?;
        Ok(id)
    }

    /// The name is taken: by this very instance (made by a call whose answer was lost), by an earlier one of ours that is about to go, or by somebody else.
    async fn taken(&self, client: &Docker, name: &str, instance: &Instance) -> Result<String, Error> {
        let other = match client.inspect_container(name, None::<InspectContainerOptions>).await {
            Err(e) if status(&e) == Some(404) => {
                return Err(Error::Busy(format!("the name {name} is just becoming free")));
            }
            other => other.map_err(|e| self.error(e))?,
        };
        match read::container(self.owner, other) {
            Some(found) if found.uid == instance.uid => Ok(found.id),
            Some(_) => Err(Error::Busy(format!(
                "waits until the container of another node called {name} is out of the way"
            ))),
            None => Err(Error::Foreign(format!(
                "a container called {name} exists that is not this installation's; remove it (docker rm -f {name}) or give the lab another name or prefix"
            ))),
        }
    }

    async fn start_container(&self, id: &str, instance: &Instance) -> Result<(), Error> {
        // A node may have changed what its binds lead to since it was made.
        self.mounts.put(instance).await?;
        let client = self.client().await?;
        if let (NetworkMode::Own, Some(network)) = (&instance.spec.network_mode, &instance.network) {
            self.put_on_network(&client, id, instance, network).await?;
        }
        self.starts.begin(id);
        let started = client.start_container(id, None::<StartContainerOptions>).await;
        if started.is_err() {
            self.starts.failed(id);
        }
        match started {
            Err(e) if is_held_up(&e) && !self.has_run(&client, id).await? => {
                self.remove_container(id).await?;
                Err(Error::Busy(
                    "Docker was ended in the middle of its start and cannot go on with it; it is made anew"
                        .to_owned(),
                ))
            }
            other => other.map_err(|e| self.error(e)),
        }
    }

    /// True when a container has run at some time, and may hold what its programs wrote.
    async fn has_run(&self, client: &Docker, id: &str) -> Result<bool, Error> {
        match client.inspect_container(id, None::<InspectContainerOptions>).await {
            Err(e) if status(&e) == Some(404) => Ok(true),
            other => Ok(other.map_err(|e| self.error(e))?.state.is_some_and(|s| read::has_run(&s))),
        }
    }

    /// Stops a container; its process has so many seconds to end.
    async fn stop_container(&self, id: &str, seconds: u32) -> Result<(), Error> {
        let options =
            StopContainerOptionsBuilder::default().t(i32::try_from(seconds).unwrap_or(i32::MAX)).build();
        match self.client().await?.stop_container(id, Some(options)).await {
            // 304: it has ended already.
            Err(e) if matches!(status(&e), Some(304 | 404)) => Ok(()),
            other => other.map_err(|e| self.error(e)),
        }
    }

    async fn remove_container(&self, id: &str) -> Result<(), Error> {
        let client = self.client().await?;
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        match client.remove_container(id, Some(options)).await {
            Err(e) if status(&e) == Some(404) => Ok(()),
            Err(e) if status(&e) == Some(409) => {
                Err(Error::Busy(format!("container {id} is being removed by somebody else")))
            }
            other => other.map_err(|e| self.error(e)),
        }
    }
}

impl Driver for DockerDriver {
    fn serves(&self, runtime: Runtime) -> bool {
        runtime == Runtime::Docker
    }

    fn probe(&self) -> Answer<'_, Probe> {
        async {
            let client = self.connect().await?;
            let version = tokio::time::timeout(LONGEST_PROBE, client.version())
                .await
                .map_err(|_| self.silent("no answer"))?
                .map_err(|e| self.error(e))?;
            // Debian writes "20.10.24+dfsg1"; what follows the plus is packaging.
            let version = version.version.unwrap_or_default();
            let version = version.split('+').next().unwrap_or_default();
            Ok(Probe {
                runtimes: vec![Runtime::Docker],
                version: format!("Docker {version}"),
                acceleration: None,
            })
        }
        .boxed()
    }

    fn answers(&self) -> Answer<'_, bool> {
        async {
            // Which versions of everything there are takes Docker ten times as long to say.
            if let Err(e) = self.client().await?.ping().await {
                // The next Docker may speak another version.
                *self.client.lock().expect("no holder panics") = None;
                return Err(self.error(e));
            }
            Ok(true)
        }
        .boxed()
    }

    fn events(&self) -> Answer<'_, BoxStream<'static, String>> {
        async { Ok(events::changes(self.client().await?, self.filters(None), self.starts.clone())) }.boxed()
    }

    fn list(&self) -> Answer<'_, Vec<Listed>> {
        let call = async {
            let options =
                ListContainersOptionsBuilder::default().all(true).filters(&self.filters(None)).build();
            let listing = self.client().await?;
            let containers = tokio::time::timeout(LONGEST_PROBE, listing.list_containers(Some(options)))
                .await
                .map_err(|_| self.silent("no list of containers"))?
                .map_err(|e| self.error(e))?;
            let listed = containers.into_iter().filter_map(|c| {
                use bollard::models::ContainerSummaryStateEnum as State;
                let running = matches!(c.state, Some(State::RUNNING | State::PAUSED | State::RESTARTING));
                Some(Listed { id: c.id?, running })
            });
            Ok(listed.collect())
        };
        DOCKER.time(&["list"], call).boxed()
    }

    fn inspect<'a>(&'a self, id: &'a str) -> Answer<'a, Option<Found>> {
        let call = async move {
            match self.client().await?.inspect_container(id, None::<InspectContainerOptions>).await {
                Err(e) if status(&e) == Some(404) => Ok(None),
                other => Ok(read::container(self.owner, other.map_err(|e| self.error(e))?)),
            }
        };
        DOCKER.time(&["inspect"], call).boxed()
    }

    fn check<'a>(
        &'a self,
        instances: &'a [Instance],
        leaving: &'a BTreeSet<NodeUid>,
    ) -> Answer<'a, Vec<(NodeUid, Error)>> {
        DOCKER.time(&["check"], self.check_beside(instances, leaving)).boxed()
    }

    fn create<'a>(&'a self, instance: &'a Instance, shares: Option<&'a str>) -> Answer<'a, String> {
        DOCKER.time(&["create"], self.create_container(instance, shares)).boxed()
    }

    fn start<'a>(&'a self, id: &'a str, instance: &'a Instance) -> Answer<'a, ()> {
        DOCKER.time(&["start"], self.start_container(id, instance)).boxed()
    }

    fn refresh<'a>(&'a self, id: &'a str, instance: &'a Instance, has: &'a Limits) -> Answer<'a, ()> {
        async move {
            self.mounts.refresh(instance).await?;
            if has.satisfy(&instance.spec) {
                return Ok(());
            }
            let limits = create::update(Limits::of(&instance.spec).explicit());
            self.client().await?.update_container(id, limits).await.map_err(|e| self.error(e))
        }
        .boxed()
    }

    fn stop<'a>(&'a self, id: &'a str) -> Answer<'a, ()> {
        DOCKER.time(&["stop"], self.stop_container(id, self.config.stop_timeout.min(100))).boxed()
    }

    fn halt<'a>(&'a self, id: &'a str) -> Answer<'a, ()> {
        DOCKER.time(&["stop"], self.stop_container(id, 0)).boxed()
    }

    fn set_aside<'a>(&'a self, id: &'a str, instance: &'a Instance) -> Answer<'a, ()> {
        DOCKER.time(&["set_aside"], self.set_container_aside(id, instance)).boxed()
    }

    fn bring_back<'a>(&'a self, id: &'a str, instance: &'a Instance) -> Answer<'a, ()> {
        DOCKER.time(&["bring_back"], self.bring_container_back(id, instance)).boxed()
    }

    fn remove<'a>(&'a self, id: &'a str) -> Answer<'a, ()> {
        DOCKER.time(&["remove"], self.remove_container(id)).boxed()
    }

    fn remove_node(&self, node: NodeUid) -> Answer<'_, ()> {
        DOCKER.time(&["remove_volumes"], self.remove_volumes_of(node)).boxed()
    }

    fn remove_lab(&self, lab: LabUid) -> Answer<'_, ()> {
        let call = async move {
            self.remove_networks(lab).await?;
            self.remove_volumes(format!("{}={lab}", label::LAB_UID)).await
        };
        DOCKER.time(&["remove_lab"], call).boxed()
    }

    fn exec<'a>(&'a self, id: &'a str, _: Option<&'a Instance>, command: Command) -> Answer<'a, Session> {
        DOCKER.time(&["exec"], self.start_exec(id, command)).boxed()
    }

    fn logs<'a>(&'a self, id: &'a str, which: Lines) -> Answer<'a, BoxStream<'static, Result<Line, Error>>> {
        DOCKER.time(&["logs"], self.read_log(id, which)).boxed()
    }

    fn image<'a>(&'a self, reference: &'a str, _: Runtime) -> Answer<'a, Option<Image>> {
        DOCKER.time(&["image"], self.inspect_image(reference)).boxed()
    }

    fn pull<'a>(&'a self, reference: &'a str) -> Answer<'a, BoxStream<'static, Result<String, Error>>> {
        DOCKER.time(&["pull"], self.pull_image(reference)).boxed()
    }

    fn load<'a>(&'a self, reference: &'a str, archive: &'a Path) -> Answer<'a, bool> {
        DOCKER.time(&["load"], self.load_for(reference, archive)).boxed()
    }

    fn adopt<'a>(&'a self, reference: &'a str, image_ids: &'a [String]) -> Answer<'a, bool> {
        DOCKER.time(&["adopt"], self.adopt_image(reference, image_ids)).boxed()
    }
}

/// HTTP status of an answer of Docker's.
fn status(e: &DockerError) -> Option<u16> {
    match e {
        DockerError::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

/// True for what Docker says of a container in whose start it was ended itself: containerd has a task, or a container, that Docker does not know.
fn is_held_up(e: &DockerError) -> bool {
    matches!(e, DockerError::DockerResponseServerError { message, .. }
        if message.starts_with("task ") && message.contains(": already exists") || message == "id already in use")
}

/// Writes a program by renaming, since one that runs cannot be written over.
fn install(path: &Path, content: &[u8]) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    if std::fs::read(path).is_ok_and(|before| before == content) {
        return Ok(());
    }
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    let draft = path.with_extension("new");
    std::fs::write(&draft, content)?;
    std::fs::set_permissions(&draft, std::fs::Permissions::from_mode(0o755))?;
    std::fs::rename(draft, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_that_docker_was_ended_over_is_told_by_its_task() {
        let said = |status_code, message: &str| {
            is_held_up(&DockerError::DockerResponseServerError { status_code, message: message.to_owned() })
        };
        assert!(said(500, "task 38d5a51b601a: already exists: unknown"));
        assert!(said(409, "task 38d5a51b601a: already exists"));
        assert!(said(409, "id already in use"));
        assert!(!said(409, "Conflict. The container name \"/x\" is already in use"));
        assert!(!said(500, "OCI runtime create failed: exec: \"/task \": file already exists in the image"));
    }
}
