//! Images on this host's disk.
//!
//! | path below `<data-dir>/images` | what |
//! |---|---|
//! | `<sha256>` | a whole image, mode 0444, never written to |
//! | `parts/<sha256>` | bytes on their way in |
//! | `seen/<sha256>` | which file was compared with its digest; its own modification time says when the image was last asked for |
//! | `checked/<sha256>` | its modification time says when the image was last read from the disk and compared |
//! | `quarantine/<sha256>` | what was found to be something else: nothing begins to use it, and it stays for as long as disks of machines lie on it |
//!
//! An image comes to be by a rename of a file that was synced: it is there whole or not at all. A file that is not the one that was compared last, by its inode, size
//! and modification time, is read and compared again before anybody is told that it is there. All of this blocks.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use netloom_model::id::Digest;
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

/// Bytes that are read at once.
pub(super) const PIECE: usize = 1 << 20;
const PARTS: &str = "parts";
const SEEN: &str = "seen";
pub(super) const QUARANTINE: &str = "quarantine";
pub(super) const CHECKED: &str = "checked";
/// Offsets in the header of a qcow2 overlay: where the name of the file below it stands, and how long that is.
const BACKING_NAME: usize = 8;
const BACKING_LENGTH: usize = 16;
const LONGEST_NAME: usize = 1023;

/// See the module.
#[derive(Debug)]
pub struct Shelf {
    images: PathBuf,
    instances: PathBuf,
    /// How many were set aside.
    pub(super) aside: watch::Sender<u64>,
}

impl Shelf {
    /// In this data directory.
    pub fn open(data_dir: &Path) -> io::Result<Shelf> {
        let (images, instances) = (data_dir.join("images"), data_dir.join("instances"));
        let shelf = Shelf { images, instances, aside: watch::channel(0).0 };
        for part in [PARTS, SEEN, QUARANTINE, CHECKED] {
            fs::create_dir_all(shelf.images.join(part))?;
        }
        Ok(shelf)
    }

    /// Where it is.
    pub fn dir(&self) -> &Path {
        &self.images
    }

