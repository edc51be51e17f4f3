//! The flows of a bridge, kept as they are wanted.
//!
//! One task a bridge holds its management connection. It reads the flows when it connects, when somebody else changed them, when other ones
//! are wanted, and each second; what differs is put right in one bundle; what was read is published. A bridge is told what is wanted only
//! for the connection at hand: ovs-vswitchd numbers its ports anew when it restarts, and flows made from the old numbers would join wires
//! that have nothing to do with each other.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use netloom_model::id::WireId;
use netloom_model::observed::Count;
use netloom_openflow::{ALL_TABLES, Action, Command, Flow, FlowMod, Match, Switch};
use netloom_service::fail_point;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;

use crate::counts::Read;
use crate::figures::FLOWS;
use crate::trace::Traces;

/// All our flows have this priority.
const PRIORITY: u16 = 100;
/// How often flows are read though nothing was heard.
const READ: Duration = Duration::from_secs(1);
/// A switch that takes longer to answer is not believed to do what it was told last. Deleting ports keeps ovs-vswitchd busy for some 14 ms each.
const ANSWER: Duration = Duration::from_secs(5);
/// How soon a lost connection is tried again.
const RETRY: Duration = Duration::from_millis(50);
/// How long a loss is told: whoever reads the table each second has seen it by then.
const REMEMBER: Duration = Duration::from_secs(60);

/// A flow as netloom makes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Rule {
    /// The wire or segment it belongs to.
    pub cookie: u64,
    /// The port that frames come in by; none means any.
    pub from: Option<u32>,
    /// The port they go out by; none means as a switch does.
    pub to: Option<u32>,
    /// The network identifier that they come with by a tunnel.
    pub vni: Option<u32>,
    /// The network identifier that they go with by a tunnel, and the host that they go to.
    pub towards: Option<(u32, Ipv4Addr)>,
}

impl Rule {
    /// The two rules of a wire.
    pub fn wire(wire: WireId, a: u32, b: u32) -> [Rule; 2] {
        let rule = |from, to| Rule { cookie: wire.get(), from: Some(from), to: Some(to), ..Rule::default() };
        [rule(a, b), rule(b, a)]
    }

    /// The two rules of a wire between a port and another host.
    pub fn tunnel(wire: WireId, port: u32, tunnel: u32, vni: u32, remote: Ipv4Addr) -> [Rule; 2] {
        let [out, back] = Rule::wire(wire, port, tunnel);
        [Rule { towards: Some((vni, remote)), ..out }, Rule { vni: Some(vni), ..back }]
    }

    /// The rule of a segment.
    pub fn segment(wire: WireId) -> Rule {
        Rule { cookie: wire.get(), ..Rule::default() }
    }

    fn read(flow: &Flow) -> Option<Rule> {
        let (to, towards) = match flow.actions.as_slice() {
            [Action::Output(port)] => (Some(*port), None),
            [Action::Normal] => (None, None),
            [Action::SetTunnelId(vni), Action::SetTunnelDst(remote), Action::Output(port)] => {
                (Some(*port), Some((u32::try_from(*vni).ok()?, *remote)))
            }
            _ => return None,
        };
        let Match { in_port: from, tun_id } = flow.matches;
        let vni = tun_id.map(u32::try_from).transpose().ok()?;
        let ours =
            !flow.foreign && flow.table == 0 && flow.priority == PRIORITY && from.is_some() == to.is_some();
        ours.then_some(Rule { cookie: flow.cookie, from, to, vni, towards })
    }

    fn add(&self) -> FlowMod {
        let towards =
            |(vni, remote): (u32, Ipv4Addr)| [Action::SetTunnelId(vni.into()), Action::SetTunnelDst(remote)];
        let towards = self.towards.map(towards).into_iter().flatten();
        FlowMod {
            command: Command::Add,
            cookie: self.cookie,
            cookie_mask: 0,
            table: 0,
            priority: PRIORITY,
            matches: Match { in_port: self.from, tun_id: self.vni.map(u64::from) },
            actions: towards.chain([self.to.map_or(Action::Normal, Action::Output)]).collect(),
        }
    }
}

