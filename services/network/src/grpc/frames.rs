//! Path checks, in messages.

use std::collections::BTreeSet;

use netloom_model::id::WireId;
use netloom_proto::network::v1 as pb;
use netloom_service::status::to_status;
use tonic::Status;

use super::wrong;
use crate::check::{Kind, Order, Place, Seen, Watch, Way};
use crate::names::End;

/// Most frames one way.
const MOST: u32 = 200;

/// The wire that a request names.
pub fn wire(id: u64) -> Result<WireId, Status> {
    WireId::try_from(id).map_err(|e| to_status(wrong("wire_id", e.to_string())))
}

/// What is to be sent from where.
pub fn order(request: &pb::SendFramesRequest) -> Result<(WireId, End, Order), Status> {
    let (end, way) = match request.end() {
        pb::End::A => (End::A, Way::AToB),
        pb::End::B => (End::B, Way::BToA),
        pb::End::Unspecified => return Err(to_status(wrong("end", "is not set".to_owned()))),
    };
    let (count, large) = (request.count, request.large);
    if !(1..=MOST).contains(&count) || large > count {
        let what = format!("{count} frames, {large} of them large: send 1 to {MOST}");
        return Err(to_status(wrong("count", what)));
    }
    let [count, large] = [count, large].map(|n| u16::try_from(n).unwrap_or(u16::MAX));
    let mtu = if request.mtu == 0 { u32::MAX } else { request.mtu };
    Ok((wire(request.wire_id)?, end, Order { mark: request.mark, way, count, large, mtu }))
}

/// What was seen so far.
pub fn seen(watch: &Watch) -> pb::WatchFramesResponse {
    let place = |(place, watched, seen): (Place, bool, Seen)| {
        let numbers = |all: BTreeSet<u16>| all.into_iter().map(u32::from).collect();
        pb::FramePlace {
            kind: match place.kind {
                Kind::Interface => pb::FramePlaceKind::Interface,
                Kind::HostEnd => pb::FramePlaceKind::HostEnd,
                Kind::Tunnel => pb::FramePlaceKind::Tunnel,
            }
            .into(),
            end: match place.end {
                End::A => pb::End::A,
                End::B => pb::End::B,
            }
            .into(),
            interface: place.interface,
            watched,
            passed_over: place.passed_over,
            detail: place.detail,
            a_to_b: numbers(seen.a_to_b),
            b_to_a: numbers(seen.b_to_a),
        }
    };
    let places = watch.now().into_iter().map(place).collect();
    pb::WatchFramesResponse { places, wire: watch.wire().map(Into::into) }
}
