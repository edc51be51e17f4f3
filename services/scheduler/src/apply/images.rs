//! The images of a plan: whether each can be used where its node is to run, from what hosts' stores have now.

use std::collections::{BTreeMap, BTreeSet};

use netloom_model::failure::{Code, Failure};
use netloom_model::id::{HostId, NodeUid};
use netloom_model::slice::Instance;
use netloom_model::spec::{LabSpec, NodeSpec};
use netloom_model::state::Runtime;

use crate::client::{HostClient, ImageFacts, ImageHost, ImageUse, Refused, Resolved, Verdict};
use crate::error::{Error, Result};
use crate::rows::{ImageStep, LabRows, NodeRow};
use crate::scheduler::Scheduler;
use crate::slices::successors;

impl Scheduler {
    /// Asks each host for its images and the registry for its verdict; fails with every image that cannot be used.
    pub(super) async fn validate(&self, uses: &[ImageUse]) -> Result<()> {
        let verdicts = self.verdicts(uses).await?;
        let refused: Vec<(&String, &String, &ImageUse)> = verdicts
            .iter()
            .zip(uses)
            .filter_map(|(v, u)| match v {
                Verdict::Refuse { reason, message } => Some((reason, message, u)),
                Verdict::Use { .. } | Verdict::Pull { .. } => None,
            })
            .collect();
        let Some((reason, _, _)) = refused.first() else { return Ok(()) };
        let joined = |set: BTreeSet<&str>, by: &str| set.into_iter().collect::<Vec<_>>().join(by);
        let messages: BTreeSet<&str> = refused.iter().map(|(_, m, _)| m.as_str()).collect();
        let message = match messages.len() {
            1 => joined(messages, ""),
            _ => format!("images cannot be used:\n  {}", joined(messages, "\n  ")),
        };
        let nodes: BTreeSet<&str> = refused.iter().map(|(_, _, u)| u.node.as_str()).collect();
        let images: BTreeSet<&str> = refused.iter().map(|(_, _, u)| u.reference.as_str()).collect();
        Err(Failure::new(Code::FailedPrecondition, reason, message)
            .with("nodes", joined(nodes, ","))
            .with("images", joined(images, ","))
            .into())
    }

    /// Gives nodes without an image the one that the registry says stands for their kind, where there is one. It becomes a part of what was asked for, so that another
    /// image that stands for the kind later changes no lab before its next deploy.
    pub(super) async fn choose_images(&self, spec: &mut LabSpec) -> Result<()> {
        let kind_of = |node: &NodeSpec| {
            let kind = self.catalogue.of(node)?;
            (node.image.is_empty() && kind.runtime != Runtime::Bridge).then(|| kind.name.clone())
        };
        let kinds: BTreeSet<String> = spec.nodes.iter().filter_map(kind_of).collect();
        if kinds.is_empty() {
            return Ok(());
        }
        let kinds: Vec<String> = kinds.into_iter().collect();
        let found = self.registry.preferred(&kinds).await?;
        let preferred: BTreeMap<String, String> =
            kinds.into_iter().zip(found).filter(|(_, image)| !image.is_empty()).collect();
        for node in &mut spec.nodes {
            if let Some(image) = kind_of(node).and_then(|kind| preferred.get(&kind)) {
                node.image.clone_from(image);
            }
        }
        Ok(())
    }

