//! OpenFlow 1.4 on the wire: pure functions between bytes and what this crate knows of them.
//!
//! Numbers are big-endian, and most structures are padded to a multiple of 8. Decoding trusts no length: every
//! read is checked, and bytes that make no sense are an error, never a panic.

use std::net::Ipv4Addr;

use bytes::{BufMut, Bytes};

use crate::error::{Code, Error};
use crate::flow::{Action, Command, Flow, FlowMod, Match};

/// OpenFlow 1.4.
const VERSION: u8 = 5;

/// The length of the header that every message begins with.
pub(crate) const HEADER: usize = 8;

/// `OFPP_ANY`, `OFPG_ANY` and `OFP_NO_BUFFER`.
const ANY: u32 = u32::MAX;

/// `OFPP_TABLE`.
const PORT_TABLE: u32 = 0xffff_fff9;

/// `OFPP_NORMAL`.
const PORT_NORMAL: u32 = 0xffff_fffa;

const INSTRUCTION_APPLY_ACTIONS: u16 = 4;
const ACTION_OUTPUT: u16 = 0;
const ACTION_SET_FIELD: u16 = 25;

// Match fields, as the first three bytes and the length of their values.
const OXM_IN_PORT: u32 = 0x8000_0004;
const OXM_TUNNEL_ID: u32 = 0x8000_4c08;
const NXM_TUN_ID: u32 = 0x0001_2008;
const NXM_TUN_IPV4_DST: u32 = 0x0001_4004;

/// Message types.
pub(crate) mod kind {
    pub(crate) const HELLO: u8 = 0;
    pub(crate) const ERROR: u8 = 1;
    pub(crate) const ECHO_REQUEST: u8 = 2;
    pub(crate) const ECHO_REPLY: u8 = 3;
    pub(crate) const PACKET_OUT: u8 = 13;
    pub(crate) const FLOW_MOD: u8 = 14;
    pub(crate) const MULTIPART_REQUEST: u8 = 18;
    pub(crate) const MULTIPART_REPLY: u8 = 19;
    pub(crate) const BARRIER_REQUEST: u8 = 20;
    pub(crate) const BUNDLE_CONTROL: u8 = 33;
    pub(crate) const BUNDLE_ADD: u8 = 34;
}

const MULTIPART_FLOW: u16 = 1;
const MULTIPART_FLOW_MONITOR: u16 = 16;
const MULTIPART_MORE: u16 = 1;

/// What a bundle control message asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(crate) enum Bundle {
    Open = 0,
    Close = 2,
    Commit = 4,
    Discard = 6,
}

/// Atomic, and in the order the messages were added.
const BUNDLE_FLAGS: u16 = 1 | 2;

/// One message, without its header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) kind: u8,
    pub(crate) xid: u32,
    pub(crate) body: Bytes,
}

/// Appends a message whose body `write` appends.
fn message(out: &mut Vec<u8>, kind: u8, xid: u32, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.put_u8(VERSION);
    out.put_u8(kind);
    out.put_u16(0);
    out.put_u32(xid);
    write(out);
    put_length(out, start + 2, start);
}

/// Writes, at `at`, how many bytes there are since `start`. Everything this crate sends is far below 64 KiB.
fn put_length(out: &mut [u8], at: usize, start: usize) {
    let length = u16::try_from(out.len() - start).expect("a message this crate composes fits in 64 KiB");
    out[at..at + 2].copy_from_slice(&length.to_be_bytes());
}

fn pad(out: &mut Vec<u8>, start: usize) {
    out.put_bytes(0, (out.len() - start).wrapping_neg() % 8);
}

/// `OFPT_HELLO`, offering 1.4 and nothing else.
pub(crate) fn hello(out: &mut Vec<u8>, xid: u32) {
    message(out, kind::HELLO, xid, |out| {
        out.put_u16(1);
        out.put_u16(8);
        out.put_u32(1 << VERSION);
    });
}

pub(crate) fn echo_request(out: &mut Vec<u8>, xid: u32) {
    message(out, kind::ECHO_REQUEST, xid, |_| {});
}

pub(crate) fn echo_reply(out: &mut Vec<u8>, request: &Message) {
    message(out, kind::ECHO_REPLY, request.xid, |out| out.put_slice(&request.body));
}

pub(crate) fn barrier(out: &mut Vec<u8>, xid: u32) {
    message(out, kind::BARRIER_REQUEST, xid, |_| {});
}

