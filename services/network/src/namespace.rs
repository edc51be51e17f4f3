//! Visits to nodes' network namespaces: all NICs of a namespace are made in one visit.
//!
//! What of a NIC can be changed is changed in the same visit, and only that: what the node itself set stays. A visit happens on a thread of its own, which enters namespace after namespace and ends: no thread of the runtime ever leaves the host's
//! namespace, so nothing else can be done in the wrong one. A NIC is made in its final place and under its final name: the node never sees
//! it half done.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd as _, RawFd};
use std::path::PathBuf;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    AfSpecInet, AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InetDevConf, InfoData, InfoKind, InfoVeth,
    LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netloom_model::id::WireId;
use netloom_service::fail_point;
use nix::libc;
use nix::sched::{CloneFlags, setns};

use crate::guest::{Guest, Setting};
use crate::netlink::{Link, Netlink, Refused, Request};
use crate::netns::is_namespace;
use crate::offload;

/// A NIC to be made.
#[derive(Debug, Clone)]
pub struct Plug {
    /// The NIC.
    pub wire: WireId,
    /// Its end in the node.
    pub guest: Guest,
    /// Name of its end on the host.
    pub host_name: String,
    /// Number of its end on the host: high, so that it never equals the other end's, which would hold link events back for 0.8 s.
    pub host_index: u32,
    /// Alias of its end on the host.
    pub alias: String,
    /// Group of its end on the host.
    pub group: u32,
    /// Whether the node may leave checksums and segmentation to whoever takes its frames.
    pub offload: bool,
}

/// A NIC to be changed.
#[derive(Debug, Clone)]
pub struct Adjust {
    /// The NIC.
    pub wire: WireId,
    /// Number of its end in the node.
    pub guest_index: u32,
    /// Number of its end on the host.
    pub host_index: u32,
    /// What the node calls it.
    pub called: Option<String>,
    /// What it is to be called.
    pub name: String,
    /// As we made it.
    pub before: Setting,
    /// As it is to be.
    pub after: Setting,
    /// Whether the node may leave checksums and segmentation to whoever takes its frames; none stays as it is.
    pub offload: Option<bool>,
    /// Alias of its end on the host then.
    pub alias: String,
}

/// What is to be done in one namespace.
#[derive(Debug, Clone)]
pub struct Visit {
    /// The namespace.
    pub path: PathBuf,
    /// NICs to make.
    pub plugs: Vec<Plug>,
    /// NICs to change.
    pub adjusts: Vec<Adjust>,
}

/// How it went, NIC by NIC: a refused one left nothing behind.
pub type Outcomes = Vec<(WireId, Result<(), String>)>;

/// Why a NIC is not as it should be.
enum Fault {
    /// Nothing was made.
    Absent(String),
    /// It was made, and not all of it could be set.
    Broken(String),
}

impl Fault {
    fn why(self) -> String {
        match self {
            Fault::Absent(why) | Fault::Broken(why) => why,
        }
    }
}

impl Visit {
    fn wires(&self) -> impl Iterator<Item = WireId> {
        self.plugs.iter().map(|plug| plug.wire).chain(self.adjusts.iter().map(|adjust| adjust.wire))
    }
}

/// Makes and changes all these NICs. Blocks on a thread of its own.
pub async fn visit(visits: Vec<Visit>) -> Outcomes {
    let wires: Vec<WireId> = visits.iter().flat_map(Visit::wires).collect();
    let all_failed = move |why: String| wires.iter().map(|wire| (*wire, Err(why.clone()))).collect();
    let (done, outcome) = tokio::sync::oneshot::channel();
    let thread = std::thread::Builder::new().name("netns-visit".to_owned()).spawn(move || {
        let _ = done.send(visit_all(&visits));
    });
    match thread.map(|_| outcome) {
        Err(e) => all_failed(format!("no thread for it: {e}")),
        Ok(outcome) => match outcome.await {
            Ok(Ok(outcomes)) => outcomes,
            Ok(Err(e)) => all_failed(format!("the host's network namespace: {e}")),
            Err(_) => all_failed("the visit was broken off".to_owned()),
        },
    }
}

