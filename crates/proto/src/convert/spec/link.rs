//! What is asked of a link.

use netloom_model::spec as m;

use super::twins;
use crate::v1 as p;

impl From<m::LinkSpec> for p::LinkSpec {
    fn from(l: m::LinkSpec) -> Self {
        p::LinkSpec {
            a: Some(l.a.into()),
            b: Some(l.b.into()),
            mtu: l.mtu,
            labels: l.labels.into_iter().collect(),
            a_to_b: impairment(l.a_to_b),
            b_to_a: impairment(l.b_to_a),
        }
    }
}

impl From<p::LinkSpec> for m::LinkSpec {
    fn from(l: p::LinkSpec) -> Self {
        // An absent end is an empty one: LabSpec::check says that there is no node "".
        m::LinkSpec {
            a: l.a.unwrap_or_default().into(),
            b: l.b.unwrap_or_default().into(),
            mtu: l.mtu,
            labels: l.labels.into_iter().collect(),
            a_to_b: l.a_to_b.unwrap_or_default().into(),
            b_to_a: l.b_to_a.unwrap_or_default().into(),
        }
    }
}

impl From<m::Endpoint> for p::Endpoint {
    fn from(e: m::Endpoint) -> Self {
        let kind = match e.kind {
            m::EndpointType::Node => p::EndpointType::Unspecified,
            m::EndpointType::Host => p::EndpointType::Host,
            m::EndpointType::MgmtNet => p::EndpointType::MgmtNet,
            m::EndpointType::Dummy => p::EndpointType::Dummy,
        };
        p::Endpoint {
            node: e.node,
            interface: e.interface,
            mac: e.mac,
            ipv4: e.ipv4,
            ipv6: e.ipv6,
            r#type: kind.into(),
        }
    }
}

impl From<p::Endpoint> for m::Endpoint {
    fn from(e: p::Endpoint) -> Self {
        let kind = match e.r#type() {
            p::EndpointType::Unspecified => m::EndpointType::Node,
            p::EndpointType::Host => m::EndpointType::Host,
            p::EndpointType::MgmtNet => m::EndpointType::MgmtNet,
            p::EndpointType::Dummy => m::EndpointType::Dummy,
        };
        m::Endpoint { node: e.node, interface: e.interface, mac: e.mac, ipv4: e.ipv4, ipv6: e.ipv6, kind }
    }
}

twins!(
    m::Impairment,
    p::Impairment { rate_bps, delay_us, jitter_us, loss_ppm, corrupt_ppm, duplicate_ppm, reorder_ppm }
);

/// What does nothing travels as an absent message.
pub fn impairment(i: m::Impairment) -> Option<p::Impairment> {
    (!i.is_none()).then(|| i.into())
}