    /// Counts for virtual machines of which nothing is said what their disks come to: the first, as its image tells, and the second that their kind has. That becomes a part of what was asked for, as
    /// an image does that stands for a kind. Where the registry does not answer, or does not have the image, what was counted of it before stands.
    pub(super) async fn count_disks(&self, before: Option<&LabRows>, spec: &mut LabSpec) {
        let of = |node: &NodeSpec| {
            let kind = self.catalogue.of(node).filter(|kind| kind.runtime == Runtime::Libvirt)?;
            let image = if node.image.is_empty() { &kind.image } else { &node.image };
            let is_open = node.disk_request_bytes == 0 && kind.resources.disk_request_mib == 0;
            (is_open && !image.is_empty()).then(|| (image.clone(), kind.data_disk_bytes()))
        };
        let images: BTreeSet<String> = spec.nodes.iter().filter_map(of).map(|(image, _)| image).collect();
        if images.is_empty() {
            return;
        }
        let images: Vec<String> = images.into_iter().collect();
        let resolved = self.registry.resolve(&images, &self.ticket_key).await.unwrap_or_else(|e| {
            tracing::warn!("how large disks of images are is not known: {e}");
            Vec::new()
        });
        let size = |r: Resolved| r.stored.map(|stored| stored.virtual_size_bytes());
        let sizes: BTreeMap<String, u64> =
            images.into_iter().zip(resolved).filter_map(|(image, r)| Some((image, size(r)?))).collect();
        for node in &mut spec.nodes {
            let Some((image, second)) = of(node) else { continue };
            let known = sizes.get(&image).map(|first| first.saturating_add(second));
            let was = || {
                let old = before?.lab.spec.nodes.iter().find(|old| old.id == node.id)?;
                (old.image == node.image && old.kind == node.kind).then_some(old.disk_request_bytes)
            };
            node.disk_request_bytes = known.or_else(was).unwrap_or_default();
        }
    }

    /// Which lab uses which images, by lab, each image once, with the digests of what its nodes are made from. What a lab has set aside or is about to have counts as
    /// well.
    pub fn image_users(&self) -> BTreeMap<(String, String), BTreeSet<String>> {
        let mut users: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
        for rows in self.store.all() {
            let of_rows = rows.nodes.values().map(|n| (&*n.spec, n.image_digest.as_str()));
            for (node, digest) in of_rows.chain(rows.lab.spec.nodes.iter().map(|n| (n, ""))) {
                let of_kind = || self.catalogue.get(&node.kind).map(|k| k.image.clone()).unwrap_or_default();
                let image = if node.image.is_empty() { of_kind() } else { node.image.clone() };
                if !image.is_empty() {
                    let digests = users.entry((rows.lab.id.to_string(), image)).or_default();
                    digests.extend((!digest.is_empty()).then(|| digest.to_owned()));
                }
            }
        }
        users
    }

    /// What a host would not take of the successors among these nodes, once what leaves with them is gone.
    pub async fn refused_by(
        &self,
        client: &HostClient,
        rows: &LabRows,
        nodes: &[NodeUid],
    ) -> Result<Vec<Refused>> {
        let instances = successors(rows, &client.id, &self.catalogue);
        let instances: Vec<Instance> =
            instances.into_iter().filter(|(uid, _)| nodes.contains(uid)).map(|(_, i)| i).collect();
        if instances.is_empty() {
            return Ok(Vec::new());
        }
        let succeeded: BTreeSet<String> =
            rows.nodes.values().filter(|n| n.is_successor()).map(|n| n.id.folded()).collect();
        let leaves = |n: &&NodeRow| !n.wanted.stays() || succeeded.contains(&n.id.folded());
        let leaving: Vec<NodeUid> =
            rows.nodes.values().filter(|n| !n.is_successor()).filter(leaves).map(|n| n.uid).collect();
        client.check_instances(instances, &leaving).await
    }

    /// Refuses nodes that are to be made anew and that their hosts would not take: what runs is not touched for that.
    pub(super) async fn refuse_what_hosts_do_not_take(&self, rows: &LabRows) -> Result<()> {
        let successors: Vec<&NodeRow> = rows.nodes.values().filter(|n| n.is_successor()).collect();
        let hosts: BTreeSet<&HostId> = successors.iter().filter_map(|n| n.host.as_ref()).collect();
        let uids: Vec<NodeUid> = successors.iter().map(|n| n.uid).collect();
        let mut refused = Vec::new();
        for client in hosts.into_iter().filter_map(|h| self.host(h)) {
            let of_host = self.refused_by(&client, rows, &uids).await?;
            refused.extend(of_host.into_iter().map(|r| (client.id.clone(), r)));
        }
        let Some((host, first)) = refused.first() else { return Ok(()) };
        let id = |r: &Refused| rows.nodes.get(&r.uid).map(|n| n.id.to_string()).unwrap_or_default();
        let lines: Vec<String> =
            refused.iter().map(|(host, r)| format!("  {}: {host}: {}", id(r), r.message)).collect();
        let message =
            format!("nodes cannot be made anew as asked, and keep what they have:\n{}", lines.join("\n"));
        let nodes: BTreeSet<String> = refused.iter().map(|(_, r)| id(r)).collect();
        Err(Failure::new(Code::FailedPrecondition, &first.reason, message)
            .with("nodes", nodes.into_iter().collect::<Vec<_>>().join(","))
            .with("host", host.to_string())
            .into())
    }

