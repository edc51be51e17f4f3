//! Why something is done, in words: the fields that differ, old → new where that is short.
//!
//! What a map or a list holds may be a secret or long: of those only what was added, changed or removed is named.

use netloom_model::id::LabId;
use netloom_model::plan::{Object, Plan, Verb};
use netloom_model::slice::mounted_files;
use netloom_model::spec::{BindSource, Endpoint, FileEntry, Impairment, LabSpec, LinkSpec, NodeSpec, Plane};
use netloom_model::state::Runtime;
use serde_json::{Map, Value};

use crate::rows::network_of;

/// Said of what a virtual machine is told at its start alone.
pub const FROM_NEXT_START: &str = "which a virtual machine has from its next start on (netloom node restart)";

/// Longest value that is shown.
const SHOWN: usize = 60;

/// The fields of a node that differ, which is changed as it runs. What commands of `exec` did before is not undone by their leaving.
pub fn node_change(old: &NodeSpec, new: &NodeSpec) -> String {
    let mut changed = changed(&fields(old), &fields(new));
    for (_, text) in changed.iter_mut().filter(|(field, _)| field == "exec") {
        let has_new = new.exec.iter().any(|command| !old.exec.contains(command));
        text.push_str(match (has_new, old.exec.is_empty()) {
            (true, true) => "",
            (true, false) => " (new commands run now, what earlier ones did stays)",
            (false, _) => " (what earlier commands did stays)",
        });
    }
    for (_, text) in changed.iter_mut().filter(|(field, _)| field == "placement") {
        text.push_str(" (it stays where it is)");
    }
    told(&changed)
}

/// True when it may use more, or less, than before.
pub fn has_other_limits(old: &NodeSpec, new: &NodeSpec) -> bool {
    let limits = |n: &NodeSpec| (n.cpu_limit_millis, n.memory_limit_bytes, n.cpu_set.clone());
    limits(old) != limits(new)
}

/// What a change of a link says to a virtual machine at its end, which reads it when it starts; none where it says nothing.
pub fn read_at_start(old: &LinkSpec, new: &LinkSpec, is_machine: impl Fn(&str) -> bool) -> Option<String> {
    let told = |end: &Endpoint| (end.mac.clone(), addresses(end));
    let mtu = old.effective_mtu() != new.effective_mtu();
    let ends = [(&old.a, &new.a), (&old.b, &new.b)].into_iter();
    let changed = ends.filter(|(was, is)| is_machine(&is.node) && (mtu || told(was) != told(is)));
    let nodes: Vec<&str> = changed.map(|(_, is)| is.node.as_str()).collect();
    (!nodes.is_empty()).then(|| format!("{FROM_NEXT_START}: {}", nodes.join(", ")))
}

/// Why a node is made anew: the fields that its container cannot change while it lives, by the hash that says so, then the others.
pub fn recreation(old: &NodeSpec, new: &NodeSpec, hash: impl Fn(&NodeSpec) -> String) -> String {
    let (before, after) = (fields(old), fields(new));
    let was = hash(old);
    let forces = |(field, _): &(String, String)| {
        let mut one = before.clone();
        match after.get(field) {
            Some(value) => one.insert(field.clone(), value.clone()),
            None => one.remove(field),
        };
        serde_json::from_value(Value::Object(one)).is_ok_and(|spec: NodeSpec| hash(&spec) != was)
    };
    let (forcing, others): (Vec<_>, Vec<_>) = changed(&before, &after).into_iter().partition(forces);
    match (told(&forcing), told(&others)) {
        (forcing, others) if others.is_empty() => forcing,
        (forcing, others) if forcing.is_empty() => others,
        (forcing, others) => format!("{forcing}; beside it {others}"),
    }
}

