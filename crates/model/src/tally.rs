//! Counts and a lab's state, from rows grouped by the database.
//!
//! A list of a thousand labs and the detail of one get their counts from here and from nowhere else; where each had its own, the detail said 0 while the
//! list was right.

use crate::state::{LabState, LinkState, NodeState, Runtime, Wanted};

/// How many nodes of a lab share runtime, wanted and observed state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeTally {
    /// What runs them.
    pub runtime: Runtime,
    /// What was asked of them.
    pub wanted: Wanted,
    /// Their state.
    pub state: NodeState,
    /// How many.
    pub count: u32,
}

/// How many links of a lab share a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkTally {
    /// Their state.
    pub state: LinkState,
    /// How many.
    pub count: u32,
    /// True for those that are unplugged on request: nobody waits for them to come up.
    pub unplugged: bool,
    /// True for those that are down until a node is started again, which nobody asked for: nobody waits for them either.
    pub needs_restart: bool,
}

/// The computed counts of a lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// All nodes, bridges included.
    pub nodes: u32,
    /// Nodes whose process runs (RUNNING or READY).
    pub running: u32,
    /// Nodes in state READY.
    pub ready: u32,
    /// Nodes FAILED or UNSCHEDULABLE.
    pub failed: u32,
    /// Nodes UNKNOWN.
    pub unknown: u32,
    /// Nodes run by Docker.
    pub containers: u32,
    /// Nodes run by libvirt.
    pub vms: u32,
    /// Segments.
    pub bridges: u32,
    /// All links.
    pub links: u32,
    /// Links UP.
    pub up_links: u32,
}

/// Adds tallies up.
pub fn counts(nodes: &[NodeTally], links: &[LinkTally]) -> Counts {
    let sum = |keep: &dyn Fn(&NodeTally) -> bool| nodes.iter().filter(|t| keep(t)).map(|t| t.count).sum();
    Counts {
        nodes: sum(&|_| true),
        running: sum(&|t| t.state.is_running()),
        ready: sum(&|t| t.state == NodeState::Ready),
        failed: sum(&|t| matches!(t.state, NodeState::Failed | NodeState::Unschedulable)),
        unknown: sum(&|t| t.state == NodeState::Unknown),
        containers: sum(&|t| t.runtime == Runtime::Docker),
        vms: sum(&|t| t.runtime == Runtime::Libvirt),
        bridges: sum(&|t| t.runtime == Runtime::Bridge),
        links: links.iter().map(|t| t.count).sum(),
        up_links: links.iter().filter(|t| t.state == LinkState::Up).map(|t| t.count).sum(),
    }
}

