//! Wires by hand: each veth made in its final place, and everything else in as few messages as there can be.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::os::fd::AsRawFd as _;

use anyhow::{Context as _, anyhow};
use nix::libc;
use nix::sched::{CloneFlags, setns};
use serde::Deserialize;

use crate::netlink::{
    Body, CREATE, DELETE_LINK, NESTED, NEW_FILTER, NEW_LINK, NEW_QDISC, Netlink, Request, SET_LINK,
};
use crate::ovs::Ovs;

/// What carries wires.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Plane {
    /// Two flows.
    Ovs,
    /// Two redirects.
    Kernel,
}

const UP: u32 = libc::IFF_UP as u32;
const LOWER_UP: u32 = libc::IFF_LOWER_UP as u32;
const GROUP: u32 = 0x666c_6f6f;

/// One end of a link.
#[derive(Debug, Clone)]
struct End {
    node: String,
    interface: String,
    host_name: String,
    host_index: u32,
    mac: [u8; 6],
}

/// A link.
#[derive(Debug, Clone)]
pub struct Link {
    ends: [End; 2],
    wire: u64,
}

impl Link {
    /// Between two interfaces.
    pub fn new(ends: [(&String, &String); 2]) -> Link {
        let end = |(node, interface): (&String, &String)| {
            let id = uuid::Uuid::new_v4();
            let b = id.as_bytes();
            End {
                node: node.clone(),
                interface: interface.clone(),
                host_name: format!("fl{}", &id.simple().to_string()[..13]),
                host_index: 1_500_000_000 + id.as_fields().0 % 500_000_000,
                mac: [0x02, b[0], b[1], b[2], b[3], b[4]],
            }
        };
        Link { ends: ends.map(end), wire: uuid::Uuid::new_v4().as_u64_pair().1 >> 1 }
    }
}

/// All wires of the lab.
pub struct Wires {
    links: Vec<Link>,
    mtu: u32,
    ovs: Option<Ovs>,
}

impl Wires {
    pub fn new(links: Vec<Link>, mtu: u32, ovs: Option<Ovs>) -> Wires {
        Wires { links, mtu, ovs }
    }

    fn ends(&self) -> impl Iterator<Item = &End> {
        self.links.iter().flat_map(|link| &link.ends)
    }

    /// Makes all, into the namespaces of these processes.
    pub async fn make(&self, pids: HashMap<String, i32>) -> anyhow::Result<()> {
        let (links, mtu, checksums) = (self.links.clone(), self.mtu, self.ovs.is_some());
        off_the_runtime(move || plug(&links, mtu, checksums, &pids)).await?;
        if let Some(ovs) = &self.ovs {
            let port = |link: &Link, end: &End| (end.host_name.clone(), link.wire, end.host_index, self.mtu);
            let ports: Vec<_> =
                self.links.iter().flat_map(|link| link.ends.iter().map(move |end| port(link, end))).collect();
            let numbers = ovs.add(&ports).await?;
            let number = |end: &End| numbers.get(&end.host_name).copied().unwrap_or_default();
            let wires: Vec<_> =
                self.links.iter().map(|l| (l.wire, number(&l.ends[0]), number(&l.ends[1]))).collect();
            ovs.join(&wires).await?;
        }
        let (links, redirect) = (self.links.clone(), self.ovs.is_none());
        off_the_runtime(move || raise(&links, redirect)).await
    }

    /// Removes all.
    pub async fn remove(&self) -> anyhow::Result<()> {
        if let Some(ovs) = &self.ovs {
            ovs.part(&self.links.iter().map(|l| l.wire).collect::<Vec<_>>()).await?;
        }
        // Ports whose interfaces are gone are deleted much quicker.
        off_the_runtime(|| {
            let group = Body::link(0, 0, 0).number(27, GROUP);
            Netlink::open()?.batch(&[(DELETE_LINK, 0, group)]).context("deleting the group")
        })
        .await?;
        let names: Vec<String> = self.ends().map(|end| end.host_name.clone()).collect();
        match &self.ovs {
            Some(ovs) => ovs.delete(&names).await,
            None => Ok(()),
        }
    }
}

/// On a thread of its own, which may go into namespaces and ends.
async fn off_the_runtime(work: impl FnOnce() -> anyhow::Result<()> + Send + 'static) -> anyhow::Result<()> {
    let (tell, told) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || tell.send(work()));
    told.await?
}

