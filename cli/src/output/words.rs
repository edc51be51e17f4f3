//! States as words and tones. The words are the API's, without the prefix of their enum.

use netloom_api::v1 as api;
use netloom_model::spec::Impairment;

use super::style::Tone;

/// A node's state.
pub fn node_state(state: api::NodeState) -> &'static str {
    bare(state.as_str_name(), "NODE_STATE_")
}

/// A link's state.
pub fn link_state(state: api::LinkState) -> &'static str {
    bare(state.as_str_name(), "LINK_STATE_")
}

/// A lab's state.
pub fn lab_state(state: api::LabState) -> &'static str {
    bare(state.as_str_name(), "LAB_STATE_")
}

/// A host's state.
pub fn host_state(state: api::HostState) -> &'static str {
    bare(state.as_str_name(), "HOST_STATE_")
}

/// An operation's state.
pub fn operation_state(state: api::OperationState) -> &'static str {
    bare(state.as_str_name(), "OPERATION_STATE_")
}

/// What an operation does.
pub fn operation_kind(kind: api::OperationKind) -> &'static str {
    match kind {
        api::OperationKind::Deploy => "deploy",
        api::OperationKind::Destroy => "destroy",
        api::OperationKind::Start => "start",
        api::OperationKind::Stop => "stop",
        api::OperationKind::Restart => "restart",
        api::OperationKind::Wipe => "wipe",
        api::OperationKind::Restore => "restore",
        api::OperationKind::Move => "move",
        api::OperationKind::Unspecified => "operation",
    }
}

/// A runtime, as users write it.
pub fn runtime(runtime: api::Runtime) -> &'static str {
    match runtime {
        api::Runtime::Docker => "docker",
        api::Runtime::Libvirt => "libvirt",
        api::Runtime::Bridge => "bridge",
        api::Runtime::Unspecified => "",
    }
}

fn bare(name: &'static str, prefix: &str) -> &'static str {
    name.strip_prefix(prefix).unwrap_or(name)
}

/// How a state's word is to be seen.
pub fn tone(state: &str) -> Tone {
    match state {
        "READY" | "UP" | "RUNNING" | "ONLINE" | "GONE" | "SUCCEEDED" => Tone::Good,
        "FAILED" | "UNSCHEDULABLE" | "DEGRADED" => Tone::Bad,
        "STOPPED" => Tone::Dim,
        "" => Tone::Plain,
        _ => Tone::Busy,
    }
}

/// The last part of a resource name: `r1` of `labs/x/nodes/r1`.
pub fn last(name: &str) -> &str {
    name.rsplit_once('/').map_or(name, |(_, last)| last)
}

/// The lab that a resource name belongs to: `x` of `labs/x/nodes/r1`.
pub fn lab_of(name: &str) -> &str {
    name.strip_prefix("labs/").and_then(|n| n.split('/').next()).unwrap_or_default()
}

/// "1 node", "2 nodes".
pub fn count(number: impl Into<i128>, word: &str) -> String {
    match number.into() {
        1 => format!("1 {word}"),
        n => format!("{n} {word}s"),
    }
}

/// What names are sorted by so that n2 comes before n10: each run of text with the number behind it.
pub fn natural(name: &str) -> Vec<(String, u64)> {
    let mut key = Vec::new();
    let mut rest = name;
    while !rest.is_empty() {
        let (text, tail) = rest.split_at(rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len()));
        let (digits, next) = tail.split_at(tail.find(|c: char| !c.is_ascii_digit()).unwrap_or(tail.len()));
        // Only a number that is too large, or none, does not parse.
        let number = if digits.is_empty() { 0 } else { digits.parse().unwrap_or(u64::MAX) };
        key.push((text.to_owned(), number));
        rest = next;
    }
    key
}

