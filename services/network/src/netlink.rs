//! Route netlink, synchronous: many requests in one send, every answer collected.
//!
//! A socket belongs to the network namespace its thread was in when it was opened, wherever the thread goes after. Requests are answered in
//! order and one that is refused does not stop the others, so a batch says for each request how it went.

mod vxlan;

use std::fmt;
use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR,
    NLMSG_OVERRUN, NetlinkBuffer, NetlinkHeader, NetlinkMessage, NetlinkPayload, NlasIterator,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkExtentMask, LinkFlags, LinkHeader, LinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols};
use nix::libc;

use crate::qdisc::Shape;
use crate::redirect::Redirect;

pub use self::vxlan::Vxlan;

/// Requests in one send: their answers have to fit the receive buffer.
const CHUNK: usize = 64;
/// As [`CHUNK`], of requests that each get a message told.
const ASK_CHUNK: usize = 16;
/// Bytes of a `struct ifinfomsg`.
const LINK_HEADER: usize = 16;
/// `RTEXT_FILTER_SKIP_STATS`.
const SKIP_STATISTICS: u32 = 1 << 3;
/// Flag of an answer that carries words of the kernel.
const NLM_F_ACK_TLVS: u16 = 0x200;
/// Attribute of an answer that holds them.
const NLMSGERR_ATTR_MSG: u16 = 1;
/// `RTM_NEWLINK` and `RTM_DELLINK`.
pub const NEW_LINK: u16 = 16;
/// See [`NEW_LINK`].
pub const DELETE_LINK: u16 = 17;

/// `RTM_GETLINK`.
const GET_LINK: u16 = 18;
/// `RTM_NEWLINKPROP` and `RTM_DELLINKPROP`.
const NEW_PROPERTY: u16 = 108;
const DELETE_PROPERTY: u16 = 109;
/// `IFLA_PROP_LIST` and `IFLA_ALT_IFNAME`.
const PROPERTIES: u16 = 52;
const ALTERNATIVE_NAME: u16 = 53;
/// `NLA_F_NESTED`.
const NESTED: u16 = 1 << 15;
/// How alternative names of uplinks begin, whosever they are.
pub const UPLINK: &str = "netloom.";

/// The other end of a veth, as the namespace that it is in shows it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GuestEnd {
    /// Its name there.
    pub name: String,
    /// Set up by that namespace (`IFF_UP`): its node's own will, whatever carrier it has.
    pub up: bool,
}

/// An interface in another namespace: the namespace's number in this one, and its own number there.
pub type Elsewhere = (i32, u32);

/// A network interface, as far as wires care.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Link {
    /// Its number in its namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its alias; empty when it has none.
    pub alias: String,
    /// Its group.
    pub group: u32,
    /// Set up by its own namespace (`IFF_UP`).
    pub up: bool,
    /// Has carrier (`IFF_LOWER_UP`).
    pub lower_up: bool,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Its MAC address; empty when it has none.
    pub mac: Vec<u8>,
    /// Number of the other end of a veth, in that end's namespace.
    pub peer: u32,
    /// This namespace's number of the one that the other end is in; none when it is in this one.
    pub peer_namespace: Option<i32>,
    /// The namespace that the other end was in when it was first seen: its node may have moved it on since.
    pub home: Option<i32>,
    /// The other end, where that is in another namespace; none until it was read.
    pub guest: Option<GuestEnd>,
    /// Number of what it is a port of; 0 when of nothing.
    pub master: u32,
    /// True when it is a Linux bridge.
    pub is_bridge: bool,
    /// True when it is a tap: a process holds its other end.
    pub is_tap: bool,
    /// True when it is an end of a veth: `peer` is its other end, not what it is made on.
    pub is_veth: bool,
    /// True when it is a loopback.
    pub is_loopback: bool,
    /// The alternative name that says which segment has it for an uplink; empty when none has.
    pub uplink: String,
    /// What kind of tunnel it is; none when it is no VXLAN.
    pub vxlan: Option<Vxlan>,
    /// What of ours frames that leave by it go through.
    pub shape: Option<Shape>,
    /// Where frames that come in by it are handed to by us.
    pub redirect: Option<Redirect>,
    /// True when frames that leave by it go through a queue of somebody else's.
    pub is_queued: bool,
    /// True when frames that come in by it meet a filter of somebody else's before ours.
    pub is_filtered: bool,
}

