//! What a plan means for interfaces, as batches of route netlink: one for the host, one for each namespace that is visited.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netloom_model::id::WireId;
use netloom_service::fail_point;
use nix::libc;

use crate::figures;
use crate::names::Names;
use crate::namespace::{self, Outcomes, Visit};
use crate::netlink::{Netlink, Refused, Request, Vxlan};
use crate::offload;
use crate::plan::{Adoption, Control, Handling, NewTail, NewTunnel, Op, Plan, Rename};
use crate::qdisc;
use crate::redirect;
use crate::slice::Wanted;
use crate::taps;

/// True when the plan changes anything of the host's interfaces.
pub fn any(plan: &Plan) -> bool {
    !plan.unplug.is_empty() || on_host(plan)
}

/// True when the plan changes what is no NIC.
fn on_host(plan: &Plan) -> bool {
    !(plan.renames.is_empty()
        && plan.masters.is_empty()
        && plan.tails.is_empty()
        && plan.tunnels.is_empty()
        && plan.untail.is_empty()
        && plan.raise.is_empty()
        && plan.mtus.is_empty()
        && plan.handlings.is_empty()
        && plan.controls.is_empty()
        && plan.adopt.is_empty()
        && plan.release.is_empty())
}

/// Takes NICs away, makes and changes NICs, and sees to what is done to frames. Tells how it went with what can
/// fail for good.
pub async fn interfaces(
    netlink: Arc<Mutex<Netlink>>,
    names: &Names,
    plan: &Plan,
    visits: Vec<(String, Visit)>,
    wanted: &Wanted,
) -> Outcomes {
    let mut outcomes = Outcomes::new();
    if any(plan) {
        let host = Host::of(names, plan);
        let done = tokio::task::spawn_blocking(move || {
            host.run(&mut netlink.lock().unwrap_or_else(PoisonError::into_inner))
        });
        match done.await.unwrap_or_else(|e| Err(io::Error::other(e))) {
            Ok(done) => {
                outcomes.extend(done);
                tell(plan, wanted);
            }
            Err(e) => {
                let why = format!("its host end cannot be changed: {e}");
                outcomes.extend(plan.unplug.keys().map(|wire| (*wire, Err(why.clone()))));
            }
        }
    }
    if !visits.is_empty() {
        outcomes.extend(visit(visits, wanted).await);
    }
    outcomes
}

/// What is to be done on the host itself.
struct Host {
    names: Names,
    unplug: Vec<u32>,
    /// The group that these are, where they are all of it.
    group: Option<u32>,
    untail: Vec<u32>,
    tails: Vec<NewTail>,
    tunnels: Vec<NewTunnel>,
    renames: Vec<Rename>,
    plain: Vec<Request>,
    /// A host end, and the bridge that it is to be a port of; 0 is none.
    masters: Vec<(WireId, u32, u32)>,
    handlings: Vec<Handling>,
    controls: Vec<Control>,
    adopt: Vec<Adoption>,
    release: Vec<u32>,
}

impl Host {
    fn of(names: &Names, plan: &Plan) -> Host {
        let mtus =
            plan.mtus.iter().map(|(index, mtu)| Request::set_link(*index, vec![LinkAttribute::Mtu(*mtu)]));
        let raise = plan.raise.iter().map(|index| Request::set_up(*index, true));
        let master = |(wire, (index, master)): (&WireId, &(u32, u32))| (*wire, *index, *master);
        Host {
            names: names.clone(),
            unplug: plan.unplug.values().copied().collect(),
            group: plan.unplug_all.then_some(names.group),
            untail: plan.untail.clone(),
            tails: plan.tails.clone(),
            tunnels: plan.tunnels.clone(),
            renames: plan.renames.clone(),
            plain: mtus.chain(raise).collect(),
            masters: plan.masters.iter().map(master).collect(),
            handlings: plan.handlings.clone(),
            controls: plan.controls.clone(),
            adopt: plan.adopt.clone(),
            release: plan.release.clone(),
        }
    }

