//! Tables for people: columns without borders, so that they can be cut and searched as well.

use comfy_table::{Cell, Color, ContentArrangement, Table, presets};
use netloom_api::v1 as api;

use super::style::{Style, Tone, clip, one_line};
use super::words::{self, bytes, cores, last, natural};

/// Longest reason that is shown among other things, in characters.
pub const MAX_REASON: usize = 80;

/// A table with this header.
pub(super) struct Columns {
    table: Table,
    style: Style,
}

impl Columns {
    pub(super) fn new(style: Style, header: &[&str]) -> Columns {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        if style.colour {
            table.enforce_styling()
        } else {
            table.force_no_tty()
        };
        table.set_header(header.iter().map(Cell::new));
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        Columns { table, style }
    }

    pub(super) fn row(&mut self, cells: Vec<Cell>) {
        self.table.add_row(cells);
    }

    fn state(&self, word: &str) -> Cell {
        let cell = Cell::new(word);
        if !self.style.colour {
            return cell;
        }
        match words::tone(word) {
            Tone::Good => cell.fg(Color::DarkGreen),
            Tone::Bad => cell.fg(Color::DarkRed),
            Tone::Busy => cell.fg(Color::DarkYellow),
            Tone::Dim => cell.fg(Color::DarkGrey),
            Tone::Strong | Tone::Plain => cell,
        }
    }

    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for line in self.table.lines() {
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

pub(super) fn cell(text: impl AsRef<str>) -> Cell {
    Cell::new(one_line(text.as_ref()))
}

/// A dash where there is nothing.
pub(super) fn dash(text: &str) -> Cell {
    cell(if text.is_empty() { "-" } else { text })
}

/// Why something is as it is, clipped: [`super::reasons`] has it whole.
fn reason(text: &str) -> Cell {
    dash(&clip(&one_line(text), MAX_REASON))
}

/// A table of texts; those in the columns of these numbers are states. What is empty is a dash.
pub fn plain(
    style: Style,
    header: &[&str],
    states: &[usize],
    rows: impl IntoIterator<Item = Vec<String>>,
) -> String {
    let mut columns = Columns::new(style, header);
    for row in rows {
        let cells = row.iter().enumerate().map(|(i, field)| match field.as_str() {
            word if states.contains(&i) && !word.is_empty() => columns.state(word),
            text => dash(text),
        });
        let cells = cells.collect();
        columns.row(cells);
    }
    columns.text()
}

/// What stands in natural order of its names.
pub(super) fn in_order<T, K: Ord>(all: &[T], key: impl Fn(&T) -> K) -> Vec<&T> {
    let mut sorted: Vec<&T> = all.iter().collect();
    sorted.sort_by_cached_key(|one| key(one));
    sorted
}

/// Labs.
pub fn labs(style: Style, labs: &[api::Lab]) -> String {
    let mut columns = Columns::new(style, &["LAB", "STATE", "NODES READY", "LINKS UP", "REASON"]);
    for lab in in_order(labs, |l| natural(&l.name)) {
        let state = columns.state(words::lab_state(lab.state()));
        columns.row(vec![
            cell(last(&lab.name)),
            state,
            cell(format!("{}/{}", lab.ready_count, lab.node_count)),
            cell(format!("{}/{}", lab.up_link_count, lab.link_count)),
            reason(&lab.state_reason),
        ]);
    }
    columns.text()
}

/// Nodes; with the lab each belongs to when there are several labs.
pub fn nodes(style: Style, nodes: &[api::Node], with_lab: bool) -> String {
    let mut header = vec!["NODE", "KIND", "IMAGE", "STATE", "HOST", "MGMT ADDRESS", "RESTARTS", "REASON"];
    // Most labs are containers: there the column would say so on every line.
    let of_several = nodes.iter().any(|n| n.runtime() == api::Runtime::Libvirt);
    if of_several {
        header.insert(2, "RUNTIME");
    }
    if with_lab {
        header.insert(0, "LAB");
    }
    let mut columns = Columns::new(style, &header);
    for node in in_order(nodes, |n| natural(&n.name)) {
        let mgmt: Vec<&str> = [node.mgmt_ipv4.as_str(), node.mgmt_ipv6.as_str()]
            .into_iter()
            .filter(|a| !a.is_empty())
            .collect();
        let state = columns.state(words::node_state(node.state()));
        let mut row = vec![
            cell(last(&node.name)),
            cell(&node.kind),
            dash(&made_of(node)),
            state,
            dash(last(&node.host)),
            dash(&mgmt.join(" ")),
            cell(node.restart_count.to_string()),
            reason(&node.state_reason),
        ];
        if of_several {
            row.insert(2, cell(words::runtime(node.runtime())));
        }
        if with_lab {
            row.insert(0, cell(words::lab_of(&node.name)));
        }
        columns.row(row);
    }
    columns.text()
}

/// What a node is made of: its image, or what of its host a bridge is joined to.
fn made_of(node: &api::Node) -> String {
    if node.uplink.is_empty() { node.image.clone() } else { format!("uplink {}", node.uplink) }
}

/// Nodes with all that is known of them, one below the other's columns: reasons whole.
pub fn wide_nodes(style: Style, nodes: &[api::Node], with_lab: bool) -> String {
    let mut header = vec![
        "NODE",
        "KIND",
        "RUNTIME",
        "IMAGE",
        "STATE",
        "HEALTH",
        "HOST",
        "INSTANCE",
        "MGMT ADDRESS",
        "CPU",
        "MEMORY",
        "RESTARTS",
        "GROUP",
        "LABELS",
        "REASON",
    ];
    if with_lab {
        header.insert(0, "LAB");
    }
    let at = 4 + usize::from(with_lab);
    let rows = in_order(nodes, |n| natural(&n.name)).into_iter().map(|n| {
        let mut labels: Vec<String> = n.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
        labels.sort();
        let mgmt = format!("{} {}", n.mgmt_ipv4, n.mgmt_ipv6);
        let mut row = vec![
            last(&n.name).to_owned(),
            n.kind.clone(),
            words::runtime(n.runtime()).to_owned(),
            made_of(n),
            words::node_state(n.state()).to_owned(),
            n.health.clone(),
            last(&n.host).to_owned(),
            n.instance_name.clone(),
            mgmt.trim().to_owned(),
            cores(n.cpu_request_millis.into()),
            bytes(n.memory_request_bytes),
            n.restart_count.to_string(),
            n.group.clone(),
            labels.join(","),
            n.state_reason.clone(),
        ];
        if with_lab {
            row.insert(0, words::lab_of(&n.name).to_owned());
        }
        row
    });
    plain(style, &header, &[at], rows)
}

/// Nodes for spreadsheets.
pub fn nodes_csv(nodes: &[api::Node]) -> String {
    let header = [
        "lab",
        "node",
        "kind",
        "runtime",
        "image",
        "state",
        "host",
        "instance",
        "mgmt_ipv4",
        "mgmt_ipv6",
        "restarts",
        "reason",
    ];
    let rows = in_order(nodes, |n| natural(&n.name)).into_iter().map(|n| {
        vec![
            words::lab_of(&n.name).to_owned(),
            last(&n.name).to_owned(),
            n.kind.clone(),
            words::runtime(n.runtime()).to_owned(),
            n.image.clone(),
            words::node_state(n.state()).to_owned(),
            last(&n.host).to_owned(),
            n.instance_name.clone(),
            n.mgmt_ipv4.clone(),
            n.mgmt_ipv6.clone(),
            n.restart_count.to_string(),
            n.state_reason.clone(),
        ]
    });
    super::csv::text(&header, rows)
}

/// Links.
pub fn links(style: Style, links: &[api::Link]) -> String {
    // Most labs leave frames alone: there the column would be of dashes.
    let impaired = links.iter().any(|l| !words::impairments(l).is_empty());
    let mut header = vec!["A", "B", "STATE", "MTU", "PLANE", "REASON"];
    if impaired {
        header.insert(5, "IMPAIRMENT");
    }
    let mut columns = Columns::new(style, &header);
    let end = |end: &Option<api::Endpoint>| {
        end.as_ref().map_or_else(String::new, |e| format!("{}:{}", e.node, e.interface))
    };
    for link in in_order(links, |l| (natural(&end(&l.a)), natural(&end(&l.b)))) {
        let state = columns.state(words::link_state(link.state()));
        let mut row = vec![
            cell(end(&link.a)),
            cell(end(&link.b)),
            state,
            cell(link.mtu.to_string()),
            dash(&words::plane(link)),
            reason(&link.state_reason),
        ];
        if impaired {
            row.insert(5, dash(&words::impairments(link)));
        }
        columns.row(row);
    }
    columns.text()
}

/// Hosts.
pub fn hosts(style: Style, hosts: &[api::Host]) -> String {
    let header = [
        "HOST",
        "STATE",
        "NODES",
        "CPU RESERVED",
        "MEMORY RESERVED",
        "DISK RESERVED",
        "RUNTIMES",
        "DATAPATH",
        "REASON",
    ];
    let mut columns = Columns::new(style, &header);
    for host in in_order(hosts, |h| natural(&h.name)) {
        let state = columns.state(words::host_state(host.state()));
        let room = |total: i64, system: i64, times: f64| ((total - system).max(0) as f64 * times) as i64;
        let cpu = room(host.cpu_total_millis, host.system_cpu_millis, host.cpu_overcommit);
        let memory = room(host.memory_total_bytes, host.system_memory_bytes, host.memory_overcommit);
        let disk = host.disk_total_bytes.map(|all| room(all, host.system_disk_bytes, host.disk_overcommit));
        let disk = disk.map_or_else(|| "?".to_owned(), bytes);
        let datapath = format!("{} {}", host.datapath, host.ovs_version);
        columns.row(vec![
            cell(last(&host.name)),
            state,
            cell(format!("{}/{}", host.running_count, host.node_count)),
            cell(format!("{} of {}", cores(host.cpu_reserved_millis), cores(cpu))),
            cell(format!("{} of {}", bytes(host.memory_reserved_bytes), bytes(memory))),
            cell(format!("{} of {disk}", bytes(host.disk_reserved_bytes))),
            dash(&super::host::versions(host).join(", ")),
            dash(datapath.trim()),
            dash(&match (host.cordoned, super::host::drained(host), host.state_reason.as_str()) {
                (false, _, reason) => reason.to_owned(),
                (true, "", "") => "cordoned".to_owned(),
                (true, "", reason) => format!("cordoned; {reason}"),
                (true, drained, "") => drained.to_owned(),
                (true, drained, reason) => format!("{drained}; {reason}"),
            }),
        ]);
    }
    columns.text()
}

/// Quotas: what is used of each, and what is allowed.
pub fn quotas(style: Style, quotas: &[api::Quota]) -> String {
    let mut columns = Columns::new(style, &["PROJECT", "LABS", "NODES", "CPU", "MEMORY", "DISK"]);
    let of = |used: String, limit: Option<String>| match limit {
        Some(limit) => cell(format!("{used} of {limit}")),
        None => cell(used),
    };
    for quota in in_order(quotas, |q| natural(&q.name)) {
        columns.row(vec![
            cell(last(&quota.name)),
            cell(quota.lab_count.to_string()),
            of(quota.used_nodes.to_string(), quota.nodes.map(|n| n.to_string())),
            of(cores(quota.used_cpu_millis), quota.cpu_millis.map(cores)),
            of(bytes(quota.used_memory_bytes), quota.memory_bytes.map(bytes)),
            of(bytes(quota.used_disk_bytes), quota.disk_bytes.map(bytes)),
        ]);
    }
    columns.text()
}

/// Images: what the store has of each, else what the first host that has it said.
pub fn images(style: Style, images: &[api::Image]) -> String {
    let mut columns = Columns::new(
        style,
        &["IMAGE", "FORMAT", "SIZE", "ARCHITECTURE", "DIGEST", "STORE", "HOSTS", "KINDS"],
    );
    for image in images {
        let there: Vec<&api::ImagePresence> = image.presences.iter().filter(|p| p.present).collect();
        let hosts: Vec<&str> = there.iter().map(|p| last(&p.host)).collect();
        let kinds: Vec<&str> = image.kinds.iter().map(|k| k.kind.as_str()).collect();
        let (format, size, architecture, digest, store) = match (&image.stored, there.first()) {
            (Some(s), _) => {
                let store = if s.problem.is_empty() { "yes" } else { "damaged" };
                (s.format(), s.size_bytes, s.architecture.as_str(), s.digest.as_str(), store)
            }
            (None, Some(p)) => (p.format(), p.size_bytes, p.architecture.as_str(), p.digest.as_str(), ""),
            (None, None) => (api::ImageFormat::Unspecified, 0, "", "", ""),
        };
        let short = digest.strip_prefix("sha256:").unwrap_or(digest).chars().take(12).collect::<String>();
        columns.row(vec![
            cell(&image.reference),
            dash(super::image::format(format)),
            dash(&if size == 0 { String::new() } else { bytes(size) }),
            dash(architecture),
            dash(&short),
            dash(store),
            dash(&hosts.join(" ")),
            dash(&kinds.join(" ")),
        ]);
    }
    columns.text()
}

/// Snapshots of a node, in the order in which they come.
pub fn snapshots(style: Style, snapshots: &[api::Snapshot]) -> String {
    let mut columns = Columns::new(style, &["SNAPSHOT", "TAKEN", "SIZE", "MEMORY"]);
    for snapshot in snapshots {
        let seconds = |mut taken: prost_reflect::prost_types::Timestamp| {
            taken.nanos = 0;
            taken.to_string()
        };
        let taken = snapshot.create_time.map(seconds);
        columns.row(vec![
            cell(last(&snapshot.name)),
            dash(&taken.unwrap_or_default()),
            cell(bytes(snapshot.size_bytes)),
            dash(if snapshot.has_memory { "yes" } else { "" }),
        ]);
    }
    columns.text()
}

/// Kinds.
pub fn kinds(style: Style, kinds: &[api::Kind]) -> String {
    let header = ["KIND", "VENDOR", "RUNTIME", "INTERFACES", "CPU", "MEMORY", "VERIFIED", "ALIASES"];
    let mut columns = Columns::new(style, &header);
    for kind in in_order(kinds, |k| natural(&k.name)) {
        let counted = |number: u64, text: String| dash(if number == 0 { "" } else { &text });
        let memory = i64::try_from(kind.memory_request_bytes).unwrap_or(i64::MAX);
        columns.row(vec![
            cell(last(&kind.name)),
            dash(&kind.vendor),
            cell(super::kind::runtimes(kind).join(", ")),
            cell(super::kind::interfaces(kind)),
            counted(kind.cpu_request_millis.into(), cores(kind.cpu_request_millis.into())),
            counted(kind.memory_request_bytes, bytes(memory)),
            cell(if kind.verified { "yes" } else { "no" }),
            dash(&kind.aliases.join(", ")),
        ]);
    }
    columns.text()
}

#[cfg(test)]
mod tests;
