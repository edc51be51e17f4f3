//! Which database a service has, and how it is opened.
//!
//! Statements use `$1` placeholders and plain types, which SQLite and PostgreSQL both understand, and run through sqlx's `Any`: one code for both, chosen when the database is opened. What
//! differs is here, and in the two folders of migrations that each service has. A statement with hundreds of placeholders asks [`Mark`] for them.
//!
//! A session of PostgreSQL may hold what others wait for: rows that a write touched, or a lock. So the server is told to give up each session whose machine does not answer any more, and each
//! write in which nothing happens: without that, the power cut of one machine would stop all others until the kernel of the server's machine notices, which takes it two hours.

use std::fmt::{self, Display};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Once;

use sqlx::any::AnyPoolOptions;
use sqlx::{Any, AnyConnection, Connection as _, Executor as _, Pool};

/// A database: SQLite for one program of its kind, PostgreSQL for several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Database {
    /// A file of SQLite.
    File(PathBuf),
    /// A URL of PostgreSQL, `postgres://user:password@host/database`, with the parameters of libpq.
    Postgres(String),
}

/// What the connections of a pool are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reading only; the database is there.
    Read,
    /// Writing, too: what was answered survives a power cut. A file that is not there is made. Somebody calls [`Database::checkpoint`] now and then.
    Write,
    /// The same, but a power cut may take the last of what was answered from a file, for which it is not waited.
    WriteSoon,
    /// The same, and each transaction may stand idle for as long as its owner has to do with what it locks.
    Hold,
}

impl Database {
    /// What a configuration names: a URL, or a file.
    pub fn named(text: &str) -> Database {
        match text.split_once("://") {
            Some(("postgres" | "postgresql", _)) => Database::Postgres(text.to_owned()),
            _ => Database::File(PathBuf::from(text)),
        }
    }

    /// The file, where it is one.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Database::File(path) => Some(path),
            Database::Postgres(_) => None,
        }
    }

    /// What a session of [`Access::Hold`] runs where it writes: until that transaction is over it must not stand idle, as no other write may.
    pub const IN_WRITE: &'static str = "SET LOCAL idle_in_transaction_session_timeout = 5000";

    /// How a write begins: with the lock that it needs, so that it never has to be begun again.
    pub fn begin(&self) -> &'static str {
        match self {
            Database::File(_) => "BEGIN IMMEDIATE",
            Database::Postgres(_) => "BEGIN",
        }
    }

    /// One connection, beside the pools. Its transactions may stand idle.
    pub async fn connect(&self) -> sqlx::Result<AnyConnection> {
        install_drivers();
        match self {
            Database::File(path) => AnyConnection::connect(&format!("sqlite:{}", escaped(path))).await,
            Database::Postgres(url) => {
                let mut session = AnyConnection::connect(url).await?;
                session.execute(ALIVE).await?;
                Ok(session)
            }
        }
    }

    /// Works into a file what was committed beside it, unless that is little; writes go on meanwhile. A server of PostgreSQL does so by itself.
    pub async fn checkpoint(&self) -> sqlx::Result<()> {
        let Database::File(path) = self else { return Ok(()) };
        let mut log = path.clone().into_os_string();
        log.push("-wal");
        // It is as long as what it held at most since it was begun.
        if std::fs::metadata(log).map_or(0, |log| log.len()) < LONG {
            return Ok(());
        }
        let mut connection = self.connect().await?;
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").await?;
        connection.close().await
    }

    /// So many connections at most.
    pub async fn pool(&self, connections: u32, access: Access) -> sqlx::Result<Pool<Any>> {
        install_drivers();
        let (url, set): (String, &[&'static str]) = match self {
            Database::File(path) => {
                let (mode, set): (_, &[&'static str]) = match access {
                    Access::Read => ("ro", &[FULL]),
                    Access::Write => ("rwc", &[FULL, BESIDE]),
                    Access::WriteSoon | Access::Hold => ("rwc", &[NORMAL]),
                };
                (format!("sqlite:{}?mode={mode}", escaped(path)), set)
            }
            Database::Postgres(url) => match access {
                Access::Hold => (url.clone(), &[ALIVE, WAITS]),
                Access::Read | Access::Write | Access::WriteSoon => (url.clone(), &[ALIVE, WAITS, BUSY]),
            },
        };
        let options =
            AnyPoolOptions::new().max_connections(connections).after_connect(move |connection, _| {
                Box::pin(async move {
                    for set in set {
                        connection.execute(*set).await?;
                    }
                    Ok(())
                })
            });
        options.connect(&url).await
    }
}

impl Display for Database {
    /// Without the password that a URL may hold.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Database::File(path) => path.display().fmt(f),
            Database::Postgres(url) => {
                let (scheme, rest) = url.split_once("://").unwrap_or(("postgres", url));
                let place = rest.split_once('@').map_or(rest, |(_, place)| place);
                write!(f, "{scheme}://{}", place.split('?').next().unwrap_or_default())
            }
        }
    }
}

