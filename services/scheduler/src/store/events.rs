//! The event log. Numbers come from one counter in `meta`. A write takes them as the last thing before it is made to last, by a statement that raises the counter, whose row is locked from then on
//! until it is over: so none is missing or given twice, whoever else writes, who reads sees them in order, and nobody waits for another one's numbers who has what that one waits for.
//!
//! An event carries the object as it was then; a lab's spec is left out and read with the event, since it can be large and changes rarely.

use std::collections::BTreeMap;

use netloom_model::id::{HostId, LinkUid};
use netloom_model::plan::Progress;
use netloom_model::state::{LinkState, NodeState, Runtime, Wanted};
use serde::{Deserialize, Serialize};
use sqlx::Row as _;

use super::{Connection, Result, Store, Tx, from_json, number, to_json, unsigned, write};
use crate::plan::guest_name;
use crate::rows::{Index, LabRow, LabRows, LinkRow, NodeRow, OperationRow};

/// One event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Its number; 0 until it is written.
    pub sequence: u64,
    /// When it was written, in microseconds since 1970; 0 before.
    pub time_us: i64,
    /// Id of the lab it concerns.
    pub lab: String,
    /// True when the object is gone.
    pub deleted: bool,
    /// The object.
    pub object: Object,
}

impl Event {
    /// An event to be written.
    pub fn new(lab: &str, deleted: bool, object: Object) -> Event {
        Event { sequence: 0, time_us: 0, lab: lab.to_owned(), deleted, object }
    }
}

/// An object that an event tells of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Object {
    /// A lab.
    Lab(Box<LabView>),
    /// A node.
    Node(Box<NodeView>),
    /// A link.
    Link(Box<LinkView>),
    /// An operation.
    Operation(Box<OperationRow>),
}

/// A lab as it is told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LabView {
    /// Its row.
    pub lab: LabRow,
    /// Its nodes, grouped.
    pub nodes: Vec<(Runtime, Wanted, NodeState, u32)>,
    /// Its links that are plugged, grouped.
    pub links: Vec<(LinkState, u32)>,
    /// Its links that are unplugged on request, grouped.
    #[serde(default)]
    pub unplugged: Vec<(LinkState, u32)>,
    /// Its links that are plugged and down until a node is started again, grouped; not among the plugged ones above.
    #[serde(default)]
    pub needs_restart: Vec<(LinkState, u32)>,
    /// The active operation.
    pub operation: Option<String>,
    /// The hosts it is on.
    pub hosts: Vec<HostId>,
}

impl LabView {
    /// The lab with its spec.
    pub fn whole(rows: &LabRows) -> LabView {
        let (nodes, links) = rows.tallies();
        let such = |unplugged, needs_restart| {
            let such = links.iter().filter(|t| (t.unplugged, t.needs_restart) == (unplugged, needs_restart));
            such.map(|t| (t.state, t.count)).collect()
        };
        LabView {
            lab: rows.lab.clone(),
            nodes: nodes.into_iter().map(|t| (t.runtime, t.wanted, t.state, t.count)).collect(),
            links: such(false, false),
            unplugged: such(true, false),
            needs_restart: such(false, true),
            operation: rows.operation.map(|o| o.to_string()),
            hosts: rows.hosts.iter().cloned().collect(),
        }
    }

    /// The lab, its spec left out.
    pub fn without_spec(rows: &LabRows) -> LabView {
        let mut view = LabView::whole(rows);
        view.lab.spec = Default::default();
        view.lab.completed = None;
        view
    }
}

/// An interface as it is told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Interface {
    /// The name the kind gives it.
    pub name: String,
    /// The name inside the node.
    pub guest_name: String,
    /// MAC address.
    pub mac: String,
    /// MTU in bytes.
    pub mtu: u32,
    /// Addresses with prefix length.
    pub addresses: Vec<String>,
    /// Id of its link.
    pub link: String,
    /// True when it was read back.
    pub present: bool,
    /// True when carrier was read back.
    pub carrier: bool,
}

