//! `kinds`, `host` and `image`: objects that are listed.

use netloom_api::v1 as api;
use serde_json::json;

use super::Context;
use crate::args::Format;
use crate::error::Error;
use crate::output::words::{bytes, cores, last, runtime};
use crate::output::{json, table};

/// The kinds.
pub async fn kinds(context: &Context, format: Format) -> Result<(), Error> {
    let kinds = context.client().await?.all_kinds().await?;
    context.print_as(
        format,
        || table::kinds(context.style, &kinds),
        || json!({ "kinds": json::list("Kind", &kinds) }),
    )
}

/// One kind.
pub async fn kind(context: &Context, name: &str, format: Format) -> Result<(), Error> {
    let request = api::GetKindRequest { name: format!("kinds/{name}") };
    let kind = context.client().await?.kinds().get_kind(request).await?.into_inner();
    context.print_as(format, || describe(&kind), || json::value("Kind", &kind))
}

/// The hosts.
pub async fn hosts(context: &Context, format: Format) -> Result<(), Error> {
    let hosts = context.client().await?.all_hosts().await?;
    context.print_as(
        format,
        || table::hosts(context.style, &hosts),
        || json!({ "hosts": json::list("Host", &hosts) }),
    )
}

/// The images.
pub async fn images(context: &Context, format: Format) -> Result<(), Error> {
    let images = context.client().await?.all_images().await?;
    context.print_as(
        format,
        || table::images(context.style, &images),
        || json!({ "images": json::list("Image", &images) }),
    )
}

fn describe(kind: &api::Kind) -> String {
    let memory = i64::try_from(kind.memory_request_bytes).unwrap_or(i64::MAX);
    let lines = [
        ("Kind", last(&kind.name).to_owned()),
        ("Description", kind.description.clone()),
        ("Aliases", kind.aliases.join(", ")),
        ("Runtime", runtime(kind.runtime()).to_owned()),
        ("Image", kind.image.clone()),
        ("Interfaces", table::interfaces(kind)),
        ("CPU counted", format!("{} cores", cores(kind.cpu_request_millis.into()))),
        ("Memory counted", bytes(memory)),
        ("Capabilities", kind.cap_add.join(", ")),
        ("Verified", if kind.verified { "a test runs it" } else { "no test runs it" }.to_owned()),
        ("Source", kind.source.clone()),
    ];
    let shown = lines.iter().filter(|(_, value)| !value.is_empty());
    shown.map(|(name, value)| format!("{name:16}{value}\n")).collect()
}
