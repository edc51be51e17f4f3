//! qcow2 disks: what is taken, and what is refused and why.

use std::io::Write as _;
use std::process::Command;

use netloom_image::{Format, qcow2};
use proptest::prelude::*;

use crate::made::{put32, put64, qcow2 as disk, reason, told, told_in};
use crate::names;

/// A disk as `qemu-img` makes it. Where that is not installed, says that the test is skipped, or fails if NETLOOM_REQUIRE names libvirt.
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
        let required = std::env::var("NETLOOM_REQUIRE").unwrap_or_default();
        assert!(
            !required.split(',').any(|facility| facility.trim() == "libvirt"),
            "{test} needs libvirt: qemu-img is not installed"
        );
        // Not eprintln!: the test runner swallows that for a test that passes.
        let _ = writeln!(std::io::stderr(), "SKIPPED {test}: qemu-img is not installed");
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
fn snapshots_and_bitmaps_are_taken_with_their_disk() {
    let Some(bytes) = by_qemu(&[], false) else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("disk.qcow2");
    std::fs::write(&file, bytes).expect("written");
    for arguments in [&["snapshot", "-c", "one"][..], &["snapshot", "-c", "another"], &["bitmap", "--add"]] {
        let bitmap = if arguments[0] == "bitmap" { &["changed"][..] } else { &[] };
        let output =
            Command::new("qemu-img").args(arguments).arg(&file).args(bitmap).output().expect("qemu-img");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let bytes = std::fs::read(&file).expect("a disk");
        assert_eq!(told(&bytes).map(|facts| facts.virtual_size), Ok(64 << 20), "{arguments:?}");
    }
    let whole = std::fs::read(&file).expect("a disk");
    assert_eq!((whole[63], whole[95]), (2, 1), "two snapshots, and bitmaps");
    // What a snapshot alone holds is there too: what a guest wrote after it is elsewhere.
    let Some(written) = by_qemu(&[], true) else { return };
    std::fs::write(&file, written).expect("written");
    for arguments in [&["snapshot", "-c", "full"][..], &["resize", "+1M"], &["snapshot", "-c", "larger"]] {
        let more = if arguments[0] == "resize" { &arguments[1..] } else { &[] };
        let before = &arguments[..arguments.len() - more.len()];
        let output = Command::new("qemu-img").args(before).arg(&file).args(more).output().expect("qemu-img");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let bytes = std::fs::read(&file).expect("a disk");
    assert_eq!(told(&bytes).map(|facts| facts.virtual_size), Ok(2 << 20));
    let mut disk = self::disk();
    snapshot(&mut disk, 0x3_0000, 2, 24);
    bitmaps(&mut disk, 0x3_0000, 32);
    assert_eq!(told(&disk).map(|facts| facts.virtual_size), Ok(1 << 30));
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

/// Adds a snapshot whose L1 table begins there and has so many entries, with so much else said of it.
fn snapshot(disk: &mut Vec<u8>, l1: u64, entries: u32, more: u32) {
    let at = disk.len();
    disk.resize(at + 65_536, 0);
    put32(disk, 60, 1);
    put64(disk, 64, at as u64);
    put64(disk, at, l1);
    put32(disk, at + 8, entries);
    put32(disk, at + 36, more);
}

/// Adds bitmaps, whose directory begins there and has so many bytes.
fn bitmaps(disk: &mut [u8], directory: u64, bytes: u64) {
    put32(disk, 104, 0x2385_2875);
    put32(disk, 108, 24);
    put32(disk, 112, 1);
    put64(disk, 120, bytes);
    put64(disk, 128, directory);
}

#[test]
fn each_fault_has_its_reason() {
    assert_eq!(told(&disk()).map(|f| f.virtual_size), Ok(1 << 30), "without a fault");
    let table: [(&str, &str, Change); 34] = [
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
        ("no refcounts", "IMAGE_DAMAGED", |d| put32(d, 56, 0)),
        ("refcounts outside", "IMAGE_TRUNCATED", |d| put64(d, 48, 1 << 30)),
        ("a block of refcounts outside", "IMAGE_TRUNCATED", |d| put64(d, 0x1_0000, 1 << 30)),
        ("snapshots outside", "IMAGE_TRUNCATED", |d| {
            put32(d, 60, 1);
            put64(d, 64, 1 << 30);
        }),
        ("too many snapshots", "IMAGE_DAMAGED", |d| put32(d, 60, u32::MAX)),
        ("a snapshot's L1 table outside", "IMAGE_TRUNCATED", |d| snapshot(d, 1 << 40, 2, 0)),
        ("a snapshot's L1 table that is not aligned", "IMAGE_DAMAGED", |d| snapshot(d, 0x3_0008, 2, 0)),
        ("a snapshot's L1 table that is too long", "IMAGE_DAMAGED", |d| snapshot(d, 0x3_0000, u32::MAX, 0)),
        ("a snapshot's names outside", "IMAGE_TRUNCATED", |d| snapshot(d, 0x3_0000, 2, u32::MAX)),
        ("bitmaps outside", "IMAGE_TRUNCATED", |d| bitmaps(d, 1 << 40, 32)),
        ("bitmaps without a directory", "IMAGE_DAMAGED", |d| bitmaps(d, 0x3_0000, 0)),
    ];
    for (what, expected, change) in table {
        let mut changed = disk();
        change(&mut changed);
        assert_eq!(reason(&changed), expected, "{what}");
        let names_a_file = ["IMAGE_HAS_BACKING_FILE", "IMAGE_HAS_DATA_FILE"].contains(&expected);
        assert_eq!(names::another_file(&changed), names_a_file, "{what}");
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
    the_same_of_a_snapshot(disk.clone());
    put64(&mut disk, 0x4_0000, 0);
    put64(&mut disk, 0x3_0008, 0x4_0000);
    assert_eq!(reason(&disk), "IMAGE_DAMAGED", "two entries for one table");
    put64(&mut disk, 0x3_0008, 1 << 40);
    assert_eq!(reason(&disk), "IMAGE_TRUNCATED", "a table outside");
}

/// A disk without data of its own, which a snapshot has: a file that was cut off there breaks when a node goes back to it.
fn the_same_of_a_snapshot(mut disk: Vec<u8>) {
    let l1 = 0x6_0000;
    disk.resize(7 * 65_536, 0);
    snapshot(&mut disk, l1 as u64, 2, 0);
    disk.copy_within(0x3_0000..0x3_0010, l1);
    put64(&mut disk, 0x4_0000, 0x5_0000);
    assert!(told(&disk).is_ok(), "one L2 table of the disk and its snapshot");
    put64(&mut disk, 0x3_0000, 0);
    assert!(told(&disk).is_ok(), "one of the snapshot alone");
    for (what, entry, expected) in [
        ("data outside", 1u64 << 40, "IMAGE_TRUNCATED"),
        ("data that are not aligned", 0x5_0200, "IMAGE_DAMAGED"),
    ] {
        put64(&mut disk, 0x4_0000, entry);
        assert_eq!(reason(&disk), expected, "{what}");
    }
    put64(&mut disk, 0x4_0000, 0);
    put64(&mut disk, l1 + 8, 0x4_0000);
    assert_eq!(reason(&disk), "IMAGE_DAMAGED", "two entries for one table");
    put64(&mut disk, l1 + 8, 1 << 40);
    assert_eq!(reason(&disk), "IMAGE_TRUNCATED", "a table outside");
    put64(&mut disk, l1 + 8, 0);
    // As often as the table of snapshots takes it: the work stays bounded by the file.
    let entries = u32::try_from(disk.len() / 8 - l1 / 8).unwrap();
    let (table, count) = (7 * 65_536, 5);
    put32(&mut disk, 60, count);
    for n in 0..count as usize {
        put64(&mut disk, table + 40 * n, l1 as u64);
        put32(&mut disk, table + 40 * n + 8, entries);
    }
    assert_eq!(reason(&disk), "IMAGE_DAMAGED", "L1 tables that cannot all be in the file");
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
            prop_assert!(!names::another_file(&disk));
            prop_assert!((9..=21).contains(&header.cluster_bits));
        }
    }

    /// The same with a snapshot and tables that lead to data, wherever they say that those are.
    #[test]
    fn any_tables_are_answered(
        changes in prop::collection::vec((prop::sample::select(vec![0x3_0000usize, 0x4_0000, 0x6_0000, 0x7_0000]), 0usize..64, any::<u8>()), 0..24),
        count in 0u32..4,
    ) {
        let mut disk = disk();
        disk.resize(7 * 65_536, 0);
        snapshot(&mut disk, 0x6_0000, 2, 0);
        put32(&mut disk, 60, count);
        put64(&mut disk, 0x6_0000, 0x4_0000);
        put64(&mut disk, 0x4_0000, 0x5_0000);
        let about = 0x7_0000..0x7_000c;
        let said = disk[about.clone()].to_vec();
        for (table, at, byte) in changes {
            disk[table + at] = byte;
        }
        if told(&disk).is_ok() && count > 0 && disk[about] == said {
            // Of what was taken nothing that the snapshot has is outside.
            let entry = u64::from_be_bytes(disk[0x6_0000..0x6_0008].try_into().unwrap());
            prop_assert!(entry & 0x00ff_ffff_ffff_fe00 < disk.len() as u64);
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
