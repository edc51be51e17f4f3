//! Web pages of other origins, which come in only where the configuration names them (`allowed_origins` of `[gateway]`; none by default).
//!
//! A browser asks first (a preflight: OPTIONS without a token) and then shows the page an answer only if the answer names the page's origin. Nothing here
//! gives any right: a page must show the token like everybody else. Cookies and other ambient credentials are never asked for, so there are none to abuse.

use anyhow::ensure;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use tonic::body::Body;

/// Headers that a page may send.
const MAY_SEND: &str = "accept, authorization, content-type, grpc-timeout, last-event-id, traceparent, tracestate, x-grpc-web, x-user-agent";
/// Headers of an answer that a page may read.
const MAY_READ: &str = "grpc-message, grpc-status, grpc-status-details-bin";
/// How long a browser remembers what it was told, in seconds.
const REMEMBERED: &str = "600";

const ASKS_PRIVATE: HeaderName = HeaderName::from_static("access-control-request-private-network");
const ALLOWS_PRIVATE: HeaderName = HeaderName::from_static("access-control-allow-private-network");

/// Checks what the configuration names: an origin is a scheme, a host and perhaps a port, as a browser writes it.
pub fn read_origins(configured: &[String]) -> anyhow::Result<Vec<String>> {
    for origin in configured {
        let host = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        let is_authority =
            |h: &str| !h.contains(['/', '*', '@', '?', '#']) && h.parse::<http::uri::Authority>().is_ok();
        ensure!(
            host.is_some_and(is_authority),
            "allowed_origins of [gateway]: \"{origin}\" is not an origin: write https://host or https://host:port, without a path and without *"
        );
    }
    Ok(configured.iter().map(|o| o.to_ascii_lowercase()).collect())
}

/// The origin of a page that the configuration names.
pub fn granted(headers: &HeaderMap, allowed: &[String]) -> Option<HeaderValue> {
    let mut all = headers.get_all(ORIGIN).iter();
    let origin = all.next().filter(|_| all.next().is_none())?;
    let text = origin.to_str().ok()?.to_ascii_lowercase();
    allowed.contains(&text).then(|| origin.clone())
}

/// True for the question that a browser asks before a page's request.
pub fn is_preflight(request: &Parts) -> bool {
    request.method == Method::OPTIONS
        && request.headers.contains_key(ORIGIN)
        && request.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// The answer to a preflight of a page that may ask.
pub fn preflight(request: &Parts) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, HEAD, POST, PATCH, DELETE"));
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(MAY_SEND));
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(REMEMBERED));
    if request.headers.contains_key(ASKS_PRIVATE) {
        headers.insert(ALLOWS_PRIVATE, HeaderValue::from_static("true"));
    }
    response
}

/// Lets a page of this origin read an answer.
pub fn grant(response: &mut Response<Body>, origin: HeaderValue) {
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(MAY_READ));
    headers.append(VARY, HeaderValue::from_static("origin"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_origins_are_taken_for_origins() {
        let read = |text: &str| read_origins(&[text.to_owned()]);
        assert_eq!(read("https://UI.example:8443").unwrap(), ["https://ui.example:8443"]);
        assert!(read("http://127.0.0.1:5173").is_ok() && read("http://[::1]:5173").is_ok());
        for wrong in
            ["*", "null", "ui.example", "https://ui.example/", "https://*.example", "https://", "file://x"]
        {
            assert!(read(wrong).unwrap_err().to_string().contains("allowed_origins"), "{wrong}");
        }
    }

    #[test]
    fn a_grant_is_for_one_origin_that_is_named() {
        let allowed = ["https://ui.example".to_owned()];
        let granted = |origins: &[&str]| {
            let mut headers = HeaderMap::new();
            for origin in origins {
                headers.append(ORIGIN, origin.parse().unwrap());
            }
            super::granted(&headers, &allowed).is_some()
        };
        assert!(granted(&["https://ui.example"]) && granted(&["HTTPS://ui.example"]));
        assert!(!granted(&["http://ui.example"]) && !granted(&["https://ui.example.evil"]) && !granted(&[]));
        assert!(!granted(&["https://ui.example", "https://ui.example"]));
    }
}
