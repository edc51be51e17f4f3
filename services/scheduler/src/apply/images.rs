//! The images of a plan: whether each can be used where its node is to run, from what hosts' stores have now.

use std::collections::{BTreeMap, BTreeSet};

use netloom_model::failure::{Code, Failure};
use netloom_model::id::{HostId, NodeUid};
use netloom_model::state::Runtime;

use crate::client::{ImageUse, Verdict};
use crate::error::{Error, Result};
use crate::rows::LabRows;
use crate::scheduler::Scheduler;
use crate::world::HostView;

impl Scheduler {
    /// Asks each host for its images and the registry for its verdict; fails with every image that cannot be used.
    pub(super) async fn validate(&self, uses: &[ImageUse]) -> Result<()> {
        let verdicts = self.verdicts(uses).await?;
        let refused: Vec<(&String, &String, &ImageUse)> = verdicts
            .iter()
            .zip(uses)
            .filter_map(|(v, u)| match v {
                Verdict::Refuse { reason, message } => Some((reason, message, u)),
                Verdict::Use | Verdict::Pull => None,
            })
            .collect();
        let Some((reason, _, _)) = refused.first() else { return Ok(()) };
        let messages: BTreeSet<&str> = refused.iter().map(|(_, m, _)| m.as_str()).collect();
        let nodes: BTreeSet<&str> = refused.iter().map(|(_, _, u)| u.node.as_str()).collect();
        let images: BTreeSet<&str> = refused.iter().map(|(_, _, u)| u.reference.as_str()).collect();
        let joined = |set: BTreeSet<&str>, by: &str| set.into_iter().collect::<Vec<_>>().join(by);
        Err(Failure::new(Code::FailedPrecondition, reason, joined(messages, "\n"))
            .with("nodes", joined(nodes, ","))
            .with("images", joined(images, ","))
            .into())
    }

    /// The registry's verdict on each use, from what the hosts' stores have now.
    pub async fn verdicts(&self, uses: &[ImageUse]) -> Result<Vec<Verdict>> {
        let mut asked: BTreeMap<&HostId, BTreeSet<(String, Runtime)>> = BTreeMap::new();
        for u in uses {
            asked.entry(&u.host).or_default().insert((u.reference.clone(), u.runtime));
        }
        let ask = |(host, images): (&HostId, BTreeSet<(String, Runtime)>)| {
            let client = self.hosts.get(host).cloned();
            let (host, images) = (host.clone(), images.into_iter().collect::<Vec<_>>());
            async move {
                let Some(client) = client else {
                    let message = format!("host {host} is not in the scheduler's configuration");
                    return Err(Error::from(Failure::new(Code::Unavailable, "HOST_UNAVAILABLE", message)));
                };
                let facts = client.inspect_images(&images).await?;
                self.registry.record(&host, facts).await
            }
        };
        futures::future::try_join_all(asked.into_iter().map(ask)).await?;
        if uses.is_empty() {
            return Ok(Vec::new());
        }
        let architectures = self.world.read(|hosts| {
            let of_host =
                |(id, view): (&HostId, &HostView)| (id.clone(), view.compute.inventory.architecture.clone());
            hosts.iter().map(of_host).collect()
        });
        self.registry.validate(uses, &architectures).await
    }
}

/// The images of nodes that are about to be made, or whose image is looked for again.
pub(super) fn image_uses(before: &LabRows, after: &LabRows) -> Vec<ImageUse> {
    let waited: BTreeSet<NodeUid> = before
        .nodes
        .values()
        .filter(|n| n.host.is_some() && n.image_step != crate::rows::ImageStep::Failed)
        .map(|n| n.uid)
        .collect();
    after
        .nodes
        .values()
        .filter(|n| n.is_wanted() && n.runtime != Runtime::Bridge && !waited.contains(&n.uid))
        .filter_map(|n| {
            Some(ImageUse {
                node: n.id.to_string(),
                reference: n.spec.image.clone(),
                runtime: n.runtime,
                host: n.host.clone()?,
                policy: n.spec.image_pull_policy,
            })
        })
        .collect()
}
