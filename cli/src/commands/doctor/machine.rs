//! What is checked, by the server's configuration, and every check of it.

use std::path::{Path, PathBuf};

use netloom_model::spec::Plane;
use netloom_service::Settings;
use serde::de::DeserializeOwned;
use tokio::sync::OnceCell;

use super::finding::Check;
use super::sysctl::{self, SYSCTLS, Sysctl};
use super::verdict::Server;
use super::virtual_machines::{self as vms, Libvirt};
use super::{lvm, probe, storage, verdict};
use crate::commands::Context;
use crate::error::Error;

const DOCKER: &str = "/var/run/docker.sock";
const OVSDB: &str = "/var/run/openvswitch/db.sock";
const OVS_RUN_DIR: &str = "/var/run/openvswitch";

/// Where things are on this machine, as the server's configuration says.
pub struct Machine<'a> {
    context: &'a Context,
    settings: &'a Settings,
    docker: PathBuf,
    ovsdb: PathBuf,
    ovs_run_dir: PathBuf,
    bridge: String,
    blobs: PathBuf,
    libvirt_uri: String,
    libvirt_configured: bool,
    server: OnceCell<Server>,
    libvirt: OnceCell<Libvirt>,
}

/// A check.
#[derive(Debug, Clone, Copy)]
pub enum Subject {
    /// Docker answers.
    Docker,
    /// Open vSwitch's database answers.
    OvsDatabase,
    /// Its switch runs.
    Vswitchd,
    /// The bridge is ours.
    Bridge,
    /// What forwards frames.
    Datapath,
    /// What carries links.
    Plane,
    /// Rights of this process.
    Capabilities,
    /// Pairs of interfaces.
    Veth,
    /// Room for data.
    Disk,
    /// Room for images.
    ImageDisk,
    /// I/O past the cache.
    DirectIo,
    /// What of this machine labs may be joined to is there.
    Uplinks,
    /// A kernel parameter.
    Sysctl(&'static Sysctl),
    /// Forwarding.
    Forward,
    /// LVM keeps off the disks of guests.
    Lvm,
    /// A guest boots.
    Kvm,
    /// Guests in guests.
    Nested,
    /// libvirt answers.
    Libvirt,
    /// It may use KVM.
    LibvirtKvm,
    /// The server answers.
    Server,
}

impl Subject {
    /// Every check, in the order in which they are told.
    pub fn all() -> Vec<Subject> {
        use Subject::*;
        let mut all = vec![
            Docker,
            OvsDatabase,
            Vswitchd,
            Bridge,
            Datapath,
            Plane,
            Uplinks,
            Capabilities,
            Veth,
            Disk,
            ImageDisk,
            DirectIo,
        ];
        all.extend(SYSCTLS.iter().map(Sysctl));
        all.extend([Forward, Lvm, Kvm, Nested, Libvirt, LibvirtKvm, Server]);
        all
    }

    /// Those of these names; all where none is named.
    pub fn named(names: &[String]) -> Result<Vec<Subject>, Error> {
        let all = Subject::all();
        if let Some(unknown) = names.iter().find(|name| !all.iter().any(|s| s.name() == **name)) {
            let known: Vec<&str> = all.iter().map(|s| s.name()).collect();
            return Err(Error::Usage(format!("there is no check {unknown}; there are {}", known.join(", "))));
        }
        Ok(all
            .into_iter()
            .filter(|s| names.is_empty() || names.iter().any(|name| s.name() == name))
            .collect())
    }

    /// Its name, which its finding has too.
    pub fn name(self) -> &'static str {
        match self {
            Subject::Docker => "docker",
            Subject::OvsDatabase => "ovs-database",
            Subject::Vswitchd => "ovs-vswitchd",
            Subject::Bridge => "ovs-bridge",
            Subject::Datapath => "datapath",
            Subject::Plane => "plane",
            Subject::Uplinks => "uplinks",
            Subject::Capabilities => "capabilities",
            Subject::Veth => "veth",
            Subject::Disk => "disk",
            Subject::ImageDisk => "image-disk",
            Subject::DirectIo => storage::DIRECT_IO,
            Subject::Sysctl(sysctl) => sysctl.name,
            Subject::Forward => sysctl::FORWARD,
            Subject::Lvm => lvm::NAME,
            Subject::Kvm => vms::KVM,
            Subject::Nested => vms::NESTED,
            Subject::Libvirt => vms::LIBVIRT,
            Subject::LibvirtKvm => vms::LIBVIRT_KVM,
            Subject::Server => "server",
        }
    }
}