/// A node as it is told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeView {
    /// Id of its lab.
    pub lab: String,
    /// Its row.
    pub node: NodeRow,
    /// Name of its container or domain; empty for a bridge.
    pub instance_name: String,
    /// Its interfaces, by port.
    pub interfaces: Vec<Interface>,
}

impl NodeView {
    /// A node among its lab's rows.
    pub fn new(index: &Index<'_>, node: &NodeRow) -> NodeView {
        let rows = index.rows;
        let link_id = |uid: LinkUid| rows.links.get(&uid).map(|l| l.id.clone()).unwrap_or_default();
        let interfaces = index.nics_of(node.uid).iter().map(|n| Interface {
            name: n.interface.clone(),
            guest_name: guest_name(n),
            mac: n.mac.clone(),
            mtu: n.mtu,
            addresses: n.addresses.clone(),
            link: n.link_uid.map(link_id).unwrap_or_default(),
            present: n.present,
            carrier: n.carrier,
        });
        let instance_name = match node.runtime {
            Runtime::Bridge => String::new(),
            _ => rows.lab.spec.instance_name(&rows.lab.id, node.id.as_str()),
        };
        NodeView {
            lab: rows.lab.id.to_string(),
            node: node.clone(),
            instance_name,
            interfaces: interfaces.collect(),
        }
    }
}

/// A link as it is told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LinkView {
    /// Id of its lab.
    pub lab: String,
    /// Its row.
    pub link: LinkRow,
    /// MTU that its interfaces are given; 0 where there are none.
    #[serde(default)]
    pub mtu: u32,
}

impl LinkView {
    /// A link among its lab's rows, of which these are the MTUs.
    pub fn new(rows: &LabRows, link: &LinkRow, mtus: &BTreeMap<LinkUid, u32>) -> LinkView {
        let mtu = mtus.get(&link.uid).copied().unwrap_or_default();
        LinkView { lab: rows.lab.id.to_string(), link: link.clone(), mtu }
    }
}

/// How far the objects of a plan are, from the rows; everything is gone when there are none.
pub fn progress(operation: &OperationRow, rows: Option<&LabRows>) -> Vec<Progress> {
    use netloom_model::plan::Object as What;
    let (told, links) = rows.map(|r| (r.told(), r.links_by_id())).unwrap_or_default();
    let of = |what: What, id: &str| match what {
        What::Node => told.get(&id.to_ascii_lowercase()).map(|n| (n.state.as_str(), n.reason.clone())),
        What::Link => links.get(id).map(|l| (l.state.as_str(), l.reason.clone())),
    };
    let actions = operation.plan.actions.iter();
    actions
        .map(|a| {
            let (state, detail) = of(a.object, &a.id).unwrap_or(("GONE", String::new()));
            Progress { object: a.object, id: a.id.clone(), state: state.to_owned(), detail }
        })
        .collect()
}

/// Which events are meant.
#[derive(Debug, Clone, Default)]
pub struct Of {
    /// Those of this lab; of all when it is empty.
    pub lab: String,
    /// Only those of operations.
    pub operations: bool,
}

/// What a read of the log gave.
#[derive(Debug, PartialEq)]
pub enum Reading {
    /// These events, in order; none when there are no newer ones.
    Events(Vec<Event>),
    /// Events after the number asked for were dropped already.
    Relist,
    /// There is no such number yet.
    Ahead {
        /// The newest there is.
        newest: u64,
    },
}

/// The number of the newest event.
pub(super) async fn last(sql: &mut Connection) -> Result<u64> {
    let row = sqlx::query("SELECT value FROM meta WHERE key = 'sequence'").fetch_optional(sql).await?;
    row.map_or(Ok(0), |row| super::parse("meta.sequence", row.try_get("value")?))
}

pub(super) async fn prune_to(sql: &mut Connection, sequence: u64) -> Result<()> {
    sqlx::query("DELETE FROM events WHERE sequence <= $1").bind(number(sequence)).execute(sql).await?;
    Ok(())
}

