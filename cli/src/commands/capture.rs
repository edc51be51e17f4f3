//! `capture`: packets of interfaces, as a pcapng stream, to a file or a pipe.

use std::io::IsTerminal as _;
use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use netloom_api::v1 as api;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

use super::events::Stop;
use super::{Context, refuse_to_write_over};
use crate::args::capture::Capture;
use crate::client::Client;
use crate::error::Error;
use crate::output::words::count;

/// Kinds of pcapng blocks.
const PACKET: u32 = 6;
const STATISTICS: u32 = 5;
/// Option of a statistics block: packets that were lost.
const DROPPED: u16 = 5;

/// How long the server has to send the rest of a capture that was to end.
const FAREWELL: Duration = Duration::from_secs(3);

/// Captures until a bound is reached, the server ends it, or Ctrl-C.
pub async fn run(context: &Context, args: Capture) -> Result<(), Error> {
    let to_output = args.output == Path::new("-");
    if to_output && std::io::stdout().is_terminal() {
        return Err(Error::Usage(
            "a capture is not for a terminal: name a file with -o, or pipe it, for instance into wireshark -k -i -"
                .to_owned(),
        ));
    }
    refuse_to_write_over(&args.output, args.force)?;
    let request = api::CapturePacketsRequest {
        name: format!("labs/{}", args.lab),
        targets: args.targets,
        capture_id: uuid::Uuid::new_v4().to_string(),
        filter: args.filter.unwrap_or_else(|| args.words.join(" ")),
        snap_length: args.snaplen.unwrap_or(0),
        packet_count: args.count.unwrap_or(0),
        duration_seconds: args.duration.map_or(0, |d| u32::try_from(d.as_secs()).unwrap_or(u32::MAX)),
    };
    let stop = Stop::listen()?;
    let client = context.client().await?;
    let mut end = End { client: &client, request: request.clone(), stop, asked: None };
    let mut parts = client.labs().capture_packets(request).await.map_err(Error::gone)?.into_inner();
    // From here on what was asked for is right: an earlier file is not lost to a mistyped name.
    let mut out: Box<dyn AsyncWrite + Unpin> = match to_output {
        true => Box::new(tokio::io::stdout()),
        false => Box::new(tokio::fs::File::create(&args.output).await.map_err(|e| failed(&args.output, e))?),
    };
    let mut tally = Tally::default();
    let ended = loop {
        let part = tokio::select! {
            part = parts.message() => part,
            is_over = end.turn() => match is_over {
                true => break Ok(()),
                false => continue,
            },
        };
        match part {
            Ok(Some(part)) => {
                tally.add(&part.data);
                // Whole blocks, and nothing held back: whoever reads sees each packet as it comes, and the file is whole at any time.
                let written = async { out.write_all(&part.data).await.and(out.flush().await) };
                tokio::pin!(written);
                // Whoever reads may have stopped to: that does not keep the capture from its end.
                let was_written = loop {
                    tokio::select! {
                        written = &mut written => break Some(written),
                        is_over = end.turn() => if is_over { break None },
                    }
                };
                match was_written {
                    Some(written) => written.map_err(|e| failed(&args.output, e))?,
                    None => break Ok(()),
                }
            }
            Ok(None) => break Ok(()),
            Err(status) => break Err(Error::gone(status)),
        }
    };
    eprintln!("{}", tally.text());
    ended
}

/// The end that Ctrl-C asks the server for: it then sends what it still holds, and what was lost, and ends the stream. A second one does not wait for that.
struct End<'a> {
    client: &'a Client,
    request: api::CapturePacketsRequest,
    stop: Stop,
    asked: Option<Pin<Box<dyn Future<Output = ()> + 'a>>>,
}

impl End<'_> {
    /// Waits for what ends the capture; true when its stream is waited for no longer. It may be dropped before it is over.
    async fn turn(&mut self) -> bool {
        let Some(asked) = &mut self.asked else {
            self.stop.wanted().await;
            self.ask();
            return false;
        };
        tokio::select! {
            () = self.stop.wanted() => {}
            () = asked => {}
        }
        true
    }

    fn ask(&mut self) {
        let client = self.client;
        let request = api::EndCaptureRequest {
            name: self.request.name.clone(),
            targets: self.request.targets.clone(),
            capture_id: self.request.capture_id.clone(),
        };
        let asked = async move {
            let answer = client.labs().end_capture(request).await;
            // Not found: it ended by itself, and the rest is on its way.
            if answer.is_ok() || answer.is_err_and(|status| status.code() == tonic::Code::NotFound) {
                std::future::pending().await
            }
        };
        self.asked = Some(Box::pin(async {
            let _ = tokio::time::timeout(FAREWELL, asked).await;
        }));
    }
}

fn failed(path: &Path, e: std::io::Error) -> Error {
    match path == Path::new("-") {
        true => Error::io("standard output cannot be written", e),
        false => Error::io(format!("{} cannot be written", path.display()), e),
    }
}

/// What went by.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    packets: u64,
    dropped: u64,
}

impl Tally {
    /// Counts in whole blocks.
    fn add(&mut self, mut blocks: &[u8]) {
        let word = |bytes: &[u8], at: usize| {
            bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes)
        };
        while let (Some(kind), Some(length)) = (word(blocks, 0), word(blocks, 4)) {
            let length = (length as usize).max(12);
            let Some(block) = blocks.get(..length) else { return };
            match kind {
                PACKET => self.packets += 1,
                STATISTICS => self.dropped += dropped(block).unwrap_or(0),
                _ => {}
            }
            blocks = &blocks[length..];
        }
    }

    fn text(&self) -> String {
        let packets = count(self.packets, "packet");
        match self.dropped {
            0 => format!("{packets} captured"),
            dropped => format!("{packets} captured, {dropped} left out since they were not taken in time"),
        }
    }
}

/// How many packets a statistics block says were lost.
fn dropped(block: &[u8]) -> Option<u64> {
    let mut at = 20;
    loop {
        let code = u16::from_le_bytes(block.get(at..at + 2)?.try_into().ok()?);
        let size = usize::from(u16::from_le_bytes(block.get(at + 2..at + 4)?.try_into().ok()?));
        match code {
            0 => return None,
            DROPPED => return Some(u64::from_le_bytes(block.get(at + 4..at + 12)?.try_into().ok()?)),
            _ => at += 4 + size.next_multiple_of(4),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(kind: u32, body: &[u8]) -> Vec<u8> {
        let total = (body.len() as u32 + 12).to_le_bytes();
        [&kind.to_le_bytes()[..], &total, body, &total].concat()
    }

    #[test]
    fn packets_and_losses_are_counted() {
        let mut statistics = vec![0; 12];
        for (code, number) in [(4u16, 12u64), (DROPPED, 7)] {
            statistics.extend([&code.to_le_bytes()[..], &8u16.to_le_bytes(), &number.to_le_bytes()].concat());
        }
        statistics.extend([0; 4]);
        let blocks =
            [block(0x0a0d_0d0a, &[0; 16]), block(PACKET, &[0; 60]), block(PACKET, &[0; 20])].concat();
        let mut tally = Tally::default();
        tally.add(&blocks);
        assert_eq!(tally.text(), "2 packets captured");
        tally.add(&block(STATISTICS, &statistics));
        assert_eq!(tally, Tally { packets: 2, dropped: 7 });
        assert!(tally.text().starts_with("2 packets captured, 7 left out"));
        for end in 0..blocks.len() {
            Tally::default().add(&blocks[..end]);
        }
    }
}
