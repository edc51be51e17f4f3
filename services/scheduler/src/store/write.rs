//! Many rows in one statement: each statement is a way to the database and back, and a lab's change has hundreds.

use netloom_database::Mark;
use sqlx::any::AnyArguments;
use sqlx::{Arguments as _, AssertSqlSafe, Encode, Type};

use super::{Connection, Db, Result, number, to_json, word};
use crate::rows::{LinkRow, NicRow, NodeRow};

/// So many rows are written by one statement.
const ROWS: usize = 32;

/// The values of a statement, in order.
#[derive(Default)]
pub(super) struct Values(AnyArguments);

impl Values {
    /// One more.
    pub(super) fn push_bind<V: for<'q> Encode<'q, Db> + Type<Db> + Send + 'static>(
        &mut self,
        value: V,
    ) -> &mut Values {
        self.0.add(value).expect("plain values are always encoded");
        self
    }

    /// Runs the statement that has so many placeholders.
    async fn run(self, sql: &mut Connection, statement: String) -> Result<()> {
        sqlx::query_with(AssertSqlSafe(statement), self.0).execute(sql).await?;
        Ok(())
    }
}

/// Writes rows: `insert` says where and which columns, `conflict` what becomes of one that is there, and `bind` gives a row's values in the order of the columns.
pub(super) async fn insert<T>(
    sql: &mut Connection,
    insert: &str,
    conflict: &str,
    rows: &[T],
    mut bind: impl FnMut(&mut Values, &T),
) -> Result<()> {
    let mark = Mark::of(sql);
    for rows in rows.chunks(ROWS) {
        let (mut values, mut list, mut next) = (Values::default(), Vec::new(), 1);
        for of in rows {
            bind(&mut values, of);
            list.push(mark.places(next..values.0.len() + 1));
            next = values.0.len() + 1;
        }
        values.run(sql, format!("{insert} VALUES {}{conflict}", list.join(", "))).await?;
    }
    Ok(())
}

/// Does something with the rows that have one of these keys: `statement` ends in `IN`.
pub(super) async fn of<K>(sql: &mut Connection, statement: &str, keys: &[K]) -> Result<()>
where
    K: for<'q> Encode<'q, Db> + Type<Db> + Clone + Send + 'static,
{
    let mark = Mark::of(sql);
    for keys in keys.chunks(ROWS) {
        let mut values = Values::default();
        for key in keys {
            values.push_bind(key.clone());
        }
        values.run(sql, format!("{statement} {}", mark.places(1..keys.len() + 1))).await?;
    }
    Ok(())
}

/// Writes nodes of a lab, in this order.
pub(super) async fn nodes(sql: &mut Connection, lab: &str, nodes: &[&NodeRow]) -> Result<()> {
    let columns = "INSERT INTO nodes (uid, lab_uid, id, folded, replaced, runtime, wanted, spec_json, spec_hash, cpu_millis, memory_bytes, host,
               segment, rejections_json, image_step, image_detail, removal, settled_start, state, reason, observed_json, create_us, update_us,
               restarts, stages_json, files, placed, shares, image_digest, own_files_json, wipes, restore, disk_bytes,
               disk_of, disk_due)";
    let conflict = " ON CONFLICT (uid) DO UPDATE SET replaced = excluded.replaced, wanted = excluded.wanted, spec_json = excluded.spec_json,
               spec_hash = excluded.spec_hash, cpu_millis = excluded.cpu_millis, memory_bytes = excluded.memory_bytes, host = excluded.host,
               rejections_json = excluded.rejections_json, image_step = excluded.image_step, image_detail = excluded.image_detail,
               removal = excluded.removal, settled_start = excluded.settled_start, state = excluded.state, reason = excluded.reason,
               observed_json = excluded.observed_json, update_us = excluded.update_us, restarts = excluded.restarts,
               stages_json = excluded.stages_json, files = excluded.files, placed = excluded.placed, shares = excluded.shares,
               image_digest = excluded.image_digest, own_files_json = excluded.own_files_json,
               wipes = excluded.wipes, restore = excluded.restore, disk_bytes = excluded.disk_bytes,
               disk_of = excluded.disk_of, disk_due = excluded.disk_due";
    insert(sql, columns, conflict, nodes, |row, node| {
        row.push_bind(node.uid.to_string())
            .push_bind(lab.to_owned())
            .push_bind(node.id.to_string())
            .push_bind(node.id.folded())
            .push_bind(i64::from(node.replaced))
            .push_bind(word(&node.runtime))
            .push_bind(word(&node.wanted))
            .push_bind(to_json(&node.spec))
            .push_bind(node.spec_hash.clone())
            .push_bind(i64::from(node.spec.cpu_request_millis))
            .push_bind(number(node.spec.memory_request_bytes))
            .push_bind(node.host.as_ref().map(ToString::to_string))
            .push_bind(node.segment.map(|s| number(s.get())))
            .push_bind(to_json(&node.rejections))
            .push_bind(word(&node.image_step))
            .push_bind(node.image_detail.clone())
            .push_bind(node.removal.clone())
            .push_bind(node.settled_start.clone())
            .push_bind(word(&node.state))
            .push_bind(node.reason.clone())
            .push_bind(node.observed.as_deref().map(to_json))
            .push_bind(node.create_us)
            .push_bind(node.update_us)
            .push_bind(number(node.restarts))
            .push_bind(to_json(&node.stages))
            .push_bind(node.files.clone())
            .push_bind(i64::from(node.placed))
            .push_bind(node.shares.map(|uid| uid.to_string()))
            .push_bind(node.image_digest.clone())
            .push_bind(to_json(&node.own_files))
            .push_bind(number(node.wipes))
            .push_bind(node.restore.clone())
            .push_bind(number(node.spec.disk_request_bytes))
            .push_bind(node.disk_of.map(|uid| uid.to_string()))
            .push_bind(i64::from(node.disk_due));
    })
    .await
}

