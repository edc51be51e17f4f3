//! Checks of links: marked frames sent over them, and where they stop.
//!
//! The flow: all hosts of the link are asked to look for frames with a random mark; when they do, they are sent from both ends, and what the hosts see is
//! taken until all came through, or until those that are missing had the time that the link may take. What became of them is decided in `verdict`. Nothing of
//! it is kept: a host stops looking when it is not listened to any more.

mod verdict;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::try_join_all;
use futures::stream::{self, StreamExt as _};
use netloom_model::failure::{Code, Failure};
use netloom_model::id::HostId;
use netloom_model::observed::{End, ObservedWire, WireState};
use netloom_model::spec::{Impairment, Plane};
use tokio::time::{Instant, sleep_until, timeout};

pub use self::verdict::{MOST, Outcome, Place, Run, Stop, Verdict, is_large};
use crate::apply::lab_not_found;
use crate::client::HostClient;
use crate::error::{Error, Result};
use crate::rows::{Far, LinkRow};
use crate::scheduler::Scheduler;

/// How long until all hosts have to look.
const BEGIN: Duration = Duration::from_secs(5);
/// How long frames are waited for beyond what the link is asked to delay them.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long they are waited for at most.
const LONGEST: Duration = Duration::from_secs(20);
/// Bits of a frame of full size, and more.
const LARGE_BITS: u64 = 10_000 * 8;

/// What a place is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The interface in a node.
    Interface,
    /// Its host end.
    HostEnd,
    /// Where tunnels leave and come in.
    Tunnel,
}

/// What a host saw at a place so far.
#[derive(Debug, Clone)]
pub struct Spot {
    /// What it is.
    pub kind: Kind,
    /// The end of the link that it is at; of a tunnel, the one that it leads to.
    pub end: End,
    /// Name of the interface.
    pub interface: String,
    /// Whether it is looked at.
    pub watched: bool,
    /// Whether frames from this end are sent from behind it.
    pub passed_over: bool,
    /// What is out of the ordinary.
    pub detail: String,
    /// Frames from the first end.
    pub a_to_b: BTreeSet<u32>,
    /// Frames from the second end.
    pub b_to_a: BTreeSet<u32>,
}

/// What a host saw so far.
#[derive(Debug, Clone, Default)]
pub struct Sight {
    /// At its places.
    pub spots: Vec<Spot>,
    /// What it reads of the wire.
    pub wire: Option<ObservedWire>,
}

/// What is sent from an end.
#[derive(Debug, Clone, Copy)]
pub struct Shots {
    /// The end.
    pub from: End,
    /// What they are marked with.
    pub mark: u64,
    /// How many.
    pub count: u32,
    /// How many of full size.
    pub large: u32,
    /// How large these are: the MTU of the link.
    pub mtu: u32,
}

impl Scheduler {
    /// Checks a link, from its first end to its second and back. `frames` are sent each way, 0 for as many as it takes.
    pub async fn check_path(&self, lab: &str, link: &str, frames: u32) -> Result<[(Run, Verdict); 2]> {
        let rows = self.store.rows_of(&lab.to_ascii_lowercase()).ok_or_else(|| lab_not_found(lab))?;
        let link = rows.link(link).ok_or_else(|| {
            let message = format!("there is no link \"{link}\"");
            Failure::new(Code::NotFound, "LINK_NOT_FOUND", message).with("link", link)
        })?;
        let Some(near) = &link.host else {
            let message = format!("link {} is on no host yet: a node of it has not been placed", link.id);
            let failure = Failure::new(Code::FailedPrecondition, "NODE_NOT_RUNNING", message);
            return Err(failure.with("link", link.id.clone()).into());
        };
        let far = link.far.as_ref().map(|far| &far.host);
        let client = |host: &HostId| self.host(host).ok_or_else(|| crate::membership::host_not_found(host));
        let near = client(near)?;
        let far = far.map(client).transpose()?;
        let hosts: Vec<HostClient> = [near.clone()].into_iter().chain(far.clone()).collect();
        // Between two bridges there is no interface that has one.
        let mtu = rows.mtus().get(&link.uid).copied().unwrap_or_else(|| {
            let fits = link.far.as_ref().and_then(Far::mtu);
            fits.unwrap_or(u32::MAX).min(link.spec.effective_mtu())
        });
        let mark = rand::random();
        let shots = [End::A, End::B].map(|from| {
            let (count, large) = verdict::count(frames, impairment(link, from));
            Shots { from, mark, count, large, mtu }
        });

        let look = hosts.iter().map(|host| host.watch_frames(link.wire_id, mark));
        let looking = timeout(BEGIN, try_join_all(look)).await;
        let looking = looking.map_err(|_| {
            Failure::new(
                Code::DeadlineExceeded,
                "TIMED_OUT",
                "the hosts of the link did not begin to look for frames in time",
            )
        })??;
        let mut sights: Vec<Sight> = vec![Sight::default(); hosts.len()];
        let looking = looking.into_iter().enumerate();
        let mut seen = stream::select_all(
            looking.map(|(host, looking)| Box::pin(looking.map(move |sight| (host, sight)))),
        );
        // The first word of each host says that it looks.
        let mut begun = BTreeSet::new();
        let end = Instant::now() + BEGIN;
        while begun.len() < hosts.len() {
            let next = tokio::time::timeout_at(end, seen.next()).await.ok().flatten();
            let silent = || {
                let message = "a host of the link does not look for frames: see that netloom's network service runs there";
                Error::from(Failure::new(Code::Unavailable, "HOST_UNAVAILABLE", message))
            };
            let (host, sight) = next.ok_or_else(silent)?;
            sights[host] = sight?;
            begun.insert(host);
        }

        let send = try_join_all([
            near.send_frames(link.wire_id, shots[0]),
            far.as_ref().unwrap_or(&near).send_frames(link.wire_id, shots[1]),
        ]);
        tokio::pin!(send);
        let mut sent: Option<Vec<String>> = None;
        let mut until = Instant::now() + LONGEST;
        loop {
            tokio::select! {
                outcome = &mut send, if sent.is_none() => {
                    sent = Some(outcome?);
                    until = until.min(Instant::now() + patience(link, &shots));
                }
                () = sleep_until(until) => break,
                Some((host, sight)) = seen.next() => sights[host] = sight?,
                else => break,
            }
            let runs = sent.as_ref().map(|refused| runs(link, &hosts, &sights, &shots, refused));
            if runs.is_some_and(|runs| runs.iter().all(is_complete)) {
                break;
            }
        }
        let refused = sent.unwrap_or_else(|| vec!["it does not send in time".to_owned(); 2]);
        let runs = runs(link, &hosts, &sights, &shots, &refused);
        Ok(runs.map(|run| {
            let verdict = run.judge();
            (run, verdict)
        }))
    }
}

