//! What a check of a link says: a table of places each way, and why frames stop.

use netloom_api::v1 as api;

use super::style::Style;
use super::table;
use super::words::last;

/// Both ways, for people.
pub fn text(style: Style, link: &api::Link, check: &api::CheckLinkResponse) -> String {
    let end = |end: &Option<api::Endpoint>| {
        let end = end.clone().unwrap_or_default();
        if end.interface.is_empty() { end.node } else { format!("{}:{}", end.node, end.interface) }
    };
    let (a, b) = (end(&link.a), end(&link.b));
    let ways = [(&a, &b, &check.a_to_b), (&b, &a, &check.b_to_a)];
    let ways = ways.into_iter().filter_map(|(from, to, way)| Some((from, to, way.as_ref()?)));
    let mut text = format!("Link {}\n", last(&link.name));
    for (from, to, way) in ways {
        text.push('\n');
        text.push_str(&one_way(style, &format!("{from} to {to}"), way));
    }
    text
}

fn one_way(style: Style, title: &str, way: &api::PathCheck) -> String {
    let verdict = match way.verdict() {
        api::PathVerdict::Passes => "frames pass",
        api::PathVerdict::Loses => "frames are lost",
        api::PathVerdict::Stops => "frames stop",
        api::PathVerdict::Undecided => "it cannot be told whether frames pass",
        api::PathVerdict::Unspecified => "nothing is said",
    };
    let mut text = format!("{title}: {verdict}\n");
    if !way.reason.is_empty() {
        text.push_str(&format!("  {}\n", way.reason));
    }
    let rows = way.stops.iter().map(|stop| {
        let seen = match stop.seen {
            Some(seen) => format!("{seen}/{}", way.sent),
            None => String::new(),
        };
        let full = stop.seen.map(|_| format!("{}/{}", stop.seen_large, way.sent_large)).unwrap_or_default();
        vec![
            place(stop.place()).to_owned(),
            stop.host.clone(),
            stop.interface.clone(),
            seen,
            full,
            stop.detail.clone(),
        ]
    });
    text.push_str(&table::plain(
        style,
        &["PLACE", "HOST", "INTERFACE", "FRAMES", "FULL SIZE", "DETAIL"],
        &[],
        rows,
    ));
    text
}

fn place(place: api::PathPlace) -> &'static str {
    match place {
        api::PathPlace::SendingInterface => "sending interface",
        api::PathPlace::SendingHostEnd => "its host end",
        api::PathPlace::TunnelOut => "tunnel out",
        api::PathPlace::TunnelIn => "tunnel in",
        api::PathPlace::ReceivingHostEnd => "receiving host end",
        api::PathPlace::ReceivingInterface => "receiving interface",
        api::PathPlace::Unspecified => "",
    }
}
