//! `quota`: what the labs of a project may ask for together.

use netloom_api::v1 as api;
use serde_json::json;

use super::Context;
use crate::args::Format;
use crate::args::things::Quota;
use crate::error::Error;
use crate::output::{json, table};

/// Runs a command about quotas.
pub async fn run(context: &Context, command: Quota) -> Result<(), Error> {
    let client = context.client().await?;
    let name = |project: &str| format!("quotas/{project}");
    let told = |format: Format, quota: api::Quota| {
        let one = std::slice::from_ref(&quota);
        context.print_as(format, || table::quotas(context.style, one), || json::value("Quota", &quota))
    };
    match command {
        Quota::List { output } => {
            let quotas = client.all_quotas().await?;
            let table = || match quotas.is_empty() {
                true => "No project has a quota\n".to_owned(),
                false => table::quotas(context.style, &quotas),
            };
            context.print_as(output.format, table, || json!({ "quotas": json::list("Quota", &quotas) }))
        }
        Quota::Show { project, output } => {
            let request = api::GetQuotaRequest { name: name(&project) };
            told(output.format, client.quotas().get_quota(request).await?.into_inner())
        }
        Quota::Set { project, nodes, cpu, memory, disk, output } => {
            let quota = api::Quota {
                name: name(&project),
                nodes: nodes.map(i64::from),
                cpu_millis: cpu,
                memory_bytes: memory,
                disk_bytes: disk,
                ..api::Quota::default()
            };
            let request = api::UpdateQuotaRequest { quota: Some(quota) };
            told(output.format, client.quotas().update_quota(request).await?.into_inner())
        }
        Quota::Remove { project } => {
            client.quotas().delete_quota(api::DeleteQuotaRequest { name: name(&project) }).await?;
            context.print(&format!("Removed the quota of project {project}\n"))
        }
    }
}