fn visit_all(visits: &[Visit]) -> io::Result<Outcomes> {
    let host_namespace = File::open("/proc/thread-self/ns/net")?;
    let mut host = Netlink::open()?;
    fail_point::pass("network.visit", "before");
    let mut nics: Vec<(&Plug, Result<(), Fault>)> = Vec::new();
    let mut adjusted: Vec<(&Adjust, Result<(), String>)> = Vec::new();
    for visit in visits {
        match visit.run(host_namespace.as_raw_fd()) {
            Ok((made, changed)) => {
                nics.extend(visit.plugs.iter().zip(made));
                adjusted.extend(visit.adjusts.iter().zip(changed));
            }
            Err(e) => {
                let why = format!("the node's network namespace cannot be entered: {e}");
                nics.extend(visit.plugs.iter().map(|plug| (plug, Err(Fault::Absent(why.clone())))));
                adjusted.extend(visit.adjusts.iter().map(|adjust| (adjust, Err(why.clone()))));
            }
        }
    }
    setns(&host_namespace, CloneFlags::CLONE_NEWNET)?;
    fail_point::pass("network.visit", "made");
    let mut made: Vec<_> = nics.iter_mut().filter(|(_, outcome)| outcome.is_ok()).collect();
    let alias = |index, alias: &str| Request::set_link(index, vec![LinkAttribute::IfAlias(alias.to_owned())]);
    let aliases = made.iter().map(|(plug, _)| alias(plug.host_index, &plug.alias));
    let answers = host.batch(aliases.collect())?;
    for ((_, outcome), answer) in made.iter_mut().zip(answers) {
        *outcome = answer.map_err(|e| Fault::Broken(format!("its host end cannot be marked as ours: {e}")));
    }
    let silent: Vec<_> = made.iter().map(|(plug, _)| (plug.host_index, plug.host_name.as_str())).collect();
    silence(&mut host, &silent)?;
    let broken = nics.iter().filter(|(_, outcome)| matches!(outcome, Err(Fault::Broken(_))));
    host.batch(broken.map(|(plug, _)| Request::delete_link(plug.host_index)).collect())?;
    // The mark comes last: one that was not changed wholly is changed again.
    let mut changed: Vec<_> = adjusted.iter_mut().filter(|(_, outcome)| outcome.is_ok()).collect();
    let requests = changed.iter().flat_map(|(adjust, _)| {
        let mtu = vec![LinkAttribute::Mtu(adjust.after.mtu)];
        [Request::set_link(adjust.host_index, mtu), alias(adjust.host_index, &adjust.alias)]
    });
    let answers = host.batch(requests.collect())?;
    for ((_, outcome), answers) in changed.iter_mut().zip(answers.chunks(2)) {
        let refused = answers.iter().find_map(|answer| answer.as_ref().err());
        *outcome = refused.map_or(Ok(()), |e| Err(format!("its host end cannot be changed: {e}")));
    }
    fail_point::pass("network.visit", "after");
    let adjusted = adjusted.into_iter().map(|(adjust, outcome)| (adjust.wire, outcome));
    Ok(nics
        .into_iter()
        .map(|(plug, outcome)| (plug.wire, outcome.map_err(Fault::why)))
        .chain(adjusted)
        .collect())
}

/// Keeps the host's own network stack off these host ends: it sees every frame there, and would answer ARP for, and take packets to, any
/// address of the host. With strict reverse path filtering and no route to the host end, nothing that comes in by it is taken.
pub fn silence(host: &mut Netlink, ends: &[(u32, &str)]) -> io::Result<()> {
    let mut ipv4 = InetDevConf::default();
    (ipv4.rp_filter, ipv4.arp_ignore) = (1, 8);
    let (mut four, mut six) = (Vec::new(), Vec::new());
    for (index, name) in ends {
        let inet = AfSpecUnspec::Inet(vec![AfSpecInet::DevConfRequest(ipv4)]);
        four.push(Request::set_link(*index, vec![LinkAttribute::AfSpecUnspec(vec![inet])]));
        let none = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
        six.push(Request::set_link(*index, vec![LinkAttribute::AfSpecUnspec(vec![none])]));
        // Netlink has no word for it. Without IPv6 in the kernel there is no file, and no need.
        let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1");
    }
    let refused = host.batch(four)?.into_iter().find_map(Result::err);
    if let Some(e) = refused {
        tracing::warn!("the host may answer ARP on host ends of wires: {e}");
    }
    let _ = host.batch(six)?;
    Ok(())
}

