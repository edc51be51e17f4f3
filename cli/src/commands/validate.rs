//! `validate`: a topology file, without a server.

use std::path::Path;

use netloom_model::kind::Catalogue;

use super::Context;
use crate::args::Format;
use crate::error::Error;
use crate::output::{diagnostics, json};
use crate::source::Source;

/// Exit code 1 when the file has errors.
pub fn run(
    context: &Context,
    file: Option<&Path>,
    kinds_dir: Option<&Path>,
    format: Format,
) -> Result<u8, Error> {
    let source = Source::open(file, Path::new("."))?;
    let catalogue = match kinds_dir {
        None => Catalogue::embedded(),
        Some(directory) => with_own_kinds(directory).map_err(|e| Error::Invalid(format!("{e:#}")))?,
    };
    let parsed = source.read(&catalogue)?.parsed;
    let said = &parsed.diagnostics;
    let table = || {
        let mut text = diagnostics::text(context.style, &source.text, said);
        let lab = parsed.lab.as_ref().map_or("", |l| l.as_str());
        let found = diagnostics::summary(said);
        text.push_str(&match (parsed.ok(), found.as_str()) {
            (true, "") => format!(
                "{} is valid: lab {lab}, {} nodes, {} links\n",
                source.name,
                parsed.spec.nodes.len(),
                parsed.spec.links.len()
            ),
            (true, found) => format!("{} is valid, with {found}\n", source.name),
            (false, found) => format!("{} is not valid: {found}\n", source.name),
        });
        text
    };
    match format {
        Format::Table => context.print(&table())?,
        Format::Json => context.print(&json::text(&diagnostics::json(&source.name, parsed.ok(), said)))?,
    }
    Ok(u8::from(!parsed.ok()))
}

/// The kinds as a server with this `kinds_dir` has them.
fn with_own_kinds(directory: &Path) -> anyhow::Result<Catalogue> {
    let text = format!("kinds_dir = {}", serde_json::to_string(directory)?);
    netloom_service::Settings::from_toml(&text, Path::new("."), Path::new("."))?.catalogue()
}