/// What differs around a node: its container's name, the lab's network, and what is mounted from where it was.
pub fn surroundings(lab: &LabId, old: (&LabSpec, &NodeSpec), new: (&LabSpec, &NodeSpec)) -> String {
    let mut all = Vec::new();
    let name = |(spec, node): (&LabSpec, &NodeSpec)| spec.instance_name(lab, &node.id);
    if name(old) != name(new) {
        all.push(format!("name {} → {}", name(old), name(new)));
    }
    if network_of(lab, old.0) != network_of(lab, new.0) {
        all.push("the management network changed".to_owned());
    }
    let (had, has) = (old.0.files_of(old.1), new.0.files_of(new.1));
    let (had, has) = (mounted_files(old.1, &had), mounted_files(new.1, &has));
    for (path, _) in bundled(old.1) {
        let stays = bundled(new.1).any(|(p, _)| p == path);
        match (had.contains(&path), has.contains(&path)) {
            (true, false) if stays => all.push(format!("{path} is a directory now")),
            (false, true) if stays => all.push(format!("{path} is a file now")),
            _ => {}
        }
    }
    all.join(", ")
}

/// The paths of a node's binds that are files or directories of the lab, and where they are mounted.
fn bundled(node: &NodeSpec) -> impl Iterator<Item = (&str, &str)> {
    node.binds.iter().filter_map(|bind| match &bind.source {
        BindSource::Bundle(path) => Some((path.as_str(), bind.target.as_str())),
        BindSource::Host(_) => None,
    })
}

/// What becomes of the files that a node mounts, and goes on mounting: they are written over where they are, or go. A node that is made anew reads them at its start, and so does a virtual machine.
pub fn contents(
    old: (&[FileEntry], &NodeSpec),
    new: (&LabSpec, &NodeSpec),
    runtime: Runtime,
    anew: bool,
) -> Vec<String> {
    let (had, has) = (old.0, new.0.files_of(new.1));
    if had == has {
        return Vec::new();
    }
    let goes_on = |path: &str, target: &str| bundled(old.1).any(|b| b == (path, target));
    let told = |(path, target): (&str, &str)| {
        let change = change_of(path, had, &has)?;
        let writable = new.1.binds.iter().any(|b| b.target == target && !b.read_only);
        let own =
            if writable && change.overwrites { ", and what it changed in it itself is lost" } else { "" };
        let is_configuration = path == new.1.startup_config;
        let (bind, what) = (format!("bind {target}"), change.told);
        Some(match (anew, is_configuration, runtime) {
            (true, ..) => format!("{bind}: {what}{own}"),
            (false, true, _) => format!("startup-config: {what}; the node reads it when it next starts{own}"),
            (false, false, Runtime::Libvirt) => {
                format!("{bind}: {what}; the node is given it when it next starts{own}")
            }
            (false, false, _) => {
                format!("{bind}: {what}, in place; the node reads it when it next does{own}")
            }
        })
    };
    let mut all: Vec<String> =
        bundled(new.1).filter(|(path, target)| goes_on(path, target)).filter_map(told).collect();
    // A virtual machine mounts nothing: it is told at its start.
    let config = new.1.startup_config.as_str();
    if !config.is_empty() && config == old.1.startup_config && bundled(new.1).all(|(path, _)| path != config)
    {
        let when = if anew { "" } else { "; the node reads it when it next starts" };
        all.extend(
            change_of(config, had, &has).map(|change| format!("startup-config: {}{when}", change.told)),
        );
    }
    all
}

/// What becomes of what is mounted from a path.
struct Change {
    told: String,
    /// True when it may be written over what the node did to it.
    overwrites: bool,
}

