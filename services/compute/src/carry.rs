//! Disks that go from host to host, as parts: what is read on the one and written on the other. Holes are not sent.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use netloom_proto::compute::v1 as p;
use nix::errno::Errno;
use nix::unistd::{Whence, lseek};
use p::disk_part::Part;
use sha2::{Digest as _, Sha256};

use crate::driver::DiskFile;
use crate::error::Error;

/// Most bytes of a part.
const PIECE: u64 = 1 << 20;
/// So much is written until it is brought to the disk: what is left at the end takes no longer than whoever sends it waits.
const UNSYNCED: u64 = 64 << 20;

/// A file, and where it has bytes.
struct Extents {
    name: String,
    file: File,
    size: u64,
    /// Offsets of their beginnings and ends.
    written: Vec<(u64, u64)>,
}

fn extents(of: &DiskFile) -> io::Result<Extents> {
    let file = File::open(&of.path)?;
    let size = file.metadata()?.len();
    let mut written = Vec::new();
    let mut at = 0;
    let signed = |n: u64| i64::try_from(n).map_err(io::Error::other);
    let unsigned = |n: i64| u64::try_from(n).map_err(io::Error::other);
    while at < size {
        let begin = match lseek(&file, signed(at)?, Whence::SeekData) {
            // What is left is a hole.
            Err(Errno::ENXIO) => break,
            other => unsigned(other?)?,
        };
        let end = unsigned(lseek(&file, signed(begin)?, Whence::SeekHole)?)?.min(size);
        written.push((begin, end));
        at = end;
    }
    Ok(Extents { name: of.name.clone(), file, size, written })
}

/// Tells a disk part by part, until nobody takes any more. With `size_only` how large it is, and no more.
pub fn read(
    files: &[DiskFile],
    size_only: bool,
    mut tell: impl FnMut(p::DiskPart) -> bool,
) -> Result<(), Error> {
    let mut tell = move |part| tell(p::DiskPart { part: Some(part) });
    let mut all = Vec::new();
    for of in files {
        let failed = |e| Error::host(format!("cannot read {}", of.path.display()), e);
        all.push((extents(of).map_err(failed)?, of));
    }
    let length = |e: &Extents| e.written.iter().map(|(begin, end)| end - begin).sum::<u64>();
    let size_bytes = all.iter().map(|(e, _)| length(e)).sum();
    if !tell(Part::Begin(p::DiskBegin { size_bytes })) || size_only {
        return Ok(());
    }
    let mut sum = Sum::default();
    for (Extents { name, file, size, written }, of) in all {
        let begins = p::DiskFile { name, size_bytes: size };
        sum.file(&begins);
        if !tell(Part::File(begins)) {
            return Ok(());
        }
        for (begin, end) in written {
            let mut offset = begin;
            while offset < end {
                let mut content = vec![0; usize::try_from((end - offset).min(PIECE)).unwrap_or_default()];
                let read = file.read_exact_at(&mut content, offset);
                read.map_err(|e| Error::host(format!("cannot read {}", of.path.display()), e))?;
                let data = p::DiskData { offset, content };
                sum.data(&data);
                offset += data.content.len() as u64;
                if !tell(Part::Data(data)) {
                    return Ok(());
                }
            }
        }
    }
    tell(Part::End(p::DiskEnd { digest: sum.digest() }));
    Ok(())
}

/// The sum over what was sent, and what came.
#[derive(Default)]
struct Sum(Sha256);

impl Sum {
    fn file(&mut self, file: &p::DiskFile) {
        self.0.update(&file.name);
        self.0.update(file.size_bytes.to_be_bytes());
    }

    fn data(&mut self, data: &p::DiskData) {
        self.0.update(data.offset.to_be_bytes());
        self.0.update(&data.content);
    }

    fn digest(self) -> String {
        let hex: String = self.0.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        format!("sha256:{hex}")
    }
}

/// A disk that is written.
pub struct Draft {
    sum: Sum,
    file: Option<(p::DiskFile, File)>,
    /// Bytes of data that are still to come.
    due: u64,
    /// Bytes that were written and may not be on the disk yet.
    unsynced: u64,
}

impl Draft {
    /// Of one with so many bytes of data.
    pub fn new(size_bytes: u64) -> Draft {
        Draft { sum: Sum::default(), file: None, due: size_bytes, unsynced: 0 }
    }

    /// Begins a file at this place.
    pub fn file(&mut self, file: p::DiskFile, place: &Path) -> Result<(), Error> {
        self.close()?;
        self.sum.file(&file);
        let make = || {
            place.parent().map_or(Ok(()), fs::create_dir_all)?;
            let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(place)?;
            made.set_len(file.size_bytes)?;
            Ok(made)
        };
        let made = make().map_err(|e| failed(&file, e))?;
        self.file = Some((file, made));
        Ok(())
    }

