//! Interfaces of the host that segments have, or may have, for uplinks: whether the host itself uses them, and how they are set.
//!
//! Such an interface is the host's and goes back as it was. How it was is said by its mark, an alternative name ([`crate::names::Names::uplink_mark`]): it is
//! there for as long as the interface is, whatever becomes of this service and of Open vSwitch's database. Meanwhile the host's own network stack takes nothing from it:
//! in userspace Open vSwitch only listens, and the kernel would answer ARP, take packets to the host and give itself addresses by what a router out there says.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::{Duration, Instant};

use nix::ifaddrs::getifaddrs;

use crate::links::Links;
use crate::netlink::{Link, Netlink, Request};
use crate::offload;

/// How often it is looked though nothing was heard.
const LOOK: Duration = Duration::from_secs(1);
/// What the host's own stack is kept off an interface by, as host ends are ([`crate::namespace::silence`]).
const RP_FILTER: u8 = 1;
const ARP_IGNORE: u8 = 8;

/// What of an interface is otherwise while it is an uplink.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Manner {
    /// Set up (`IFF_UP`).
    pub up: bool,
    /// Its sysctl of this name.
    pub rp_filter: u8,
    /// Its sysctl of this name.
    pub arp_ignore: u8,
    /// True when it has no IPv6.
    pub ipv6_off: bool,
    /// Whether frames that come in are put together to larger ones, which Open vSwitch in userspace would cut off; none where that cannot be told.
    pub merges: Option<bool>,
}

impl Manner {
    fn read(link: &Link) -> Manner {
        let read = |key: &str| fs::read_to_string(path(&link.name, key)).ok()?.trim().parse::<u8>().ok();
        Manner {
            up: link.up,
            rp_filter: read("ipv4 rp_filter").unwrap_or_default(),
            arp_ignore: read("ipv4 arp_ignore").unwrap_or_default(),
            ipv6_off: read("ipv6 disable_ipv6").is_none_or(|off| off != 0),
            merges: offload::merges(&link.name),
        }
    }

    /// As it is to be while it is an uplink.
    pub fn taken(self, userspace: bool) -> Manner {
        let merges = if userspace { self.merges.map(|_| false) } else { self.merges };
        Manner { up: true, rp_filter: RP_FILTER, arp_ignore: ARP_IGNORE, ipv6_off: true, merges }
    }

    /// Sets an interface so. It is up only while all else is as it is to be then.
    pub fn set(self, netlink: &mut Netlink, index: u32, name: &str, now: Manner) -> io::Result<()> {
        let up = |netlink: &mut Netlink| {
            let refused =
                netlink.batch(vec![Request::set_up(index, self.up)])?.into_iter().find_map(Result::err);
            refused.map_or(Ok(()), |refused| Err(io::Error::from_raw_os_error(refused.errno)))
        };
        if !self.up {
            up(netlink)?;
        }
        for (key, is, wanted) in [
            ("ipv4 rp_filter", now.rp_filter, self.rp_filter),
            ("ipv4 arp_ignore", now.arp_ignore, self.arp_ignore),
            ("ipv6 disable_ipv6", now.ipv6_off.into(), self.ipv6_off.into()),
        ] {
            if is != wanted {
                fs::write(path(name, key), wanted.to_string())?;
            }
        }
        if let Some(merges) = self.merges.filter(|_| self.merges != now.merges) {
            offload::set_merges(name, merges)?;
        }
        if self.up { up(netlink) } else { Ok(()) }
    }
}

fn path(interface: &str, key: &str) -> String {
    let (family, key) = key.split_once(' ').unwrap_or_default();
    format!("/proc/sys/net/{family}/conf/{interface}/{key}")
}

impl fmt::Display for Manner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [up, off] = [self.up, self.ipv6_off].map(u8::from);
        let merges = self.merges.map_or(2, u8::from);
        write!(f, "{up}-{}-{}-{off}-{merges}", self.rp_filter, self.arp_ignore)
    }
}

impl FromStr for Manner {
    type Err = ();
    fn from_str(text: &str) -> Result<Manner, ()> {
        let numbers: Vec<u8> = text.split('-').map(str::parse).collect::<Result<_, _>>().map_err(drop)?;
        let [up, rp_filter, arp_ignore, off, merges] = numbers[..] else { return Err(()) };
        let merges = (merges < 2).then_some(merges == 1);
        Ok(Manner { up: up == 1, rp_filter, arp_ignore, ipv6_off: off == 1, merges })
    }
}

/// What was seen of an interface.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seen {
    /// What the host has on it, in words that follow "interface NAME "; none when nothing.
    pub used: Option<String>,
    /// How it is set.
    pub manner: Manner,
}

/// What was seen, by name.
pub type Uplinks = BTreeMap<String, Seen>;

