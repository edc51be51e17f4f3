//! Brings about what is wanted: reads, decides ([`crate::plan`]), acts, tells, and waits until anything changes.
//!
//! The loop takes no arguments and keeps no list of work: every pass begins from what is. It is woken by a change of the slice, of the
//! published namespaces, of the host's interfaces, of Open vSwitch's database or flows, and by a timer. What it remembers is only what
//! cannot be read: when to try a failed effect again, and which configuration ovs-vswitchd must have taken up before the database is
//! believed.

mod arrivals;
mod effects;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use netloom_model::id::{NodeUid, WireId};
use netloom_ovsdb::{Client, Db, Txn, Uuid};
use netloom_service::pace::Pace;
use netloom_service::{Shutdown, fail_point};
use tokio::sync::{Notify, watch};

use self::arrivals::Arrivals;
use crate::config::Config;
use crate::counts::{self, Counts};
use crate::driver::flows::{Keeper, Wish};
use crate::driver::ovs::{self, Change, View};
use crate::error::Error;
use crate::figures;
use crate::guest::Guest;
use crate::links::{Links, Monitor};
use crate::names::Names;
use crate::namespace::{Adjust, Plug, Visit};
use crate::netlink::{self, Netlink};
use crate::netns::Starts;
use crate::observe::Observed;
use crate::plan::{self, Adjustment, Facts, Plan, Reading, Trouble};
use crate::probe;
use crate::slice::{Store, Wanted};

/// How long a problem lasts before the log has it.
const LASTING: Duration = Duration::from_secs(1);
/// How often a pass is made though nothing was heard.
const TIMER: Duration = Duration::from_secs(1);
/// Longest rest before a pass for which only events ask. Carrier waits for no pass: `links` keeps it.
const LONGEST_REST: Duration = Duration::from_millis(15);
/// How often what wires carried is read, at most.
const COUNT: Duration = Duration::from_secs(1);
/// How long a failed effect rests, at first and at most.
const REST: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
/// Numbers of host ends begin here: an end in a node never gets so high.
const FIRST_INDEX: u32 = 100_001;

/// What the last pass found.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// What is told of the host.
    pub observed: Observed,
    /// What was removed and still exists, and what of it.
    pub left: BTreeMap<WireId, String>,
}

/// Where what the loop finds goes.
pub struct Reports {
    /// What each pass found.
    pub report: watch::Sender<Option<Arc<Report>>>,
    /// What wires carried, now and then.
    pub counts: watch::Sender<Arc<Counts>>,
}

/// What a pass reads; each is a level.
pub struct Sources {
    /// What is wanted.
    pub store: Store,
    /// The nodes that run.
    pub starts: watch::Receiver<Arc<Starts>>,
    /// The host's interfaces.
    pub monitor: Monitor,
    /// Open vSwitch's database.
    pub client: Client,
}

/// The loop.
pub struct Reconciler {
    names: Names,
    config: Config,
    sources: Sources,
    netlink: Arc<Mutex<Netlink>>,
    kernel_datapath: bool,
    /// What the bridge forwarded with when it was seen last.
    found_datapath: Option<String>,
    impairments: Vec<String>,
    wake: Arc<Notify>,
    keepers: BTreeMap<String, Keeper>,
    trust: Trust,
    resting: HashMap<WireId, Rest>,
    /// Why the last change of the database failed.
    refused: Option<String>,
    /// The namespaces and the slice that failures were met with: a change of either is a reason to try again.
    tried_with: (u64, Arc<Starts>),
    next_index: u32,
    view: Option<(Arc<Db>, View)>,
    /// When what wires carried was read last.
    counted: Option<Instant>,
    /// When the database was changed last.
    changed: Option<Instant>,
    /// Since when each problem of the host is there, and whether the log has it.
    noticed: BTreeMap<String, (Instant, bool)>,
}

