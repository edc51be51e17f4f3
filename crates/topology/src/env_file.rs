//! `env-files`: lines of `NAME=value`, comments and blank lines.

use crate::bind::Refusal;

/// Largest file of variables.
const MAX_BYTES: usize = 1 << 20;

/// The variables of a file.
pub(crate) fn read(path: &str, content: &[u8]) -> Result<Vec<(String, String)>, Refusal> {
    let refuse = |line: usize, what: &str| ("INVALID_ENV_FILE", format!("{path}:{line}: {what}"));
    if content.len() > MAX_BYTES {
        return Err(("INVALID_ENV_FILE", format!("{path} is larger than {MAX_BYTES} bytes")));
    }
    let text =
        std::str::from_utf8(content).map_err(|_| ("INVALID_ENV_FILE", format!("{path} is not UTF-8")))?;
    let mut env = Vec::new();
    for (i, line) in text.strip_prefix('\u{feff}').unwrap_or(text).lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let line = line.strip_prefix("export ").unwrap_or(line);
        let (name, value) = line.split_once('=').ok_or_else(|| refuse(i + 1, "expected NAME=value"))?;
        let name = name.trim();
        if name.is_empty() || name.contains(char::is_whitespace) || line.contains('\0') {
            return Err(refuse(i + 1, "expected NAME=value, the name without spaces"));
        }
        env.push((name.to_owned(), unquoted(value.trim()).to_owned()));
    }
    Ok(env)
}

fn unquoted(value: &str) -> &str {
    for quote in ['"', '\''] {
        if let Some(inner) = value.strip_prefix(quote).and_then(|v| v.strip_suffix(quote)) {
            return inner;
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read() {
        let text = b"# c\n\nA=1\nexport B = two words \r\nC=\"x=y\"\nD='z'\nE=\nF=\"\n";
        let env = read("f", text).unwrap();
        let pairs: Vec<(&str, &str)> = env.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(pairs, [("A", "1"), ("B", "two words"), ("C", "x=y"), ("D", "z"), ("E", ""), ("F", "\"")]);
    }

    #[test]
    fn faults_have_their_line() {
        for (text, is) in [("A=1\nB\n", "f:2: "), ("=x", "f:1: "), ("A B=1", "f:1: ")] {
            assert!(read("f", text.as_bytes()).unwrap_err().1.starts_with(is), "{text}");
        }
        assert!(read("f", b"A=\xff").is_err());
    }
}
