//! What to do next with an instance, and what to say of it: pure decisions from what is wanted, what exists, and what was tried before.
//!
//! netloom restarts nodes itself, by the node's policy and with back-off, since a runtime's own restarts know nothing of links. What cannot be made is tried again the same way.
//! A node that shares another's network namespace lives within the life of that one: it starts after it and is stopped when the namespace is gone.

use std::time::{Duration, Instant};

use netloom_model::observed::Phase;
use netloom_model::slice::Instance;
use netloom_model::spec::{NetworkMode, RestartPolicy};
use netloom_model::state::Wanted;

use crate::driver::{Found, NetworkOf, Process};
use crate::memory::Memory;
use crate::record::Record;

/// So many ends in a row and it counts as failed, though it is still tried.
const HOPELESS: u32 = 3;
/// Said of what is held.
const HELD: &str = "waits for other nodes";

/// Said of what was stopped because its host was cut off.
const LEASE_IS_OVER: &str = "its host has not heard of the scheduler for so long that it may run elsewhere";

/// What is asked of an instance.
#[derive(Debug, Clone, Copy)]
pub enum Want<'a> {
    /// Nothing was said: it is left alone.
    Unsaid,
    /// It is in the slice.
    Keep(&'a Instance),
    /// It is to be removed.
    Gone,
}

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Makes and starts it.
    Create,
    /// Starts what exists.
    Start,
    /// Stops it, keeping its disk.
    Stop,
    /// Stops it at once, since it may run elsewhere soon.
    Halt,
    /// Stops it and takes it out of the way of what takes its place, keeping its disk.
    SetAside,
    /// Gives it its place again.
    BringBack,
    /// Removes it.
    Remove,
    /// Brings what may change while it lives (host entries, the list of interfaces, its certificate and limits) up to date.
    Refresh,
}

impl Step {
    /// True when its process ends by it.
    pub fn ends(self) -> bool {
        matches!(self, Step::Stop | Step::Halt | Step::SetAside | Step::Remove)
    }
}

/// What is to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Nothing until something changes.
    Nothing,
    /// Nothing before then.
    At(Instant),
    /// This, now.
    Do(Step),
}

/// The instance whose network namespace another shares.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Peer {
    /// Its node, for people.
    pub node: String,
    /// Its own id; empty when it does not exist.
    pub id: String,
    /// Its process runs.
    pub runs: bool,
    /// Names its network namespace, where that can be read.
    pub namespace: Option<u64>,
}

/// Everything that a decision follows from.
#[derive(Debug, Clone, Copy)]
pub struct Situation<'a> {
    /// A Sync was taken since the service started.
    pub synced: bool,
    /// Its lease is over: it does not run, whatever is asked.
    pub over: bool,
    /// The runtime answers.
    pub answers: bool,
    /// What is asked.
    pub want: Want<'a>,
    /// What exists.
    pub found: Option<&'a Found>,
    /// What is being done.
    pub doing: Option<Step>,
    /// What was tried.
    pub memory: &'a Memory,
    /// What is remembered.
    pub record: &'a Record,
    /// The instance whose network namespace it shares, where it shares one.
    pub peer: Option<&'a Peer>,
}

/// What is to happen next.
pub fn next(s: &Situation<'_>, now: Instant) -> Next {
    if !s.answers || s.doing.is_some() {
        return Next::Nothing;
    }
    if s.over {
        let later = s.memory.retry_at.filter(|at| s.memory.failure.is_some() && *at > now);
        return match (runs(s.found), later) {
            (true, None) => Next::Do(Step::Halt),
            (true, Some(at)) => Next::At(at),
            (false, _) => Next::Nothing,
        };
    }
    if !s.synced {
        return Next::Nothing;
    }
    let instance = match s.want {
        Want::Unsaid => return Next::Nothing,
        Want::Gone => return Next::Do(Step::Remove),
        Want::Keep(instance) => instance,
    };
    let Some(step) = step(s, instance) else { return Next::Nothing };
    if step == Step::Create
        && let Some(at) = delayed(s.memory, instance).filter(|at| *at > now)
    {
        return Next::At(at);
    }
    // A pause is between two starts or two tries; a stop or a changed spec does not wait for it.
    let paused = matches!(step, Step::Create | Step::Start) || s.memory.failure.is_some();
    match s.memory.retry_at {
        Some(at) if paused && at > now && !(is_demanded(s, instance) && s.memory.failure.is_none()) => {
            Next::At(at)
        }
        _ => Next::Do(step),
    }
}

