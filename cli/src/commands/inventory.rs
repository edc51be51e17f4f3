//! `inventory`: a lab's nodes for other tools.

use super::Context;
use crate::args::lookat::InventoryFormat;
use crate::error::Error;
use crate::inventory;
use crate::output::json;

/// Prints it; exit code 1 when the format needs addresses and no node has one.
pub async fn run(context: &Context, lab: &str, format: InventoryFormat) -> Result<u8, Error> {
    let client = context.client().await?;
    let nodes = client.all_nodes(&format!("labs/{lab}")).await?;
    context.print(&match format {
        InventoryFormat::Ansible => inventory::ansible(lab, &nodes),
        InventoryFormat::SshConfig => inventory::ssh_config(lab, &nodes),
        InventoryFormat::Hosts => inventory::hosts(lab, &nodes),
        InventoryFormat::Json => json::text(&inventory::json(lab, &nodes)),
    })?;
    let by_address = matches!(format, InventoryFormat::SshConfig | InventoryFormat::Hosts);
    let left_out = inventory::unreachable(lab, &nodes, by_address);
    if let Some(why) = &left_out {
        eprintln!("warning: {}", why.text);
    }
    Ok(u8::from(left_out.is_some_and(|l| l.all && by_address)))
}
