//! Headers and tables of qcow2 disks, from untrusted bytes.
//!
//! A qcow2 file can name other files, as what it is an overlay of or as where its data are, and QEMU opens them with the rights of the host: a disk from a
//! stranger would read the host's files into a guest (CVE-2024-32498). Both are refused, wherever the file says it. Beyond that each table has to lie inside
//! the file, aligned, and each entry of the tables that lead to the guest's data, as it is and as each snapshot has it, has to point into it, so that a file
//! that was cut off is found before a node is made from it or goes back to a snapshot in it. Each table is read once, so the work is bounded by the file. Of
//! bitmaps, which no guest reads, the table is looked at that QEMU reads when it opens the disk.
//!
//! The layout is that of QEMU's `docs/interop/qcow2.txt`; numbers are big-endian.

use std::collections::HashMap;

use crate::{Refusal, Source, Why};

/// The first four bytes.
pub const MAGIC: [u8; 4] = *b"QFI\xfb";

/// Length of the header of version 2, and the least of version 3.
const HEADER: (usize, u32) = (72, 104);
const CLUSTER_BITS: std::ops::RangeInclusive<u32> = 9..=21;
/// The most that QEMU takes of an L1 table and of a table of refcounts, in bytes.
const MAX_L1: u64 = 32 << 20;
const MAX_REFCOUNT_TABLE: u64 = 8 << 20;
const MAX_SNAPSHOTS: u32 = 65_536;
/// An entry of the table of snapshots without what it ends in.
const SNAPSHOT: usize = 40;

/// Where a table says that something begins: bits 9 to 55.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
const COMPRESSED: u64 = 1 << 62;

const DIRTY: u64 = 1;
const CORRUPT: u64 = 1 << 1;
const EXTERNAL_DATA: u64 = 1 << 2;
const COMPRESSION_TYPE: u64 = 1 << 3;
const EXTENDED_L2: u64 = 1 << 4;

const END_OF_EXTENSIONS: u32 = 0;
const DATA_FILE_NAME: u32 = 0x4441_5441;
const BITMAPS: u32 = 0x2385_2875;
const ENCRYPTION_HEADER: u32 = 0x0537_be77;

/// What a disk's header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// 2 or 3.
    pub version: u32,
    /// Size of a cluster, in bits.
    pub cluster_bits: u32,
    /// Size of the disk that a guest sees, in bytes.
    pub virtual_size: u64,
    l1: Table,
    refcounts: Table,
    snapshots: (u32, u64),
    bitmaps: Option<Table>,
    extended_l2: bool,
}

/// A table in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Table {
    offset: u64,
    bytes: u64,
}

impl Header {
    /// Size of a cluster, in bytes.
    fn cluster(&self) -> u64 {
        1 << self.cluster_bits
    }
}

