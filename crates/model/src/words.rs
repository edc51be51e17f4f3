//! Splits a command into words as a shell does, without a shell: quotes and backslashes count, nothing is expanded. And the way back.

/// Why a command cannot be split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SplitError {
    /// A quote is not closed.
    #[error("a {} quote is not closed", if *.0 == '"' { "double" } else { "single" })]
    Open(char),
    /// It ends in a backslash.
    #[error("it ends in a backslash")]
    Escape,
    /// It holds a NUL character, which no argument can.
    #[error("it holds a NUL character")]
    Nul,
    /// It holds no word.
    #[error("it is empty")]
    Empty,
}

/// The words of a command, by the quoting rules of POSIX (Shell & Utilities §2.2): a backslash keeps the next character, single quotes keep everything, in double
/// quotes a backslash only counts before `"`, `\`, `$` and backquote. A line break after a backslash is dropped.
pub fn split(command: &str) -> Result<Vec<String>, SplitError> {
    if command.contains('\0') {
        return Err(SplitError::Nul);
    }
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut rest = command.chars();
    while let Some(c) = rest.next() {
        match c {
            c if c.is_ascii_whitespace() => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match rest.next().ok_or(SplitError::Open('\''))? {
                        '\'' => break,
                        c => word.push(c),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match rest.next().ok_or(SplitError::Open('"'))? {
                        '"' => break,
                        '\\' => match rest.next().ok_or(SplitError::Open('"'))? {
                            '\n' => {}
                            c @ ('"' | '\\' | '$' | '`') => word.push(c),
                            c => word.extend(['\\', c]),
                        },
                        c => word.push(c),
                    }
                }
            }
            '\\' => match rest.next().ok_or(SplitError::Escape)? {
                '\n' => {}
                c => word.get_or_insert_default().push(c),
            },
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    if words.is_empty() { Err(SplitError::Empty) } else { Ok(words) }
}

/// The command that a shell, or [`split`], splits into these words again: each is quoted where it needs to be.
pub fn join(words: &[String]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@+%".contains(c);
    let quoted = |word: &String| match word {
        w if !w.is_empty() && w.chars().all(plain) => w.clone(),
        w => format!("'{}'", w.replace('\'', "'\\''")),
    };
    words.iter().map(quoted).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn words_survive_being_joined(words in proptest::collection::vec("\\PC{0,8}", 1..5)) {
            prop_assert_eq!(split(&join(&words)), Ok(words));
        }
    }

    #[test]
    fn only_what_needs_quotes_gets_them() {
        let words = ["vtysh", "-c", "show run", "it's", ""].map(str::to_owned);
        assert_eq!(join(&words), r"vtysh -c 'show run' 'it'\''s' ''");
    }

    #[test]
    fn words_are_those_of_a_shell() {
        for (command, words) in [
            ("ip  addr add\t10.0.0.1/24 dev eth1", &["ip", "addr", "add", "10.0.0.1/24", "dev", "eth1"][..]),
            ("sh -c 'echo \"a b\" > /x'", &["sh", "-c", "echo \"a b\" > /x"]),
            (r#"vtysh -c "conf t" -c "x \"y\" \n""#, &["vtysh", "-c", "conf t", "-c", r#"x "y" \n"#]),
            (r"a\ b c'd'e", &["a b", "cde"]),
            ("'' \"\" x", &["", "", "x"]),
            ("a \\\n b", &["a", "b"]),
            ("echo $HOME *", &["echo", "$HOME", "*"]),
        ] {
            assert_eq!(split(command).unwrap(), words, "{command}");
        }
    }

    #[test]
    fn what_is_open_is_refused() {
        assert_eq!(split("a 'b"), Err(SplitError::Open('\'')));
        assert_eq!(split("a \"b\\"), Err(SplitError::Open('"')));
        assert_eq!(split("a \\"), Err(SplitError::Escape));
        assert_eq!(split("  \n"), Err(SplitError::Empty));
    }
}
