//! Traffic control of the kernel, as bytes of route netlink: what slows or harms the frames that leave by a device. What hands the frames
//! that come in by one device to another is in [`crate::redirect`].
//!
//! A direction of a wire has one queueing discipline, at the root of the device that its frames leave by: a token bucket (`tbf`) when only its
//! rate is bounded, `netem` for everything else, the rate included. Its handle says that it is ours.

use netloom_model::spec::Impairment;

use crate::netlink::Request;
use crate::redirect::{self, Redirect};

/// `RTM_NEWQDISC` and what follows it.
pub const NEW_QDISC: u16 = 36;
/// See [`NEW_QDISC`].
pub const DELETE_QDISC: u16 = 37;
/// See [`NEW_QDISC`].
pub const GET_QDISC: u16 = 38;
/// See [`NEW_QDISC`].
pub const NEW_FILTER: u16 = 44;
/// See [`NEW_QDISC`].
pub const DELETE_FILTER: u16 = 45;
/// See [`NEW_QDISC`].
pub const GET_FILTER: u16 = 46;

/// Bytes of a `struct tcmsg`.
const HEADER: usize = 20;
const ROOT: u32 = 0xffff_ffff;
/// Parent of an ingress discipline.
pub const INGRESS: u32 = 0xffff_fff1;
/// Handle of an ingress discipline, and parent of its filters.
pub const INGRESS_HANDLE: u32 = 0xffff_0000;
/// Handles of ours. Two, since the kernel refuses another kind under the handle of the one that is there.
const RATE_HANDLE: u32 = 0x6e6c_0000;
const NETEM_HANDLE: u32 = 0x6e6d_0000;
/// Preference of our filter, over all protocols.
pub const FILTER_INFO: u32 = 0x6e6c << 16 | (3u16.to_be() as u32);
/// Attribute that names a kind.
pub const TCA_KIND: u16 = 1;
/// Attribute that holds what the kind defines.
pub const TCA_OPTIONS: u16 = 2;
/// Flag of an attribute that holds attributes.
pub const NESTED: u16 = 1 << 15;

/// What a header of Ethernet with two VLAN tags adds to an MTU.
const FRAME: u32 = 22;
/// How long a bucket may empty itself at once, and how long the queue before it is, in milliseconds. Short bursts keep the rate even; a queue of
/// this length lets TCP fill a rate of up to some hundred Mbit/s (measured in tests/main/impairment.rs).
const BURST_MS: u64 = 2;
const QUEUE_MS: u64 = 50;
/// Frames that a queue always has room for.
const QUEUE_FRAMES: u32 = 16;

/// What frames that leave by a device go through, as far as it can be read back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A bounded rate.
    Rate(Rate),
    /// Everything else.
    Netem(Netem),
    /// Ours by its handle, and nothing that we make.
    Strange,
}

/// A token bucket. How much it lets through at once follows from rate and MTU and is part of the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Bytes a second.
    pub bytes_per_second: u64,
    /// Bytes that wait at most.
    pub limit: u32,
}

/// Network emulation, in the kernel's units: nanoseconds, and probabilities of 2^32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Netem {
    /// Bytes a second; 0 is no bound.
    pub bytes_per_second: u64,
    /// Delay.
    pub delay_ns: u64,
    /// Random part of the delay.
    pub jitter_ns: u64,
    /// Frames lost.
    pub loss: u32,
    /// Frames with a flipped bit.
    pub corrupt: u32,
    /// Frames sent twice.
    pub duplicate: u32,
    /// Frames sent ahead of those before them.
    pub reorder: u32,
    /// Frames that wait at most.
    pub limit: u32,
}

/// The fields of an impairment that are set, by their names in the contract.
pub fn fields(impairment: &Impairment) -> impl Iterator<Item = &'static str> {
    let set = [
        ("rate_bps", impairment.rate_bps > 0),
        ("delay_us", impairment.delay_us > 0),
        ("jitter_us", impairment.jitter_us > 0),
        ("loss_ppm", impairment.loss_ppm > 0),
        ("corrupt_ppm", impairment.corrupt_ppm > 0),
        ("duplicate_ppm", impairment.duplicate_ppm > 0),
        ("reorder_ppm", impairment.reorder_ppm > 0),
    ];
    set.into_iter().filter(|(_, set)| *set).map(|(name, _)| name)
}

