//! Brings about what is wanted: reads, decides ([`crate::plan`]), acts, tells, and waits until anything changes.
//!
//! The loop takes no arguments and keeps no list of work: every pass begins from what is. It is woken by a change of the slice, of the
//! published namespaces, of the host's interfaces, of Open vSwitch's database or flows, and by a timer. What it remembers is only what
//! cannot be read: when to try a failed effect again (`troubles`), and which configuration ovs-vswitchd must have taken up before the database is
//! believed (`switch`). `visits` and `effects` say what a plan means for namespaces and for interfaces, `arrivals` when it is worth to wait for more of the same.

mod arrivals;
mod effects;
mod switch;
mod troubles;
mod visits;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use netloom_model::id::WireId;
use netloom_model::observed::Source;
use netloom_ovsdb::{Client, Db};
use netloom_service::Shutdown;
use netloom_service::pace::Pace;
use tokio::sync::{Notify, watch};

use self::arrivals::Arrivals;
use self::switch::Switch;
use self::troubles::{Problems, Troubles};
use self::visits::Numbers;
use crate::config::Config;
use crate::counts::{self, Counts, Reads};
use crate::error::Error;
use crate::figures;
use crate::links::{Links, Monitor};
use crate::names::Names;
use crate::netlink::{self, Netlink};
use crate::netns::Starts;
use crate::observe::Observed;
use crate::paths::{Paths, Site};
use crate::plan::{self, Facts, Plan};
use crate::probe;
use crate::slice::{Store, Wanted};
use crate::underlay::Look;
use crate::uplink;

/// How often a pass is made though nothing was heard.
const TIMER: Duration = Duration::from_secs(1);
/// Longest rest before a pass for which only events ask. Carrier waits for no pass: `links` keeps it.
const LONGEST_REST: Duration = Duration::from_millis(15);
/// How often what wires carried is read, at most.
const COUNT: Duration = Duration::from_secs(1);
/// How often everything is read of the kernel though no event told of it.
const READ_ALL: Duration = Duration::from_secs(10);

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
    /// When what was found was read.
    pub reads: watch::Sender<Arc<Reads>>,
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

/// The ways to other hosts: where they are measured from, and what was measured.
pub struct Ways {
    /// Where from.
    pub site: watch::Sender<Option<Site>>,
    /// What.
    pub paths: watch::Receiver<Arc<Paths>>,
}

/// The loop.
pub struct Reconciler {
    ways: Ways,
    names: Names,
    config: Config,
    sources: Sources,
    netlink: Arc<Mutex<Netlink>>,
    kernel_datapath: bool,
    impairments: Vec<String>,
    /// Where wires to other hosts begin.
    underlay: Look,
    /// What segments may have for uplinks.
    uplinks: uplink::Look,
    /// Rung when flows were read.
    wake: Arc<Notify>,
    switch: Switch,
    troubles: Troubles,
    problems: Problems,
    numbers: Numbers,
    /// When what wires carried was read last.
    counted: Option<Instant>,
    /// When interfaces were last known as they are, and when all was read of the kernel.
    heard: Option<Instant>,
    read_all: Instant,
}

impl Reconciler {
    /// Over these sources. Must be called in the host's network namespace.
    pub fn new(names: Names, config: Config, sources: Sources, ways: Ways) -> Result<Reconciler, Error> {
        let failed = |source| Error::Kernel { what: "route netlink cannot be used", source };
        let kernel_datapath = netlink::has_generic_family("ovs_datapath").unwrap_or_else(|e| {
            tracing::warn!(
                "whether the kernel has Open vSwitch's datapath cannot be asked, userspace is used: {e}"
            );
            false
        });
        let (wake, starts) = (Arc::new(Notify::new()), sources.starts.borrow().clone());
        Ok(Reconciler {
            ways,
            underlay: Look::new(&config),
            uplinks: uplink::Look::default(),
            netlink: Arc::new(Mutex::new(Netlink::open().map_err(failed)?)),
            kernel_datapath,
            impairments: probe::impairments(),
            switch: Switch::new(names.clone(), &config, sources.client.clone(), wake.clone()),
            wake,
            troubles: Troubles::new(0, starts),
            problems: Problems::default(),
            numbers: Numbers::new(),
            counted: None,
            heard: None,
            read_all: Instant::now(),
            names,
            config,
            sources,
        })
    }

