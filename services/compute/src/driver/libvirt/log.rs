//! What a machine's console wrote: a file for each start, which QEMU writes itself, so that nothing is lost while this service is away.
//!
//! A console has no times. A line's is that of its start, and so many nanoseconds more as bytes were written up to its end: lines stay in order, and whoever goes on after one gets what
//! follows. A prompt is a line without an end; told while it grows it is told in parts to who follows, and whole to who asks again.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};

use crate::driver::{Line, Lines, Output};
use crate::error::Error;

/// How often a log that is followed is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// How soon it is looked at again after it has grown: what is typed comes back at once.
const SOON: Duration = Duration::from_millis(3);
/// Longest line; a longer one is told in parts.
const LONGEST: u64 = 64 << 10;

/// Says whether a machine still runs.
pub type Runs = Arc<dyn Fn() -> bool + Send + Sync>;

/// Name of the log of a start.
pub fn name(started_ns: i64) -> String {
    format!("{started_ns}.log")
}

/// Removes the logs of all but the last so many starts.
pub fn keep_last(dir: &Path, kept: usize) {
    let starts = starts(dir);
    for start in &starts[..starts.len().saturating_sub(kept)] {
        let _ = std::fs::remove_file(dir.join(name(*start)));
    }
}

/// The lines that are wanted. They are followed until `runs` says no; with none they are not.
pub fn read(
    dir: &Path,
    which: Lines,
    runs: Option<Runs>,
) -> Result<BoxStream<'static, Result<Line, Error>>, Error> {
    let mut reader = Reader { dir: dir.to_owned(), starts: starts(dir), offset: 0, runs };
    reader.go_behind(which.after_ns);
    let mut first = Vec::new();
    if which.tail > 0 {
        while let Some(line) = reader.line()? {
            first.push(line);
        }
        first.drain(..first.len().saturating_sub(which.tail as usize));
    }
    let is_wanted = move |line: &Line| line.at_ns > which.after_ns;
    let rest = stream::try_unfold(reader, |mut reader| async {
        Ok(reader.next().await?.map(|line| (line, reader)))
    });
    let all = stream::iter(first.into_iter().map(Ok)).chain(rest);
    Ok(all.filter(move |line| std::future::ready(line.as_ref().map_or(true, is_wanted))).boxed())
}

/// What the log of a start holds from so many bytes before its end on, and what is written to it until `runs` says no.
pub fn chunks(
    dir: &Path,
    start: i64,
    before_end: u64,
    runs: Runs,
) -> BoxStream<'static, Result<Bytes, Error>> {
    let path = dir.join(name(start));
    let length = std::fs::metadata(&path).map_or(0, |m| m.len());
    let from = (path, length.saturating_sub(before_end), runs, SOON);
    stream::try_unfold(from, |(path, offset, runs, mut pause)| async move {
        loop {
            let more = runs();
            let chunk = chunk(&path, offset)
                .map_err(|e| Error::host(format!("cannot read {}", path.display()), e))?;
            if !chunk.is_empty() {
                let offset = offset + chunk.len() as u64;
                return Ok(Some((Bytes::from(chunk), (path, offset, runs, SOON))));
            }
            if !more {
                return Ok(None);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LOOK);
        }
    })
    .boxed()
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

    async fn next(&mut self) -> Result<Option<Line>, Error> {
        loop {
            // Asked first: what it wrote before it ended is read after that.
            let runs = self.runs.as_ref().is_some_and(|runs| runs());
            if let Some(line) = self.line()? {
                return Ok(Some(line));
            }
            if !runs {
                return Ok(None);
            }
            tokio::time::sleep(LOOK).await;
            if self.starts.is_empty() {
                self.starts = starts(&self.dir);
            }
        }
    }

    /// The next line, or what there is of it; none at the end.
    fn line(&mut self) -> Result<Option<Line>, Error> {
        while let Some(start) = self.starts.first().copied() {
            let path = self.dir.join(name(start));
            let text = part(&path, self.offset)
                .map_err(|e| Error::host(format!("cannot read {}", path.display()), e))?;
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
}

/// The line from there on, or what there is of it. Empty at the end, and where there is no such file.
fn part(path: &Path, offset: u64) -> io::Result<Vec<u8>> {
    let mut file = match File::open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    file.seek(SeekFrom::Start(offset))?;
    let mut text = Vec::new();
    BufReader::new(file.take(LONGEST)).read_until(b'\n', &mut text)?;
    Ok(text)
}

/// What there is from there on, or a part of it.
fn chunk(path: &Path, offset: u64) -> io::Result<Vec<u8>> {
    let mut file = match File::open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    file.seek(SeekFrom::Start(offset))?;
    let mut text = Vec::new();
    file.take(LONGEST).read_to_end(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    const LAST: Lines = Lines { follow: false, tail: 0, after_ns: 0 };

    async fn text(dir: &Path, which: Lines) -> Vec<(i64, String)> {
        let lines: Vec<_> = read(dir, which, None).unwrap().collect().await;
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
            read(dir.path(), which, Some(Arc::new(move || asked.load(Ordering::SeqCst)))).unwrap();
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