pub(crate) fn bundle_control(out: &mut Vec<u8>, xid: u32, bundle: u32, what: Bundle) {
    message(out, kind::BUNDLE_CONTROL, xid, |out| {
        out.put_u32(bundle);
        out.put_u16(what as u16);
        out.put_u16(BUNDLE_FLAGS);
    });
}

/// Adds a flow-mod to a bundle; the inner message must have the same xid.
pub(crate) fn bundle_add(out: &mut Vec<u8>, xid: u32, bundle: u32, flow_mod: &FlowMod) {
    message(out, kind::BUNDLE_ADD, xid, |out| {
        out.put_u32(bundle);
        out.put_u16(0);
        out.put_u16(BUNDLE_FLAGS);
        put_flow_mod(out, xid, flow_mod);
    });
}

/// Hands a frame to the flows, as if it had come in by a port.
pub(crate) fn packet_out(out: &mut Vec<u8>, xid: u32, port: u32, frame: &[u8]) {
    message(out, kind::PACKET_OUT, xid, |out| {
        out.put_u32(ANY);
        out.put_u32(port);
        out.put_u16(16);
        out.put_bytes(0, 6);
        out.put_u16(ACTION_OUTPUT);
        out.put_u16(16);
        out.put_u32(PORT_TABLE);
        out.put_u16(0);
        out.put_bytes(0, 6);
        out.put_slice(frame);
    });
}

fn put_flow_mod(out: &mut Vec<u8>, xid: u32, flow_mod: &FlowMod) {
    message(out, kind::FLOW_MOD, xid, |out| {
        out.put_u64(flow_mod.cookie);
        out.put_u64(if flow_mod.command == Command::Add { 0 } else { flow_mod.cookie_mask });
        out.put_u8(flow_mod.table);
        out.put_u8(match flow_mod.command {
            Command::Add => 0,
            Command::Delete => 3,
            Command::DeleteStrict => 4,
        });
        out.put_u32(0); // no idle and no hard timeout
        out.put_u16(flow_mod.priority);
        out.put_u32(ANY); // no buffered packet
        out.put_u32(ANY); // whatever port its actions send to
        out.put_u32(ANY); // whatever group its actions send to
        out.put_u32(0); // no flags, no importance
        put_match(out, &flow_mod.matches);
        put_instructions(out, &flow_mod.actions);
    });
}

fn put_match(out: &mut Vec<u8>, matches: &Match) {
    let start = out.len();
    out.put_u16(1); // OXM
    out.put_u16(0);
    if let Some(port) = matches.in_port {
        out.put_u32(OXM_IN_PORT);
        out.put_u32(port);
    }
    if let Some(id) = matches.tun_id {
        out.put_u32(OXM_TUNNEL_ID);
        out.put_u64(id);
    }
    put_length(out, start + 2, start); // without the padding
    pad(out, start);
}

/// No action needs no instruction.
fn put_instructions(out: &mut Vec<u8>, actions: &[Action]) {
    if actions.is_empty() {
        return;
    }
    let start = out.len();
    out.put_u16(INSTRUCTION_APPLY_ACTIONS);
    out.put_u16(0);
    out.put_u32(0);
    for action in actions {
        put_action(out, action);
    }
    put_length(out, start + 2, start);
}

fn put_action(out: &mut Vec<u8>, action: &Action) {
    let start = out.len();
    let (what, port) = match action {
        Action::Output(port) => (ACTION_OUTPUT, *port),
        Action::Normal => (ACTION_OUTPUT, PORT_NORMAL),
        Action::SetTunnelId(_) | Action::SetTunnelDst(_) => (ACTION_SET_FIELD, 0),
    };
    out.put_u16(what);
    out.put_u16(0);
    match action {
        Action::Output(_) | Action::Normal => {
            out.put_u32(port);
            out.put_u16(0); // how much of a packet goes to a controller
        }
        Action::SetTunnelId(id) => {
            out.put_u32(OXM_TUNNEL_ID);
            out.put_u64(*id);
        }
        Action::SetTunnelDst(address) => {
            out.put_u32(NXM_TUN_IPV4_DST);
            out.put_u32((*address).into());
        }
    }
    pad(out, start);
    put_length(out, start + 2, start); // with the padding
}

