//! What wakes and tells who is there, within one process and over Redis.

use std::sync::Arc;
use std::time::Duration;

use netloom_bus::{Bus, Here, Wakeups};
use netloom_service::testing::redis::Redis;
use netloom_service::testing::{eventually, require};
use tokio::time::{Instant, timeout};

const BOUND: Duration = Duration::from_secs(20);

async fn comes(wakeups: &mut Wakeups) {
    timeout(BOUND, wakeups.next()).await.expect("a wake-up");
}

async fn comes_not(wakeups: &mut Wakeups) {
    assert!(timeout(Duration::from_millis(300), wakeups.next()).await.is_err(), "nobody woke it");
}

/// What two replicas see of each other.
async fn contract(one: Arc<dyn Bus>, other: Arc<dyn Bus>) {
    // What was woken before somebody listened is over; what comes after it is not lost, before it is waited for either.
    one.wake("a").await;
    let (mut a, mut b) = (other.listen("a").await, other.listen("b").await);
    comes_not(&mut a).await;
    one.wake("a").await;
    one.wake("a").await;
    comes(&mut a).await;
    comes_not(&mut b).await;
    let mut two = other.listen("b").await;
    one.wake("b").await;
    comes(&mut b).await;
    comes(&mut two).await;

    let long = Duration::from_secs(60);
    one.announce("x/1", "first", long).await;
    one.announce("x/1", "again", long).await;
    one.announce("x/2", "second", Duration::from_millis(300)).await;
    one.announce("y/1", "another", long).await;
    let known = other.present("x/").await.expect("it is known");
    let known: Vec<(&str, &str)> = known.iter().map(|(who, what)| (who.as_str(), what.as_str())).collect();
    assert_eq!(known, [("x/1", "again"), ("x/2", "second")]);
    eventually("who says no more is gone", BOUND, || async {
        other.present("x/").await.is_some_and(|all| all.len() == 1)
    })
    .await;
}

#[tokio::test]
async fn within_one_process() {
    let here: Arc<dyn Bus> = Arc::new(Here::default());
    contract(here.clone(), here).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn over_redis_and_without_it() {
    if !require("over_redis_and_without_it", "redis") {
        return;
    }
    let mut server = Redis::start();
    let replica = || netloom_bus::open(Some(&server.url())).unwrap();
    let (one, other) = (replica(), replica());
    contract(one.clone(), other.clone()).await;

    // Flushed under those who listen.
    let mut listens = other.listen("f").await;
    one.wake("f").await;
    comes(&mut listens).await;
    assert_eq!(server.ask(&["FLUSHALL"]).trim(), "OK");
    one.wake("f").await;
    comes(&mut listens).await;
    assert_eq!(other.present("x/").await.map(|all| all.len()), Some(0));

    // Killed: nobody waits for it, and nobody is told what it cannot know.
    server.kill();
    let begun = Instant::now();
    one.wake("f").await;
    one.announce("x/1", "here", BOUND).await;
    assert_eq!(other.present("x/").await, None);
    let mut late = other.listen("f").await;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    // Back, and empty: each who listened looks once, since something may have been missed, and all goes on.
    server.start_again();
    comes(&mut listens).await;
    comes(&mut late).await;
    one.wake("f").await;
    comes(&mut listens).await;
    comes(&mut late).await;
    one.announce("x/1", "here", BOUND).await;
    assert_eq!(other.present("x/").await.map(|all| all.len()), Some(1));
}

#[test]
fn what_is_no_url_is_named() {
    let said = format!("{:#}", netloom_bus::open(Some("nowhere")).err().expect("it is none"));
    assert!(said.contains("redis://host:6379"), "{said}");
}
