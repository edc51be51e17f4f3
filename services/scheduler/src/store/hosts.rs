//! Hosts, what is reserved on them, and the few values that belong to the scheduler itself.

use std::collections::BTreeMap;

use netloom_model::failure::{Code, Failure};
use netloom_model::id::{HostId, LabUid};
use netloom_model::observed::{ComputeInventory, NetworkInventory};
use netloom_model::tally::NodeTally;
use sqlx::Row as _;
use uuid::Uuid;

use super::{Connection, Database, Db, Page, Result, Store, Tx, from_word, parse, to_json, unsigned, write};
use crate::error::Error;
use crate::rows::{HostRow, LabRows, Resources};

pub(super) async fn set_meta(sql: &mut Connection, key: &str, value: &str) -> Result<()> {
    sqlx::query("INSERT INTO meta (key, value) VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = excluded.value")
        .bind(key)
        .bind(value)
        .execute(sql)
        .await?;
    Ok(())
}

/// A value of the scheduler's own, read by one that does not lead.
pub async fn meta(database: &Database, key: &str) -> Result<Option<String>> {
    let mut sql = database.connect().await?;
    let row = sqlx::query("SELECT value FROM meta WHERE key = $1").bind(key).fetch_optional(&mut sql).await?;
    Ok(row.map(|row| row.try_get("value")).transpose()?)
}

/// As [`LabRows::reserved`], summed over labs.
const RESERVED: &str =
    "SELECT host, CAST(SUM(cpu) AS BIGINT) AS cpu_millis, CAST(SUM(memory) AS BIGINT) AS memory_bytes, CAST(SUM(disk) AS BIGINT) AS disk_bytes FROM
      (SELECT host, MAX(cpu) AS cpu, MAX(memory) AS memory, MAX(disk) AS disk FROM
        (SELECT host, lab_uid, SUM(cpu) AS cpu, SUM(memory) AS memory, SUM(disk) AS disk FROM
          (SELECT host, lab_uid, MAX(cpu_millis) AS cpu, MAX(memory_bytes) AS memory, MAX(disk_bytes) AS disk FROM nodes
           WHERE host IS NOT NULL AND wanted NOT IN ('ABSENT', 'ASIDE') AND lab_uid <> $1 GROUP BY host, lab_uid, folded) AS nodes_of
         GROUP BY host, lab_uid
         UNION ALL SELECT host, lab_uid, cpu_millis, memory_bytes, disk_bytes FROM kept WHERE lab_uid <> $1) AS of_labs
       GROUP BY host, lab_uid) AS most GROUP BY host";

/// What a row says of amounts.
pub(super) fn resources(row: &<Db as sqlx::Database>::Row) -> Result<Resources> {
    Ok(Resources {
        cpu_millis: unsigned("cpu_millis", row.try_get("cpu_millis")?)?,
        memory_bytes: unsigned("memory_bytes", row.try_get("memory_bytes")?)?,
        disk_bytes: unsigned("disk_bytes", row.try_get("disk_bytes")?)?,
    })
}

async fn reserved(sql: &mut Connection, except: &str) -> Result<BTreeMap<HostId, Resources>> {
    let mut all = BTreeMap::new();
    for row in sqlx::query(RESERVED).bind(except).fetch_all(sql).await? {
        all.insert(parse("nodes.host", row.try_get("host")?)?, resources(&row)?);
    }
    Ok(all)
}

