//! Open vSwitch as a pass meets it: what its database says and how far that is believed, the flows of its bridges, and changes of both.
//!
//! A row is no proof: ovs-vswitchd may not have taken it up, may not run, or may have numbered its ports anew. So after each connection, and for each new connection
//! of a bridge, a configuration is asked for, and what the database says is believed once ovs-vswitchd has taken that up.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use netloom_ovsdb::{Client, Db, Txn};
use netloom_service::fail_point;
use tokio::sync::Notify;

use crate::config::Config;
use crate::counts;
use crate::driver::flows::{Keeper, Rule, Wish};
use crate::driver::ovs::{self, Change, View};
use crate::figures;
use crate::names::Names;
use crate::plan::Reading;
use crate::slice::Wanted;

/// See the module.
pub struct Switch {
    names: Names,
    client: Client,
    /// Where bridges' management sockets are.
    run_dir: PathBuf,
    /// Rung when flows were read.
    wake: Arc<Notify>,
    keepers: BTreeMap<String, Keeper>,
    trust: Trust,
    view: Option<(Arc<Db>, View)>,
    /// What the bridge forwarded with when it was seen last.
    found_datapath: Option<String>,
    /// Why the last change of the database failed.
    refused: Option<String>,
    /// When the database was changed last.
    changed: Option<Instant>,
}

/// What must have been taken up by ovs-vswitchd, and has been asked for.
#[derive(Default)]
struct Trust {
    /// For the database to be believed at all since it was (re)connected.
    database: Option<i64>,
    /// For port numbers to be those of a bridge's present connection.
    bridges: HashMap<String, (u64, i64)>,
    /// For a deleted port's interface to be let go of.
    deleted: HashMap<String, i64>,
    /// The highest configuration seen: a lower one is another database.
    highest: i64,
}

impl Switch {
    /// Over this database, of which nothing was read yet.
    pub fn new(names: Names, config: &Config, client: Client, wake: Arc<Notify>) -> Switch {
        let run_dir = config.ovs_run_dir.clone();
        let (keepers, trust) = Default::default();
        Switch {
            names,
            client,
            run_dir,
            wake,
            keepers,
            trust,
            view: None,
            found_datapath: None,
            refused: None,
            changed: None,
        }
    }

    /// Takes in the database's state, and which bridges have to be looked after.
    pub fn read(&mut self, db: Option<Arc<Db>>) {
        let Some(db) = db else {
            self.view = None;
            self.trust = Trust::default();
            return;
        };
        if self.view.as_ref().is_some_and(|(old, _)| Arc::ptr_eq(old, &db)) {
            return;
        }
        let view = View::read(&db);
        if view.next_cfg < self.trust.highest {
            self.trust = Trust::default();
        }
        self.trust.highest = view.next_cfg;
        self.trust.deleted.retain(|_, cfg| view.cur_cfg < *cfg);
        let ours = |name: &String| view.bridges[name].owner.as_ref() == Some(&self.names.owner);
        self.keepers.retain(|name, _| view.bridges.contains_key(name) && ours(name));
        for name in view.bridges.keys().filter(|name| ours(name)) {
            self.keepers.entry(name.clone()).or_insert_with(|| {
                let socket: PathBuf = self.run_dir.join(format!("{name}.mgmt"));
                Keeper::start(name.clone(), socket, self.wake.clone())
            });
        }
        if let Some(bridge) = view.bridges.get(&self.names.bridge) {
            self.found_datapath = Some(bridge.datapath.clone());
        }
        self.view = Some((db, view));
    }

    /// The database; none when it does not answer.
    pub fn view(&self) -> Option<&View> {
        self.view.as_ref().map(|(_, view)| view)
    }

    /// True once ovs-vswitchd has taken up what was asked of it when the database was (re)connected.
    pub fn is_settled(&self) -> bool {
        self.view().is_some_and(|view| self.trust.database.is_some_and(|cfg| view.cur_cfg >= cfg))
    }

    /// Ports that were deleted, and the configuration with which their interfaces are let go of.
    pub fn deleted(&self) -> &HashMap<String, i64> {
        &self.trust.deleted
    }

    /// What the bridge was found to forward with when it was seen last.
    pub fn found_datapath(&self) -> Option<&str> {
        self.found_datapath.as_deref()
    }

    /// Why the last change of the database failed.
    pub fn refused(&self) -> Option<&str> {
        self.refused.as_deref()
    }

    /// How long until the database may be changed again by who leaves it alone for so long.
    pub fn rest(&self, length: Duration) -> Option<Duration> {
        let left = length.saturating_sub(self.changed?.elapsed());
        (!left.is_zero()).then_some(left)
    }

