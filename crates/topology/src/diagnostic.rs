//! What is said about a topology file, with the place it is said of.
//!
//! A file may be hostile: a [`Report`] keeps a bounded number of diagnostics, makes their text safe to print on a terminal, and does not repeat
//! itself when an anchored definition is read in many places.

use std::collections::BTreeSet;
use std::fmt;

use netloom_model::suggest::closest;

/// Most diagnostics that are told; when there are more, the last says how many were left out.
pub const MAX_DIAGNOSTICS: usize = 1_000;
/// Most suggestions that are looked for: each compares a name with all the others.
const MAX_SUGGESTIONS: usize = 50;
/// Longest message, in characters.
const MAX_MESSAGE: usize = 1_000;

/// How grave a diagnostic is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The file cannot be used.
    Error,
    /// Something in the file is not done; the lab works without it.
    Warning,
    /// Something is done in a way that may surprise.
    Info,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Info => "info",
        })
    }
}

/// Something to say about a topology file. Displayed as `file:line:column: error: message [CODE]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// How grave it is.
    pub severity: Severity,
    /// What it is, UPPER_SNAKE and stable, for programs.
    pub code: &'static str,
    /// The file, as the caller named it.
    pub file: String,
    /// Line from 1; 0 means the file as a whole.
    pub line: u32,
    /// Column in characters from 1; 0 means the file as a whole.
    pub column: u32,
    /// What was wrong and what to do.
    pub message: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        write!(f, ": {}: {} [{}]", self.severity, self.message, self.code)
    }
}

/// A place in the text; the default is the file as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Pos {
    pub line: u32,
    pub column: u32,
}

impl fmt::Display for Pos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct At<T> {
    pub value: T,
    pub pos: Pos,
}

/// Collects diagnostics.
#[derive(Debug)]
pub(crate) struct Report {
    file: String,
    kept: Vec<Diagnostic>,
    seen: BTreeSet<(Pos, &'static str, String)>,
    left_out: usize,
    errors: usize,
    suggestions: usize,
}

impl Report {
    pub fn new(file: &str) -> Report {
        Report {
            file: printable(file),
            kept: Vec::new(),
            seen: BTreeSet::new(),
            left_out: 0,
            errors: 0,
            suggestions: 0,
        }
    }

    pub fn error(&mut self, pos: Pos, code: &'static str, message: impl AsRef<str>) {
        self.say(Severity::Error, pos, code, message.as_ref());
    }

    pub fn warning(&mut self, pos: Pos, code: &'static str, message: impl AsRef<str>) {
        self.say(Severity::Warning, pos, code, message.as_ref());
    }

    pub fn info(&mut self, pos: Pos, code: &'static str, message: impl AsRef<str>) {
        self.say(Severity::Info, pos, code, message.as_ref());
    }

    pub fn say(&mut self, severity: Severity, pos: Pos, code: &'static str, message: &str) {
        if severity == Severity::Error {
            self.errors += 1;
        }
        if self.kept.len() >= MAX_DIAGNOSTICS {
            self.left_out += 1;
            return;
        }
        let message = printable(message);
        if self.seen.insert((pos, code, message.clone())) {
            let (line, column) = (pos.line, pos.column);
            self.kept.push(Diagnostic { severity, code, file: self.file.clone(), line, column, message });
        }
    }

    /// How many errors there were so far, kept or not.
    pub fn errors(&self) -> usize {
        self.errors
    }

    /// ` Did you mean "…"?` when one of the candidates is close to the name, else nothing.
    pub fn did_you_mean<'c>(&mut self, name: &str, candidates: impl IntoIterator<Item = &'c str>) -> String {
        self.suggestions += 1;
        if self.suggestions > MAX_SUGGESTIONS {
            return String::new();
        }
        closest(name, candidates).map_or_else(String::new, |c| format!(" Did you mean \"{c}\"?"))
    }