/// Looks now and then.
#[derive(Default)]
pub struct Look {
    seen: Uplinks,
    /// What links told of them.
    told: Vec<Link>,
    at: Option<Instant>,
}

impl Look {
    /// What is to be seen of the interfaces that may be uplinks, and of those that are.
    pub fn now(&mut self, allowed: impl Fn(&str) -> bool, links: &Links) -> &Uplinks {
        let is_one = |link: &&Link| !link.uplink.is_empty() || allowed(&link.name) && !link.is_bridge;
        let mut told: Vec<Link> = links.values().filter(is_one).cloned().collect();
        told.sort_by_key(|link| link.index);
        if told != self.told || self.at.is_none_or(|at| at.elapsed() >= LOOK) {
            self.at = Some(Instant::now());
            let used = if told.is_empty() { BTreeMap::new() } else { used() };
            let seen = |link: &Link| {
                let used = used.get(&link.name).cloned();
                (link.name.clone(), Seen { used, manner: Manner::read(link) })
            };
            self.seen = told.iter().map(seen).collect();
            self.told = told;
        }
        &self.seen
    }

    /// Has it looked anew: what was seen was changed.
    pub fn again(&mut self) {
        self.at = None;
    }
}

/// What the host has on its interfaces: addresses, those aside that each gives itself, and routes.
fn used() -> BTreeMap<String, String> {
    let mut used = BTreeMap::new();
    let routes =
        ["route", "ipv6_route"].map(|table| fs::read_to_string(format!("/proc/thread-self/net/{table}")));
    let [four, six] = routes.map(Result::unwrap_or_default);
    let four = four.lines().skip(1).filter_map(|line| line.split_whitespace().next());
    // Not those that an interface has by itself: to addresses of the link, and to groups.
    let is_own = |line: &&str| line.starts_with("fe80") || line.starts_with("ff");
    let six = six.lines().filter(|line| !is_own(line)).filter_map(|line| line.split_whitespace().last());
    for name in four.chain(six) {
        used.insert(name.to_owned(), "has routes of the host".to_owned());
    }
    let addresses = getifaddrs().into_iter().flatten().filter_map(|one| {
        let of = one.address.as_ref()?;
        let four = of.as_sockaddr_in().map(|a| IpAddr::from(a.ip()));
        let six = of.as_sockaddr_in6().map(|a| a.ip()).filter(|a| !a.is_unicast_link_local());
        Some((one.interface_name, four.or(six.map(IpAddr::from))?))
    });
    for (name, address) in addresses {
        used.insert(name, format!("has the address {address} of the host"));
    }
    used
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manner_is_read_back() {
        for merges in [None, Some(false), Some(true)] {
            let manner = Manner { up: true, rp_filter: 2, arp_ignore: 8, ipv6_off: false, merges };
            assert_eq!(manner.to_string().parse(), Ok(manner));
            let taken = manner.taken(true);
            assert_eq!(taken.taken(true), taken);
            assert_eq!(manner.taken(false).merges, merges);
        }
        for wrong in ["", "1-0-0-0", "1-0-0-0-x", "1-0-0-0-0-0"] {
            assert_eq!(wrong.parse::<Manner>(), Err(()), "{wrong}");
        }
    }

    #[test]
    fn an_interface_is_set_and_put_back() {
        if !netloom_service::testing::require("an_interface_is_set_and_put_back", "root") {
            return;
        }
        std::thread::scope(|scope| {
            scope.spawn(|| {
                nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
                let mut netlink = Netlink::open().unwrap();
                crate::probe::make_pair(&mut netlink, [(10, "u0"), (11, "u1")]).unwrap();
                offload::set_merges("u0", true).unwrap();
                let mut read = || {
                    let link = netlink.links().unwrap().into_iter().find(|link| link.name == "u0").unwrap();
                    (link.index, Manner::read(&link))
                };
                let (index, before) = read();
                assert_eq!((before.up, before.merges), (false, Some(true)));
                let taken = before.taken(true);
                assert_ne!(taken, before);
                taken.set(&mut Netlink::open().unwrap(), index, "u0", before).unwrap();
                assert_eq!(read().1, taken);
                before.set(&mut Netlink::open().unwrap(), index, "u0", taken).unwrap();
                assert_eq!(read().1, before);
            });
        });
    }

    #[test]
    fn addresses_of_the_host_are_seen() {
        let link = Link { index: 1, name: "lo".into(), ..Link::default() };
        let links: Links = [("lo".to_owned(), link)].into();
        let mut look = Look::default();
        let used = look.now(|name| name == "lo", &links)["lo"].used.clone().unwrap();
        assert!(used.contains("127.0.0.1") || used.contains("::1"), "{used}");
        assert!(look.now(|_| false, &links).is_empty());
    }
}