impl Tx<'_> {
    /// A value of the scheduler's own.
    pub async fn meta(&mut self, key: &str) -> Result<Option<String>> {
        let row = sqlx::query("SELECT value FROM meta WHERE key = $1")
            .bind(key)
            .fetch_optional(&mut *self.sql)
            .await?;
        Ok(row.map(|r| r.try_get("value")).transpose()?)
    }

    /// Sets a value of the scheduler's own.
    pub async fn set_meta(&mut self, key: &str, value: &str) -> Result<()> {
        set_meta(&mut self.sql, key, value).await
    }

    /// What labs other than this one have reserved, as this write sees it. It reserves from then on only where no other write did meanwhile, nor changed what a host offers.
    pub async fn reserved_by_others(&mut self, lab: LabUid) -> Result<BTreeMap<HostId, Resources>> {
        // Looked at before: what is committed between the two is taken for more than was seen, never for less.
        for row in sqlx::query("SELECT id, generation FROM hosts").fetch_all(&mut *self.sql).await? {
            let host = parse("hosts.id", row.try_get("id")?)?;
            // What was computed before from an older one stays so.
            self.generations.entry(host).or_insert(row.try_get("generation")?);
        }
        reserved(&mut self.sql, &lab.to_string()).await
    }

    /// Lets nobody else reserve, where `held`, until this write is over: for one that was overtaken, so that it is not overtaken again.
    pub async fn hold_hosts(&mut self, held: bool) -> Result<()> {
        // SQLite has one writer at a time.
        if held && self.writer.fence.is_some() {
            let hold = "SELECT id FROM hosts ORDER BY id FOR UPDATE";
            sqlx::query(hold).fetch_all(&mut *self.sql).await?;
        }
        Ok(())
    }

    /// Raises the generation of each host on which a lab has more reserved than before. Refused where another write raised it since this one looked at it.
    pub(super) async fn reserve(&mut self, before: &LabRows, after: &LabRows) -> Result<()> {
        let had = before.reserved();
        for (host, now) in after.reserved() {
            let had = had.get(&host).copied().unwrap_or_default();
            if now.most(had) == had {
                continue;
            }
            // What did not look at it, since it gives back what was kept, raises it for others.
            let seen = self.generations.get_mut(&host);
            let raise =
                "UPDATE hosts SET generation = generation + 1 WHERE id = $1 AND ($2 < 0 OR generation = $2)";
            let raised = sqlx::query(raise)
                .bind(host.as_str())
                .bind(seen.as_deref().copied().unwrap_or(-1))
                .execute(&mut *self.sql)
                .await?;
            match seen {
                Some(_) if raised.rows_affected() == 0 => {
                    return Err(Error::Overtaken { host: host.to_string() });
                }
                Some(seen) => *seen += 1,
                None => {}
            }
        }
        Ok(())
    }

    /// Makes sure that a host has a row. Refused when one is there that is written otherwise.
    pub async fn add_host(&mut self, host: &HostId) -> Result<()> {
        if let Some(other) = self.host(host).await?.filter(|row| row.id != *host) {
            let message = format!("host \"{host}\" is known as \"{}\": write it so", other.id);
            return Err(Failure::new(Code::AlreadyExists, "HOST_EXISTS", message)
                .with("host", other.id.to_string())
                .into());
        }
        sqlx::query(
            "INSERT INTO hosts (id, uid, compute_json, network_json, heard_us) VALUES ($1, $2, $3, $4, 0) ON CONFLICT (id) DO NOTHING",
        )
        .bind(host.as_str())
        .bind(Uuid::now_v7().to_string())
        .bind(to_json(&ComputeInventory::default()))
        .bind(to_json(&NetworkInventory::default()))
        .execute(&mut *self.sql)
        .await?;
        Ok(())
    }

    /// Keeps what a host proved.
    pub async fn put_host(
        &mut self,
        host: &HostId,
        compute: &ComputeInventory,
        network: &NetworkInventory,
        heard_us: i64,
    ) -> Result<()> {
        sqlx::query("UPDATE hosts SET network_json = $3, heard_us = $4, compute_json = $2,
               generation = CASE WHEN compute_json = $2 THEN generation ELSE generation + 1 END WHERE id = $1")
            .bind(host.as_str())
            .bind(to_json(compute))
            .bind(to_json(network))
            .bind(heard_us)
            .execute(&mut *self.sql)
            .await?;
        Ok(())
    }

    /// Keeps when hosts were last heard of, many by one statement: they hold the time of the one that was longest ago, which is a moment.
    pub async fn put_heard(&mut self, heard: &[(HostId, i64)]) -> Result<()> {
        let Some(at) = heard.iter().map(|(_, at)| *at).min() else { return Ok(()) };
        let ids: Vec<String> = heard.iter().map(|(id, _)| id.to_string()).collect();
        write::of(&mut self.sql, &format!("UPDATE hosts SET heard_us = {at} WHERE id IN"), &ids).await
    }
}

impl Store {
    /// What is reserved on each host.
    pub async fn reserved(&self) -> Result<BTreeMap<HostId, Resources>> {
        reserved(&mut *self.pool.acquire().await?, "").await
    }

    /// Hosts by id.
    pub async fn list_hosts(&self, page_size: u32, after: &str) -> Result<Page<HostRow>> {
        let hosts = self.hosts_after(after, i64::from(page_size) + 1).await?;
        Page::cut(hosts, page_size)
    }

    /// Nodes of each host, grouped.
    pub async fn host_tallies(&self) -> Result<BTreeMap<HostId, Vec<NodeTally>>> {
        let rows = sqlx::query(
            "SELECT host, runtime, wanted, state, COUNT(*) AS count FROM nodes WHERE host IS NOT NULL AND replaced = 0
             GROUP BY host, runtime, wanted, state ORDER BY host, runtime, wanted, state",
        )
        .fetch_all(&self.pool)
        .await?;
        let mut all: BTreeMap<HostId, Vec<NodeTally>> = BTreeMap::new();
        for row in rows {
            let tally = NodeTally {
                runtime: from_word("nodes.runtime", row.try_get("runtime")?)?,
                wanted: from_word("nodes.wanted", row.try_get("wanted")?)?,
                state: from_word("nodes.state", row.try_get("state")?)?,
                count: u32::try_from(row.try_get::<i64, _>("count")?).unwrap_or(u32::MAX),
            };
            all.entry(parse("nodes.host", row.try_get("host")?)?).or_default().push(tally);
        }
        Ok(all)
    }
}
