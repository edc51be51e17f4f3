//! `validate`: a topology file, without a server.

use std::path::Path;

use netloom_model::kind::Catalogue;
use netloom_topology::{Diagnostic, Severity};

use super::Context;
use crate::args::Format;
use crate::error::Error;
use crate::output::words::count;
use crate::output::{diagnostics, json};
use crate::source::Source;

/// Exit code 1 when the file has errors.
pub fn run(
    context: &Context,
    file: Option<&Path>,
    node_filter: &[String],
    kinds_dir: Option<&Path>,
    format: Format,
) -> Result<u8, Error> {
    let source = match Source::open(file, Path::new(".")) {
        Ok(source) => source.only(node_filter),
        Err(Error::Invalid(why)) => return unreadable(context, file, why, format),
        Err(other) => return Err(other),
    };
    let catalogue = match kinds_dir {
        None => Catalogue::embedded(),
        Some(directory) => with_own_kinds(directory).map_err(|e| Error::Invalid(format!("{e:#}")))?,
    };
    let parsed = source.read(&catalogue)?.parsed;
    let said = &parsed.diagnostics;
    let table = || {
        let shown = diagnostics::shown(said, context.global.verbose);
        let mut text = diagnostics::text(context.style, &source.text, &shown);
        let found = diagnostics::summary(said);
        if !parsed.ok() {
            text.push_str(&format!("{} is not valid: {found}\n", source.name));
            return text;
        }
        let with = if found.is_empty() { String::new() } else { format!(", with {found}") };
        let lab = parsed.lab.as_ref().map_or("", |l| l.as_str());
        let nodes = count(parsed.spec.nodes.len() as i128, "node");
        let links = count(parsed.spec.links.len() as i128, "link");
        text.push_str(&format!("{} is valid{with}: lab {lab}, {nodes}, {links}\n", source.name));
        text
    };
    match format {
        Format::Table => context.print(&table())?,
        Format::Json => context.print(&json::text(&diagnostics::json(&source.name, parsed.ok(), said)))?,
    }
    Ok(u8::from(!parsed.ok()))
}

/// A file that cannot be read is not valid either.
fn unreadable(context: &Context, file: Option<&Path>, why: String, format: Format) -> Result<u8, Error> {
    let name = file.map_or_else(String::new, |f| f.display().to_string());
    let said = [Diagnostic {
        severity: Severity::Error,
        code: "FILE_UNREADABLE",
        file: name.clone(),
        line: 0,
        column: 0,
        message: why,
    }];
    match format {
        Format::Table => context.print(&diagnostics::text(context.style, "", &said))?,
        Format::Json => context.print(&json::text(&diagnostics::json(&name, false, &said)))?,
    }
    Ok(1)
}

/// The kinds as a server with this `kinds_dir` has them.
pub fn with_own_kinds(directory: &Path) -> anyhow::Result<Catalogue> {
    let text = format!("kinds_dir = {}", serde_json::to_string(directory)?);
    netloom_service::Settings::from_toml(&text, Path::new("."), Path::new("."))?.catalogue()
}