/// Reads the header in `head`, the beginning of the file, up to its first cluster as far as that is there.
pub fn header(head: &[u8]) -> Result<Header, Refusal> {
    if head.get(..4) != Some(&MAGIC) {
        return Err(Refusal::new(Why::Unrecognized, "it is no qcow2 disk"));
    }
    let version = u32_at(head, 4)?;
    if !(2..=3).contains(&version) {
        let message = format!(
            "it is a qcow disk of version {version}, and versions 2 and 3 are read; convert it with `qemu-img convert -O qcow2`"
        );
        return Err(Refusal::new(Why::Unsupported, message));
    }
    if head.len() < HEADER.0 {
        return Err(Refusal::truncated("its header is not whole"));
    }
    let (incompatible, refcount_order, header_length) = match version {
        2 => (0, 4, u32::try_from(HEADER.0).unwrap_or(u32::MAX)),
        _ => (u64_at(head, 72)?, u32_at(head, 96)?, u32_at(head, 100)?),
    };
    refuse_features(incompatible)?;
    if u64_at(head, 8)? != 0 || u32_at(head, 16)? != 0 {
        return Err(backing_file());
    }
    if u32_at(head, 32)? != 0 {
        return Err(encrypted());
    }
    let cluster_bits = u32_at(head, 20)?;
    if !CLUSTER_BITS.contains(&cluster_bits) {
        return Err(Refusal::damaged(format!(
            "its clusters are said to have 2^{cluster_bits} bytes, and 2^9 to 2^21 are possible"
        )));
    }
    let cluster = 1u64 << cluster_bits;
    if version == 3
        && (header_length < HEADER.1 || header_length % 8 != 0 || u64::from(header_length) > cluster)
    {
        return Err(Refusal::damaged(format!("its header is said to have {header_length} bytes")));
    }
    if refcount_order > 6 {
        return Err(Refusal::damaged(format!(
            "its refcounts are said to have 2^{refcount_order} bits, and 2^6 is the most"
        )));
    }
    if incompatible & COMPRESSION_TYPE != 0 || header_length > HEADER.1 {
        let kind = *head.get(104).ok_or_else(|| Refusal::truncated("its header is not whole"))?;
        if kind > 1 {
            let message = format!(
                "its clusters are compressed in a way that is not known ({kind}); convert it with `qemu-img convert -O qcow2`"
            );
            return Err(Refusal::new(Why::Unsupported, message));
        }
    }
    let bitmaps = extensions(head, header_length, cluster)?;
    Ok(Header {
        version,
        cluster_bits,
        virtual_size: u64_at(head, 24)?,
        l1: Table { offset: u64_at(head, 40)?, bytes: u64::from(u32_at(head, 36)?) * 8 },
        refcounts: Table { offset: u64_at(head, 48)?, bytes: u64::from(u32_at(head, 56)?) << cluster_bits },
        snapshots: (u32_at(head, 60)?, u64_at(head, 64)?),
        bitmaps,
        extended_l2: incompatible & EXTENDED_L2 != 0,
    })
}

fn refuse_features(incompatible: u64) -> Result<(), Refusal> {
    if incompatible & EXTERNAL_DATA != 0 {
        return Err(data_file());
    }
    if incompatible & CORRUPT != 0 {
        return Err(Refusal::damaged("QEMU has marked it as corrupt"));
    }
    if incompatible & DIRTY != 0 {
        return Err(Refusal::damaged(
            "it was not closed after it was last written to; `qemu-img check -r all` mends that",
        ));
    }
    let unknown = incompatible & !(COMPRESSION_TYPE | EXTENDED_L2);
    if unknown != 0 {
        let message = format!(
            "it uses features that are not known ({unknown:#x}); convert it with `qemu-img convert -O qcow2`"
        );
        return Err(Refusal::new(Why::Unsupported, message));
    }
    Ok(())
}

/// Goes through the extensions after the header, which end in the first cluster, and answers where the directory of bitmaps is, if there is one.
fn extensions(head: &[u8], header_length: u32, cluster: u64) -> Result<Option<Table>, Refusal> {
    let end = usize::try_from(cluster).unwrap_or(usize::MAX).min(head.len());
    let mut at = header_length as usize;
    let mut bitmaps = None;
    // Version 2 has them too; a file may also end, or its first cluster be full, without the one that says that it was the last.
    while at + 8 <= end {
        let (kind, length) = (u32_at(head, at)?, u32_at(head, at + 4)? as usize);
        match kind {
            END_OF_EXTENSIONS => break,
            DATA_FILE_NAME => return Err(data_file()),
            ENCRYPTION_HEADER => return Err(encrypted()),
            BITMAPS => {
                bitmaps = Some(Table { bytes: u64_at(head, at + 16)?, offset: u64_at(head, at + 24)? })
            }
            _ => {}
        }
        at += 8;
        if length > end - at {
            return Err(Refusal::damaged(format!(
                "an extension of its header has {length} bytes, which is more than its first cluster"
            )));
        }
        at += length.next_multiple_of(8);
    }
    Ok(bitmaps)
}

