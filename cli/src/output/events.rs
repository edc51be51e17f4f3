//! Events for people: a line for each, with what changed.

use std::collections::HashMap;
use std::fmt::Write as _;

use netloom_api::v1 as api;
use netloom_api::v1::watch_labs_response::Object;
use serde_json::Value;

use super::json;
use super::style::{Style, Tone, clip, one_line};
use super::words;

/// Longest value of a field that is shown, in characters.
const MAX_VALUE: usize = 60;
/// Fields that change with every change, or that the others follow from, or that are told otherwise.
const SILENT: [&str; 30] = [
    "updateTime",
    "observeTime",
    "createTime",
    "startTime",
    "etag",
    "state",
    "stateReason",
    "name",
    "uid",
    "plan",
    "progress",
    "spec",
    "diagnostics",
    "lab",
    "reconciling",
    "operation",
    "nodeCount",
    "runningCount",
    "readyCount",
    "failedCount",
    "unknownCount",
    "linkCount",
    "upLinkCount",
    "done",
    "endTime",
    "evidence",
    "carriedAToB",
    "carriedBToA",
    "generation",
    "imageDigest",
];

/// What was heard of each object last, to tell what is new.
#[derive(Default)]
pub struct Known {
    objects: HashMap<String, Value>,
}

/// An object in words: what it is, its name without `labs/`, and its state.
struct About {
    what: &'static str,
    name: String,
    state: &'static str,
    reason: String,
    value: Value,
}

fn about(object: &Object) -> About {
    let short = |name: &str| {
        let mut parts = name.split('/');
        let kept = [parts.next(), parts.next(), parts.next(), parts.next()];
        match kept {
            [_, Some(lab), _, Some(part)] => format!("{lab}/{part}"),
            [_, Some(one), ..] => one.to_owned(),
            _ => name.to_owned(),
        }
    };
    let (what, name, state, reason, value) = match object {
        Object::Lab(o) => {
            ("lab", short(&o.name), words::lab_state(o.state()), &o.state_reason, json::value("Lab", o))
        }
        Object::Node(o) => {
            ("node", short(&o.name), words::node_state(o.state()), &o.state_reason, json::value("Node", o))
        }
        Object::Link(o) => {
            let value = with_words(json::value("Link", o), o);
            ("link", short(&o.name), words::link_state(o.state()), &o.state_reason, value)
        }
        Object::Operation(o) => {
            let name = format!("{}/{}", words::last(&o.lab_name), words::operation_kind(o.kind()));
            let reason = o.error.as_ref().map_or(&NOTHING, |e| &e.message);
            ("op", name, words::operation_state(o.state()), reason, json::value("Operation", o))
        }
    };
    About { what, name, state, reason: reason.clone(), value }
}

/// A link whose impairments are words.
fn with_words(mut value: Value, link: &api::Link) -> Value {
    let (there, back) = words::ways(link);
    for (key, way) in [("aToB", there), ("bToA", back)] {
        let of = |end: &Option<api::Endpoint>| end.as_ref().map_or("", |e| e.node.as_str()).to_owned();
        let (a, b) = (of(&link.a), of(&link.b));
        let name = if key == "aToB" { format!("{a} to {b}") } else { format!("{b} to {a}") };
        if let Some(fields) = value.as_object_mut() {
            fields.remove(key);
            fields.insert(name, Value::String(if way.is_empty() { "unimpaired".to_owned() } else { way }));
        }
    }
    value
}

static NOTHING: String = String::new();

impl Known {
    /// Forgets everything: what follows is a new snapshot.
    pub fn clear(&mut self) {
        self.objects.clear();
    }

    /// The line of an event, with the time at which it was heard; none when nothing is to be seen.
    pub fn line(&mut self, style: Style, event: &api::WatchLabsResponse, time: &str) -> Option<String> {
        use api::WatchEventType as Type;
        let object = event.object.as_ref()?;
        let about = about(object);
        let key = about.value["uid"].as_str().filter(|u| !u.is_empty()).map_or_else(
            || format!("{} {}", about.what, about.value["name"]),
            |uid| format!("{} {uid}", about.what),
        );
        let state = style.paint(words::tone(about.state), about.state);
        let change = match event.r#type() {
            Type::Deleted => {
                self.objects.remove(&key);
                style.paint(Tone::Strong, "gone")
            }
            Type::Snapshot => {
                self.objects.insert(key, about.value);
                with_reason(state, &about.reason)
            }
            _ => match self.objects.insert(key, about.value.clone()) {
                None => with_reason(state, &about.reason),
                Some(before) => changes(style, &before, &about, &state)?,
            },
        };
        let place = format!("{:4} {}", about.what, one_line(&about.name));
        Some(format!("{time}  {:>6}  {place:32}  {change}", event.sequence))
    }
}