    /// Flows of the bridges that answer.
    pub fn tables(&self) -> BTreeMap<String, Reading> {
        let Some(view) = self.view() else { return BTreeMap::new() };
        let read = self.keepers.iter().filter_map(|(name, keeper)| {
            let table = keeper.table();
            let trusted = self
                .trust
                .bridges
                .get(name)
                .is_some_and(|(generation, cfg)| *generation == table.generation && view.cur_cfg >= *cfg);
            let rules = table.rules?;
            Some((name.clone(), Reading { rules, trusted, lost: table.lost, problem: table.problem }))
        });
        read.collect()
    }

    /// What flows counted that join NICs.
    pub fn counts(&self) -> Arc<counts::Read> {
        self.keepers.get(&self.names.bridge).map(Keeper::counts).unwrap_or_default()
    }

    /// When the flows of a bridge were read, of the one where that is longest ago.
    pub fn flows_read(&self) -> Option<Instant> {
        self.keepers.values().filter_map(Keeper::read_at).min()
    }

    /// True when a task is no more that keeps flows, which happens to one that panicked.
    pub fn has_ended(&self) -> bool {
        self.keepers.values().any(Keeper::ended)
    }

    /// Has bridges' flows be these. One that is not named, or is not trusted for its connection, is left alone.
    pub fn keep_flows(&self, flows: &BTreeMap<String, BTreeSet<Rule>>, wanted: &Wanted) {
        for (name, keeper) in &self.keepers {
            let generation = keeper.table().generation;
            let wish = flows.get(name).map(|rules| Wish {
                generation,
                rules: rules.clone(),
                traces: wanted.traces.clone(),
            });
            let trusted = self.trust.bridges.get(name).is_some_and(|(g, _)| *g == generation);
            keeper.want(wish.filter(|_| trusted));
        }
    }

    /// Changes the database, in one transaction, and asks for what has to be known to trust it. What fails is composed anew by the next pass.
    pub async fn commit(&mut self, changes: &[Change], wanted: &Wanted) {
        let settled = self.is_settled();
        let committed = self.transact(changes, wanted).await;
        if !changes.is_empty() {
            self.changed = Some(Instant::now());
        }
        self.refused = committed.err().map(|e| e.to_string());
        if let Some(why) = self.refused.as_ref().filter(|_| settled) {
            tracing::warn!("a change to Open vSwitch's database failed, it is composed anew: {why}");
        }
    }

    async fn transact(&mut self, changes: &[Change], wanted: &Wanted) -> Result<(), netloom_ovsdb::Error> {
        let asked: Vec<(&String, u64)> = self
            .keepers
            .iter()
            .map(|(name, keeper)| (name, keeper.table()))
            .filter(|(name, table)| {
                table.rules.is_some()
                    && self.trust.bridges.get(*name).is_none_or(|(g, _)| *g != table.generation)
            })
            .map(|(name, table)| (name, table.generation))
            .collect();
        let connected = self.client.snapshots().borrow().is_some();
        if !connected || (changes.is_empty() && asked.is_empty() && self.trust.database.is_some()) {
            return Ok(());
        }
        let txn = if changes.is_empty() {
            let mut txn = Txn::new();
            txn.bump_next_cfg();
            txn
        } else {
            ovs::transaction(&self.names, changes)
        };
        let begun = Instant::now();
        fail_point::pass("network.database", "before");
        let outcome = figures::OVSDB.time(&[], self.client.transact(txn)).await?;
        fail_point::pass("network.database", "after");
        let Some(cfg) = outcome.next_cfg else { return Ok(()) };
        self.trust.database.get_or_insert(cfg);
        for (name, generation) in asked {
            self.trust.bridges.insert(name.clone(), (generation, cfg));
        }
        for change in changes {
            if let Change::DeletePort { name, .. } = change {
                self.trust.deleted.insert(name.clone(), cfg);
            }
        }
        tell(changes, wanted, begun);
        Ok(())
    }
}

/// Says what was changed, to who asked for it.
fn tell(changes: &[Change], wanted: &Wanted, begun: Instant) {
    wanted.traces.each(
        changes,
        |change| change.wire(),
        |changes| {
            let count = |kind: fn(&Change) -> bool| changes.iter().filter(|change| kind(change)).count();
            tracing::info!(
                bridges_added = count(|c| matches!(c, Change::CreateBridge { .. })),
                bridges_repaired = count(|c| matches!(c, Change::RepairBridge { .. })),
                bridges_deleted = count(|c| matches!(c, Change::DeleteBridge { .. })),
                ports_added = count(|c| matches!(c, Change::AddPort { .. })),
                mtus_set = count(|c| matches!(c, Change::SetMtu { .. })),
                ports_deleted = count(|c| matches!(c, Change::DeletePort { .. })),
                ms = begun.elapsed().as_millis() as u64,
                "OVSDB transaction"
            );
        },
    );
}
