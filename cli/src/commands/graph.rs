//! `graph`: a picture of a lab.

use std::path::Path;

use futures::future::try_join3;
use netloom_model::kind::Catalogue;

use super::{Context, write_to};
use crate::args::lookat::{self, Picture};
use crate::error::Error;
use crate::graph::{Graph, svg, text};
use crate::output::{diagnostics, json};
use crate::source::Source;

/// Draws it.
pub async fn run(context: &Context, args: lookat::Graph) -> Result<(), Error> {
    let graph = match &args.lab {
        Some(lab) => {
            let client = context.client().await?;
            let name = format!("labs/{lab}");
            let (lab, nodes, links) =
                try_join3(client.lab(lab), client.all_nodes(&name), client.all_links(&name)).await?;
            Graph::of_lab(&lab, &nodes, &links)
        }
        None => of_file(context, args.topology.topology.as_deref())?,
    };
    let drawn = match args.format.unwrap_or_else(|| by_name(&args.output)) {
        Picture::Svg => svg::draw(&graph, args.dark),
        Picture::Dot => text::dot(&graph),
        Picture::Mermaid => text::mermaid(&graph),
        Picture::Json => json::text(&text::json(&graph)),
    };
    write_to(context, &args.output, args.force, &drawn)
}

fn of_file(context: &Context, file: Option<&Path>) -> Result<Graph, Error> {
    let source = Source::open(file, Path::new("."))?;
    let catalogue = Catalogue::embedded();
    let parsed = source.read(&catalogue)?.parsed;
    let Some(lab) = parsed.lab.as_ref().filter(|_| parsed.ok()) else {
        let said = diagnostics::shown(&parsed.diagnostics, context.global.verbose);
        eprint!("{}", diagnostics::text(context.error_style, &source.text, &said));
        let summary = diagnostics::summary(&said);
        return Err(Error::Invalid(format!("{} cannot be used: {summary}", source.name)));
    };
    Ok(Graph::of_spec(lab.as_str(), &parsed.spec, &catalogue))
}

fn by_name(path: &Path) -> Picture {
    match path.extension().and_then(|e| e.to_str()) {
        Some("dot" | "gv") => Picture::Dot,
        Some("mmd" | "mermaid" | "md") => Picture::Mermaid,
        Some("json") => Picture::Json,
        _ => Picture::Svg,
    }
}