    /// Runs until shut down; what exists goes on carrying after. Ends with an error when a task ended that it reads from.
    pub async fn run(mut self, reports: Reports, shutdown: Shutdown) -> Result<(), Error> {
        let mut wanted = self.sources.store.wanted();
        let mut starts = self.sources.starts.clone();
        let mut links = self.sources.monitor.links();
        let mut snapshots = self.sources.client.snapshots();
        let mut paths = self.ways.paths.clone();
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
            let outcome = if self.switch.refused().is_none() { "ok" } else { "failed" };
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
                Ok(()) = paths.changed() => {}
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
            if self.switch.has_ended() {
                return Err(Error::Ended("keeps a bridge's flows"));
            }
        }
    }

    /// One pass; tells whether it changed anything of the host's interfaces, and how long the next may wait.
    async fn pass(&mut self, now: Now, gather: bool, reports: &Reports) -> (bool, Duration) {
        self.switch.read(now.db);
        let tables = self.switch.tables();
        let troubles = self.troubles.with(now.wanted.revision, &now.starts);
        let underlay = self.underlay.now(&now.links);
        let site = underlay.and_then(|underlay| underlay.site(&now.links));
        self.ways.site.send_if_modified(|told| std::mem::replace(told, site) != site);
        let paths = self.ways.paths.borrow().clone();
        let uplinks = self.uplinks.now(|name| self.config.uplinks.contains(name), &now.links);
        let facts = Facts {
            names: &self.names,
            wanted: &now.wanted,
            starts: &now.starts,
            links: &now.links,
            ovs: self.switch.view(),
            settled: self.switch.is_settled(),
            tables: &tables,
            deleted: self.switch.deleted(),
            troubles: &troubles,
            refused: self.switch.refused(),
            datapath: self.config.datapath,
            kernel_datapath: self.kernel_datapath,
            found_datapath: self.switch.found_datapath(),
            plane: self.config.plane,
            impairments: &self.impairments,
            host_interfaces: self.config.host_interfaces,
            allowed_uplinks: &self.config.uplinks,
            uplinks,
            underlay,
            paths: &paths,
        };
        let mut plan = plan::plan(&facts);
        let held = self.switch.rest(arrivals::PORTS).filter(|_| gather && !plan.changes.is_empty());
        if held.is_some() {
            plan.changes.clear();
        }
        self.tell(&mut plan, &now.wanted, &reports.report);
        let acted = self.act(&plan, &now.wanted, &now.starts, &now.links).await;
        // What is to be done does not wait for what is only told.
        self.count(&plan, reports).await;
        let due = self.troubles.due();
        (acted, due.into_iter().chain(held).min().unwrap_or(TIMER).min(TIMER))
    }

    fn tell(&mut self, plan: &mut Plan, wanted: &Wanted, report: &watch::Sender<Option<Arc<Report>>>) {
        if let Some(before) = report.borrow().as_ref() {
            plan.observed.note_gaps(&before.observed, Instant::now());
        }
        // Also who only looks at the log learns what keeps links from being made, a bridge of somebody else's for instance.
        self.problems.log(&plan.observed.inventory.problems);
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

    /// Brings it about; tells whether anything of the host's interfaces was changed.
    async fn act(&mut self, plan: &Plan, wanted: &Wanted, starts: &Starts, links: &Links) -> bool {
        self.switch.keep_flows(&plan.flows, wanted);
        // Before anything is taken away: a far end must not hear of a wire that is.
        self.sources.monitor.follow(plan.cables.clone()).await;
        self.heard = Some(Instant::now());
        let visits = visits::of(plan, &self.names, wanted, starts, links, &mut self.numbers);
        let database = self.switch.commit(&plan.changes, wanted);
        let interfaces = effects::interfaces(self.netlink.clone(), &self.names, plan, visits, wanted);
        let ((), done) = tokio::join!(database, interfaces);
        let interfaces_changed = !done.is_empty() || effects::any(plan);
        for (wire, outcome) in done {
            self.troubles.note(wire, outcome);
        }
        // A port that Open vSwitch cannot use is deleted and added again, now and then.
        for (wire, why) in &plan.faulty_ports {
            self.troubles.note(*wire, Err(why.clone()));
        }
        if !plan.handlings.is_empty() {
            self.uplinks.again();
        }
        // Nobody decides on a map that is older than what he did himself.
        if interfaces_changed {
            self.sources.monitor.read_anew().await;
        }
        interfaces_changed
    }

    /// Reads what wires carried, when it was not read for a while, and now and then all that only events told of since. Tells when what was last read.
    async fn count(&mut self, plan: &Plan, reports: &Reports) {
        if self.counted.is_some_and(|at| at.elapsed() < COUNT) {
            return;
        }
        self.counted = Some(Instant::now());
        if self.read_all.elapsed() >= READ_ALL {
            self.sources.monitor.read_all().await;
            self.read_all = Instant::now();
        }
        let mut reads = Reads::clone(&reports.reads.borrow());
        for (source, at) in [
            (Source::Interfaces, self.heard),
            (Source::Ovsdb, self.sources.client.heard()),
            (Source::Flows, self.switch.flows_read()),
        ] {
            reads.extend(at.map(|at| (source, at)));
        }
        let flows = self.switch.counts();
        let (netlink, names) = (self.netlink.clone(), self.names.clone());
        let read = tokio::task::spawn_blocking(move || {
            counts::of_redirects(&mut netlink.lock().unwrap_or_else(PoisonError::into_inner), &names)
        });
        match read.await.unwrap_or_else(|e| Err(std::io::Error::other(e))) {
            Ok(redirects) => {
                reads.insert(Source::Redirects, Instant::now());
                reports.counts.send_replace(Arc::new(counts::put_together(&plan.ways, &redirects, &flows)));
            }
            Err(e) => tracing::debug!("what redirects counted cannot be read: {e}"),
        }
        reports.reads.send_replace(Arc::new(reads));
    }
}

/// The levels that a pass begins from.
struct Now {
    wanted: Arc<Wanted>,
    starts: Arc<Starts>,
    links: Arc<Links>,
    db: Option<Arc<Db>>,
}

#[cfg(test)]
mod tests {
    use netloom_model::id::Owner;

    use super::*;
    use crate::driver::ovs;

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
        let (site, (_paths, paths)) = (watch::Sender::default(), watch::channel(Arc::default()));
        let ways = Ways { site, paths };
        let reconciler = Reconciler::new(Names::new(&config, Owner::new()), config, sources, ways).unwrap();
        let (report, mut reports) = watch::channel(None);
        let (counts, reads) = (watch::Sender::default(), watch::Sender::default());
        let running = tokio::spawn(reconciler.run(Reports { report, counts, reads }, Shutdown::new()));
        reports.wait_for(Option::is_some).await.unwrap();
        drop(publish);
        let ended = running.await.unwrap();
        assert!(matches!(ended, Err(Error::Ended(_))), "{ended:?}");
    }
}
