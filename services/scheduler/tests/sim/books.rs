//! What is reserved, by the scheduler's own rows: read in its database beside it, by one whose calls do not come late.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::fs::FileExt as _;

use serde::Deserialize;
use sqlx::{AnyConnection, Row as _};
use tokio::time::timeout;

use crate::STEP;
use crate::world::World;

/// All rows that matter, as they are at one moment.
const ROWS: &str = "
    SELECT 'node' AS what, lab_uid AS lab, folded AS name, host, cpu_millis, memory_bytes, disk_bytes, '' AS has, '' AS policy FROM nodes
      WHERE host IS NOT NULL AND wanted IN ('RUNNING', 'STOPPED')
    UNION ALL SELECT 'kept', lab_uid, '', host, cpu_millis, memory_bytes, disk_bytes, '', '' FROM kept
    UNION ALL SELECT 'lab', uid, '', '', 0, 0, 0, '', '' FROM labs
    UNION ALL SELECT 'operation', lab_uid, '', '', 0, 0, 0, '', '' FROM operations
      WHERE state = 'RUNNING' AND kind <> 'DESTROY' AND released = 0
    UNION ALL SELECT 'host', '', '', id, 0, 0, 0, compute_json, policy_json FROM hosts";

/// CPU in thousandths of a core, memory and disk in bytes.
type Amounts = [u64; 3];
const NAMES: [&str; 3] = ["CPU", "memory", "disk"];

/// Of each, what one makes of both.
fn both(a: Amounts, b: Amounts, of: fn(u64, u64) -> u64) -> Amounts {
    std::array::from_fn(|i| of(a[i], b[i]))
}

/// What a host has, as it told last.
#[derive(Deserialize)]
struct Has {
    cpu_millis: u64,
    memory_bytes: u64,
    disk_bytes: Option<u64>,
}

/// What is said of it; 0 times is once, as the stories are configured.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Policy {
    cpu_overcommit: f64,
    memory_overcommit: f64,
    disk_overcommit: f64,
    system_cpu_millis: u64,
    system_memory_bytes: u64,
    system_disk_bytes: u64,
}

/// What may be reserved of a host.
fn room(has: &Has, policy: &Policy) -> Amounts {
    let of = |has: u64, system: u64, times: f64| {
        let times = if times > 0.0 { times } else { 1.0 };
        (has.saturating_sub(system) as f64 * times) as u64
    };
    [
        of(has.cpu_millis, policy.system_cpu_millis, policy.cpu_overcommit),
        of(has.memory_bytes, policy.system_memory_bytes, policy.memory_overcommit),
        // A disk of which nothing is known is no limit.
        has.disk_bytes.map_or(u64::MAX, |has| of(has, policy.system_disk_bytes, policy.disk_overcommit)),
    ]
}

#[derive(Default, Clone, Copy)]
struct Balance {
    reserved: Amounts,
    room: Amounts,
}

/// The database of one scheduler.
struct Open {
    incarnation: u64,
    sql: AnyConnection,
    /// The index of its log, whose header counts what was committed.
    index: File,
}

/// Whoever keeps an eye on what is reserved.
#[derive(Default)]
pub struct Books {
    open: Option<Open>,
    /// The commit after which it was looked last, and at whose.
    seen: Option<(u64, u32)>,
    before: BTreeMap<String, Balance>,
}

impl Books {
    /// What is reserved of each host is what nodes have there that stay, or what a cancel may give back; it is never more than the host has, unless it was so before, or the host had more;
    /// and the scheduler says just that. What nobody needs any more is not reserved.
    pub async fn hold(&mut self, world: &World) {
        let Some(open) = opened(&mut self.open, world).await else { return };
        let now = (open.incarnation, commits(&open.index));
        if self.seen == Some(now) {
            return;
        }
        let rows = match sqlx::query(ROWS).fetch_all(&mut open.sql).await {
            Ok(rows) => rows,
            // A schema that is being made.
            Err(e) if e.to_string().contains("no such") => return,
            Err(e) => panic!("{e}"),
        };
        let balances = balances(&rows);
        let said = timeout(STEP, world.hosts()).await.ok().flatten();
        // What was said is of the same moment where nothing was written until then.
        let is_current = !world.is_down() && (world.incarnation(), commits(&open.index)) == now;
        for host in said.filter(|_| is_current).into_iter().flatten() {
            let says = [host.cpu_reserved_millis, host.memory_reserved_bytes, host.disk_reserved_bytes];
            assert_eq!(says, balances[&host.id].reserved, "what is said to be reserved of {}", host.id);
        }
        for (host, Balance { reserved, room }) in &balances {
            let before = self.before.get(host).copied().unwrap_or_default();
            let most = both(both(*room, before.room, u64::max), before.reserved, u64::max);
            for (i, what) in NAMES.iter().enumerate() {
                let (now, most) = (reserved[i], most[i]);
                assert!(
                    now <= most,
                    "{now} {what} of {host} is reserved, of {most} at most: {}",
                    told(&rows, host)
                );
            }
        }
        (self.before, self.seen) = (balances, Some(now));
    }
}

