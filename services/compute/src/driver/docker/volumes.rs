//! Volumes: of a lab, called `<prefix>-<lab>-<name>.<lab>`, which live until it is removed; and of one node, called `<node>.<target>`, which live until that is, over all its
//! containers. The ends are of hexadecimal digits, of the lab's uid and of a hash of the target and the node's uid (one that is made anew is another node, and its former self may be there still), and of different lengths. So no two volumes have one name: the hyphens alone do
//! not tell where a lab's name ends.

use std::collections::HashMap;

use bollard::Docker;
use bollard::models::{Volume, VolumeCreateRequest};
use bollard::query_parameters::{ListVolumesOptionsBuilder, RemoveVolumeOptions};
use netloom_model::id::{Digest, NodeUid};
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
            let mut labels = HashMap::from([
                (label::OWNER.to_owned(), self.owner.to_string()),
                (label::LAB.to_owned(), instance.lab.to_string()),
                (label::LAB_UID.to_owned(), instance.lab_uid.to_string()),
            ]);
            if volume.name.is_empty() {
                labels.insert(label::UID.to_owned(), instance.uid.to_string());
                if let Some(known) = &mut *self.nodes_with_volumes.lock().await {
                    known.insert(instance.uid.to_string());
                }
            }
            let is_its = |there: &HashMap<String, String>| {
                [label::OWNER, label::LAB_UID, label::UID]
                    .iter()
                    .all(|key| there.get(*key) == labels.get(*key))
            };
            let earlier = earlier_name(instance, volume);
            let name = match self.volume_labels(client, &earlier).await? {
                Some(labels) if is_its(&labels) => earlier,
                _ => name(instance, volume),
            };
            let request = VolumeCreateRequest {
                name: Some(name.clone()),
                labels: Some(labels.clone()),
                ..VolumeCreateRequest::default()
            };
            // One that is there already is answered as it is.
            let there = client.create_volume(request).await.map_err(|e| self.error(e))?.labels;
            if !is_its(&there) {
                return Err(Error::Foreign(format!(
                    "a Docker volume called {name} exists that is not this lab's; give the volume another name, or remove that one if nobody needs what is in it"
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

    /// Labels of a volume; none when there is no such volume.
    async fn volume_labels(
        &self,
        client: &Docker,
        name: &str,
    ) -> Result<Option<HashMap<String, String>>, Error> {
        match client.inspect_volume(name).await {
            Err(e) if status(&e) == Some(404) => Ok(None),
            other => Ok(Some(other.map_err(|e| self.error(e))?.labels)),
        }
    }

    /// Removes the volumes of a node's own. Most nodes never had any: Docker is asked once which have, and not for each that goes.
    pub(super) async fn remove_volumes_of(&self, node: NodeUid) -> Result<(), Error> {
        let node = node.to_string();
        let mut known = self.nodes_with_volumes.lock().await;
        let has = match &*known {
            Some(known) => known.contains(&node),
            None => {
                let uids = self.volumes_with(None).await?.into_iter();
                known.insert(uids.filter_map(|mut v| v.labels.remove(label::UID)).collect()).contains(&node)
            }
        };
        drop(known);
        if has {
            self.remove_volumes(format!("{}={node}", label::UID)).await?;
            if let Some(known) = &mut *self.nodes_with_volumes.lock().await {
                known.remove(&node);
            }
        }
        Ok(())
    }

    /// Volumes of ours that have this label too.
    async fn volumes_with(&self, of: Option<String>) -> Result<Vec<Volume>, Error> {
        let client = self.client().await?;
        let mut filters = self.filters(None);
        filters.entry("label").or_default().extend(of);
        let options = ListVolumesOptionsBuilder::default().filters(&filters).build();
        let volumes = client.list_volumes(Some(options)).await.map_err(|e| self.error(e))?;
        Ok(volumes.volumes.unwrap_or_default())
    }

    /// Removes the volumes of ours that have this label too.
    pub(super) async fn remove_volumes(&self, of: String) -> Result<(), Error> {
        let client = self.client().await?;
        for volume in self.volumes_with(Some(of)).await? {
            match client.remove_volume(&volume.name, None::<RemoveVolumeOptions>).await {
                Err(e) if status(&e) == Some(404) => {}
                other => other.map_err(|e| self.error(e))?,
            }
            tracing::info!(volume = volume.name, "volume removed");
        }
        Ok(())
    }
}

/// Name of a volume.
fn name(instance: &Instance, volume: &VolumeMount) -> String {
    if volume.name.is_empty() {
        return of_node(instance, &format!("{} {}", instance.uid, volume.target));
    }
    // The tail of a UUIDv7 is random; its head is the time.
    let lab = instance.lab_uid.to_string();
    format!("{}{}.{}", of_lab(instance), volume.name, &lab[lab.len() - 12..])
}

/// Name that a volume had in earlier versions. One that is this lab's or this node's goes on being used.
fn earlier_name(instance: &Instance, volume: &VolumeMount) -> String {
    match volume.name.as_str() {
        "" => of_node(instance, &volume.target),
        given => format!("{}{given}", of_lab(instance)),
    }
}

fn of_node(instance: &Instance, what: &str) -> String {
    format!("{}.{}", instance.name, &Digest::of(what.as_bytes()).as_str()["sha256:".len()..][..8])
}

/// What names of a lab's own begin with.
fn of_lab(instance: &Instance) -> &str {
    instance.name.strip_suffix(&instance.spec.id).unwrap_or(&instance.name)
}

#[cfg(test)]
mod tests {
    use netloom_model::id::{LabUid, NodeUid};

    use super::*;
    use crate::driver::testing::instance;

    fn mount(name: &str, target: &str) -> VolumeMount {
        VolumeMount { name: name.into(), target: target.into(), read_only: false }
    }

    #[test]
    fn volumes_are_named_after_their_lab_or_node() {
        let (i, of) = (instance(), |v: VolumeMount| name(&instance(), &v));
        let uid = i.lab_uid.to_string();
        let of_lab = name(&i, &mount("data", "/d"));
        assert_eq!(of_lab, format!("netloom-x-data.{}", &uid[uid.len() - 12..]));
        let own = of(mount("", "/d"));
        assert!(own.starts_with(&format!("{}.", i.name)) && own.len() == i.name.len() + 9, "{own}");
        assert_ne!(own, of(mount("", "/e")));
        assert_ne!(
            own,
            name(&Instance { uid: NodeUid::new(), ..i }, &mount("", "/d")),
            "made anew it is another"
        );
    }

    #[test]
    fn volumes_of_two_labs_never_have_one_name() {
        let of = |lab: &str| {
            let name = format!("netloom-{lab}-{}", instance().spec.id);
            Instance { lab: lab.parse().unwrap(), lab_uid: LabUid::new(), name, ..instance() }
        };
        let (one, other) = (of("zrv-v"), of("zrv-v-b"));
        let (of_one, of_other) = (mount("b-c", "/d"), mount("c", "/d"));
        assert_eq!(earlier_name(&one, &of_one), earlier_name(&other, &of_other));
        assert_ne!(name(&one, &of_one), name(&other, &of_other));
    }
}