/// What turns these flows into these rules, in one bundle: deletions first.
pub fn difference(flows: &[Flow], wanted: &BTreeSet<Rule>) -> Vec<FlowMod> {
    let mut there = BTreeSet::new();
    let mut bundle = Vec::new();
    let mut swept = BTreeSet::new();
    for flow in flows {
        match Rule::read(flow) {
            Some(rule) if wanted.contains(&rule) => {
                there.insert(rule);
                continue;
            }
            _ => {}
        }
        let delete = FlowMod {
            command: if flow.foreign { Command::Delete } else { Command::DeleteStrict },
            cookie: flow.cookie,
            cookie_mask: u64::MAX,
            table: flow.table,
            priority: flow.priority,
            matches: if flow.foreign { Match::default() } else { flow.matches.clone() },
            actions: Vec::new(),
        };
        // Of a flow with matches that are not known here only the cookie can be named, which takes everything that has it.
        if !flow.foreign || swept.insert((flow.table, flow.cookie)) {
            bundle.push(delete);
        }
    }
    let missing = |rule: &&Rule| !there.contains(*rule) || swept.contains(&(0, rule.cookie));
    bundle.extend(wanted.iter().filter(missing).map(Rule::add));
    bundle
}

/// A bridge's flows as they were read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    /// The connection they were read over: counts up.
    pub generation: u64,
    /// The rules; none while there is no connection.
    pub rules: Option<Arc<BTreeSet<Rule>>>,
    /// When flows that had been there were last found missing, by cookie. They are put back within milliseconds, and who sees only the table
    /// after that would never hear of it.
    pub lost: Arc<BTreeMap<u64, Instant>>,
    /// Why what is wanted cannot be had.
    pub problem: Option<String>,
}

/// What was read of a bridge before, over all connections.
#[derive(Default)]
struct Memory {
    rules: Arc<BTreeSet<Rule>>,
    lost: Arc<BTreeMap<u64, Instant>>,
}

impl Memory {
    /// The table as read now.
    fn read(&mut self, generation: u64, flows: &[Flow], now: Instant) -> Table {
        let rules: BTreeSet<Rule> = flows.iter().filter_map(Rule::read).collect();
        let gone: BTreeSet<u64> = self.rules.difference(&rules).map(|rule| rule.cookie).collect();
        if !gone.is_empty() || self.lost.values().any(|at| now.duration_since(*at) > REMEMBER) {
            let lost = Arc::make_mut(&mut self.lost);
            lost.retain(|_, at| now.duration_since(*at) <= REMEMBER);
            lost.extend(gone.into_iter().map(|cookie| (cookie, now)));
        }
        self.rules = Arc::new(rules);
        Table { generation, rules: Some(self.rules.clone()), lost: self.lost.clone(), problem: None }
    }

    /// The table while it cannot be read.
    fn unread(&self, generation: u64, problem: Option<String>) -> Table {
        Table { generation, rules: None, lost: self.lost.clone(), problem }
    }
}

/// What is wanted of a bridge.
#[derive(Debug, Clone)]
pub struct Wish {
    /// The connection it holds for.
    pub generation: u64,
    /// The rules: these, and no other flow.
    pub rules: BTreeSet<Rule>,
    /// Who asked for them.
    pub traces: Traces,
}

/// The handle on the task that keeps a bridge's flows. The task ends with it; the flows stay.
pub struct Keeper {
    wish: watch::Sender<Option<Wish>>,
    table: watch::Receiver<Table>,
    counts: watch::Receiver<(Option<Instant>, Arc<Read>)>,
    task: AbortHandle,
}

impl Keeper {
    /// Starts reading the bridge's flows, and calls `wake` whenever the table changed.
    pub fn start(bridge: String, socket: PathBuf, wake: Arc<Notify>) -> Keeper {
        let (wish, wanted) = watch::channel(None);
        let (publish, table) = watch::channel(Table::default());
        let (count, counts) = watch::channel((None, Arc::default()));
        let publish = Publish { table: publish, count, wake };
        let task = tokio::spawn(keep(bridge, socket, wanted, publish)).abort_handle();
        Keeper { wish, table, counts, task }
    }

    /// True when the task is no more, which happens to one that panicked.
    pub fn ended(&self) -> bool {
        self.task.is_finished()
    }

    /// The flows as last read.
    pub fn table(&self) -> Table {
        self.table.borrow().clone()
    }

    /// What the flows had counted when they were last read, by cookie and port that frames come in by.
    pub fn counts(&self) -> Arc<Read> {
        self.counts.borrow().1.clone()
    }

    /// When the flows were last read.
    pub fn read_at(&self) -> Option<Instant> {
        self.counts.borrow().0
    }

