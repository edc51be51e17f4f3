//! The members of a tar archive as they go by: their names, the content of the small ones that describe an image, and what all of them are.
//!
//! A member whose name is a digest is refused when its bytes are others: a layer that was emptied, changed or cut makes a perfect archive otherwise, and would be found only
//! where it is loaded, by every host anew. Nothing here grows with what untrusted bytes say, beyond the bounds below.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

use crate::Refusal;

/// Everything in an archive begins at a multiple of this.
pub const BLOCK: usize = 512;
/// Where a header has its magic.
const MAGIC: std::ops::Range<usize> = 257..262;
/// The most bytes of one description and of all together, and the most members: an image has some dozens.
const MAX_MEMBER: u64 = 1 << 20;
const MAX_KEPT: usize = 16 << 20;
const MAX_NAMES: usize = 65_536;
/// The longest name, the most bytes of all names together, and of one record of attributes, a name being one of them.
const MAX_NAME: usize = 4_096;
const MAX_NAME_BYTES: usize = 8 << 20;
const MAX_ATTRIBUTES: u64 = 64 << 10;
/// How compressed bytes begin: gzip, zstd, xz, bzip2.
const COMPRESSED: [&[u8]; 4] = [b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ", b"BZh"];
const LONGEST_MAGIC: usize = 5;

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
    /// The name of the member that goes by.
    name: String,
    /// What its bytes are so far; none where only names are looked for.
    sum: Option<Sum>,
    sums: bool,
    members: BTreeMap<String, Member>,
    name_bytes: usize,
    kept: BTreeMap<String, Vec<u8>>,
    kept_bytes: usize,
    damage: Option<Refusal>,
}

/// What a member is.
pub(crate) enum Member {
    /// A file, and what its bytes are where they were all seen.
    File(Option<Content>),
    /// A link to the member of this name.
    Link(String),
}

/// What the bytes of a member are.
pub(crate) struct Content {
    /// Their SHA-256.
    pub(crate) digest: String,
    /// As far as their beginning tells.
    pub(crate) is_compressed: bool,
}

#[derive(Default)]
struct Sum {
    hash: Sha256,
    begin: Vec<u8>,
}

impl Sum {
    fn push(&mut self, bytes: &[u8]) {
        let wanted = LONGEST_MAGIC - self.begin.len();
        self.begin.extend_from_slice(&bytes[..wanted.min(bytes.len())]);
        self.hash.update(bytes);
    }

    fn content(self) -> Content {
        let digest = self.hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
        Content { digest, is_compressed: COMPRESSED.iter().any(|magic| self.begin.starts_with(magic)) }
    }
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
    /// Passed over: no file.
    Skipped,
    /// A file.
    File,
    /// A small one, which is kept.
    Kept,
    /// The name of the next member, as GNU tar writes it.
    GnuName,
    /// Attributes of the next member, of which its name may be one.
    Attributes,
}

impl Walk {
    /// One that is given all bytes, and says what those of each member are.
    pub(crate) fn summing() -> Walk {
        Walk { sums: true, ..Walk::default() }
    }

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
                    if !matches!(what, What::Skipped | What::File) {
                        self.partial.extend_from_slice(member);
                    }
                    if let Some(sum) = &mut self.sum {
                        sum.push(member);
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
            State::Member { left, filling, what: what @ (What::Skipped | What::File) } => {
                self.member_ends(what);
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
            return self.spoil("a header in the archive is none");
        };
        let (what, longest) = match block[156] {
            b'L' => (What::GnuName, MAX_NAME as u64 + 1),
            b'x' => (What::Attributes, MAX_ATTRIBUTES),
            // The target of the next member, where that is a link, and attributes of all members.
            b'K' | b'g' => (What::Skipped, u64::MAX),
            b'0' | 0 => (self.file(block, size), u64::MAX),
            // Layers that are the same are links to one of them.
            kind => {
                let name = self.next_name(block);
                let target = until_zero(&block[157..257]);
                let target = match kind {
                    b'1' => target.trim_start_matches("./").to_owned(),
                    _ => beside(&name, &target),
                };
                self.enter(name, Member::Link(target));
                (What::Skipped, u64::MAX)
            }
        };
        if size > longest {
            return self.spoil("a name in the archive is too long: it may have 4096 bytes");
        }
        if self.damage.is_some() {
            return;
        }
        let filling = size.next_multiple_of(BLOCK as u64) - size;
        self.state = State::Member { left: size, filling, what };
        if size == 0 {
            self.member_ends(what);
        }
    }

    /// A file begins.
    fn file(&mut self, block: &[u8; BLOCK], size: u64) -> What {
        self.name = self.next_name(block);
        self.sum = self.sums.then(Sum::default);
        self.enter(self.name.clone(), Member::File(None));
        // Descriptions are JSON, and so is nothing else that is small and worth keeping.
        if size > MAX_MEMBER || self.kept_bytes >= MAX_KEPT {
            return What::File;
        }
        self.kept_bytes += usize::try_from(size).unwrap_or_default();
        What::Kept
    }