    fn run(self, netlink: &mut Netlink) -> io::Result<Outcomes> {
        fail_point::pass("network.host-ends", "before");
        namespace::unplug(netlink, &self.unplug, self.group, self.names.condemned_group())?;
        fail_point::pass("network.host-ends", "unplugged");
        netlink.batch(self.untail.iter().map(|index| Request::delete_link(*index)).collect())?;
        let mut outcomes = Outcomes::new();
        if !self.tails.is_empty() {
            outcomes.extend(make_tails(netlink, &self.names, &self.tails)?);
        }
        if !self.tunnels.is_empty() {
            outcomes.extend(make_tunnels(netlink, &self.names, &self.tunnels)?);
        }
        outcomes.extend(rename(netlink, &self.renames)?);
        netlink.batch(self.plain)?;
        outcomes.extend(join_bridges(netlink, &self.masters)?);
        for handling in &self.handlings {
            outcomes.push((handling.wire, handling.run(netlink)?));
        }
        fail_point::pass("network.host-ends", "joined");
        outcomes.extend(control(netlink, &self.names, &self.controls)?);
        outcomes.extend(taps::adopt(netlink, &self.names, self.adopt)?);
        taps::release(netlink, &self.release)?;
        fail_point::pass("network.host-ends", "after");
        Ok(outcomes)
    }
}

/// True when a request was refused because one of its interfaces went just then, with its node for instance. That is no failure: the next
/// look finds what is there instead.
fn is_passing(netlink: &mut Netlink, refused: &Refused, interfaces: &[u32]) -> io::Result<bool> {
    if refused.errno != libc::ENODEV {
        return Ok(false);
    }
    let which: Vec<(Option<i32>, u32)> = interfaces.iter().map(|index| (None, *index)).collect();
    Ok(netlink.read(&which)?.iter().any(Option::is_none))
}

/// Makes host ends ports of Linux bridges, or has these let go of them.
fn join_bridges(netlink: &mut Netlink, masters: &[(WireId, u32, u32)]) -> io::Result<Outcomes> {
    let requests = masters
        .iter()
        .map(|(_, index, master)| Request::set_link(*index, vec![LinkAttribute::Controller(*master)]));
    let answers = netlink.batch(requests.collect())?;
    let mut outcomes = Outcomes::new();
    for ((wire, index, master), answer) in masters.iter().zip(answers) {
        let interfaces = if *master == 0 { vec![*index] } else { vec![*index, *master] };
        let outcome = match answer {
            Err(e) if !is_passing(netlink, &e, &interfaces)? => {
                Err(format!("its host end cannot be made a port of the bridge: {e}"))
            }
            _ => Ok(()),
        };
        outcomes.push((*wire, outcome));
    }
    Ok(outcomes)
}

/// Renames host ends. What they are called then is read back: a name that the kernel makes another of would be given again in every pass.
fn rename(netlink: &mut Netlink, renames: &[Rename]) -> io::Result<Outcomes> {
    let mut outcomes = Outcomes::new();
    for rename in renames {
        outcomes.push((rename.wire, rename.run(netlink)?));
    }
    if renames.is_empty() {
        return Ok(outcomes);
    }
    let names: HashMap<u32, String> =
        netlink.links()?.into_iter().map(|link| (link.index, link.name)).collect();
    for (rename, (_, outcome)) in renames.iter().zip(&mut outcomes) {
        if let Some(name) = names.get(&rename.index).filter(|name| outcome.is_ok() && **name != rename.to) {
            *outcome =
                Err(format!("its host end was to be named {}, and the kernel named it {name}", rename.to));
        }
    }
    Ok(outcomes)
}