/// A lab's state and why, in words: the first rule that holds, in the order of [`LabState`].
pub fn lab_state(
    nodes: &[NodeTally],
    links: &[LinkTally],
    lab_wanted: Wanted,
    operation_active: bool,
) -> (LabState, String) {
    let c = counts(nodes, links);
    let links_in = |state: LinkState| links.iter().filter(|t| t.state == state).map(|t| t.count).sum::<u32>();
    let sum =
        |keep: &dyn Fn(&NodeTally) -> bool| nodes.iter().filter(|t| keep(t)).map(|t| t.count).sum::<u32>();
    // A segment cannot be stopped: a lab whose other nodes all are is stopped.
    let only_bridges = c.bridges == c.nodes;
    let wanted_running =
        sum(&|t| t.wanted == Wanted::Running && (only_bridges || t.runtime != Runtime::Bridge));
    let unsettled = sum(&|t| !t.state.is_settled(t.wanted));
    // A node whose process ended is settled, and its links stay down with it.
    let all_run = sum(&|t| t.wanted != Wanted::Running || t.state == NodeState::Stopped) == 0;
    let unplugged =
        links.iter().filter(|t| t.unplugged && t.state != LinkState::Up).map(|t| t.count).sum::<u32>();
    let for_next_start =
        links.iter().filter(|t| t.needs_restart && t.state != LinkState::Up).map(|t| t.count).sum::<u32>();
    let plugged_links = c.links - unplugged - for_next_start;
    let (failed_links, unknown_links) = (links_in(LinkState::Failed), links_in(LinkState::Unknown));
    let say = |nodes: u32, links: u32, what: &str| match (nodes, links) {
        (n, 0) => format!("{n} of {} nodes {what}", c.nodes),
        (0, l) => format!("{l} of {} links {what}", c.links),
        (n, l) => format!("{n} of {} nodes and {l} of {} links {what}", c.nodes, c.links),
    };

    if lab_wanted == Wanted::Absent {
        (LabState::Deleting, format!("{} nodes are still there", c.nodes))
    } else if operation_active {
        let links_missing = plugged_links.saturating_sub(c.up_links);
        let why = match (unsettled, links_missing) {
            (0, 0) => "its hosts' word is waited for".to_owned(),
            (0, links) => say(0, links, "are not up yet"),
            (nodes, _) => say(nodes, 0, "are not ready yet"),
        };
        (LabState::Deploying, why)
    } else if c.unknown + unknown_links > 0 {
        (LabState::Unknown, say(c.unknown, unknown_links, "are not known"))
    } else if c.failed + failed_links > 0 {
        (LabState::Degraded, say(c.failed, failed_links, "failed"))
    } else if wanted_running == 0 && unsettled == 0 && c.nodes > 0 {
        (LabState::Stopped, "no node is wanted running".to_owned())
    } else if unsettled > 0 || (all_run && c.up_links < plugged_links) {
        let links_missing = if all_run { plugged_links - c.up_links } else { 0 };
        (LabState::Reconciling, say(unsettled, links_missing, "are being brought back"))
    } else {
        let why = match for_next_start {
            0 => String::new(),
            links => say(0, links, "wait for the restart of a node"),
        };
        (LabState::Running, why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn t(runtime: Runtime, wanted: Wanted, state: NodeState, count: u32) -> NodeTally {
        NodeTally { runtime, wanted, state, count }
    }

    fn l(state: LinkState, count: u32) -> LinkTally {
        LinkTally { state, count, unplugged: false, needs_restart: false }
    }

    #[test]
    fn counts_go_by_the_runtime_a_node_really_has() {
        let nodes = [
            t(Runtime::Docker, Wanted::Running, NodeState::Ready, 3),
            t(Runtime::Docker, Wanted::Running, NodeState::Running, 1),
            t(Runtime::Libvirt, Wanted::Stopped, NodeState::Stopped, 2),
            t(Runtime::Libvirt, Wanted::Running, NodeState::Unschedulable, 1),
            t(Runtime::Bridge, Wanted::Running, NodeState::Unknown, 1),
        ];
        let links = [l(LinkState::Up, 4), l(LinkState::Down, 1)];
        let c = counts(&nodes, &links);
        assert_eq!((c.nodes, c.running, c.ready, c.failed, c.unknown), (8, 4, 3, 1, 1));
        assert_eq!((c.containers, c.vms, c.bridges, c.links, c.up_links), (4, 3, 1, 5, 4));
    }

    #[test]
    fn a_deploy_that_waits_for_links_alone_says_so() {
        let ready = t(Runtime::Docker, Wanted::Running, NodeState::Ready, 2);
        let why = |nodes: &[NodeTally], links: &[LinkTally]| lab_state(nodes, links, Wanted::Running, true).1;
        let (up, pending) = (l(LinkState::Up, 1), l(LinkState::Pending, 2));
        assert_eq!(why(&[ready], &[up, pending]), "2 of 3 links are not up yet");
        assert_eq!(why(&[ready], &[up]), "its hosts' word is waited for");
        let starting = t(Runtime::Docker, Wanted::Running, NodeState::Starting, 1);
        assert_eq!(why(&[ready, starting], &[up, pending]), "1 of 3 nodes are not ready yet");
    }

    #[test]
    fn the_first_rule_that_holds_gives_the_state() {
        let ready = t(Runtime::Docker, Wanted::Running, NodeState::Ready, 2);
        let up = l(LinkState::Up, 1);
        let state =
            |nodes: &[NodeTally], links: &[LinkTally]| lab_state(nodes, links, Wanted::Running, false).0;
        assert_eq!(state(&[ready], &[up]), LabState::Running);
        assert_eq!(state(&[], &[]), LabState::Running);
        let with = |s: NodeState, w: Wanted| state(&[ready, t(Runtime::Docker, w, s, 1)], &[up]);
        assert_eq!(with(NodeState::Failed, Wanted::Running), LabState::Degraded);
        assert_eq!(with(NodeState::Unknown, Wanted::Running), LabState::Unknown);
        assert_eq!(with(NodeState::Starting, Wanted::Running), LabState::Reconciling);
        assert_eq!(with(NodeState::Stopped, Wanted::Stopped), LabState::Running);
        assert_eq!(with(NodeState::Stopped, Wanted::Running), LabState::Running);
        let down = l(LinkState::Down, 1);
        let ended = t(Runtime::Docker, Wanted::Running, NodeState::Stopped, 1);
        assert_eq!(state(&[ready, ended], &[up, down]), LabState::Running);
        assert_eq!(state(&[ready], &[up, down]), LabState::Reconciling);
        assert_eq!(
            state(&[t(Runtime::Docker, Wanted::Stopped, NodeState::Stopped, 1)], &[]),
            LabState::Stopped
        );
        let bridge = t(Runtime::Bridge, Wanted::Running, NodeState::Ready, 1);
        let stopped = t(Runtime::Docker, Wanted::Stopped, NodeState::Stopped, 2);
        assert_eq!(state(&[stopped, bridge], &[down]), LabState::Stopped, "a segment cannot be stopped");
        assert_eq!(state(&[bridge], &[]), LabState::Running);
        let stopping = t(Runtime::Docker, Wanted::Stopped, NodeState::Stopping, 1);
        assert_eq!(state(&[stopped, stopping], &[]), LabState::Reconciling);
        let unplugged = LinkTally { unplugged: true, ..down };
        assert_eq!(state(&[ready], &[up, unplugged]), LabState::Running);
        // It was shown as RECONCILING for ever.
        let later = LinkTally { needs_restart: true, ..down };
        let said = |links: &[LinkTally], active| lab_state(&[ready], links, Wanted::Running, active);
        let why = "1 of 2 links wait for the restart of a node".to_owned();
        assert_eq!(said(&[up, later], false), (LabState::Running, why));
        assert_eq!(state(&[ready], &[up, later, down]), LabState::Reconciling);
        assert_eq!(said(&[up, later], true).1, "its hosts' word is waited for");
        assert_eq!(lab_state(&[ready], &[up], Wanted::Running, true).0, LabState::Deploying);
        assert_eq!(lab_state(&[ready], &[up], Wanted::Absent, true).0, LabState::Deleting);
    }
}
