//! Nodes of one deploy are made from the same bytes where they name the same image, on whichever hosts they are.
//!
//! What the image registry's store has is the same for all. What Docker finds under a name by itself may not be: one host has had it for a year, and another fetches it now.

use netloom_model::id::{HostId, NodeUid};
use netloom_model::plan::{Action, Object, Verb};
use netloom_model::spec::PullPolicy;

use crate::rows::{ImageStep, LabRows, NodeRow};

/// Of nodes whose images are there, with the digests: those that a deploy makes from other bytes than one that it makes on another host from an image of the same name; and why not. `architecture` is a host's: of two there
/// are two images.
pub fn different(
    rows: &LabRows,
    deploy: &[Action],
    ready: &[(NodeUid, String)],
    architecture: impl Fn(&HostId) -> String,
) -> Vec<(NodeUid, String)> {
    let makes = |node: &NodeRow| {
        let is_it = |a: &Action| a.object == Object::Node && a.id.eq_ignore_ascii_case(node.id.as_str());
        deploy.iter().any(|a| matches!(a.verb, Verb::Create | Verb::Recreate) && is_it(a))
    };
    let is_succeeded = |node: &NodeRow| {
        rows.nodes.values().any(|n| n.is_successor() && n.uid != node.uid && n.id == node.id)
    };
    // Who says never asks for what each host has.
    let is_compared =
        |node: &NodeRow, digest: &str| node.spec.image_pull_policy != PullPolicy::Never && !digest.is_empty();
    let made: Vec<(&NodeRow, &HostId)> = rows
        .nodes
        .values()
        .filter(|n| is_compared(n, &n.image_digest))
        .filter(|n| n.wanted.stays() && n.image_step == ImageStep::Ready && makes(n) && !is_succeeded(n))
        .filter_map(|n| Some((n, n.host.as_ref()?)))
        .collect();
    let differs = |(uid, digest): &(NodeUid, String)| {
        let node = rows.nodes.get(uid).filter(|n| makes(n) && is_compared(n, digest))?;
        let host = node.host.as_ref()?;
        let (other, there) = made.iter().find(|(other, there)| {
            let is_same = other.image() == node.image() && other.runtime == node.runtime;
            let differs = other.image_digest != *digest;
            *there != host && is_same && differs && architecture(there) == architecture(host)
        })?;
        Some((
            *uid,
            format!(
                "node {}: image {} is {digest} on host {host} and {} on host {there}, where node {} is made from it; push the one that is meant \
                 (netloom image push), which all hosts fetch then, or deploy again to have each host take its own",
                node.id,
                node.image(),
                other.image_digest,
                other.id,
            ),
        ))
    };
    ready.iter().filter_map(differs).collect()
}

#[cfg(test)]
mod tests {
    use netloom_model::spec::{LabSpec, Placement};

    use super::*;
    use crate::plan::moves::tests::{ctx, node, room};
    use crate::plan::plan;

    #[test]
    fn a_deploy_makes_nodes_of_one_image_from_one_digest_on_all_hosts() {
        let rooms = [room("h1", 9_000), room("h2", 9_000)];
        let on = |id: &str, host: &str| {
            let placement = Placement { host: host.into(), ..Placement::default() };
            netloom_model::spec::NodeSpec { placement, ..node(id) }
        };
        let other = netloom_model::spec::NodeSpec { image: "other:1".into(), ..on("d", "h2") };
        let spec =
            LabSpec { nodes: vec![on("a", "h1"), on("b", "h1"), on("c", "h2"), other], ..LabSpec::default() };
        let planned = plan(&LabRows::new("lab".parse().unwrap(), 1), &spec, ctx(&rooms));
        let (mut rows, actions) = (planned.rows, planned.plan.actions);
        let uid = |rows: &LabRows, id: &str| rows.node(id).unwrap().uid;
        let first = uid(&rows, "a");
        let a = rows.nodes.get_mut(&first).unwrap();
        (a.image_step, a.image_digest) = (ImageStep::Ready, "sha256:1".into());
        let refused =
            |rows: &LabRows, actions: &[Action], id: &str, digest: &str, architectures: [&str; 2]| {
                let architecture =
                    |host: &HostId| architectures[usize::from(host.as_str() == "h2")].to_owned();
                different(rows, actions, &[(uid(rows, id), digest.to_owned())], architecture)
            };
        let same = ["amd64", "amd64"];
        assert_eq!(refused(&rows, &actions, "c", "sha256:1", same), []);
        assert_eq!(refused(&rows, &actions, "d", "sha256:2", same), [], "another image");
        assert_eq!(
            refused(&rows, &actions, "b", "sha256:2", same),
            [],
            "on the same host: its name was moved meanwhile"
        );
        assert_eq!(refused(&rows, &actions, "c", "sha256:2", ["amd64", "arm64"]), []);
        let differs = refused(&rows, &actions, "c", "sha256:2", same);
        for part in ["node c", "sha256:2 on host h2", "sha256:1 on host h1", "node a", ";"] {
            assert!(differs[0].1.contains(part), "{part}: {differs:?}");
        }
        let later: Vec<Action> = actions.iter().filter(|action| action.id != "a").cloned().collect();
        assert_eq!(refused(&rows, &later, "c", "sha256:2", same), [], "a deploy before made the other");
        rows.nodes.get_mut(&first).unwrap().image_step = ImageStep::Failed;
        assert_eq!(refused(&rows, &actions, "c", "sha256:2", same), [], "which is not made");
    }
}
