//! The catalogue's rows: in SQLite for one image registry, in PostgreSQL for several that keep the same images.
//!
//! One writes at a time, also of several: a write waits for the one before. What takes longer than a write, an image on its way to the shelf for instance, is locked by name,
//! so that no replica takes away what another one brings.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use netloom_database::Access;
pub use netloom_database::Database;
use netloom_model::state::Runtime;
use sha2::{Digest as _, Sha256};
use sqlx::any::AnyRow;
use sqlx::{Any, AnyConnection, AssertSqlSafe, Connection as _, Pool, Row as _, Transaction};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use uuid::Uuid;

use crate::blob::Digest;
use crate::error::Error;
use crate::reference::Reference;
use crate::validate::{Format, Known, Presence};

pub mod blobs;

use blobs::{Blob, ImageKind};

/// An image and what hosts said of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Unique for all time.
    pub uid: String,
    /// Its reference in normal form.
    pub reference: String,
    /// What hosts said, by host.
    pub presences: Vec<Presence>,
    /// When it was first asked for or seen, in microseconds since 1970.
    pub create_time_us: i64,
    /// Its bytes in the store.
    pub stored: Option<Blob>,
    /// The kinds that it is for, by name.
    pub kinds: Vec<ImageKind>,
}

/// The columns of a presence. SQLite's truth values are numbers.
const PRESENCE: &str = "reference, host, runtime, CASE WHEN present THEN 1 ELSE 0 END AS is_present, digest, format, size_bytes, architecture, observe_time_us";
/// Names the lock that writes of several replicas take, one after the other.
const WRITES: i64 = 5_645_678_721_348;
/// How many uploads one replica can have locked at once, …
const UPLOADS: u32 = 16;
/// … and how many digests. Who finishes an upload has both: of one number for both, all could be uploads' that wait for a digest's.
const DIGESTS: u32 = 8;
/// Pause before a name that another replica has locked is tried again.
const AGAIN: Duration = Duration::from_millis(20);

/// The catalogue.
#[derive(Clone)]
pub struct Store {
    pool: Pool<Any>,
    /// Where others may work on the same rows.
    locks: Option<Locks>,
}

/// Connections that hold locks: of their own, so that whoever holds one can always write, and as many as there may be locks.
#[derive(Clone)]
struct Locks {
    pool: Pool<Any>,
    uploads: Arc<Semaphore>,
    digests: Arc<Semaphore>,
}

/// What can be locked.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Name<'a> {
    /// An upload, by its id. Whoever has one may lock a digest, too.
    Upload(&'a str),
    /// Bytes. Whoever has them locks nothing else.
    Digest(&'a Digest),
}

impl Name<'_> {
    /// The number that PostgreSQL knows it by.
    fn number(self) -> i64 {
        let name = match self {
            Name::Upload(id) => id,
            Name::Digest(digest) => digest.hex(),
        };
        let hash = Sha256::digest(format!("netloom image registry {name}"));
        let mut eight = [0; 8];
        eight.copy_from_slice(&hash[..8]);
        i64::from_be_bytes(eight)
    }
}

