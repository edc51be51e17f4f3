//! Filters in the language of pcap-filter(7), compiled by libpcap.
//!
//! The kernel takes the VLAN tag off a frame before a filter sees it, libpcap compiles for frames as they are on the wire. So the kernel runs
//! the program on frames without a tag and lets those with one pass, which are judged here once their tag is back. A frame is thus judged as it
//! stands in the capture, whichever way it came: `icmp` is not `vlan and icmp`.

use nix::libc::sock_filter;
use pcap::{BpfProgram, Capture, Linktype};

use crate::error::Error;

/// What a program returns to keep all of a frame.
const WHOLE: u32 = 262_144;
const LOAD_ABSOLUTE: u16 = 0x20;
const JUMP_IF_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;
/// Where the kernel says whether a frame had a tag.
const TAG_PRESENT: u32 = (-0x1000_i32 + 48) as u32;

/// A compiled filter.
pub struct Filter {
    program: BpfProgram,
}

impl Filter {
    /// Compiles; none is the empty text, which keeps everything.
    pub fn compile(text: &str) -> Result<Option<Filter>, Error> {
        if text.trim().is_empty() {
            return Ok(None);
        }
        let refused = |e: pcap::Error| {
            let words = match e {
                pcap::Error::PcapError(words) => words,
                other => other.to_string(),
            };
            Error::Filter { text: text.to_owned(), words }
        };
        let frames = Capture::dead(Linktype::ETHERNET).map_err(refused)?;
        Ok(Some(Filter { program: frames.compile(text, true).map_err(refused)? }))
    }

    /// Judges a frame as it is on the wire.
    pub fn keeps(&mut self, frame: &[u8]) -> bool {
        self.program.filter(frame)
    }

    /// What the kernel is to run.
    pub fn kernel(&self) -> Vec<sock_filter> {
        let mut program = vec![
            sock_filter { code: LOAD_ABSOLUTE, jt: 0, jf: 0, k: TAG_PRESENT },
            sock_filter { code: JUMP_IF_EQUAL, jt: 1, jf: 0, k: 0 },
            sock_filter { code: RETURN, jt: 0, jf: 0, k: WHOLE },
        ];
        program.extend(self.instructions());
        program
    }

    /// What the kernel is to run where frames are to be judged without the tag that it took off.
    pub fn instructions(&self) -> Vec<sock_filter> {
        // The library shows an instruction as its four numbers.
        let read = |instruction: &pcap::BpfInstruction| {
            let text = instruction.to_string();
            let mut numbers = text.split(' ').map(|n| n.parse::<u32>().ok());
            let mut next = || numbers.next().flatten();
            let (code, jt, jf, k) = (next()?, next()?, next()?, next()?);
            let code = u16::try_from(code).ok()?;
            let k = if code == RETURN && k > 0 { WHOLE } else { k };
            Some(sock_filter { code, jt: u8::try_from(jt).ok()?, jf: u8::try_from(jf).ok()?, k })
        };
        self.program.get_instructions().iter().filter_map(read).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_filter_is_refused_in_libpcaps_words() {
        let Err(Error::Filter { text, words }) = Filter::compile("icmp andd arp") else { panic!("taken") };
        assert_eq!(text, "icmp andd arp");
        assert!(words.contains("syntax error"), "{words}");
        assert!(Filter::compile(" ").unwrap().is_none());
    }

    #[test]
    fn frames_are_judged_as_they_are_on_the_wire() {
        let mut arp = [[0xff; 6], [2, 0, 0, 0, 0, 1]].concat();
        arp.extend([0x08, 0x06]);
        arp.resize(60, 0);
        let mut tagged = arp[..12].to_vec();
        tagged.extend([0x81, 0, 0, 7]);
        tagged.extend(&arp[12..]);
        let judge = |text: &str| {
            let mut filter = Filter::compile(text).unwrap().unwrap();
            assert!(filter.kernel().len() > 4);
            (filter.keeps(&arp), filter.keeps(&tagged))
        };
        assert_eq!(judge("arp"), (true, false));
        assert_eq!(judge("vlan 7 and arp"), (false, true));
        assert_eq!(judge("vlan 8"), (false, false));
    }
}
