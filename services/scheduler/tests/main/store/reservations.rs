//! What is reserved on a host is reserved once, whoever else writes: two stores on one database, of which neither knows of the other.

use std::sync::Arc;

use netloom_model::id::HostId;
use netloom_model::kind::Catalogue;
use netloom_model::observed::{ComputeInventory, NetworkInventory};
use netloom_model::state::Wanted;
use netloom_scheduler::error::Error;
use netloom_scheduler::plan::{Context, plan};
use netloom_scheduler::policy::HostPolicy;
use netloom_scheduler::rows::LabRows;
use netloom_scheduler::store::{Store, Tx};
use netloom_service::testing::postgres::Postgres;
use netloom_service::testing::require;

use super::{Own, rooms, save, spec};

fn h1() -> HostId {
    "h1".parse().unwrap()
}

/// The host has so much CPU from now on.
async fn offer(store: &Store, cpu_millis: u64) {
    let mut tx = store.begin("test").await.unwrap();
    tx.add_host(&h1()).await.unwrap();
    let has = ComputeInventory { cpu_millis, memory_bytes: 1 << 40, ..ComputeInventory::default() };
    tx.put_host(&h1(), &has, &NetworkInventory::default(), 1).await.unwrap();
    tx.commit().await.unwrap();
}

/// A lab of two nodes, of 100 thousandths of a core each, where the host has room for it as this write sees it.
async fn placed(tx: &mut Tx<'_>, id: &str) -> Option<LabRows> {
    let empty = LabRows::new(id.parse().unwrap(), 1);
    let others = tx.reserved_by_others(empty.lab.uid).await.unwrap();
    let mut rooms = rooms();
    rooms[0].cpu_millis = tx.host(&h1()).await.unwrap().unwrap().compute.cpu_millis;
    rooms[0].reserve(others.get(&h1()).copied().unwrap_or_default());
    let catalogue = Catalogue::embedded();
    let ctx = Context { catalogue: &catalogue, rooms: &rooms, asked: true, revive: true, now: 5 };
    let rows = plan(&empty, &spec(2), ctx).rows;
    let are_placed = rows.nodes.values().all(|n| n.host.is_some());
    are_placed.then_some(rows)
}

/// Computes and writes, and does so again with hosts held where it was overtaken. True when it found room.
async fn deploy(store: &Store, id: &str) -> bool {
    for held in [false, true] {
        let mut tx = store.begin("test").await.unwrap();
        tx.hold_hosts(held).await.unwrap();
        let Some(rows) = placed(&mut tx, id).await else { return false };
        match tx.save(None, rows).await {
            Ok(_) => {
                tx.commit().await.unwrap();
                return true;
            }
            Err(Error::Overtaken { .. }) if !held => {}
            Err(e) => panic!("{e}"),
        }
    }
    unreachable!("who holds hosts is not overtaken")
}

async fn reserved(store: &Store) -> u64 {
    store.reserved().await.unwrap().get(&h1()).map_or(0, |r| r.cpu_millis)
}

pub async fn a_race_for_the_last_room_has_one_winner(db: &impl Own) {
    let one = Arc::new(db.open().await);
    offer(&one, 0).await;
    let other = Arc::new(one.beside(&db.database()).await.unwrap());
    for round in 1..=20 {
        // Room for one of the two labs.
        offer(&one, round * 200).await;
        let race = |store: &Arc<Store>, name: &str| {
            let (store, id) = (store.clone(), format!("{name}{round}"));
            tokio::spawn(async move { deploy(&store, &id).await })
        };
        let (a, b) = (race(&one, "a"), race(&other, "b"));
        let won = (a.await.unwrap(), b.await.unwrap());
        assert!(won.0 != won.1, "round {round}: {won:?}");
        assert_eq!(reserved(&one).await, round * 200);
    }
}

pub async fn what_gives_room_back_is_not_refused(db: &impl Own) {
    let store = db.open().await;
    offer(&store, 1_000).await;
    let mut tx = store.begin("test").await.unwrap();
    let rows = placed(&mut tx, "l").await.unwrap();
    tx.save(None, rows.clone()).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(rows.reserved()[&h1()], store.reserved().await.unwrap()[&h1()], "counted alike");
    // Two labs in one write, each computed from what the one before left.
    let mut tx = store.begin("test").await.unwrap();
    for id in ["m", "n"] {
        let rows = placed(&mut tx, id).await.unwrap();
        tx.save(None, rows).await.unwrap();
    }
    let mut fewer = rows.clone();
    fewer.nodes.values_mut().take(1).for_each(|node| node.wanted = Wanted::Absent);
    tx.save(Some(&rows), fewer).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(reserved(&store).await, 500);
    // What did not look at what is reserved gives back what it kept.
    save(&store, rows).await.unwrap();
    assert_eq!(reserved(&store).await, 600);
}

/// In PostgreSQL two writes are under way at once: what was computed from what is not so any more is refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_write_is_refused_where_another_one_reserved_or_the_host_shrank_meanwhile() {
    let test =
        "store::reservations::a_write_is_refused_where_another_one_reserved_or_the_host_shrank_meanwhile";
    if !require(test, "postgres") {
        return;
    }
    let db = Postgres::start();
    let one = db.open().await;
    offer(&one, 300).await;
    let other = one.beside(&db.database()).await.unwrap();
    let overtaken = |outcome: Result<bool, Error>| match outcome {
        Err(Error::Overtaken { host }) => assert_eq!(host, "h1"),
        outcome => panic!("{outcome:?}"),
    };
    // Another write reserves.
    let (mut first, mut second) = (one.begin("test").await.unwrap(), other.begin("test").await.unwrap());
    let (a, b) = (placed(&mut first, "a").await.unwrap(), placed(&mut second, "b").await.unwrap());
    second.save(None, b).await.unwrap();
    second.commit().await.unwrap();
    overtaken(first.save(None, a).await);
    drop(first);
    assert!(!deploy(&one, "a").await, "computed again there is no room");
    assert_eq!(reserved(&one).await, 200);
    // The host has less, takes no nodes any more, is other than was said, or is gone.
    offer(&one, 500).await;
    for n in 0..4 {
        let mut write = one.begin("test").await.unwrap();
        let rows = placed(&mut write, &format!("c{n}")).await.unwrap();
        match n {
            0 => offer(&other, 450).await,
            n => {
                let mut tx = other.begin("test").await.unwrap();
                match n {
                    1 => tx.set_cordoned(&h1(), true, None).await.unwrap(),
                    2 => tx.put_policy(&h1(), &HostPolicy::default()).await.unwrap(),
                    _ => tx.remove_host(&h1()).await.unwrap(),
                }
                tx.commit().await.unwrap();
            }
        }
        overtaken(write.save(None, rows).await);
    }
    // A host that says the same again is the same.
    offer(&one, 450).await;
    let mut write = one.begin("test").await.unwrap();
    let rows = placed(&mut write, "d").await.unwrap();
    offer(&other, 450).await;
    write.save(None, rows).await.unwrap();
    write.commit().await.unwrap();
    // Who holds hosts is not overtaken: the other one waits.
    let mut write = one.begin("test").await.unwrap();
    write.hold_hosts(true).await.unwrap();
    assert!(placed(&mut write, "e").await.is_none(), "400 of 450 are reserved");
    let waits = tokio::spawn(async move { offer(&other, 600).await });
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert!(!waits.is_finished());
    drop(write);
    waits.await.unwrap();
    assert!(deploy(&one, "e").await);
}
