//! The states, their only spelling, and how they follow from evidence.
//!
//! ```text
//! PENDING ─► PULLING ─► CREATING ─► STARTING ─► RUNNING ─► READY
//!    │          │           │           ▲          │         │
//!    │          └─► FAILED ◄┴───────────┼──────────┴─────────┤ its process ended: restarted with back-off
//!    └─► UNSCHEDULABLE (room appears ─► PENDING)   STOPPING ◄┘─► STOPPED
//! UNKNOWN: its host is not heard of; any state follows when it is again
//! ```

use serde::{Deserialize, Serialize};

use crate::observed::{ExecPhase, NOT_READY, Observed, Phase, WireState};

macro_rules! words {
    ($(#[$doc:meta])* $type:ident { $($(#[$vdoc:meta])* $variant:ident => $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $type {
            $($(#[$vdoc])* #[serde(rename = $word)] $variant,)+
        }

        impl $type {
            /// All of them.
            pub const ALL: &'static [$type] = &[$($type::$variant),+];

            /// The word.
            pub fn as_str(self) -> &'static str {
                match self { $($type::$variant => $word),+ }
            }

            /// The value with this word.
            pub fn from_word(word: &str) -> Option<$type> {
                Self::ALL.iter().copied().find(|v| v.as_str() == word)
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

words! {
    /// What runs a node.
    Runtime {
        /// A Docker container.
        Docker => "docker",
        /// A virtual machine run by libvirt.
        Libvirt => "libvirt",
        /// A segment, made by the network service; there is no instance.
        Bridge => "bridge",
    }
}

words! {
    /// What was asked of a node.
    Wanted {
        /// It is to run.
        Running => "RUNNING",
        /// It is to be stopped, and keep its disk.
        Stopped => "STOPPED",
        /// It is to be stopped and taken out of the way of what takes its place, and keep its disk: it may be wanted again.
        Aside => "ASIDE",
        /// It is to be gone.
        Absent => "ABSENT",
    }
}

impl Wanted {
    /// True of what is to be there, running or stopped.
    pub fn stays(self) -> bool {
        matches!(self, Wanted::Running | Wanted::Stopped)
    }
}

words! {
    /// The state of a node.
    NodeState {
        /// Wanted, and nothing was done yet.
        Pending => "PENDING",
        /// No host has room for it.
        Unschedulable => "UNSCHEDULABLE",
        /// Its image is being fetched.
        Pulling => "PULLING",
        /// Its instance is being made.
        Creating => "CREATING",
        /// Its instance is starting, or waits to be restarted.
        Starting => "STARTING",
        /// It runs; its links or exec commands are not done yet.
        Running => "RUNNING",
        /// It runs, has its interfaces, and its exec commands were run.
        Ready => "READY",
        /// It is being stopped or removed.
        Stopping => "STOPPING",
        /// It does not run; its instance exists.
        Stopped => "STOPPED",
        /// It cannot be made or kept running, or is a virtual machine that did not boot in its time.
        Failed => "FAILED",
        /// Its host has not been heard of for some time.
        Unknown => "UNKNOWN",
    }
}

words! {
    /// The state of a link.
    LinkState {
        /// At least one of its nodes has not started.
        Pending => "PENDING",
        /// Read back on every host it touches, with carrier at both ends.
        Up => "UP",
        /// Made, but without carrier at an end.
        Down => "DOWN",
        /// It cannot be made.
        Failed => "FAILED",
        /// A host it touches has not been heard of for some time.
        Unknown => "UNKNOWN",
    }
}

words! {
    /// The state of a lab, rolled up by [`crate::tally::lab_state`].
    LabState {
        /// It is being removed.
        Deleting => "DELETING",
        /// An operation is changing it.
        Deploying => "DEPLOYING",
        /// The state of at least one node or link is not known.
        Unknown => "UNKNOWN",
        /// At least one node or link failed or is unschedulable.
        Degraded => "DEGRADED",
        /// Something wanted is not there yet, and is being brought back.
        Reconciling => "RECONCILING",
        /// No node is wanted running.
        Stopped => "STOPPED",
        /// Every node wanted running is ready, or ended by itself as its restart policy allows, and the links of those that run are up, but for those that only the restart of a node brings.
        Running => "RUNNING",
    }
}

impl NodeState {
    /// True for a node whose process runs.
    pub fn is_running(self) -> bool {
        matches!(self, NodeState::Running | NodeState::Ready)
    }

    /// True when an operation need not wait for it any longer: nothing better will come of it without something else changing.
    pub fn is_settled(self, wanted: Wanted) -> bool {
        match self {
            NodeState::Ready => wanted == Wanted::Running,
            // Its process ended and its restart policy leaves it so: it stays stopped whatever is wanted.
            NodeState::Stopped | NodeState::Failed | NodeState::Unschedulable => true,
            _ => false,
        }
    }
}

/// What a node's state follows from.
#[derive(Debug, Clone)]
pub struct NodeEvidence<'a> {
    /// What runs it.
    pub runtime: Runtime,
    /// What was asked of it.
    pub wanted: Wanted,
    /// True when a host was chosen for it.
    pub placed: bool,
    /// Why its image cannot be used, or that it is being fetched.
    pub image: ImageStep<'a>,
    /// True when its host is heard of.
    pub heard: bool,
    /// What its host's compute service read back of it.
    pub observed: Option<&'a Observed>,
    /// How many restarts were asked for: what was started for a lower one is still to be started again.
    pub restarts: u64,
    /// The hash of the instance that is wanted, where an earlier one is thrown away before it is made; empty where none is.
    pub wiped: &'a str,
    /// For a bridge: what its host's network service read back of its segment.
    pub segment: Option<(WireState, &'a str)>,
}

/// How far a node's image is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageStep<'a> {
    /// Not looked at yet.
    Waiting,
    /// Being fetched, with progress in words.
    Pulling(&'a str),
    /// There, or none is needed.
    Ready,
    /// It cannot be used, and why.
    Failed(&'a str),
}

/// The state of a node and why, in words. Rules in order, the first that holds:
///
/// 1. no host was chosen: UNSCHEDULABLE
/// 2. its image failed: FAILED; is fetched: PULLING; was not looked at: PENDING
/// 3. its host is not heard of: UNKNOWN
/// 4. a bridge follows its segment
/// 5. one of which an instance from before its last wipe is still there: STOPPING
/// 6. one that is to be stopped and still runs or starts: STOPPING; one that was not started yet since that was asked for, or stands still on a host
///    that does not know yet that it is to run: STARTING
/// 7. anything else the phase that was read back, READY only when the exec commands are done
pub fn node_state(e: &NodeEvidence<'_>) -> (NodeState, String) {
    use NodeState as S;
    let say = |state: S, why: &str| (state, why.to_owned());
    if !e.placed {
        return say(S::Unschedulable, "no host has room for it");
    }
    match e.image {
        ImageStep::Failed(why) => return say(S::Failed, why),
        ImageStep::Pulling(progress) => return say(S::Pulling, progress),
        ImageStep::Waiting => return say(S::Pending, ""),
        ImageStep::Ready => {}
    }
    if !e.heard {
        return say(S::Unknown, "its host is not heard of");
    }
    if e.runtime == Runtime::Bridge {
        return match e.segment {
            Some((WireState::Up, why)) => say(S::Ready, why),
            Some((WireState::Failed, why)) => say(S::Failed, why),
            Some((WireState::Unknown, why)) => say(S::Unknown, why),
            Some((WireState::Pending | WireState::Down, why)) => say(S::Creating, why),
            None => say(S::Pending, ""),
        };
    }
    let Some(o) = e.observed else { return say(S::Pending, "") };
    let is_of_before = !e.wiped.is_empty() && !o.spec_hash.is_empty() && o.spec_hash != e.wiped;
    if is_of_before && matches!(o.phase, Phase::Starting | Phase::Running | Phase::Stopping | Phase::Stopped)
    {
        return say(S::Stopping, "its disk is being thrown away");
    }
    let stale = e.wanted == Wanted::Running && o.restarts < e.restarts;
    match o.phase {
        Phase::Absent if e.wanted == Wanted::Stopped => say(S::Stopped, ""),
        // It was to be removed when its process ends.
        Phase::Absent if o.exited && !stale => say(S::Stopped, &o.detail),
        Phase::Creating | Phase::Starting | Phase::Running if e.wanted == Wanted::Stopped => {
            say(S::Stopping, "it is being stopped")
        }
        Phase::Running | Phase::Stopped if stale => say(S::Starting, "it is being started again"),
        // A host that has just begun anew knows what is there before it is told what is to run: this is no end yet.
        Phase::Stopped if e.wanted == Wanted::Running && !o.wanted => {
            say(S::Starting, "its host is being told that it is to run")
        }
        Phase::Aside if e.wanted == Wanted::Stopped => say(S::Stopped, ""),
        Phase::Aside => say(S::Starting, "it is brought back"),
        Phase::Absent => say(S::Pending, &o.detail),
        Phase::Creating => say(S::Creating, &o.detail),
        Phase::Starting => say(S::Starting, &o.detail),
        Phase::Stopping => say(S::Stopping, &o.detail),
        Phase::Failed => say(S::Failed, &o.detail),
        Phase::Unknown => say(S::Unknown, &o.detail),
        Phase::Stopped => say(S::Stopped, &o.detail),
        Phase::Running => match o.exec_phase {
            // A machine that does not boot is of no use to anybody, though its processor runs.
            ExecPhase::Failed if e.runtime == Runtime::Libvirt && o.exec_error.starts_with(NOT_READY) => {
                say(S::Failed, o.exec_error.lines().next().unwrap_or_default())
            }
            ExecPhase::Done | ExecPhase::Failed => {
                let exec = o.exec_error.lines().next().filter(|_| o.exec_phase == ExecPhase::Failed);
                let health = match o.health.as_str() {
                    "unhealthy" => Some("its health check fails"),
                    "starting" => Some("its health check has not said anything yet"),
                    _ => None,
                };
                let detail = Some(o.detail.as_str()).filter(|detail| !detail.is_empty());
                (S::Ready, exec.into_iter().chain(health).chain(detail).collect::<Vec<_>>().join("; "))
            }
            ExecPhase::None | ExecPhase::Waiting => say(S::Running, "waits for its links"),
            ExecPhase::Running if o.detail.is_empty() => say(S::Running, "runs its exec commands"),
            ExecPhase::Running => say(S::Running, &o.detail),
        },
    }
}

/// What is told of a virtual machine that boots: for so many seconds already, and so many at most.
pub fn booting(elapsed_seconds: i64, limit_seconds: i32) -> String {
    format!("booting, {} s of at most {limit_seconds}", elapsed_seconds.max(0))
}

/// The state of a link and why, in words, from what its host read back of its wire.
pub fn link_state(heard: bool, wire: Option<(WireState, &str)>) -> (LinkState, String) {
    if !heard {
        return (LinkState::Unknown, "its host is not heard of".to_owned());
    }
    let Some((state, detail)) = wire else { return (LinkState::Pending, String::new()) };
    let state = match state {
        WireState::Pending => LinkState::Pending,
        WireState::Up => LinkState::Up,
        WireState::Down => LinkState::Down,
        WireState::Failed => LinkState::Failed,
        WireState::Unknown => LinkState::Unknown,
    };
    (state, detail.to_owned())
}

/// What one of the two hosts of a link that goes between them reads back of its half.
#[derive(Debug, Clone, Copy)]
pub struct Half<'a> {
    /// The host.
    pub host: &'a str,
    /// True when it is heard of.
    pub heard: bool,
    /// The state of its wire and why, in words; none while it has none.
    pub wire: Option<(WireState, &'a str)>,
    /// True when it is so because of the far end, which the other host sees better.
    pub is_by_far: bool,
}

/// The state of a link between two hosts and why, in words, and which half it is because of. It is up when both halves were read back and have carrier; a host that is
/// not heard of makes it unknown; else it is what the worse half is, in the order FAILED, UNKNOWN, PENDING, DOWN, and of two alike the one that does not point at the other.
pub fn link_state_across(halves: &[Half<'_>; 2]) -> (LinkState, String, Option<usize>) {
    if let Some(at) = halves.iter().position(|half| !half.heard) {
        return (LinkState::Unknown, format!("host {} is not heard of", halves[at].host), None);
    }
    let rank = |half: &Half<'_>| match half.wire.map(|(state, _)| state) {
        Some(WireState::Failed) => 4,
        Some(WireState::Unknown) => 3,
        Some(WireState::Pending) | None => 2,
        Some(WireState::Down) => 1,
        Some(WireState::Up) => 0,
    };
    let key = |half: &Half<'_>| (rank(half), !half.is_by_far);
    let worst = usize::from(key(&halves[1]) > key(&halves[0]));
    let half = &halves[worst];
    let (state, why) = link_state(true, half.wire);
    match state {
        LinkState::Up => (state, String::new(), None),
        // The far end is well: that has only not come here yet.
        LinkState::Down if half.is_by_far && rank(&halves[1 - worst]) == 0 => {
            (LinkState::Pending, format!("host {} is being told that the far end is up", half.host), None)
        }
        _ => (state, why, Some(worst).filter(|_| !half.is_by_far)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{LabUid, NodeUid};

    fn evidence<'a>(observed: Option<&'a Observed>) -> NodeEvidence<'a> {
        NodeEvidence {
            runtime: Runtime::Docker,
            wanted: Wanted::Running,
            placed: true,
            image: ImageStep::Ready,
            heard: true,
            observed,
            restarts: 0,
            wiped: "",
            segment: None,
        }
    }

    #[test]
    fn a_restart_is_only_over_once_it_was_started_for_it() {
        let mut o = Observed::absent(NodeUid::new(), LabUid::new());
        (o.phase, o.exec_phase, o.restarts) = (Phase::Running, ExecPhase::Done, 1);
        let asked = |o: &Observed| node_state(&NodeEvidence { restarts: 2, ..evidence(Some(o)) }).0;
        assert_eq!(asked(&o), NodeState::Starting);
        o.phase = Phase::Stopped;
        assert_eq!(asked(&o), NodeState::Starting);
        (o.phase, o.restarts) = (Phase::Running, 2);
        assert_eq!(asked(&o), NodeState::Ready);
    }

    /// A compute service that was killed between making an instance and starting it reads it back as stopped, and starts it once it is told: a deploy
    /// that took this for an end failed.
    #[test]
    fn what_stands_still_on_a_host_that_was_not_told_yet_has_not_ended() {
        let mut o = Observed::absent(NodeUid::new(), LabUid::new());
        (o.phase, o.wanted) = (Phase::Stopped, false);
        let said = |o: &Observed, wanted| node_state(&NodeEvidence { wanted, ..evidence(Some(o)) }).0;
        assert_eq!(said(&o, Wanted::Running), NodeState::Starting);
        assert_eq!(said(&o, Wanted::Stopped), NodeState::Stopped);
        o.wanted = true;
        assert_eq!(said(&o, Wanted::Running), NodeState::Stopped);
    }

    #[test]
    fn a_wipe_is_only_over_once_what_was_there_before_is_gone() {
        let mut o = Observed::absent(NodeUid::new(), LabUid::new());
        (o.phase, o.exec_phase, o.restarts, o.spec_hash) = (Phase::Running, ExecPhase::Done, 1, "h".into());
        let said = |o: &Observed, wanted| {
            node_state(&NodeEvidence { wanted, wiped: "h.1", restarts: 1, ..evidence(Some(o)) }).0
        };
        assert_eq!(said(&o, Wanted::Running), NodeState::Stopping);
        o.phase = Phase::Stopped;
        assert_eq!(said(&o, Wanted::Stopped), NodeState::Stopping);
        (o.phase, o.spec_hash) = (Phase::Absent, String::new());
        assert_eq!(said(&o, Wanted::Stopped), NodeState::Stopped);
        (o.phase, o.spec_hash) = (Phase::Running, "h.1".into());
        assert_eq!(said(&o, Wanted::Running), NodeState::Ready);
    }

    #[test]
    fn stopped_is_only_said_once_it_does_not_run() {
        let stop = |o: &Observed| {
            node_state(&NodeEvidence { wanted: Wanted::Stopped, restarts: 1, ..evidence(Some(o)) }).0
        };
        let mut o = Observed::absent(NodeUid::new(), LabUid::new());
        assert_eq!(stop(&o), NodeState::Stopped);
        (o.phase, o.exec_phase) = (Phase::Running, ExecPhase::Done);
        assert_eq!(stop(&o), NodeState::Stopping);
        o.phase = Phase::Stopped;
        assert_eq!(stop(&o), NodeState::Stopped);
        let unheard = NodeEvidence { heard: false, wanted: Wanted::Stopped, ..evidence(Some(&o)) };
        assert_eq!(node_state(&unheard).0, NodeState::Unknown);
    }

    #[test]
    fn running_is_only_said_from_evidence() {
        assert_eq!(node_state(&evidence(None)).0, NodeState::Pending);
        let mut o = Observed::absent(NodeUid::new(), LabUid::new());
        o.phase = Phase::Running;
        assert_eq!(node_state(&evidence(Some(&o))).0, NodeState::Running);
        o.exec_phase = ExecPhase::Done;
        assert_eq!(node_state(&evidence(Some(&o))).0, NodeState::Ready);
        (o.exec_phase, o.exec_error) = (
            ExecPhase::Failed,
            format!("{} 60 s: \"x\" exited with 1: no\nmore", crate::observed::NOT_READY),
        );
        let late = "it was not ready within 60 s: \"x\" exited with 1: no".to_owned();
        assert_eq!(node_state(&evidence(Some(&o))), (NodeState::Ready, late.clone()));
        let machine = NodeEvidence { runtime: Runtime::Libvirt, ..evidence(Some(&o)) };
        assert_eq!(node_state(&machine), (NodeState::Failed, late), "it did not boot");
        o.exec_error = "exec command \"x\" exited with 1: no".into();
        let failed = o.exec_error.clone();
        assert_eq!(node_state(&evidence(Some(&o))), (NodeState::Ready, failed));
        let unheard = NodeEvidence { heard: false, ..evidence(Some(&o)) };
        assert_eq!(node_state(&unheard).0, NodeState::Unknown);
        let unplaced = NodeEvidence { placed: false, ..evidence(Some(&o)) };
        assert_eq!(node_state(&unplaced).0, NodeState::Unschedulable);
    }

    #[test]
    fn a_ready_node_says_what_is_not_well_with_it() {
        let mut o = Observed::absent(NodeUid::new(), LabUid::new());
        (o.phase, o.exec_phase, o.health) = (Phase::Running, ExecPhase::Done, "unhealthy".into());
        let said = |o: &Observed| node_state(&evidence(Some(o)));
        assert_eq!(said(&o), (NodeState::Ready, "its health check fails".into()));
        (o.exec_phase, o.exec_error) = (ExecPhase::Failed, "exec command \"x\" exited with 1: a\nb".into());
        let both = "exec command \"x\" exited with 1: a; its health check fails";
        assert_eq!(said(&o), (NodeState::Ready, both.into()));
        (o.exec_phase, o.health) = (ExecPhase::Done, "starting".into());
        assert_eq!(said(&o), (NodeState::Ready, "its health check has not said anything yet".into()));
        o.health = "healthy".into();
        assert_eq!(said(&o), (NodeState::Ready, String::new()));
    }

    #[test]
    fn a_link_between_hosts_is_up_when_both_halves_are() {
        use WireState as W;
        let said = |a: Option<(W, bool)>, b: Option<(W, bool)>| {
            let half = |host, wire: Option<(W, bool)>| Half {
                host,
                heard: true,
                wire: wire.map(|(state, _)| (state, host)),
                is_by_far: wire.is_some_and(|(_, by_far)| by_far),
            };
            let (state, why, at) = link_state_across(&[half("h1", a), half("h2", b)]);
            (state, why, at)
        };
        let (up, down, far) = (Some((W::Up, false)), Some((W::Down, false)), Some((W::Down, true)));
        assert_eq!(said(up, up), (LinkState::Up, String::new(), None));
        assert_eq!(said(up, None).0, LinkState::Pending);
        assert_eq!(said(far, down), (LinkState::Down, "h2".into(), Some(1)), "who sees it says why");
        assert_eq!(said(down, far), (LinkState::Down, "h1".into(), Some(0)));
        assert_eq!(said(up, far).0, LinkState::Pending, "the news is on its way");
        assert_eq!(said(far, Some((W::Pending, false))), (LinkState::Pending, "h2".into(), Some(1)));
        let failed = Some((W::Failed, false));
        assert_eq!(said(failed, Some((W::Unknown, false))), (LinkState::Failed, "h1".into(), Some(0)));
        let half = |heard| Half { host: "h", heard, wire: Some((W::Up, "")), is_by_far: false };
        assert_eq!(link_state_across(&[half(true), half(false)]).0, LinkState::Unknown);
    }

    #[test]
    fn words_are_read_back() {
        for s in NodeState::ALL {
            assert_eq!(NodeState::from_word(s.as_str()), Some(*s));
            assert_eq!(serde_json::to_string(s).unwrap(), format!("\"{s}\""));
        }
        assert_eq!(Runtime::from_word("podman"), None);
    }
}
