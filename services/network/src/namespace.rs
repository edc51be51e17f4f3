//! Visits to nodes' network namespaces: all NICs of a namespace are made in one visit.
//!
//! A visit happens on a thread of its own, which enters namespace after namespace and ends: no thread of the runtime ever leaves the host's
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
use netloom_model::failure::Violation;
use netloom_model::id::WireId;
use netloom_model::slice::Nic;
use nix::libc;
use nix::sched::{CloneFlags, setns};

use crate::netlink::{Netlink, Refused, Request};
use crate::netns::is_namespace;

/// What a node sees of a NIC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guest {
    /// Its name in the node.
    pub name: String,
    mac: [u8; 6],
    mtu: u32,
    addresses: Vec<(IpAddr, u8)>,
}

impl Guest {
    /// Reads what a NIC asks for; `field` is where it stands in the request.
    pub fn parse(nic: &Nic, field: &str) -> Result<Guest, Vec<Violation>> {
        let mut wrong = Vec::new();
        let mut refuse = |key: &str, description: String| {
            wrong.push(Violation { field: format!("{field}.{key}"), description });
        };
        let name = &nic.guest_name;
        let fits = (1..16).contains(&name.len()) && name != "." && name != ".." && name != "lo";
        if !fits || name.bytes().any(|b| b == b'/' || b == b':' || !b.is_ascii_graphic()) {
            refuse(
                "guest_name",
                format!("\"{name}\" cannot name an interface: use 1 to 15 printable characters"),
            );
        }
        let mac = mac(&nic.mac).filter(|mac| mac[0] & 1 == 0 && *mac != [0; 6]);
        if mac.is_none() {
            refuse("mac", format!("\"{}\" is not a unicast MAC address", nic.mac));
        }
        if !(68..=65_535).contains(&nic.mtu) {
            refuse("mtu", format!("{} is not from 68 to 65535", nic.mtu));
        }
        let mut addresses = Vec::new();
        for text in &nic.addresses {
            match address(text) {
                Some(address) => addresses.push(address),
                None => refuse("addresses", format!("\"{text}\" is not an address with its prefix length")),
            }
        }
        match mac {
            Some(mac) if wrong.is_empty() => Ok(Guest { name: name.clone(), mac, mtu: nic.mtu, addresses }),
            _ => Err(wrong),
        }
    }
}

fn mac(text: &str) -> Option<[u8; 6]> {
    let digits = |b: &str| b.len() == 2 && b.bytes().all(|d| d.is_ascii_hexdigit());
    let mut bytes = text.split(':').map(|b| u8::from_str_radix(b, 16).ok().filter(|_| digits(b)));
    let mut mac = [0; 6];
    for byte in &mut mac {
        *byte = bytes.next()??;
    }
    bytes.next().is_none().then_some(mac)
}

fn address(text: &str) -> Option<(IpAddr, u8)> {
    let (ip, prefix) = text.split_once('/')?;
    let (ip, prefix): (IpAddr, u8) = (ip.parse().ok()?, prefix.parse().ok()?);
    (prefix <= if ip.is_ipv4() { 32 } else { 128 }).then_some((ip, prefix))
}

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
}