/// When a failed effect is tried again.
struct Rest {
    message: String,
    until: Instant,
    length: Duration,
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

impl Reconciler {
    /// Over these sources. Must be called in the host's network namespace.
    pub fn new(names: Names, config: Config, sources: Sources) -> Result<Reconciler, Error> {
        let failed = |source| Error::Kernel { what: "route netlink cannot be used", source };
        let kernel_datapath = netlink::has_generic_family("ovs_datapath").unwrap_or_else(|e| {
            tracing::warn!(
                "whether the kernel has Open vSwitch's datapath cannot be asked, userspace is used: {e}"
            );
            false
        });
        let starts = sources.starts.borrow().clone();
        // Somewhere in a wide range, so that two installations seldom meet; a number that is taken is passed over.
        let spread = (1u32 << 30) - FIRST_INDEX;
        let next_index = FIRST_INDEX + Uuid::new_v4().as_fields().0 % spread;
        Ok(Reconciler {
            names,
            config,
            sources,
            netlink: Arc::new(Mutex::new(Netlink::open().map_err(failed)?)),
            kernel_datapath,
            found_datapath: None,
            impairments: probe::impairments(),
            wake: Arc::new(Notify::new()),
            keepers: BTreeMap::new(),
            trust: Trust::default(),
            resting: HashMap::new(),
            refused: None,
            tried_with: (0, starts),
            next_index,
            view: None,
            counted: None,
            changed: None,
            noticed: BTreeMap::new(),
        })
    }

    /// Runs until shut down; what exists goes on carrying after. Ends with an error when a task ended that it reads from.
    pub async fn run(mut self, reports: Reports, shutdown: Shutdown) -> Result<(), Error> {
        let mut wanted = self.sources.store.wanted();
        let mut starts = self.sources.starts.clone();
        let mut links = self.sources.monitor.links();
        let mut snapshots = self.sources.client.snapshots();
        // What exists is told from the first word on; a database that does not answer is not waited for.
        let _ = tokio::time::timeout(TIMER, snapshots.wait_for(Option::is_some)).await;
        let wake = self.wake.clone();
        let mut pace = Pace::new(LONGEST_REST);
        let mut arrivals = Arrivals::default();
        loop {
            let now = Now {
                wanted: wanted.borrow_and_update().clone(),
                starts: starts.borrow_and_update().clone(),
                links: links.borrow_and_update().clone(),
                db: snapshots.borrow_and_update().clone(),
            };
            let asked = now.wanted.clone();
            let gather = arrivals.go_on(&asked.slice, &now.starts);
            let begun = Instant::now();
            let (acted, pause) = self.pass(now, gather, &reports).await;
            let outcome = if self.refused.is_none() { "ok" } else { "failed" };
            figures::PASSES.note(&[outcome], begun.elapsed());
            // What was done is looked at without a rest: what comes of it asks for more.
            if !acted {
                pace.looked();
            }
            tokio::select! {
                Ok(()) = wanted.changed() => {}
                there = starts.changed() => there.map_err(|_| Error::Ended("lists network namespaces"))?,
                there = links.changed() => there.map_err(|_| Error::Ended("watches interfaces"))?,
                there = snapshots.changed() => there.map_err(|_| Error::Ended("reads Open vSwitch's database"))?,
                () = wake.notified() => {}
                () = tokio::time::sleep(pause) => {}
                () = shutdown.cancelled() => return Ok(()),
            }
            let rest = async {
                if gather {
                    arrivals::gather(begun, &asked.slice, starts.clone()).await;
                } else if !acted {
                    pace.rest().await;
                }
            };
            tokio::select! {
                () = rest => {}
                () = shutdown.cancelled() => return Ok(()),
            }
            if self.keepers.values().any(Keeper::ended) {
                return Err(Error::Ended("keeps a bridge's flows"));
            }
        }
    }

