//! Images made for tests.

use netloom_image::{Facts, Format, Inspector, Refusal};

/// What these bytes are, given in pieces of this length.
pub fn told_in(bytes: &[u8], piece: usize, declared: Option<Format>) -> Result<Facts, Refusal> {
    let mut inspector = Inspector::new();
    for part in bytes.chunks(piece.max(1)) {
        inspector.push(part);
    }
    let mut source = bytes;
    inspector.finish(declared, &mut source)
}

/// What these bytes are.
pub fn told(bytes: &[u8]) -> Result<Facts, Refusal> {
    told_in(bytes, 100_000, None)
}

/// The reason for which these bytes are refused.
pub fn reason(bytes: &[u8]) -> &'static str {
    match told(bytes) {
        Ok(facts) => panic!("taken as {facts:?}"),
        Err(refusal) => {
            assert!(refusal.message.contains(';'), "a remedy: {refusal}");
            refusal.why.reason()
        }
    }
}

/// An empty qcow2 disk of version 3 with clusters of 64 KiB, of 1 GiB.
pub fn qcow2() -> Vec<u8> {
    let cluster = 65_536usize;
    let mut disk = vec![0; 4 * cluster];
    disk[..4].copy_from_slice(b"QFI\xfb");
    put32(&mut disk, 4, 3);
    put32(&mut disk, 20, 16);
    put64(&mut disk, 24, 1 << 30);
    put32(&mut disk, 36, 2);
    put64(&mut disk, 40, 3 * 65_536);
    put64(&mut disk, 48, 65_536);
    put32(&mut disk, 56, 1);
    put32(&mut disk, 96, 4);
    put32(&mut disk, 100, 104);
    // The table of refcounts has one block, which is not looked into.
    put64(&mut disk, cluster, 2 * 65_536);
    disk
}

pub fn put32(bytes: &mut [u8], at: usize, number: u32) {
    bytes[at..at + 4].copy_from_slice(&number.to_be_bytes());
}

pub fn put64(bytes: &mut [u8], at: usize, number: u64) {
    bytes[at..at + 8].copy_from_slice(&number.to_be_bytes());
}

/// A tar archive of these files.
pub fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (name, content) in files {
        archive.extend(header(name, content.len(), b'0'));
        archive.extend_from_slice(content);
        archive.resize(archive.len().next_multiple_of(512), 0);
    }
    archive.resize(archive.len() + 1024, 0);
    archive
}

pub fn header(name: &str, size: usize, kind: u8) -> [u8; 512] {
    let mut block = [0; 512];
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
    block[156] = kind;
    block[257..265].copy_from_slice(b"ustar\x0000");
    block[148..156].fill(b' ');
    let sum: u64 = block.iter().map(|b| u64::from(*b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}