fn change_of(path: &str, had: &[FileEntry], has: &[FileEntry]) -> Option<Change> {
    let find = |all: &[FileEntry], path: &str| all.iter().find(|f| f.path == path).cloned();
    if let Some(file) = find(has, path) {
        let was = find(had, path).filter(|was| was.digest == file.digest);
        return match was {
            None => Some(Change { told: "content changes".to_owned(), overwrites: true }),
            Some(was) if was.mode != file.mode => {
                Some(Change { told: format!("mode {:o} → {:o}", was.mode, file.mode), overwrites: false })
            }
            Some(_) => None,
        };
    }
    let below = |file: &FileEntry| Some(file.path.strip_prefix(path)?.strip_prefix('/')?.to_owned());
    let names = |of: &[FileEntry], others: &[FileEntry], same: fn(&FileEntry, &FileEntry) -> bool| {
        let differs = |f: &&FileEntry| others.iter().all(|o| !same(f, o));
        of.iter().filter(differs).filter_map(below).collect::<Vec<_>>()
    };
    let changed = names(has, had, |a, b| a == b);
    let gone = names(had, has, |a, b| a.path == b.path);
    let told = |names: &[String], one: &str, many: &str| match names {
        [] => None,
        [name] => Some(format!("{name} {one}")),
        [first, rest @ ..] => Some(format!("{first} and {} more {many}", rest.len())),
    };
    let all = [told(&changed, "changes", "change"), told(&gone, "goes", "go")];
    let all: Vec<String> = all.into_iter().flatten().collect();
    (!all.is_empty()).then(|| Change { told: all.join(", "), overwrites: true })
}

/// Says of what is removed because a filter left its node out that this is why.
pub fn tell_left_out(plan: &mut Plan, left_out: &[String]) {
    const WHY: &str = "the node filter leaves it out";
    let is_left_out = |node: &str| left_out.iter().any(|l| l.eq_ignore_ascii_case(node));
    for action in plan.actions.iter_mut().filter(|a| a.verb == Verb::Delete) {
        match action.object {
            Object::Node if is_left_out(&action.id) => WHY.clone_into(&mut action.reason),
            Object::Node => {}
            Object::Link => {
                let nodes = action.id.split("--").filter_map(|end| end.split(':').next());
                if let Some(node) = nodes.into_iter().find(|node| is_left_out(node)) {
                    action.reason = format!("the node filter leaves {node} out");
                }
            }
        }
    }
}

/// The fields of a link that differ. Both have the same ends in the same order.
pub fn link_change(old: &LinkSpec, new: &LinkSpec) -> String {
    let mut all = Vec::new();
    let (mtu, next) = (old.effective_mtu(), new.effective_mtu());
    if mtu != next {
        all.push(format!("mtu {mtu} → {next}"));
    }
    for (was, is) in [(&old.a, &new.a), (&old.b, &new.b)] {
        if was.mac != is.mac {
            all.push(format!("mac of {is} {} → {}", or(&was.mac, "made"), or(&is.mac, "made")));
        }
        let (had, has) = (addresses(was).join(" "), addresses(is).join(" "));
        if had != has {
            all.push(format!("addresses of {is} {} → {}", or(&had, "none"), or(&has, "none")));
        }
    }
    for (from, to, was, is) in
        [(&new.a, &new.b, old.a_to_b, new.a_to_b), (&new.b, &new.a, old.b_to_a, new.b_to_a)]
    {
        if was != is {
            all.push(format!("{from} to {to} {} → {}", impairment(&was), impairment(&is)));
        }
    }
    if old.labels != new.labels {
        all.push("labels changed".to_owned());
    }
    all.join(", ")
}

/// What a lab says of what carries its links, when that changed.
pub fn plane_change(former: &LabSpec, spec: &LabSpec) -> Option<String> {
    let word = |plane: Option<Plane>| plane.map_or("the host's", Plane::as_str);
    (former.plane != spec.plane).then(|| format!("plane {} → {}", word(former.plane), word(spec.plane)))
}

/// What a direction does to frames, in words.
fn impairment(impairment: &Impairment) -> String {
    or(&impairment.to_string(), "unimpaired").to_owned()
}

/// The addresses of an end, IPv4 first.
pub fn addresses(end: &Endpoint) -> Vec<String> {
    [&end.ipv4, &end.ipv6].into_iter().filter(|a| !a.is_empty()).cloned().collect()
}

fn or<'t>(text: &'t str, otherwise: &'t str) -> &'t str {
    if text.is_empty() { otherwise } else { text }
}

