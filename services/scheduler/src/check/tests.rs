//! Verdicts on frames that were seen here and there.

use std::collections::BTreeSet;

use netloom_model::spec::Impairment;

use super::verdict::{Outcome, Place, Run, Stop, count, is_large};

const ACROSS: [Place; 6] = [
    Place::SendingInterface,
    Place::SendingHostEnd,
    Place::TunnelOut,
    Place::TunnelIn,
    Place::ReceivingHostEnd,
    Place::ReceivingInterface,
];

fn stop(place: Place, seen: Option<BTreeSet<u32>>) -> Stop {
    Stop { place, host: "h1".into(), interface: "eth1".into(), seen, detail: String::new() }
}

/// Ten frames over two hosts, of which those come to each place that `seen` says.
fn run(seen: impl Fn(Place, u32) -> bool) -> Run {
    let at = |place| stop(place, Some((0..10).filter(|number| seen(place, *number)).collect()));
    Run {
        sent: 10,
        large: 5,
        refused: String::new(),
        impairment: Impairment::default(),
        stops: ACROSS.into_iter().map(at).collect(),
        said: vec![],
        between: "UDP port 4789".into(),
    }
}

fn losing(loss_ppm: u32, run: Run) -> Run {
    Run { impairment: Impairment { loss_ppm, ..Impairment::default() }, ..run }
}

#[test]
fn all_that_come_through_pass() {
    let verdict = run(|_, _| true).judge();
    assert_eq!((verdict.outcome, verdict.reason.as_str(), verdict.stopped_at), (Outcome::Passes, "", None));
}

#[test]
fn the_first_place_that_they_do_not_come_to_is_named_with_its_reason() {
    for cut in ACROSS {
        let mut run = run(|place, _| place < cut);
        run.stops.iter_mut().find(|stop| stop.place == cut).unwrap().detail = "it is cut".into();
        let verdict = run.judge();
        assert_eq!((verdict.outcome, verdict.stopped_at), (Outcome::Stops, Some(cut)));
        assert!(verdict.reason.ends_with(": it is cut"), "{}", verdict.reason);
    }
}

#[test]
fn why_is_what_is_said_nearby_and_then_what_the_hosts_say() {
    let mut run = run(|place, _| place < Place::ReceivingHostEnd);
    run.stops[3].detail = "a filter of somebody else's".into();
    run.said = vec!["its flows are missing".into()];
    let reason = run.judge().reason;
    assert!(reason.ends_with(": a filter of somebody else's; its flows are missing"), "{reason}");
    run.stops.iter_mut().for_each(|stop| stop.seen = Some(BTreeSet::new()));
    run.refused = "it is set down".into();
    assert!(run.judge().reason.contains("do not leave eth1 in its node: it is set down"));
}

#[test]
fn what_was_seen_behind_a_place_came_by_it() {
    let verdict = run(|place, _| place != Place::TunnelOut).judge();
    assert_eq!(verdict.outcome, Outcome::Passes);
}

#[test]
fn where_nobody_can_look_is_no_fault() {
    let mut run = run(|_, _| true);
    for place in [0, 1, 5] {
        run.stops[place].seen = None;
    }
    assert_eq!(run.judge().outcome, Outcome::Passes);
    run.stops.iter_mut().for_each(|stop| stop.seen = None);
    assert_eq!(run.judge().outcome, Outcome::Undecided, "nothing is said of what nobody saw");
}

#[test]
fn only_frames_of_full_size_that_are_missing_speak_of_the_mtu() {
    let verdict = run(|place, number| place < Place::TunnelIn || !is_large(number, 5)).judge();
    assert_eq!((verdict.outcome, verdict.stopped_at), (Outcome::Loses, Some(Place::TunnelIn)));
    assert!(verdict.reason.starts_with("only frames of full size"), "{}", verdict.reason);
    assert!(verdict.reason.contains("MTU"), "{}", verdict.reason);
}

#[test]
fn what_a_link_is_asked_to_lose_is_no_fault() {
    let lossy = |missing: u32| {
        losing(300_000, run(move |place, number| place < Place::ReceivingHostEnd || number >= missing))
    };
    let verdict = lossy(4).judge();
    assert_eq!((verdict.outcome, verdict.stopped_at), (Outcome::Passes, None));
    assert_eq!(verdict.reason, "4 of 10 frames were lost, as the link is asked to lose 30%");
}

#[test]
fn a_loss_that_is_asked_for_does_not_excuse_a_dead_link() {
    // 30 % of twelve frames or more: that all are lost by chance happens less than once in a million checks.
    let (sent, large) = count(0, &Impairment { loss_ppm: 300_000, ..Impairment::default() });
    assert!(sent > 10, "{sent}");
    let mut dead = losing(300_000, run(|_, _| true));
    (dead.sent, dead.large) = (sent, large);
    let all: BTreeSet<u32> = (0..sent).collect();
    for stop in &mut dead.stops {
        stop.seen = Some(if stop.place < Place::ReceivingHostEnd { all.clone() } else { BTreeSet::new() });
    }
    let verdict = dead.judge();
    assert_eq!((verdict.outcome, verdict.stopped_at), (Outcome::Stops, Some(Place::ReceivingHostEnd)));
    // Nor does it anywhere else.
    let elsewhere = losing(300_000, run(|place, number| place < Place::TunnelIn || number > 0)).judge();
    assert_eq!((elsewhere.outcome, elsewhere.stopped_at), (Outcome::Loses, Some(Place::TunnelIn)));
    let behind =
        losing(300_000, run(|place, number| place < Place::ReceivingInterface || number > 0)).judge();
    assert_eq!(behind.stopped_at, Some(Place::ReceivingInterface), "it is lost before the host end");
    // Five of ten, where one of a thousand is to be lost.
    let much = losing(1_000, run(|place, number| place < Place::ReceivingHostEnd || number >= 5)).judge();
    assert_eq!(much.outcome, Outcome::Loses);
}

#[test]
fn where_everything_is_to_be_lost_nothing_can_be_told() {
    let verdict = losing(1_000_000, run(|place, _| place < Place::ReceivingHostEnd)).judge();
    assert_eq!((verdict.outcome, verdict.stopped_at), (Outcome::Undecided, None));
    assert!(verdict.reason.contains("100%"), "{}", verdict.reason);
    let before = losing(1_000_000, run(|place, _| place < Place::TunnelOut)).judge();
    assert_eq!(before.outcome, Outcome::Stops, "it is lost too early");
}

#[test]
fn as_many_frames_are_sent_as_it_takes() {
    let of = |asked, loss_ppm| count(asked, &Impairment { loss_ppm, ..Impairment::default() });
    assert_eq!(of(0, 0), (10, 5));
    assert_eq!(of(0, 500_000), (20, 5));
    assert_eq!(of(0, 999_999).0, 200);
    assert_eq!(of(0, 1_000_000).0, 10, "more would tell no more");
    assert_eq!(of(1, 500_000), (1, 0));
    assert_eq!(of(3, 0), (3, 1));
}
