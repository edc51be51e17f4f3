//! Lines of several nodes among each other: each is printed whole, with its node's name before it.

use super::style::{Style, Tone};

/// Longest part of a line that is held until its end comes, in bytes.
const MAX_LINE: usize = 64 << 10;

/// One stream of a node.
pub struct Lines {
    before: Vec<u8>,
    held: Vec<u8>,
}

impl Lines {
    /// Of a node whose name is padded to this width.
    pub fn new(style: Style, node: &str, width: usize) -> Lines {
        let name = format!("{node:width$} |");
        Lines { before: format!("{} ", style.paint(Tone::Dim, &name)).into_bytes(), held: Vec::new() }
    }

    /// The lines that are complete now.
    pub fn take(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.held.extend(bytes);
        let mut out = Vec::new();
        while let Some(end) = self.held.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = self.held.drain(..=end).collect();
            out.extend(&self.before);
            out.extend(line);
        }
        if self.held.len() > MAX_LINE {
            out.extend(self.rest());
        }
        out
    }

    /// What is left when nothing more comes, as a line.
    pub fn rest(&mut self) -> Vec<u8> {
        if self.held.is_empty() {
            return Vec::new();
        }
        let mut out = self.before.clone();
        out.append(&mut self.held);
        out.push(b'\n');
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_however_they_come() {
        let mut lines = Lines::new(Style::PLAIN, "r1", 4);
        assert_eq!(lines.take(b"on"), b"");
        assert_eq!(lines.take(b"e\ntwo\nthr"), b"r1   | one\nr1   | two\n");
        assert_eq!(lines.rest(), b"r1   | thr\n");
        assert_eq!(lines.rest(), b"");
        assert_eq!(lines.take(&vec![b'x'; MAX_LINE + 1]).len(), MAX_LINE + 1 + "r1   | ".len() + 1);
    }
}