/// First byte of a link message that a bridge sends about a port.
const AF_BRIDGE: u8 = libc::AF_BRIDGE as u8;

impl Link {
    /// Reads the payload of a link message; none when it is not one. A bridge tells of its ports by link messages of a family of its own: they hold
    /// little of the interface, and one that a port is deleted does not say that the interface is.
    pub fn parse(payload: &[u8]) -> Option<Link> {
        let header = LinkHeader::parse(payload).ok()?;
        if payload.first() == Some(&AF_BRIDGE) {
            return None;
        }
        let mut link = Link {
            index: header.index,
            up: header.flags.contains(LinkFlags::Up),
            lower_up: header.flags.contains(LinkFlags::LowerUp),
            is_loopback: header.flags.contains(LinkFlags::Loopback),
            ..Link::default()
        };
        let text = |value: &[u8]| {
            let end = value.iter().position(|b| *b == 0).unwrap_or(value.len());
            String::from_utf8_lossy(&value[..end]).into_owned()
        };
        let number = |value: &[u8]| Some(u32::from_ne_bytes(value.try_into().ok()?));
        for attribute in NlasIterator::new(payload.get(LINK_HEADER..)?) {
            let attribute = attribute.ok()?;
            match (attribute.kind(), attribute.value()) {
                (libc::IFLA_IFNAME, value) => link.name = text(value),
                (libc::IFLA_IFALIAS, value) => link.alias = text(value),
                (libc::IFLA_GROUP, value) => link.group = number(value)?,
                (libc::IFLA_MTU, value) => link.mtu = number(value)?,
                (libc::IFLA_LINK, value) => link.peer = number(value)?,
                (libc::IFLA_LINK_NETNSID, value) => {
                    link.peer_namespace = Some(i32::from_ne_bytes(value.try_into().ok()?));
                }
                (libc::IFLA_MASTER, value) => link.master = number(value)?,
                (libc::IFLA_ADDRESS, value) => link.mac = value.to_vec(),
                (PROPERTIES, value) => {
                    let names = NlasIterator::new(value).flatten().filter(|n| n.kind() == ALTERNATIVE_NAME);
                    let mut ours = names.map(|n| text(n.value())).filter(|n| n.starts_with(UPLINK));
                    link.uplink = ours.next().unwrap_or_default();
                }
                (libc::IFLA_LINKINFO, value) => {
                    let find = |kind| NlasIterator::new(value).flatten().find(|i| i.kind() == kind);
                    let kind = find(libc::IFLA_INFO_KIND).map(|i| text(i.value()));
                    link.is_bridge = kind.as_deref() == Some("bridge");
                    link.is_tap = kind.as_deref() == Some("tun");
                    link.is_veth = kind.as_deref() == Some("veth");
                    let data = find(libc::IFLA_INFO_DATA).filter(|_| kind.as_deref() == Some("vxlan"));
                    link.vxlan = data.and_then(|data| Vxlan::parse(data.value()));
                }
                _ => {}
            }
        }
        (!link.name.is_empty()).then_some(link)
    }

    /// Where its other end is, when that is in another namespace.
    pub fn elsewhere(&self) -> Option<Elsewhere> {
        Some((self.peer_namespace?, self.peer))
    }

    /// What another namespace shows of this interface.
    pub fn as_guest(&self) -> GuestEnd {
        GuestEnd { name: self.name.clone(), up: self.up }
    }
}

/// The kernel refused a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The error number.
    pub errno: i32,
    /// What the kernel said about it, often nothing.
    pub words: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let error = nix::errno::Errno::from_raw(self.errno);
        match self.words.as_str() {
            "" => f.write_str(error.desc()),
            words => write!(f, "{} ({words})", error.desc()),
        }
    }
}

/// One request and its flags beyond `NLM_F_REQUEST | NLM_F_ACK`.
#[derive(Debug, Clone)]
pub struct Request {
    message: Message,
    flags: u16,
}

#[derive(Debug, Clone)]
enum Message {
    Typed(RouteNetlinkMessage),
    /// Type and payload of a message that the library has no words for.
    Raw(u16, Vec<u8>),
}

impl Request {
    /// Makes something that must not exist yet.
    pub fn create(message: RouteNetlinkMessage) -> Request {
        Request { message: Message::Typed(message), flags: NLM_F_CREATE | NLM_F_EXCL }
    }

