//! The catalogue's rows. SQLite; the statements are also PostgreSQL's, which is then a second migration folder.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use netloom_model::state::Runtime;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{Connection as _, Row as _, Sqlite, SqliteConnection, Transaction, sqlite::SqliteRow};
use uuid::Uuid;

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

/// The catalogue.
#[derive(Clone)]
pub struct Store {
    pool: SqlitePool,
}

impl Store {
    /// Opens the database, which is made when it does not exist, and brings it to this version.
    pub async fn open(path: &Path) -> anyhow::Result<Store> {
        netloom_service::installation::private_file(path)?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            .busy_timeout(Duration::from_secs(5))
            .foreign_keys(true);
        // One connection: the catalogue is small, and two writers would only wait for each other.
        let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await?;
        sqlx::migrate!("migrations/sqlite").run(&pool).await?;
        Ok(Store { pool })
    }

    async fn begin(&self) -> Result<Transaction<'static, Sqlite>, sqlx::Error> {
        match self.pool.begin().await {
            Err(e) => {
                // A write that the database itself took back, for want of room, leaves a connection that begins no other one.
                tracing::warn!(error = %e, "a write cannot begin; it is tried over a new connection");
                self.pool.acquire().await?.detach().close().await?;
                self.pool.begin().await
            }
            begun => begun,
        }
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
        let said = sqlx::query(
            "SELECT * FROM presences WHERE reference > $1 AND reference <= $2 ORDER BY reference, host, runtime",
        )
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

async fn note(connection: &mut SqliteConnection, reference: &Reference) -> Result<(), Error> {
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

async fn presences(connection: &mut SqliteConnection, reference: &str) -> Result<Vec<Presence>, Error> {
    let rows = sqlx::query("SELECT * FROM presences WHERE reference = $1 ORDER BY host, runtime")
        .bind(reference)
        .fetch_all(connection)
        .await?;
    rows.iter().map(presence).collect()
}

fn image(row: &SqliteRow) -> Result<Image, Error> {
    Ok(Image {
        uid: row.try_get("uid")?,
        reference: row.try_get("reference")?,
        create_time_us: row.try_get("create_time_us")?,
        presences: Vec::new(),
        stored: None,
        kinds: Vec::new(),
    })
}

fn presence(row: &SqliteRow) -> Result<Presence, Error> {
    let (runtime, format): (&str, &str) = (row.try_get("runtime")?, row.try_get("format")?);
    let size: i64 = row.try_get("size_bytes")?;
    Ok(Presence {
        host: row.try_get("host")?,
        runtime: Runtime::from_word(runtime).ok_or_else(|| Error::Row(runtime.to_owned()))?,
        present: row.try_get("present")?,
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
