//! The members of a tar archive as they go by: their names, and the content of the small ones that describe an image.

use std::collections::{BTreeMap, BTreeSet};

use crate::Refusal;

/// Everything in an archive begins at a multiple of this.
pub const BLOCK: usize = 512;
/// Where a header has its magic.
const MAGIC: std::ops::Range<usize> = 257..262;
/// The most bytes of one description and of all together, and the most members: an image has some dozens.
const MAX_MEMBER: u64 = 1 << 20;
const MAX_KEPT: usize = 16 << 20;
const MAX_NAMES: usize = 65_536;

/// True when this is the beginning of a tar archive.
pub(crate) fn begins(head: &[u8]) -> bool {
    head.get(MAGIC).is_some_and(|m| m == b"ustar") && head.first_chunk::<BLOCK>().is_some_and(sum_is_right)
}

/// Follows an archive.
#[derive(Default)]
pub(crate) struct Walk {
    state: State,
    /// A header, or a name, that has not come whole.
    partial: Vec<u8>,
    /// The name for the next member, from a member before it.
    long_name: Option<String>,
    names: BTreeSet<String>,
    kept: BTreeMap<String, Vec<u8>>,
    kept_bytes: usize,
    damage: Option<&'static str>,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The next bytes are a header.
    #[default]
    Header,
    /// In a member, of which this is left, then the filling of its last block.
    Member { left: u64, filling: u64, what: What },
    /// After the last member.
    End,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    /// Passed over.
    Skipped,
    /// Kept.
    Kept,
    /// The name of the next member, as GNU tar writes it.
    GnuName,
    /// Attributes of the next member, of which its name may be one.
    Attributes,
}

impl Walk {
    /// The next bytes.
    pub(crate) fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.damage.is_none() {
            match self.state {
                State::End => return,
                State::Header => {
                    let (taken, rest) = bytes.split_at(bytes.len().min(BLOCK - self.partial.len()));
                    self.partial.extend_from_slice(taken);
                    bytes = rest;
                    if self.partial.len() == BLOCK {
                        let block = std::mem::take(&mut self.partial);
                        if let Some(block) = block.first_chunk::<BLOCK>() {
                            self.header(block);
                        }
                    }
                }
                State::Member { left, filling, what } => {
                    let of_member = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                    let (member, rest) = bytes.split_at(of_member);
                    if what != What::Skipped {
                        self.partial.extend_from_slice(member);
                    }
                    let left = left - of_member as u64;
                    let of_filling = usize::try_from(filling).unwrap_or(usize::MAX).min(rest.len());
                    bytes = rest.get(of_filling..).unwrap_or_default();
                    let filling = filling - of_filling as u64;
                    self.state = State::Member { left, filling, what };
                    if left == 0 && filling == 0 {
                        self.member_ends(what);
                    }
                }
            }
        }
    }

    /// Passes over what is left of a member that nothing is kept of; answers how many bytes of the archive that is.
    pub(crate) fn pass_over(&mut self) -> u64 {
        match self.state {
            State::Member { left, filling, what: What::Skipped } => {
                self.member_ends(What::Skipped);
                left.saturating_add(filling)
            }
            _ => 0,
        }
    }

    /// True after the last member.
    pub(crate) fn is_over(&self) -> bool {
        self.state == State::End || self.damage.is_some()
    }

    fn header(&mut self, block: &[u8; BLOCK]) {
        if block.iter().all(|b| *b == 0) {
            self.state = State::End;
            return;
        }
        let Some(size) = number(&block[124..136]).filter(|_| sum_is_right(block)) else {
            self.damage = Some("a header in the archive is none");
            return;
        };
        let what = match block[156] {
            b'L' => What::GnuName,
            b'x' => What::Attributes,
            b'0' | 0 => {
                let name = self.long_name.take().unwrap_or_else(|| short_name(block));
                let name = name.trim_start_matches("./").to_owned();
                // Descriptions are JSON, and so is nothing else that is small and worth keeping.
                let keeps = size <= MAX_MEMBER && self.kept_bytes < MAX_KEPT;
                self.kept_bytes += if keeps { usize::try_from(size).unwrap_or_default() } else { 0 };
                if self.names.len() >= MAX_NAMES {
                    self.damage = Some("the archive has more members than an image can have");
                    return;
                }
                self.names.insert(name.clone());
                if keeps {
                    self.kept.insert(name.clone(), Vec::new());
                    self.long_name = Some(name);
                }
                if keeps { What::Kept } else { What::Skipped }
            }
            // A layer that two images of one archive share is a link in it.
            _ => {
                let name = self.long_name.take().unwrap_or_else(|| short_name(block));
                if self.names.len() < MAX_NAMES {
                    self.names.insert(name.trim_start_matches("./").to_owned());
                }
                What::Skipped
            }
        };
        if matches!(what, What::GnuName | What::Attributes) && size > MAX_MEMBER {
            self.damage = Some("a name in the archive is too long");
            return;
        }
        let filling = size.next_multiple_of(BLOCK as u64) - size;
        self.state = State::Member { left: size, filling, what };
        if size == 0 {
            self.member_ends(what);
        }
    }

    fn member_ends(&mut self, what: What) {
        let content = std::mem::take(&mut self.partial);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned();
        match what {
            What::Skipped => {}
            What::Kept => {
                let name = self.long_name.take().unwrap_or_default();
                self.kept.insert(name, content);
            }
            What::GnuName => self.long_name = Some(text(&content)),
            What::Attributes => {
                // Each is "LENGTH path=VALUE\n".
                let path = text(&content);
                let path = path.lines().find_map(|l| l.split_once(' ')?.1.strip_prefix("path="));
                self.long_name = path.map(str::to_owned).or(self.long_name.take());
            }
        }
        self.state = State::Header;
    }

    /// The members' names, and the content of the small ones.
    pub(crate) fn finish(self) -> Result<Members, Refusal> {
        if let Some(damage) = self.damage {
            return Err(Refusal::damaged(damage));
        }
        let between = self.state == State::Header && self.partial.is_empty();
        if !between && self.state != State::End {
            return Err(Refusal::truncated("the archive ends in the middle of a member"));
        }
        Ok(Members { names: self.names, kept: self.kept })
    }
}

