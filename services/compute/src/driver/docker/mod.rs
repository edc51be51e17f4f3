//! Containers, over Docker's socket.
//!
//! What a container is made of is in [`create`] (pure), its management network in [`network`], images in [`images`], commands and logs in [`exec`], changes in [`events`]. Docker's own restart
//! policy is always "no": netloom restarts. A container without a management network has `NetworkDisabled`, which halves its start; then Docker makes no sandbox and writes no
//! /etc/hosts, so netloom writes it.

mod create;
mod events;
mod exec;
mod images;
mod network;
mod terminal;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error as DockerError;
use bollard::models::{ContainerInspectResponse, ContainerState, ContainerStateStatusEnum};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, ListContainersOptionsBuilder,
    RemoveContainerOptionsBuilder, StartContainerOptions, StopContainerOptionsBuilder,
};
use futures::FutureExt as _;
use futures::stream::BoxStream;
use netloom_model::id::{LabUid, Owner};
use netloom_model::slice::Instance;
use netloom_model::spec::BindSource;
use netloom_model::state::Runtime;

use super::{Answer, Command, Driver, Found, Image, Listed, Output, Probe, Process, Session};
use crate::config::Config;
use crate::error::Error;
use crate::files::{self, Files};
use crate::hosts_file;
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
    config: Config,
    files: Arc<Files>,
    pins: Arc<Pins>,
    wait_program: PathBuf,
    /// Speaks the version that Docker was last found to speak.
    client: Mutex<Option<Docker>>,
    networks: tokio::sync::Mutex<()>,
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
        let networks = tokio::sync::Mutex::default();
        Ok(DockerDriver { owner, config, files, pins, wait_program, client: Mutex::default(), networks })
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

    /// Mounts of a node's binds, held for Docker to open. What is not there, or not allowed, is an error.
    fn binds(&self, instance: &Instance) -> Result<Vec<create::Mounted>, Error> {
        let source = |number: usize, bind: &BindSource| match bind {
            BindSource::Bundle(path) => {
                self.pins.hold(instance.uid, number, &self.files.resolve(instance.lab_uid, path)?)
            }
            BindSource::Host(path) => {
                files::host_path(path, &self.config.allowed_host_paths, &self.config.docker_socket)
            }
        };
        let mounted = |(number, bind): (usize, &netloom_model::spec::Bind)| {
            Ok(create::Mounted {
                source: source(number, &bind.source)?,
                target: bind.target.clone(),
                read_only: bind.read_only,
            })
        };
        instance.spec.binds.iter().enumerate().map(mounted).collect()
    }

    /// Writes what a node reads of netloom's, and answers how it is mounted.
    fn node_files(&self, instance: &Instance) -> Result<Vec<create::Mounted>, Error> {
        let dir = self.files.node_dir(instance.lab_uid, instance.uid)?;
        let mut mounts = Vec::new();
        let mut put = |name: &str, text: &str, target: &str, read_only: bool| {
            let source = dir.join(name);
            files::write_in_place(&source, text)?;
            mounts.push(create::Mounted { source, target: target.to_owned(), read_only });
            Ok::<(), Error>(())
        };
        let hosts = hosts_file::hosts(hosts_file::hostname(instance), &instance.host_entries);
        put("hosts", &hosts, "/etc/hosts", false)?;
        if instance.network.is_none() {
            put("resolv.conf", hosts_file::resolv_conf(), "/etc/resolv.conf", false)?;
        }
        if !instance.spec.skip_interface_wait {
            put("interfaces", &hosts_file::interfaces(&instance.interfaces), create::INTERFACES, true)?;
            mounts.push(create::Mounted {
                source: self.wait_program.clone(),
                target: create::WAIT.to_owned(),
                read_only: true,
            });
        }
        Ok(mounts)
    }

    async fn create_container(&self, instance: &Instance) -> Result<String, Error> {
        let client = self.client().await?;
        let image = match client.inspect_image(&instance.spec.image).await {
            Err(e) if status(&e) == Some(404) => {
                return Err(Error::ImageMissing(instance.spec.image.clone()));
            }
            other => other.map_err(|e| self.error(e))?,
        };
        let mut mounts = self.node_files(instance)?;
        mounts.extend(self.binds(instance)?);
        if let Some(network) = &instance.network {
            self.ensure_network(&client, network, instance.lab_uid, instance.lab.as_str()).await?;
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
        let body = create::body(instance, self.owner, program, mounts);
        let options = CreateContainerOptionsBuilder::default().name(&instance.name).build();
        match client.create_container(Some(options), body).await {
            Err(e) if status(&e) == Some(409) => self.taken(&client, instance).await,
            other => Ok(other.map_err(|e| self.error(e))?.id),
        }
    }

    /// The name is taken: by this very instance (made by a call whose answer was lost), by an earlier one of ours that is about to go, or by somebody else.
    async fn taken(&self, client: &Docker, instance: &Instance) -> Result<String, Error> {
        let name = &instance.name;
        let other = match client.inspect_container(name, None::<InspectContainerOptions>).await {
            Err(e) if status(&e) == Some(404) => {
                return Err(Error::Busy(format!("the name {name} is just becoming free")));
            }
            other => other.map_err(|e| self.error(e))?,
        };
        match read(self.owner, other) {
            Some(found) if found.uid == instance.uid => Ok(found.id),
            Some(_) => Err(Error::Busy(format!(
                "waits until the container of an earlier node called {name} is removed"
            ))),
            None => Err(Error::Foreign(format!(
                "a container called {name} exists that is not this installation's; remove it (docker rm -f {name}) or give the lab another name or prefix"
            ))),
        }
    }

    async fn start_container(&self, id: &str, instance: &Instance) -> Result<(), Error> {
        // A node may have changed what its binds lead to since it was made.
        self.binds(instance)?;
        self.node_files(instance)?;
        let client = self.client().await?;
        client.start_container(id, None::<StartContainerOptions>).await.map_err(|e| self.error(e))
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
            Ok(Probe { runtimes: vec![Runtime::Docker], version: format!("Docker {version}") })
        }
        .boxed()
    }

    fn events(&self) -> Answer<'_, BoxStream<'static, String>> {
        async { Ok(events::changes(self.client().await?, self.filters(None))) }.boxed()
    }

    fn list(&self) -> Answer<'_, Vec<Listed>> {
        async {
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
        }
        .boxed()
    }

    fn inspect<'a>(&'a self, id: &'a str) -> Answer<'a, Option<Found>> {
        async move {
            match self.client().await?.inspect_container(id, None::<InspectContainerOptions>).await {
                Err(e) if status(&e) == Some(404) => Ok(None),
                other => Ok(read(self.owner, other.map_err(|e| self.error(e))?)),
            }
        }
        .boxed()
    }

    fn create<'a>(&'a self, instance: &'a Instance) -> Answer<'a, String> {
        self.create_container(instance).boxed()
    }

    fn start<'a>(&'a self, id: &'a str, instance: &'a Instance) -> Answer<'a, ()> {
        self.start_container(id, instance).boxed()
    }

    fn refresh<'a>(&'a self, instance: &'a Instance) -> Answer<'a, ()> {
        async move { self.node_files(instance).map(drop) }.boxed()
    }

    fn stop<'a>(&'a self, id: &'a str) -> Answer<'a, ()> {
        async move {
            let options =
                StopContainerOptionsBuilder::default().t(self.config.stop_timeout.min(100) as i32).build();
            match self.client().await?.stop_container(id, Some(options)).await {
                // 304: it has ended already.
                Err(e) if matches!(status(&e), Some(304 | 404)) => Ok(()),
                other => other.map_err(|e| self.error(e)),
            }
        }
        .boxed()
    }

    fn remove<'a>(&'a self, id: &'a str) -> Answer<'a, ()> {
        self.remove_container(id).boxed()
    }

    fn remove_lab(&self, lab: LabUid) -> Answer<'_, ()> {
        self.remove_networks(lab).boxed()
    }

    fn exec<'a>(&'a self, id: &'a str, command: Command) -> Answer<'a, Session> {
        self.start_exec(id, command).boxed()
    }

    fn logs<'a>(
        &'a self,
        id: &'a str,
        follow: bool,
        tail: u32,
    ) -> Answer<'a, BoxStream<'static, Result<Output, Error>>> {
        self.read_logs(id, follow, tail).boxed()
    }

    fn image<'a>(&'a self, reference: &'a str, _: Runtime) -> Answer<'a, Option<Image>> {
        self.inspect_image(reference).boxed()
    }

    fn pull<'a>(&'a self, reference: &'a str) -> Answer<'a, BoxStream<'static, Result<String, Error>>> {
        self.pull_image(reference).boxed()
    }
}

