//! Environment variables in a file: `${V}`, `$V`, `${V:-default}`, `${V:=default}`, `${V:+other}` and `$$`.
//!
//! Variables are put into scalars after the YAML is parsed, not into the text before: so a value can never become structure, and every
//! position stays that of the file as written.

use std::collections::HashMap;

use crate::diagnostic::{Pos, Report, quoted};

/// How deep a default may hold variables of its own.
const MAX_NESTING: usize = 4;
/// Most bytes that all expanded values of a file may hold.
const MAX_EXPANDED: usize = 16 << 20;

/// Puts variables into scalars, within a budget for the whole file.
pub(crate) struct Expander<'a> {
    env: &'a dyn Fn(&str) -> Option<String>,
    left: usize,
}

impl<'a> Expander<'a> {
    pub fn new(env: &'a dyn Fn(&str) -> Option<String>) -> Expander<'a> {
        Expander { env, left: MAX_EXPANDED }
    }

    /// The text with its variables filled in. A variable that is not set and has no default stays as it is written: a shell in the node may mean it.
    pub fn expand(&mut self, text: &str, pos: Pos, report: &mut Report) -> String {
        if !text.contains('$') {
            return text.to_owned();
        }
        let out = self.fill(text, pos, 0, report);
        match self.left.checked_sub(out.len()) {
            Some(left) => {
                self.left = left;
                out
            }
            None => {
                self.left = 0;
                report.error(
                    pos,
                    "EXPANSION_TOO_LARGE",
                    format!("the variables of this file expand to more than {MAX_EXPANDED} bytes"),
                );
                String::new()
            }
        }
    }

    fn fill(&self, text: &str, pos: Pos, depth: usize, report: &mut Report) -> String {
        let mut out = String::with_capacity(text.len());
        let closing = closing_braces(text);
        let mut rest = text;
        while let Some(dollar) = rest.find('$') {
            if out.len() > self.left {
                break;
            }
            out.push_str(&rest[..dollar]);
            let after = &rest[dollar + 1..];
            let brace = text.len() - after.len();
            if let Some(after) = after.strip_prefix('$') {
                out.push('$');
                rest = after;
            } else if let Some(close) = closing.get(&brace) {
                out.push_str(&self.braced(&text[brace + 1..*close], pos, depth, report));
                rest = &text[close + 1..];
            } else {
                let name = name_at_start(after);
                match (self.env)(name).filter(|_| !name.is_empty()) {
                    Some(value) => out.push_str(&value),
                    None => {
                        out.push('$');
                        out.push_str(name);
                    }
                }
                rest = &after[name.len()..];
            }
        }
        out.push_str(rest);
        out
    }

    /// What `${inner}` stands for.
    fn braced(&self, inner: &str, pos: Pos, depth: usize, report: &mut Report) -> String {
        let name = name_at_start(inner);
        let operator = &inner[name.len()..];
        let as_written = || format!("${{{inner}}}");
        if name.is_empty() {
            return as_written();
        }
        let value = (self.env)(name);
        if operator.is_empty() {
            return value.unwrap_or_else(|| {
                report.warning(
                    pos,
                    "VARIABLE_NOT_SET",
                    format!(
                        "{name} is not set and has no default, so ${{{name}}} stays as it is written. Set it, write ${{{name}:=default}}, \
                         or $${{{name}}} if it is for the node"
                    ),
                );
                as_written()
            });
        }
        // With a colon an empty value counts as none.
        let (value, operator) = match operator.strip_prefix(':') {
            Some(operator) => (value.filter(|v| !v.is_empty()), operator),
            None => (value, operator),
        };
        let word = operator.get(1..).unwrap_or_default();
        let filled = |report: &mut Report| match depth {
            MAX_NESTING.. => word.to_owned(),
            _ => self.fill(word, pos, depth + 1, report),
        };
        match operator.bytes().next() {
            Some(b'-' | b'=') => value.unwrap_or_else(|| filled(report)),
            Some(b'+') => value.map_or_else(String::new, |_| filled(report)),
            _ => {
                let written = as_written();
                report.warning(
                    pos,
                    "VARIABLE_FORM",
                    format!("{} is not one of the forms ${{V}}, ${{V:-x}}, ${{V:=x}} and ${{V:+x}} and stays as it is written", quoted(&written)),
                );
                written
            }
        }
    }
}

/// Where each brace that opens is closed. Looked up in one pass, since a search from each `${` would cost a square of the length.
fn closing_braces(text: &str) -> HashMap<usize, usize> {
    let mut open = Vec::new();
    let mut closing = HashMap::new();
    for (i, b) in text.bytes().enumerate() {
        match b {
            b'{' => open.push(i),
            b'}' => closing.extend(open.pop().map(|start| (start, i))),
            _ => {}
        }
    }
    closing
}

fn name_at_start(text: &str) -> &str {
    let letter = |b: u8| b.is_ascii_alphabetic() || b == b'_';
    if !text.bytes().next().is_some_and(letter) {
        return "";
    }
    let end = text.bytes().position(|b| !letter(b) && !b.is_ascii_digit()).unwrap_or(text.len());
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn env(name: &str) -> Option<String> {
        match name {
            "A" => Some("a".into()),
            "EMPTY" => Some(String::new()),
            "BIG" => Some("b".repeat(1 << 20)),
            _ => None,
        }
    }

    fn expand(text: &str) -> (String, Vec<&'static str>) {
        let mut report = Report::new("f");
        let out = Expander::new(&env).expand(text, Pos::default(), &mut report);
        (out, report.finish().iter().map(|d| d.code).collect())
    }

    #[test]
    fn the_forms() {
        for (text, is) in [
            ("x${A}y", "xay"),
            ("$A-$A", "a-a"),
            ("$$A $${A}", "$A ${A}"),
            ("${A:-b}${A:=b}${A-b}${A=b}", "aaaa"),
            ("${N:-b}${N:=c}${N-d}${N=e}", "bcde"),
            ("[${EMPTY}][${EMPTY:-b}][${EMPTY-b}]", "[][b][]"),
            ("${A:+x}${N:+x}${EMPTY:+x}${EMPTY+x}", "xx"),
            ("${N:-${A}/${M:-z}}", "a/z"),
            ("${N:=ceos:4.32.0F}", "ceos:4.32.0F"),
            ("$1 $ $- $N ${} ${1} ${", "$1 $ $- $N ${} ${1} ${"),
            ("é$A", "éa"),
        ] {
            assert_eq!(expand(text), (is.to_owned(), vec![]), "{text}");
        }
    }

    #[test]
    fn what_is_left_is_told() {
        assert_eq!(expand("${N}"), ("${N}".into(), vec!["VARIABLE_NOT_SET"]));
        assert_eq!(expand("${A%x}"), ("${A%x}".into(), vec!["VARIABLE_FORM"]));
    }

    #[test]
    fn growth_is_bounded() {
        let (out, codes) = expand(&"$BIG".repeat(1 << 20));
        assert_eq!((out.len(), codes), (0, vec!["EXPANSION_TOO_LARGE"]));
        let (out, _) = expand(&"${".repeat(1 << 20));
        assert_eq!(out.len(), 2 << 20);
    }

    proptest! {
        #[test]
        fn any_text_expands(text in "[$\\{\\}A:=+-ébN ]{0,60}") {
            let _ = expand(&text);
        }
    }
}
