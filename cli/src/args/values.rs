//! Values of options that need reading.

use std::time::Duration;

use netloom_service::{Endpoint, Replicas};

/// Reads where a server is, or several of which one is enough. What is within one process is none for a program of its own.
pub fn endpoint(text: &str) -> Result<Replicas, String> {
    let is_reached = |e: &Endpoint| matches!(e, Endpoint::Unix(_) | Endpoint::Tcp(_));
    match text.parse::<Replicas>() {
        Ok(servers) if servers.all().iter().all(is_reached) => Ok(servers),
        _ => Err("write unix:/path or http://address:port, and commas between those of several controllers"
            .to_owned()),
    }
}

/// Reads 90s, 10m, 1h or a number of seconds.
pub fn duration(text: &str) -> Result<Duration, String> {
    let refuse =
        || format!("\"{text}\" is not a time: write whole seconds, minutes or hours, as 90s, 10m or 1h");
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

/// A number with one of these units behind it; the first unit is that of a number without one. A part behind the point is kept as far as the factor goes.
fn with_unit(text: &str, units: &[(&str, f64)], example: &str) -> Result<f64, String> {
    let refuse = || format!("\"{text}\" is not {example}");
    let lower = text.to_ascii_lowercase();
    let end = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
    let (number, unit) = lower.split_at(end);
    let factor = match unit {
        "" => units.first().map(|(_, factor)| *factor),
        unit => units.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor),
    };
    let number: f64 = number.parse().map_err(|_| refuse())?;
    Ok((number * factor.ok_or_else(refuse)?).round())
}

/// Reads 10mbit, 500kbit, 1.5gbit or a number of bits a second.
pub fn rate(text: &str) -> Result<u64, String> {
    let units = [("bit", 1.0), ("kbit", 1e3), ("mbit", 1e6), ("gbit", 1e9)];
    let bits = with_unit(text, &units, "a rate: write 500kbit, 10mbit or 1gbit")?;
    if bits > 1e15 { Err(format!("\"{text}\" is more than any link carries")) } else { Ok(bits as u64) }
}

/// Reads 5ms, 200us or 1s; a bare number is milliseconds.
pub fn microseconds(text: &str) -> Result<u32, String> {
    let units = [("ms", 1e3), ("us", 1.0), ("s", 1e6)];
    let us = with_unit(text, &units, "a time: write 5ms, 200us or 1s")?;
    if us > f64::from(u32::MAX) { Err(format!("\"{text}\" is more than an hour")) } else { Ok(us as u32) }
}

/// Reads 1% or 0.05% as millionths.
pub fn millionths(text: &str) -> Result<u32, String> {
    let ppm = with_unit(text, &[("%", 1e4)], "a share: write 1% or 0.05%")?;
    if ppm > 1e6 { Err(format!("\"{text}\" is more than 100%")) } else { Ok(ppm as u32) }
}

/// Reads 2 or 0.5 cores as thousandths of a core.
pub fn cores(text: &str) -> Result<i64, String> {
    let millis = with_unit(text, &[("", 1e3)], "a number of cores: write 2 or 0.5")?;
    if millis > 1e9 { Err(format!("\"{text}\" is more than any host has")) } else { Ok(millis as i64) }
}

/// Reads 512MiB, 8GiB, 1gb or a number of bytes.
pub fn size(text: &str) -> Result<i64, String> {
    let (ki, k) = (1024.0_f64, 1000.0_f64);
    let units = [
        ("b", 1.0),
        ("kib", ki),
        ("mib", ki.powi(2)),
        ("gib", ki.powi(3)),
        ("tib", ki.powi(4)),
        ("kb", k),
        ("mb", k.powi(2)),
        ("gb", k.powi(3)),
        ("tb", k.powi(4)),
    ];
    let bytes = with_unit(text, &units, "a size: write 512MiB, 8GiB or 1gb")?;
    if bytes > 1e17 { Err(format!("\"{text}\" is more than any host has")) } else { Ok(bytes as i64) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read() {
        assert_eq!((cores("2"), cores("0.5")), (Ok(2_000), Ok(500)));
        assert_eq!(
            (size("8GiB"), size("512mib"), size("1gb"), size("7")),
            (Ok(8 << 30), Ok(512 << 20), Ok(1_000_000_000), Ok(7))
        );
        for text in ["", "two", "-1", "1 core"] {
            assert!(cores(text).is_err(), "{text}");
        }
        for text in ["", "GiB", "-1gb", "1xb", "99999999tb"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

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
    fn impairments_are_read() {
        assert_eq!(
            (rate("10mbit"), rate("1.5Gbit"), rate("64000")),
            (Ok(10_000_000), Ok(1_500_000_000), Ok(64_000))
        );
        assert_eq!(
            (microseconds("5ms"), microseconds("200us"), microseconds("7")),
            (Ok(5_000), Ok(200), Ok(7_000))
        );
        assert_eq!(
            (millionths("1%"), millionths("0.05%"), millionths("100")),
            (Ok(10_000), Ok(500), Ok(1_000_000))
        );
        for text in ["", "fast", "10mb", "-1kbit", "1.2.3mbit"] {
            assert!(rate(text).is_err(), "{text}");
        }
        assert!(millionths("101%").is_err() && microseconds("2h").is_err() && microseconds("9999s").is_err());
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
