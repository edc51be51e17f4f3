//! What the server of PostgreSQL does about sessions that hold what others wait for.

use std::time::Duration;

use netloom_database::{Access, Database};
use netloom_service::testing::postgres::Postgres;
use netloom_service::testing::require;
use netloom_service::testing::wire::Wire;
use sqlx::{AssertSqlSafe, Executor as _, Row as _};
use tokio::time::{Instant, timeout};

/// What one that waits for a write of a lost machine has to wait at most.
const BOUND: Duration = Duration::from_secs(12);

/// Such a write, in which nothing happens any more although its connection stands, kept its rows until the server's kernel gave the connection up: two hours.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_whose_machine_fell_silent_keeps_others_waiting_for_seconds_only() {
    let test = "postgres::a_write_whose_machine_fell_silent_keeps_others_waiting_for_seconds_only";
    if !require(test, "postgres") {
        return;
    }
    let server = Postgres::start();
    let wire = Wire::to(server.address()).await;
    let far = Database::named(&Postgres::url_at(&wire.at.to_string()));
    let near = Database::named(&Postgres::url_at(&server.address()));
    for access in [Access::Read, Access::Write, Access::WriteSoon, Access::Hold] {
        let pool = near.pool(1, access).await.unwrap();
        for (name, value) in [
            ("tcp_keepalives_idle", "1"),
            ("tcp_keepalives_interval", "1"),
            ("tcp_keepalives_count", "3"),
            ("tcp_user_timeout", "4000"),
            ("lock_timeout", "15s"),
            ("idle_in_transaction_session_timeout", if access == Access::Hold { "0" } else { "5s" }),
        ] {
            let asked = AssertSqlSafe(format!("SELECT current_setting('{name}') AS value"));
            let row = pool.fetch_one(asked).await.unwrap();
            assert_eq!(row.try_get::<String, _>("value").unwrap(), value, "{name} of {access:?}");
        }
    }

    server.run("CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT); INSERT INTO meta VALUES ('term', '1')");
    let (lost, next) =
        (far.pool(1, Access::Write).await.unwrap(), near.pool(1, Access::Write).await.unwrap());
    let keeps = far.pool(1, Access::Hold).await.unwrap();
    let mut lock = keeps.begin().await.unwrap();
    lock.execute("SELECT CAST(pg_advisory_xact_lock(7) AS TEXT) AS lock").await.unwrap();
    let mut open = lost.begin().await.unwrap();
    open.execute("SELECT value FROM meta WHERE key = 'term' FOR SHARE").await.unwrap();
    wire.silence();
    let begun = Instant::now();
    let written = timeout(BOUND, next.execute("UPDATE meta SET value = '2' WHERE key = 'term'")).await;
    assert_eq!(written.expect("it waits no longer").unwrap().rows_affected(), 1);
    assert!(begun.elapsed() > Duration::from_secs(2), "it waited for the write");
    // What is held on purpose is held on.
    let row = next.fetch_one("SELECT pg_try_advisory_lock(7) AS free").await.unwrap();
    assert!(!row.try_get::<bool, _>("free").unwrap());
    // Dropped, they would wait for an answer.
    std::mem::forget((open, lock));
}
