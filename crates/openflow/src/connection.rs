//! The one task that owns the socket: sends requests, gives each its replies, answers echo.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

use crate::error::Error;
use crate::wire::{self, Message, kind};

/// A switch that says nothing for this long is probed, and given up after as long again. Deleting ports keeps
/// ovs-vswitchd from answering for some 14 ms each.
pub(crate) const SILENCE: Duration = Duration::from_secs(30);

/// Room to make for each read.
const READ: usize = 16 * 1024;

/// Requests that are sent together.
#[derive(Debug)]
pub(crate) struct Call {
    /// The messages, with consecutive xids from `first` to `last`.
    pub(crate) bytes: Vec<u8>,
    pub(crate) first: u32,
    /// The answer to this one is the last of all.
    pub(crate) last: u32,
    /// Where all answers go.
    pub(crate) reply: oneshot::Sender<Vec<Message>>,
}

/// A call that was sent, and the answers so far.
struct Pending {
    first: u32,
    last: u32,
    reply: oneshot::Sender<Vec<Message>>,
    answers: Vec<Message>,
}

struct Connection {
    pending: VecDeque<Pending>,
    out: Vec<u8>,
    changes: watch::Sender<u64>,
}

/// Exchanges hellos.
///
/// # Errors
/// [`Error::Version`] when the switch does not speak 1.4, [`Error::Disconnected`] when it says nothing.
pub(crate) async fn greet(stream: &mut UnixStream, received: &mut BytesMut) -> Result<(), Error> {
    let mut hello = Vec::new();
    wire::hello(&mut hello, 0);
    stream.write_all(&hello).await.map_err(|_| Error::Disconnected)?;
    loop {
        if let Some(length) = wire::length(received)?.filter(|length| received.len() >= *length) {
            let bytes = received.split_to(length).freeze();
            return match wire::decode(bytes.clone())?.kind {
                kind::HELLO if wire::offers_us(&bytes)? => Ok(()),
                kind::HELLO | kind::ERROR => Err(Error::Version),
                _ => Err(Error::Malformed("the first message is not a hello")),
            };
        }
        match stream.read_buf(received).await {
            Ok(0) | Err(_) => return Err(Error::Disconnected),
            Ok(_) => {}
        }
    }
}

/// Runs until the connection breaks or nobody holds a handle on it. Whoever waits for an answer then learns that
/// none will come, because `pending`, `calls` and `changes` are dropped.
pub(crate) async fn run(
    mut stream: UnixStream,
    mut received: BytesMut,
    mut calls: mpsc::Receiver<Call>,
    changes: watch::Sender<u64>,
) {
    let (mut reader, mut writer) = stream.split();
    let mut connection = Connection { pending: VecDeque::new(), out: Vec::new(), changes };
    let mut deadline = Instant::now() + SILENCE;
    let mut probed = false;
    loop {
        if let Err(cause) = connection.take(&mut received) {
            tracing::warn!(%cause, "dropping the connection to the switch");
            return;
        }
        received.reserve(READ);
        tokio::select! {
            read = reader.read_buf(&mut received) => match read {
                Ok(0) | Err(_) => {
                    tracing::debug!("the switch closed the connection");
                    return;
                }
                Ok(_) => (deadline, probed) = (Instant::now() + SILENCE, false),
            },
            written = writer.write(&connection.out), if !connection.out.is_empty() => match written {
                Ok(count) => drop(connection.out.drain(..count)),
                Err(_) => return,
            },
            call = calls.recv() => match call {
                Some(call) => connection.send(call),
                None => return,
            },
            () = sleep_until(deadline) => {
                if probed {
                    tracing::warn!("the switch said nothing for {:?}; dropping the connection", SILENCE * 2);
                    return;
                }
                wire::echo_request(&mut connection.out, 0);
                (deadline, probed) = (Instant::now() + SILENCE, true);
            }
        }
    }
}

impl Connection {
    fn send(&mut self, Call { bytes, first, last, reply }: Call) {
        self.out.extend(bytes);
        self.pending.push_back(Pending { first, last, reply, answers: Vec::new() });
    }

    /// Takes all whole messages.
    fn take(&mut self, received: &mut BytesMut) -> Result<(), Error> {
        while let Some(length) = wire::length(received)?.filter(|length| received.len() >= *length) {
            let message = wire::decode(received.split_to(length).freeze())?;
            match message.kind {
                kind::ECHO_REQUEST => wire::echo_reply(&mut self.out, &message),
                kind::MULTIPART_REPLY if message.xid == 0 => {
                    if wire::tells_foreign_change(&message.body)? {
                        self.changes.send_modify(|count| *count += 1);
                    }
                }
                _ => self.answer(message)?,
            }
        }
        Ok(())
    }

    /// Gives an answer to the call it belongs to; what belongs to none is of no interest.
    fn answer(&mut self, message: Message) -> Result<(), Error> {
        let belongs =
            |call: &Pending| message.xid.wrapping_sub(call.first) <= call.last.wrapping_sub(call.first);
        let Some(at) = self.pending.iter().position(belongs) else { return Ok(()) };
        let more = message.kind == kind::MULTIPART_REPLY && wire::has_more(&message.body)?;
        let is_last = message.xid == self.pending[at].last && !more;
        self.pending[at].answers.push(message);
        if is_last {
            let Pending { reply, answers, .. } = self.pending.remove(at).expect("it was found at this index");
            let _ = reply.send(answers); // the caller may have given up
        }
        Ok(())
    }
}
