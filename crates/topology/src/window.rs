//! How much of a text the YAML parser may look at before it tells the next value.
//!
//! What begins with a bracket may turn out to be a key, so the parser keeps all of it until the bracket is closed: a few megabytes of brackets
//! would become most of a gigabyte of tokens. The characters are therefore handed out one by one and end when the parser has taken too many
//! without telling a value. A text that is one bracket as a whole, as JSON is, gets a document marker in front, behind which no key can begin.

use std::cell::Cell;
use std::iter::Chain;
use std::rc::Rc;
use std::str::Chars;

use saphyr_parser::{BufferedInput, Event, Marker, Parser, ScanError, Span};

use crate::diagnostic::Pos;

/// Most characters between two values.
pub(crate) const MAX_AHEAD: usize = 512 << 10;
const MARKER: &str = "--- ";

/// What came of asking for the next event.
pub(crate) enum Next<'t> {
    Event(Event<'t>, Span),
    Invalid(ScanError),
    /// There are more than [`MAX_AHEAD`] characters without a value.
    TooFar,
}

/// The characters of the text, as far as they may be looked at.
struct Window<'t> {
    chars: Chain<Chain<Chars<'t>, Chars<'static>>, Chars<'t>>,
    ahead: Rc<Cell<usize>>,
}

impl Iterator for Window<'_> {
    type Item = char;

    fn next(&mut self) -> Option<char> {
        let ahead = self.ahead.get();
        if ahead > MAX_AHEAD {
            return None;
        }
        self.ahead.set(ahead + 1);
        self.chars.next()
    }
}

/// The events of a text.
pub(crate) struct Events<'t> {
    parser: Parser<'t, BufferedInput<Window<'t>>>,
    ahead: Rc<Cell<usize>>,
    /// The line that got a marker, and by how much its columns moved to the right.
    moved: Option<(usize, usize)>,
}

impl<'t> Events<'t> {
    pub fn new(text: &'t str) -> Events<'t> {
        let (before, indentation, rest) = bracket(text).unwrap_or((text, 0, ""));
        let moved = (!rest.is_empty()).then(|| (before.matches('\n').count() + 1, indentation));
        let marker = if moved.is_some() { MARKER } else { "" };
        let ahead = Rc::new(Cell::new(0));
        let chars = before.chars().chain(marker.chars()).chain(rest.chars());
        let window = Window { chars, ahead: ahead.clone() };
        Events { parser: Parser::new_from_iter(window), ahead, moved }
    }

    /// Where a mark of the parser's is in the text.
    pub fn place(&self, mark: &Marker) -> Pos {
        let column = match self.moved {
            Some((line, indentation)) if line == mark.line() => {
                (mark.col() + indentation).saturating_sub(MARKER.len())
            }
            _ => mark.col(),
        };
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Pos { line: number(mark.line()), column: number(column).saturating_add(1) }
    }
}

impl<'t> Iterator for Events<'t> {
    type Item = Next<'t>;

    fn next(&mut self) -> Option<Next<'t>> {
        let event = self.parser.next_event()?;
        // The end that the window makes up is no end, and what follows from it no fault of the text.
        if self.ahead.replace(0) > MAX_AHEAD {
            return Some(Next::TooFar);
        }
        Some(match event {
            Ok((event, span)) => Next::Event(event, span),
            Err(e) => Next::Invalid(e),
        })
    }
}

/// A text that is one bracket: what is before its line, its indentation, and the rest from the bracket on.
fn bracket(text: &str) -> Option<(&str, usize, &str)> {
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let content = line.trim_start_matches(' ');
        if content.starts_with(['{', '[']) {
            let indentation = line.len() - content.len();
            return Some((&text[..start], indentation, &text[start + indentation..]));
        }
        if !content.trim_end().is_empty() && !content.starts_with('#') {
            return None;
        }
        start += line.len();
    }
    None
}