/// Asks for the flows of a table.
pub(crate) fn flow_request(out: &mut Vec<u8>, xid: u32, table: u8) {
    multipart_request(out, xid, MULTIPART_FLOW, |out| {
        out.put_u8(table);
        out.put_bytes(0, 3);
        out.put_u32(ANY);
        out.put_u32(ANY);
        out.put_u32(0);
        out.put_u64(0);
        out.put_u64(0); // of the cookie no bit counts
        put_match(out, &Match::default());
    });
}

/// Asks to be told of every flow that is added, removed or modified from now on. What this connection does
/// itself comes in short form, which tells it apart.
pub(crate) fn flow_monitor_request(out: &mut Vec<u8>, xid: u32) {
    const ADD_REMOVED_MODIFY: u16 = 2 | 4 | 8;
    multipart_request(out, xid, MULTIPART_FLOW_MONITOR, |out| {
        out.put_u32(1); // the monitor's id
        out.put_u32(ANY);
        out.put_u32(ANY);
        out.put_u16(ADD_REMOVED_MODIFY);
        out.put_u8(crate::ALL_TABLES);
        out.put_u8(0); // add the monitor
        put_match(out, &Match::default());
    });
}

fn multipart_request(out: &mut Vec<u8>, xid: u32, what: u16, write: impl FnOnce(&mut Vec<u8>)) {
    message(out, kind::MULTIPART_REQUEST, xid, |out| {
        out.put_u16(what);
        out.put_u16(0);
        out.put_u32(0);
        write(out);
    });
}

/// Bytes still to be read.
#[derive(Clone, Copy)]
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<Reader<'a>, Error> {
        let (head, rest) = self.0.split_at_checked(count).ok_or(Error::Malformed("it ends too early"))?;
        self.0 = rest;
        Ok(Reader(head))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let head = self.take(N)?;
        head.0.try_into().map_err(|_| Error::Malformed("it ends too early"))
    }

    fn u8(&mut self) -> Result<u8, Error> {
        self.array().map(u8::from_be_bytes)
    }

    fn u16(&mut self) -> Result<u16, Error> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, Error> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, Error> {
        self.array().map(u64::from_be_bytes)
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is left of a structure that begins with 4 bytes, among them its whole length; the rest of it.
    fn rest_of(&mut self, length: u16) -> Result<Reader<'a>, Error> {
        let rest = usize::from(length).checked_sub(4).ok_or(Error::Malformed("a length is too small"))?;
        self.take(rest)
    }
}

/// The length of the message that begins with these bytes; `None` until its header is there. A hello, or an error
/// in place of one, may be of any version.
pub(crate) fn length(bytes: &[u8]) -> Result<Option<usize>, Error> {
    let Some([version, kind, high, low, ..]) = bytes.first_chunk::<HEADER>() else { return Ok(None) };
    if *version != VERSION && *kind != kind::HELLO && *kind != kind::ERROR {
        return Err(Error::Version);
    }
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    if length < HEADER {
        Err(Error::Malformed("a message is shorter than its header"))
    } else {
        Ok(Some(length))
    }
}

/// Reads a message of the length told by [`length`].
pub(crate) fn decode(bytes: Bytes) -> Result<Message, Error> {
    let mut reader = Reader(&bytes);
    reader.u8()?;
    let kind = reader.u8()?;
    reader.u16()?;
    let xid = reader.u32()?;
    Ok(Message { kind, xid, body: bytes.slice(HEADER..) })
}

/// True when the sender of a hello, given with its header, speaks 1.4.
pub(crate) fn offers_us(hello: &[u8]) -> Result<bool, Error> {
    let mut reader = Reader(hello);
    let version = reader.u8()?;
    reader.take(HEADER - 1)?;
    while !reader.is_empty() {
        let (element, length) = (reader.u16()?, reader.u16()?);
        let mut rest = reader.rest_of(length)?;
        reader.take(reader.0.len().min(usize::from(length).wrapping_neg() % 8))?;
        if element == 1 {
            return Ok(rest.u32()? & (1 << VERSION) != 0);
        }
    }
    Ok(version >= VERSION)
}

/// The type and the code of an `OFPT_ERROR`.
pub(crate) fn error_code(body: &[u8]) -> Result<Code, Error> {
    let mut reader = Reader(body);
    Ok(Code { kind: reader.u16()?, code: reader.u16()? })
}

/// True when more parts follow this multipart reply.
pub(crate) fn has_more(body: &[u8]) -> Result<bool, Error> {
    let mut reader = Reader(body);
    reader.u16()?;
    Ok(reader.u16()? & MULTIPART_MORE != 0)
}