    /// Says what is wanted; none leaves the flows as they are.
    pub fn want(&self, wish: Option<Wish>) {
        self.wish.send_if_modified(|current| {
            let same = match (&*current, &wish) {
                (Some(a), Some(b)) => a.generation == b.generation && a.rules == b.rules,
                (None, None) => true,
                _ => false,
            };
            if !same {
                *current = wish;
            }
            !same
        });
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Where what was read goes.
struct Publish {
    table: watch::Sender<Table>,
    count: watch::Sender<(Option<Instant>, Arc<Read>)>,
    wake: Arc<Notify>,
}

impl Publish {
    fn table(&self, table: Table) {
        let changed = self.table.send_if_modified(|current| {
            let changed = *current != table;
            if changed {
                *current = table;
            }
            changed
        });
        if changed {
            self.wake.notify_one();
        }
    }

    /// Nobody is woken for it: it changes with each frame.
    fn count(&self, flows: &[Flow]) {
        let of = |flow: &Flow| {
            let rule = Rule::read(flow)?;
            let key = (WireId::try_from(rule.cookie).ok()?, rule.from?);
            Some((key, Count { frames: flow.packets, bytes: flow.bytes }))
        };
        self.count.send_replace((Some(Instant::now()), Arc::new(flows.iter().filter_map(of).collect())));
    }
}

async fn keep(bridge: String, socket: PathBuf, mut wanted: watch::Receiver<Option<Wish>>, publish: Publish) {
    let (mut generation, mut memory) = (0, Memory::default());
    loop {
        let switch = match Switch::connect(&socket).await {
            Ok(switch) => switch,
            Err(e) => {
                tracing::debug!(bridge, "flows cannot be reached: {e}");
                publish.table(memory.unread(generation, Some(e.to_string())));
                tokio::time::sleep(RETRY).await;
                continue;
            }
        };
        generation += 1;
        tracing::debug!(bridge, generation, "flows are within reach");
        let mut changes = switch.changes();
        loop {
            changes.mark_unchanged();
            let wish = wanted.borrow_and_update().clone().filter(|wish| wish.generation == generation);
            if let Err(e) = attend(&bridge, &switch, generation, wish, &mut memory, &publish).await {
                tracing::info!(bridge, "flows are out of reach: {e}");
                break;
            }
            tokio::select! {
                changed = wanted.changed() => if changed.is_err() { return },
                // An error says that the connection is lost; the next read finds it out.
                _ = heard(&mut changes) => {}
                () = tokio::time::sleep(READ) => {}
            }
        }
        publish.table(memory.unread(generation, None));
    }
}

/// Waits until somebody changed flows, or nobody tells of that any more.
async fn heard(changes: &mut watch::Receiver<u64>) {
    while changes.changed().await.is_ok() && fail_point::is_deaf("network.flows") {}
}

/// Reads the flows and puts them right. An error means that the connection is lost.
async fn attend(
    bridge: &str,
    switch: &Switch,
    generation: u64,
    wish: Option<Wish>,
    memory: &mut Memory,
    publish: &Publish,
) -> Result<(), netloom_openflow::Error> {
    let reading = switch.flows(ALL_TABLES);
    tokio::pin!(reading);
    let flows = match tokio::time::timeout(ANSWER, &mut reading).await {
        Ok(read) => read?,
        Err(_) => {
            tracing::warn!(bridge, "the switch has not answered for {ANSWER:?}");
            let problem = format!("bridge {bridge} has not told its flows for {} s", ANSWER.as_secs());
            publish.table(memory.unread(generation, Some(problem)));
            reading.await?
        }
    };
    let bundle = wish.as_ref().map_or_else(Vec::new, |wish| difference(&flows, &wish.rules));
    // What is missing is told before it is put back.
    publish.count(&flows);
    publish.table(memory.read(generation, &flows, Instant::now()));
    if bundle.is_empty() {
        return Ok(());
    }
    fail_point::pass("network.flows", "before");
    let done = switch.bundle(&bundle).await;
    fail_point::pass("network.flows", "after");
    let outcome = if done.is_ok() { "ok" } else { "failed" };
    let mut counts = HashMap::<Option<WireId>, (usize, usize)>::new();
    for flow_mod in &bundle {
        let count = counts.entry(WireId::try_from(flow_mod.cookie).ok()).or_default();
        match flow_mod.command {
            Command::Add => {
                FLOWS.with_label_values(&["added", outcome]).inc();
                count.0 += 1;
            }
            Command::Delete | Command::DeleteStrict => {
                FLOWS.with_label_values(&["removed", outcome]).inc();
                count.1 += 1;
            }
        }
    }
    let traces = wish.map(|wish| wish.traces).unwrap_or_default();
    traces.each(
        counts.keys(),
        |wire| **wire,
        |wires| {
            let of = |part: fn(&(usize, usize)) -> usize| -> usize {
                wires.iter().filter_map(|wire| counts.get(*wire)).map(part).sum()
            };
            let ok = done.is_ok();
            tracing::info!(bridge, added = of(|c| c.0), removed = of(|c| c.1), ok, "OpenFlow bundle");
        },
    );
    let problem = match done {
        Ok(()) => None,
        Err(netloom_openflow::Error::Disconnected) => return Err(netloom_openflow::Error::Disconnected),
        Err(e) => {
            tracing::warn!(bridge, "flows cannot be put right: {e}");
            Some(e.to_string())
        }
    };
    let flows = switch.flows(ALL_TABLES).await?;
    publish.table(Table { problem, ..memory.read(generation, &flows, Instant::now()) });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(n: u64) -> WireId {
        n.try_into().unwrap()
    }

    fn flow(rule: Rule) -> Flow {
        let FlowMod { table, priority, cookie, matches, actions, .. } = rule.add();
        Flow { table, priority, cookie, matches, actions, foreign: false, packets: 0, bytes: 0 }
    }

    #[test]
    fn a_flow_that_was_lost_and_put_back_is_remembered() {
        let flows: Vec<Flow> = [3, 4].map(|n| flow(Rule::segment(wire(n)))).into();
        let (mut memory, begun) = (Memory::default(), Instant::now());
        assert!(memory.read(1, &flows, begun).lost.is_empty());
        let second = begun + Duration::from_secs(1);
        memory.read(1, &flows[..1], second);
        let table = memory.read(2, &flows, second + Duration::from_millis(5));
        assert_eq!(*table.lost, [(4, second)].into());
        assert_eq!(table.rules.map(|rules| rules.len()), Some(2));
        assert!(memory.read(2, &flows, second + 2 * REMEMBER).lost.is_empty());
    }

    #[test]
    fn nothing_is_done_when_all_is_there() {
        let mut rules: BTreeSet<Rule> = Rule::wire(wire(7), 1, 2).into();
        rules.extend(Rule::tunnel(wire(8), 3, 9, 7_777, [192, 0, 2, 1].into()));
        rules.extend(Rule::tunnel(wire(9), 4, 9, 7_778, [192, 0, 2, 1].into()));
        let flows: Vec<Flow> = rules.iter().copied().map(flow).collect();
        assert_eq!(difference(&flows, &rules), []);
    }

    #[test]
    fn what_is_missing_is_added_and_what_is_not_wanted_deleted() {
        let old = flow(Rule::segment(wire(3)));
        let rules: BTreeSet<Rule> = Rule::wire(wire(7), 1, 2).into();
        let bundle = difference(std::slice::from_ref(&old), &rules);
        let commands: Vec<Command> = bundle.iter().map(|m| m.command).collect();
        assert_eq!(commands, [Command::DeleteStrict, Command::Add, Command::Add]);
        assert_eq!((bundle[0].cookie, &bundle[0].matches), (3, &old.matches));
    }

    #[test]
    fn a_flow_with_other_actions_or_priority_is_replaced() {
        let rule = Rule::wire(wire(7), 1, 2)[0];
        for changed in [
            Flow { actions: vec![Action::Normal], ..flow(rule) },
            Flow { priority: 200, ..flow(rule) },
            Flow { table: 1, ..flow(rule) },
            Flow { cookie: 0, ..flow(rule) },
            Flow { actions: vec![], ..flow(rule) },
        ] {
            let bundle = difference(&[changed], &[rule].into());
            assert_eq!(bundle.last(), Some(&rule.add()));
            assert_eq!(bundle.len(), 2);
        }
    }

    #[test]
    fn a_foreign_flow_goes_by_its_cookie_and_takes_no_rule_with_it() {
        let [rule, back] = Rule::wire(wire(7), 1, 2);
        let foreign = Flow { foreign: true, ..flow(rule) };
        let bundle = difference(&[foreign.clone(), foreign, flow(rule), flow(back)], &[rule, back].into());
        let commands: Vec<Command> = bundle.iter().map(|m| m.command).collect();
        assert_eq!(commands, [Command::Delete, Command::Add, Command::Add]);
        assert_eq!((bundle[0].cookie_mask, &bundle[0].matches), (u64::MAX, &Match::default()));
    }
}
