//! One HTTP/JSON request, from its rule to its answer.

use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use http::header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Body as HttpBody, Frame};
use netloom_model::{Code, Failure};
use netloom_service::status::{from_status, http_status, to_status};
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, Value};
use tokio::time::Instant;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::{Status, Streaming};

use super::codec::DynCodec;
use super::json::{self, Json};
use super::rules::{self, Found, Rule, RuleError, Table};
use crate::grpc::{MAX_LAB_REQUEST, MAX_REQUEST};
use crate::timeout;

/// From here on a body is read as JSON away from the threads that serve calls.
const LONG: usize = 256 << 10;
/// Bytes beyond the limit that are read and dropped, so that a caller who sends too much can still read why it was refused.
const DRAINED: usize = 128 << 20;

/// What is refused before a call is made.
pub struct Refusal {
    /// HTTP's status.
    pub status: StatusCode,
    /// Why.
    pub failure: Failure,
}

/// Answers HTTP/JSON requests by calling the gRPC routes of the same process.
pub struct Transcoder {
    table: Table,
    routes: Routes,
    status: MessageDescriptor,
}

impl Transcoder {
    /// For all methods that the descriptors give an HTTP rule.
    pub fn new(descriptors: &[u8], routes: Routes) -> anyhow::Result<Transcoder> {
        let pool = DescriptorPool::decode(descriptors)?;
        let table = Table::build(&pool).map_err(|e: RuleError| anyhow::anyhow!(e))?;
        let status = pool
            .get_message_by_name("google.rpc.Status")
            .ok_or_else(|| anyhow::anyhow!("the descriptors lack google.rpc.Status"))?;
        Ok(Transcoder { table, routes, status })
    }

    /// Answers one request.
    pub async fn call<B>(&self, request: Request<B>) -> Response<Body>
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: std::fmt::Display,
    {
        self.answer(request).await.unwrap_or_else(|refusal| self.refuse(refusal))
    }