impl Rename {
    /// An interface has to be down while it is renamed, on kernels before 6.2. The next pass sets it up.
    fn run(&self, netlink: &mut Netlink) -> io::Result<Result<(), String>> {
        if !self.silent {
            namespace::unsilence(netlink, self.index, &self.from)?;
        }
        let name = LinkAttribute::IfName(self.to.clone());
        let requests = vec![Request::set_up(self.index, false), Request::set_link(self.index, vec![name])];
        let refused = netlink.batch(requests)?.into_iter().find_map(Result::err);
        if let Some(e) = refused {
            if is_passing(netlink, &e, &[self.index])? {
                return Ok(Ok(()));
            }
            return Ok(Err(format!("its host end cannot be named {}: {e}", self.to)));
        }
        fail_point::pass("network.rename", "named");
        if self.silent {
            namespace::silence(netlink, &[(self.index, &self.to)])?;
        }
        Ok(Ok(()))
    }
}

impl Handling {
    /// The mark is the first thing that is put on and the last that is taken off: what is between is done again.
    fn run(&self, netlink: &mut Netlink) -> io::Result<Result<(), String>> {
        let failed = |e: &dyn std::fmt::Display| {
            let how = if self.take { "taken for an uplink" } else { "put back as it was" };
            Ok(Err(format!("interface {} cannot be {how}: {e}", self.name)))
        };
        if self.take {
            let marked = netlink.batch(vec![Request::add_name(self.index, &self.mark)])?;
            if let Some(e) = marked.into_iter().find_map(Result::err).filter(|e| e.errno != libc::EEXIST) {
                return if is_passing(netlink, &e, &[self.index])? { Ok(Ok(())) } else { failed(&e) };
            }
        }
        fail_point::pass("network.uplink", "marked");
        if let Err(e) = self.then.set(netlink, self.index, &self.name, self.now) {
            return failed(&e);
        }
        fail_point::pass("network.uplink", "set");
        if !self.take {
            let freed = netlink.batch(vec![Request::remove_name(self.index, &self.mark)])?;
            if let Some(e) = freed.into_iter().find_map(Result::err) {
                return if is_passing(netlink, &e, &[self.index])? { Ok(Ok(())) } else { failed(&e) };
            }
        }
        tracing::info!(interface = self.name, taken = self.take, "uplink");
        Ok(Ok(()))
    }
}

/// Makes tails and marks them as ours.
fn make_tails(netlink: &mut Netlink, names: &Names, tails: &[NewTail]) -> io::Result<Outcomes> {
    let ends: Vec<[String; 2]> = tails
        .iter()
        .map(|tail| names.tail(tail.wire, tail.end))
        .map(|tail| [tail.outer, tail.inner])
        .collect();
    let veth = |(tail, [outer, inner]): (&NewTail, &[String; 2])| {
        let end = |name: &String| {
            vec![
                LinkAttribute::IfName(name.clone()),
                LinkAttribute::Mtu(tail.mtu),
                LinkAttribute::Group(names.group),
            ]
        };
        let (mut peer, mut message) = (LinkMessage::default(), LinkMessage::default());
        peer.attributes = end(inner);
        if tail.is_uplink {
            peer.attributes.push(LinkAttribute::Address(highest_mac(tail.wire)));
        }
        message.attributes = end(outer);
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]));
        Request::create(RouteNetlinkMessage::NewLink(message))
    };
    let made = netlink.batch(tails.iter().zip(&ends).map(veth).collect())?;
    fail_point::pass("network.tails", "made");
    let alias = |tail: &NewTail| names.tail_alias(tail.wire);
    let aliases = tails
        .iter()
        .zip(&ends)
        .flat_map(|(tail, ends)| ends.iter().map(move |end| (end.clone(), alias(tail))));
    mark(netlink, &aliases.collect::<Vec<_>>())?;
    for (tail, [_, inner]) in tails.iter().zip(&ends).filter(|(tail, _)| tail.is_uplink) {
        // What comes from the host's own stack is to be whole before it is Open vSwitch's.
        if let Err(why) = offload::set(inner, false) {
            tracing::warn!(wire = tail.wire.get(), "{inner}: {why}");
        }
    }
    fail_point::pass("network.tails", "marked");
    let failed = |e: Refused| format!("its way into the segment cannot be made: {e}");
    Ok(tails.iter().map(|tail| tail.wire).zip(made.into_iter().map(|m| m.map_err(failed))).collect())
}

