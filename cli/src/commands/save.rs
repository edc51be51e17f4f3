//! `save`: the running configuration of nodes, in files.

use std::path::{Path, PathBuf};

use futures::stream::{self, StreamExt as _};
use netloom_api::v1 as api;
use serde_json::{Value, json};

use super::Context;
use crate::args::Format;
use crate::args::node::{Save, Select};
use crate::client::Client;
use crate::error::Error;
use crate::output::words::{count, last};
use crate::output::{json as out_json, table};
use crate::select::Selection;
use crate::{atomic, output::style::one_line};

/// Nodes that are asked at once.
const AT_ONCE: usize = 8;
/// So many configurations that were saved before are kept of a node.
const KEPT: usize = 20;

/// What became of a node.
enum Outcome {
    Saved {
        path: PathBuf,
        bytes: usize,
        changed: bool,
    },
    /// Its kind has no way to tell its configuration, and nobody named it.
    Skipped(String),
    Failed(String),
}

/// Saves them; exit code 1 when one failed.
pub async fn run(context: &Context, args: Save) -> Result<u8, Error> {
    let nothing_said = args.nodes.is_empty()
        && args.select.kind.is_empty()
        && args.select.group.is_empty()
        && args.select.label.is_empty();
    let select = Select { all: args.select.all || nothing_said, ..args.select };
    let selection = Selection::new(&args.nodes, &select)?;
    let client = context.client().await?;
    let nodes = client.all_nodes(&format!("labs/{}", args.lab)).await?;
    let nodes = selection.of(&args.lab, &nodes)?;
    let directory = args.dir.unwrap_or_else(|| PathBuf::from(format!("{}-config", args.lab)));
    let named = |name: &str| args.nodes.iter().any(|n| n == last(name));
    let (client, directory) = (&client, directory.as_path());
    let outcomes: Vec<(String, Outcome)> = stream::iter(nodes)
        .map(|name| {
            let is_named = named(&name);
            async move {
                let outcome = one(client, &name, directory, is_named).await;
                (last(&name).to_owned(), outcome)
            }
        })
        .buffered(AT_ONCE)
        .collect()
        .await;
    report(context, args.output.format, &outcomes)?;
    Ok(u8::from(outcomes.iter().any(|(_, o)| matches!(o, Outcome::Failed(_)))))
}

async fn one(client: &Client, name: &str, directory: &Path, is_named: bool) -> Outcome {
    let request = api::GetNodeConfigRequest { name: name.to_owned() };
    let config = match client.nodes().get_node_config(request).await {
        Ok(config) => config.into_inner(),
        Err(status) => {
            let error = Error::gone(status);
            let says = |reason: &str| matches!(&error, Error::Refused(f) if f.reason == reason);
            let why = match &error {
                Error::Refused(f) => format!("{} [{}]", one_line(&f.message), f.reason),
                other => one_line(&other.to_string()),
            };
            let is_left_out = says("CONFIG_NOT_SUPPORTED") && !is_named;
            return if is_left_out { Outcome::Skipped(why) } else { Outcome::Failed(why) };
        }
    };
    if config.content.iter().all(u8::is_ascii_whitespace) {
        return Outcome::Failed("it told an empty configuration".to_owned());
    }
    // Made for what is put into it: nothing to save leaves no directory behind.
    if let Err(e) = std::fs::create_dir_all(directory) {
        return Outcome::Failed(format!("the directory {} cannot be made: {e}", directory.display()));
    }
    let path = directory.join(format!("{}.cfg", last(name)));
    let before = std::fs::read(&path).ok();
    let changed = before.as_ref() != Some(&config.content);
    if let Some(before) = before.filter(|_| changed)
        && let Err(e) = put_by(directory, last(name), &path, &before)
    {
        return Outcome::Failed(format!("what was saved before cannot be kept: {e}"));
    }
    match atomic::write(&path, &config.content) {
        Ok(()) => Outcome::Saved { path, bytes: config.content.len(), changed },
        Err(e) => Outcome::Failed(format!("{} cannot be written: {e}", path.display())),
    }
}

