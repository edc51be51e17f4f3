//! What each wire's flows are, which cable leads where, and what to say of each wire.
//!
//! Carrier follows the cables by the rule of [`crate::carrier`]. A cable is in when its wire is enabled and installed and the NICs at its ends
//! are plugged, so carrier inside a node means "wired". A wire whose flows are lost for a moment keeps its carrier while they are put back:
//! routing protocols would otherwise fall apart over a gap of milliseconds. Carrier does not cross a segment.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use netloom_model::id::WireId;
use netloom_model::observed::{NEEDS_RESTART, ObservedWire, Source, WireState};
use netloom_model::slice::{Wire, WireEnd};
use netloom_model::spec::Impairment;

use super::bridges;
use super::bridges::{Bridges, Health, has_rule, lost, problem};
use super::joins::{are_joined, devices, happens, has_flows, is_joined, meddled_with, segment_ends};
use super::nics::{Place, Places};
use super::planes;
use super::ports::{Ends, Ports, State, ends};
use super::refusals::Refusals;
use super::{Facts, Plan, tunnels};
use crate::carrier::{Cable, Cables, Far, Will};
use crate::counts::Ways;
use crate::driver::flows::Rule;
use crate::names::End;
use crate::netlink::Link;
use crate::qdisc::Shape;

/// What is said while what slows or harms its frames is not what is asked for.
const SHAPING: &str = "its impairment is being made";
/// Why a wire is down that lacks nothing of ours.
const DOWN_IN_NODE: &str = "the interface is down in its node";
/// Why a wire to another host is down that lacks nothing here.
const DOWN_THERE: &str = "the far end is down on its host";

/// What is said until compute has read back that a virtual machine sees its cable.
const UNSEEN: &str = "its virtual machine does not see the cable yet";

struct Verdict {
    state: WireState,
    detail: String,
    /// The end that it is because of.
    end: Option<End>,
    /// True when it is plugged in.
    is_in: bool,
}

impl Verdict {
    fn failed(detail: String) -> Verdict {
        Verdict { state: WireState::Failed, detail, end: None, is_in: false }
    }
}

/// What a wire is at, and why, and at which end.
struct Stuck {
    state: WireState,
    end: Option<End>,
    why: String,
}

impl From<(WireState, String)> for Stuck {
    fn from((state, why): (WireState, String)) -> Stuck {
        Stuck { state, end: None, why }
    }
}

/// An end of a wire that is a NIC.
struct NicEnd<'a> {
    end: End,
    place: Option<&'a Place<'a>>,
    /// What the far end wants of its own end.
    far: Will,
}

impl NicEnd<'_> {
    fn link(&self) -> Option<&Link> {
        self.place.and_then(|place| place.link)
    }
}

/// What wires are judged by.
pub struct Wiring<'a> {
    /// All that is known.
    pub facts: &'a Facts<'a>,
    /// The NICs.
    pub nics: &'a Places<'a>,
    /// The bridges.
    pub bridges: &'a Bridges,
    /// The ports.
    pub ports: &'a Ports,
    /// The wires that cannot be.
    pub refusals: &'a Refusals,
}

