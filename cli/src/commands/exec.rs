//! `exec`: a command in a node, its output and its exit code.

use std::io::Read as _;

use netloom_api::v1 as api;
use netloom_api::v1::exec_node_response::Part;

use super::{Context, exit_code};
use crate::error::Error;

/// Runs it.
pub async fn run(
    context: &Context,
    lab: &str,
    node: &str,
    interactive: bool,
    command: Vec<String>,
) -> Result<u8, Error> {
    let client = context.client().await?;
    let mut stdin = Vec::new();
    if interactive {
        std::io::stdin()
            .lock()
            .read_to_end(&mut stdin)
            .map_err(|e| Error::io("standard input cannot be read", e))?;
    }
    let request = api::ExecNodeRequest { name: format!("labs/{lab}/nodes/{node}"), command, stdin };
    let mut parts = client.nodes().exec_node(request).await?.into_inner();
    while let Some(part) = parts.message().await? {
        match part.part {
            Some(Part::Stdout(bytes)) => write(&mut std::io::stdout(), &bytes)?,
            Some(Part::Stderr(bytes)) => write(&mut std::io::stderr(), &bytes)?,
            Some(Part::ExitCode(code)) => return Ok(exit_code(code)),
            None => {}
        }
    }
    Err(Error::Failed("the connection ended before the command's exit code came".to_owned()))
}

/// Writes what a node wrote, as it is.
pub fn write(out: &mut impl std::io::Write, bytes: &[u8]) -> Result<(), Error> {
    out.write_all(bytes).and_then(|()| out.flush()).map_err(|e| Error::io("output cannot be written", e))
}
