//! `shell`: a terminal in a node.
//!
//! The user's terminal is raw while it lasts, so that every key reaches the node, and as before afterwards, however it ends.

use std::io::{IsTerminal as _, Read as _};

use netloom_api::v1 as api;
use netloom_api::v1::open_shell_request::Part;
use netloom_api::v1::open_shell_response::Part as Answer;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::exec::write;
use super::{Context, exit_code};
use crate::error::Error;
use crate::terminal::{self, Raw};

/// Opens it; ends with the exit code of its command.
pub async fn run(context: &Context, lab: &str, node: &str, command: Vec<String>) -> Result<u8, Error> {
    // The node's side is a terminal, which has no end of input: what comes from a pipe would wait for ever.
    if !std::io::stdin().is_terminal() {
        return Err(Error::Usage(format!(
            "shell needs a terminal, and standard input is none; netloom exec {lab} {node} -i -- CMD hands standard input to a command"
        )));
    }
    let client = context.client().await?;
    let (to_node, requests) = mpsc::channel(64);
    let start = api::ShellStart { name: format!("labs/{lab}/nodes/{node}"), command, size: Some(size()) };
    let closed = |_| Error::Failed("the connection ended".to_owned());
    to_node.send(request(Part::Start(start))).await.map_err(closed)?;
    let mut answers =
        client.nodes().open_shell(ReceiverStream::new(requests)).await.map_err(Error::gone)?.into_inner();

    let mut resized = listen(SignalKind::window_change())?;
    let mut hung_up = listen(SignalKind::hangup())?;
    let mut ended = listen(SignalKind::terminate())?;
    // Only now: a refusal is printed on a terminal as it was.
    let _raw = Raw::enter().map_err(|e| Error::io("the terminal cannot be made raw", e))?;
    let keys = to_node.clone();
    // A thread of its own: a read of standard input cannot be taken back, and must not hold up the end.
    std::thread::spawn(move || send_input(&keys));
    loop {
        tokio::select! {
            answer = answers.message() => match answer.map_err(Error::gone)?.map(|a| a.part) {
                Some(Some(Answer::Output(bytes))) => write(&mut std::io::stdout(), &bytes)?,
                Some(Some(Answer::ExitCode(code))) => return Ok(exit_code(code)),
                Some(None) => {}
                None => return Err(Error::Unreachable("the server went away before the shell ended".to_owned())),
            },
            _ = resized.recv() => {
                // One that is lost is followed by the next.
                let _ = to_node.try_send(request(Part::Resize(size())));
            }
            _ = hung_up.recv() => return Err(Error::Interrupted("the terminal is gone".to_owned())),
            _ = ended.recv() => return Err(Error::Interrupted("asked to end".to_owned())),
        }
    }
}

fn send_input(to_node: &mpsc::Sender<api::OpenShellRequest>) {
    let mut stdin = std::io::stdin().lock();
    let mut buffer = [0; 4_096];
    loop {
        match stdin.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(n) => {
                if to_node.blocking_send(request(Part::Input(buffer[..n].to_vec()))).is_err() {
                    return;
                }
            }
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

fn listen(kind: SignalKind) -> Result<Signal, Error> {
    signal(kind).map_err(|e| Error::io("signals cannot be listened to", e))
}
