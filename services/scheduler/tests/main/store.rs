//! The contract of the store, kept by every database: each case has one of its own.

use std::sync::Arc;
use std::time::Duration;

use netloom_model::id::HostId;
use netloom_model::kind::Catalogue;
use netloom_model::observed::NEEDS_RESTART;
use netloom_model::plan::Plan;
use netloom_model::spec::{LabSpec, LinkSpec, NodeSpec};
use netloom_model::state::{LinkState, NodeState, Runtime, Wanted};
use netloom_scheduler::place::Room;
use netloom_scheduler::plan::{Context, plan};
use netloom_scheduler::policy::HostPolicy;
use netloom_scheduler::quota::Quota;
use netloom_scheduler::rows::{Far, LabRows, OperationKind, OperationRow, OperationState};
use netloom_scheduler::store::{Database, Event, LabView, Object, Of, Reading, Store};
use netloom_service::testing::postgres::Postgres;
use netloom_service::testing::redis::Redis;
use netloom_service::testing::require;
use netloom_service::testing::wire::Wire;

mod reservations;

use self::reservations::{a_race_for_the_last_room_has_one_winner, what_gives_room_back_is_not_refused};

/// A bus that wakes nobody else.
fn alone() -> Arc<dyn netloom_bus::Bus> {
    netloom_bus::open(None).unwrap()
}

/// A database of a case's own.
trait Own {
    fn database(&self) -> Database;

    async fn open(&self) -> Store {
        Store::open(&self.database(), 1_000, alone()).await.unwrap()
    }
}

impl Own for tempfile::TempDir {
    fn database(&self) -> Database {
        Database::File(self.path().join("s.db"))
    }
}

impl Own for Postgres {
    fn database(&self) -> Database {
        Database::named(&self.url())
    }
}

/// Makes two tests of each case.
macro_rules! on_both {
    ($($case:ident),+ $(,)?) => {
        mod sqlite {$(
            #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $case() {
                super::$case(&tempfile::tempdir().unwrap()).await;
            }
        )+}

        mod postgres {$(
            #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $case() {
                if super::require(concat!(module_path!(), "::", stringify!($case)), "postgres") {
                    super::$case(&super::Postgres::start()).await;
                }
            }
        )+}
    };
}

on_both!(
    rows_are_read_back_as_they_were_written,
    names_are_unique_ignoring_case,
    a_lab_has_one_active_operation,
    events_are_numbered_without_a_gap_under_many_writers,
    events_of_two_stores_are_numbered_as_they_are_made_to_last,
    tallies_of_the_list_are_those_of_the_rows,
    reservations_count_what_is_placed_and_wanted_once,
    what_is_removed_leaves_a_tombstone,
    no_two_links_have_one_network_identifier,
    files_are_kept_while_a_lab_names_them,
    who_looks_after_a_host_is_woken_for_its_labs_alone,
    when_hosts_were_heard_of_is_kept_for_many_at_once,
    what_is_said_of_hosts_and_projects_is_kept,
    a_race_for_the_last_room_has_one_winner,
    what_gives_room_back_is_not_refused,
);