    /// Changes or deletes something.
    pub fn change(message: RouteNetlinkMessage) -> Request {
        Request { message: Message::Typed(message), flags: 0 }
    }

    /// A message in bytes.
    pub fn raw(kind: u16, payload: Vec<u8>) -> Request {
        Request { message: Message::Raw(kind, payload), flags: 0 }
    }

    /// Makes something that must not exist yet.
    pub fn create_raw(kind: u16, payload: Vec<u8>) -> Request {
        Request { message: Message::Raw(kind, payload), flags: NLM_F_CREATE | NLM_F_EXCL }
    }

    /// Makes something, in place of what is there.
    pub fn replace_raw(kind: u16, payload: Vec<u8>) -> Request {
        Request { message: Message::Raw(kind, payload), flags: NLM_F_CREATE | NLM_F_REPLACE }
    }

    /// The payload of a message in bytes.
    #[cfg(test)]
    pub fn payload(&self) -> &[u8] {
        match &self.message {
            Message::Raw(_, payload) => payload,
            Message::Typed(_) => &[],
        }
    }

    /// Changes an interface.
    pub fn set_link(index: u32, attributes: Vec<LinkAttribute>) -> Request {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.attributes = attributes;
        Request::change(RouteNetlinkMessage::SetLink(message))
    }

    /// Asks for one interface, by its number: in this namespace, or in the one with this number here.
    fn get_link(namespace: Option<i32>, index: u32) -> Request {
        let mut payload = vec![0; LINK_HEADER];
        payload[4..8].copy_from_slice(&index.to_ne_bytes());
        let mut put = |kind: u16, value: [u8; 4]| {
            payload.extend(8u16.to_ne_bytes());
            payload.extend(kind.to_ne_bytes());
            payload.extend(value);
        };
        if let Some(namespace) = namespace {
            // The namespace that it is about, by its number in the asker's.
            put(libc::IFLA_TARGET_NETNSID, namespace.to_ne_bytes());
        }
        put(libc::IFLA_EXT_MASK, SKIP_STATISTICS.to_ne_bytes());
        Request::raw(GET_LINK, payload)
    }

    /// Gives an interface an alternative name, which no other has.
    pub fn add_name(index: u32, name: &str) -> Request {
        Request::create_raw(NEW_PROPERTY, alternative_name(index, name))
    }

    /// Takes an alternative name from an interface.
    pub fn remove_name(index: u32, name: &str) -> Request {
        Request::raw(DELETE_PROPERTY, alternative_name(index, name))
    }

    /// Sets an interface up or down.
    pub fn set_up(index: u32, up: bool) -> Request {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
        message.header.change_mask = LinkFlags::Up;
        Request::change(RouteNetlinkMessage::SetLink(message))
    }

    /// Deletes an interface.
    pub fn delete_link(index: u32) -> Request {
        let mut message = LinkMessage::default();
        message.header.index = index;
        Request::change(RouteNetlinkMessage::DelLink(message))
    }

    /// Deletes all interfaces of a group, in one step: forty times faster than one by one.
    pub fn delete_group(group: u32) -> Request {
        let mut message = LinkMessage::default();
        message.attributes = vec![LinkAttribute::Group(group)];
        Request::change(RouteNetlinkMessage::DelLink(message))
    }

    fn emit(self, sequence: u32, out: &mut Vec<u8>) {
        let flags = NLM_F_REQUEST | NLM_F_ACK | self.flags;
        match self.message {
            Message::Raw(kind, payload) => emit_raw(kind, flags, sequence, &payload, out),
            Message::Typed(message) => {
                let mut header = NetlinkHeader::default();
                header.flags = flags;
                header.sequence_number = sequence;
                emit(NetlinkMessage::new(header, NetlinkPayload::from(message)), out);
            }
        }
    }
}

fn alternative_name(index: u32, name: &str) -> Vec<u8> {
    let mut payload = vec![0; LINK_HEADER];
    payload[4..8].copy_from_slice(&index.to_ne_bytes());
    let value = [name.as_bytes(), &[0]].concat();
    let length = value.len() as u16 + 4;
    for (length, kind) in [(length.next_multiple_of(4) + 4, PROPERTIES | NESTED), (length, ALTERNATIVE_NAME)]
    {
        payload.extend(length.to_ne_bytes());
        payload.extend(kind.to_ne_bytes());
    }
    payload.extend(value);
    payload.resize(payload.len().next_multiple_of(4), 0);
    payload
}

