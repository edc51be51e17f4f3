//! The running configuration of a node: its kind's command, run in it, and what that prints.

use std::time::{Duration, SystemTime};

use futures::stream;
use netloom_api::v1;
use netloom_model::id::{LabId, NodeId};
use netloom_model::kind::stripped;
use netloom_proto::compute::v1 as pc;

use crate::client::Peers;
use crate::error::Error;
use crate::view;

/// Longest configuration, in bytes.
const MAX_CONTENT: usize = 4 << 20;
/// Longest part of what a node said that is told when it failed, in bytes.
const MAX_SAID: usize = 1_000;
/// How long a node may take.
const BOUND: Duration = Duration::from_secs(60);

/// Asks a node for it.
pub async fn read(peers: &Peers, lab: &LabId, node: &NodeId) -> Result<v1::NodeConfig, Error> {
    let (ticket, mut compute) = peers.ticket(lab, node, "exec").await?;
    if ticket.save.is_empty() {
        return Err(Error::NoConfig(node.to_string()));
    }
    let read_time = SystemTime::now();
    let start = pc::ExecStart {
        ticket: ticket.ticket,
        uid: ticket.uid,
        command: ticket.save.clone(),
        tty: false,
        size: None,
    };
    let part = |part| pc::ExecRequest { part: Some(part) };
    let parts = stream::iter([
        part(pc::exec_request::Part::Start(start)),
        part(pc::exec_request::Part::StdinEnd(true)),
    ]);
    let failed = compute.error();
    let refuse = |why: String| Error::ConfigFailed { node: node.to_string(), why };
    let run = async {
        let mut answers = compute.client.exec(parts).await.map_err(&failed)?.into_inner();
        let (mut content, mut said) = (Vec::new(), Vec::new());
        while let Some(answer) = answers.message().await.map_err(&failed)? {
            use pc::exec_response::Part;
            match answer.part {
                Some(Part::Stdout(bytes)) => content.extend(bytes),
                Some(Part::Stderr(bytes)) => {
                    // The end says why something failed; of much, the end is kept.
                    said.extend(bytes);
                    said.drain(..said.len().saturating_sub(MAX_SAID));
                }
                Some(Part::ExitCode(code)) => return Ok((code, content, said)),
                None => {}
            }
            if content.len() > MAX_CONTENT {
                return Err(refuse(format!(
                    "it is longer than {MAX_CONTENT} bytes, the most that is passed on"
                )));
            }
        }
        Err(refuse("its answer broke off; ask again".to_owned()))
    };
    let (code, content, said) = tokio::time::timeout(BOUND, run)
        .await
        .unwrap_or_else(|_| Err(refuse(format!("it did not answer within {} s", BOUND.as_secs()))))?;
    let method = view::command_line(&ticket.save);
    let content = if code == 0 { stripped(content, &ticket.save_strip) } else { content };
    match code {
        // No device has an empty configuration: a command that prints none did not do what it is there for.
        0 if content.iter().all(u8::is_ascii_whitespace) => {
            Err(refuse(format!("{method} printed nothing{}", told(&said, &[]))))
        }
        0 => Ok(view::node_config(lab, node, content, &ticket.save, read_time)),
        code => Err(refuse(format!("{method} ended with exit code {code}{}", told(&said, &content)))),
    }
}

/// What a command said, its errors before its output.
fn told(said: &[u8], content: &[u8]) -> String {
    let text = if said.iter().all(u8::is_ascii_whitespace) { content } else { said };
    let text = String::from_utf8_lossy(&text[text.len().saturating_sub(MAX_SAID)..]).trim().to_owned();
    if text.is_empty() { text } else { format!(": {text}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_before_output_and_both_only_in_part() {
        assert_eq!(told(b"no\n", b"x"), ": no");
        assert_eq!(told(b"\n", b"x"), ": x");
        assert_eq!(told(b"", b""), "");
        assert_eq!(told(&vec![b'x'; 5_000], b"").len(), MAX_SAID + 2);
    }
}