fn impairment(link: &LinkRow, from: End) -> &Impairment {
    if from == End::A { &link.spec.a_to_b } else { &link.spec.b_to_a }
}

/// How long the last frames may take.
fn patience(link: &LinkRow, shots: &[Shots; 2]) -> Duration {
    let of = |shots: &Shots| {
        let Impairment { rate_bps, delay_us, jitter_us, .. } = impairment(link, shots.from);
        let delay = Duration::from_micros(2 * (u64::from(*delay_us) + u64::from(*jitter_us)));
        let bits = u64::from(shots.large) * LARGE_BITS + u64::from(shots.count) * 1_000;
        delay + Duration::from_millis((bits * 1_000).checked_div(*rate_bps).unwrap_or(0))
    };
    PATIENCE + shots.iter().map(of).max().unwrap_or_default()
}

/// True when all that was sent came to the last place that is looked at.
fn is_complete(run: &Run) -> bool {
    let last = run.stops.iter().rev().find_map(|stop| stop.seen.as_ref());
    last.is_some_and(|seen| seen.len() as u32 >= run.sent)
}

/// What the hosts saw, way by way.
fn runs(
    link: &LinkRow,
    hosts: &[HostClient],
    sights: &[Sight],
    shots: &[Shots; 2],
    refused: &[String],
) -> [Run; 2] {
    let mut said: Vec<String> = Vec::new();
    for (host, sight) in hosts.iter().zip(sights) {
        said.extend(match &sight.wire {
            None if sight.spots.is_empty() => Some(format!("host {} has nothing of it yet", host.id)),
            None => None,
            Some(wire) if wire.state == WireState::Up => None,
            Some(wire) => Some(wire.detail.clone()),
        });
    }
    if !link.reason.is_empty() {
        said.push(link.reason.clone());
    }
    let between = between(link);
    [0, 1].map(|n| {
        let from = shots[n].from;
        let mut stops: Vec<Stop> = sights
            .iter()
            .zip(hosts)
            .flat_map(|(sight, host)| sight.spots.iter().map(move |spot| stop(spot, from, &host.id)))
            .collect();
        stops.sort_by_key(|stop| stop.place);
        Run {
            sent: shots[n].count,
            large: shots[n].large,
            refused: refused[n].clone(),
            impairment: *impairment(link, from),
            stops,
            said: said.clone(),
            between: between.clone(),
        }
    })
}

fn stop(spot: &Spot, from: End, host: &HostId) -> Stop {
    let is_from = spot.end == from;
    let place = match (spot.kind, is_from) {
        (Kind::Interface, true) => Place::SendingInterface,
        (Kind::Interface, false) => Place::ReceivingInterface,
        (Kind::HostEnd, true) => Place::SendingHostEnd,
        (Kind::HostEnd, false) => Place::ReceivingHostEnd,
        // It leads to the sender: they come in by it.
        (Kind::Tunnel, true) => Place::TunnelIn,
        (Kind::Tunnel, false) => Place::TunnelOut,
    };
    let seen = if from == End::A { &spot.a_to_b } else { &spot.b_to_a };
    let is_watched = spot.watched && !(is_from && spot.passed_over);
    Stop {
        place,
        host: host.to_string(),
        interface: spot.interface.clone(),
        seen: is_watched.then(|| seen.clone()),
        detail: spot.detail.clone(),
    }
}

/// Where its tunnels begin, and their UDP port.
fn between(link: &LinkRow) -> String {
    let Some(far) = &link.far else { return String::new() };
    let ends = link.hosts().zip(far.underlays).map(|(host, underlay)| {
        let Some(underlay) = underlay else { return format!("host {host} has no tunnel address") };
        let port = if far.plane == Plane::Ovs { underlay.port + 1 } else { underlay.port };
        format!("host {host} takes tunnels at {}, UDP port {port}", underlay.address)
    });
    ends.collect::<Vec<_>>().join("; ")
}
