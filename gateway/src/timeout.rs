//! The time that a caller gives a call, in the header `grpc-timeout`.

use std::future::Future;
use std::time::Duration;

use http::{HeaderMap, HeaderName};
use netloom_model::{Code, Failure};
use netloom_service::status::to_status;
use tokio::time::Instant;
use tonic::Status;

/// The header.
pub const HEADER: HeaderName = HeaderName::from_static("grpc-timeout");

/// Reads a time: at most 8 digits and a unit of H, M, S, m, u or n. The text comes back when it is something else.
pub fn read(headers: &HeaderMap) -> Result<Option<Duration>, String> {
    let Some(value) = headers.get(HEADER) else { return Ok(None) };
    let text = value.to_str().map_err(|_| "?".to_owned())?;
    parse(text).map(Some).ok_or_else(|| text.to_owned())
}

fn parse(text: &str) -> Option<Duration> {
    let unit = text.chars().next_back().filter(char::is_ascii)?;
    let digits = &text[..text.len() - 1];
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let n: u64 = digits.parse().ok()?;
    Some(match unit {
        'H' => Duration::from_secs(n * 3600),
        'M' => Duration::from_secs(n * 60),
        'S' => Duration::from_secs(n),
        'm' => Duration::from_millis(n),
        'u' => Duration::from_micros(n),
        'n' => Duration::from_nanos(n),
        _ => return None,
    })
}

/// The call's outcome, or DEADLINE_EXCEEDED when its time is over first.
pub async fn bound<T>(
    end: Option<Instant>,
    call: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    match end {
        None => call.await,
        Some(end) => tokio::time::timeout_at(end, call).await.unwrap_or_else(|_| Err(over())),
    }
}

/// The time is over.
pub fn over() -> Status {
    to_status(Failure::new(
        Code::DeadlineExceeded,
        "DEADLINE_EXCEEDED",
        "the time that the caller gave was over first",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        assert_eq!(parse("30S"), Some(Duration::from_secs(30)));
        assert_eq!(parse("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        assert_eq!(parse("5m"), Some(Duration::from_millis(5)));
        for wrong in ["", "S", "30", "30s", "-1S", "123456789S", "1.5S", "ä"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