fn emit_raw(kind: u16, flags: u16, sequence: u32, payload: &[u8], out: &mut Vec<u8>) {
    let length = 16 + payload.len();
    out.extend(u32::try_from(length).unwrap_or(u32::MAX).to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    out.extend(flags.to_ne_bytes());
    out.extend(sequence.to_ne_bytes());
    out.extend([0; 4]);
    out.extend(payload);
    out.resize(out.len().next_multiple_of(4), 0);
}

fn emit(mut message: NetlinkMessage<RouteNetlinkMessage>, out: &mut Vec<u8>) {
    message.finalize();
    let at = out.len();
    out.resize(at + message.buffer_len(), 0);
    message.serialize(&mut out[at..]);
}

/// The request for all links of a namespace.
pub fn dump_request(sequence: u32) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    header.sequence_number = sequence;
    let mut message = LinkMessage::default();
    message.attributes = vec![LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats])];
    let mut out = Vec::new();
    emit(NetlinkMessage::new(header, NetlinkPayload::from(RouteNetlinkMessage::GetLink(message))), &mut out);
    out
}

/// Cuts what was received into messages.
pub fn messages(mut bytes: &[u8]) -> impl Iterator<Item = NetlinkBuffer<&[u8]>> {
    std::iter::from_fn(move || {
        let message = NetlinkBuffer::new_checked(bytes).ok()?;
        let length = (message.length() as usize).next_multiple_of(4).max(16);
        bytes = bytes.get(length..).unwrap_or_default();
        Some(message)
    })
}

/// A socket in the network namespace its opener was in.
pub struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    /// Opens a socket in the calling thread's network namespace.
    pub fn open() -> io::Result<Netlink> {
        let mut socket = Socket::new(protocols::NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // Answers without the request's text, but with the kernel's words. Both are comforts.
        let _ = socket.set_cap_ack(true);
        let _ = socket.set_ext_ack(true);
        Ok(Netlink { socket, sequence: 0 })
    }

    /// Sends all requests and tells how each one went, in their order.
    pub fn batch(&mut self, requests: Vec<Request>) -> io::Result<Vec<Result<(), Refused>>> {
        self.send_all(requests, CHUNK, |_, _, _| {})
    }

    /// Reads these interfaces, in this namespace or in others of which no thread has to enter any: what is there of each.
    pub fn read(&mut self, which: &[(Option<i32>, u32)]) -> io::Result<Vec<Option<Link>>> {
        let mut links = vec![None; which.len()];
        let requests = which.iter().map(|(namespace, index)| Request::get_link(*namespace, *index));
        self.ask(requests.collect(), |at, kind, payload| {
            if let Some(link) = links.get_mut(at).filter(|_| kind == NEW_LINK) {
                *link = Link::parse(payload);
            }
        })?;
        Ok(links)
    }

    /// As [`Netlink::batch`], of requests that each get a message told: with it comes the place of its request.
    pub fn ask(
        &mut self,
        requests: Vec<Request>,
        told: impl FnMut(usize, u16, &[u8]),
    ) -> io::Result<Vec<Result<(), Refused>>> {
        self.send_all(requests, ASK_CHUNK, told)
    }

    fn send_all(
        &mut self,
        requests: Vec<Request>,
        chunk: usize,
        mut told: impl FnMut(usize, u16, &[u8]),
    ) -> io::Result<Vec<Result<(), Refused>>> {
        let mut outcomes = Vec::with_capacity(requests.len());
        let mut requests = requests.into_iter().peekable();
        while requests.peek().is_some() {
            let first = self.sequence.wrapping_add(1);
            let mut out = Vec::new();
            for request in requests.by_ref().take(chunk) {
                self.sequence = self.sequence.wrapping_add(1);
                request.emit(self.sequence, &mut out);
            }
            self.socket.send(&out, 0)?;
            let count = self.sequence.wrapping_sub(first) as usize + 1;
            let done = outcomes.len();
            outcomes.extend(self.answers(first, count, |at, kind, payload| told(done + at, kind, payload))?);
        }
        Ok(outcomes)
    }

    fn answers(
        &mut self,
        first: u32,
        count: usize,
        mut told: impl FnMut(usize, u16, &[u8]),
    ) -> io::Result<Vec<Result<(), Refused>>> {
        let mut answers: Vec<Option<Result<(), Refused>>> = vec![None; count];
        while answers.iter().any(Option::is_none) {
            let (bytes, _) = self.socket.recv_from_full()?;
            for message in messages(&bytes) {
                let at = message.sequence_number().wrapping_sub(first) as usize;
                let Some(answer) = answers.get_mut(at) else { continue };
                match message.message_type() {
                    NLMSG_ERROR => *answer = Some(outcome(message.flags(), message.payload())),
                    kind => told(at, kind, message.payload()),
                }
            }
        }
        Ok(answers.into_iter().flatten().collect())
    }

    /// All interfaces of the namespace, without what [`crate::qdisc`] tells of them.
    pub fn links(&mut self) -> io::Result<Vec<Link>> {
        self.sequence = self.sequence.wrapping_add(1);
        self.socket.send(&dump_request(self.sequence), 0)?;
        let mut links = Vec::new();
        self.dumped(|kind, payload| {
            if kind == NEW_LINK {
                links.extend(Link::parse(payload));
            }
        })?;
        Ok(links)
    }

    /// Everything that the answer to a request for a list tells.
    pub fn dump(&mut self, kind: u16, payload: &[u8], told: impl FnMut(u16, &[u8])) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut out = Vec::new();
        emit_raw(kind, NLM_F_REQUEST | NLM_F_DUMP, self.sequence, payload, &mut out);
        self.socket.send(&out, 0)?;
        self.dumped(told)
    }

    fn dumped(&mut self, mut told: impl FnMut(u16, &[u8])) -> io::Result<()> {
        loop {
            let (bytes, _) = self.socket.recv_from_full()?;
            for message in messages(&bytes).filter(|m| m.sequence_number() == self.sequence) {
                match message.message_type() {
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR | NLMSG_OVERRUN => {
                        let said = outcome(message.flags(), message.payload());
                        let errno = said.err().map_or(libc::EOVERFLOW, |refused| refused.errno);
                        return Err(io::Error::from_raw_os_error(errno));
                    }
                    kind => told(kind, message.payload()),
                }
            }
        }
    }
}