/// Reads header and tables of a disk of `size` bytes, of which `head` is the beginning.
pub fn check(head: &[u8], size: u64, source: &mut dyn Source) -> Result<Header, Refusal> {
    let header = header(head)?;
    let cluster = header.cluster();
    let whole = Whole { size, cluster };
    whole.holds("its table of refcounts", header.refcounts, MAX_REFCOUNT_TABLE)?;
    whole.holds_l1("its L1 table", header.l1)?;
    let snapshots = whole.snapshots(header.snapshots, source)?;
    if let Some(directory) = header.bitmaps {
        whole.holds("its directory of bitmaps", directory, u64::MAX)?;
    }
    let entry_bytes = if header.extended_l2 { 16 } else { 8 };
    let covered_by_l2 = u128::from(cluster / entry_bytes) * u128::from(cluster);
    if u128::from(header.virtual_size).div_ceil(covered_by_l2) > u128::from(header.l1.bytes / 8) {
        return Err(Refusal::damaged("its L1 table is too short for its size"));
    }
    for block in entries(source, header.refcounts)? {
        whole.cluster_at("a block of refcounts", block & !0x1ff, block & 0x1ff == 0)?;
    }
    // Which L1 table named an L2 table last. What a snapshot has as the disk has it is in the same one.
    let mut named = HashMap::new();
    for (n, l1) in [header.l1].into_iter().chain(snapshots).enumerate() {
        for entry in entries(source, l1)? {
            let table = entry & OFFSET;
            if table == 0 {
                continue;
            }
            whole.cluster_at("an L2 table", table, true)?;
            match named.insert(table, n) {
                Some(before) if before == n => {
                    return Err(Refusal::damaged("two entries of an L1 table name the same L2 table"));
                }
                Some(_) => continue,
                None => {}
            }
            let l2 = entries(source, Table { offset: table, bytes: cluster })?;
            for entry in l2.into_iter().step_by(entry_bytes as usize / 8) {
                whole.data(entry, header.cluster_bits)?;
            }
        }
    }
    Ok(header)
}

/// What tables are held against.
struct Whole {
    size: u64,
    cluster: u64,
}

impl Whole {
    fn holds(&self, what: &str, table: Table, most: u64) -> Result<(), Refusal> {
        let Table { offset, bytes } = table;
        if bytes == 0 {
            return Err(Refusal::damaged(format!("{what} is said to have no bytes")));
        }
        if bytes > most {
            return Err(Refusal::damaged(format!(
                "{what} is said to have {bytes} bytes, and {most} is the most"
            )));
        }
        if offset < self.cluster || offset % self.cluster != 0 {
            return Err(Refusal::damaged(format!("{what} is said to begin at {offset}, where it cannot be")));
        }
        match offset.checked_add(bytes) {
            Some(end) if end <= self.size => Ok(()),
            Some(end) if offset <= i64::MAX as u64 => Err(Refusal::truncated(format!(
                "{what} would end at {end}, and the file has {} bytes",
                self.size
            ))),
            _ => Err(Refusal::damaged(format!("{what} is said to begin at {offset}, where it cannot be"))),
        }
    }

    /// That of a disk without bytes has none.
    fn holds_l1(&self, what: &str, table: Table) -> Result<(), Refusal> {
        if table.bytes == 0 { Ok(()) } else { self.holds(what, table, MAX_L1) }
    }