fn rooms() -> Vec<Room> {
    vec![Room {
        host: "h1".parse().unwrap(),
        heard: true,
        runtimes: [Runtime::Docker].into(),
        cpu_millis: 100_000,
        memory_bytes: 1 << 40,
        cpu_reserved: 0,
        memory_reserved: 0,
        disk_bytes: None,
        disk_reserved: 0,
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
        disk_request_bytes: 1 << 30,
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

async fn rows_are_read_back_as_they_were_written(db: &impl Own) {
    let store = db.open().await;
    let rows = lab("Demo", 4);
    save(&store, rows.clone()).await.unwrap();
    let mut changed = planned(&rows, &spec(2));
    changed.lab.completed = Some(spec(4).into());
    changed.lab.traceparent = "00-1-2-01".into();
    let node = changed.nodes.values_mut().next().unwrap();
    node.observed = Some(netloom_model::observed::Observed::absent(node.uid, rows.lab.uid).into());
    node.removal = "because".into();
    save(&store, changed).await.unwrap();
    let written = store.rows(rows.lab.uid).unwrap();
    store.close().await;
    let store = db.open().await;
    assert_eq!(store.rows(rows.lab.uid).unwrap(), written);
    assert_eq!(store.rows_of("demo").unwrap(), written);
    assert!(written.wire_ids().iter().all(|w| store.lab_of_wire(*w) == Some(rows.lab.uid)));
}

async fn names_are_unique_ignoring_case(db: &impl Own) {
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

async fn a_lab_has_one_active_operation(db: &impl Own) {
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
    store.close().await;
    let store = db.open().await;
    assert_eq!(active(&store), [second.clone()], "also after a start");
    let page = store.list_operations(1, "").await.unwrap();
    assert_eq!((page.rows, page.more), (vec![second.clone()], true));
    let page = store.list_operations(1, &second.id.to_string()).await.unwrap();
    assert_eq!((page.rows, page.more), (vec![first], false));
}

async fn events_are_numbered_without_a_gap_under_many_writers(db: &impl Own) {
    let store = Arc::new(db.open().await);
    let rows = lab("demo", 1);
    let write = |i: usize| {
        let (store, object) = (store.clone(), Object::Lab(Box::new(LabView::whole(&rows))));
        async move {
            for _ in 0..10 {
                let mut tx = store.begin("test").await.unwrap();
                tx.event(Event::new("demo", false, object.clone()));
                tx.event(Event::new("demo", false, object.clone()));
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

/// Each store has a write of its own under way, and neither knows of the other's.
async fn events_of_two_stores_are_numbered_as_they_are_made_to_last(db: &impl Own) {
    const WRITES: u64 = 200;
    let one = Arc::new(db.open().await);
    let stores = [one.clone(), Arc::new(one.beside(&db.database()).await.unwrap())];
    let event = Event::new("demo", false, Object::Lab(Box::new(LabView::whole(&lab("demo", 1)))));
    let writers = stores.iter().cloned().map(|store| {
        let event = event.clone();
        tokio::spawn(async move {
            for i in 0..WRITES / 2 {
                let mut tx = store.begin("test").await.unwrap();
                (0..=i % 3).for_each(|_| tx.event(event.clone()));
                // One that is given up takes no numbers.
                if i % 5 > 0 {
                    tx.commit().await.unwrap();
                }
            }
        })
    });
    let writers: Vec<_> = writers.collect();
    // Who follows them meanwhile misses none.
    let (mut seen, of) = (0, Of::default());
    loop {
        let over = writers.iter().all(|writer| writer.is_finished());
        let reading = one.read_events(seen, &of, 1_000).await.unwrap();
        let Reading::Events(events) = reading else { panic!("{reading:?}") };
        for event in events {
            assert_eq!(event.sequence, seen + 1);
            seen += 1;
        }
        if over {
            break;
        }
    }
    for writer in writers {
        writer.await.unwrap();
    }
    let written = 2 * (0..WRITES / 2).filter(|i| i % 5 > 0).map(|i| i % 3 + 1).sum::<u64>();
    assert_eq!(seen, written);
    assert_eq!(stores.iter().map(|store| store.last_event()).max(), Some(written));
}

async fn tallies_of_the_list_are_those_of_the_rows(db: &impl Own) {
    let store = db.open().await;
    for (i, name) in ["c", "A", "b", "D"].iter().enumerate() {
        let mut rows = lab(name, i + 1);
        for (j, node) in rows.nodes.values_mut().enumerate() {
            node.state = [NodeState::Ready, NodeState::Failed, NodeState::Unknown][j % 3];
            node.replaced = j == 3;
            node.wanted = if j == 3 { Wanted::Absent } else { Wanted::Running };
        }
        for (j, link) in rows.links.values_mut().enumerate() {
            link.state = LinkState::Down;
            (link.enabled, link.reason) = match j % 3 {
                0 => (true, format!("a:eth1: {NEEDS_RESTART}; it has it from its next start on")),
                1 => (false, "it is unplugged".to_owned()),
                _ => (true, "the interface is down in its node".to_owned()),
            };
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
    let most = &rest.rows[0];
    let counts = [&most.needs_restart, &most.unplugged, &most.links]
        .map(|all| all.iter().map(|(_, n)| n).sum::<u32>());
    assert!(counts.iter().all(|n| *n > 0), "each sort of links is counted by itself: {counts:?}");
}

async fn reservations_count_what_is_placed_and_wanted_once(db: &impl Own) {
    let store = db.open().await;
    let host: HostId = "h1".parse().unwrap();
    let (one, other) = (lab("one", 3), lab("other", 2));
    save(&store, one.clone()).await.unwrap();
    save(&store, other.clone()).await.unwrap();
    assert_eq!(store.reserved().await.unwrap()[&host].cpu_millis, 500);
    let mut tx = store.begin("test").await.unwrap();
    let others = tx.reserved_by_others(one.lab.uid).await.unwrap();
    assert_eq!((others[&host].cpu_millis, others[&host].memory_bytes), (200, 2 << 20));
    assert_eq!(others[&host].disk_bytes, 2 << 30);
    drop(tx);
    // Nodes that leave, and former selves, do not count.
    let mut changed = spec(3);
    changed.nodes[0].env.insert("A".into(), "1".into());
    changed.nodes.remove(2);
    changed.links.clear();
    save(&store, planned(&one, &changed)).await.unwrap();
    assert_eq!(store.reserved().await.unwrap()[&host].cpu_millis, 400);
}

async fn what_is_removed_leaves_a_tombstone(db: &impl Own) {
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

async fn no_two_links_have_one_network_identifier(db: &impl Own) {
    let store = db.open().await;
    let with = |id: &str, vni| {
        let mut rows = lab(id, 2);
        for link in rows.links.values_mut() {
            link.vni = Some(vni);
            link.far = Some(Far::to("h2".parse().unwrap()));
        }
        rows
    };
    let first = with("one", 7);
    save(&store, first.clone()).await.unwrap();
    assert!(store.vnis(|vnis| vnis.contains(&7)));
    assert!(save(&store, with("two", 7)).await.is_err(), "it is in use");
    save(&store, with("three", 8)).await.unwrap();
    store.close().await;
    let store = db.open().await;
    assert_eq!(store.rows(first.lab.uid).unwrap().links, first.links);
    assert_eq!(store.vnis(Clone::clone), [7, 8].into());
    // Free again when its link's row is gone.
    let mut without = first.clone();
    without.links.clear();
    save(&store, without).await.unwrap();
    assert_eq!(store.vnis(Clone::clone), [8].into());
    save(&store, with("two", 7)).await.unwrap();
}

async fn what_is_said_of_hosts_and_projects_is_kept(db: &impl Own) {
    let store = db.open().await;
    let host: HostId = "h1".parse().unwrap();
    let policy = HostPolicy {
        labels: [("rack".to_owned(), "2".to_owned())].into(),
        taints: [("gpu".to_owned(), String::new())].into(),
        cpu_overcommit: 2.5,
        system_memory_bytes: 1 << 40,
        disk_overcommit: 1.5,
        system_disk_bytes: 1 << 41,
        ..HostPolicy::default()
    };
    let quota = |project: &str, nodes| Quota {
        project: project.into(),
        nodes,
        disk_bytes: nodes.map(|n| n << 20),
        ..Quota::default()
    };
    let mut tx = store.begin("test").await.unwrap();
    tx.add_host(&host).await.unwrap();
    assert_eq!(tx.host(&host).await.unwrap().unwrap().policy, HostPolicy::default());
    tx.put_policy(&host, &policy).await.unwrap();
    assert_eq!(tx.host(&host).await.unwrap().unwrap().policy, policy);
    for (project, nodes) in [("b", Some(1)), ("A", None), ("B", Some(1 << 40))] {
        tx.put_quota(&quota(project, nodes)).await.unwrap();
    }
    assert_eq!(tx.quota("a").await.unwrap(), Some(quota("A", None)));
    tx.commit().await.unwrap();
    let page = store.list_quotas(1, "").await.unwrap();
    assert_eq!((page.rows, page.more), (vec![quota("A", None)], true));
    let page = store.list_quotas(1, "A").await.unwrap();
    assert_eq!((page.rows, page.more), (vec![quota("b", Some(1 << 40))], false), "as it was first written");
    let mut tx = store.begin("test").await.unwrap();
    assert!(tx.remove_quota("a").await.unwrap() && !tx.remove_quota("a").await.unwrap());
    tx.commit().await.unwrap();
    assert_eq!(store.quota("A").await.unwrap(), None);
}

async fn who_looks_after_a_host_is_woken_for_its_labs_alone(db: &impl Own) {
    let store = db.open().await;
    let [h1, h2] = ["h1", "h2"].map(|id| id.parse::<HostId>().unwrap());
    let labs_on = |host| store.on(host).iter().map(|rows| rows.lab.id.to_string()).collect::<Vec<_>>();
    let (mut on_h1, mut on_h2) = (store.subscribe_on(&h1), store.subscribe_on(&h2));
    let mut woken = || {
        [&mut on_h1, &mut on_h2].map(|bell| {
            let woken = bell.has_changed().unwrap();
            bell.mark_unchanged();
            woken
        })
    };
    let one = lab("one", 2);
    save(&store, one.clone()).await.unwrap();
    assert_eq!(woken(), [true, false]);
    assert_eq!((labs_on(&h1), labs_on(&h2)), (vec!["one".to_owned()], vec![]));
    let was = store.revision_of(one.lab.uid);
    let nowhere = LabRows::new("nowhere".parse().unwrap(), 1);
    save(&store, nowhere).await.unwrap();
    assert_eq!(woken(), [false, false]);
    assert_eq!(store.revision_of(one.lab.uid), was);
    // Whoever looks after the host that it left is told, too.
    let mut moved = one.clone();
    moved.hosts = [h2.clone()].into();
    for node in moved.nodes.values_mut() {
        node.host = Some(h2.clone());
    }
    save(&store, moved).await.unwrap();
    assert_eq!(woken(), [true, true]);
    assert_eq!((labs_on(&h1), labs_on(&h2)), (vec![], vec!["one".to_owned()]));
    assert!(store.revision_of(one.lab.uid) > was);
}

async fn when_hosts_were_heard_of_is_kept_for_many_at_once(db: &impl Own) {
    let store = db.open().await;
    let hosts: Vec<HostId> = (0..100).map(|n| format!("h{n:03}").parse().unwrap()).collect();
    let mut tx = store.begin("test").await.unwrap();
    for host in &hosts {
        tx.add_host(host).await.unwrap();
    }
    let heard: Vec<(HostId, i64)> = hosts.iter().skip(1).cloned().zip(50..).collect();
    tx.put_heard(&heard).await.unwrap();
    tx.put_heard(&[]).await.unwrap();
    tx.commit().await.unwrap();
    let page = store.list_hosts(200, "").await.unwrap();
    let at: Vec<i64> = page.rows.iter().map(|row| row.heard_us).collect();
    assert_eq!((at.len(), at[0]), (100, 0));
    assert!(at[1..].iter().all(|at| *at == 50), "{at:?}");
}

async fn files_are_kept_while_a_lab_names_them(db: &impl Own) {
    use netloom_model::id::Digest;
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

/// Two schedulers on one database: whoever comes second stands by, leads as soon as the first is gone, and nothing of the first's is written after that.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_scheduler_leads_at_a_time() {
    if !require("store::one_scheduler_leads_at_a_time", "postgres") {
        return;
    }
    let mut server = Postgres::start();
    let first = server.open().await;
    let term = first.term();
    let database = server.database();
    let second = tokio::spawn(async move { Store::open(&database, 1_000, alone()).await.unwrap() });
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!second.is_finished(), "the first leads");
    // A server that is started again takes all sessions with it: whoever is quicker leads.
    save(&first, lab("before", 1)).await.unwrap();
    server.kill();
    assert!(save(&first, lab("lost", 1)).await.is_err());
    server.start_again();
    let second = if first_leads_on(&first).await {
        first.close().await;
        second.await.unwrap()
    } else {
        second.await.unwrap()
    };
    assert!(second.rows_of("before").is_some(), "what was answered is there");
    assert!(second.term() > term);
    // Even one that noticed nothing writes nothing more.
    let refused = save(&first, lab("late", 1)).await;
    assert!(refused.is_err(), "{refused:?}");
    save(&second, lab("after", 1)).await.unwrap();
}

/// Whether a scheduler whose session was lost has it again: true when it writes after a while, false when it was told that another one leads.
async fn first_leads_on(store: &Store) -> bool {
    tokio::select! {
        _ = store.deposed() => false,
        () = tokio::time::sleep(Duration::from_secs(5)) => true,
    }
}

/// The session that holds the lead is the only thing that is lost: another one takes over, and the former leader's writes are refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_leader_that_does_not_know_it_was_deposed_writes_nothing() {
    if !require("store::a_leader_that_does_not_know_it_was_deposed_writes_nothing", "postgres") {
        return;
    }
    let server = Postgres::start();
    let former = server.open().await;
    assert!(former.leads().await.unwrap());
    // What a network does that fails: the lock is free again, while everything else of the leader's lives.
    server.run("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'");
    server.run("UPDATE meta SET value = CAST(CAST(value AS BIGINT) + 1 AS TEXT) WHERE key = 'term'");
    assert!(!former.leads().await.unwrap(), "it has no leases renewed any more");
    let refused = save(&former, lab("late", 1)).await;
    assert!(matches!(refused, Err(netloom_scheduler::error::Error::Deposed)), "{refused:?}");
    tokio::time::timeout(Duration::from_secs(60), former.deposed()).await.unwrap();
}

/// Only the session that holds the lead is lost, again and again, while the leader goes on writing: whoever leads next knows all that was answered before.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_next_leader_knows_all_that_was_answered() {
    if !require("store::the_next_leader_knows_all_that_was_answered", "postgres") {
        return;
    }
    let server = Postgres::start();
    let first = server.open().await;
    let database = server.database();
    let second = tokio::spawn(async move { Store::open(&database, 1_000, alone()).await.unwrap() });
    let mut answered = Vec::new();
    let end = tokio::time::Instant::now() + Duration::from_secs(120);
    for n in 0.. {
        assert!(tokio::time::Instant::now() < end, "the second never led");
        if n % 20 == 0 {
            server.run("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'");
        }
        let id = format!("lab{n}");
        match save(&first, lab(&id, 1)).await {
            Ok(()) => answered.push(id),
            Err(_) if second.is_finished() => break,
            Err(_) => {}
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let second = second.await.unwrap();
    assert!(!answered.is_empty());
    for id in answered {
        assert!(second.rows_of(&id).is_some(), "{id} was answered");
    }
    save(&second, lab("after", 1)).await.unwrap();
}

/// The leader's machine falls silent in the middle of a write, which keeps the row of the term: the next one waited for it until the server's kernel gave the connection up, and the silent one
/// went on saying that it leads, and did not end either.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_leader_that_fell_silent_in_a_write_ends_and_the_next_one_leads() {
    if !require("store::a_leader_that_fell_silent_in_a_write_ends_and_the_next_one_leads", "postgres") {
        return;
    }
    let server = Postgres::start();
    let wire = Wire::to(server.address()).await;
    let far = Database::named(&Postgres::url_at(&wire.at.to_string()));
    let silent = Store::open(&far, 1_000, alone()).await.unwrap();
    save(&silent, lab("before", 1)).await.unwrap();
    let write = silent.begin("test").await.unwrap();
    wire.silence();

    let begun = tokio::time::Instant::now();
    let ends = async {
        let why = silent.deposed().await;
        assert!(why.contains("not answered"), "{why}");
        assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
        // What the server does when its keepalives are not answered; over this wire its own machine answers them.
        server.run("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'");
        silent.close().await;
        assert!(begun.elapsed() < Duration::from_secs(9), "{:?}", begun.elapsed());
    };
    let commits = async {
        assert!(write.commit().await.is_err());
        assert!(begun.elapsed() < Duration::from_secs(12), "{:?}", begun.elapsed());
    };
    let leads = async {
        let next = server.open().await;
        assert!(begun.elapsed() < Duration::from_secs(12), "{:?}", begun.elapsed());
        assert!(next.term() > silent.term());
        assert!(next.rows_of("before").is_some(), "what was answered is there");
        save(&next, lab("after", 1)).await.unwrap();
    };
    tokio::select! {
        () = tokio::time::sleep(Duration::from_secs(30)) => panic!("they go on without end"),
        _ = async { tokio::join!(ends, commits, leads) } => {}
    }
}

/// Who stands by is woken when the lead is given up, and leads without it, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_lead_that_is_given_up_is_taken_at_once_and_without_redis_a_moment_later() {
    let test = "store::a_lead_that_is_given_up_is_taken_at_once_and_without_redis_a_moment_later";
    if !require(test, "postgres") || !require(test, "redis") {
        return;
    }
    let (server, mut redis) = (Postgres::start(), Redis::start());
    let bus = || netloom_bus::open(Some(&redis.url())).unwrap();
    let stand_by = |bus| {
        let database = server.database();
        tokio::spawn(async move { Store::open(&database, 1_000, bus).await.unwrap() })
    };
    let mut leads = stand_by(bus()).await.unwrap();
    let mut quickest = Duration::MAX;
    for _ in 0..5 {
        let next = stand_by(bus());
        // Until it listens, and long before it would try again by itself.
        tokio::time::sleep(Duration::from_millis(150)).await;
        assert!(!next.is_finished());
        let begun = tokio::time::Instant::now();
        leads.close().await;
        leads = next.await.unwrap();
        quickest = quickest.min(begun.elapsed());
    }
    assert!(quickest < Duration::from_millis(300), "by itself it tries every half second: {quickest:?}");
    let next = stand_by(bus());
    tokio::time::sleep(Duration::from_millis(150)).await;
    redis.kill();
    leads.close().await;
    let leads = tokio::time::timeout(Duration::from_secs(20), next).await.expect("it leads").unwrap();
    save(&leads, lab("after", 1)).await.unwrap();
}