/// NICs to be made in one namespace.
#[derive(Debug, Clone)]
pub struct Visit {
    /// The namespace.
    pub path: PathBuf,
    /// The NICs.
    pub plugs: Vec<Plug>,
    /// Frames come from the node with checksums filled in. The userspace datapath does not do it on the way: without this no TCP connects.
    pub checksums: bool,
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

/// Makes all these NICs. Blocks on a thread of its own.
pub async fn plug(visits: Vec<Visit>) -> Outcomes {
    let wires: Vec<WireId> = visits.iter().flat_map(|v| &v.plugs).map(|p| p.wire).collect();
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
    let mut nics: Vec<(&Plug, Result<(), Fault>)> = Vec::new();
    for visit in visits {
        match visit.run(host_namespace.as_raw_fd()) {
            Ok(outcomes) => nics.extend(visit.plugs.iter().zip(outcomes)),
            Err(e) => {
                let fault = || Fault::Absent(format!("the node's network namespace cannot be entered: {e}"));
                nics.extend(visit.plugs.iter().map(|plug| (plug, Err(fault()))));
            }
        }
    }
    setns(&host_namespace, CloneFlags::CLONE_NEWNET)?;
    let mut made: Vec<_> = nics.iter_mut().filter(|(_, outcome)| outcome.is_ok()).collect();
    let alias =
        |plug: &Plug| Request::set_link(plug.host_index, vec![LinkAttribute::IfAlias(plug.alias.clone())]);
    let answers = host.batch(made.iter().map(|(plug, _)| alias(plug)).collect())?;
    for ((_, outcome), answer) in made.iter_mut().zip(answers) {
        *outcome = answer.map_err(|e| Fault::Broken(format!("its host end cannot be marked as ours: {e}")));
    }
    silence(&mut host, made.iter().map(|(plug, _)| *plug))?;
    let broken = nics.iter().filter(|(_, outcome)| matches!(outcome, Err(Fault::Broken(_))));
    host.batch(broken.map(|(plug, _)| Request::delete_link(plug.host_index)).collect())?;
    Ok(nics.into_iter().map(|(plug, outcome)| (plug.wire, outcome.map_err(Fault::why))).collect())
}

/// Keeps the host's own network stack off these host ends: it sees every frame there, and would answer ARP for, and take packets to, any
/// address of the host. With strict reverse path filtering and no route to the host end, nothing that comes in by it is taken.
fn silence<'a>(host: &mut Netlink, plugs: impl Iterator<Item = &'a Plug>) -> io::Result<()> {
    let mut ipv4 = InetDevConf::default();
    (ipv4.rp_filter, ipv4.arp_ignore) = (1, 8);
    let (mut four, mut six) = (Vec::new(), Vec::new());
    for plug in plugs {
        let inet = AfSpecUnspec::Inet(vec![AfSpecInet::DevConfRequest(ipv4)]);
        four.push(Request::set_link(plug.host_index, vec![LinkAttribute::AfSpecUnspec(vec![inet])]));
        let none = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
        six.push(Request::set_link(plug.host_index, vec![LinkAttribute::AfSpecUnspec(vec![none])]));
        // Netlink has no word for it. Without IPv6 in the kernel there is no file, and no need.
        let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{}/disable_ipv6", plug.host_name), "1");
    }
    let refused = host.batch(four)?.into_iter().find_map(Result::err);
    if let Some(e) = refused {
        tracing::warn!("the host may answer ARP on host ends of wires: {e}");
    }
    let _ = host.batch(six)?;
    Ok(())
}

impl Visit {
    /// Enters the namespace and makes the NICs.
    fn run(&self, host_namespace: RawFd) -> io::Result<Vec<Result<(), Fault>>> {
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
            requests.extend(plug.guest.addresses.iter().map(|(ip, prefix)| add_address(index, *ip, *prefix)));
            counts.push(1 + plug.guest.addresses.len());
        }
        let mut answers = netlink.batch(requests)?.into_iter();
        let mut outcomes = Vec::new();
        for (plug, count) in self.plugs.iter().zip(counts) {
            let answers: Vec<Result<(), Refused>> = answers.by_ref().take(count).collect();
            let mut outcome = judge(plug, &answers);
            if outcome.is_ok() && self.checksums {
                outcome = fill_in_checksums(&plug.guest.name)
                    .map_err(|e| Fault::Broken(format!("its TX offload cannot be turned off: {e}")));
            }
            outcomes.push(outcome);
        }
        Ok(outcomes)
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
        Err(e) => return Err(Fault::Absent(format!("{name} cannot be made: {e}"))),
        Ok(()) => {}
    }
    let refused = addresses.iter().zip(&plug.guest.addresses).find_map(|(answer, (ip, prefix))| {
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
        LinkAttribute::Mtu(plug.guest.mtu),
        LinkAttribute::Group(plug.group),
    ];
    let mut message = LinkMessage::default();
    // The kernel heeds the peer's number only when this end has one too.
    message.header.index = index;
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    message.attributes = vec![
        LinkAttribute::IfName(plug.guest.name.clone()),
        LinkAttribute::Address(plug.guest.mac.to_vec()),
        LinkAttribute::Mtu(plug.guest.mtu),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]),
    ];
    Request::create(RouteNetlinkMessage::NewLink(message))
}

