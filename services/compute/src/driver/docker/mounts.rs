//! What netloom and the lab put into a container: small files of netloom's, the lab's files, and paths of the host.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use netloom_model::slice::Instance;
use netloom_model::spec::{Bind, BindSource, NetworkMode};

use super::create::{self, Mounted, Source};
use crate::config::Config;
use crate::error::Error;
use crate::files::Files;
use crate::pins::Pins;
use crate::{files, hosts_file};

/// Name of a node's own copy of the configuration that it starts with.
const STARTUP: &str = "startup-config";

/// What containers are given of the host's file system. Clones share it.
#[derive(Clone)]
pub(super) struct Mounts {
    /// The labs' files.
    pub files: Arc<Files>,
    /// What is held for Docker to open.
    pub pins: Arc<Pins>,
    /// The program that waits for interfaces.
    pub wait_program: PathBuf,
    /// What of the host may be mounted.
    pub config: Arc<Config>,
}

impl Mounts {
    /// Puts everything that a node mounts in its place, and answers how it is mounted. Disks may be slow: it is done beside the runtime.
    pub(super) async fn put(&self, instance: &Instance) -> Result<Vec<Mounted>, Error> {
        let put = |mounts: Mounts, instance: &Instance| {
            let mut mounted = mounts.node_files(instance)?;
            mounted.extend(mounts.binds(instance)?);
            Ok(mounted)
        };
        self.beside(instance, put).await
    }

    /// Writes anew what a node reads of netloom's, as [`Mounts::put`].
    pub(super) async fn refresh(&self, instance: &Instance) -> Result<(), Error> {
        self.beside(instance, |mounts, instance| mounts.node_files(instance).map(drop)).await
    }

    async fn beside<T: Send + 'static>(
        &self,
        instance: &Instance,
        work: impl FnOnce(Mounts, &Instance) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (mounts, instance) = (self.clone(), instance.clone());
        let done = tokio::task::spawn_blocking(move || work(mounts, &instance)).await;
        done.unwrap_or_else(|e| Err(Error::host("the node's files cannot be put in their place", e)))
    }

    /// Mounts of a node's binds, held for Docker to open. What is not there, or not allowed, is an error.
    fn binds(&self, instance: &Instance) -> Result<Vec<Mounted>, Error> {
        let source = |number: usize, bind: &BindSource| match bind {
            BindSource::Bundle(path) => {
                let what = self.files.resolve(instance.lab_uid, path)?;
                if *path == instance.spec.startup_config && is_file(&what) {
                    return self.startup_config(instance, &what);
                }
                self.pins.hold(instance.uid, number, &what)
            }
            BindSource::Host(path) => {
                files::host_path(path, &self.config.allowed_host_paths, &self.config.docker_socket)
            }
        };
        let mounted = |(number, bind): (usize, &Bind)| {
            Ok(Mounted {
                source: Source::Path(source(number, &bind.source)?),
                target: bind.target.clone(),
                read_only: bind.read_only,
            })
        };
        instance.spec.binds.iter().enumerate().map(mounted).collect()
    }

    /// The node's own copy of the configuration it starts with, since several nodes may start with one file and each saves its own. Made from the lab's copy, again when that is
    /// another, and at each start where that is enforced; else it stays as the node left it.
    fn startup_config(&self, instance: &Instance, of_lab: &OwnedFd) -> Result<PathBuf, Error> {
        let dir = self.files.node_dir(instance.lab_uid, instance.uid)?;
        let (copy, mark) = (dir.join(STARTUP), dir.join(format!("{STARTUP}.digest")));
        let entry = instance.files.iter().find(|f| f.path == instance.spec.startup_config);
        // Of what is there: what is announced may still be on its way.
        let placed = self.files.placed(instance.lab_uid, &instance.spec.startup_config)?;
        let digest = placed.map(|digest| digest.to_string()).unwrap_or_default();
        // Nothing is placed while the lab's copy may be half of itself: the node keeps what it has.
        let is_same = |before: String| digest.is_empty() || before == digest;
        let same = copy.exists() && std::fs::read_to_string(&mark).is_ok_and(is_same);
        if !same || instance.spec.enforce_startup_config {
            let path = format!("/proc/self/fd/{}", of_lab.as_raw_fd());
            let text = std::fs::read(path).map_err(|e| {
                Error::host(format!("cannot read {} of the lab", instance.spec.startup_config), e)
            })?;
            files::write_in_place(&copy, &text, entry.map_or(0o644, |f| f.mode & 0o777))?;
            files::write_in_place(&mark, digest.as_bytes(), 0o600)?;
        }
        Ok(copy)
    }

    /// Writes what a node reads of netloom's, and answers how it is mounted.
    fn node_files(&self, instance: &Instance) -> Result<Vec<Mounted>, Error> {
        let spec = &instance.spec;
        let dir = self.files.node_dir(instance.lab_uid, instance.uid)?;
        let mut mounts = Vec::new();
        let mut put = |name: &str, text: &str, target: &str, read_only: bool| {
            let source = dir.join(name);
            files::write_in_place(&source, text.as_bytes(), 0o644)?;
            mounts.push(mounted(source, target, read_only));
            Ok::<(), Error>(())
        };
        let hosts = hosts_file::hosts(hosts_file::hostname(instance), &instance.host_entries);
        put("hosts", &hosts, "/etc/hosts", false)?;
        // Docker writes one where there is a network of its own making, and takes no say where another's is shared.
        let is_ours = match spec.network_mode {
            NetworkMode::Own => instance.network.is_none(),
            NetworkMode::None => true,
            NetworkMode::Node(_) => spec.dns.is_some(),
            NetworkMode::Host => false,
        };
        if is_ours {
            put("resolv.conf", &hosts_file::resolv_conf(spec.dns.as_ref()), "/etc/resolv.conf", false)?;
        }
        if !spec.skip_interface_wait {
            put("interfaces", &hosts_file::interfaces(&instance.interfaces), create::INTERFACES, true)?;
            mounts.push(mounted(self.wait_program.clone(), create::WAIT, true));
        }
        if spec.certificate.is_some() || instance.certificate.is_some() {
            let tls = self.files.node_dir(instance.lab_uid, instance.uid)?.join("tls");
            put_certificate(instance, &tls)?;
            mounts.push(mounted(tls, create::TLS, true));
        }
        Ok(mounts)
    }
}

fn mounted(source: PathBuf, target: &str, read_only: bool) -> Mounted {
    Mounted { source: Source::Path(source), target: target.to_owned(), read_only }
}

fn is_file(what: &OwnedFd) -> bool {
    std::fs::metadata(format!("/proc/self/fd/{}", what.as_raw_fd())).is_ok_and(|m| m.is_file())
}

/// The key first: a certificate that is read in between is then never one without its key.
fn put_certificate(instance: &Instance, dir: &Path) -> Result<(), Error> {
    std::fs::create_dir_all(dir).map_err(|e| Error::host(format!("cannot make {}", dir.display()), e))?;
    let Some(certificate) = &instance.certificate else { return Ok(()) };
    files::write_in_place(&dir.join("key.pem"), certificate.key_pem.as_bytes(), 0o600)?;
    files::write_in_place(&dir.join("cert.pem"), certificate.certificate_pem.as_bytes(), 0o644)?;
    files::write_in_place(&dir.join("ca.pem"), certificate.authority_pem.as_bytes(), 0o644)
}
