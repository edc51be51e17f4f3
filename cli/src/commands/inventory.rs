//! `inventory`: a lab's nodes for other tools.

use super::Context;
use crate::args::lookat::InventoryFormat;
use crate::error::Error;
use crate::inventory;
use crate::output::json;

/// Prints it.
pub async fn run(context: &Context, lab: &str, format: InventoryFormat) -> Result<(), Error> {
    let client = context.client().await?;
    let nodes = client.all_nodes(&format!("labs/{lab}")).await?;
    context.print(&match format {
        InventoryFormat::Ansible => inventory::ansible(lab, &nodes),
        InventoryFormat::SshConfig => inventory::ssh_config(lab, &nodes),
        InventoryFormat::Hosts => inventory::hosts(lab, &nodes),
        InventoryFormat::Json => json::text(&inventory::json(lab, &nodes)),
    })
}