    /// The file of an image.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.images.join(hex(digest))
    }

    pub(super) fn at(&self, part: &str, digest: &Digest) -> PathBuf {
        self.images.join(part).join(hex(digest))
    }

    /// Room on the disk, in bytes.
    pub fn room(&self) -> io::Result<u64> {
        let stat = nix::sys::statvfs::statvfs(&self.images)?;
        Ok(stat.blocks_available().saturating_mul(stat.fragment_size()))
    }

    /// Size of an image that is here, and is what its digest says. Something else in its place is set aside.
    pub fn look(&self, digest: &Digest) -> io::Result<Option<u64>> {
        loop {
            let Some(mark) = mark(&self.path(digest))? else { return Ok(None) };
            let seen = self.at(SEEN, digest);
            if fs::read_to_string(&seen).is_ok_and(|text| text == mark.text) {
                File::options().write(true).open(&seen)?.set_modified(SystemTime::now())?;
                return Ok(Some(mark.size));
            }
            let mut hash = Sha256::new();
            each_piece(File::open(self.path(digest))?, |piece| hash.update(piece))?;
            if self::mark(&self.path(digest))?.is_none_or(|now| now.text != mark.text) {
                continue;
            }
            if digest_of(hash) == *digest {
                self.saw(digest, &mark)?;
                return Ok(Some(mark.size));
            }
            self.set_aside(digest)?;
        }
    }

    fn saw(&self, digest: &Digest, mark: &Mark) -> io::Result<()> {
        fs::set_permissions(self.path(digest), Permissions::from_mode(0o444))?;
        fs::write(self.at(SEEN, digest), &mark.text)
    }

    /// Goes on with an image that was being fetched, or begins. What is there already is read again.
    pub fn part(&self, digest: &Digest) -> io::Result<Part> {
        let path = self.at(PARTS, digest);
        let file = OpenOptions::new().create(true).append(true).read(true).mode(0o600).open(path)?;
        let (mut offset, mut hash) = (0, Sha256::new());
        each_piece(file.try_clone()?, |piece| {
            offset += piece.len() as u64;
            hash.update(piece);
        })?;
        Ok(Part { file, offset, hash })
    }

    /// Gives up what came of an image.
    pub fn drop_part(&self, digest: &Digest) -> io::Result<()> {
        gone(fs::remove_file(self.at(PARTS, digest)))
    }

    /// Makes what came the image; false, and nothing is left of it, when it is something else.
    pub fn keep(&self, part: Part, digest: &Digest) -> io::Result<bool> {
        if digest_of(part.hash) != *digest {
            self.drop_part(digest)?;
            return Ok(false);
        }
        part.file.set_permissions(Permissions::from_mode(0o444))?;
        part.file.sync_all()?;
        fs::rename(self.at(PARTS, digest), self.path(digest))?;
        File::open(&self.images)?.sync_all()?;
        if let Some(mark) = mark(&self.path(digest))? {
            self.saw(digest, &mark)?;
        }
        Ok(true)
    }

    /// Removes an image.
    pub fn remove(&self, digest: &Digest) -> io::Result<()> {
        gone(fs::remove_file(self.path(digest)))?;
        gone(fs::remove_file(self.at(CHECKED, digest)))?;
        gone(fs::remove_file(self.at(SEEN, digest)))
    }

    /// Removes what nothing needs, and answers what that was: images that are not among these, that no machine's disk lies on, and that nobody asked for in this time; and
    /// what was set aside, or came of an image in part, and is that old. What disks lie on stays also where it was set aside: it is the last there is of them.
    pub fn collect(&self, needed: &BTreeSet<Digest>, keep: Duration) -> io::Result<Vec<Digest>> {
        let below = self.below_disks()?;
        let mut removed = Vec::new();
        for digest in digests(&self.images)? {
            let asked = modified(&self.at(SEEN, &digest)).or_else(|| modified(&self.path(&digest)));
            if is_older(asked, keep) && !needed.contains(&digest) && !below.contains(hex(&digest)) {
                self.remove(&digest)?;
                removed.push(digest);
            }
        }
        for part in [PARTS, QUARANTINE] {
            for digest in digests(&self.images.join(part))? {
                let path = self.at(part, &digest);
                let is_kept = match part {
                    PARTS => needed.contains(&digest),
                    _ => below.contains(hex(&digest)),
                };
                if is_older(modified(&path), keep) && !is_kept {
                    gone(fs::remove_file(path))?;
                    removed.push(digest);
                }
            }
        }
        Ok(removed)
    }

    /// Names of the files that the disks of machines lie on.
    fn below_disks(&self) -> io::Result<BTreeSet<String>> {
        Ok(self.disks()?.into_iter().map(|(_, below)| below).collect())
    }

    /// The disks of machines that lie on something: each as the name of the machine's directory, and of what is below.
    pub(super) fn disks(&self) -> io::Result<Vec<(String, String)>> {
        let mut found = Vec::new();
        let machines = match fs::read_dir(&self.instances) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(found),
            other => other?,
        };
        for machine in machines {
            let machine = machine?;
            let name = machine.file_name().to_string_lossy().into_owned();
            match fs::read_dir(machine.path()) {
                Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
                disks => {
                    for disk in disks? {
                        found.extend(below(&disk?.path())?.map(|below| (name.clone(), below)));
                    }
                }
            }
        }
        Ok(found)
    }

    /// True when an image was not compared on the disk for so long. One that came since was compared as it came.
    pub fn is_due(&self, digest: &Digest, every: Duration) -> bool {
        let last = modified(&self.at(CHECKED, digest)).max(modified(&self.path(digest)));
        is_older(last, every)
    }
}

/// Bytes of an image on their way in: written and hashed as they come.
pub struct Part {
    file: File,
    offset: u64,
    hash: Sha256,
}

impl Part {
    /// How many came.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Takes the next bytes. After an error what came is what the file has.
    pub fn take(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.hash.update(bytes);
        self.offset += bytes.len() as u64;
        Ok(())
    }
}

/// What tells a file from what it was.
pub(super) struct Mark {
    pub(super) text: String,
    pub(super) size: u64,
}

pub(super) fn mark(path: &Path) -> io::Result<Option<Mark>> {
    match fs::metadata(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
        Ok(m) => {
            let text = format!("{} {} {}.{:09}", m.ino(), m.len(), m.mtime(), m.mtime_nsec());
            Ok(Some(Mark { text, size: m.len() }))
        }
    }
}

/// The name of the file that a qcow2 file lies on, without its directory; none where there is no such file.
pub fn below(disk: &Path) -> io::Result<Option<String>> {
    let mut head = Vec::new();
    match File::open(disk) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        file => file?
            .take(PIECE as u64)
            .read_to_end(&mut head)
            .or_else(|e| if e.kind() == ErrorKind::IsADirectory { Ok(0) } else { Err(e) })?,
    };
    let number = |at: usize, bytes: usize| {
        let digits = head.get(at..at + bytes)?;
        Some(digits.iter().fold(0usize, |n, b| n << 8 | usize::from(*b)))
    };
    let name = || {
        let (at, length) = (number(BACKING_NAME, 8)?, number(BACKING_LENGTH, 4)?);
        let name = head.get(at..at.checked_add(length.min(LONGEST_NAME))?)?;
        let path = Path::new(std::str::from_utf8(name).ok()?);
        Some(path.file_name()?.to_str()?.to_owned())
    };
    Ok(head.starts_with(b"QFI\xfb").then(name).flatten())
}

