//! Pages about the commands, made of their definition so that they cannot say anything else. Pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use clap::{Arg, Command};

/// What stands below the title of each page.
const NOTICE: &str = "<!-- Made from the command's definition by `make docs`; edit cli/src/args. -->";
/// Heading of the options that each command has, which the index tells.
const GLOBAL: &str = "Global options";

/// A page in Markdown for each command that is not hidden, by file name. What belongs to a command, as `kinds list`, is on its page.
pub fn pages(mut root: Command) -> BTreeMap<String, String> {
    root.build();
    let name = root.get_name().to_owned();
    let shown = root.get_subcommands().filter(|c| !c.is_hide_set());
    shown.map(|c| (format!("{}.md", c.get_name()), page(c, &format!("{name} {}", c.get_name())))).collect()
}

fn page(command: &Command, called: &str) -> String {
    let mut text = format!("# {called}\n\n{NOTICE}\n");
    describe(command, called, 2, &mut text);
    text.push_str("\nThe [global options](../cli.md#global-options) go with every command.\n");
    text
}

fn describe(command: &Command, called: &str, level: usize, text: &mut String) {
    let about = command.get_long_about().or(command.get_about()).map(ToString::to_string).unwrap_or_default();
    for (i, paragraph) in paragraphs(&about).iter().enumerate() {
        let end = if i == 0 && !paragraph.ends_with('.') { "." } else { "" };
        let _ = write!(text, "\n{}{end}\n", prose(paragraph));
    }
    let subcommands: Vec<&Command> = command.get_subcommands().filter(|c| !c.is_hide_set()).collect();
    let usage = command.clone().render_usage().to_string();
    let usage: Vec<&str> = usage.trim_start_matches("Usage:").lines().map(str::trim).collect();
    let _ = write!(text, "\n```text\n{}\n```\n", usage.join("\n"));

    let arguments: Vec<&Arg> = command.get_positionals().filter(|a| !a.is_hide_set()).collect();
    table(text, level, "Arguments", &arguments);
    let mut headings: Vec<(&str, Vec<&Arg>)> = Vec::new();
    for option in command.get_arguments().filter(|a| !a.is_positional() && !a.is_hide_set()) {
        let heading = option.get_help_heading().unwrap_or("Options");
        if heading == GLOBAL || ["help", "version"].contains(&option.get_id().as_str()) {
            continue;
        }
        match headings.iter_mut().find(|(h, _)| *h == heading) {
            Some((_, options)) => options.push(option),
            None => headings.push((heading, vec![option])),
        }
    }
    for (heading, options) in headings {
        table(text, level, heading, &options);
    }
    let after = command.get_after_long_help().or(command.get_after_help());
    more(text, level, &after.map(ToString::to_string).unwrap_or_default());
    for sub in subcommands {
        let called = format!("{called} {}", sub.get_name());
        let _ = write!(text, "\n{} {called}\n", "#".repeat(level));
        describe(sub, &called, level + 1, text);
    }
}

fn table(text: &mut String, level: usize, heading: &str, arguments: &[&Arg]) {
    if arguments.is_empty() {
        return;
    }
    let _ = write!(text, "\n{} {heading}\n\n| | |\n|---|---|\n", "#".repeat(level));
    for argument in arguments {
        let help =
            argument.get_help().or(argument.get_long_help()).map(ToString::to_string).unwrap_or_default();
        let mut said = cell(&help);
        if !argument.is_hide_possible_values_set() && argument.get_action().takes_values() {
            let values: Vec<String> = argument
                .get_possible_values()
                .iter()
                .filter(|v| !v.is_hide_set())
                .map(|v| format!("`{}`", v.get_name()))
                .collect();
            if !values.is_empty() {
                let _ = write!(said, ": {}", values.join(", "));
            }
        }
        let defaults: Vec<String> =
            argument.get_default_values().iter().map(|v| format!("`{}`", v.to_string_lossy())).collect();
        let is_told = argument.is_hide_default_value_set() || !argument.get_action().takes_values();
        if !defaults.is_empty() && !is_told {
            let _ = write!(said, " [default: {}]", cell(&defaults.join(", ")));
        }
        let _ = writeln!(text, "| {} | {said} |", cell(&format!("`{}`", spelled(argument))));
    }
}

