//! Colours, where somebody looks.

use std::io::IsTerminal;

/// What a text is to be seen as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// As it is wanted.
    Good,
    /// On its way.
    Busy,
    /// Not as it is wanted.
    Bad,
    /// Less important.
    Dim,
    /// More important.
    Strong,
    /// Neither.
    Plain,
}

/// Whether to colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// True colours.
    pub colour: bool,
}

impl Style {
    /// No colours.
    pub const PLAIN: Style = Style { colour: false };

    /// Colours on a terminal, unless the user or NO_COLOR (<https://no-color.org>) says otherwise.
    pub fn of(stream: &impl IsTerminal, no_colour: bool) -> Style {
        let refused = no_colour || std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        Style { colour: !refused && stream.is_terminal() }
    }

    /// The text in its colour.
    pub fn paint(self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Good => "32",
            Tone::Busy => "33",
            Tone::Bad => "31",
            Tone::Dim => "2",
            Tone::Strong => "1",
            Tone::Plain => return text.to_owned(),
        };
        if self.colour { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

/// The text on one line and without what could steer a terminal: details come from daemons, images and files.
pub fn one_line(text: &str) -> String {
    let steers = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let mut out = String::with_capacity(text.len());
    for c in text.trim().chars() {
        if c.is_whitespace() {
            if !out.ends_with(' ') {
                out.push(' ');
            }
        } else if steers(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// At most so many characters, the last of them "…" when there were more.
pub fn clip(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let mut clipped: String = text.chars().take(most.saturating_sub(1)).collect();
    clipped.push('…');
    clipped
}

/// At most so many columns of a line that may have colours, which take none and are ended.
pub fn cut(line: &str, most: usize) -> String {
    let mut out = String::new();
    let mut seen = 0;
    let total = visible(line);
    let mut characters = line.chars();
    while let Some(c) = characters.next() {
        if c == '\u{1b}' {
            out.push(c);
            for c in characters.by_ref() {
                out.push(c);
                if c == 'm' {
                    break;
                }
            }
            continue;
        }
        if total > most && seen + 1 == most {
            out.push('…');
            if out.contains('\u{1b}') {
                out.push_str("\u{1b}[0m");
            }
            break;
        }
        if seen == most {
            break;
        }
        out.push(c);
        seen += 1;
    }
    out
}

/// Characters of a line without its colours.
pub fn visible(line: &str) -> usize {
    let mut count = 0;
    let mut characters = line.chars();
    while let Some(c) = characters.next() {
        if c == '\u{1b}' {
            characters.by_ref().find(|c| *c == 'm');
        } else {
            count += 1;
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_is_plain() {
        assert_eq!(Style::PLAIN.paint(Tone::Bad, "x"), "x");
        assert_eq!(Style { colour: true }.paint(Tone::Bad, "x"), "\u{1b}[31mx\u{1b}[0m");
    }

    #[test]
    fn colours_take_no_room() {
        assert_eq!(visible("\u{1b}[31mFAILED\u{1b}[0m …"), 8);
        assert_eq!(cut("\u{1b}[31mFAILED\u{1b}[0m now", 5), "\u{1b}[31mFAIL…\u{1b}[0m");
        assert_eq!(cut("\u{1b}[31mFAILED\u{1b}[0m", 6), "\u{1b}[31mFAILED\u{1b}[0m");
        assert_eq!((cut("abc", 0).as_str(), cut("abc", 1).as_str(), cut("", 9).as_str()), ("", "…", ""));
    }

    #[test]
    fn nothing_steers_a_terminal() {
        assert_eq!(one_line(" a\n  b\u{1b}[2J\u{202e} "), "a b\\u{1b}[2J\\u{202e}");
    }
}