    /// One pass; tells whether it changed anything of the host's interfaces, and how long the next may wait.
    async fn pass(&mut self, now: Now, gather: bool, reports: &Reports) -> (bool, Duration) {
        self.read(now.db);
        let tables = self.tables();
        let tried_with = (now.wanted.revision, now.starts.clone());
        if self.tried_with != tried_with {
            self.tried_with = tried_with;
            self.resting.values_mut().for_each(|rest| rest.until = Instant::now());
        }
        let (clock, view) = (Instant::now(), self.view.as_ref().map(|(_, view)| view));
        let troubles = self.resting.iter().map(|(wire, rest)| {
            let (resting, lasts) = (rest.until > clock, rest.length > LASTING);
            (*wire, Trouble { message: rest.message.clone(), resting, lasts })
        });
        let troubles = troubles.collect();
        let facts = Facts {
            names: &self.names,
            wanted: &now.wanted,
            starts: &now.starts,
            links: &now.links,
            ovs: view,
            settled: view.is_some_and(|view| self.trust.database.is_some_and(|cfg| view.cur_cfg >= cfg)),
            tables: &tables,
            deleted: &self.trust.deleted,
            troubles: &troubles,
            refused: self.refused.as_deref(),
            datapath: self.config.datapath,
            kernel_datapath: self.kernel_datapath,
            found_datapath: self.found_datapath.as_deref(),
            plane: self.config.plane,
            impairments: &self.impairments,
            host_interfaces: self.config.host_interfaces,
        };
        let mut plan = plan::plan(&facts);
        let settled = facts.settled;
        let held = self.changed.map(|at| arrivals::PORTS.saturating_sub(at.elapsed()));
        let held = held.filter(|left| gather && !left.is_zero() && !plan.changes.is_empty());
        if held.is_some() {
            plan.changes.clear();
        }
        self.tell(&mut plan, &now.wanted, &reports.report);
        self.count(&plan, &reports.counts).await;
        let acted = self.act(plan, &now.wanted, &now.starts, &now.links, settled).await;
        let clock = Instant::now();
        let due = self.resting.values().filter_map(|rest| rest.until.checked_duration_since(clock)).min();
        (acted, due.into_iter().chain(held).min().unwrap_or(TIMER).min(TIMER))
    }