/// Gives a host end to the host's own network stack, as any other interface of its is.
pub fn unsilence(host: &mut Netlink, index: u32, name: &str) -> io::Result<()> {
    for key in ["ipv4/conf/*/rp_filter", "ipv4/conf/*/arp_ignore", "ipv6/conf/*/disable_ipv6"] {
        let path = |which| format!("/proc/sys/net/{}", key.replace('*', which));
        let usual = std::fs::read(path("default")).unwrap_or_else(|_| b"0".to_vec());
        let _ = std::fs::write(path(name), usual);
    }
    let usual = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::Eui64)]);
    host.batch(vec![Request::set_link(index, vec![LinkAttribute::AfSpecUnspec(vec![usual])])]).map(drop)
}

/// How NICs were made and changed in one namespace.
type Done = (Vec<Result<(), Fault>>, Vec<Result<(), String>>);

impl Visit {
    /// Enters the namespace, makes NICs and changes NICs.
    fn run(&self, host_namespace: RawFd) -> io::Result<Done> {
        let namespace = File::open(&self.path)?;
        if !is_namespace(&self.path) {
            return Err(io::Error::other("nothing is mounted on its file"));
        }
        setns(&namespace, CloneFlags::CLONE_NEWNET)?;
        let mut netlink = Netlink::open()?;
        let links = netlink.links()?;
        let mut taken: HashSet<u32> = links.iter().map(|link| link.index).collect();
        let mut requests = Vec::new();
        let mut counts = Vec::new();
        for plug in &self.plugs {
            let index = (2..).find(|index| taken.insert(*index)).unwrap_or_default();
            requests.push(veth(plug, index, host_namespace));
            requests.extend(
                plug.guest.setting.addresses.iter().map(|(ip, prefix)| add_address(index, *ip, *prefix)),
            );
            counts.push(1 + plug.guest.setting.addresses.len());
        }
        let mut answers = netlink.batch(requests)?.into_iter();
        let mut outcomes = Vec::new();
        for (plug, count) in self.plugs.iter().zip(counts) {
            let answers: Vec<Result<(), Refused>> = answers.by_ref().take(count).collect();
            let mut outcome = judge(plug, &answers);
            // It is on at birth.
            if outcome.is_ok() && !plug.offload {
                outcome = offload::set(&plug.guest.name, false).map_err(Fault::Broken);
            }
            outcomes.push(outcome);
        }
        let mut changed = Vec::new();
        if !self.adjusts.is_empty() {
            let mut renamed = Vec::new();
            for adjust in self.adjusts.iter().filter(|adjust| adjust.is_misnamed()) {
                renamed.push((adjust.wire, adjust.rename(&mut netlink)?));
            }
            let requests: Vec<Vec<Request>> = self.adjusts.iter().map(Adjust::requests).collect();
            let counts: Vec<usize> = requests.iter().map(Vec::len).collect();
            let mut answers = netlink.batch(requests.into_iter().flatten().collect())?.into_iter();
            let links = netlink.links()?;
            for (adjust, count) in self.adjusts.iter().zip(counts) {
                let answers: Vec<Result<(), Refused>> = answers.by_ref().take(count).collect();
                let settled = |e: &Refused| matches!(e.errno, libc::EEXIST | libc::EADDRNOTAVAIL);
                let refused = answers.into_iter().find_map(|a| a.err().filter(|e| !settled(e)));
                let named =
                    renamed.iter().find(|(wire, _)| *wire == adjust.wire).map(|(_, named)| named.clone());
                changed.push(named.unwrap_or(Ok(())).and_then(|()| adjust.judge(refused, &links)));
            }
        }
        Ok((outcomes, changed))
    }
}