/// Bytes a token bucket lets through at once: never less than a frame, which would otherwise never pass.
fn burst(bytes_per_second: u64, mtu: u32) -> u32 {
    let even = bytes_per_second.saturating_mul(BURST_MS) / 1_000;
    u32::try_from(even).unwrap_or(u32::MAX / 4).min(u32::MAX / 4).max(mtu + FRAME)
}

impl Shape {
    /// What brings this about on a device of this MTU; none when there is nothing to do.
    pub fn of(impairment: &Impairment, mtu: u32) -> Option<Shape> {
        if impairment.is_none() {
            return None;
        }
        let bytes_per_second = (impairment.rate_bps / 8).max(u64::from(impairment.rate_bps > 0));
        let only_rate = Impairment { rate_bps: impairment.rate_bps, ..Impairment::default() };
        if *impairment == only_rate {
            let queue = bytes_per_second.saturating_mul(QUEUE_MS) / 1_000;
            let queue = u32::try_from(queue).unwrap_or(u32::MAX / 4).min(u32::MAX / 4);
            let limit = burst(bytes_per_second, mtu) + queue.max(QUEUE_FRAMES * (mtu + FRAME));
            return Some(Shape::Rate(Rate { bytes_per_second, limit }));
        }
        let of_all = |ppm: u32| (u64::from(ppm.min(1_000_000)) * u64::from(u32::MAX) / 1_000_000) as u32;
        // As many frames as are under way at the rate, or at 1 Gbit/s, when each is of 500 bytes.
        let rate = if bytes_per_second > 0 { bytes_per_second } else { 125_000_000 };
        let longest_us = u64::from(impairment.delay_us) + u64::from(impairment.jitter_us);
        let under_way = (rate / 500).saturating_mul(longest_us) / 1_000_000;
        Some(Shape::Netem(Netem {
            bytes_per_second,
            delay_ns: u64::from(impairment.delay_us) * 1_000,
            jitter_ns: u64::from(impairment.jitter_us) * 1_000,
            loss: of_all(impairment.loss_ppm),
            corrupt: of_all(impairment.corrupt_ppm),
            duplicate: of_all(impairment.duplicate_ppm),
            reorder: of_all(impairment.reorder_ppm),
            limit: under_way.clamp(1_000, 200_000) as u32,
        }))
    }

    /// Puts it at the root of a device, in place of what is there.
    pub fn put(&self, index: u32, mtu: u32) -> Request {
        let (handle, kind, options) = match self {
            Shape::Rate(rate) => (RATE_HANDLE, "tbf", rate.options(mtu)),
            Shape::Netem(netem) => (NETEM_HANDLE, "netem", netem.options()),
            Shape::Strange => (RATE_HANDLE, "pfifo", Vec::new()),
        };
        let mut bytes = header(index, handle, ROOT, 0);
        text(&mut bytes, TCA_KIND, kind);
        attribute(&mut bytes, TCA_OPTIONS, &options);
        Request::replace_raw(NEW_QDISC, bytes)
    }
}

impl Rate {
    fn options(&self, mtu: u32) -> Vec<u8> {
        const PARAMETERS: u16 = 1;
        const RATE64: u16 = 4;
        const BURST: u16 = 6;
        // `struct tc_tbf_qopt`: rate, peak rate, limit, buffer, mtu.
        let mut parameters = vec![0; 36];
        parameters[1] = 1; // Of Ethernet: no table of transmission times is needed.
        let short = u32::try_from(self.bytes_per_second).unwrap_or(u32::MAX);
        parameters[8..12].copy_from_slice(&short.to_ne_bytes());
        parameters[24..28].copy_from_slice(&self.limit.to_ne_bytes());
        let mut options = Vec::new();
        attribute(&mut options, PARAMETERS, &parameters);
        attribute(&mut options, BURST, &burst(self.bytes_per_second, mtu).to_ne_bytes());
        if short == u32::MAX {
            attribute(&mut options, RATE64, &self.bytes_per_second.to_ne_bytes());
        }
        options
    }