    /// Takes in the database's state, and which bridges have to be looked after.
    fn read(&mut self, db: Option<Arc<Db>>) {
        let Some(db) = db else {
            self.view = None;
            self.trust = Trust::default();
            return;
        };
        if self.view.as_ref().is_none_or(|(old, _)| !Arc::ptr_eq(old, &db)) {
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
                    let socket: PathBuf = self.config.ovs_run_dir.join(format!("{name}.mgmt"));
                    Keeper::start(name.clone(), socket, self.wake.clone())
                });
            }
            if let Some(bridge) = view.bridges.get(&self.names.bridge) {
                self.found_datapath = Some(bridge.datapath.clone());
            }
            self.view = Some((db, view));
        }
    }

    /// Flows of the bridges that answer.
    fn tables(&self) -> BTreeMap<String, Reading> {
        let Some((_, view)) = &self.view else { return BTreeMap::new() };
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

    fn tell(&mut self, plan: &mut Plan, wanted: &Wanted, report: &watch::Sender<Option<Arc<Report>>>) {
        if let Some(before) = report.borrow().as_ref() {
            plan.observed.note_gaps(&before.observed, Instant::now());
        }
        // Also who only looks at the log learns what keeps links from being made, a bridge of somebody else's for instance.
        self.log_problems(&plan.observed.inventory.problems);
        let left: BTreeSet<WireId> = plan.left.keys().copied().collect();
        report.send_if_modified(|last| {
            let same = last.as_ref().is_some_and(|r| r.observed == plan.observed && r.left == plan.left);
            if !same {
                let observed = plan.observed.clone();
                *last = Some(Arc::new(Report { observed, left: plan.left.clone() }));
            }
            !same
        });
        if wanted.synced {
            self.sources.store.gone(wanted, &left);
        }
    }

    /// Logs each problem once while it lasts. One that is over at once is none: at first nobody knows whether ovs-vswitchd takes up changes.
    fn log_problems(&mut self, problems: &[String]) {
        self.noticed.retain(|problem, _| problems.contains(problem));
        for problem in problems {
            let (since, logged) =
                self.noticed.entry(problem.clone()).or_insert_with(|| (Instant::now(), false));
            if !*logged && since.elapsed() >= LASTING {
                *logged = true;
                tracing::warn!("{problem}");
            }
        }
    }

    /// Brings it about; tells whether anything of the host's interfaces was changed.
    async fn act(
        &mut self,
        plan: Plan,
        wanted: &Wanted,
        starts: &Starts,
        links: &Links,
        settled: bool,
    ) -> bool {
        for (name, keeper) in &self.keepers {
            let generation = keeper.table().generation;
            let wish = plan.flows.get(name).map(|rules| Wish {
                generation,
                rules: rules.clone(),
                traces: wanted.traces.clone(),
            });
            // One that is not trusted for this generation is left alone.
            let trusted = self.trust.bridges.get(name).is_some_and(|(g, _)| *g == generation);
            keeper.want(wish.filter(|_| trusted));
        }
        // Before anything is taken away: a far end must not hear of a wire that is.
        self.sources.monitor.follow(plan.cables.clone()).await;
        let visits = self.visits(&plan, wanted, starts, links);
        let database =
            commit(&self.sources.client, &self.names, &mut self.trust, &self.keepers, &plan.changes, wanted);
        let interfaces = effects::interfaces(self.netlink.clone(), &self.names, &plan, visits, wanted);
        let (committed, done) = tokio::join!(database, interfaces);
        if !plan.changes.is_empty() {
            self.changed = Some(Instant::now());
        }
        let interfaces_changed = !done.is_empty() || effects::any(&plan);
        for (wire, outcome) in done {
            self.note(wire, outcome);
        }
        self.refused = committed.err().map(|e| e.to_string());
        if let Some(why) = self.refused.as_ref().filter(|_| settled) {
            tracing::warn!("a change to Open vSwitch's database failed, it is composed anew: {why}");
        }
        // A port that Open vSwitch cannot use is deleted and added again, now and then.
        for (wire, why) in &plan.faulty_ports {
            self.note(*wire, Err(why.clone()));
        }
        // Nobody decides on a map that is older than what he did himself.
        if interfaces_changed {
            self.sources.monitor.read_anew().await;
        }
        interfaces_changed
    }

    /// Reads what wires carried, when it was not read for a while.
    async fn count(&mut self, plan: &Plan, to: &watch::Sender<Arc<Counts>>) {
        if self.counted.is_some_and(|at| at.elapsed() < COUNT) {
            return;
        }
        self.counted = Some(Instant::now());
        let flows = self.keepers.get(&self.names.bridge).map(Keeper::counts).unwrap_or_default();
        let (netlink, names) = (self.netlink.clone(), self.names.clone());
        let read = tokio::task::spawn_blocking(move || {
            counts::of_redirects(&mut netlink.lock().unwrap_or_else(PoisonError::into_inner), &names)
        });
        let redirects = match read.await.unwrap_or_else(|e| Err(std::io::Error::other(e))) {
            Ok(redirects) => redirects,
            Err(e) => return tracing::debug!("what redirects counted cannot be read: {e}"),
        };
        to.send_replace(Arc::new(counts::put_together(&plan.ways, &redirects, &flows)));
    }

    fn note(&mut self, wire: WireId, outcome: Result<(), String>) {
        let Err(message) = outcome else {
            self.resting.remove(&wire);
            return;
        };
        let before = self.resting.get(&wire);
        if before.is_none_or(|rest| rest.message != message) {
            tracing::warn!(wire = wire.get(), "{message}");
        }
        let length = before.map_or(REST.0, |rest| (rest.length * 2).min(REST.1));
        self.resting.insert(wire, Rest { message, until: Instant::now() + length, length });
    }

    fn visits(
        &mut self,
        plan: &Plan,
        wanted: &Wanted,
        starts: &Starts,
        links: &Links,
    ) -> Vec<(String, Visit)> {
        let taken: BTreeSet<u32> = links.values().map(|link| link.index).collect();
        let mut visits = Vec::new();
        let nodes: BTreeSet<&NodeUid> = plan.plug.keys().chain(plan.adjust.keys()).collect();
        for node in nodes {
            let Some(start) = starts.get(node) else { continue };
            // Those that cannot be are not in the plan.
            let known = |wire: WireId| {
                let nic = wanted.slice.nics.get(&wire)?;
                Some((nic, Guest::parse(nic).ok()?))
            };
            let mut plugs = Vec::new();
            for wish in plan.plug.get(node).into_iter().flatten() {
                let Some((nic, guest)) = known(wish.wire) else { continue };
                while taken.contains(&self.next_index) {
                    self.next_index += 1;
                }
                plugs.push(Plug {
                    wire: nic.wire_id,
                    guest,
                    host_name: wish.host_name.clone(),
                    host_index: self.next_index,
                    alias: self.names.alias(nic, &start.id, Some(wish.offload)),
                    group: self.names.group,
                    silent: wish.silent,
                    offload: wish.offload,
                });
                self.next_index = self.next_index.wrapping_add(1).clamp(FIRST_INDEX, i32::MAX as u32);
            }
            let adjust = |adjustment: &Adjustment| {
                let (nic, guest) = known(adjustment.wire)?;
                Some(Adjust {
                    wire: adjustment.wire,
                    guest_index: adjustment.guest_index,
                    host_index: adjustment.host_index,
                    called: adjustment.called.clone(),
                    name: guest.name,
                    before: adjustment.before.clone(),
                    after: guest.setting,
                    offload: adjustment.offload,
                    alias: self.names.alias(nic, &start.id, adjustment.offload),
                })
            };
            let adjusts = plan.adjust.get(node).into_iter().flatten().filter_map(adjust).collect();
            let visit = Visit { path: start.path.clone(), plugs, adjusts };
            visits.push((node.to_string(), visit));
        }
        visits
    }
}

