//! Raw disks, ISO images, IOL programs, and what is none of them.

use netloom_image::Format;

use crate::made::{qcow2, reason, told, told_in};

fn format(bytes: &[u8]) -> Format {
    told(bytes).unwrap_or_else(|e| panic!("{e}")).format
}

/// A disk of 1 MiB with one partition of this many sectors.
fn mbr(sectors: u32) -> Vec<u8> {
    let mut disk = vec![0; 1 << 20];
    disk[446 + 4] = 0x83;
    disk[446 + 8..446 + 12].copy_from_slice(&8u32.to_le_bytes());
    disk[446 + 12..446 + 16].copy_from_slice(&sectors.to_le_bytes());
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk
}

fn gpt(last: u64) -> Vec<u8> {
    let mut disk = mbr(0);
    disk[446 + 4] = 0xee;
    disk[512..520].copy_from_slice(b"EFI PART");
    disk[512 + 32..512 + 40].copy_from_slice(&last.to_le_bytes());
    disk
}

fn iso(blocks: u32) -> Vec<u8> {
    let mut image = vec![0; 64 << 10];
    image[32_769..32_774].copy_from_slice(b"CD001");
    image[32_768 + 80..32_768 + 84].copy_from_slice(&blocks.to_le_bytes());
    image[32_768 + 128..32_768 + 130].copy_from_slice(&2048u16.to_le_bytes());
    image
}

#[test]
fn a_disk_with_partitions_is_raw_and_has_to_hold_them() {
    assert_eq!(format(&mbr(2040)), Format::Raw);
    assert_eq!(reason(&mbr(2041)), "IMAGE_TRUNCATED");
    assert_eq!(format(&gpt(2047)), Format::Raw);
    assert_eq!(reason(&gpt(2048)), "IMAGE_TRUNCATED");
    let mut boot_sector = mbr(u32::MAX);
    boot_sector[446] = b'N';
    assert_eq!(format(&boot_sector), Format::Raw, "a file system, whose code is no table");
}

#[test]
fn an_iso_is_one_and_has_to_be_whole() {
    assert_eq!(format(&iso(32)), Format::Iso);
    assert_eq!(reason(&iso(33)), "IMAGE_TRUNCATED");
    let mut bootable = iso(32);
    bootable[510..512].copy_from_slice(&[0x55, 0xaa]);
    assert_eq!(format(&bootable), Format::Iso, "also one that boots from a disk");
}

#[test]
fn a_program_is_iol_by_its_mark_wherever_that_lies() {
    for (mark, length) in [("I86BI_LINUX-ADVENTERPRISEK9-M", 200_000), ("X86_64BI_LINUX-L2", 50)] {
        for at in [20, length] {
            let mut program = b"\x7fELF".to_vec();
            program.resize(at, 0);
            program.extend_from_slice(mark.as_bytes());
            for piece in [1, 7, 36_000, 1 << 20] {
                let told = told_in(&program, piece, None).unwrap_or_else(|e| panic!("{e}"));
                assert_eq!(told.format, Format::Iol, "{mark} at {at} in pieces of {piece}");
            }
        }
    }
    let plain = b"\x7fELF plain".repeat(100);
    assert_eq!(reason(&plain), "IMAGE_FORMAT_UNKNOWN");
    assert_eq!(told_in(&plain, 10, Some(Format::Iol)).map(|f| f.format), Ok(Format::Iol), "when it is said");
}

#[test]
fn only_what_is_left_can_be_said_to_be_raw() {
    let zeros = vec![0; 4096];
    assert_eq!(reason(&zeros), "IMAGE_FORMAT_UNKNOWN");
    assert_eq!(told_in(&zeros, 100, Some(Format::Raw)).map(|f| f.format), Ok(Format::Raw));
    // As raw, a qcow2 disk would be what its guest writes over: and its header then names any file of the host.
    let refused = told_in(&qcow2(), 100, Some(Format::Raw)).map_err(|e| e.why.reason());
    assert_eq!(refused, Err("IMAGE_FORMAT_OTHER"));
    let refused = told_in(&zeros, 100, Some(Format::Qcow2)).map_err(|e| e.why.reason());
    assert_eq!(refused, Err("IMAGE_FORMAT_OTHER"));
}

#[test]
fn what_is_packed_or_of_another_kind_says_how_to_convert_it() {
    assert_eq!(reason(b""), "IMAGE_TRUNCATED");
    for magic in [
        &b"\x1f\x8b\x08"[..],
        b"\xfd7zXZ\0",
        b"\x28\xb5\x2f\xfd",
        b"BZh9",
        b"PK\x03\x04",
        b"KDMV",
        b"vhdxfile",
    ] {
        let bytes = magic.repeat(100);
        assert_eq!(reason(&bytes), "IMAGE_NOT_SUPPORTED", "{magic:?}");
    }
}
