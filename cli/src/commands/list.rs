//! `kinds`: the devices there are.

use netloom_api::v1 as api;
use serde_json::json;

use super::Context;
use crate::args::Format;
use crate::error::Error;
use crate::output::{json, kind, table};

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
    let found = context.client().await?.kinds().get_kind(request).await?.into_inner();
    context.print_as(format, || kind::describe(&found), || json::value("Kind", &found))
}