/// A MAC address that no bridge takes for its own, since those of its other ports are lower.
fn highest_mac(wire: WireId) -> Vec<u8> {
    let [.., a, b, c, d, e] = wire.get().to_be_bytes();
    vec![0xfe, a, b, c, d, e]
}

/// Makes tunnels to other hosts and marks them as ours.
fn make_tunnels(netlink: &mut Netlink, names: &Names, tunnels: &[NewTunnel]) -> io::Result<Outcomes> {
    let create = |tunnel: &NewTunnel| {
        let mut message = LinkMessage::default();
        message.attributes = vec![
            LinkAttribute::IfName(names.tunnel(tunnel.wire)),
            LinkAttribute::Mtu(tunnel.mtu),
            LinkAttribute::Group(names.group),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Vxlan),
                LinkInfo::Data(InfoData::Vxlan(tunnel.vxlan.data())),
            ]),
        ];
        Request::create(RouteNetlinkMessage::NewLink(message))
    };
    let made = netlink.batch(tunnels.iter().map(create).collect())?;
    let aliases = tunnels.iter().map(|t| (names.tunnel(t.wire), names.tunnel_alias(t.wire)));
    mark(netlink, &aliases.collect::<Vec<_>>())?;
    let failed = |tunnel: &NewTunnel, e: Refused| {
        let Vxlan { vni, port, .. } = tunnel.vxlan;
        let hint = match e.errno {
            libc::EEXIST | libc::EADDRINUSE => {
                format!(
                    "; something else on this host has VNI {vni} or UDP port {port}: set network.tunnel_port on all hosts, or another range of VNIs for the scheduler"
                )
            }
            libc::EOPNOTSUPP => "; load the module vxlan".to_owned(),
            _ => String::new(),
        };
        format!("its tunnel to {} cannot be made: {e}{hint}", tunnel.vxlan.remote)
    };
    let outcome = |(tunnel, made): (&NewTunnel, Result<(), Refused>)| {
        (tunnel.wire, made.map_err(|e| failed(tunnel, e)))
    };
    Ok(tunnels.iter().zip(made).map(outcome).collect())
}

/// Marks interfaces that were just made as ours, by name and alias, sets them up, and keeps the host's own stack from taking notice of them.
fn mark(netlink: &mut Netlink, aliases: &[(String, String)]) -> io::Result<()> {
    let numbers: HashMap<String, u32> =
        netlink.links()?.into_iter().map(|link| (link.name, link.index)).collect();
    let there = |(name, alias)| Some((*numbers.get(name)?, name, alias));
    let there: Vec<(u32, &String, &String)> =
        aliases.iter().map(|(name, alias)| (name, alias)).filter_map(there).collect();
    let mark = |(index, _, alias): &(u32, &String, &String)| {
        let alias = LinkAttribute::IfAlias((*alias).clone());
        [Request::set_link(*index, vec![alias]), Request::set_up(*index, true)]
    };
    netlink.batch(there.iter().flat_map(mark).collect())?;
    let silent: Vec<(u32, &str)> = there.iter().map(|(index, name, _)| (*index, name.as_str())).collect();
    namespace::silence(netlink, &silent)
}