    /// A refusal as a response.
    pub fn refuse(&self, refusal: Refusal) -> Response<Body> {
        let allow = refusal.failure.metadata.get("allow").and_then(|a| HeaderValue::from_str(a).ok());
        let body = self.status_json(&to_status(refusal.failure));
        let mut response = respond(refusal.status, "application/json", whole(body));
        if let Some(allow) = allow {
            response.headers_mut().insert(ALLOW, allow);
        }
        if refusal.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(http::header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }

    async fn answer<B>(&self, request: Request<B>) -> Result<Response<Body>, Refusal>
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: std::fmt::Display,
    {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path();
        let (rule, values) = match self.table.find(&parts.method, path) {
            Found::Rule(rule, values) => (rule, values),
            Found::OtherMethods(methods) => {
                let allow = methods.iter().map(|m| m.as_str()).collect::<Vec<_>>().join(", ");
                let said = format!("{path} does not take {}: it takes {allow}", parts.method);
                let failure =
                    Failure::new(Code::Unimplemented, "METHOD_NOT_ALLOWED", said).with("allow", allow);
                return Err(Refusal { status: StatusCode::METHOD_NOT_ALLOWED, failure });
            }
            Found::Nothing => {
                let said = format!("there is nothing at {path}; the API begins at /v1/labs");
                let failure = Failure::new(Code::NotFound, "PATH_NOT_FOUND", said);
                return Err(Refusal { status: StatusCode::NOT_FOUND, failure });
            }
        };
        if rule.method.is_client_streaming() {
            let said = format!(
                "{} streams in both directions, which HTTP/JSON cannot: call it over gRPC",
                rule.method.full_name()
            );
            return Err(refusal(Failure::new(Code::Unimplemented, "BIDI_NEEDS_GRPC", said)));
        }
        let limit = match timeout::read(&parts.headers) {
            Ok(limit) => limit,
            Err(text) => return Err(wrong("grpc-timeout", format!("\"{text}\" is not a time like 30S"))),
        };
        let body = match rule.body {
            rules::Body::None => Bytes::new(),
            rules::Body::Whole | rules::Body::Field(_) => read_body(body, largest_body(rule)).await?,
        };
        let message = self.message(rule, &values, parts.uri.query().unwrap_or_default(), body).await?;
        self.forward(rule, message, &parts.headers, limit).await
    }

    /// The request message: the body, then the query, then the path, which nothing may contradict.
    async fn message(
        &self,
        rule: &Rule,
        values: &[String],
        query: &str,
        body: Bytes,
    ) -> Result<DynamicMessage, Refusal> {
        let input = rule.method.input();
        let mut message = match &rule.body {
            rules::Body::None => DynamicMessage::new(input.clone()),
            rules::Body::Whole => read_json(input.clone(), body).await?,
            rules::Body::Field(field) => {
                let kind = field.kind();
                let Some(descriptor) = kind.as_message() else {
                    return Err(refusal(Failure::internal("a body that is no message")));
                };
                let inner = read_json(descriptor.clone(), body).await?;
                let mut message = DynamicMessage::new(input.clone());
                message.set_field(field, Value::Message(inner));
                message
            }
        };
        for (name, texts) in query_parameters(query)? {
            let way = rules::resolve(&input, &name).map_err(|what| wrong(&name, what))?;
            let in_body = match &rule.body {
                rules::Body::None => false,
                rules::Body::Whole => true,
                rules::Body::Field(field) => way.first() == Some(field),
            };
            if in_body || rule.bindings.contains(&way) {
                let what = if in_body { "belongs into the body" } else { "is set by the path" };
                return Err(wrong(&name, format!("{what}: leave it out of the query")));
            }
            json::bind(&mut message, &way, &texts).map_err(|what| wrong(&name, what))?;
        }
        for (way, value) in rule.bindings.iter().zip(values) {
            let name = || way.iter().map(|f| f.name()).collect::<Vec<_>>().join(".");
            json::bind(&mut message, way, std::slice::from_ref(value))
                .map_err(|what| wrong(&name(), what))?;
        }
        Ok(message)
    }

    async fn forward(
        &self,
        rule: &Rule,
        message: DynamicMessage,
        headers: &HeaderMap,
        limit: Option<Duration>,
    ) -> Result<Response<Body>, Refusal> {
        let (service, method) = (rule.method.parent_service().full_name().to_owned(), rule.method.name());
        let path = format!("/{service}/{method}")
            .try_into()
            .map_err(|_| refusal(Failure::internal(format!("{service}.{method} is not a path"))))?;
        let codec = DynCodec { output: rule.method.output() };
        // In process: what the handler may answer is bounded by the handler.
        let mut client = tonic::client::Grpc::new(self.routes.clone()).max_decoding_message_size(usize::MAX);
        let request = tonic::Request::new(message);
        let end = limit.map(|l| Instant::now() + l);
        if rule.method.is_server_streaming() {
            let call = client.server_streaming(request, path, codec);
            let answers = timeout::bound(end, call).await.map_err(failed)?.into_inner();
            Ok(self.stream(answers, end, headers))
        } else {
            let call = client.unary(request, path, codec);
            let answer = timeout::bound(end, call).await.map_err(failed)?.into_inner();
            let body =
                serde_json::to_vec(&Json(&answer)).map_err(|e| failed(Status::internal(e.to_string())))?;
            Ok(respond(StatusCode::OK, "application/json", whole(body)))
        }
    }

    /// A line, or a server-sent event, for each answer; one with the error when the stream fails.
    fn stream(
        &self,
        answers: Streaming<DynamicMessage>,
        end: Option<Instant>,
        headers: &HeaderMap,
    ) -> Response<Body> {
        let wanted = headers.get(ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let events = wanted.split(',').any(|t| t.trim().split(';').next() == Some("text/event-stream"));
        let frame = move |json: String| {
            let text = if events { format!("data: {json}\n\n") } else { format!("{json}\n") };
            Ok::<_, Status>(Frame::data(Bytes::from(text)))
        };
        let status = self.status.clone();
        let lines = stream::unfold(Some(answers), move |answers| {
            let status = status.clone();
            async move {
                let mut answers = answers?;
                match timeout::bound(end, answers.message()).await {
                    Ok(None) => None,
                    Ok(Some(answer)) => match serde_json::to_string(&Json(&answer)) {
                        Ok(json) => Some((format!("{{\"result\":{json}}}"), Some(answers))),
                        Err(e) => Some((error_line(&status, &Status::internal(e.to_string())), None)),
                    },
                    Err(e) => Some((error_line(&status, &e), None)),
                }
            }
        });
        let body = Body::new(StreamBody::new(lines.map(frame)));
        let kind = if events { "text/event-stream" } else { "application/x-ndjson" };
        let mut response = respond(StatusCode::OK, kind, body);
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        response
    }

    fn status_json(&self, status: &Status) -> Vec<u8> {
        status_json(&self.status, status).into_bytes()
    }
}

fn error_line(descriptor: &MessageDescriptor, status: &Status) -> String {
    format!("{{\"error\":{}}}", status_json(descriptor, &to_status(from_status(status))))
}

/// A status with its details as JSON.
fn status_json(descriptor: &MessageDescriptor, status: &Status) -> String {
    let message = DynamicMessage::decode(descriptor.clone(), status.details()).ok();
    let text = message.and_then(|m| serde_json::to_string(&Json(&m)).ok());
    // The details were made by to_status, from types that the descriptors hold: this is for a fault in them.
    text.unwrap_or_else(|| {
        serde_json::json!({"code": i32::from(status.code()), "message": status.message(), "details": []})
            .to_string()
    })
}

fn respond(status: StatusCode, kind: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn whole(bytes: Vec<u8>) -> Body {
    Body::new(Full::new(Bytes::from(bytes)))
}

/// A failure with the HTTP status of its code.
fn refusal(failure: Failure) -> Refusal {
    let code = to_status(failure.clone()).code();
    let status = StatusCode::from_u16(http_status(code)).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    Refusal { status, failure }
}

fn failed(status: Status) -> Refusal {
    refusal(from_status(&status))
}

fn wrong(field: &str, what: impl Into<String>) -> Refusal {
    let (field, what) = (field.to_owned(), what.into());
    let said = if field.is_empty() { what.clone() } else { format!("{field}: {what}") };
    refusal(Failure::invalid(said, Vec::new()).violation(field, what))
}

/// Requests that carry files may be large.
fn largest_body(rule: &Rule) -> usize {
    let carries_files = rule
        .method
        .input()
        .fields()
        .any(|f| f.kind().as_message().is_some_and(|m| m.name() == "FileContent"));
    if carries_files { MAX_LAB_REQUEST } else { MAX_REQUEST }
}

async fn read_body<B>(body: B, limit: usize) -> Result<Bytes, Refusal>
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: std::fmt::Display,
{
    let mut body = Box::pin(body);
    let mut read: Vec<u8> = Vec::new();
    let mut size = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| wrong("", format!("the body cannot be read: {e}")))?;
        let Ok(data) = frame.into_data() else { continue };
        size += data.len();
        if size > limit {
            // What was read is of no use any more.
            read = Vec::new();
            if size > limit + DRAINED {
                break;
            }
        } else {
            read.extend_from_slice(&data);
        }
    }
    if size > limit {
        let said = format!("the body has more than the {limit} bytes that are taken here");
        let failure =
            Failure::new(Code::ResourceExhausted, "BODY_TOO_LARGE", said).with("limit", limit.to_string());
        return Err(Refusal { status: StatusCode::PAYLOAD_TOO_LARGE, failure });
    }
    Ok(read.into())
}

async fn read_json(descriptor: MessageDescriptor, text: Bytes) -> Result<DynamicMessage, Refusal> {
    let refused = |e: String| wrong("body", format!("is not the JSON that is expected: {e}"));
    if text.len() < LONG {
        return json::read(&descriptor, &text).map_err(refused);
    }
    let read = tokio::task::spawn_blocking(move || json::read(&descriptor, &text)).await;
    read.map_err(|_| refusal(Failure::internal("the reader of JSON ended without an answer")))?
        .map_err(refused)
}

/// Parameters in the order in which they first come, each with all its values.
fn query_parameters(query: &str) -> Result<Vec<(String, Vec<String>)>, Refusal> {
    let mut parameters: Vec<(String, Vec<String>)> = Vec::new();
    for pair in query.split('&').filter(|p| !p.is_empty()) {
        let (name, text) = pair.split_once('=').unwrap_or((pair, ""));
        let (Some(name), Some(text)) = (rules::decode(name, true), rules::decode(text, true)) else {
            return Err(wrong("", format!("\"{pair}\" in the query is not percent-encoded UTF-8")));
        };
        match parameters.iter_mut().find(|(n, _)| *n == name) {
            Some((_, texts)) => texts.push(text),
            None => parameters.push((name, vec![text])),
        }
    }
    Ok(parameters)
}
