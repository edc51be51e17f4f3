//! What became of frames that were sent over a link, from where they were seen. Pure.
//!
//! A link that is asked to lose frames loses them on the host where they come out, before the receiving host end. What is missing there is no fault as
//! long as it is not more than that explains; what is missing anywhere else always is. How much is too much is told by the binomial distribution: what would happen
//! once in a million checks of a healthy link is called a fault.

use std::collections::BTreeSet;

use netloom_model::spec::{Impairment, share_text};

/// How rare an outcome has to be to be called a fault.
const RARE: f64 = 1e-6;
/// A share that is everything.
const ALL: f64 = 1e6;
/// How many frames are sent when nobody says.
const FRAMES: u32 = 10;
/// Most frames one way.
pub const MOST: u32 = 200;
/// Most frames of full size one way: they may have to go through a slow link.
const MOST_LARGE: u32 = 5;

/// A place that frames come by, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The interface that they are sent from.
    SendingInterface,
    /// Its host end.
    SendingHostEnd,
    /// Where they leave the sender's host.
    TunnelOut,
    /// Where they come to the receiver's host.
    TunnelIn,
    /// The receiving interface's host end.
    ReceivingHostEnd,
    /// The interface that they are for.
    ReceivingInterface,
}

/// What was seen at a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stop {
    /// The place.
    pub place: Place,
    /// The host it is on.
    pub host: String,
    /// Name of the interface.
    pub interface: String,
    /// Numbers of the frames that were seen; none where nobody can look.
    pub seen: Option<BTreeSet<u32>>,
    /// What is out of the ordinary there, in words.
    pub detail: String,
}

/// What was sent one way over a link, and seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// How many frames.
    pub sent: u32,
    /// How many of them were of full size.
    pub large: u32,
    /// Why the interface did not take some, in words.
    pub refused: String,
    /// What the link is asked to do to them.
    pub impairment: Impairment,
    /// The places, in order.
    pub stops: Vec<Stop>,
    /// What the hosts, and the link itself, say of it, in words.
    pub said: Vec<String>,
    /// What goes between the hosts: where tunnels begin, and their UDP port.
    pub between: String,
}

/// What became of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// They came through, but for what the link is asked to lose.
    Passes,
    /// Some did, and more are missing.
    Loses,
    /// None did.
    Stops,
    /// None did, which may be what the link is asked to lose.
    Undecided,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// What became of them.
    pub outcome: Outcome,
    /// Why, in words; empty when all came through.
    pub reason: String,
    /// The first place that some did not come to.
    pub stopped_at: Option<Place>,
}

/// How many frames are sent, and how many of full size among them: so many that a healthy link that loses some would not lose them all.
pub fn count(asked: u32, impairment: &Impairment) -> (u32, u32) {
    let lost = lost(impairment);
    let enough = if lost > 0.0 && lost < 1.0 { (RARE.ln() / lost.ln()).ceil() as u32 } else { FRAMES };
    let count = if asked == 0 { enough.clamp(FRAMES, MOST) } else { asked.min(MOST) };
    (count, (count / 2).min(MOST_LARGE))
}

/// True for the number of a frame of full size.
pub fn is_large(number: u32, large: u32) -> bool {
    number % 2 == 1 && number / 2 < large
}

/// The share of frames that the link is asked to lose: those with a flipped bit may not be known again.
fn lost(impairment: &Impairment) -> f64 {
    let [loss, corrupt] = [impairment.loss_ppm, impairment.corrupt_ppm].map(|ppm| f64::from(ppm) / ALL);
    (1.0 - (1.0 - loss) * (1.0 - corrupt)).clamp(0.0, 1.0)
}

/// How likely it is that of `count` frames that are lost with this probability as many are as here, or more.
fn likely(count: usize, missing: usize, lost: f64) -> f64 {
    if lost >= 1.0 {
        return 1.0;
    }
    let (mut term, mut below) = ((1.0 - lost).powi(count as i32), 0.0);
    for k in 0..missing {
        below += term;
        term *= (count - k) as f64 / (k + 1) as f64 * lost / (1.0 - lost);
    }
    // That all are missing is known exactly.
    if missing == count { lost.powi(count as i32) } else { (1.0 - below).max(0.0) }
}

