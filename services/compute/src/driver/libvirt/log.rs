//! What a machine's console wrote: a file for each start, which QEMU writes itself, so that nothing is lost while this service is away.
//!
//! Where libvirt's log daemon writes it in QEMU's place, which is how libvirt comes, a log that has grown to 2 MiB is put aside as `<start>.log.0`, what was that as `.1`, and so on up to `.2`, and begins anew; where QEMU writes
//! it, this service does the same at 4 MiB ([`bound`]). They are read as one. How many bytes were thrown away with the oldest is counted ([`Ledger`]), so that who follows a log misses nothing and is told nothing twice.
//!
//! A console has no times. A line's is that of its start, and so many nanoseconds more as bytes were written up to its end: lines stay in order, and whoever goes on after one gets what
//! follows. A prompt is a line without an end; told while it grows it is told in parts to who follows, and whole to who asks again.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use nix::fcntl::{FallocateFlags, fallocate};

use super::blocking;
use crate::driver::{Line, Lines, Output};
use crate::error::Error;

/// How often a log that is followed is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// How soon it is looked at again after it has grown: what is typed comes back at once.
const SOON: Duration = Duration::from_millis(3);
/// Longest line; a longer one is told in parts.
const LONGEST: u64 = 64 << 10;

/// Bytes of a log that nobody else puts aside, before this service does.
const MOST: u64 = 4 << 20;

/// So many lines are read at once.
const AT_ONCE: usize = 64;
/// So many parts of a log are put aside at most.
const ASIDE: usize = 3;

/// Says whether a machine still runs.
pub type Runs = Arc<dyn Fn() -> bool + Send + Sync>;

/// Name of the log of a start.
pub fn name(started_ns: i64) -> String {
    format!("{started_ns}.log")
}

/// True when there is a log of a start, which QEMU or the log daemon makes before anything else of it.
pub fn is_there(dir: &Path, start: i64) -> bool {
    Parts::of(dir, start, &mut ledgers()).is_ok_and(|parts| !parts.files.is_empty())
}

/// Removes the logs of all but the last so many starts.
pub fn keep_last(dir: &Path, kept: usize) {
    let starts = starts(dir);
    for start in &starts[..starts.len().saturating_sub(kept)] {
        for path in paths(dir, *start).into_iter().chain([counted(dir, *start)]) {
            let _ = std::fs::remove_file(path);
        }
        ledgers().remove(&dir.join(name(*start)));
    }
}

/// The lines that are wanted. They are followed until `runs` says no; with none they are not.
pub async fn read(
    dir: &Path,
    which: Lines,
    runs: Option<Runs>,
) -> Result<BoxStream<'static, Result<Line, Error>>, Error> {
    let dir = dir.to_owned();
    let begin = move || {
        let mut reader = Reader { starts: starts(&dir), dir, offset: 0, part: None, runs };
        reader.go_behind(which.after_ns);
        let last = if which.tail > 0 { reader.last(which.tail as usize)? } else { VecDeque::new() };
        Ok((last, reader))
    };
    let (last, reader) = blocking(begin).await?;
    let rest = stream::try_unfold(reader, Reader::next).map_ok(in_order).try_flatten();
    let is_wanted = move |line: &Line| line.at_ns > which.after_ns;
    let all = in_order(last).chain(rest);
    Ok(all.filter(move |line| std::future::ready(line.as_ref().map_or(true, is_wanted))).boxed())
}

fn in_order(lines: VecDeque<Line>) -> impl Stream<Item = Result<Line, Error>> {
    stream::iter(lines.into_iter().map(Ok))
}