/// What follows the header of a multipart reply, if it is of type `wanted`.
fn multipart(body: &[u8], wanted: u16) -> Result<Option<Reader<'_>>, Error> {
    let mut reader = Reader(body);
    let what = reader.u16()?;
    reader.take(6)?;
    Ok((what == wanted).then_some(reader))
}

/// True when this multipart reply tells of flows that somebody else changed, or that changes were not told.
pub(crate) fn tells_foreign_change(body: &[u8]) -> Result<bool, Error> {
    const ABBREVIATED: u16 = 4;
    let Some(mut reader) = multipart(body, MULTIPART_FLOW_MONITOR)? else { return Ok(false) };
    let mut foreign = false;
    while !reader.is_empty() {
        let (length, event) = (reader.u16()?, reader.u16()?);
        reader.rest_of(length)?;
        foreign |= event != ABBREVIATED;
    }
    Ok(foreign)
}

/// The flows in one part of a reply.
pub(crate) fn flows(body: &[u8]) -> Result<Vec<Flow>, Error> {
    let mut reader = multipart(body, MULTIPART_FLOW)?.ok_or(Error::Malformed("a reply is not of flows"))?;
    let mut flows = Vec::new();
    while !reader.is_empty() {
        let length = usize::from(reader.u16()?);
        let rest = length.checked_sub(2).ok_or(Error::Malformed("a length is too small"))?;
        flows.push(flow(reader.take(rest)?)?);
    }
    Ok(flows)
}

fn flow(mut reader: Reader<'_>) -> Result<Flow, Error> {
    let table = reader.u8()?;
    reader.take(1 + 8)?; // padding, and its age
    let priority = reader.u16()?;
    let timeouts = reader.u32()?;
    reader.take(2 + 2 + 2)?; // flags, importance, padding
    let (cookie, packets, bytes) = (reader.u64()?, reader.u64()?, reader.u64()?);
    let (matches, known_match) = take_match(&mut reader)?;
    let (actions, known_actions) = take_instructions(reader)?;
    let foreign = timeouts != 0 || !known_match || !known_actions;
    Ok(Flow { table, priority, cookie, matches, actions, foreign, packets, bytes })
}

/// A match, and whether all of it is known.
fn take_match(reader: &mut Reader<'_>) -> Result<(Match, bool), Error> {
    let (kind, length) = (reader.u16()?, reader.u16()?);
    let mut fields = reader.rest_of(length)?;
    reader.take(usize::from(length).wrapping_neg() % 8)?;
    let (mut matches, mut known) = (Match::default(), kind == 1);
    while known && !fields.is_empty() {
        let field = fields.u32()?;
        let mut value = fields.take((field & 0xff) as usize)?;
        match field {
            OXM_IN_PORT => matches.in_port = Some(value.u32()?),
            OXM_TUNNEL_ID | NXM_TUN_ID => matches.tun_id = Some(value.u64()?),
            _ => known = false,
        }
    }
    Ok((matches, known))
}

/// The actions of a flow, and whether that is all it does.
fn take_instructions(mut reader: Reader<'_>) -> Result<(Vec<Action>, bool), Error> {
    let (mut actions, mut known) = (Vec::new(), true);
    while !reader.is_empty() {
        let (what, length) = (reader.u16()?, reader.u16()?);
        let mut rest = reader.rest_of(length)?;
        if what != INSTRUCTION_APPLY_ACTIONS {
            known = false;
            continue;
        }
        rest.take(4)?;
        while !rest.is_empty() {
            match take_action(&mut rest)? {
                Some(action) => actions.push(action),
                None => known = false,
            }
        }
    }
    Ok((actions, known))
}

/// An action; `None` for one that this crate does not know.
fn take_action(reader: &mut Reader<'_>) -> Result<Option<Action>, Error> {
    let (what, length) = (reader.u16()?, reader.u16()?);
    let mut rest = reader.rest_of(length)?;
    Ok(match what {
        ACTION_OUTPUT => Some(match rest.u32()? {
            PORT_NORMAL => Action::Normal,
            port => Action::Output(port),
        }),
        ACTION_SET_FIELD => match rest.u32()? {
            OXM_TUNNEL_ID | NXM_TUN_ID => Some(Action::SetTunnelId(rest.u64()?)),
            NXM_TUN_IPV4_DST => Some(Action::SetTunnelDst(Ipv4Addr::from(rest.u32()?))),
            _ => None,
        },
        _ => None,
    })
}

#[cfg(test)]
mod tests;
