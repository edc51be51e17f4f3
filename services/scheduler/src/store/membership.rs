//! Hosts that join, and the tokens they join with.

use std::collections::BTreeMap;

use netloom_model::id::HostId;
use sqlx::Row as _;

use super::{Connection, Db, Result, Store, Tx, from_json, parse, to_json};
use crate::membership::Token;
use crate::policy::HostPolicy;
use crate::rows::{Drain, HostRow, Membership};

/// How a host is drained on which disks of virtual machines may be lost.
const LOSE_DISKS: i64 = 2;

fn host_row(row: &<Db as sqlx::Database>::Row) -> Result<HostRow> {
    Ok(HostRow {
        id: parse("hosts.id", row.try_get("id")?)?,
        uid: row.try_get("uid")?,
        compute: from_json("hosts.compute_json", row.try_get("compute_json")?)?,
        network: from_json("hosts.network_json", row.try_get("network_json")?)?,
        heard_us: row.try_get("heard_us")?,
        cordoned: row.try_get::<i64, _>("cordoned")? != 0,
        drain: match row.try_get::<i64, _>("drain")? {
            0 => None,
            how => Some(Drain { lose_disks: how == LOSE_DISKS }),
        },
        membership: Membership {
            address: row.try_get("address")?,
            serial: row.try_get("certificate_serial")?,
            expire_us: row.try_get("certificate_expire_us")?,
        },
        policy: HostPolicy {
            labels: from_json("hosts.labels_json", row.try_get("labels_json")?)?,
            ..from_json("hosts.policy_json", row.try_get("policy_json")?)?
        },
    })
}

impl Store {
    /// Hosts by id, after this one.
    pub(super) async fn hosts_after(&self, after: &str, count: i64) -> Result<Vec<HostRow>> {
        let statement = "SELECT * FROM hosts WHERE id > $1 ORDER BY id LIMIT $2";
        let rows = sqlx::query(statement).bind(after).bind(count).fetch_all(&self.pool).await?;
        rows.iter().map(host_row).collect()
    }

    /// The token with this hash, without waiting for who writes.
    pub async fn token(&self, hash: &str) -> Result<Option<Token>> {
        token(&mut *self.pool.acquire().await?, hash).await
    }

    /// True when a host has joined.
    pub async fn any_joined(&self) -> Result<bool> {
        let row = sqlx::query("SELECT id FROM hosts WHERE address <> '' LIMIT 1")
            .fetch_optional(&self.pool)
            .await?;
        Ok(row.is_some())
    }
}

async fn token(sql: &mut Connection, hash: &str) -> Result<Option<Token>> {
    let row = sqlx::query("SELECT * FROM host_tokens WHERE hash = $1").bind(hash).fetch_optional(sql).await?;
    let Some(row) = row else { return Ok(None) };
    let host: String = row.try_get("host")?;
    let used = match row.try_get::<i64, _>("used_us")? {
        0 => None,
        _ => Some((parse("host_tokens.host", &host)?, row.try_get("key_hash")?)),
    };
    Ok(Some(Token { expire_us: row.try_get("expire_us")?, used }))
}

impl Tx<'_> {
    /// The host with this id, ignoring case.
    pub async fn host(&mut self, host: &HostId) -> Result<Option<HostRow>> {
        let row = sqlx::query("SELECT * FROM hosts WHERE lower(id) = $1")
            .bind(host.folded())
            .fetch_optional(&mut *self.sql)
            .await?;
        row.as_ref().map(host_row).transpose()
    }

    /// All hosts.
    pub async fn hosts(&mut self) -> Result<BTreeMap<HostId, HostRow>> {
        let rows = sqlx::query("SELECT * FROM hosts").fetch_all(&mut *self.sql).await?;
        rows.iter().map(|row| host_row(row).map(|host| (host.id.clone(), host))).collect()
    }

    /// Sets what is said of a host.
    pub async fn put_policy(&mut self, host: &HostId, policy: &HostPolicy) -> Result<()> {
        sqlx::query(
            "UPDATE hosts SET labels_json = $2, policy_json = $3, generation = generation + 1 WHERE id = $1",
        )
        .bind(host.as_str())
        .bind(to_json(&policy.labels))
        .bind(to_json(policy))
        .execute(&mut *self.sql)
        .await?;
        Ok(())
    }

    /// Sets where a host is and which certificate it has.
    pub async fn put_membership(&mut self, host: &HostId, membership: &Membership) -> Result<()> {
        sqlx::query(
            "UPDATE hosts SET address = $2, certificate_serial = $3, certificate_expire_us = $4 WHERE id = $1",
        )
        .bind(host.as_str())
        .bind(&membership.address)
        .bind(&membership.serial)
        .bind(membership.expire_us)
        .execute(&mut *self.sql)
        .await?;
        Ok(())
    }

    /// Cordons a host and says how it is drained, if it is; or uncordons it.
    pub async fn set_cordoned(&mut self, host: &HostId, cordoned: bool, drain: Option<Drain>) -> Result<()> {
        sqlx::query("UPDATE hosts SET cordoned = $2, drain = $3, generation = generation + 1 WHERE id = $1")
            .bind(host.as_str())
            .bind(i64::from(cordoned))
            .bind(drain.map_or(0, |drain| if drain.lose_disks { LOSE_DISKS } else { 1 }))
            .execute(&mut *self.sql)
            .await?;
        Ok(())
    }

    /// Forgets a host.
    pub async fn remove_host(&mut self, host: &HostId) -> Result<()> {
        sqlx::query("DELETE FROM hosts WHERE id = $1").bind(host.as_str()).execute(&mut *self.sql).await?;
        Ok(())
    }

    /// Keeps a token, by its hash.
    pub async fn add_token(&mut self, hash: &str, expire_us: i64) -> Result<()> {
        sqlx::query("INSERT INTO host_tokens (hash, expire_us) VALUES ($1, $2)")
            .bind(hash)
            .bind(expire_us)
            .execute(&mut *self.sql)
            .await?;
        Ok(())
    }

    /// The token with this hash.
    pub async fn token(&mut self, hash: &str) -> Result<Option<Token>> {
        token(&mut self.sql, hash).await
    }

    /// Notes that a token was used.
    pub async fn use_token(&mut self, hash: &str, host: &HostId, key_hash: &str) -> Result<()> {
        sqlx::query("UPDATE host_tokens SET used_us = $2, host = $3, key_hash = $4 WHERE hash = $1")
            .bind(hash)
            .bind(self.now)
            .bind(host.as_str())
            .bind(key_hash)
            .execute(&mut *self.sql)
            .await?;
        Ok(())
    }

    /// Forgets which keys joined as this host: none of them may ask for its certificate again.
    pub async fn forget_keys(&mut self, host: &HostId) -> Result<()> {
        sqlx::query("UPDATE host_tokens SET key_hash = '' WHERE lower(host) = $1")
            .bind(host.folded())
            .execute(&mut *self.sql)
            .await?;
        Ok(())
    }

    /// Forgets tokens that were over before this time.
    pub async fn prune_tokens(&mut self, before_us: i64) -> Result<()> {
        sqlx::query("DELETE FROM host_tokens WHERE expire_us < $1")
            .bind(before_us)
            .execute(&mut *self.sql)
            .await?;
        Ok(())
    }
}
