//! `version`: of this program, and what the server is made of where it answers.

use serde_json::json;

use super::Context;
use crate::args::Format;
use crate::error::Error;
use crate::output::words::last;
use crate::output::{host, json};

/// Prints both. A server that does not answer is said, and is no error.
pub async fn run(context: &Context, format: Format) -> Result<(), Error> {
    let version = env!("CARGO_PKG_VERSION");
    let server = match context.client().await {
        Ok(client) => Some((client.endpoint().to_string(), client.all_hosts().await?)),
        Err(Error::Unreachable(_)) => None,
        Err(other) => return Err(other),
    };
    let table = || {
        let mut text = format!("netloom {version}\n");
        match &server {
            None => text.push_str("server: none answers\n"),
            Some((endpoint, hosts)) => {
                text.push_str(&format!("server: answers at {endpoint}\n"));
                for one in hosts {
                    let mut parts = host::versions(one);
                    if !one.ovs_version.is_empty() {
                        parts.push(format!("Open vSwitch {} ({})", one.ovs_version, one.datapath));
                    }
                    text.push_str(&format!("host {}: {}\n", last(&one.name), parts.join(", ")));
                }
            }
        }
        text
    };
    context.print_as(format, table, || {
        let server = server
            .as_ref()
            .map(|(endpoint, hosts)| json!({ "endpoint": endpoint, "hosts": json::list("Host", hosts) }));
        json!({ "client": version, "server": server })
    })
}