/// Makes each node's interfaces in one visit, and marks their host ends.
fn plug(links: &[Link], mtu: u32, checksums: bool, pids: &HashMap<String, i32>) -> anyhow::Result<()> {
    let here = File::open("/proc/thread-self/ns/net")?;
    let mut host = Netlink::open()?;
    let mut of_nodes = BTreeMap::<&str, Vec<&End>>::new();
    for end in links.iter().flat_map(|link| &link.ends) {
        of_nodes.entry(&end.node).or_default().push(end);
    }
    for (node, ends) in of_nodes {
        let pid = pids.get(node).ok_or_else(|| anyhow!("{node} does not run"))?;
        setns(File::open(format!("/proc/{pid}/ns/net"))?, CloneFlags::CLONE_NEWNET)?;
        let requests: Vec<Request> =
            (2..).zip(&ends).map(|(index, end)| veth(end, index, mtu, here.as_raw_fd())).collect();
        Netlink::open()?.batch(&requests).with_context(|| format!("the interfaces of {node}"))?;
        if checksums {
            ends.iter().try_for_each(|end| fill_in_checksums(&end.interface))?;
        }
    }
    setns(&here, CloneFlags::CLONE_NEWNET)?;
    let mut marks = Vec::new();
    for end in links.iter().flat_map(|link| &link.ends) {
        let alias = Body::link(end.host_index, 0, 0).text(20, &format!("floor:{}", end.host_name));
        marks.push((SET_LINK, 0, alias));
        // Strict reverse path filtering, no answer to ARP, no IPv6 address: the host's own stack keeps out, as with netloom.
        let inet = Body::default().with(2, &Body::default().with(1, &conf()).0);
        marks.push((SET_LINK, 0, Body::link(end.host_index, 0, 0).with(26, &inet.0)));
        let inet6 = Body::default().with(10, &Body::default().with(8, &[1]).0);
        marks.push((SET_LINK, 0, Body::link(end.host_index, 0, 0).with(26, &inet6.0)));
        let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{}/disable_ipv6", end.host_name), "1");
    }
    host.batch(&marks).context("the marks")
}

fn conf() -> Vec<u8> {
    const RP_FILTER: u16 = 8;
    const ARP_IGNORE: u16 = 19;
    Body::default().number(RP_FILTER, 1).number(ARP_IGNORE, 8).0
}

/// The node's end, up, and its other end on the host, which the kernel does not set up at birth.
fn veth(end: &End, index: u32, mtu: u32, host: i32) -> Request {
    let peer = Body::link(end.host_index, 0, 0)
        .text(3, &end.host_name)
        .number(28, host.cast_unsigned())
        .number(4, mtu)
        .number(27, GROUP);
    let info = Body::default().text(1, "veth").with(2 | NESTED, &Body::default().with(1, &peer.0).0);
    let body = Body::link(index, UP, UP)
        .text(3, &end.interface)
        .with(1, &end.mac)
        .number(4, mtu)
        .with(18 | NESTED, &info.0);
    (NEW_LINK, CREATE, body)
}

/// Sets all host ends up, joined where no flow does it, and sees that all have carrier.
fn raise(links: &[Link], redirect: bool) -> anyhow::Result<()> {
    let mut netlink = Netlink::open()?;
    let mut requests = Vec::new();
    for link in links {
        let [a, b] = [&link.ends[0], &link.ends[1]].map(|end| end.host_index);
        if redirect {
            for (from, to) in [(a, b), (b, a)] {
                requests.push((
                    NEW_QDISC,
                    CREATE,
                    Body::tc(from, 0xffff_0000, 0xffff_fff1, 0).text(1, "ingress"),
                ));
                requests.push((NEW_FILTER, CREATE, redirection(from, to)));
            }
        }
        requests.extend([a, b].map(|index| (SET_LINK, 0, Body::link(index, UP, UP))));
    }
    netlink.batch(&requests).context("raising host ends")?;
    let ours: std::collections::HashSet<u32> =
        links.iter().flat_map(|link| &link.ends).map(|end| end.host_index).collect();
    loop {
        let up = netlink
            .links()?
            .into_iter()
            .filter(|(index, flags, _)| ours.contains(index) && flags & LOWER_UP > 0);
        if up.count() == ours.len() {
            return Ok(());
        }
        std::thread::sleep(std::time::Duration::from_micros(500));
    }
}

/// Every frame that comes in by one is sent out by the other.
fn redirection(from: u32, to: u32) -> Body {
    // `struct tc_mirred`: index, capabilities, stolen, two counts, redirect on egress, where to.
    let words = [0, 0, 4, 0, 0, 1, to].into_iter().flat_map(u32::to_ne_bytes).collect::<Vec<u8>>();
    let action = Body::default().text(1, "mirred").with(2 | NESTED, &Body::default().with(2, &words).0);
    let mut selector = [0; 16];
    selector[0] = 1;
    let options =
        Body::default().with(5, &selector).with(7 | NESTED, &Body::default().with(1 | NESTED, &action.0).0);
    let all = 1 << 16 | u32::from(3u16.to_be());
    Body::tc(from, 0, 0xffff_0000, all).text(1, "u32").with(2 | NESTED, &options.0)
}

/// Turns TX checksum offload off: the userspace datapath does not fill them in.
fn fill_in_checksums(interface: &str) -> anyhow::Result<()> {
    const SIOCETHTOOL: libc::Ioctl = 0x8946;
    #[repr(C)]
    struct Value {
        command: u32,
        data: u32,
    }
    let mut value = Value { command: 0x17, data: 0 };
    // SAFETY: all zero bytes are a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes().take(15)) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    let socket = std::net::UdpSocket::bind(("0.0.0.0", 0))?;
    // SAFETY: the request and the value it points to live through the call, and are what this command reads.
    let answer = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    anyhow::ensure!(answer >= 0, "{interface}: {}", std::io::Error::last_os_error());
    Ok(())
}
