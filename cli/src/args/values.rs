//! Values of options that need reading.

use std::time::Duration;

use netloom_service::Endpoint;

/// Reads where a server is. What is within one process is none for a program of its own.
pub fn endpoint(text: &str) -> Result<Endpoint, String> {
    match text.parse() {
        Ok(endpoint @ (Endpoint::Unix(_) | Endpoint::Tcp(_))) => Ok(endpoint),
        _ => Err("write unix:/path or http://address:port".to_owned()),
    }
}

/// Reads 90s, 10m, 1h or a number of seconds.
pub fn duration(text: &str) -> Result<Duration, String> {
    let refuse = || format!("\"{text}\" is not a time: write 90s, 10m or 1h");
    let (number, unit) = match text.find(|c: char| !c.is_ascii_digit()) {
        Some(end) => text.split_at(end),
        None => (text, "s"),
    };
    let factor = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        _ => return Err(refuse()),
    };
    let number: u64 = number.parse().map_err(|_| refuse())?;
    number.checked_mul(factor).filter(|s| *s > 0).map(Duration::from_secs).ok_or_else(refuse)
}

/// Reads how many are done at the same time.
pub fn at_once(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n) if (1..=256).contains(&n) => Ok(n),
        _ => Err("write a number from 1 to 256".to_owned()),
    }
}

/// A key that a terminal sends as one byte, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key(pub Option<u8>);

/// Reads ctrl-] and its like.
pub fn key(text: &str) -> Result<Key, String> {
    let lower = text.to_ascii_lowercase();
    if lower == "none" {
        return Ok(Key(None));
    }
    let name = lower.strip_prefix("ctrl-").or_else(|| lower.strip_prefix('^')).unwrap_or_default();
    match name.as_bytes() {
        // What Ctrl does to a character.
        [c @ (b'@' | b'a'..=b'z' | b'['..=b'_')] => Ok(Key(Some(c.to_ascii_uppercase() & 0x1f))),
        _ => Err("write ctrl- and a letter or one of @ [ \\ ] ^ _, for instance ctrl-], or none".to_owned()),
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(byte) => write!(f, "Ctrl-{}", char::from(byte | 0x40)),
            None => f.write_str("no key"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_what_a_terminal_sends() {
        for (text, byte) in [("ctrl-]", 0x1d), ("Ctrl-A", 1), ("^z", 26), ("ctrl-@", 0), ("ctrl-_", 0x1f)] {
            assert_eq!(key(text), Ok(Key(Some(byte))), "{text}");
        }
        assert_eq!(key("none"), Ok(Key(None)));
        assert_eq!(key("ctrl-]").unwrap().to_string(), "Ctrl-]");
        for text in ["", "ctrl-", "x", "ctrl-1", "ctrl-ab", "alt-x"] {
            assert!(key(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_are_read() {
        assert_eq!(duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(duration("1h"), Ok(Duration::from_secs(3_600)));
        for text in ["", "s", "1d", "-1s", "1.5m", "18446744073709551615h"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
