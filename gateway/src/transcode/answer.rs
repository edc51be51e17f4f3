//! Answers over HTTP: JSON, the two forms of streams, raw bodies, and refusals.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::{Full, StreamBody};
use hyper::body::Frame;
use netloom_api::google::api::HttpBody;
use netloom_model::Failure;
use netloom_service::status::{from_status, http_status, to_status};
use prost::Message as _;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, Value};
use tokio::time::Instant;
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status, Streaming};

use super::wire::Forms;
use crate::timeout;

/// The message whose content is an answer's body as it is.
pub const RAW: &str = "google.api.HttpBody";
/// The message that says why a call failed.
const STATUS: &str = "google.rpc.Status";
/// The content type of a stream of lines.
pub const LINES: &str = "application/x-ndjson";
/// The content type of a stream of events.
pub const EVENTS: &str = "text/event-stream";
/// The content type of a raw body that names none.
const BYTES: &str = "application/octet-stream";

/// What is refused before a call is made.
#[derive(Debug)]
pub struct Refusal {
    /// HTTP's status.
    pub status: StatusCode,
    /// Why.
    pub failure: Failure,
}

impl From<Failure> for Refusal {
    /// A failure with the HTTP status of its code.
    fn from(failure: Failure) -> Refusal {
        let code = to_status(failure.clone()).code();
        let status = StatusCode::from_u16(http_status(code)).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Refusal { status, failure }
    }
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Refusal {
        from_status(&status).into()
    }
}

