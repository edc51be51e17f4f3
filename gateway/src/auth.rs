//! Who may come in, by which door.
//!
//! The Unix socket is guarded by its mode. TCP is open to every program and every web page on the machine, and whoever controls a lab is root on it: so a
//! call needs the token, and before that, a name in `Host` that is ours (a page whose name was made to resolve to 127.0.0.1 has another) and no foreign `Origin`.
//! Origins that the configuration names are not foreign ([`cors`]). On both doors a body must be JSON or gRPC, which no web page can send elsewhere without
//! asking first.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, ORIGIN};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use netloom_model::{Code, Failure};
use netloom_service::installation::read_or_make;
use netloom_service::server::same_bytes;

use crate::config::Config;
use crate::cors;
use crate::transcode::answer::Refusal;

/// Group that may use the socket and read the token, where it exists.
const GROUP: &str = "netloom";
/// File in the data directory that holds the token.
const TOKEN_FILE: &str = "admin.token";

/// How a connection came in.
#[derive(Debug, Clone)]
pub enum Door {
    /// Over the Unix socket.
    Socket,
    /// Over TCP.
    Tcp {
        /// What callers have to show.
        token: Arc<str>,
        /// Names under which this gateway may be called, in lower case.
        hosts: Arc<[String]>,
        /// Origins of web pages that may use this gateway, in lower case.
        origins: Arc<[String]>,
    },
}

/// What comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// A request.
    Request,
    /// A browser's question whether a page may send one.
    Preflight,
}

/// The form of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A gRPC call.
    Grpc,
    /// A gRPC-Web call.
    GrpcWeb,
    /// Anything else: HTTP/JSON, or documents.
    Http,
}

impl Form {
    /// By the content type.
    pub fn of(headers: &HeaderMap) -> Form {
        match media_type(headers).as_str() {
            "application/grpc-web"
            | "application/grpc-web+proto"
            | "application/grpc-web-text"
            | "application/grpc-web-text+proto" => Form::GrpcWeb,
            kind if kind == "application/grpc" || kind.starts_with("application/grpc+") => Form::Grpc,
            _ => Form::Http,
        }
    }

    /// The type of gRPC-Web's answer: that of its request where `Accept` names none, as fetch() says nothing or `*/*`.
    pub fn web_answer(headers: &HeaderMap) -> HeaderValue {
        let accept = headers.get(ACCEPT);
        let named = |a: &&HeaderValue| a.as_bytes().starts_with(b"application/grpc-web");
        let is_text = match accept.filter(named) {
            Some(accept) => accept.as_bytes().starts_with(b"application/grpc-web-text"),
            None => media_type(headers).starts_with("application/grpc-web-text"),
        };
        HeaderValue::from_static(match is_text {
            true => "application/grpc-web-text+proto",
            false => "application/grpc-web+proto",
        })
    }

    /// As figures name it.
    pub fn word(self) -> &'static str {
        match self {
            Form::Grpc => "grpc",
            Form::GrpcWeb => "grpc_web",
            Form::Http => "http",
        }
    }
}

impl Door {
    /// The TCP door: names are the loopback's, the address listened on, and the ones configured.
    pub fn tcp(token: &str, config: &Config) -> anyhow::Result<Door> {
        let mut hosts: Vec<String> = ["127.0.0.1", "localhost", "[::1]"].map(str::to_owned).into();
        let own = host_of(&config.listen);
        if !["0.0.0.0", "[::]", ""].contains(&own) {
            hosts.push(own.to_ascii_lowercase());
        }
        hosts.extend(config.allowed_hosts.iter().map(|h| h.to_ascii_lowercase()));
        let origins = cors::read_origins(&config.allowed_origins)?;
        Ok(Door::Tcp { token: token.into(), hosts: hosts.into(), origins: origins.into() })
    }

