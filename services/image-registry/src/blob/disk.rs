//! Writing a large file past the page cache.
//!
//! An image is written once and read much later, mostly by a guest that goes past the page cache itself. Through the cache it would be copied once more, push out what is
//! used, and have to be written out in one go at the end. Where the file system takes no direct writes, it goes through the cache.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use super::PIECE;

/// What direct writes begin and end at.
const ALIGNED: usize = 4096;

/// The end of a file that grows.
pub(super) struct Growing {
    file: File,
    direct: Option<File>,
    /// Where what waits belongs: a multiple of [`ALIGNED`] where the file is written directly.
    at: u64,
    waiting: Waiting,
}

impl Growing {
    /// Goes on at the end of a file with so many bytes.
    pub(super) fn at_end(path: &Path, file: File, length: u64) -> io::Result<Growing> {
        let direct = OpenOptions::new().write(true).custom_flags(nix::libc::O_DIRECT).open(path).ok();
        let before = usize::try_from(length % ALIGNED as u64).unwrap_or_default();
        let at = length - before as u64;
        let mut tail = vec![0; before];
        file.read_exact_at(&mut tail, at)?;
        Ok(Growing { file, direct, at, waiting: Waiting::with_room(ALIGNED, &tail) })
    }

    /// Takes the next bytes. Whole pieces are written.
    pub(super) fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        if self.waiting.room < PIECE {
            self.waiting = Waiting::with_room(PIECE, self.waiting.bytes());
        }
        while !bytes.is_empty() {
            bytes = self.waiting.take(bytes);
            if self.waiting.bytes().len() == PIECE {
                self.write_waiting(PIECE)?;
            }
        }
        Ok(())
    }

    /// Writes all that was taken, and keeps no room for more.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        let length = self.waiting.bytes().len();
        self.write_waiting(length - length % ALIGNED)?;
        self.file.write_all_at(self.waiting.bytes(), self.at)?;
        // The rest stays, too: what comes next is written together with it.
        self.waiting = Waiting::with_room(ALIGNED, self.waiting.bytes());
        Ok(())
    }

    /// The file.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// The file, when all of it is written.
    pub(super) fn into_file(self) -> File {
        self.file
    }

    fn write_waiting(&mut self, length: usize) -> io::Result<()> {
        let bytes = &self.waiting.bytes()[..length];
        let written = match &self.direct {
            Some(direct) => direct.write_all_at(bytes, self.at),
            None => self.file.write_all_at(bytes, self.at),
        };
        match written {
            // What opens is not always what takes writes.
            Err(e) if e.kind() == io::ErrorKind::InvalidInput && self.direct.take().is_some() => {
                self.file.write_all_at(bytes, self.at)?;
            }
            written => written?,
        }
        self.at += length as u64;
        self.waiting.drop_first(length);
        Ok(())
    }
}

/// Bytes at an address that direct writes take.
struct Waiting {
    buffer: Vec<u8>,
    begin: usize,
    length: usize,
    room: usize,
}

impl Waiting {
    fn with_room(room: usize, first: &[u8]) -> Waiting {
        let buffer = vec![0; room + ALIGNED];
        let begin = buffer.as_ptr().align_offset(ALIGNED);
        let mut waiting = Waiting { buffer, begin, length: 0, room };
        waiting.take(first);
        waiting
    }

    fn bytes(&self) -> &[u8] {
        &self.buffer[self.begin..self.begin + self.length]
    }

    /// Takes what there is room for, and answers the rest.
    fn take<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let (taken, rest) = bytes.split_at(bytes.len().min(self.room - self.length));
        let end = self.begin + self.length;
        self.buffer[end..end + taken.len()].copy_from_slice(taken);
        self.length += taken.len();
        rest
    }

    fn drop_first(&mut self, length: usize) {
        self.buffer.copy_within(self.begin + length..self.begin + self.length, self.begin);
        self.length -= length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_in_any_pieces_and_gone_on_with_anywhere_is_what_came() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let open = || {
            let file =
                OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path).unwrap();
            let length = file.metadata().unwrap().len();
            Growing::at_end(&path, file, length).unwrap()
        };
        let bytes: Vec<u8> = (0..3 * PIECE + 12_345).map(|n| (n / 7 % 251) as u8).collect();
        let (mut at, mut growing) = (0, open());
        // Flushed at places that are no multiple of anything, and opened anew there.
        for (round, length) in
            [1, 4095, 4096, 10_000, PIECE, 2 * PIECE - 3, usize::MAX].into_iter().enumerate()
        {
            let end = bytes.len().min(at + length.min(bytes.len()));
            for piece in bytes[at..end].chunks(70_001) {
                growing.write(piece).unwrap();
            }
            growing.flush().unwrap();
            at = end;
            assert!(std::fs::read(&path).unwrap() == bytes[..at], "after {at} bytes");
            if round % 2 == 0 {
                growing = open();
            }
        }
        assert_eq!(at, bytes.len());
    }
}
