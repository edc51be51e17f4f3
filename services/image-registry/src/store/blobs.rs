//! Rows of what the store has, of the kinds that images are for, and of uploads.

use std::collections::BTreeSet;

use netloom_image::{Facts, Format};
use serde::{Deserialize, Serialize};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row as _};

use super::{Lock, Store, note, now_us};
use crate::blob::Digest;
use crate::error::Error;
use crate::reference::Reference;

/// Bytes in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// Their SHA-256.
    pub digest: Digest,
    /// How many.
    pub size_bytes: u64,
    /// Their format.
    pub format: Format,
    /// Size of the disk that a guest sees, or of the bytes.
    pub virtual_size_bytes: u64,
    /// Architecture; empty when not known.
    pub architecture: String,
    /// What Docker calls the ids of the images in an archive.
    pub image_ids: Vec<String>,
    /// What is wrong with them; empty when nothing is known to be.
    pub problem: String,
    /// When they were stored, in microseconds since 1970.
    pub store_time_us: i64,
    /// When they were last compared with their digest.
    pub verify_time_us: i64,
}

/// A kind that an image is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageKind {
    /// Name of the kind.
    pub kind: String,
    /// Version of what the image holds.
    pub version: String,
    /// True for the one image that stands for the kind.
    pub preferred: bool,
}

/// An upload that is not over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// Its id.
    pub id: String,
    /// What the image will be called.
    pub reference: Reference,
    /// What the bytes have to be; none takes them as they come.
    pub digest: Option<Digest>,
    /// How many there will be; 0 when not known.
    pub size_bytes: u64,
    /// What they are said to be.
    pub format: Option<Format>,
    /// The kinds that the image is for.
    pub kinds: Vec<ImageKind>,
    /// Name of the file that they come from.
    pub file_name: String,
    /// When it was made, in microseconds since 1970.
    pub create_time_us: i64,
    /// It was found again by the name of its file: what came may be of two files.
    pub resumed: bool,
}