impl Adjust {
    fn is_misnamed(&self) -> bool {
        self.called.as_ref().is_some_and(|called| *called != self.name)
    }

    /// Gives it its name back. An interface has to be down for that on kernels before 6.2.
    fn rename(&self, netlink: &mut Netlink) -> io::Result<Result<(), String>> {
        let there = netlink.read(&[(None, self.guest_index)])?.pop().flatten();
        if there.map(|link| link.name) != self.called {
            return Ok(Err("it is not in its node's own namespace under the name that was read".to_owned()));
        }
        let name = || Request::set_link(self.guest_index, vec![LinkAttribute::IfName(self.name.clone())]);
        let mut refused = netlink.batch(vec![name()])?.into_iter().find_map(Result::err);
        if refused.as_ref().is_some_and(|e| e.errno == libc::EBUSY) {
            let up = |up| Request::set_up(self.guest_index, up);
            refused = netlink.batch(vec![up(false), name(), up(true)])?.into_iter().find_map(Result::err);
        }
        Ok(match refused {
            None => Ok(()),
            Some(e) if e.errno == libc::EEXIST => {
                Err(format!("it cannot be named {} again, since another interface of the node is", self.name))
            }
            Some(e) => Err(format!("it cannot be named {} again: {e}", self.name)),
        })
    }

    /// What differs between the two settings, and nothing else. An address that is there already, or gone already, is as it is to be: each
    /// of these is told from a refusal by [`Adjust::judge`].
    fn requests(&self) -> Vec<Request> {
        let (before, after) = (&self.before, &self.after);
        let mut attributes = Vec::new();
        if before.mac != after.mac {
            attributes.push(LinkAttribute::Address(after.mac.to_vec()));
        }
        if before.mtu != after.mtu {
            attributes.push(LinkAttribute::Mtu(after.mtu));
        }
        let mut requests = Vec::new();
        if !attributes.is_empty() {
            requests.push(Request::set_link(self.guest_index, attributes));
        }
        let gone = before.addresses.iter().filter(|address| !after.addresses.contains(address));
        requests.extend(gone.map(|(ip, prefix)| {
            Request::change(RouteNetlinkMessage::DelAddress(address(self.guest_index, *ip, *prefix)))
        }));
        // Those of IPv6 may have gone with a renaming.
        let is_new = |address: &&(IpAddr, u8)| self.is_misnamed() || !before.addresses.contains(address);
        let new = after.addresses.iter().filter(is_new);
        requests.extend(new.map(|(ip, prefix)| add_address(self.guest_index, *ip, *prefix)));
        requests
    }

    /// How it went: what the kernel refused, and what it says the NIC is now.
    fn judge(&self, refused: Option<Refused>, links: &[Link]) -> Result<(), String> {
        if let Some(refused) = refused {
            return Err(format!("the NIC cannot be changed: {refused}"));
        }
        let link = links.iter().find(|link| link.index == self.guest_index);
        let link = link.ok_or_else(|| "the NIC is gone from its node".to_owned())?;
        if let Some(on) = self.offload {
            // By the name that it has in its node now.
            offload::set(&link.name, on)?;
        }
        let is_new = |changed: bool, is: bool| !changed || is;
        let mac = is_new(self.before.mac != self.after.mac, link.mac == self.after.mac);
        let mtu = is_new(self.before.mtu != self.after.mtu, link.mtu == self.after.mtu);
        if mac && mtu {
            Ok(())
        } else {
            Err("the NIC was changed, and is not as it was changed to".to_owned())
        }
    }
}

