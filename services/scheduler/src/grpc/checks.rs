//! Checks of links, in messages.

use netloom_proto::scheduler::v1 as ps;
use netloom_proto::v1 as pv;
use tonic::Status;

use super::changes::invalid;
use super::{Grpc, status};
use crate::check::{MOST, Outcome, Place, Run, Stop, Verdict, is_large};

impl Grpc {
    pub(super) async fn checked(
        &self,
        request: ps::CheckLinkRequest,
    ) -> Result<ps::CheckLinkResponse, Status> {
        let ps::CheckLinkRequest { lab, link, frame_count } = request;
        if frame_count > MOST {
            return Err(invalid("frame_count", format!("is {frame_count}: send 1 to {MOST}")));
        }
        let [a_to_b, b_to_a] = self.core.check_path(&lab, &link, frame_count).await.map_err(status)?;
        Ok(ps::CheckLinkResponse { a_to_b: Some(encoded(a_to_b)), b_to_a: Some(encoded(b_to_a)) })
    }
}

fn encoded((run, verdict): (Run, Verdict)) -> pv::PathCheck {
    let Verdict { outcome, reason, stopped_at } = verdict;
    let (sent, sent_large) = (run.sent, run.large);
    pv::PathCheck {
        verdict: match outcome {
            Outcome::Passes => pv::PathVerdict::Passes,
            Outcome::Loses => pv::PathVerdict::Loses,
            Outcome::Stops => pv::PathVerdict::Stops,
            Outcome::Undecided => pv::PathVerdict::Undecided,
        }
        .into(),
        reason,
        sent,
        sent_large,
        stops: run.stops.into_iter().map(|at| stop(at, sent_large)).collect(),
        stopped_at: stopped_at.map_or(pv::PathPlace::Unspecified, place).into(),
    }
}

fn stop(stop: Stop, large: u32) -> pv::PathStop {
    let count = |numbers: usize| u32::try_from(numbers).unwrap_or(u32::MAX);
    let larges = stop.seen.iter().flatten().filter(|number| is_large(**number, large)).count();
    pv::PathStop {
        place: place(stop.place).into(),
        host: stop.host,
        interface: stop.interface,
        seen: stop.seen.map(|seen| count(seen.len())),
        seen_large: count(larges),
        detail: stop.detail,
    }
}

fn place(place: Place) -> pv::PathPlace {
    match place {
        Place::SendingInterface => pv::PathPlace::SendingInterface,
        Place::SendingHostEnd => pv::PathPlace::SendingHostEnd,
        Place::TunnelOut => pv::PathPlace::TunnelOut,
        Place::TunnelIn => pv::PathPlace::TunnelIn,
        Place::ReceivingHostEnd => pv::PathPlace::ReceivingHostEnd,
        Place::ReceivingInterface => pv::PathPlace::ReceivingInterface,
    }
}