fn told(changed: &[(String, String)]) -> String {
    changed.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>().join(", ")
}

fn fields(spec: &NodeSpec) -> Map<String, Value> {
    match serde_json::to_value(spec) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    }
}

/// Each field that differs, with its words.
fn changed(old: &Map<String, Value>, new: &Map<String, Value>) -> Vec<(String, String)> {
    let mut names: Vec<&String> = old.keys().chain(new.keys()).collect();
    names.sort();
    names.dedup();
    let differs = names.into_iter().filter(|name| old.get(*name) != new.get(*name));
    differs.map(|name| (name.clone(), words(name, old.get(name), new.get(name)))).collect()
}

fn words(field: &str, old: Option<&Value>, new: Option<&Value>) -> String {
    let name = match field {
        "cpu_limit_millis" => "cpu".to_owned(),
        "memory_limit_bytes" => "memory".to_owned(),
        "cpu_request_millis" => "cpu-request".to_owned(),
        "memory_request_bytes" => "memory-request".to_owned(),
        "disk_request_bytes" => "disk".to_owned(),
        "shm_size_bytes" => "shm-size".to_owned(),
        other => other.replace('_', "-"),
    };
    let empty = Map::new();
    let map = |value: Option<&'_ Value>| value.and_then(Value::as_object).cloned();
    match (short(field, old), short(field, new)) {
        (Some(old), Some(new)) => format!("{name} {old} → {new}"),
        _ if field == "cmd" || field == "entrypoint" => format!("{name} {} → {}", command(old), command(new)),
        _ => match (map(old), map(new)) {
            (None, None) => format!("{name} changed"),
            (old, new) => {
                let keys = entries(old.as_ref().unwrap_or(&empty), new.as_ref().unwrap_or(&empty));
                if keys.len() > SHOWN { format!("{name} changed") } else { format!("{name} {keys}") }
            }
        },
    }
}

/// The keys of a map that were added, changed and removed.
fn entries(old: &Map<String, Value>, new: &Map<String, Value>) -> String {
    let mut all = Vec::new();
    for (key, value) in new {
        match old.get(key) {
            None => all.push(format!("+{key}")),
            Some(was) if was != value => all.push(format!("~{key}")),
            Some(_) => {}
        }
    }
    all.extend(old.keys().filter(|key| !new.contains_key(*key)).map(|key| format!("-{key}")));
    all.join(" ")
}

