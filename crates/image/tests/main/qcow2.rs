//! qcow2 disks: what is taken, and what is refused and why.

use std::process::Command;

use netloom_image::{Format, qcow2};
use proptest::prelude::*;

use crate::made::{put32, put64, qcow2 as disk, reason, told, told_in};

/// A disk as `qemu-img` makes it; none, said loudly, where that is not installed.
fn by_qemu(arguments: &[&str], write: bool) -> Option<Vec<u8>> {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("disk.qcow2");
    let base = directory.path().join("base.raw");
    std::fs::write(&base, vec![7u8; 1 << 20]).expect("written");
    let arguments = arguments.iter().map(|a| if *a == "BASE" { base.to_str().expect("text") } else { a });
    let mut command = Command::new("qemu-img");
    if write {
        command.args(["convert", "-f", "raw", "-O", "qcow2"]).args(arguments).arg(&base).arg(&file);
    } else {
        command.args(["create", "-f", "qcow2"]).args(arguments).arg(&file).arg("64M");
    }
    let Ok(output) = command.output() else {
        let test = std::thread::current().name().unwrap_or_default().to_owned();
        eprintln!("SKIPPED {test}: qemu-img is not installed");
        return None;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(std::fs::read(&file).expect("a disk"))
}

#[test]
fn what_qemu_makes_is_taken() {
    for arguments in [
        &["-o", "compat=1.1"][..],
        &["-o", "compat=0.10"],
        &["-o", "cluster_size=512"],
        &["-o", "cluster_size=2M"],
        &["-o", "preallocation=metadata"],
        &["-o", "extended_l2=on,cluster_size=128k"],
        &["-o", "refcount_bits=64"],
    ] {
        let Some(bytes) = by_qemu(arguments, false) else { return };
        let facts = told(&bytes).unwrap_or_else(|e| panic!("{arguments:?}: {e}"));
        assert_eq!((facts.format, facts.virtual_size), (Format::Qcow2, 64 << 20), "{arguments:?}");
    }
    for arguments in [&[][..], &["-c"], &["-c", "-o", "compression_type=zstd"], &["-o", "cluster_size=4k"]] {
        let Some(bytes) = by_qemu(arguments, true) else { return };
        let facts = told(&bytes).unwrap_or_else(|e| panic!("{arguments:?}: {e}"));
        assert_eq!(facts.virtual_size, 1 << 20, "{arguments:?}");
    }
}

#[test]
fn what_qemu_makes_of_other_files_is_refused_cve_2024_32498() {
    let Some(overlay) = by_qemu(&["-b", "BASE", "-F", "raw"], false) else { return };
    assert_eq!(reason(&overlay), "IMAGE_HAS_BACKING_FILE");
    let Some(outside) = by_qemu(&["-o", "data_file=/tmp/netloom-image-test-data"], false) else { return };
    let _ = std::fs::remove_file("/tmp/netloom-image-test-data");
    assert_eq!(reason(&outside), "IMAGE_HAS_DATA_FILE");
}

#[test]
fn a_disk_that_was_cut_off_is_refused() {
    let Some(whole) = by_qemu(&["-o", "cluster_size=4k"], true) else { return };
    for length in [4, 40, 100, 4096, 8192, whole.len() / 2, whole.len() - 8192] {
        assert_eq!(reason(&whole[..length]), "IMAGE_TRUNCATED", "after {length} of {}", whole.len());
    }
}

type Change = fn(&mut Vec<u8>);

#[test]
fn each_fault_has_its_reason() {
    assert_eq!(told(&disk()).map(|f| f.virtual_size), Ok(1 << 30), "without a fault");
    let table: [(&str, &str, Change); 26] = [
        ("an old version", "IMAGE_NOT_SUPPORTED", |d| put32(d, 4, 1)),
        ("a backing file", "IMAGE_HAS_BACKING_FILE", |d| put64(d, 8, 512)),
        ("the length of a backing file's name alone", "IMAGE_HAS_BACKING_FILE", |d| put32(d, 16, 9)),
        ("an external data file", "IMAGE_HAS_DATA_FILE", |d| put64(d, 72, 4)),
        ("the name of a data file without the feature", "IMAGE_HAS_DATA_FILE", |d| {
            put32(d, 104, 0x4441_5441);
            put32(d, 108, 8);
        }),
        ("the name of a data file behind another extension", "IMAGE_HAS_DATA_FILE", |d| {
            put32(d, 104, 0x6803_f857);
            put32(d, 108, 3);
            put32(d, 120, 0x4441_5441);
            put32(d, 124, 8);
        }),
        ("an encrypted disk", "IMAGE_ENCRYPTED", |d| put32(d, 32, 2)),
        ("a header of encryption", "IMAGE_ENCRYPTED", |d| put32(d, 104, 0x0537_be77)),
        ("a corrupt disk", "IMAGE_DAMAGED", |d| put64(d, 72, 2)),
        ("a dirty disk", "IMAGE_DAMAGED", |d| put64(d, 72, 1)),
        ("an unknown feature", "IMAGE_NOT_SUPPORTED", |d| put64(d, 72, 1 << 40)),
        ("small clusters", "IMAGE_DAMAGED", |d| put32(d, 20, 8)),
        ("large clusters", "IMAGE_DAMAGED", |d| put32(d, 20, 22)),
        ("clusters of a shift that is too large", "IMAGE_DAMAGED", |d| put32(d, 20, u32::MAX)),
        ("wide refcounts", "IMAGE_DAMAGED", |d| put32(d, 96, 7)),
        ("a short header", "IMAGE_DAMAGED", |d| put32(d, 100, 8)),
        ("a long header", "IMAGE_DAMAGED", |d| put32(d, 100, 1 << 20)),
        ("an extension that is too long", "IMAGE_DAMAGED", |d| {
            put32(d, 104, 1);
            put32(d, 108, u32::MAX);
        }),
        ("an L1 table outside", "IMAGE_TRUNCATED", |d| put64(d, 40, 1 << 40)),
        ("an L1 table at the end of all numbers", "IMAGE_DAMAGED", |d| put64(d, 40, !0xffff)),
        ("an L1 table that is not aligned", "IMAGE_DAMAGED", |d| put64(d, 40, 0x3_0008)),
        ("an L1 table that is too long", "IMAGE_DAMAGED", |d| put32(d, 36, u32::MAX)),
        ("an L1 table that is too short", "IMAGE_DAMAGED", |d| put64(d, 24, 1 << 50)),
        ("refcounts outside", "IMAGE_TRUNCATED", |d| put64(d, 48, 1 << 30)),
        ("a block of refcounts outside", "IMAGE_TRUNCATED", |d| put64(d, 0x1_0000, 1 << 30)),
        ("snapshots outside", "IMAGE_TRUNCATED", |d| {
            put32(d, 60, 1);
            put64(d, 64, 1 << 30);
        }),
    ];
    for (what, expected, change) in table {
        let mut changed = disk();
        change(&mut changed);
        assert_eq!(reason(&changed), expected, "{what}");
    }
}

#[test]
fn entries_that_lead_outside_are_refused() {
    let mut disk = disk();
    disk.resize(6 * 65_536, 0);
    put64(&mut disk, 0x3_0000, 0x4_0000 | 1 << 63);
    assert!(told(&disk).is_ok(), "an empty L2 table");
    put64(&mut disk, 0x4_0000, 0x5_0000 | 1 << 63);
    assert!(told(&disk).is_ok(), "data in the last cluster");
    for (what, entry, expected) in [
        ("data outside", 0x6_0000u64 | 1 << 63, "IMAGE_TRUNCATED"),
        ("data that are not aligned", 0x5_0200, "IMAGE_DAMAGED"),
        ("data in the header", 0x8000 | 1 << 62, "IMAGE_DAMAGED"),
        ("compressed data outside", 0x6_0000 | 1 << 62, "IMAGE_TRUNCATED"),
    ] {
        put64(&mut disk, 0x4_0000, entry);
        assert_eq!(reason(&disk), expected, "{what}");
    }
    put64(&mut disk, 0x4_0000, 0);
    put64(&mut disk, 0x3_0008, 0x4_0000);
    assert_eq!(reason(&disk), "IMAGE_DAMAGED", "two entries for one table");
    put64(&mut disk, 0x3_0008, 1 << 40);
    assert_eq!(reason(&disk), "IMAGE_TRUNCATED", "a table outside");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever bytes say, they are answered, and what is taken names no other file.
    #[test]
    fn any_header_is_answered(changes in prop::collection::vec((0usize..256, any::<u8>()), 0..24)) {
        let mut disk = disk();
        for (at, byte) in changes {
            disk[at] = byte;
        }
        if let Ok(header) = qcow2::check(&disk, disk.len() as u64, &mut disk.as_slice()) {
            prop_assert_eq!(&disk[8..20], &[0; 12]);
            prop_assert!((9..=21).contains(&header.cluster_bits));
        }
    }

    /// However the bytes are cut when they come, what is told is the same.
    #[test]
    fn the_pieces_do_not_matter(piece in 1usize..70_000, cut in 0usize..262_144) {
        let disk = disk();
        let part = &disk[..cut];
        prop_assert_eq!(told_in(part, piece, None), told(part));
    }

    #[test]
    fn any_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..2048), magic in any::<bool>()) {
        let mut bytes = bytes;
        if magic {
            bytes.splice(0..0, qcow2::MAGIC);
        }
        let _ = told(&bytes);
    }
}
