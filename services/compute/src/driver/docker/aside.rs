//! Containers that are set aside: stopped, and renamed. With the process go its namespace, its host ports and its management address; Docker gives these out anew at each start. The name is
//! what tells such a container from others, since no label of a container can change: it ends in the container's own id.

use bollard::query_parameters::{InspectContainerOptions, RenameContainerOptionsBuilder};
use netloom_model::slice::Instance;
use netloom_service::fail_point;

use super::{DockerDriver, read, status};
use crate::error::Error;

/// Seconds that a process has to end when its container is set aside. Its successor waits for that, and a process that takes no notice of being asked is the rule in labs.
const GRACE: u32 = 1;

impl DockerDriver {
    /// Stops a container and gives it a name that nobody else wants.
    pub(super) async fn set_container_aside(&self, id: &str, instance: &Instance) -> Result<(), Error> {
        self.stop_container(id, self.config.stop_timeout.min(GRACE)).await?;
        fail_point::pass("compute.set-aside-name", "before");
        self.rename(id, &format!("{}{}", instance.name, read::aside_suffix(id)), instance).await
    }

    /// Gives a container the name of its node.
    pub(super) async fn bring_container_back(&self, id: &str, instance: &Instance) -> Result<(), Error> {
        self.rename(id, &instance.name, instance).await
    }

    async fn rename(&self, id: &str, name: &str, instance: &Instance) -> Result<(), Error> {
        let client = self.client().await?;
        let there = client.inspect_container(id, None::<InspectContainerOptions>).await;
        // Docker refuses to give it the name that it has.
        if there.map_err(|e| self.error(e))?.name.is_some_and(|n| n.trim_start_matches('/') == name) {
            return Ok(());
        }
        let options = RenameContainerOptionsBuilder::default().name(name).build();
        match client.rename_container(id, options).await {
            Err(e) if status(&e) == Some(409) => self.taken(&client, name, instance).await.map(drop),
            other => other.map_err(|e| self.error(e)),
        }
    }
}