    /// The L1 tables of so many snapshots, whose own table begins there. No two share bytes, so together they fit the file.
    fn snapshots(&self, (count, at): (u32, u64), source: &mut dyn Source) -> Result<Vec<Table>, Refusal> {
        let what = "its table of snapshots";
        let (mut tables, mut together) = (Vec::new(), 0);
        if count > MAX_SNAPSHOTS {
            return Err(Refusal::damaged(format!("it is said to hold {count} snapshots")));
        }
        let mut table = Table { offset: at, bytes: 0 };
        for _ in 0..count {
            let entry_at = at + table.bytes;
            table.bytes += SNAPSHOT as u64;
            self.holds(what, table, u64::MAX)?;
            let mut entry = [0; SNAPSHOT];
            source.read_at(entry_at, &mut entry).map_err(|e| Refusal::unreadable(&e))?;
            let l1 = Table { offset: u64_at(&entry, 0)?, bytes: u64::from(u32_at(&entry, 8)?) * 8 };
            self.holds_l1("the L1 table of a snapshot", l1)?;
            together += l1.bytes;
            if together > self.size {
                return Err(Refusal::damaged(format!(
                    "the L1 tables of its snapshots are said to have {together} bytes, and the file has {}",
                    self.size
                )));
            }
            tables.push(l1);
            let names = u64::from(u16_at(&entry, 12)?) + u64::from(u16_at(&entry, 14)?);
            table.bytes += names + u64::from(u32_at(&entry, 36)?);
            self.holds(what, table, u64::MAX)?;
            table.bytes = table.bytes.next_multiple_of(8);
        }
        Ok(tables)
    }

    /// A whole cluster of tables that an entry points to.
    fn cluster_at(&self, what: &str, offset: u64, clean: bool) -> Result<(), Refusal> {
        match (offset, clean) {
            (0, true) => Ok(()),
            (_, false) => Err(Refusal::damaged(format!("an entry for {what} has bits that mean nothing"))),
            _ => self.holds(what, Table { offset, bytes: self.cluster }, u64::MAX),
        }
    }

    /// Data of the guest that an entry of an L2 table points to. A file may end in its last cluster: the rest of that is zero.
    fn data(&self, entry: u64, cluster_bits: u32) -> Result<(), Refusal> {
        let offset = match entry & COMPRESSED {
            0 => entry & OFFSET,
            _ => entry & ((1 << (62 - (cluster_bits - 8))) - 1),
        };
        if offset == 0 {
            return Ok(());
        }
        if entry & COMPRESSED == 0 && offset % self.cluster != 0 {
            return Err(Refusal::damaged(format!(
                "data are said to be at {offset}, which is no beginning of a cluster"
            )));
        }
        if offset < self.cluster {
            return Err(Refusal::damaged(format!("data are said to be at {offset}, in its header")));
        }
        if offset >= self.size {
            return Err(Refusal::truncated(format!(
                "data would be at {offset}, and the file has {} bytes",
                self.size
            )));
        }
        Ok(())
    }
}

/// The numbers of a table that lies in the file.
fn entries(source: &mut dyn Source, table: Table) -> Result<Vec<u64>, Refusal> {
    let mut bytes = vec![0; usize::try_from(table.bytes).unwrap_or_default()];
    source.read_at(table.offset, &mut bytes).map_err(|e| Refusal::unreadable(&e))?;
    Ok(bytes.as_chunks().0.iter().map(|b| u64::from_be_bytes(*b)).collect())
}

fn backing_file() -> Refusal {
    let message = "it is an overlay of another file, which a host would read in its place; make it whole with `qemu-img convert -O qcow2 FILE WHOLE`";
    Refusal::new(Why::BackingFile, message)
}

fn data_file() -> Refusal {
    let message = "it keeps its data in another file, which a host would read in its place; make it whole with `qemu-img convert -O qcow2 FILE WHOLE`";
    Refusal::new(Why::DataFile, message)
}

fn encrypted() -> Refusal {
    let message = "it is encrypted, and no host has its key; make a plain one with `qemu-img convert -O qcow2 FILE PLAIN`";
    Refusal::new(Why::Encrypted, message)
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], Refusal> {
    let found = bytes.get(at..).and_then(|b| b.first_chunk());
    found.copied().ok_or_else(|| Refusal::truncated("its header is not whole"))
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16, Refusal> {
    field(bytes, at).map(u16::from_be_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, Refusal> {
    field(bytes, at).map(u32::from_be_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Result<u64, Refusal> {
    field(bytes, at).map(u64::from_be_bytes)
}