impl Store {
    /// Takes note of an upload.
    pub async fn add_upload(&self, upload: &Upload) -> Result<(), Error> {
        let kinds = serde_json::to_string(&upload.kinds).map_err(|e| Error::Row(e.to_string()))?;
        let mut transaction = self.begin().await?;
        sqlx::query(
            "INSERT INTO uploads (id, reference, digest, size_bytes, format, kinds, file_name, create_time_us) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(&upload.id)
        .bind(upload.reference.as_str())
        .bind(upload.digest.as_ref().map(Digest::to_string).unwrap_or_default())
        .bind(long(upload.size_bytes))
        .bind(upload.format.map(Format::as_str).unwrap_or_default())
        .bind(kinds)
        .bind(&upload.file_name)
        .bind(upload.create_time_us)
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(())
    }

    /// An upload.
    pub async fn upload(&self, id: &str) -> Result<Upload, Error> {
        let row = sqlx::query("SELECT * FROM uploads WHERE id = $1")
            .bind(id)
            .fetch_optional(&self.pool)
            .await?
            .ok_or_else(|| Error::UploadNotFound(id.to_owned()))?;
        upload(&row)
    }

    /// All uploads.
    pub async fn uploads(&self) -> Result<Vec<Upload>, Error> {
        let rows = sqlx::query("SELECT * FROM uploads ORDER BY id").fetch_all(&self.pool).await?;
        rows.iter().map(upload).collect()
    }

    /// Takes note that an upload is gone on with by somebody who knows it by the name of its file only.
    pub async fn resume_upload(&self, id: &str) -> Result<(), Error> {
        sqlx::query("UPDATE uploads SET resumed = 1 WHERE id = $1").bind(id).execute(&self.pool).await?;
        Ok(())
    }

    /// Forgets an upload.
    pub async fn end_upload(&self, id: &str) -> Result<(), Error> {
        sqlx::query("DELETE FROM uploads WHERE id = $1").bind(id).execute(&self.pool).await?;
        Ok(())
    }

    /// Makes an upload the image it is for: its bytes are the blob of this digest, and are this. Only who has the digest locked may say so, and only if no other one got it meanwhile.
    pub(crate) async fn finish_upload(&self, upload: &Upload, blob: &Blob, lock: Lock) -> Result<(), Error> {
        let mut transaction = self.begin_in(lock).await?;
        note(&mut transaction, &upload.reference).await?;
        sqlx::query(
            "INSERT INTO blobs (digest, size_bytes, format, virtual_size_bytes, architecture, image_ids, problem, \
             store_time_us, verify_time_us) VALUES ($1, $2, $3, $4, $5, $6, '', $7, $8) \
             ON CONFLICT (digest) DO UPDATE SET format = excluded.format, problem = '', \
             verify_time_us = excluded.verify_time_us",
        )
        .bind(blob.digest.to_string())
        .bind(long(blob.size_bytes))
        .bind(blob.format.as_str())
        .bind(long(blob.virtual_size_bytes))
        .bind(&blob.architecture)
        .bind(blob.image_ids.join(","))
        .bind(blob.store_time_us)
        .bind(blob.verify_time_us)
        .execute(&mut *transaction)
        .await?;
        sqlx::query(
            "INSERT INTO stored (reference, digest) VALUES ($1, $2) \
             ON CONFLICT (reference) DO UPDATE SET digest = excluded.digest",
        )
        .bind(upload.reference.as_str())
        .bind(blob.digest.to_string())
        .execute(&mut *transaction)
        .await?;
        set_kinds(&mut transaction, &upload.reference, &upload.kinds).await?;
        sqlx::query("DELETE FROM uploads WHERE id = $1").bind(&upload.id).execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// A blob; none when the store has no row of it.
    pub async fn blob(&self, digest: &Digest) -> Result<Option<Blob>, Error> {
        let row = sqlx::query("SELECT * FROM blobs WHERE digest = $1")
            .bind(digest.to_string())
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref().map(blob).transpose()
    }

    /// True when a blob of this size is there that nothing is wrong with.
    pub async fn has_size(&self, size_bytes: u64) -> Result<bool, Error> {
        let row = sqlx::query("SELECT 1 AS one FROM blobs WHERE size_bytes = $1 AND problem = '' LIMIT 1")
            .bind(long(size_bytes))
            .fetch_optional(&self.pool)
            .await?;
        Ok(row.is_some())
    }

    /// All blobs, each with whether an image or an upload is it.
    pub async fn blobs(&self) -> Result<Vec<(Blob, bool)>, Error> {
        let rows = sqlx::query(
            "SELECT blobs.*, CASE WHEN EXISTS (SELECT 1 FROM stored s WHERE s.digest = blobs.digest) OR EXISTS \
             (SELECT 1 FROM uploads u WHERE u.digest = blobs.digest) THEN 1 ELSE 0 END AS used FROM blobs ORDER BY digest",
        )
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(|r| Ok((blob(r)?, r.try_get::<i64, _>("used")? != 0))).collect()
    }

    /// The references that the store has bytes of, with their digests.
    pub async fn stored(&self) -> Result<Vec<(String, Digest)>, Error> {
        let rows = sqlx::query("SELECT reference, digest FROM stored ORDER BY reference")
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(|r| Ok((r.try_get("reference")?, digest(r)?))).collect()
    }

    /// Takes an image out of the store, unless it is other bytes by now.
    pub async fn unstore(&self, reference: &str, digest: &Digest) -> Result<(), Error> {
        sqlx::query("DELETE FROM stored WHERE reference = $1 AND digest = $2")
            .bind(reference)
            .bind(digest.to_string())
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Forgets a blob that no image is, and removes its bytes by this. Only who has the digest locked may do so: the row goes for good once the bytes are gone, and only if no other one got the
    /// lock meanwhile. Writes of others go on, however long the bytes take.
    pub async fn forget_blob(
        &self,
        digest: &Digest,
        lock: Lock,
        remove: impl Future<Output = Result<(), Error>>,
    ) -> Result<(), Error> {
        let forget =
            sqlx::query("DELETE FROM blobs WHERE digest = $1 AND digest NOT IN (SELECT digest FROM stored)")
                .bind(digest.to_string());
        match lock.0 {
            Some((mut held, _room)) => {
                forget.execute(&mut *held).await?;
                remove.await?;
                held.commit().await?;
            }
            None => {
                remove.await?;
                forget.execute(&self.pool).await?;
            }
        }
        Ok(())
    }

    /// Takes note that a blob was compared with its digest, and of what is wrong with it.
    pub async fn verified(&self, digest: &Digest, problem: &str) -> Result<(), Error> {
        sqlx::query("UPDATE blobs SET problem = $2, verify_time_us = $3 WHERE digest = $1")
            .bind(digest.to_string())
            .bind(problem)
            .bind(now_us())
            .execute(&self.pool)
            .await?;
        Ok(())
    }
}

/// Replaces the kinds that an image is for; one that is now preferred takes the place of the one before.
async fn set_kinds(
    connection: &mut AnyConnection,
    reference: &Reference,
    kinds: &[ImageKind],
) -> Result<(), Error> {
    // Pushing the same again without a word about kinds leaves them.
    if kinds.is_empty() {
        return Ok(());
    }
    sqlx::query("DELETE FROM image_kinds WHERE reference = $1")
        .bind(reference.as_str())
        .execute(&mut *connection)
        .await?;
    for ImageKind { kind, version, preferred } in kinds {
        if *preferred {
            sqlx::query("UPDATE image_kinds SET preferred = FALSE WHERE kind = $1")
                .bind(kind)
                .execute(&mut *connection)
                .await?;
        }
        sqlx::query(
            "INSERT INTO image_kinds (reference, kind, version, preferred) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (reference, kind) DO UPDATE SET version = excluded.version, preferred = excluded.preferred",
        )
        .bind(reference.as_str())
        .bind(kind)
        .bind(version)
        .bind(preferred)
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

/// What the store has of an image: the bytes that its digest names, or those that its name leads to.
pub(super) async fn of(connection: &mut AnyConnection, reference: &Reference) -> Result<Option<Blob>, Error> {
    let pinned = reference.digest().unwrap_or_default();
    let row = sqlx::query(
        "SELECT * FROM blobs WHERE digest = $1 OR ($1 = '' AND digest = \
         (SELECT digest FROM stored WHERE reference = $2))",
    )
    .bind(pinned)
    .bind(reference.as_str())
    .fetch_optional(connection)
    .await?;
    row.as_ref().map(blob).transpose()
}

/// Fills in what the store has of these images, which are sorted by reference.
pub(super) async fn join(connection: &mut AnyConnection, images: &mut [super::Image]) -> Result<(), Error> {
    let (Some(first), Some(last)) = (images.first(), images.last()) else { return Ok(()) };
    let (first, last) = (first.reference.clone(), last.reference.clone());
    let rows = sqlx::query(
        "SELECT s.reference, b.* FROM stored s JOIN blobs b ON b.digest = s.digest \
         WHERE s.reference >= $1 AND s.reference <= $2",
    )
    .bind(&first)
    .bind(&last)
    .fetch_all(&mut *connection)
    .await?;
    let find = |images: &[super::Image], r: &AnyRow| -> Result<Option<usize>, Error> {
        let reference: &str = r.try_get("reference")?;
        Ok(images.binary_search_by(|i| i.reference.as_str().cmp(reference)).ok())
    };
    for row in &rows {
        if let Some(at) = find(images, row)? {
            images[at].stored = Some(blob(row)?);
        }
    }
    let rows = sqlx::query(
        "SELECT reference, kind, version, CASE WHEN preferred THEN 1 ELSE 0 END AS is_preferred FROM image_kinds \
         WHERE reference >= $1 AND reference <= $2 ORDER BY kind",
    )
    .bind(&first)
    .bind(&last)
    .fetch_all(connection)
    .await?;
    for row in &rows {
        if let Some(at) = find(images, row)? {
            images[at].kinds.push(ImageKind {
                kind: row.try_get("kind")?,
                version: row.try_get("version")?,
                preferred: row.try_get::<i64, _>("is_preferred")? != 0,
            });
        }
    }
    Ok(())
}

impl Blob {
    /// A blob that was just stored.
    pub fn new(digest: Digest, size_bytes: u64, facts: Facts) -> Blob {
        let now = now_us();
        let image_ids: BTreeSet<String> = facts.image_ids.into_iter().collect();
        Blob {
            digest,
            size_bytes,
            format: facts.format,
            virtual_size_bytes: facts.virtual_size,
            architecture: facts.architecture,
            image_ids: image_ids.into_iter().collect(),
            problem: String::new(),
            store_time_us: now,
            verify_time_us: now,
        }
    }
}

fn blob(row: &AnyRow) -> Result<Blob, Error> {
    let (format, ids): (&str, &str) = (row.try_get("format")?, row.try_get("image_ids")?);
    Ok(Blob {
        digest: digest(row)?,
        size_bytes: unsigned(row, "size_bytes")?,
        format: Format::from_word(format).ok_or_else(|| Error::Row(format.to_owned()))?,
        virtual_size_bytes: unsigned(row, "virtual_size_bytes")?,
        architecture: row.try_get("architecture")?,
        image_ids: ids.split(',').filter(|i| !i.is_empty()).map(str::to_owned).collect(),
        problem: row.try_get("problem")?,
        store_time_us: row.try_get("store_time_us")?,
        verify_time_us: row.try_get("verify_time_us")?,
    })
}

fn upload(row: &AnyRow) -> Result<Upload, Error> {
    let (digest, format, kinds): (&str, &str, &str) =
        (row.try_get("digest")?, row.try_get("format")?, row.try_get("kinds")?);
    let reference: &str = row.try_get("reference")?;
    Ok(Upload {
        id: row.try_get("id")?,
        reference: reference.parse().map_err(|_| Error::Row(reference.to_owned()))?,
        digest: Digest::parse(digest),
        size_bytes: unsigned(row, "size_bytes")?,
        format: Format::from_word(format),
        kinds: serde_json::from_str(kinds).map_err(|_| Error::Row(kinds.to_owned()))?,
        file_name: row.try_get("file_name")?,
        create_time_us: row.try_get("create_time_us")?,
        resumed: row.try_get::<i64, _>("resumed")? != 0,
    })
}

fn digest(row: &AnyRow) -> Result<Digest, Error> {
    let text: &str = row.try_get("digest")?;
    Digest::parse(text).ok_or_else(|| Error::Row(text.to_owned()))
}

fn unsigned(row: &AnyRow, column: &str) -> Result<u64, Error> {
    let number: i64 = row.try_get(column)?;
    Ok(u64::try_from(number).unwrap_or_default())
}

fn long(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
