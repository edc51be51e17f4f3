//! A machine's serial line on the user's terminal, which is raw while it lasts and as before afterwards, however it ends.

use netloom_api::v1 as api;
use netloom_api::v1::open_console_request::Part;
use netloom_api::v1::open_console_response::Part as Answer;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::exec::write;
use super::shell::{Ends, FAREWELL, Left, STUCK, Typed, read_input};
use crate::args::values::Key;
use crate::client::Client;
use crate::error::Error;
use crate::terminal::Raw;

/// Shown where the line is somebody else's from then on.
const TAKEN: &[u8] =
    b"\r\n[somebody else writes to this console now; what you type is dropped, and you read on]\r\n";

/// The line, until its machine ends or the key is pressed. The banner is printed once it is attached.
pub async fn session(
    client: &Client,
    start: api::ConsoleStart,
    detach: Key,
    banner: &str,
) -> Result<Left, Error> {
    let (to_node, requests) = mpsc::channel(64);
    let closed = |_| Error::Failed("the connection ended".to_owned());
    to_node.send(request(Part::Start(start))).await.map_err(closed)?;
    let mut answers =
        client.nodes().open_console(ReceiverStream::new(requests)).await.map_err(Error::gone)?.into_inner();
    let mut ends = Ends::listen()?;
    // Only now: a refusal is printed on a terminal as it was.
    write(&mut std::io::stdout(), banner.as_bytes())?;
    let _raw = Raw::enter().map_err(|e| Error::io("the terminal cannot be made raw", e))?;
    let (keys, mut typed) = mpsc::channel(64);
    // A thread of its own: a read of standard input cannot be taken back, and must not hold up the end.
    std::thread::spawn(move || read_input(&keys, detach));
    let (mut typing, mut writes) = (true, true);
    loop {
        tokio::select! {
            answer = answers.message() => match answer.map_err(Error::gone)?.map(|a| a.part) {
                Some(Some(Answer::Output(bytes))) => write(&mut std::io::stdout(), &bytes)?,
                Some(Some(Answer::Event(event))) => match event.try_into() {
                    Ok(api::ConsoleEvent::Taken) => {
                        writes = false;
                        write(&mut std::io::stdout(), TAKEN)?;
                    }
                    Ok(api::ConsoleEvent::Ended) => return Ok(Left::Off),
                    _ => {}
                },
                Some(None) => {}
                None => return Err(Error::Unreachable("the server went away; the machine runs on".to_owned())),
            },
            key = typed.recv(), if typing => match key {
                Some(Typed::Input(bytes)) if writes => {
                    // A machine that does not read holds up the keys, not what it writes or the way out.
                    let sent = to_node.send(request(Part::Input(bytes)));
                    match tokio::time::timeout(STUCK, sent).await {
                        Ok(Ok(())) => {}
                        // It is only read, or somebody else's: that comes as an event.
                        Ok(Err(_)) => writes = false,
                        Err(_) => return Err(Error::Failed("the machine does not take what is typed".to_owned())),
                    }
                }
                Some(Typed::Input(_)) => {}
                Some(Typed::Detach) => {
                    // What was typed before is on its way still.
                    drop(to_node);
                    let rest = async { while let Ok(Some(_)) = answers.message().await {} };
                    let _ = tokio::time::timeout(FAREWELL, rest).await;
                    return Ok(Left::Detached);
                }
                None => typing = false,
            },
            why = ends.told() => return Err(why),
        }
    }
}

fn request(part: Part) -> api::OpenConsoleRequest {
    api::OpenConsoleRequest { part: Some(part) }
}
