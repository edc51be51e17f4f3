//! `logs`: what a node's first process wrote.

use netloom_api::v1 as api;
use netloom_api::v1::stream_logs_response::Part;

use super::Context;
use super::exec::write;
use crate::error::Error;

/// Prints it, to the stream it was written to.
pub async fn run(context: &Context, lab: &str, node: &str, follow: bool, tail: u32) -> Result<(), Error> {
    let client = context.client().await?;
    let request = api::StreamLogsRequest { name: format!("labs/{lab}/nodes/{node}"), follow, tail };
    let mut parts = client.nodes().stream_logs(request).await.map_err(Error::gone)?.into_inner();
    while let Some(part) = parts.message().await.map_err(Error::gone)? {
        match part.part {
            Some(Part::Stdout(bytes)) => write(&mut std::io::stdout(), &bytes)?,
            Some(Part::Stderr(bytes)) => write(&mut std::io::stderr(), &bytes)?,
            None => {}
        }
    }
    Ok(())
}