    /// Refuses a request that may not come in.
    pub fn admit(&self, request: &Parts, has_body: bool) -> Result<Admission, Refusal> {
        if let Door::Tcp { token, hosts, .. } = self {
            let authority = check_host(request, hosts)?;
            if self.granted(&request.headers).is_none() {
                check_origin(&request.headers, authority)?;
            } else if cors::is_preflight(request) {
                return Ok(Admission::Preflight);
            }
            check_token(&request.headers, token)?;
        }
        check_content_type(request, has_body)?;
        Ok(Admission::Request)
    }

    /// The origin of a page of another origin that may read the answer.
    pub fn granted(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        match self {
            Door::Tcp { origins, .. } => cors::granted(headers, origins),
            Door::Socket => None,
        }
    }
}

fn refusal(status: StatusCode, code: Code, reason: &str, said: impl Into<String>) -> Refusal {
    Refusal { status, failure: Failure::new(code, reason, said) }
}

/// The name that the caller used.
fn check_host<'a>(request: &'a Parts, hosts: &[String]) -> Result<&'a str, Refusal> {
    let foreign = |said: String| refusal(StatusCode::FORBIDDEN, Code::PermissionDenied, "HOST_FOREIGN", said);
    let in_uri = request.uri.authority().map(|a| a.as_str());
    let in_headers = request.headers.get_all(HOST).iter().map(|v| v.to_str().unwrap_or_default());
    let mut used = None;
    for authority in in_uri.into_iter().chain(in_headers) {
        let lower = authority.to_ascii_lowercase();
        if !hosts.iter().any(|h| *h == lower || h == host_of(&lower)) {
            return Err(foreign(format!(
                "this gateway is not called \"{authority}\": use 127.0.0.1 or localhost, or add the name to allowed_hosts of [gateway]"
            )));
        }
        used.get_or_insert(authority);
    }
    used.ok_or_else(|| foreign("the request does not say which host it is for".to_owned()))
}

/// A web page's origin must be this gateway itself.
fn check_origin(headers: &HeaderMap, authority: &str) -> Result<(), Refusal> {
    for origin in headers.get_all(ORIGIN) {
        let origin = origin.to_str().unwrap_or_default();
        let of = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        if !of.is_some_and(|o| o.eq_ignore_ascii_case(authority)) {
            let said = format!(
                "pages of \"{origin}\" may not use this gateway; add the origin to allowed_origins of [gateway] if they shall"
            );
            return Err(refusal(StatusCode::FORBIDDEN, Code::PermissionDenied, "ORIGIN_FOREIGN", said));
        }
    }
    Ok(())
}

fn check_token(headers: &HeaderMap, token: &str) -> Result<(), Refusal> {
    let unauthenticated =
        |said: &str| refusal(StatusCode::UNAUTHORIZED, Code::Unauthenticated, "TOKEN_INVALID", said);
    let Some(shown) = headers.get(AUTHORIZATION) else {
        return Err(unauthenticated(
            "no token was shown: send Authorization: Bearer and the content of admin.token in the data directory, or use the Unix socket",
        ));
    };
    let shown = shown.as_bytes();
    let (scheme, rest) = shown.split_at_checked("Bearer ".len()).unwrap_or((shown, b""));
    if scheme.eq_ignore_ascii_case(b"Bearer ") && same_bytes(rest.trim_ascii(), token.as_bytes()) {
        Ok(())
    } else {
        Err(unauthenticated("the token is not the one in admin.token in the data directory"))
    }
}

fn check_content_type(request: &Parts, has_body: bool) -> Result<(), Refusal> {
    let changes = [Method::POST, Method::PUT, Method::PATCH].contains(&request.method);
    let kind = media_type(&request.headers);
    // No page sends bytes as such to another origin without asking first. Which methods take them is seen later.
    let bytes = kind == BYTES;
    if !changes
        || !has_body
        || Form::of(&request.headers) != Form::Http
        || kind == "application/json"
        || bytes
    {
        return Ok(());
    }
    Err(not_json())
}

/// The refusal of a body that is no JSON.
pub fn not_json() -> Refusal {
    let said = "the body must be JSON: send Content-Type: application/json";
    refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, Code::InvalidArgument, "CONTENT_TYPE_UNSUPPORTED", said)
}

