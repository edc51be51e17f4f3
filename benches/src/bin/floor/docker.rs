//! Containers by hand: the options that netloom's have, the same calls, a few at once.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use bollard::Docker;
use bollard::models::{ContainerCreateBody, Mount};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, ListContainersOptionsBuilder,
    RemoveContainerOptionsBuilder, StartContainerOptions,
};
use futures::{StreamExt as _, TryStreamExt as _, stream};

const OWNER: &str = "netloom.owner";

struct Container {
    node: String,
    name: String,
    body: ContainerCreateBody,
    /// Files that are put in place before: where, and what.
    files: Vec<(PathBuf, Vec<u8>)>,
}

/// Containers, and those that were made of them.
pub struct Containers {
    docker: Docker,
    dir: PathBuf,
    /// Carried instead of netloom's owner, so that it leaves them alone.
    owner: String,
    all: Vec<Container>,
    /// Node, id and pid.
    made: Vec<(String, String, i32)>,
}

impl Containers {
    pub fn new(dir: PathBuf) -> anyhow::Result<Containers> {
        let docker = Docker::connect_with_unix("/var/run/docker.sock", 120, bollard::API_DEFAULT_VERSION)?;
        let owner = uuid::Uuid::new_v4().to_string();
        Ok(Containers { docker, dir, owner, all: Vec::new(), made: Vec::new() })
    }

    /// Takes the options of the containers of an owner of netloom's, and the files that are mounted into them.
    pub async fn copy(&mut self, owner: &str) -> anyhow::Result<()> {
        self.docker = self.docker.clone().negotiate_version().await?;
        let label = vec![format!("{OWNER}={owner}")];
        let filters = HashMap::from([("label", label)]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        self.all.clear();
        for listed in self.docker.list_containers(Some(options)).await? {
            let id = listed.id.ok_or_else(|| anyhow!("a container without an id"))?;
            let found = self.docker.inspect_container(&id, None::<InspectContainerOptions>).await?;
            let config = serde_json::to_value(found.config)?;
            let mut body: ContainerCreateBody = serde_json::from_value(config)?;
            let labels = body.labels.get_or_insert_default();
            labels.insert(OWNER.to_owned(), self.owner.clone());
            let node = labels.get("netloom.node").cloned().unwrap_or_default();
            let mut host = found.host_config.unwrap_or_default();
            let mut files = Vec::new();
            for mount in host.mounts.iter_mut().flatten() {
                self.own(&node, mount, &mut files)?;
            }
            body.host_config = Some(host);
            let name = found.name.unwrap_or_default().trim_start_matches('/').to_owned();
            self.all.push(Container { node, name: format!("floor-{name}"), body, files });
        }
        anyhow::ensure!(!self.all.is_empty(), "there are no containers of {owner}");
        Ok(())
    }

    /// Has a mount lead to a file of the floor's own. A program is put there once, as netloom does.
    fn own(&self, node: &str, mount: &mut Mount, files: &mut Vec<(PathBuf, Vec<u8>)>) -> anyhow::Result<()> {
        let source = PathBuf::from(mount.source.clone().unwrap_or_default());
        let name = source.file_name().ok_or_else(|| anyhow!("{} is no file", source.display()))?;
        let content = std::fs::read(&source).with_context(|| source.display().to_string())?;
        let own = if name == "netloom-wait" {
            let own = self.dir.join(name);
            put(&own, &content)?;
            std::fs::set_permissions(&own, std::fs::metadata(&source)?.permissions())?;
            own
        } else {
            let own = self.dir.join(node).join(name);
            files.push((own.clone(), content));
            own
        };
        mount.source = Some(own.to_string_lossy().into_owned());
        Ok(())
    }

    /// What would be noted of what is wanted.
    pub fn wanted(&self) -> Vec<u8> {
        let bodies: Vec<_> = self.all.iter().map(|c| (&c.name, &c.body)).collect();
        serde_json::to_vec(&bodies).unwrap_or_default()
    }

    /// Makes and starts all, so many at once.
    pub async fn make(&mut self, at_once: usize) -> anyhow::Result<()> {
        let docker = &self.docker;
        let make = |c: &Container| {
            let (node, name, body, files) = (c.node.clone(), c.name.clone(), c.body.clone(), c.files.clone());
            async move {
                for (path, content) in &files {
                    put(path, content)?;
                }
                let options = CreateContainerOptionsBuilder::default().name(&name).build();
                let id = docker.create_container(Some(options), body).await?.id;
                docker.start_container(&id, None::<StartContainerOptions>).await?;
                let found = docker.inspect_container(&id, None::<InspectContainerOptions>).await?;
                let pid = found.state.and_then(|s| s.pid).unwrap_or_default();
                anyhow::ensure!(pid > 0, "{name} does not run");
                Ok((node, id, i32::try_from(pid)?))
            }
        };
        let making: Vec<_> = self.all.iter().map(make).collect();
        self.made = stream::iter(making).buffer_unordered(at_once).try_collect().await?;
        Ok(())
    }

    /// The first process of each node.
    pub fn pids(&self) -> HashMap<String, i32> {
        self.made.iter().map(|(node, _, pid)| (node.clone(), *pid)).collect()
    }

    /// Removes all, so many at once, and their files.
    pub async fn remove(&mut self, at_once: usize) -> anyhow::Result<()> {
        let docker = &self.docker;
        let (dir, made) = (self.dir.clone(), std::mem::take(&mut self.made));
        let removing: Vec<_> = made
            .into_iter()
            .map(|(node, id, _)| {
                let dir = dir.join(node);
                async move {
                    let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
                    docker.remove_container(&id, Some(options)).await?;
                    Ok::<_, anyhow::Error>(std::fs::remove_dir_all(dir)?)
                }
            })
            .collect();
        stream::iter(removing).buffer_unordered(at_once).try_collect().await
    }
}

fn put(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    Ok(std::fs::write(path, content)?)
}