/// The database of the scheduler that there is, opened once.
async fn opened<'o>(open: &'o mut Option<Open>, world: &World) -> Option<&'o mut Open> {
    let incarnation = world.incarnation();
    if world.is_down() {
        return None;
    }
    if open.as_ref().is_none_or(|open| open.incarnation != incarnation) {
        let database = world.database();
        // There is one as soon as somebody has opened the database.
        let index = File::open(format!("{}-shm", database.file()?.display())).ok()?;
        let sql = database.connect().await.ok()?;
        *open = Some(Open { incarnation, sql, index });
    }
    open.as_mut()
}

/// How much was committed so far: `iChange` of the header that SQLite's "WAL-mode file format" describes.
fn commits(index: &File) -> u32 {
    let mut count = [0; 4];
    index.read_exact_at(&mut count, 8).map_or(0, |()| u32::from_ne_bytes(count))
}

type AnyRow = <sqlx::Any as sqlx::Database>::Row;

fn text<'r>(row: &'r AnyRow, column: &str) -> &'r str {
    row.get(column)
}

fn amounts(row: &AnyRow) -> Amounts {
    ["cpu_millis", "memory_bytes", "disk_bytes"].map(|column| row.get::<i64, _>(column).unsigned_abs())
}

/// What is reserved of each host: of each lab what its nodes have, or had when its operation began, whichever is more; of a node and its successor the larger of the two.
fn balances(rows: &[AnyRow]) -> BTreeMap<String, Balance> {
    let of = |what: &'static str| rows.iter().filter(move |row| text(row, "what") == what);
    let labs = |what| of(what).map(|row| text(row, "lab")).collect::<BTreeSet<&str>>();
    let (known, busy) = (labs("lab"), labs("operation"));
    let mut of_nodes: BTreeMap<[&str; 3], Amounts> = BTreeMap::new();
    for row in of("node") {
        let key = [text(row, "host"), text(row, "lab"), text(row, "name")];
        assert!(known.contains(key[1]), "{} is of a lab that is gone", key[2]);
        let most = of_nodes.entry(key).or_default();
        *most = both(*most, amounts(row), u64::max);
    }
    let mut of_labs: BTreeMap<[&str; 2], Amounts> = BTreeMap::new();
    for ([host, lab, _], of_node) in of_nodes {
        let sum = of_labs.entry([host, lab]).or_default();
        *sum = both(*sum, of_node, u64::saturating_add);
    }
    for row in of("kept") {
        let key = [text(row, "host"), text(row, "lab")];
        assert!(
            busy.contains(key[1]),
            "{:?} of {} is kept for what nobody can take back",
            amounts(row),
            key[0]
        );
        let most = of_labs.entry(key).or_default();
        *most = both(*most, amounts(row), u64::max);
    }
    let mut all: BTreeMap<String, Balance> = BTreeMap::new();
    for row in of("host") {
        let has = serde_json::from_str(text(row, "has")).expect("what a host has");
        let policy = serde_json::from_str(text(row, "policy")).expect("what is said of it");
        all.entry(text(row, "host").to_owned()).or_default().room = room(&has, &policy);
    }
    for ([host, _], of_lab) in of_labs {
        let balance = all.get_mut(host).expect("its host is known");
        balance.reserved = both(balance.reserved, of_lab, u64::saturating_add);
    }
    all
}

/// What is on a host, for who reads of it.
fn told(rows: &[AnyRow], host: &str) -> String {
    let there = rows.iter().filter(|row| text(row, "host") == host && text(row, "what") != "host");
    let line = |row: &AnyRow| {
        format!("{} {} {} {:?}", text(row, "what"), text(row, "lab"), text(row, "name"), amounts(row))
    };
    there.map(line).collect::<Vec<_>>().join("; ")
}
