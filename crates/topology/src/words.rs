//! Splitting a command into words as a POSIX shell does (XCU 2.2), without a shell: quotes and backslashes, nothing is expanded.

/// The words, or why there are none.
pub(crate) fn split(text: &str) -> Result<Vec<String>, &'static str> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' | '\n' | '\r' => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some('\'') => break,
                        Some(c) => word.push(c),
                        None => return Err("a single quote is not closed"),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some('"') => break,
                        Some('\\') => match chars.next() {
                            Some(c @ ('"' | '\\' | '$' | '`')) => word.push(c),
                            Some('\n') => {}
                            Some(c) => word.extend(['\\', c]),
                            None => return Err("a double quote is not closed"),
                        },
                        Some(c) => word.push(c),
                        None => return Err("a double quote is not closed"),
                    }
                }
            }
            '\\' => match chars.next() {
                Some('\n') => {}
                Some(c) => word.get_or_insert_default().push(c),
                None => return Err("it ends in a backslash"),
            },
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn as_a_shell_splits() {
        for (text, words) in [
            ("ip link  set eth1 up", vec!["ip", "link", "set", "eth1", "up"]),
            ("sh -c 'echo \"a b\" $X'", vec!["sh", "-c", "echo \"a b\" $X"]),
            (r#"a "b \"c\" \d" e\ f"#, vec!["a", r#"b "c" \d"#, "e f"]),
            (r#"'' "" x''y"#, vec!["", "", "xy"]),
            ("a\\\nb", vec!["ab"]),
            ("  ", vec![]),
        ] {
            assert_eq!(split(text).unwrap(), words, "{text}");
        }
        for text in ["'a", "\"a", "a\\", "\"a\\"] {
            assert!(split(text).is_err(), "{text}");
        }
    }
}
