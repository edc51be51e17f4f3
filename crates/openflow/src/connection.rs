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
    silence: Duration,
) {
    let (mut reader, mut writer) = stream.split();
    let mut connection = Connection { pending: VecDeque::new(), out: Vec::new(), changes };
    let mut deadline = Instant::now() + silence;
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
                Ok(_) => (deadline, probed) = (Instant::now() + silence, false),
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
                    tracing::warn!("the switch said nothing for {:?}; dropping the connection", silence * 2);
                    return;
                }
                wire::echo_request(&mut connection.out, 0);
                (deadline, probed) = (Instant::now() + silence, true);
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

#[cfg(test)]
mod tests {
    use tokio::task::JoinHandle;

    use super::*;

    /// A connection, the switch's end of it, and where to put calls.
    fn run_with(silence: Duration) -> (UnixStream, mpsc::Sender<Call>, JoinHandle<()>) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (calls, taken) = mpsc::channel(4);
        let (changes, _) = watch::channel(0);
        (theirs, calls, tokio::spawn(run(ours, BytesMut::new(), taken, changes, silence)))
    }

    /// The next message that the switch gets.
    async fn next(peer: &mut UnixStream) -> Message {
        let mut bytes = vec![0; wire::HEADER];
        peer.read_exact(&mut bytes).await.unwrap();
        bytes.resize(wire::length(&bytes).unwrap().unwrap(), 0);
        peer.read_exact(&mut bytes[wire::HEADER..]).await.unwrap();
        wire::decode(bytes.into()).unwrap()
    }

    fn barrier(xid: u32) -> (Call, oneshot::Receiver<Vec<Message>>) {
        let (reply, answers) = oneshot::channel();
        let mut bytes = Vec::new();
        wire::barrier(&mut bytes, xid);
        (Call { bytes, first: xid, last: xid, reply }, answers)
    }

    #[tokio::test]
    async fn echo_is_answered_with_what_it_carries() {
        let (mut peer, _calls, _task) = run_with(SILENCE);
        peer.write_all(&[5, kind::ECHO_REQUEST, 0, 10, 0, 0, 0, 9, 1, 2]).await.unwrap();
        let answer = next(&mut peer).await;
        assert_eq!((answer.kind, answer.xid, &answer.body[..]), (kind::ECHO_REPLY, 9, &[1, 2][..]));
    }

    #[tokio::test]
    async fn answers_go_to_the_call_they_belong_to_in_any_order() {
        let (mut peer, calls, _task) = run_with(SILENCE);
        let ((one, first), (two, second)) = (barrier(1), barrier(2));
        calls.send(one).await.unwrap();
        calls.send(two).await.unwrap();
        for _ in 0..2 {
            assert_eq!(next(&mut peer).await.kind, kind::BARRIER_REQUEST);
        }
        // Nobody asked for the first of these.
        for xid in [7, 2, 1] {
            peer.write_all(&[5, 21, 0, 8, 0, 0, 0, xid]).await.unwrap();
        }
        assert_eq!(second.await.unwrap()[0].xid, 2);
        assert_eq!(first.await.unwrap()[0].xid, 1);
    }

    #[tokio::test]
    async fn a_silent_switch_is_probed_and_then_given_up() {
        let (mut peer, calls, task) = run_with(Duration::from_millis(300));
        let (call, answers) = barrier(1);
        calls.send(call).await.unwrap();
        assert_eq!(next(&mut peer).await.kind, kind::BARRIER_REQUEST);
        let probe = next(&mut peer).await;
        assert_eq!(probe.kind, kind::ECHO_REQUEST);
        peer.write_all(&[5, kind::ECHO_REPLY, 0, 8, 0, 0, 0, 0]).await.unwrap();
        assert_eq!(next(&mut peer).await.kind, kind::ECHO_REQUEST, "the answer counted as a sign of life");
        // From here on it is silent, but the connection stays open.
        task.await.unwrap();
        assert!(answers.await.is_err());
    }

    #[tokio::test]
    async fn nonsense_ends_the_connection() {
        for nonsense in [&[5, 2, 0, 7, 0, 0, 0, 0][..], &[1, 2, 0, 8, 0, 0, 0, 0], b"GET / HTTP/1.1\r\n"] {
            let (mut peer, _calls, task) = run_with(SILENCE);
            peer.write_all(nonsense).await.unwrap();
            task.await.unwrap();
        }
    }
}
