//! Route netlink by hand: messages as bytes, many in one send.

use std::io;

use netlink_sys::{Socket, SocketAddr, protocols};

pub const NEW_LINK: u16 = 16;
pub const DELETE_LINK: u16 = 17;
pub const GET_LINK: u16 = 18;
pub const SET_LINK: u16 = 19;
pub const NEW_QDISC: u16 = 36;
pub const NEW_FILTER: u16 = 44;
pub const NESTED: u16 = 1 << 15;
/// `NLM_F_CREATE | NLM_F_EXCL`.
pub const CREATE: u16 = 0x600;
const REQUEST: u16 = 1;
const ACKNOWLEDGE: u16 = 4;
const DUMP: u16 = 0x300;
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// Requests in one send.
const CHUNK: usize = 64;

/// A message's body, attribute by attribute.
#[derive(Debug, Clone, Default)]
pub struct Body(pub Vec<u8>);

impl Body {
    /// A `struct ifinfomsg`.
    pub fn link(index: u32, flags: u32, change: u32) -> Body {
        let mut bytes = vec![0; 4];
        bytes.extend(index.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(change.to_ne_bytes());
        Body(bytes)
    }

    /// A `struct tcmsg`.
    pub fn tc(index: u32, handle: u32, parent: u32, info: u32) -> Body {
        let mut bytes = vec![0; 4];
        for word in [index, handle, parent, info] {
            bytes.extend(word.to_ne_bytes());
        }
        Body(bytes)
    }

    /// Adds an attribute.
    pub fn with(mut self, kind: u16, value: &[u8]) -> Body {
        let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// Adds a text.
    pub fn text(self, kind: u16, value: &str) -> Body {
        self.with(kind, &[value.as_bytes(), &[0]].concat())
    }

    /// Adds a number.
    pub fn number(self, kind: u16, value: u32) -> Body {
        self.with(kind, &value.to_ne_bytes())
    }
}

/// A request: its type, its flags, its body.
pub type Request = (u16, u16, Body);

/// A socket in the network namespace its opener was in.
pub struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    pub fn open() -> io::Result<Netlink> {
        let mut socket = Socket::new(protocols::NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Netlink { socket, sequence: 0 })
    }

    /// Sends all and demands that each is done.
    pub fn batch(&mut self, requests: &[Request]) -> io::Result<()> {
        for chunk in requests.chunks(CHUNK) {
            let mut out = Vec::new();
            for (kind, flags, body) in chunk {
                self.sequence = self.sequence.wrapping_add(1);
                emit(*kind, REQUEST | ACKNOWLEDGE | flags, self.sequence, &body.0, &mut out);
            }
            self.socket.send(&out, 0)?;
            let mut answers = 0;
            while answers < chunk.len() {
                let (bytes, _) = self.socket.recv_from_full()?;
                for (kind, payload) in messages(&bytes).filter(|(kind, _)| *kind == ERROR) {
                    debug_assert_eq!(kind, ERROR);
                    match word(payload, 0).cast_signed() {
                        0 => answers += 1,
                        errno => return Err(io::Error::from_raw_os_error(-errno)),
                    }
                }
            }
        }
        Ok(())
    }

    /// Number, flags and name of each interface.
    pub fn links(&mut self) -> io::Result<Vec<(u32, u32, String)>> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut out = Vec::new();
        // Without counters.
        let body = Body::link(0, 0, 0).number(29, 8);
        emit(GET_LINK, REQUEST | DUMP, self.sequence, &body.0, &mut out);
        self.socket.send(&out, 0)?;
        let mut links = Vec::new();
        loop {
            let (bytes, _) = self.socket.recv_from_full()?;
            for (kind, payload) in messages(&bytes) {
                match kind {
                    NEW_LINK => links.push((word(payload, 4), word(payload, 8), name(payload))),
                    DONE => return Ok(links),
                    _ => {}
                }
            }
        }
    }
}

fn emit(kind: u16, flags: u16, sequence: u32, payload: &[u8], out: &mut Vec<u8>) {
    out.extend(u32::try_from(16 + payload.len()).unwrap_or(u32::MAX).to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    out.extend(flags.to_ne_bytes());
    out.extend(sequence.to_ne_bytes());
    out.extend([0; 4]);
    out.extend(payload);
    out.resize(out.len().next_multiple_of(4), 0);
}

fn messages(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = word(bytes, 0) as usize;
        let message = bytes.get(..length).filter(|m| m.len() >= 16)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([message[4], message[5]]), &message[16..]))
    })
}

fn name(payload: &[u8]) -> String {
    const NAME: u16 = 3;
    let mut rest = payload.get(16..).unwrap_or_default();
    while rest.len() >= 4 {
        let (length, kind) =
            (u16::from_ne_bytes([rest[0], rest[1]]) as usize, u16::from_ne_bytes([rest[2], rest[3]]));
        if kind == NAME {
            let value = rest.get(4..length).unwrap_or_default();
            return String::from_utf8_lossy(value).trim_end_matches('\0').to_owned();
        }
        rest = rest.get(length.next_multiple_of(4).max(4)..).unwrap_or_default();
    }
    String::new()
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_ne_bytes)
}