/// What the log of a start holds from so many bytes before its present end on, and what is written to it until `runs` says no.
pub async fn chunks(
    dir: &Path,
    start: i64,
    before_end: u64,
    runs: Runs,
) -> Result<BoxStream<'static, Result<Bytes, Error>>, Error> {
    let log = dir.to_owned();
    let end = move || match Parts::of(&log, start, &mut ledgers()) {
        Ok(parts) => Ok(parts.end()),
        Err(e) => Err(unreadable(&log, start, e)),
    };
    let begin = (dir.to_owned(), blocking(end).await?.saturating_sub(before_end), runs, SOON);
    let chunks = stream::try_unfold(begin, move |(dir, mut offset, runs, mut pause)| async move {
        loop {
            // Asked first: what it wrote before it ended is read after that.
            let more = runs();
            let log = dir.clone();
            let read = move || {
                let chunk = chunk(&log, start, &mut offset).map_err(|e| unreadable(&log, start, e))?;
                Ok((offset + chunk.len() as u64, chunk))
            };
            let (read_to, chunk) = blocking(read).await?;
            offset = read_to;
            if !chunk.is_empty() {
                return Ok(Some((Bytes::from(chunk), (dir, offset, runs, SOON))));
            }
            if !more {
                return Ok(None);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LOOK);
        }
    });
    Ok(chunks.boxed())
}

/// The last so many bytes of the log of a start.
pub fn end(dir: &Path, start: i64, count: u64) -> io::Result<Vec<u8>> {
    let end = Parts::of(dir, start, &mut ledgers())?.end();
    let (mut offset, mut text) = (end.saturating_sub(count), Vec::new());
    loop {
        let more = chunk(dir, start, &mut offset)?;
        if more.is_empty() {
            return Ok(text);
        }
        offset += more.len() as u64;
        text.extend(more);
    }
}

/// Starts that have a log, in order.
fn starts(dir: &Path) -> Vec<i64> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut starts: Vec<i64> =
        entries.filter_map(|e| e.file_name().to_str()?.strip_suffix(".log")?.parse().ok()).collect();
    starts.sort_unstable();
    starts
}

/// Where one reads: in the log of the first of these starts, behind so many bytes.
struct Reader {
    dir: PathBuf,
    starts: Vec<i64>,
    offset: u64,
    /// The part of the log that the byte at the offset is in, opened there; none when it has to be looked for.
    part: Option<(BufReader<File>, u64)>,
    runs: Option<Runs>,
}

impl Reader {
    /// Leaves out what was before that time. Who does not follow is told a line that has grown since from its beginning.
    fn go_behind(&mut self, after_ns: i64) {
        let passed = self.starts.partition_point(|start| *start <= after_ns);
        self.starts.drain(..passed.saturating_sub(1));
        if let (Some(start), true) = (self.starts.first().filter(|s| **s <= after_ns), self.runs.is_some()) {
            self.offset = u64::try_from(after_ns - start).unwrap_or_default();
        }
    }

    /// The next lines: as many as are there, or so many. None when no more come.
    async fn next(mut self) -> Result<Option<(VecDeque<Line>, Reader)>, Error> {
        loop {
            // Asked first: what it wrote before it ended is read after that.
            let runs = self.runs.as_ref().is_some_and(|runs| runs());
            let (lines, reader) = blocking(move || self.some().map(|lines| (lines, self))).await?;
            if !lines.is_empty() {
                return Ok(Some((lines, reader)));
            }
            if !runs {
                return Ok(None);
            }
            tokio::time::sleep(LOOK).await;
            self = reader;
        }
    }

    fn some(&mut self) -> Result<VecDeque<Line>, Error> {
        if self.starts.is_empty() {
            self.starts = starts(&self.dir);
        }
        let mut lines = VecDeque::new();
        while lines.len() < AT_ONCE {
            let Some(line) = self.line()? else { break };
            lines.push_back(line);
        }
        Ok(lines)
    }

    /// The last so many lines of those that are there.
    fn last(&mut self, count: usize) -> Result<VecDeque<Line>, Error> {
        let mut last = VecDeque::new();
        while let Some(line) = self.line()? {
            if last.len() == count {
                last.pop_front();
            }
            last.push_back(line);
        }
        Ok(last)
    }