fn step(s: &Situation<'_>, instance: &Instance) -> Option<Step> {
    let wants_running = instance.wanted == Wanted::Running;
    let waits = instance.held || awaited(s).is_some();
    let Some(found) = s.found else {
        let stays_removed = s.record.stays_removed(instance).is_some() && !s.memory.start_demanded;
        return (wants_running && !waits && !stays_removed).then_some(Step::Create);
    };
    if found.process == Process::Removing {
        return None;
    }
    if instance.wanted == Wanted::Aside {
        return (!found.aside).then_some(Step::SetAside);
    }
    if found.spec_hash != instance.spec_hash || shares_another(s, found) {
        return Some(Step::Remove);
    }
    if found.aside {
        return Some(Step::BringBack);
    }
    match &found.process {
        Process::Running { .. } if !wants_running || lost_namespace(s, found) => Some(Step::Stop),
        Process::Running { .. } if instance.restarts > s.record.restarts && !waits => Some(Step::Stop),
        Process::Running { .. } => {
            (s.memory.stale || !found.limits.satisfy(&instance.spec)).then_some(Step::Refresh)
        }
        _ if !wants_running || waits => None,
        Process::Created => Some(Step::Start),
        Process::Ended { .. } if instance.spec.auto_remove && !is_demanded(s, instance) => Some(Step::Remove),
        Process::Ended { code, .. } => restarts(s, instance, *code).then_some(Step::Start),
        Process::Removing => None,
    }
}

/// The start that failed and came about all the same: the runtime did it, and only its answer was lost.
pub fn came_about(s: &Situation<'_>) -> Option<Step> {
    let Want::Keep(instance) = s.want else { return None };
    let failed = s.memory.failure.as_ref()?.step;
    let is_start = matches!(failed, Step::Create | Step::Start);
    let runs_as_wanted = runs(s.found) && instance.wanted == Wanted::Running && step(s, instance).is_none();
    (s.doing.is_none() && is_start && runs_as_wanted).then_some(failed)
}

/// Where the instance is in its life, and why.
pub fn phase(s: &Situation<'_>) -> (Phase, String) {
    if !s.answers {
        return (Phase::Unknown, "its runtime does not answer".to_owned());
    }
    if s.over && !runs(s.found) {
        let phase = if s.found.is_some() { Phase::Stopped } else { Phase::Absent };
        return (phase, LEASE_IS_OVER.to_owned());
    }
    let is_back = matches!(s.want, Want::Keep(i) if i.wanted.stays());
    if s.found.is_some_and(|f| f.aside) && !is_back {
        return (Phase::Aside, s.memory.failure.as_ref().map(|f| f.message.clone()).unwrap_or_default());
    }
    match (&s.memory.failure, s.doing) {
        (_, Some(step)) if step.ends() => (Phase::Stopping, String::new()),
        // A node that runs on is no failed one.
        (Some(failure), _) if failure.step == Step::Refresh && runs(s.found) => {
            (Phase::Running, failure.message.clone())
        }
        // Said as long as it holds, also while it is tried again: else the state would change with each try.
        (Some(failure), _) => {
            let phase = match s.found {
                _ if !failure.passing => Phase::Failed,
                None => Phase::Creating,
                Some(_) => Phase::Starting,
            };
            (phase, failure.message.clone())
        }
        (None, Some(Step::Create)) => match of_process(s) {
            (Phase::Absent, _) => (Phase::Creating, String::new()),
            other => other,
        },
        (None, Some(Step::Start)) => match of_process(s) {
            running @ (Phase::Running, _) => running,
            _ => (Phase::Starting, again(s)),
        },
        (None, _) => of_process(s),
    }
}

