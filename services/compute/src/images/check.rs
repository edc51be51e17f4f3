//! Comparing what is kept of images with their digests, as it is on the disk: past the page cache, which would tell what was written and not what is there.
//!
//! What is something else when it was read twice is set aside, and nothing begins to use it any more. A machine that runs on it has it open and goes on; the overlay that lies on it says which image it
//! needs, and gets one that is right at its next start.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::SystemTime;

use netloom_model::id::{Digest, NodeUid};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::libc;
use sha2::{Digest as _, Sha256};

use super::shelf::{CHECKED, PIECE, QUARANTINE, Shelf, digest_of, digests, gone, mark};

/// What direct reads begin at, and are put at.
const ALIGNED: usize = 4096;

/// What came of comparing an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is what it should be.
    Right,
    /// It is not here.
    Absent,
    /// It was something else, and is set aside.
    SetAside,
    /// It cannot be read, and why.
    Unreadable(String),
}

/// An image that was compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// Its digest.
    pub digest: Digest,
    /// What came of it.
    pub outcome: Outcome,
    /// Its bytes; 0 where there is none.
    pub size_bytes: u64,
    /// Nodes whose disks lie on it.
    pub nodes: Vec<NodeUid>,
}

impl Shelf {
    /// Compares an image. `goes_on` is told how many bytes of how many were read, and none comes of it when that says no.
    pub fn check(
        &self,
        digest: &Digest,
        mut goes_on: impl FnMut(u64, u64) -> bool,
    ) -> io::Result<Option<Checked>> {
        let path = self.path(digest);
        let mut is_second = false;
        let (outcome, size_bytes) = loop {
            let Some(before) = mark(&path)? else { break (Outcome::Absent, 0) };
            let size = before.size;
            let mut hash = Sha256::new();
            let read = each_piece_on_disk(&path, |piece, at| {
                hash.update(piece);
                goes_on(at, size)
            });
            let is_right = digest_of(hash) == *digest;
            match read {
                Ok(false) => return Ok(None),
                // Another one may have come into its place.
                _ if mark(&path)?.is_none_or(|now| now.text != before.text) => is_second = false,
                Err(e) => break (Outcome::Unreadable(e.to_string()), size),
                Ok(true) if is_right => break (Outcome::Right, size),
                // Bits may turn on their way, too.
                Ok(true) if !is_second => is_second = true,
                Ok(true) => {
                    self.set_aside(digest)?;
                    break (Outcome::SetAside, size);
                }
            }
        };
        if outcome == Outcome::Right {
            fs::write(self.at(CHECKED, digest), "")?;
        }
        let nodes = match outcome {
            Outcome::Right | Outcome::Absent => Vec::new(),
            Outcome::SetAside | Outcome::Unreadable(_) => self.nodes_on(digest)?,
        };
        Ok(Some(Checked { digest: digest.clone(), outcome, size_bytes, nodes }))
    }

    /// Takes an image out of use that is something else.
    pub(super) fn set_aside(&self, digest: &Digest) -> io::Result<()> {
        tracing::error!(%digest, "an image on this host's disk is not what it was; it is set aside");
        gone(fs::remove_file(self.at(CHECKED, digest)))?;
        let aside = self.at(QUARANTINE, digest);
        fs::rename(self.path(digest), &aside)?;
        // From now on it has its time here.
        self.aside.send_modify(|count| *count += 1);
        File::open(&aside)?.set_modified(SystemTime::now())
    }

    /// Images that are here.
    pub fn kept(&self) -> io::Result<Vec<Digest>> {
        digests(self.dir())
    }

    /// Images that were set aside and are not here since.
    pub fn lost(&self) -> io::Result<Vec<Digest>> {
        let mut lost = digests(&self.dir().join(QUARANTINE))?;
        lost.retain(|digest| !self.path(digest).exists());
        lost.sort();
        Ok(lost)
    }

    /// The nodes whose disks lie on an image.
    fn nodes_on(&self, digest: &Digest) -> io::Result<Vec<NodeUid>> {
        let of = |(node, below): (String, String)| {
            (digest.as_str().strip_prefix("sha256:") == Some(&below)).then(|| node.parse().ok()).flatten()
        };
        let mut nodes: Vec<NodeUid> = self.disks()?.into_iter().filter_map(of).collect();
        nodes.sort();
        nodes.dedup();
        Ok(nodes)
    }
}

