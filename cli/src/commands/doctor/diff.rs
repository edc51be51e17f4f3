//! Two texts as a unified diff.

use std::fmt::Write as _;

/// Lines shown around what differs.
const CONTEXT: usize = 3;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Same,
    Less,
    More,
}

/// What turns one text into the other, as `diff -u` shows it; empty when nothing does. Before `None` is a file that does not exist.
pub fn unified(path: &str, before: Option<&str>, after: &str) -> String {
    let from = if before.is_some() { path } else { "/dev/null" };
    let old: Vec<&str> = before.unwrap_or_default().lines().collect();
    let new: Vec<&str> = after.lines().collect();
    let script = script(&old, &new);
    let changed: Vec<usize> = (0..script.len()).filter(|i| script[*i].0 != Kind::Same).collect();
    let mut text = String::new();
    if changed.is_empty() {
        return text;
    }
    let _ = writeln!(text, "--- {from}\n+++ {path}");
    let mut next = 0;
    while next < changed.len() {
        let first = next;
        // What is so near that its surroundings touch is one hunk.
        while next + 1 < changed.len() && changed[next + 1] - changed[next] <= 2 * CONTEXT {
            next += 1;
        }
        let start = changed[first].saturating_sub(CONTEXT);
        let end = (changed[next] + CONTEXT + 1).min(script.len());
        next += 1;
        let count = |lines: &[(Kind, &str)], without| lines.iter().filter(|l| l.0 != without).count();
        let hunk = &script[start..end];
        let (before, after) = (count(&script[..start], Kind::More), count(&script[..start], Kind::Less));
        let (less, more) = (count(hunk, Kind::More), count(hunk, Kind::Less));
        // A side without lines is named by the line before it.
        let at = |before: usize, lines: usize| if lines == 0 { before } else { before + 1 };
        let _ = writeln!(text, "@@ -{},{less} +{},{more} @@", at(before, less), at(after, more));
        for (kind, line) in hunk {
            let mark = match kind {
                Kind::Same => ' ',
                Kind::Less => '-',
                Kind::More => '+',
            };
            let _ = writeln!(text, "{mark}{line}");
        }
    }
    text
}

/// Every line of both, by the longest common subsequence of what lies between their common ends.
fn script<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<(Kind, &'a str)> {
    let head = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let tail = old[head..].iter().rev().zip(new[head..].iter().rev()).take_while(|(a, b)| a == b).count();
    let (a, b) = (&old[head..old.len() - tail], &new[head..new.len() - tail]);
    let mut longest = vec![vec![0_u32; b.len() + 1]; a.len() + 1];
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            longest[i][j] = match a[i] == b[j] {
                true => longest[i + 1][j + 1] + 1,
                false => longest[i + 1][j].max(longest[i][j + 1]),
            };
        }
    }
    let mut script: Vec<(Kind, &str)> = old[..head].iter().map(|l| (Kind::Same, *l)).collect();
    let (mut i, mut j) = (0, 0);
    while i < a.len() || j < b.len() {
        if i < a.len() && j < b.len() && a[i] == b[j] {
            script.push((Kind::Same, a[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == b.len() || (i < a.len() && longest[i + 1][j] >= longest[i][j + 1]) {
            script.push((Kind::Less, a[i]));
            i += 1;
        } else {
            script.push((Kind::More, b[j]));
            j += 1;
        }
    }
    script.extend(old[old.len() - tail..].iter().map(|l| (Kind::Same, *l)));
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_shown_with_its_surroundings() {
        let lines = |range: std::ops::Range<u32>| range.map(|n| format!("{n}\n")).collect::<String>();
        let before = lines(1..30);
        let after = before.replace("\n10\n", "\nten\n").replace("\n25\n", "\n25\nnew\n");
        let expected = "--- /f\n+++ /f\n@@ -7,7 +7,7 @@\n 7\n 8\n 9\n-10\n+ten\n 11\n 12\n 13\n\
                        @@ -23,6 +23,7 @@\n 23\n 24\n 25\n+new\n 26\n 27\n 28\n";
        assert_eq!(unified("/f", Some(&before), &after), expected);
        assert_eq!(unified("/f", Some(&before), &before), "");
        assert_eq!(unified("/f", None, "a\n"), "--- /dev/null\n+++ /f\n@@ -0,0 +1,1 @@\n+a\n");
    }
}