/// What an `NLMSG_ERROR` says: errno 0 is an acknowledgement.
fn outcome(flags: u16, payload: &[u8]) -> Result<(), Refused> {
    let errno = payload.get(..4).and_then(|b| b.try_into().ok()).map_or(-libc::EBADMSG, i32::from_ne_bytes);
    if errno == 0 {
        return Ok(());
    }
    let mut words = String::new();
    if flags & NLM_F_ACK_TLVS != 0 {
        for attribute in NlasIterator::new(payload.get(20..).unwrap_or_default()).flatten() {
            if attribute.kind() == NLMSGERR_ATTR_MSG {
                words = String::from_utf8_lossy(attribute.value()).trim_end_matches('\0').to_owned();
            }
        }
    }
    Err(Refused { errno: -errno, words })
}

/// True when the kernel has this generic netlink family; asking loads the module that brings it, where there is one.
pub fn has_generic_family(name: &str) -> io::Result<bool> {
    const CTRL: u16 = 16;
    const GET_FAMILY: u8 = 3;
    const FAMILY_NAME: u16 = 2;
    let value = [name.as_bytes(), &[0]].concat();
    let attribute = (value.len() + 4) as u16;
    let total = 16 + 4 + (attribute as usize).next_multiple_of(4);
    let mut out = Vec::with_capacity(total);
    out.extend((total as u32).to_ne_bytes());
    out.extend(CTRL.to_ne_bytes());
    out.extend(NLM_F_REQUEST.to_ne_bytes());
    out.extend([0; 8]);
    out.extend([GET_FAMILY, 1, 0, 0]);
    out.extend(attribute.to_ne_bytes());
    out.extend(FAMILY_NAME.to_ne_bytes());
    out.extend(value);
    out.resize(total, 0);
    let mut socket = Socket::new(protocols::NETLINK_GENERIC)?;
    socket.bind_auto()?;
    socket.send_to(&out, &SocketAddr::new(0, 0), 0)?;
    let (bytes, _) = socket.recv_from_full()?;
    Ok(messages(&bytes).next().is_some_and(|m| m.message_type() == CTRL))
}

#[cfg(test)]
mod tests;
