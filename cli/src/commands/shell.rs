//! `shell`: a terminal in a node.
//!
//! The user's terminal is raw while it lasts, so that every key reaches the node, and as before afterwards, however it ends.

use std::io::{IsTerminal as _, Read as _};
use std::time::Duration;

use netloom_api::v1 as api;
use netloom_api::v1::open_shell_request::Part;
use netloom_api::v1::open_shell_response::Part as Answer;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::exec::write;
use super::{Context, exit_code};
use crate::args::values::Key;
use crate::client::Client;
use crate::error::Error;
use crate::terminal::{self, Raw};

/// How long the node's side has to take what was typed before the key.
pub const FAREWELL: Duration = Duration::from_millis(250);
/// How long what is typed may wait for a node to take it.
pub const STUCK: Duration = Duration::from_secs(30);

/// Opens it; ends with the exit code of its command.
pub async fn run(context: &Context, lab: &str, node: &str, command: Vec<String>) -> Result<u8, Error> {
    needs_terminal("shell", lab, node)?;
    let client = context.client().await?;
    match session(&client, lab, node, command, Key(None), "").await? {
        Left::Ended(code) => Ok(exit_code(code)),
        Left::Detached | Left::Off => Ok(0),
    }
}

/// The node's side is a terminal, which has no end of input: what comes from a pipe would wait for ever.
pub fn needs_terminal(verb: &str, lab: &str, node: &str) -> Result<(), Error> {
    if std::io::stdin().is_terminal() {
        return Ok(());
    }
    Err(Error::Usage(format!(
        "{verb} needs a terminal, and standard input is none; netloom exec {lab} {node} -i -- CMD hands standard input to a command"
    )))
}

/// How a terminal was left.
pub enum Left {
    /// Its command ended, with this exit code.
    Ended(i32),
    /// By the key.
    Detached,
    /// The machine has ended.
    Off,
}

/// What came from the keyboard.
pub enum Typed {
    /// These bytes.
    Input(Vec<u8>),
    /// The key that leaves.
    Detach,
}

/// A terminal in a node, until its command ends or the key is pressed. The banner is printed once it is open.
pub async fn session(
    client: &Client,
    lab: &str,
    node: &str,
    command: Vec<String>,
    detach: Key,
    banner: &str,
) -> Result<Left, Error> {
    let (to_node, requests) = mpsc::channel(64);
    let start = api::ShellStart { name: format!("labs/{lab}/nodes/{node}"), command, size: Some(size()) };
    let closed = |_| Error::Failed("the connection ended".to_owned());
    to_node.send(request(Part::Start(start))).await.map_err(closed)?;
    let mut answers =
        client.nodes().open_shell(ReceiverStream::new(requests)).await.map_err(Error::gone)?.into_inner();

    let mut resized = listen(SignalKind::window_change())?;
    let mut ends = Ends::listen()?;
    // Only now: a refusal is printed on a terminal as it was.
    write(&mut std::io::stdout(), banner.as_bytes())?;
    let _raw = Raw::enter().map_err(|e| Error::io("the terminal cannot be made raw", e))?;
    let (keys, mut typed) = mpsc::channel(64);
    // A thread of its own: a read of standard input cannot be taken back, and must not hold up the end.
    std::thread::spawn(move || read_input(&keys, detach));
    let mut typing = true;
    loop {
        tokio::select! {
            answer = answers.message() => match answer.map_err(Error::gone)?.map(|a| a.part) {
                Some(Some(Answer::Output(bytes))) => write(&mut std::io::stdout(), &bytes)?,
                Some(Some(Answer::ExitCode(code))) => return Ok(Left::Ended(code)),
                Some(None) => {}
                None => return Err(Error::Unreachable("the server went away before the shell ended".to_owned())),
            },
            key = typed.recv(), if typing => match key {
                Some(Typed::Input(bytes)) => {
                    // A node that does not read holds up the keys, not what it writes or the way out.
                    let sent = to_node.send(request(Part::Input(bytes)));
                    if tokio::time::timeout(STUCK, sent).await.is_err() {
                        return Err(Error::Failed("the node does not take what is typed".to_owned()));
                    }
                }
                Some(Typed::Detach) => {
                    // What was typed before is on its way still; the end of the input tells that it has arrived.
                    drop(to_node);
                    let rest = async { while let Ok(Some(_)) = answers.message().await {} };
                    let _ = tokio::time::timeout(FAREWELL, rest).await;
                    return Ok(Left::Detached);
                }
                None => typing = false,
            },
            _ = resized.recv() => {
                // One that is lost is followed by the next.
                let _ = to_node.try_send(request(Part::Resize(size())));
            }
            why = ends.told() => return Err(why),
        }
    }
}

/// Reads the keyboard until the detach key: what was typed before it is still sent.
pub fn read_input(keys: &mpsc::Sender<Typed>, detach: Key) {
    let mut stdin = std::io::stdin().lock();
    let mut buffer = [0; 4_096];
    loop {
        let typed = match stdin.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(n) => &buffer[..n],
        };
        let at = detach.0.and_then(|key| typed.iter().position(|b| *b == key));
        let sent = &typed[..at.unwrap_or(typed.len())];
        if !sent.is_empty() && keys.blocking_send(Typed::Input(sent.to_vec())).is_err() {
            return;
        }
        if at.is_some() {
            let _ = keys.blocking_send(Typed::Detach);
            return;
        }
    }
}

fn request(part: Part) -> api::OpenShellRequest {
    api::OpenShellRequest { part: Some(part) }
}

fn size() -> api::ShellSize {
    let (columns, rows) = terminal::size();
    api::ShellSize { columns: columns.into(), rows: rows.into() }
}

/// The signals that end a program, which then end nothing by themselves: a terminal that is raw would stay so.
pub struct Ends {
    hung_up: Signal,
    others: [Signal; 3],
}

impl Ends {
    /// Listens from here on.
    pub fn listen() -> Result<Ends, Error> {
        let others = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::quit()];
        let [terminated, interrupted, quit] = others.map(listen);
        Ok(Ends { hung_up: listen(SignalKind::hangup())?, others: [terminated?, interrupted?, quit?] })
    }

    /// Waits for one of them, and says what it means.
    pub async fn told(&mut self) -> Error {
        let [terminated, interrupted, quit] = &mut self.others;
        let why = tokio::select! {
            _ = self.hung_up.recv() => "the terminal is gone",
            _ = terminated.recv() => "asked to end",
            _ = interrupted.recv() => "asked to end",
            _ = quit.recv() => "asked to end",
        };
        Error::Interrupted(why.to_owned())
    }
}

fn listen(kind: SignalKind) -> Result<Signal, Error> {
    signal(kind).map_err(|e| Error::io("signals cannot be listened to", e))
}