/// Writes links of a lab, in this order.
pub(super) async fn links(sql: &mut Connection, lab: &str, links: &[&LinkRow]) -> Result<()> {
    let columns = "INSERT INTO links (uid, lab_uid, id, replaced, wire_id, wanted, spec_json, host, state, reason, plane, create_us, update_us, enabled,
               plane_reason, far_json, vni)";
    let conflict = " ON CONFLICT (uid) DO UPDATE SET replaced = excluded.replaced, wanted = excluded.wanted, spec_json = excluded.spec_json,
               enabled = excluded.enabled, host = excluded.host, state = excluded.state, reason = excluded.reason, plane = excluded.plane,
               plane_reason = excluded.plane_reason, update_us = excluded.update_us, far_json = excluded.far_json, vni = excluded.vni";
    insert(sql, columns, conflict, links, |row, link| {
        row.push_bind(link.uid.to_string())
            .push_bind(lab.to_owned())
            .push_bind(link.id.clone())
            .push_bind(i64::from(link.replaced))
            .push_bind(number(link.wire_id.get()))
            .push_bind(word(&link.wanted))
            .push_bind(to_json(&link.spec))
            .push_bind(link.host.as_ref().map(ToString::to_string))
            .push_bind(word(&link.state))
            .push_bind(link.reason.clone())
            .push_bind(link.plane.clone())
            .push_bind(link.create_us)
            .push_bind(link.update_us)
            .push_bind(i64::from(link.enabled))
            .push_bind(link.plane_reason.clone())
            .push_bind(link.far.as_ref().map(to_json))
            .push_bind(link.vni.map(i64::from));
    })
    .await
}

/// Writes NICs of a lab.
pub(super) async fn nics(sql: &mut Connection, lab: &str, nics: &[&NicRow]) -> Result<()> {
    let columns = "INSERT INTO nics (wire_id, lab_uid, node_uid, link_uid, interface, port, absent, host, mac, mtu, addresses_json, present, carrier, alive)";
    let conflict = " ON CONFLICT (wire_id) DO UPDATE SET link_uid = excluded.link_uid, absent = excluded.absent, host = excluded.host,
               mac = excluded.mac, mtu = excluded.mtu, addresses_json = excluded.addresses_json, present = excluded.present,
               carrier = excluded.carrier, alive = excluded.alive";
    insert(sql, columns, conflict, nics, |row, nic| {
        row.push_bind(number(nic.wire_id.get()))
            .push_bind(lab.to_owned())
            .push_bind(nic.node_uid.to_string())
            .push_bind(nic.link_uid.map(|uid| uid.to_string()).unwrap_or_default())
            .push_bind(nic.interface.clone())
            .push_bind(i64::from(nic.port))
            .push_bind(i64::from(nic.absent))
            .push_bind(nic.host.as_ref().map(ToString::to_string))
            .push_bind(nic.mac.clone())
            .push_bind(i64::from(nic.mtu))
            .push_bind(to_json(&nic.addresses))
            .push_bind(i64::from(nic.present))
            .push_bind(i64::from(nic.carrier))
            .push_bind(i64::from(nic.alive));
    })
    .await
}
