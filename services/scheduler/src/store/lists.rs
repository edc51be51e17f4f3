//! What lists and gets read: pages, in a constant number of queries whatever their length.

use std::collections::BTreeMap;

use netloom_model::id::LabUid;
use netloom_model::observed::NEEDS_RESTART;
use sqlx::Row as _;

use super::{Db, LabView, Result, Store, from_word, parse};

/// A page.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<T> {
    /// The rows.
    pub rows: Vec<T>,
    /// True when there are more.
    pub more: bool,
}

impl<T> Page<T> {
    /// A page from rows of which one too many was read.
    pub(super) fn cut(mut rows: Vec<T>, page_size: u32) -> Result<Page<T>> {
        let more = rows.len() > page_size as usize;
        rows.truncate(page_size as usize);
        Ok(Page { rows, more })
    }
}

const PAGE: &str = "SELECT uid FROM labs WHERE folded > $1 ORDER BY folded LIMIT $2";

impl Store {
    /// Labs by id ignoring case, with their tallies: five queries, however many labs.
    pub async fn list_labs(&self, page_size: u32, after: &str) -> Result<Page<LabView>> {
        let size = i64::from(page_size) + 1;
        // One read transaction, so that tallies and labs are of one moment.
        let mut sql = self.pool.begin().await?;
        let uids = sqlx::query(sqlx::AssertSqlSafe(PAGE)).bind(after).bind(size).fetch_all(&mut *sql).await?;
        let mut order: Vec<LabUid> = Vec::new();
        let mut views: BTreeMap<LabUid, LabView> = BTreeMap::new();
        for row in &uids {
            let uid: LabUid = parse("labs.uid", row.try_get("uid")?)?;
            // A spec is large: it is taken as last committed, not read and parsed again.
            let Some(rows) = self.rows(uid) else { continue };
            order.push(uid);
            let lab = rows.lab.clone();
            views.insert(
                uid,
                LabView {
                    lab,
                    nodes: Vec::new(),
                    links: Vec::new(),
                    unplugged: Vec::new(),
                    needs_restart: Vec::new(),
                    operation: None,
                    hosts: Vec::new(),
                },
            );
        }
        let more = uids.len() > page_size as usize;
        let mut fill = |row: &<Db as sqlx::Database>::Row,
                        put: &mut dyn FnMut(&mut LabView) -> Result<()>|
         -> Result<()> {
            match views.get_mut(&parse::<LabUid>("lab_uid", row.try_get("lab_uid")?)?) {
                Some(view) => put(view),
                None => Ok(()),
            }
        };
        let count = |row: &<Db as sqlx::Database>::Row| -> Result<u32> {
            Ok(u32::try_from(row.try_get::<i64, _>("count")?).unwrap_or(u32::MAX))
        };
        let statement = format!(
            "SELECT lab_uid, runtime, wanted, state, COUNT(*) AS count FROM nodes WHERE replaced = 0 AND lab_uid IN ({PAGE})
             GROUP BY lab_uid, runtime, wanted, state ORDER BY lab_uid, runtime, wanted, state"
        );
        for row in
            sqlx::query(sqlx::AssertSqlSafe(statement)).bind(after).bind(size).fetch_all(&mut *sql).await?
        {
            fill(&row, &mut |view| {
                view.nodes.push((
                    from_word("nodes.runtime", row.try_get("runtime")?)?,
                    from_word("nodes.wanted", row.try_get("wanted")?)?,
                    from_word("nodes.state", row.try_get("state")?)?,
                    count(&row)?,
                ));
                Ok(())
            })?;
        }
        let statement = format!(
            "SELECT lab_uid, state, enabled, CASE WHEN enabled = 1 AND state = 'DOWN' AND reason LIKE '%{NEEDS_RESTART}%' THEN 1 ELSE 0 END AS later,
             COUNT(*) AS count FROM links WHERE replaced = 0 AND lab_uid IN ({PAGE})
             GROUP BY lab_uid, state, enabled, later ORDER BY lab_uid, state, enabled, later"
        );
        for row in
            sqlx::query(sqlx::AssertSqlSafe(statement)).bind(after).bind(size).fetch_all(&mut *sql).await?
        {
            fill(&row, &mut |view| {
                let is = |column| row.try_get::<i64, _>(column).map(|n| n != 0);
                let group = match (is("enabled")?, is("later")?) {
                    (false, _) => &mut view.unplugged,
                    (true, true) => &mut view.needs_restart,
                    (true, false) => &mut view.links,
                };
                group.push((from_word("links.state", row.try_get("state")?)?, count(&row)?));
                Ok(())
            })?;
        }
        let statement =
            format!("SELECT lab_uid, id FROM operations WHERE state = 'RUNNING' AND lab_uid IN ({PAGE})");
        for row in
            sqlx::query(sqlx::AssertSqlSafe(statement)).bind(after).bind(size).fetch_all(&mut *sql).await?
        {
            fill(&row, &mut |view| {
                view.operation = Some(row.try_get("id")?);
                Ok(())
            })?;
        }
        let statement =
            format!("SELECT lab_uid, host FROM lab_hosts WHERE lab_uid IN ({PAGE}) ORDER BY lab_uid, host");
        for row in
            sqlx::query(sqlx::AssertSqlSafe(statement)).bind(after).bind(size).fetch_all(&mut *sql).await?
        {
            fill(&row, &mut |view| {
                view.hosts.push(parse("lab_hosts.host", row.try_get("host")?)?);
                Ok(())
            })?;
        }
        order.truncate(page_size as usize);
        Ok(Page { rows: order.iter().filter_map(|uid| views.remove(uid)).collect(), more })
    }
}