impl<'a> Machine<'a> {
    /// As the configuration has it. What was found out once is not asked again: another look needs another of these.
    pub fn new(context: &'a Context, settings: &'a Settings) -> Result<Machine<'a>, Error> {
        let path = |key: &str, default: &str| {
            Ok::<_, Error>(value(settings, key)?.unwrap_or_else(|| default.into()))
        };
        let drivers: Vec<String> = value(settings, "compute.drivers")?.unwrap_or_default();
        let blobs = value(settings, "image_registry.blobs")?;
        Ok(Machine {
            context,
            settings,
            docker: path("compute.docker_socket", DOCKER)?,
            ovsdb: path("network.ovsdb_socket", OVSDB)?,
            ovs_run_dir: path("network.ovs_run_dir", OVS_RUN_DIR)?,
            bridge: value(settings, "network.bridge")?.unwrap_or_else(|| "nl0".to_owned()),
            blobs: blobs.unwrap_or_else(|| settings.data_dir.join("image-registry")),
            libvirt_uri: value(settings, "compute.libvirt_uri")?
                .unwrap_or_else(|| "qemu:///system".to_owned()),
            libvirt_configured: drivers.iter().any(|d| d == "libvirt"),
            server: OnceCell::new(),
            libvirt: OnceCell::new(),
        })
    }

    /// Makes one check.
    pub async fn check(&self, subject: Subject) -> Check {
        let data = &self.settings.data_dir;
        match subject {
            Subject::Docker => {
                let starter = starter(&self.docker, DOCKER, "docker").await;
                verdict::docker(&self.docker, probe::docker(&self.docker).await, starter)
            }
            Subject::OvsDatabase => {
                let starter = starter(&self.ovsdb, OVSDB, "openvswitch-switch").await;
                verdict::ovsdb(&self.ovsdb, probe::ovsdb(&self.ovsdb).await, starter)
            }
            Subject::Vswitchd => {
                let starter = starter(&self.ovs_run_dir, OVS_RUN_DIR, "openvswitch-switch").await;
                verdict::vswitchd(&self.ovs_run_dir, probe::vswitchd(&self.ovs_run_dir), starter)
            }
            Subject::Bridge => {
                let owner = std::fs::read_to_string(data.join("owner")).ok();
                let seen = probe::bridge(&self.ovsdb, &self.ovs_run_dir, &self.bridge).await;
                verdict::bridge(
                    &self.bridge,
                    seen,
                    owner.as_deref().map(str::trim),
                    probe::datapath().await.module,
                )
            }
            Subject::Datapath => verdict::datapath(&probe::datapath().await),
            Subject::Plane => verdict::plane(self.plane(), &probe::datapath().await, self.server().await),
            Subject::Uplinks => {
                let named = self.settings.value("network.uplinks").map_err(|e| format!("{e:#}"));
                let exists = |name: &str| Path::new("/sys/class/net").join(name).exists();
                verdict::uplinks(named.map(Option::unwrap_or_default), exists)
            }
            Subject::Capabilities => verdict::capabilities(probe::capabilities()),
            Subject::Veth => verdict::veth(probe::veth(), probe::has_module("veth").await),
            Subject::Disk => storage::judge_room(subject.name(), data, storage::free_bytes(data), "data_dir"),
            Subject::ImageDisk => {
                let free = storage::free_bytes(&self.blobs);
                storage::judge_room(subject.name(), &self.blobs, free, "blobs of [image_registry]")
            }
            Subject::DirectIo => {
                let tried = ["images", "instances"].map(|name| data.join(name));
                let tried = tried.map(|dir| (dir.clone(), storage::direct_io(&dir)));
                storage::judge_direct_io(&tried, self.libvirt_configured)
            }
            Subject::Sysctl(wanted) => sysctl::judge(wanted, sysctl::look(wanted.name).await),
            Subject::Forward => sysctl::forward(),
            Subject::Lvm => lvm::judge(lvm::look().await),
            Subject::Kvm => vms::judge_kvm(vms::kvm(self.libvirt().await).await),
            Subject::Nested => vms::judge_nested(vms::nested()),
            Subject::Libvirt => vms::judge_libvirt(self.libvirt().await, self.libvirt_configured),
            Subject::LibvirtKvm => vms::judge_access(vms::access(self.libvirt().await).await),
            Subject::Server => verdict::server(self.server().await),
        }
    }

    async fn server(&self) -> &Server {
        self.server.get_or_init(|| probe::server(self.context, self.settings)).await
    }

    async fn libvirt(&self) -> &Libvirt {
        self.libvirt.get_or_init(|| vms::libvirt(&self.libvirt_uri)).await
    }

    fn plane(&self) -> Result<Plane, String> {
        let wrong = |e: String| format!("network.plane in the configuration: {e}");
        match self.settings.value::<String>("network.plane").map_err(|e| wrong(format!("{e:#}")))? {
            Some(set) => set.parse().map_err(|e| wrong(format!("{e}"))),
            None => Ok(Plane::default()),
        }
    }
}

fn value<T: DeserializeOwned>(settings: &Settings, key: &str) -> Result<Option<T>, Error> {
    settings.value(key).map_err(|e| Error::Invalid(format!("{key} in the configuration: {e:#}")))
}

/// What starts a daemon that is asked where the machine's own one is: another place is somebody else's to start.
async fn starter(place: &Path, usual: &str, service: &'static str) -> Option<verdict::Starter> {
    if place == Path::new(usual) { probe::starter(service).await } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_are_known_by_their_names() {
        let all = Subject::all();
        let mut names: Vec<&str> = all.iter().map(|s| s.name()).collect();
        assert!(names.iter().all(|n| !n.contains(' ')));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all.len());
        let named =
            |names: &[&str]| Subject::named(&names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>());
        assert_eq!(
            named(&["lvm", "disk"]).unwrap().iter().map(|s| s.name()).collect::<Vec<_>>(),
            ["disk", "lvm"]
        );
        assert_eq!(named(&[]).unwrap().len(), all.len());
        assert_eq!(named(&["lvn"]).unwrap_err().exit_code(), 2);
    }
}
