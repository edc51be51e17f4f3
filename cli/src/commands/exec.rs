//! `exec`: a command in a node, its output and its exit code; or in several at once.

use std::io::Read as _;

use netloom_api::v1 as api;
use netloom_api::v1::exec_node_response::Part;
use prost_reflect::prost::Message as _;

use super::{Context, exec_many, exit_code};
use crate::args::Format;
use crate::args::node::Exec;
use crate::error::Error;
use crate::select::Selection;

/// Largest request that the server reads.
const MAX_REQUEST: usize = 4 << 20;
/// Bytes that a field of bytes takes beyond them: its tag and its length.
const FRAMING: usize = 8;
/// Room for the name of the node, where it is not known yet.
const NAME: usize = 256;

/// Runs it.
pub async fn run(context: &Context, args: Exec) -> Result<u8, Error> {
    let selection = Selection::new(&args.nodes, &args.select)?;
    let client = context.client().await?;
    let shown_alone = args.output.format == Format::Table && !args.prefix;
    let Some(node) = selection.only_one().filter(|_| shown_alone) else {
        let name = "x".repeat(NAME);
        let mut request = api::ExecNodeRequest { name, command: args.command, stdin: Vec::new() };
        add_input(&mut request, args.interactive)?;
        let nodes = client.all_nodes(&format!("labs/{}", args.lab)).await?;
        let nodes = selection.of(&args.lab, &nodes)?;
        let how = exec_many::How { format: args.output.format, prefix: args.prefix, at_once: args.parallel };
        return exec_many::run(context, &client, &nodes, &request, how).await;
    };
    let name = format!("labs/{}/nodes/{node}", args.lab);
    let mut request = api::ExecNodeRequest { name, command: args.command, stdin: Vec::new() };
    add_input(&mut request, args.interactive)?;
    let mut parts = client.nodes().exec_node(request).await.map_err(Error::gone)?.into_inner();
    while let Some(part) = parts.message().await.map_err(Error::gone)? {
        match part.part {
            Some(Part::Stdout(bytes)) => write(&mut std::io::stdout(), &bytes)?,
            Some(Part::Stderr(bytes)) => write(&mut std::io::stderr(), &bytes)?,
            Some(Part::ExitCode(code)) => return Ok(exit_code(code)),
            None => {}
        }
    }
    Err(Error::Unreachable("the server went away before the command's exit code came".to_owned()))
}

fn add_input(request: &mut api::ExecNodeRequest, interactive: bool) -> Result<(), Error> {
    if interactive {
        request.stdin = input(MAX_REQUEST.saturating_sub(request.encoded_len() + FRAMING))?;
    }
    Ok(())
}

/// Standard input to its end, where that is at most so many bytes.
fn input(most: usize) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    // One byte more than is passed on tells that there is more.
    std::io::stdin()
        .lock()
        .take(u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|e| Error::io("standard input cannot be read", e))?;
    if bytes.len() > most {
        return Err(Error::Invalid(format!(
            "standard input is longer than {most} bytes, the most that exec passes on; hand it over in parts, or as a file of the topology's binds"
        )));
    }
    Ok(bytes)
}

/// Writes what a node wrote, as it is.
pub fn write(out: &mut impl std::io::Write, bytes: &[u8]) -> Result<(), Error> {
    out.write_all(bytes).and_then(|()| out.flush()).map_err(|e| Error::io("output cannot be written", e))
}