impl Wiring<'_> {
    /// Decides about wires.
    pub fn plan(&self, plan: &mut Plan) {
        let mut rules = BTreeSet::new();
        let mut cables = Cables::new();
        for wire in self.facts.wanted.slice.wires.values() {
            let verdict = match self.refusals.get(&wire.wire_id) {
                Some(why) => Verdict::failed(why.clone()),
                None => {
                    rules.extend(self.rules(wire));
                    self.verdict(wire)
                }
            };
            self.cables(wire, verdict.is_in, &mut cables);
            plan.ways.extend(self.ways(wire).map(|ways| (wire.wire_id, ways)));
            plan.observed.gaps.extend(self.lost(wire).map(|at| (wire.wire_id, at)));
            let choice = planes::of(self.facts, wire);
            let observed = ObservedWire {
                wire_id: wire.wire_id,
                state: verdict.state,
                detail: verdict.detail,
                end: verdict.end,
                plane: choice.name().to_owned(),
                plane_reason: choice.why.to_owned(),
                sources: self.sources(wire),
            };
            plan.observed.wires.insert(wire.wire_id, observed);
        }
        for link in self.nics.values().filter_map(|place| place.link) {
            cables.entry(link.index).or_insert(Cable { is_in: false, far: Far::Steady });
        }
        // One is down while it is renamed, and gets its cable back after.
        let renamed = plan.renames.iter().map(|rename| rename.index);
        renamed.for_each(|index| drop(cables.remove(&index)));
        plan.cables = Arc::new(cables);
        let bridge = &self.facts.names.bridge;
        if let Some(table) = self.facts.tables.get(bridge).filter(|table| table.trusted) {
            rules.extend(self.unwanted(&table.rules));
            plan.flows.insert(bridge.clone(), rules);
        }
    }

    /// What the state of a wire is read from, as far as that answers.
    fn sources(&self, wire: &Wire) -> Vec<Source> {
        let names = self.facts.names;
        let of_bridge = |name: &str| bridges::sources(self.facts, name);
        let of_kernel = || vec![Source::Interfaces, Source::Redirects];
        let mut all = match ends(wire) {
            Ends::Nics(..) if is_joined(self.facts, wire) => of_kernel(),
            Ends::Nics(..) => [of_bridge(&names.bridge), vec![Source::Interfaces]].concat(),
            Ends::NicAndSegment(_, segment) if is_joined(self.facts, wire) => {
                [of_bridge(&names.segment(segment)), of_kernel()].concat()
            }
            Ends::NicAndSegment(_, segment) => {
                [of_bridge(&names.segment(segment)), vec![Source::Interfaces]].concat()
            }
            Ends::Segments(a, b) => {
                let joined = if is_joined(self.facts, wire) { of_kernel() } else { Vec::new() };
                [of_bridge(&names.segment(a)), of_bridge(&names.segment(b)), joined].concat()
            }
            Ends::Tunnel(WireEnd::Segment(segment), _) => {
                [of_bridge(&names.segment(*segment)), of_kernel()].concat()
            }
            Ends::Tunnel(..) if is_joined(self.facts, wire) => of_kernel(),
            Ends::Tunnel(..) => [of_bridge(&names.bridge), vec![Source::Interfaces]].concat(),
            Ends::Special(..) if wire.a_to_b.is_none() && wire.b_to_a.is_none() => vec![Source::Interfaces],
            Ends::Special(..) => of_kernel(),
            Ends::Other => Vec::new(),
        };
        all.sort();
        all.dedup();
        all
    }

    /// What carrier follows at the ends of a wire.
    fn cables(&self, wire: &Wire, is_in: bool, cables: &mut Cables) {
        let place = |end: &WireEnd| match end {
            WireEnd::Nic(nic) => self.nics.get(nic),
            _ => None,
        };
        for (end, other) in [(&wire.a, &wire.b), (&wire.b, &wire.a)] {
            let Some(link) = place(end).and_then(|place| place.link) else { continue };
            let far = place(other).and_then(|place| {
                let (index, node) = (place.link?.index, place.nic.node_uid);
                Some(Far::Nic { index, node, start: place.start.clone() })
            });
            let far = far.or(tunnels::remote_up(other).map(Far::Remote));
            // Of two cables in one socket one is refused.
            if is_in || !cables.contains_key(&link.index) {
                cables.insert(link.index, Cable { is_in, far: far.unwrap_or(Far::Steady) });
            }
        }
    }

    /// Where what the wire carries is counted; none where nothing does.
    fn ways(&self, wire: &Wire) -> Option<Ways> {
        if is_joined(self.facts, wire) {
            let [a, b] = devices(self.facts, self.nics, wire)?;
            return Some(Ways::Interfaces(a.index, b.index));
        }
        let port = |end: &WireEnd| match end {
            WireEnd::Nic(nic) => self.nic_port(*nic),
            _ => self.port(&self.facts.names.tunnel_port()),
        };
        match (ends(wire), port(&wire.a), port(&wire.b)) {
            (Ends::Nics(..) | Ends::Tunnel(..), State::Ready(a), State::Ready(b)) => {
                Some(Ways::Ports(*a, *b))
            }
            _ => None,
        }
    }

    fn port(&self, name: &str) -> &State {
        self.ports.get(name).unwrap_or(&State::Making)
    }

    fn nic_port(&self, nic: WireId) -> &State {
        self.port(&self.facts.names.nic(nic))
    }

    /// The flows that make the wire; none until both its ports are there, and while its frames go through the kernel.
    fn rules(&self, wire: &Wire) -> Vec<Rule> {
        let carries = wire.enabled && !is_joined(self.facts, wire) && !self.is_redirected(wire);
        let rules = if carries { self.rules_between(wire).ok() } else { None };
        rules.into_iter().flatten().collect()
    }

    /// The flows that make a wire of NICs; what is lacking while one of its ports is.
    fn rules_between(&self, wire: &Wire) -> Result<[Rule; 2], Stuck> {
        let (id, names) = (wire.wire_id, self.facts.names);
        let port = |nic| {
            let end = if wire.a == WireEnd::Nic(nic) { End::A } else { End::B };
            let stuck = |(state, why)| Stuck { state, end: Some(end), why };
            self.ready(&names.nic(nic)).map_err(stuck)
        };
        match ends(wire) {
            Ends::Nics(a, b) => Ok(Rule::wire(id, port(a)?, port(b)?)),
            Ends::Tunnel(WireEnd::Nic(nic), tunnel) => {
                let (nic, out) = (port(*nic)?, self.ready(&names.tunnel_port())?);
                match tunnel.remote {
                    IpAddr::V4(remote) => Ok(Rule::tunnel(id, nic, out, tunnel.vni, remote)),
                    IpAddr::V6(_) => Err((WireState::Failed, "its tunnel is IPv6".to_owned()).into()),
                }
            }
            _ => Err((WireState::Failed, "it has no flows of its own".to_owned()).into()),
        }
    }

    /// True while what comes in by an end is handed on by the kernel.
    fn is_redirected(&self, wire: &Wire) -> bool {
        let link = |end: &WireEnd| match end {
            WireEnd::Nic(nic) => self.nics.get(nic)?.link,
            _ => None,
        };
        [&wire.a, &wire.b].into_iter().filter_map(link).any(|link| link.redirect.is_some())
    }

    /// When a flow that it goes by was last found missing: its own, or its segments'.
    fn lost(&self, wire: &Wire) -> Option<Instant> {
        let names = self.facts.names;
        let of_segment = |segment| lost(self.facts, &names.segment(segment), segment);
        match ends(wire) {
            Ends::Nics(..) | Ends::Tunnel(WireEnd::Nic(_), _) if is_joined(self.facts, wire) => None,
            Ends::Nics(..) | Ends::Tunnel(WireEnd::Nic(_), _) => {
                lost(self.facts, &names.bridge, wire.wire_id)
            }
            Ends::Tunnel(WireEnd::Segment(segment), _) => of_segment(*segment),
            Ends::NicAndSegment(_, segment) => of_segment(segment),
            Ends::Segments(a, b) => of_segment(a).max(of_segment(b)),
            Ends::Tunnel(..) | Ends::Special(..) | Ends::Other => None,
        }
    }

    /// Flows of wires that are neither wanted nor removed: they stay, unless they touch a port of a wanted one.
    fn unwanted(&self, there: &BTreeSet<Rule>) -> Vec<Rule> {
        let Some(ovs) = self.facts.ovs else { return Vec::new() };
        let names = self.facts.names;
        let spare: BTreeSet<u32> = ovs
            .ports
            .values()
            .filter(|port| port.bridge == names.bridge && port.owner.as_ref() == Some(&names.owner))
            .filter(|port| port.wire.is_none_or(|wire| !self.facts.is_wanted(wire)))
            .filter_map(|port| port.ofport)
            .collect();
        let stays = |rule: &&Rule| {
            let wire = WireId::try_from(rule.cookie).ok();
            let unknown = wire
                .is_some_and(|wire| !self.facts.is_wanted(wire) && !self.facts.wanted.doomed.contains(&wire));
            let between_spare =
                [rule.from, rule.to].iter().all(|port| port.is_some_and(|p| spare.contains(&p)));
            unknown && between_spare
        };
        there.iter().filter(stays).copied().collect()
    }

    /// The ends of a wire that are NICs.
    fn nic_ends(&self, wire: &Wire) -> Vec<NicEnd<'_>> {
        let place = |end: &WireEnd| match end {
            WireEnd::Nic(nic) => Some(self.nics.get(nic)),
            _ => None,
        };
        // A NIC that has a place is of a start that lives.
        let will = |end: &WireEnd| match (place(end), tunnels::remote_up(end)) {
            (Some(place), _) => Will::of(place.and_then(|place| place.link), true),
            (None, Some(false)) => Will::Down,
            (None, _) => Will::Up,
        };
        [(End::A, &wire.a, &wire.b), (End::B, &wire.b, &wire.a)]
            .into_iter()
            .filter_map(|(end, what, other)| Some(NicEnd { end, place: place(what)?, far: will(other) }))
            .collect()
    }

    fn verdict(&self, wire: &Wire) -> Verdict {
        let ends = self.nic_ends(wire);
        let plugged = ends.iter().all(|end| end.link().is_some());
        let stage = self.stage(wire);
        let failed = matches!(&stage, Err(stuck) if stuck.state == WireState::Failed);
        // What of its ends tells whether it was plugged in before: those that nobody but this wire keeps down.
        let mut telling = ends.iter().filter(|end| end.far == Will::Up).filter_map(NicEnd::link).peekable();
        let was_in = telling.peek().is_some() && telling.all(|link| link.up);
        let shaped = self.is_shaped(wire);
        let is_in = wire.enabled && plugged && !failed && (stage.is_ok() && shaped || was_in);
        let verdict = |state, end, detail: &str| Verdict { state, detail: detail.to_owned(), end, is_in };

        let broken = ends.iter().find_map(|end| Some((end.end, end.place.filter(|place| place.failed)?)));
        if let Some((end, place)) = broken {
            return verdict(WireState::Failed, Some(end), &place.why);
        }
        if let Some(stuck) = stage.as_ref().err().filter(|_| failed) {
            return verdict(stuck.state, stuck.end, &stuck.why);
        }
        if !wire.enabled {
            return verdict(WireState::Down, None, "unplugged");
        }
        if let Some(end) = ends.iter().find(|end| end.link().is_none()) {
            let why = end.place.map_or("its NIC is not known here", |place| place.why.as_str());
            // What only a start brings that nobody has asked for is not on its way.
            let state = if why == NEEDS_RESTART { WireState::Down } else { WireState::Pending };
            return verdict(state, Some(end.end), why);
        }
        if let Err(Stuck { state, end, why }) = stage {
            // What carried a moment ago is down, not on its way.
            let state = if state == WireState::Pending && was_in { WireState::Down } else { state };
            return verdict(state, end, &why);
        }
        if !shaped && !was_in {
            return verdict(WireState::Pending, None, SHAPING);
        }
        for end in &ends {
            match Will::of(end.link(), true) {
                Will::Up => {}
                Will::Unknown => {
                    return verdict(WireState::Pending, Some(end.end), "its interface is being read");
                }
                Will::Down | Will::Gone => return verdict(WireState::Down, Some(end.end), DOWN_IN_NODE),
            }
        }
        let other_host = [(End::A, &wire.a), (End::B, &wire.b)].into_iter();
        let mut down_there = other_host.filter(|(_, end)| tunnels::remote_up(end) == Some(false));
        if let Some((end, _)) = down_there.next() {
            return verdict(WireState::Down, Some(end), DOWN_THERE);
        }
        let misnamed = ends.iter().find_map(|end| Some((end.end, end.place?.misnamed.as_ref()?)));
        if let Some((end, why)) = misnamed {
            return verdict(WireState::Down, Some(end), why);
        }
        for end in &ends {
            match end.link() {
                Some(link) if !link.up => {
                    return verdict(WireState::Pending, Some(end.end), "it is being set up");
                }
                Some(_) if end.place.is_some_and(|place| !place.shown) => {
                    return verdict(WireState::Pending, Some(end.end), UNSEEN);
                }
                Some(link) if !link.lower_up => {
                    return verdict(WireState::Down, Some(end.end), "it has no carrier yet");
                }
                _ => {}
            }
        }
        // It carries; only how is not what is asked for yet, or is not netloom's alone to say.
        if !shaped {
            return verdict(WireState::Up, None, SHAPING);
        }
        match meddled_with(self.facts, self.nics, wire) {
            Some((end, why)) => verdict(WireState::Up, Some(end), &why),
            None => verdict(WireState::Up, None, ""),
        }
    }

    /// How far the wire is between its ends: done, or what it is at and why.
    fn stage(&self, wire: &Wire) -> Result<(), Stuck> {
        let names = self.facts.names;
        match ends(wire) {
            _ if is_joined(self.facts, wire) => Ok(self.joined(wire)?),
            Ends::Special(nic, end) => Ok(self.special(wire, nic, &end)?),
            Ends::Nics(..) | Ends::Tunnel(..) => {
                self.bridge(&names.bridge)?;
                let rules = self.rules_between(wire)?;
                if rules.iter().all(|rule| has_rule(self.facts, &names.bridge, rule)) {
                    return Ok(());
                }
                match problem(self.facts, &names.bridge) {
                    Some(why) => Err((WireState::Failed, why.to_owned()).into()),
                    None => Err((WireState::Pending, "its flows are being made".to_owned()).into()),
                }
            }
            Ends::NicAndSegment(nic, segment) => {
                self.segment(segment)?;
                self.ready(&names.nic(nic))?;
                Ok(())
            }
            Ends::Other => {
                Err((WireState::Failed, "nothing can be plugged into either end".to_owned()).into())
            }
            Ends::Segments(a, b) => {
                self.segment(a)?;
                self.segment(b)?;
                if wire.enabled {
                    for name in names.patch(wire.wire_id) {
                        self.ready(&name)?;
                    }
                }
                Ok(())
            }
        }
    }

    /// How far a wire is that goes through the kernel.
    fn joined(&self, wire: &Wire) -> Result<(), (WireState, String)> {
        let (id, names) = (wire.wire_id, self.facts.names);
        let pending = |what: &str| Err((WireState::Pending, what.to_owned()));
        if let Some(why) = self.facts.trouble(id) {
            return Err((WireState::Failed, why.to_owned()));
        }
        for (end, segment) in segment_ends(wire) {
            self.segment(segment)?;
            let tail = names.tail(id, end);
            for name in [&tail.outer, &tail.inner] {
                match self.facts.links.get(name) {
                    Some(link) if !names.is_our_tail(link, id) => {
                        let why =
                            format!("the host has an interface {name} that is not netloom's: rename it");
                        return Err((WireState::Failed, why));
                    }
                    Some(link) if link.up && !link.alias.is_empty() => {}
                    _ => return pending("its way into the segment is being made"),
                }
            }
            self.ready(&tail.outer)?;
        }
        if let Some(link) = tunnels::taken_by_others(self.facts, wire) {
            let why = format!("the host has an interface {} that is not netloom's: rename it", link.name);
            return Err((WireState::Failed, why));
        }
        let Some([a, b]) = devices(self.facts, self.nics, wire) else {
            return pending("its interfaces are being made");
        };
        if has_flows(self.facts, id) {
            return pending("it is being taken off Open vSwitch");
        }
        if wire.enabled && !are_joined(self.facts, id, [a, b]) {
            return pending("its redirects are being made");
        }
        Ok(())
    }

    /// Whether all that leaves by its interfaces was read back to be treated as asked.
    fn is_shaped(&self, wire: &Wire) -> bool {
        let shaped = |link: &Link, impairment: &Impairment| link.shape == Shape::of(impairment, link.mtu);
        match ends(wire) {
            _ if !wire.enabled => true,
            Ends::Special(nic, _) => {
                let inward = if matches!(wire.a, WireEnd::Nic(_)) { &wire.b_to_a } else { &wire.a_to_b };
                self.nics.get(&nic).and_then(|place| place.link).is_none_or(|link| shaped(link, inward))
            }
            _ if is_joined(self.facts, wire) => devices(self.facts, self.nics, wire).is_none_or(|[a, b]| {
                shaped(a, &happens(&wire.a, wire.b_to_a)) && shaped(b, &happens(&wire.b, wire.a_to_b))
            }),
            _ => true,
        }
    }

    /// How far a wire is that leads out of the lab, or nowhere.
    fn special(&self, wire: &Wire, nic: WireId, end: &WireEnd) -> Result<(), (WireState, String)> {
        let pending = |what: String| Err((WireState::Pending, what));
        if let Some(why) = self.facts.trouble(wire.wire_id) {
            return Err((WireState::Failed, why.to_owned()));
        }
        let Some(link) = self.nics.get(&nic).and_then(|place| place.link) else {
            return pending("its NIC is being plugged".to_owned());
        };
        let there = |name: &String| self.facts.links.get(name);
        match end {
            WireEnd::HostInterface(name) if link.name != *name => match there(name) {
                Some(_) => {
                    let why = format!(
                        "the host has an interface {name} already, which is left alone: rename it, or name another in the link"
                    );
                    return Err((WireState::Failed, why));
                }
                None => return pending(format!("its host end is being named {name}")),
            },
            WireEnd::Bridge(name) => match there(name) {
                None => return pending(format!("there is no bridge {name} yet")),
                Some(bridge) if !bridge.is_bridge => {
                    return Err((
                        WireState::Failed,
                        format!("interface {name} of the host is no Linux bridge"),
                    ));
                }
                Some(bridge) if link.master != bridge.index => {
                    return pending(format!("its host end is being made a port of bridge {name}"));
                }
                Some(_) => {}
            },
            _ => {}
        }
        Ok(())
    }

    fn bridge(&self, name: &str) -> Result<(), (WireState, String)> {
        match self.bridges.health(name) {
            Health::Ready => Ok(()),
            Health::Making => Err((WireState::Pending, format!("bridge {name} is being made"))),
            Health::Silent(why) => Err((WireState::Unknown, why.clone())),
            Health::Failed(why) => Err((WireState::Failed, why.clone())),
        }
    }

    fn segment(&self, segment: WireId) -> Result<(), (WireState, String)> {
        if !self.facts.wanted.slice.segments.contains_key(&segment) {
            return Err((WireState::Pending, format!("segment {segment} is not known here")));
        }
        let name = self.facts.names.segment(segment);
        self.bridge(&name)?;
        match has_rule(self.facts, &name, &Rule::segment(segment)) {
            true => Ok(()),
            false => Err((WireState::Pending, format!("the flow of bridge {name} is being made"))),
        }
    }

    fn ready(&self, port: &str) -> Result<u32, (WireState, String)> {
        match self.port(port) {
            State::Ready(number) => Ok(*number),
            State::Making => Err((WireState::Pending, "its port is being made".to_owned())),
            State::Failed(why) => Err((WireState::Failed, why.clone())),
        }
    }
}