/// A command as people write it, its beginning when it is long.
fn command(value: Option<&Value>) -> String {
    let words = value.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let is_plain =
        |word: &str| !word.is_empty() && !word.contains(|c: char| c.is_whitespace() || "'\"\\$`".contains(c));
    let quoted = |word: &str| {
        if is_plain(word) { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
    };
    let text = words.map(quoted).collect::<Vec<_>>().join(" ");
    match text.chars().count() {
        0 => "none".to_owned(),
        n if n <= SHOWN => text,
        _ => text.chars().take(SHOWN - 1).chain(['…']).collect(),
    }
}

/// A size as people write it.
fn size(bytes: u64) -> String {
    const UNITS: [(u64, &str); 6] = [
        (1 << 30, "GiB"),
        (1_000_000_000, "gb"),
        (1 << 20, "MiB"),
        (1_000_000, "mb"),
        (1 << 10, "KiB"),
        (1_000, "kb"),
    ];
    let fits = UNITS.into_iter().find(|(unit, _)| bytes.is_multiple_of(*unit));
    fits.map_or_else(|| bytes.to_string(), |(unit, name)| format!("{}{name}", bytes / unit))
}

/// A value that is short enough to be shown.
fn short(field: &str, value: Option<&Value>) -> Option<String> {
    let text = match value {
        None | Some(Value::Null) => "none".to_owned(),
        Some(Value::Number(n)) => match n.as_u64() {
            Some(0) => "none".to_owned(),
            Some(n) if field.ends_with("_millis") => (n as f64 / 1_000.0).to_string(),
            Some(n) if field.ends_with("_bytes") => size(n),
            _ => n.to_string(),
        },
        Some(Value::Bool(b)) => b.to_string(),
        Some(Value::String(s)) => or(s, "none").to_owned(),
        Some(Value::Array(_) | Value::Object(_)) => return None,
    };
    (text.chars().count() <= SHOWN && !text.contains('\n')).then_some(text)
}

#[cfg(test)]
mod tests {
    use netloom_model::slice::spec_hash;

    use super::*;

    #[test]
    fn fields_are_named_old_and_new_and_no_secret_is_told() {
        let old =
            NodeSpec { image: "a".into(), env: [("P".into(), "x".into())].into(), ..NodeSpec::default() };
        let new = NodeSpec {
            image: "b".into(),
            env: [("P".into(), "secret".into()), ("Q".into(), String::new())].into(),
            cpu_limit_millis: 500,
            memory_limit_bytes: 128_000_000,
            shm_size_bytes: 1 << 30,
            cmd: ["sh", "-c", "sleep 1; it's"].map(String::from).into(),
            exec: vec!["x".into()],
            user: "frr".into(),
            ..NodeSpec::default()
        };
        assert_eq!(
            node_change(&old, &new),
            "cmd none → sh -c 'sleep 1; it'\\''s', cpu none → 0.5, env ~P +Q, exec changed, image a → b, memory none → 128mb, \
             shm-size none → 1GiB, user none → frr"
        );
        let hash = |spec: &NodeSpec| spec_hash("n", spec, &[], None);
        let only = NodeSpec { image: "b".into(), exec: vec!["x".into()], ..old.clone() };
        assert_eq!(recreation(&old, &only, hash), "image a → b; beside it exec changed");
    }

    #[test]
    fn changed_contents_are_told_by_where_they_are_mounted() {
        use netloom_model::id::Digest;
        use netloom_model::spec::Bind;
        let bind = |path: &str, target: &str| Bind {
            source: BindSource::Bundle(path.into()),
            target: target.into(),
            // A node cannot lose what it cannot change.
            read_only: path == "d",
        };
        let binds = vec![bind("a", "/etc/a"), bind("d", "/etc/d"), bind("s.cfg", "/config")];
        let node = NodeSpec { id: "n".into(), binds, startup_config: "s.cfg".into(), ..NodeSpec::default() };
        let files = |contents: &[(&str, &str)]| LabSpec {
            files: contents
                .iter()
                .map(|(path, content)| FileEntry {
                    path: (*path).into(),
                    digest: Digest::of(content.as_bytes()),
                    size_bytes: 1,
                    mode: 0o644,
                })
                .collect(),
            ..LabSpec::default()
        };
        let old = files(&[("a", "1"), ("d/x", "1"), ("d/y", "1"), ("s.cfg", "1"), ("other", "1")]);
        let told =
            |new: &LabSpec| contents((&old.files_of(&node), &node), (new, &node), Runtime::Docker, false);
        assert_eq!(told(&old), Vec::<String>::new());
        assert_eq!(
            told(&LabSpec {
                files: files(&[("a", "1"), ("d/x", "1"), ("d/y", "1"), ("s.cfg", "1"), ("other", "2")]).files,
                ..old.clone()
            }),
            Vec::<String>::new()
        );
        let new = files(&[("a", "2"), ("d/x", "2"), ("d/z", "1"), ("d/y", "1"), ("s.cfg", "2")]);
        assert_eq!(
            told(&new),
            [
                "bind /etc/a: content changes, in place; the node reads it when it next does, and what it changed in it itself is lost",
                "bind /etc/d: x and 1 more change, in place; the node reads it when it next does",
                "startup-config: content changes; the node reads it when it next starts, and what it changed in it itself is lost",
            ]
        );
        let made_anew = contents((&old.files_of(&node), &node), (&new, &node), Runtime::Docker, true);
        assert_eq!(made_anew[0], "bind /etc/a: content changes, and what it changed in it itself is lost");
        let mut fewer = files(&[("a", "1"), ("d/y", "2"), ("s.cfg", "1")]);
        fewer.files[0].mode = 0o755;
        assert_eq!(
            told(&fewer),
            [
                "bind /etc/a: mode 644 → 755, in place; the node reads it when it next does",
                "bind /etc/d: y changes, x goes, in place; the node reads it when it next does",
            ]
        );
        let machine = NodeSpec { binds: node.binds[..1].to_vec(), ..node.clone() };
        let told = contents((&old.files_of(&machine), &machine), (&new, &machine), Runtime::Libvirt, false);
        assert_eq!(
            told,
            [
                "bind /etc/a: content changes; the node is given it when it next starts, and what it changed in it itself is lost",
                "startup-config: content changes; the node reads it when it next starts",
            ]
        );
        let lab: LabId = "l".parse().unwrap();
        let shape = files(&[("a/b", "1"), ("d/x", "1"), ("s.cfg", "1")]);
        assert_eq!(surroundings(&lab, (&old, &node), (&shape, &node)), "a is a directory now");
    }

    #[test]
    fn what_a_filter_leaves_out_is_told_apart_from_what_the_file_does_not_have() {
        let delete = |object, id: &str| netloom_model::plan::Action {
            verb: Verb::Delete,
            object,
            id: id.into(),
            reason: "it is not in the spec".into(),
            host: String::new(),
        };
        let mut plan = Plan {
            actions: vec![
                delete(Object::Node, "r3"),
                delete(Object::Node, "old"),
                delete(Object::Link, "r1:eth1--r3:eth1"),
                delete(Object::Link, "old:eth1--r1:eth2"),
            ],
            ..Plan::default()
        };
        tell_left_out(&mut plan, &["R3".into()]);
        let why: Vec<&str> = plan.actions.iter().map(|a| a.reason.as_str()).collect();
        let not = "it is not in the spec";
        assert_eq!(why, ["the node filter leaves it out", not, "the node filter leaves r3 out", not]);
    }

    #[test]
    fn a_change_of_exec_says_that_what_was_done_stays() {
        let with = |exec: &[&str]| NodeSpec {
            exec: exec.iter().map(|c| (*c).to_owned()).collect(),
            ..NodeSpec::default()
        };
        for (old, new, told) in [
            (&[][..], &["b"][..], "exec changed"),
            (&["a"], &["a", "b"], "exec changed (new commands run now, what earlier ones did stays)"),
            (&["a", "b"], &["a"], "exec changed (what earlier commands did stays)"),
        ] {
            assert_eq!(node_change(&with(old), &with(new)), told);
        }
    }

    #[test]
    fn a_links_change_is_told_by_its_ends() {
        let end =
            |node: &str| Endpoint { node: node.into(), interface: "eth1".into(), ..Endpoint::default() };
        let old = LinkSpec { a: end("r1"), b: end("r2"), ..LinkSpec::default() };
        let mut new = LinkSpec { mtu: 1_500, ..old.clone() };
        new.b.ipv4 = "10.0.0.2/24".into();
        new.b_to_a =
            Impairment { rate_bps: 10_000_000, delay_us: 1_500, loss_ppm: 2_500, ..Impairment::default() };
        assert_eq!(
            link_change(&old, &new),
            "mtu 9500 → 1500, addresses of r2:eth1 none → 10.0.0.2/24, \
             r2:eth1 to r1:eth1 unimpaired → rate 10mbit delay 1500us loss 0.25%"
        );
        assert_eq!(link_change(&old, &LinkSpec { mtu: 9_500, ..old.clone() }), "");
        let told = |new: &LinkSpec| read_at_start(&old, new, |node| node == "r1");
        assert_eq!(told(&new).unwrap(), format!("{FROM_NEXT_START}: r1"), "its mtu");
        new.mtu = 0;
        assert_eq!(told(&new), None, "only r2 has other addresses");
    }
}
