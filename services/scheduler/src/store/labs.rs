//! The rows of labs: read whole, written as the difference of two versions.

use std::collections::{BTreeMap, BTreeSet};
use std::mem::take;

use netloom_model::id::{HostId, LabUid, LinkUid, WireId};
use netloom_model::shared::Shared;
use netloom_model::spec::LabSpec;
use netloom_model::state::Wanted;
use sqlx::Row as _;

use super::hosts::resources;
use super::{
    Connection, Db, Event, LabView, LinkView, NodeView, Object, Result, Tx, from_json, from_word, number,
    parse, to_json, unsigned, word, write,
};
use crate::rows::{CertificateRow, LabRow, LabRows, LinkRow, NicRow, NodeRow, Resources, Table};

type SqlRow = <Db as sqlx::Database>::Row;

/// Reads the rows of all labs.
pub(super) async fn load_all(sql: &mut Connection) -> Result<Vec<LabRows>> {
    let mut labs = BTreeMap::new();
    for row in sqlx::query("SELECT * FROM labs").fetch_all(&mut *sql).await? {
        let mut rows = LabRows::new("x".parse().expect("a valid name"), 0);
        rows.lab = lab_row(&row)?;
        labs.insert(rows.lab.uid, rows);
    }
    let lab_of = |row: &SqlRow| -> Result<LabUid> { parse("lab_uid", row.try_get("lab_uid")?) };
    for row in sqlx::query("SELECT * FROM lab_hosts").fetch_all(&mut *sql).await? {
        if let Some(rows) = labs.get_mut(&lab_of(&row)?) {
            rows.hosts.insert(parse("lab_hosts.host", row.try_get("host")?)?);
        }
    }
    for row in sqlx::query("SELECT * FROM nodes").fetch_all(&mut *sql).await? {
        if let Some(rows) = labs.get_mut(&lab_of(&row)?) {
            let node = node_row(&row)?;
            rows.nodes.insert(node.uid, node);
        }
    }
    for row in sqlx::query("SELECT * FROM links").fetch_all(&mut *sql).await? {
        if let Some(rows) = labs.get_mut(&lab_of(&row)?) {
            let link = link_row(&row)?;
            rows.links.insert(link.uid, link);
        }
    }
    for row in sqlx::query("SELECT * FROM nics").fetch_all(&mut *sql).await? {
        if let Some(rows) = labs.get_mut(&lab_of(&row)?) {
            let nic = nic_row(&row)?;
            rows.nics.insert(nic.wire_id, nic);
        }
    }
    for row in sqlx::query("SELECT * FROM certificates").fetch_all(&mut *sql).await? {
        if let Some(rows) = labs.get_mut(&lab_of(&row)?) {
            rows.certificates.insert(row.try_get("node")?, certificate_row(&row)?);
        }
    }
    for row in
        sqlx::query("SELECT id, lab_uid FROM operations WHERE state = 'RUNNING'").fetch_all(&mut *sql).await?
    {
        if let Some(rows) = labs.get_mut(&lab_of(&row)?) {
            rows.operation = Some(parse("operations.id", row.try_get("id")?)?);
        }
    }
    for row in sqlx::query("SELECT * FROM kept").fetch_all(&mut *sql).await? {
        if let Some(rows) = labs.get_mut(&lab_of(&row)?) {
            rows.kept.insert(parse("kept.host", row.try_get("host")?)?, resources(&row)?);
        }
    }
    for rows in labs.values_mut() {
        compact(rows);
    }
    Ok(labs.into_values().collect())
}

/// Maps that grew key by key in order have nodes that are half empty, which all their clones have too.
fn compact(rows: &mut LabRows) {
    rows.nodes = take(&mut rows.nodes).into_iter().collect();
    rows.links = take(&mut rows.links).into_iter().collect();
    rows.nics = take(&mut rows.nics).into_iter().collect();
}