fn with_reason(state: String, reason: &str) -> String {
    if reason.is_empty() { state } else { format!("{state}: {}", one_line(reason)) }
}

/// What is another than before; none when only times are.
fn changes(style: Style, before: &Value, now: &About, state: &str) -> Option<String> {
    let was = before["state"].as_str().unwrap_or_default();
    let was = was.find("STATE_").map_or(was, |at| &was[at + "STATE_".len()..]);
    let mut parts: Vec<String> = Vec::new();
    if was != now.state {
        parts.push(with_reason(format!("{} → {state}", style.paint(words::tone(was), was)), &now.reason));
    } else if before["stateReason"] != now.value["stateReason"] {
        parts.push(with_reason(state.to_owned(), &now.reason));
    }
    if let (Some(fields), Some(old)) = (now.value.as_object(), before.as_object()) {
        let mut names: Vec<&String> =
            fields.keys().chain(old.keys().filter(|k| !fields.contains_key(*k))).collect();
        names.retain(|n| !SILENT.contains(&n.as_str()) && fields.get(*n) != old.get(*n));
        for name in names {
            let (old, new) = (&before[name], &now.value[name]);
            parts.push(match name.as_str() {
                "interfaces" => interfaces(old, new),
                _ => format!("{name} {} → {}", short(old), short(new)),
            });
        }
    }
    if now.what == "lab" {
        parts.extend(counts(before, &now.value));
    }
    if now.what == "op" && parts.is_empty() {
        parts.push(progress(before, &now.value)?);
    }
    parts.retain(|p| !p.is_empty());
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// How much of a lab is as it is wanted, when that changed.
fn counts(before: &Value, now: &Value) -> Option<String> {
    let of = |v: &Value| {
        let [ready, nodes, up, links] =
            ["readyCount", "nodeCount", "upLinkCount", "linkCount"].map(|k| v[k].clone());
        format!("{ready}/{nodes} nodes ready, {up}/{links} links up")
    };
    (of(before) != of(now)).then(|| of(now))
}

/// Which interfaces changed, and how.
fn interfaces(before: &Value, now: &Value) -> String {
    let empty = Vec::new();
    let list = |v: &Value| -> Vec<Value> { v.as_array().unwrap_or(&empty).clone() };
    let (before, now) = (list(before), list(now));
    let mut said: Vec<String> = Vec::new();
    for interface in &now {
        let name = interface["name"].as_str().unwrap_or_default();
        let Some(old) = before.iter().find(|i| i["name"] == interface["name"]) else {
            said.push(format!("{name} added"));
            continue;
        };
        if old == interface {
            continue;
        }
        let is = |v: &Value, key: &str| v[key].as_bool().unwrap_or(false);
        let mut text = format!("{name} ");
        if is(old, "present") != is(interface, "present") {
            text.push_str(if is(interface, "present") { "present " } else { "not present " });
        }
        if is(old, "carrier") != is(interface, "carrier") {
            text.push_str(if is(interface, "carrier") { "carrier" } else { "no carrier" });
        }
        if text.trim() == name {
            text.push_str("changed");
        }
        said.push(text.trim_end().to_owned());
    }
    let gone = before.iter().filter(|o| now.iter().all(|i| i["name"] != o["name"]));
    said.extend(gone.map(|o| format!("{} removed", o["name"].as_str().unwrap_or_default())));
    said.join(", ")
}

/// How far an operation is, when that changed.
fn progress(before: &Value, now: &Value) -> Option<String> {
    if before["progress"] == now["progress"] {
        return None;
    }
    let all = now["progress"].as_array()?;
    let done =
        all.iter().filter(|p| ["READY", "UP", "GONE", "STOPPED"].iter().any(|s| p["state"] == *s)).count();
    Some(format!("{done} of {} done", all.len()))
}

fn short(value: &Value) -> String {
    let mut text = String::new();
    match value {
        Value::Null => text.push('-'),
        Value::String(s) if s.is_empty() => text.push('-'),
        Value::String(s) => text.push_str(s),
        Value::Array(all) => text.push_str(&all.iter().map(short).collect::<Vec<_>>().join(" ")),
        Value::Object(fields) => {
            let is_set = |v: &&Value| !matches!(v, Value::Null) && *v != "" && *v != 0 && *v != false;
            let set = fields.iter().filter(|(_, v)| is_set(v)).map(|(k, v)| format!("{k}={}", short(v)));
            text.push_str(&set.collect::<Vec<_>>().join(" "));
        }
        other => {
            let _ = write!(text, "{other}");
        }
    }
    if text.is_empty() {
        text.push('-');
    }
    clip(&one_line(&text), MAX_VALUE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: api::WatchEventType, sequence: u64, node: api::Node) -> api::WatchLabsResponse {
        let object = Some(Object::Node(node));
        api::WatchLabsResponse { sequence, r#type: kind.into(), object, ..Default::default() }
    }

    fn node(state: api::NodeState) -> api::Node {
        api::Node {
            name: "labs/x/nodes/r1".into(),
            uid: "u".into(),
            state: state.into(),
            ..api::Node::default()
        }
    }

    #[test]
    fn a_line_says_what_is_new() {
        use api::WatchEventType::{Changed, Deleted, Snapshot};
        let mut known = Known::default();
        let mut line = |event| known.line(Style::PLAIN, &event, "T");
        assert_eq!(
            line(event(Snapshot, 7, node(api::NodeState::Starting))).unwrap(),
            "T       7  node x/r1                         STARTING"
        );
        let running = api::Node { state_reason: "waits for eth1".into(), ..node(api::NodeState::Running) };
        let said = line(event(Changed, 8, running.clone())).unwrap();
        assert!(said.ends_with("STARTING → RUNNING: waits for eth1"), "{said}");
        let interface =
            |carrier| api::Interface { name: "eth1".into(), present: true, carrier, ..Default::default() };
        let with = |carrier| api::Node { interfaces: vec![interface(carrier)], ..running.clone() };
        assert!(line(event(Changed, 9, with(false))).unwrap().ends_with("  eth1 added"));
        assert!(line(event(Changed, 10, with(true))).unwrap().ends_with("  eth1 carrier"));
        let later = api::Node { restart_count: 2, ..with(true) };
        assert!(line(event(Changed, 11, later.clone())).unwrap().ends_with("  restartCount 0 → 2"));
        assert_eq!(line(event(Changed, 12, later.clone())), None, "nothing is new");
        assert!(line(event(Deleted, 13, later)).unwrap().ends_with("node x/r1                         gone"));
        assert!(line(event(Changed, 14, node(api::NodeState::Pending))).unwrap().ends_with("PENDING"));
    }

    /// Values were told as the JSON that programs get, cut off where it began to differ.
    #[test]
    fn values_are_words() {
        let link = |rate_bps, ports: &[&str]| api::Link {
            name: "labs/x/links/l".into(),
            a: Some(api::Endpoint { node: "r1".into(), ..Default::default() }),
            b: Some(api::Endpoint { node: "r2".into(), ..Default::default() }),
            a_to_b: Some(api::Impairment { rate_bps, ..Default::default() }),
            evidence: vec![ports.len() as i32],
            ..Default::default()
        };
        let mut known = Known::default();
        let mut line = |object| {
            let event = api::WatchLabsResponse {
                sequence: 1,
                r#type: api::WatchEventType::Changed.into(),
                object: Some(object),
                ..Default::default()
            };
            known.line(Style::PLAIN, &event, "T")
        };
        line(Object::Link(link(0, &[])));
        let said = line(Object::Link(link(10_000_000, &[]))).unwrap();
        assert!(said.ends_with("  r1 to r2 unimpaired → rate 10mbit"), "{said}");
        assert_eq!(line(Object::Link(link(10_000_000, &["x"]))), None, "what it was read from is no news");
        let labelled = |labels: &[(&str, &str)]| {
            let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            Object::Node(api::Node { labels, ..node(api::NodeState::Ready) })
        };
        line(labelled(&[]));
        let said = line(labelled(&[("site", "a"), ("tier", "1")])).unwrap();
        assert!(said.ends_with("  labels - → site=a tier=1"), "{said}");
    }

    #[test]
    fn an_operation_says_how_far_it_is() {
        let op = |states: &[&str]| api::Operation {
            name: "operations/1".into(),
            lab_name: "labs/x".into(),
            kind: api::OperationKind::Deploy.into(),
            state: api::OperationState::Running.into(),
            progress: states
                .iter()
                .map(|s| api::Progress { state: (*s).into(), ..api::Progress::default() })
                .collect(),
            ..api::Operation::default()
        };
        let mut known = Known::default();
        let mut line = |op| {
            let event = api::WatchLabsResponse {
                sequence: 1,
                r#type: api::WatchEventType::Changed.into(),
                object: Some(Object::Operation(op)),
                ..Default::default()
            };
            known.line(Style::PLAIN, &event, "T")
        };
        assert!(line(op(&["PENDING"])).unwrap().ends_with("op   x/deploy                     RUNNING"));
        assert!(line(op(&["READY", "CREATING"])).unwrap().ends_with("1 of 2 done"));
    }
}
