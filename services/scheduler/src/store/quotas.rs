//! Quotas of projects.

use sqlx::Row as _;

use super::{Connection, Db, Page, Result, Store, Tx, number, unsigned};
use crate::quota::Quota;

fn quota_row(row: &<Db as sqlx::Database>::Row) -> Result<Quota> {
    let limit = |column: &str| -> Result<Option<u64>> {
        let value: Option<i64> = row.try_get(column)?;
        value.map(|n| unsigned("quotas", n)).transpose()
    };
    Ok(Quota {
        project: row.try_get("project")?,
        nodes: limit("nodes")?,
        cpu_millis: limit("cpu_millis")?,
        memory_bytes: limit("memory_bytes")?,
        disk_bytes: limit("disk_bytes")?,
    })
}

async fn quota(sql: &mut Connection, project: &str) -> Result<Option<Quota>> {
    let folded = project.to_ascii_lowercase();
    let row = sqlx::query("SELECT * FROM quotas WHERE folded = $1").bind(folded).fetch_optional(sql).await?;
    row.as_ref().map(quota_row).transpose()
}

impl Tx<'_> {
    /// The quota of a project, ignoring case.
    pub async fn quota(&mut self, project: &str) -> Result<Option<Quota>> {
        quota(&mut self.sql, project).await
    }

    /// Sets the quota of a project.
    pub async fn put_quota(&mut self, quota: &Quota) -> Result<()> {
        sqlx::query(
            "INSERT INTO quotas (folded, project, nodes, cpu_millis, memory_bytes, disk_bytes) VALUES ($1, $2, $3, $4, $5, $6)
             ON CONFLICT (folded) DO UPDATE SET nodes = excluded.nodes, cpu_millis = excluded.cpu_millis, memory_bytes = excluded.memory_bytes,
               disk_bytes = excluded.disk_bytes",
        )
        .bind(quota.project.to_ascii_lowercase())
        .bind(&quota.project)
        .bind(quota.nodes.map(number))
        .bind(quota.cpu_millis.map(number))
        .bind(quota.memory_bytes.map(number))
        .bind(quota.disk_bytes.map(number))
        .execute(&mut *self.sql)
        .await?;
        Ok(())
    }

    /// Removes the quota of a project; false when it has none.
    pub async fn remove_quota(&mut self, project: &str) -> Result<bool> {
        let removed = sqlx::query("DELETE FROM quotas WHERE folded = $1")
            .bind(project.to_ascii_lowercase())
            .execute(&mut *self.sql)
            .await?;
        Ok(removed.rows_affected() > 0)
    }
}

impl Store {
    /// The quota of a project, ignoring case.
    pub async fn quota(&self, project: &str) -> Result<Option<Quota>> {
        quota(&mut *self.pool.acquire().await?, project).await
    }

    /// Quotas by project, ignoring case.
    pub async fn list_quotas(&self, page_size: u32, after: &str) -> Result<Page<Quota>> {
        let statement = "SELECT * FROM quotas WHERE folded > $1 ORDER BY folded LIMIT $2";
        let size = i64::from(page_size) + 1;
        let rows =
            sqlx::query(statement).bind(after.to_ascii_lowercase()).bind(size).fetch_all(&self.pool).await?;
        Page::cut(rows.iter().map(quota_row).collect::<Result<_>>()?, page_size)
    }
}
