//! What each state was read from, and how long ago.

use std::time::SystemTime;

use netloom_api::v1 as api;

use super::style::Style;
use super::table;
use super::words::{self, last, natural};

/// What is read, as people call it.
fn source(source: api::EvidenceSource) -> &'static str {
    use api::EvidenceSource as From;
    match source {
        From::Docker => "Docker",
        From::Ovsdb => "the database of Open vSwitch",
        From::Flows => "its flows",
        From::Interfaces => "interfaces of the kernel",
        From::Redirects => "redirects and queues of the kernel",
        From::Sim => "nothing that runs: the node is played",
        From::Libvirt => "libvirt",
        From::Unspecified => "something newer than this program",
    }
}

/// How long ago; empty when there was no such time.
fn age<T: Copy + TryInto<SystemTime>>(then: Option<T>, now: SystemTime) -> String {
    let Some(then) = then.and_then(|then| then.try_into().ok()) else { return String::new() };
    // Clocks of two machines may differ.
    let age = now.duration_since(then).unwrap_or_default();
    match age.as_secs() {
        0..10 => format!("{:.1} s", age.as_secs_f64()),
        seconds @ 10..120 => format!("{seconds} s"),
        seconds @ 120..7_200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3_600),
    }
}

/// The states of nodes and links: how old they are, what they were read from, and how long they have been so.
pub fn text(style: Style, nodes: &[api::Node], links: &[api::Link], now: SystemTime) -> String {
    let header = ["STATE OF", "STATE", "AGE", "SINCE", "READ FROM"];
    let read = |evidence: &[api::EvidenceSource]| match evidence {
        [] => "nothing yet: it is what was decided".to_owned(),
        some => some.iter().map(|read| source(*read)).collect::<Vec<_>>().join(", "),
    };
    let nodes = nodes.iter().map(|n| {
        let evidence: Vec<_> = n.evidence().collect();
        let (seen, since) = (age(n.observe_time, now), age(n.update_time, now));
        let state = words::node_state(n.state()).to_owned();
        (0, last(&n.name).to_owned(), state, seen, since, read(&evidence))
    });
    let links = links.iter().map(|l| {
        let evidence: Vec<_> = l.evidence().collect();
        let (seen, since) = (age(l.observe_time, now), age(l.update_time, now));
        let state = words::link_state(l.state()).to_owned();
        (1, last(&l.name).to_owned(), state, seen, since, read(&evidence))
    });
    let mut all: Vec<_> = nodes.chain(links).collect();
    all.sort_by_cached_key(|(kind, name, ..)| (*kind, natural(name)));
    let rows =
        all.into_iter().map(|(_, name, state, seen, since, read)| vec![name, state, seen, since, read]);
    table::plain(style, &header, &[1], rows)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use prost_types::Timestamp;

    use super::*;

    #[test]
    fn the_age_and_the_evidence_of_each_state_are_told() {
        use api::EvidenceSource as From;
        let at = |seconds: f64| Some(Timestamp::from(UNIX_EPOCH + Duration::from_secs_f64(seconds)));
        let now = UNIX_EPOCH + Duration::from_secs(10_000);
        let node = |name: &str, evidence: &[From]| api::Node {
            name: format!("labs/x/nodes/{name}"),
            state: api::NodeState::Ready.into(),
            observe_time: at(9_999.6),
            update_time: at(9_400.0),
            evidence: evidence.iter().map(|e| (*e).into()).collect(),
            ..api::Node::default()
        };
        let asked =
            api::Node { state: api::NodeState::Pending.into(), observe_time: None, ..node("n10", &[]) };
        let link = api::Link {
            name: "labs/x/links/n2:eth1--n10:eth1".into(),
            state: api::LinkState::Unknown.into(),
            observe_time: at(9_960.0),
            update_time: at(2_000.0),
            evidence: vec![From::Redirects.into(), From::Interfaces.into()],
            ..api::Link::default()
        };
        let nodes = [asked, node("n2", &[From::Docker, From::Interfaces])];
        let text = text(Style::PLAIN, &nodes, &[link], now);
        let expected = "\
STATE OF           STATE    AGE    SINCE   READ FROM
n2                 READY    0.4 s  10 min  Docker, interfaces of the kernel
n10                PENDING  -      10 min  nothing yet: it is what was decided
n2:eth1--n10:eth1  UNKNOWN  40 s   2 h     redirects and queues of the kernel, interfaces of the kernel
";
        assert_eq!(text, expected);
    }
}