/// The header of a file of nobody's and of no time (POSIX, "ustar Interchange Format"). Its name has at most 100 bytes, its size at most 33 bits.
pub fn head(name: &str, size: u64) -> [u8; BLOCK] {
    let mut head = [0u8; BLOCK];
    let mut put = |at: usize, text: &str| head[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, "0000444\0");
    put(108, "0000000\0");
    put(116, "0000000\0");
    put(124, &format!("{size:011o}\0"));
    put(136, "00000000000\0");
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\x0000");
    let sum: u32 = head.iter().map(|b| u32::from(*b)).sum();
    head[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    head
}

/// What an archive holds.
pub(crate) struct Members {
    pub(crate) names: BTreeSet<String>,
    pub(crate) kept: BTreeMap<String, Vec<u8>>,
}

impl Members {
    /// A description, read as JSON.
    pub(crate) fn json<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<T, Refusal> {
        let content = self.kept.get(name).ok_or_else(|| {
            let name: String = name.chars().take(200).flat_map(char::escape_debug).collect();
            Refusal::damaged(format!("its description \"{name}\" is not in the archive"))
        })?;
        serde_json::from_slice(content).map_err(|e| {
            Refusal::damaged(format!(
                "what describes it cannot be read, line {} column {}",
                e.line(),
                e.column()
            ))
        })
    }
}

fn short_name(block: &[u8; BLOCK]) -> String {
    let until_zero = |bytes: &[u8]| {
        let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
        String::from_utf8_lossy(&bytes[..end]).into_owned()
    };
    let (name, prefix) = (until_zero(&block[..100]), until_zero(&block[345..500]));
    // GNU tar's own format has other things in the place of the prefix.
    if prefix.is_empty() || block[262] != 0 { name } else { format!("{prefix}/{name}") }
}

/// A number in octal digits, or in binary when its first bit is set.
fn number(field: &[u8]) -> Option<u64> {
    if field.first().is_some_and(|b| b & 0x80 != 0) {
        let first = std::iter::once(field[0] & 0x7f);
        let number = first
            .chain(field[1..].iter().copied())
            .try_fold(0u64, |n, b| n.checked_mul(256).map(|n| n | u64::from(b)));
        return number.filter(|n| *n < 1 << 62);
    }
    let digits = std::str::from_utf8(field).ok()?.trim_matches(['\0', ' ']);
    if digits.is_empty() { Some(0) } else { u64::from_str_radix(digits, 8).ok() }
}

fn sum_is_right(block: &[u8; BLOCK]) -> bool {
    let sum: u64 = block
        .iter()
        .enumerate()
        .map(|(i, b)| u64::from(if (148..156).contains(&i) { b' ' } else { *b }))
        .sum();
    number(&block[148..156]) == Some(sum)
}