impl Run {
    /// What became of the frames.
    pub fn judge(&self) -> Verdict {
        let all: BTreeSet<u32> = (0..self.sent).collect();
        let came = self.came();
        let (mut before, mut explained, mut may_lose) = (all, None, true);
        for (n, stop) in self.stops.iter().enumerate() {
            let Some(here) = &came[n] else { continue };
            let missing: BTreeSet<u32> = before.difference(here).copied().collect();
            if !missing.is_empty() {
                let may_lose = may_lose && stop.place >= Place::ReceivingHostEnd;
                let lost = if may_lose { lost(&self.impairment) } else { 0.0 };
                if lost == 0.0 || likely(before.len(), missing.len(), lost) < RARE {
                    return self.fault(n, &before, &missing, came.iter().flatten().last());
                }
                let share = share_text((lost * ALL).round() as u64);
                explained = Some(format!(
                    "{} of {} frames were lost, as the link is asked to lose {share}",
                    missing.len(),
                    before.len()
                ));
            }
            // It is lost before the first place from there on at which anybody looks.
            may_lose &= stop.place < Place::ReceivingHostEnd;
            before.clone_from(here);
        }
        let outcome = match (before.is_empty(), came.iter().any(Option::is_some)) {
            (true, _) | (_, false) => Outcome::Undecided,
            _ => Outcome::Passes,
        };
        let nowhere = || {
            let blind = came.iter().all(Option::is_none);
            if blind {
                "there is no place that frames can be looked for at".to_owned()
            } else {
                String::new()
            }
        };
        Verdict { outcome, reason: explained.unwrap_or_else(nowhere), stopped_at: None }
    }

    /// The frames that came to each place: what was seen behind it came by it.
    fn came(&self) -> Vec<Option<BTreeSet<u32>>> {
        let mut behind = BTreeSet::new();
        let mut came: Vec<_> = self
            .stops
            .iter()
            .rev()
            .map(|stop| {
                let seen = stop.seen.as_ref()?;
                behind.extend(seen.iter().copied().filter(|number| *number < self.sent));
                Some(behind.clone())
            })
            .collect();
        came.reverse();
        came
    }

    fn fault(
        &self,
        at: usize,
        before: &BTreeSet<u32>,
        missing: &BTreeSet<u32>,
        last: Option<&BTreeSet<u32>>,
    ) -> Verdict {
        let stop = &self.stops[at];
        let is_empty = last.is_none_or(BTreeSet::is_empty);
        let outcome = if is_empty { Outcome::Stops } else { Outcome::Loses };
        let large: BTreeSet<u32> =
            before.iter().copied().filter(|number| is_large(*number, self.large)).collect();
        let which = match missing.len() {
            n if n == before.len() => "frames".to_owned(),
            _ if *missing == large => "only frames of full size".to_owned(),
            n => format!("{n} of {} frames", before.len()),
        };
        let mut why: Vec<&str> = Vec::new();
        let nearby = [
            (stop.place == Place::SendingInterface).then_some(&self.refused),
            Some(&stop.detail),
            at.checked_sub(1).map(|before| &self.stops[before].detail),
        ];
        for said in nearby.into_iter().flatten().chain(&self.said) {
            if !said.is_empty() && !why.iter().any(|other| other.contains(said.as_str())) {
                why.push(said);
            }
        }
        let why = if why.is_empty() { String::new() } else { format!(": {}", why.join("; ")) };
        Verdict {
            outcome,
            reason: format!("{}{why}", self.words(at, &which, *missing == large)),
            stopped_at: Some(stop.place),
        }
    }

    fn words(&self, at: usize, which: &str, is_size: bool) -> String {
        let stop = &self.stops[at];
        let Stop { host, interface, .. } = stop;
        match stop.place {
            Place::SendingInterface => format!("{which} do not leave {interface} in its node"),
            Place::SendingHostEnd => {
                format!("{which} leave the node and do not come to {interface}, its host end on host {host}")
            }
            Place::TunnelOut => format!("{which} come to host {host} and do not leave it for the other host"),
            Place::TunnelIn if is_size => format!(
                "{which} do not come to host {host}: the network between the hosts takes none as large ({}); give it a larger MTU, or the link a smaller one",
                self.between
            ),
            Place::TunnelIn => format!(
                "{which} leave the sender's host and do not come to host {host}: see that both reach each other and nothing in between keeps them back ({})",
                self.between
            ),
            Place::ReceivingHostEnd => {
                format!("{which} come to host {host} and are not handed on to {interface}")
            }
            Place::ReceivingInterface => {
                format!("{which} are handed to the node on host {host} and do not come to {interface} in it")
            }
        }
    }
}