/// A name that no other replica has as long as this is there.
#[derive(Debug, Default)]
pub struct Lock(Option<(Transaction<'static, Any>, OwnedSemaphorePermit)>);

impl Lock {
    /// Lets go, so that whoever tries next has it. Dropped, it is let go a moment later.
    pub(crate) async fn release(self) -> Result<(), Error> {
        match self.0 {
            Some((held, _room)) => Ok(held.rollback().await?),
            None => Ok(()),
        }
    }
}

impl Store {
    /// Opens the database, which is made when it is a file that does not exist, and brings it to this version.
    pub async fn open(database: &Database) -> anyhow::Result<Store> {
        let (pool, locks) = match database {
            Database::File(path) => {
                netloom_service::installation::private_file(path)?;
                // One connection: the catalogue is small, and two writers would only wait for each other.
                let pool = database.pool(1, Access::WriteSoon).await?;
                sqlx::migrate!("migrations/sqlite").run(&pool).await?;
                (pool, None)
            }
            Database::Postgres(_) => {
                let pool = database.pool(8, Access::WriteSoon).await?;
                sqlx::migrate!("migrations/postgres").run(&pool).await?;
                let locks = Locks {
                    pool: database.pool(UPLOADS + DIGESTS, Access::Hold).await?,
                    uploads: Arc::new(Semaphore::new(UPLOADS as usize)),
                    digests: Arc::new(Semaphore::new(DIGESTS as usize)),
                };
                (pool, Some(locks))
            }
        };
        Ok(Store { pool, locks })
    }

    async fn begin(&self) -> Result<Transaction<'static, Any>, sqlx::Error> {
        let mut begun = match self.pool.begin().await {
            Err(e) => {
                // A write that the database itself took back, for want of room, leaves a connection that begins no other one.
                tracing::warn!(error = %e, "a write cannot begin; it is tried over a new connection");
                self.pool.acquire().await?.detach().close().await?;
                self.pool.begin().await?
            }
            Ok(begun) => begun,
        };
        if self.locks.is_some() {
            take_turn(&mut begun).await?;
        }
        Ok(begun)
    }

    /// Waits until no other replica has this name locked, and locks it.
    pub(crate) async fn lock(&self, name: Name<'_>) -> Result<Lock, Error> {
        loop {
            match self.try_lock(name).await? {
                Some(lock) => return Ok(lock),
                None => tokio::time::sleep(AGAIN).await,
            }
        }
    }

    /// Locks a name once there is room for its lock; none when another replica has it. Within one process whoever holds a name keeps others from it.
    pub(crate) async fn try_lock(&self, name: Name<'_>) -> Result<Option<Lock>, Error> {
        let Some(locks) = &self.locks else { return Ok(Some(Lock(None))) };
        let room = match name {
            Name::Upload(_) => &locks.uploads,
            Name::Digest(_) => &locks.digests,
        };
        let room = room.clone().acquire_owned().await.expect("it is never closed");
        let mut lock = locks.pool.begin().await?;
        if locked(&mut lock, name).await? {
            return Ok(Some(Lock(Some((lock, room)))));
        }
        lock.rollback().await?;
        Ok(None)
    }

    /// True when no other replica has this name locked. Nobody is waited for.
    pub(crate) async fn is_free(&self, name: Name<'_>) -> Result<bool, Error> {
        match self.locks {
            // It is locked for no longer than this statement.
            Some(_) => Ok(locked(&mut *self.pool.acquire().await?, name).await?),
            None => Ok(true),
        }
    }

    /// A write by whoever holds a lock: it is made to last only if the lock was held all the time.
    async fn begin_in(&self, lock: Lock) -> Result<Transaction<'static, Any>, sqlx::Error> {
        match lock.0 {
            Some((mut held, _room)) => {
                sqlx::query(Database::IN_WRITE).execute(&mut *held).await?;
                take_turn(&mut held).await?;
                Ok(held)
            }
            None => self.begin().await,
        }
    }

    /// True when others may work on the same rows.
    pub fn is_shared(&self) -> bool {
        self.locks.is_some()
    }

    /// Which catalogue this is, for all time: one that is made in its place is another.
    pub async fn id(&self) -> Result<Uuid, Error> {
        sqlx::query("INSERT INTO catalogue (one, id) VALUES (TRUE, $1) ON CONFLICT (one) DO NOTHING")
            .bind(Uuid::now_v7().to_string())
            .execute(&self.pool)
            .await?;
        let row = sqlx::query("SELECT id FROM catalogue").fetch_one(&self.pool).await?;
        let id: &str = row.try_get("id")?;
        id.parse().map_err(|_| Error::Row(id.to_owned()))
    }

    /// Replaces what was known of these references on the host.
    pub async fn record(&self, host: &str, said: &[(Reference, Presence)]) -> Result<(), Error> {
        let mut transaction = self.begin().await?;
        for (reference, _) in said {
            note(&mut transaction, reference).await?;
            sqlx::query("DELETE FROM presences WHERE reference = $1 AND host = $2")
                .bind(reference.as_str())
                .bind(host)
                .execute(&mut *transaction)
                .await?;
        }
        for (reference, presence) in said {
            // A store that is named twice in one report: the later word counts.
            sqlx::query(
                "INSERT INTO presences (reference, host, runtime, present, digest, format, size_bytes, architecture, \
                 observe_time_us) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) \
                 ON CONFLICT (reference, host, runtime) DO UPDATE SET present = excluded.present, \
                 digest = excluded.digest, format = excluded.format, size_bytes = excluded.size_bytes, \
                 architecture = excluded.architecture, observe_time_us = excluded.observe_time_us",
            )
            .bind(reference.as_str())
            .bind(host)
            .bind(presence.runtime.as_str())
            .bind(presence.present)
            .bind(&presence.digest)
            .bind(presence.format.as_str())
            .bind(i64::try_from(presence.size_bytes).unwrap_or(i64::MAX))
            .bind(&presence.architecture)
            .bind(presence.observe_time_us)
            .execute(&mut *transaction)
            .await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    /// Takes note that these images are asked for, and returns what is known of each, in order.
    pub async fn ask(&self, references: &[Reference]) -> Result<Vec<Known>, Error> {
        let mut transaction = self.begin().await?;
        let mut known = Vec::with_capacity(references.len());
        for reference in references {
            note(&mut transaction, reference).await?;
            known.push(Known {
                presences: presences(&mut transaction, reference.as_str()).await?,
                stored: blobs::of(&mut transaction, reference).await?,
            });
        }
        transaction.commit().await?;
        Ok(known)
    }

    /// What the store has under these references, in order. Nothing is taken note of.
    pub async fn resolve(&self, references: &[Option<Reference>]) -> Result<Vec<Option<Blob>>, Error> {
        let mut connection = self.pool.acquire().await?;
        let mut found = Vec::with_capacity(references.len());
        for reference in references {
            found.push(match reference {
                Some(reference) => blobs::of(&mut connection, reference).await?,
                None => None,
            });
        }
        Ok(found)
    }

    /// The preferred image of a kind.
    pub async fn preferred(&self, kind: &str) -> Result<Option<Reference>, Error> {
        let row = sqlx::query("SELECT reference FROM image_kinds WHERE kind = $1 AND preferred")
            .bind(kind)
            .fetch_optional(&self.pool)
            .await?;
        let Some(row) = row else { return Ok(None) };
        let reference: &str = row.try_get("reference")?;
        Ok(Some(reference.parse()?))
    }

    /// Keeps the key that tickets are signed with. The first that is told is the scheduler's; whoever tells another one is somebody else.
    pub async fn set_ticket_key(&self, key: &[u8]) -> Result<(), Error> {
        sqlx::query("INSERT INTO ticket_key (one, key) VALUES (TRUE, $1) ON CONFLICT (one) DO NOTHING")
            .bind(key)
            .execute(&self.pool)
            .await?;
        if self.ticket_key().await? == key { Ok(()) } else { Err(Error::OtherScheduler) }
    }

    /// Forgets it.
    pub async fn forget_ticket_key(&self) -> Result<(), Error> {
        sqlx::query("DELETE FROM ticket_key").execute(&self.pool).await?;
        Ok(())
    }

    /// The key that tickets are signed with; empty before the scheduler told it.
    pub async fn ticket_key(&self) -> Result<Vec<u8>, Error> {
        let row = sqlx::query("SELECT key FROM ticket_key").fetch_optional(&self.pool).await?;
        Ok(row.map(|r| r.try_get("key")).transpose()?.unwrap_or_default())
    }

    /// One image.
    pub async fn get(&self, reference: &Reference) -> Result<Image, Error> {
        let mut connection = self.pool.acquire().await?;
        let row = sqlx::query("SELECT uid, reference, create_time_us FROM images WHERE reference = $1")
            .bind(reference.as_str())
            .fetch_optional(&mut *connection)
            .await?
            .ok_or_else(|| Error::NotFound(reference.to_string()))?;
        let mut image = image(&row)?;
        image.presences = presences(&mut connection, reference.as_str()).await?;
        blobs::join(&mut connection, std::slice::from_mut(&mut image)).await?;
        Ok(image)
    }

    /// Images that a host or the store has, by reference, those after the one given; and whether there are more. What was asked for and is nowhere, a misspelt name
    /// for instance, is not among them.
    pub async fn list(&self, after: &str, size: u32) -> Result<(Vec<Image>, bool), Error> {
        let mut transaction = self.begin().await?;
        let mut rows = sqlx::query(
            "SELECT uid, reference, create_time_us FROM images WHERE reference > $1 AND (EXISTS \
             (SELECT 1 FROM presences p WHERE p.reference = images.reference AND p.present) OR EXISTS \
             (SELECT 1 FROM stored s WHERE s.reference = images.reference)) ORDER BY reference LIMIT $2",
        )
        .bind(after)
        .bind(i64::from(size) + 1)
        .fetch_all(&mut *transaction)
        .await?;
        let more = rows.len() > size as usize;
        rows.truncate(size as usize);
        let mut images = rows.iter().map(image).collect::<Result<Vec<Image>, Error>>()?;
        let Some(last) = images.last() else { return Ok((images, more)) };
        let said = sqlx::query(AssertSqlSafe(format!(
            "SELECT {PRESENCE} FROM presences WHERE reference > $1 AND reference <= $2 ORDER BY reference, host, runtime"
        )))
        .bind(after)
        .bind(&last.reference)
        .fetch_all(&mut *transaction)
        .await?;
        let mut next = 0;
        for row in &said {
            let reference: &str = row.try_get("reference")?;
            // Both lists are sorted by reference; what no host has is in this one only.
            while images[next].reference.as_str() < reference {
                next += 1;
            }
            if images[next].reference == reference {
                images[next].presences.push(presence(row)?);
            }
        }
        blobs::join(&mut transaction, &mut images).await?;
        Ok((images, more))
    }
}

/// Locks a name for the transaction, unless another one has it.
async fn locked(connection: &mut AnyConnection, name: Name<'_>) -> Result<bool, sqlx::Error> {
    let locked = sqlx::query("SELECT pg_try_advisory_xact_lock($1) AS locked").bind(name.number());
    locked.fetch_one(connection).await?.try_get("locked")
}

/// Waits for the writes of other replicas that began before.
async fn take_turn(connection: &mut AnyConnection) -> Result<(), sqlx::Error> {
    // What the function answers is nothing, which is no value.
    sqlx::query("SELECT CAST(pg_advisory_xact_lock($1) AS TEXT) AS turn")
        .bind(WRITES)
        .execute(connection)
        .await?;
    Ok(())
}

async fn note(connection: &mut AnyConnection, reference: &Reference) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO images (reference, uid, create_time_us) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
    )
    .bind(reference.as_str())
    .bind(Uuid::now_v7().to_string())
    .bind(now_us())
    .execute(connection)
    .await?;
    Ok(())
}