/// True when the body is said to be bytes as such.
pub fn is_bytes(headers: &HeaderMap) -> bool {
    media_type(headers) == BYTES
}

const BYTES: &str = "application/octet-stream";

/// The media type without its parameters, in lower case; none when several are given.
fn media_type(headers: &HeaderMap) -> String {
    let one = |name: HeaderName| {
        let mut all = headers.get_all(name).iter();
        all.next().filter(|_| all.next().is_none())
    };
    let text = one(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// The host in `host:port`.
fn host_of(authority: &str) -> &str {
    match authority.split_once(']') {
        Some((before, _)) => &authority[..=before.len()],
        None => authority.rsplit_once(':').map_or(authority, |(host, _)| host),
    }
}

/// The token that TCP demands: made once, readable by root and the group.
pub fn token(data_dir: &Path) -> anyhow::Result<String> {
    let path = data_dir.join(TOKEN_FILE);
    let is_new = !path.exists();
    let make = || rand::random::<[u8; 32]>().iter().map(|b| format!("{b:02x}")).collect();
    let text = read_or_make(&path, 0o640, make)
        .with_context(|| format!("cannot read or make {}", path.display()))?;
    let token = text.trim();
    anyhow::ensure!(
        token.len() >= 32 && token.bytes().all(|b| b.is_ascii_graphic()),
        "{} does not hold a token of at least 32 characters; remove it and a new one is made",
        path.display()
    );
    if is_new {
        give_to_group(&path)?;
    }
    Ok(token.to_owned())
}

/// Lets the group, where it exists, use a file.
pub fn give_to_group(path: &Path) -> anyhow::Result<()> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    if let Some(group) = nix::unistd::Group::from_name(GROUP)? {
        nix::unistd::chown(path, None, Some(group.gid))
            .with_context(|| format!("cannot give {} to the group {GROUP}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;
    use std::os::unix::fs::PermissionsExt as _;

    const TOKEN: &str = "0123456789abcdef0123456789abcdef";

    fn tcp(listen: &str, hosts: &[&str], origins: &[&str]) -> Door {
        let owned = |all: &[&str]| all.iter().map(|t| (*t).to_owned()).collect();
        let (allowed_hosts, allowed_origins) = (owned(hosts), owned(origins));
        let config =
            Config { listen: listen.to_owned(), allowed_hosts, allowed_origins, ..Config::default() };
        Door::tcp(TOKEN, &config).unwrap()
    }

    fn parts(headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().method("POST").uri("/v1/labs");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn reason(door: &Door, headers: &[(&str, &str)]) -> String {
        door.admit(&parts(headers), true).err().map(|r| r.failure.reason).unwrap_or_default()
    }

    #[test]
    fn only_our_own_names_come_in() {
        let door = tcp("192.0.2.1:7600", &["lab.example:8080", "proxy"], &[]);
        let bearer = format!("Bearer {TOKEN}");
        let with = |host: &str| {
            reason(&door, &[("host", host), ("authorization", &bearer), ("content-type", "application/json")])
        };
        for ours in [
            "127.0.0.1",
            "127.0.0.1:7600",
            "LOCALHOST:1",
            "[::1]:7600",
            "[::1]",
            "192.0.2.1:7600",
            "lab.example:8080",
            "proxy:5",
        ] {
            assert_eq!(with(ours), "", "{ours}");
        }
        for foreign in [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil:7600",
            "lab.example:1",
            "",
            "x@127.0.0.1",
            "0.0.0.0:7600",
        ] {
            assert_eq!(with(foreign), "HOST_FOREIGN", "{foreign}");
        }
        assert_eq!(reason(&door, &[("authorization", &bearer)]), "HOST_FOREIGN");
        let two = [("host", "localhost"), ("host", "evil"), ("authorization", bearer.as_str())];
        assert_eq!(reason(&door, &two), "HOST_FOREIGN");
    }

    #[test]
    fn checks_come_in_order() {
        let door = tcp("127.0.0.1:7600", &[], &[]);
        let bearer = format!("bearer {TOKEN}");
        let mut headers = vec![("host", "127.0.0.1:7600"), ("origin", "http://127.0.0.1:1")];
        assert_eq!(reason(&door, &headers), "ORIGIN_FOREIGN");
        headers[1] = ("origin", "null");
        assert_eq!(reason(&door, &headers), "ORIGIN_FOREIGN");
        headers[1] = ("origin", "http://127.0.0.1:7600");
        assert_eq!(reason(&door, &headers), "TOKEN_INVALID");
        for wrong in ["", "Bearer", "Bearer x", "Basic 0123456789abcdef0123456789abcdef", TOKEN] {
            headers.push(("authorization", wrong));
            assert_eq!(reason(&door, &headers), "TOKEN_INVALID", "{wrong}");
            headers.pop();
        }
        headers.push(("authorization", &bearer));
        assert_eq!(reason(&door, &headers), "CONTENT_TYPE_UNSUPPORTED");
        for kind in
            ["text/plain", "application/x-www-form-urlencoded", "application/grpc-webx", "application/jsonx"]
        {
            headers.push(("content-type", kind));
            assert_eq!(reason(&door, &headers), "CONTENT_TYPE_UNSUPPORTED", "{kind}");
            headers.pop();
        }
        for kind in [
            "application/json",
            "Application/JSON; charset=utf-8",
            "application/grpc",
            "application/grpc+proto",
            "application/grpc-web",
            "application/grpc-web-text+proto",
        ] {
            headers.push(("content-type", kind));
            assert_eq!(reason(&door, &headers), "", "{kind}");
            headers.pop();
        }
    }

    #[test]
    fn a_page_that_is_named_may_ask_and_must_show_the_token() {
        let door = tcp("127.0.0.1:7600", &[], &["https://ui.example"]);
        let asks = |method: &str, headers: &[(&str, &str)]| {
            let mut request = parts(headers);
            request.method = method.parse().unwrap();
            door.admit(&request, false).map_err(|r| r.failure.reason)
        };
        let host = ("host", "127.0.0.1:7600");
        let asked = ("access-control-request-method", "POST");
        let named = ("origin", "https://ui.example");
        assert_eq!(asks("OPTIONS", &[host, named, asked]), Ok(Admission::Preflight));
        assert_eq!(asks("OPTIONS", &[host, named]), Err("TOKEN_INVALID".to_owned()));
        assert_eq!(asks("POST", &[host, named, asked]), Err("TOKEN_INVALID".to_owned()));
        assert_eq!(asks("OPTIONS", &[("host", "evil"), named, asked]), Err("HOST_FOREIGN".to_owned()));
        let foreign = ("origin", "https://evil.example");
        assert_eq!(asks("OPTIONS", &[host, foreign, asked]), Err("ORIGIN_FOREIGN".to_owned()));
        let own = ("origin", "http://127.0.0.1:7600");
        assert_eq!(asks("OPTIONS", &[host, own, asked]), Err("TOKEN_INVALID".to_owned()));
    }

    #[test]
    fn the_socket_asks_for_json_only() {
        assert_eq!(reason(&Door::Socket, &[("host", "anything"), ("content-type", "application/json")]), "");
        assert_eq!(reason(&Door::Socket, &[("content-type", "text/plain")]), "CONTENT_TYPE_UNSUPPORTED");
        assert!(Door::Socket.admit(&parts(&[]), false).is_ok());
    }

    #[test]
    fn the_token_is_made_once_and_not_for_everybody() {
        let dir = tempfile::tempdir().unwrap();
        let first = token(dir.path()).unwrap();
        assert_eq!(first.len(), 64);
        assert_eq!(token(dir.path()).unwrap(), first);
        let mode = std::fs::metadata(dir.path().join(TOKEN_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777 & !0o640, 0);
        std::fs::write(dir.path().join(TOKEN_FILE), "short").unwrap();
        assert!(token(dir.path()).is_err());
    }
}