impl Refusal {
    /// As a response.
    pub fn into_response(self, forms: &Forms) -> Response<Body> {
        let allow = self.failure.metadata.get("allow").and_then(|a| HeaderValue::from_str(a).ok());
        let body = status_json(forms, &to_status(self.failure));
        let mut response = whole(self.status, "application/json", body);
        if let Some(allow) = allow {
            response.headers_mut().insert(ALLOW, allow);
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// An answer that is known as a whole.
pub fn whole(status: StatusCode, kind: &str, bytes: Vec<u8>) -> Response<Body> {
    let length = bytes.len();
    let mut response = respond(status, kind, Body::new(Full::new(Bytes::from(bytes))));
    response.headers_mut().insert(CONTENT_LENGTH, length.into());
    response
}

fn respond(status: StatusCode, kind: &str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let kind = HeaderValue::from_str(kind).unwrap_or_else(|_| HeaderValue::from_static(BYTES));
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// The answer to HEAD: what GET would say, without its body.
pub fn without_body(response: Response<Body>) -> Response<Body> {
    response.map(|_| Body::empty())
}

/// The answer to OPTIONS.
pub fn options(allow: &str) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    if let Ok(allow) = HeaderValue::from_str(allow) {
        response.headers_mut().insert(ALLOW, allow);
    }
    response
}

/// The answer, encoded, of a method that answers once, and its type.
pub fn unary(forms: &Forms, of: &MessageDescriptor, answer: Bytes) -> Result<Response<Body>, Refusal> {
    if is_raw(of) {
        let (kind, data) = raw(answer)?;
        return Ok(whole(StatusCode::OK, &kind, data));
    }
    Ok(whole(StatusCode::OK, "application/json", json(forms, of, &answer)?))
}

fn json(forms: &Forms, of: &MessageDescriptor, answer: &[u8]) -> Result<Vec<u8>, Status> {
    forms.json(of.full_name(), answer).map_err(|e| Status::internal(e.to_string()))
}

/// True for messages whose content is the body.
pub fn is_raw(descriptor: &MessageDescriptor) -> bool {
    descriptor.full_name() == RAW
}

/// Content type and content.
fn raw(answer: Bytes) -> Result<(String, Vec<u8>), Status> {
    let HttpBody { content_type, data, .. } =
        HttpBody::decode(answer).map_err(|e| Status::internal(e.to_string()))?;
    Ok((if content_type.is_empty() { BYTES.to_owned() } else { content_type }, data))
}

/// A stream of raw bodies, as one body of the first one's type. A failure after the first part cuts the connection: no word of ours fits into foreign bytes.
pub async fn raw_stream(
    mut answers: Streaming<Bytes>,
    end: Option<Instant>,
) -> Result<Response<Body>, Refusal> {
    let first = timeout::bound(end, answers.message()).await?;
    let more = first.is_some().then_some(answers);
    let (kind, data) = first.map_or_else(|| Ok((BYTES.to_owned(), Vec::new())), raw)?;
    let rest = stream::unfold(more, move |answers| async move {
        let mut answers = answers?;
        match timeout::bound(end, answers.message()).await {
            Ok(None) => None,
            Ok(Some(answer)) => Some((raw(answer).map(|(_, data)| data), Some(answers))),
            Err(e) => Some((Err(e), None)),
        }
    });
    let parts = stream::once(async { Ok(data) })
        .chain(rest)
        .map(|part| part.map(|data| Frame::data(Bytes::from(data))));
    Ok(unbuffered(respond(StatusCode::OK, &kind, Body::new(StreamBody::new(parts)))))
}

fn unbuffered(mut response: Response<Body>) -> Response<Body> {
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

/// How the answers of a stream are written: a line each, or an event each.
pub struct Writer {
    /// How messages are written.
    pub forms: Arc<Forms>,
    /// The type of the answers.
    pub of: MessageDescriptor,
    /// Events, not lines.
    pub events: bool,
    /// Silence after which a stream of events says that it still lives.
    pub heartbeat: Duration,
}

impl Writer {
    /// A line or an event for each answer; one with the error when the stream fails.
    pub fn stream(self, answers: Streaming<Bytes>, end: Option<Instant>) -> Response<Body> {
        let beat = self.heartbeat;
        let kind = if self.events { EVENTS } else { LINES };
        let writer = self;
        let texts = stream::unfold((Some(answers), writer), move |(answers, writer)| async move {
            let mut answers = answers?;
            let (text, more) = tokio::select! {
                biased;
                next = timeout::bound(end, answers.message()) => match next {
                    Ok(None) => return None,
                    Ok(Some(answer)) => match writer.answer(&answer) {
                        Ok(text) => (text, true),
                        Err(e) => (writer.failure(&e), false),
                    },
                    Err(e) => (writer.failure(&e), false),
                },
                () = tokio::time::sleep(beat), if writer.events => (b": still here\n\n".to_vec(), true),
            };
            Some((text, (more.then_some(answers), writer)))
        });
        let frames = texts.map(|text| Ok::<_, Status>(Frame::data(Bytes::from(text))));
        unbuffered(respond(StatusCode::OK, kind, Body::new(StreamBody::new(frames))))
    }

    /// A stream that failed before its first answer and is told so within: a page cannot read the status that its EventSource was refused with.
    pub fn failed(&self, failure: &Status) -> Response<Body> {
        unbuffered(respond(StatusCode::OK, EVENTS, Body::new(Full::new(Bytes::from(self.failure(failure))))))
    }

    fn answer(&self, answer: &[u8]) -> Result<Vec<u8>, Status> {
        let json = json(&self.forms, &self.of, answer)?;
        if !self.events {
            return Ok([b"{\"result\":", json.as_slice(), b"}\n"].concat());
        }
        let head = event(&self.of, answer)?;
        Ok([head.as_bytes(), b"data: {\"result\":", &json, b"}\n\n"].concat())
    }

    fn failure(&self, failure: &Status) -> Vec<u8> {
        let failure = to_status(from_status(failure));
        let json = status_json(&self.forms, &failure);
        if !self.events {
            return [b"{\"error\":", json.as_slice(), b"}\n"].concat();
        }
        // A number that is too old must not be resumed from: an empty id makes the page forget it, and it begins anew with a snapshot.
        let forget = if failure.code() == Code::OutOfRange { "id:\n" } else { "" };
        [forget.as_bytes(), b"event: error\ndata: {\"error\":", &json, b"}\n\n"].concat()
    }
}

/// What an event says of an answer beside its data: its number is the event's id, its type the event's name.
fn event(descriptor: &MessageDescriptor, answer: &[u8]) -> Result<String, Status> {
    let answer = DynamicMessage::decode(descriptor.clone(), answer);
    let answer = answer.map_err(|e| Status::internal(e.to_string()))?;
    let kind = descriptor.get_field_by_name("type").and_then(|field| word(&answer, &field));
    let number = descriptor.get_field_by_name("sequence").map(|field| answer.get_field(&field).into_owned());
    let mut text = String::new();
    match number {
        // Whoever resumes from the middle of a snapshot would miss the rest of it.
        Some(Value::U64(number)) if kind.as_deref() != Some("snapshot") => {
            text.push_str(&format!("id: {number}\n"));
        }
        _ => {}
    }
    if let Some(kind) = kind {
        text.push_str(&format!("event: {kind}\n"));
    }
    Ok(text)
}

/// An enum's value as a word: `WATCH_EVENT_TYPE_SNAPSHOT_END` is `snapshot_end`.
fn word(answer: &DynamicMessage, field: &FieldDescriptor) -> Option<String> {
    let Kind::Enum(of) = field.kind() else { return None };
    let value = of.get_value(answer.get_field(field).as_enum_number()?)?;
    let mut prefix = String::new();
    for c in of.name().chars() {
        if c.is_ascii_uppercase() && !prefix.is_empty() {
            prefix.push('_');
        }
        prefix.push(c.to_ascii_uppercase());
    }
    let name = value.name();
    Some(name.strip_prefix(&format!("{prefix}_")).unwrap_or(name).to_ascii_lowercase())
}

/// A status with its details as JSON.
fn status_json(forms: &Forms, status: &Status) -> Vec<u8> {
    // The details were made by to_status, from types that the descriptors hold: the rest is for a fault in them.
    forms.json(STATUS, status.details()).unwrap_or_else(|_| {
        serde_json::json!({"code": i32::from(status.code()), "message": status.message(), "details": []})
            .to_string()
            .into_bytes()
    })
}

/// Prefix of headers that become metadata of the call, and of metadata of the answer that becomes headers.
const METADATA: &str = "grpc-metadata-";

/// Headers `Grpc-Metadata-…` as metadata. gRPC's own names are not for callers to set.
pub fn request_metadata(headers: &HeaderMap) -> MetadataMap {
    let mut metadata = HeaderMap::new();
    for (name, value) in headers {
        let key = name.as_str().strip_prefix(METADATA).filter(|k| is_metadata(k));
        if let Some(Ok(key)) = key.map(str::parse::<HeaderName>) {
            metadata.append(key, value.clone());
        }
    }
    MetadataMap::from_headers(metadata)
}

/// Metadata of an answer as headers `Grpc-Metadata-…`.
pub fn response_headers(metadata: MetadataMap, headers: &mut HeaderMap) {
    for (key, value) in &metadata.into_headers() {
        if is_metadata(key.as_str())
            && let Ok(name) = format!("{METADATA}{key}").parse::<HeaderName>()
        {
            headers.append(name, value.clone());
        }
    }
}

fn is_metadata(key: &str) -> bool {
    const TRANSPORT: [&str; 9] = [
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "date",
        "te",
        "trailer",
        "transfer-encoding",
        "user-agent",
    ];
    !key.is_empty() && !key.starts_with("grpc-") && !TRANSPORT.contains(&key)
}