async fn presences(connection: &mut AnyConnection, reference: &str) -> Result<Vec<Presence>, Error> {
    let sql = format!("SELECT {PRESENCE} FROM presences WHERE reference = $1 ORDER BY host, runtime");
    let rows = sqlx::query(AssertSqlSafe(sql)).bind(reference).fetch_all(connection).await?;
    rows.iter().map(presence).collect()
}

fn image(row: &AnyRow) -> Result<Image, Error> {
    Ok(Image {
        uid: row.try_get("uid")?,
        reference: row.try_get("reference")?,
        create_time_us: row.try_get("create_time_us")?,
        presences: Vec::new(),
        stored: None,
        kinds: Vec::new(),
    })
}

fn presence(row: &AnyRow) -> Result<Presence, Error> {
    let (runtime, format): (&str, &str) = (row.try_get("runtime")?, row.try_get("format")?);
    let size: i64 = row.try_get("size_bytes")?;
    Ok(Presence {
        host: row.try_get("host")?,
        runtime: Runtime::from_word(runtime).ok_or_else(|| Error::Row(runtime.to_owned()))?,
        present: row.try_get::<i64, _>("is_present")? != 0,
        digest: row.try_get("digest")?,
        format: Format::from_word(format).ok_or_else(|| Error::Row(format.to_owned()))?,
        size_bytes: u64::try_from(size).unwrap_or_default(),
        architecture: row.try_get("architecture")?,
        observe_time_us: row.try_get("observe_time_us")?,
    })
}

/// The time, in microseconds since 1970.
pub(crate) fn now_us() -> i64 {
    micros_of(SystemTime::now())
}

pub(crate) fn micros_of(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
