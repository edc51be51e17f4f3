//! What is wrong with a topology file, with the line it stands on and a caret below it.

use netloom_topology::{Diagnostic, Severity};
use serde_json::{Value, json};

use super::style::{Style, Tone, one_line};
use super::words;

/// Longest excerpt of a line, in characters.
const MAX_EXCERPT: usize = 100;

/// The diagnostics as text, with excerpts from the source.
pub fn text(style: Style, source: &str, diagnostics: &[Diagnostic]) -> String {
    let mut text = String::new();
    for diagnostic in diagnostics {
        let tone = match diagnostic.severity {
            Severity::Error => Tone::Bad,
            Severity::Warning => Tone::Busy,
            Severity::Info => Tone::Dim,
        };
        let mut place = diagnostic.file.clone();
        if diagnostic.line > 0 {
            place.push_str(&format!(":{}:{}", diagnostic.line, diagnostic.column));
        }
        let severity = style.paint(tone, &diagnostic.severity.to_string());
        text.push_str(&format!("{place}: {severity}: {} [{}]\n", diagnostic.message, diagnostic.code));
        if let Some(excerpt) = excerpt(style, source, diagnostic, tone) {
            text.push_str(&excerpt);
        }
    }
    text
}

/// Those that are shown: what merely informs only to whoever asked for more.
pub fn shown(diagnostics: &[Diagnostic], verbose: bool) -> Vec<Diagnostic> {
    diagnostics.iter().filter(|d| verbose || d.severity != Severity::Info).cloned().collect()
}

/// How many errors and warnings there are, in words; empty when there are none.
pub fn summary(diagnostics: &[Diagnostic]) -> String {
    let count = |severity| diagnostics.iter().filter(|d| d.severity == severity).count();
    let say = |n: usize, word: &str| (n > 0).then(|| words::count(n as i128, word));
    let parts: Vec<String> = [say(count(Severity::Error), "error"), say(count(Severity::Warning), "warning")]
        .into_iter()
        .flatten()
        .collect();
    parts.join(", ")
}

/// The diagnostics for programs.
pub fn json(file: &str, valid: bool, diagnostics: &[Diagnostic]) -> Value {
    let list: Vec<Value> = diagnostics
        .iter()
        .map(|d| {
            json!({
                "severity": format!("SEVERITY_{}", d.severity.to_string().to_uppercase()),
                "code": d.code,
                "file": d.file,
                "line": d.line,
                "column": d.column,
                "message": d.message,
            })
        })
        .collect();
    json!({ "file": file, "valid": valid, "diagnostics": list })
}

/// The line, and a caret below the column. A long line is shown around the column.
fn excerpt(style: Style, source: &str, diagnostic: &Diagnostic, tone: Tone) -> Option<String> {
    let line = source.lines().nth(usize::try_from(diagnostic.line.checked_sub(1)?).ok()?)?;
    let column = usize::try_from(diagnostic.column.max(1)).ok()? - 1;
    let from = column.saturating_sub(MAX_EXCERPT * 3 / 4);
    let shown: String =
        line.chars().skip(from).take(MAX_EXCERPT).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if shown.trim().is_empty() {
        return None;
    }
    let number = diagnostic.line.to_string();
    let gutter = " ".repeat(number.len());
    let caret = format!("{}^", " ".repeat(column - from));
    let bar = style.paint(Tone::Dim, "|");
    Some(format!(
        " {} {bar} {}\n {gutter} {bar} {}\n",
        style.paint(Tone::Dim, &number),
        one_line_keeping_indent(&shown),
        style.paint(tone, &caret)
    ))
}

fn one_line_keeping_indent(text: &str) -> String {
    let trimmed = text.trim_start();
    let indent = text.chars().count() - trimmed.chars().count();
    // Spaces within are kept, or the caret would point elsewhere.
    let words: Vec<String> = trimmed.trim_end().split(' ').map(one_line).collect();
    format!("{}{}", " ".repeat(indent), words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn diagnostic(severity: Severity, line: u32, column: u32) -> Diagnostic {
        Diagnostic {
            severity,
            code: "UNKNOWN_KEY",
            file: "a.clab.yml".into(),
            line,
            column,
            message: "there is no key \"nodez\". Did you mean \"nodes\"?".into(),
        }
    }

    #[test]
    fn the_place_is_shown() {
        let source = "name: a\ntopology:\n\tnodez:  {}\n";
        let expected = "\
a.clab.yml:3:2: error: there is no key \"nodez\". Did you mean \"nodes\"? [UNKNOWN_KEY]
 3 |  nodez:  {}
   |  ^
a.clab.yml: warning: there is no key \"nodez\". Did you mean \"nodes\"? [UNKNOWN_KEY]
";
        let all = [diagnostic(Severity::Error, 3, 2), diagnostic(Severity::Warning, 0, 0)];
        assert_eq!(text(Style::PLAIN, source, &all), expected);
        assert_eq!(summary(&all), "1 error, 1 warning");
    }

    #[test]
    fn a_long_line_is_shown_around_its_column() {
        let source = format!("{}HERE{}", "x".repeat(500), "y".repeat(500));
        let shown = text(Style::PLAIN, &source, &[diagnostic(Severity::Error, 1, 501)]);
        let lines: Vec<&str> = shown.lines().collect();
        let caret = lines[2].find('^').unwrap();
        assert!(lines[1][caret..].starts_with("HERE"), "{shown}");
        assert!(lines[1].len() < 120);
    }

    #[test]
    fn a_place_that_does_not_exist_does_no_harm() {
        let shown = text(Style::PLAIN, "", &[diagnostic(Severity::Error, 7, 9)]);
        assert_eq!(shown.lines().count(), 1);
    }

    #[test]
    fn json_has_every_field() {
        let value = json("a.clab.yml", false, &[diagnostic(Severity::Error, 3, 2)]);
        assert_eq!(value["valid"], false);
        assert_eq!(value["diagnostics"][0]["severity"], "SEVERITY_ERROR");
        assert_eq!(value["diagnostics"][0]["line"], 3);
    }
}