/// HTTP status of an answer of Docker's.
fn status(e: &DockerError) -> Option<u16> {
    match e {
        DockerError::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

/// What a container is to us; none when it is not ours.
fn read(owner: Owner, c: ContainerInspectResponse) -> Option<Found> {
    let labels = c.config.and_then(|c| c.labels).unwrap_or_default();
    let text = |name: &str| labels.get(name).cloned().unwrap_or_default();
    if text(label::OWNER) != owner.to_string() {
        return None;
    }
    let id = c.id?;
    let (Ok(uid), Ok(lab_uid)) = (text(label::UID).parse(), text(label::LAB_UID).parse()) else {
        tracing::warn!(
            container = id,
            "a container has our owner label without valid uids; it is left alone"
        );
        return None;
    };
    let state = c.state.unwrap_or_default();
    let (started, finished) = (nanos(state.started_at.as_deref()), nanos(state.finished_at.as_deref()));
    let ran = started.zip(finished).and_then(|(s, f)| f.checked_sub(s)).and_then(|n| u64::try_from(n).ok());
    let networks = c.network_settings.and_then(|n| n.networks).unwrap_or_default();
    let address = |of: fn(&bollard::models::EndpointSettings) -> &Option<String>| {
        networks.values().find_map(|n| of(n).clone().filter(|a| !a.is_empty())).unwrap_or_default()
    };
    Some(Found {
        uid,
        lab_uid,
        lab: text(label::LAB),
        node: text(label::NODE),
        spec_hash: text(label::SPEC_HASH),
        image_digest: c.image.unwrap_or_default(),
        process: process(&state),
        start_id: started.map(|s| s.to_string()).unwrap_or_default(),
        started_us: started.map_or(0, |s| s / 1_000),
        ran: Duration::from_nanos(ran.unwrap_or_default()),
        mgmt_ipv4: address(|n| &n.ip_address),
        mgmt_ipv6: address(|n| &n.global_ipv6_address),
        id,
    })
}

fn process(state: &ContainerState) -> Process {
    use ContainerStateStatusEnum as S;
    match state.status.unwrap_or(S::EMPTY) {
        S::CREATED => Process::Created,
        S::RUNNING | S::PAUSED | S::RESTARTING | S::STOPPING => {
            Process::Running { pid: state.pid.and_then(|p| i32::try_from(p).ok()).filter(|p| *p > 0) }
        }
        S::REMOVING => Process::Removing,
        S::EXITED | S::DEAD | S::EMPTY => Process::Ended {
            code: state.exit_code.and_then(|c| i32::try_from(c).ok()).unwrap_or(-1),
            error: state.error.clone().unwrap_or_default(),
        },
    }
}

/// Docker's time as nanoseconds since 1970; none for "0001-01-01T00:00:00Z", which means never.
fn nanos(time: Option<&str>) -> Option<i64> {
    let time: jiff::Timestamp = time?.parse().ok()?;
    i64::try_from(time.as_nanosecond()).ok().filter(|n| *n > 0)
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
    use bollard::models::ContainerConfig;

    fn container(owner: Owner, status: ContainerStateStatusEnum) -> ContainerInspectResponse {
        let i = crate::driver::testing::instance();
        let labels = [
            (label::OWNER, owner.to_string()),
            (label::UID, i.uid.to_string()),
            (label::LAB_UID, i.lab_uid.to_string()),
            (label::SPEC_HASH, "h".into()),
        ];
        ContainerInspectResponse {
            id: Some("c1".into()),
            config: Some(ContainerConfig {
                labels: Some(labels.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()),
                ..ContainerConfig::default()
            }),
            state: Some(ContainerState {
                status: Some(status),
                pid: Some(7),
                exit_code: Some(137),
                started_at: Some("2026-11-23T07:39:10.164621777Z".into()),
                finished_at: Some("2026-11-23T07:39:12.164621777Z".into()),
                ..ContainerState::default()
            }),
            ..ContainerInspectResponse::default()
        }
    }

    #[test]
    fn a_container_is_read() {
        let owner = Owner::new();
        let found = read(owner, container(owner, ContainerStateStatusEnum::RUNNING)).unwrap();
        assert_eq!(found.process, Process::Running { pid: Some(7) });
        assert_eq!(found.start_id, "1795419550164621777");
        assert_eq!(found.started_us, 1_795_419_550_164_621);
        let found = read(owner, container(owner, ContainerStateStatusEnum::EXITED)).unwrap();
        assert_eq!(found.process, Process::Ended { code: 137, error: String::new() });
        assert_eq!(found.ran, Duration::from_secs(2));
        assert_eq!(nanos(Some("0001-01-01T00:00:00Z")), None);
    }

    #[test]
    fn another_owner_is_not_ours() {
        assert!(read(Owner::new(), container(Owner::new(), ContainerStateStatusEnum::RUNNING)).is_none());
    }
}