/// Keeps what was saved before under the time at which that was, and of each node the last so many.
fn put_by(directory: &Path, node: &str, path: &Path, before: &[u8]) -> std::io::Result<()> {
    let history = directory.join("history").join(node);
    std::fs::create_dir_all(&history)?;
    let saved: jiff::Timestamp =
        std::fs::metadata(path)?.modified()?.try_into().map_err(std::io::Error::other)?;
    // With all digits, so that names are in the order of times.
    atomic::write(&history.join(format!("{}.cfg", saved.strftime("%Y-%m-%dT%H-%M-%S.%9fZ"))), before)?;
    let mut kept: Vec<PathBuf> = std::fs::read_dir(&history)?.flatten().map(|e| e.path()).collect();
    kept.retain(|path| path.extension().is_some_and(|e| e == "cfg"));
    kept.sort();
    for old in &kept[..kept.len().saturating_sub(KEPT)] {
        std::fs::remove_file(old)?;
    }
    Ok(())
}

fn report(context: &Context, format: Format, outcomes: &[(String, Outcome)]) -> Result<(), Error> {
    let count_of = |is: fn(&Outcome) -> bool| outcomes.iter().filter(|(_, o)| is(o)).count();
    let saved = count_of(|o| matches!(o, Outcome::Saved { .. }));
    let failed = count_of(|o| matches!(o, Outcome::Failed(_)));
    if format == Format::Json {
        let nodes: Vec<Value> = outcomes
            .iter()
            .map(|(node, outcome)| match outcome {
                Outcome::Saved { path, bytes, changed } => {
                    json!({ "node": node, "result": "SAVED", "file": path, "bytes": bytes, "changed": changed })
                }
                Outcome::Skipped(why) => json!({ "node": node, "result": "NOT_SUPPORTED", "reason": why }),
                Outcome::Failed(why) => json!({ "node": node, "result": "FAILED", "reason": why }),
            })
            .collect();
        return context.print(&out_json::text(&json!({ "nodes": nodes })));
    }
    let rows = outcomes.iter().map(|(node, outcome)| {
        let [result, file, why] = match outcome {
            Outcome::Saved { path, bytes, changed } => {
                let how = if *changed { "changed" } else { "as before" };
                [
                    "SAVED".to_owned(),
                    path.display().to_string(),
                    format!("{}, {how}", count(*bytes as i128, "byte")),
                ]
            }
            Outcome::Skipped(_) => [
                "SKIPPED".to_owned(),
                String::new(),
                "nothing says what its configuration is (save-file)".to_owned(),
            ],
            Outcome::Failed(why) => ["FAILED".to_owned(), String::new(), why.clone()],
        };
        vec![node.clone(), result, file, why]
    });
    context.print(&table::plain(context.style, &["NODE", "RESULT", "FILE", "ABOUT"], &[1], rows))?;
    let mut said = format!("{} saved", count(saved as i128, "configuration"));
    if failed > 0 {
        said.push_str(&format!(", {} failed", count(failed as i128, "node")));
    }
    context.print(&format!("\n{said}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_saved_before_is_kept_and_the_oldest_goes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r1.cfg");
        for n in 0..KEPT + 2 {
            std::fs::write(&path, format!("{n}")).unwrap();
            let file = std::fs::File::options().write(true).open(&path).unwrap();
            file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(n as u64)).unwrap();
            put_by(dir.path(), "r1", &path, format!("{n}").as_bytes()).unwrap();
        }
        let history = dir.path().join("history/r1");
        assert_eq!(std::fs::read_dir(&history).unwrap().count(), KEPT);
        let last = history.join(format!("1970-01-01T00-00-{}.000000000Z.cfg", KEPT + 1));
        assert_eq!(std::fs::read_to_string(last).unwrap(), format!("{}", KEPT + 1));
    }
}