/// What its process says.
fn of_process(s: &Situation<'_>) -> (Phase, String) {
    let wants_running = |i: &Instance| i.wanted == Wanted::Running;
    let wanted = match s.want {
        Want::Keep(i) => Some(i),
        Want::Unsaid | Want::Gone => None,
    };
    let running = wanted.filter(|i| wants_running(i));
    let waits = running.and_then(|i| if i.held { Some(HELD.to_owned()) } else { awaited(s) });
    let Some(found) = s.found else {
        let Some(i) = running else { return (Phase::Absent, String::new()) };
        if let Some(code) = s.record.stays_removed(i).filter(|_| !s.memory.start_demanded) {
            return (Phase::Stopped, format!("ended with exit code {code} and was removed"));
        }
        let delay = i.spec.startup_delay_seconds;
        let delayed =
            if delay > 0 { format!("waits for its startup delay of {delay} s") } else { String::new() };
        return (Phase::Absent, waits.unwrap_or(delayed));
    };
    match &found.process {
        Process::Removing => (Phase::Stopping, String::new()),
        Process::Running { .. } => {
            let lost = || running.and_then(|i| lost_network(i, found));
            let trouble = Some(found.trouble.clone()).filter(|trouble| !trouble.is_empty());
            (Phase::Running, trouble.or_else(lost).unwrap_or_default())
        }
        Process::Created | Process::Ended { .. } if waits.is_some() => {
            (Phase::Starting, waits.unwrap_or_default())
        }
        Process::Created if running.is_some() => (Phase::Starting, String::new()),
        Process::Created => (Phase::Stopped, "never started".to_owned()),
        Process::Ended { code, error } => match (running, wanted) {
            (Some(i), _) if i.spec.auto_remove && !is_demanded(s, i) => (Phase::Stopped, exited(*code)),
            (Some(i), _) if is_demanded(s, i) => (Phase::Starting, String::new()),
            (Some(i), _) if restarts(s, i, *code) => {
                let hopeless = s.memory.restarts.tries > HOPELESS;
                let phase = if hopeless { Phase::Failed } else { Phase::Starting };
                (phase, s.memory.pausing.clone() + &hint(i, *code) + &times(s.memory.restarts.tries))
            }
            // By itself, and its policy leaves it so.
            (Some(i), _) => (Phase::Stopped, format!("ended with exit code {code}") + &hint(i, *code)),
            (None, Some(i)) => (Phase::Stopped, exited(*code) + &hint(i, *code)),
            (None, None) if error.is_empty() => (Phase::Stopped, exited(*code)),
            (None, None) => (Phase::Stopped, error.clone()),
        },
    }
}

fn runs(found: Option<&Found>) -> bool {
    found.is_some_and(|f| matches!(f.process, Process::Running { .. }))
}

/// That it is not on its management network any more, and what to do. A runtime gives an interface that is put back another name, so only a
/// new start mends it, and when a node that works is started again is for its user to say.
fn lost_network(instance: &Instance, found: &Found) -> Option<String> {
    let own = found.network == NetworkOf::Own && instance.spec.network_mode == NetworkMode::Own;
    let network = instance.network.as_ref().filter(|_| own)?;
    (!found.networks.contains(&network.name)).then(|| {
        format!(
            "it is not on its management network {} any more: netloom node restart {} {}",
            network.name, instance.lab, instance.spec.id
        )
    })
}

/// Why it waits for the node whose network namespace it shares, if it does.
fn awaited(s: &Situation<'_>) -> Option<String> {
    let peer = s.peer.filter(|p| !p.runs)?;
    Some(format!("waits for {}, whose network namespace it shares", peer.node))
}

/// It was made to share the namespace of an instance that is not there any more: that cannot be changed.
fn shares_another(s: &Situation<'_>, found: &Found) -> bool {
    match (&found.network, s.peer) {
        (NetworkOf::Instance(id), Some(peer)) => !peer.id.is_empty() && *id != peer.id,
        _ => false,
    }
}

/// The namespace it runs in is not its peer's any more: its interfaces are gone.
fn lost_namespace(s: &Situation<'_>, found: &Found) -> bool {
    let Some(peer) = s.peer else { return false };
    let differ = found.namespace.zip(peer.namespace).is_some_and(|(own, of_peer)| own != of_peer);
    !peer.runs || differ
}

/// When it may be made, where it has a delay.
fn delayed(memory: &Memory, instance: &Instance) -> Option<Instant> {
    Some(memory.free_since? + Duration::from_secs(instance.spec.startup_delay_seconds.into()))
}

/// Somebody asked for a start, which neither policy nor pause keeps back.
fn is_demanded(s: &Situation<'_>, instance: &Instance) -> bool {
    s.memory.start_demanded || s.record.stopped || instance.restarts > s.record.restarts
}

fn restarts(s: &Situation<'_>, instance: &Instance, code: i32) -> bool {
    is_demanded(s, instance)
        || match instance.spec.restart_policy {
            RestartPolicy::Always => true,
            RestartPolicy::OnFailure => code != 0,
            RestartPolicy::Never => false,
        }
}

/// Why it is being started, where that is because it ended by itself.
fn again(s: &Situation<'_>) -> String {
    match (s.want, s.found.map(|f| &f.process)) {
        (Want::Keep(i), Some(Process::Ended { code, .. })) if !is_demanded(s, i) => {
            format!("{} and is started again", exited(*code))
        }
        _ => String::new(),
    }
}

fn exited(code: i32) -> String {
    format!("exited with {code}")
}

fn times(tries: u32) -> String {
    if tries > 1 { format!("; ended {tries} times in a row") } else { String::new() }
}

/// 75 is what the interface wait ends with.
fn hint(instance: &Instance, code: i32) -> String {
    if code == 75 && !instance.spec.skip_interface_wait {
        " (its interfaces were not there within 60 s; see its log)".to_owned()
    } else {
        String::new()
    }
}

#[cfg(test)]
mod tests;
