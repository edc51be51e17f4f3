//! Raw disks and ISO 9660 images: what their first sectors say, and whether the file is as long as they say.

use crate::Refusal;

const SECTOR: usize = 512;
const MBR_SIGNATURE: usize = 510;
const MBR_PARTITIONS: usize = 446;
const GPT_SIGNATURE: &[u8; 8] = b"EFI PART";
/// A partition of this type covers what a GPT describes.
const PROTECTIVE: u8 = 0xee;
/// The first volume descriptor, and the bytes of the head that are needed to read it.
const ISO_DESCRIPTOR: usize = 16 * 2048;
/// Bytes of a file's beginning that are enough to tell its format.
pub(crate) const HEAD: usize = ISO_DESCRIPTOR + 2048;

/// An ISO 9660 image: whether it is one, and whether it is whole.
pub(crate) fn iso(head: &[u8], size: u64) -> Option<Result<(), Refusal>> {
    let descriptor = head.get(ISO_DESCRIPTOR..)?;
    if descriptor.get(1..6)? != b"CD001" {
        return None;
    }
    let blocks = descriptor.get(80..)?.first_chunk().copied().map(u32::from_le_bytes)?;
    let block = descriptor.get(128..)?.first_chunk().copied().map(u16::from_le_bytes)?;
    let says = u64::from(blocks) * u64::from(block);
    Some(if says > size {
        Err(Refusal::truncated(format!("its volume has {says} bytes, and the file {size}")))
    } else {
        Ok(())
    })
}

/// A raw disk with a partition table: whether it is one, and whether it is whole.
pub(crate) fn partitioned(head: &[u8], size: u64) -> Option<Result<(), Refusal>> {
    for sector in [SECTOR, 4096] {
        if head.get(sector..sector + 8).is_some_and(|s| s == GPT_SIGNATURE) {
            let backup = head.get(sector + 32..)?.first_chunk().copied().map(u64::from_le_bytes)?;
            let says = (u128::from(backup) + 1) * sector as u128;
            return Some(if says > u128::from(size) {
                Err(Refusal::truncated(format!(
                    "its partition table describes {says} bytes, and the file has {size}"
                )))
            } else {
                Ok(())
            });
        }
    }
    if head.get(MBR_SIGNATURE..SECTOR)? != [0x55, 0xaa] {
        return None;
    }
    let table = head.get(MBR_PARTITIONS..MBR_SIGNATURE)?;
    let entries = table.as_chunks::<16>().0;
    // A file system without partitions ends its first sector in the same signature, with its own code in the place of the table.
    if entries.iter().any(|e| e[0] & 0x7f != 0) {
        return Some(Ok(()));
    }
    let end = |e: &[u8; 16]| {
        let number = |at: usize| u64::from(u32::from_le_bytes([e[at], e[at + 1], e[at + 2], e[at + 3]]));
        (number(8) + number(12)) * SECTOR as u64
    };
    let says = entries.iter().filter(|e| e[4] != 0 && e[4] != PROTECTIVE).map(end).max().unwrap_or_default();
    Some(if says > size {
        Err(Refusal::truncated(format!(
            "its partition table describes {says} bytes, and the file has {size}"
        )))
    } else {
        Ok(())
    })
}
