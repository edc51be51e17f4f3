//! Whether what a program said is what a page shows.

/// Compares line by line. White space counts as one blank, and empty lines do not count: columns are as wide as what is in them. `…` and `...` stand for
/// any text within a line, and on a line of their own for any lines. The error is the index of the first line that was looked for and not found.
pub fn compare<E: AsRef<str>, A: AsRef<str>>(expected: &[E], actual: &[A]) -> Result<(), usize> {
    let expected: Vec<(usize, String)> = numbered(expected);
    let actual: Vec<(usize, String)> = numbered(actual);
    // reached[i]: the first i lines expected can end at the place in `actual` that is looked at.
    let mut reached = vec![false; expected.len() + 1];
    reached[0] = true;
    let mut furthest = 0;
    skip_wildcards(&expected, &mut reached, &mut furthest);
    for (_, line) in &actual {
        let mut next = vec![false; expected.len() + 1];
        for (i, (_, wanted)) in expected.iter().enumerate() {
            if !reached[i] {
                continue;
            }
            if is_wildcard(wanted) {
                next[i] = true;
            } else if line_matches(wanted, line) {
                next[i + 1] = true;
            }
        }
        reached = next;
        skip_wildcards(&expected, &mut reached, &mut furthest);
    }
    if reached[expected.len()] {
        return Ok(());
    }
    // Everything was found, but more was said than the page shows: its last line is where.
    let at = furthest.min(expected.len().saturating_sub(1));
    Err(expected.get(at).map_or(0, |(index, _)| *index))
}

fn numbered<S: AsRef<str>>(lines: &[S]) -> Vec<(usize, String)> {
    let squeezed = lines.iter().map(|l| l.as_ref().split_whitespace().collect::<Vec<_>>().join(" "));
    squeezed.enumerate().filter(|(_, l)| !l.is_empty()).collect()
}

/// A wildcard may also stand for no line at all.
fn skip_wildcards(expected: &[(usize, String)], reached: &mut [bool], furthest: &mut usize) {
    for i in 0..expected.len() {
        if reached[i] && is_wildcard(&expected[i].1) {
            reached[i + 1] = true;
        }
    }
    if let Some(last) = reached.iter().rposition(|r| *r) {
        *furthest = last.max(*furthest);
    }
}

fn is_wildcard(line: &str) -> bool {
    matches!(line, "…" | "...")
}

fn line_matches(wanted: &str, line: &str) -> bool {
    let wanted = wanted.replace("...", "…");
    let pieces: Vec<&str> = wanted.split('…').map(str::trim).collect();
    let [first, between @ .., last] = pieces.as_slice() else { return wanted == line };
    let Some(mut rest) = line.strip_prefix(first) else { return false };
    for piece in between {
        let Some(at) = rest.find(piece) else { return false };
        rest = &rest[at + piece.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(expected: &str, actual: &str) -> Result<(), usize> {
        compare(&expected.lines().collect::<Vec<_>>(), &actual.lines().collect::<Vec<_>>())
    }

    #[test]
    fn the_same_is_the_same_whatever_the_columns() {
        assert_eq!(check("a  b\nc", "a      b\n\nc  \n"), Ok(()));
        assert_eq!(check("", ""), Ok(()));
        assert_eq!(check("a b", "ab"), Err(0));
        assert_eq!(check("a\nb", "a\nc"), Err(1));
    }

    #[test]
    fn dots_stand_for_any_text_in_a_line() {
        assert_eq!(check("64 bytes … time=… ms", "64 bytes from 10.0.0.1: time=0.1 ms"), Ok(()));
        assert_eq!(check("a...z", "a to z"), Ok(()));
        assert_eq!(check("…", "anything"), Ok(()));
        assert_eq!(check("a … b", "a b"), Ok(()));
        assert_eq!(check("a … b", "a c"), Err(0));
        assert_eq!(check("… READY", "r1 frr READY now"), Err(0));
        // Both ends may not share the same letters.
        assert_eq!(check("aba…aba", "aba"), Err(0));
    }

    #[test]
    fn dots_alone_stand_for_any_lines_also_none() {
        assert_eq!(check("a\n…\nz", "a\nz"), Ok(()));
        assert_eq!(check("a\n...\nz", "a\nb\nc\nz"), Ok(()));
        assert_eq!(check("…\nz\n…", "a\nz\ny\nz"), Ok(()));
        assert_eq!(check("a\n…", "a"), Ok(()));
        assert_eq!(check("…\nb\nc", "b\na\nb\nc"), Ok(()));
        assert_eq!(check("…\nb\nc\n…", "b\na\nc"), Err(2));
    }

    #[test]
    fn more_or_less_than_is_shown_is_a_difference() {
        assert_eq!(check("a", "a\nb"), Err(0));
        assert_eq!(check("a\nb", "a"), Err(1));
        assert_eq!(check("", "a"), Err(0));
    }
}