    /// All of them in the order of the file.
    pub fn finish(mut self) -> Vec<Diagnostic> {
        self.kept.sort_by_key(|d| (d.line, d.column));
        if self.left_out > 0 {
            // The last place is that of the word on those that are not shown.
            self.kept.truncate(MAX_DIAGNOSTICS - 1);
            self.left_out += 1;
            // The ones left out may be the only errors.
            let severity = if self.errors > 0 { Severity::Error } else { Severity::Warning };
            self.kept.push(Diagnostic {
                severity,
                code: "TOO_MANY_DIAGNOSTICS",
                file: self.file,
                line: 0,
                column: 0,
                message: format!("{} more are not shown; mend these first", self.left_out),
            });
        }
        self.kept
    }
}

/// The text without what could steer a terminal, and not longer than a message may be.
fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len().min(MAX_MESSAGE));
    for (i, c) in text.chars().enumerate() {
        if i == MAX_MESSAGE {
            out.push('…');
            break;
        }
        if c.is_control() || is_unseen(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// True for a character that is not seen, or turns the direction of the text.
fn is_unseen(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180e}'
        | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}'
        | '\u{feff}' | '\u{ffa0}' | '\u{e0000}'..='\u{e0fff}')
}

/// True for a character of an alphabet whose letters look like Latin ones.
fn is_lookalike(c: char) -> bool {
    matches!(c, '\u{370}'..='\u{52f}' | '\u{ff01}'..='\u{ff5e}' | '\u{1d400}'..='\u{1d7ff}')
}

/// A user's text for a message: in quotes, and cut when it is long. Letters that look like the Latin ones they stand between are written as their numbers.
pub(crate) fn quoted(text: &str) -> String {
    let mixed = text.chars().any(|c| c.is_ascii_alphabetic()) && text.chars().any(is_lookalike);
    let shown: String = text
        .chars()
        .flat_map(|c| {
            let escaped = mixed && is_lookalike(c);
            let (plain, number) = if escaped { (None, Some(c.escape_unicode())) } else { (Some(c), None) };
            plain.into_iter().chain(number.into_iter().flatten())
        })
        .collect();
    let text = shown.as_str();
    const MOST: usize = 80;
    match text.char_indices().nth(MOST) {
        Some((cut, _)) => format!("\"{}…\"", &text[..cut]),
        None => format!("\"{text}\""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn displayed_with_its_place() {
        let mut report = Report::new("a.clab.yml");
        report.warning(Pos { line: 2, column: 5 }, "B", "later");
        report.error(Pos::default(), "A", "whole");
        let shown: Vec<String> = report.finish().iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["a.clab.yml: error: whole [A]", "a.clab.yml:2:5: warning: later [B]"]);
    }

    #[test]
    fn what_is_not_seen_or_looks_like_another_letter_is_written_as_its_number() {
        let mut report = Report::new("f");
        report.error(Pos::default(), "A", format!("no key {}", quoted("im\u{430}ge\u{200b}")));
        assert_eq!(report.finish()[0].message, "no key \"im\\u{430}ge\\u{200b}\"");
        assert_eq!(quoted("größe"), "\"größe\"");
        assert_eq!(quoted("имя"), "\"имя\"");
    }

    #[test]
    fn nothing_steers_a_terminal() {
        let mut report = Report::new("x\u{1b}[2J");
        report.error(Pos::default(), "A", "a\u{1b}[31m\u{202e}b\nc");
        let shown = report.finish()[0].to_string();
        assert!(!shown.chars().any(|c| c.is_control() || c == '\u{202e}'), "{shown:?}");
    }

    #[test]
    fn errors_left_out_still_count() {
        let mut report = Report::new("f");
        for line in 0..2_000 {
            report.warning(Pos { line, column: 1 }, "W", "w");
        }
        report.error(Pos::default(), "E", "e");
        let all = report.finish();
        assert_eq!(all.len(), MAX_DIAGNOSTICS);
        assert_eq!(all.last().map(|d| (d.severity, d.code)), Some((Severity::Error, "TOO_MANY_DIAGNOSTICS")));
    }

    #[test]
    fn the_same_is_said_once() {
        let mut report = Report::new("f");
        for _ in 0..3 {
            report.error(Pos::default(), "E", "e");
        }
        assert_eq!(report.finish().len(), 1);
    }
}
