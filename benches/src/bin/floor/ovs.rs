//! Ports and flows by hand: one OVSDB transaction, one OpenFlow bundle.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use netloom_openflow::{Action, Command, FlowMod, Match, Switch};
use netloom_ovsdb::{Atom, Client, Db, Function, Mutator, Row, Txn, Uuid, Value, Where};

use crate::lab::Config;

const BOUND: Duration = Duration::from_secs(60);

/// A bridge of the floor's own.
pub struct Ovs {
    client: Client,
    bridge: String,
    socket: PathBuf,
    owner: String,
}

impl Ovs {
    /// Makes the bridge, which is not measured: netloom's is there too.
    pub async fn connect(config: &Config) -> anyhow::Result<Ovs> {
        let tables = vec![
            ("Open_vSwitch", vec!["cur_cfg", "next_cfg"]),
            ("Bridge", vec!["name"]),
            ("Port", vec!["name"]),
            ("Interface", vec!["name", "ofport"]),
        ];
        let ovs = Ovs {
            client: Client::connect(config.ovsdb.clone(), "Open_vSwitch", tables),
            bridge: config.bridge.clone(),
            socket: config.ovs_run_dir.join(format!("{}.mgmt", config.bridge)),
            owner: uuid::Uuid::new_v4().to_string(),
        };
        ovs.until("the database answers", |_| true).await?;
        let mut txn = Txn::new();
        txn.insert("Interface", "i", Row::new().with("name", &*ovs.bridge).with("type", "internal"));
        txn.insert("Port", "p", Row::new().with("name", &*ovs.bridge).with("interfaces", Value::named("i")));
        let row = Row::new()
            .with("name", &*ovs.bridge)
            .with("ports", Value::named("p"))
            .with("fail_mode", "secure")
            .with("datapath_type", "netdev")
            .with("protocols", "OpenFlow14")
            .with("other_config", Value::map([("forward-bpdu", "true"), ("disable-in-band", "true")]));
        txn.insert("Bridge", "b", row);
        txn.mutate("Open_vSwitch", Where::all(), "bridges", Mutator::Insert, Value::named("b"));
        txn.bump_next_cfg();
        let cfg = ovs.client.transact(txn).await?.next_cfg.unwrap_or_default();
        ovs.until("the bridge is there", |db| cur_cfg(db) >= cfg).await?;
        Ok(ovs)
    }

    async fn until(&self, what: &str, holds: impl Fn(&Db) -> bool) -> anyhow::Result<()> {
        let mut snapshots = self.client.snapshots();
        let wait = snapshots.wait_for(|db| db.as_ref().is_some_and(|db| holds(db)));
        tokio::time::timeout(BOUND, wait).await.with_context(|| format!("not in time: {what}"))??;
        Ok(())
    }

    /// Adds a port for each interface (its name, its wire, its number, its MTU), and answers their OpenFlow ports once they have one.
    pub async fn add(&self, ports: &[(String, u64, u32, u32)]) -> anyhow::Result<BTreeMap<String, u32>> {
        let mut txn = Txn::new();
        for (at, (name, wire, index, mtu)) in ports.iter().enumerate() {
            let row = Row::new().with("name", &**name).with("mtu_request", i64::from(*mtu));
            txn.insert("Interface", format!("i{at}"), row);
            let marks = [
                ("netloom-owner", self.owner.clone()),
                ("netloom-wire", wire.to_string()),
                ("netloom-index", index.to_string()),
            ];
            let row = Row::new()
                .with("name", &**name)
                .with("interfaces", Value::named(format!("i{at}")))
                .with("external_ids", Value::map(marks));
            txn.insert("Port", format!("p{at}"), row);
        }
        let all = Value::set((0..ports.len()).map(|at| Atom::Named(format!("p{at}").into())));
        txn.mutate("Bridge", self.mine(), "ports", Mutator::Insert, all);
        txn.bump_next_cfg();
        self.client.transact(txn).await?;
        let names: BTreeSet<&str> = ports.iter().map(|(name, ..)| name.as_str()).collect();
        self.until("all ports have numbers", |db| numbers(db, &names).len() == names.len()).await?;
        let snapshot =
            self.client.snapshots().borrow().clone().ok_or_else(|| anyhow!("the database went"))?;
        Ok(numbers(&snapshot, &names).into_iter().map(|(name, n)| (name.to_owned(), n)).collect())
    }

    /// Two flows for each pair of ports, in one bundle.
    pub async fn join(&self, wires: &[(u64, u32, u32)]) -> anyhow::Result<()> {
        let flow = |cookie: u64, from: u32, to: u32| FlowMod {
            command: Command::Add,
            cookie,
            cookie_mask: 0,
            table: 0,
            priority: 100,
            matches: Match { in_port: Some(from), tun_id: None },
            actions: vec![Action::Output(to)],
        };
        let flows: Vec<FlowMod> =
            wires.iter().flat_map(|(wire, a, b)| [flow(*wire, *a, *b), flow(*wire, *b, *a)]).collect();
        Ok(Switch::connect(&self.socket).await?.bundle(&flows).await?)
    }

    /// Takes these wires' flows away, in one bundle.
    pub async fn part(&self, wires: &[u64]) -> anyhow::Result<()> {
        let flow = |cookie: u64| FlowMod {
            command: Command::Delete,
            cookie,
            cookie_mask: u64::MAX,
            table: 0,
            priority: 0,
            matches: Match::default(),
            actions: Vec::new(),
        };
        let flows: Vec<FlowMod> = wires.iter().map(|wire| flow(*wire)).collect();
        Ok(Switch::connect(&self.socket).await?.bundle(&flows).await?)
    }

    /// Deletes ports, in one transaction; that ovs-vswitchd has taken it up is not waited for, nor does netloom.
    pub async fn delete(&self, names: &[String]) -> anyhow::Result<()> {
        let snapshot =
            self.client.snapshots().borrow().clone().ok_or_else(|| anyhow!("the database went"))?;
        let uuids: BTreeSet<Uuid> =
            names.iter().filter_map(|name| snapshot.find("Port", "name", name)).map(|(u, _)| *u).collect();
        let mut txn = Txn::new();
        txn.mutate("Bridge", self.mine(), "ports", Mutator::Delete, Value::set(uuids));
        txn.bump_next_cfg();
        self.client.transact(txn).await?;
        Ok(())
    }

    fn mine(&self) -> Where {
        Where::all().and("name", Function::Equal, &*self.bridge)
    }
}

fn cur_cfg(db: &Db) -> i64 {
    db.table("Open_vSwitch").next().and_then(|(_, row)| row.int("cur_cfg")).unwrap_or_default()
}

fn numbers<'d>(db: &'d Db, names: &BTreeSet<&str>) -> BTreeMap<&'d str, u32> {
    let rows = db.table("Interface").map(|(_, row)| row);
    let named = rows.filter_map(|row| Some((row.str("name")?, row.int("ofport")?)));
    named
        .filter(|(name, n)| *n > 0 && names.contains(name))
        .filter_map(|(name, n)| Some((name, u32::try_from(n).ok()?)))
        .collect()
}
