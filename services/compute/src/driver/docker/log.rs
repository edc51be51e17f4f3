//! What containers wrote.

use bollard::container::LogOutput;
use bollard::query_parameters::LogsOptionsBuilder;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;

use super::DockerDriver;
use super::exec::output_of;
use crate::driver::{Line, Lines, Output};
use crate::error::Error;

impl DockerDriver {
    /// Docker tells whole seconds apart; what was written before within the first one is left out here, by the time that it puts before each line.
    pub(super) async fn read_log(
        &self,
        id: &str,
        which: Lines,
    ) -> Result<BoxStream<'static, Result<Line, Error>>, Error> {
        let tail = if which.tail == 0 { "all".to_owned() } else { which.tail.to_string() };
        let since = i32::try_from(which.after_ns / 1_000_000_000).unwrap_or(i32::MAX);
        let options = LogsOptionsBuilder::default()
            .follow(which.follow)
            .stdout(true)
            .stderr(true)
            .timestamps(true)
            .since(since)
            .tail(&tail)
            .build();
        let parts = self.client().await?.logs(id, Some(options));
        let lines = parts.map(|part| match part {
            Ok(part) => Ok(line(part)),
            Err(e) => Err(Error::Refused(format!("Docker: {e}"))),
        });
        let is_new = move |line: &Result<Line, Error>| {
            let is_new = line.as_ref().map_or(true, |l| which.after_ns == 0 || l.at_ns > which.after_ns);
            futures::future::ready(is_new)
        };
        Ok(lines.filter(is_new).boxed())
    }
}

/// A line and its time. One without a time is as it is.
fn line(part: LogOutput) -> Line {
    let is_error = matches!(part, LogOutput::StdErr { .. });
    let bytes = match output_of(part) {
        Output::Stdout(bytes) | Output::Stderr(bytes) => bytes,
        Output::Exit(_) | Output::NotStarted(_) => Bytes::new(),
    };
    let (at_ns, text) = split(&bytes).unwrap_or((i64::MAX, bytes.clone()));
    Line { at_ns, output: if is_error { Output::Stderr(text) } else { Output::Stdout(text) } }
}

/// "2026-11-23T07:39:10.164621777Z text".
fn split(bytes: &Bytes) -> Option<(i64, Bytes)> {
    let space = bytes.iter().take(40).position(|b| *b == b' ')?;
    let time: jiff::Timestamp = std::str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
    Some((i64::try_from(time.as_nanosecond()).ok()?, bytes.slice(space + 1..)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_before_a_line_is_taken_off() {
        let told = |text: &'static [u8]| line(LogOutput::StdErr { message: Bytes::from_static(text) });
        let read = told(b"2026-11-23T07:39:10.164621777Z a line\n");
        assert_eq!(read.at_ns, 1_795_419_550_164_621_777);
        assert_eq!(read.output, Output::Stderr(Bytes::from_static(b"a line\n")));
        assert_eq!(told(b"no time\n").output, Output::Stderr(Bytes::from_static(b"no time\n")));
    }
}