    /// Notes what a host said of its images, here for placement and at the registry for its verdicts.
    pub async fn note_images(&self, host: &HostId, facts: Vec<ImageFacts>) -> Result<()> {
        self.world.note_images(host, facts.iter().filter_map(ImageFacts::said));
        self.registry.record(host, facts).await
    }

    /// The registry's verdict on each use, from what the hosts' stores have now.
    pub async fn verdicts(&self, uses: &[ImageUse]) -> Result<Vec<Verdict>> {
        let references: BTreeSet<&String> = uses.iter().map(|u| &u.reference).collect();
        let references: Vec<String> = references.into_iter().cloned().collect();
        let resolved = self.registry.resolve(&references, &self.ticket_key).await?;
        let digest = |r: Resolved| r.stored.map(|s| s.digest().to_owned()).unwrap_or_default();
        let digests: BTreeMap<&String, String> =
            references.iter().zip(resolved.into_iter().map(digest)).collect();
        let mut asked: BTreeMap<&HostId, BTreeSet<(String, Runtime, String)>> = BTreeMap::new();
        for u in uses {
            let digest = digests.get(&u.reference).cloned().unwrap_or_default();
            asked.entry(&u.host).or_default().insert((u.reference.clone(), u.runtime, digest));
        }
        let ask = |(host, images): (&HostId, BTreeSet<(String, Runtime, String)>)| {
            let client = self.host(host);
            let (host, images) = (host.clone(), images.into_iter().collect::<Vec<_>>());
            async move {
                let Some(client) = client else {
                    let message = format!("host {host} is none of the scheduler's any more");
                    return Err(Error::from(Failure::new(Code::Unavailable, "HOST_UNAVAILABLE", message)));
                };
                let (facts, room_bytes) = client.inspect_images(&images).await?;
                self.note_images(&host, facts).await?;
                let said = self.world.host(&host, |v| v.compute.inventory.architecture.clone());
                let Some(architecture) = said.filter(|a| !a.is_empty()) else {
                    // It may answer before it is heard of: what it is, is not known then, and an image for another machine would pass.
                    let message = format!("host {host} is not heard of yet; try again");
                    return Err(Error::from(Failure::new(Code::Unavailable, "HOST_UNAVAILABLE", message)));
                };
                Ok((host, ImageHost { architecture, room_bytes }))
            }
        };
        let hosts = futures::future::try_join_all(asked.into_iter().map(ask)).await?;
        if uses.is_empty() {
            return Ok(Vec::new());
        }
        self.registry.validate(uses, &hosts.into_iter().collect()).await
    }
}

/// The images of nodes that are about to be made, or whose image is looked for again.
pub(super) fn image_uses(before: &LabRows, after: &LabRows) -> Vec<ImageUse> {
    let is_looked_for = |n: &NodeRow| {
        before.nodes.get(&n.uid).is_none_or(|was| match was.image_step {
            _ if was.host.is_none() => true,
            ImageStep::Failed => true,
            ImageStep::Ready => n.image_step == ImageStep::Waiting,
            ImageStep::Waiting | ImageStep::Pulling => false,
        })
    };
    after
        .nodes
        .values()
        .filter(|n| n.wanted.stays() && n.runtime != Runtime::Bridge && is_looked_for(n))
        .filter_map(|n| {
            Some(ImageUse {
                node: n.id.to_string(),
                reference: n.image(),
                runtime: n.runtime,
                host: n.host.clone()?,
                policy: n.spec.image_pull_policy,
            })
        })
        .collect()
}