    /// The next line, or what there is of it; none at the end.
    fn line(&mut self) -> Result<Option<Line>, Error> {
        while let Some(start) = self.starts.first().copied() {
            let text = self.text(start).map_err(|e| unreadable(&self.dir, start, e))?;
            if !text.is_empty() {
                self.offset += text.len() as u64;
                let at_ns = start.saturating_add(i64::try_from(self.offset).unwrap_or(i64::MAX));
                return Ok(Some(Line { at_ns, output: Output::Stdout(Bytes::from(text)) }));
            }
            if self.starts.len() == 1 {
                return Ok(None);
            }
            self.starts.remove(0);
            self.offset = 0;
        }
        Ok(None)
    }

    /// The line from there on, or what there is of it. Empty at the end, and where there is no such log.
    fn text(&mut self, start: i64) -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        // Nothing is put aside while it is read.
        let mut ledgers = ledgers();
        let cuts = ledgers.get(&self.dir.join(name(start))).map_or(0, |ledger| ledger.cuts);
        // At the end of a part the log may go on in the next.
        if let Some((part, _)) = self.part.as_mut().filter(|(_, then)| *then == cuts) {
            part.take(LONGEST).read_until(b'\n', &mut text)?;
        }
        if text.is_empty() {
            let part = from(&self.dir, start, &mut self.offset, &mut ledgers)?;
            self.part = part.map(|part| (BufReader::new(part), cuts));
            if let Some((part, _)) = &mut self.part {
                part.take(LONGEST).read_until(b'\n', &mut text)?;
            }
        }
        Ok(text)
    }
}

fn unreadable(dir: &Path, start: i64, e: io::Error) -> Error {
    Error::host(format!("cannot read {}", dir.join(name(start)).display()), e)
}

/// Where the log of a start may be, oldest first.
fn paths(dir: &Path, start: i64) -> Vec<PathBuf> {
    let aside = (0..ASIDE).rev().map(|n| dir.join(format!("{}.{n}", name(start))));
    aside.chain([dir.join(name(start))]).collect()
}

/// What is known of the log of a start beside its files.
#[derive(Debug, Default)]
struct Ledger {
    /// Bytes that were thrown away with its oldest parts.
    gone: u64,
    /// The parts that were there last, with their bytes.
    last: Vec<(Identity, u64)>,
    /// How often this service has put a part aside.
    cuts: u64,
}

type Ledgers = HashMap<PathBuf, Ledger>;

/// Which file it is, whatever it is called: its inode, and when it was made, since the number of one that is gone is given to the next.
type Identity = (u64, Option<SystemTime>);

/// Those of all logs, by their paths. Whoever has it is the only one who reads or puts aside.
fn ledgers() -> MutexGuard<'static, Ledgers> {
    static ALL: LazyLock<Mutex<Ledgers>> = LazyLock::new(Mutex::default);
    ALL.lock().expect("no holder panics")
}

/// Where it is kept how many bytes of a log were thrown away.
fn counted(dir: &Path, start: i64) -> PathBuf {
    dir.join(format!("{}.gone", name(start)))
}

/// A file of a log, open: the log daemon may give it another name at any time.
struct Part {
    path: PathBuf,
    file: File,
    identity: Identity,
    length: u64,
}

/// The files of the log of a start that are there, oldest first.
fn look(dir: &Path, start: i64) -> io::Result<Vec<Part>> {
    let mut found = Vec::new();
    for path in paths(dir, start) {
        let file = match File::open(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            opened => opened?,
        };
        let facts = file.metadata()?;
        let identity = (facts.ino(), facts.created().ok());
        found.push(Part { path, file, identity, length: facts.len() });
    }
    Ok(found)
}

/// The log of a start as it is now.
struct Parts {
    /// Bytes that were before the first file.
    gone: u64,
    /// Its files, oldest first.
    files: Vec<Part>,
}

