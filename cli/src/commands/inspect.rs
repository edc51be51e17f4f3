//! `inspect`: labs, nodes and links as they are.

use std::io::IsTerminal as _;
use std::time::SystemTime;

use futures::future::{try_join, try_join3};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use netloom_api::v1 as api;
use serde_json::json;

use super::{Context, lab_named, live};
use crate::args::Format;
use crate::args::lookat::{Inspect, Interfaces, Shape, What};
use crate::client::Client;
use crate::error::Error;
use crate::output::words::last;
use crate::output::{evidence, interfaces, json, reasons, table};
use crate::select::Selection;

/// Labs whose nodes are asked for at once.
const AT_ONCE: usize = 8;

/// Shows one lab, or all; once, or for as long as the user looks.
pub async fn run(context: &Context, args: Inspect) -> Result<(), Error> {
    if let Some(What::Interfaces(args)) = args.what {
        return of_interfaces(context, args).await;
    }
    if args.watch && args.format != Shape::Table {
        return Err(Error::Usage(
            "--watch is for people; netloom events --format json tells programs what changes".to_owned(),
        ));
    }
    let lab = if args.all { None } else { Some(lab_named(args.lab, &args.topology)?) };
    let client = context.client().await?;
    if args.watch {
        let surface =
            if std::io::stdout().is_terminal() { live::Surface::Canvas } else { live::Surface::Lines };
        return live::run(context, &client, lab.as_deref(), args.wide, surface).await;
    }
    let Some(lab) = lab else { return all(context, &client, args.format, args.wide).await };
    let mut shown = gather(&client, &lab).await?;
    shown.keep(&lab, &args.nodes)?;
    match args.format {
        Shape::Table => {
            let mut text = shown.text(context, args.wide, true);
            if args.wide {
                let now = SystemTime::now();
                text += &format!("\n{}", evidence::text(context.style, &shown.nodes, &shown.links, now));
            }
            context.print(&text)
        }
        Shape::Json => context.print(&json::text(&shown.json())),
        Shape::Csv => context.print(&table::nodes_csv(&shown.nodes)),
    }
}

/// A lab with all that is in it.
struct Whole {
    lab: api::Lab,
    nodes: Vec<api::Node>,
    links: Vec<api::Link>,
}

async fn gather(client: &Client, lab: &str) -> Result<Whole, Error> {
    let name = format!("labs/{lab}");
    let (lab, nodes, links) =
        try_join3(client.lab(lab), client.all_nodes(&name), client.all_links(&name)).await?;
    Ok(Whole { lab, nodes, links })
}

impl Whole {
    /// Leaves only these nodes and their links; all where none is named.
    fn keep(&mut self, lab: &str, names: &[String]) -> Result<(), Error> {
        if names.is_empty() {
            return Ok(());
        }
        let kept = Selection::by_name(names).of(lab, &self.nodes)?;
        self.nodes.retain(|node| kept.contains(&node.name));
        let is_kept = |end: &Option<api::Endpoint>| {
            end.as_ref().is_some_and(|end| kept.iter().any(|name| last(name) == end.node))
        };
        self.links.retain(|link| is_kept(&link.a) || is_kept(&link.b));
        Ok(())
    }

    fn text(&self, context: &Context, wide: bool, whole: bool) -> String {
        one_text(context, &self.lab, &self.nodes, &self.links, wide, whole)
    }

    fn json(&self) -> serde_json::Value {
        json!({
            "lab": json::value("Lab", &self.lab),
            "nodes": json::list("Node", &self.nodes),
            "links": json::list("Link", &self.links),
        })
    }
}

/// The tables of one lab; `whole` also what they clip.
pub fn one_text(
    context: &Context,
    lab: &api::Lab,
    nodes: &[api::Node],
    links: &[api::Link],
    wide: bool,
    whole: bool,
) -> String {
    let style = context.style;
    let mut text = table::labs(style, std::slice::from_ref(lab));
    let nodes_shown =
        if wide { table::wide_nodes(style, nodes, false) } else { table::nodes(style, nodes, false) };
    text.push_str(&format!("\n{nodes_shown}"));
    if !links.is_empty() {
        text.push_str(&format!("\n{}", table::links(style, links)));
    }
    let clipped = reasons::clipped(std::slice::from_ref(lab), nodes, links);
    if whole && !clipped.is_empty() {
        text.push_str(&format!("\n{clipped}"));
    }
    text
}

/// The tables of all labs.
pub fn all_text(context: &Context, labs: &[api::Lab], nodes: &[api::Node], wide: bool) -> String {
    if labs.is_empty() {
        return "There are no labs\n".to_owned();
    }
    let clipped = reasons::clipped(labs, nodes, &[]);
    let gap = if clipped.is_empty() { "" } else { "\n" };
    let labs = table::labs(context.style, labs);
    let nodes = if wide {
        table::wide_nodes(context.style, nodes, true)
    } else {
        table::nodes(context.style, nodes, true)
    };
    format!("{labs}\n{nodes}{gap}{clipped}")
}

/// Shows one lab, `whole` also what its tables clip, and answers its nodes.
pub async fn one(
    context: &Context,
    client: &Client,
    lab: &str,
    format: Format,
    whole: bool,
) -> Result<Vec<api::Node>, Error> {
    let shown = gather(client, lab).await?;
    context.print_as(format, || shown.text(context, false, whole), || shown.json())?;
    Ok(shown.nodes)
}

async fn all(context: &Context, client: &Client, format: Shape, wide: bool) -> Result<(), Error> {
    let labs = client.all_labs().await?;
    let nodes: Vec<Vec<api::Node>> =
        stream::iter(&labs).map(|lab| client.all_nodes(&lab.name)).buffered(AT_ONCE).try_collect().await?;
    let nodes = nodes.concat();
    match format {
        Shape::Table => context.print(&all_text(context, &labs, &nodes, wide)),
        Shape::Json => {
            let value = json!({ "labs": json::list("Lab", &labs), "nodes": json::list("Node", &nodes) });
            context.print(&json::text(&value))
        }
        Shape::Csv => context.print(&table::nodes_csv(&nodes)),
    }
}

async fn of_interfaces(context: &Context, args: Interfaces) -> Result<(), Error> {
    let lab = lab_named(args.lab, &args.topology)?;
    let client = context.client().await?;
    let name = format!("labs/{lab}");
    let (nodes, links) = try_join(client.all_nodes(&name), client.all_links(&name)).await?;
    if let Some(node) = &args.node {
        Selection::by_name(std::slice::from_ref(node)).of(&lab, &nodes)?;
    }
    let rows = interfaces::rows(&nodes, &links, args.node.as_deref());
    match args.format {
        Shape::Table => context.print(&interfaces::text(context.style, &rows)),
        Shape::Json => context.print(&json::text(&interfaces::json(&rows))),
        Shape::Csv => context.print(&interfaces::csv(&rows)),
    }
}
