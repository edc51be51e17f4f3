//! Contents of labs' files, by digest.

use std::collections::{BTreeMap, BTreeSet};

use netloom_model::id::Digest;
use sqlx::Row as _;

use super::{Result, Store, Tx, parse, unsigned};

impl Tx<'_> {
    /// Keeps a content; one that is there already counts as just sent.
    pub async fn put_file(&mut self, digest: &Digest, content: &[u8]) -> Result<()> {
        sqlx::query(
            "INSERT INTO files (digest, content, time_us) VALUES ($1, $2, $3) ON CONFLICT (digest) DO UPDATE SET time_us = excluded.time_us",
        )
        .bind(digest.as_str())
        .bind(content)
        .bind(self.now)
        .execute(&mut *self.sql)
        .await?;
        Ok(())
    }

    /// Drops contents sent before this time that are not among those used.
    pub async fn prune_files(&mut self, before_us: i64, used: &BTreeSet<Digest>) -> Result<()> {
        let rows = sqlx::query("SELECT digest FROM files WHERE time_us < $1")
            .bind(before_us)
            .fetch_all(&mut *self.sql)
            .await?;
        for row in rows {
            let digest: String = row.try_get("digest")?;
            if !used.contains(&parse_digest(&digest)?) {
                sqlx::query("DELETE FROM files WHERE digest = $1")
                    .bind(digest)
                    .execute(&mut *self.sql)
                    .await?;
            }
        }
        Ok(())
    }

    /// How many bytes those of these contents have that are there, as this write sees it.
    pub async fn file_sizes(&mut self, digests: &BTreeSet<&Digest>) -> Result<BTreeMap<Digest, u64>> {
        let mut sizes = BTreeMap::new();
        for digest in digests {
            let size = sqlx::query("SELECT LENGTH(content) AS size FROM files WHERE digest = $1");
            if let Some(row) = size.bind(digest.as_str()).fetch_optional(&mut *self.sql).await? {
                sizes.insert((*digest).clone(), unsigned("files.content", row.try_get("size")?)?);
            }
        }
        Ok(sizes)
    }

    /// Drops tombstones of nodes and wires removed before this time.
    pub async fn prune_tombstones(&mut self, before_us: i64) -> Result<()> {
        sqlx::query("DELETE FROM removed WHERE time_us < $1").bind(before_us).execute(&mut *self.sql).await?;
        sqlx::query("DELETE FROM wire_ids WHERE removed_us < $1")
            .bind(before_us)
            .execute(&mut *self.sql)
            .await?;
        Ok(())
    }
}

fn parse_digest(text: &str) -> Result<Digest> {
    parse::<DigestText>("files.digest", text).map(|d| d.0)
}

/// A digest is read from text by `TryFrom` only.
struct DigestText(Digest);

impl std::str::FromStr for DigestText {
    type Err = netloom_model::id::IdError;
    fn from_str(s: &str) -> std::result::Result<Self, Self::Err> {
        Digest::try_from(s.to_owned()).map(DigestText)
    }
}

impl Store {
    /// A content.
    pub async fn file(&self, digest: &Digest) -> Result<Option<Vec<u8>>> {
        let row = sqlx::query("SELECT content FROM files WHERE digest = $1").bind(digest.as_str());
        let row = row.fetch_optional(&self.pool).await?;
        Ok(row.map(|r| r.try_get("content")).transpose()?)
    }
}