impl Parts {
    /// Looks, and counts what is gone since the last look. Looked at while they get other names, one would be missed and taken for gone: two looks have to find the same.
    fn of(dir: &Path, start: i64, ledgers: &mut Ledgers) -> io::Result<Parts> {
        let mut files = look(dir, start)?;
        loop {
            let again = look(dir, start)?;
            let is_same =
                files.iter().map(|f| (&f.path, f.identity)).eq(again.iter().map(|f| (&f.path, f.identity)));
            files = again;
            if is_same {
                break;
            }
        }
        let read = || std::fs::read_to_string(counted(dir, start)).ok()?.trim().parse().ok();
        let new = || Ledger { gone: read().unwrap_or_default(), ..Ledger::default() };
        let ledger = ledgers.entry(dir.join(name(start))).or_insert_with(new);
        let is_there = |file: &Identity| files.iter().any(|f| f.identity == *file);
        let gone: u64 = ledger.last.iter().filter(|(f, _)| !is_there(f)).map(|(_, length)| length).sum();
        ledger.last = files.iter().map(|f| (f.identity, f.length)).collect();
        if gone > 0 && !files.is_empty() {
            ledger.gone += gone;
            if let Err(error) = std::fs::write(counted(dir, start), ledger.gone.to_string()) {
                tracing::warn!(%error, "what of a console's log is gone cannot be noted");
            }
        }
        Ok(Parts { gone: ledger.gone, files })
    }

    /// All bytes that there ever were.
    fn end(&self) -> u64 {
        self.gone + self.files.iter().map(|f| f.length).sum::<u64>()
    }
}

/// Keeps the log of a start from growing for ever where QEMU writes it: what is there is put aside, all but the last bytes of it, and taken out of the file, which QEMU goes on appending to. Where a
/// file system cannot take out a file's beginning, what is written at that very moment is lost.
pub fn bound(dir: &Path, start: i64) -> io::Result<()> {
    let mut ledgers = ledgers();
    let parts = Parts::of(dir, start, &mut ledgers)?;
    let path = dir.join(name(start));
    let Some(Part { length, .. }) = parts.files.last().filter(|f| f.path == path && f.length > MOST) else {
        return Ok(());
    };
    let file = File::options().read(true).write(true).open(&path)?;
    // In whole blocks, and never all of it.
    let block = file.metadata()?.blksize().max(4096);
    let cut = (length - 1) / block * block;
    let aside = |n: usize| dir.join(format!("{}.{n}", name(start)));
    let draft = dir.join(format!("{}.new", name(start)));
    io::copy(&mut (&file).take(cut), &mut File::create(&draft)?)?;
    for n in (1..ASIDE).rev().filter(|n| aside(*n - 1).exists()) {
        std::fs::rename(aside(n - 1), aside(n))?;
    }
    std::fs::rename(&draft, aside(0))?;
    let offset = |n: u64| nix::libc::off_t::try_from(n).unwrap_or_default();
    let flags = FallocateFlags::FALLOC_FL_COLLAPSE_RANGE;
    if fallocate(&file, flags, 0, offset(cut)).is_err() {
        file.set_len(0)?;
    }
    ledgers.entry(path).or_default().cuts += 1;
    Parts::of(dir, start, &mut ledgers)?;
    Ok(())
}

/// The file that holds the byte at this offset in the log of a start, from there on; none at its end. What was behind the offset may have been thrown away: then it is moved to where the log begins now.
fn from(dir: &Path, start: i64, offset: &mut u64, ledgers: &mut Ledgers) -> io::Result<Option<File>> {
    let parts = Parts::of(dir, start, ledgers)?;
    // Of a log that was thrown away unseen it is not known where it was.
    if *offset > parts.end() {
        *offset = parts.end() - parts.files.last().map_or(0, |f| f.length);
    }
    *offset = (*offset).max(parts.gone);
    let mut before = parts.gone;
    for Part { mut file, length, .. } in parts.files {
        if *offset < before + length {
            file.seek(SeekFrom::Start(*offset - before))?;
            return Ok(Some(file));
        }
        before += length;
    }
    Ok(None)
}