    fn read(options: &[u8]) -> Option<Rate> {
        let parameters = find(options, 1)?;
        let bytes_per_second = match find(options, 4) {
            Some(long) => u64::from_ne_bytes(long.try_into().ok()?),
            None => u64::from(u32_at(parameters, 8)?),
        };
        Some(Rate { bytes_per_second, limit: u32_at(parameters, 24)? })
    }
}

impl Netem {
    const REORDER: u16 = 3;
    const CORRUPT: u16 = 4;
    const RATE: u16 = 6;
    const RATE64: u16 = 8;
    const LATENCY64: u16 = 10;
    const JITTER64: u16 = 11;

    fn options(&self) -> Vec<u8> {
        // A tick of the packet scheduler is 64 ns; the attributes below hold the exact times.
        let ticks = |ns: u64| u32::try_from(ns >> 6).unwrap_or(u32::MAX);
        // `struct tc_netem_qopt`: latency, limit, loss, gap, duplicate, jitter. A gap of 1 makes every frame a candidate for reordering.
        let gap = u32::from(self.reorder > 0);
        let words = [ticks(self.delay_ns), self.limit, self.loss, gap, self.duplicate, ticks(self.jitter_ns)];
        let mut options: Vec<u8> = words.into_iter().flat_map(u32::to_ne_bytes).collect();
        // What is left out stays as it was before: everything is said.
        let pair = |probability: u32| [probability.to_ne_bytes(), [0; 4]].concat();
        attribute(&mut options, Netem::REORDER, &pair(self.reorder));
        attribute(&mut options, Netem::CORRUPT, &pair(self.corrupt));
        let short = u32::try_from(self.bytes_per_second).unwrap_or(u32::MAX);
        let mut rate = vec![0; 16];
        rate[..4].copy_from_slice(&short.to_ne_bytes());
        attribute(&mut options, Netem::RATE, &rate);
        if short == u32::MAX {
            attribute(&mut options, Netem::RATE64, &self.bytes_per_second.to_ne_bytes());
        }
        attribute(&mut options, Netem::LATENCY64, &self.delay_ns.to_ne_bytes());
        attribute(&mut options, Netem::JITTER64, &self.jitter_ns.to_ne_bytes());
        options
    }

    fn read(options: &[u8]) -> Option<Netem> {
        let word = |at: usize| u32_at(options, 4 * at);
        let more = options.get(24..)?;
        let first = |kind| find(more, kind).and_then(|value| u32_at(value, 0)).unwrap_or_default();
        let long = |kind| Some(u64::from_ne_bytes(find(more, kind)?.try_into().ok()?));
        Some(Netem {
            bytes_per_second: long(Netem::RATE64).unwrap_or(u64::from(first(Netem::RATE))),
            delay_ns: long(Netem::LATENCY64).unwrap_or(u64::from(word(0)?) << 6),
            jitter_ns: long(Netem::JITTER64).unwrap_or(u64::from(word(5)?) << 6),
            loss: word(2)?,
            corrupt: first(Netem::CORRUPT),
            duplicate: word(4)?,
            reorder: first(Netem::REORDER),
            limit: word(1)?,
        })
    }
}

/// Takes what is ours from the root of a device.
pub fn take(index: u32, shape: &Shape) -> Request {
    let handle = if matches!(shape, Shape::Netem(_)) { NETEM_HANDLE } else { RATE_HANDLE };
    Request::raw(DELETE_QDISC, header(index, handle, ROOT, 0))
}

/// Body of the request for all queueing disciplines.
pub fn all() -> Vec<u8> {
    header(0, 0, 0, 0)
}

/// What a message of the kernel tells of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// What of ours is at its root; none when that is the kernel's own.
    Root(Option<Shape>),
    /// A queue of somebody else's is at its root.
    Queue,
    /// There is a place for filters on what comes in.
    Ingress,
    /// Our redirect.
    Redirect(Redirect),
    /// A filter of somebody else's that what comes in meets before our redirect.
    Filter(Filter),
}

/// What a filter is known by: its preference, and its number there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Filter {
    /// Its preference: the lowest is met first.
    pub preference: u32,
    /// Its number; 0 is all of that preference.
    pub handle: u32,
}