/// What the answers to the making of a NIC and to the setting of its addresses come to.
fn judge(plug: &Plug, answers: &[Result<(), Refused>]) -> Result<(), Fault> {
    let name = &plug.guest.name;
    let (made, addresses) = match answers.split_first() {
        Some((made, addresses)) => (made, addresses),
        None => return Err(Fault::Absent("the kernel did not answer".to_owned())),
    };
    match made {
        Err(e) if e.errno == libc::EEXIST => {
            return Err(Fault::Absent(format!(
                "{name} or its host end {} cannot be made: an interface of that name exists already",
                plug.host_name
            )));
        }
        Err(e) => {
            let why = format!("{name} cannot be made with a host end called {}: {e}", plug.host_name);
            return Err(Fault::Absent(why));
        }
        Ok(()) => {}
    }
    let refused = addresses.iter().zip(&plug.guest.setting.addresses).find_map(|(answer, (ip, prefix))| {
        answer.as_ref().err().map(|e| format!("address {ip}/{prefix} of {name} cannot be set: {e}"))
    });
    refused.map_or(Ok(()), |why| Err(Fault::Broken(why)))
}

/// The node's end is the one that is made here and set up; the host's end is its peer, which the kernel refuses to set up at birth.
fn veth(plug: &Plug, index: u32, host_namespace: RawFd) -> Request {
    let mut peer = LinkMessage::default();
    peer.header.index = plug.host_index;
    peer.attributes = vec![
        LinkAttribute::IfName(plug.host_name.clone()),
        LinkAttribute::NetNsFd(host_namespace),
        LinkAttribute::Mtu(plug.guest.setting.mtu),
        LinkAttribute::Group(plug.group),
    ];
    let mut message = LinkMessage::default();
    // The kernel heeds the peer's number only when this end has one too.
    message.header.index = index;
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    message.attributes = vec![
        LinkAttribute::IfName(plug.guest.name.clone()),
        LinkAttribute::Address(plug.guest.setting.mac.to_vec()),
        LinkAttribute::Mtu(plug.guest.setting.mtu),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]),
    ];
    Request::create(RouteNetlinkMessage::NewLink(message))
}

fn add_address(index: u32, ip: IpAddr, prefix: u8) -> Request {
    Request::create(RouteNetlinkMessage::NewAddress(address(index, ip, prefix)))
}

fn address(index: u32, ip: IpAddr, prefix: u8) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = index;
    message.header.prefix_len = prefix;
    message.header.family = match ip {
        IpAddr::V4(_) => netlink_packet_route::AddressFamily::Inet,
        IpAddr::V6(_) => netlink_packet_route::AddressFamily::Inet6,
    };
    message.attributes = vec![AddressAttribute::Local(ip), AddressAttribute::Address(ip)];
    if let IpAddr::V4(v4) = ip
        && prefix < 31
    {
        let host_bits = u32::MAX.checked_shr(prefix.into()).unwrap_or_default();
        message.attributes.push(AddressAttribute::Broadcast((u32::from(v4) | host_bits).into()));
    }
    message
}

/// Deletes host ends, and with each its NIC. Several go as one group, in one step: the one that they are if they are all of one, or else one for those that go.
pub fn unplug(
    netlink: &mut Netlink,
    indexes: &[u32],
    group: Option<u32>,
    condemned_group: u32,
) -> io::Result<()> {
    let gone = |outcome: &Result<(), Refused>| match outcome {
        Err(e) => e.errno == libc::ENODEV,
        Ok(()) => true,
    };
    let delete = match (indexes, group) {
        ([], _) => return Ok(()),
        ([one], _) => vec![Request::delete_link(*one)],
        (_, Some(group)) => vec![Request::delete_group(group)],
        // The kernel tells everybody of each that is put into another group.
        (many, None) => {
            let condemn = many
                .iter()
                .map(|index| Request::set_link(*index, vec![LinkAttribute::Group(condemned_group)]));
            // Those that are gone by now need no deleting.
            netlink.batch(condemn.collect())?;
            fail_point::pass("network.unplug", "condemned");
            vec![Request::delete_group(condemned_group)]
        }
    };
    match netlink.batch(delete)?.into_iter().find(|outcome| !gone(outcome)) {
        Some(Err(e)) => Err(io::Error::other(e.to_string())),
        _ => Ok(()),
    }
}