    fn next_name(&mut self, block: &[u8; BLOCK]) -> String {
        let name = self.long_name.take().unwrap_or_else(|| short_name(block));
        name.trim_start_matches("./").to_owned()
    }

    /// Takes note of a member, as far as there is room for its name.
    fn enter(&mut self, name: String, member: Member) {
        self.name_bytes += name.len();
        if let Member::Link(target) = &member {
            self.name_bytes += target.len();
        }
        if self.members.len() >= MAX_NAMES || self.name_bytes > MAX_NAME_BYTES {
            return self.spoil("the archive has more members, or longer names, than an image can have");
        }
        self.members.insert(name, member);
    }

    fn spoil(&mut self, what: impl std::fmt::Display) {
        self.damage.get_or_insert(Refusal::spoiled(what));
    }

    fn member_ends(&mut self, what: What) {
        let content = std::mem::take(&mut self.partial);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned();
        match what {
            What::Skipped => {}
            What::File => self.file_ends(),
            What::Kept => {
                self.kept.insert(self.name.clone(), content);
                self.file_ends();
            }
            What::GnuName => self.long_name = Some(text(&content)),
            What::Attributes => {
                // Each is "LENGTH path=VALUE\n".
                let path = text(&content);
                let path = path.lines().find_map(|l| l.split_once(' ')?.1.strip_prefix("path="));
                if path.is_some_and(|path| path.len() > MAX_NAME) {
                    self.spoil("a name in the archive is too long: it may have 4096 bytes");
                }
                self.long_name = path.map(str::to_owned).or(self.long_name.take());
            }
        }
        self.state = State::Header;
    }

    /// Compares what went by with its name, where that is a digest.
    fn file_ends(&mut self) {
        let Some(content) = self.sum.take().map(Sum::content) else { return };
        let name = std::mem::take(&mut self.name);
        if named_digest(&name).is_some_and(|digest| digest != content.digest) {
            self.spoil(format_args!(
                "\"{name}\" in the archive is not what its name says, but {}",
                content.digest
            ));
        }
        self.members.insert(name, Member::File(Some(content)));
    }

    /// The members' names, and the content of the small ones.
    pub(crate) fn finish(self) -> Result<Members, Refusal> {
        if let Some(damage) = self.damage {
            return Err(damage);
        }
        let between = self.state == State::Header && self.partial.is_empty();
        if !between && self.state != State::End {
            return Err(Refusal::truncated("the archive ends in the middle of a member"));
        }
        Ok(Members { members: self.members, kept: self.kept })
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
    members: BTreeMap<String, Member>,
    kept: BTreeMap<String, Vec<u8>>,
}

impl Members {
    /// Whether there is one of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.members.contains_key(name)
    }

    /// The file of this name, or that a link of this name leads to, with what its bytes are where they were all seen.
    pub(crate) fn file(&self, name: &str) -> Option<(&str, Option<&Content>)> {
        let (mut name, mut member) = self.members.get_key_value(name)?;
        // A link to a link is nothing that anybody writes.
        if let Member::Link(target) = member {
            (name, member) = self.members.get_key_value(target)?;
        }
        match member {
            Member::File(content) => Some((name, content.as_ref())),
            Member::Link(_) => None,
        }
    }

    /// A description, read as JSON.
    pub(crate) fn json<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<T, Refusal> {
        let content = self.kept.get(name).ok_or_else(|| {
            Refusal::spoiled(format_args!("its description \"{}\" is not in the archive", shown(name)))
        })?;
        serde_json::from_slice(content).map_err(|e| {
            let (line, column) = (e.line(), e.column());
            Refusal::spoiled(format_args!("what describes it cannot be read, line {line} column {column}"))
        })
    }
}

/// A name of untrusted bytes, for a message.
pub(crate) fn shown(name: &str) -> String {
    name.chars().take(200).flat_map(char::escape_debug).collect()
}

/// The SHA-256 in the name of a member: `blobs/sha256/<hex>`, or `<hex>.json`, which is how Docker names configurations.
pub(crate) fn named_digest(name: &str) -> Option<&str> {
    let hex = name.strip_prefix("blobs/sha256/").or_else(|| name.strip_suffix(".json"))?;
    let is_digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    (hex.len() == 64 && hex.bytes().all(is_digit)).then_some(hex)
}

/// Where a symbolic link leads that is beside what it is named after.
fn beside(name: &str, target: &str) -> String {
    let mut parts: Vec<&str> = name.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

fn until_zero(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

fn short_name(block: &[u8; BLOCK]) -> String {
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
