//! The contract of the store. Every case opens its own [`Database`], so that another database only needs another one.

use std::sync::Arc;

use netloom_model::id::HostId;
use netloom_model::kind::Catalogue;
use netloom_model::plan::Plan;
use netloom_model::spec::{LabSpec, LinkSpec, NodeSpec};
use netloom_model::state::{NodeState, Runtime, Wanted};
use netloom_scheduler::place::Room;
use netloom_scheduler::plan::{Context, plan};
use netloom_scheduler::rows::{LabRows, OperationKind, OperationRow, OperationState};
use netloom_scheduler::store::{Event, LabView, Object, Of, Reading, Store};

struct Database {
    dir: tempfile::TempDir,
}

impl Database {
    fn new() -> Database {
        Database { dir: tempfile::tempdir().unwrap() }
    }

    async fn open(&self) -> Store {
        Store::open(&self.dir.path().join("s.db"), 1_000).await.unwrap()
    }
}

fn rooms() -> Vec<Room> {
    vec![Room {
        host: "h1".parse().unwrap(),
        heard: true,
        runtimes: [Runtime::Docker].into(),
        cpu_millis: 100_000,
        memory_bytes: 1 << 40,
        cpu_reserved: 0,
        memory_reserved: 0,
        allowed: netloom_scheduler::place::Allowed {
            capabilities: vec!["NET_ADMIN".into(), "SYS_ADMIN".into()],
            ..Default::default()
        },
    }]
}

fn spec(nodes: usize) -> LabSpec {
    let node = |i| NodeSpec {
        id: format!("n{i}"),
        kind: "linux".into(),
        image: "i".into(),
        cpu_request_millis: 100,
        memory_request_bytes: 1 << 20,
        ..NodeSpec::default()
    };
    let end = |i: usize, e: &str| netloom_model::spec::Endpoint {
        node: format!("n{i}"),
        interface: e.into(),
        ..Default::default()
    };
    let link = |i| LinkSpec { a: end(i, "eth1"), b: end(i + 1, "eth2"), ..LinkSpec::default() };
    LabSpec {
        nodes: (0..nodes).map(node).collect(),
        links: (0..nodes.saturating_sub(1)).map(link).collect(),
        ..LabSpec::default()
    }
}

fn planned(current: &LabRows, spec: &LabSpec) -> LabRows {
    let (catalogue, rooms) = (Catalogue::embedded(), rooms());
    plan(current, spec, Context { catalogue: &catalogue, rooms: &rooms, asked: true, revive: true, now: 5 })
        .rows
}

fn lab(id: &str, nodes: usize) -> LabRows {
    planned(&LabRows::new(id.parse().unwrap(), 1), &spec(nodes))
}

async fn save(store: &Store, rows: LabRows) -> Result<(), netloom_scheduler::error::Error> {
    let before = store.rows(rows.lab.uid);
    let mut tx = store.begin("test").await?;
    tx.save(before.as_deref(), rows).await?;
    tx.commit().await
}

#[tokio::test]
async fn rows_are_read_back_as_they_were_written() {
    let db = Database::new();
    let store = db.open().await;
    let rows = lab("Demo", 4);
    save(&store, rows.clone()).await.unwrap();
    let mut changed = planned(&rows, &spec(2));
    changed.lab.completed = Some(spec(4).into());
    changed.lab.traceparent = "00-1-2-01".into();
    let node = changed.nodes.values_mut().next().unwrap();
    node.observed = Some(netloom_model::observed::Observed::absent(node.uid, rows.lab.uid));
    node.removal = "because".into();
    save(&store, changed).await.unwrap();
    let written = store.rows(rows.lab.uid).unwrap();
    store.close().await;
    let store = db.open().await;
    assert_eq!(store.rows(rows.lab.uid).unwrap(), written);
    assert_eq!(store.rows_of("demo").unwrap(), written);
    assert!(written.wire_ids().iter().all(|w| store.lab_of_wire(*w) == Some(rows.lab.uid)));
}