fn add_address(index: u32, ip: IpAddr, prefix: u8) -> Request {
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
    Request::create(RouteNetlinkMessage::NewAddress(message))
}

/// Turns TX checksum offload off, in the calling thread's namespace. Segmentation offload, which needs it, goes with it.
fn fill_in_checksums(interface: &str) -> io::Result<()> {
    const SIOCETHTOOL: libc::Ioctl = 0x8946;
    const ETHTOOL_STXCSUM: u32 = 0x17;
    #[repr(C)]
    struct EthtoolValue {
        command: u32,
        data: u32,
    }
    let mut value = EthtoolValue { command: ETHTOOL_STXCSUM, data: 0 };
    // SAFETY: all zero bytes are a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes().take(15)) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    let socket = std::net::UdpSocket::bind(("0.0.0.0", 0))?;
    // SAFETY: the request and the value it points to live through the call, and are what this command reads.
    let answer = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Deletes host ends, and with each its NIC. Several go as one group, in one step.
pub fn unplug(netlink: &mut Netlink, indexes: &[u32], condemned_group: u32) -> io::Result<()> {
    let gone = |outcome: &Result<(), Refused>| match outcome {
        Err(e) => e.errno == libc::ENODEV,
        Ok(()) => true,
    };
    let delete = match indexes {
        [] => return Ok(()),
        [one] => vec![Request::delete_link(*one)],
        many => {
            let condemn = many
                .iter()
                .map(|index| Request::set_link(*index, vec![LinkAttribute::Group(condemned_group)]));
            // Those that are gone by now need no deleting.
            netlink.batch(condemn.collect())?;
            vec![Request::delete_group(condemned_group)]
        }
    };
    match netlink.batch(delete)?.into_iter().find(|outcome| !gone(outcome)) {
        Some(Err(e)) => Err(io::Error::other(e.to_string())),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use netloom_model::id::{LabUid, NodeUid};

    use super::*;

    fn nic() -> Nic {
        Nic {
            wire_id: 1.try_into().unwrap(),
            node_uid: NodeUid::new(),
            guest_name: "eth1".into(),
            mac: "02:00:00:0a:0B:01".into(),
            mtu: 9500,
            addresses: vec!["10.0.0.1/24".into(), "2001:db8::1/64".into()],
            lab_uid: LabUid::new(),
        }
    }

    #[test]
    fn a_nic_is_read() {
        let guest = Guest::parse(&nic(), "n").unwrap();
        assert_eq!(guest.mac, [2, 0, 0, 10, 11, 1]);
        assert_eq!(guest.addresses[0], ("10.0.0.1".parse().unwrap(), 24));
        assert_eq!(guest.addresses[1].1, 64);
    }

    #[test]
    fn every_wrong_field_is_named() {
        let bad = Nic {
            guest_name: "a/b".into(),
            mac: "01:00:00:00:00:00".into(),
            mtu: 12,
            addresses: vec!["10.0.0.1".into(), "10.0.0.1/33".into(), "x/8".into()],
            ..nic()
        };
        let fields: Vec<String> =
            Guest::parse(&bad, "nics[3]").unwrap_err().into_iter().map(|v| v.field).collect();
        let expected = ["guest_name", "mac", "mtu", "addresses", "addresses", "addresses"];
        assert_eq!(fields, expected.map(|f| format!("nics[3].{f}")));
        for name in ["", "lo", "..", "sixteen-letters-", "a b", "a:1"] {
            assert!(Guest::parse(&Nic { guest_name: name.into(), ..nic() }, "n").is_err(), "{name}");
        }
        for mac in ["", "02:00:00:00:00", "02:00:00:00:00:00:00", "2:0:0:0:0:1", "+2:00:00:00:00:01"] {
            assert!(Guest::parse(&Nic { mac: mac.into(), ..nic() }, "n").is_err(), "{mac}");
        }
    }
}
