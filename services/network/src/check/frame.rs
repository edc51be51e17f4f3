//! Marked frames: what they look like, and how they are known again, also inside of a tunnel.
//!
//! They are of EtherType 0x88B5, which IEEE 802 leaves to experiments, and are addressed to their own sender: a switch that they come to has learnt
//! that address where they came from, and takes them no further; a host's stack knows no such type.

use crate::capture::Filter;
use crate::error::Error;

/// IEEE 802, local experimental EtherType 1.
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];
/// Bytes of the shortest frame, without its check sequence.
const SHORTEST: usize = 60;
/// Where a frame may begin: as it is, or behind Ethernet, IPv4 or IPv6, UDP and VXLAN, without and with a VLAN tag.
const BEGINS: [usize; 5] = [0, 50, 54, 70, 74];
const TYPE_AT: usize = 12;
const MARK_AT: usize = 14;
const WAY_AT: usize = 22;
const NUMBER_AT: usize = 23;

/// Which way over its wire a frame was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the first end.
    AToB,
    /// From the second end.
    BToA,
}

/// What a frame says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marked {
    /// Of which check it is.
    pub mark: u64,
    /// Which way it goes.
    pub way: Way,
    /// Which of those that go that way.
    pub number: u16,
}

impl Marked {
    /// The frame, of as many bytes behind its Ethernet header.
    pub fn bytes(&self, mac: [u8; 6], payload: usize) -> Vec<u8> {
        let mut frame = [&mac[..], &mac, &ETHERTYPE, &self.mark.to_be_bytes()].concat();
        frame.push(u8::from(self.way == Way::BToA));
        frame.extend(self.number.to_be_bytes());
        frame.resize((MARK_AT + payload).max(SHORTEST), 0);
        frame
    }

    /// Reads a frame; with it comes whether it was inside of a tunnel.
    pub fn read(bytes: &[u8]) -> Option<(Marked, bool)> {
        let at = |begin: usize| {
            let frame = bytes.get(begin..)?;
            if frame.get(TYPE_AT..MARK_AT)? != ETHERTYPE {
                return None;
            }
            let mark = u64::from_be_bytes(frame.get(MARK_AT..WAY_AT)?.try_into().ok()?);
            let way = match frame.get(WAY_AT)? {
                0 => Way::AToB,
                1 => Way::BToA,
                _ => return None,
            };
            let number = u16::from_be_bytes(frame.get(NUMBER_AT..NUMBER_AT + 2)?.try_into().ok()?);
            Some((Marked { mark, way, number }, begin > 0))
        };
        BEGINS.into_iter().find_map(at)
    }
}

/// What keeps all frames with this mark, inside of a tunnel or not, and no others.
pub fn filter(mark: u64) -> Result<Filter, Error> {
    let (high, low) = (mark >> 32, mark & 0xffff_ffff);
    // The kernel drops a frame that a comparison looks beyond the end of: the shorter ones come first.
    let at = |begin: usize| {
        let (kind, first, second) = (begin + TYPE_AT, begin + MARK_AT, begin + MARK_AT + 4);
        format!("(ether[{kind}:2] = 0x88b5 and ether[{first}:4] = {high} and ether[{second}:4] = {low})")
    };
    let filter = Filter::compile(&BEGINS.map(at).join(" or "))?;
    Ok(filter.expect("the text is not empty"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Marked = Marked { mark: 0xfedc_ba98_7654_3210, way: Way::BToA, number: 199 };

    /// As a tunnel over IPv4 or IPv6 sends it.
    fn in_a_tunnel(frame: &[u8], six: bool) -> Vec<u8> {
        let mut outer = vec![0xaa; if six { 70 } else { 50 }];
        outer[12..14].copy_from_slice(if six { &[0x86, 0xdd] } else { &[0x08, 0x00] });
        [&outer, frame].concat()
    }

    #[test]
    fn a_frame_is_known_again_also_inside_of_a_tunnel() {
        let short = ONE.bytes([2, 0, 0, 0, 0, 7], 0);
        assert_eq!(short.len(), SHORTEST);
        assert_eq!(short[..6], short[6..12], "it is addressed to its own sender");
        let large = ONE.bytes([2, 0, 0, 0, 0, 7], 1_500);
        assert_eq!(large.len(), 1_514);
        let mut keeps = filter(ONE.mark).unwrap();
        for frame in [short, large] {
            assert_eq!(Marked::read(&frame), Some((ONE, false)));
            assert!(keeps.keeps(&frame));
            for six in [false, true] {
                let outer = in_a_tunnel(&frame, six);
                assert_eq!(Marked::read(&outer), Some((ONE, true)));
                assert!(keeps.keeps(&outer));
            }
        }
    }

    #[test]
    fn other_frames_are_not_taken_for_marked_ones() {
        let mut keeps = filter(ONE.mark).unwrap();
        let other = Marked { mark: ONE.mark ^ 1, ..ONE }.bytes([2; 6], 0);
        assert!(!keeps.keeps(&other), "of another check");
        let mut arp = ONE.bytes([2; 6], 0);
        arp[12..14].copy_from_slice(&[0x08, 0x06]);
        assert!(!keeps.keeps(&arp) && Marked::read(&arp).is_none());
        for length in 0..40 {
            let cut = &ONE.bytes([2; 6], 0)[..length];
            assert_eq!(Marked::read(cut).is_some(), length >= NUMBER_AT + 2, "{length}");
        }
    }
}