    /// Writes bytes of the file that began last.
    pub fn data(&mut self, data: &p::DiskData) -> Result<(), Error> {
        self.sum.data(data);
        let (of, file) =
            self.file.as_ref().ok_or_else(|| Error::Invalid("data came before a file".to_owned()))?;
        let length = data.content.len() as u64;
        let end = data.offset.checked_add(length);
        if end.is_none_or(|end| end > of.size_bytes) {
            return Err(Error::Invalid(format!("data beyond the end of {}", of.name)));
        }
        let more = || Error::Invalid("more data came than the disk was to have".to_owned());
        self.due = self.due.checked_sub(length).ok_or_else(more)?;
        file.write_all_at(&data.content, data.offset).map_err(|e| failed(of, e))?;
        self.unsynced += length;
        if self.unsynced >= UNSYNCED {
            file.sync_data().map_err(|e| failed(of, e))?;
            self.unsynced = 0;
        }
        Ok(())
    }

    /// Ends it: true when all that was sent came, and is on the disk.
    pub fn finish(mut self, end: &p::DiskEnd) -> Result<bool, Error> {
        self.close()?;
        Ok(self.sum.digest() == end.digest)
    }

    fn close(&mut self) -> Result<(), Error> {
        match self.file.take() {
            Some((of, file)) => file.sync_all().map_err(|e| failed(&of, e)),
            None => Ok(()),
        }
    }
}

fn failed(of: &p::DiskFile, e: io::Error) -> Error {
    match e.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Error::DiskFull(format!("the disk of data_dir is full: {} does not fit on it", of.name))
        }
        _ => Error::host(format!("cannot write {}", of.name), e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    /// Writes what is read of these files, all but the last part where it is cut.
    fn bring(files: &[DiskFile], to: &Path, spoil: impl Fn(&mut p::DiskPart)) -> Result<bool, Error> {
        let mut parts = Vec::new();
        read(files, false, |part| {
            parts.push(part);
            true
        })?;
        let mut draft = None;
        for mut part in parts {
            spoil(&mut part);
            match part.part.unwrap() {
                Part::Begin(begin) => draft = Some(Draft::new(begin.size_bytes)),
                Part::File(file) => {
                    let place = to.join(&file.name);
                    draft.as_mut().unwrap().file(file, &place)?;
                }
                Part::Data(data) => draft.as_mut().unwrap().data(&data)?,
                Part::End(end) => return draft.unwrap().finish(&end),
            }
        }
        panic!("it has no end");
    }

    #[test]
    fn a_disk_comes_as_it_was_with_its_holes() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| DiskFile { name: name.into(), path: dir.path().join("from").join(name) };
        let files = [file("disk.qcow2"), file("snapshots/a/about.json"), file("empty")];
        fs::create_dir_all(dir.path().join("from/snapshots/a")).unwrap();
        let disk = File::create(&files[0].path).unwrap();
        disk.set_len(64 << 20).unwrap();
        let piece: Vec<u8> = (0..3u32 << 20).map(|i| (i % 251) as u8).collect();
        disk.write_all_at(&piece, 8 << 20).unwrap();
        disk.write_all_at(b"end", (64 << 20) - 3).unwrap();
        fs::write(&files[1].path, b"{}").unwrap();
        fs::write(&files[2].path, b"").unwrap();

        let mut told = Vec::new();
        read(&files, true, |part| {
            told.push(part.part.unwrap());
            true
        })
        .unwrap();
        let [Part::Begin(p::DiskBegin { size_bytes })] = told[..] else { panic!("{told:?}") };
        assert!((3 << 20..4 << 20).contains(&size_bytes), "holes are not counted: {size_bytes}");

        let to = dir.path().join("to");
        assert!(bring(&files, &to, |_| ()).unwrap());
        for file in &files {
            assert_eq!(
                fs::read(to.join(&file.name)).unwrap(),
                fs::read(&file.path).unwrap(),
                "{}",
                file.name
            );
        }
        assert!(fs::metadata(to.join("disk.qcow2")).unwrap().blocks() * 512 < 8 << 20, "it has its holes");
    }

    #[test]
    fn what_is_not_what_was_read_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let file = DiskFile { name: "disk.qcow2".into(), path: dir.path().join("disk.qcow2") };
        fs::write(&file.path, b"what a guest wrote").unwrap();
        let spoil = |part: &mut p::DiskPart| {
            if let Some(Part::Data(data)) = &mut part.part {
                data.content[0] ^= 1;
            }
        };
        assert!(!bring(std::slice::from_ref(&file), &dir.path().join("a"), spoil).unwrap());
        let beyond = |part: &mut p::DiskPart| {
            if let Some(Part::Data(data)) = &mut part.part {
                data.offset = u64::MAX - 3;
            }
        };
        let refused = bring(std::slice::from_ref(&file), &dir.path().join("b"), beyond).unwrap_err();
        assert!(matches!(refused, Error::Invalid(_)), "{refused}");
        let less = |part: &mut p::DiskPart| {
            if let Some(Part::Begin(begin)) = &mut part.part {
                begin.size_bytes -= 1;
            }
        };
        let refused = bring(&[file], &dir.path().join("c"), less).unwrap_err();
        assert!(refused.to_string().contains("more data came"), "{refused}");
    }
}