/// Sees to what is done to frames, in one batch.
fn control(netlink: &mut Netlink, names: &Names, controls: &[Control]) -> io::Result<Outcomes> {
    let (mut requests, mut owners, mut places) = (Vec::new(), Vec::new(), Vec::new());
    for Control { wire, index, ops } in controls {
        for op in ops {
            // Of each request: the interfaces that it needs, where it matters that it is refused. What is to go may be gone, and a place for
            // filters may be there.
            let each: Vec<(Request, Vec<u32>)> = match op {
                Op::Put(shape, mtu) => vec![(shape.put(*index, *mtu), vec![*index])],
                Op::Take(shape) => vec![(qdisc::take(*index, shape), vec![])],
                Op::Redirect { to, anew } => {
                    let mark = names.mark(*wire, *index);
                    let earlier = anew.then(|| (redirect::take(*index), vec![]));
                    let put = (redirect::put(mark, *to), vec![*index, *to]);
                    let new = [(redirect::put_place(*index), vec![]), put];
                    earlier.into_iter().chain(new).collect()
                }
                Op::Undirect => {
                    places.push(*index);
                    vec![(redirect::take(*index), vec![])]
                }
            };
            for (request, needs) in each {
                requests.push(request);
                owners.push((*wire, needs));
            }
        }
    }
    let mut outcomes = BTreeMap::<WireId, Result<(), String>>::new();
    for ((wire, needs), answer) in owners.into_iter().zip(netlink.batch(requests)?) {
        let outcome = outcomes.entry(wire).or_insert(Ok(()));
        if let Err(e) = answer
            && !needs.is_empty()
            && outcome.is_ok()
            && !is_passing(netlink, &e, &needs)?
        {
            *outcome = Err(format!("the kernel refused what is to be done to its frames: {e}"));
        }
    }
    if !places.is_empty() {
        tidy(netlink, &places)?;
    }
    Ok(outcomes.into_iter().collect())
}

/// Takes away the places of redirects that are gone, unless somebody else's filters hang on them.
fn tidy(netlink: &mut Netlink, places: &[u32]) -> io::Result<()> {
    let mut empty = Vec::new();
    for index in places {
        let mut filters = 0;
        let read = netlink.dump(qdisc::GET_FILTER, &redirect::filters_of(*index), |_, _| filters += 1);
        if read.is_ok() && filters == 0 {
            empty.push(redirect::take_place(*index));
        }
    }
    fail_point::pass("network.places", "before");
    netlink.batch(empty).map(drop)
}

/// Says what was done.
fn tell(plan: &Plan, wanted: &Wanted) {
    figures::NICS_REMOVED.inc_by(plan.unplug.len() as u64);
    wanted.traces.each(
        plan.unplug.keys(),
        |wire| Some(**wire),
        |nics| {
            tracing::info!(nics = nics.len(), "NICs unplugged");
        },
    );
    wanted.traces.each(
        &plan.controls,
        |control| Some(control.wire),
        |controls| {
            tracing::info!(interfaces = controls.len(), "redirects and impairments set");
        },
    );
}

/// Visits namespaces.
async fn visit(visits: Vec<(String, Visit)>, wanted: &Wanted) -> Outcomes {
    let begun = Instant::now();
    let nodes: HashMap<WireId, (String, bool)> = visits
        .iter()
        .flat_map(|(node, visit)| {
            let plugs = visit.plugs.iter().map(|plug| (plug.wire, (node.clone(), true)));
            plugs.chain(visit.adjusts.iter().map(|adjust| (adjust.wire, (node.clone(), false))))
        })
        .collect();
    let made = namespace::visit(visits.into_iter().map(|(_, visit)| visit).collect()).await;
    let ms = begun.elapsed().as_millis() as u64;
    let done: Vec<WireId> = made.iter().filter(|(_, o)| o.is_ok()).map(|(wire, _)| *wire).collect();
    let plugged = done.iter().filter(|wire| nodes.get(wire).is_some_and(|(_, plugged)| *plugged));
    figures::NICS_MADE.inc_by(plugged.count() as u64);
    wanted.traces.each(
        done,
        |wire| Some(*wire),
        |wires| {
            let mut by_node = BTreeMap::<&str, (usize, usize)>::new();
            for (node, plugged) in wires.iter().filter_map(|wire| nodes.get(wire)) {
                let counts = by_node.entry(node).or_default();
                counts.0 += usize::from(*plugged);
                counts.1 += usize::from(!*plugged);
            }
            for (node, (nics, changed)) in by_node {
                if nics > 0 {
                    tracing::info!(node, nics, ms, "NICs plugged");
                }
                if changed > 0 {
                    tracing::info!(node, nics = changed, ms, "NICs changed");
                }
            }
        },
    );
    made
}

#[cfg(test)]
mod tests;