const FULL: &str = "PRAGMA busy_timeout = 5000; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL";
const NORMAL: &str = "PRAGMA busy_timeout = 5000; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL";
/// A checkpoint is made in a commit, for which somebody waits, only where nobody made one beside the commits for 64 MiB.
const BESIDE: &str = "PRAGMA wal_autocheckpoint = 16384";
/// So many bytes of a log are worth a checkpoint.
const LONG: u64 = 4 << 20;
/// The server of PostgreSQL ends a session whose machine has not answered for four seconds.
const ALIVE: &str = "SET tcp_keepalives_idle = 1; SET tcp_keepalives_interval = 1; SET tcp_keepalives_count = 3; SET tcp_user_timeout = 4000";
/// It ends one that began a write and does not go on with it for so long.
const BUSY: &str = "SET idle_in_transaction_session_timeout = 5000";
/// A statement that waits for what another session has fails after longer than one that is dead can have it.
const WAITS: &str = "SET lock_timeout = 15000";

/// How a statement marks the places of its values. SQLite takes a numbered mark for a name, and looks through all names of a statement for each: with a thousand of them that takes
/// longer than the statement itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// `?`: the next value.
    Next,
    /// `$1`: the value of that number.
    Numbered,
}

impl Mark {
    /// The one for this database.
    pub fn of(connection: &AnyConnection) -> Mark {
        match connection.backend_name() {
            "SQLite" => Mark::Next,
            _ => Mark::Numbered,
        }
    }

    /// Marks with these numbers, from 1, in parentheses.
    pub fn places(self, numbers: Range<usize>) -> String {
        let mark = |n| match self {
            Mark::Next => "?".to_owned(),
            Mark::Numbered => format!("${n}"),
        };
        let marks: Vec<String> = numbers.map(mark).collect();
        format!("({})", marks.join(", "))
    }
}

fn install_drivers() {
    static DRIVERS: Once = Once::new();
    DRIVERS.call_once(sqlx::any::install_default_drivers);
}

/// A path as it stands in a URL.
fn escaped(path: &Path) -> String {
    path.to_string_lossy().replace('%', "%25").replace('?', "%3F").replace('#', "%23")
}

#[cfg(test)]
mod tests {
    use sqlx::Row as _;

    use super::*;

    #[test]
    fn a_password_is_not_shown() {
        let database = Database::named("postgres://netloom:secret@db.lab:5432/netloom?sslmode=verify-full");
        assert_eq!(database.to_string(), "postgres://db.lab:5432/netloom");
        assert_eq!(Database::named("/var/lib/x.db"), Database::File("/var/lib/x.db".into()));
    }

    #[tokio::test]
    async fn a_file_may_have_any_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("100%25 ?a#b.db");
        let pool = Database::File(path.clone()).pool(1, Access::Write).await.unwrap();
        pool.close().await;
        assert!(path.exists());
    }

    #[tokio::test]
    async fn a_log_that_grew_is_worked_into_its_file_beside_the_writes() {
        let dir = tempfile::tempdir().unwrap();
        let database = Database::File(dir.path().join("x.db"));
        let size = |name: &str| std::fs::metadata(dir.path().join(name)).map_or(0, |file| file.len());
        let pool = database.pool(1, Access::Write).await.unwrap();
        pool.execute("CREATE TABLE t (x BLOB)").await.unwrap();
        let before = size("x.db");
        database.checkpoint().await.unwrap();
        assert_eq!(size("x.db"), before, "a short log is left as it is");
        for _ in 0..9 {
            pool.execute("INSERT INTO t VALUES (randomblob(1048576))").await.unwrap();
        }
        let (file, log) = (size("x.db"), size("x.db-wal"));
        assert!(file < 1 << 20 && log > 9 << 20, "commits leave the file, of {file} bytes, alone: {log}");
        let mut open = pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
        database.checkpoint().await.unwrap();
        assert!(size("x.db") > 9 << 20);
        open.execute("INSERT INTO t VALUES (randomblob(1048576))").await.unwrap();
        open.commit().await.unwrap();
        database.checkpoint().await.unwrap();
        let log = size("x.db-wal");
        pool.execute("INSERT INTO t VALUES (randomblob(1048576))").await.unwrap();
        assert_eq!(size("x.db-wal"), log, "the log is begun anew");
        pool.close().await;
    }

    #[tokio::test]
    async fn values_are_marked_as_the_database_reads_them() {
        assert_eq!(Mark::Numbered.places(3..6), "($3, $4, $5)");
        let dir = tempfile::tempdir().unwrap();
        let mut sqlite = Database::File(dir.path().join("x.db"))
            .pool(1, Access::Write)
            .await
            .unwrap()
            .acquire()
            .await
            .unwrap();
        let mark = Mark::of(&sqlite);
        assert_eq!(mark.places(3..6), "(?, ?, ?)");
        let statement = sqlx::AssertSqlSafe(format!(
            "SELECT column2 AS x FROM (VALUES {}, {})",
            mark.places(1..3),
            mark.places(3..5)
        ));
        let mut query = sqlx::query(statement);
        for n in 1..5i64 {
            query = query.bind(n);
        }
        let rows = query.fetch_all(&mut *sqlite).await.unwrap();
        assert_eq!(rows.iter().map(|row| row.get::<i64, _>("x")).collect::<Vec<_>>(), [2, 4]);
    }
}