fn hex(digest: &Digest) -> &str {
    &digest.as_str()["sha256:".len()..]
}

pub(super) fn digest_of(hash: Sha256) -> Digest {
    let hex: String = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
    Digest::try_from(format!("sha256:{hex}")).expect("a digest")
}

pub(super) fn digests(dir: &Path) -> io::Result<Vec<Digest>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        found.extend(Digest::try_from(format!("sha256:{}", name.to_string_lossy())));
    }
    Ok(found)
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|m| m.modified()).ok()
}

/// What has no time is left alone.
fn is_older(time: Option<SystemTime>, age: Duration) -> bool {
    time.and_then(|t| t.elapsed().ok()).is_some_and(|since| since >= age)
}

fn each_piece(mut file: File, mut take: impl FnMut(&[u8])) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    loop {
        match file.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(n) => take(&piece[..n]),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

pub(super) fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(shelf: &Shelf, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        let mut part = shelf.part(&digest).unwrap();
        part.take(bytes).unwrap();
        assert!(shelf.keep(part, &digest).unwrap());
        digest
    }

    /// A qcow2 header that names a file below it.
    fn overlay(on: &Path) -> Vec<u8> {
        let name = on.to_str().unwrap();
        let mut head = vec![0; 512];
        head[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
        head[8..16].copy_from_slice(&512u64.to_be_bytes());
        head[16..20].copy_from_slice(&u32::try_from(name.len()).unwrap().to_be_bytes());
        head.extend_from_slice(name.as_bytes());
        head
    }

    #[test]
    fn what_came_in_part_goes_on_and_is_kept_only_when_it_is_right() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = Shelf::open(dir.path()).unwrap();
        let digest = Digest::of(b"half and half");
        shelf.part(&digest).unwrap().take(b"half and").unwrap();
        assert_eq!(shelf.look(&digest).unwrap(), None);
        let mut part = shelf.part(&digest).unwrap();
        assert_eq!(part.offset(), 8);
        part.take(b" half").unwrap();
        assert!(shelf.keep(part, &digest).unwrap());
        assert_eq!(shelf.look(&digest).unwrap(), Some(13));
        assert_eq!(fs::metadata(shelf.path(&digest)).unwrap().mode() & 0o777, 0o444);

        let other = Digest::of(b"other");
        let mut part = shelf.part(&other).unwrap();
        part.take(b"wrong").unwrap();
        assert!(!shelf.keep(part, &other).unwrap());
        assert_eq!((shelf.look(&other).unwrap(), shelf.part(&other).unwrap().offset()), (None, 0));
    }

    #[test]
    fn what_was_written_over_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = Shelf::open(dir.path()).unwrap();
        let digest = put(&shelf, b"a disk");
        fs::set_permissions(shelf.path(&digest), Permissions::from_mode(0o644)).unwrap();
        fs::write(shelf.path(&digest), b"a dusk").unwrap();
        assert_eq!(shelf.look(&digest).unwrap(), None);
        assert_eq!(fs::read(shelf.at(QUARANTINE, &digest)).unwrap(), b"a dusk");
        // One that somebody put there is compared too.
        fs::write(shelf.path(&digest), b"a disk").unwrap();
        assert_eq!(shelf.look(&digest).unwrap(), Some(6));
    }

    #[test]
    fn only_what_nothing_needs_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = Shelf::open(dir.path()).unwrap();
        let [named, lies_below, unused] = [b"1", b"2", b"3"].map(|bytes| put(&shelf, bytes));
        let machine = dir.path().join("instances/m");
        fs::create_dir_all(machine.join("console")).unwrap();
        fs::write(machine.join("disk.qcow2"), overlay(&shelf.path(&lies_below))).unwrap();
        let needed = BTreeSet::from([named.clone()]);
        assert_eq!(shelf.collect(&needed, Duration::from_secs(60)).unwrap(), [], "it was asked for just now");
        shelf.part(&unused).unwrap().take(b"x").unwrap();
        assert_eq!(shelf.collect(&needed, Duration::ZERO).unwrap(), [unused.clone(), unused]);
        let left: BTreeSet<Digest> = digests(&shelf.images).unwrap().into_iter().collect();
        assert_eq!(left, BTreeSet::from([named.clone(), lies_below.clone()]));
        // What was set aside goes, and what a disk lies on does not.
        shelf.set_aside(&named).unwrap();
        shelf.set_aside(&lies_below).unwrap();
        assert_eq!(shelf.collect(&BTreeSet::new(), Duration::ZERO).unwrap(), [named]);
        assert_eq!(shelf.lost().unwrap(), [lies_below]);
    }
}