/// Reads a file from its disk, piece by piece, each with how far it is then. False when it was not to go on.
fn each_piece_on_disk(path: &Path, mut take: impl FnMut(&[u8], u64) -> bool) -> io::Result<bool> {
    let direct = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(path);
    let (mut file, mut is_direct) = match direct {
        Ok(file) => (file, true),
        Err(e) if e.kind() == ErrorKind::InvalidInput => (past_the_cache(path)?, false),
        Err(e) => return Err(e),
    };
    let mut buffer = vec![0; PIECE + ALIGNED];
    let begin = buffer.as_ptr().align_offset(ALIGNED);
    let piece = &mut buffer[begin..begin + PIECE];
    let mut at = 0;
    loop {
        match file.read_at(piece, at) {
            Ok(0) => return Ok(true),
            Ok(length) => {
                at += length as u64;
                if !take(&piece[..length], at) {
                    return Ok(false);
                }
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            // What opens is not always what takes reads, nor at the end of a file that is no multiple of a block.
            Err(e) if e.kind() == ErrorKind::InvalidInput && is_direct => {
                (file, is_direct) = (past_the_cache(path)?, false);
            }
            Err(e) => return Err(e),
        }
    }
}

/// A file of which the page cache holds nothing any more, where there is one that lets go.
fn past_the_cache(path: &Path) -> io::Result<File> {
    let file = File::open(path)?;
    let _ = posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn shelf() -> (tempfile::TempDir, Shelf) {
        let dir = tempfile::tempdir().unwrap();
        let shelf = Shelf::open(dir.path()).unwrap();
        (dir, shelf)
    }

    fn put(shelf: &Shelf, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        fs::write(shelf.path(&digest), bytes).unwrap();
        assert_eq!(shelf.look(&digest).unwrap(), Some(bytes.len() as u64));
        digest
    }

    fn check(shelf: &Shelf, digest: &Digest) -> Outcome {
        shelf.check(digest, |_, _| true).unwrap().unwrap().outcome
    }

    /// Turns one bit, and leaves size and times as they are: nothing tells of it but the bytes.
    fn turn_a_bit(path: &Path, at: u64) {
        let times = fs::metadata(path).unwrap().modified().unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
        let file = File::options().read(true).write(true).open(path).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 1], at).unwrap();
        file.sync_all().unwrap();
        file.set_modified(times).unwrap();
    }

    #[test]
    fn a_bit_that_turned_without_a_sign_is_found_and_its_image_set_aside() {
        let (_dir, shelf) = shelf();
        // Of several pieces, and of no whole blocks.
        let bytes: Vec<u8> = (0..2 * PIECE + 12_345).map(|n| (n / 7 % 251) as u8).collect();
        let (digest, other) = (put(&shelf, &bytes), put(&shelf, b"small"));
        assert_eq!([check(&shelf, &digest), check(&shelf, &other)], [Outcome::Right, Outcome::Right]);
        turn_a_bit(&shelf.path(&digest), PIECE as u64 + 1);
        assert_eq!(shelf.look(&digest).unwrap(), Some(bytes.len() as u64), "nothing else tells");
        let found = shelf.check(&digest, |_, _| true).unwrap().unwrap();
        assert_eq!((found.outcome, found.size_bytes), (Outcome::SetAside, bytes.len() as u64));
        assert_eq!((shelf.look(&digest).unwrap(), shelf.lost().unwrap()), (None, vec![digest.clone()]));
        assert_eq!(check(&shelf, &digest), Outcome::Absent);
        assert_eq!(check(&shelf, &other), Outcome::Right);
        put(&shelf, &bytes);
        assert_eq!((shelf.lost().unwrap(), check(&shelf, &digest)), (vec![], Outcome::Right));
    }

    #[test]
    fn what_cannot_be_read_is_told_and_stays() {
        let (_dir, shelf) = shelf();
        let digest = Digest::of(b"on a bad disk");
        // Its first byte is no part of this process: EIO.
        std::os::unix::fs::symlink("/proc/self/mem", shelf.path(&digest)).unwrap();
        let Outcome::Unreadable(why) = check(&shelf, &digest) else { panic!("it was read") };
        assert!(why.contains("Input/output error"), "{why}");
        assert_eq!((shelf.lost().unwrap(), shelf.kept().unwrap()), (vec![], vec![digest]));
    }

    #[test]
    fn it_does_not_go_on_when_it_is_not_to() {
        let (_dir, shelf) = shelf();
        let digest = put(&shelf, &vec![7; 3 * PIECE]);
        let mut told = Vec::new();
        let stopped = shelf.check(&digest, |at, of| {
            told.push((at, of));
            told.len() < 2
        });
        assert_eq!(stopped.unwrap(), None);
        let piece = PIECE as u64;
        assert_eq!(told, [(piece, 3 * piece), (2 * piece, 3 * piece)]);
    }
}