pub(super) fn lab_row(row: &SqlRow) -> Result<LabRow> {
    let (asked, completed): (String, Option<String>) =
        (row.try_get("spec_json")?, row.try_get("completed_json")?);
    let spec = |column, text: &str| -> Result<Shared<LabSpec>> {
        let mut spec: LabSpec = from_json(column, text)?;
        spec.nodes.shrink_to_fit();
        spec.links.shrink_to_fit();
        Ok(spec.into())
    };
    let asked_for = spec("labs.spec_json", &asked)?;
    // Mostly it is the same, which is held once.
    let completed = match completed {
        Some(text) if text == asked => Some(asked_for.clone()),
        other => other.map(|text| spec("labs.completed_json", &text)).transpose()?,
    };
    Ok(LabRow {
        uid: parse("labs.uid", row.try_get("uid")?)?,
        id: parse("labs.id", row.try_get("id")?)?,
        spec: asked_for,
        completed,
        generation: unsigned("labs.generation", row.try_get("generation")?)?,
        deploys: unsigned("labs.deploys", row.try_get("deploys")?)?,
        leases: unsigned("labs.leases", row.try_get("leases")?)?,
        wanted: from_word("labs.wanted", row.try_get("wanted")?)?,
        traceparent: row.try_get("traceparent")?,
        create_us: row.try_get("create_us")?,
        update_us: row.try_get("update_us")?,
    })
}

fn wire(column: &'static str, n: i64) -> Result<WireId> {
    let id = WireId::try_from(unsigned(column, n)?);
    id.map_err(|_| crate::error::Error::Row { column, value: n.to_string() })
}

pub(super) fn node_row(row: &SqlRow) -> Result<NodeRow> {
    let (host, observed): (Option<String>, Option<String>) =
        (row.try_get("host")?, row.try_get("observed_json")?);
    let segment: Option<i64> = row.try_get("segment")?;
    let shares: Option<String> = row.try_get("shares")?;
    let disk_of: Option<String> = row.try_get("disk_of")?;
    Ok(NodeRow {
        uid: parse("nodes.uid", row.try_get("uid")?)?,
        id: parse("nodes.id", row.try_get("id")?)?,
        replaced: row.try_get::<i64, _>("replaced")? != 0,
        runtime: from_word("nodes.runtime", row.try_get("runtime")?)?,
        wanted: from_word("nodes.wanted", row.try_get("wanted")?)?,
        spec: from_json("nodes.spec_json", row.try_get("spec_json")?)?,
        spec_hash: row.try_get("spec_hash")?,
        host: host.map(|h| parse("nodes.host", &h)).transpose()?,
        segment: segment.map(|s| wire("nodes.segment", s)).transpose()?,
        rejections: from_json("nodes.rejections_json", row.try_get("rejections_json")?)?,
        image_step: from_word("nodes.image_step", row.try_get("image_step")?)?,
        image_detail: row.try_get("image_detail")?,
        image_digest: row.try_get("image_digest")?,
        files: row.try_get("files")?,
        own_files: from_json("nodes.own_files_json", row.try_get("own_files_json")?)?,
        placed: row.try_get::<i64, _>("placed")? != 0,
        shares: shares.map(|s| parse("nodes.shares", &s)).transpose()?,
        removal: row.try_get("removal")?,
        settled_start: row.try_get("settled_start")?,
        restarts: unsigned("nodes.restarts", row.try_get("restarts")?)?,
        wipes: unsigned("nodes.wipes", row.try_get("wipes")?)?,
        restore: row.try_get("restore")?,
        disk_of: disk_of.map(|s| parse("nodes.disk_of", &s)).transpose()?,
        disk_due: row.try_get::<i64, _>("disk_due")? != 0,
        stages: from_json("nodes.stages_json", row.try_get("stages_json")?)?,
        state: from_word("nodes.state", row.try_get("state")?)?,
        reason: row.try_get("reason")?,
        observed: observed.map(|o| from_json("nodes.observed_json", &o)).transpose()?,
        create_us: row.try_get("create_us")?,
        update_us: row.try_get("update_us")?,
    })
}

fn small(column: &'static str, n: i64) -> Result<u32> {
    u32::try_from(n).map_err(|_| crate::error::Error::Row { column, value: n.to_string() })
}

pub(super) fn link_row(row: &SqlRow) -> Result<LinkRow> {
    let (host, far): (Option<String>, Option<String>) = (row.try_get("host")?, row.try_get("far_json")?);
    let vni: Option<i64> = row.try_get("vni")?;
    Ok(LinkRow {
        uid: parse("links.uid", row.try_get("uid")?)?,
        id: row.try_get("id")?,
        replaced: row.try_get::<i64, _>("replaced")? != 0,
        wire_id: wire("links.wire_id", row.try_get("wire_id")?)?,
        wanted: from_word("links.wanted", row.try_get("wanted")?)?,
        spec: from_json("links.spec_json", row.try_get("spec_json")?)?,
        host: host.map(|h| parse("links.host", &h)).transpose()?,
        far: far.map(|f| from_json("links.far_json", &f)).transpose()?,
        vni: vni.map(|n| small("links.vni", n)).transpose()?,
        enabled: row.try_get::<i64, _>("enabled")? != 0,
        state: from_word("links.state", row.try_get("state")?)?,
        reason: row.try_get("reason")?,
        plane: row.try_get("plane")?,
        plane_reason: row.try_get("plane_reason")?,
        create_us: row.try_get("create_us")?,
        update_us: row.try_get("update_us")?,
    })
}

