//! States, tallies and plans.

use netloom_model::plan as mp;
use netloom_model::state as m;
use netloom_model::tally as mt;

use super::{ConvertError, words};
use crate::scheduler::v1 as ps;
use crate::v1 as p;

words!(m::Runtime, p::Runtime, "runtime" { Docker, Libvirt, Bridge });

impl From<m::Wanted> for p::Wanted {
    fn from(v: m::Wanted) -> Self {
        match v {
            m::Wanted::Running => p::Wanted::Running,
            m::Wanted::Stopped => p::Wanted::Stopped,
            // Whether its disk is kept for a while is nobody's but the scheduler's and its host's.
            m::Wanted::Aside | m::Wanted::Absent => p::Wanted::Absent,
        }
    }
}

impl TryFrom<p::Wanted> for m::Wanted {
    type Error = ConvertError;
    fn try_from(v: p::Wanted) -> Result<Self, ConvertError> {
        match v {
            p::Wanted::Running => Ok(m::Wanted::Running),
            p::Wanted::Stopped => Ok(m::Wanted::Stopped),
            p::Wanted::Absent => Ok(m::Wanted::Absent),
            p::Wanted::Unspecified => Err(ConvertError::new("wanted", "is not set")),
        }
    }
}

words!(m::NodeState, p::NodeState, "state" {
    Pending, Unschedulable, Pulling, Creating, Starting, Running, Ready, Stopping, Stopped, Failed, Unknown,
});
words!(m::LinkState, p::LinkState, "state" { Pending, Up, Down, Failed, Unknown });
words!(m::LabState, p::LabState, "state" { Deleting, Deploying, Unknown, Degraded, Reconciling, Stopped, Running });
words!(mp::Verb, p::ActionVerb, "verb" { Create, Recreate, Update, Delete, Start, Stop, Restart, Wipe, Restore });

impl From<mt::NodeTally> for ps::NodeTally {
    fn from(t: mt::NodeTally) -> Self {
        ps::NodeTally {
            runtime: p::Runtime::from(t.runtime).into(),
            wanted: p::Wanted::from(t.wanted).into(),
            state: p::NodeState::from(t.state).into(),
            count: t.count,
        }
    }
}

impl TryFrom<ps::NodeTally> for mt::NodeTally {
    type Error = ConvertError;
    fn try_from(t: ps::NodeTally) -> Result<Self, ConvertError> {
        Ok(mt::NodeTally {
            runtime: t.runtime().try_into()?,
            wanted: t.wanted().try_into()?,
            state: t.state().try_into()?,
            count: t.count,
        })
    }
}

impl From<mt::LinkTally> for ps::LinkTally {
    fn from(t: mt::LinkTally) -> Self {
        ps::LinkTally {
            state: p::LinkState::from(t.state).into(),
            count: t.count,
            unplugged: t.unplugged,
            needs_restart: t.needs_restart,
        }
    }
}

impl TryFrom<ps::LinkTally> for mt::LinkTally {
    type Error = ConvertError;
    fn try_from(t: ps::LinkTally) -> Result<Self, ConvertError> {
        Ok(mt::LinkTally {
            state: t.state().try_into()?,
            count: t.count,
            unplugged: t.unplugged,
            needs_restart: t.needs_restart,
        })
    }
}

impl From<mp::Plan> for p::Plan {
    fn from(plan: mp::Plan) -> Self {
        p::Plan {
            actions: plan.actions.into_iter().map(Into::into).collect(),
            unplaced: plan.unplaced.into_iter().map(Into::into).collect(),
            placements: plan.placements.into_iter().map(Into::into).collect(),
            cut_links: plan.cut,
        }
    }
}

impl From<mp::Action> for p::Action {
    fn from(a: mp::Action) -> Self {
        p::Action {
            verb: p::ActionVerb::from(a.verb).into(),
            object: a.object.as_str().to_owned(),
            id: a.id,
            reason: a.reason,
            host: a.host,
        }
    }
}

impl From<mp::Placement> for p::Placement {
    fn from(v: mp::Placement) -> Self {
        p::Placement { node: v.node, host: v.host, others: v.others.into_iter().map(Into::into).collect() }
    }
}

impl From<mp::Unplaced> for p::Unplaced {
    fn from(u: mp::Unplaced) -> Self {
        p::Unplaced { node: u.node, rejections: u.rejections.into_iter().map(Into::into).collect() }
    }
}

impl From<mp::Rejection> for p::HostRejection {
    fn from(r: mp::Rejection) -> Self {
        p::HostRejection { host: r.host, code: r.code, detail: r.detail, resolvable: r.resolvable }
    }
}

impl From<mp::Progress> for p::Progress {
    fn from(s: mp::Progress) -> Self {
        // What boots is told by who knows the kinds.
        p::Progress {
            object: s.object.as_str().to_owned(),
            id: s.id,
            state: s.state,
            detail: s.detail,
            boot: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_spelled_the_same_in_proto_and_model() {
        for s in m::NodeState::ALL {
            assert_eq!(p::NodeState::from(*s).as_str_name(), format!("NODE_STATE_{s}"));
        }
        for s in m::LinkState::ALL {
            assert_eq!(p::LinkState::from(*s).as_str_name(), format!("LINK_STATE_{s}"));
        }
        for s in m::LabState::ALL {
            assert_eq!(p::LabState::from(*s).as_str_name(), format!("LAB_STATE_{s}"));
        }
    }
}