/// The levels that a pass begins from.
struct Now {
    wanted: Arc<Wanted>,
    starts: Arc<Starts>,
    links: Arc<Links>,
    db: Option<Arc<Db>>,
}

/// Changes the database, in one transaction, and asks for what has to be known to trust it.
async fn commit(
    client: &Client,
    names: &Names,
    trust: &mut Trust,
    keepers: &BTreeMap<String, Keeper>,
    changes: &[Change],
    wanted: &Wanted,
) -> Result<(), netloom_ovsdb::Error> {
    let asked: Vec<(&String, u64)> = keepers
        .iter()
        .map(|(name, keeper)| (name, keeper.table()))
        .filter(|(name, table)| {
            table.rules.is_some() && trust.bridges.get(*name).is_none_or(|(g, _)| *g != table.generation)
        })
        .map(|(name, table)| (name, table.generation))
        .collect();
    let connected = client.snapshots().borrow().is_some();
    if !connected || (changes.is_empty() && asked.is_empty() && trust.database.is_some()) {
        return Ok(());
    }
    let txn = if changes.is_empty() {
        let mut txn = Txn::new();
        txn.bump_next_cfg();
        txn
    } else {
        ovs::transaction(names, changes)
    };
    let begun = Instant::now();
    fail_point::pass("network.database", "before");
    let outcome = figures::OVSDB.time(&[], client.transact(txn)).await?;
    fail_point::pass("network.database", "after");
    let Some(cfg) = outcome.next_cfg else { return Ok(()) };
    trust.database.get_or_insert(cfg);
    for (name, generation) in asked {
        trust.bridges.insert(name.clone(), (generation, cfg));
    }
    for change in changes {
        if let Change::DeletePort { name, .. } = change {
            trust.deleted.insert(name.clone(), cfg);
        }
    }
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
    Ok(())
}

#[cfg(test)]
mod tests {
    use netloom_model::id::Owner;

    use super::*;

    #[tokio::test]
    async fn the_end_of_a_task_it_reads_from_ends_it() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { ovsdb_socket: dir.path().join("none"), ..Config::default() };
        let (publish, starts) = watch::channel(Arc::default());
        let sources = Sources {
            store: Store::open(dir.path()).unwrap(),
            starts: starts.clone(),
            monitor: Monitor::start(starts).unwrap(),
            client: Client::connect(config.ovsdb_socket.clone(), ovs::DATABASE, ovs::tables()),
        };
        let reconciler = Reconciler::new(Names::new(&config, Owner::new()), config, sources).unwrap();
        let (report, mut reports) = watch::channel(None);
        let counts = watch::Sender::new(Arc::default());
        let running = tokio::spawn(reconciler.run(Reports { report, counts }, Shutdown::new()));
        reports.wait_for(Option::is_some).await.unwrap();
        drop(publish);
        let ended = running.await.unwrap();
        assert!(matches!(ended, Err(Error::Ended(_))), "{ended:?}");
    }
}
