//! Blocks of pcapng (draft-ietf-opsawg-pcapng): one section, an interface for each NIC, a packet block for each packet, statistics at the end.
//! Little-endian, timestamps in nanoseconds.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const STATISTICS: u32 = 5;
const PACKET: u32 = 6;
const ETHERNET: u16 = 1;
const END_OF_OPTIONS: u16 = 0;

/// Which way a packet went, as its node sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// The node received it.
    Inbound,
    /// The node sent it.
    Outbound,
}

/// A packet to be written.
#[derive(Debug, Clone, Copy)]
pub struct Packet<'a> {
    /// When it was seen.
    pub time: SystemTime,
    /// Which way it went.
    pub direction: Direction,
    /// Its bytes, as many as are kept.
    pub bytes: &'a [u8],
    /// How many it had.
    pub length: u32,
}

/// How many packets of an interface were captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Those that passed the filter, the lost ones included.
    pub received: u64,
    /// Those that were lost since nobody took them in time.
    pub dropped: u64,
}

/// The beginning of a section.
pub fn section(program: &str, comment: &str) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(0x1a2b_3c4d_u32.to_le_bytes());
    body.extend(1u16.to_le_bytes());
    body.extend(0u16.to_le_bytes());
    // The section's length is not known before its end.
    body.extend(u64::MAX.to_le_bytes());
    option(&mut body, 1, comment.as_bytes());
    option(&mut body, 3, b"Linux");
    option(&mut body, 4, program.as_bytes());
    option(&mut body, END_OF_OPTIONS, &[]);
    block(SECTION, &body)
}

/// An interface; the first is number 0. A length of 0 keeps whole packets.
pub fn interface(name: &str, filter: &str, snap_length: u32) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(ETHERNET.to_le_bytes());
    body.extend(0u16.to_le_bytes());
    body.extend(snap_length.to_le_bytes());
    option(&mut body, 2, name.as_bytes());
    // Timestamps count 10^-9 s.
    option(&mut body, 9, &[9]);
    if !filter.is_empty() {
        // A leading 0 says that it is in the language of libpcap.
        option(&mut body, 11, &[&[0], filter.as_bytes()].concat());
    }
    option(&mut body, END_OF_OPTIONS, &[]);
    block(INTERFACE, &body)
}

/// A packet of an interface.
pub fn packet(interface: u32, packet: &Packet<'_>) -> Vec<u8> {
    let mut body = Vec::with_capacity(packet.bytes.len() + 48);
    body.extend(interface.to_le_bytes());
    body.extend(timestamp(packet.time));
    body.extend(length(packet.bytes).to_le_bytes());
    body.extend(packet.length.max(length(packet.bytes)).to_le_bytes());
    body.extend(packet.bytes);
    body.resize(body.len().next_multiple_of(4), 0);
    let flags: u32 = match packet.direction {
        Direction::Inbound => 1,
        Direction::Outbound => 2,
    };
    option(&mut body, 2, &flags.to_le_bytes());
    option(&mut body, END_OF_OPTIONS, &[]);
    block(PACKET, &body)
}

/// What is known of an interface when its capture ends.
pub fn statistics(interface: u32, begun: SystemTime, ended: SystemTime, counts: Counts) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(interface.to_le_bytes());
    body.extend(timestamp(ended));
    option(&mut body, 2, &timestamp(begun));
    option(&mut body, 3, &timestamp(ended));
    option(&mut body, 4, &counts.received.to_le_bytes());
    option(&mut body, 5, &counts.dropped.to_le_bytes());
    option(&mut body, END_OF_OPTIONS, &[]);
    block(STATISTICS, &body)
}

/// The higher half comes first.
fn timestamp(time: SystemTime) -> [u8; 8] {
    let nanoseconds = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_nanos() as u64;
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&((nanoseconds >> 32) as u32).to_le_bytes());
    bytes[4..].copy_from_slice(&(nanoseconds as u32).to_le_bytes());
    bytes
}

fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    let value = &value[..value.len().min(usize::from(u16::MAX))];
    body.extend(code.to_le_bytes());
    body.extend((value.len() as u16).to_le_bytes());
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

fn block(kind: u32, body: &[u8]) -> Vec<u8> {
    let total = length(body) + 12;
    let mut block = Vec::with_capacity(body.len() + 12);
    block.extend(kind.to_le_bytes());
    block.extend(total.to_le_bytes());
    block.extend(body);
    block.extend(total.to_le_bytes());
    block
}

fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_whole_and_name_their_length_twice() {
        let time = UNIX_EPOCH + Duration::from_nanos(0x1_0000_0002);
        let one = Packet { time, direction: Direction::Outbound, bytes: &[1, 2, 3, 4, 5], length: 60 };
        let blocks = [
            section("netloom", "lab x"),
            interface("r1:eth1", "icmp", 0),
            packet(0, &one),
            statistics(0, time, time, Counts { received: 2, dropped: 1 }),
        ];
        for block in &blocks {
            let total = (block.len() as u32).to_le_bytes();
            assert_eq!((&block[4..8], &block[block.len() - 4..]), (&total[..], &total[..]));
            assert_eq!(block.len() % 4, 0);
        }
        let packet = &blocks[2];
        let word = |at: usize| u32::from_le_bytes(packet[at..at + 4].try_into().unwrap());
        assert_eq!((word(0), word(8), word(12), word(16), word(20), word(24)), (6, 0, 1, 2, 5, 60));
        assert_eq!(packet[28..36], [1, 2, 3, 4, 5, 0, 0, 0]);
        assert_eq!(word(40), 2, "outbound");
    }
}