/// Writes events under the next numbers, and says which the last of these is.
pub(super) async fn write(sql: &mut Connection, events: &mut [Event]) -> Result<u64> {
    let raise = "INSERT INTO meta (key, value) VALUES ('sequence', CAST($1 AS TEXT))
         ON CONFLICT (key) DO UPDATE SET value = CAST(CAST(meta.value AS BIGINT) + $1 AS TEXT) RETURNING value";
    let raised = sqlx::query(raise).bind(number(events.len())).fetch_one(&mut *sql).await?;
    let last: u64 = super::parse("meta.sequence", raised.try_get("value")?)?;
    events.iter_mut().rev().zip(0..).for_each(|(event, later)| event.sequence = last - later);
    let columns = "INSERT INTO events (sequence, time_us, lab, deleted, object_json)";
    write::insert(sql, columns, "", events, |row, event| {
        row.push_bind(number(event.sequence))
            .push_bind(event.time_us)
            .push_bind(event.lab.clone())
            .push_bind(i64::from(event.deleted))
            .push_bind(to_json(&event.object));
    })
    .await?;
    Ok(last)
}

impl Tx<'_> {
    /// Takes an event in; it is numbered and written with the others of this write.
    pub fn event(&mut self, event: Event) {
        self.events.push(Event { time_us: self.now, ..event });
    }

    /// Drops events written before this time.
    pub async fn prune_events(&mut self, before_us: i64) -> Result<()> {
        sqlx::query("DELETE FROM events WHERE time_us < $1").bind(before_us).execute(&mut *self.sql).await?;
        Ok(())
    }
}

impl Store {
    /// The number of the newest event.
    pub fn last_event(&self) -> u64 {
        *self.events.borrow()
    }

    /// Reads such events after a number; at most `limit`.
    pub async fn read_events(&self, since: u64, of: &Of, limit: u32) -> Result<Reading> {
        let mut sql = self.pool.acquire().await?;
        // One statement, so that the oldest number and the events are of one moment.
        let rows = sqlx::query(
            "SELECT sequence, time_us, lab, deleted, object_json, (SELECT MIN(sequence) FROM events) AS oldest FROM events
             WHERE sequence > $1 AND ($2 = '' OR LOWER(lab) = LOWER($2)) AND (NOT $4 OR object_json LIKE '{\"Operation\":%') ORDER BY sequence LIMIT $3",
        )
        .bind(number(since))
        .bind(&of.lab)
        .bind(i64::from(limit))
        .bind(of.operations)
        .fetch_all(&mut *sql)
        .await?;
        let dropped_to = |oldest: i64| unsigned("events.sequence", oldest).map(|o| o - 1);
        let Some(first) = rows.first() else {
            // One statement as well: what comes between two would look as if all before it had been dropped.
            let row = sqlx::query(
                "SELECT (SELECT MIN(sequence) FROM events) AS oldest, (SELECT value FROM meta WHERE key = 'sequence') AS last",
            )
            .fetch_one(&mut *sql)
            .await?;
            let (oldest, last): (Option<i64>, Option<&str>) = (row.try_get("oldest")?, row.try_get("last")?);
            let last = last.map_or(Ok(0), |last| super::parse("meta.sequence", last))?;
            return Ok(match oldest.map_or(Ok(last), dropped_to)? {
                dropped_to if since < dropped_to => Reading::Relist,
                _ if since > last => Reading::Ahead { newest: last },
                _ => Reading::Events(Vec::new()),
            });
        };
        if since < dropped_to(first.try_get("oldest")?)? {
            return Ok(Reading::Relist);
        }
        let events = rows.iter().map(|row| {
            Ok(Event {
                sequence: unsigned("events.sequence", row.try_get("sequence")?)?,
                time_us: row.try_get("time_us")?,
                lab: row.try_get("lab")?,
                deleted: row.try_get::<i64, _>("deleted")? != 0,
                object: from_json("events.object_json", row.try_get("object_json")?)?,
            })
        });
        Ok(Reading::Events(events.collect::<Result<_>>()?))
    }
}
