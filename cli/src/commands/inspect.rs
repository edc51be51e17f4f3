//! `inspect`: labs, nodes and links as they are.

use futures::future::try_join3;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use netloom_api::v1 as api;
use serde_json::json;

use super::{Context, lab_named};
use crate::args::{Format, Topology};
use crate::client::Client;
use crate::error::Error;
use crate::output::{json, table};

/// Labs whose nodes are asked for at once.
const AT_ONCE: usize = 8;

/// Shows one lab, or all.
pub async fn run(
    context: &Context,
    lab: Option<String>,
    topology: &Topology,
    show_all: bool,
    format: Format,
) -> Result<(), Error> {
    if show_all {
        return all(context, &context.client().await?, format).await;
    }
    let lab = lab_named(lab, topology)?;
    one(context, &context.client().await?, &lab, format, true).await
}

/// Shows one lab; `whole` also what its tables clip.
pub async fn one(
    context: &Context,
    client: &Client,
    lab: &str,
    format: Format,
    whole: bool,
) -> Result<(), Error> {
    let name = format!("labs/{lab}");
    let (lab, nodes, links) =
        try_join3(client.lab(lab), client.all_nodes(&name), client.all_links(&name)).await?;
    let table = || {
        let style = context.style;
        let mut text = table::labs(style, std::slice::from_ref(&lab));
        text.push_str(&format!("\n{}", table::nodes(style, &nodes, false)));
        if !links.is_empty() {
            text.push_str(&format!("\n{}", table::links(style, &links)));
        }
        let reasons = table::reasons(std::slice::from_ref(&lab), &nodes, &links);
        if whole && !reasons.is_empty() {
            text.push_str(&format!("\n{reasons}"));
        }
        text
    };
    context.print_as(format, table, || {
        json!({
            "lab": json::value("Lab", &lab),
            "nodes": json::list("Node", &nodes),
            "links": json::list("Link", &links),
        })
    })
}

async fn all(context: &Context, client: &Client, format: Format) -> Result<(), Error> {
    let labs = client.all_labs().await?;
    let nodes: Vec<Vec<api::Node>> =
        stream::iter(&labs).map(|lab| client.all_nodes(&lab.name)).buffered(AT_ONCE).try_collect().await?;
    let nodes = nodes.concat();
    let table = || {
        if labs.is_empty() {
            return "There are no labs\n".to_owned();
        }
        let reasons = table::reasons(&labs, &nodes, &[]);
        let gap = if reasons.is_empty() { "" } else { "\n" };
        let (labs, nodes) = (table::labs(context.style, &labs), table::nodes(context.style, &nodes, true));
        format!("{labs}\n{nodes}{gap}{reasons}")
    };
    context.print_as(
        format,
        table,
        || json!({ "labs": json::list("Lab", &labs), "nodes": json::list("Node", &nodes) }),
    )
}