/// An argument as it is written on the command line.
fn spelled(argument: &Arg) -> String {
    let names: Vec<String> = argument
        .get_value_names()
        .filter(|_| argument.get_action().takes_values())
        .map(|names| names.iter().map(ToString::to_string).collect())
        .unwrap_or_default();
    let value = names.join(" ");
    if argument.is_positional() {
        let name = if value.is_empty() { argument.get_id().to_string().to_uppercase() } else { value };
        let many = argument.get_num_args().is_some_and(|n| n.max_values() > 1);
        return if many { format!("{name}…") } else { name };
    }
    let short = argument.get_short().map(|s| format!("-{s}"));
    let long = argument.get_long().map(|l| format!("--{l}"));
    let spelled: Vec<String> = [short, long].into_iter().flatten().collect();
    let spelled = spelled.join(", ");
    if value.is_empty() { spelled } else { format!("{spelled} {value}") }
}

/// What stands below the options: examples are commands, all else is prose.
fn more(text: &mut String, level: usize, after: &str) {
    for block in after.split("\n\n").filter(|b| !b.trim().is_empty()) {
        match block.split_once(":\n") {
            Some((title, lines)) if lines.lines().all(|l| l.starts_with("  ")) && !title.contains('\n') => {
                let lines: Vec<&str> = lines.lines().map(|l| l.get(2..).unwrap_or_default()).collect();
                let _ =
                    write!(text, "\n{} {title}\n\n```text\n{}\n```\n", "#".repeat(level), lines.join("\n"));
            }
            _ => {
                let _ = write!(text, "\n{}\n", prose(&block.replace('\n', " ")));
            }
        }
    }
}

fn paragraphs(text: &str) -> Vec<String> {
    text.split("\n\n")
        .map(|p| p.split_whitespace().collect::<Vec<_>>().join(" "))
        .filter(|p| !p.is_empty())
        .collect()
}

/// Text in which nothing is taken for Markdown.
fn prose(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '*' | '_' | '<' | '>' | '[' | ']' | '`' | '\\' | '{' | '}') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// Text within a cell of a table; a name in backquotes stays one.
fn cell(text: &str) -> String {
    let text = text.replace('\n', " ");
    if text.starts_with('`') { text.replace('|', "\\|") } else { prose(&text).replace('|', "\\|") }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::CommandFactory as _;

    use super::*;
    use crate::args::Cli;

    fn docs() -> &'static Path {
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs"))
    }

    #[test]
    fn the_pages_in_docs_are_as_the_definition() {
        let pages = pages(Cli::command());
        let mut there: Vec<String> = std::fs::read_dir(docs().join("cli"))
            .expect("docs/cli is there")
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        there.sort();
        let made: Vec<&String> = pages.keys().collect();
        assert_eq!(there.iter().collect::<Vec<_>>(), made, "run make docs");
        for (name, text) in &pages {
            let found = std::fs::read_to_string(docs().join("cli").join(name)).unwrap();
            assert_eq!(found, *text, "docs/cli/{name} is stale: run make docs");
        }
    }

    #[test]
    fn the_index_names_every_page_and_every_global_option() {
        let index = std::fs::read_to_string(docs().join("cli.md")).unwrap();
        for name in pages(Cli::command()).keys() {
            assert!(index.contains(&format!("(cli/{name})")), "docs/cli.md does not link to cli/{name}");
        }
        let root = Cli::command();
        for option in root.get_arguments().filter(|a| a.is_global_set()) {
            let long = option.get_long().unwrap();
            assert!(
                index.contains(&format!("`--{long}")) || index.contains(&format!(", --{long}")),
                "--{long}"
            );
        }
    }

    #[test]
    fn every_command_has_an_example_or_needs_none() {
        let pages = pages(Cli::command());
        for (name, text) in &pages {
            assert!(text.contains("\n```text\nnetloom "), "{name} has no usage:\n{text}");
            assert!(!text.contains("| `` |"), "{name}:\n{text}");
        }
        let exec = &pages["exec.md"];
        assert!(exec.contains("## Examples") && exec.contains("| `--label KEY[=VALUE]` |"), "{exec}");
        assert!(pages["kinds.md"].contains("## netloom kinds show"));
    }

    #[test]
    fn manual_pages_and_completions_are_written_for_every_command() {
        let dir = tempfile::tempdir().unwrap();
        clap_mangen::generate_to(Cli::command(), dir.path()).unwrap();
        let text = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
        assert!(text("netloom-exec.1").contains("parallel") && text("netloom.1").contains("deploy"));
        for command in Cli::command().get_subcommands().filter(|c| !c.is_hide_set()) {
            text(&format!("netloom-{}.1", command.get_name()));
        }
        assert!(!dir.path().join("netloom-man.1").exists());
        for shell in [clap_complete::Shell::Bash, clap_complete::Shell::Zsh, clap_complete::Shell::Fish] {
            let mut out = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "netloom", &mut out);
            assert!(String::from_utf8(out).unwrap().contains("inventory"), "{shell}");
        }
    }
}
