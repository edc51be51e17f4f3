//! Volumes: of a lab, called `<prefix>-<lab>-<name>`, which live until it is removed; and of one node, which live until that is, over all its containers.

use std::collections::HashMap;

use bollard::Docker;
use bollard::models::VolumeCreateRequest;
use bollard::query_parameters::{ListVolumesOptionsBuilder, RemoveVolumeOptions};
use netloom_model::id::Digest;
use netloom_model::slice::Instance;
use netloom_model::spec::VolumeMount;

use super::create::{Mounted, Source};
use super::{DockerDriver, label, status};
use crate::error::Error;

impl DockerDriver {
    /// Makes the volumes that a node mounts where they are not there, and answers how they are mounted.
    pub(super) async fn ensure_volumes(
        &self,
        client: &Docker,
        instance: &Instance,
    ) -> Result<Vec<Mounted>, Error> {
        let mut mounts = Vec::new();
        for volume in &instance.spec.volumes {
            let name = name(instance, volume);
            let mut labels = HashMap::from([
                (label::OWNER.to_owned(), self.owner.to_string()),
                (label::LAB.to_owned(), instance.lab.to_string()),
                (label::LAB_UID.to_owned(), instance.lab_uid.to_string()),
            ]);
            if volume.name.is_empty() {
                labels.insert(label::UID.to_owned(), instance.uid.to_string());
            }
            let request = VolumeCreateRequest {
                name: Some(name.clone()),
                labels: Some(labels.clone()),
                ..VolumeCreateRequest::default()
            };
            // One that is there already is answered as it is.
            let there = client.create_volume(request).await.map_err(|e| self.error(e))?.labels;
            let is = |key: &str| there.get(key) == labels.get(key);
            if ![label::OWNER, label::LAB_UID, label::UID].into_iter().all(is) {
                return Err(Error::Foreign(format!(
                    "a Docker volume called {name} exists that is not this lab's; remove it (docker volume rm {name}) or give the volume another name"
                )));
            }
            mounts.push(Mounted {
                source: Source::Volume(name),
                target: volume.target.clone(),
                read_only: volume.read_only,
            });
        }
        Ok(mounts)
    }

    /// Removes the volumes of ours that have this label too.
    pub(super) async fn remove_volumes(&self, of: String) -> Result<(), Error> {
        let client = self.client().await?;
        let mut filters = self.filters(None);
        filters.entry("label").or_default().push(of);
        let options = ListVolumesOptionsBuilder::default().filters(&filters).build();
        let volumes = client.list_volumes(Some(options)).await.map_err(|e| self.error(e))?;
        for volume in volumes.volumes.unwrap_or_default() {
            match client.remove_volume(&volume.name, None::<RemoveVolumeOptions>).await {
                Err(e) if status(&e) == Some(404) => {}
                other => other.map_err(|e| self.error(e))?,
            }
            tracing::info!(volume = volume.name, "volume removed");
        }
        Ok(())
    }
}

/// Name of a volume: a node's own is told from the lab's by a hash of where it is mounted.
fn name(instance: &Instance, volume: &VolumeMount) -> String {
    let of_lab = instance.name.strip_suffix(&instance.spec.id).unwrap_or(&instance.name);
    if volume.name.is_empty() {
        let hash = Digest::of(volume.target.as_bytes());
        format!("{}.{}", instance.name, &hash.as_str()["sha256:".len()..][..8])
    } else {
        format!("{of_lab}{}", volume.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::testing::instance;

    #[test]
    fn volumes_are_named_after_their_lab_or_node() {
        let mount = |name: &str, target: &str| VolumeMount {
            name: name.into(),
            target: target.into(),
            read_only: false,
        };
        let (i, of) = (instance(), |v: VolumeMount| name(&instance(), &v));
        assert_eq!(of(mount("data", "/d")), "netloom-x-data");
        let own = of(mount("", "/d"));
        assert!(own.starts_with(&format!("{}.", i.name)) && own.len() == i.name.len() + 9, "{own}");
        assert_ne!(own, of(mount("", "/e")));
    }
}