/// Reads the payload of a message about a queueing discipline or a filter, of which the kernel tells that it is there.
pub fn read(payload: &[u8]) -> Option<(u32, Told)> {
    let index = u32_at(payload, 4)?;
    let (handle, parent, info) = (u32_at(payload, 8)?, u32_at(payload, 12)?, u32_at(payload, 16)?);
    let attributes = payload.get(HEADER..)?;
    let kind = std::str::from_utf8(find(attributes, TCA_KIND)?).ok()?.trim_end_matches('\0');
    let options = find(attributes, TCA_OPTIONS).unwrap_or_default();
    let told = match (parent, handle) {
        (ROOT, RATE_HANDLE) if kind == "tbf" => {
            Told::Root(Some(Rate::read(options).map_or(Shape::Strange, Shape::Rate)))
        }
        (ROOT, NETEM_HANDLE) if kind == "netem" => {
            Told::Root(Some(Netem::read(options).map_or(Shape::Strange, Shape::Netem)))
        }
        (ROOT, RATE_HANDLE | NETEM_HANDLE) => Told::Root(Some(Shape::Strange)),
        // The kernel's own have no number; libvirt gives taps none to wait in (`noqueue`), which is the same.
        (ROOT, 0) => Told::Root(None),
        (ROOT, _) if kind == "noqueue" => Told::Root(None),
        (ROOT, _) => Told::Queue,
        (INGRESS, _) => Told::Ingress,
        _ if redirect::is_of_place(parent) && info == FILTER_INFO && kind == "u32" => {
            Told::Redirect(Redirect::read(options)?)
        }
        // A table of `u32` is no filter, and neither is the place of several.
        _ if handle == 0 || kind == "u32" && handle & 0xf_ffff == 0 => return None,
        _ => Told::Filter(before_ours(payload)?),
    };
    Some((index, told))
}

/// True when the message is about the place for filters itself.
pub fn is_ingress(payload: &[u8]) -> bool {
    u32_at(payload, 12) == Some(INGRESS)
}

/// The filter that a message is about, where it is somebody else's and meets what comes in before our redirect.
pub fn before_ours(payload: &[u8]) -> Option<Filter> {
    let (handle, parent, info) = (u32_at(payload, 8)?, u32_at(payload, 12)?, u32_at(payload, 16)?);
    let preference = info >> 16;
    (redirect::is_of_place(parent) && preference < FILTER_INFO >> 16).then_some(Filter { preference, handle })
}

/// The device that a message is about.
pub fn device(payload: &[u8]) -> Option<u32> {
    u32_at(payload, 4)
}

/// The first attribute of this kind.
pub fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    let mut at = 0;
    while let Some(length) = bytes.get(at..at + 2) {
        let length = usize::from(u16::from_ne_bytes(length.try_into().ok()?));
        let this = u16::from_ne_bytes(bytes.get(at + 2..at + 4)?.try_into().ok()?) & !NESTED;
        let value = bytes.get(at + 4..at + length)?;
        if this == kind {
            return Some(value);
        }
        at += length.next_multiple_of(4);
    }
    None
}

/// The number at this place.
pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// A `struct tcmsg`: interface, handle, parent, information.
pub fn header(index: u32, handle: u32, parent: u32, info: u32) -> Vec<u8> {
    [0, index, handle, parent, info].into_iter().flat_map(u32::to_ne_bytes).collect()
}