/// Thousandths of a core, for people.
pub fn cores(millis: i64) -> String {
    let text = format!("{:.2}", millis as f64 / 1_000.0);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Bytes, for people.
pub fn bytes(bytes: i64) -> String {
    netloom_model::human::bytes(u64::try_from(bytes).unwrap_or_default())
}

/// What a direction of a link does to frames; empty when nothing.
fn impairment(impairment: Option<api::Impairment>) -> String {
    let i = impairment.unwrap_or_default();
    let (rate_bps, delay_us, jitter_us) = (i.rate_bps, i.delay_us, i.jitter_us);
    let (loss_ppm, corrupt_ppm) = (i.loss_ppm, i.corrupt_ppm);
    let (duplicate_ppm, reorder_ppm) = (i.duplicate_ppm, i.reorder_ppm);
    Impairment { rate_bps, delay_us, jitter_us, loss_ppm, corrupt_ppm, duplicate_ppm, reorder_ppm }
        .to_string()
}

/// What a link does to frames from its end a to b, and back; empty when nothing.
pub fn ways(link: &api::Link) -> (String, String) {
    (impairment(link.a_to_b), impairment(link.b_to_a))
}

/// What carries a link, and the word for why; empty while that is not known.
pub fn plane(link: &api::Link) -> String {
    match (link.plane.as_str(), link.plane_reason.split(':').next().unwrap_or_default()) {
        ("", _) => String::new(),
        (plane, "") => plane.to_owned(),
        (plane, why) => format!("{plane} ({why})"),
    }
}

/// What a link does to frames, both ways or each; empty when nothing.
pub fn impairments(link: &api::Link) -> String {
    let (there, back) = ways(link);
    both_ways(("A", "B"), &there, &back)
}

/// What happens to frames between two ends, both ways or each; empty when nothing.
pub fn both_ways((a, b): (&str, &str), there: &str, back: &str) -> String {
    match (there, back) {
        (there, back) if there == back => there.to_owned(),
        (there, "") => format!("{a} to {b} {there}"),
        ("", back) => format!("{b} to {a} {back}"),
        (there, back) => format!("{a} to {b} {there}, {b} to {a} {back}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_impairment_is_told_by_its_direction() {
        let one =
            api::Impairment { rate_bps: 10_000_000, delay_us: 1_500, loss_ppm: 2_500, ..Default::default() };
        let link = |a_to_b, b_to_a| impairments(&api::Link { a_to_b, b_to_a, ..api::Link::default() });
        let words = "rate 10mbit delay 1500us loss 0.25%";
        assert_eq!(link(Some(one), Some(one)), words);
        assert_eq!(link(Some(one), None), format!("A to B {words}"));
        assert_eq!(link(Some(api::Impairment::default()), Some(one)), format!("B to A {words}"));
        assert_eq!(link(None, Some(api::Impairment::default())), "");
        let two = api::Impairment { jitter_us: 2_000_000, ..Default::default() };
        assert_eq!(link(Some(one), Some(two)), format!("A to B {words}, B to A jitter 2s"));
    }

    #[test]
    fn figures_are_for_people() {
        assert_eq!((cores(1_500), cores(2_000), cores(50)), ("1.5".into(), "2".into(), "0.05".into()));
        assert_eq!(
            (bytes(0), bytes(1_023), bytes(64 << 20)),
            ("0 B".into(), "1023 B".into(), "64.0 MiB".into())
        );
    }

    #[test]
    fn numbers_in_names_count_as_numbers() {
        let mut names = ["n10", "n2", "a", "n2-b", "n99999999999999999999", "7", "n"];
        names.sort_by_cached_key(|n| natural(n));
        assert_eq!(names, ["7", "a", "n", "n2", "n2-b", "n10", "n99999999999999999999"]);
        assert_eq!((count(1, "node"), count(0, "link")), ("1 node".into(), "0 links".into()));
    }

    #[test]
    fn every_state_has_a_word_without_its_prefix() {
        assert_eq!(node_state(api::NodeState::Ready), "READY");
        assert_eq!(link_state(api::LinkState::Up), "UP");
        assert_eq!(lab_state(api::LabState::Running), "RUNNING");
        assert_eq!(host_state(api::HostState::Online), "ONLINE");
    }
}
