//! `host`: the machines that run nodes.

use std::collections::HashMap;

use netloom_api::v1 as api;
use prost_reflect::prost_types::FieldMask;
use serde_json::json;

use super::Context;
use crate::args::Format;
use crate::args::things::Host;
use crate::client::Client;
use crate::error::Error;
use crate::output::{host, json, table};

/// Changes what is said of a host.
async fn update(client: &Client, host: api::Host, paths: Vec<String>) -> Result<api::Host, Error> {
    let request = api::UpdateHostRequest { host: Some(host), update_mask: Some(FieldMask { paths }) };
    Ok(client.hosts().update_host(request).await?.into_inner())
}

/// What is to be set, by key, and the paths of all that is set or taken away.
fn pairs(field: &str, pairs: &[String]) -> (HashMap<String, String>, Vec<String>) {
    let (mut all, mut paths) = (HashMap::new(), Vec::new());
    for pair in pairs {
        let (key, value) = match (pair.split_once('='), pair.strip_suffix('-')) {
            (Some((key, value)), _) => (key, Some(value)),
            (None, Some(key)) => (key, None),
            (None, None) => (pair.as_str(), Some("")),
        };
        if let Some(value) = value {
            all.insert(key.to_owned(), value.to_owned());
        }
        paths.push(format!("{field}.{key}"));
    }
    (all, paths)
}

/// Runs a command about hosts.
pub async fn run(context: &Context, command: Host) -> Result<(), Error> {
    let client = context.client().await?;
    let name = |host: &str| format!("hosts/{host}");
    let told = |format: Format, found: api::Host| {
        context.print_as(format, || host::describe(&found), || json::value("Host", &found))
    };
    match command {
        Host::List { output } => {
            let hosts = client.all_hosts().await?;
            context.print_as(
                output.format,
                || table::hosts(context.style, &hosts),
                || json!({ "hosts": json::list("Host", &hosts) }),
            )
        }
        Host::Show(one) => {
            let request = api::GetHostRequest { name: name(&one.host) };
            told(one.output.format, client.hosts().get_host(request).await?.into_inner())
        }
        Host::Token { ttl, output } => {
            let seconds = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX);
            let ttl = Some(prost_reflect::prost_types::Duration { seconds, nanos: 0 });
            let request = api::CreateHostTokenRequest { ttl };
            let token = client.hosts().create_host_token(request).await?.into_inner();
            context.print_as(output.format, || host::invitation(&token), || json::value("HostToken", &token))
        }
        Host::Cordon(one) => {
            let request = api::CordonHostRequest { name: name(&one.host) };
            told(one.output.format, client.hosts().cordon_host(request).await?.into_inner())
        }
        Host::Uncordon(one) => {
            let request = api::UncordonHostRequest { name: name(&one.host) };
            told(one.output.format, client.hosts().uncordon_host(request).await?.into_inner())
        }
        Host::Label(said) => {
            let (labels, paths) = pairs("labels", &said.pairs);
            let wish = api::Host { name: name(&said.host), labels, ..api::Host::default() };
            told(said.output.format, update(&client, wish, paths).await?)
        }
        Host::Taint(said) => {
            let (taints, paths) = pairs("taints", &said.pairs);
            let wish = api::Host { name: name(&said.host), taints, ..api::Host::default() };
            told(said.output.format, update(&client, wish, paths).await?)
        }
        Host::Set(set) => {
            let named = [
                ("cpu_overcommit", set.cpu_overcommit.is_some()),
                ("memory_overcommit", set.memory_overcommit.is_some()),
                ("disk_overcommit", set.disk_overcommit.is_some()),
                ("system_cpu_millis", set.system_cpu.is_some()),
                ("system_memory_bytes", set.system_memory.is_some()),
                ("system_disk_bytes", set.system_disk.is_some()),
            ];
            let paths = named.into_iter().filter(|(_, is)| *is).map(|(path, _)| path.to_owned()).collect();
            let wish = api::Host {
                name: name(&set.host),
                cpu_overcommit: set.cpu_overcommit.unwrap_or_default(),
                memory_overcommit: set.memory_overcommit.unwrap_or_default(),
                disk_overcommit: set.disk_overcommit.unwrap_or_default(),
                system_cpu_millis: set.system_cpu.unwrap_or_default(),
                system_memory_bytes: set.system_memory.unwrap_or_default(),
                system_disk_bytes: set.system_disk.unwrap_or_default(),
                ..api::Host::default()
            };
            told(set.output.format, update(&client, wish, paths).await?)
        }
        Host::Drain(drain) => super::moves::drain(context, drain).await,
        Host::Remove { host, force } => {
            client.hosts().delete_host(api::DeleteHostRequest { name: name(&host), force }).await?;
            context.print(&format!("Removed host {host}\n"))
        }
    }
}
