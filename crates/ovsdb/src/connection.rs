//! The one task that owns the socket: moves bytes, keeps time, and connects again.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

use crate::db::Db;
use crate::error::Error;
use crate::frame::Frames;
use crate::session::{Message, Reply, Session};

/// A transaction for the connection to send.
#[derive(Debug)]
pub(crate) struct Command {
    /// The operations, a JSON array.
    pub(crate) ops: String,
    pub(crate) reply: Reply,
}

/// A server that says nothing for this long is probed, so that who holds a snapshot knows how old it may be.
const SILENCE: Duration = Duration::from_secs(1);

/// After so many times that long it is given up.
const PATIENCE: u32 = 6;

/// Waits between attempts to connect: from the first, doubling, to the last.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// Room to make for each read.
const READ: usize = 16 * 1024;

/// Why a connection ended.
enum End {
    /// Nobody is interested any more.
    Unused,
    /// It broke.
    Broken(String),
}

/// Where goes what is known.
pub(crate) struct Publish {
    /// The state of the tables; none while there is no connection.
    pub(crate) snapshots: watch::Sender<Option<Arc<Db>>>,
    /// When the server said something last.
    pub(crate) heard: watch::Sender<Option<Instant>>,
}

/// Runs until all senders of `commands` are gone.
pub(crate) async fn run(
    socket: PathBuf,
    mut session: Session,
    mut commands: mpsc::Receiver<Command>,
    publish: Publish,
) {
    let mut backoff = BACKOFF.0;
    let mut told = false;
    while let Some(end) = attempt(&socket, &mut session, &mut commands, &publish).await {
        if session.snapshot().is_some() {
            (backoff, told) = (BACKOFF.0, false);
        }
        // No snapshot first, then the news for whoever waits for an answer.
        publish.snapshots.send_replace(None);
        session.end();
        if !std::mem::replace(&mut told, true) {
            tracing::warn!(socket = %socket.display(), cause = %end, "no connection to the OVSDB server; trying again");
        }
        if refusing(&mut commands, sleep(backoff)).await.is_none() {
            break;
        }
        backoff = (backoff * 2).min(BACKOFF.1);
    }
    publish.snapshots.send_replace(None);
}

/// One connection, from beginning to end. Gives why it broke, or `None` when nobody is interested any more.
async fn attempt(
    socket: &Path,
    session: &mut Session,
    commands: &mut mpsc::Receiver<Command>,
    publish: &Publish,
) -> Option<String> {
    match refusing(commands, UnixStream::connect(socket)).await? {
        Err(error) => Some(error.to_string()),
        Ok(stream) => match serve(stream, session, commands, publish, SILENCE).await {
            End::Broken(cause) => Some(cause),
            End::Unused => None,
        },
    }
}

async fn serve(
    mut stream: UnixStream,
    session: &mut Session,
    commands: &mut mpsc::Receiver<Command>,
    publish: &Publish,
    silence: Duration,
) -> End {
    let (mut reader, mut writer) = stream.split();
    let mut frames = Frames::default();
    let (mut heard, mut probed) = (Instant::now(), false);
    session.begin();
    loop {
        frames.buffer().reserve(READ);
        let deadline = heard + if probed { silence * PATIENCE } else { silence };
        tokio::select! {
            read = reader.read_buf(frames.buffer()) => {
                match read {
                    Ok(0) => return End::Broken("the server closed the connection".to_owned()),
                    Ok(_) => {}
                    Err(error) => return End::Broken(error.to_string()),
                }
                (heard, probed) = (Instant::now(), false);
                publish.heard.send_replace(Some(heard));
                if let Err(cause) = take(&mut frames, session, publish) {
                    return End::Broken(cause);
                }
            }
            written = writer.write(session.out()), if !session.out().is_empty() => match written {
                Ok(count) => drop(session.out().drain(..count)),
                Err(error) => return End::Broken(error.to_string()),
            },
            command = commands.recv() => match command {
                Some(Command { ops, reply }) => session.transact(&ops, reply),
                None => return End::Unused,
            },
            () = sleep_until(deadline) => {
                if probed {
                    return End::Broken(format!("the server said nothing for {:?}", silence * PATIENCE));
                }
                session.probe();
                probed = true;
            }
        }
    }
}

/// Takes all whole messages. Each snapshot is published before the next message is looked at, so that whoever
/// gets the answer to a transaction already sees what it did.
fn take(frames: &mut Frames, session: &mut Session, publish: &Publish) -> Result<(), String> {
    while let Some(message) = frames.next::<Message>()? {
        if session.receive(message)? {
            publish.snapshots.send_replace(session.snapshot());
        }
    }
    Ok(())
}

/// Waits for `future` and refuses all commands meanwhile; `None` when nobody is interested any more.
async fn refusing<F: Future>(commands: &mut mpsc::Receiver<Command>, future: F) -> Option<F::Output> {
    tokio::pin!(future);
    loop {
        tokio::select! {
            output = &mut future => return Some(output),
            command = commands.recv() => {
                let _ = command?.reply.send(Err(Error::Disconnected)); // the caller may have given up
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;

    /// The server's end of a connection.
    struct Peer {
        stream: UnixStream,
        frames: Frames,
    }

    impl Peer {
        async fn next(&mut self) -> Json {
            loop {
                if let Some(message) = self.frames.next().unwrap() {
                    return message;
                }
                assert_ne!(self.stream.read_buf(self.frames.buffer()).await.unwrap(), 0, "closed");
            }
        }

        async fn say(&mut self, message: Json) {
            self.stream.write_all(message.to_string().as_bytes()).await.unwrap();
        }
    }

    /// A connection with these bounds on silence, its end, and its peer.
    fn serve_with(silence: Duration) -> (Peer, tokio::task::JoinHandle<End>, mpsc::Sender<Command>) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (commands, mut taken) = mpsc::channel(1);
        let task = tokio::spawn(async move {
            let publish = Publish { snapshots: watch::Sender::new(None), heard: watch::Sender::new(None) };
            let mut session = Session::new("Db", vec![]);
            serve(ours, &mut session, &mut taken, &publish, silence).await
        });
        (Peer { stream: theirs, frames: Frames::default() }, task, commands)
    }

    #[tokio::test]
    async fn echo_is_answered_whatever_goes_on() {
        let (mut peer, _task, _commands) = serve_with(SILENCE);
        peer.say(json!({"id": "echo", "method": "echo", "params": [1]})).await;
        assert_eq!(peer.next().await["method"], "get_schema");
        assert_eq!(peer.next().await, json!({"id": "echo", "result": [1], "error": null}));
    }

    #[tokio::test]
    async fn a_silent_server_is_probed_and_then_given_up() {
        let (mut peer, task, _commands) = serve_with(Duration::from_millis(300));
        assert_eq!(peer.next().await["method"], "get_schema");
        let probe = peer.next().await;
        assert_eq!(probe["method"], "echo");
        peer.say(json!({"id": probe["id"], "result": [], "error": null})).await;
        assert_eq!(peer.next().await["method"], "echo", "the answer counted as a sign of life");
        // From here on it is silent, but the connection stays open.
        let end = task.await.unwrap();
        assert!(matches!(&end, End::Broken(cause) if cause.contains("said nothing")));
    }

    #[tokio::test]
    async fn nobody_interested_ends_it() {
        let (_peer, task, commands) = serve_with(SILENCE);
        drop(commands);
        assert!(matches!(task.await.unwrap(), End::Unused));
    }
}