/// Appends an attribute.
pub fn attribute(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    out.extend(u16::try_from(value.len() + 4).unwrap_or(u16::MAX).to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    out.extend(value);
    out.resize(out.len().next_multiple_of(4), 0);
}

/// Appends an attribute of text.
pub fn text(out: &mut Vec<u8>, kind: u16, value: &str) {
    attribute(out, kind, &[value.as_bytes(), &[0]].concat());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The payload of a request, as the kernel would tell it back.
    fn told(request: &Request) -> Option<(u32, Told)> {
        read(request.payload())
    }

    #[test]
    fn a_rate_alone_is_a_bucket_that_is_read_back() {
        let impairment = |rate_bps| Impairment { rate_bps, ..Impairment::default() };
        let Some(shape @ Shape::Rate(rate)) = Shape::of(&impairment(10_000_000), 9_500) else { panic!() };
        assert_eq!(rate.bytes_per_second, 1_250_000);
        assert!(rate.limit > 9_522 + 62_500);
        assert_eq!(told(&shape.put(7, 9_500)), Some((7, Told::Root(Some(shape)))));
        let fast = Shape::of(&impairment(80_000_000_000), 1_500).unwrap();
        assert_eq!(told(&fast.put(7, 1_500)), Some((7, Told::Root(Some(fast)))), "beyond 32 bits");
        let slow = Shape::of(&impairment(1), 68).unwrap();
        assert!(matches!(slow, Shape::Rate(Rate { bytes_per_second: 1, .. })), "never unbounded by rounding");
        assert_eq!(Shape::of(&Impairment::default(), 9_500), None);
        assert!(burst(1_250_000, 9_500) >= 9_522 && burst(u64::MAX, 9_500) < u32::MAX / 2);
    }

    #[test]
    fn everything_else_is_netem_byte_for_byte() {
        let impairment = Impairment {
            rate_bps: 8_000,
            delay_us: 10_000,
            jitter_us: 1_000,
            loss_ppm: 500_000,
            corrupt_ppm: 1_000_000,
            duplicate_ppm: 250_000,
            reorder_ppm: 1,
        };
        let shape = Shape::of(&impairment, 1_500).unwrap();
        let Shape::Netem(netem) = shape else { panic!("{shape:?}") };
        let words = |words: &[u32]| words.iter().flat_map(|w| w.to_ne_bytes()).collect::<Vec<u8>>();
        let nla = |kind: u16, value: &[u8]| {
            let mut out = Vec::new();
            attribute(&mut out, kind, value);
            out
        };
        // As `tc qdisc add dev X root netem delay 10ms 1ms loss 50% duplicate 25% corrupt 100% reorder 0.0001% rate 8kbit` says it.
        let expected = [
            words(&[156_250, 1_000, 2_147_483_647, 1, 1_073_741_823, 15_625]),
            nla(3, &words(&[4_294, 0])),
            nla(4, &words(&[u32::MAX, 0])),
            nla(6, &words(&[1_000, 0, 0, 0])),
            nla(10, &10_000_000u64.to_ne_bytes()),
            nla(11, &1_000_000u64.to_ne_bytes()),
        ];
        assert_eq!(netem.options(), expected.concat());
        assert_eq!(told(&shape.put(3, 1_500)), Some((3, Told::Root(Some(shape)))));
        let long = Impairment { delay_us: 1_000_000, ..Impairment::default() };
        assert!(matches!(Shape::of(&long, 1_500), Some(Shape::Netem(n)) if n.limit == 200_000));
    }

    #[test]
    fn what_others_put_there_is_told_from_what_is_the_kernels_and_ours() {
        let message = |handle, parent, info, kind: &str| {
            let mut bytes = header(7, handle, parent, info);
            text(&mut bytes, TCA_KIND, kind);
            read(&bytes).map(|(_, told)| told)
        };
        assert_eq!(message(0, ROOT, 2, "noqueue"), Some(Told::Root(None)));
        assert_eq!(message(0x8001_0000, ROOT, 2, "noqueue"), Some(Told::Root(None)));
        assert_eq!(message(0x7_0000, ROOT, 2, "pfifo"), Some(Told::Queue));
        let at = |preference: u32| preference << 16 | 3;
        let filter = |preference, handle| Some(Told::Filter(Filter { preference, handle }));
        assert_eq!(message(0x8000_0800, INGRESS_HANDLE, at(7), "u32"), filter(7, 0x8000_0800));
        assert_eq!(message(1, INGRESS_HANDLE, at(1), "matchall"), filter(1, 1));
        // The table that filters are in is none, and one that comes after ours changes nothing.
        assert_eq!(message(0x8000_0000, INGRESS_HANDLE, at(7), "u32"), None);
        assert_eq!(message(1, INGRESS_HANDLE, at(0xf000), "matchall"), None);
    }

    #[test]
    fn the_fields_that_are_set_are_named() {
        let impairment = Impairment { rate_bps: 1, loss_ppm: 1, ..Impairment::default() };
        assert_eq!(fields(&impairment).collect::<Vec<_>>(), ["rate_bps", "loss_ppm"]);
    }
}
