//! What tests leave behind, taken away however they end.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use bollard::Docker;
use bollard::query_parameters::{
    ListContainersOptionsBuilder, ListNetworksOptionsBuilder, ListVolumesOptionsBuilder,
    RemoveContainerOptionsBuilder, RemoveVolumeOptions,
};
use netloom_model::id::Owner;
use nix::mount::{MntFlags, umount2};

const SOCKET: &str = "/var/run/docker.sock";

/// Removes all that an installation has in Docker.
pub async fn clean(owner: Owner) {
    let Ok(docker) = connect().await else { return };
    let filters = HashMap::from([("label", vec![format!("netloom.owner={owner}")])]);
    // Twice: the service, which is ending, may just have been making one.
    for _ in 0..2 {
        let list = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        for container in docker.list_containers(Some(list)).await.unwrap_or_default() {
            let force = RemoveContainerOptionsBuilder::default().force(true).build();
            let _ = docker.remove_container(&container.id.unwrap_or_default(), Some(force)).await;
        }
    }
    let list = ListNetworksOptionsBuilder::default().filters(&filters).build();
    for network in docker.list_networks(Some(list)).await.unwrap_or_default() {
        let _ = docker.remove_network(&network.id.unwrap_or_default()).await;
    }
    let list = ListVolumesOptionsBuilder::default().filters(&filters).build();
    let volumes = docker.list_volumes(Some(list)).await.ok().and_then(|v| v.volumes);
    for volume in volumes.unwrap_or_default() {
        let _ = docker.remove_volume(&volume.name, None::<RemoveVolumeOptions>).await;
    }
}

/// Undoes all mounts below a directory, and of it.
pub fn unmount(dir: &Path) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let _ = umount2(&entry.path(), MntFlags::MNT_DETACH);
    }
    while umount2(dir, MntFlags::MNT_DETACH).is_ok() {}
}

pub async fn connect() -> Result<Docker, bollard::errors::Error> {
    Docker::connect_with_unix(SOCKET, 120, bollard::API_DEFAULT_VERSION)?.negotiate_version().await
}

/// Something that is undone when a test ends, however it ends.
pub struct Undo(Option<Box<dyn FnOnce() + Send>>);

impl Undo {
    pub fn new(undo: impl FnOnce() + Send + 'static) -> Undo {
        Undo(Some(Box::new(undo)))
    }

    /// Removes a container at the end.
    pub fn container(docker: Arc<Docker>, name: String) -> Undo {
        Undo::new(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let force = RemoveContainerOptionsBuilder::default().force(true).build();
            runtime.block_on(async { docker.remove_container(&name, Some(force)).await }).unwrap();
        })
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        if let Some(undo) = self.0.take() {
            let _ = std::thread::spawn(undo).join();
        }
    }
}