pub(super) fn nic_row(row: &SqlRow) -> Result<NicRow> {
    let host: Option<String> = row.try_get("host")?;
    let link: String = row.try_get("link_uid")?;
    Ok(NicRow {
        wire_id: wire("nics.wire_id", row.try_get("wire_id")?)?,
        node_uid: parse("nics.node_uid", row.try_get("node_uid")?)?,
        link_uid: Some(link)
            .filter(|uid| !uid.is_empty())
            .map(|uid| parse("nics.link_uid", &uid))
            .transpose()?,
        interface: row.try_get("interface")?,
        port: small("nics.port", row.try_get("port")?)?,
        absent: row.try_get::<i64, _>("absent")? != 0,
        host: host.map(|h| parse("nics.host", &h)).transpose()?,
        mac: row.try_get("mac")?,
        mtu: small("nics.mtu", row.try_get("mtu")?)?,
        addresses: from_json("nics.addresses_json", row.try_get("addresses_json")?)?,
        present: row.try_get::<i64, _>("present")? != 0,
        carrier: row.try_get::<i64, _>("carrier")? != 0,
        alive: row.try_get::<i64, _>("alive")? != 0,
    })
}

fn certificate_row(row: &SqlRow) -> Result<CertificateRow> {
    Ok(CertificateRow {
        request: row.try_get("request")?,
        certificate_pem: row.try_get("certificate_pem")?,
        key_pem: row.try_get("key_pem")?,
        expire_us: row.try_get("expire_us")?,
    })
}