#[tokio::test]
async fn names_are_unique_ignoring_case() {
    let db = Database::new();
    let store = db.open().await;
    save(&store, lab("demo", 1)).await.unwrap();
    assert!(save(&store, lab("DEMO", 1)).await.is_err());
    let mut twice = lab("other", 1);
    let mut double = twice.nodes.values().next().unwrap().clone();
    double.uid = netloom_model::id::NodeUid::new();
    double.id = "N0".parse().unwrap();
    twice.nodes.insert(double.uid, double.clone());
    assert!(save(&store, twice.clone()).await.is_err());
    assert!(store.rows_of("other").is_none(), "a write that fails leaves nothing");
    // A former self does not count.
    twice.nodes.get_mut(&double.uid).unwrap().replaced = true;
    save(&store, twice).await.unwrap();
}

#[tokio::test]
async fn a_lab_has_one_active_operation() {
    let db = Database::new();
    let store = db.open().await;
    let rows = lab("demo", 1);
    save(&store, rows.clone()).await.unwrap();
    let operation = || OperationRow::new(OperationKind::Deploy, &rows, Plan::default(), "", 7);
    let mut first = operation();
    let mut tx = store.begin("test").await.unwrap();
    tx.put_operation(&first).await.unwrap();
    assert!(tx.put_operation(&operation()).await.is_err());
    drop(tx);
    let mut tx = store.begin("test").await.unwrap();
    tx.put_operation(&first).await.unwrap();
    first.end(OperationState::Succeeded, None, Vec::new(), 9);
    tx.put_operation(&first).await.unwrap();
    let mut second = operation();
    second.request_id = Some("r".into());
    tx.put_operation(&second).await.unwrap();
    assert_eq!(tx.operation_of_request("r").await.unwrap(), Some(second.clone()));
    tx.commit().await.unwrap();
    assert_eq!(store.operation(first.id).await.unwrap(), Some(first.clone()));
    assert_eq!(store.operation(second.id).await.unwrap(), Some(second.clone()));
    let active = |store: &Store| store.active_operations().iter().map(|o| (**o).clone()).collect::<Vec<_>>();
    assert_eq!(active(&store), [second.clone()]);
    assert_eq!(active(&db.open().await), [second.clone()], "also after a start");
    let page = store.list_operations(1, "").await.unwrap();
    assert_eq!((page.rows, page.more), (vec![second.clone()], true));
    let page = store.list_operations(1, &second.id.to_string()).await.unwrap();
    assert_eq!((page.rows, page.more), (vec![first], false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn events_are_numbered_without_a_gap_under_many_writers() {
    let db = Database::new();
    let store = Arc::new(db.open().await);
    let rows = lab("demo", 1);
    let write = |i: usize| {
        let (store, object) = (store.clone(), Object::Lab(Box::new(LabView::whole(&rows))));
        async move {
            for _ in 0..10 {
                let mut tx = store.begin("test").await.unwrap();
                tx.event(Event::new("demo", false, object.clone())).await.unwrap();
                tx.event(Event::new("demo", false, object.clone())).await.unwrap();
                // Every third write is given up: its numbers are given to the next one.
                if !i.is_multiple_of(3) {
                    tx.commit().await.unwrap();
                }
            }
        }
    };
    futures::future::join_all((0..9).map(|i| tokio::spawn(write(i))))
        .await
        .into_iter()
        .for_each(|r| r.unwrap());
    let Reading::Events(events) = store.read_events(0, &Of::default(), 1_000).await.unwrap() else {
        panic!("nothing is dropped")
    };
    let numbers: Vec<u64> = events.iter().map(|e| e.sequence).collect();
    assert_eq!(numbers, (1..=120).collect::<Vec<_>>());
    assert_eq!(store.last_event(), 120);
    let now = netloom_scheduler::rows::now_us();
    assert!(
        events.iter().all(|e| e.time_us > now - 600_000_000 && e.time_us <= now),
        "each says when it was"
    );
    assert_eq!(store.read_events(120, &Of::default(), 10).await.unwrap(), Reading::Events(Vec::new()));
    assert_eq!(store.read_events(121, &Of::default(), 10).await.unwrap(), Reading::Ahead { newest: 120 });
    for of in [Of { lab: "other".into(), operations: false }, Of { lab: String::new(), operations: true }] {
        assert_eq!(store.read_events(0, &of, 10).await.unwrap(), Reading::Events(Vec::new()), "{of:?}");
    }
}

#[tokio::test]
async fn tallies_of_the_list_are_those_of_the_rows() {
    let db = Database::new();
    let store = db.open().await;
    for (i, name) in ["c", "A", "b", "D"].iter().enumerate() {
        let mut rows = lab(name, i + 1);
        for (j, node) in rows.nodes.values_mut().enumerate() {
            node.state = [NodeState::Ready, NodeState::Failed, NodeState::Unknown][j % 3];
            node.replaced = j == 3;
            node.wanted = if j == 3 { Wanted::Absent } else { Wanted::Running };
        }
        save(&store, rows).await.unwrap();
    }
    let first = store.list_labs(3, "").await.unwrap();
    let ids: Vec<&str> = first.rows.iter().map(|l| l.lab.id.as_str()).collect();
    assert_eq!((ids, first.more), (vec!["A", "b", "c"], true));
    let rest = store.list_labs(3, "c").await.unwrap();
    assert_eq!((rest.rows.len(), rest.more), (1, false));
    for view in first.rows.iter().chain(&rest.rows) {
        let mut listed = view.clone();
        listed.nodes.sort();
        let mut of_rows = LabView::whole(&store.rows(view.lab.uid).unwrap());
        of_rows.nodes.sort();
        assert_eq!(listed, of_rows);
    }
}

#[tokio::test]
async fn reservations_count_what_is_placed_and_wanted_once() {
    let db = Database::new();
    let store = db.open().await;
    let host: HostId = "h1".parse().unwrap();
    let (one, other) = (lab("one", 3), lab("other", 2));
    save(&store, one.clone()).await.unwrap();
    save(&store, other.clone()).await.unwrap();
    assert_eq!(store.reserved().await.unwrap()[&host].cpu_millis, 500);
    let mut tx = store.begin("test").await.unwrap();
    let others = tx.reserved_by_others(one.lab.uid).await.unwrap();
    assert_eq!((others[&host].cpu_millis, others[&host].memory_bytes), (200, 2 << 20));
    drop(tx);
    // Nodes that leave, and former selves, do not count.
    let mut changed = spec(3);
    changed.nodes[0].env.insert("A".into(), "1".into());
    changed.nodes.remove(2);
    changed.links.clear();
    save(&store, planned(&one, &changed)).await.unwrap();
    assert_eq!(store.reserved().await.unwrap()[&host].cpu_millis, 400);
}

#[tokio::test]
async fn what_is_removed_leaves_a_tombstone() {
    let db = Database::new();
    let store = db.open().await;
    let rows = lab("demo", 2);
    save(&store, rows.clone()).await.unwrap();
    let (nodes, wires): (Vec<_>, Vec<_>) =
        (rows.nodes.keys().copied().collect(), rows.wire_ids().into_iter().collect());
    assert!(store.removed_of(&nodes).await.unwrap().is_empty());
    let mut gone = planned(&rows, &LabSpec::default());
    gone.lab.wanted = Wanted::Absent;
    gone.nodes.clear();
    gone.links.clear();
    gone.nics.clear();
    gone.hosts.clear();
    save(&store, gone).await.unwrap();
    assert!(store.rows(rows.lab.uid).is_none());
    assert_eq!(store.removed_of(&nodes).await.unwrap(), nodes);
    assert_eq!(store.removed_wires_of(&wires).await.unwrap(), wires);
    assert!(wires.iter().all(|w| store.lab_of_wire(*w).is_none()));
    store.close().await;
    assert!(db.open().await.all().is_empty());
}

#[tokio::test]
async fn files_are_kept_while_a_lab_names_them() {
    use netloom_model::id::Digest;
    let db = Database::new();
    let store = db.open().await;
    let (kept, dropped) = (Digest::of(b"kept"), Digest::of(b"dropped"));
    let mut tx = store.begin("test").await.unwrap();
    tx.put_file(&kept, b"kept").await.unwrap();
    tx.put_file(&dropped, b"dropped").await.unwrap();
    let now = tx.now();
    tx.prune_files(now + 1, &[kept.clone()].into()).await.unwrap();
    assert_eq!(tx.file_sizes(&[&kept, &dropped].into()).await.unwrap(), [(kept.clone(), 4)].into());
    tx.commit().await.unwrap();
    assert_eq!(store.file(&kept).await.unwrap().unwrap(), b"kept");
    assert_eq!(store.file(&dropped).await.unwrap(), None);
}
