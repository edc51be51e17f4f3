//! Which hosts a node may be on, as its owner and theirs say: pins, labels, taints. Pure.

use std::collections::BTreeMap;

use netloom_model::id::HostId;
use netloom_model::spec::Placement;

/// A rejection that only another file, or other labels, can help with.
pub const PINNED: &str = "HOST_NOT_NAMED";
/// The host has not the labels that the node asks for.
pub const LABELS: &str = "HOST_LABEL_MISSING";
/// The host has a taint that the node does not tolerate. Its owner may take that away, so the node waits.
const TAINTED: &str = "HOST_TAINTED";

/// Why a node may not be on a host with these labels and taints; none when it may.
pub fn unfit(
    placement: &Placement,
    host: &HostId,
    labels: &BTreeMap<String, String>,
    taints: &BTreeMap<String, String>,
) -> Option<(&'static str, String)> {
    if !placement.host.is_empty() && !placement.host.eq_ignore_ascii_case(host.as_str()) {
        return Some((PINNED, format!("the node is to be on {}", placement.host)));
    }
    let missing: Vec<String> = pairs(placement.labels.iter().filter(|(k, v)| labels.get(*k) != Some(*v)));
    if !missing.is_empty() {
        let has = match labels.is_empty() {
            true => "it has none".to_owned(),
            false => format!("it has {}", pairs(labels.iter()).join(", ")),
        };
        let (word, missing) = (if missing.len() == 1 { "label" } else { "labels" }, missing.join(", "));
        return Some((LABELS, format!("lacks the {word} {missing}; {has}")));
    }
    let kept_by: Vec<String> = pairs(taints.iter().filter(|(k, v)| !placement.tolerates(k, v)));
    if !kept_by.is_empty() {
        let word = if kept_by.len() == 1 { "taint" } else { "taints" };
        return Some((
            TAINTED,
            format!("has the {word} {}, which the node does not tolerate", kept_by.join(", ")),
        ));
    }
    None
}

fn pairs<'a>(all: impl Iterator<Item = (&'a String, &'a String)>) -> Vec<String> {
    all.map(|(key, value)| if value.is_empty() { key.clone() } else { format!("{key}={value}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_keeps_a_node_from_a_host_is_said() {
        let of = |all: &[(&str, &str)]| -> BTreeMap<String, String> {
            all.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
        };
        let host: HostId = "h1".parse().unwrap();
        let (labels, taints) = (of(&[("rack", "1")]), of(&[("gpu", "a100"), ("old", "")]));
        let said = |placement: &Placement| unfit(placement, &host, &labels, &taints);
        let all = Placement { tolerations: vec!["gpu=a100".into(), "old".into()], ..Placement::default() };
        assert_eq!(said(&all), None);
        assert_eq!(
            said(&Placement::default()),
            Some((
                "HOST_TAINTED",
                "has the taints gpu=a100, old, which the node does not tolerate".to_owned()
            ))
        );
        let rack = Placement { labels: of(&[("rack", "2")]), ..all.clone() };
        assert_eq!(
            said(&rack),
            Some(("HOST_LABEL_MISSING", "lacks the label rack=2; it has rack=1".to_owned()))
        );
        assert_eq!(said(&Placement { host: "H1".into(), ..all.clone() }), None, "case tells no hosts apart");
        let other = Placement { host: "h2".into(), ..all };
        assert_eq!(said(&other), Some(("HOST_NOT_NAMED", "the node is to be on h2".to_owned())));
    }
}