/// What there is from there on, or a part of it.
fn chunk(dir: &Path, start: i64, offset: &mut u64) -> io::Result<Vec<u8>> {
    let (mut text, mut ledgers) = (Vec::new(), ledgers());
    if let Some(file) = from(dir, start, offset, &mut ledgers)? {
        file.take(LONGEST).read_to_end(&mut text)?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    use std::time::Instant;

    const LAST: Lines = Lines { follow: false, tail: 0, after_ns: 0 };

    async fn text(dir: &Path, which: Lines) -> Vec<(i64, String)> {
        let lines: Vec<_> = read(dir, which, None).await.unwrap().collect().await;
        let told = |line: Result<Line, Error>| match line.unwrap() {
            Line { at_ns, output: Output::Stdout(text) } => {
                (at_ns, String::from_utf8(text.to_vec()).unwrap())
            }
            other => panic!("{other:?}"),
        };
        lines.into_iter().map(told).collect()
    }

    #[tokio::test]
    async fn starts_follow_each_other_and_lines_keep_their_order() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(text(dir.path(), LAST).await, []);
        std::fs::write(dir.path().join(name(1000)), "a\nbb\n").unwrap();
        std::fs::write(dir.path().join(name(2000)), "c\nlogin: ").unwrap();
        std::fs::write(dir.path().join("README"), "x").unwrap();
        let all = [(1002, "a\n"), (1005, "bb\n"), (2002, "c\n"), (2009, "login: ")];
        let all = all.map(|(at, text)| (at, text.to_owned()));
        assert_eq!(text(dir.path(), LAST).await, all);
        for (i, (at, _)) in all.iter().enumerate() {
            assert_eq!(text(dir.path(), Lines { after_ns: *at, ..LAST }).await, all[i + 1..]);
        }
        assert_eq!(text(dir.path(), Lines { tail: 2, ..LAST }).await, all[2..]);
        assert_eq!(text(dir.path(), Lines { after_ns: 1900, ..LAST }).await, all[2..]);
        keep_last(dir.path(), 1);
        assert_eq!(text(dir.path(), LAST).await, all[2..]);
    }

    /// A console once ended since its log had another name in the moment in which it was to be opened.
    #[test]
    fn a_log_is_read_whole_while_its_parts_get_other_names() {
        const LINES: usize = 20_000;
        let dir = tempfile::tempdir().unwrap();
        let path = |part: &str| dir.path().join(format!("{}{part}", name(1)));
        let (read_to, over) = (AtomicU64::new(0), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (mut file, mut written, mut put_aside) = (File::create(path("")).unwrap(), 0, 0);
                for n in 0..LINES {
                    if n % 100 == 99 {
                        // Nothing is thrown away that was not read.
                        let end = Instant::now() + Duration::from_secs(10);
                        while read_to.load(Ordering::Relaxed) < put_aside && Instant::now() < end {
                            std::thread::yield_now();
                        }
                        for (part, next) in [(".1", ".2"), (".0", ".1"), ("", ".0")] {
                            let _ = std::fs::rename(path(part), path(next));
                        }
                        (file, put_aside) = (File::create(path("")).unwrap(), written);
                    }
                    let line = format!("{n}\n");
                    file.write_all(line.as_bytes()).unwrap();
                    written += line.len() as u64;
                }
                over.store(true, Ordering::Release);
            });
            let (mut offset, mut text) = (0, Vec::new());
            loop {
                let is_over = over.load(Ordering::Acquire);
                let more = chunk(dir.path(), 1, &mut offset).unwrap();
                offset += more.len() as u64;
                read_to.store(offset, Ordering::Relaxed);
                text.extend_from_slice(&more);
                if is_over && more.is_empty() {
                    break;
                }
            }
            let text = String::from_utf8(text).unwrap();
            assert!(
                text.lines().eq((0..LINES).map(|n| n.to_string())),
                "what is read is not what was written"
            );
        });
    }

    #[tokio::test]
    async fn a_log_that_was_put_aside_in_parts_is_read_as_one() {
        let dir = tempfile::tempdir().unwrap();
        let part = |suffix: &str| dir.path().join(format!("{}{suffix}", name(1000)));
        std::fs::write(part(""), "a\nb\n").unwrap();
        let runs = Arc::new(AtomicBool::new(true));
        let asked = runs.clone();
        let asked: Runs = Arc::new(move || asked.load(Ordering::SeqCst));
        let mut chunks = chunks(dir.path(), 1000, 2, asked).await.unwrap();
        let mut next = async || chunks.next().await.map(|chunk| chunk.unwrap());
        assert_eq!(next().await.unwrap(), "b\n", "the end of what was there");
        // As virtlogd does it, with the end of a part unread.
        std::fs::write(part(""), "a\nb\nc\n").unwrap();
        std::fs::rename(part(""), part(".0")).unwrap();
        std::fs::write(part(""), "d\n").unwrap();
        assert_eq!((next().await.unwrap(), next().await.unwrap()), (Bytes::from("c\n"), Bytes::from("d\n")));
        let all = [(1002, "a\n"), (1004, "b\n"), (1006, "c\n"), (1008, "d\n")];
        let all = all.map(|(at, text)| (at, text.to_owned()));
        assert_eq!(text(dir.path(), LAST).await, all);
        assert_eq!(text(dir.path(), Lines { after_ns: 1005, ..LAST }).await, all[2..]);
        // The oldest is thrown away: who follows goes on with what is new.
        std::fs::write(part(".0"), "d\n").unwrap();
        std::fs::write(part(""), "e\n").unwrap();
        assert_eq!(next().await.unwrap(), "e\n");
        runs.store(false, Ordering::SeqCst);
        assert_eq!(next().await, None);
        std::fs::write(dir.path().join(name(2000)), "x").unwrap();
        keep_last(dir.path(), 1);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "all parts go");
    }

    #[tokio::test]
    async fn who_follows_misses_nothing_and_is_told_nothing_twice_when_the_oldest_part_goes() {
        let dir = tempfile::tempdir().unwrap();
        let part = |suffix: &str| dir.path().join(format!("{}{suffix}", name(1000)));
        std::fs::write(part(""), "a\n").unwrap();
        let which = Lines { follow: true, ..LAST };
        let mut lines = read(dir.path(), which, Some(Arc::new(|| true))).await.unwrap();
        let mut next = async || match lines.next().await.unwrap().unwrap() {
            Line { at_ns, output: Output::Stdout(text) } => {
                (at_ns, String::from_utf8(text.to_vec()).unwrap())
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(next().await, (1002, "a\n".to_owned()));
        // As libvirt's log daemon does it, once more than there are parts.
        for (n, line) in ["b\n", "c\n", "d\n", "e\n", "f\n"].into_iter().enumerate() {
            for (from, to) in [(".1", ".2"), (".0", ".1"), ("", ".0")] {
                let _ = std::fs::rename(part(from), part(to));
            }
            std::fs::write(part(""), line).unwrap();
            assert_eq!(next().await, (1004 + 2 * i64::try_from(n).unwrap(), line.to_owned()));
        }
        // So it is for whoever comes later, and after this service was started again.
        ledgers().remove(&part(""));
        let all = [(1006, "c\n"), (1008, "d\n"), (1010, "e\n"), (1012, "f\n")];
        assert_eq!(text(dir.path(), LAST).await, all.map(|(at, text)| (at, text.to_owned())));
        assert_eq!(text(dir.path(), Lines { after_ns: 1008, ..LAST }).await.len(), 2);
    }

    #[tokio::test]
    async fn a_log_that_nobody_puts_aside_is_bounded_and_loses_nothing_before_its_oldest_part() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join(name(1000));
        let mut written = std::fs::File::options().append(true).create(true).open(&log).unwrap();
        let which = Lines { follow: true, ..LAST };
        let mut lines = read(dir.path(), which, Some(Arc::new(|| true))).await.unwrap();
        let line = |n: u32| format!("line {n:0100}\n");
        let mut count = 0;
        for _ in 0..6 {
            let before = count;
            let mut text = String::new();
            while (text.len() as u64) < MOST + 5000 {
                text.push_str(&line(count));
                count += 1;
            }
            std::io::Write::write_all(&mut written, text.as_bytes()).unwrap();
            bound(dir.path(), 1000).unwrap();
            assert!(std::fs::metadata(&log).unwrap().len() <= 4096, "what QEMU appends to is small again");
            let expected: String = (before..count).map(line).collect();
            let mut told = Vec::new();
            while told.len() < expected.len() {
                match lines.next().await {
                    Some(Ok(Line { output: Output::Stdout(more), .. })) => told.extend(more),
                    other => panic!("{other:?}"),
                }
            }
            assert!(told == expected.as_bytes(), "nothing is lost and nothing told twice");
        }
        let sizes = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().metadata().unwrap().len());
        assert!(sizes.sum::<u64>() < 4 * (MOST + 10_000));
        assert_eq!(end(dir.path(), 1000, 106).unwrap(), line(count - 1).as_bytes());
        bound(dir.path(), 1000).unwrap();
    }

    #[tokio::test]
    async fn the_last_lines_of_a_long_log_come_from_all_its_parts() {
        let dir = tempfile::tempdir().unwrap();
        let lines = |from, to| (from..to).map(|n| format!("{n}\n")).collect::<String>();
        std::fs::write(dir.path().join(format!("{}.0", name(1000))), lines(0, 1000)).unwrap();
        std::fs::write(dir.path().join(name(1000)), lines(1000, 1010)).unwrap();
        let told = |lines: Vec<(i64, String)>| lines.into_iter().map(|(_, text)| text).collect::<String>();
        assert_eq!(told(text(dir.path(), Lines { tail: 500, ..LAST }).await), lines(510, 1010));
        assert_eq!(told(text(dir.path(), LAST).await), lines(0, 1010));
    }

    #[tokio::test]
    async fn a_prompt_that_grows_is_told_whole_to_who_asks_again() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(name(1000)), "x\nlo").unwrap();
        let before = text(dir.path(), LAST).await.pop().unwrap();
        assert_eq!(before, (1004, "lo".to_owned()));
        std::fs::write(dir.path().join(name(1000)), "x\nlogin:").unwrap();
        let after = text(dir.path(), Lines { after_ns: before.0, ..LAST }).await;
        assert_eq!(after, [(1008, "login:".to_owned())]);
    }

    #[tokio::test]
    async fn who_follows_gets_each_byte_once_until_the_machine_ends() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name(1000));
        std::fs::write(&path, "x\nlo").unwrap();
        let runs = Arc::new(AtomicBool::new(true));
        let asked = runs.clone();
        let which = Lines { follow: true, tail: 0, after_ns: 1002 };
        let mut lines =
            read(dir.path(), which, Some(Arc::new(move || asked.load(Ordering::SeqCst)))).await.unwrap();
        let mut next = async || match lines.next().await {
            Some(Ok(Line { output: Output::Stdout(text), .. })) => String::from_utf8(text.to_vec()).unwrap(),
            None => "the end".to_owned(),
            other => panic!("{other:?}"),
        };
        assert_eq!(next().await, "lo");
        std::fs::write(&path, "x\nlogin:").unwrap();
        assert_eq!(next().await, "gin:");
        std::fs::write(&path, "x\nlogin: root\nbye").unwrap();
        runs.store(false, Ordering::SeqCst);
        assert_eq!(
            (next().await, next().await, next().await),
            (" root\n".into(), "bye".into(), "the end".into())
        );
    }
}
