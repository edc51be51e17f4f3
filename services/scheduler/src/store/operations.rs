//! Operations.

use std::sync::Arc;

use netloom_model::id::OperationId;
use sqlx::Row as _;

use super::{
    Connection, Db, Event, Object, Page, Result, Store, Tx, from_json, from_word, parse, to_json, word,
};
use crate::plan::Before;
use crate::rows::{OperationRow, OperationState};

fn operation_row(row: &<Db as sqlx::Database>::Row) -> Result<OperationRow> {
    let error: Option<String> = row.try_get("error_json")?;
    Ok(OperationRow {
        id: parse("operations.id", row.try_get("id")?)?,
        lab_uid: parse("operations.lab_uid", row.try_get("lab_uid")?)?,
        lab: parse("operations.lab", row.try_get("lab")?)?,
        kind: from_word("operations.kind", row.try_get("kind")?)?,
        state: from_word("operations.state", row.try_get("state")?)?,
        plan: from_json("operations.plan_json", row.try_get("plan_json")?)?,
        progress: from_json("operations.progress_json", row.try_get("progress_json")?)?,
        error: error.map(|e| from_json("operations.error_json", &e)).transpose()?,
        released: row.try_get::<i64, _>("released")? != 0,
        request_id: row.try_get("request_id")?,
        traceparent: row.try_get("traceparent")?,
        create_us: row.try_get("create_us")?,
        update_us: row.try_get("update_us")?,
        end_us: row.try_get("end_us")?,
    })
}

async fn one(sql: &mut Connection, statement: &'static str, key: &str) -> Result<Option<OperationRow>> {
    let row = sqlx::query(statement).bind(key).fetch_optional(sql).await?;
    row.as_ref().map(operation_row).transpose()
}

/// All that are under way.
pub(super) async fn active(sql: &mut Connection) -> Result<Vec<OperationRow>> {
    let rows = sqlx::query("SELECT * FROM operations WHERE state = 'RUNNING'").fetch_all(sql).await?;
    rows.iter().map(operation_row).collect()
}

impl Tx<'_> {
    /// Writes an operation, with its event. A second active one of a lab is refused by the database.
    pub async fn put_operation(&mut self, operation: &OperationRow) -> Result<()> {
        sqlx::query(
            "INSERT INTO operations (id, lab_uid, lab, kind, state, plan_json, progress_json, error_json, request_id, traceparent, create_us,
               update_us, end_us, released)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
             ON CONFLICT (id) DO UPDATE SET state = excluded.state, progress_json = excluded.progress_json, error_json = excluded.error_json,
               update_us = excluded.update_us, end_us = excluded.end_us, released = excluded.released",
        )
        .bind(operation.id.to_string())
        .bind(operation.lab_uid.to_string())
        .bind(operation.lab.as_str())
        .bind(word(&operation.kind))
        .bind(word(&operation.state))
        .bind(to_json(&operation.plan))
        .bind(to_json(&operation.progress))
        .bind(operation.error.as_ref().map(to_json))
        .bind(&operation.request_id)
        .bind(&operation.traceparent)
        .bind(operation.create_us)
        .bind(operation.update_us)
        .bind(operation.end_us)
        .bind(i64::from(operation.released))
        .execute(&mut *self.sql)
        .await?;
        if operation.state != OperationState::Running {
            sqlx::query("DELETE FROM before_operations WHERE operation_id = $1")
                .bind(operation.id.to_string())
                .execute(&mut *self.sql)
                .await?;
        }
        self.operations.push(Arc::new(operation.clone()));
        self.event(Event::new(operation.lab.as_str(), false, Object::Operation(Box::new(operation.clone()))));
        Ok(())
    }

    /// Writes what a lab was when an operation began, for as long as that is under way.
    pub async fn put_before(&mut self, operation: OperationId, before: &Before) -> Result<()> {
        sqlx::query("INSERT INTO before_operations (operation_id, before_json) VALUES ($1, $2)")
            .bind(operation.to_string())
            .bind(to_json(before))
            .execute(&mut *self.sql)
            .await?;
        Ok(())
    }

    /// What its lab was when an operation began; none when it made the lab, is over, or was begun by an earlier version.
    pub async fn before(&mut self, operation: OperationId) -> Result<Option<Before>> {
        let row = sqlx::query("SELECT before_json FROM before_operations WHERE operation_id = $1")
            .bind(operation.to_string())
            .fetch_optional(&mut *self.sql)
            .await?;
        row.map(|row| from_json("before_operations.before_json", row.try_get("before_json")?)).transpose()
    }

    /// An operation, as this write sees it.
    pub async fn operation(&mut self, id: OperationId) -> Result<Option<OperationRow>> {
        if let Some(staged) = self.operations.iter().rev().find(|o| o.id == id) {
            return Ok(Some(OperationRow::clone(staged)));
        }
        one(&mut self.sql, "SELECT * FROM operations WHERE id = $1", &id.to_string()).await
    }

    /// The operation that this request id made, as this write sees it.
    pub async fn operation_of_request(&mut self, request_id: &str) -> Result<Option<OperationRow>> {
        one(&mut self.sql, "SELECT * FROM operations WHERE request_id = $1", request_id).await
    }

    /// Drops operations that ended before this time.
    pub async fn prune_operations(&mut self, before_us: i64) -> Result<()> {
        sqlx::query("DELETE FROM operations WHERE end_us > 0 AND end_us < $1")
            .bind(before_us)
            .execute(&mut *self.sql)
            .await?;
        Ok(())
    }
}

impl Store {
    /// An operation.
    pub async fn operation(&self, id: OperationId) -> Result<Option<OperationRow>> {
        let active = self.current.read().expect("no holder panics").operations.get(&id).cloned();
        if let Some(active) = active {
            return Ok(Some(OperationRow::clone(&active)));
        }
        let id = &id.to_string();
        one(&mut *self.pool.acquire().await?, "SELECT * FROM operations WHERE id = $1", id).await
    }

    /// Operations, the newest first.
    pub async fn list_operations(&self, page_size: u32, before: &str) -> Result<Page<OperationRow>> {
        let statement = "SELECT * FROM operations WHERE $1 = '' OR id < $1 ORDER BY id DESC LIMIT $2";
        let rows =
            sqlx::query(statement).bind(before).bind(i64::from(page_size) + 1).fetch_all(&self.pool).await?;
        Page::cut(rows.iter().map(operation_row).collect::<Result<_>>()?, page_size)
    }
}
