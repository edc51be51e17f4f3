//! `console`: a terminal in a node with a key to leave it.

use netloom_api::v1 as api;
use netloom_model::{Code, Failure};

use super::shell::{Left, needs_terminal, session};
use super::{Context, exit_code};
use crate::args::values::Key;
use crate::error::Error;

/// Opens it. Leaving by the key is exit code 0.
pub async fn run(context: &Context, lab: &str, node: &str, detach: Key) -> Result<u8, Error> {
    needs_terminal("console", lab, node)?;
    let client = context.client().await?;
    let request = api::GetNodeRequest { name: format!("labs/{lab}/nodes/{node}") };
    let facts = client.nodes().get_node(request).await?.into_inner();
    match facts.runtime() {
        api::Runtime::Docker | api::Runtime::Unspecified => {}
        api::Runtime::Libvirt => {
            return Err(refused(
                lab,
                format!("{node} is a virtual machine, whose console cannot be opened yet"),
            ));
        }
        api::Runtime::Bridge => {
            return Err(refused(
                lab,
                format!("{node} is a bridge: there is nothing in it that has a console"),
            ));
        }
    }
    let leave = match detach.0 {
        Some(_) => format!("{detach} leaves it"),
        None => "the end of its shell leaves it".to_owned(),
    };
    let banner = format!("Console of {node} in lab {lab}: the shell of kind {}. {leave}.\n", facts.kind);
    match session(&client, lab, node, Vec::new(), detach, &banner).await? {
        Left::Ended(code) => Ok(exit_code(code)),
        Left::Detached => {
            // The shell may have left the cursor anywhere.
            context.print(&format!("\nLeft the console of {node}\n"))?;
            Ok(0)
        }
    }
}

fn refused(lab: &str, message: String) -> Error {
    Failure::new(Code::FailedPrecondition, "CONSOLE_NOT_SUPPORTED", message).with("lab", lab).into()
}