impl Tx<'_> {
    /// Writes the difference between two versions of a lab's rows, with its events; `before` is none for a new lab. A lab that is gone by
    /// [`LabRows::is_gone`] loses its row. Says whether there was a difference.
    pub async fn save(&mut self, before: Option<&LabRows>, mut after: LabRows) -> Result<bool> {
        let uid = after.lab.uid;
        let empty;
        let old = match before {
            Some(old) => old,
            None => {
                let mut none = LabRows::new(after.lab.id.clone(), self.now);
                none.lab = after.lab.clone();
                empty = none;
                &empty
            }
        };
        let gone = after.is_gone();
        if before == Some(&after) && !gone {
            return Ok(false);
        }
        if after.operation.is_none() || after.lab.wanted == Wanted::Absent {
            after.kept.clear();
        } else if old.operation != after.operation {
            after.kept = old.of_nodes();
        }
        self.reserve(old, &after).await?;
        after.nodes.each_changed(&old.nodes, |node| node.update_us = self.now);
        after.links.each_changed(&old.links, |link| link.update_us = self.now);
        if gone {
            self.delete_lab(uid).await?;
        } else if before.is_none_or(|b| b.lab != after.lab) {
            self.put_lab(&after.lab).await?;
        }
        for host in after.hosts.difference(&old.hosts) {
            let insert = "INSERT INTO lab_hosts (lab_uid, host) VALUES ($1, $2)";
            sqlx::query(insert).bind(uid.to_string()).bind(host.as_str()).execute(&mut *self.sql).await?;
        }
        for host in old.hosts.difference(&after.hosts) {
            let delete = "DELETE FROM lab_hosts WHERE lab_uid = $1 AND host = $2";
            sqlx::query(delete).bind(uid.to_string()).bind(host.as_str()).execute(&mut *self.sql).await?;
        }
        if old.kept != after.kept && !gone {
            self.put_kept(&after).await?;
        }
        self.save_wire_ids(old, &after).await?;
        self.save_rows(old, &after).await?;
        self.tell(before, &after, gone);
        self.staged.push((uid, (!gone).then_some(after)));
        Ok(true)
    }

    async fn put_kept(&mut self, rows: &LabRows) -> Result<()> {
        let lab = rows.lab.uid.to_string();
        write::of(&mut self.sql, "DELETE FROM kept WHERE lab_uid IN", std::slice::from_ref(&lab)).await?;
        let kept: Vec<(&HostId, &Resources)> = rows.kept.iter().collect();
        let insert = "INSERT INTO kept (lab_uid, host, cpu_millis, memory_bytes, disk_bytes)";
        write::insert(&mut self.sql, insert, "", &kept, |row, (host, kept)| {
            row.push_bind(lab.clone())
                .push_bind(host.to_string())
                .push_bind(number(kept.cpu_millis))
                .push_bind(number(kept.memory_bytes))
                .push_bind(number(kept.disk_bytes));
        })
        .await
    }

    async fn save_wire_ids(&mut self, old: &LabRows, after: &LabRows) -> Result<()> {
        let (had, has) = (old.wire_ids(), after.wire_ids());
        let lab = after.lab.uid.to_string();
        let new: Vec<i64> = has.difference(&had).map(|wire| number(wire.get())).collect();
        write::insert(&mut self.sql, "INSERT INTO wire_ids (id, lab_uid)", "", &new, |row, id| {
            row.push_bind(*id).push_bind(lab.clone());
        })
        .await?;
        let gone: Vec<i64> = had.difference(&has).map(|wire| number(wire.get())).collect();
        let update = format!("UPDATE wire_ids SET removed_us = {} WHERE id IN", self.now);
        write::of(&mut self.sql, &update, &gone).await
    }

    async fn save_rows(&mut self, old: &LabRows, after: &LabRows) -> Result<()> {
        let lab = after.lab.uid.to_string();
        let (nodes, links) = (after.nodes.since(&old.nodes), after.links.since(&old.links));
        let nics = after.nics.since(&old.nics);
        let gone: Vec<String> = nodes.removed.iter().map(|node| node.uid.to_string()).collect();
        write::of(&mut self.sql, "DELETE FROM nodes WHERE uid IN", &gone).await?;
        let (insert, now) = ("INSERT INTO removed (uid, lab_uid, time_us)", self.now);
        write::insert(&mut self.sql, insert, "", &gone, |row, uid| {
            row.push_bind(uid.clone()).push_bind(lab.clone()).push_bind(now);
        })
        .await?;
        // Former selves first: they free the name that their successors take.
        let changed = nodes.changed.iter().map(|(_, node)| *node);
        let (replaced, shown): (Vec<_>, Vec<_>) = changed.partition(|node| node.replaced);
        write::nodes(&mut self.sql, &lab, &[replaced, shown].concat()).await?;
        let gone: Vec<String> = links.removed.iter().map(|link| link.uid.to_string()).collect();
        write::of(&mut self.sql, "DELETE FROM links WHERE uid IN", &gone).await?;
        let changed = links.changed.iter().map(|(_, link)| *link);
        let (replaced, shown): (Vec<_>, Vec<_>) = changed.partition(|link| link.replaced);
        write::links(&mut self.sql, &lab, &[replaced, shown].concat()).await?;
        let gone: Vec<i64> = nics.removed.iter().map(|nic| number(nic.wire_id.get())).collect();
        write::of(&mut self.sql, "DELETE FROM nics WHERE wire_id IN", &gone).await?;
        let changed: Vec<&NicRow> = nics.changed.iter().map(|(_, nic)| *nic).collect();
        write::nics(&mut self.sql, &lab, &changed).await?;
        self.save_certificates(&lab, old, after).await
    }

    async fn save_certificates(&mut self, lab: &str, old: &LabRows, after: &LabRows) -> Result<()> {
        for node in old.certificates.keys().filter(|node| !after.certificates.contains_key(*node)) {
            sqlx::query("DELETE FROM certificates WHERE lab_uid = $1 AND node = $2")
                .bind(lab)
                .bind(node)
                .execute(&mut *self.sql)
                .await?;
        }
        for (node, issued) in after.certificates.iter().filter(|(k, v)| old.certificates.get(*k) != Some(*v))
        {
            sqlx::query(
                "INSERT INTO certificates (lab_uid, node, request, certificate_pem, key_pem, expire_us) VALUES ($1, $2, $3, $4, $5, $6)
                 ON CONFLICT (lab_uid, node) DO UPDATE SET request = excluded.request, certificate_pem = excluded.certificate_pem,
                   key_pem = excluded.key_pem, expire_us = excluded.expire_us",
            )
            .bind(lab)
            .bind(node)
            .bind(&issued.request)
            .bind(&issued.certificate_pem)
            .bind(&issued.key_pem)
            .bind(issued.expire_us)
            .execute(&mut *self.sql)
            .await?;
        }
        Ok(())
    }

    /// Writes the events of a difference: what is shown and changed, what is gone, and the lab when its row or its tallies changed.
    fn tell(&mut self, before: Option<&LabRows>, after: &LabRows, gone: bool) {
        let id = after.lab.id.to_string();
        let (no_nodes, no_links, no_nics) = (Table::default(), Table::default(), Table::default());
        let nodes = after.nodes.since(before.map_or(&no_nodes, |b| &b.nodes));
        let links = after.links.since(before.map_or(&no_links, |b| &b.links));
        // A NIC's change is its node's.
        let mut told = BTreeSet::new();
        let nics = after.nics.since(before.map_or(&no_nics, |b| &b.nics));
        let of_nics =
            nics.changed.iter().map(|(_, n)| n.node_uid).chain(nics.removed.iter().map(|n| n.node_uid));
        told.extend(nodes.changed.iter().map(|(_, n)| n.uid).chain(of_nics));
        let index = after.index();
        for node in told.iter().filter_map(|uid| after.nodes.get(uid)).filter(|n| !n.replaced) {
            self.event(Event::new(&id, false, Object::Node(Box::new(NodeView::new(&index, node)))));
        }
        // So is one of its MTU, which is its link's as well.
        let has_other_mtu = |(old, new): &(Option<&NicRow>, &NicRow)| old.is_some_and(|o| o.mtu != new.mtu);
        let of_nics = nics.changed.iter().filter(|both| has_other_mtu(both)).filter_map(|(_, n)| n.link_uid);
        let changed: BTreeSet<LinkUid> = links.changed.iter().map(|(_, l)| l.uid).chain(of_nics).collect();
        let mtus = if changed.is_empty() { BTreeMap::new() } else { after.mtus() };
        for link in changed.iter().filter_map(|uid| after.links.get(uid)).filter(|l| !l.replaced) {
            let view = LinkView::new(after, link, &mtus);
            self.event(Event::new(&id, false, Object::Link(Box::new(view))));
        }
        if let Some(before) = before {
            let index = before.index();
            for node in nodes.removed.iter().filter(|n| !n.replaced) {
                self.event(Event::new(&id, true, Object::Node(Box::new(NodeView::new(&index, node)))));
            }
            let mtus = if links.removed.is_empty() { BTreeMap::new() } else { before.mtus() };
            for link in links.removed.iter().filter(|l| !l.replaced) {
                let view = LinkView::new(before, link, &mtus);
                self.event(Event::new(&id, true, Object::Link(Box::new(view))));
            }
        }
        let changed = before.is_none_or(|b| {
            b.lab != after.lab || b.operation != after.operation || b.tallies() != after.tallies()
        });
        if gone {
            self.event(Event::new(&id, true, Object::Lab(Box::new(LabView::whole(after)))));
        } else if changed {
            self.event(Event::new(&id, false, Object::Lab(Box::new(LabView::without_spec(after)))));
        }
    }

    async fn put_lab(&mut self, lab: &LabRow) -> Result<()> {
        sqlx::query(
            "INSERT INTO labs (uid, id, folded, spec_json, completed_json, generation, deploys, leases, wanted, traceparent, create_us, update_us)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
             ON CONFLICT (uid) DO UPDATE SET spec_json = excluded.spec_json, completed_json = excluded.completed_json,
               generation = excluded.generation, deploys = excluded.deploys, leases = excluded.leases, wanted = excluded.wanted,
               traceparent = excluded.traceparent, update_us = excluded.update_us",
        )
        .bind(lab.uid.to_string())
        .bind(lab.id.as_str())
        .bind(lab.id.folded())
        .bind(to_json(&lab.spec))
        .bind(lab.completed.as_ref().map(to_json))
        .bind(number(lab.generation))
        .bind(number(lab.deploys))
        .bind(number(lab.leases))
        .bind(word(&lab.wanted))
        .bind(&lab.traceparent)
        .bind(lab.create_us)
        .bind(lab.update_us)
        .execute(&mut *self.sql)
        .await?;
        Ok(())
    }

    async fn delete_lab(&mut self, lab: LabUid) -> Result<()> {
        for statement in [
            "DELETE FROM labs WHERE uid = $1",
            "DELETE FROM certificates WHERE lab_uid = $1",
            "DELETE FROM kept WHERE lab_uid = $1",
        ] {
            sqlx::query(statement).bind(lab.to_string()).execute(&mut *self.sql).await?;
        }
        Ok(())
    }
}
