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

#[cfg(test)]
mod tests {
    use super::*;

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
