//! `console`: a terminal in a node, or a machine's serial line, with a key to leave it.

use netloom_api::v1 as api;
use netloom_model::{Code, Failure};

use super::shell::{Left, needs_terminal, session};
use super::{Context, exit_code, serial};
use crate::args::node::Console;
use crate::args::values::Key;
use crate::error::Error;

/// Opens it. Leaving by the key is exit code 0.
pub async fn run(context: &Context, args: Console) -> Result<u8, Error> {
    let (lab, node) = (&*args.lab, args.node.as_deref().unwrap_or_default());
    needs_terminal("console", lab, node)?;
    let client = context.client().await?;
    let request = api::GetNodeRequest { name: format!("labs/{lab}/nodes/{node}") };
    let facts = client.nodes().get_node(request).await?.into_inner();
    let leave = |without: &str| match args.detach_key {
        Key(None) => format!("{without} leaves it"),
        key => format!("{key} leaves it"),
    };
    let left = match facts.runtime() {
        api::Runtime::Docker | api::Runtime::Unspecified => {
            if args.take || args.read_only {
                return Err(Error::Usage(format!(
                    "{node} is a container, in which each terminal is a shell of its own: leave --take and --read-only out"
                )));
            }
            let leave = leave("the end of its shell");
            let banner =
                format!("Console of {node} in lab {lab}: the shell of kind {}. {leave}.\n", facts.kind);
            session(&client, lab, node, Vec::new(), args.detach_key, &banner).await?
        }
        api::Runtime::Libvirt => {
            let leave = leave("the end of the machine");
            let only = if args.read_only { ", to be read" } else { "" };
            let banner = format!("Console of {node} in lab {lab}: its serial port{only}. {leave}.\n");
            let start = api::ConsoleStart {
                name: format!("labs/{lab}/nodes/{node}"),
                read_only: args.read_only,
                take: args.take,
            };
            serial::session(&client, start, args.detach_key, &banner).await?
        }
        api::Runtime::Bridge => {
            let message = format!("{node} is a bridge: there is nothing in it that has a console");
            let failure = Failure::new(Code::FailedPrecondition, "CONSOLE_NOT_SUPPORTED", message);
            return Err(failure.with("lab", lab).into());
        }
    };
    match left {
        Left::Ended(code) => Ok(exit_code(code)),
        Left::Detached => {
            // What runs there may have left the cursor anywhere.
            context.print(&format!("\nLeft the console of {node}\n"))?;
            Ok(0)
        }
        Left::Off => {
            context.print(&format!("\n{node} does not run any more\n"))?;
            Ok(0)
        }
    }
}
